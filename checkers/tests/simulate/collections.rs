//! Histories of a simulated queue, stack or set, correct, or with one late answer falsified: for tests and benchmarks.
//!
//! ```text
//! clients ──> a collection that is simulated ──> every element goes in once; whoever finds nothing is told nil
//! ```

use std::collections::{BTreeSet, VecDeque};

use checkers::{Event, Events, Header, History, Kind, Op, ReadMode, Ret, Value};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::event;

/// What to simulate.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Collection {
    Fifo,
    Bag,
    Stack,
    /// A set of which single elements are added, removed and asked for.
    Elements,
    /// A set that only grows and is now and then read as a whole.
    Growing,
}

struct Object {
    kind: Collection,
    queue: VecDeque<i64>,
    set: BTreeSet<i64>,
    fresh: i64,
}

impl Object {
    fn ask(&mut self, rng: &mut ChaCha8Rng) -> Op {
        let key = Value::Nil;
        let mut fresh = || {
            self.fresh += 1;
            Value::Int(self.fresh)
        };
        match (self.kind, rng.random_range(0..4)) {
            (Collection::Fifo | Collection::Bag, 0 | 1) => Op::Enqueue { key, value: fresh() },
            (Collection::Fifo | Collection::Bag, _) => Op::Dequeue { key },
            (Collection::Stack, 0 | 1) => Op::Push { key, value: fresh() },
            (Collection::Stack, _) => Op::Pop { key },
            (Collection::Elements, 0 | 1) => Op::Add { key, value: fresh() },
            (Collection::Elements, which) => {
                let value = Value::Int(rng.random_range((self.fresh - 200).max(1)..=self.fresh.max(1)));
                if which == 2 { Op::Remove { key, value } } else { Op::Contains { key, value } }
            }
            // Few reads: each is as long as the set.
            (Collection::Growing, _) if rng.random_bool(0.00002) => Op::Read { key, mode: ReadMode::Default },
            (Collection::Growing, _) => Op::Add { key, value: fresh() },
        }
    }

    fn apply(&mut self, op: &Op, rng: &mut ChaCha8Rng) -> Ret {
        let int =
            |value: &Value| if let Value::Int(n) = value { *n } else { unreachable!("all are numbers") };
        let taken = |value: Option<i64>| Ret::Value(value.map_or(Value::Nil, Value::Int));
        match op {
            Op::Enqueue { value, .. } | Op::Push { value, .. } => {
                self.queue.push_back(int(value));
                Ret::Done
            }
            Op::Dequeue { .. } if self.kind == Collection::Bag && !self.queue.is_empty() => {
                let at = rng.random_range(0..self.queue.len());
                taken(self.queue.swap_remove_back(at))
            }
            Op::Dequeue { .. } => taken(self.queue.pop_front()),
            Op::Pop { .. } => taken(self.queue.pop_back()),
            Op::Add { value, .. } => {
                self.set.insert(int(value));
                Ret::Done
            }
            Op::Remove { value, .. } => {
                self.set.remove(&int(value));
                Ret::Done
            }
            Op::Contains { value, .. } => Ret::Value(self.set.contains(&int(value)).into()),
            Op::Read { .. } => Ret::Value(self.set.iter().copied().map(Value::Int).collect()),
            other => unreachable!("{other} is not generated"),
        }
    }
}

/// A correct history of clients that are always busy.
pub(crate) fn collection(kind: Collection, operations: usize, clients: u64, seed: u64) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut object = Object { kind, queue: VecDeque::new(), set: BTreeSet::new(), fresh: 0 };
    let mut open: Vec<Option<(Op, Option<Ret>)>> = vec![None; clients as usize];
    let (mut time, mut invoked) = (0, 0);
    let mut events = Events::default();
    while invoked < operations || open.iter().any(Option::is_some) {
        let client = rng.random_range(0..open.len());
        time += rng.random_range(1..1000);
        let (kind, op, ret) = match open[client].take() {
            None if invoked == operations => continue,
            None => {
                invoked += 1;
                let op = object.ask(&mut rng);
                open[client] = Some((op.clone(), None));
                (Kind::Invoke, op, None)
            }
            Some((op, None)) => {
                let ret = object.apply(&op, &mut rng);
                open[client] = Some((op, Some(ret)));
                continue;
            }
            Some((op, ret)) => (Kind::Ok, op, ret),
        };
        events.push(event(events.len(), time, client as u64, kind, op, ret));
    }
    History { header: Header::new("scale", seed, "", vec![]), events, cut: None }
}

/// Falsifies an answer in the last hundredth: two answers that are far apart are exchanged, an element that is long gone or there is
/// said not to be, or a read misses an element that was added long ago.
pub(crate) fn falsify(kind: Collection, history: &mut History) {
    let told = |event: &Event| match &event.ret {
        Some(Ret::Value(value)) if *value != Value::Nil => Some(value.clone()),
        _ => None,
    };
    let events = &history.events;
    let found = |mut places: Box<dyn Iterator<Item = usize>>| {
        places.find_map(|at| told(&events.get(at)).map(|value| (at, value))).expect("something was seen")
    };
    let late = events.len() - events.len() / 100;
    let (victim, seen) = found(Box::new(late..events.len()));
    let mut answers = vec![(
        victim,
        match kind {
            Collection::Elements => Value::Bool(seen != true.into()),
            Collection::Growing => match &seen {
                Value::List(values) => values[1..].iter().cloned().collect(),
                other => unreachable!("{other} is no list"),
            },
            Collection::Bag => found(Box::new((0..late / 2).rev())).1,
            Collection::Fifo | Collection::Stack => Value::Nil,
        },
    )];
    if matches!(kind, Collection::Fifo | Collection::Stack) {
        let (far, other) = found(Box::new(victim + events.len() / 200..events.len()));
        answers = vec![(victim, other), (far, seen)];
    }
    let falsified = events.iter().enumerate().map(|(at, mut event)| {
        if let Some((_, answer)) = answers.iter().find(|(place, _)| *place == at) {
            event.ret = Some(Ret::Value(answer.clone()));
        }
        event
    });
    history.events = falsified.collect();
}
