//! Forms to [`Value`]s and JSON, and back: nothing is lost, and what is equal stays equal.
//!
//! ```text
//! EDN                  Value                          EDN again
//! nil true 5 5N [1 2]  Nil Bool Int Int List          nil true 5 5 [1 2]
//! "x"                  Text("x")                      "x"
//! :x                   Text(":x")                     :x
//! ":x"                 Text("#edn \":x\"")            ":x"
//! 1.50 1/3 \a sym      Text("#edn 1.5") …             1.5 1/3 \a sym
//! #{2 1} {:a 1}        Text("#edn #{1 2}") …          #{1 2} {:a 1}
//! ```
//!
//! One rule: what a [`Value`] has no kind for is the text `#edn ` and its EDN, in the one spelling that all equal forms
//! share; keywords are so common that they are their own spelling; and a string that looks like either is quoted behind
//! `#edn `. In JSON strings stay as they are. Deliberately without rounding: `1` and `1.0` differ, as they do in Clojure.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::{Datum, datum::push_quoted};
use crate::{
    Value,
    history::edn::{is_plain_word, whole},
};

/// How deep values may nest: the readers of JSON stop at 128.
const MAX_DEPTH: usize = 100;

/// In which language a form was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Edn,
    Json,
}

/// Where a form goes, which decides what has a kind of its own there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spot {
    /// A [`Value`].
    Value,
    /// A JSON value.
    Json,
    /// The name of a field of a JSON object: everything is text.
    Name,
}

const ESCAPE: &str = "#edn ";

/// The EDN that a text stands for, if it is not simply a string.
fn raw(text: &str, spot: Spot) -> Option<&str> {
    if let Some(word) = text.strip_prefix(':') {
        return is_plain_word(word).then_some(text);
    }
    let edn = text.strip_prefix(ESCAPE)?;
    let datum = whole(edn)?;
    (as_text(&datum, spot, Dialect::Edn).as_deref() == Some(text)).then_some(edn)
}

/// The text that a form becomes, unless it has a kind of its own.
fn as_text<'d>(datum: &'d Datum<'_>, spot: Spot, dialect: Dialect) -> Option<Cow<'d, str>> {
    let own_kind = match datum {
        Datum::Text(text) => {
            return Some(if dialect == Dialect::Edn && raw(text, spot).is_some() {
                let mut quoted = ESCAPE.to_owned();
                push_quoted(&mut quoted, text);
                Cow::Owned(quoted)
            } else {
                Cow::Borrowed(text)
            });
        }
        Datum::Keyword(word) if is_plain_word(word) => return Some(Cow::Owned(format!(":{word}"))),
        Datum::Nil | Datum::Bool(_) | Datum::Int(_) | Datum::List(_) => spot != Spot::Name,
        Datum::Big(digits) => spot == Spot::Json && digits.parse::<u64>().is_ok(),
        Datum::Float(number) => spot == Spot::Json && number.is_finite(),
        Datum::Set(_) | Datum::Map(_) => spot == Spot::Json,
        datum @ Datum::Tagged(..) => spot != Spot::Name && datum.tagged_tuple().is_some(),
        Datum::Keyword(_) | Datum::Symbol(_) | Datum::Other(_) => false,
    };
    (!own_kind).then(|| Cow::Owned(format!("{ESCAPE}{}", datum.text())))
}

/// A form as a value.
///
/// # Errors
/// It nests too deep.
pub(crate) fn to_value(datum: &Datum<'_>, dialect: Dialect) -> Result<Value, String> {
    value_within(datum, dialect, MAX_DEPTH)
}

fn value_within(datum: &Datum<'_>, dialect: Dialect, depth: usize) -> Result<Value, String> {
    Ok(match datum {
        Datum::Nil => Value::Nil,
        Datum::Bool(truth) => Value::Bool(*truth),
        Datum::Int(number) => Value::Int(*number),
        Datum::List(items) => {
            let depth = deeper(depth)?;
            Value::List(
                items.iter().map(|item| value_within(item, dialect, depth)).collect::<Result<_, _>>()?,
            )
        }
        datum => match datum.tagged_tuple() {
            Some(pair) => {
                let depth = deeper(depth)?;
                Value::List(
                    pair.iter().map(|item| value_within(item, dialect, depth)).collect::<Result<_, _>>()?,
                )
            }
            None => Value::Text(as_text(datum, Spot::Value, dialect).unwrap_or_default().into()),
        },
    })
}

/// What a whole register, set or bank holds: a set as the sorted list of its elements, a map as the sorted list of its
/// `[key value]`s.
///
/// # Errors
/// It nests too deep.
pub(crate) fn to_contents(datum: &Datum<'_>, dialect: Dialect) -> Result<Value, String> {
    let value = |datum: &Datum<'_>| to_value(datum, dialect);
    match datum.untagged() {
        Datum::Set(items) => {
            let mut items = items.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            items.sort_unstable();
            items.dedup();
            Ok(items.into())
        }
        Datum::Map(entries) => {
            let pair = |(k, v): &(Datum<'_>, Datum<'_>)| Ok(Value::from(vec![value(k)?, value(v)?]));
            let mut pairs = entries.iter().map(pair).collect::<Result<Vec<_>, String>>()?;
            pairs.sort_unstable();
            Ok(pairs.into())
        }
        _ => value(datum),
    }
}

