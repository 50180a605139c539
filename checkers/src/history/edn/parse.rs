//! EDN text to [`Datum`]s, one form at a time.
//!
//! ```text
//! "; why\n {:f :read, :value #{1 2}} …"  ->  blanks: 7 bytes; form: Map([…]), 26 bytes
//! ```
//!
//! Deliberately generous with what Clojure prints beside EDN (`#object[… 0x1f …]`, `5N`, `1.5M`, `1/3`, `##Inf`), and
//! deliberately bounded: forms nest at most [`MAX_DEPTH`] deep.

use std::borrow::Cow;

use crate::history::formats::{
    Datum,
    forms::{MAX_DEPTH, Stop, Syntax, found, text_of},
    strings,
};

/// The syntax of EDN.
pub(crate) struct Edn;

impl Syntax for Edn {
    const SEPARATED: bool = false;

    fn blanks(text: &[u8], at: usize, ended: bool) -> Result<usize, Stop> {
        Parser { text, at, ended, depth: 0 }.blanks()
    }

    fn form<'a>(text: &'a [u8], at: usize, ended: bool) -> Result<(Datum<'a>, usize), Stop> {
        let mut parser = Parser { text, at, ended, depth: 0 };
        let datum = parser.form()?;
        Ok((datum, parser.at))
    }

    fn is_item(text: &[u8]) -> bool {
        match text {
            [b'{' | b'[' | b'(' | b']' | b')', ..] => true,
            // A tag; but a set is a value, as in `[#{…} …]`.
            [b'#', next, ..] => next.is_ascii_alphabetic(),
            _ => false,
        }
    }
}

/// Parses a text that is one form and nothing else.
pub(crate) fn whole(text: &str) -> Option<Datum<'_>> {
    let (datum, end) = Edn::form(text.as_bytes(), 0, true).ok()?;
    (end == text.len()).then_some(datum)
}

/// Whether these are the characters of a keyword that every reader of EDN takes for one.
pub(crate) fn is_plain_word(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.?!*+<>=/".contains(&byte))
        && !word.ends_with('/')
        && !word.contains("//")
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether nothing comes behind `text`.
    ended: bool,
    depth: usize,
}

fn is_delimiter(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = byte <= 0x20
                || matches!(byte as u8, b',' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'"' | b';' | 0x7f);
            byte += 1;
        }
        table
    };
    TABLE[usize::from(byte)]
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | 0x0b | 0x0c)
}

