//! Just-in-time linearization: all states the system could be in, carried forward through time.
//!
//! ```text
//!            w 5 ...............          frontier: { (nil; nothing), (5; w 5) }  only what is open is remembered
//!               w 6 ...........
//!                    r -> 6  |            on the return of the read keep what has it: { (6; w 6), (6; w 5, w 6) }
//! ```
//!
//! A configuration is a state, the open operations that have already taken effect, and how many of each crash class have.
//! Nothing happens until an operation returns; then every order of open operations that ends with it is tried. An empty
//! frontier is a proof of guilt, and the first return that empties it ends the shortest prefix that is not linearizable.
//! From Lowe, *Testing for linearizability*, 2017, section 4 (there "just-in-time linearization").
//!
//! Four prunes keep the frontier small:
//! * **observers at once**: an operation that never changes the state and is possible now takes effect now. In any
//!   continuation it can be moved here, and everything else stays possible.
//! * **no idle crashes**: what a crashed operation leaves must be looked at by the next to take effect, else it need not
//!   have happened ([`prune`](super::prune)). Of all linearizations take one with the fewest crashed operations.
//! * **dominance**: of two configurations equal but for crash classes, the one that has used up no more of each class can
//!   do whatever the other can.
//! * **crash classes**: equal operations of unknown outcome are one operation with a count ([`Calls`]), and one that
//!   would leave the state as it is is never worth using up.
//!
//! Memory is that of the frontier, not of the history. Deliberately no fallback: when the frontier grows too large, the
//! depth-first search ([`Wgl`](super::wgl::Wgl)) may still be lucky.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::{
    calls::{Calls, Step},
    outcome::{Config, Failure, Outcome, Purse},
    space::{IMPOSSIBLE, Space, StateId},
    usage::{NONE_USED, Usage, UsageId},
};

/// The most operations that may be open at once, not counting those of unknown outcome: one bit each.
pub(super) const MAX_SLOTS: u32 = u128::BITS;

/// One possibility. The mask has a bit for each open operation that has taken effect, by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Possibility {
    state: StateId,
    used: UsageId,
    mask: u128,
    /// A crashed operation was the last to change the state, and nobody has looked yet. Never between events.
    idle: bool,
}

/// A set of possibilities without dominated ones, in the order in which they were found.
#[derive(Default)]
struct Found {
    list: Vec<Possibility>,
    /// Dominated since it was found.
    dead: Vec<bool>,
    /// The next with the same state and mask, or `u32::MAX`.
    next: Vec<u32>,
    first: FxHashMap<(StateId, bool, u128), u32>,
}

impl Found {
    fn clear(&mut self) {
        self.list.clear();
        self.dead.clear();
        self.next.clear();
        // Clearing costs as much as the map is large: do not drag one burst through a long history.
        if self.first.capacity() > 1024 && self.first.len() * 16 < self.first.capacity() {
            self.first = FxHashMap::default();
        } else {
            self.first.clear();
        }
    }

    /// Adds it unless it is known or dominated. Gives the number of comparisons, as a cost.
    fn insert(&mut self, new: Possibility, usage: &Usage) -> u64 {
        let at = self.list.len() as u32;
        let mut cost = 1;
        let mut next = u32::MAX;
        match self.first.entry((new.state, new.idle, new.mask)) {
            Entry::Vacant(first) => {
                first.insert(at);
            }
            Entry::Occupied(mut first) => {
                next = *first.get();
                let mut i = next;
                while i != u32::MAX {
                    let known = self.list[i as usize];
                    if !self.dead[i as usize] {
                        cost += 1;
                        if usage.at_most(known.used, new.used) {
                            return cost;
                        }
                        self.dead[i as usize] = usage.at_most(new.used, known.used);
                    }
                    i = self.next[i as usize];
                }
                first.insert(at);
            }
        }
        self.list.push(new);
        self.dead.push(false);
        self.next.push(next);
        cost
    }

    fn bytes(&self) -> u64 {
        let entry = size_of::<Possibility>() + size_of::<u32>() + size_of::<bool>();
        let map = size_of::<((StateId, bool, u128), u32)>() + 1;
        (self.list.capacity() * entry + self.first.capacity() * map) as u64
    }
}

/// All that is possible at a moment.
pub(super) struct Frontier {
    possible: Vec<Possibility>,
    /// Of each class: whether it is possible in every state and looks at none.
    sets: Vec<bool>,
    /// The class of the operation in each slot.
    class_at: Vec<u32>,
    open_observers: u128,
    open_changers: u128,
    /// Of each crash class: its class, and how many of it have been called so far.
    crashed: Vec<(u32, u32)>,
    usage: Usage,
    waiting: Found,
    done: Found,
    /// The most possibilities there were at once.
    pub(super) largest: usize,
}

