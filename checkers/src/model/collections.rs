//! Sets, queues and stacks.
//!
//! ```text
//! set       add 1, add 2, read -> [2 1]
//! queue     enq 1, enq 2, deq -> 1           first in, first out
//! stack     push 1, push 2, pop -> 2         last in, first out
//! ```
//!
//! An empty queue or stack answers nil, and that is checked. Deliberately whole values as states: histories of millions of
//! operations are for specialists.

use std::collections::{BTreeSet, VecDeque};

use super::{Effect, Model, Special, register};
use crate::{Op, Ret, Value};

/// A set: add, remove, contains, read. A read gives all elements, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// What it holds at first.
    pub initial: BTreeSet<Value>,
}

/// A queue: the first element in is the first out. Enqueue, dequeue, drain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FifoQueue {
    /// What it holds at first, the oldest first.
    pub initial: VecDeque<Value>,
}

/// A stack: the last element in is the first out. Push, pop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// What it holds at first, the oldest first.
    pub initial: Vec<Value>,
}

fn only(name: &str, calls: &[(&Op, Option<&Ret>)], known: fn(&Op) -> bool, hint: &str) -> Result<(), String> {
    match calls.iter().find(|(op, _)| !known(op)) {
        Some((op, _)) => Err(register::unknown_op(name, op, hint)),
        None => Ok(()),
    }
}

/// What was read, as a list; nil is an empty one.
pub(super) fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Nil => Some(&[]),
        Value::List(values) => Some(values),
        _ => None,
    }
}

fn json<'a>(values: impl IntoIterator<Item = &'a Value>) -> serde_json::Value {
    values.into_iter().map(|value| serde_json::to_value(value).unwrap_or_default()).collect()
}

fn words<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    values.into_iter().cloned().collect::<Value>().to_string()
}

fn weight<'a>(values: impl IntoIterator<Item = &'a Value>) -> usize {
    values.into_iter().map(|value| register::weight(value) + 16).sum()
}

impl Model for Set {
    type State = BTreeSet<Value>;

    fn name(&self) -> &str {
        "set"
    }

    fn init(&self) -> Self::State {
        self.initial.clone()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        let known: fn(&Op) -> bool =
            |op| matches!(op, Op::Add { .. } | Op::Remove { .. } | Op::Contains { .. } | Op::Read { .. });
        only(self.name(), calls, known, "it knows add, remove, contains and read")?;
        Ok(self.clone())
    }

    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Option<Self::State> {
        match (op, ret) {
            (Op::Add { value, .. }, _) => {
                let mut next = state.clone();
                next.insert(value.clone());
                Some(next)
            }
            (Op::Remove { value, .. }, _) => {
                let mut next = state.clone();
                next.remove(value);
                Some(next)
            }
            (Op::Contains { value, .. }, Some(Ret::Value(there))) => {
                (Value::Bool(state.contains(value)) == *there).then(|| state.clone())
            }
            (Op::Read { .. }, Some(Ret::Value(read))) => {
                let read = list(read)?;
                let same = read.len() == state.len() && read.iter().all(|value| state.contains(value));
                // As many as there are, all of them there, none twice.
                let whole = same && read.iter().collect::<BTreeSet<_>>().len() == read.len();
                whole.then(|| state.clone())
            }
            (Op::Contains { .. } | Op::Read { .. }, None) => Some(state.clone()),
            _ => None,
        }
    }

    fn effect<'a>(&self, op: &'a Op, _: Option<&'a Ret>) -> Effect<&'a Value> {
        match op {
            Op::Contains { .. } | Op::Read { .. } => Effect::Observe(None),
            _ => Effect::Opaque,
        }
    }

    fn special(&self) -> Option<Special<'_>> {
        self.initial.is_empty().then_some(Special::Set)
    }

    fn situation(&self, state: &Self::State) -> String {
        format!("the set holds {}", self.describe(state))
    }

    fn describe(&self, state: &Self::State) -> String {
        words(state)
    }

    fn to_json(&self, state: &Self::State) -> serde_json::Value {
        json(state)
    }

    fn weight(&self, state: &Self::State) -> usize {
        weight(state)
    }
}

