//! `Unpartitioned`: all keys of a model as one object.
//!
//! ```text
//! {}  --write x 1-->  {x: 1}  --append y "a"-->  {x: 1, y: "a"}  --read x -> 1-->  the same
//! ```
//!
//! For comparison, and for those who do not trust the split by key. It costs what a search over the product of all keys
//! costs: Herlihy and Wing's theorem says that the verdict is the same. Deliberately slow.

use std::collections::BTreeMap;

use super::{Effect, Model};
use crate::{Key, Op, Ret, Value};

/// A model of one key, for all keys at once.
#[derive(Clone, Debug)]
pub struct Unpartitioned<M> {
    name: String,
    model: M,
    /// The model as it was fitted to each key.
    fitted: BTreeMap<Key, M>,
}

impl<M: Model> Unpartitioned<M> {
    /// All keys of `model`.
    pub fn new(model: M) -> Self {
        Unpartitioned { name: format!("{}, all keys at once", model.name()), model, fitted: BTreeMap::new() }
    }

    fn of(&self, key: &Key) -> &M {
        self.fitted.get(key).unwrap_or(&self.model)
    }
}

impl<M: Model> Model for Unpartitioned<M> {
    /// The keys that are not as they were at first.
    type State = Vec<(Key, M::State)>;

    fn name(&self) -> &str {
        &self.name
    }

    fn init(&self) -> Self::State {
        Vec::new()
    }

    fn is_local(&self) -> bool {
        false
    }

    fn has_owners(&self) -> bool {
        self.model.has_owners()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        let mut by_key: BTreeMap<&Key, Vec<(&Op, Option<&Ret>)>> = BTreeMap::new();
        for &(op, ret) in calls {
            let key = op.key().ok_or_else(|| format!("{op} has no key, and the model is one of keys"))?;
            by_key.entry(key).or_default().push((op, ret));
        }
        let mut fitted = BTreeMap::new();
        for (key, calls) in by_key {
            let model = self.model.fit(&calls).map_err(|error| format!("key {key}: {error}"))?;
            fitted.insert(key.clone(), model);
        }
        Ok(Unpartitioned { fitted, ..self.clone() })
    }

    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Option<Self::State> {
        let key = op.key()?;
        let model = self.of(key);
        let init = model.init();
        let place = state.binary_search_by(|(other, _)| other.cmp(key));
        let held = place.map_or(&init, |at| &state[at].1);
        let next = model.step(held, op, ret)?;
        if next == *held {
            return Some(state.clone());
        }
        let mut all = state.clone();
        match place {
            // Equal states must be equal, however they came about.
            Ok(at) if next == init => {
                all.remove(at);
            }
            Ok(at) => all[at].1 = next,
            Err(at) => all.insert(at, (key.clone(), next)),
        }
        Some(all)
    }

    fn effect<'a>(&self, op: &'a Op, ret: Option<&'a Ret>) -> Effect<&'a Value> {
        let model = op.key().map_or(&self.model, |key| self.of(key));
        match model.effect(op, ret) {
            Effect::Observe(_) => Effect::Observe(None),
            _ => Effect::Opaque,
        }
    }

    fn describe(&self, state: &Self::State) -> String {
        let mut words: Vec<String> =
            state.iter().map(|(key, state)| format!("{key} = {}", self.of(key).describe(state))).collect();
        let rest = if words.is_empty() { "every key" } else { "else" };
        words.push(format!("{rest} {}", self.model.describe(&self.model.init())));
        words.join(", ")
    }

    fn weight(&self, state: &Self::State) -> usize {
        state.iter().map(|(key, state)| 48 + self.of(key).weight(state)).sum()
    }
}
