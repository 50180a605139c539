//! Which operations may be left out without changing the verdict, and why.
//!
//! ```text
//! p0  |- w 5 -|
//! p1     |---- w 6 ?                 nobody ever sees a 6: whether it happened makes no difference
//! p2            |- r -> 5 -|
//! ```
//!
//! Deliberately not a heuristic: everything here is a theorem about the [`Effect`]s, with its proof.
//!
//! # Lemma
//! Let `H` be a history, `D` a set of its operations, each of which is an `Observe`, a `Set` or a `Swap`, and `R` the
//! rest. Let no operation of `R` *look at* a value that a `Set` or `Swap` of `D` leaves: `Observe(Some(v))` and
//! `Swap { from: v, .. }` look at `v`; `Observe(None)` and `Opaque` look at everything, so that there is none of them
//! in `R` unless `D` has nothing but observers. **If `H` is linearizable, then so is `R`.**
//!
//! *Proof.* Take a linearization `S` of `H` and strike out `D`; call what is left `S'`. Real time is respected, since
//! `S'` is in the order of `S`. If `D` has observers only, every state stays as it was. Else call a place of `S` *in
//! step* if the last operation before it that changed the state belongs to `R`, or if there is none. By induction along
//! `S`: at a place in step, `S` and `S'` are in the same state; so whatever of `R` comes there does in `S'` what it did
//! in `S`. At a place out of step, the state of `S` is a value `v` that `D` left. An operation of `R` at such a place
//! is not an observer and not a swap of known outcome, for it would be possible only if it looked at `v`. It may be a
//! swap of unknown outcome that did nothing, as `v` is not its `from`; leave it out of `S'`, which its outcome allows.
//! Or it is a `Set`: possible in every state, and from here on both are in step again. ∎
//!
//! # Use
//! * **Crashed operations** (`droppable`): let `D` be operations of unknown outcome. If `H` is linearizable, so is `R` by the
//!   lemma; if `R` is, so is `H`, since `D` need not have happened. The verdict stays the same, both ways.
//! * **Counterexamples** (`shrink`): by contraposition, if `R` is not linearizable, neither is `H`. A smaller history
//!   that is made in this way is evidence against the larger one. Leaving out just anything would not be: without its
//!   write every read is wrong.
//!
//! A failed compare-and-set that does not say what it found is an `Observe(None)`: it may be the only witness of a
//! crashed write, as in `w 1 | w 2 ? | cas 1->3 no`, which is linearizable thanks to the `w 2` that nobody read.

use rustc_hash::FxHashSet;

use crate::{Value, model::Effect};

/// The largest part of the wish to leave out (`wish[i]`) that the lemma allows.
///
/// Starts with the whole wish and takes operations back as long as the rest looks at what they leave. The rest only
/// grows, so this ends, and what is taken back is in no allowed subset of the wish.
pub(super) fn removable(effects: &[Effect<'_>], wish: &[bool]) -> Vec<bool> {
    let mut removed: Vec<bool> = effects
        .iter()
        .zip(wish)
        .map(|(effect, wished)| *wished && !matches!(effect, Effect::Opaque))
        .collect();
    let mut looked_at: FxHashSet<&Value> = FxHashSet::default();
    // How much of the list has been looked at: everything once, then what is taken back.
    let mut fresh: Vec<usize> = (0..effects.len()).filter(|&i| !removed[i]).collect();
    loop {
        let mut everything = false;
        for i in fresh.drain(..) {
            match effects[i] {
                Effect::Observe(Some(value)) | Effect::Swap { from: value, .. } => {
                    looked_at.insert(value);
                }
                Effect::Observe(None) | Effect::Opaque => everything = true,
                Effect::Set { .. } => {}
            }
        }
        for (i, effect) in effects.iter().enumerate() {
            let (Effect::Set { to } | Effect::Swap { to, .. }) = effect else { continue };
            if removed[i] && (everything || looked_at.contains(to)) {
                removed[i] = false;
                fresh.push(i);
            }
        }
        if fresh.is_empty() {
            return removed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_back_what_is_looked_at() {
        let v: Vec<Value> = (0..5i64).map(Value::from).collect();
        let effects = [
            Effect::Set { to: &v[1] },
            Effect::Swap { from: &v[1], to: &v[2] },
            Effect::Swap { from: &v[2], to: &v[3] },
            Effect::Set { to: &v[4] },
            Effect::Observe(Some(&v[2])),
        ];
        // The read of 2 needs the swap to 2, which needs the write of 1.
        assert_eq!(removable(&effects, &[true, true, true, true, false]), [false, false, true, true, false]);
        // Without the read everything may go.
        assert_eq!(removable(&effects, &[true; 5]), [true; 5]);
        // The last swap alone keeps the chain before it.
        assert_eq!(removable(&effects, &[true, true, false, true, true]), [false, false, false, true, true]);
    }

    #[test]
    fn a_witness_of_everything_keeps_every_write() {
        let one = Value::from(1);
        let effects =
            [Effect::Set { to: &one }, Effect::Observe(None), Effect::Observe(Some(&one)), Effect::Opaque];
        assert_eq!(removable(&effects, &[true; 4]), [false, true, true, false]);
        assert_eq!(removable(&effects[..3], &[true, false, true]), [false, false, true]);
        assert_eq!(removable(&effects[..3], &[true; 3]), [true; 3]);
    }
}
