//! The online judge against the one that sees everything.
//!
//! Random histories of every kind of object, some falsified, are judged both ways.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{Checker, Header, History, Meta, ReadMode, Ret, linearizable};

/// What a client waits for, with the answer once it has taken effect.
type Open = Option<(Op, Option<Ret>)>;

/// A history of registers with compare-and-set, with crashes, failures, stale reads that claim nothing, ties in time, and lies.
fn history(seed: u64, length: usize, most_crashes: f64, lies: bool) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cells: BTreeMap<i64, Value> = BTreeMap::new();
    let mut clients: Vec<(u64, Open)> = (0..4).map(|process| (process, None)).collect();
    let (mut processes, mut time, mut invoked) = (4, 0, 0);
    let mut events = Vec::new();
    let crashes = rng.random_range(0.0..=most_crashes);
    while invoked < length || clients.iter().any(|(_, open)| open.is_some()) {
        let at = rng.random_range(0..clients.len());
        let (process, open) = &mut clients[at];
        time += rng.random_range(0..3u64);
        let (kind, op, ret) = match open.take() {
            None if invoked >= length => continue,
            None => {
                invoked += 1;
                let key = Value::Int(rng.random_range(0..2));
                let small = |rng: &mut ChaCha8Rng| Value::Int(rng.random_range(0..4));
                let op = match rng.random_range(0..4) {
                    0 => Op::Write { key, value: small(&mut rng) },
                    1 => Op::Cas { key, expected: small(&mut rng), new: small(&mut rng) },
                    _ if rng.random_bool(0.1) => Op::Read { key, mode: ReadMode::Stale },
                    _ => Op::Read { key, mode: ReadMode::Default },
                };
                *open = Some((op.clone(), None));
                (Kind::Invoke, op, None)
            }
            Some((op, None)) if rng.random_bool(crashes) => {
                let kind = if rng.random_bool(0.5) { Kind::Fail } else { Kind::Info };
                let who = *process;
                if kind == Kind::Info {
                    *process = processes;
                    processes += 1;
                }
                events.push((time, who, kind, op, None));
                continue;
            }
            Some((op, None)) => {
                let Some(Value::Int(key)) = op.key() else { unreachable!("keys are numbers") };
                let cell = cells.entry(*key).or_default();
                let mut ret = match &op {
                    Op::Write { value, .. } => {
                        *cell = value.clone();
                        Ret::Done
                    }
                    Op::Cas { expected, new, .. } => {
                        let found = cell.clone();
                        let swapped = found == *expected;
                        if swapped {
                            *cell = new.clone();
                        }
                        Ret::Swapped { swapped, found: Some(found) }
                    }
                    _ => Ret::Value(cell.clone()),
                };
                if lies && rng.random_bool(0.02) && matches!(ret, Ret::Value(_)) {
                    ret = Ret::Value(Value::Int(rng.random_range(0..4)));
                }
                *open = Some((op, Some(ret)));
                continue;
            }
            Some((op, ret)) => (Kind::Ok, op, ret),
        };
        events.push((time, *process, kind, op, ret));
    }
    let events = events.into_iter().enumerate().map(|(index, (time, process, kind, op, ret))| Event {
        index: index as u64,
        time,
        process: Process::Client(process),
        kind,
        op,
        ret,
        meta: Meta::default(),
    });
    History::new(Header::new("online", seed, "", vec![]), events)
}

fn watched(history: &History, model: ModelName) -> Verdict {
    let mut judge = online(model, Budget::unlimited());
    history.events.iter().for_each(|event| judge.see(&event));
    judge.finish()
}

#[test]
fn it_says_what_the_judge_of_whole_histories_says() {
    let mut counts = [0; 2];
    let mut unknown = 0;
    for seed in 0..6_000 {
        let length = if seed % 100 == 0 { 1500 } else { 30 };
        let history = history(seed, length, 0.2, seed % 2 == 0);
        let whole = linearizable(ModelName::CasRegister).check(&history, &Budget::unlimited());
        let seen = watched(&history, ModelName::CasRegister);
        if seen.validity == Validity::Unknown && seen.reason.as_ref().is_some_and(|r| r.contains("too much"))
        {
            // Where hundreds of operations are of unknown outcome only the depth-first search may know.
            assert!(length > 100, "seed {seed}");
            unknown += 1;
            continue;
        }
        assert_eq!(seen.validity, whole.validity, "seed {seed}: {:?} {:?}", seen.reason, whole.reason);
        if whole.validity == Validity::Invalid {
            // The same return is the first that cannot be, key by key.
            let first = |verdict: &Verdict| {
                let all = verdict.anomalies.iter().filter(|a| a.details["first"] == true);
                let mut all: Vec<_> =
                    all.map(|a| (a.details["key"].to_string(), a.details["operation"].as_u64())).collect();
                all.sort();
                all
            };
            assert_eq!(first(&seen), first(&whole), "seed {seed}");
        }
        counts[usize::from(whole.validity == Validity::Invalid)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 500) && unknown < 10, "{counts:?} {unknown}");
}

