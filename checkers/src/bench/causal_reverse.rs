//! `causal-reverse`: an effect that is seen without what had happened before it.
//!
//! ```text
//! add 1 |--|     add 2 |--|        read -> [2]       2 was asked for when 1 was already there
//! ```
//!
//! Jepsen's `tests.causal-reverse`, found in CockroachDB: T1 is before T2 in real time, and somebody sees T2 without T1. Serializable
//! systems may do that, strictly serializable ones may not. A read is wrong if the first return among what it lacks is before the
//! last call among what it has. Sets (`add`, and `read` of the whole), and transactions that read several keys, each written
//! once. Deliberately without a word on how old a read may be: it may see an old state, but a whole one.

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::json;

use super::{Findings, checker, long_fork::reads};
use crate::{Checker, Key, Mop, Op, OpOutcome, Operation, Ret, Value};

pub(super) const NAME: &str = "causal-reverse";

/// What was written: when it was first asked for, and when it was first acknowledged, if it was.
#[derive(Clone, Copy)]
struct Made {
    call: (u64, usize),
    ret: Option<(u64, usize)>,
    times: u32,
}

impl Made {
    fn note(made: &mut Option<Made>, operation: &Operation) {
        let call = (operation.call, operation.id);
        let ret = operation
            .ret
            .filter(|_| matches!(operation.outcome, OpOutcome::Ok(_)))
            .map(|ret| (ret, operation.id));
        *made = Some(match *made {
            None => Made { call, ret, times: 1 },
            Some(before) => Made {
                call: before.call.min(call),
                ret: [before.ret, ret].into_iter().flatten().min(),
                times: before.times + 1,
            },
        });
    }
}

#[derive(Default)]
struct Set {
    elements: FxHashMap<Value, Option<Made>>,
    removed: bool,
    reads: Vec<(usize, Vec<Value>)>,
}

/// Judges reads of sets, and of several keys. Unknown if no read saw anything that was called after something else had
/// returned.
pub fn causal_reverse() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut sets: FxHashMap<Key, Set> = FxHashMap::default();
        let mut order: Vec<Key> = Vec::new();
        let mut keys: FxHashMap<Key, Option<Made>> = FxHashMap::default();
        let mut chances = 0;
        for operation in operations.iter().filter(|operation| operation.outcome != OpOutcome::Fail) {
            if let Op::Txn { mops } = &operation.op {
                for key in mops.iter().filter(|mop| !matches!(mop, Mop::Read { .. })).map(Mop::key) {
                    Made::note(keys.entry(key.clone()).or_default(), &operation);
                }
            }
            let Some(key) = operation.op.key() else { continue };
            if !sets.contains_key(key) {
                order.push(key.clone());
            }
            let set = sets.entry(key.clone()).or_default();
            match (&operation.op, &operation.outcome) {
                (Op::Add { value, .. }, _) => {
                    Made::note(set.elements.entry(value.clone()).or_default(), &operation)
                }
                (Op::Read { .. }, OpOutcome::Ok(Ret::Value(Value::List(all)))) => {
                    set.reads.push((operation.id, all.to_vec()));
                }
                (Op::Write { .. }, _) => Made::note(keys.entry(key.clone()).or_default(), &operation),
                (Op::Read { .. } | Op::Contains { .. }, _) => {}
                _ => set.removed = true,
            }
        }
        for key in &order {
            let set = &sets[key];
            if set.removed || set.elements.is_empty() {
                continue;
            }
            // What was acknowledged first, first.
            let acknowledged =
                set.elements.iter().filter_map(|(value, made)| Some((made.as_ref()?.ret?, value)));
            let mut acknowledged: Vec<((u64, usize), &Value)> = acknowledged.collect();
            acknowledged.sort_unstable();
            for (read, all) in &set.reads {
                let seen: FxHashSet<&Value> = all.iter().collect();
                let calls = all.iter().filter_map(|value| Some(((*set.elements.get(value)?)?.call, value)));
                let first = acknowledged.iter().find(|(_, value)| !seen.contains(value));
                chances +=
                    u64::from(judge(*read, calls.max(), first.copied(), "element", findings, &acknowledged));
            }
        }
        for operation in operations.iter() {
            let Some(found) = reads(&operation) else { continue };
            // A key that was written often may have been seen before.
            let once = |key: &Key| keys.get(key).copied().flatten().filter(|made| made.times == 1);
            let known = found.iter().filter_map(|(key, value)| Some((key, value, once(key)?)));
            let (mut last, mut first, mut all) = (None, None, Vec::new());
            for (key, value, made) in known {
                all.extend(made.ret.map(|ret| (ret, key)));
                if *value != Value::Nil {
                    last = last.max(Some((made.call, key)));
                } else if let Some(ret) = made.ret {
                    first = [first, Some((ret, key))].into_iter().flatten().min();
                }
            }
            all.sort_unstable();
            chances += u64::from(judge(operation.id, last, first, "key", findings, &all));
        }
        findings.stat("reads_that_could_show_it", chances);
        if chances == 0 {
            findings.doubt("no read saw anything that was called after something else had returned");
        }
    })
}

