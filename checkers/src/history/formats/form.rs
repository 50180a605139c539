//! `Form`: the fields of one event as they stand in the file, still without meaning.
//!
//! ```text
//! {:type :ok, :f :read, :value [1 5], :process 3, :error nil}    by name, in any order, EDN or JSON
//! #jepsen.history.Op{:index 4, …}                                 the same
//! [3 :ok :read 5]                                                 by place: process, type, f, value
//! ```
//!
//! Fields that are not known are passed over, and so is metadata of another type than ours. Deliberately strict about the
//! others: a process that is neither number nor name is an error.

use std::{borrow::Cow, sync::Arc};

use super::{
    Datum,
    value::{Dialect, to_value},
};
use crate::{Kind, Meta, Process, ReadMode, Value, history::jsonl::Names};

/// An event before its meaning is known.
pub(crate) struct Form<'a> {
    pub(crate) process: Process,
    pub(crate) kind: Kind,
    pub(crate) f: Option<Arc<str>>,
    pub(crate) value: Option<Datum<'a>>,
    pub(crate) index: Option<u64>,
    pub(crate) time: Option<u64>,
    /// A key that stands apart from the value, as in our own format.
    pub(crate) key: Option<Value>,
    pub(crate) mode: ReadMode,
    pub(crate) swapped: Option<bool>,
    pub(crate) found: Option<Value>,
    pub(crate) ret: Option<Datum<'a>>,
    /// Written by us: the header, as it stands.
    pub(crate) header: Option<Datum<'a>>,
    pub(crate) meta: Meta,
}

impl<'a> Form<'a> {
    /// Sorts the fields of an event.
    ///
    /// # Errors
    /// It is none, and why.
    pub(crate) fn new(datum: Datum<'a>, dialect: Dialect, names: &mut Names) -> Result<Self, String> {
        let mut process = None;
        let mut kind = None;
        let mut form = Form {
            process: Process::Nemesis,
            kind: Kind::Info,
            f: None,
            value: None,
            index: None,
            time: None,
            key: None,
            mode: ReadMode::Default,
            swapped: None,
            found: None,
            ret: None,
            header: None,
            meta: Meta::default(),
        };
        match untag(datum) {
            Datum::Map(entries) => {
                for (name, field) in entries {
                    match name.word() {
                        Some("process") => once(&mut process, as_process(&field)?, "process")?,
                        Some("type") => once(&mut kind, as_kind(&field)?, "type")?,
                        Some("value") => once(&mut form.value, field, "value")?,
                        Some("f") => {
                            let f = as_f(&field, names)?;
                            if form.f.is_some() {
                                return Err(twice("f"));
                            }
                            form.f = f;
                        }
                        Some(name) => form.other(name, field, dialect, names)?,
                        None => {}
                    }
                }
            }
            Datum::List(items) if items.len() >= 3 => {
                let mut items = items.into_iter();
                let mut next = || items.next().unwrap_or(Datum::Nil);
                process = Some(as_process(&next())?);
                kind = Some(as_kind(&next())?);
                form.f = as_f(&next(), names)?;
                form.value = Some(next());
            }
            other => {
                return Err(format!(
                    "expected an event, a map such as {{:process 0, :type :invoke, :f :read, :value nil}}, found {}: {}",
                    other.kind(),
                    other.brief()
                ));
            }
        }
        form.process = process.ok_or("an event needs a process: a number, or nemesis")?;
        form.kind = kind.ok_or("an event needs a type: invoke, ok, fail or info")?;
        Ok(form)
    }

    fn other(
        &mut self,
        name: &str,
        field: Datum<'a>,
        dialect: Dialect,
        names: &mut Names,
    ) -> Result<(), String> {
        let meta = &mut self.meta;
        let mut text = || match &field {
            Datum::Text(text) => names.share(Some(Cow::Borrowed(text))),
            _ => None,
        };
        match name {
            "index" => self.index = as_u64(&field),
            "time" => self.time = as_time(&field),
            "key" => self.key = Some(to_value(&field, dialect)?),
            "mode" => self.mode = field.word().and_then(|mode| mode.parse().ok()).unwrap_or_default(),
            "swapped" => self.swapped = as_bool(&field),
            "found" => self.found = Some(to_value(&field, dialect)?),
            "ret" => self.ret = Some(field),
            "tribunal" => self.header = Some(field),
            "node" => {
                meta.node = field.word().and_then(|node| names.share(Some(Cow::Borrowed(node))));
            }
            "error" => {
                meta.error = match &field {
                    Datum::Nil => None,
                    Datum::Text(_) => text(),
                    other => names.share(Some(Cow::Owned(other.text()))),
                };
            }
            "path" => meta.path = text(),
            "ballot" => meta.ballot = text(),
            "phase" => meta.phase = text(),
            "intended" => meta.intended = as_u64(&field),
            "commit_ns" => meta.commit_ns = as_u64(&field),
            "slot" => meta.slot = as_u64(&field),
            "rounds" => meta.rounds = as_u64(&field).and_then(|rounds| rounds.try_into().ok()),
            "forwarded" => meta.forwarded = as_bool(&field),
            _ => {}
        }
        Ok(())
    }
}

fn once<T>(slot: &mut Option<T>, field: T, name: &str) -> Result<(), String> {
    match slot.replace(field) {
        None => Ok(()),
        Some(_) => Err(twice(name)),
    }
}

fn twice(name: &str) -> String {
    format!("the event has two fields {name}")
}

fn untag(mut datum: Datum<'_>) -> Datum<'_> {
    while let Datum::Tagged(_, inner) = datum {
        datum = *inner;
    }
    datum
}

fn as_process(field: &Datum<'_>) -> Result<Process, String> {
    match field {
        Datum::Int(_) | Datum::Big(_) => as_u64(field).map(Process::Client),
        other => other.word().map(|name| match name {
            "observer" => Process::Observer,
            // Whatever breaks things, whatever its name.
            _ => Process::Nemesis,
        }),
    }
    .ok_or_else(|| format!("a process is a number from 0 or a name such as nemesis, not {}", field.brief()))
}

fn as_kind(field: &Datum<'_>) -> Result<Kind, String> {
    field
        .word()
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| format!("a type is invoke, ok, fail or info, not {}", field.brief()))
}

fn as_f(field: &Datum<'_>, names: &mut Names) -> Result<Option<Arc<str>>, String> {
    match field {
        Datum::Nil => Ok(None),
        field => match field.word() {
            Some(name) => Ok(names.share(Some(Cow::Borrowed(name)))),
            None => Err(format!("f is the name of an operation, not {}", field.brief())),
        },
    }
}

fn as_u64(field: &Datum<'_>) -> Option<u64> {
    match field {
        Datum::Int(number) => u64::try_from(*number).ok(),
        Datum::Big(digits) => digits.parse().ok(),
        _ => None,
    }
}

/// Times before the start and fractions of nanoseconds are rounded.
fn as_time(field: &Datum<'_>) -> Option<u64> {
    match field {
        Datum::Int(number) => Some(u64::try_from(*number).unwrap_or(0)),
        Datum::Float(number) => Some(*number as u64),
        other => as_u64(other),
    }
}

fn as_bool(field: &Datum<'_>) -> Option<bool> {
    match field {
        Datum::Bool(truth) => Some(*truth),
        _ => None,
    }
}
