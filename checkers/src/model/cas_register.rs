//! `CasRegister`: a register that can also be set on condition.
//!
//! ```text
//! 5 --cas 5->7 answers swapped--> 7 --cas 5->9 answers not swapped, found 7--> 7
//! ```
//!
//! The absent value `nil` is a value like any other: `cas nil->1` creates. A compare-and-set that did not swap is an
//! observation: the value was another one. Deliberately not weak: failing for no reason is not allowed.

use super::{Effect, Model, Register, RegisterLike, Special, register};
use crate::{Op, Ret, Value};

/// Read, write and compare-and-set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CasRegister {
    /// What it holds before the first write.
    pub initial: Value,
}

impl CasRegister {
    fn register(&self) -> Register {
        Register { initial: Value::Nil }
    }
}

impl Model for CasRegister {
    type State = Value;

    fn name(&self) -> &str {
        "cas-register"
    }

    fn init(&self) -> Value {
        self.initial.clone()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        for (op, _) in calls {
            if !matches!(op, Op::Read { .. } | Op::Write { .. } | Op::Cas { .. }) {
                return Err(register::unknown_op(self.name(), op, "kv knows more"));
            }
        }
        Ok(self.clone())
    }

    fn step(&self, state: &Value, op: &Op, ret: Option<&Ret>) -> Option<Value> {
        let Op::Cas { expected, new, .. } = op else { return self.register().step(state, op, ret) };
        let matches = state == expected;
        if let Some(ret) = ret {
            let Ret::Swapped { swapped, found } = ret else { return None };
            if *swapped != matches || found.as_ref().is_some_and(|found| found != state) {
                return None;
            }
        }
        Some(if matches { new.clone() } else { state.clone() })
    }

    fn effect<'a>(&self, op: &'a Op, ret: Option<&'a Ret>) -> Effect<&'a Value> {
        let Op::Cas { expected, new, .. } = op else { return self.register().effect(op, ret) };
        match ret {
            Some(Ret::Swapped { swapped: false, found: Some(found) }) => Effect::Observe(Some(found)),
            Some(Ret::Swapped { swapped: false, found: None }) => Effect::Observe(None),
            // Setting what is there already is nothing but a look.
            Some(Ret::Swapped { swapped: true, .. }) | None if expected == new => {
                Effect::Observe(Some(expected))
            }
            Some(Ret::Swapped { swapped: true, .. }) | None => Effect::Swap { from: expected, to: new },
            Some(_) => Effect::Opaque,
        }
    }

    fn special(&self) -> Option<Special<'_>> {
        Some(Special::Register(RegisterLike { initial: &self.initial, cas: true }))
    }

    fn situation(&self, state: &Value) -> String {
        self.register().situation(state)
    }

    fn describe(&self, state: &Value) -> String {
        state.to_string()
    }

    fn to_json(&self, state: &Value) -> serde_json::Value {
        register::to_json(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cas(expected: i64, new: i64) -> Op {
        Op::Cas { key: Value::Nil, expected: expected.into(), new: new.into() }
    }

    fn swapped(swapped: bool, found: Option<i64>) -> Ret {
        Ret::Swapped { swapped, found: found.map(Value::from) }
    }

    #[test]
    fn every_answer_in_every_state() {
        let (model, one, two, three) = (CasRegister::default(), Value::Int(1), Value::Int(2), Value::Int(3));
        let step = |state: &Value, ret: Option<Ret>| model.step(state, &cas(1, 2), ret.as_ref());
        assert_eq!(step(&one, Some(swapped(true, None))), Some(two.clone()));
        assert_eq!(step(&one, Some(swapped(true, Some(1)))), Some(two.clone()));
        assert_eq!(step(&one, Some(swapped(true, Some(3)))), None);
        assert_eq!(step(&three, Some(swapped(true, None))), None);
        assert_eq!(step(&one, Some(swapped(false, None))), None);
        assert_eq!(step(&three, Some(swapped(false, None))), Some(three.clone()));
        assert_eq!(step(&three, Some(swapped(false, Some(3)))), Some(three.clone()));
        assert_eq!(step(&three, Some(swapped(false, Some(2)))), None);
        assert_eq!(step(&one, Some(swapped(false, Some(1)))), None);
        assert_eq!(step(&one, None), Some(two.clone()));
        assert_eq!(step(&three, None), Some(three));
    }
}
