//! `long-fork`: two reads that see two writes in opposite orders.
//!
//! ```text
//! write x     write y     read [x y] -> x is there, y is not     read [x y] -> y is there, x is not
//! ```
//!
//! Jepsen's `tests.long-fork`: the anomaly that parallel snapshot isolation allows and snapshot isolation does not (Sovran,
//! Power, Aguilera and Li, *Transactional storage for geo-replicated systems*, SOSP 2011). Keys are written once; transactions
//! read several. What the reads of the same keys have seen must grow from one to the next: sorted by how much it is, each must
//! contain the one before. Deliberately silent about keys that were written more than once, as Jepsen's is.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde_json::json;

use super::checker;
use crate::{Checker, Key, Mop, Op, OpOutcome, Operation, Ret, Value};

pub(super) const NAME: &str = "long-fork";

/// What was written to a key.
enum Written {
    Once(Value, usize),
    Often,
}

/// A read: of each key, in the order of the keys, whether it was there.
struct Seen {
    id: usize,
    there: Vec<bool>,
}

/// Judges transactions that read several keys, of which each was written once. Unknown if no two reads of the same keys saw
/// some of them and not all: nothing else can show a fork; or if keys were written more than once.
pub fn long_fork() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut written: FxHashMap<Key, Written> = FxHashMap::default();
        for operation in operations.iter().filter(|operation| operation.outcome != OpOutcome::Fail) {
            for (key, value) in writes(&operation.op) {
                let entry = written.entry(key.clone());
                entry
                    .and_modify(|written| *written = Written::Often)
                    .or_insert(Written::Once(value.clone(), operation.id));
            }
        }
        let mut groups: BTreeMap<Vec<Key>, Vec<Seen>> = BTreeMap::new();
        let (mut several, mut strange) = (0_u64, 0_u64);
        for operation in operations.iter() {
            let Some(mut found) = reads(&operation) else { continue };
            found.sort();
            found.dedup();
            let keys: Vec<Key> = found.iter().map(|(key, _)| key.clone()).collect();
            if keys.len() < 2 || keys.windows(2).any(|pair| pair[0] == pair[1]) {
                continue;
            }
            let mut there = Vec::with_capacity(keys.len());
            for (key, value) in &found {
                match (written.get(key), value) {
                    (Some(Written::Often), _) => several += 1,
                    (_, Value::Nil) => there.push(false),
                    (Some(Written::Once(known, _)), value) if known == value => there.push(true),
                    _ => strange += 1,
                }
            }
            if there.len() == keys.len() {
                groups.entry(keys).or_default().push(Seen { id: operation.id, there });
            }
        }
        let (mut early, mut late, mut partial, mut comparable) = (0_u64, 0_u64, 0_u64, false);
        for (keys, mut reads) in groups {
            let count = |seen: &Seen| seen.there.iter().filter(|there| **there).count();
            let some = reads.iter().filter(|seen| (1..keys.len()).contains(&count(seen))).count();
            comparable |= some > 1;
            partial += some as u64;
            early += reads.iter().filter(|seen| count(seen) == 0).count() as u64;
            late += reads.iter().filter(|seen| count(seen) == keys.len()).count() as u64;
            reads.sort_by_cached_key(|seen| (count(seen), seen.there.clone(), seen.id));
            for pair in reads.windows(2) {
                let [less, more] = pair else { continue };
                // The first that only one of them has; the second exists, since it has at least as many.
                let only = |a: &Seen, b: &Seen| a.there.iter().zip(&b.there).position(|(a, b)| *a && !b);
                let (Some(x), Some(y)) = (only(less, more), only(more, less)) else { continue };
                let writer = |key: &Key| match written.get(key) {
                    Some(Written::Once(_, id)) => Some(*id),
                    _ => None,
                };
                let (x, y) = (&keys[x], &keys[y]);
                let mut evidence: Vec<usize> = [writer(x), writer(y)].into_iter().flatten().collect();
                evidence.extend([less.id, more.id]);
                evidence.sort_unstable();
                evidence.dedup();
                let message = format!(
                    "operation {} saw the write of key {x} and not that of key {y}; operation {} saw that of {y} and not that of {x}",
                    less.id, more.id
                );
                findings.guilty(
                    NAME,
                    evidence,
                    message,
                    json!({"keys": [x, y], "reads": [less.id, more.id]}),
                );
            }
        }
        for (name, count) in [("early_reads", early), ("late_reads", late), ("partial_reads", partial)] {
            findings.stat(name, count);
        }
        if several > 0 {
            findings.doubt(format!(
                "{several} times a key was read that was written more than once: such reads were left out"
            ));
        }
        if strange > 0 {
            findings.doubt(format!(
                "{strange} times a value was read that nobody is known to have written there"
            ));
        }
        if !comparable {
            findings.doubt("no two reads of the same keys saw some of them and not all");
        }
    })
}

