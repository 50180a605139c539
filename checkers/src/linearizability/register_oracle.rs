//! The specialist for registers against the frontier, on many small histories whose values are all different.
//!
//! ```text
//! seed ──> a register is simulated, some answers are falsified ──> zones == frontier
//!                                    guilty: the evidence alone is not linearizable either
//! ```
//!
//! Crashed operations, late effects, ties in time, chains of compare-and-sets, failed ones that say what they found,
//! reads of the absent value and values from nowhere are all in. Deliberately small: the frontier has to be quick.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    calls::*,
    frontier::Sweep,
    judge::{calls_of, whole},
    outcome::*,
    record::{Records, is_judged},
    register::{Answer, decide},
    space::{Memo, Space},
};
use crate::{
    Budget, Event, Header, History, Kind, Meta, Model, Op, OpOutcome, Process, RegisterLike, Ret, Value,
    model::CasRegister,
};

/// What a client waits for, with the answer once it has taken effect.
type Open = Option<(Op, Option<Ret>)>;

/// A history in which nothing is written twice.
fn history(rng: &mut ChaCha8Rng) -> History {
    let crashes = rng.random_range(0.0..0.5);
    let swaps = rng.random_range(0.0..0.8);
    let pace = rng.random_range(1..8u64);
    let mut clients: Vec<(u64, Open)> = (0..rng.random_range(1..6)).map(|process| (process, None)).collect();
    let mut processes = clients.len() as u64;
    let (mut cell, mut fresh, mut time, mut invoked) = (Value::Nil, 0, 0, 0);
    let length = rng.random_range(1..13);
    let mut events: Vec<Event> = Vec::new();
    let key = Value::Nil;
    for _ in 0..300 {
        let at = rng.random_range(0..clients.len());
        let (process, open) = &mut clients[at];
        time += rng.random_range(0..pace);
        let (kind, op, ret) = match open.take() {
            None if invoked == length => continue,
            None => {
                invoked += 1;
                let op = if rng.random_bool(0.4) {
                    Op::Read { key: key.clone(), mode: Default::default() }
                } else {
                    fresh += 1;
                    if rng.random_bool(swaps) {
                        let old = Value::Int(rng.random_range(0..fresh));
                        let expected = match rng.random_range(0..10) {
                            0 => Value::Nil,
                            1 | 2 => old,
                            _ => cell.clone(),
                        };
                        Op::Cas { key: key.clone(), expected, new: fresh.into() }
                    } else {
                        Op::Write { key: key.clone(), value: fresh.into() }
                    }
                };
                *open = Some((op.clone(), None));
                (Kind::Invoke, op, None)
            }
            Some((op, None)) if rng.random_bool(0.7) => {
                let ret = apply(&mut cell, &op);
                *open = Some((op, Some(ret)));
                continue;
            }
            Some((op, ret)) if ret.is_none() || rng.random_bool(crashes) => {
                if ret.is_none() && rng.random_bool(0.3) {
                    (Kind::Fail, op, None)
                } else {
                    if ret.is_none() && rng.random_bool(0.5) {
                        apply(&mut cell, &op);
                    }
                    let gone = std::mem::replace(process, processes);
                    processes += 1;
                    events.push(event(events.len(), time, gone, Kind::Info, op, None));
                    continue;
                }
            }
            Some((op, ret)) => (Kind::Ok, op, ret),
        };
        events.push(event(events.len(), time, *process, kind, op, ret));
    }
    for _ in 0..rng.random_range(0..3) {
        falsify(rng, &mut events, fresh);
    }
    History::new(Header::new("oracle", 0, "", vec![]), events)
}

fn apply(cell: &mut Value, op: &Op) -> Ret {
    let found = cell.clone();
    match op {
        Op::Write { value, .. } => *cell = value.clone(),
        Op::Cas { expected, new, .. } => {
            let swapped = found == *expected;
            if swapped {
                *cell = new.clone();
            }
            return Ret::Swapped { swapped, found: Some(found) };
        }
        _ => return Ret::Value(found),
    }
    Ret::Done
}

