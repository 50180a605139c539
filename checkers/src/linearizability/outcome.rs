//! What a search comes to, and what it may spend on the way.
//!
//! ```text
//! run(purse) -> Valid | Invalid(failure) | Paused        the purse is empty, fill it and call again
//!                                        | GaveUp(why)   and never will know
//! ```
//!
//! Effort is counted in steps of the search, not in time: the same history takes the same number of steps everywhere.

use super::space::StateId;
use crate::Budget;

/// How a search ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// There is a linearization.
    Valid,
    /// There is none.
    Invalid(Failure),
    /// The steps are used up; there may be more another time.
    Paused,
    /// Out of memory, or cancelled.
    GaveUp(GaveUp),
}

/// Why a search ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GaveUp {
    Cancelled,
    OutOfMemory,
}

/// A state of the search just before the return that cannot be.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) state: StateId,
    /// Open operations of known outcome that have not taken effect in it.
    pub(super) pending: Vec<u32>,
}

/// Where it becomes certain that there is no linearization.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The place of the first return that cannot be, among the steps: everything before is linearizable.
    pub(super) at: usize,
    /// What was possible just before it; one of each state, at most [`Failure::MAX_CONFIGS`].
    pub(super) configs: Vec<Config>,
    /// Whether there were more.
    pub(super) more: bool,
}

impl Failure {
    pub(super) const MAX_CONFIGS: usize = 16;

    pub(super) fn new(at: usize, configs: impl Iterator<Item = Config>) -> Self {
        let mut failure = Failure { at, configs: Vec::new(), more: false };
        for config in configs {
            failure.add(config);
        }
        failure
    }

    pub(super) fn add(&mut self, config: Config) {
        if self.configs.iter().any(|known| known.state == config.state) {
            return;
        }
        if self.configs.len() < Self::MAX_CONFIGS {
            self.configs.push(config);
        } else {
            self.more = true;
        }
    }
}

/// Steps to spend, and a look at the budget now and then.
pub(super) struct Purse<'a> {
    steps: u64,
    spent: u64,
    next_look: u64,
    next_weighing: u64,
    max_bytes: u64,
    budget: &'a Budget,
}

impl<'a> Purse<'a> {
    /// A purse of so many steps; `max_bytes` bounds what this search holds at once.
    pub(super) fn new(steps: u64, max_bytes: u64, budget: &'a Budget) -> Self {
        Purse { steps, spent: 0, next_look: 0, next_weighing: 0, max_bytes, budget }
    }

    pub(super) fn spent(&self) -> u64 {
        self.spent
    }

    /// Pays; says so when the search must end.
    pub(super) fn spend(&mut self, steps: u64) -> Option<Outcome> {
        self.spent += steps;
        if self.spent >= self.next_look {
            self.next_look = self.spent + 4096;
            if self.budget.is_cancelled() {
                return Some(Outcome::GaveUp(GaveUp::Cancelled));
            }
        }
        (self.spent > self.steps).then_some(Outcome::Paused)
    }

    /// Weighs the search every now and then.
    pub(super) fn check_bytes(&mut self, bytes: impl FnOnce() -> u64) -> Option<Outcome> {
        if self.spent < self.next_weighing {
            return None;
        }
        self.next_weighing = self.spent + 1024;
        (bytes() > self.max_bytes).then_some(Outcome::GaveUp(GaveUp::OutOfMemory))
    }
}
