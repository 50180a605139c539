//! `MultiRegister`: several registers in one object, read and written together.
//!
//! ```text
//! {x 0, y 0} --txn [w x 1; w y 2]--> {x 1, y 2} --txn [r x -> 1; r y -> 2]--> the same
//! ```
//!
//! An operation is about several keys at once, so that keys cannot be judged apart. Deliberately not a checker of
//! transactions: it searches, and small histories only.

use std::collections::BTreeMap;

use super::{Effect, Model, register};
use crate::{Key, Mop, Op, Ret, Value};

/// Transactions of reads and writes, and reads, writes and compare-and-sets of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MultiRegister {
    /// What each key holds at first.
    pub initial: Value,
}

impl MultiRegister {
    fn get<'a>(&'a self, state: &'a BTreeMap<Key, Value>, key: &Key) -> &'a Value {
        state.get(key).unwrap_or(&self.initial)
    }

    fn put(&self, state: &mut BTreeMap<Key, Value>, key: &Key, value: &Value) {
        // Equal states must be equal, however they came about.
        if *value == self.initial {
            state.remove(key);
        } else {
            state.insert(key.clone(), value.clone());
        }
    }
}

impl Model for MultiRegister {
    type State = BTreeMap<Key, Value>;

    fn name(&self) -> &str {
        "multi-register"
    }

    fn init(&self) -> Self::State {
        BTreeMap::new()
    }

    fn is_local(&self) -> bool {
        false
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        for (op, _) in calls {
            let known = match op {
                Op::Txn { mops } => !mops.iter().any(|mop| matches!(mop, Mop::Append { .. })),
                op => matches!(op, Op::Read { .. } | Op::Write { .. } | Op::Cas { .. }),
            };
            if !known {
                let hint = "it knows read, write, cas, and transactions of reads and writes";
                return Err(register::unknown_op(self.name(), op, hint));
            }
        }
        Ok(self.clone())
    }

    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Option<Self::State> {
        let mut next = state.clone();
        match (op, ret) {
            (Op::Txn { mops }, ret) => {
                let mut found = match ret {
                    Some(Ret::Txn(found)) => Some(found.iter()),
                    None => None,
                    Some(_) => return None,
                };
                for mop in mops.iter() {
                    match (mop, &mut found) {
                        (Mop::Read { key }, Some(found)) => {
                            if found.next()? != self.get(&next, key) {
                                return None;
                            }
                        }
                        (Mop::Read { .. }, None) => {}
                        (Mop::Write { key, value }, _) => self.put(&mut next, key, value),
                        (Mop::Append { .. }, _) => return None,
                    }
                }
            }
            (Op::Read { .. }, None) => {}
            (Op::Read { key, .. }, Some(Ret::Value(read))) => {
                if read != self.get(state, key) {
                    return None;
                }
            }
            (Op::Write { key, value }, _) => self.put(&mut next, key, value),
            (Op::Cas { key, expected, new }, ret) => {
                let held = self.get(state, key);
                let matches = held == expected;
                if let Some(ret) = ret {
                    let Ret::Swapped { swapped, found } = ret else { return None };
                    if *swapped != matches || found.as_ref().is_some_and(|found| found != held) {
                        return None;
                    }
                }
                if matches {
                    self.put(&mut next, key, new);
                }
            }
            _ => return None,
        }
        Some(next)
    }

    fn effect<'a>(&self, op: &'a Op, ret: Option<&'a Ret>) -> Effect<&'a Value> {
        match (op, ret) {
            (Op::Read { .. }, _) | (Op::Cas { .. }, Some(Ret::Swapped { swapped: false, .. })) => {
                Effect::Observe(None)
            }
            (Op::Txn { mops }, _) if mops.iter().all(|mop| matches!(mop, Mop::Read { .. })) => {
                Effect::Observe(None)
            }
            _ => Effect::Opaque,
        }
    }

    fn situation(&self, state: &Self::State) -> String {
        self.describe(state)
    }

    fn describe(&self, state: &Self::State) -> String {
        let mut words: Vec<String> = state.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let rest = if words.is_empty() { "every key" } else { "else" };
        words.push(format!("{rest} {}", self.initial));
        words.join(", ")
    }

    fn weight(&self, state: &Self::State) -> usize {
        state.iter().map(|(key, value)| 32 + register::weight(key) + register::weight(value)).sum()
    }
}
