//! The definition, tried out: every way to put the operations of the processes between each other.
//!
//! No graph, no memo, no pruning. For histories of up to nine operations.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};

use super::*;
use crate::{Op, OpOutcome, ReadMode, Ret, Validity::*, bench::tests::history};

type Row = (u64, u64, u64, Op, Option<Ret>);

fn step(state: &mut BTreeMap<Value, Value>, operation: &Operation) -> bool {
    let key = operation.op.key().cloned().unwrap_or_default();
    let held = state.get(&key).cloned().unwrap_or_default();
    match (&operation.op, &operation.outcome) {
        (Op::Read { .. }, OpOutcome::Ok(Ret::Value(read))) => *read == held,
        (Op::Read { .. }, _) => true,
        (Op::Write { value, .. }, _) => {
            state.insert(key, value.clone());
            true
        }
        (Op::Delete { .. }, _) => {
            state.remove(&key);
            true
        }
        (Op::Cas { expected, new, .. }, outcome) => match outcome {
            OpOutcome::Ok(Ret::Swapped { swapped: false, found }) => {
                held != *expected && found.as_ref().is_none_or(|found| *found == held)
            }
            OpOutcome::Ok(_) if held != *expected => false,
            // Of unknown outcome: it may have found another value.
            _ => {
                if held == *expected {
                    state.insert(key, new.clone());
                }
                true
            }
        },
        _ => false,
    }
}

fn place(lanes: &[Vec<Operation>], done: &mut Vec<usize>, state: &BTreeMap<Value, Value>) -> bool {
    let needed = |(lane, done): (&Vec<Operation>, &usize)| {
        lane[*done..].iter().any(|operation| operation.outcome != OpOutcome::Info)
    };
    if !lanes.iter().zip(done.iter()).any(needed) {
        return true;
    }
    (0..lanes.len()).any(|lane| {
        let Some(operation) = lanes[lane].get(done[lane]) else { return false };
        let mut next = state.clone();
        if !step(&mut next, operation) {
            return false;
        }
        done[lane] += 1;
        let fits = place(lanes, done, &next);
        done[lane] -= 1;
        fits
    })
}

fn is_sequential(history: &History) -> bool {
    let mut lanes: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in history.operations().unwrap() {
        if operation.outcome != OpOutcome::Fail {
            lanes.entry(operation.process).or_default().push(operation);
        }
    }
    let lanes: Vec<_> = lanes.into_values().collect();
    place(&lanes, &mut vec![0; lanes.len()], &BTreeMap::new())
}

/// Two or three processes, one or two keys; values all different, or of a few.
fn random(seed: u64, distinct: bool) -> History {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let keys = rng.random_range(1..3);
    let mut rows: Vec<Row> = Vec::new();
    let mut value = 0;
    for process in 0..rng.random_range(2..4u64) {
        for turn in 0..rng.random_range(1..4u64) {
            let key = Value::Int(rng.random_range(0..keys));
            value += 1;
            let some = |rng: &mut rand_chacha::ChaCha8Rng| match rng.random_range(0..7) {
                0 => Value::Nil,
                n if distinct => Value::Int(n),
                n => Value::Int(n % 3),
            };
            let new = if distinct { Value::Int(value) } else { some(&mut rng) };
            let known = turn < 2 || rng.random_bool(0.6);
            let (op, told) = match rng.random_range(0..8) {
                0..3 => (Op::Write { key, value: new }, Ret::Done),
                3 => {
                    let (swapped, tells) = (rng.random_bool(0.7), rng.random_bool(0.5));
                    let expected = some(&mut rng);
                    let found = some(&mut rng);
                    let found = (!swapped && tells && found != expected).then_some(found);
                    (Op::Cas { key, expected, new }, Ret::Swapped { swapped, found })
                }
                4 if !distinct => (Op::Delete { key }, Ret::Done),
                _ => (Op::Read { key, mode: ReadMode::Default }, Ret::Value(some(&mut rng))),
            };
            rows.push((process, turn * 10, turn * 10 + 5, op, known.then_some(told)));
            if !known {
                break;
            }
        }
    }
    history(&rows)
}