impl Frontier {
    /// Nothing has been called yet.
    pub(super) fn new(start: StateId) -> Self {
        Frontier {
            possible: vec![Possibility { state: start, used: NONE_USED, mask: 0, idle: false }],
            sets: Vec::new(),
            class_at: Vec::new(),
            open_observers: 0,
            open_changers: 0,
            crashed: Vec::new(),
            usage: Usage::new(),
            waiting: Found::default(),
            done: Found::default(),
            largest: 1,
        }
    }

    /// Makes a class known: they are numbered from 0.
    pub(super) fn add_class(&mut self, sets: bool) {
        self.sets.push(sets);
    }

    /// Makes a crash class known, likewise.
    pub(super) fn add_crash_class(&mut self, class: u32) {
        self.crashed.push((class, 0));
    }

    /// An operation of a crash class is called.
    pub(super) fn crash(&mut self, crash: u32) {
        self.crashed[crash as usize].1 += 1;
    }

    /// An operation that will return is called, in a slot below [`MAX_SLOTS`] that nobody else is in.
    pub(super) fn invoke<S: Space>(&mut self, space: &mut S, slot: u32, class: u32, observer: bool) {
        let bit = 1u128 << slot;
        if self.class_at.len() <= slot as usize {
            self.class_at.resize(slot as usize + 1, 0);
        }
        self.class_at[slot as usize] = class;
        if !observer {
            self.open_changers |= bit;
            return;
        }
        self.open_observers |= bit;
        // Possibilities of one state all get the bit or none does, so they stay different.
        for possibility in &mut self.possible {
            if space.step(possibility.state, class) != IMPOSSIBLE {
                possibility.mask |= bit;
            }
        }
    }

    /// The operation in a slot returns. Afterwards what is possible may be nothing. An outcome means that there was no end to it:
    /// then nothing has changed, and it may be tried again.
    pub(super) fn ret<S: Space>(
        &mut self,
        space: &mut S,
        slot: u32,
        purse: &mut Purse<'_>,
    ) -> Option<Outcome> {
        let bit = 1u128 << slot;
        if self.possible.iter().any(|possibility| possibility.mask & bit == 0) {
            if let Some(end) = self.require(space, bit, purse) {
                return Some(end);
            }
            if self.possible.is_empty() {
                return None;
            }
        }
        for possibility in &mut self.possible {
            possibility.mask &= !bit;
        }
        self.open_observers &= !bit;
        self.open_changers &= !bit;
        None
    }

    /// Whether nothing is possible any more.
    pub(super) fn is_empty(&self) -> bool {
        self.possible.is_empty()
    }

    /// How much it keeps of what is past.
    pub(super) fn past(&self) -> usize {
        self.usage.len()
    }

    /// The states and classes that still matter.
    pub(super) fn alive(&self) -> (Vec<StateId>, Vec<u32>) {
        let open = self.open_changers | self.open_observers;
        let in_slots = (0..).zip(&self.class_at).filter(|(slot, _)| open >> slot & 1 == 1);
        let classes = in_slots.map(|(_, class)| *class).chain(self.crashed.iter().map(|(class, _)| *class));
        (self.possible.iter().map(|possibility| possibility.state).collect(), classes.collect())
    }

    /// Gives new numbers to the states and classes that still matter, and forgets the others.
    pub(super) fn renumber(&mut self, states: &FxHashMap<StateId, StateId>, classes: &FxHashMap<u32, u32>) {
        let mut sets = vec![false; classes.len()];
        for (old, new) in classes {
            sets[*new as usize] = self.sets[*old as usize];
        }
        self.sets = sets;
        for class in self.class_at.iter_mut().chain(self.crashed.iter_mut().map(|(class, _)| class)) {
            // Of a slot that nobody is in, it is no matter.
            *class = classes.get(class).copied().unwrap_or(0);
        }
        let old = std::mem::replace(&mut self.usage, Usage::new());
        for possibility in &mut self.possible {
            possibility.state = states[&possibility.state];
            let counts = old.counts(possibility.used).iter().flat_map(|(crash, n)| (0..*n).map(|_| *crash));
            possibility.used = counts.fold(NONE_USED, |used, crash| self.usage.one_more(used, crash));
        }
        self.waiting = Found::default();
        self.done = Found::default();
    }

    /// After a return that cannot be: the states just before it, and the slots still pending in each.
    pub(super) fn before(&self) -> impl Iterator<Item = (StateId, impl Iterator<Item = u32> + use<>)> {
        let open = self.open_changers | self.open_observers;
        self.waiting.list.iter().map(move |possibility| {
            let pending = open & !possibility.mask;
            (possibility.state, (0..MAX_SLOTS).filter(move |slot| pending >> slot & 1 == 1))
        })
    }

