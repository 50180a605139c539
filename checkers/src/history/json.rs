//! Jepsen's history in JSON: the words of `history.edn`, without its colons and without the header of our own format.
//!
//! ```text
//! [ {"index":0,"time":120,"type":"invoke","process":3,"f":"cas","value":[0,1]},
//!   {"index":1,"time":940,"type":"fail","process":3,"f":"cas","value":[0,1]} ]      or without the list: a map a line
//! ```
//!
//! Everything else is as in [`edn`](crate::edn). Deliberately beside [`jsonl`](crate::jsonl) and not instead: that one can
//! be appended to, and says which version it is.

mod parse;

use std::io::{self, Read, Write};

pub(crate) use self::parse::Json;
use super::{
    formats::{Dialect, Node, Options, ReadError, fields, read_from},
    jsonl::{push_str, push_value},
};
use crate::History;

/// Reads a history.
///
/// # Errors
/// [`ReadError::Io`] and [`ReadError::Malformed`].
pub fn read<R: Read>(r: R, options: &Options) -> Result<History, ReadError> {
    read_from::<Json, R>(r, Dialect::Json, options)
}

/// Writes a history as one list, one map a line.
///
/// The first one carries the header. A history without events loses it.
///
/// # Errors
/// As [`edn::write`](crate::edn::write).
pub fn write<W: Write>(mut w: W, history: &History) -> io::Result<()> {
    let mut line = Vec::with_capacity(256);
    let mut first = true;
    fields(history, |fields| {
        line.clear();
        line.extend_from_slice(if std::mem::take(&mut first) { b"[\n" } else { b",\n" });
        push_map(&mut line, fields)?;
        w.write_all(&line)
    })?;
    w.write_all(if first { b"[]\n" } else { b"\n]\n" })
}

fn push_map(out: &mut Vec<u8>, fields: &[(&'static str, Node<'_>)]) -> io::Result<()> {
    out.push(b'{');
    for (i, (name, node)) in fields.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_str(out, name);
        out.push(b':');
        push_node(out, node)?;
    }
    out.push(b'}');
    Ok(())
}

fn push_node(out: &mut Vec<u8>, node: &Node<'_>) -> io::Result<()> {
    match node {
        Node::Nil => out.extend_from_slice(b"null"),
        Node::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Node::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Node::Amount(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Node::Word(text) | Node::Text(text) => push_str(out, text),
        Node::Value(value) => push_value(out, value),
        Node::Json(json) => serde_json::to_writer(&mut *out, json)?,
        Node::OwnJson(json) => serde_json::to_writer(&mut *out, json)?,
        Node::List(nodes) => {
            out.push(b'[');
            for (i, node) in nodes.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                push_node(out, node)?;
            }
            out.push(b']');
        }
        Node::Map(fields) => push_map(out, fields)?,
    }
    Ok(())
}
