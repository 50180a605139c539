//! Histories of a simulated register (collections are in `collections`), correct, or with one stale read: for tests and benchmarks.
//!
//! ```text
//! clients ──> a register that is simulated ──> 500 … 10,000,000 operations, some crashed, one falsified
//! ```

// Each user needs a part of these.
#[allow(dead_code)]
pub(crate) mod appends;
#[allow(dead_code)]
pub(crate) mod collections;

use checkers::{Event, Events, Header, History, Kind, Meta, Op, Process, ReadMode, Ret, Value};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What to simulate.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) operations: usize,
    pub(crate) clients: usize,
    pub(crate) keys: i64,
    /// The share of operations whose client never hears back.
    pub(crate) crashed: f64,
    /// Values are drawn from so many; `None`: every value is written once.
    pub(crate) domain: Option<i64>,
    /// The share of compare-and-sets.
    pub(crate) cas: f64,
}

/// A load to start from.
pub(crate) const LOAD: Load =
    Load { operations: 500, clients: 5, keys: 1, crashed: 0.0, domain: None, cas: 0.0 };

/// What a client waits for, with the answer once it has taken effect.
type Open = Option<(Op, Option<Ret>)>;

/// A correct history. All clients are always busy, half of what is not cas are reads.
pub(crate) fn simulate(load: Load, seed: u64) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cells = vec![Value::Nil; load.keys as usize];
    let mut clients: Vec<(u64, Open)> = (0..load.clients as u64).map(|process| (process, None)).collect();
    let (mut processes, mut fresh, mut time, mut invoked) = (load.clients as u64, 0, 0, 0);
    let mut events = Events::default();
    while invoked < load.operations || clients.iter().any(|(_, open)| open.is_some()) {
        let client = rng.random_range(0..clients.len());
        let (process, open) = &mut clients[client];
        time += rng.random_range(1..1000);
        let (kind, op, ret) = match open.take() {
            None if invoked == load.operations => continue,
            None => {
                invoked += 1;
                let cell = rng.random_range(0..load.keys);
                let key = Value::Int(cell);
                fresh += 1;
                let value = Value::Int(load.domain.map_or(fresh, |domain| rng.random_range(0..domain)));
                let op = if rng.random_bool(load.cas) {
                    let expected = match load.domain {
                        Some(domain) => rng.random_range(0..domain).into(),
                        None => cells[cell as usize].clone(),
                    };
                    Op::Cas { key, expected, new: value }
                } else if rng.random_bool(0.5) {
                    Op::Read { key, mode: ReadMode::Default }
                } else {
                    Op::Write { key, value }
                };
                *open = Some((op.clone(), None));
                (Kind::Invoke, op, None)
            }
            Some((op, None)) => {
                let Some(Value::Int(cell)) = op.key() else { unreachable!("keys are numbers") };
                let cell = &mut cells[*cell as usize];
                let ret = match &op {
                    Op::Read { .. } => Ret::Value(cell.clone()),
                    Op::Cas { expected, new, .. } => {
                        let found = cell.clone();
                        let swapped = found == *expected;
                        if swapped {
                            *cell = new.clone();
                        }
                        Ret::Swapped { swapped, found: Some(found) }
                    }
                    Op::Write { value, .. } => {
                        *cell = value.clone();
                        Ret::Done
                    }
                    other => unreachable!("{other} is not generated"),
                };
                if !rng.random_bool(load.crashed) {
                    *open = Some((op, Some(ret)));
                    continue;
                }
                let gone = std::mem::replace(process, processes);
                processes += 1;
                events.push(event(events.len(), time, gone, Kind::Info, op, None));
                continue;
            }
            Some((op, ret)) => (Kind::Ok, op, ret),
        };
        events.push(event(events.len(), time, *process, kind, op, ret));
    }
    History { header: Header::new("scale", seed, "", vec![]), events, cut: None }
}

/// An event of a client, without metadata.
pub(crate) fn event(index: usize, time: u64, process: u64, kind: Kind, op: Op, ret: Option<Ret>) -> Event {
    let meta = Meta::default();
    Event { index: index as u64, time, process: Process::Client(process), kind, op, ret, meta }
}

/// Lets a read in the last hundredth of the history, or one shortly before that, return an old value: that of the last read among the first half of the events.
pub(crate) fn make_stale(history: &mut History) {
    let read = |event: &Event| match (&event.op, &event.ret) {
        (Op::Read { .. }, Some(Ret::Value(value))) if *value != Value::Nil => Some(value.clone()),
        _ => None,
    };
    let events = &history.events;
    let found = |mut places: Box<dyn Iterator<Item = usize>>| {
        places.find_map(|at| read(&events.get(at)).map(|value| (at, value)))
    };
    let late = events.len() - events.len() / 100;
    let (_, old) = found(Box::new((0..events.len() / 2).rev())).expect("something was read");
    // Short ones have no read so late; then it is the last of all.
    let victim = found(Box::new(late..events.len())).or_else(|| found(Box::new((0..late).rev())));
    let (victim, _) = victim.expect("something was read");
    // Whole events take ten times the memory of those in a history: one after the other.
    let falsified = events.iter().enumerate().map(|(at, mut event)| {
        if at == victim {
            event.ret = Some(Ret::Value(old.clone()));
        }
        event
    });
    history.events = falsified.collect();
}

/// So many operations on one register that are all open at the same time, of five values; after them two reads that contradict each other.
#[allow(dead_code)]
pub(crate) fn all_at_once(operations: usize) -> History {
    let op = |process: usize| {
        let key = Value::Int(0);
        let value = Value::Int(process as i64 % 5);
        match process % 3 {
            0 => Op::Write { key, value },
            1 => Op::Read { key, mode: ReadMode::Default },
            _ => Op::Cas { key, expected: value, new: Value::Int((process as i64 + 1) % 5) },
        }
    };
    let ret = |process: usize| match process % 3 {
        0 => Ret::Done,
        1 => Ret::Value((process as i64 % 5).into()),
        _ => Ret::Swapped { swapped: process.is_multiple_of(2), found: None },
    };
    let calls = (0..operations).map(|process| (process, Kind::Invoke, None));
    let returns = (0..operations).map(|process| (process, Kind::Ok, Some(ret(process))));
    let mut events: Vec<Event> = calls
        .chain(returns)
        .enumerate()
        .map(|(at, (process, kind, ret))| event(at, at as u64, process as u64, kind, op(process), ret))
        .collect();
    for value in [1, 2] {
        for (kind, ret) in [(Kind::Invoke, None), (Kind::Ok, Some(Ret::Value(value.into())))] {
            let read = Op::Read { key: 0.into(), mode: ReadMode::Default };
            events.push(event(events.len(), events.len() as u64, operations as u64, kind, read, ret));
        }
    }
    History::new(Header::new("everything at once", 0, "", vec![]), events)
}
