//! `Operations`: the operations of a history, looked at without being copied.
//!
//! ```text
//! get(3)   Operation { op: Write { key: 1, value: 7 }, outcome: Ok(Done), call: …, ret: … }     for explanations
//! raw(3)   f Write, key, a, b as numbers; call, ret                                          for millions of them
//! ```
//!
//! Deliberately a view: what an operation says stays where the events are.

use super::{
    datum::{Datum, Values},
    events::{Asked, Events, Told},
    pairing::NO_END,
};
use crate::{Kind, OpOutcome, Operation, Process, Ret};

/// The operations of a well-formed history, in the order of their invocations.
#[derive(Clone, Copy, Debug)]
pub struct Operations<'a> {
    events: &'a Events,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    Fail,
    Info,
}

/// An operation as numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    /// What was asked; `None` if that has no form in numbers.
    pub(crate) asked: Option<Asked>,
    /// What was answered; likewise.
    pub(crate) told: Option<Told>,
    pub(crate) end: End,
    /// In ns since the start.
    pub(crate) call: u64,
    /// In ns since the start; `u64::MAX` if it never returned.
    pub(crate) ret: u64,
}

impl<'a> Operations<'a> {
    pub(super) fn new(events: &'a Events) -> Self {
        Operations { events }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.events.pairing().spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, whole.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Operation> + 'a {
        let all = *self;
        (0..all.len()).map(move |id| all.get(id))
    }

    /// One of them, whole.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, id: usize) -> Operation {
        let (events, span) = (self.events, self.events.pairing().spans[id]);
        let mut operation = Operation {
            id,
            process: match events.process(span.call) {
                Process::Client(number) => number,
                // Only clients have operations.
                Process::Nemesis | Process::Observer => u64::MAX,
            },
            op: events.op(span.call),
            outcome: OpOutcome::Info,
            call: events.time(span.call),
            ret: None,
            call_index: events.index(span.call),
            ret_index: None,
            meta: events.meta(span.call).cloned().unwrap_or_default(),
        };
        if span.end == NO_END {
            return operation;
        }
        operation.outcome = match self.end(id) {
            End::Ok => OpOutcome::Ok(events.ret(span.end).unwrap_or(Ret::Done)),
            End::Fail => OpOutcome::Fail,
            End::Info => OpOutcome::Info,
        };
        operation.ret_index = Some(events.index(span.end));
        if operation.outcome != OpOutcome::Info {
            operation.ret = Some(events.time(span.end));
        }
        if let Some(meta) = events.meta(span.end) {
            operation.meta.complete(meta);
        }
        operation
    }

    pub(crate) fn end(&self, id: usize) -> End {
        match self.events.pairing().spans[id].end {
            NO_END => End::Info,
            end => match self.events.kind(end) {
                Kind::Ok => End::Ok,
                Kind::Fail => End::Fail,
                Kind::Info | Kind::Invoke => End::Info,
            },
        }
    }

    /// The index of its invocation.
    pub(crate) fn call_index(&self, id: usize) -> u64 {
        self.events.index(self.events.pairing().spans[id].call)
    }

    /// The index of its completion; `u64::MAX` if it has none.
    pub(crate) fn ret_index(&self, id: usize) -> u64 {
        match self.events.pairing().spans[id].end {
            NO_END => u64::MAX,
            end => self.events.index(end),
        }
    }

    /// When its completion was recorded, whatever it says; `None` if it was still open when the history ended.
    pub(crate) fn recorded(&self, id: usize) -> Option<u64> {
        match self.events.pairing().spans[id].end {
            NO_END => None,
            end => Some(self.events.time(end)),
        }
    }

    /// What one of them asks for, as numbers; `None` if that has no form in numbers.
    pub(crate) fn asked(&self, id: usize) -> Option<Asked> {
        self.events.asked(self.events.pairing().spans[id].call)
    }

    /// One of them, as numbers.
    pub(crate) fn raw(&self, id: usize) -> Raw {
        let (events, span) = (self.events, self.events.pairing().spans[id]);
        let end = self.end(id);
        let (told, ret) = match end {
            End::Ok => {
                let told = match events.told(span.end) {
                    Some(Told::Nothing) => Some(Told::Done),
                    told => told,
                };
                (told, events.time(span.end))
            }
            End::Fail => (Some(Told::Nothing), events.time(span.end)),
            End::Info => (Some(Told::Nothing), u64::MAX),
        };
        Raw { asked: events.asked(span.call), told, end, call: events.time(span.call), ret }
    }

    /// The key it is about, if it has one.
    pub(crate) fn key(&self, id: usize) -> Option<Datum> {
        self.events.key(self.events.pairing().spans[id].call)
    }

    /// The table of what the numbers stand for.
    pub(crate) fn values(&self) -> &'a Values {
        self.events.values()
    }
}
