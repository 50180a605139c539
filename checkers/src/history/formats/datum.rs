//! `Datum`: one form of a file, EDN or JSON, before anybody asks what it means.
//!
//! ```text
//! {:f :cas, :value [1 2]}      Map([(Keyword f, Keyword cas), (Keyword value, List([Int 1, Int 2]))])
//! {"f":"cas","value":[1,2]}    Map([(Text f, Text cas), (Text value, List([Int 1, Int 2]))])
//! ```
//!
//! Deliberately small and short-lived: there is one tree at a time, of one event, and it borrows from the file's bytes.
//! Lists and vectors are one thing, as they are equal in Clojure.

use std::borrow::Cow;

/// A form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Datum<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    /// A whole number that does not fit `Int`: its digits, without `+` and leading zeros.
    Big(Cow<'a, str>),
    Float(f64),
    /// What has no meaning here but can be compared: a ratio, a decimal, a character, as EDN writes it.
    Other(String),
    Text(Cow<'a, str>),
    /// Without its colon.
    Keyword(&'a str),
    Symbol(&'a str),
    /// Lists and vectors.
    List(Vec<Datum<'a>>),
    Set(Vec<Datum<'a>>),
    Map(Vec<(Datum<'a>, Datum<'a>)>),
    /// `#tag form`; the tag without `#`.
    Tagged(&'a str, Box<Datum<'a>>),
}

impl<'a> Datum<'a> {
    /// The name that a keyword, a string or a symbol stands for.
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Datum::Keyword(word) | Datum::Symbol(word) => Some(word),
            Datum::Text(word) => Some(word),
            _ => None,
        }
    }

    /// Whether there is nothing.
    pub(crate) fn is_nil(&self) -> bool {
        *self == Datum::Nil
    }

    /// The form without the tags around it.
    pub(crate) fn untagged(&self) -> &Datum<'a> {
        let mut datum = self;
        while let Datum::Tagged(_, inner) = datum {
            datum = inner;
        }
        datum
    }

    /// The elements of a list, whatever its tag.
    pub(crate) fn list(&self) -> Option<&[Datum<'a>]> {
        match self.untagged() {
            Datum::List(list) => Some(list),
            _ => None,
        }
    }

    /// `[key value]`, as `jepsen.independent` makes them, when it says so itself.
    pub(crate) fn tagged_tuple(&self) -> Option<&[Datum<'a>]> {
        match self {
            Datum::Tagged(tag, inner)
                if matches!(*tag, "jepsen.independent.Tuple" | "clojure.lang.MapEntry")
                    || tag.ends_with("/tuple") =>
            {
                inner.list().filter(|list| list.len() == 2)
            }
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Datum::Nil => "nil",
            Datum::Bool(_) => "a boolean",
            Datum::Int(_) | Datum::Big(_) => "a whole number",
            Datum::Float(_) => "a fraction",
            Datum::Other(_) => "a number or character",
            Datum::Text(_) => "a string",
            Datum::Keyword(_) => "a keyword",
            Datum::Symbol(_) => "a symbol",
            Datum::List(_) => "a list",
            Datum::Set(_) => "a set",
            Datum::Map(_) => "a map",
            Datum::Tagged(..) => "a tagged form",
        }
    }

    /// As EDN, one text for all forms that are equal: sets and maps sorted, numbers without ornaments.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.push_text(&mut out);
        out
    }

    /// The same, cut to a length that fits a message.
    pub(crate) fn brief(&self) -> String {
        const MOST: usize = 80;
        let mut text = self.text();
        if let Some((end, _)) = text.char_indices().nth(MOST) {
            text.truncate(end);
            text.push('…');
        }
        text
    }

    fn push_text(&self, out: &mut String) {
        match self {
            Datum::Nil => out.push_str("nil"),
            Datum::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
            Datum::Int(number) => out.push_str(&number.to_string()),
            Datum::Big(digits) => out.push_str(digits),
            Datum::Float(number) => push_float(out, *number),
            Datum::Other(text) => out.push_str(text),
            Datum::Text(text) => push_quoted(out, text),
            Datum::Keyword(word) => {
                out.push(':');
                out.push_str(word);
            }
            Datum::Symbol(word) => out.push_str(word),
            Datum::List(list) => {
                out.push('[');
                for (i, item) in list.iter().enumerate() {
                    if i > 0 {
                        out.push(' ');
                    }
                    item.push_text(out);
                }
                out.push(']');
            }
            Datum::Set(items) => {
                let mut texts: Vec<String> = items.iter().map(Datum::text).collect();
                texts.sort_unstable();
                texts.dedup();
                out.push_str("#{");
                out.push_str(&texts.join(" "));
                out.push('}');
            }
            Datum::Map(entries) => {
                let mut texts: Vec<String> =
                    entries.iter().map(|(key, value)| format!("{} {}", key.text(), value.text())).collect();
                texts.sort_unstable();
                texts.dedup();
                out.push('{');
                out.push_str(&texts.join(" "));
                out.push('}');
            }
            Datum::Tagged(tag, inner) => {
                out.push('#');
                out.push_str(tag);
                out.push(' ');
                inner.push_text(out);
            }
        }
    }
}

/// A fraction as EDN. Zero has no sign: `0.0` equals `-0.0`.
fn push_float(out: &mut String, number: f64) {
    if number.is_nan() {
        out.push_str("##NaN");
    } else if number.is_infinite() {
        out.push_str(if number > 0.0 { "##Inf" } else { "##-Inf" });
    } else {
        let number = if number == 0.0 { 0.0 } else { number };
        out.push_str(&format!("{number:?}"));
    }
}

/// A string as EDN.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            char => out.push(char),
        }
    }
    out.push('"');
}