impl<'a> Parser<'a> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn bad<T>(&self, at: usize, problem: impl Into<String>) -> Result<T, Stop> {
        Err(Stop::Bad { at, problem: problem.into() })
    }

    /// Behind blanks, comments and discarded forms.
    fn blanks(&mut self) -> Result<usize, Stop> {
        loop {
            match self.peek(0) {
                Some(byte) if is_blank(byte) => self.at += 1,
                Some(b';') => match self.text[self.at..].iter().position(|byte| *byte == b'\n') {
                    Some(length) => self.at += length,
                    None if self.ended => self.at = self.text.len(),
                    None => return Err(Stop::More),
                },
                Some(b'#') => match self.peek(1) {
                    Some(b'_') => {
                        self.at += 2;
                        self.enter()?;
                        self.form()?;
                        self.depth -= 1;
                    }
                    None if !self.ended => return Err(Stop::More),
                    _ => return Ok(self.at),
                },
                _ => return Ok(self.at),
            }
        }
    }

    fn enter(&mut self) -> Result<(), Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self
                .bad(self.at, format!("forms nest more than {MAX_DEPTH} deep here, which no history does"));
        }
        Ok(())
    }

    fn form(&mut self) -> Result<Datum<'a>, Stop> {
        self.blanks()?;
        let Some(byte) = self.peek(0) else { return Err(Stop::More) };
        match byte {
            b'{' => {
                self.at += 1;
                self.map()
            }
            b'[' => self.list(b']').map(Datum::List),
            b'(' => self.list(b')').map(Datum::List),
            b'"' => strings::quoted(self.text, &mut self.at, true).map(Datum::Text),
            b'\\' => self.character(),
            b'#' => self.dispatch(),
            b':' => {
                let start = self.at;
                let word = self.token()?;
                if word.len() < 2 {
                    return self.bad(start, "a keyword has a name behind its colon");
                }
                Ok(Datum::Keyword(&word[1..]))
            }
            b'0'..=b'9' => self.number(),
            b'+' | b'-' if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) => self.number(),
            b'+' | b'-' if self.peek(1).is_none() && !self.ended => Err(Stop::More),
            byte if is_delimiter(byte) || b"@^`~'".contains(&byte) => {
                let what = found(&self.text[self.at..]);
                self.bad(self.at, format!("expected a form, found {what}"))
            }
            _ => Ok(match self.token()? {
                "nil" => Datum::Nil,
                "true" => Datum::Bool(true),
                "false" => Datum::Bool(false),
                word => Datum::Symbol(word),
            }),
        }
    }

    /// Up to the next delimiter.
    fn token(&mut self) -> Result<&'a str, Stop> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = match rest.iter().position(|byte| is_delimiter(*byte)) {
            Some(length) => length,
            None if self.ended => rest.len(),
            None => return Err(Stop::More),
        };
        self.at += length;
        text_of(self.text, start, self.at)
    }

    /// The items of a list or a set, from its opening bracket to its closing one.
    fn list(&mut self, close: u8) -> Result<Vec<Datum<'a>>, Stop> {
        self.enter()?;
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blanks()?;
            match self.peek(0) {
                None => return Err(Stop::More),
                Some(byte) if byte == close => break,
                Some(b']' | b')' | b'}') => {
                    let what = found(&self.text[self.at..]);
                    return self
                        .bad(self.at, format!("expected a form or '{}', found {what}", close as char));
                }
                Some(_) => items.push(self.form()?),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(items)
    }

    /// From behind the opening brace.
    fn map(&mut self) -> Result<Datum<'a>, Stop> {
        self.enter()?;
        let mut entries = Vec::with_capacity(6);
        loop {
            self.blanks()?;
            match self.peek(0) {
                None => return Err(Stop::More),
                Some(b'}') => break,
                _ => {}
            }
            let key = self.form()?;
            self.blanks()?;
            match self.peek(0) {
                None => return Err(Stop::More),
                Some(b'}') => {
                    return self.bad(self.at, format!("expected the value of {}, found '}}'", key.brief()));
                }
                _ => entries.push((key, self.form()?)),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(Datum::Map(entries))
    }

    /// What begins with `#`.
    fn dispatch(&mut self) -> Result<Datum<'a>, Stop> {
        let start = self.at;
        match self.peek(1) {
            None if self.ended => {
                self.bad(start, "expected a tag or a set behind '#', found the end of the file")
            }
            None => Err(Stop::More),
            Some(b'{') => {
                self.at += 1;
                self.list(b'}').map(Datum::Set)
            }
            Some(b'#') => match self.token()? {
                "##NaN" => Ok(Datum::Float(f64::NAN)),
                "##Inf" => Ok(Datum::Float(f64::INFINITY)),
                "##-Inf" => Ok(Datum::Float(f64::NEG_INFINITY)),
                other => self.bad(start, format!("expected ##NaN, ##Inf or ##-Inf, found {other}")),
            },
            Some(byte) if byte.is_ascii_alphabetic() => {
                let tag = &self.token()?[1..];
                self.enter()?;
                let inner = self.form()?;
                self.depth -= 1;
                Ok(Datum::Tagged(tag, Box::new(inner)))
            }
            Some(_) => {
                let what = found(&self.text[start + 1..]);
                self.bad(start, format!("expected a tag or a set behind '#', found {what}"))
            }
        }
    }

    fn character(&mut self) -> Result<Datum<'a>, Stop> {
        let start = self.at;
        // The first character may be a delimiter: `\(`, `\"`.
        let Some(first) = self.peek(1) else {
            return if self.ended {
                self.bad(start, "a character is missing behind '\\'")
            } else {
                Err(Stop::More)
            };
        };
        self.at += 2;
        if !is_delimiter(first) {
            self.token()?;
        }
        let name = text_of(self.text, start + 1, self.at)?;
        let hex = |digits| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        let char = match name {
            "newline" => Some('\n'),
            "space" => Some(' '),
            "tab" => Some('\t'),
            "return" => Some('\r'),
            "backspace" => Some('\u{8}'),
            "formfeed" => Some('\u{c}'),
            _ if name.chars().count() == 1 => name.chars().next(),
            _ => name.strip_prefix('u').and_then(hex),
        };
        match char {
            Some(char) => Ok(Datum::Other(spell(char))),
            None => self.bad(start, format!("\\{name} is no character")),
        }
    }

    fn number(&mut self) -> Result<Datum<'a>, Stop> {
        let start = self.at;
        let token = self.token()?;
        match number(token) {
            Some(datum) => Ok(datum),
            None => self.bad(start, format!("{token} is no number")),
        }
    }
}

/// A character as EDN.
fn spell(char: char) -> String {
    match char {
        '\n' => "\\newline".into(),
        ' ' => "\\space".into(),
        '\t' => "\\tab".into(),
        '\r' => "\\return".into(),
        char if char.is_control() => format!("\\u{:04x}", u32::from(char)),
        char => format!("\\{char}"),
    }
}

