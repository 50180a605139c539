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

use std::{
    borrow::Cow,
    io::{self, BufRead, Write},
    sync::Arc,
};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{
    Cut, Event, Header, History, Kind, Meta, Op, Process, ReadMode, Ret, Value, history::op::BUILT_IN,
};

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

fn encode(line: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    line.extend_from_slice(b"{\"index\":");
    push_u64(line, event.index);
    line.extend_from_slice(b",\"time\":");
    push_u64(line, event.time);
    line.extend_from_slice(b",\"process\":");
    match event.process {
        Process::Client(number) => push_u64(line, number),
        Process::Nemesis => line.extend_from_slice(b"\"nemesis\""),
        Process::Observer => line.extend_from_slice(b"\"observer\""),
    }
    line.extend_from_slice(b",\"type\":\"");
    line.extend_from_slice(event.kind.name().as_bytes());
    line.extend_from_slice(b"\",\"f\":");
    push_str(line, event.op.f());
    if let Some(key) = event.op.key() {
        push_value_field(line, b",\"key\":", key);
    }
    encode_argument(line, event)?;
    encode_answer(line, event)?;
    if let Op::Read { mode, .. } = &event.op
        && *mode != ReadMode::Default
    {
        push_str_field(line, b",\"mode\":", mode.name());
    }
    encode_meta(line, &event.meta);
    line.push(b'}');
    Ok(())
}

fn encode_argument(line: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    match (&event.op, event.kind, &event.ret) {
        // The answer takes the place of the argument; see `encode_answer`.
        (Op::Read { .. } | Op::Dequeue { .. }, Kind::Ok, _) => {}
        (Op::Read { .. } | Op::Dequeue { .. }, ..) => line.extend_from_slice(b",\"value\":null"),
        (
            Op::Write { value, .. }
            | Op::Append { value, .. }
            | Op::Add { value, .. }
            | Op::Enqueue { value, .. },
            ..,
        ) => push_value_field(line, b",\"value\":", value),
        (Op::Cas { expected, new, .. }, ..) => {
            push_value_field(line, b",\"value\":[", expected);
            push_value_field(line, b",", new);
            line.push(b']');
        }
        (Op::Delete { .. } | Op::Acquire { .. } | Op::Release { .. }, ..) => {}
        (Op::Custom { f, value, .. }, ..) => {
            if BUILT_IN.contains(&&**f) {
                return Err(refuse(
                    event,
                    "a custom operation takes a built-in name; use the operation of that name",
                ));
            }
            line.extend_from_slice(b",\"value\":");
            serde_json::to_writer(&mut *line, value)?;
        }
    }
    Ok(())
}

fn encode_answer(line: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    let Some(ret) = &event.ret else { return Ok(()) };
    if event.kind != Kind::Ok {
        return Err(refuse(event, "only ok may carry an answer"));
    }
    if !event.op.accepts(ret) {
        return Err(refuse(event, "the answer has a shape that this operation cannot get"));
    }
    match ret {
        Ret::Done => {}
        Ret::Value(value) if event.op.must_answer() => push_value_field(line, b",\"value\":", value),
        Ret::Value(value) => push_value_field(line, b",\"ret\":", value),
        Ret::Swapped { swapped, found } => {
            push_bool_field(line, b",\"swapped\":", *swapped);
            if let Some(found) = found {
                push_value_field(line, b",\"found\":", found);
            }
        }
        Ret::Custom(value) => {
            line.extend_from_slice(b",\"ret\":");
            serde_json::to_writer(&mut *line, value)?;
        }
    }
    Ok(())
}

fn encode_meta(line: &mut Vec<u8>, meta: &Meta) {
    let Meta { node, path, error, intended, commit_ns, slot, ballot, rounds, forwarded, phase } = meta;
    for (name, text) in [
        (&b",\"node\":"[..], node),
        (b",\"path\":", path),
        (b",\"error\":", error),
        (b",\"ballot\":", ballot),
        (b",\"phase\":", phase),
    ] {
        if let Some(text) = text {
            push_str_field(line, name, text);
        }
    }
    for (name, number) in [
        (&b",\"intended\":"[..], *intended),
        (b",\"commit_ns\":", *commit_ns),
        (b",\"slot\":", *slot),
        (b",\"rounds\":", rounds.map(u64::from)),
    ] {
        if let Some(number) = number {
            line.extend_from_slice(name);
            push_u64(line, number);
        }
    }
    if let Some(forwarded) = forwarded {
        push_bool_field(line, b",\"forwarded\":", *forwarded);
    }
}

