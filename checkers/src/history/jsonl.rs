//! Histories on disk: JSON Lines, a header first, one event a line, in the words of Jepsen.
//!
//! ```text
//! {"format":"tribunal-history","version":1,"test":"register","seed":7,"started":"2026-01-02T03:04:05Z","nodes":["n1"]}
//! {"index":0,"time":120,"process":0,"type":"invoke","f":"cas","key":3,"value":[1,2]}
//! {"index":1,"time":940,"process":0,"type":"ok","f":"cas","key":3,"value":[1,2],"swapped":false,"found":7,"node":"n1"}
//! {"index":2,"time":950,"process":1,"type":"invoke","f":"read","key":3,"value":null,"mode":"lease"}
//! ```
//!
//! | field | where | what |
//! |---|---|---|
//! | `index` `time` `process` `type` `f` | every event | see [`Event`]; `process` is a number, `"nemesis"` or `"observer"` |
//! | `key` | all but some custom operations | absent means `null` |
//! | `value` | as below | the argument; of an ok read or dequeue what was read |
//! | `swapped` `found` | ok cas | [`Ret::Swapped`] |
//! | `ret` | other ok operations that answer | [`Ret::Value`], of a custom operation [`Ret::Custom`] |
//! | `mode` | read | [`ReadMode`], absent for the default |
//! | `node` `path` `error` `intended` `commit_ns` `slot` `ballot` `rounds` `forwarded` `phase` | where known | see [`Meta`] |
//!
//! Fields that are not listed are passed over, so that others may add their own; whatever changes the meaning of these
//! raises the version. The file is appended to while the run goes on: cut at any byte behind its header it can still be
//! read, up to the cut. Deliberately not validated here: what events mean together is for
//! [`History::operations`](crate::History::operations).

mod decode;
mod encode;

use std::io::{self, BufRead, Write};

use serde::Deserialize;

pub(crate) use self::{
    decode::Names,
    encode::{push_str, push_value},
};
use self::{
    decode::{Broken, decode, without_position},
    encode::encode,
};
use crate::{Cut, Event, Events, Header, History};
#[cfg(doc)]
use crate::{Meta, ReadMode, Ret};

/// Writes the first line.
///
/// # Errors
/// What `w` reports.
pub fn write_header<W: Write>(mut w: W, header: &Header) -> io::Result<()> {
    let mut line = serde_json::to_vec(header)?;
    line.push(b'\n');
    w.write_all(&line)
}

/// Writes one event as one line, in one call of `write_all`.
///
/// # Errors
/// What `w` reports; and [`io::ErrorKind::InvalidInput`] for an event that has no form on disk: an answer on something
/// else than ok or of a shape that its operation cannot get, or a custom operation that takes a built-in name. Nothing
/// is written then.
pub fn write_event<W: Write>(mut w: W, event: &Event) -> io::Result<()> {
    let mut line = Vec::with_capacity(256);
    encode(&mut line, event)?;
    line.push(b'\n');
    w.write_all(&line)
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
    /// Not even a whole header: the run died before it began, or the file is none of ours.
    #[error("the file ends before its header does: nothing was recorded in it")]
    NoHeader,
    /// The first line is something else.
    #[error(
        "line 1 is not the header of a tribunal history: {problem}; it must be {{\"format\":\"tribunal-history\",\"version\":1,…}}"
    )]
    NotAHistory {
        /// What is wrong with it.
        problem: String,
    },
    /// Written by a newer tribunal.
    #[error(
        "the history is of version {found}, but this build reads up to version {known}; judge it with a newer build"
    )]
    NewerVersion {
        /// The version in the header.
        found: u32,
        /// The newest version that can be read.
        known: u32,
    },
    /// A line is broken, and it is not the torn end of the file.
    #[error("line {line}, column {column}: {problem}")]
    Line {
        /// The line, from 1.
        line: u64,
        /// The byte within the line, from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
}

/// Reads a history, up to the point where it was cut.
///
/// # Errors
/// See [`ReadError`]. A torn last line is none: it is dropped, and [`History::cut`] says so.
pub fn read<R: BufRead>(r: R) -> Result<History, ReadError> {
    let mut reader = Reader::new(r)?;
    let mut events = Events::default();
    while let Some(event) = reader.next()? {
        events.push(event);
    }
    Ok(History { header: reader.header, events, cut: reader.cut })
}

/// A history that is read event by event, for those who cannot keep it.
pub struct Reader<R> {
    reader: R,
    /// Which run it is of.
    pub header: Header,
    /// Where and why reading stopped, once it has, if the file has a torn end.
    pub cut: Option<Cut>,
    names: Names,
    line: Vec<u8>,
    /// Of the last line that was read, from 1.
    number: u64,
    /// Where the next line begins.
    offset: u64,
    events: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn new(mut reader: R) -> Result<Self, ReadError> {
        let mut line = Vec::with_capacity(512);
        let length = reader.read_until(b'\n', &mut line);
        let offset = length.map_err(|source| ReadError::Io { line: 1, source })? as u64;
        let header = read_header(&line)?;
        Ok(Reader { reader, header, cut: None, names: Names::default(), line, number: 1, offset, events: 0 })
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// See [`ReadError`].
    // An iterator would hand out one error after the other for ever.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event>, ReadError> {
        while self.cut.is_none() {
            self.line.clear();
            let number = self.number + 1;
            let length = self.reader.read_until(b'\n', &mut self.line);
            let length = length.map_err(|source| ReadError::Io { line: number, source })? as u64;
            if length == 0 {
                return Ok(None);
            }
            self.number = number;
            let (start, whole) = (self.offset, self.line.last() == Some(&b'\n'));
            self.offset += length;
            let text = self.line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            match decode(text, &mut self.names) {
                Ok(event) => {
                    self.events += 1;
                    return Ok(Some(event));
                }
                // A line that is whole, or that is well-formed JSON, was written like this.
                Err(Broken { torn: true, .. }) if !whole => {
                    let reason = format!(
                        "line {number} ends after {length} bytes in the middle of an event; it was dropped, the {} events before it are judged",
                        self.events
                    );
                    self.cut = Some(Cut { line: number, offset: start, dropped: length, reason });
                }
                Err(Broken { column, problem, .. }) => {
                    return Err(ReadError::Line { line: number, column, problem });
                }
            }
        }
        Ok(None)
    }
}

fn read_header(line: &[u8]) -> Result<Header, ReadError> {
    #[derive(Deserialize)]
    struct Start {
        format: String,
        version: u32,
    }
    let not_a_history = |problem: String| ReadError::NotAHistory { problem };
    let start: Start = match serde_json::from_slice(line) {
        Ok(start) => start,
        Err(error) if error.is_eof() && line.last() != Some(&b'\n') => return Err(ReadError::NoHeader),
        Err(error) => return Err(not_a_history(without_position(&error))),
    };
    if start.format != Header::FORMAT {
        return Err(not_a_history(format!("its format is \"{}\"", start.format)));
    }
    if start.version > Header::VERSION {
        return Err(ReadError::NewerVersion { found: start.version, known: Header::VERSION });
    }
    if start.version == 0 {
        return Err(not_a_history("there is no version 0".into()));
    }
    serde_json::from_slice(line).map_err(|error| not_a_history(without_position(&error)))
}