fn event(index: usize, time: u64, process: u64, kind: Kind, op: Op, ret: Option<Ret>) -> Event {
    let meta = Meta::default();
    Event { index: index as u64, time, process: Process::Client(process), kind, op, ret, meta }
}

fn falsify(rng: &mut ChaCha8Rng, events: &mut [Event], fresh: i64) {
    let answers: Vec<usize> = (0..events.len()).filter(|i| events[*i].ret.is_some()).collect();
    if answers.is_empty() {
        return;
    }
    let other = if rng.random_bool(0.1) { Value::Nil } else { Value::Int(rng.random_range(0..fresh + 2)) };
    let event = &mut events[answers[rng.random_range(0..answers.len())]];
    match (&event.op, &mut event.ret) {
        (_, Some(Ret::Value(read))) => *read = other,
        (Op::Cas { expected, .. }, Some(Ret::Swapped { swapped, found })) => {
            *swapped = rng.random_bool(0.5);
            *found = if *swapped && rng.random_bool(0.9) { Some(expected.clone()) } else { Some(other) };
        }
        _ => {}
    }
}

fn frontier_says(operations: &[crate::Operation]) -> bool {
    let calls = calls_of(operations);
    let model = CasRegister::default();
    let shapes: Vec<_> = calls.iter().map(|call| (call.op, call.ret)).collect();
    let model = model.fit(&shapes).expect("judgeable");
    let (laid, classes) = Calls::new(&model, &calls);
    let mut space = Memo::new(&model, &classes);
    let budget = Budget::unlimited();
    let mut purse = Purse::new(u64::MAX, u64::MAX, &budget);
    let mut frontier = Sweep::new(&laid, space.start()).expect("few are open at once");
    match frontier.run(&mut space, &mut purse) {
        Outcome::Valid => true,
        Outcome::Invalid(_) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn zones_agree_with_the_frontier() {
    let (mut valid, mut invalid, mut passed) = (0, 0, 0);
    for seed in 0..200_000 {
        let history = history(&mut ChaCha8Rng::seed_from_u64(seed));
        let operations = history.paired().expect("well-formed");
        let ids: Vec<u32> =
            (0..operations.len()).filter(|id| is_judged(&operations, *id)).map(|id| id as u32).collect();
        let copied = Records::copy(&operations, &ids);
        let answer =
            decide(&RegisterLike { initial: &Value::Nil, cas: true }, &Records::of(&operations, &copied));
        let judged = whole(&operations, &ids);
        let picture = || crate::timeline::draw(&judged.iter().collect::<Vec<_>>(), &[]);
        match &answer {
            Answer::Unknown(_) | Answer::Huge(..) => panic!("{answer:?}"),
            Answer::NotForMe => {
                // Only an answer that contradicts itself is not for the specialist here.
                let odd = judged.iter().any(|operation| match (&operation.op, &operation.outcome) {
                    (Op::Cas { expected, .. }, OpOutcome::Ok(Ret::Swapped { swapped, found })) => {
                        *swapped != (found.as_ref() == Some(expected))
                    }
                    _ => false,
                });
                assert!(odd, "seed {seed}\n{}", picture());
                passed += 1;
            }
            Answer::Valid(_) => {
                assert!(frontier_says(&judged), "seed {seed}: not linearizable\n{}", picture());
                valid += 1;
            }
            Answer::Invalid(evidence) => {
                assert!(!frontier_says(&judged), "seed {seed}: linearizable\n{}", picture());
                let part = whole(&operations, evidence);
                assert!(
                    !frontier_says(&part),
                    "seed {seed}: the evidence {evidence:?} is no evidence\n{}",
                    picture()
                );
                invalid += 1;
            }
        }
    }
    assert!(
        valid > 50_000 && invalid > 50_000 && passed < 20_000,
        "{valid} valid, {invalid} invalid, {passed} not judged: the histories must be of both kinds"
    );
}