fn refuse(event: &Event, problem: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "event {} of process {} ({} {}): {problem}",
            event.index, event.process, event.kind, event.op
        ),
    )
}

fn push_value_field(line: &mut Vec<u8>, name: &[u8], value: &Value) {
    line.extend_from_slice(name);
    push_value(line, value);
}

fn push_str_field(line: &mut Vec<u8>, name: &[u8], text: &str) {
    line.extend_from_slice(name);
    push_str(line, text);
}

fn push_bool_field(line: &mut Vec<u8>, name: &[u8], truth: bool) {
    line.extend_from_slice(name);
    line.extend_from_slice(if truth { b"true" } else { b"false" });
}

fn push_value(line: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Nil => line.extend_from_slice(b"null"),
        Value::Bool(truth) => line.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Value::Int(number) => {
            if *number < 0 {
                line.push(b'-');
            }
            push_u64(line, number.unsigned_abs());
        }
        Value::Text(text) => push_str(line, text),
        Value::List(values) => {
            line.push(b'[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    line.push(b',');
                }
                push_value(line, value);
            }
            line.push(b']');
        }
    }
}

fn push_u64(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
}

fn push_str(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        line.extend_from_slice(&text.as_bytes()[plain..i]);
        plain = i + 1;
        match byte {
            b'"' => line.extend_from_slice(b"\\\""),
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            _ => {
                line.extend_from_slice(b"\\u00");
                line.push(b"0123456789abcdef"[usize::from(byte >> 4)]);
                line.push(b"0123456789abcdef"[usize::from(byte & 15)]);
            }
        }
    }
    line.extend_from_slice(&text.as_bytes()[plain..]);
    line.push(b'"');
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
pub fn read<R: BufRead>(mut r: R) -> Result<History, ReadError> {
    let mut line = Vec::with_capacity(512);
    let mut next = |line: &mut Vec<u8>, number: u64| {
        line.clear();
        r.read_until(b'\n', line).map_err(|source| ReadError::Io { line: number, source })
    };
    let mut offset = next(&mut line, 1)? as u64;
    let header = read_header(&line)?;
    let mut events = Vec::new();
    let mut names = Names::default();
    let mut cut = None;
    for number in 2.. {
        let length = next(&mut line, number)? as u64;
        if length == 0 {
            break;
        }
        let whole = line.last() == Some(&b'\n');
        let text = line.trim_ascii();
        if text.is_empty() {
            offset += length;
            continue;
        }
        match decode(text, &mut names) {
            Ok(event) => events.push(event),
            // A line that is whole, or that is well-formed JSON, was written like this.
            Err(Broken { torn: true, .. }) if !whole => {
                let reason = format!(
                    "line {number} ends after {length} bytes in the middle of an event; it was dropped, the {} events before it are judged",
                    events.len()
                );
                cut = Some(Cut { line: number, offset, dropped: length, reason });
            }
            Err(Broken { column, problem, .. }) => {
                return Err(ReadError::Line { line: number, column, problem });
            }
        }
        offset += length;
    }
    Ok(History { header, events, cut })
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

/// The same few names come again in every line; each is stored once.
#[derive(Default)]
struct Names(FxHashMap<Box<str>, Arc<str>>);

impl Names {
    /// Names beyond this many are not shared: error messages may all be different.
    const MAX: usize = 4096;

    fn share(&mut self, name: Option<Cow<'_, str>>) -> Option<Arc<str>> {
        let name = name?;
        if let Some(known) = self.0.get(&*name) {
            return Some(known.clone());
        }
        let shared: Arc<str> = Arc::from(&*name);
        if self.0.len() < Self::MAX {
            self.0.insert((*name).into(), shared.clone());
        }
        Some(shared)
    }
}

struct Broken {
    /// From 1.
    column: usize,
    problem: String,
    /// Not a whole JSON text: as when the file was cut here.
    torn: bool,
}

/// A line as it stands.
#[derive(Deserialize)]
struct Line<'a> {
    index: u64,
    time: u64,
    process: Process,
    r#type: Kind,
    #[serde(borrow)]
    f: Cow<'a, str>,
    #[serde(default, deserialize_with = "present")]
    key: Option<Value>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(default)]
    swapped: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    found: Option<Value>,
    #[serde(borrow, default, deserialize_with = "present")]
    ret: Option<&'a RawValue>,
    #[serde(borrow, default)]
    mode: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    node: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
    #[serde(default)]
    intended: Option<u64>,
    #[serde(default)]
    commit_ns: Option<u64>,
    #[serde(default)]
    slot: Option<u64>,
    #[serde(borrow, default)]
    ballot: Option<Cow<'a, str>>,
    #[serde(default)]
    rounds: Option<u32>,
    #[serde(default)]
    forwarded: Option<bool>,
    #[serde(borrow, default)]
    phase: Option<Cow<'a, str>>,
}

