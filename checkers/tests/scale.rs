//! Histories of the size and kind that tests produce, and what happens at the limits.
//!
//! ```text
//! clients ──> a register that is simulated ──> 500 … 100,000 operations, some crashed, some falsified ──> verdict, steps
//! ```
//!
//! Effort is bounded in steps of the search, which are the same on every machine; deliberately not in seconds.

mod simulate;

use std::sync::{Arc, atomic::AtomicBool};

use checkers::{
    Budget, Checker, Header, History, Kind, ModelName, Op, ReadMode, Ret, Validity, Value, Verdict,
    linearizable, linearizable_by,
    models::{Register, Spec},
};
use simulate::{LOAD, Load, event, make_stale, simulate};
use stateright::semantics::register::{Register as SpecRegister, RegisterOp, RegisterRet};

fn check(history: &History) -> Verdict {
    linearizable(ModelName::Kv).check(history, &Budget::unlimited())
}

fn steps(verdict: &Verdict) -> u64 {
    verdict.stats["steps"].as_u64().expect("a number")
}

#[test]
fn ten_thousand_operations_of_ten_clients() {
    let verdict = check(&simulate(Load { operations: 10_000, clients: 10, ..LOAD }, 1));
    assert_eq!((verdict.validity, verdict.reason.as_deref()), (Validity::Valid, None));
    assert!(steps(&verdict) < 3_000_000, "{}", steps(&verdict));
}

#[test]
fn a_hundred_thousand_operations_of_five_clients() {
    let verdict = check(&simulate(Load { operations: 100_000, ..LOAD }, 2));
    assert_eq!(verdict.validity, Validity::Valid);
    assert!(steps(&verdict) < 3_000_000, "{}", steps(&verdict));
}

#[test]
fn a_thousand_keys() {
    let mut history =
        simulate(Load { operations: 50_000, clients: 20, keys: 1000, crashed: 0.01, ..LOAD }, 3);
    assert_eq!(check(&history).validity, Validity::Valid);
    make_stale(&mut history);
    let verdict = check(&history);
    assert_eq!(verdict.validity, Validity::Invalid);
    assert_eq!(verdict.anomalies.len(), 1);
    assert!(verdict.reason.unwrap().starts_with("1 of 1000 keys not linearizable: "));
}

/// The kind of history that matters most in practice, and on which searches without prunes blow up.
#[test]
fn stale_reads_among_crashed_operations() {
    for (operations, clients, crashed) in [(500, 5, 0.05), (1000, 5, 0.03), (2000, 10, 0.01), (5000, 5, 0.01)]
    {
        for seed in 0..5 {
            for cas in [0.0, 0.3] {
                let mut history = simulate(Load { operations, clients, crashed, cas, ..LOAD }, seed);
                assert_eq!(check(&history).validity, Validity::Valid, "seed {seed}");
                make_stale(&mut history);
                let verdict = check(&history);
                assert_eq!(verdict.validity, Validity::Invalid, "seed {seed}");
                assert!(steps(&verdict) < 2_000_000, "seed {seed}: {}", steps(&verdict));
                let minimal = &verdict.anomalies[0].operations;
                assert!((1..=8).contains(&minimal.len()), "seed {seed}: {minimal:?}");
            }
        }
    }
}

/// Few values, many crashes: the frontier is large, but a linearization is easy to find.
#[test]
fn the_depth_first_search_finds_alibis() {
    for seed in 0..5 {
        let load = Load { operations: 5000, crashed: 0.01, domain: Some(5), cas: 0.33, ..LOAD };
        let verdict = check(&simulate(load, seed));
        assert_eq!(verdict.validity, Validity::Valid);
        assert!(steps(&verdict) < 5_000_000, "seed {seed}: {}", steps(&verdict));
    }
}

/// So many operations open at once that the frontier cannot hold them. The value 1 is written twice: no specialist helps.
fn crowd(writers: u64, reads: &[i64]) -> History {
    let key = || Value::from(1);
    let mut events = Vec::new();
    let mut push = |process, kind, op: Op, ret| {
        let index = events.len();
        events.push(event(index, index as u64, process, kind, op, ret));
    };
    let write = |value: u64| Op::Write { key: key(), value: (value.max(1) as i64).into() };
    (0..writers).for_each(|process| push(process, Kind::Invoke, write(process), None));
    (0..writers).for_each(|process| push(process, Kind::Ok, write(process), Some(Ret::Done)));
    for &value in reads {
        let read = Op::Read { key: key(), mode: ReadMode::Default };
        push(writers, Kind::Invoke, read.clone(), None);
        push(writers, Kind::Ok, read, Some(Ret::Value(value.into())));
    }
    History::new(Header::new("crowd", 0, "", vec![]), events)
}

#[test]
fn more_open_operations_than_the_frontier_can_hold() {
    // The last of all writes is the first order that is tried; one of the first would take for ever.
    let verdict = check(&crowd(200, &[199, 199]));
    assert_eq!(verdict.validity, Validity::Valid);
    assert_eq!(verdict.stats["depth_first_keys"], 1);
}

