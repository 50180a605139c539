//! The engines against each other, against brute force, and against stateright's tester, on many small histories.
//!
//! ```text
//! seed ──> a register is simulated, answers are recorded, some are falsified ──> frontier == wgl == permutations
//!                                                                                        == stateright
//! ```
//!
//! About half of the histories are invalid; crashed operations, ties in time, failed compare-and-sets with and without what
//! they found, deletes and appends are all in. What a verdict says besides, the shortest prefix and the minimal part, is
//! checked by brute force too. Deliberately without our models on the other side: the brute force has its own.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::{
    calls::*,
    flat::Flat,
    frontier::*,
    judge::{calls_of, whole},
    outcome::*,
    record::{Records, is_judged},
    shrink,
    space::*,
    wgl::*,
};
use crate::{
    Budget, Checker, Event, Header, History, Kind, Meta, ModelName, Op, Operation, Process, Ret, Validity,
    Value, linearizable,
    model::{Kv, Model, RegisterLike},
};

/// A second opinion on what operations mean, written without looking at the models.
#[derive(Clone, Debug, PartialEq)]
struct Cell(Value);

impl Cell {
    /// Takes effect, and tells everything there is to tell.
    fn apply(&mut self, op: &Op) -> Ret {
        let before = self.0.clone();
        match op {
            Op::Read { .. } => return Ret::Value(before),
            Op::Write { value, .. } => self.0 = value.clone(),
            Op::Delete { .. } => {
                self.0 = Value::Nil;
                return Ret::Value(Value::Bool(before != Value::Nil));
            }
            Op::Append { value: Value::Text(tail), .. } => {
                let head = match &before {
                    Value::Text(head) => head.to_string(),
                    _ => String::new(),
                };
                self.0 = Value::from(head + tail);
            }
            Op::Cas { expected, new, .. } => {
                let swapped = before == *expected;
                if swapped {
                    self.0 = new.clone();
                }
                return Ret::Swapped { swapped, found: Some(before) };
            }
            other => panic!("{other} is not generated"),
        }
        Ret::Done
    }

    /// Whether an answer that may keep something to itself agrees with one that tells all.
    fn agrees(told: &Ret, all: &Ret) -> bool {
        match (told, all) {
            (Ret::Done, _) => true,
            (Ret::Swapped { swapped, found: None }, Ret::Swapped { swapped: truth, .. }) => swapped == truth,
            (told, all) => told == all,
        }
    }
}

impl SequentialSpec for Cell {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        self.apply(op)
    }

    fn is_valid_step(&mut self, op: &Op, told: &Ret) -> bool {
        Cell::agrees(told, &self.apply(op))
    }
}

