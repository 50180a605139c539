//! What a history says about replicas: who wrote what to which key, which replica was seen to hold what, and since when
//! nobody was disturbing them.
//!
//! ```text
//! nemesis   |== partition ==|          observer: healed
//! writes    |-| |--|    |---|  |-|        |
//!                                 \_______|__ quiet: from here on replicas have nothing to do but to agree
//! ```
//!
//! Deliberately without judgement.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::versions::Versions;
use crate::{History, Key, Kind, Op, OpOutcome, Operation, Operations, Process, ReadMode, Ret, Value};

/// The event by which the observer says that all faults are over, and that this was seen.
pub const HEALED: &str = "healed";

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It happened between its call and its return.
    Acknowledged,
    /// Nobody knows.
    Unknown,
    /// It had no effect: it failed, or it was a compare-and-set that found another value.
    Never,
}

/// A change of one key.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) id: usize,
    /// What the key held then, or the element that was added.
    pub(super) value: Value,
    pub(super) call: u64,
    /// In ns; `u64::MAX` if it was not acknowledged.
    pub(super) ret: u64,
    pub(super) fate: Fate,
}

/// What one replica was seen to hold.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) id: usize,
    /// A place in [`Evidence::nodes`].
    pub(super) node: usize,
    pub(super) value: Value,
    pub(super) call: u64,
    pub(super) ret: u64,
}

/// All about one key.
#[derive(Debug)]
pub(super) struct Register {
    pub(super) key: Key,
    pub(super) versions: Versions,
    /// In the order of their calls.
    pub(super) reads: Vec<Read>,
}

/// Since when replicas have had nothing to do but to agree.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    /// When all faults were over and seen to be; 0 if there was none. `None` if nothing in the history says so.
    pub(super) healed: Option<u64>,
    /// The last that was heard of the nemesis, if it spoke at all.
    last_fault: Option<u64>,
    /// When the last write was answered or given up, whichever came last; `None` if one was open when the history ended.
    pub(super) stopped: Option<u64>,
}

impl Quiet {
    /// From then on. Unless it is known that faults were healed, from the last that was heard of them.
    pub(super) fn since(&self) -> Option<u64> {
        self.stopped.map(|stopped| stopped.max(self.healed.or(self.last_fault).unwrap_or(0)))
    }
}

/// A stale read that was not answered.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    pub(super) node: usize,
    pub(super) call: u64,
    pub(super) why: Arc<str>,
}

/// Everything that is looked at.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) nodes: Vec<Arc<str>>,
    /// In the order of their first operation.
    pub(super) keys: Vec<Register>,
    pub(super) quiet: Quiet,
    pub(super) silences: Vec<Silence>,
    /// Stale reads that do not say which replica answered.
    pub(super) nameless: usize,
    /// Keys about which nothing can be said, and why.
    pub(super) beyond: Vec<(Key, String)>,
}

impl Evidence {
    /// Reads that were answered, of all keys.
    pub(super) fn reads(&self) -> impl Iterator<Item = &Read> {
        self.keys.iter().flat_map(|key| &key.reads)
    }
}

#[derive(Default)]
struct Draft {
    writes: Vec<Write>,
    reads: Vec<Read>,
    /// Values that reads of any mode have found, and when first.
    seen: FxHashMap<Value, u64>,
    registers: bool,
    sets: bool,
    lists: bool,
    beyond: Option<String>,
}

/// Reads a history.
pub(super) fn gather(history: &History, operations: Operations<'_>) -> Evidence {
    let mut evidence = Evidence { quiet: quiet(history, operations), ..Evidence::default() };
    let mut places: FxHashMap<Arc<str>, usize> = FxHashMap::default();
    let mut place = |nodes: &mut Vec<Arc<str>>, name: Arc<str>| {
        *places.entry(name.clone()).or_insert_with(|| {
            nodes.push(name);
            nodes.len() - 1
        })
    };
    for name in &history.header.nodes {
        place(&mut evidence.nodes, name.as_str().into());
    }
    let mut drafts: FxHashMap<Key, usize> = FxHashMap::default();
    let mut keys: Vec<(Key, Draft)> = Vec::new();
    for operation in operations.iter() {
        let Some(key) = operation.op.key() else { continue };
        let at = *drafts.entry(key.clone()).or_insert_with(|| {
            keys.push((key.clone(), Draft::default()));
            keys.len() - 1
        });
        let draft = &mut keys[at].1;
        let Op::Read { mode, .. } = operation.op else {
            draft.write(&operation);
            continue;
        };
        let answer = match (&operation.outcome, operation.ret) {
            (OpOutcome::Ok(Ret::Value(value)), Some(ret)) => Some((value.clone(), ret)),
            _ => None,
        };
        if let Some((value, ret)) = &answer {
            let first = draft.seen.entry(value.clone()).or_insert(*ret);
            *first = (*first).min(*ret);
        }
        if mode != ReadMode::Stale {
            continue;
        }
        let Some(name) = operation.meta.node.clone() else {
            evidence.nameless += 1;
            continue;
        };
        let node = place(&mut evidence.nodes, name);
        let (id, call) = (operation.id, operation.call);
        match answer {
            Some((value, ret)) => draft.reads.push(Read { id, node, value, call, ret }),
            None => {
                let why = operation.meta.error.clone().unwrap_or_else(|| "no answer".into());
                evidence.silences.push(Silence { node, call, why });
            }
        }
    }
    for (key, draft) in keys {
        match draft.finish() {
            Ok((versions, reads)) => evidence.keys.push(Register { key, versions, reads }),
            Err(why) => evidence.beyond.push((key, why)),
        }
    }
    evidence
}