/// A violation is known as soon as it is certain, not at the end.
#[test]
fn a_violation_is_told_at_once() {
    let mut told = 0;
    for seed in (0..200).step_by(2) {
        let history = history(seed, 300, 0.2, true);
        let mut judge = online(ModelName::CasRegister, Budget::unlimited());
        let mut at = None;
        for (place, event) in history.events.iter().enumerate() {
            judge.see(&event);
            if at.is_none() && judge.violation().is_some() {
                at = Some(place);
            }
        }
        if at.is_some_and(|at| at < history.events.len() / 2) {
            told += 1;
        }
    }
    assert!(told > 20, "{told}");
}

/// What is kept does not grow with the history.
#[test]
fn what_is_settled_is_forgotten() {
    let history = history(1, 40_000, 0.0, false);
    let mut judge = Judge::new(CasRegister::default(), Budget::unlimited());
    let mut most = 0;
    // Crashed operations would stay open for ever.
    for event in history.events.iter() {
        judge.see(&event);
        most = most.max(judge.keys.values().map(Live::kept).sum());
    }
    assert!(judge.counts.judged > 30_000, "{}", judge.counts.judged);
    assert!(most < 10_000, "{most}");
}

fn event(index: u64, time: u64, process: u64, kind: Kind, op: Op, ret: Option<Ret>) -> Event {
    Event { index, time, process: Process::Client(process), kind, op, ret, meta: Meta::default() }
}

/// One write after the other, each to a key of its own.
fn many_keys(count: i64) -> impl Iterator<Item = Event> {
    (0..count).flat_map(|key| {
        let op = Op::Write { key: key.into(), value: 1.into() };
        let at = 2 * key as u64;
        [
            event(at, at, 0, Kind::Invoke, op.clone(), None),
            event(at + 1, at + 1, 0, Kind::Ok, op, Some(Ret::Done)),
        ]
    })
}

#[test]
fn keys_retire_and_must_not_come_back() {
    let count = 3 * MAX_KEYS as i64;
    let mut judge = Judge::new(Register::default(), Budget::unlimited());
    many_keys(count).for_each(|event| judge.see(&event));
    assert!(judge.keys.len() <= MAX_KEYS);
    assert!(judge.retired.ranges.len() < 10, "{:?}", judge.retired.ranges);
    let verdict = judge.finish();
    assert_eq!(verdict.validity, Validity::Valid, "{:?}", verdict.reason);
    assert_eq!(verdict.stats["keys"], count);

    let mut judge = Judge::new(Register::default(), Budget::unlimited());
    many_keys(count).for_each(|event| judge.see(&event));
    let at = 2 * count as u64;
    let op = Op::Read { key: 5.into(), mode: ReadMode::Default };
    judge.see(&event(at, at, 0, Kind::Invoke, op.clone(), None));
    judge.see(&event(at + 1, at + 1, 0, Kind::Ok, op, Some(Ret::Value(7.into()))));
    let verdict = judge.finish();
    assert_eq!(verdict.validity, Validity::Unknown);
    assert!(verdict.reason.unwrap().contains("key 5: it was touched again after it had been retired"));
}

/// Keys retire just when one of them has been answered wrongly: that is not forgotten.
#[test]
fn what_returns_as_its_key_would_retire_is_judged() {
    let last = 2 * MAX_KEYS as u64;
    let read = Op::Read { key: 0.into(), mode: ReadMode::Default };
    for (told, expected) in [(1, Validity::Valid), (7, Validity::Invalid)] {
        let mut judge = Judge::new(Register::default(), Budget::unlimited());
        // The first key is written, and read until all others have been written, too.
        let mut events: Vec<Event> = many_keys(MAX_KEYS as i64).collect();
        events.insert(2, event(0, 1, 1, Kind::Invoke, read.clone(), None));
        events.push(event(0, last, 1, Kind::Ok, read.clone(), Some(Ret::Value(told.into()))));
        let next = Op::Write { key: (-1).into(), value: 1.into() };
        events.push(event(0, last, 0, Kind::Invoke, next, None));
        for (index, event) in events.iter_mut().enumerate() {
            event.index = index as u64;
            judge.see(event);
        }
        assert!(judge.counts.retired > 0);
        assert_eq!(judge.finish().validity, expected);
    }
}