impl Model for FifoQueue {
    type State = VecDeque<Value>;

    fn name(&self) -> &str {
        "fifo-queue"
    }

    fn init(&self) -> Self::State {
        self.initial.clone()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        let known: fn(&Op) -> bool =
            |op| matches!(op, Op::Enqueue { .. } | Op::Dequeue { .. } | Op::Drain { .. });
        only(self.name(), calls, known, "it knows enqueue, dequeue and drain")?;
        Ok(self.clone())
    }

    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Option<Self::State> {
        match (op, ret) {
            (Op::Enqueue { value, .. }, _) => {
                let mut next = state.clone();
                next.push_back(value.clone());
                Some(next)
            }
            (Op::Dequeue { .. }, ret) => {
                let mut next = state.clone();
                let taken = next.pop_front().unwrap_or_default();
                match ret {
                    Some(Ret::Value(told)) if *told != taken => None,
                    Some(Ret::Value(_)) | None => Some(next),
                    Some(_) => None,
                }
            }
            (Op::Drain { .. }, Some(Ret::Value(told))) => {
                let same = list(told)?.iter().eq(state.iter());
                same.then(VecDeque::new)
            }
            (Op::Drain { .. }, None) => Some(VecDeque::new()),
            _ => None,
        }
    }

    fn effect<'a>(&self, op: &'a Op, ret: Option<&'a Ret>) -> Effect<&'a Value> {
        match (op, ret) {
            // It found the queue empty, and left it so.
            (Op::Dequeue { .. }, Some(Ret::Value(Value::Nil))) => Effect::Observe(None),
            _ => Effect::Opaque,
        }
    }

    fn special(&self) -> Option<Special<'_>> {
        self.initial.is_empty().then_some(Special::Queue { fifo: true })
    }

    fn situation(&self, state: &Self::State) -> String {
        format!("the queue holds {}", self.describe(state))
    }

    fn describe(&self, state: &Self::State) -> String {
        words(state)
    }

    fn to_json(&self, state: &Self::State) -> serde_json::Value {
        json(state)
    }

    fn weight(&self, state: &Self::State) -> usize {
        weight(state)
    }
}

impl Model for Stack {
    type State = Vec<Value>;

    fn name(&self) -> &str {
        "stack"
    }

    fn init(&self) -> Self::State {
        self.initial.clone()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        let known: fn(&Op) -> bool = |op| matches!(op, Op::Push { .. } | Op::Pop { .. });
        only(self.name(), calls, known, "it knows push and pop")?;
        Ok(self.clone())
    }

    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Option<Self::State> {
        let mut next = state.clone();
        match (op, ret) {
            (Op::Push { value, .. }, _) => {
                next.push(value.clone());
                Some(next)
            }
            (Op::Pop { .. }, ret) => {
                let taken = next.pop().unwrap_or_default();
                match ret {
                    Some(Ret::Value(told)) if *told != taken => None,
                    Some(Ret::Value(_)) | None => Some(next),
                    Some(_) => None,
                }
            }
            _ => None,
        }
    }

    fn effect<'a>(&self, op: &'a Op, ret: Option<&'a Ret>) -> Effect<&'a Value> {
        match (op, ret) {
            (Op::Pop { .. }, Some(Ret::Value(Value::Nil))) => Effect::Observe(None),
            _ => Effect::Opaque,
        }
    }

    fn special(&self) -> Option<Special<'_>> {
        self.initial.is_empty().then_some(Special::Stack)
    }

    fn situation(&self, state: &Self::State) -> String {
        format!("the stack holds {}", self.describe(state))
    }

    fn describe(&self, state: &Self::State) -> String {
        words(state)
    }

    fn to_json(&self, state: &Self::State) -> serde_json::Value {
        json(state)
    }

    fn weight(&self, state: &Self::State) -> usize {
        weight(state)
    }
}
