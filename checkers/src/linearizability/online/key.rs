//! One key while the run goes on.
//!
//! ```text
//! waiting   invoke w 5 (open)   invoke r   return r        nothing moves: nobody knows yet whether the write failed
//! waiting   invoke w 5 (ok)     invoke r   return r …      now everything before the present can be looked at
//! ```
//!
//! Events are looked at in the order of time; at equal times invocations come first, so that the present has to be over before it is
//! looked at. Deliberately without a clock: the present is the time of the newest event.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::super::{
    frontier::{Frontier, MAX_SLOTS},
    outcome::{GaveUp, Outcome, Purse},
    space::{Growing, Space},
};
use crate::{
    Budget, Op, OpOutcome, Operation,
    model::{Effect, Model},
};

/// The most kinds of operations of unknown outcome on one key.
pub(super) const MAX_CRASHED: usize = 256;
/// The most events that wait behind an operation that does not end.
pub(super) const MAX_WAITING: usize = 100_000;
/// The most steps that one return may take.
const MAX_STEPS: u64 = 5_000_000;
/// How many classes, states and tables are kept at least before some are forgotten.
const MIN_FORGOTTEN: usize = 1024;

/// Why a key is not watched any more.
pub(super) enum Ended {
    /// This return cannot be; these are the states that were possible just before it.
    Invalid {
        operation: Box<Operation>,
        states: Vec<String>,
    },
    Unknown(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Invoke,
    Return,
}

/// What there is to know of a key that is watched.
struct Watched<M: Model> {
    space: Growing<M>,
    frontier: Frontier,
    /// Time, what, and the id of the operation.
    waiting: VecDeque<(u64, Step, usize)>,
    /// Operations whose outcome is known, and that have not been looked at to the end; with the slot.
    known: FxHashMap<usize, (Operation, u32)>,
    /// How many operations nobody knows the outcome of yet.
    open: usize,
    free: Vec<u32>,
    slots: u32,
    /// The crash class of a class.
    crash_of: FxHashMap<u32, u32>,
    /// How much was kept after something was forgotten for the last time.
    kept: usize,
}

/// A key.
pub(super) struct Live<M: Model> {
    model: M,
    /// `None` once it is decided.
    watched: Option<Box<Watched<M>>>,
    /// When it was last touched, in operations.
    pub(super) touched: u64,
}

impl<M: Model> Live<M> {
    pub(super) fn new(model: M) -> Self {
        let space = Growing::new(model.clone());
        let frontier = Frontier::new(space.start());
        let watched = Watched {
            space,
            frontier,
            waiting: VecDeque::new(),
            known: FxHashMap::default(),
            open: 0,
            free: Vec::new(),
            slots: 0,
            crash_of: FxHashMap::default(),
            kept: 0,
        };
        Live { model, watched: Some(Box::new(watched)), touched: 0 }
    }

    /// From here on nothing is said of it.
    pub(super) fn end(&mut self) {
        self.watched = None;
    }

    pub(super) fn waiting(&self) -> usize {
        self.watched.as_ref().map_or(0, |watched| watched.waiting.len())
    }

    pub(super) fn largest(&self) -> usize {
        self.watched.as_ref().map_or(0, |watched| watched.frontier.largest)
    }

    /// How much is kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.watched.as_ref().map_or(0, |watched| {
            watched.space.len() + watched.frontier.past() + watched.waiting.len() + watched.known.len()
        })
    }

    pub(super) fn has_open(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.open > 0)
    }

    pub(super) fn invoke(&mut self, id: usize, time: u64) -> Option<Ended> {
        let watched = self.watched.as_mut()?;
        watched.open += 1;
        // Before the returns of the same time.
        let returned = watched.waiting.iter().rev();
        let returned = returned.take_while(|(at, step, _)| *at == time && *step == Step::Return).count();
        let place = watched.waiting.len() - returned;
        watched.waiting.insert(place, (time, Step::Invoke, id));
        if watched.waiting.len() > MAX_WAITING {
            self.watched = None;
            return Some(Ended::Unknown(format!(
                "more than {MAX_WAITING} events came while one operation was open"
            )));
        }
        None
    }

    pub(super) fn complete(&mut self, operation: Operation, now: u64, budget: &Budget) -> Option<Ended> {
        let watched = self.watched.as_mut()?;
        watched.open -= 1;
        if let Some(time) = operation.ret {
            watched.waiting.push_back((time, Step::Return, operation.id));
        }
        watched.known.insert(operation.id, (operation, u32::MAX));
        self.advance(now, budget)
    }

    /// Looks at everything before `now` of which it is known what it is.
    pub(super) fn advance(&mut self, now: u64, budget: &Budget) -> Option<Ended> {
        let watched = self.watched.as_mut()?;
        let ended = watched.advance(&self.model, now, budget);
        if ended.is_some() {
            self.watched = None;
        }
        ended
    }
}

