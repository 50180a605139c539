//! `Record`: a judged operation as numbers, and the records of each key side by side.
//!
//! ```text
//! operations   k1 k2 k1 k3 k2 k1 …        in the order of time: to look at one key's is to jump through all of memory
//! records      k1 k1 k1 | k2 k2 | k3      a batch of keys, gathered in one pass
//! ```
//!
//! Batches, since a copy of everything would take as much memory as the history. A key with very many operations is not
//! copied at all: one pass over the history finds its operations as fast. Deliberately without any judgement but one: which
//! operations say anything about linearizability.

use std::ops::Range;

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::history::{
    datum::{Datum, Values},
    events::{F, Told},
    operations::{End, Operations},
};

/// The most records that are copied at once by each thread, if no single key has more.
const MAX_BATCH: usize = 2_000_000;
/// A key with more operations than this is not copied.
const MAX_COPIED: usize = 250_000;
/// That an operation is of no key.
const NOT_JUDGED: u32 = u32::MAX;

/// A judged operation as numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// When it was called, in ns.
    pub(super) call: u64,
    /// When it returned; `u64::MAX` if it never did.
    pub(super) ret: u64,
    pub(super) id: u32,
    /// As [`Asked::a`](crate::history::events::Asked::a) and `b`.
    pub(super) a: Datum,
    pub(super) b: Datum,
    told: u32,
    code: u8,
    /// [`F::Custom`] also if the answer has no form in numbers.
    pub(super) f: F,
    pub(super) end: End,
}

impl Record {
    fn of(operations: &Operations<'_>, id: u32) -> Record {
        let raw = operations.raw(id as usize);
        let (call, ret, end) = (raw.call, raw.ret, raw.end);
        match (raw.asked, raw.told) {
            (Some(asked), Some(answer)) => {
                let (code, told) = answer.encode();
                Record { call, ret, id, a: asked.a, b: asked.b, told, code, f: asked.f, end }
            }
            _ => Record { call, ret, id, a: Datum::NIL, b: Datum::NIL, told: 0, code: 0, f: F::Custom, end },
        }
    }

    /// The answer.
    pub(super) fn told(&self) -> Told {
        Told::decode(self.code, self.told)
    }
}

/// The judged operations of one key.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub(super) operations: &'a Operations<'a>,
    place: Place<'a>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Copied(&'a [Record]),
    /// Those of this number among all.
    Among {
        key_of: &'a [u32],
        key: u32,
        count: usize,
    },
}

impl<'a> Records<'a> {
    /// Copies of operations with these ids, for tests of one judge.
    #[cfg(test)]
    pub(super) fn copy(operations: &Operations<'_>, ids: &[u32]) -> Vec<Record> {
        ids.iter().map(|id| Record::of(operations, *id)).collect()
    }

    /// What [`Records::copy`] gave.
    #[cfg(test)]
    pub(super) fn of(operations: &'a Operations<'a>, copied: &'a [Record]) -> Self {
        Records { operations, place: Place::Copied(copied) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self.place {
            Place::Copied(records) => records.len(),
            Place::Among { count, .. } => count,
        }
    }

    pub(super) fn values(&self) -> &'a Values {
        self.operations.values()
    }

    /// Hands out each of them, in the order of their calls, until one is refused.
    pub(super) fn try_each<E>(&self, mut see: impl FnMut(&Record) -> Result<(), E>) -> Result<(), E> {
        match self.place {
            Place::Copied(records) => records.iter().try_for_each(see),
            Place::Among { key_of, key, .. } => {
                let ids = (0..).zip(key_of).filter(|(_, of)| **of == key);
                ids.map(|(id, _)| id).try_for_each(|id| see(&Record::of(self.operations, id)))
            }
        }
    }

    /// The ids of the operations.
    pub(super) fn ids(&self) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.len());
        let Ok(()) = self.try_each(|record| {
            ids.push(record.id);
            Ok::<(), std::convert::Infallible>(())
        });
        ids
    }
}

/// Whether the operation says anything about linearizability.
pub(super) fn is_judged(operations: &Operations<'_>, id: usize) -> bool {
    let end = operations.end(id);
    if end == End::Fail {
        return false;
    }
    match operations.asked(id) {
        Some(asked) if asked.f == F::Read => end == End::Ok && asked.mode().claims_linearizability(),
        _ => true,
    }
}

