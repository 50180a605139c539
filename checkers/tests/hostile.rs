//! Histories that nobody would write: whatever is judged, there is a verdict, within its bounds, and never a pass for nothing.
//!
//! ```text
//! empty, all at the last moment, every operation of every kind at once, five thousand at once   ──> every checker ──> a verdict
//! ```
//!
//! What the readers make of hostile files is in `formats`; what a search costs on likely histories in `scale`.

// Only a part of it is needed here.
#[allow(dead_code)]
mod simulate;

use std::sync::Arc;

use checkers::{
    Budget, Checker, Event, Header, History, Kind, Mop, Op, Process, ReadMode, Ret, SequentialOptions,
    Validity, Value, Verdict, bench, checkers,
    convergence::{self, convergence},
    linearizable, models, online, sequential, still_holds,
    transactions::{self, list_append, rw_register},
};
use simulate::{all_at_once, event};

const MEMORY: u64 = 64 << 20;

fn budget() -> Budget {
    Budget::new(Arc::default(), MEMORY)
}

/// Every checker there is, linearizability by every model.
fn everyone() -> Vec<Box<dyn Checker>> {
    let mut all: Vec<Box<dyn Checker>> = vec![
        Box::new(sequential(SequentialOptions::default())),
        Box::new(list_append(transactions::Options::default())),
        Box::new(rw_register(transactions::Options::default())),
        Box::new(convergence(convergence::Options::default())),
        Box::new(convergence(convergence::Options { stand_still_ns: 0 })),
        Box::new(bench::set()),
        Box::new(bench::queue()),
        Box::new(bench::set_full(false)),
        Box::new(bench::set_full(true)),
        Box::new(bench::total_queue()),
        Box::new(bench::unique_ids()),
        Box::new(bench::counter()),
        Box::new(bench::bank(bench::BankOptions::default())),
        Box::new(bench::stats()),
        Box::new(bench::unhandled_errors()),
        Box::new(bench::log_patterns()),
        Box::new(bench::node_invariants()),
        Box::new(bench::lock(bench::LockOptions::default())),
        Box::new(bench::lock(bench::LockOptions { lease: Some(bench::Span(1)), ..Default::default() })),
        Box::new(bench::availability(bench::AvailabilityOptions::default())),
        Box::new(bench::availability(bench::AvailabilityOptions {
            max_gap: Some(bench::Span(1)),
            recover_within: Some(bench::Span(1)),
        })),
        Box::new(bench::latency(bench::LatencyObjectives::default())),
        Box::new(bench::long_fork()),
        Box::new(bench::causal_reverse()),
        Box::new(bench::monotonic()),
    ];
    for guarantee in bench::Guarantee::ALL {
        for linearizable_writes in [false, true] {
            all.push(Box::new(bench::session(guarantee, bench::SessionOptions { linearizable_writes })));
        }
    }
    let names: Vec<String> = all.iter().map(|checker| checker.name().to_owned()).collect();
    for (name, _) in checkers().iter().filter(|(name, _)| *name != "linearizable") {
        assert!(names.iter().any(|known| known == name), "nobody asks {name}");
    }
    for (name, _) in models() {
        all.push(Box::new(linearizable(name.parse().expect("it is listed"))));
    }
    all
}

/// What the judges say that watch.
fn watchers(history: &History) -> Vec<Verdict> {
    let watch = |name: &str| {
        let mut judge = online(name.parse().expect("it is listed"), budget());
        history.events.iter().for_each(|event| judge.see(&event));
        judge.finish()
    };
    models().iter().map(|(name, _)| watch(name)).collect()
}

fn history(events: impl IntoIterator<Item = Event>) -> History {
    History::new(Header::new("hostile", 0, "", vec!["n1".into(), "n2".into()]), events)
}

/// An operation that is called, and what came of it.
type Row = (u64, u64, Op, Kind, Option<Ret>);

