//! `Counter`: a number that is added to.
//!
//! ```text
//! 3 --add 2--> 5 --read -> 5--> 5 --add -1 answers 4--> 4
//! ```
//!
//! An add that answers a number tells what it left (fetch-and-add with the new value). Deliberately whole numbers of 64 bits:
//! what overflows is impossible.

use super::{Effect, Model, register};
use crate::{Op, Ret, Value};

/// Add and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// What it counts from.
    pub initial: i64,
}

impl Model for Counter {
    type State = i64;

    fn name(&self) -> &str {
        "counter"
    }

    fn init(&self) -> i64 {
        self.initial
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        for (op, _) in calls {
            match op {
                Op::Read { .. } | Op::Add { value: Value::Int(_), .. } => {}
                Op::Add { value, .. } => {
                    return Err(format!("the model counter can add numbers only, not {value}"));
                }
                op => return Err(register::unknown_op(self.name(), op, "it knows add and read")),
            }
        }
        Ok(self.clone())
    }

    fn step(&self, state: &i64, op: &Op, ret: Option<&Ret>) -> Option<i64> {
        match (op, ret) {
            (Op::Add { value: Value::Int(more), .. }, ret) => {
                let next = state.checked_add(*more)?;
                match ret {
                    Some(Ret::Value(Value::Int(told))) if *told != next => None,
                    _ => Some(next),
                }
            }
            (Op::Read { .. }, None) => Some(*state),
            (Op::Read { .. }, Some(Ret::Value(Value::Int(read)))) => (read == state).then_some(*state),
            // Nothing was ever added.
            (Op::Read { .. }, Some(Ret::Value(Value::Nil))) => (*state == 0).then_some(0),
            _ => None,
        }
    }

    fn effect<'a>(&self, op: &'a Op, _: Option<&'a Ret>) -> Effect<&'a Value> {
        match op {
            Op::Read { .. } => Effect::Observe(None),
            _ => Effect::Opaque,
        }
    }

    fn to_json(&self, state: &i64) -> serde_json::Value {
        (*state).into()
    }

    fn situation(&self, state: &i64) -> String {
        format!("the counter stands at {state}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_and_tells() {
        let model = Counter { initial: 1 };
        let add = |more: i64| Op::Add { key: Value::Nil, value: more.into() };
        let told = |value: i64| Some(Ret::Value(value.into()));
        assert_eq!(model.step(&1, &add(2), told(3).as_ref()), Some(3));
        assert_eq!(model.step(&1, &add(2), told(2).as_ref()), None);
        assert_eq!(model.step(&1, &add(-2), Some(&Ret::Done)), Some(-1));
        assert_eq!(model.step(&i64::MAX, &add(1), None), None);
        let read = Op::Read { key: Value::Nil, mode: Default::default() };
        assert_eq!(model.step(&3, &read, told(3).as_ref()), Some(3));
        assert_eq!(model.step(&3, &read, told(4).as_ref()), None);
        assert!(model.fit(&[(&Op::Add { key: Value::Nil, value: "x".into() }, None)]).is_err());
    }
}
