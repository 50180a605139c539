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
    calls::{Call, Calls, Classes, Entry, Step, intern, items},
    frontier::Sweep,
    outcome::{Outcome, Purse},
    prune::{Item, removable},
    space::{Memo, Space},
};
use crate::{
    Budget,
    model::{Effect, Model},
};

/// The smallest part that is tried first: so many of the last operations.
const NEAR: usize = 4;
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
    calls: Vec<Call<'a>>,
    last: usize,
    budget: &Budget,
) -> (Vec<Call<'a>>, usize) {
    // Values and classes become numbers once, not in every trial.
    let (mut classes, mut known) = (Classes::new(), FxHashMap::default());
    let (mut values, mut numbers) = (Vec::new(), FxHashMap::default());
    let entries: Vec<Entry<u32>> = items(model, &calls)
        .into_iter()
        .zip(&calls)
        .map(|(item, call)| Entry {
            item: Item {
                effect: item.effect.map(|value| intern(&mut numbers, &mut values, value)),
                call: item.call,
                ret: item.ret,
            },
            class: intern(&mut known, &mut classes, (call.op, call.ret)),
        })
        .collect();
    let space = Memo::new(model, &classes);
    let mut shrinker = Shrinker {
        model,
        classes: &classes,
        calls: &calls,
        entries: &entries,
        space,
        budget,
        runs: 0,
        effort: 0,
        best: None,
        witnesses: None,
    };
    let mut kept: Vec<u32> = (0..calls.len() as u32).collect();
    // What is wrong with a return mostly happened shortly before it, and small parts are quickly tried.
    let mut near = NEAR;
    let whole = kept.len();
    while near < kept.len() / 2 {
        let far = kept.len() - near;
        let wish: Vec<bool> =
            (0..kept.len()).map(|i| i < far && calls[kept[i] as usize].id != last).collect();
        if let Trial::Smaller(rest) = shrinker.without(&kept, &wish) {
            kept = rest;
            break;
        }
        near *= 2;
    }
    // Else everything at once: a value from nowhere needs no company.
    let mut chunk = if kept.len() < whole { kept.len().div_ceil(2) } else { whole };
    'shrinking: loop {
        let mut smaller = false;
        // Backwards: readers come after writers, and a write can go only when its readers are gone.
        let mut end = kept.len();
        while end > 0 {
            let start = end.saturating_sub(chunk);
            let wish: Vec<bool> = (0..kept.len())
                .map(|i| (start..end).contains(&i) && calls[kept[i] as usize].id != last)
                .collect();
            end = start;
            match shrinker.without(&kept, &wish) {
                Trial::Smaller(rest) => {
                    kept = rest;
                    smaller = true;
                }
                Trial::No => {}
                Trial::EffortSpent => break 'shrinking,
            }
        }
        if chunk == 1 && !smaller {
            break;
        }
        chunk = chunk.div_ceil(2).min(kept.len()).max(1);
    }
    let runs = shrinker.runs;
    (kept.into_iter().map(|at| calls[at as usize]).collect(), runs)
}

/// What is kept, and its witnesses.
type Kept = (Vec<Item<u32>>, Vec<Option<usize>>);

struct Shrinker<'s, 'a, M: Model> {
    model: &'s M,
    classes: &'s Classes<'a>,
    calls: &'s [Call<'a>],
    entries: &'s [Entry<u32>],
    /// What was found out about the model serves all trials.
    space: Memo<'s, M>,
    budget: &'s Budget,
    runs: usize,
    effort: u64,
    /// How many steps the last success took.
    best: Option<u64>,
    /// The same until a trial succeeds.
    witnesses: Option<Kept>,
}

enum Trial {
    /// Still invalid without it.
    Smaller(Vec<u32>),
    /// Valid without it, or cannot be left out, or too hard to tell.
    No,
    EffortSpent,
}

impl<'s, 'a: 's, M: Model> Shrinker<'s, 'a, M> {
    /// Leaves out what is wished of those that were kept so far.
    fn without(&mut self, kept: &[u32], wish: &[bool]) -> Trial {
        if self.runs >= MAX_RUNS || self.effort >= MAX_EFFORT || self.budget.is_cancelled() {
            return Trial::EffortSpent;
        }
        self.effort += kept.len() as u64;
        let (items, witnesses) = self.witnesses.get_or_insert_with(|| {
            let items: Vec<Item<u32>> = kept.iter().map(|at| self.entries[*at as usize].item).collect();
            let witnesses = witnesses(&items);
            (items, witnesses)
        });
        let removed = with_witnesses(items, witnesses, wish);
        if !removed.contains(&true) {
            return Trial::No;
        }
        let stays = kept.iter().zip(&removed).filter(|(_, removed)| !**removed);
        let rest: Vec<u32> = stays.map(|(at, _)| *at).collect();
        let entries: Vec<Entry<u32>> = rest.iter().map(|at| self.entries[*at as usize]).collect();
        self.runs += 1;
        let index = |step: Step| match step {
            Step::Invoke(source) => self.calls[rest[source as usize] as usize].called.1,
            Step::Return(source) => {
                self.calls[rest[source as usize] as usize].returned.map_or(u64::MAX, |(_, index)| index)
            }
        };
        let laid = Calls::lay_out(&entries, self.classes.len(), index);
        if self.space.bytes() > MAX_BYTES / 2 {
            self.space = Memo::new(self.model, self.classes);
        }
        // A part without its reads may be far harder than the whole; do not insist.
        let limit = self.best.map_or(MAX_FIRST_STEPS, |best| 2 * best + MIN_STEPS);
        let mut purse = Purse::new(limit, MAX_BYTES.min(self.budget.bytes()), self.budget);
        let outcome =
            Sweep::new(&laid, self.space.start()).map(|mut sweep| sweep.run(&mut self.space, &mut purse));
        self.effort += rest.len() as u64 + purse.spent();
        match outcome {
            Some(Outcome::Invalid(_)) => {
                self.best = Some(purse.spent());
                self.witnesses = None;
                Trial::Smaller(rest)
            }
            _ => Trial::No,
        }
    }
}

/// What may be left out of the wish if everything that stays keeps its witness.
fn with_witnesses<V: Copy + Ord>(items: &[Item<V>], witnesses: &[Option<usize>], wish: &[bool]) -> Vec<bool> {
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
fn witnesses<V: Copy + Ord>(items: &[Item<V>]) -> Vec<Option<usize>> {
    let mut writers: Vec<(V, u64, usize)> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        if let Effect::Set { to } | Effect::Swap { to, .. } = item.effect {
            writers.push((to, item.call, i));
        }
    }
    writers.sort_unstable();
    let look = |item: &Item<V>| {
        let (Effect::Observe(Some(value)) | Effect::Swap { from: value, .. }) = item.effect else {
            return None;
        };
        let end = item.ret.unwrap_or(u64::MAX);
        let later = writers.partition_point(|(to, call, _)| (*to, *call) <= (value, end));
        later.checked_sub(1).map(|last| writers[last]).filter(|last| last.0 == value).map(|last| last.2)
    };
    items.iter().map(look).collect()
}
