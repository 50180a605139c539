//! `Kv`: one key of a key-value store.
//!
//! ```text
//! nil --append "a"--> "a" --append "b"--> "ab" --cas "ab"->"c"--> "c" --delete--> nil      text
//! nil --append 1--> [1] --append 2--> [1 2]                                               lists
//! ```
//!
//! Append joins text to text, or adds an element to a list; which of the two is seen from the operations of the key
//! before they are judged. Deliberately no guess about appending to a number: such a key is not judged.

use super::{CasRegister, Effect, Model, RegisterLike, Special, register};
use crate::{Op, Ret, Value};

static NIL: Value = Value::Nil;

/// Read, write, compare-and-set, append and delete. What write and append answer is not judged; a delete that answers
/// true or false says whether the key existed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kv {
    /// What each key holds at the start.
    pub initial: Value,
    /// Whether appending to an absent key makes a list. Found out by [`Model::fit`].
    lists: bool,
}

impl Kv {
    /// Keys that hold this at first.
    pub fn new(initial: Value) -> Self {
        Kv { initial, lists: false }
    }

    fn register(&self) -> CasRegister {
        CasRegister { initial: Value::Nil }
    }

    /// Whether an append means text or lists here, if either fits.
    fn appends_lists(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<bool, String> {
        let mut appended_text_only = true;
        let mut held_text = None;
        let mut held_list = None;
        let mut hold = |value: &Value| match value {
            Value::Nil => Ok(()),
            Value::Text(_) => {
                held_text = Some(value.clone());
                Ok(())
            }
            Value::List(_) => {
                held_list = Some(value.clone());
                Ok(())
            }
            other => Err(format!(
                "the key is appended to and also holds {other}: the model kv can append to text and to lists only"
            )),
        };
        hold(&self.initial)?;
        for (op, ret) in calls {
            match op {
                Op::Append { value, .. } => appended_text_only &= matches!(value, Value::Text(_)),
                Op::Write { value, .. } => hold(value)?,
                Op::Cas { expected, new, .. } => {
                    hold(expected)?;
                    hold(new)?;
                    if let Some(Ret::Swapped { found: Some(found), .. }) = ret {
                        hold(found)?;
                    }
                }
                Op::Read { .. } => {
                    if let Some(Ret::Value(value)) = ret {
                        hold(value)?;
                    }
                }
                _ => {}
            }
        }
        match (held_text, held_list) {
            (Some(text), Some(list)) => {
                Err(format!("the key is appended to and holds both text ({text}) and a list ({list})"))
            }
            (Some(text), None) if !appended_text_only => {
                Err(format!("the key holds text ({text}), but something else than text is appended to it"))
            }
            (None, None) => Ok(!appended_text_only),
            (_, list) => Ok(list.is_some()),
        }
    }
}

impl Model for Kv {
    type State = Value;

    fn name(&self) -> &str {
        "kv"
    }

    fn init(&self) -> Value {
        self.initial.clone()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        let mut appends = false;
        for (op, ret) in calls {
            match (op, ret) {
                (Op::Read { .. } | Op::Write { .. } | Op::Cas { .. }, _) => {}
                (Op::Append { .. }, _) => appends = true,
                (Op::Delete { .. }, None | Some(Ret::Done | Ret::Value(Value::Bool(_)))) => {}
                (Op::Delete { .. }, Some(ret)) => {
                    return Err(format!(
                        "{op} answers {ret:?}: the model kv knows only true, false and nothing"
                    ));
                }
                _ => {
                    return Err(register::unknown_op(
                        self.name(),
                        op,
                        "it judges reads, writes, cas, append, delete",
                    ));
                }
            }
        }
        let lists = appends && self.appends_lists(calls)?;
        Ok(Kv { lists, ..self.clone() })
    }

