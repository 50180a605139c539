//! `Act`: an operation as the search sees it: what it needs to find, and what it leaves.
//!
//! ```text
//! read x -> 5           finds 5
//! write x 5             leaves 5
//! cas x 5->6 ok         finds 5, leaves 6
//! cas x 5->6 no         does not find 5; or finds what it told
//! ```

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::SequentialOptions;
use crate::{Key, Op, OpOutcome, Operations, Ret, Value};

/// No value, no act.
pub(super) const NONE: u32 = u32::MAX;
/// The initial value of every key.
pub(super) const INITIAL: u32 = 0;

#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    pub(super) operation: u32,
    pub(super) process: u32,
    /// How many acts of the process come before.
    pub(super) place: u32,
    pub(super) key: u32,
    pub(super) finds: u32,
    pub(super) avoids: u32,
    pub(super) leaves: u32,
    /// It succeeded.
    pub(super) happened: bool,
    /// It succeeded, or somebody saw what it left.
    pub(super) required: bool,
}

#[derive(Default)]
pub(super) struct Acts {
    /// All of them, those of a process together and in its order.
    pub(super) all: Vec<Act>,
    /// Where each process begins, and the end.
    pub(super) first: Vec<u32>,
    pub(super) keys: u32,
    /// The act that leaves a value, by key and value; `NONE` if several do.
    pub(super) writers: FxHashMap<(u32, u32), u32>,
    pub(super) foreign: u64,
}

impl Acts {
    pub(super) fn new(operations: Operations<'_>, options: &SequentialOptions) -> Acts {
        let mut acts = Acts::default();
        let mut keys: FxHashMap<Key, u32> = FxHashMap::default();
        let mut values: FxHashMap<Value, u32> = FxHashMap::default();
        values.insert(options.initial.clone(), INITIAL);
        let mut processes: FxHashMap<u64, u32> = FxHashMap::default();
        let mut strange: FxHashSet<u32> = FxHashSet::default();
        for operation in operations.iter() {
            let happened = match operation.outcome {
                OpOutcome::Ok(_) => true,
                OpOutcome::Fail => continue,
                OpOutcome::Info => false,
            };
            let Some(key) = operation.op.key() else {
                acts.foreign += 1;
                continue;
            };
            let next = keys.len() as u32;
            let key = *keys.entry(key.clone()).or_insert(next);
            let mut value = |value: &Value| {
                let next = values.len() as u32;
                *values.entry(value.clone()).or_insert(next)
            };
            let [mut finds, mut avoids, mut leaves] = [NONE; 3];
            match (&operation.op, &operation.outcome) {
                (Op::Read { mode, .. }, _) if !options.stale_reads && !mode.claims_linearizability() => {
                    continue;
                }
                (Op::Read { .. }, OpOutcome::Ok(Ret::Value(read))) => finds = value(read),
                (Op::Read { .. }, _) => continue,
                (Op::Write { value: written, .. }, _) => leaves = value(written),
                (Op::Delete { .. }, _) => leaves = value(&Value::Nil),
                (Op::Cas { expected, .. }, OpOutcome::Ok(Ret::Swapped { swapped: false, found })) => {
                    match found {
                        Some(found) => finds = value(found),
                        None => avoids = value(expected),
                    }
                }
                (Op::Cas { expected, new, .. }, _) => (finds, leaves) = (value(expected), value(new)),
                _ => {
                    acts.foreign += 1;
                    strange.insert(key);
                    continue;
                }
            }
            let next = processes.len() as u32;
            let process = *processes.entry(operation.process).or_insert(next);
            let operation = operation.id as u32;
            // What leaves what it finds is a read.
            let leaves = if leaves == finds { NONE } else { leaves };
            let required = happened;
            acts.all.push(Act {
                operation,
                process,
                place: 0,
                key,
                finds,
                avoids,
                leaves,
                happened,
                required,
            });
        }
        acts.all.retain(|act| !strange.contains(&act.key));
        acts.keys = keys.len() as u32;
        acts.arrange();
        acts
    }

