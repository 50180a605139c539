//! The orders of [`orders`](super::orders) against every order there is, on small histories.
//!
//! ```text
//! seed ──> up to seven calls, true and false answers ──> orders() == all permutations that work and cannot go on
//! ```
//!
//! Deliberately with calls made by hand instead of histories: touching intervals and unknown outcomes are frequent, and so are
//! histories that have orders of every length.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    calls::Call,
    orders::{Block, MAX_CALLS, Order, Orders, most_orders, orders},
};
use crate::{
    Op, Ret, Value,
    model::{CasRegister, FifoQueue, Model},
};

/// An operation, its answer, its call and its return.
type Made = (Op, Option<Ret>, u64, Option<u64>);

fn calls(made: &[Made]) -> Vec<Call<'_>> {
    let place = |id: usize| id as u64;
    made.iter()
        .enumerate()
        .map(|(id, (op, ret, call, returned))| Call {
            id,
            op,
            ret: ret.as_ref(),
            called: (*call, place(id)),
            returned: returned.map(|time| (time, place(made.len() + id))),
        })
        .collect()
}

fn register(rng: &mut ChaCha8Rng) -> (Op, Ret) {
    let value = |rng: &mut ChaCha8Rng| Value::Int(rng.random_range(0..3));
    let key = Value::Nil;
    match rng.random_range(0..4) {
        0 => (Op::Read { key, mode: Default::default() }, Ret::Value(value(rng))),
        1 => (
            Op::Cas { key, expected: value(rng), new: value(rng) },
            Ret::Swapped { swapped: rng.random(), found: rng.random::<bool>().then(|| value(rng)) },
        ),
        _ => (Op::Write { key, value: value(rng) }, Ret::Done),
    }
}

fn queue(rng: &mut ChaCha8Rng) -> (Op, Ret) {
    let value = Value::Int(rng.random_range(0..3));
    let key = Value::Nil;
    if rng.random() {
        (Op::Enqueue { key, value }, Ret::Done)
    } else {
        (Op::Dequeue { key }, Ret::Value(value))
    }
}

fn make(rng: &mut ChaCha8Rng, most: usize, operation: fn(&mut ChaCha8Rng) -> (Op, Ret)) -> Vec<Made> {
    let span = rng.random_range(2..14u64);
    (0..rng.random_range(1..=most))
        .map(|_| {
            let (op, ret) = operation(rng);
            let call = rng.random_range(0..span);
            let returned = rng.random_bool(0.85).then(|| call + rng.random_range(0..6));
            // What returns after the end has an answer all the same.
            let ret = (returned.is_some() || rng.random()).then_some(ret);
            (op, ret, call, returned)
        })
        .collect()
}

