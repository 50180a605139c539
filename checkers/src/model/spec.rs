//! `Spec`: any stateright `SequentialSpec` as a [`Model`].
//!
//! ```text
//! Op, Ret  -- translate -->  S::Op, S::Ret  -- is_valid_step / invoke -->  the state after
//! ```
//!
//! For those who have written their specification for stateright's model checker already. This is the one module that
//! names stateright, whose own `Model` and `Checker` would collide with ours. Deliberately without prunes: the search
//! knows nothing of what such operations do, so histories must be smaller.

use std::{fmt, hash::Hash};

use stateright::semantics::SequentialSpec;

use super::Model;
use crate::{Op, Ret};

/// A stateright specification, and how our operations are said in its words.
#[derive(Clone, Debug)]
pub struct Spec<S, F> {
    name: String,
    initial: S,
    translate: F,
}

impl<S, F> Spec<S, F>
where
    S: SequentialSpec,
    F: Fn(&Op, Option<&Ret>) -> Option<(S::Op, Option<S::Ret>)>,
{
    /// `translate` gives the operation and, unless the outcome is unknown, its answer in the specification's words;
    /// `None` for what the specification does not know.
    pub fn new(name: impl Into<String>, initial: S, translate: F) -> Self {
        Spec { name: name.into(), initial, translate }
    }
}

/// The specification's object after some operations.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct SpecState<S>(pub S);

// stateright's own objects are `PartialEq` only. Their equality is taken to be one; for a state with fractions that
// are not numbers it would merely cost time, since such states count as different.
impl<S: PartialEq> Eq for SpecState<S> {}

impl<S, F> Model for Spec<S, F>
where
    S: SequentialSpec + Clone + PartialEq + Hash + fmt::Debug + Send + Sync,
    F: Fn(&Op, Option<&Ret>) -> Option<(S::Op, Option<S::Ret>)> + Clone + Send + Sync,
{
    type State = SpecState<S>;

    fn name(&self) -> &str {
        &self.name
    }

    fn init(&self) -> SpecState<S> {
        SpecState(self.initial.clone())
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        for (op, ret) in calls {
            match (self.translate)(op, *ret) {
                Some((_, translated)) if translated.is_some() == ret.is_some() => {}
                Some(_) => {
                    return Err(format!(
                        "the translation to {} loses or invents the answer of {op}",
                        self.name
                    ));
                }
                None => return Err(format!("the model {} does not know \"{}\" ({op})", self.name, op.f())),
            }
        }
        Ok(self.clone())
    }

    fn step(&self, state: &SpecState<S>, op: &Op, ret: Option<&Ret>) -> Option<SpecState<S>> {
        let (op, ret) = (self.translate)(op, ret)?;
        let mut next = state.0.clone();
        let possible = match ret {
            Some(ret) => next.is_valid_step(&op, &ret),
            None => {
                next.invoke(&op);
                true
            }
        };
        possible.then_some(SpecState(next))
    }
}
