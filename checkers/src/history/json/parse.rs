//! JSON text to [`Datum`]s, one form at a time.
//!
//! ```text
//! {"f":"read","value":null}  ->  Map([(Text f, Text read), (Text value, Nil)])
//! ```
//!
//! Beside the crate's other reader of JSON because whole numbers of any size keep their digits here, and because an array
//! is read item by item. Deliberately bounded: forms nest at most [`MAX_DEPTH`] deep.

use crate::history::{
    edn::integer,
    formats::{
        Datum,
        forms::{MAX_DEPTH, Stop, Syntax, found, text_of},
        strings,
    },
};

/// The syntax of JSON.
pub(crate) struct Json;

impl Syntax for Json {
    const SEPARATED: bool = true;

    fn blanks(text: &[u8], at: usize, _ended: bool) -> Result<usize, Stop> {
        Ok(blanks(text, at))
    }

    fn form<'a>(text: &'a [u8], at: usize, ended: bool) -> Result<(Datum<'a>, usize), Stop> {
        let mut parser = Parser { text, at, ended, depth: 0 };
        let datum = parser.form()?;
        Ok((datum, parser.at))
    }

    fn is_item(text: &[u8]) -> bool {
        matches!(text, [b'{' | b'[' | b']', ..])
    }
}

fn blanks(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether nothing comes behind `text`.
    ended: bool,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn expected<T>(&self, what: &str) -> Result<T, Stop> {
        let problem = format!("expected {what}, found {}", found(&self.text[self.at..]));
        Err(Stop::Bad { at: self.at, problem })
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Result<u8, Stop> {
        self.at = blanks(self.text, self.at);
        self.text.get(self.at).copied().ok_or(Stop::More)
    }

    fn enter(&mut self) -> Result<(), Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let problem = format!("values nest more than {MAX_DEPTH} deep here, which no history does");
            return Err(Stop::Bad { at: self.at, problem });
        }
        self.at += 1;
        Ok(())
    }

    fn form(&mut self) -> Result<Datum<'a>, Stop> {
        match self.peek()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => strings::quoted(self.text, &mut self.at, false).map(Datum::Text),
            b'-' | b'0'..=b'9' => self.number(),
            b'a'..=b'z' => self.word(),
            _ => self.expected("a value"),
        }
    }

    fn object(&mut self) -> Result<Datum<'a>, Stop> {
        self.enter()?;
        let mut entries = Vec::with_capacity(6);
        if self.peek()? != b'}' {
            loop {
                if self.peek()? != b'"' {
                    return self.expected("a name in quotes");
                }
                let name = strings::quoted(self.text, &mut self.at, false)?;
                if self.peek()? != b':' {
                    return self.expected("':'");
                }
                self.at += 1;
                entries.push((Datum::Text(name), self.form()?));
                match self.peek()? {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return self.expected("',' or '}'"),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(Datum::Map(entries))
    }

    fn array(&mut self) -> Result<Datum<'a>, Stop> {
        self.enter()?;
        let mut items = Vec::new();
        if self.peek()? != b']' {
            loop {
                items.push(self.form()?);
                match self.peek()? {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return self.expected("',' or ']'"),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(Datum::List(items))
    }

    /// As long as the bytes are of this kind.
    fn token(&mut self, kind: fn(&u8) -> bool) -> Result<&'a str, Stop> {
        let start = self.at;
        self.at += self.text[start..].iter().take_while(|byte| kind(byte)).count();
        if self.at == self.text.len() && !self.ended {
            return Err(Stop::More);
        }
        text_of(self.text, start, self.at)
    }

    fn word(&mut self) -> Result<Datum<'a>, Stop> {
        let start = self.at;
        match self.token(u8::is_ascii_alphanumeric)? {
            "null" => Ok(Datum::Nil),
            "true" => Ok(Datum::Bool(true)),
            "false" => Ok(Datum::Bool(false)),
            word => Err(Stop::Bad { at: start, problem: format!("expected a value, found {word}") }),
        }
    }

    fn number(&mut self) -> Result<Datum<'a>, Stop> {
        let start = self.at;
        let token = self.token(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))?;
        let float = || token.parse().ok().filter(|float: &f64| float.is_finite()).map(Datum::Float);
        integer(token)
            .or_else(float)
            .ok_or_else(|| Stop::Bad { at: start, problem: format!("{token} is no number") })
    }
}
