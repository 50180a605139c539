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
use crate::{Op, Ret, model::Model};

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

/// States by number, and what was asked of each.
struct States<M: Model> {
    list: Vec<M::State>,
    ids: FxHashMap<M::State, StateId>,
    steps: FxHashMap<u64, StateId>,
    heap_bytes: u64,
}

impl<M: Model> States<M> {
    /// The state at the start has the number 0.
    fn new(model: &M) -> Self {
        let mut states = States {
            list: Vec::new(),
            ids: FxHashMap::default(),
            steps: FxHashMap::default(),
            heap_bytes: 0,
        };
        states.intern(model, model.init());
        states
    }

    fn intern(&mut self, model: &M, state: M::State) -> StateId {
        if let Some(id) = self.ids.get(&state) {
            return *id;
        }
        let id = self.list.len() as StateId;
        self.heap_bytes += model.weight(&state) as u64;
        self.list.push(state.clone());
        self.ids.insert(state, id);
        id
    }

    fn step(&mut self, model: &M, state: StateId, class: u32, (op, ret): (&Op, Option<&Ret>)) -> StateId {
        let key = u64::from(state) << 32 | u64::from(class);
        if let Some(next) = self.steps.get(&key) {
            return *next;
        }
        let next = match model.step(&self.list[state as usize], op, ret) {
            Some(next) => self.intern(model, next),
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
        self.heap_bytes + self.list.len() as u64 * state + self.steps.capacity() as u64 * 17
    }

    fn tell(&self, model: &M, state: StateId) -> (String, Json) {
        let state = &self.list[state as usize];
        (model.describe(state), model.to_json(state))
    }
}

/// The states of any model, for a history whose classes are known.
pub(super) struct Memo<'a, M: Model> {
    model: &'a M,
    classes: &'a Classes<'a>,
    states: States<M>,
    /// What was found out about the first states: state by state, class by class. Looked at before the map, which is slower.
    table: Vec<StateId>,
}

/// How many entries such a table may have.
const MAX_TABLE: usize = 1 << 14;
/// In a table: nobody asked yet.
const NOT_ASKED: StateId = u32::MAX - 1;

impl<'a, M: Model> Memo<'a, M> {
    pub(super) fn new(model: &'a M, classes: &'a Classes<'a>) -> Self {
        Memo { model, classes, states: States::new(model), table: Vec::new() }
    }
}

impl<M: Model> Space for Memo<'_, M> {
    fn start(&self) -> StateId {
        0
    }

    fn step(&mut self, state: StateId, class: u32) -> StateId {
        let place = state as usize * self.classes.len() + class as usize;
        match self.table.get(place) {
            Some(&NOT_ASKED) | None => {}
            Some(known) => return *known,
        }
        let next = self.states.step(self.model, state, class, self.classes[class as usize]);
        if place < MAX_TABLE {
            if self.table.len() <= place {
                self.table.resize((state as usize + 1) * self.classes.len(), NOT_ASKED);
            }
            self.table[place] = next;
        }
        next
    }

    fn bytes(&self) -> u64 {
        self.states.bytes() + 4 * self.table.capacity() as u64
    }

    fn tell(&self, state: StateId) -> (String, Json) {
        self.states.tell(self.model, state)
    }
}

/// The same for classes that come in one after the other, and are forgotten.
pub(super) struct Growing<M: Model> {
    model: M,
    classes: Vec<(Op, Option<Ret>)>,
    known: FxHashMap<(Op, Option<Ret>), u32>,
    states: States<M>,
}

impl<M: Model> Growing<M> {
    pub(super) fn new(model: M) -> Self {
        let states = States::new(&model);
        Growing { model, classes: Vec::new(), known: FxHashMap::default(), states }
    }

    /// The class of an operation with this answer, and whether it is new.
    pub(super) fn class(&mut self, op: Op, ret: Option<Ret>) -> (u32, bool) {
        let next = self.classes.len() as u32;
        let class = *self.known.entry((op, ret)).or_insert_with_key(|key| {
            self.classes.push(key.clone());
            next
        });
        (class, class == next)
    }

    /// How many classes and states it keeps.
    pub(super) fn len(&self) -> usize {
        self.classes.len() + self.states.list.len()
    }

    /// Forgets everything but these states and classes. Gives the new numbers of both; the start keeps its own.
    pub(super) fn forget(
        &mut self,
        states: &[StateId],
        classes: &[u32],
    ) -> (FxHashMap<StateId, StateId>, FxHashMap<u32, u32>) {
        let mut next = Growing::new(self.model.clone());
        let renumbered = |state: &StateId| {
            (*state, next.states.intern(&self.model, self.states.list[*state as usize].clone()))
        };
        let states = states.iter().map(renumbered).collect();
        let kept = |class: &u32| {
            let (op, ret) = self.classes[*class as usize].clone();
            (*class, next.class(op, ret).0)
        };
        let classes = classes.iter().map(kept).collect();
        *self = next;
        (states, classes)
    }
}

impl<M: Model> Space for Growing<M> {
    fn start(&self) -> StateId {
        0
    }

    fn step(&mut self, state: StateId, class: u32) -> StateId {
        let (op, ret) = &self.classes[class as usize];
        self.states.step(&self.model, state, class, (op, ret.as_ref()))
    }

    fn bytes(&self) -> u64 {
        self.states.bytes()
    }

    fn tell(&self, state: StateId) -> (String, Json) {
        self.states.tell(&self.model, state)
    }
}