/// Whether `call` may be next after `path`, by the definition of real time: nothing that is left had returned before.
fn in_time(calls: &[Call<'_>], path: &[usize], call: usize) -> bool {
    let left = (0..calls.len()).filter(|other| *other != call && !path.contains(other));
    let mut returned = left.filter_map(|other| calls[other].returned);
    returned.all(|(time, _)| time >= calls[call].called.0)
}

/// Every maximal order, as places in `calls`.
fn brute_force<M: Model>(model: &M, calls: &[Call<'_>]) -> Vec<Vec<usize>> {
    fn go<M: Model>(
        model: &M,
        calls: &[Call<'_>],
        path: &mut Vec<usize>,
        state: &M::State,
        all: &mut Vec<Vec<usize>>,
    ) {
        let mut last = true;
        for call in 0..calls.len() {
            if path.contains(&call) || !in_time(calls, path, call) {
                continue;
            }
            if let Some(next) = model.step(state, calls[call].op, calls[call].ret) {
                last = false;
                path.push(call);
                go(model, calls, path, &next, all);
                path.pop();
            }
        }
        if last {
            all.push(path.clone());
        }
    }
    let mut all = Vec::new();
    go(model, calls, &mut Vec::new(), &model.init(), &mut all);
    all
}

/// That an order is one, that it cannot go on, and that what it says of the rest is so.
fn check_order<M: Model>(model: &M, found: &Orders<'_, M::State>, order: &Order) {
    let calls = &found.calls;
    let mut state = model.init();
    assert_eq!(order.states.len(), order.calls.len() + 1);
    assert!(found.states[order.states[0]] == state);
    for (i, &call) in order.calls.iter().enumerate() {
        assert!(in_time(calls, &order.calls[..i], call), "out of time: {order:?}");
        state = model.step(&state, calls[call].op, calls[call].ret).expect("possible");
        assert!(found.states[order.states[i + 1]] == state, "another state: {order:?}");
    }
    let mut all: Vec<usize> = order.calls.iter().copied().chain(order.stuck.iter().map(|s| s.0)).collect();
    all.sort_unstable();
    assert_eq!(all, (0..calls.len()).collect::<Vec<_>>(), "each is placed or stuck");
    for &(call, block) in &order.stuck {
        match block {
            Block::After(first) => {
                assert!(order.stuck.iter().any(|stuck| stuck.0 == first), "it is left too");
                assert!(calls[first].returned.expect("it did").0 < calls[call].called.0);
            }
            Block::State => {
                assert!(in_time(calls, &order.calls, call));
                assert!(model.step(&state, calls[call].op, calls[call].ret).is_none(), "{order:?}");
            }
        }
    }
}

fn weight(calls: &[Call<'_>], order: &[usize]) -> (usize, usize) {
    (order.iter().filter(|call| calls[**call].returned.is_some()).count(), order.len())
}

fn check<M: Model>(model: &M, made: &[Made]) -> usize {
    let calls = calls(made);
    let found = orders(model, &calls).expect("few");
    let mut all = brute_force(model, &found.calls);
    assert!(!found.cut);
    assert_eq!(found.count, all.len() as u64, "{made:?}");
    found.kept.iter().for_each(|order| check_order(model, &found, order));
    let weights: Vec<_> = found.kept.iter().map(|order| weight(&found.calls, &order.calls)).collect();
    assert!(weights.is_sorted_by(|a, b| a >= b), "the longest come first");
    let mut kept: Vec<Vec<usize>> = found.kept.iter().map(|order| order.calls.clone()).collect();
    kept.sort_unstable();
    all.sort_unstable();
    if all.len() <= most_orders(found.calls.len()) {
        assert_eq!(kept, all, "{made:?}");
    } else {
        assert_eq!(kept.len(), most_orders(found.calls.len()));
        assert!(kept.windows(2).all(|pair| pair[0] != pair[1]), "none twice");
        assert!(kept.iter().all(|order| all.binary_search(order).is_ok()));
    }
    for call in 0..found.calls.len() {
        let with = |orders: &[Vec<usize>]| {
            let with = orders.iter().filter(|order| order.contains(&call));
            with.map(|order| weight(&found.calls, order)).max()
        };
        assert_eq!(with(&kept), with(&all), "the longest with {call} in {made:?}");
    }
    all.len()
}

#[test]
fn orders_agree_with_brute_force() {
    let (mut many, mut several, mut one) = (0, 0, 0);
    for seed in 0..6_000 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = if seed % 2 == 0 {
            check(&CasRegister { initial: Value::Int(0) }, &make(&mut rng, 7, register))
        } else {
            check(&FifoQueue::default(), &make(&mut rng, 7, queue))
        };
        match count {
            1 => one += 1,
            n if n <= most_orders(7) => several += 1,
            _ => many += 1,
        }
    }
    assert!(one > 500 && several > 2_000 && many > 200, "{one} {several} {many}: of all kinds");
}

#[test]
fn what_is_too_much_is_bounded_and_says_so() {
    let write =
        |value: i64| (Op::Write { key: Value::Nil, value: value.into() }, Some(Ret::Done), 0, Some(9));
    let read =
        (Op::Read { key: Value::Nil, mode: Default::default() }, Some(Ret::Value((-1).into())), 10, Some(11));
    let mut made: Vec<Made> = (0..MAX_CALLS as i64 - 1).map(write).collect();
    made.push(read);
    let found = orders(&CasRegister::default(), &calls(&made)).expect("as many as it takes");
    assert!(found.cut && found.kept.len() == most_orders(found.calls.len()));
    found.kept.iter().for_each(|order| check_order(&CasRegister::default(), &found, order));
    assert_eq!(found.kept[0].calls.len(), MAX_CALLS - 1, "every write is in the longest");
    made.push(write(-2));
    assert!(orders(&CasRegister::default(), &calls(&made)).is_none());

    // States of megabytes.
    let large = FifoQueue { initial: (0..200_000).map(Value::Int).collect() };
    let made: Vec<Made> = (0..20)
        .map(|i| (Op::Enqueue { key: Value::Nil, value: i.into() }, Some(Ret::Done), 0, Some(9)))
        .collect();
    assert!(orders(&large, &calls(&made)).is_none());
}