fn rows(rows: Vec<Row>) -> History {
    let mut events = Vec::new();
    for (process, (call, ret, op, kind, told)) in rows.into_iter().enumerate() {
        events.push(event(0, call, process as u64, Kind::Invoke, op.clone(), None));
        if kind != Kind::Invoke {
            events.push(event(0, ret, process as u64, kind, op, told));
        }
    }
    events.sort_by_key(|event| (event.time, event.kind != Kind::Invoke));
    numbered(events)
}

fn numbered(mut events: Vec<Event>) -> History {
    for (at, event) in events.iter_mut().enumerate() {
        event.index = at as u64;
    }
    history(events)
}

fn list(values: impl IntoIterator<Item = i64>) -> Value {
    values.into_iter().map(Value::Int).collect()
}

/// One operation of every kind, with an answer that fits.
fn of_every_kind(key: Value, value: Value) -> Vec<(Op, Ret)> {
    let k = || key.clone();
    let v = || value.clone();
    let told = || Ret::Value(value.clone());
    let custom = |f: &str| Op::Custom { f: f.into(), key: Some(k()), value: serde_json::json!({"token": 3}) };
    vec![
        (Op::Read { key: k(), mode: ReadMode::Default }, told()),
        (Op::Read { key: k(), mode: ReadMode::Stale }, told()),
        (Op::Write { key: k(), value: v() }, Ret::Done),
        (Op::Cas { key: k(), expected: v(), new: v() }, Ret::Swapped { swapped: true, found: Some(v()) }),
        (Op::Delete { key: k() }, Ret::Done),
        (Op::Append { key: k(), value: v() }, Ret::Done),
        (Op::Add { key: k(), value: v() }, Ret::Done),
        (Op::Remove { key: k(), value: v() }, Ret::Done),
        (Op::Contains { key: k(), value: v() }, Ret::Value(true.into())),
        (Op::Enqueue { key: k(), value: v() }, Ret::Done),
        (Op::Dequeue { key: k() }, told()),
        (Op::Drain { key: k() }, Ret::Value(vec![v()].into())),
        (Op::Push { key: k(), value: v() }, Ret::Done),
        (Op::Pop { key: k() }, told()),
        (Op::Generate { key: k() }, told()),
        (Op::Acquire { key: k(), owner: Value::Nil }, told()),
        (Op::Release { key: k(), owner: Value::Nil }, Ret::Done),
        (Op::Transfer { from: k(), to: k(), amount: i64::MIN }, Ret::Done),
        (Op::Transfer { from: k(), to: v(), amount: i64::MAX }, Ret::Done),
        (custom("use"), Ret::Done),
        (custom("transfer"), Ret::Done),
        (
            Op::Txn {
                mops: vec![
                    Mop::Append { key: k(), value: v() },
                    Mop::Read { key: k() },
                    Mop::Write { key: k(), value: v() },
                ]
                .into(),
            },
            Ret::Txn(vec![v()].into()),
        ),
    ]
}