/// Tries every order of `calls`.
fn brute_force(calls: &[Call<'_>]) -> bool {
    fn go(calls: &[Call<'_>], used: u32, cell: &Cell) -> bool {
        let unused = || (0..calls.len()).filter(|i| used >> i & 1 == 0);
        let deadline = unused().filter_map(|i| calls[i].returned).map(|(time, _)| time).min();
        let Some(deadline) = deadline else { return true };
        unused().any(|i| {
            let mut next = cell.clone();
            calls[i].called.0 <= deadline
                && match calls[i].ret {
                    Some(ret) => next.is_valid_step(calls[i].op, ret),
                    None => {
                        next.apply(calls[i].op);
                        true
                    }
                }
                && go(calls, used | 1 << i, &next)
        })
    }
    go(calls, 0, &Cell(Value::Nil))
}

/// stateright's verdict. Each call is a thread of its own, so that calls of one process may touch.
fn stateright(calls: &[Call<'_>]) -> bool {
    let mut events: Vec<_> = Vec::new();
    for (i, call) in calls.iter().enumerate() {
        events.push((call.called.0, false, call.called.1, i));
        events.extend(call.returned.map(|(time, index)| (time, true, index, i)));
    }
    events.sort_unstable();
    let mut tester = LinearizabilityTester::new(Cell(Value::Nil));
    for (_, returns, _, i) in events {
        match (returns, calls[i].ret) {
            (true, Some(ret)) => tester.on_return(i, ret.clone()).map(drop),
            _ => tester.on_invoke(i, calls[i].op.clone()).map(drop),
        }
        .expect("calls begin before they end");
    }
    tester.is_consistent()
}

/// One client of the simulation.
struct Client {
    process: u64,
    open: Option<(Op, Option<Ret>)>,
}

/// A history of a correct cell, and often some falsehoods.
fn history(rng: &mut ChaCha8Rng) -> History {
    let text = rng.random_bool(0.3);
    let domain = rng.random_range(1..5i64);
    let value = |rng: &mut ChaCha8Rng| {
        let number = rng.random_range(0..domain);
        if text { Value::from(["a", "b", "ab", "ba"][number as usize]) } else { Value::Int(number) }
    };
    let crashes = rng.random_range(0.0..0.6);
    // Ties in time are frequent, or rare.
    let pace = rng.random_range(2..10u64);
    let mut clients: Vec<Client> =
        (0..rng.random_range(1..5)).map(|process| Client { process, open: None }).collect();
    let mut processes = clients.len() as u64;
    let (mut cell, mut time, mut invoked) = (Cell(Value::Nil), 0, 0);
    let length = rng.random_range(1..9);
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..200 {
        let at = rng.random_range(0..clients.len());
        let client = &mut clients[at];
        time += rng.random_range(0..pace);
        let (kind, op, ret) = match client.open.take() {
            None if invoked == length => continue,
            None => {
                let key = Value::Nil;
                let op = match rng.random_range(0..100) {
                    0..40 => Op::Read { key, mode: Default::default() },
                    40..65 => Op::Write { key, value: value(rng) },
                    65..75 if text => Op::Append { key, value: value(rng) },
                    75..80 => Op::Delete { key },
                    _ => {
                        let expected = if rng.random_bool(0.2) { Value::Nil } else { value(rng) };
                        Op::Cas { key, expected, new: value(rng) }
                    }
                };
                invoked += 1;
                client.open = Some((op.clone(), None));
                (Kind::Invoke, op, None)
            }
            Some((op, None)) if rng.random_bool(0.7) => {
                let mut ret = cell.apply(&op);
                match &mut ret {
                    Ret::Swapped { found, .. } if rng.random_bool(0.4) => *found = None,
                    Ret::Value(Value::Bool(_)) if rng.random_bool(0.5) => ret = Ret::Done,
                    _ => {}
                }
                client.open = Some((op, Some(ret)));
                continue;
            }
            Some((op, ret)) if rng.random_bool(crashes) || ret.is_none() => {
                let kind = if ret.is_none() && rng.random_bool(0.5) { Kind::Fail } else { Kind::Info };
                if kind == Kind::Info {
                    // The process is gone, but its request may still arrive.
                    let late = ret.is_none() && rng.random_bool(0.5);
                    if late {
                        cell.apply(&op);
                    }
                    let process = client.process;
                    client.process = processes;
                    processes += 1;
                    events.push(event(events.len(), time, process, kind, op, None));
                    continue;
                }
                (kind, op, None)
            }
            Some((op, ret)) => (Kind::Ok, op, ret),
        };
        events.push(event(events.len(), time, client.process, kind, op, ret));
    }
    for _ in 0..rng.random_range(0..4) {
        falsify(rng, &mut events, value);
    }
    History::new(Header::new("oracle", 0, "", vec![]), events)
}

fn event(index: usize, time: u64, process: u64, kind: Kind, op: Op, ret: Option<Ret>) -> Event {
    let meta = Meta::default();
    Event { index: index as u64, time, process: Process::Client(process), kind, op, ret, meta }
}

/// Changes one answer, if there is one that can be changed.
fn falsify(rng: &mut ChaCha8Rng, events: &mut [Event], value: impl Fn(&mut ChaCha8Rng) -> Value) {
    let answers: Vec<usize> = (0..events.len()).filter(|i| events[*i].ret.is_some()).collect();
    if answers.is_empty() {
        return;
    }
    match &mut events[answers[rng.random_range(0..answers.len())]].ret {
        Some(Ret::Value(Value::Bool(existed))) => *existed = !*existed,
        Some(Ret::Value(read)) => *read = value(rng),
        Some(Ret::Swapped { swapped, found }) => match found {
            Some(found) if rng.random_bool(0.5) => *found = value(rng),
            _ => *swapped = !*swapped,
        },
        _ => {}
    }
}

enum Engine {
    Frontier,
    Wgl,
}

/// The verdict of one engine: `None` if linearizable, else the guilty operation and the states that were possible.
fn verdict<S: Space>(
    engine: Engine,
    laid: &Calls,
    mut space: S,
    id_of: impl Fn(usize) -> usize,
    slice: u64,
) -> Option<(usize, Vec<String>)> {
    let budget = Budget::unlimited();
    let mut frontier = Sweep::new(laid, space.start()).expect("few are open at once");
    let mut wgl = Wgl::new(laid, space.start());
    for round in 0.. {
        // Small purses, so that pausing is tested along the way.
        let mut purse = Purse::new(slice << round, u64::MAX, &budget);
        let outcome = match engine {
            Engine::Frontier => frontier.run(&mut space, &mut purse),
            Engine::Wgl => wgl.run(&mut space, &mut purse),
        };
        match outcome {
            Outcome::Valid => return None,
            Outcome::Invalid(failure) => {
                let (Step::Return(call) | Step::Invoke(call)) = laid.steps[failure.at];
                let mut states: Vec<String> =
                    failure.configs.iter().map(|config| space.tell(config.state).1.to_string()).collect();
                states.sort();
                if failure.more {
                    // Each engine kept the ones that it came by first.
                    states.clear();
                }
                return Some((id_of(laid.infos[call as usize].source as usize), states));
            }
            Outcome::Paused => {}
            Outcome::GaveUp(why) => panic!("{why:?} without a bound"),
        }
    }
    unreachable!()
}

/// What a verdict of guilt claims besides.
fn check_evidence(model: &Kv, calls: &[Call<'_>], guilty: usize, context: &str) {
    let prefix = shrink::prefix(model, calls, guilty);
    assert!(!brute_force(&prefix), "the prefix is not linearizable\n{context}");
    let mut before = prefix.clone();
    for call in before.iter_mut().filter(|call| call.id == guilty) {
        call.returned = None;
    }
    assert!(brute_force(&before), "without its last return the prefix is linearizable\n{context}");
    let (minimal, _) = shrink::shrink(model, prefix, guilty, &Budget::unlimited());
    assert!(!brute_force(&minimal), "the minimal part is not linearizable\n{context}");
    assert!(minimal.iter().any(|call| call.id == guilty), "the guilty operation is in it\n{context}");
    let readers = minimal.iter().filter(|call| matches!(call.op, Op::Read { .. }) && call.id != guilty);
    for reader in readers {
        let rest: Vec<_> = minimal.iter().filter(|call| call.id != reader.id).copied().collect();
        assert!(brute_force(&rest), "no read could be left out of the minimal part\n{context}");
    }
}

fn run(seeds: std::ops::Range<u64>) -> (usize, usize) {
    let checker = linearizable(ModelName::Kv);
    let (mut valid, mut invalid, mut as_numbers) = (0, 0, 0);
    for seed in seeds {
        let history = history(&mut ChaCha8Rng::seed_from_u64(seed));
        let view = history.paired().expect("well-formed");
        let ids: Vec<u32> = (0..view.len()).filter(|id| is_judged(&view, *id)).map(|id| id as u32).collect();
        let operations: Vec<Operation> = view.iter().collect();
        let judged = whole(&view, &ids);
        let calls = calls_of(&judged);
        let shapes: Vec<_> = calls.iter().map(|call| (call.op, call.ret)).collect();
        let model = Kv::default().fit(&shapes).expect("judgeable");
        let context = format!("seed {seed}\n{}", picture(&operations));

        let truth = brute_force(&calls);
        let slice = 1 + seed % 50;
        let (laid, classes) = Calls::new(&model, &calls);
        let by =
            |engine| verdict(engine, &laid, Memo::new(&model, &classes), |source| calls[source].id, slice);
        let frontier = by(Engine::Frontier);
        let wgl = by(Engine::Wgl);
        assert_eq!(frontier.is_none(), truth, "frontier against brute force\n{context}");
        assert_eq!(wgl, frontier, "depth-first against frontier\n{context}");
        let copied = Records::copy(&view, &ids);
        let like = RegisterLike { initial: &Value::Nil, cas: true };
        if let Some(flat) = Flat::new(&like, &Records::of(&view, &copied)) {
            as_numbers += 1;
            for engine in [Engine::Frontier, Engine::Wgl] {
                let found = verdict(engine, &flat.calls, flat.space(), |at| flat.ids[at] as usize, slice);
                assert_eq!(found, frontier, "as numbers against as values\n{context}");
            }
        }
        if calls.len() <= 6 {
            assert_eq!(stateright(&calls), truth, "stateright against brute force\n{context}");
        }
        if let Some((guilty, _)) = frontier {
            check_evidence(&model, &calls, guilty, &context);
            invalid += 1;
        } else {
            valid += 1;
        }
        if seed % 8 == 0 && !ids.is_empty() {
            let answered = calls.iter().any(|call| call.returned.is_some());
            let expected = match truth {
                true if answered => Validity::Valid,
                // What was not answered need not have happened: nothing was tested.
                true => Validity::Unknown,
                false => Validity::Invalid,
            };
            assert_eq!(checker.check(&history, &Budget::unlimited()).validity, expected, "{context}");
        }
    }
    assert!(as_numbers > valid / 8, "{as_numbers} histories of registers");
    (valid, invalid)
}

fn picture(operations: &[Operation]) -> String {
    crate::timeline::draw(&operations.iter().collect::<Vec<_>>(), &[])
}

#[test]
fn engines_agree_with_brute_force_and_stateright() {
    let (valid, invalid) = run(0..100_000);
    assert!(
        valid > 20_000 && invalid > 20_000,
        "{valid} valid, {invalid} invalid: the histories must be of both kinds"
    );
}
