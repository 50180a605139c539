//! `set-full`: every element that was added is in all later reads of the set.
//!
//! ```text
//! add 3 |--|    read -> [1 2]    read -> [1 2 3]       stale for a while
//! add 4 |--|    read -> [1 2 4]  read -> [1 2 3]       lost: it was there, and the last read does not have it
//! ```
//!
//! Jepsen's `checker/set-full`. An element is *known* from when its add returned, or from when a read returned that had it. It is
//! *lost* if a read that was called after that does not have it, and no read that was called later has it again; *stale* if
//! one has it again; *never read* if no read was called after it was known, or it was never seen and never acknowledged.
//! With `linearizable`, a stale element is a fault, too. Deliberately for sets that only grow.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;
use serde_json::json;

use super::checker;
use crate::{Checker, Key, Op, OpOutcome, Operation, Ret, Value};

pub(super) const NAME: &str = "set-full";

struct Element {
    value: Value,
    adds: Vec<usize>,
    /// It was asked for by somebody who was not told that it failed.
    wanted: bool,
    /// From when it is known, and by which operation.
    known: Option<(u64, usize)>,
    /// The call of the last read that had it, and of the last that did not.
    present: Option<(u64, usize)>,
    absent: Option<(u64, usize)>,
}

#[derive(Default)]
struct Set {
    elements: Vec<Element>,
    places: FxHashMap<Value, usize>,
    reads: Vec<(Operation, Vec<usize>)>,
}

impl Set {
    fn place(&mut self, value: &Value) -> usize {
        *self.places.entry(value.clone()).or_insert_with(|| {
            let value = value.clone();
            let element =
                Element { value, adds: vec![], wanted: false, known: None, present: None, absent: None };
            self.elements.push(element);
            self.elements.len() - 1
        })
    }

    /// The last read that had each element, and the last that did not: backwards, and what has been found of both is
    /// looked for no more, so that all of it costs no more than the reads are long.
    fn look(&mut self) {
        self.reads.sort_by_key(|(read, _)| Reverse((read.call, read.id)));
        let mut pending: Vec<usize> = (0..self.elements.len()).collect();
        let mut has = vec![usize::MAX; self.elements.len()];
        for (turn, (read, all)) in self.reads.iter().enumerate() {
            for &at in all {
                has[at] = turn;
                let element = &mut self.elements[at];
                element.present.get_or_insert((read.call, read.id));
                let seen = (read.ret.unwrap_or(u64::MAX), read.id);
                element.known = Some(element.known.map_or(seen, |known| known.min(seen)));
            }
            pending.retain(|at| {
                if has[*at] != turn {
                    self.elements[*at].absent = Some((read.call, read.id));
                }
                has[*at] == turn
            });
        }
    }
}