/// A form as JSON.
///
/// # Errors
/// It nests too deep.
pub(crate) fn to_json(datum: &Datum<'_>, dialect: Dialect) -> Result<Json, String> {
    json_within(datum, dialect, MAX_DEPTH)
}

fn json_within(datum: &Datum<'_>, dialect: Dialect, depth: usize) -> Result<Json, String> {
    let array = |items: &[Datum<'_>]| {
        let depth = deeper(depth)?;
        let items: Result<Vec<Json>, String> =
            items.iter().map(|item| json_within(item, dialect, depth)).collect();
        Ok::<Json, String>(Json::Array(items?))
    };
    if let Some(pair) = datum.tagged_tuple() {
        return array(pair);
    }
    if let Some(text) = as_text(datum, Spot::Json, dialect) {
        return Ok(Json::String(text.into_owned()));
    }
    Ok(match datum {
        Datum::Bool(truth) => Json::Bool(*truth),
        Datum::Int(number) => Json::from(*number),
        Datum::Big(digits) => digits.parse::<u64>().map_or(Json::Null, Json::from),
        Datum::Float(number) => Json::from(*number),
        Datum::List(items) => array(items)?,
        Datum::Set(items) => {
            let mut items = items.clone();
            items.sort_by_cached_key(Datum::text);
            array(&items)?
        }
        Datum::Map(entries) => {
            let depth = deeper(depth)?;
            let mut object = serde_json::Map::new();
            for (key, value) in entries {
                let name = as_text(key, Spot::Name, dialect).unwrap_or_default().into_owned();
                object.insert(name, json_within(value, dialect, depth)?);
            }
            Json::Object(object)
        }
        _ => Json::Null,
    })
}

fn deeper(depth: usize) -> Result<usize, String> {
    depth.checked_sub(1).ok_or_else(|| format!("its value nests more than {MAX_DEPTH} deep"))
}

/// Adds a value as EDN.
pub(crate) fn push_value(out: &mut String, value: &Value) {
    match value {
        Value::Nil => out.push_str("nil"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Text(text) => push_text(out, text, Spot::Value),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                push_value(out, item);
            }
            out.push(']');
        }
    }
}

/// Adds a JSON value as EDN.
pub(crate) fn push_json(out: &mut String, json: &Json) {
    match json {
        Json::Null => out.push_str("nil"),
        Json::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => out.push_str(&format!("{float:?}")),
            _ => out.push_str(&number.to_string()),
        },
        Json::String(text) => push_text(out, text, Spot::Json),
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                push_json(out, item);
            }
            out.push(']');
        }
        Json::Object(entries) => {
            out.push('{');
            for (i, (name, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                push_text(out, name, Spot::Name);
                out.push(' ');
                push_json(out, value);
            }
            out.push('}');
        }
    }
}

fn push_text(out: &mut String, text: &str, spot: Spot) {
    match raw(text, spot) {
        Some(edn) => out.push_str(edn),
        None => push_quoted(out, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(edn: &str) -> Value {
        to_value(&whole(edn).unwrap_or(Datum::Symbol("malformed")), Dialect::Edn).unwrap()
    }

    #[test]
    fn a_value_keeps_what_it_is() {
        for (edn, expected) in [
            ("5N", Value::Int(5)),
            ("(1 nil)", vec![Value::Int(1), Value::Nil].into()),
            (r#""x""#, "x".into()),
            (":x", ":x".into()),
            (":x/y", ":x/y".into()),
            (":é", "#edn :é".into()),
            (r#"":x""#, r#"#edn ":x""#.into()),
            (r#"":x y""#, ":x y".into()),
            (r##""#edn 5""##, "#edn 5".into()),
            (r##""#edn 1.5""##, r##"#edn "#edn 1.5""##.into()),
            ("1.50", "#edn 1.5".into()),
            ("x", "#edn x".into()),
            (r"\a", r"#edn \a".into()),
            ("9223372036854775808N", "#edn 9223372036854775808".into()),
            ("#{2 1}", "#edn #{1 2}".into()),
            ("{:b \":x\", :a 1}", r#"#edn {:a 1 :b ":x"}"#.into()),
            ("#inst \"2026\"", "#edn #inst \"2026\"".into()),
            ("#jepsen.independent.Tuple[1 2]", vec![Value::Int(1), Value::Int(2)].into()),
        ] {
            assert_eq!(value(edn), expected, "{edn}");
            let mut again = String::new();
            push_value(&mut again, &expected);
            assert_eq!(value(&again), expected, "{edn} again, as {again}");
        }
    }

    #[test]
    fn contents_are_sorted() {
        let contents = |edn| to_contents(&whole(edn).unwrap(), Dialect::Edn).unwrap().to_string();
        assert_eq!(contents("#{3 1 2}"), "[1 2 3]");
        assert_eq!(contents("#ordered/set (3 1)"), "\"#edn #ordered/set [3 1]\"");
        assert_eq!(contents("{1 5, 0 nil}"), "[[0 nil] [1 5]]");
    }

    #[test]
    fn what_nests_too_deep_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let deep = nested(MAX_DEPTH + 1);
        let datum = whole(&deep).unwrap();
        assert_eq!(to_value(&datum, Dialect::Edn), Err("its value nests more than 100 deep".into()));
        assert!(to_json(&datum, Dialect::Json).is_err());
        assert!(to_value(&whole(&nested(MAX_DEPTH)).unwrap(), Dialect::Edn).is_ok());
    }
}
