//! One line as one event.
//!
//! ```text
//! {"index":7,"time":1204,"process":2,"type":"ok","f":"read","key":3,"value":41}  ->  Event { index: 7, … }
//! ```
//!
//! What `value` means depends on `f` and `type`, so it is looked at last. Deliberately tolerant of fields that it does not
//! know, and of nothing else. The fields are described in [`jsonl`](super).

use std::{borrow::Cow, sync::Arc};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{Event, Kind, Meta, Mop, Op, Process, ReadMode, Ret, Value};

/// The same few names come again in every line; each is stored once.
#[derive(Default)]
pub(crate) struct Names(FxHashMap<Box<str>, Arc<str>>);

impl Names {
    /// Names beyond this many are not shared: error messages may all be different.
    const MAX: usize = 4096;

    pub(crate) fn share(&mut self, name: Option<Cow<'_, str>>) -> Option<Arc<str>> {
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

/// What is wrong with a line.
pub(super) struct Broken {
    /// From 1.
    pub(super) column: usize,
    pub(super) problem: String,
    /// Not a whole JSON text: as when the file was cut here.
    pub(super) torn: bool,
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

/// Reads a line, without white space at its ends.
pub(super) fn decode(text: &[u8], names: &mut Names) -> Result<Event, Broken> {
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
    // What the reads of a transaction found.
    let mut found = Vec::new();
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
        "remove" => Op::Remove { key, value: argument()? },
        "contains" => Op::Contains { key, value: argument()? },
        "drain" => Op::Drain { key },
        "push" => Op::Push { key, value: argument()? },
        "pop" => Op::Pop { key },
        "generate" => Op::Generate { key },
        "acquire" | "release" => {
            let owner = line.value.map_or(Ok(Value::Nil), |raw| parse(text, raw))?;
            if line.f == "acquire" { Op::Acquire { key, owner } } else { Op::Release { key, owner } }
        }
        "transfer" => {
            let raw = line.value.ok_or_else(|| says("transfer needs a \"value\"".into()))?;
            let Transfer { from, to, amount } = parse(text, raw)?;
            Op::Transfer { from, to, amount }
        }
        "txn" => {
            let mut mops = Vec::new();
            let list = argument()?;
            let Value::List(parts) = &list else {
                return Err(says(format!("the value of a txn is a list of micro-operations, not {list}")));
            };
            for part in parts.iter() {
                let (mop, read) = micro_operation(part).map_err(says)?;
                mops.push(mop);
                found.extend(read);
            }
            Op::Txn { mops: mops.into() }
        }
        f => Op::Custom {
            f: names.share(Some(f.into())).unwrap_or_default(),
            key: line.key.clone(),
            value: line.value.map_or(Ok(serde_json::Value::Null), |raw| parse(text, raw))?,
        },
    };
    let ret = if line.r#type == Kind::Ok { answer(text, &op, &line, found)? } else { None };
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
fn answer(text: &[u8], op: &Op, line: &Line<'_>, found: Vec<Value>) -> Result<Option<Ret>, Broken> {
    Ok(match op {
        Op::Txn { .. } => Some(Ret::Txn(found.into())),
        op if op.asks() => match line.value {
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

/// The argument of a transfer.
#[derive(Deserialize)]
struct Transfer {
    from: Value,
    to: Value,
    amount: i64,
}

/// `["r", key, found]`, `["w", key, value]` or `["append", key, value]`, and what a read found.
fn micro_operation(part: &Value) -> Result<(Mop, Option<Value>), String> {
    let wrong = || {
        format!(
            "a micro-operation is [\"r\",key,found], [\"w\",key,value] or [\"append\",key,value], not {part}"
        )
    };
    let Value::List(list) = part else { return Err(wrong()) };
    let [Value::Text(f), key, value] = &list[..] else { return Err(wrong()) };
    let (key, value) = (key.clone(), value.clone());
    match &**f {
        "r" => Ok((Mop::Read { key }, Some(value))),
        "w" => Ok((Mop::Write { key, value }, None)),
        "append" => Ok((Mop::Append { key, value }, None)),
        _ => Err(wrong()),
    }
}

/// Parses a part of the line; the column of an error is that of the line.
fn parse<'a, T: Deserialize<'a>>(text: &[u8], raw: &'a RawValue) -> Result<T, Broken> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let start = (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        Broken { column: start + error.column(), problem: without_position(&error), torn: false }
    })
}

/// serde_json counts lines and columns within the line that it is given; ours are those of the file.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}
