//! `monotonic`: what can only grow is never seen to shrink.
//!
//! ```text
//! add 1   read -> 5 |--|     read -> 4 |--|       the second was called when the first had returned
//! generate -> 17 |--|        generate -> 17 |--|  a timestamp that is not newer
//! ```
//!
//! After Jepsen's `monotonic` of CockroachDB and `sequential` reads of Dgraph. A key is judged if everything that was done to it can
//! only make it grow: a counter to which nothing negative is added, a register whose writes do not overlap and grow, a generator of
//! numbers. An operation that saw less than another had seen before it was called is wrong: across all processes for reads that
//! claim to see the latest write, and within a process for all. What an add or a generator answers must be more, not just as much.
//! Deliberately without a bound on how much it may be: that is what `counter` says.

use rustc_hash::FxHashMap;
use serde_json::json;

use super::{Findings, checker};
use crate::{Checker, Key, Op, OpOutcome, Operation, Ret, Value};

pub(super) const NAME: &str = "monotonic";

/// A number that somebody was told.
#[derive(Clone, Copy)]
struct Told {
    number: i64,
    call: u64,
    ret: u64,
    process: u64,
    id: usize,
    /// It comes from an operation that made it grow.
    made: bool,
    /// It is judged across processes.
    latest: bool,
}

#[derive(Default)]
struct Growing {
    told: Vec<Told>,
    /// Call, return and number of each write.
    writes: Vec<(u64, u64, i64)>,
    adds: bool,
    /// Why it is not known to grow.
    shrinks: Option<&'static str>,
}

/// Judges reads of what can only grow, and generators of numbers. Unknown if of no such key two numbers were told one after the
/// other.
pub fn monotonic() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut keys: FxHashMap<Key, Growing> = FxHashMap::default();
        let mut order = Vec::new();
        for operation in operations.iter().filter(|operation| operation.outcome != OpOutcome::Fail) {
            let Some(key) = operation.op.key() else { continue };
            if !keys.contains_key(key) {
                order.push(key.clone());
            }
            keys.entry(key.clone()).or_default().note(&operation);
        }
        let (mut judged, mut chances) = (0_u64, 0_u64);
        let mut left_out: FxHashMap<&str, u64> = FxHashMap::default();
        for key in order {
            let Some(mut growing) = keys.remove(&key) else { continue };
            // They were written down in another order, perhaps.
            growing.told.sort_by_key(|told| (told.call, told.id));
            growing.writes.sort_unstable();
            if let Some(why) = growing.why_not() {
                *left_out.entry(why).or_insert(0) += 1;
                continue;
            }
            judged += 1;
            chances += growing.judge(&key, findings);
        }
        findings.stat("keys", judged);
        findings.stat("reads_that_could_show_it", chances);
        if chances == 0 {
            let mut reasons: Vec<String> =
                left_out.iter().map(|(why, count)| format!("{count} keys {why}")).collect();
            reasons.sort();
            reasons.insert(
                0,
                "of no key that can only grow two numbers were told one after the other".to_owned(),
            );
            findings.doubt(reasons.join(", "));
        }
    })
}

impl Growing {
    fn note(&mut self, operation: &Operation) {
        let number = |value: &Value| match value {
            Value::Int(number) => Some(*number),
            _ => None,
        };
        let told = match &operation.outcome {
            OpOutcome::Ok(Ret::Value(value)) => number(value),
            _ => None,
        };
        let mut tell = |made: bool, latest: bool| {
            if let (Some(number), Some(ret)) = (told, operation.ret) {
                let (call, process, id) = (operation.call, operation.process, operation.id);
                self.told.push(Told { number, call, ret, process, id, made, latest });
            }
        };
        match &operation.op {
            Op::Read { mode, .. } => tell(false, mode.claims_linearizability()),
            Op::Generate { .. } => tell(true, true),
            Op::Add { value, .. } => match number(value) {
                Some(more) if more >= 0 => {
                    self.adds = true;
                    tell(more > 0, true);
                }
                Some(_) => self.shrinks = Some("were made to shrink"),
                None => self.shrinks = Some("are no numbers"),
            },
            Op::Write { value, .. } => match (number(value), operation.ret) {
                (Some(number), Some(ret)) => self.writes.push((operation.call, ret, number)),
                (Some(_), None) => self.shrinks = Some("may have been written at any time"),
                (None, _) => self.shrinks = Some("are no numbers"),
            },
            _ => self.shrinks = Some("were changed in other ways"),
        }
    }

