//! The definitions, tried out: every order of the writes, and everything that each read may have seen.
//!
//! Knows nothing of the judges but their names. For histories of a handful of operations.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{super::tests::history, *};
use crate::{Budget, History, Op, OpOutcome, Operation, ReadMode, Ret, Validity::*, Value};

/// What an operation does: the element or value it writes, what it shows, and whether that is a whole set.
struct Act {
    session: u64,
    key: Value,
    writes: Option<Value>,
    shows: Option<Vec<Value>>,
    call: u64,
    ret: u64,
    is_cas: bool,
}

fn acts(operations: &[Operation]) -> Vec<Act> {
    let act = |operation: &Operation| {
        let (writes, shows) = match (&operation.op, &operation.outcome) {
            (_, OpOutcome::Fail) => (None, None),
            (Op::Read { .. }, OpOutcome::Ok(Ret::Value(Value::List(all)))) => (None, Some(all.to_vec())),
            (Op::Read { .. }, OpOutcome::Ok(Ret::Value(Value::Nil))) => (None, Some(vec![])),
            (Op::Read { .. }, OpOutcome::Ok(Ret::Value(value))) => (None, Some(vec![value.clone()])),
            (Op::Write { value, .. } | Op::Add { value, .. }, _) => (Some(value.clone()), None),
            (Op::Cas { expected, new, .. }, OpOutcome::Ok(Ret::Swapped { swapped: true, .. })) => {
                (Some(new.clone()), Some(vec![expected.clone()]))
            }
            _ => (None, None),
        };
        Act {
            session: operation.process,
            key: operation.op.key().cloned().unwrap_or_default(),
            writes,
            shows,
            call: operation.call,
            ret: operation.ret.unwrap_or(u64::MAX),
            is_cas: matches!(operation.op, Op::Cas { .. }),
        }
    };
    operations.iter().map(act).collect()
}

