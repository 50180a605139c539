//! One event as one line, written by hand: the journal is on the path of every operation.
//!
//! ```text
//! Event { index: 7, … }  ->  {"index":7,"time":1204,"process":2,"type":"invoke","f":"read","key":3,"value":null}
//! ```
//!
//! Deliberately without trees in between: bytes go straight into one buffer. The fields are described in
//! [`jsonl`](super).

use std::io;

use crate::{Event, Kind, Meta, Mop, Op, Process, ReadMode, Ret, Value, history::op::BUILT_IN};

/// Adds the line of `event`, without its end.
pub(super) fn encode(line: &mut Vec<u8>, event: &Event) -> io::Result<()> {
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
        (op, Kind::Ok, _) if op.asks() => {}
        (op, ..) if op.asks() => line.extend_from_slice(b",\"value\":null"),
        (Op::Txn { .. }, Kind::Ok, Some(_)) => {}
        (Op::Txn { .. }, Kind::Ok, None) => {
            return Err(refuse(event, "a transaction that is ok must say what its reads found"));
        }
        (Op::Txn { mops }, ..) => push_mops(line, mops, &[]),
        (
            Op::Write { value, .. }
            | Op::Append { value, .. }
            | Op::Add { value, .. }
            | Op::Remove { value, .. }
            | Op::Contains { value, .. }
            | Op::Enqueue { value, .. }
            | Op::Push { value, .. },
            ..,
        ) => push_value_field(line, b",\"value\":", value),
        (Op::Cas { expected, new, .. }, ..) => {
            push_value_field(line, b",\"value\":[", expected);
            push_value_field(line, b",", new);
            line.push(b']');
        }
        (Op::Acquire { owner, .. } | Op::Release { owner, .. }, ..) if *owner != Value::Nil => {
            push_value_field(line, b",\"value\":", owner);
        }
        (Op::Transfer { from, to, amount }, ..) => {
            push_value_field(line, b",\"value\":{\"from\":", from);
            push_value_field(line, b",\"to\":", to);
            push_value_field(line, b",\"amount\":", &Value::Int(*amount));
            line.push(b'}');
        }
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
        // The others have no argument.
        _ => {}
    }
    Ok(())
}

/// A transaction, its reads filled in with what they found.
fn push_mops(line: &mut Vec<u8>, mops: &[Mop], found: &[Value]) {
    line.extend_from_slice(b",\"value\":[");
    let mut found = found.iter();
    for (i, mop) in mops.iter().enumerate() {
        line.extend_from_slice(if i > 0 { b",[" } else { b"[" });
        push_str(line, mop.f());
        push_value_field(line, b",", mop.key());
        let value = match mop {
            Mop::Read { .. } => found.next().unwrap_or(&Value::Nil),
            Mop::Write { value, .. } | Mop::Append { value, .. } => value,
        };
        push_value_field(line, b",", value);
        line.push(b']');
    }
    line.push(b']');
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
        Ret::Value(value) if event.op.asks() => push_value_field(line, b",\"value\":", value),
        Ret::Value(value) => push_value_field(line, b",\"ret\":", value),
        Ret::Swapped { swapped, found } => {
            push_bool_field(line, b",\"swapped\":", *swapped);
            if let Some(found) = found {
                push_value_field(line, b",\"found\":", found);
            }
        }
        Ret::Txn(found) => {
            if let Op::Txn { mops } = &event.op {
                push_mops(line, mops, found);
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

pub(crate) fn push_value(line: &mut Vec<u8>, value: &Value) {
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

pub(crate) fn push_str(line: &mut Vec<u8>, text: &str) {
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