/// Judges `add` and `read` of sets. Unknown if no element was read, or a set was not read after something was added.
pub fn set_full(linearizable: bool) -> impl Checker {
    checker(NAME, move |operations, findings| {
        let mut sets: FxHashMap<Key, Set> = FxHashMap::default();
        let mut keys = Vec::new();
        for operation in operations.iter() {
            let Some(key) = operation.op.key().cloned() else { continue };
            let set = sets.entry(key.clone()).or_insert_with(|| {
                keys.push(key);
                Set::default()
            });
            match (&operation.op, &operation.outcome) {
                (Op::Add { value, .. }, outcome) => {
                    let at = set.place(value);
                    let element = &mut set.elements[at];
                    element.adds.push(operation.id);
                    element.wanted |= *outcome != OpOutcome::Fail;
                    if let (OpOutcome::Ok(_), Some(ret)) = (outcome, operation.ret) {
                        let known = (ret, operation.id);
                        element.known = Some(element.known.map_or(known, |before| before.min(known)));
                    }
                }
                (Op::Read { .. }, OpOutcome::Ok(Ret::Value(read))) => {
                    let all = match read {
                        Value::List(all) => &all[..],
                        Value::Nil => &[],
                        other => {
                            findings
                                .doubt(format!("operation {} read {other}, which is no set", operation.id));
                            continue;
                        }
                    };
                    let mut places: Vec<usize> = all.iter().map(|value| set.place(value)).collect();
                    places.sort_unstable();
                    if let Some(pair) = places.windows(2).find(|pair| pair[0] == pair[1]) {
                        let value = &set.elements[pair[0]].value;
                        findings.guilty(
                            "duplicated",
                            vec![operation.id],
                            format!("operation {} read {value} more than once", operation.id),
                            json!({"value": value}),
                        );
                    }
                    places.dedup();
                    set.reads.push((operation, places));
                }
                _ => {}
            }
        }
        let (mut stable, mut stale, mut lost, mut never) = (0_u64, 0_u64, 0_u64, 0_u64);
        let mut latencies: Vec<u64> = Vec::new();
        for key in keys {
            let Some(mut set) = sets.remove(&key) else { continue };
            set.look();
            for element in &set.elements {
                let value = &element.value;
                let details = || json!({"key": key, "value": value});
                if !element.wanted {
                    let seen: Vec<usize> = element.present.iter().map(|(_, id)| *id).collect();
                    if !seen.is_empty() {
                        let evidence = [element.adds.clone(), seen].concat();
                        let why =
                            if element.adds.is_empty() { "was never added" } else { "failed to be added" };
                        let message = format!("{value} was read from key {key} and {why}");
                        findings.guilty("unexpected", evidence, message, details());
                    }
                    continue;
                }
                let Some((known, by)) = element.known else {
                    never += 1;
                    continue;
                };
                // What was called when it became known may have come before.
                let absent = element.absent.filter(|(call, _)| *call > known);
                match (element.present, absent) {
                    (present, Some((call, read))) if present.is_none_or(|present| present < (call, read)) => {
                        lost += 1;
                        let mut evidence = vec![by];
                        evidence.extend(present.map(|(_, id)| id));
                        evidence.push(read);
                        evidence.dedup();
                        let message = format!(
                            "{value} was in key {key} since operation {by}, {} ms before operation {read} was called, which did not read it, nor did any later one",
                            (call - known) / 1_000_000
                        );
                        findings.guilty("lost", evidence, message, details());
                    }
                    (None, _) => never += 1,
                    (Some(_), None) => {
                        stable += 1;
                        latencies.push(0);
                    }
                    (Some(_), Some((call, read))) => {
                        stable += 1;
                        stale += 1;
                        latencies.push(call - known);
                        if linearizable {
                            let message = format!(
                                "{value} was in key {key} since operation {by}, and operation {read}, called {} ms later, did not read it",
                                (call - known) / 1_000_000
                            );
                            findings.guilty("stale", vec![by, read], message, details());
                        }
                    }
                }
            }
        }
        latencies.sort_unstable();
        for (name, count) in [("stable", stable), ("stale", stale), ("lost", lost), ("never_read", never)] {
            findings.stat(name, count);
        }
        if let Some(worst) = latencies.last() {
            let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
            findings.stat(
                "stable_latency_ns",
                json!({"p50": at(50), "p95": at(95), "p99": at(99), "max": worst}),
            );
        }
        if stable + lost == 0 {
            findings.doubt("no element was read after it was added");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::Validity::*;

    type Row = (u64, u64, u64, Op, Option<Ret>);

    fn add(at: u64, value: i64, ok: bool) -> Row {
        let op = Op::Add { key: Value::Nil, value: value.into() };
        (value as u64, at, at + 5, op, ok.then_some(Ret::Done))
    }

    fn read(at: u64, all: &[i64]) -> Row {
        let op = Op::Read { key: Value::Nil, mode: Default::default() };
        (100 + at, at, at + 5, op, Some(Ret::Value(all.iter().map(|v| Value::Int(*v)).collect())))
    }

    fn judge(all: &[Row]) -> (crate::Validity, Vec<String>) {
        check(&set_full(false), &history(all))
    }

    #[test]
    fn lost_stale_and_never_read() {
        assert_eq!(judge(&[]).0, Unknown);
        assert_eq!(judge(&[add(0, 1, true)]).0, Unknown);
        assert_eq!(judge(&[add(0, 1, true), read(10, &[1])]).0, Valid);
        assert_eq!(judge(&[add(0, 1, true), read(10, &[])]), (Invalid, vec!["lost".to_owned()]));
        // It was seen, and then it was gone, whoever added it.
        let gone = [add(0, 1, false), read(10, &[1]), read(20, &[])];
        assert_eq!(judge(&gone), (Invalid, vec!["lost".to_owned()]));
        // A read that was under way may have come first.
        assert_eq!(judge(&[add(0, 1, true), read(5, &[]), read(20, &[1])]).0, Valid);
        let stale = [add(0, 1, true), read(10, &[]), read(20, &[1])];
        assert_eq!(judge(&stale).0, Valid);
        let strict = check(&set_full(true), &history(&stale));
        assert_eq!(strict, (Invalid, vec!["stale".to_owned()]));
        // Nobody knows whether it was added.
        assert_eq!(judge(&[add(0, 1, true), add(0, 2, false), read(10, &[1])]).0, Valid);
    }

    #[test]
    fn what_was_never_added_or_is_there_twice() {
        assert_eq!(judge(&[add(0, 1, true), read(10, &[1, 7])]), (Invalid, vec!["unexpected".to_owned()]));
        assert_eq!(judge(&[add(0, 1, true), read(10, &[1, 1])]), (Invalid, vec!["duplicated".to_owned()]));
    }

    /// The same by looking at every element and every read.
    #[test]
    fn agrees_with_looking_at_everything() {
        use rand::{RngExt, SeedableRng};
        let mut both = [0; 2];
        for seed in 0..5000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut rows = Vec::new();
            for value in 0..rng.random_range(1..4) {
                rows.push(add(rng.random_range(0..40), value, rng.random_bool(0.7)));
            }
            let adds = rows.clone();
            let mut times: Vec<u64> = (0..60).collect();
            for _ in 0..rng.random_range(0..5) {
                let at = times.swap_remove(rng.random_range(0..times.len()));
                let all: Vec<i64> = (0..adds.len() as i64).filter(|_| rng.random_bool(0.6)).collect();
                rows.push(read(at, &all));
            }
            let reads = &rows[adds.len()..];
            let has = |row: &Row, value: i64| match &row.4 {
                Some(Ret::Value(Value::List(all))) => all.contains(&value.into()),
                _ => false,
            };
            let is_lost = |value: i64| {
                let own = &adds[value as usize];
                let acknowledged = own.4.is_some().then_some(own.2);
                let seen = reads.iter().filter(|row| has(row, value)).map(|row| row.2);
                let Some(known) = acknowledged.into_iter().chain(seen).min() else { return false };
                let last =
                    |there: bool| reads.iter().filter(|row| has(row, value) == there).map(|row| row.1).max();
                last(false).is_some_and(|absent| absent > known && last(true).is_none_or(|p| p < absent))
            };
            let lost = (0..adds.len() as i64).filter(|value| is_lost(*value)).count();
            let (_, names) = judge(&rows);
            assert_eq!(names.iter().filter(|name| *name == "lost").count(), lost, "seed {seed}: {rows:?}");
            both[usize::from(lost > 0)] += 1;
        }
        assert!(both[0] > 500 && both[1] > 500, "{both:?}");
    }
}
