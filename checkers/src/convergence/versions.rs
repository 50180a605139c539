//! What one key went through: which of two versions is certainly the newer, and what a replica that holds a value has
//! certainly not heard of.
//!
//! ```text
//! write 1  |--------|
//! write 2       |--------|            either may have come first: who holds 1 lacks nothing
//! write 3                    |---|    certainly after both: who holds 1 or 2 lacks 3
//! ```
//!
//! Time orders two writes only if one was over before the other began. A write of unknown outcome may take effect at any
//! later time, so that it may supersede everything. Deliberately no guess beyond that.

use rustc_hash::{FxHashMap, FxHashSet};

use super::evidence::{Fate, Read, Write};
use crate::{Budget, Value};

/// The most writes that are named as the origin of a value.
const MAX_SHOWN: usize = 3;

/// Why a value should not be there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Foreign {
    /// Nobody wrote it.
    Garbage(Value),
    /// Only writes that had no effect, by their places.
    Failed(Value, Vec<usize>),
    /// Only writes that began after it was read, by their places.
    Future(Value, Vec<usize>),
}

/// How old what a read found was, at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Age {
    /// For how long it had certainly been overwritten by an acknowledged write when the read was called, in ns.
    pub(super) t_ns: u64,
    /// How many acknowledged writes were certainly newer.
    pub(super) k: u64,
}

/// Where a value can come from.
#[derive(Debug, Default)]
struct Origin {
    /// The writes that leave it, by their places.
    writers: Vec<usize>,
    /// The earliest call of those that may have had an effect; `None` if none may.
    earliest: Option<u64>,
    /// The first moment at which a write can be called and be certain to come after whichever left it; `u64::MAX` if there is
    /// none.
    after: u64,
    /// The same, knowing that a value that was seen was there by then.
    sharp: u64,
}

/// The writes of one key.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) writes: Vec<Write>,
    origins: FxHashMap<Value, Origin>,
    /// The acknowledged writes, by their calls.
    acknowledged: Vec<usize>,
    /// The key is a collection that grows, not a register.
    grows: bool,
}

impl Versions {
    /// A register: each write replaces what was there. At first it is nil.
    pub(super) fn registers(writes: Vec<Write>, seen: FxHashMap<Value, u64>) -> Self {
        Versions::new(writes, seen, false)
    }

    /// A set or a list: each write adds an element. At first it is empty.
    pub(super) fn growing(writes: Vec<Write>) -> Self {
        Versions::new(writes, FxHashMap::default(), true)
    }

    fn new(writes: Vec<Write>, seen: FxHashMap<Value, u64>, grows: bool) -> Self {
        let mut origins: FxHashMap<Value, Origin> = FxHashMap::default();
        for (at, write) in writes.iter().enumerate() {
            let origin = origins.entry(write.value.clone()).or_default();
            origin.writers.push(at);
            if write.fate != Fate::Never {
                origin.earliest = Some(origin.earliest.map_or(write.call, |call| call.min(write.call)));
                origin.after = origin.after.max(write.ret.saturating_add(1));
            }
        }
        for (value, origin) in &mut origins {
            let possible = origin.writers.iter().filter(|at| writes[**at].fate != Fate::Never);
            // Of several writers nobody knows whose it was.
            let only = possible.take(2).count() == 1 && *value != Value::Nil;
            let seen = seen.get(value).filter(|_| only).map_or(u64::MAX, |seen| seen.saturating_add(1));
            origin.sharp = origin.after.min(seen);
        }
        let mut acknowledged: Vec<usize> =
            (0..writes.len()).filter(|at| writes[*at].fate == Fate::Acknowledged).collect();
        acknowledged.sort_by_key(|at| writes[*at].call);
        Versions { writes, origins, acknowledged, grows }
    }

    /// Whether a write is known to have happened.
    pub(super) fn is_written(&self) -> bool {
        !self.acknowledged.is_empty()
    }

    /// The writes that may have left a value, by their places.
    pub(super) fn writers(&self, value: &Value) -> &[usize] {
        self.origins.get(value).map_or(&[], |origin| &origin.writers)
    }

    /// What a read found that it should not have.
    pub(super) fn foreign(&self, read: &Read) -> Option<Foreign> {
        match &read.value {
            Value::List(all) if self.grows => all.iter().find_map(|element| self.alien(element, read.ret)),
            Value::Nil => None,
            value => self.alien(value, read.ret),
        }
    }