    fn step(&self, state: &Value, op: &Op, ret: Option<&Ret>) -> Option<Value> {
        match (op, ret) {
            (Op::Delete { .. }, Some(Ret::Value(existed))) => {
                (*existed == Value::Bool(*state != Value::Nil)).then_some(Value::Nil)
            }
            (Op::Delete { .. }, _) => Some(Value::Nil),
            (Op::Append { value, .. }, _) => match (state, value) {
                (Value::Nil, _) if self.lists => Some(Value::List([value.clone()].into())),
                (Value::Nil, _) => Some(value.clone()),
                (Value::Text(head), Value::Text(tail)) => {
                    Some(Value::Text([&**head, &**tail].concat().into()))
                }
                (Value::List(head), _) => Some(Value::List(head.iter().chain([value]).cloned().collect())),
                _ => None,
            },
            _ => self.register().step(state, op, ret),
        }
    }

    fn effect<'a>(&self, op: &'a Op, ret: Option<&'a Ret>) -> Effect<&'a Value> {
        match (op, ret) {
            (Op::Delete { .. }, None | Some(Ret::Done)) => Effect::Set { to: &NIL },
            (Op::Delete { .. } | Op::Append { .. }, _) => Effect::Opaque,
            _ => self.register().effect(op, ret),
        }
    }

    fn special(&self) -> Option<Special<'_>> {
        Some(Special::Register(RegisterLike { initial: &self.initial, cas: true }))
    }

    fn situation(&self, state: &Value) -> String {
        format!("the key holds {state}")
    }

    fn describe(&self, state: &Value) -> String {
        state.to_string()
    }

    fn to_json(&self, state: &Value) -> serde_json::Value {
        register::to_json(state)
    }

    fn weight(&self, state: &Value) -> usize {
        register::weight(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(value: impl Into<Value>) -> Op {
        Op::Append { key: Value::Nil, value: value.into() }
    }

    fn read() -> Op {
        Op::Read { key: Value::Nil, mode: crate::ReadMode::Default }
    }

    #[test]
    fn text_or_lists_is_found_out() {
        let (text, one) = (append("a"), append(1));
        let reads_list = Ret::Value(vec![Value::from("a")].into());
        let kv = Kv::default();
        let model = kv.fit(&[(&text, None)]).unwrap();
        assert_eq!(model.step(&"b".into(), &text, None), Some("ba".into()));
        assert_eq!(model.step(&Value::Nil, &text, None), Some("a".into()));
        for calls in [&[(&one, None)][..], &[(&text, None), (&read(), Some(&reads_list))]] {
            let model = kv.fit(calls).unwrap();
            let element = if calls.len() == 1 { Value::Int(1) } else { "a".into() };
            let list = Value::from(vec![element.clone()]);
            let op = append(element.clone());
            assert_eq!(model.step(&Value::Nil, &op, None), Some(list.clone()));
            assert_eq!(model.step(&list, &op, None), Some(vec![element.clone(), element].into()));
        }
    }

    #[test]
    fn what_it_cannot_judge_it_says() {
        let kv = Kv::default();
        let reads_number = Ret::Value(5.into());
        let error = kv.fit(&[(&append("a"), None), (&read(), Some(&reads_number))]).unwrap_err();
        assert!(error.contains("also holds 5"), "{error}");
        let acquire = Op::Acquire { key: Value::Nil, owner: Value::Nil };
        assert!(kv.fit(&[(&acquire, None)]).unwrap_err().contains("does not know \"acquire\""));
        assert!(Register::default().fit(&[(&append("a"), None)]).is_err());
    }

    #[test]
    fn delete_tells_whether_it_existed() {
        let (kv, delete) = (Kv::default(), Op::Delete { key: Value::Nil });
        let answer = |existed: bool| Ret::Value(existed.into());
        assert_eq!(kv.step(&5.into(), &delete, Some(&answer(true))), Some(Value::Nil));
        assert_eq!(kv.step(&5.into(), &delete, Some(&answer(false))), None);
        assert_eq!(kv.step(&Value::Nil, &delete, Some(&answer(false))), Some(Value::Nil));
        assert_eq!(kv.step(&Value::Nil, &delete, Some(&Ret::Done)), Some(Value::Nil));
    }

    use crate::model::Register;
}
