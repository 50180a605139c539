//! The formats in which histories are stored, and which one a file is in.
//!
//! ```text
//! {"format":"tribunal-history",…    jsonl   our own: a header, then one event a line
//! {:type :invoke, …   [{…   ({…     edn     Jepsen's
//! {"type":"invoke",…  [{"…          json    Jepsen's words in JSON, without a header
//! ```
//!
//! The first bytes decide. `edn` and `json` share everything but their syntax: `forms` takes a file apart, `form` sorts the
//! fields of an event, `operation` says what they mean, `import` joins events to a history; `export` goes the other way.
//! Deliberately no other formats: whatever can print one of these can be judged.

mod datum;
mod export;
mod form;
pub(crate) mod forms;
mod import;
mod keyed;
mod operation;
mod source;
pub(crate) mod strings;
mod value;

use std::{
    fmt,
    io::{self, BufRead, Read, Write},
    str::FromStr,
};

pub(crate) use self::{
    datum::{Datum, push_quoted},
    export::{Node, fields},
    value::{Dialect, push_json, push_value},
};
use self::{
    form::Form,
    forms::{FormError, Next, Syntax},
    import::{Import, Ours},
    keyed::Keyed,
    source::Source,
};
use crate::{History, edn, json, jsonl};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Our own, [`jsonl`]: the one that loses nothing and can be appended to.
    Jsonl,
    /// Jepsen's `history.edn`; see [`edn`].
    Edn,
    /// The same in JSON; see [`json`].
    Json,
}

impl Format {
    /// Every format, in the order of the declaration.
    pub const ALL: [Format; 3] = [Format::Jsonl, Format::Edn, Format::Json];

    /// The name on the command line, which is also the extension of such files.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Edn => "edn",
            Format::Json => "json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = Format::ALL.map(Format::name).join(", ");
            format!("unknown format \"{name}\": use one of {names}")
        })
    }
}

/// What a file in Jepsen's formats does not say by itself. Our own format needs none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether each value is a `[key value]` of `jepsen.independent`; `None` to find out. Found are tagged tuples, reads and
    /// the like that are invoked with `[key nil]`, and transactions `[key [micro-operations]]`; and, if nothing speaks
    /// against it, histories all of whose compare-and-sets are `[key [expected new]]`. Where nothing decides, values are
    /// plain.
    pub keyed: Option<bool>,
    /// What a successful read of nil says.
    pub nil_reads: NilReads,
}

/// What a successful read of nil says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NilReads {
    /// That there was nothing: the key was absent.
    #[default]
    Absent,
    /// Nothing at all, as for Knossos: such reads are kept as failed ones. For registers that are never absent.
    Unknown,
}

/// Why a file could not be read as a history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader failed.
    #[error("line {line} could not be read: {source}")]
    Io {
        /// The line that was being read, from 1.
        line: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// It is in our own format, and broken.
    #[error(transparent)]
    Jsonl(#[from] jsonl::ReadError),
    /// Nothing is in it.
    #[error("the file is empty: nothing was recorded in it")]
    Empty,
    /// It begins like nothing that can be read.
    #[error(
        "line {line}, column {column}: a history begins with a map, a list or a comment, found {found}; formats are jsonl (docs/history.md), Jepsen's edn, and the same as json"
    )]
    NotAHistory {
        /// The line, from 1.
        line: u64,
        /// The byte within the line, from 1.
        column: u64,
        /// What stands there.
        found: String,
    },
    /// It is malformed.
    #[error("line {line}, column {column}: {problem}")]
    Malformed {
        /// The line, from 1.
        line: u64,
        /// The byte within the line, from 1.
        column: u64,
        /// What is wrong there; of an event that is well-formed but makes no sense, the place is where it begins.
        problem: String,
    },
}

impl From<FormError> for ReadError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Io { place, source } => ReadError::Io { line: place.line, source },
            FormError::At { place, problem } => {
                ReadError::Malformed { line: place.line, column: place.column, problem }
            }
        }
    }
}

/// Reads a history in any format, and says in which it was.
///
/// # Errors
/// See [`ReadError`]. Of our own format a torn last line is no error; see [`jsonl::read`].
pub fn read<R: BufRead>(r: R, options: &Options) -> Result<(History, Format), ReadError> {
    let mut source = Source::new(r);
    let format = sniff(&mut source)?;
    let history = match format {
        Format::Jsonl => {
            let (start, rest) = source.into_rest();
            jsonl::read(start.chain(rest))?
        }
        Format::Edn => read_forms::<edn::Edn, _>(source, Dialect::Edn, options)?,
        Format::Json => read_forms::<json::Json, _>(source, Dialect::Json, options)?,
    };
    Ok((history, format))
}

/// Writes a history in a format.
///
/// # Errors
/// What `w` reports; and [`io::ErrorKind::InvalidInput`] for an event that has no form on disk, as in
/// [`jsonl::write_event`].
pub fn write<W: Write>(mut w: W, history: &History, format: Format) -> io::Result<()> {
    match format {
        Format::Jsonl => {
            jsonl::write_header(&mut w, &history.header)?;
            history.events.iter().try_for_each(|event| jsonl::write_event(&mut w, &event))
        }
        Format::Edn => edn::write(w, history),
        Format::Json => json::write(w, history),
    }
}