impl<M: Model> Watched<M> {
    fn advance(&mut self, model: &M, now: u64, budget: &Budget) -> Option<Ended> {
        while let Some(&(time, step, id)) = self.waiting.front() {
            if time >= now && now != u64::MAX || step == Step::Invoke && !self.known.contains_key(&id) {
                return None;
            }
            self.waiting.pop_front();
            let ended = match step {
                Step::Invoke => self.invoke(model, id),
                Step::Return => self.ret(id, budget),
            };
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    fn invoke(&mut self, model: &M, id: usize) -> Option<Ended> {
        let (operation, slot) = self.known.get_mut(&id)?;
        let ret = match &operation.outcome {
            OpOutcome::Fail => {
                self.known.remove(&id);
                return None;
            }
            OpOutcome::Ok(ret) => Some(ret),
            OpOutcome::Info => None,
        };
        if let Err(reason) = model.fit(&[(&operation.op, ret)]) {
            return Some(Ended::Unknown(reason));
        }
        if let (Op::Append { .. }, "kv") = (&operation.op, model.name()) {
            let reason = "what an append makes of an absent key shows only when all of the history is known";
            return Some(Ended::Unknown(reason.into()));
        }
        let effect = model.effect(&operation.op, ret);
        let (sets, observer) = (matches!(effect, Effect::Set { .. }), matches!(effect, Effect::Observe(_)));
        if ret.is_none() && observer {
            self.known.remove(&id);
            return None;
        }
        let (class, new) = self.space.class(operation.op.clone(), ret.cloned());
        if new {
            self.frontier.add_class(sets);
        }
        if ret.is_none() {
            self.known.remove(&id);
            let next = self.crash_of.len() as u32;
            let crash = *self.crash_of.entry(class).or_insert(next);
            if crash == next {
                if self.crash_of.len() > MAX_CRASHED {
                    return Some(Ended::Unknown(format!(
                        "more than {MAX_CRASHED} different operations are of unknown outcome"
                    )));
                }
                self.frontier.add_crash_class(class);
            }
            self.frontier.crash(crash);
            return None;
        }
        *slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        if *slot >= MAX_SLOTS {
            return Some(Ended::Unknown(format!("more than {MAX_SLOTS} operations were open at once")));
        }
        self.frontier.invoke(&mut self.space, *slot, class, observer);
        None
    }

    fn ret(&mut self, id: usize, budget: &Budget) -> Option<Ended> {
        let (operation, slot) = self.known.remove(&id)?;
        let mut purse = Purse::new(MAX_STEPS, budget.bytes(), budget);
        match self.frontier.ret(&mut self.space, slot, &mut purse) {
            None => {}
            Some(Outcome::GaveUp(GaveUp::Cancelled)) => return Some(Ended::Unknown("cancelled".into())),
            Some(_) => {
                return Some(Ended::Unknown(format!(
                    "too much was possible at once: {} states and orders",
                    self.frontier.largest
                )));
            }
        }
        if self.frontier.is_empty() {
            let mut states: Vec<String> =
                self.frontier.before().map(|(state, _)| self.space.tell(state).0).collect();
            states.sort();
            states.dedup();
            return Some(Ended::Invalid { operation: Box::new(operation), states });
        }
        self.free.push(slot);
        self.forget();
        None
    }

    /// Forgets what is settled, now and then.
    fn forget(&mut self) {
        if self.space.len() + self.frontier.past() < MIN_FORGOTTEN + 2 * self.kept {
            return;
        }
        let (states, classes) = self.frontier.alive();
        let (states, classes) = self.space.forget(&states, &classes);
        self.frontier.renumber(&states, &classes);
        self.crash_of = self.crash_of.iter().map(|(class, crash)| (classes[class], *crash)).collect();
        self.kept = self.space.len() + self.frontier.past();
    }
}