/// Histories that are odd in one way each.
fn odd() -> Vec<(String, History)> {
    let mut all = Vec::new();
    let huge = Value::from("x".repeat(1 << 16));
    let mut deep = Value::Nil;
    (0..90).for_each(|_| deep = Value::from(vec![deep.clone()]));
    let values = [
        ("nil", Value::Nil),
        ("the least number", i64::MIN.into()),
        ("the greatest number", i64::MAX.into()),
        ("a list", list(0..3)),
        ("an empty list", list([])),
        ("a very long text", huge),
        ("a deep list", deep),
    ];
    for (what, value) in values {
        for key in [Value::Nil, value.clone()] {
            let kinds = of_every_kind(key, value.clone());
            for (when, at) in [("at the beginning", 0), ("at the last moment", u64::MAX)] {
                let same = |(op, ret): &(Op, Ret)| (at, at, op.clone(), Kind::Ok, Some(ret.clone()));
                all.push((format!("{what} {when}"), rows(kinds.iter().map(same).collect())));
            }
            let long = |(op, ret): &(Op, Ret)| (0, u64::MAX, op.clone(), Kind::Ok, Some(ret.clone()));
            all.push((format!("{what} for ever"), rows(kinds.iter().map(long).collect())));
            for kind in [Kind::Fail, Kind::Info, Kind::Invoke] {
                let lost = |(op, _): &(Op, Ret)| (1, u64::MAX, op.clone(), kind, None);
                all.push((format!("{what}, all {kind}"), rows(kinds.iter().map(lost).collect())));
            }
            // Each kind by itself, once and twice, one after the other.
            for (op, ret) in kinds {
                let at = |call| (call, call + 1, op.clone(), Kind::Ok, Some(ret.clone()));
                all.push((format!("{what}: {} once", op.f()), rows(vec![at(0)])));
                all.push((format!("{what}: {} twice", op.f()), rows(vec![at(0), at(u64::MAX - 1)])));
            }
        }
    }
    let write = Op::Write { key: 1.into(), value: 1.into() };
    let call = |index, time, process| event(index, time, process, Kind::Invoke, write.clone(), None);
    let done = |index, time, process| event(index, time, process, Kind::Ok, write.clone(), Some(Ret::Done));
    // Malformed ones, and such whose clocks disagree.
    for (what, events) in [
        ("an end without a beginning", vec![done(0, 0, 0)]),
        ("two beginnings", vec![call(0, 0, 0), call(1, 1, 0)]),
        ("indexes that go back", vec![call(5, 0, 0), done(4, 1, 0)]),
        ("time that goes back", vec![call(0, 9, 0), done(1, 1, 0)]),
        ("clocks that disagree", vec![call(0, 9, 0), call(1, 1, 1), done(2, 9, 0), done(3, 2, 1)]),
    ] {
        all.push((what.to_owned(), history(events)));
    }
    // The nemesis and the observer say anything at all.
    let mut notices = Vec::new();
    for process in [Process::Nemesis, Process::Observer] {
        for f in ["kill", "healed", "log", "log-scan", "leader", "sample"] {
            for value in [serde_json::json!(null), serde_json::json!({"step": -1, "phase": "stop"})] {
                for kind in [Kind::Info, Kind::Invoke, Kind::Ok] {
                    let op = Op::Custom { f: f.into(), key: None, value: value.clone() };
                    notices.push(Event { process, ..event(0, u64::MAX, 0, kind, op, None) });
                }
            }
        }
    }
    all.push(("notices".to_owned(), numbered(notices)));
    all
}

#[test]
fn nothing_is_never_a_pass() {
    let nothing = history([]);
    let heal = Op::Custom { f: "healed".into(), key: None, value: serde_json::json!(null) };
    let notices = [Process::Nemesis, Process::Observer]
        .map(|process| Event { process, ..event(0, 5, 0, Kind::Info, heal.clone(), None) });
    let only_notices = numbered(notices.to_vec());
    let op = Op::Write { key: 1.into(), value: 1.into() };
    let only = |kind| rows(vec![(0, 1, op.clone(), kind, None)]);
    for history in [&nothing, &only_notices, &only(Kind::Fail), &only(Kind::Info), &only(Kind::Invoke)] {
        for checker in everyone() {
            let verdict = checker.check(history, &budget());
            // That nothing went wrong is all that it says.
            let counts = checker.name() == "unhandled-errors" && !std::ptr::eq(history, &nothing);
            let expected = if counts { verdict.validity } else { Validity::Unknown };
            assert_eq!(verdict.validity, expected, "{}: {:?}", checker.name(), verdict.reason);
            assert!(verdict.validity == Validity::Valid || verdict.reason.is_some(), "{}", checker.name());
        }
        for verdict in watchers(history) {
            assert_eq!(verdict.validity, Validity::Unknown, "{}", verdict.stats["model"]);
        }
    }
}