/// Finds the format from the first bytes, and passes over none of them.
fn sniff<R: Read>(source: &mut Source<R>) -> Result<Format, ReadError> {
    /// So much is read to find the end of the first line.
    const FIRST_LINE: usize = 1 << 16;
    // Up to the end of the first line that has something in it, apart from a bracket that encloses all.
    let told = |window: &[u8]| {
        let window = window.strip_prefix(b"\xef\xbb\xbf").unwrap_or(window).trim_ascii_start();
        let inner = window.strip_prefix(b"[").unwrap_or(window).trim_ascii_start();
        inner.contains(&b'\n')
    };
    while !source.ended() && source.window().len() < FIRST_LINE && !told(source.window()) {
        source.widen().map_err(|source| ReadError::Io { line: 1, source })?;
    }
    let text = source.window().strip_prefix(b"\xef\xbb\xbf").unwrap_or(source.window());
    let blank = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let start = blank(text);
    let first_line = text[start..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut rest = &text[start..];
    if rest.is_empty() {
        return Err(ReadError::Empty);
    }
    if let [b'[', inner @ ..] = rest {
        rest = &inner[blank(inner)..];
        if matches!(rest, [b']', ..]) {
            return Ok(Format::Json);
        }
    }
    match rest {
        [b'{', inner @ ..] => {
            let inner = &inner[blank(inner)..];
            if inner.first() != Some(&b'"') {
                return Ok(Format::Edn);
            }
            let contains = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|window| window == part);
            let header = format!("\"{}\"", crate::Header::FORMAT);
            if text[start] == b'{'
                && (inner.starts_with(b"\"format\"")
                    || b"\"format\"".starts_with(inner)
                    || contains(first_line, header.as_bytes()) && !contains(first_line, b"\"tribunal\""))
            {
                return Ok(Format::Jsonl);
            }
            // A name, and then the colon that only JSON has there.
            let mut end = 0;
            let named = strings::quoted(inner, &mut end, true).is_ok();
            let after = &inner[end..];
            let json = !named || matches!(after[blank(after)..], [b':', ..]);
            Ok(if json { Format::Json } else { Format::Edn })
        }
        [b'[' | b'(' | b'#' | b';' | b',', ..] => Ok(Format::Edn),
        _ if text[start] == b'[' => Ok(Format::Edn),
        _ => {
            let place = source::Place::START.after(&text[..start]);
            Err(ReadError::NotAHistory { line: place.line, column: place.column, found: forms::found(rest) })
        }
    }
}

/// Reads a file of forms, from its start.
pub(crate) fn read_forms<S: Syntax, R: Read>(
    mut source: Source<R>,
    dialect: Dialect,
    options: &Options,
) -> Result<History, ReadError> {
    let (ours, keyed) = look_ahead::<S, R>(&mut source, dialect, options)?;
    source.rewind();
    let mut import = Import::new(dialect, ours, keyed, options);
    forms::each::<S, R>(&mut source, |datum, place| {
        import.add(datum, place).map(|()| Next::GoOn).map_err(|problem| FormError::At { place, problem })
    })?;
    import.finish().map_err(|(place, problem)| FormError::At { place, problem }.into())
}

/// Reads from a reader what [`read_forms`] reads.
pub(crate) fn read_from<S: Syntax, R: Read>(
    r: R,
    dialect: Dialect,
    options: &Options,
) -> Result<History, ReadError> {
    read_forms::<S, R>(Source::new(r), dialect, options)
}

/// Whether we wrote it, and whether it has keys: from as many events as it takes.
fn look_ahead<S: Syntax, R: Read>(
    source: &mut Source<R>,
    dialect: Dialect,
    options: &Options,
) -> Result<(Option<Ours>, bool), ReadError> {
    let mut names = jsonl::Names::default();
    let mut ours = None;
    let mut first = true;
    let mut keyed = Keyed::default();
    let mut answer = options.keyed;
    forms::each::<S, R>(source, |datum, place| {
        let at = |problem| FormError::At { place, problem };
        let form = Form::new(datum, dialect, &mut names).map_err(at)?;
        if std::mem::take(&mut first) {
            ours = Ours::of(&form, dialect).map_err(at)?;
        }
        answer = answer.or_else(|| keyed.look(&form));
        Ok(if ours.is_some() || answer.is_some() { Next::Enough } else { Next::GoOn })
    })?;
    Ok((ours, answer.unwrap_or_else(|| keyed.at_the_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(text: &str) -> Result<Format, String> {
        sniff(&mut Source::new(text.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_bytes_decide() {
        for (text, expected) in [
            ("{\"format\":\"tribunal-history\",\"version\":1}\n{\"index\":0", Format::Jsonl),
            ("{\"version\":1, \"format\":\"tribunal-history\"}", Format::Jsonl),
            ("{\"form", Format::Jsonl),
            ("{\"type\":\"invoke\"}", Format::Json),
            ("[\n {\"type\" : 1}]", Format::Json),
            ("[]", Format::Json),
            ("{\"type\" \"invoke\"}", Format::Edn),
            ("\u{feff} {:type :invoke}", Format::Edn),
            ("[{:type :invoke}]", Format::Edn),
            ("({:type :invoke})", Format::Edn),
            ("; a comment", Format::Edn),
            ("#jepsen.history.Op{}", Format::Edn),
            ("[0 :invoke :read nil]", Format::Edn),
            ("[[0 :invoke :read nil]]", Format::Edn),
        ] {
            assert_eq!(format(text), Ok(expected), "{text}");
        }
        assert!(format(" \n name: x").unwrap_err().starts_with("line 2, column 2: a history begins with"));
        assert!(format("").unwrap_err().contains("empty"));
    }

    #[test]
    fn names_come_back() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        assert!("xml".parse::<Format>().unwrap_err().contains("jsonl, edn, json"));
    }
}