    /// Puts the acts of each process together, and leaves out what need not have happened and nobody could have seen.
    fn arrange(&mut self) {
        let wanted: FxHashSet<(u32, u32)> =
            self.all.iter().filter(|act| act.finds != NONE).map(|act| (act.key, act.finds)).collect();
        // What avoids a value may need another one, whichever.
        let avoided: FxHashSet<u32> =
            self.all.iter().filter(|act| act.avoids != NONE).map(|act| act.key).collect();
        self.all.retain(|act| {
            act.required || avoided.contains(&act.key) || wanted.contains(&(act.key, act.leaves))
        });
        self.all.sort_by_key(|act| (act.process, act.operation));
        self.first = Vec::new();
        let mut process = None;
        for (at, act) in self.all.iter_mut().enumerate() {
            if process != Some(act.process) {
                process = Some(act.process);
                self.first.push(at as u32);
            }
            act.process = self.first.len() as u32 - 1;
            act.place = at as u32 - self.first[act.process as usize];
        }
        self.first.push(self.all.len() as u32);
        self.writers.clear();
        for (at, act) in self.all.iter().enumerate().filter(|(_, act)| act.leaves != NONE) {
            let writer = self.writers.entry((act.key, act.leaves)).or_insert(at as u32);
            if *writer != at as u32 {
                *writer = NONE;
            }
        }
        // What was seen by somebody did happen, and what that had found, too.
        let mut seen: Vec<u32> =
            (0..self.all.len() as u32).filter(|at| self.all[*at as usize].required).collect();
        while let Some(at) = seen.pop() {
            if let Some(source) = self.source(&self.all[at as usize]).filter(|source| *source != NONE)
                && !std::mem::replace(&mut self.all[source as usize].required, true)
            {
                seen.push(source);
            }
        }
    }

    pub(super) fn processes(&self) -> usize {
        self.first.len() - 1
    }

    pub(super) fn reads(&self) -> usize {
        self.all.iter().filter(|act| act.finds != NONE || act.avoids != NONE).count()
    }

    /// Who left what an act found: `Some(NONE)` if nobody had to, since it was there at first; `None` if it may have been
    /// several.
    pub(super) fn source(&self, act: &Act) -> Option<u32> {
        if act.finds == NONE {
            return None;
        }
        match (self.writers.get(&(act.key, act.finds)), act.finds == INITIAL) {
            (None, true) => Some(NONE),
            (Some(writer), false) if *writer != NONE => Some(*writer),
            _ => None,
        }
    }

    /// An act that happened and found what nobody left.
    pub(super) fn unexplained(&self) -> Option<u32> {
        let nowhere = |act: &Act| {
            act.required
                && act.finds != NONE
                && act.finds != INITIAL
                && !self.writers.contains_key(&(act.key, act.finds))
        };
        self.all.iter().position(nowhere).map(|at| at as u32)
    }

    /// The same with, for each of unknown outcome, somebody who saw that it happened.
    pub(super) fn witnessed(&self, evidence: Vec<u32>) -> Vec<u32> {
        let mut all: BTreeSet<u32> = evidence.iter().copied().collect();
        let mut open = evidence;
        while let Some(at) = open.pop() {
            let act = &self.all[at as usize];
            if act.happened || act.leaves == NONE {
                continue;
            }
            let saw = |other: &Act| other.required && (other.key, other.finds) == (act.key, act.leaves);
            // One that succeeded, if there is one: the others would have to be seen in their turn.
            let readers = (0..self.all.len() as u32).filter(|other| saw(&self.all[*other as usize]));
            if let Some(reader) = readers.max_by_key(|other| self.all[*other as usize].happened)
                && all.insert(reader)
            {
                open.push(reader);
            }
        }
        all.into_iter().collect()
    }

    /// These alone; `None` if one of them found what only others have left.
    pub(super) fn only(&self, those: &[u32]) -> Option<Acts> {
        let all: Vec<Act> = those
            .iter()
            .map(|at| self.all[*at as usize])
            .map(|act| Act { required: act.happened, ..act })
            .collect();
        let mut part = Acts { all, keys: self.keys, ..Acts::default() };
        part.arrange();
        // Of several that left a value, all must stay: otherwise guilt is made up.
        let left = |acts: &Acts, key, value| {
            acts.all.iter().filter(|act| (act.key, act.leaves) == (key, value)).count()
        };
        let whole = part
            .all
            .iter()
            .filter(|act| act.finds != NONE)
            .all(|act| left(&part, act.key, act.finds) == left(self, act.key, act.finds));
        let free = part.all.iter().all(|act| act.avoids == NONE);
        (whole && free).then_some(part)
    }
}
