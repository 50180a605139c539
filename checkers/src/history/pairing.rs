//! `Operation`: an invocation joined to its completion, and the rules by which a history is found malformed.
//!
//! ```text
//! process 0   invoke w 5 ---------- ok            Operation { call, ret: Some, outcome: Ok(Done) }
//! process 1        invoke r ------------- info    Operation { call, ret: None, outcome: Info }
//! process 2             invoke w 6                the same: the history ends, nobody knows
//! ```
//!
//! The interval is closed: when one operation returns in the nanosecond in which another is called, they overlap.
//! Deliberately strict: an event that fits no rule is an error, never skipped. A judge that guesses is fooled.

use rustc_hash::FxHashMap;

use crate::{Event, Kind, Meta, Op, Process, Ret};

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpOutcome {
    /// It took effect between call and return, with this answer.
    Ok(Ret),
    /// It never took effect.
    Fail,
    /// It may have taken effect at any time after its call, or may never.
    Info,
}

/// An invocation and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its place among the operations, in the order of their invocations.
    pub id: usize,
    /// The client.
    pub process: u64,
    /// What was asked.
    pub op: Op,
    /// What came of it.
    pub outcome: OpOutcome,
    /// When the request was about to leave, in ns since the start.
    pub call: u64,
    /// When the reply had arrived, in ns since the start; `None` for [`OpOutcome::Info`].
    pub ret: Option<u64>,
    /// The index of the invocation.
    pub call_index: u64,
    /// The index of the completion, where there is one: also for an info that was recorded.
    pub ret_index: Option<u64>,
    /// Both events' metadata: `intended` and `node` from the invocation first, all else from the completion first.
    pub meta: Meta,
}

/// Why a history is no history. Says where, who, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {index} of process {process}: {problem}")]
pub struct HistoryError {
    /// The `index` of the event.
    pub index: u64,
    /// Its process.
    pub process: Process,
    /// What is wrong with it.
    pub problem: Problem,
}

/// The ways in which an event can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Indexes must grow from event to event.
    #[error(
        "its index follows index {previous}; indexes must strictly increase, so the file was merged, edited or duplicated"
    )]
    IndexOrder {
        /// The index before it.
        previous: u64,
    },
    /// A completion of nothing.
    #[error("it completes ({kind}) {f}, but the process has no open invocation; was a line lost?")]
    NotInvoked {
        /// Its kind.
        kind: Kind,
        /// Its function.
        f: String,
    },
    /// A process does one thing at a time.
    #[error(
        "it invokes {f} while its invocation at index {open} is still open; give every concurrent operation its own process"
    )]
    AlreadyOpen {
        /// The function it invokes.
        f: String,
        /// The index of the open invocation.
        open: u64,
    },
    /// After an info the process is retired.
    #[error(
        "it invokes {f}, but its operation at index {info} ended in info and may still be running; go on under a new process number"
    )]
    Retired {
        /// The function it invokes.
        f: String,
        /// The index of the info.
        info: u64,
    },
    /// The completion is of another operation.
    #[error(
        "it completes \"{completed}\", but the open invocation at index {open} is \"{invoked}\"; a completion must repeat its operation"
    )]
    Mismatch {
        /// What was invoked.
        invoked: String,
        /// What the completion says.
        completed: String,
        /// The index of the invocation.
        open: u64,
    },
    /// Success without an answer.
    #[error("it says ok to \"{op}\" without an answer; record what was returned, or info if nobody knows")]
    NoAnswer {
        /// What was invoked.
        op: String,
    },
    /// An answer of the wrong shape.
    #[error("it answers \"{op}\" with {ret}, which is no answer to it")]
    WrongAnswer {
        /// What was invoked.
        op: String,
        /// The answer.
        ret: String,
    },
    /// An answer on something else than ok.
    #[error("it carries an answer on \"{kind}\"; only ok has one")]
    UnexpectedAnswer {
        /// Its kind.
        kind: Kind,
    },
    /// The clock went backwards within one process.
    #[error(
        "its time is {time} ns, before the {previous} ns of the same process's previous event; all times must come from one monotonic clock"
    )]
    TimeBackwards {
        /// Its time, in ns.
        time: u64,
        /// The time of the event before it, in ns.
        previous: u64,
    },
}

/// What is known of a client while the events are read.
#[derive(Clone, Copy, Debug)]
enum Client {
    /// Between operations; the time of its last completion.
    Idle(u64),
    /// Its operation is open: its number, its row and its time.
    Open(u32, u32, u64),
    /// It ended in the info at this index.
    Retired(u64),
}

/// Which events make an operation: the rows of the invocation and of the completion, if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) call: u32,
    pub(super) end: u32,
}

/// The [`Span::end`] of what has none.
pub(super) const NO_END: u32 = u32::MAX;

/// Joins invocations to completions while events are added, and checks that the history is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairing {
    pub(super) spans: Vec<Span>,
    clients: FxHashMap<u64, Client>,
    previous: Option<u64>,
    /// The first event that breaks a rule. Nothing after it is joined.
    pub(super) broken: Option<Box<HistoryError>>,
}