/// Which judged operations are of which key.
pub(super) struct Keys {
    /// In the order of their first operation.
    pub(super) keys: Vec<Datum>,
    counts: Vec<u32>,
    key_of: Vec<u32>,
    /// Whether any of them was answered. What was not need not have happened, so that nothing is known of it.
    pub(super) answered: bool,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Sorts the judged operations by key; all of them are of one if keys cannot be judged alone.
    pub(super) fn of(operations: &Operations<'_>, local: bool) -> Result<Keys, String> {
        let mut all = Keys {
            keys: Vec::new(),
            counts: Vec::new(),
            key_of: vec![NOT_JUDGED; operations.len()],
            answered: false,
        };
        let mut places: FxHashMap<Datum, u32> = FxHashMap::default();
        for (id, place) in all.key_of.iter_mut().enumerate().filter(|(id, _)| is_judged(operations, *id)) {
            let key = if local { operations.key(id) } else { Some(Datum::NIL) };
            let Some(key) = key else {
                let operation = operations.get(id);
                return Err(format!(
                    "operation {} of process {}, {}, has no key: it may touch any, so none can be judged",
                    operation.id, operation.process, operation.op
                ));
            };
            *place = *places.entry(key).or_insert_with(|| {
                all.keys.push(key);
                all.counts.push(0);
                all.keys.len() as u32 - 1
            });
            all.counts[*place as usize] += 1;
            all.answered |= operations.end(id) == End::Ok;
        }
        Ok(all)
    }

    /// Judges each key, several at a time, and gives what came out in their order.
    pub(super) fn map<T: Send>(
        &self,
        operations: &Operations<'_>,
        judge: impl Fn(Records<'_>) -> T + Sync,
    ) -> Vec<T> {
        let judge_batch = |batch: Range<usize>| {
            let count = self.counts[batch.start] as usize;
            if batch.len() == 1 && count > MAX_COPIED {
                let place = Place::Among { key_of: &self.key_of, key: batch.start as u32, count };
                return vec![judge(Records { operations, place })];
            }
            let (starts, records) = self.gather(operations, &batch);
            let judge_key = |ends: &[u32]| {
                let place = Place::Copied(&records[ends[0] as usize..ends[1] as usize]);
                judge(Records { operations, place })
            };
            match batch.len() {
                1 => vec![judge_key(&starts)],
                _ => starts.par_windows(2).map(judge_key).collect(),
            }
        };
        let batches = self.batches();
        let batches: Vec<Vec<T>> = match batches.len() {
            // To wake another thread takes as long as to judge a short history.
            1 => batches.into_iter().map(judge_batch).collect(),
            _ => batches.into_par_iter().map(judge_batch).collect(),
        };
        batches.into_iter().flatten().collect()
    }

    /// Keys that are looked at together: a share for each thread, if that is not too much for its memory.
    fn batches(&self) -> Vec<Range<usize>> {
        let total: usize = self.counts.iter().map(|count| *count as usize).sum();
        let most = (total / rayon::current_num_threads() + 1).min(MAX_BATCH);
        let mut batches = Vec::new();
        let (mut start, mut records) = (0, 0);
        for (at, &count) in self.counts.iter().enumerate() {
            let count = count as usize;
            if start < at && (records + count > most || count > MAX_COPIED) {
                batches.push(start..at);
                (start, records) = (at, 0);
            }
            records += count;
        }
        if start < self.counts.len() {
            batches.push(start..self.counts.len());
        }
        batches
    }

    /// The records of some keys, and where those of each begin.
    fn gather(&self, operations: &Operations<'_>, batch: &Range<usize>) -> (Vec<u32>, Vec<Record>) {
        let mut starts = Vec::with_capacity(batch.len() + 1);
        let mut total = 0;
        for count in &self.counts[batch.clone()] {
            starts.push(total);
            total += count;
        }
        let mut next = starts.clone();
        starts.push(total);
        let blank = Record {
            call: 0,
            ret: 0,
            id: 0,
            a: Datum::NIL,
            b: Datum::NIL,
            told: 0,
            code: 0,
            f: F::Custom,
            end: End::Info,
        };
        let mut records = vec![blank; total as usize];
        for (id, key) in (0..).zip(&self.key_of) {
            // What is not judged lies beyond every batch.
            let Some(next) = (*key as usize).checked_sub(batch.start).and_then(|at| next.get_mut(at)) else {
                continue;
            };
            records[*next as usize] = Record::of(operations, id);
            *next += 1;
        }
        (starts, records)
    }
}