/// Whether some order and some visibility fit.
fn fits(acts: &[Act], wanted: &[Guarantee], linearizable_writes: bool, sets: bool) -> bool {
    let writes: Vec<usize> = (0..acts.len()).filter(|at| acts[*at].writes.is_some()).collect();
    let reads: Vec<usize> = (0..acts.len()).filter(|at| acts[*at].shows.is_some()).collect();
    let mut orders = vec![vec![]];
    for _ in &writes {
        let longer = |order: &Vec<usize>| {
            let rest: Vec<usize> = writes.iter().copied().filter(|w| !order.contains(w)).collect();
            rest.into_iter().map(|w| [order.clone(), vec![w]].concat()).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders.iter().any(|order| {
        let place = |write: usize| order.iter().position(|w| *w == write).unwrap();
        let real_time = |a: usize, b: usize| acts[a].key == acts[b].key && acts[a].ret < acts[b].call;
        if linearizable_writes
            && !sets
            && writes.iter().any(|a| writes.iter().any(|b| real_time(*a, *b) && place(*a) > place(*b)))
        {
            return false;
        }
        // All that each read may have seen, so that it shows what it shows.
        let choices: Vec<Vec<Vec<usize>>> = reads
            .iter()
            .map(|read| {
                let subsets = (0..1usize << writes.len()).map(|bits| {
                    (0..writes.len())
                        .filter(|at| bits >> at & 1 == 1)
                        .map(|at| writes[at])
                        .collect::<Vec<_>>()
                });
                subsets.filter(|seen| shows(acts, *read, seen, &place, sets)).collect()
            })
            .collect();
        choose(reads.len(), &choices, &mut Vec::new(), &|seen| {
            wanted.iter().all(|g| keeps(acts, *g, &writes, &reads, seen, &place))
        })
    })
}

fn shows(acts: &[Act], read: usize, seen: &[usize], place: &impl Fn(usize) -> usize, sets: bool) -> bool {
    let act = &acts[read];
    let of_key = seen.iter().copied().filter(|write| acts[*write].key == act.key);
    let mut visible: Vec<usize> = of_key.collect();
    visible.sort_by_key(|write| place(*write));
    let mut told: Vec<Value> = visible.iter().filter_map(|write| acts[*write].writes.clone()).collect();
    let mut shown = act.shows.clone().unwrap();
    if sets {
        told.sort();
        shown.sort();
    } else {
        told = told.last().cloned().into_iter().collect();
    }
    // Nobody sees what is still to be asked for, and a swap comes after what it found.
    let possible = seen.iter().all(|write| *write != read && acts[*write].call <= act.ret);
    let swaps = !act.is_cas || visible.last().is_none_or(|write| place(*write) < place(read));
    told == shown && possible && swaps
}

fn choose(
    reads: usize,
    choices: &[Vec<Vec<usize>>],
    seen: &mut Vec<Vec<usize>>,
    good: &impl Fn(&[Vec<usize>]) -> bool,
) -> bool {
    if seen.len() == reads {
        return good(seen);
    }
    choices[seen.len()].iter().any(|choice| {
        seen.push(choice.clone());
        let found = choose(reads, choices, seen, good);
        seen.pop();
        found
    })
}

fn keeps(
    acts: &[Act],
    guarantee: Guarantee,
    writes: &[usize],
    reads: &[usize],
    seen: &[Vec<usize>],
    place: &impl Fn(usize) -> usize,
) -> bool {
    let so = |a: usize, b: usize| a < b && acts[a].session == acts[b].session;
    let visible = |write: usize, read: usize| seen[read].contains(&write);
    let all = 0..reads.len();
    match guarantee {
        Guarantee::ReadYourWrites => {
            all.clone().all(|r| writes.iter().all(|w| !so(*w, reads[r]) || visible(*w, r)))
        }
        Guarantee::MonotonicReads => all
            .clone()
            .all(|a| all.clone().all(|b| !so(reads[a], reads[b]) || seen[a].iter().all(|w| visible(*w, b)))),
        Guarantee::MonotonicWrites => writes.iter().all(|a| {
            writes
                .iter()
                .filter(|b| so(*a, **b))
                .all(|b| place(*a) < place(*b) && all.clone().all(|r| !visible(*b, r) || visible(*a, r)))
        }),
        Guarantee::WritesFollowReads => all.clone().all(|o| {
            writes.iter().filter(|b| so(reads[o], **b)).all(|b| {
                seen[o]
                    .iter()
                    .all(|a| place(*a) < place(*b) && all.clone().all(|r| !visible(*b, r) || visible(*a, r)))
            })
        }),
        Guarantee::Causal => FOUR.iter().all(|g| keeps(acts, *g, writes, reads, seen, place)),
    }
}

const FOUR: [Guarantee; 4] = [
    Guarantee::ReadYourWrites,
    Guarantee::MonotonicReads,
    Guarantee::MonotonicWrites,
    Guarantee::WritesFollowReads,
];

/// At most four writes and four reads of up to three sessions, answers half drawn and half plausible.
fn random(seed: u64, sets: bool, keys: i64) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sessions = rng.random_range(1..4u64);
    let mut clocks = vec![0u64; sessions as usize];
    let (mut rows, mut written, mut reads): (Vec<_>, Vec<(i64, i64)>, i32) = (Vec::new(), vec![], 0);
    let mut gone = vec![false; sessions as usize];
    for _ in 0..rng.random_range(2..8) {
        let session = rng.random_range(0..sessions);
        let now = &mut clocks[session as usize];
        if gone[session as usize] {
            continue;
        }
        let call = *now + rng.random_range(0..4);
        let ret = call + rng.random_range(0..6);
        *now = ret + 1;
        let key_number = rng.random_range(0..keys);
        let key = Value::Int(key_number);
        if written.len() < 4 && rng.random_bool(0.5) {
            let value = written.len() as i64 + 1;
            let before: Vec<i64> = written.iter().filter(|w| w.0 == key_number).map(|w| w.1).collect();
            written.push((key_number, value));
            let known = rng.random_bool(0.85);
            gone[session as usize] = !known;
            let (key, value) = (key, Value::Int(value));
            if sets {
                rows.push((session, call, ret, Op::Add { key, value }, known.then_some(Ret::Done)));
            } else if known && !before.is_empty() && reads < 3 && rng.random_bool(0.2) {
                reads += 1;
                let expected = Value::Int(before[rng.random_range(0..before.len())]);
                let told = Ret::Swapped { swapped: true, found: None };
                rows.push((session, call, ret, Op::Cas { key, expected, new: value }, Some(told)));
            } else {
                rows.push((session, call, ret, Op::Write { key, value }, known.then_some(Ret::Done)));
            }
        } else if reads < 4 {
            reads += 1;
            let op = Op::Read { key, mode: ReadMode::Stale };
            let of_key: Vec<i64> = written.iter().filter(|w| w.0 == key_number).map(|w| w.1).collect();
            let answer = answer(&mut rng, &of_key, sets);
            rows.push((session, call, ret, op, Some(Ret::Value(answer))));
        }
    }
    history(&rows)
}

fn answer(rng: &mut impl Rng, written: &[i64], sets: bool) -> Value {
    let rather = rng.random_range(0.3..0.95);
    if sets {
        return written.iter().filter(|_| rng.random_bool(rather)).map(|v| Value::Int(*v)).collect();
    }
    match written.is_empty() || rng.random_bool(0.15) {
        true => Value::Nil,
        false => Value::Int(written[rng.random_range(0..written.len())]),
    }
}

fn compare(seeds: std::ops::Range<u64>, sets: bool, keys: i64) -> [[u64; 2]; 5] {
    let mut told = [[0; 2]; 5];
    for seed in seeds {
        let history = random(seed, sets, keys);
        let operations = history.operations().unwrap();
        let acts = acts(&operations);
        // The judges leave out what was read from the future; so does nobody here: such histories fit nothing.
        let future = Accesses::new(history.paired().unwrap()).vague > 0;
        if future {
            continue;
        }
        for (at, guarantee) in Guarantee::ALL.into_iter().enumerate() {
            for linearizable_writes in [false, true] {
                let expected = fits(&acts, &[guarantee], linearizable_writes, sets);
                let options = SessionOptions { linearizable_writes };
                let verdict = holds(guarantee, history.paired().unwrap(), options);
                assert_eq!(
                    verdict == Invalid,
                    !expected,
                    "seed {seed}, {guarantee:?}, linearizable writes {linearizable_writes}:\n{}",
                    timeline::draw(&operations.iter().collect::<Vec<_>>(), &[])
                );
                told[at][usize::from(expected)] += 1;
                // The evidence alone is a proof.
                for anomaly in session(guarantee, options).check(&history, &Budget::unlimited()).anomalies {
                    let kept: Vec<Operation> =
                        operations.iter().filter(|o| anomaly.operations.contains(&o.id)).cloned().collect();
                    assert!(
                        !fits(&self::acts(&kept), &[guarantee], linearizable_writes, sets),
                        "seed {seed}, {guarantee:?}: {anomaly:?}\n{}",
                        timeline::draw(&operations.iter().collect::<Vec<_>>(), &[])
                    );
                }
            }
        }
    }
    told
}

#[test]
fn registers_agree_with_the_definitions() {
    let told = compare(0..2500, false, 1);
    for (at, guarantee) in Guarantee::ALL.into_iter().enumerate() {
        let shows = !matches!(guarantee, Guarantee::MonotonicWrites | Guarantee::WritesFollowReads);
        assert!(told[at][1] > 500 && (told[at][0] > 100 || !shows), "{guarantee:?}: {told:?}");
    }
}

#[test]
fn several_registers_agree_with_the_definitions() {
    let told = compare(10_000..12_000, false, 2);
    assert!(told[4][0] > 100 && told[4][1] > 100, "{told:?}");
}

#[test]
fn sets_agree_with_the_definitions() {
    let told = compare(20_000..25_000, true, 1);
    assert!(told.iter().all(|told| told[0] > 100 && told[1] > 100), "{told:?}");
}
