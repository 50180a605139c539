//! Jepsen's `history.edn`, in all its dialects.
//!
//! ```text
//! {:type :invoke, :f :cas, :value [0 1], :process 3, :time 120, :index 0}      one map a line
//! [{:process 3, :type :fail, :f :cas, :value [0 1]} …]                         or all in a list, fields in any order
//! #jepsen.history.Op{:index 1, :time 940, :type :ok, …}                        or tagged
//! [3 :invoke :read nil]                                                        or by place
//! ```
//!
//! What is read follows the rules of [`History::operations`](crate::History::operations) wherever the file allows it;
//! `docs/history.md` has the details. What is written is read by Jepsen and Knossos, and comes back exactly as it was.
//! Deliberately tolerant of tags, comments and fields it does not know, and of nothing that could be damage.

mod parse;

use std::io::{self, Read, Write};

pub(crate) use self::parse::{Edn, integer, is_plain_word, whole};
use super::formats::{
    Dialect, Node, Options, ReadError, fields, push_json, push_quoted, push_value, read_from,
};
use crate::History;

/// Reads a history.
///
/// # Errors
/// [`ReadError::Io`] and [`ReadError::Malformed`].
pub fn read<R: Read>(r: R, options: &Options) -> Result<History, ReadError> {
    read_from::<Edn, R>(r, Dialect::Edn, options)
}

/// Writes a history, one map a line.
///
/// The first one carries the header. A history without events is an empty file, and loses it.
///
/// # Errors
/// What `w` reports; and [`io::ErrorKind::InvalidInput`] for an event that has no form on disk: an answer on something
/// else than ok or of a shape that its operation cannot get, a missing answer, or a custom operation that takes a
/// built-in name.
pub fn write<W: Write>(mut w: W, history: &History) -> io::Result<()> {
    let mut line = String::with_capacity(256);
    fields(history, |fields| {
        line.clear();
        push_map(&mut line, fields);
        line.push('\n');
        w.write_all(line.as_bytes())
    })
}

fn push_map(out: &mut String, fields: &[(&'static str, Node<'_>)]) {
    out.push('{');
    for (i, (name, node)) in fields.iter().enumerate() {
        out.push_str(if i > 0 { ", :" } else { ":" });
        out.push_str(name);
        out.push(' ');
        push_node(out, node);
    }
    out.push('}');
}

fn push_node(out: &mut String, node: &Node<'_>) {
    match node {
        Node::Nil => out.push_str("nil"),
        Node::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Node::Number(number) => out.push_str(&number.to_string()),
        Node::Amount(number) => out.push_str(&number.to_string()),
        Node::Word(word) if is_plain_word(word) => {
            out.push(':');
            out.push_str(word);
        }
        Node::Word(text) | Node::Text(text) => push_quoted(out, text),
        Node::Value(value) => push_value(out, value),
        Node::Json(json) => push_json(out, json),
        Node::OwnJson(json) => push_json(out, json),
        Node::List(nodes) => {
            out.push('[');
            for (i, node) in nodes.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                push_node(out, node);
            }
            out.push(']');
        }
        Node::Map(fields) => push_map(out, fields),
    }
}