/// What an operation writes.
fn writes(op: &Op) -> Vec<(&Key, &Value)> {
    match op {
        Op::Write { key, value } => vec![(key, value)],
        Op::Txn { mops } => mops
            .iter()
            .filter_map(|mop| match mop {
                Mop::Write { key, value } => Some((key, value)),
                _ => None,
            })
            .collect(),
        _ => vec![],
    }
}

/// What a transaction that only reads has found.
pub(super) fn reads(operation: &Operation) -> Option<Vec<(Key, Value)>> {
    let (Op::Txn { mops }, OpOutcome::Ok(Ret::Txn(found))) = (&operation.op, &operation.outcome) else {
        return None;
    };
    let only_reads = mops.iter().all(|mop| matches!(mop, Mop::Read { .. }));
    only_reads.then(|| {
        mops.iter().zip(found.iter()).map(|(mop, value)| (mop.key().clone(), value.clone())).collect()
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::Validity::*;

    pub(crate) type Row = (u64, u64, u64, Op, Option<Ret>);

    pub(crate) fn write(process: u64, call: u64, key: i64, ok: bool) -> Row {
        let mops = [Mop::Write { key: key.into(), value: 1.into() }].into();
        (process, call, call + 5, Op::Txn { mops }, ok.then(|| Ret::Txn([].into())))
    }

    pub(crate) fn read(process: u64, call: u64, found: &[(i64, bool)]) -> Row {
        let mops = found.iter().map(|(key, _)| Mop::Read { key: (*key).into() }).collect();
        let values = found.iter().map(|(_, there)| if *there { Value::Int(1) } else { Value::Nil }).collect();
        (process, call, call + 5, Op::Txn { mops }, Some(Ret::Txn(values)))
    }

    #[test]
    fn two_writes_in_two_orders() {
        let judge = |rows: &[Row]| check(&long_fork(), &history(rows));
        let writes = [write(0, 0, 1, true), write(1, 0, 2, false)];
        let with = |reads: &[Row]| judge(&[writes.to_vec(), reads.to_vec()].concat());
        let fork = [read(2, 3, &[(1, true), (2, false)]), read(3, 4, &[(2, true), (1, false)])];
        assert_eq!(with(&fork), (Invalid, vec!["long-fork".to_owned()]));
        assert_eq!(with(&[fork[0].clone(), read(3, 4, &[(2, true), (1, true)])]).0, Unknown);
        assert_eq!(with(&[fork[0].clone(), read(3, 4, &[(2, false), (1, true)])]).0, Valid);
        assert_eq!(with(&[]).0, Unknown);
        // Which of two writes of a key it was, nobody can tell.
        let twice = [writes.to_vec(), vec![write(4, 0, 1, true)], fork.to_vec()].concat();
        assert_eq!(judge(&twice).0, Unknown);
    }

    /// By comparing every two reads.
    #[test]
    fn agrees_with_comparing_all_pairs() {
        use rand::{RngExt, SeedableRng};
        let mut both = [0; 2];
        for seed in 0..5000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut rows: Vec<Row> =
                (0..4).map(|key| write(key, 0, key as i64, rng.random_bool(0.8))).collect();
            for process in 4..rng.random_range(5..10) {
                let from = if rng.random_bool(0.3) { 2 } else { 0 };
                let upto = rng.random_range(0..5);
                let there = |rng: &mut rand_chacha::ChaCha8Rng, key| {
                    if rng.random_bool(0.6) { key < upto } else { rng.random_bool(0.5) }
                };
                let found: Vec<(i64, bool)> =
                    (from..from + 2).map(|key| (key, there(&mut rng, key))).collect();
                rows.push(read(process, 10, &found));
            }
            let all: Vec<Vec<(Key, Value)>> =
                history(&rows).operations().unwrap().iter().filter_map(reads).collect();
            let has =
                |read: &Vec<(Key, Value)>, key: &Key| read.iter().any(|(k, v)| k == key && *v != Value::Nil);
            let same = |a: &Vec<(Key, Value)>, b: &Vec<(Key, Value)>| {
                a.len() > 1 && a.iter().zip(b).all(|(a, b)| a.0 == b.0)
            };
            let ahead = |a: &Vec<(Key, Value)>, b: &Vec<(Key, Value)>| {
                a.iter().any(|(key, _)| has(a, key) && !has(b, key))
            };
            let forked = all.iter().any(|a| all.iter().any(|b| same(a, b) && ahead(a, b) && ahead(b, a)));
            let (validity, _) = check(&long_fork(), &history(&rows));
            assert_eq!(validity == Invalid, forked, "seed {seed}: {rows:?}");
            both[usize::from(forked)] += 1;
        }
        assert!(both[0] > 500 && both[1] > 500, "{both:?}");
    }
}
