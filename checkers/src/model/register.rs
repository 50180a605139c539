//! `Register`: one value, read and written.
//!
//! ```text
//! nil --write 5--> 5 --read answers 5--> 5 --write 7--> 7
//! ```
//!
//! Deliberately without compare-and-set: an operation that a model does not know makes the verdict unknown.

use super::{Effect, Model, RegisterLike, Special};
use crate::{Op, Ret, Value};

/// Read and write. What a write answers is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// What it holds before the first write.
    pub initial: Value,
}

impl Model for Register {
    type State = Value;

    fn name(&self) -> &str {
        "register"
    }

    fn init(&self) -> Value {
        self.initial.clone()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        for (op, _) in calls {
            if !matches!(op, Op::Read { .. } | Op::Write { .. }) {
                return Err(unknown_op(self.name(), op, "cas-register and kv know more"));
            }
        }
        Ok(self.clone())
    }

    fn step(&self, state: &Value, op: &Op, ret: Option<&Ret>) -> Option<Value> {
        match (op, ret) {
            (Op::Write { value, .. }, _) => Some(value.clone()),
            (Op::Read { .. }, None) => Some(state.clone()),
            (Op::Read { .. }, Some(Ret::Value(value))) => (state == value).then(|| state.clone()),
            _ => None,
        }
    }

    fn effect<'a>(&self, op: &'a Op, ret: Option<&'a Ret>) -> Effect<&'a Value> {
        match (op, ret) {
            (Op::Write { value, .. }, _) => Effect::Set { to: value },
            (Op::Read { .. }, Some(Ret::Value(value))) => Effect::Observe(Some(value)),
            (Op::Read { .. }, _) => Effect::Observe(None),
            _ => Effect::Opaque,
        }
    }

    fn special(&self) -> Option<Special<'_>> {
        Some(Special::Register(RegisterLike { initial: &self.initial, cas: false }))
    }

    fn situation(&self, state: &Value) -> String {
        format!("the key holds {state}")
    }

    fn describe(&self, state: &Value) -> String {
        state.to_string()
    }

    fn to_json(&self, state: &Value) -> serde_json::Value {
        to_json(state)
    }
}

/// The state of every model whose state is a value, as JSON.
pub(crate) fn to_json(state: &Value) -> serde_json::Value {
    match state {
        Value::Nil => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(i) => (*i).into(),
        Value::Text(s) => (&**s).into(),
        Value::List(values) => values.iter().map(to_json).collect(),
    }
}

/// Why a model cannot judge an operation.
/// About how many bytes a value takes.
pub(super) fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Text(text) => text.len(),
            Value::List(values) => values.iter().map(weight).sum(),
            _ => 0,
        }
}

pub(super) fn unknown_op(model: &str, op: &Op, hint: &str) -> String {
    format!("the model {model} does not know \"{}\" ({op}); {hint}", op.f())
}