/// Where all values are different, nothing has to be searched for.
#[test]
fn a_specialist_needs_no_search() {
    for clients in [1, 20, 500] {
        for (crashed, cas) in [(0.0, 0.0), (0.01, 0.5)] {
            let mut history = simulate(Load { operations: 50_000, clients, crashed, cas, ..LOAD }, 3);
            let verdict = check(&history);
            assert_eq!((verdict.validity, steps(&verdict)), (Validity::Valid, 0));
            assert_eq!(verdict.stats["specialist_keys"], 1);
            make_stale(&mut history);
            let verdict = check(&history);
            assert_eq!(verdict.validity, Validity::Invalid);
            assert!(steps(&verdict) < 10_000, "{}", steps(&verdict));
            let anomaly = &verdict.anomalies[0];
            assert!(anomaly.message.contains("given the operations shown"), "{}", anomaly.message);
        }
    }
}

#[test]
fn out_of_memory_is_unknown_with_the_reason() {
    let budget = Budget::new(Arc::default(), 4 << 20);
    let verdict = linearizable(ModelName::Register).check(&crowd(200, &[7, 8]), &budget);
    assert_eq!(verdict.validity, Validity::Unknown);
    let reason = verdict.reason.unwrap();
    assert!(reason.contains("key 1: after"), "{reason}");
    assert!(reason.contains("200 operations are open at once, more than 128"), "{reason}");
    assert!(reason.contains("the memo of the depth-first search outgrew its 2097152 bytes"), "{reason}");
    let verdict = linearizable(ModelName::Register).check(&crowd(30, &[7, 8]), &budget);
    let reason = verdict.reason.unwrap();
    assert!(reason.contains("configurations outgrew its 2097152 bytes"), "{reason}");
}

#[test]
fn a_value_from_nowhere_is_guilt_even_when_the_search_gives_up() {
    let budget = Budget::new(Arc::default(), 4 << 20);
    let verdict = linearizable(ModelName::Register).check(&crowd(200, &[7, 8, 777]), &budget);
    assert_eq!(verdict.validity, Validity::Invalid);
    let anomaly = &verdict.anomalies[0];
    assert!(
        anomaly.message.contains("returned 777, but nothing can have left that value"),
        "{}",
        anomaly.message
    );
    assert_eq!(anomaly.operations, [202]);
}

#[test]
fn a_cancelled_search_is_unknown() {
    let budget = Budget::new(Arc::new(AtomicBool::new(true)), u64::MAX);
    let verdict = linearizable(ModelName::Register).check(&crowd(30, &[7, 8]), &budget);
    assert_eq!(verdict.validity, Validity::Unknown);
    assert!(verdict.reason.unwrap().contains("key 1: cancelled after"));
}

#[test]
fn the_same_history_gets_the_same_verdict() {
    let mut history = simulate(Load { operations: 3000, keys: 7, crashed: 0.02, cas: 0.2, ..LOAD }, 9);
    make_stale(&mut history);
    let first = check(&history);
    assert_eq!(first.validity, Validity::Invalid);
    assert_eq!(check(&history), first);
}

#[test]
fn initial_values_and_stateright_specifications() {
    let read = |value: i64| {
        let op = Op::Read { key: 0.into(), mode: ReadMode::Default };
        let events = vec![
            event(0, 0, 0, Kind::Invoke, op.clone(), None),
            event(1, 1, 0, Kind::Ok, op, Some(Ret::Value(value.into()))),
        ];
        History::new(Header::new("initial", 0, "", vec![]), events)
    };
    let spec = Spec::new(
        "stateright-register",
        SpecRegister(Value::from(3)),
        |op: &Op, ret: Option<&Ret>| match op {
            Op::Read { .. } => Some((
                RegisterOp::Read,
                match ret {
                    Some(Ret::Value(value)) => Some(RegisterRet::ReadOk(value.clone())),
                    _ => None,
                },
            )),
            Op::Write { value, .. } => {
                Some((RegisterOp::Write(value.clone()), ret.map(|_| RegisterRet::WriteOk)))
            }
            _ => None,
        },
    );
    let three = Register { initial: 3.into() };
    for (value, expected) in [(3, Validity::Valid), (4, Validity::Invalid)] {
        let budget = Budget::unlimited();
        assert_eq!(linearizable_by(three.clone()).check(&read(value), &budget).validity, expected);
        assert_eq!(linearizable_by(spec.clone()).check(&read(value), &budget).validity, expected);
    }
    // It judges whole histories as our own model does.
    for seed in 0..20 {
        let mut history = simulate(Load { operations: 60, clients: 3, crashed: 0.03, ..LOAD }, seed);
        if seed % 2 == 1 {
            make_stale(&mut history);
        }
        let nil = Spec::new("nil", SpecRegister(Value::Nil), |op: &Op, ret: Option<&Ret>| match (op, ret) {
            (Op::Read { .. }, Some(Ret::Value(value))) => {
                Some((RegisterOp::Read, Some(RegisterRet::ReadOk(value.clone()))))
            }
            (Op::Write { value, .. }, ret) => {
                Some((RegisterOp::Write(value.clone()), ret.map(|_| RegisterRet::WriteOk)))
            }
            _ => None,
        });
        let expected = check(&history).validity;
        assert_eq!(
            linearizable_by(nil).check(&history, &Budget::unlimited()).validity,
            expected,
            "seed {seed}"
        );
    }
    // What a specification does not know, it does not judge.
    let cas = Op::Cas { key: 0.into(), expected: 1.into(), new: 2.into() };
    let history =
        History::new(Header::new("cas", 0, "", vec![]), vec![event(0, 0, 0, Kind::Invoke, cas, None)]);
    let verdict = linearizable_by(spec).check(&history, &Budget::unlimited());
    assert_eq!(verdict.validity, Validity::Unknown);
    assert!(verdict.reason.unwrap().contains("stateright-register does not know \"cas\""));
}
