//! The smallest part of an invalid history that is still invalid.
//!
//! ```text
//! 5000 operations ──> the prefix that ends with the impossible return ──> 3 operations
//!                     w 1    w 2    r -> 1
//! ```
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over whole operations, with one restriction that makes the result
//! *evidence*: only what the lemma of [`prune`](super::prune) allows is left out, so that the small history being invalid
//! proves the large one to be. (Without it every history shrinks to a read whose write was left out.) And whatever looks at a
//! value keeps a witness, the last operation that may have left it there, so that the small history speaks for itself.
//! Minimal means: no single further operation can be left out. Deliberately bounded by counted effort: it may end early
//! with a larger part, never with a wrong one.

use rustc_hash::FxHashMap;

use super::{
    calls::{Call, Calls, items},
    frontier::Sweep,
    outcome::{Outcome, Purse},
    prune::{Item, removable},
    space::{Memo, Space},
};
use crate::{
    Budget, Value,
    model::{Effect, Model},
};

/// The most trials.
const MAX_RUNS: usize = 1000;
/// The most steps for a trial before the first success; one that takes more counts as a failure to shrink.
const MAX_FIRST_STEPS: u64 = 2_000_000;
/// What a later trial may take in any case.
const MIN_STEPS: u64 = 10_000;
/// The most steps and looks at operations for all trials together.
const MAX_EFFORT: u64 = 20_000_000;
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

/// Makes `calls`, an invalid prefix that ends with the return of `last`, as small as it can. Gives the part that is left
/// and how many trials it took.
pub(super) fn shrink<'a, M: Model>(
    model: &M,
    mut calls: Vec<Call<'a>>,
    last: usize,
    budget: &Budget,
) -> (Vec<Call<'a>>, usize) {
    let mut shrinker = Shrinker { model, budget, runs: 0, effort: 0, best: None };
    // At first everything at once: a value from nowhere needs no company.
    let mut chunk = calls.len();
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

struct Shrinker<'m, 'b, M> {
    model: &'m M,
    budget: &'b Budget,
    runs: usize,
    effort: u64,
    /// How many steps the last success took.
    best: Option<u64>,
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
        self.effort += calls.len() as u64;
        let removed = with_witnesses(&items(self.model, calls), wish);
        if !removed.contains(&true) {
            return Trial::No;
        }
        let rest: Vec<Call<'a>> =
            calls.iter().zip(&removed).filter(|(_, removed)| !**removed).map(|(call, _)| *call).collect();
        self.runs += 1;
        let (laid, classes) = Calls::new(self.model, &rest);
        let mut space = Memo::new(self.model, &classes);
        // A part without its reads may be far harder than the whole; do not insist.
        let limit = self.best.map_or(MAX_FIRST_STEPS, |best| 2 * best + MIN_STEPS);
        let mut purse = Purse::new(limit, MAX_BYTES.min(self.budget.bytes()), self.budget);
        let outcome =
            Sweep::new(&laid, space.start()).map(|mut frontier| frontier.run(&mut space, &mut purse));
        self.effort += rest.len() as u64 + purse.spent();
        match outcome {
            Some(Outcome::Invalid(_)) => {
                self.best = Some(purse.spent());
                Trial::Smaller(rest)
            }
            _ => Trial::No,
        }
    }
}

/// What may be left out of the wish if everything that stays keeps its witness.
fn with_witnesses(items: &[Item<&Value>], wish: &[bool]) -> Vec<bool> {
    let witnesses = witnesses(items);
    let mut wish = wish.to_vec();
    loop {
        let removed = removable(items, &wish);
        let mut missed = false;
        for (i, witness) in witnesses.iter().enumerate() {
            if let Some(witness) = *witness
                && !removed[i]
                && removed[witness]
            {
                wish[witness] = false;
                missed = true;
            }
        }
        if !missed {
            return removed;
        }
    }
}

/// For everything that looks at one value: who left it, at the latest.
fn witnesses(items: &[Item<&Value>]) -> Vec<Option<usize>> {
    let mut writers: FxHashMap<&Value, Vec<(u64, usize)>> = FxHashMap::default();
    for (i, item) in items.iter().enumerate() {
        if let Effect::Set { to } | Effect::Swap { to, .. } = item.effect {
            writers.entry(to).or_default().push((item.call, i));
        }
    }
    writers.values_mut().for_each(|writers| writers.sort_unstable());
    let look = |item: &Item<&Value>| {
        let (Effect::Observe(Some(value)) | Effect::Swap { from: value, .. }) = item.effect else {
            return None;
        };
        let writers = writers.get(value)?;
        let end = item.ret.unwrap_or(u64::MAX);
        let later = writers.partition_point(|(call, _)| *call <= end);
        later.checked_sub(1).map(|last| writers[last].1)
    };
    items.iter().map(look).collect()
}