#[test]
fn every_checker_has_a_verdict_on_everything_odd() {
    let all = odd();
    assert!(all.len() > 500);
    for (what, history) in &all {
        for checker in everyone() {
            let verdict = checker.check(history, &budget());
            let shown = || format!("{} on {what}: {:?}", checker.name(), verdict.reason);
            match verdict.validity {
                Validity::Valid => {}
                Validity::Unknown => assert!(verdict.reason.is_some(), "{}", shown()),
                Validity::Invalid => assert!(!verdict.anomalies.is_empty(), "{}", shown()),
            }
            assert!(serde_json::to_string(&verdict).is_ok());
        }
        watchers(history);
        let _ = still_holds(history, Value::Nil, &budget());
    }
}

/// Who watches and who sees the whole never contradict each other.
#[test]
fn watching_agrees_with_seeing_everything_odd() {
    let mut both = 0;
    for (what, history) in &odd() {
        for ((name, _), seen) in models().iter().zip(watchers(history)) {
            let whole = linearizable(name.parse().expect("it is listed")).check(history, &budget());
            if seen.validity != Validity::Unknown && whole.validity != Validity::Unknown {
                assert_eq!(seen.validity, whole.validity, "{name}: {what}: {:?}", whole.reason);
                both += 1;
            }
        }
    }
    assert!(both > 100, "{both}");
}

/// An answer at the last moment that there is, which nothing that happened can explain.
#[test]
fn the_last_moment_is_no_hiding_place() {
    let max = u64::MAX;
    let taken: [(&str, Op); 3] = [
        ("stack", Op::Pop { key: Value::Nil }),
        ("fifo-queue", Op::Dequeue { key: Value::Nil }),
        ("unordered-queue", Op::Dequeue { key: Value::Nil }),
    ];
    let read = Op::Read { key: Value::Nil, mode: ReadMode::Default };
    let registers = ["register", "cas-register", "kv"].map(|model| (model, read.clone()));
    for (model, op) in taken.into_iter().chain(registers) {
        let history = rows(vec![(max - 1, max, op, Kind::Ok, Some(Ret::Value(7.into())))]);
        let verdict = linearizable(model.parse().expect("it is listed")).check(&history, &budget());
        assert_eq!(verdict.validity, Validity::Invalid, "{model}");
    }
    let lists = [("set", read, list([7]))];
    for (model, op, value) in lists {
        let history = rows(vec![(max, max, op, Kind::Ok, Some(Ret::Value(value)))]);
        let verdict = linearizable(model.parse().expect("it is listed")).check(&history, &budget());
        assert_eq!(verdict.validity, Validity::Invalid, "{model}");
    }
}

/// Operations of one kind of collection, all open at once, with values that come again, so that no specialist helps.
fn crowd(operations: u64, op: impl Fn(u64) -> (Op, Ret)) -> History {
    let calls = (0..operations).map(|process| event(0, process, process, Kind::Invoke, op(process).0, None));
    let returns = (0..operations).map(|process| {
        let (op, ret) = op(process);
        event(0, operations + process, process, Kind::Ok, op, Some(ret))
    });
    numbered(calls.chain(returns).collect())
}

