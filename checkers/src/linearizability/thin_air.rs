//! A value from nowhere: the cheapest proof of guilt, for when the engines gave up.
//!
//! ```text
//! w 1   w 2   w 3 ?   r -> 7        nothing ever left a 7: invalid, however hard the rest may be
//! ```
//!
//! By the lemma of [`prune`](super::prune): everything else may be left out, and the operation alone is impossible.
//! Deliberately only a last resort: an engine that finishes says more, above all which operation was the first to be
//! wrong.

use rustc_hash::FxHashSet;

use super::calls::{Call, items};
use crate::{
    Value,
    model::{Effect, Model},
};

/// The id of an operation that looked at a value which was never there.
pub(super) fn thin_air<M: Model>(model: &M, calls: &[Call<'_>]) -> Option<usize> {
    let items = items(model, calls);
    let mut left: FxHashSet<&Value> = FxHashSet::default();
    for item in &items {
        match item.effect {
            Effect::Set { to } | Effect::Swap { to, .. } => {
                left.insert(to);
            }
            Effect::Observe(_) => {}
            // It may have left anything.
            Effect::Opaque => return None,
        }
    }
    let initial = model.init();
    let impossible = |item: &super::prune::Item<&Value>, call: &Call<'_>| match item.effect {
        Effect::Observe(Some(value)) | Effect::Swap { from: value, .. } => {
            call.returned.is_some()
                && !left.contains(value)
                && model.step(&initial, call.op, call.ret).is_none()
        }
        _ => false,
    };
    items.iter().zip(calls).find(|(item, call)| impossible(item, call)).map(|(_, call)| call.id)
}