    fn alien(&self, value: &Value, ret: u64) -> Option<Foreign> {
        let Some(origin) = self.origins.get(value) else { return Some(Foreign::Garbage(value.clone())) };
        let shown = |possible: bool| {
            let writers = origin.writers.iter().copied();
            writers.filter(|at| !possible || self.writes[*at].fate != Fate::Never).take(MAX_SHOWN).collect()
        };
        match origin.earliest {
            None => Some(Foreign::Failed(value.clone(), shown(false))),
            Some(call) if call > ret => Some(Foreign::Future(value.clone(), shown(true))),
            Some(_) => None,
        }
    }

    /// An acknowledged write that a replica with this value lacks: it is neither in it nor superseded by it.
    pub(super) fn lacks(&self, value: &Value) -> Option<&Write> {
        if self.grows {
            let Value::List(all) = value else { return None };
            let has: FxHashSet<&Value> = all.iter().collect();
            return self.acknowledged.iter().map(|at| &self.writes[*at]).find(|w| !has.contains(&w.value));
        }
        let last = &self.writes[*self.acknowledged.last()?];
        let after = self.origins.get(value).map_or(0, |origin| origin.after);
        (last.call >= after).then_some(last)
    }

    /// How old what each of some reads found was, in their order; `None` if the budget did not suffice.
    pub(super) fn ages(&self, reads: &[Read], budget: &Budget) -> Option<Vec<Age>> {
        if !self.grows {
            return Some(self.ages_of_registers(reads));
        }
        reads.iter().map(|read| (!budget.is_cancelled()).then(|| self.age_of_collection(read))).collect()
    }

    fn age_of_collection(&self, read: &Read) -> Age {
        let Value::List(all) = &read.value else { return Age::default() };
        let has: FxHashSet<&Value> = all.iter().collect();
        let lacking = self.acknowledged.iter().map(|at| &self.writes[*at]);
        let lacking = lacking.filter(|w| w.ret < read.call && !has.contains(&w.value));
        let mut age = Age::default();
        for write in lacking {
            age.k += 1;
            age.t_ns = age.t_ns.max(read.call - write.ret);
        }
        age
    }

    /// All reads at once, in the order of their calls: writes are let in as they return, and counted by their calls.
    fn ages_of_registers(&self, reads: &[Read]) -> Vec<Age> {
        let calls: Vec<u64> = self.acknowledged.iter().map(|at| self.writes[*at].call).collect();
        let mut earliest: Vec<u64> = self.acknowledged.iter().map(|at| self.writes[*at].ret).collect();
        for at in (1..earliest.len()).rev() {
            earliest[at - 1] = earliest[at - 1].min(earliest[at]);
        }
        let mut returns: Vec<(u64, usize)> =
            self.acknowledged.iter().enumerate().map(|(rank, at)| (self.writes[*at].ret, rank)).collect();
        returns.sort_unstable();
        let mut order: Vec<usize> = (0..reads.len()).collect();
        order.sort_by_key(|at| reads[*at].call);
        let mut counted = Counts::new(calls.len());
        let mut let_in = returns.into_iter().peekable();
        let mut ages = vec![Age::default(); reads.len()];
        for at in order {
            let read = &reads[at];
            while let Some((_, rank)) = let_in.next_if(|(ret, _)| *ret < read.call) {
                counted.add(rank);
            }
            let after = self.origins.get(&read.value).map_or(0, |origin| origin.sharp);
            let first = calls.partition_point(|call| *call < after);
            let Some(overwritten) = earliest.get(first).filter(|ret| **ret < read.call) else { continue };
            ages[at] = Age { t_ns: read.call - overwritten, k: counted.from(first) };
        }
        ages
    }
}

/// How many of some numbered things were let in (Fenwick, *A new data structure for cumulative frequency tables*, 1994).
struct Counts {
    tree: Vec<u64>,
    all: u64,
}

impl Counts {
    fn new(len: usize) -> Self {
        Counts { tree: vec![0; len + 1], all: 0 }
    }

    fn add(&mut self, rank: usize) {
        self.all += 1;
        let mut at = rank + 1;
        while at < self.tree.len() {
            self.tree[at] += 1;
            at += at & at.wrapping_neg();
        }
    }

    /// How many of this number and above.
    fn from(&self, rank: usize) -> u64 {
        let (mut at, mut below) = (rank, 0);
        while at > 0 {
            below += self.tree[at];
            at &= at - 1;
        }
        self.all - below
    }
}
