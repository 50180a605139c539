//! The states that a search has come by, as small numbers, and what each operation makes of each.
//!
//! ```text
//! states   0: nil   1: 5   2: 7
//! step(0, "w 5") = 1    step(1, "r -> 7") = impossible    step(1, "cas 5->7 ok") = 2
//! ```
//!
//! Knossos calls this memoising the model; here it grows as the search goes. Deliberately no more than a cache: it knows
//! nothing of time.

use rustc_hash::FxHashMap;
use serde_json::Value as Json;

use super::calls::Classes;
use crate::model::Model;

/// The number of a state.
pub(super) type StateId = u32;

/// What [`Space::step`] gives for an operation that is impossible in the state.
pub(super) const IMPOSSIBLE: StateId = u32::MAX;

/// Beyond this many entries the table of steps is begun anew: it can be computed again, and histories are long.
const MAX_STEPS: usize = 1 << 20;

/// States and steps, whatever they are made of.
pub(super) trait Space {
    /// The state before the first operation.
    fn start(&self) -> StateId;

    /// What the operations of `class` make of `state`, or [`IMPOSSIBLE`].
    fn step(&mut self, state: StateId, class: u32) -> StateId;

    /// About how much memory it takes.
    fn bytes(&self) -> u64;

    /// The state in words and as data.
    fn tell(&self, state: StateId) -> (String, Json);
}

/// The states of any model, which is asked once for each step.
pub(super) struct Memo<'a, M: Model> {
    model: &'a M,
    classes: &'a Classes<'a>,
    states: Vec<M::State>,
    ids: FxHashMap<M::State, StateId>,
    steps: FxHashMap<u64, StateId>,
    heap_bytes: u64,
}

impl<'a, M: Model> Memo<'a, M> {
    /// The state at the start has the number 0.
    pub(super) fn new(model: &'a M, classes: &'a Classes<'a>) -> Self {
        let mut space = Memo {
            model,
            classes,
            states: Vec::new(),
            ids: FxHashMap::default(),
            steps: FxHashMap::default(),
            heap_bytes: 0,
        };
        space.intern(model.init());
        space
    }

    fn intern(&mut self, state: M::State) -> StateId {
        if let Some(id) = self.ids.get(&state) {
            return *id;
        }
        let id = self.states.len() as StateId;
        self.heap_bytes += self.model.weight(&state) as u64;
        self.states.push(state.clone());
        self.ids.insert(state, id);
        id
    }
}

impl<M: Model> Space for Memo<'_, M> {
    fn start(&self) -> StateId {
        0
    }

    fn step(&mut self, state: StateId, class: u32) -> StateId {
        let key = u64::from(state) << 32 | u64::from(class);
        if let Some(next) = self.steps.get(&key) {
            return *next;
        }
        let (op, ret) = self.classes[class as usize];
        let next = match self.model.step(&self.states[state as usize], op, ret) {
            Some(next) => self.intern(next),
            None => IMPOSSIBLE,
        };
        if self.steps.len() >= MAX_STEPS {
            self.steps.clear();
        }
        self.steps.insert(key, next);
        next
    }

    fn bytes(&self) -> u64 {
        let state = 2 * size_of::<M::State>() as u64 + 8;
        self.heap_bytes + self.states.len() as u64 * state + self.steps.capacity() as u64 * 17
    }

    fn tell(&self, state: StateId) -> (String, Json) {
        let state = &self.states[state as usize];
        (self.model.describe(state), self.model.to_json(state))
    }
}
