//! The smallest part of an invalid history that is still invalid.
//!
//! ```text
//! 5000 operations ──> the prefix that ends with the impossible return ──> 3 operations
//!                     w 1    w 2    r -> 1
//! ```
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over whole operations, with one restriction that makes the result
//! *evidence*: only what the lemma of [`prune`](super::prune) allows is left out, so that the small history being invalid
//! proves the large one to be. (Without it every history shrinks to a read whose write was left out.)
//! Minimal means: no single further operation can be left out. Deliberately bounded by counted effort: it may end early
//! with a larger part, never with a wrong one.

use super::{
    calls::{Call, Calls},
    frontier::Frontier,
    outcome::{Outcome, Purse},
    prune::removable,
    space::Space,
};
use crate::{
    Budget,
    model::{Effect, Model},
};

/// The most trials.
const MAX_RUNS: usize = 1000;
/// The most steps for one trial; a trial that takes more counts as a failure to shrink.
const MAX_STEPS_EACH: u64 = 100_000;
/// The most steps and looks at operations for all trials together.
const MAX_EFFORT: u64 = 30_000_000;
/// The most memory for one trial.
const MAX_BYTES: u64 = 64 << 20;

/// The history up to the return of `last`: what was called later is gone; what returned later need not have taken effect,
/// but if it has, then with the answer that it got. (The search knows these answers too: without them another return might
/// be the first that cannot be.)
pub(super) fn prefix<'a, M: Model>(model: &M, calls: &[Call<'a>], last: usize) -> Vec<Call<'a>> {
    let end = calls.iter().find(|call| call.id == last).and_then(|call| call.returned);
    let Some((end_time, end_index)) = end else { return calls.to_vec() };
    calls
        .iter()
        .filter(|call| call.called.0 <= end_time)
        .filter_map(|call| match call.returned {
            Some(returned) if returned <= (end_time, end_index) => Some(*call),
            // An open observer can neither help nor hurt.
            _ if matches!(model.effect(call.op, call.ret), Effect::Observe(_)) => None,
            _ => Some(Call { returned: None, ..*call }),
        })
        .collect()
}

struct Shrinker<'m, 'b, M> {
    model: &'m M,
    budget: &'b Budget,
    runs: usize,
    effort: u64,
}

/// Makes `calls`, an invalid prefix that ends with the return of `last`, as small as it can. Gives the part that is left
/// and how many trials it took.
pub(super) fn shrink<'a, M: Model>(
    model: &M,
    mut calls: Vec<Call<'a>>,
    last: usize,
    budget: &Budget,
) -> (Vec<Call<'a>>, usize) {
    let mut shrinker = Shrinker { model, budget, runs: 0, effort: 0 };
    let mut chunk = calls.len().div_ceil(2);
    loop {
        let mut smaller = false;
        // Backwards: readers come after writers, and a write can go only when its readers are gone.
        let mut end = calls.len();
        while end > 0 {
            let start = end.saturating_sub(chunk);
            let wish: Vec<bool> =
                (0..calls.len()).map(|i| (start..end).contains(&i) && calls[i].id != last).collect();
            end = start;
            match shrinker.without(&calls, &wish) {
                Trial::Smaller(rest) => {
                    calls = rest;
                    smaller = true;
                }
                Trial::No => {}
                Trial::EffortSpent => return (calls, shrinker.runs),
            }
        }
        if chunk == 1 && !smaller {
            return (calls, shrinker.runs);
        }
        chunk = chunk.div_ceil(2).min(calls.len()).max(1);
    }
}

enum Trial<'a> {
    /// Still invalid without it.
    Smaller(Vec<Call<'a>>),
    /// Valid without it, or cannot be left out, or too hard to tell.
    No,
    EffortSpent,
}

impl<M: Model> Shrinker<'_, '_, M> {
    fn without<'a>(&mut self, calls: &[Call<'a>], wish: &[bool]) -> Trial<'a> {
        if self.runs >= MAX_RUNS || self.effort >= MAX_EFFORT || self.budget.is_cancelled() {
            return Trial::EffortSpent;
        }
        let effects: Vec<Effect<'_>> =
            calls.iter().map(|call| self.model.effect(call.op, call.ret)).collect();
        let removed = removable(&effects, wish);
        self.effort += calls.len() as u64;
        if !removed.contains(&true) {
            return Trial::No;
        }
        let rest: Vec<Call<'a>> =
            calls.iter().zip(&removed).filter(|(_, removed)| !**removed).map(|(call, _)| *call).collect();
        self.runs += 1;
        let laid = Calls::new(self.model, &rest);
        let mut space = Space::new(self.model, &laid);
        let mut purse = Purse::new(MAX_STEPS_EACH, MAX_BYTES.min(self.budget.bytes()), self.budget);
        let outcome = Frontier::new(&laid).map(|mut frontier| frontier.run(&mut space, &mut purse));
        self.effort += rest.len() as u64 + purse.spent();
        match outcome {
            Some(Outcome::Invalid(_)) => Trial::Smaller(rest),
            _ => Trial::No,
        }
    }
}