fn compare(seeds: std::ops::Range<u64>, distinct: bool) {
    let mut both = [0; 2];
    for seed in seeds {
        let history = random(seed, distinct);
        let expected = is_sequential(&history);
        let verdict = sequential(SequentialOptions::default()).check(&history, &Budget::unlimited());
        let operations = history.operations().unwrap();
        let picture = || timeline::draw(&operations.iter().collect::<Vec<_>>(), &[]);
        assert_eq!(verdict.validity == Invalid, !expected, "seed {seed}: {verdict:#?}\n{}", picture());
        both[usize::from(expected)] += 1;
        // The evidence alone is a proof.
        for anomaly in &verdict.anomalies {
            let kept: Vec<Operation> = operations
                .iter()
                .filter(|operation| anomaly.operations.contains(&operation.id))
                .cloned()
                .collect();
            let mut lanes: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
            kept.into_iter()
                .for_each(|operation| lanes.entry(operation.process).or_default().push(operation));
            let lanes: Vec<_> = lanes.into_values().collect();
            assert!(
                !place(&lanes, &mut vec![0; lanes.len()], &BTreeMap::new()),
                "seed {seed}: {anomaly:?}\n{}",
                picture()
            );
        }
    }
    assert!(both[0] > 300 && both[1] > 300, "{both:?}");
}

#[test]
fn different_values_agree_with_the_definition() {
    compare(0..4000, true);
}

#[test]
fn repeated_values_agree_with_the_definition() {
    compare(10_000..14_000, false);
}

fn write(process: u64, turn: u64, key: i64, value: i64) -> Row {
    (process, turn * 10, turn * 10 + 5, Op::Write { key: key.into(), value: value.into() }, Some(Ret::Done))
}

fn read(process: u64, turn: u64, key: i64, value: Option<i64>) -> Row {
    let answer = value.map_or(Value::Nil, Value::Int);
    let op = Op::Read { key: key.into(), mode: ReadMode::Default };
    (process, turn * 10, turn * 10 + 5, op, Some(Ret::Value(answer)))
}

/// Dekker's test: what every processor with a store buffer does, and no sequentially consistent one.
#[test]
fn each_key_by_itself_is_not_enough() {
    let rows = [write(0, 0, 1, 1), write(1, 0, 2, 1), read(0, 1, 2, None), read(1, 1, 1, None)];
    let judge =
        |rows: &[Row]| sequential(SequentialOptions::default()).check(&history(rows), &Budget::unlimited());
    let verdict = judge(&rows);
    assert_eq!((verdict.validity, verdict.anomalies[0].operations.len()), (Invalid, 4));
    let holds = still_holds(&history(&rows), Value::Nil, &Budget::unlimited());
    assert_eq!(holds.sequential, Invalid);
    insta::assert_snapshot!(holds.words, @"it is not even sequentially consistent");
    // Stale, and so not linearizable; but sequentially consistent.
    let stale = [write(0, 0, 1, 1), read(1, 1, 1, None), read(1, 2, 1, Some(1))];
    assert_eq!(judge(&stale).validity, Valid);
    insta::assert_snapshot!(still_holds(&history(&stale), Value::Nil, &Budget::unlimited()).words, @"it is still sequentially consistent");
    assert_eq!(judge(&[write(0, 0, 1, 1)]).validity, Unknown);
}

/// Long ones end: thousands of operations of several processes that are not in each other's way, and everything at once.
#[test]
fn long_histories_are_decided_or_given_up() {
    let mut rows = Vec::new();
    for turn in 0..2000 {
        for process in 0..3 {
            let value = (turn * 3 + process) as i64;
            rows.push(match turn % 2 {
                0 => write(process, turn, process as i64, value),
                _ => read(
                    process,
                    turn,
                    (process as i64 + 1) % 3,
                    Some(((turn - 1) * 3 + (process + 1) % 3) as i64),
                ),
            });
        }
    }
    let verdict = sequential(SequentialOptions::default()).check(&history(&rows), &Budget::unlimited());
    assert_eq!(verdict.validity, Valid, "{:?}", verdict.reason);
    let crowd: Vec<Row> = (0..2000)
        .map(|process| match process % 2 {
            0 => write(process, 0, 1, process as i64 % 3),
            _ => read(process, 0, 1, Some(process as i64 % 3)),
        })
        .collect();
    let options = SequentialOptions { max_steps: 1_000_000, ..SequentialOptions::default() };
    let verdict = sequential(options).check(&history(&crowd), &Budget::unlimited());
    assert_ne!(verdict.validity, Invalid);
}