    /// Lets operations take effect until the one with `bit` has. Leaves the frontier as it was if it comes to an end,
    /// so that it can be tried again; else replaces it.
    fn require<S: Space>(&mut self, space: &mut S, bit: u128, purse: &mut Purse<'_>) -> Option<Outcome> {
        self.waiting.clear();
        self.done.clear();
        for &possibility in &self.possible {
            let set = if possibility.mask & bit != 0 { &mut self.done } else { &mut self.waiting };
            set.insert(possibility, &self.usage);
        }
        let mut at = 0;
        while at < self.waiting.list.len() {
            let from = self.waiting.list[at];
            let alive = !self.waiting.dead[at];
            at += 1;
            if !alive {
                continue;
            }
            let mut cost = 1 + self.crashed.len() as u64 / 8;
            let mut open = self.open_changers & !from.mask;
            while open != 0 {
                let slot = open.trailing_zeros();
                open &= open - 1;
                let class = self.class_at[slot as usize];
                if from.idle && self.sets[class as usize] {
                    continue;
                }
                let state = space.step(from.state, class);
                if state != IMPOSSIBLE {
                    let mask = from.mask | 1 << slot;
                    cost += self.found(space, Possibility { state, mask, idle: false, ..from }, bit);
                }
            }
            for crash in 0..self.crashed.len() {
                let (class, called) = self.crashed[crash];
                if from.idle && self.sets[class as usize] {
                    continue;
                }
                if called > self.usage.count(from.used, crash as u32) {
                    let state = space.step(from.state, class);
                    if state != IMPOSSIBLE && state != from.state {
                        let used = self.usage.one_more(from.used, crash as u32);
                        cost += self.found(space, Possibility { state, used, idle: true, ..from }, bit);
                    }
                }
            }
            let in_use = || self.waiting.bytes() + self.done.bytes() + self.usage.bytes() + space.bytes();
            if let Some(end) = purse.spend(cost).or_else(|| purse.check_bytes(in_use)) {
                return Some(end);
            }
        }
        self.largest = self.largest.max(self.done.list.len() + self.waiting.list.len());
        self.possible.clear();
        self.possible.extend(
            self.done
                .list
                .iter()
                .zip(&self.done.dead)
                .filter(|(_, dead)| !**dead)
                .map(|(possibility, _)| *possibility),
        );
        None
    }

    /// Lets the open observers see the new state, and files the possibility.
    fn found<S: Space>(&mut self, space: &mut S, mut new: Possibility, bit: u128) -> u64 {
        let mut open = self.open_observers & !new.mask;
        while open != 0 {
            let slot = open.trailing_zeros();
            open &= open - 1;
            if space.step(new.state, self.class_at[slot as usize]) != IMPOSSIBLE {
                new.mask |= 1 << slot;
                new.idle = false;
            }
        }
        let set = if new.mask & bit != 0 { &mut self.done } else { &mut self.waiting };
        set.insert(new, &self.usage)
    }
}

/// A search through all calls of a key.
pub(super) struct Sweep<'a> {
    calls: &'a Calls,
    at: usize,
    pub(super) frontier: Frontier,
}

impl<'a> Sweep<'a> {
    /// `None` if more operations are open at once than there are bits.
    pub(super) fn new(calls: &'a Calls, start: StateId) -> Option<Self> {
        (calls.slots <= MAX_SLOTS).then(|| {
            let mut frontier = Frontier::new(start);
            frontier.sets.clone_from(&calls.sets);
            frontier.crashed.extend(calls.crashes.iter().map(|(class, _)| (*class, 0)));
            Sweep { calls, at: 0, frontier }
        })
    }

    /// Goes on until the end or until the purse is empty. May be called again with a fuller purse.
    pub(super) fn run<S: Space>(&mut self, space: &mut S, purse: &mut Purse<'_>) -> Outcome {
        while let Some(step) = self.calls.steps.get(self.at) {
            match *step {
                Step::Invoke(call) => {
                    let info = self.calls.infos[call as usize];
                    match info.crash {
                        Some(crash) => self.frontier.crash(crash),
                        None => self.frontier.invoke(space, info.slot, info.class, info.observer),
                    }
                }
                Step::Return(call) => {
                    let slot = self.calls.infos[call as usize].slot;
                    if let Some(end) = self.frontier.ret(space, slot, purse) {
                        return end;
                    }
                    if self.frontier.possible.is_empty() {
                        return Outcome::Invalid(self.failure());
                    }
                }
            }
            self.at += 1;
            if let Some(end) = purse.spend(1 + self.frontier.possible.len() as u64 / 8) {
                return end;
            }
        }
        Outcome::Valid
    }

    /// What was possible just before the return that is not.
    fn failure(&self) -> Failure {
        let mut call_at = vec![u32::MAX; self.calls.slots as usize];
        for step in &self.calls.steps[..self.at] {
            if let Step::Invoke(call) = *step
                && self.calls.infos[call as usize].crash.is_none()
            {
                call_at[self.calls.infos[call as usize].slot as usize] = call;
            }
        }
        let configs = self.frontier.before().map(|(state, pending)| Config {
            state,
            pending: pending.map(|slot| call_at[slot as usize]).collect(),
        });
        Failure::new(self.at, configs)
    }
}