/// Tells a field that is `null` from one that is not there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn decode(text: &[u8], names: &mut Names) -> Result<Event, Broken> {
    let line: Line<'_> = serde_json::from_slice(text).map_err(|error| Broken {
        column: error.column(),
        problem: without_position(&error),
        torn: !error.is_data(),
    })?;
    let says = |problem: String| Broken { column: 1, problem, torn: false };
    let key = line.key.clone().unwrap_or_default();
    let argument = || match line.value {
        Some(raw) => parse::<Value>(text, raw),
        None => Err(says(format!("{} needs a \"value\"", line.f))),
    };
    let op = match &*line.f {
        "read" => {
            let mode = line.mode.as_deref().map_or(Ok(ReadMode::Default), str::parse).map_err(says)?;
            Op::Read { key, mode }
        }
        "write" => Op::Write { key, value: argument()? },
        "cas" => match argument()? {
            Value::List(pair) if pair.len() == 2 => {
                Op::Cas { key, expected: pair[0].clone(), new: pair[1].clone() }
            }
            other => return Err(says(format!("the value of a cas is [expected,new], not {other}"))),
        },
        "append" => Op::Append { key, value: argument()? },
        "delete" => Op::Delete { key },
        "add" => Op::Add { key, value: argument()? },
        "enqueue" => Op::Enqueue { key, value: argument()? },
        "dequeue" => Op::Dequeue { key },
        "acquire" => Op::Acquire { key },
        "release" => Op::Release { key },
        f => Op::Custom {
            f: names.share(Some(f.into())).unwrap_or_default(),
            key: line.key.clone(),
            value: line.value.map_or(Ok(serde_json::Value::Null), |raw| parse(text, raw))?,
        },
    };
    let ret = if line.r#type == Kind::Ok { answer(text, &op, &line)? } else { None };
    Ok(Event {
        index: line.index,
        time: line.time,
        process: line.process,
        kind: line.r#type,
        op,
        ret,
        meta: Meta {
            node: names.share(line.node),
            path: names.share(line.path),
            error: names.share(line.error),
            intended: line.intended,
            commit_ns: line.commit_ns,
            slot: line.slot,
            ballot: names.share(line.ballot),
            rounds: line.rounds,
            forwarded: line.forwarded,
            phase: names.share(line.phase),
        },
    })
}

/// What an ok says. An answer that is missing stays missing; `History::operations` complains where it is needed.
fn answer(text: &[u8], op: &Op, line: &Line<'_>) -> Result<Option<Ret>, Broken> {
    Ok(match op {
        Op::Read { .. } | Op::Dequeue { .. } => match line.value {
            Some(raw) => Some(Ret::Value(parse(text, raw)?)),
            None => None,
        },
        Op::Cas { .. } => line.swapped.map(|swapped| Ret::Swapped { swapped, found: line.found.clone() }),
        Op::Custom { .. } => match line.ret {
            Some(raw) => Some(Ret::Custom(parse(text, raw)?)),
            None => Some(Ret::Done),
        },
        _ => match line.ret {
            Some(raw) => Some(Ret::Value(parse(text, raw)?)),
            None => Some(Ret::Done),
        },
    })
}

/// Parses a part of the line; the column of an error is that of the line.
fn parse<'a, T: Deserialize<'a>>(text: &[u8], raw: &'a RawValue) -> Result<T, Broken> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let start = (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        Broken { column: start + error.column(), problem: without_position(&error), torn: false }
    })
}

/// serde_json counts lines and columns within the line that it is given; ours are those of the file.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}