impl Pairing {
    /// The row of the open invocation of a client.
    pub(super) fn open(&self, process: u64) -> Option<u32> {
        match self.clients.get(&process) {
            Some(Client::Open(_, row, _)) => Some(*row),
            _ => None,
        }
    }

    /// Takes note of the event of this row. `same` says that it repeats the operation of the open invocation to the letter;
    /// `op` gives the operation of an earlier row, and `index` its index.
    pub(super) fn see(
        &mut self,
        row: u32,
        event: &Event,
        same: bool,
        op: impl Fn(u32) -> Op,
        index: impl Fn(u32) -> u64,
    ) {
        if self.broken.is_some() {
            return;
        }
        if let Err(problem) = self.join(row, event, same, op, index) {
            self.broken =
                Some(Box::new(HistoryError { index: event.index, process: event.process, problem }));
        }
    }

    fn join(
        &mut self,
        row: u32,
        event: &Event,
        same: bool,
        op: impl Fn(u32) -> Op,
        index: impl Fn(u32) -> u64,
    ) -> Result<(), Problem> {
        if let Some(previous) = self.previous.replace(event.index)
            && previous >= event.index
        {
            return Err(Problem::IndexOrder { previous });
        }
        let Process::Client(process) = event.process else { return Ok(()) };
        let client = self.clients.entry(process).or_insert(Client::Idle(0));
        if event.kind == Kind::Invoke {
            match *client {
                Client::Idle(previous) if event.time < previous => {
                    return Err(Problem::TimeBackwards { time: event.time, previous });
                }
                Client::Idle(_) => {}
                Client::Open(_, open, _) => {
                    return Err(Problem::AlreadyOpen { f: event.op.f().into(), open: index(open) });
                }
                Client::Retired(info) => return Err(Problem::Retired { f: event.op.f().into(), info }),
            }
            if event.ret.is_some() {
                return Err(Problem::UnexpectedAnswer { kind: event.kind });
            }
            *client = Client::Open(self.spans.len() as u32, row, event.time);
            self.spans.push(Span { call: row, end: NO_END });
            return Ok(());
        }
        let Client::Open(operation, open, called) = *client else {
            return Err(Problem::NotInvoked { kind: event.kind, f: event.op.f().into() });
        };
        if !same {
            let invoked = op(open);
            if !same_request(&invoked, &event.op) {
                return Err(Problem::Mismatch {
                    invoked: invoked.to_string(),
                    completed: event.op.to_string(),
                    open: index(open),
                });
            }
        }
        if event.time < called {
            return Err(Problem::TimeBackwards { time: event.time, previous: called });
        }
        match (event.kind, &event.ret) {
            (Kind::Ok, Some(ret)) if !event.op.accepts(ret) => {
                return Err(Problem::WrongAnswer { op: event.op.to_string(), ret: format!("{ret:?}") });
            }
            (Kind::Ok, None) if event.op.must_answer() => {
                return Err(Problem::NoAnswer { op: event.op.to_string() });
            }
            (Kind::Fail | Kind::Info, Some(_)) => return Err(Problem::UnexpectedAnswer { kind: event.kind }),
            _ => {}
        }
        self.spans[operation as usize].end = row;
        *client = match event.kind {
            Kind::Info => Client::Retired(event.index),
            _ => Client::Idle(event.time),
        };
        Ok(())
    }
}

/// A completion repeats its invocation. Of a stranger's operation only the name and the key are compared: Jepsen's
/// custom, which many follow, is to complete with a filled-in value.
pub(crate) fn same_request(invoked: &Op, completed: &Op) -> bool {
    match (invoked, completed) {
        (Op::Custom { f, key, .. }, Op::Custom { f: f2, key: key2, .. }) => f == f2 && key == key2,
        _ => invoked == completed,
    }
}

impl Meta {
    /// Joins the completion's metadata into the invocation's.
    pub(super) fn complete(&mut self, completion: &Meta) {
        fn prefer<T: Clone>(slot: &mut Option<T>, better: &Option<T>) {
            if better.is_some() {
                slot.clone_from(better);
            }
        }
        fn fill<T: Clone>(slot: &mut Option<T>, other: &Option<T>) {
            if slot.is_none() {
                slot.clone_from(other);
            }
        }
        fill(&mut self.node, &completion.node);
        fill(&mut self.intended, &completion.intended);
        prefer(&mut self.path, &completion.path);
        prefer(&mut self.error, &completion.error);
        prefer(&mut self.commit_ns, &completion.commit_ns);
        prefer(&mut self.slot, &completion.slot);
        prefer(&mut self.ballot, &completion.ballot);
        prefer(&mut self.rounds, &completion.rounds);
        prefer(&mut self.forwarded, &completion.forwarded);
        prefer(&mut self.phase, &completion.phase);
    }
}
