//! Models in which one operation may have several results, and the unordered queue, which is one.
//!
//! ```text
//! step({1 2}, "deq, nobody knows")  =  {1} or {2}
//! ```
//!
//! A state of the search is the set of all states that the system may be in (the power-set construction, as in
//! Porcupine's `NondeterministicModel`): an operation is possible if it is in one of them. Deliberately a wrapper: the
//! engines know deterministic models only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{Effect, Model, Special, collections::list, register};
use crate::{Op, Ret, Value};

/// A sequential specification that may have a choice.
pub trait NondeterministicModel: Clone + Send + Sync {
    /// Everything the future depends on.
    type State: Clone + Ord + std::hash::Hash + fmt::Debug + Send + Sync;

    /// Its name, for messages.
    fn name(&self) -> &str;

    /// The states that a key that nobody has touched may be in.
    fn init(&self) -> Vec<Self::State>;

    /// Everything that `op` may make of `state` if it answers `ret`; nothing if it would not answer that. `ret` is `None`
    /// when the outcome is unknown.
    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Vec<Self::State>;

    /// Whether the model knows the operation.
    fn knows(&self, op: &Op) -> bool;

    /// See [`Model::special`].
    fn special(&self) -> Option<Special<'_>> {
        None
    }

    /// The state in words, for people.
    fn describe(&self, state: &Self::State) -> String {
        format!("{state:?}")
    }

    /// The state as the end of a sentence; see [`Model::situation`].
    fn situation(&self, state: &Self::State) -> String {
        format!("the state is {}", self.describe(state))
    }
}

/// A nondeterministic model as a [`Model`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nondeterministic<N>(pub N);

impl<N: NondeterministicModel> Model for Nondeterministic<N> {
    type State = BTreeSet<N::State>;

    fn name(&self) -> &str {
        self.0.name()
    }

    fn init(&self) -> Self::State {
        self.0.init().into_iter().collect()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        match calls.iter().find(|(op, _)| !self.0.knows(op)) {
            Some((op, _)) => Err(register::unknown_op(self.name(), op, "another model may")),
            None => Ok(self.clone()),
        }
    }

    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Option<Self::State> {
        let next: Self::State = state.iter().flat_map(|one| self.0.step(one, op, ret)).collect();
        (!next.is_empty()).then_some(next)
    }

    fn effect<'a>(&self, _: &'a Op, _: Option<&'a Ret>) -> Effect<&'a Value> {
        Effect::Opaque
    }

    fn special(&self) -> Option<Special<'_>> {
        self.0.special()
    }

    fn situation(&self, state: &Self::State) -> String {
        state.iter().map(|one| self.0.situation(one)).collect::<Vec<_>>().join(" or ")
    }

    fn describe(&self, state: &Self::State) -> String {
        state.iter().map(|one| self.0.describe(one)).collect::<Vec<_>>().join(" or ")
    }

    fn weight(&self, state: &Self::State) -> usize {
        64 * state.len()
    }
}

/// A queue that gives its elements in any order: enqueue, dequeue, drain. Each element comes out once for each time that it
/// went in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnorderedQueue {
    /// What it holds at first, and how often.
    pub initial: BTreeMap<Value, u32>,
}

fn without(state: &BTreeMap<Value, u32>, value: &Value) -> Option<BTreeMap<Value, u32>> {
    let mut next = state.clone();
    let count = next.get_mut(value)?;
    *count -= 1;
    if *count == 0 {
        next.remove(value);
    }
    Some(next)
}

impl NondeterministicModel for UnorderedQueue {
    type State = BTreeMap<Value, u32>;

    fn name(&self) -> &str {
        "unordered-queue"
    }

    fn init(&self) -> Vec<Self::State> {
        vec![self.initial.clone()]
    }

    fn knows(&self, op: &Op) -> bool {
        matches!(op, Op::Enqueue { .. } | Op::Dequeue { .. } | Op::Drain { .. })
    }

    fn special(&self) -> Option<Special<'_>> {
        self.initial.is_empty().then_some(Special::Queue { fifo: false })
    }

    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Vec<Self::State> {
        match (op, ret) {
            (Op::Enqueue { value, .. }, _) => {
                let mut next = state.clone();
                *next.entry(value.clone()).or_insert(0) += 1;
                vec![next]
            }
            (Op::Dequeue { .. }, Some(Ret::Value(Value::Nil))) => {
                if state.is_empty() {
                    vec![state.clone()]
                } else {
                    vec![]
                }
            }
            (Op::Dequeue { .. }, Some(Ret::Value(value))) => without(state, value).into_iter().collect(),
            (Op::Dequeue { .. }, None) if state.is_empty() => vec![state.clone()],
            (Op::Dequeue { .. }, None) => state.keys().filter_map(|value| without(state, value)).collect(),
            (Op::Drain { .. }, Some(Ret::Value(all))) => {
                let mut left = Some(state.clone());
                for value in list(all).unwrap_or_default() {
                    left = left.and_then(|left| without(&left, value));
                }
                left.filter(BTreeMap::is_empty).into_iter().collect()
            }
            (Op::Drain { .. }, None) => vec![BTreeMap::new()],
            _ => vec![],
        }
    }

    fn situation(&self, state: &Self::State) -> String {
        format!("the queue holds {}", self.describe(state))
    }

    fn describe(&self, state: &Self::State) -> String {
        let all = state.iter().flat_map(|(value, count)| std::iter::repeat_n(value, *count as usize));
        all.cloned().collect::<Value>().to_string()
    }
}