/// As many keys as clients, all of them open: none can retire, and it is not tried each time.
#[test]
fn keys_that_cannot_retire_do_not_slow_it_down() {
    let mut judge = Judge::new(Register::default(), Budget::unlimited());
    let count = 10 * MAX_KEYS as u64;
    for at in 0..count {
        let op = Op::Write { key: (at as i64).into(), value: 1.into() };
        judge.see(&event(at, at, at, Kind::Invoke, op, None));
    }
    assert!(judge.full as u64 >= count);
    let verdict = judge.finish();
    assert_eq!((verdict.validity, &verdict.stats["judged"]), (Validity::Unknown, &count.into()));
}

/// What is no history of operations is nothing that can be judged, as for the judge of whole histories.
#[test]
fn what_is_malformed_is_unknown() {
    let write = |value: i64| Op::Write { key: 1.into(), value: value.into() };
    let read = || Op::Read { key: 1.into(), mode: ReadMode::Default };
    let call = |at: u64, op: Op| event(at, at, 0, Kind::Invoke, op, None);
    let done = |at: u64, op: Op| event(at, at, 0, Kind::Ok, op, Some(Ret::Done));
    let cases: [(Vec<Event>, &str); 7] = [
        (vec![call(0, write(1)), done(0, write(1))], "index 0 follows index 0"),
        (vec![call(0, write(1)), done(1, write(2))], "but it asked write of 1"),
        (vec![call(0, write(1)), call(1, write(2))], "while write of 1 to key 1 was open"),
        (vec![done(0, write(1))], "which it did not ask"),
        (vec![call(0, read()), done(1, read())], "is no answer"),
        (
            vec![call(0, write(1)), event(1, 1, 0, Kind::Info, write(1), None), call(2, write(2))],
            "may still be running",
        ),
        (vec![event(0, u64::MAX, 0, Kind::Invoke, write(1), None)], "the last moment"),
    ];
    for (events, why) in cases {
        let mut judge = online(ModelName::Register, Budget::unlimited());
        events.iter().for_each(|event| judge.see(event));
        let verdict = judge.finish();
        assert_eq!(verdict.validity, Validity::Unknown);
        let reason = verdict.reason.unwrap();
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn what_cannot_be_judged_is_unknown_with_the_reason() {
    let write = |value: i64| Op::Write { key: 1.into(), value: value.into() };
    let nothing = watched(&History::new(Header::new("", 0, "", vec![]), []), ModelName::Register);
    assert_eq!(nothing.validity, Validity::Unknown);
    // Too many different operations of unknown outcome.
    let crashed = (0..2 * key::MAX_CRASHED as u64).flat_map(|n| {
        let op = write(n as i64);
        [
            event(2 * n, 2 * n, n, Kind::Invoke, op.clone(), None),
            event(2 * n + 1, 2 * n + 1, n, Kind::Info, op, None),
        ]
    });
    let verdict = watched(&History::new(Header::new("", 0, "", vec![]), crashed), ModelName::Register);
    assert_eq!(verdict.validity, Validity::Unknown);
    assert!(verdict.reason.unwrap().contains("more than 256 different operations are of unknown outcome"));
    // Something that never ends.
    let mut judge = online(ModelName::Register, Budget::unlimited());
    judge.see(&event(0, 0, 0, Kind::Invoke, write(0), None));
    for n in 0..key::MAX_WAITING as u64 {
        let at = 1 + 2 * n;
        judge.see(&event(at, at, 1, Kind::Invoke, write(1), None));
        judge.see(&event(at + 1, at + 1, 1, Kind::Ok, write(1), Some(Ret::Done)));
    }
    let verdict = judge.finish();
    assert_eq!(verdict.validity, Validity::Unknown);
    assert!(verdict.reason.unwrap().contains("events came while one operation was open"));
    // A clock that goes back.
    let mut judge = online(ModelName::Register, Budget::unlimited());
    judge.see(&event(0, 5, 0, Kind::Invoke, write(0), None));
    judge.see(&event(1, 4, 1, Kind::Invoke, write(0), None));
    assert!(judge.finish().reason.unwrap().contains("event 1 is of 4 ns, before the 5 ns"));
}
