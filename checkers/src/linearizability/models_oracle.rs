//! Every model against an object of its kind, and the engines against brute force, on many small histories.
//!
//! ```text
//! seed ──> an object is simulated by clients ──> valid, as it must be
//!             └─ some answers are falsified ──> frontier == depth-first == permutations
//! ```
//!
//! The objects are written without looking at the models. Deliberately small histories: all permutations are tried.

use std::collections::{BTreeSet, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::{
    calls::*,
    frontier::Sweep,
    judge::{calls_of, special, whole_for},
    outcome::*,
    record::{Records, is_judged},
    register::Answer,
    space::{Memo, Space},
    wgl::Wgl,
};
use crate::{
    Budget, Event, Header, History, Kind, Meta, Model, Mop, Op, Process, Ret, Value,
    model::{
        Counter, FifoQueue, MultiRegister, Mutex, Nondeterministic, OwnedMutex, Semaphore, Set, Stack,
        UnorderedQueue,
    },
};

/// What a client waits for, with the answer once it has taken effect.
type Open = Option<(Op, Option<Ret>)>;

/// The real thing.
enum Object {
    Counter(i64),
    /// Only added to and read.
    Growing(BTreeSet<i64>),
    Set(BTreeSet<i64>),
    /// Without reads of the whole.
    Elements(BTreeSet<i64>),
    Fifo(VecDeque<i64>),
    Bag(Vec<i64>),
    Stack(Vec<i64>),
    /// Holders, how many there may be, whether a holder may hold twice, and the last token.
    Lock(Vec<i64>, usize, bool, i64),
    Registers([i64; 2]),
}

fn list(values: impl IntoIterator<Item = i64>) -> Value {
    values.into_iter().map(Value::Int).collect()
}

impl Object {
    /// Asks something of it.
    fn ask(&self, rng: &mut ChaCha8Rng, client: i64, fresh: i64) -> Op {
        let key = Value::Nil;
        let small = Value::Int(rng.random_range(0..3));
        let owner = Value::Int(client);
        match (self, rng.random_range(0..4)) {
            (Object::Counter(_), 0 | 1) => Op::Add { key, value: small },
            (Object::Counter(_), _) | (Object::Set(_), 3) => Op::Read { key, mode: Default::default() },
            (Object::Growing(_), 0 | 1) => Op::Add { key, value: (fresh % 20).into() },
            (Object::Growing(_), _) => Op::Read { key, mode: Default::default() },
            (Object::Set(_) | Object::Elements(_), 0) => Op::Add { key, value: small },
            (Object::Set(_) | Object::Elements(_), 1) => Op::Remove { key, value: small },
            (Object::Set(_) | Object::Elements(_), _) => Op::Contains { key, value: small },
            // Sometimes an element goes in twice.
            (Object::Fifo(_) | Object::Bag(_), 0 | 1) => Op::Enqueue { key, value: (fresh % 20).into() },
            (Object::Fifo(_) | Object::Bag(_), 2) if rng.random_bool(0.1) => Op::Drain { key },
            (Object::Fifo(_) | Object::Bag(_), _) => Op::Dequeue { key },
            (Object::Stack(_), 0 | 1) => Op::Push { key, value: (fresh % 20).into() },
            (Object::Stack(_), _) => Op::Pop { key },
            (Object::Lock(holders, ..), _) if holders.contains(&client) && rng.random_bool(0.8) => {
                Op::Release { key, owner }
            }
            (Object::Lock(..), _) => Op::Acquire { key, owner },
            (Object::Registers(_), _) => {
                let mop = |rng: &mut ChaCha8Rng| {
                    let key = Value::Int(rng.random_range(0..2));
                    let value = Value::Int(rng.random_range(1..3));
                    if rng.random_bool(0.5) { Mop::Read { key } } else { Mop::Write { key, value } }
                };
                Op::Txn { mops: (0..rng.random_range(1..3)).map(|_| mop(rng)).collect() }
            }
        }
    }

    /// Does it; `None` if it will not.
    fn apply(&mut self, op: &Op, rng: &mut ChaCha8Rng) -> Option<Ret> {
        let int =
            |value: &Value| if let Value::Int(n) = value { *n } else { unreachable!("all are numbers") };
        let taken = |value: Option<i64>| Ret::Value(value.map_or(Value::Nil, Value::Int));
        Some(match (self, op) {
            (Object::Counter(n), Op::Add { value, .. }) => {
                *n += int(value);
                if rng.random_bool(0.5) { Ret::Value((*n).into()) } else { Ret::Done }
            }
            (Object::Counter(n), _) => Ret::Value((*n).into()),
            (Object::Set(set) | Object::Growing(set) | Object::Elements(set), Op::Add { value, .. }) => {
                set.insert(int(value));
                Ret::Done
            }
            (Object::Set(set) | Object::Elements(set), Op::Remove { value, .. }) => {
                set.remove(&int(value));
                Ret::Done
            }
            (Object::Set(set) | Object::Elements(set), Op::Contains { value, .. }) => {
                Ret::Value(set.contains(&int(value)).into())
            }
            (Object::Growing(set), _) if rng.random_bool(0.5) => Ret::Value(list(set.iter().copied())),
            (Object::Set(set) | Object::Growing(set), _) => Ret::Value(list(set.iter().rev().copied())),
            (Object::Fifo(queue), Op::Enqueue { value, .. }) => {
                queue.push_back(int(value));
                Ret::Done
            }
            (Object::Fifo(queue), Op::Drain { .. }) => Ret::Value(list(queue.drain(..))),
            (Object::Fifo(queue), _) => taken(queue.pop_front()),
            (Object::Bag(bag) | Object::Stack(bag), Op::Enqueue { value, .. } | Op::Push { value, .. }) => {
                bag.push(int(value));
                Ret::Done
            }
            (Object::Bag(bag), Op::Drain { .. }) => Ret::Value(list(bag.drain(..))),
            (Object::Bag(bag), _) if !bag.is_empty() => {
                let at = rng.random_range(0..bag.len());
                taken(Some(bag.swap_remove(at)))
            }
            (Object::Bag(_), _) => taken(None),
            (Object::Stack(stack), _) => taken(stack.pop()),
            (Object::Lock(holders, most, again, token), Op::Acquire { owner, .. }) => {
                let mine = *again && !holders.is_empty() && holders.contains(&int(owner));
                if !mine && holders.len() >= *most {
                    return None;
                }
                holders.push(int(owner));
                *token += 1;
                Ret::Value((*token).into())
            }
            (Object::Lock(holders, ..), Op::Release { owner, .. }) => {
                let at = holders.iter().position(|holder| *holder == int(owner))?;
                holders.remove(at);
                Ret::Done
            }
            (Object::Registers(cells), Op::Txn { mops }) => {
                let mut found = Vec::new();
                for mop in mops.iter() {
                    let cell = &mut cells[int(mop.key()) as usize];
                    match mop {
                        Mop::Write { value, .. } => *cell = int(value),
                        _ => found.push(Value::Int(*cell)),
                    }
                }
                Ret::Txn(found.into())
            }
            (_, op) => unreachable!("{op} is not asked"),
        })
    }
}

/// A history of the object, before and after some answers are changed.
fn histories(rng: &mut ChaCha8Rng, mut object: Object, most: usize) -> [History; 2] {
    let crashes = rng.random_range(0.0..0.4);
    let mut clients: Vec<(u64, Open)> = (0..rng.random_range(1..5)).map(|process| (process, None)).collect();
    let (mut processes, mut time, mut invoked) = (clients.len() as u64, 0, 0);
    let length = rng.random_range(1..=most) as i64;
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..150 {
        let at = rng.random_range(0..clients.len());
        let (process, open) = &mut clients[at];
        time += rng.random_range(0..4);
        let (kind, op, ret) = match open.take() {
            None if invoked == length => continue,
            None => {
                invoked += 1;
                let op = object.ask(rng, *process as i64, invoked);
                *open = Some((op.clone(), None));
                (Kind::Invoke, op, None)
            }
            Some((op, None)) if rng.random_bool(crashes) => {
                if rng.random_bool(0.5) {
                    object.apply(&op, rng);
                }
                let gone = std::mem::replace(process, processes);
                processes += 1;
                events.push(event(events.len(), time, gone, Kind::Info, op, None));
                continue;
            }
            Some((op, None)) => match object.apply(&op, rng) {
                Some(ret) => {
                    *open = Some((op, Some(ret)));
                    continue;
                }
                None => (Kind::Fail, op, None),
            },
            Some((op, ret)) => (Kind::Ok, op, ret),
        };
        events.push(event(events.len(), time, *process, kind, op, ret));
    }
    let truth = history(events.clone());
    for _ in 0..rng.random_range(0..3) {
        falsify(rng, &mut events);
    }
    [truth, history(events)]
}

fn history(events: Vec<Event>) -> History {
    History::new(Header::new("oracle", 0, "", vec![]), events)
}

fn event(index: usize, time: u64, process: u64, kind: Kind, op: Op, ret: Option<Ret>) -> Event {
    let meta = Meta::default();
    Event { index: index as u64, time, process: Process::Client(process), kind, op, ret, meta }
}

fn falsify(rng: &mut ChaCha8Rng, events: &mut [Event]) {
    let answers: Vec<usize> = (0..events.len()).filter(|i| events[*i].ret.is_some()).collect();
    if answers.is_empty() {
        return;
    }
    let small = rng.random_range(0..4);
    match &mut events[answers[rng.random_range(0..answers.len())]].ret {
        Some(Ret::Value(Value::List(values))) => {
            *values = values.iter().skip(1).cloned().chain([small.into()]).collect();
        }
        Some(Ret::Value(Value::Bool(there))) => *there = !*there,
        Some(Ret::Value(value)) => *value = if small == 3 { Value::Nil } else { small.into() },
        Some(Ret::Txn(found)) => *found = found.iter().map(|_| small.into()).collect(),
        _ => {}
    }
}

/// Tries every order of `calls`.
fn brute_force<M: Model>(model: &M, calls: &[Call<'_>]) -> bool {
    fn go<M: Model>(model: &M, calls: &[Call<'_>], used: u32, state: &M::State) -> bool {
        let unused = || (0..calls.len()).filter(|i| used >> i & 1 == 0);
        let deadline = unused().filter_map(|i| calls[i].returned).map(|(time, _)| time).min();
        let Some(deadline) = deadline else { return true };
        unused().filter(|i| calls[*i].called.0 <= deadline).any(|i| {
            let next = model.step(state, calls[i].op, calls[i].ret);
            next.is_some_and(|next| go(model, calls, used | 1 << i, &next))
        })
    }
    go(model, calls, 0, &model.init())
}

fn engines<M: Model>(model: &M, calls: &[Call<'_>]) -> [bool; 2] {
    let (laid, classes) = Calls::new(model, calls);
    let space = || Memo::new(model, &classes);
    let budget = Budget::unlimited();
    let linearizable = |outcome| match outcome {
        Outcome::Valid => true,
        Outcome::Invalid(_) => false,
        other => panic!("{other:?}"),
    };
    let mut frontier = Sweep::new(&laid, space().start()).expect("few are open at once");
    let purse = || Purse::new(u64::MAX, u64::MAX, &budget);
    [
        linearizable(frontier.run(&mut space(), &mut purse())),
        linearizable(Wgl::new(&laid, space().start()).run(&mut space(), &mut purse())),
    ]
}

/// How many histories were valid and invalid.
fn run<M: Model>(model: &M, object: impl Fn() -> Object, seeds: u64) -> (usize, usize) {
    let (mut valid, mut invalid) = (0, 0);
    for seed in 0..seeds {
        let all = histories(&mut ChaCha8Rng::seed_from_u64(seed), object(), 7);
        for (history, falsified) in all.iter().zip([false, true]) {
            let view = history.paired().expect("well-formed");
            let ids: Vec<u32> =
                (0..view.len()).filter(|id| is_judged(&view, *id)).map(|id| id as u32).collect();
            let judged = whole_for(model, &view, &ids);
            let calls = calls_of(&judged);
            let shapes: Vec<_> = calls.iter().map(|call| (call.op, call.ret)).collect();
            let model = model.fit(&shapes).expect("judgeable");
            let truth = brute_force(&model, &calls);
            let context = || {
                let drawn = crate::timeline::draw(&judged.iter().collect::<Vec<_>>(), &[]);
                format!("{} seed {seed}\n{drawn}", model.name())
            };
            assert_eq!(engines(&model, &calls), [truth; 2], "{}", context());
            assert!(truth || falsified, "the truth is no crime: {}", context());
            if truth {
                valid += 1;
            } else {
                invalid += 1;
            }
        }
    }
    (valid, invalid)
}

/// Of 100,000 none disagreed; so many are enough for every day.
const SEEDS: u64 = 10_000;

/// Specialists against the frontier, on histories of up to 12 operations: how many they found valid and invalid.
fn specialists<M: Model>(model: &M, object: impl Fn() -> Object) {
    let (mut valid, mut invalid, mut passed) = (0, 0, 0);
    for seed in 0..SEEDS {
        let all = histories(&mut ChaCha8Rng::seed_from_u64(seed), object(), 12);
        for history in &all {
            let view = history.paired().expect("well-formed");
            let ids: Vec<u32> =
                (0..view.len()).filter(|id| is_judged(&view, *id)).map(|id| id as u32).collect();
            let says = |ids: &[u32]| {
                let judged = whole_for(model, &view, ids);
                engines(model, &calls_of(&judged))[0]
            };
            let context = || {
                let judged = whole_for(model, &view, &ids);
                let drawn = crate::timeline::draw(&judged.iter().collect::<Vec<_>>(), &[]);
                format!("{} seed {seed}\n{drawn}", model.name())
            };
            let copied = Records::copy(&view, &ids);
            let answer = special(model, &Records::of(&view, &copied), &Budget::unlimited());
            match &answer {
                Answer::NotForMe => passed += 1,
                Answer::Unknown(_) | Answer::Huge(..) => panic!("{answer:?}"),
                Answer::Valid(_) => {
                    assert!(says(&ids), "not linearizable: {}", context());
                    valid += 1;
                }
                Answer::Invalid(evidence) => {
                    assert!(!says(&ids), "linearizable: {}", context());
                    assert!(!says(evidence), "{evidence:?} is no evidence: {}", context());
                    invalid += 1;
                }
            }
        }
    }
    let name = model.name();
    assert!(
        valid > SEEDS / 2 && invalid > SEEDS / 12,
        "{name}: {valid} valid, {invalid} invalid, {passed} passed on"
    );
}

#[test]
fn specialists_agree_with_the_frontier() {
    specialists(&FifoQueue::default(), || Object::Fifo(VecDeque::new()));
    specialists(&Nondeterministic(UnorderedQueue::default()), || Object::Bag(Vec::new()));
    specialists(&Stack::default(), || Object::Stack(Vec::new()));
    specialists(&Set::default(), || Object::Growing(BTreeSet::new()));
    specialists(&Set::default(), || Object::Elements(BTreeSet::new()));
}

/// A model as stateright wants it.
#[derive(Clone)]
struct ByStateright<M: Model>(M, M::State);

impl<M: Model> SequentialSpec for ByStateright<M> {
    type Op = Op;
    type Ret = Ret;

    /// Of unknown outcome: whatever it answers, nobody hears it.
    fn invoke(&mut self, op: &Op) -> Ret {
        if let Some(next) = self.0.step(&self.1, op, None) {
            self.1 = next;
        }
        Ret::Done
    }

    fn is_valid_step(&mut self, op: &Op, ret: &Ret) -> bool {
        self.0.step(&self.1, op, Some(ret)).map(|next| self.1 = next).is_some()
    }
}

/// stateright's verdict. Each call is a thread of its own, so that calls of one process may touch.
fn stateright<M: Model>(model: &M, calls: &[Call<'_>]) -> bool {
    let mut events: Vec<_> = Vec::new();
    for (i, call) in calls.iter().enumerate() {
        events.push((call.called.0, false, call.called.1, i));
        events.extend(call.returned.map(|(time, index)| (time, true, index, i)));
    }
    events.sort_unstable();
    let mut tester = LinearizabilityTester::new(ByStateright(model.clone(), model.init()));
    for (_, returns, _, i) in events {
        match (returns, calls[i].ret) {
            (true, Some(ret)) => tester.on_return(i, ret.clone()).map(drop),
            _ => tester.on_invoke(i, calls[i].op.clone()).map(drop),
        }
        .expect("calls begin before they end");
    }
    tester.is_consistent()
}

/// On histories of up to 16 operations; gives how many were valid, invalid, and decided by a specialist.
fn three_ways<M: Model>(model: &M, object: impl Fn() -> Object, seeds: u64) -> [usize; 3] {
    let mut counts = [0; 3];
    for seed in 0..seeds {
        for history in &histories(&mut ChaCha8Rng::seed_from_u64(seed), object(), 16) {
            let view = history.paired().expect("well-formed");
            let ids: Vec<u32> =
                (0..view.len()).filter(|id| is_judged(&view, *id)).map(|id| id as u32).collect();
            let judged = whole_for(model, &view, &ids);
            let calls = calls_of(&judged);
            // It has no memo: many open calls at once take it minutes.
            if calls.iter().filter(|call| call.returned.is_none()).count() > 2 {
                continue;
            }
            let truth = stateright(model, &calls);
            let context = || {
                let drawn = crate::timeline::draw(&judged.iter().collect::<Vec<_>>(), &[]);
                format!("{} seed {seed}\n{drawn}", model.name())
            };
            assert_eq!(engines(model, &calls), [truth; 2], "{}", context());
            let copied = Records::copy(&view, &ids);
            match special(model, &Records::of(&view, &copied), &Budget::unlimited()) {
                Answer::Valid(_) => assert!(truth, "{}", context()),
                Answer::Invalid(_) => assert!(!truth, "{}", context()),
                _ => continue,
            }
            counts[usize::from(!truth)] += 1;
            counts[2] += 1;
        }
    }
    counts
}

#[test]
fn engines_and_specialists_agree_with_stateright() {
    let all = [
        three_ways(&FifoQueue::default(), || Object::Fifo(VecDeque::new()), 300),
        three_ways(&Nondeterministic(UnorderedQueue::default()), || Object::Bag(Vec::new()), 300),
        three_ways(&Stack::default(), || Object::Stack(Vec::new()), 300),
        three_ways(&Set::default(), || Object::Growing(BTreeSet::new()), 300),
        three_ways(&Set::default(), || Object::Elements(BTreeSet::new()), 300),
    ];
    for [valid, invalid, special] in all {
        assert!(valid > 100 && invalid > 20 && special > 100, "{all:?}");
    }
}

fn both_kinds<M: Model>(model: &M, object: impl Fn() -> Object) {
    let (valid, invalid) = run(model, object, 4000);
    assert!(invalid > 100, "{}: {valid} valid, {invalid} invalid: there must be both kinds", model.name());
}

#[test]
fn numbers_and_registers() {
    both_kinds(&Counter::default(), || Object::Counter(0));
    both_kinds(&MultiRegister { initial: 0.into() }, || Object::Registers([0; 2]));
}

#[test]
fn collections() {
    both_kinds(&Set::default(), || Object::Set(BTreeSet::new()));
    both_kinds(&FifoQueue::default(), || Object::Fifo(VecDeque::new()));
    both_kinds(&Stack::default(), || Object::Stack(Vec::new()));
    both_kinds(&Nondeterministic(UnorderedQueue::default()), || Object::Bag(Vec::new()));
}

#[test]
fn locks() {
    let lock = |most, again| move || Object::Lock(Vec::new(), most, again, 0);
    both_kinds(&OwnedMutex::fenced(), lock(1, false));
    // Their answers say nothing that could be false.
    for (valid, _) in [
        run(&Mutex::default(), lock(1, false), 2000),
        run(&OwnedMutex::plain(), lock(1, false), 2000),
        run(&OwnedMutex::reentrant(), lock(1, true), 2000),
        run(&Semaphore { permits: 2 }, lock(2, false), 2000),
    ] {
        assert_eq!(valid, 4000);
    }
    // A lock that lets two in is none: the truth about it is the crime.
    let caught = |history: &History| {
        let view = history.paired().expect("well-formed");
        let ids: Vec<u32> = (0..view.len()).filter(|id| is_judged(&view, *id)).map(|id| id as u32).collect();
        let judged = whole_for(&Mutex::default(), &view, &ids);
        let calls = calls_of(&judged);
        let truth = brute_force(&Mutex::default(), &calls);
        assert_eq!(engines(&Mutex::default(), &calls), [truth; 2]);
        !truth
    };
    let seeds = (0..2000).map(|seed| histories(&mut ChaCha8Rng::seed_from_u64(seed), lock(2, false)(), 7));
    let invalid = seeds.filter(|[history, _]| caught(history)).count();
    assert!(invalid > 100, "{invalid}");
}