#[test]
fn five_thousand_operations_at_once_end_within_their_memory() {
    let key = || Value::Int(0);
    let value = |process: u64| Value::Int(process as i64 % 50);
    let other = |process: u64| Value::Int((process as i64 + 7) % 50);
    let queue = crowd(5000, |process| match process % 2 {
        0 => (Op::Enqueue { key: key(), value: value(process) }, Ret::Done),
        _ => (Op::Dequeue { key: key() }, Ret::Value(other(process - 1))),
    });
    let stack = crowd(5000, |process| match process % 2 {
        0 => (Op::Push { key: key(), value: value(process) }, Ret::Done),
        _ => (Op::Pop { key: key() }, Ret::Value(other(process - 1))),
    });
    let set = crowd(5000, |process| match process % 3 {
        0 => (Op::Add { key: key(), value: value(process) }, Ret::Done),
        1 => (Op::Remove { key: key(), value: value(process) }, Ret::Done),
        // Nobody added the last; to find that out by a search is to try everything.
        _ => {
            let read = list((0..20).chain([50]));
            (Op::Read { key: key(), mode: ReadMode::Default }, Ret::Value(read))
        }
    });
    let register = all_at_once(5000);
    for (model, history) in [
        ("cas-register", &register),
        ("kv", &register),
        ("fifo-queue", &queue),
        ("unordered-queue", &queue),
        ("stack", &stack),
        ("set", &set),
    ] {
        let verdict = linearizable(model.parse().expect("it is listed")).check(history, &budget());
        assert_eq!(verdict.validity, Validity::Unknown, "{model}: {:?}", verdict.reason);
        let reason = verdict.reason.unwrap();
        assert!(reason.contains("5000 operations are open at once, more than 128"), "{model}: {reason}");
        assert!(reason.contains("outgrew its"), "{model}: {reason}");
    }
    for history in [&register, &queue, &stack, &set] {
        watchers(history);
        let verdict = sequential(SequentialOptions::default()).check(history, &budget());
        assert!(verdict.validity == Validity::Valid || verdict.reason.is_some());
    }
}

/// Histories are written down by many at once: what comes first in the file need not have been called first.
#[test]
fn the_order_of_the_file_is_not_that_of_time() {
    let done = |call: u64, op: &Op| (call, call + 1, op.clone(), Kind::Ok, Some(Ret::Done));
    let in_file_order = |rows: Vec<Row>| {
        let both = rows.into_iter().enumerate().flat_map(|(process, (call, ret, op, kind, told))| {
            let process = process as u64;
            [event(0, call, process, Kind::Invoke, op.clone(), None), event(0, ret, process, kind, op, told)]
        });
        numbered(both.collect())
    };
    let acquire = |owner: &str| Op::Acquire { key: 1.into(), owner: owner.into() };
    let release = |owner: &str| Op::Release { key: 1.into(), owner: owner.into() };
    // One has it until 5, the other until 13, and the first again from 21 on.
    let locks = in_file_order(vec![
        done(20, &acquire("a")),
        done(0, &acquire("a")),
        done(5, &release("a")),
        done(30, &release("a")),
        done(10, &acquire("b")),
        done(13, &release("b")),
    ]);
    let verdict = bench::lock(bench::LockOptions::default()).check(&locks, &budget());
    assert_eq!(verdict.validity, Validity::Valid, "{:?}", verdict.anomalies);
    let read = Op::Read { key: 1.into(), mode: ReadMode::Default };
    let told =
        |call: u64, value: i64| (call, call + 1, read.clone(), Kind::Ok, Some(Ret::Value(value.into())));
    let growing = in_file_order(vec![told(20, 5), told(0, 3), told(10, 4)]);
    let verdict = bench::monotonic().check(&growing, &budget());
    assert_eq!(verdict.validity, Validity::Valid, "{:?}", verdict.anomalies);
}

/// A system that refuses an old token has not served it.
#[test]
fn a_use_that_was_refused_was_not_served() {
    let used = |call: u64, token: i64, answer: Option<bool>| {
        let value = serde_json::json!({"token": token});
        let op = Op::Custom { f: "use".into(), key: Some(1.into()), value };
        let told = answer.map_or(Ret::Done, |answer| Ret::Custom(answer.into()));
        (call, call + 1, op, Kind::Ok, Some(told))
    };
    let judge = |answer| {
        let history = rows(vec![used(0, 2, None), used(10, 1, answer), used(20, 3, None)]);
        bench::lock(bench::LockOptions::default()).check(&history, &budget()).validity
    };
    assert_eq!(judge(Some(false)), Validity::Valid);
    assert_eq!(judge(Some(true)), Validity::Invalid);
    assert_eq!(judge(None), Validity::Invalid);
}