/// One read: the last call of what it has, against the first return of what it lacks. Whether it could have been wrong.
fn judge(
    read: usize,
    last: Option<((u64, usize), &Value)>,
    first: Option<((u64, usize), &Value)>,
    what: &str,
    findings: &mut Findings,
    acknowledged: &[((u64, usize), &Value)],
) -> bool {
    let Some(((call, effect), seen)) = last else { return false };
    if let Some(((ret, cause), lacks)) = first.filter(|((ret, _), _)| *ret < call) {
        findings.guilty(
            NAME,
            vec![cause, effect, read],
            format!(
                "operation {read} saw {what} {seen} and not {lacks}, though operation {effect} was called {} ns after operation {cause} had returned",
                call - ret
            ),
            json!({"seen": seen, "lacks": lacks}),
        );
    }
    acknowledged.first().is_some_and(|((ret, _), _)| *ret < call)
}

#[cfg(test)]
mod tests {
    use super::super::{
        long_fork::tests::{Row, read, write},
        tests::{check, history},
    };
    use super::*;
    use crate::Validity::*;

    fn add(process: u64, call: u64, value: i64, ok: bool) -> Row {
        let op = Op::Add { key: Value::Nil, value: value.into() };
        (process, call, call + 5, op, ok.then_some(Ret::Done))
    }

    fn read_set(process: u64, call: u64, all: &[i64]) -> Row {
        let op = Op::Read { key: Value::Nil, mode: Default::default() };
        (process, call, call + 5, op, Some(Ret::Value(all.iter().map(|value| Value::Int(*value)).collect())))
    }

    #[test]
    fn no_effect_without_its_cause() {
        let judge = |rows: &[Row]| check(&causal_reverse(), &history(rows));
        let wrong = (Invalid, vec![NAME.to_owned()]);
        let adds = [add(0, 0, 1, true), add(1, 6, 2, false)];
        let with = |rows: &[Row]| judge(&[adds.to_vec(), rows.to_vec()].concat());
        assert_eq!(with(&[read_set(2, 0, &[2])]), wrong);
        assert_eq!(with(&[read_set(2, 0, &[1, 2])]).0, Valid);
        // An old state is a state.
        assert_eq!(with(&[read_set(2, 50, &[])]).0, Unknown);
        assert_eq!(judge(&[add(0, 0, 1, true), add(1, 5, 2, true), read_set(2, 0, &[2])]).0, Unknown);
        assert_eq!(judge(&[add(0, 0, 1, false), add(1, 6, 2, true), read_set(2, 0, &[2])]).0, Unknown);
        let keys = [write(0, 0, 1, true), write(1, 6, 2, true)];
        let with = |rows: &[Row]| judge(&[keys.to_vec(), rows.to_vec()].concat());
        assert_eq!(with(&[read(2, 0, &[(1, false), (2, true)])]), wrong);
        assert_eq!(with(&[read(2, 0, &[(1, true), (2, false)])]).0, Unknown);
        assert_eq!(with(&[read(2, 0, &[(1, true), (2, true)])]).0, Valid);
        assert_eq!(judge(&[]).0, Unknown);
    }

    /// By looking at every two elements of every read.
    #[test]
    fn agrees_with_looking_at_all_pairs() {
        use rand::{RngExt, SeedableRng};
        let mut both = [0; 2];
        for seed in 0..5000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut rows: Vec<Row> = Vec::new();
            for process in 0..rng.random_range(1..6u64) {
                // Some are added twice.
                let value = if rng.random_bool(0.1) { 0 } else { process as i64 };
                rows.push(add(process, rng.random_range(0..20), value, rng.random_bool(0.8)));
            }
            let adds = rows.clone();
            for process in 10..rng.random_range(11..13) {
                let at = rng.random_range(0..30);
                let all: Vec<i64> = (0..6)
                    .filter(|value| {
                        let called = adds.iter().any(|add| value_of(add) == *value && add.1 <= at);
                        called && rng.random_bool(0.6)
                    })
                    .collect();
                rows.push(read_set(process, at, &all));
            }
            let has = |row: &Row, value: i64| match &row.4 {
                Some(Ret::Value(Value::List(all))) => all.contains(&value.into()),
                _ => false,
            };
            let wrong = rows[adds.len()..].iter().any(|read| {
                adds.iter().any(|cause| {
                    cause.4.is_some()
                        && !has(read, value_of(cause))
                        && (0..6).any(|effect| {
                            let calls = adds.iter().filter(|add| value_of(add) == effect).map(|add| add.1);
                            has(read, effect) && calls.min().is_some_and(|call| call > cause.2)
                        })
                })
            });
            let (validity, _) = check(&causal_reverse(), &history(&rows));
            assert_eq!(validity == Invalid, wrong, "seed {seed}: {rows:?}");
            both[usize::from(wrong)] += 1;
        }
        assert!(both[0] > 500 && both[1] > 500, "{both:?}");
    }

    fn value_of(row: &Row) -> i64 {
        match &row.3 {
            Op::Add { value: Value::Int(value), .. } => *value,
            _ => -1,
        }
    }
}