    fn why_not(&self) -> Option<&'static str> {
        let overlap = |pair: &[(u64, u64, i64)]| pair[0].1 >= pair[1].0 || pair[0].2 > pair[1].2;
        self.shrinks.or_else(|| {
            let mixed = self.adds && !self.writes.is_empty();
            (mixed || self.writes.windows(2).any(overlap))
                .then_some("were written in an order that is not known to grow")
        })
    }

    /// How many were told after another. They are in the order of the calls.
    fn judge(&mut self, key: &Key, findings: &mut Findings) -> u64 {
        let mut by_return: Vec<Told> = self.told.iter().copied().filter(|told| told.latest).collect();
        by_return.sort_by_key(|told| (told.ret, told.id));
        let mut own: FxHashMap<u64, Highest> = FxHashMap::default();
        let (mut at, mut highest, mut chances) = (0, Highest::default(), 0);
        for told in &self.told {
            while at < by_return.len() && by_return[at].ret < told.call {
                highest.see(by_return[at]);
                at += 1;
            }
            let own = own.entry(told.process).or_default();
            let of_all = Some(&highest).filter(|_| told.latest);
            chances += u64::from(own.any.is_some() || of_all.is_some_and(|highest| highest.any.is_some()));
            let (name, before) = match (own.above(told), of_all.and_then(|highest| highest.above(told))) {
                (Some(before), _) => ("went-back-in-process", before),
                (None, Some(before)) => ("went-back", before),
                (None, None) => {
                    own.see(*told);
                    continue;
                }
            };
            own.see(*told);
            let message = format!(
                "key {key}: operation {} of process {} was told {}, after operation {} of process {} had been told {}",
                told.id, told.process, told.number, before.id, before.process, before.number
            );
            findings.guilty(
                name,
                vec![before.id, told.id],
                message,
                json!({"key": key, "number": told.number, "before": before.number}),
            );
        }
        chances
    }
}

/// The highest number so far.
#[derive(Default)]
struct Highest {
    any: Option<Told>,
}

impl Highest {
    fn see(&mut self, told: Told) {
        if self.any.is_none_or(|any| told.number > any.number) {
            self.any = Some(told);
        }
    }