impl Draft {
    fn write(&mut self, operation: &Operation) {
        let value = match &operation.op {
            Op::Write { value, .. } | Op::Cas { new: value, .. } => {
                self.registers = true;
                value.clone()
            }
            Op::Delete { .. } => {
                self.registers = true;
                Value::Nil
            }
            Op::Add { value, .. } => {
                self.sets = true;
                value.clone()
            }
            Op::Append { value, .. } => {
                self.lists = true;
                value.clone()
            }
            other => {
                self.beyond.get_or_insert_with(|| format!("what `{}` leaves is not known here", other.f()));
                return;
            }
        };
        let fate = match &operation.outcome {
            OpOutcome::Fail | OpOutcome::Ok(Ret::Swapped { swapped: false, .. }) => Fate::Never,
            OpOutcome::Ok(_) => Fate::Acknowledged,
            OpOutcome::Info => Fate::Unknown,
        };
        let ret = match fate {
            Fate::Acknowledged => operation.ret.unwrap_or(u64::MAX),
            Fate::Unknown | Fate::Never => u64::MAX,
        };
        self.writes.push(Write { id: operation.id, value, call: operation.call, ret, fate });
    }

    fn finish(mut self) -> Result<(Versions, Vec<Read>), String> {
        if let Some(why) = self.beyond {
            return Err(why);
        }
        self.reads.sort_by_key(|read| (read.call, read.id));
        if usize::from(self.registers) + usize::from(self.sets) + usize::from(self.lists) > 1 {
            return Err("it is written as a register and as a collection".into());
        }
        // A set that nobody added to is read as one, too.
        let unwritten =
            self.writes.is_empty() && self.reads.iter().any(|r| matches!(r.value, Value::List(_)));
        if !(self.sets || self.lists || unwritten) {
            return Ok((Versions::registers(self.writes, self.seen), self.reads));
        }
        for read in &mut self.reads {
            match &read.value {
                Value::Nil => read.value = Value::from(vec![]),
                Value::List(all) if !self.lists => {
                    let mut sorted = all.to_vec();
                    sorted.sort_unstable();
                    read.value = sorted.into();
                }
                Value::List(_) => {}
                other => return Err(format!("operation {} read {other}, which is no list", read.id)),
            }
        }
        Ok((Versions::growing(self.writes), self.reads))
    }
}

fn quiet(history: &History, operations: Operations<'_>) -> Quiet {
    let (mut healed, mut last_fault) = (None, None);
    for event in history.events.iter().filter(|event| !matches!(event.process, Process::Client(_))) {
        match (event.process, &event.op) {
            (Process::Nemesis, _) => {
                last_fault = last_fault.max(Some(event.time));
                healed = None;
            }
            (Process::Observer, Op::Custom { f, .. }) if &**f == HEALED && event.kind == Kind::Info => {
                healed = Some(event.time);
            }
            _ => {}
        }
    }
    if last_fault.is_none() {
        healed = healed.or(Some(0));
    }
    let mut stopped = Some(0);
    for id in 0..operations.len() {
        let operation = operations.get(id);
        // Whatever is no read may write.
        if matches!(operation.op, Op::Read { .. } | Op::Contains { .. })
            || operation.outcome == OpOutcome::Fail
        {
            continue;
        }
        stopped = match (stopped, operations.recorded(id)) {
            (Some(before), Some(time)) => Some(before.max(time)),
            _ => None,
        };
    }
    Quiet { healed, last_fault, stopped }
}