/// A number of any kind: `-5`, `5N`, `0x1f`, `1.5`, `1e9`, `1.50M`, `2/6`.
fn number(token: &str) -> Option<Datum<'_>> {
    // Nearly all of them.
    if let Ok(small) = token.parse() {
        return Some(Datum::Int(small));
    }
    if let Some(hex) = token.strip_prefix("0x") {
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        return match i64::from_str_radix(hex, 16) {
            Ok(small) => Some(Datum::Int(small)),
            Err(_) => Some(Datum::Other(token.to_lowercase())),
        };
    }
    if let Some((above, below)) = token.split_once('/') {
        return ratio(above, below);
    }
    if let Some(whole) = integer(token.strip_suffix('N').unwrap_or(token)) {
        return Some(whole);
    }
    let digits = token.strip_suffix('M').unwrap_or(token);
    let shaped = digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let float: f64 = digits.parse().ok().filter(|_| shaped)?;
    if digits.len() == token.len() {
        return Some(Datum::Float(float));
    }
    // A decimal keeps all its digits; only zeros at the end of a plain fraction are ornament.
    let plain = digits.trim_start_matches('+');
    let plain = match plain.contains('.') && !plain.contains(['e', 'E']) {
        true => plain.trim_end_matches('0').trim_end_matches('.'),
        false => plain,
    };
    Some(Datum::Other(format!("{plain}M")))
}

/// A whole number of any size.
pub(crate) fn integer(digits: &str) -> Option<Datum<'_>> {
    if let Ok(small) = digits.parse() {
        return Some(Datum::Int(small));
    }
    let (sign, plain) = match digits.strip_prefix('-') {
        Some(plain) => ("-", plain),
        None => ("", digits.strip_prefix('+').unwrap_or(digits)),
    };
    if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let plain = plain.trim_start_matches('0');
    // Zeros in front may have hidden a small number.
    match format!("{sign}{plain}").parse() {
        Ok(small) => Some(Datum::Int(small)),
        Err(_) if plain.is_empty() => Some(Datum::Int(0)),
        Err(_) if sign.is_empty() => Some(Datum::Big(Cow::Borrowed(plain))),
        Err(_) => Some(Datum::Big(Cow::Owned(format!("-{plain}")))),
    }
}

/// A ratio in lowest terms, as far as 128 bits can tell.
fn ratio(above: &str, below: &str) -> Option<Datum<'static>> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let above = above.strip_prefix('+').unwrap_or(above);
    if !digits(above.strip_prefix('-').unwrap_or(above)) || !digits(below) {
        return None;
    }
    let (Ok(a), Ok(b)) = (above.parse::<i128>(), below.parse::<i128>()) else {
        return Some(Datum::Other(format!("{above}/{below}")));
    };
    let (mut x, mut y) = (a.unsigned_abs(), b.unsigned_abs());
    while y != 0 {
        (x, y) = (y, x % y);
    }
    if b == 0 {
        return None;
    }
    // The divisor divides `b`, which is positive and fits.
    let divisor = i128::try_from(x).ok()?;
    let (a, b) = (a / divisor, b / divisor);
    match (i64::try_from(a), b) {
        (Ok(whole), 1) => Some(Datum::Int(whole)),
        (_, 1) => Some(Datum::Big(Cow::Owned(a.to_string()))),
        _ => Some(Datum::Other(format!("{a}/{b}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(edn: &str) -> String {
        whole(edn).map_or_else(|| format!("no: {edn}"), |datum| datum.text())
    }

    #[test]
    fn equal_forms_have_one_text() {
        for (edn, expected) in [
            ("5N", "5"),
            ("+5", "5"),
            ("0005", "5"),
            ("-0", "0"),
            ("0x1F", "31"),
            ("9223372036854775808N", "9223372036854775808"),
            ("-00009223372036854775809", "-9223372036854775809"),
            ("1.50", "1.5"),
            ("-0.0", "0.0"),
            ("1e3", "1000.0"),
            ("##Inf", "##Inf"),
            ("1.50M", "1.5M"),
            ("2.0M", "2M"),
            ("2/6", "1/3"),
            ("-4/2", "-2"),
            (r"\a", r"\a"),
            (r"\u0041", r"\A"),
            (r"\newline", r"\newline"),
            (r"[\( \) \space]", r"[\( \) \space]"),
            (r#""a\n\u00e9\101""#, r#""a\néA""#),
            ("#{3 1, 2 1}", "#{1 2 3}"),
            ("{:b 2, :a [1 (2 3)]}", "{:a [1 [2 3]] :b 2}"),
            ("[a/b :c/d true false nil -x +]", "[a/b :c/d true false nil -x +]"),
            ("#inst \"2026-01-02\"", "#inst \"2026-01-02\""),
            ("#object[clojure.Foo 0x1f \"x\"]", "#object [clojure.Foo 31 \"x\"]"),
            ("[1 #_2 #_ [3 #_4] 5 ; 6\n 7]", "[1 5 7]"),
        ] {
            assert_eq!(text(edn), expected, "{edn}");
            assert_eq!(text(expected), expected, "{edn} again");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for edn in [
            "", "[", "]", "{:a}", "\"x", "\"\\q\"", "1a", "1/0", "1/", ":", "#", "#(", "##x", "\\bogus",
            "@x", "[1)", "0x", "0xg", "1.5.5", "#_",
        ] {
            assert_eq!(whole(edn), None, "{edn}");
        }
    }
}