    /// What was told before and is more; for what has just grown, or as much.
    fn above(&self, told: &Told) -> Option<Told> {
        self.any.filter(|any| any.number > told.number || (told.made && any.number == told.number))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::{ReadMode, Validity::*};

    type Row = (u64, u64, u64, Op, Option<Ret>);

    fn read(process: u64, call: u64, ret: u64, number: i64, mode: ReadMode) -> Row {
        (process, call, ret, Op::Read { key: 1.into(), mode }, Some(Ret::Value(number.into())))
    }

    fn generate(process: u64, call: u64, ret: u64, number: i64) -> Row {
        (process, call, ret, Op::Generate { key: 1.into() }, Some(Ret::Value(number.into())))
    }

    fn write(process: u64, call: u64, number: i64, ok: bool) -> Row {
        (process, call, call + 2, Op::Write { key: 1.into(), value: number.into() }, ok.then_some(Ret::Done))
    }

    fn add(process: u64, call: u64, more: i64) -> Row {
        (process, call, call + 2, Op::Add { key: 1.into(), value: more.into() }, None)
    }

    #[test]
    fn nothing_goes_back() {
        use ReadMode::{Default, Stale};
        let judge = |rows: &[Row]| check(&monotonic(), &history(rows));
        let wrong = |name: &str| (Invalid, vec![name.to_owned()]);
        assert_eq!(judge(&[]).0, Unknown);
        assert_eq!(judge(&[add(9, 0, 1), read(0, 0, 5, 5, Default), read(1, 6, 9, 5, Default)]).0, Valid);
        assert_eq!(judge(&[read(0, 0, 5, 5, Default), read(1, 6, 9, 4, Default)]), wrong("went-back"));
        assert_eq!(judge(&[read(0, 0, 5, 5, Default), read(1, 5, 9, 4, Default)]).0, Unknown);
        assert_eq!(judge(&[read(0, 0, 5, 5, Default), read(1, 6, 9, 4, Stale)]).0, Unknown);
        assert_eq!(judge(&[read(0, 0, 5, 5, Stale), read(0, 6, 9, 4, Stale)]), wrong("went-back-in-process"));
        assert_eq!(judge(&[add(9, 0, -1), read(0, 0, 5, 5, Default), read(1, 6, 9, 4, Default)]).0, Unknown);
        assert_eq!(judge(&[generate(0, 0, 5, 5), generate(1, 6, 9, 5)]), wrong("went-back"));
        assert_eq!(judge(&[generate(0, 0, 5, 5), generate(1, 6, 9, 6)]).0, Valid);
        let back = [read(0, 10, 15, 5, Default), read(1, 16, 19, 4, Default)];
        let with = |writes: &[Row]| judge(&[writes.to_vec(), back.to_vec()].concat()).0;
        assert_eq!(with(&[write(2, 0, 4, true), write(3, 3, 5, true)]), Invalid);
        assert_eq!(with(&[write(2, 0, 5, true), write(3, 3, 4, true)]), Unknown);
        assert_eq!(with(&[write(2, 0, 4, true), write(3, 2, 5, true)]), Unknown);
        assert_eq!(with(&[write(2, 0, 4, false), write(3, 3, 5, true)]), Unknown);
    }

    /// By looking at every two answers.
    #[test]
    fn agrees_with_looking_at_all_pairs() {
        use rand::{RngExt, SeedableRng};
        let mut both = [0; 2];
        for seed in 0..5000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut rows: Vec<Row> = Vec::new();
            for process in 0..rng.random_range(1..4) {
                let mut now = rng.random_range(0..10);
                for _ in 0..rng.random_range(1..4) {
                    let (call, ret) = (now, now + rng.random_range(0..6));
                    now = ret + rng.random_range(1..8);
                    let number = call as i64 / 2 + rng.random_range(0..6);
                    rows.push(match rng.random_range(0..4) {
                        0 => generate(process, call, ret, number),
                        1 => read(process, call, ret, number, ReadMode::Stale),
                        _ => read(process, call, ret, number, ReadMode::Default),
                    });
                }
            }
            let number = |row: &Row| match row.4 {
                Some(Ret::Value(Value::Int(number))) => number,
                _ => unreachable!(),
            };
            let latest = |row: &Row| !matches!(row.3, Op::Read { mode: ReadMode::Stale, .. });
            let made = |row: &Row| matches!(row.3, Op::Generate { .. });
            let wrong = rows.iter().any(|a| {
                rows.iter().any(|b| {
                    let after = a.2 < b.1 && (a.0 == b.0 || latest(a) && latest(b));
                    after && (number(a) > number(b) || made(b) && number(a) == number(b))
                })
            });
            let (validity, _) = check(&monotonic(), &history(&rows));
            assert_eq!(validity == Invalid, wrong, "seed {seed}: {rows:?}");
            both[usize::from(wrong)] += 1;
        }
        assert!(both[0] > 500 && both[1] > 500, "{both:?}");
    }
}
