//! Which operations may be left out without changing the verdict, and why.
//!
//! ```text
//! p0  |- w 5 -|           |- w 8 -|
//! p1     |---- w 6 ? -------------------------->     nobody ever sees a 6: whether it happened makes no difference
//! p2            |- r -> 5 -|          |- r -> 5 -|   wrong, and the first w 5 is no excuse: the w 8 came in between
//! ```
//!
//! Deliberately not a heuristic: everything here is a theorem about the [`Effect`]s, with its proof.
//!
//! # Words
//! An operation *precedes* another if it returned before the other was called. `Observe(Some(v))` and `Swap { from: v, .. }`
//! *look at* the value `v`; `Observe(None)` and `Opaque` look at every value. `Set { to: v }` and `Swap { to: v, .. }`
//! *leave* `v`; `Opaque` may leave any. A *setter* is, in a given order, a `Set`, a `Swap` that found its `from`, or an
//! `Opaque`.
//!
//! # Lemma
//! Let `H` be a history, `D` a set of its operations, and `R` the rest. For each `d` in `D` that may leave `v`, and each
//! `q` in `R` that looks at `v`, let either `q` precede `d`, or let there be a `Set` `s` in `R` such that `d` precedes `s`
//! and `s` precedes `q`. **If `H` is linearizable, then so is `R`.**
//!
//! *Proof.* Take a linearization `S` of `H` and strike out `D`; call what is left `S'`. Real time is respected, since `S'`
//! is in the order of `S`. Call a place of `S` *in step* if the last setter before it belongs to `R`, or if there is none.
//! By induction along `S`: at a place in step, `S` and `S'` are in the same state, so whatever of `R` comes there does in
//! `S'` what it did in `S`. At a place out of step, the last setter is some `d` of `D`, and the state of `S` is what it
//! left, say `v`. Let `q` of `R` come there. If it looked at `v`, then it does not precede `d`, which comes first in `S`; so
//! there is a `Set` between the two in real time, hence in `S`, and `d` would not be the last setter. So `q` does not look
//! at `v`, and there are two cases. It is a `Swap` from another value: then its outcome is unknown, it did nothing in `S`,
//! and it is left out of `S'`, which its outcome allows. Or it is a `Set`: possible in every state, and from here on `S`
//! and `S'` are in step again. ∎
//!
//! # Use
//! * **Crashed operations** ([`Calls`](super::calls::Calls)): let all of `D` be of unknown outcome. If `H` is linearizable, so
//!   is `R` by the lemma; if `R` is, so is `H`, since `D` need not have happened. The verdict is the same, both ways.
//! * **Counterexamples** ([`shrink`](super::shrink)): by contraposition, if `R` is not linearizable, neither is `H`. A smaller
//!   history that is made in this way is evidence against the larger one. Leaving out just anything would not be:
//!   without its write every read is wrong.
//! * **Idle crashes** (both engines): in a linearization, a crashed operation whose successor is a `Set` can be struck
//!   out of it: no place out of step has an operation. So one that has taken effect must be looked at next.
//!
//! A failed compare-and-set that does not say what it found is an `Observe(None)`: it may be the only witness of a crashed
//! write, as in `w 1 | w 2 ? | cas 1->3 no`, which is linearizable thanks to the `w 2` that nobody read.

use crate::model::Effect;

/// An operation as the lemma sees it. Values may be numbers: the lemma only compares them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<V> {
    pub(super) effect: Effect<V>,
    /// When it was called.
    pub(super) call: u64,
    /// When it returned; `None` if it never did.
    pub(super) ret: Option<u64>,
}

impl<V> Item<V> {
    fn end(&self) -> u64 {
        self.ret.unwrap_or(u64::MAX)
    }
}

/// A large part of the wish to leave out (`wish[i]`) that the lemma allows.
///
/// Starts with the whole wish, and takes operations back until the condition holds for what is left of it.
pub(super) fn removable<V: Copy + Ord>(items: &[Item<V>], wish: &[bool]) -> Vec<bool> {
    let mut removed = wish.to_vec();
    loop {
        let rest = Rest::new(items, &removed);
        let mut taken_back = false;
        for (item, removed) in items.iter().zip(&mut removed) {
            if *removed && !rest.allows(item) {
                *removed = false;
                taken_back = true;
            }
        }
        if !taken_back {
            return removed;
        }
    }
}

/// Intervals by what they are about, to be asked for an extreme of those beyond a point. One sorted list: delta debugging makes
/// thousands of these, and a map of lists would be a thousand small pieces of memory each time.
struct Beyond<V>(Vec<(V, u64, u64)>);

impl<V: Copy + Ord> Beyond<V> {
    /// From triples of (subject, place, value): afterwards [`least`](Self::least) answers for all places at or beyond a point.
    fn close(&mut self) {
        self.0.sort_unstable();
        let mut after: Option<(V, u64)> = None;
        for (subject, _, value) in self.0.iter_mut().rev() {
            if let Some((same, least)) = after
                && same == *subject
            {
                *value = least.min(*value);
            }
            after = Some((*subject, *value));
        }
    }

    /// The least value of those about `subject` whose place is at least `from`; `u64::MAX` if there is none.
    fn least(&self, subject: V, from: u64) -> u64 {
        let at = self.0.partition_point(|(about, place, _)| (*about, *place) < (subject, from));
        self.0.get(at).filter(|(about, ..)| *about == subject).map_or(u64::MAX, |(.., value)| *value)
    }
}

/// What is not left out.
struct Rest<V> {
    /// Of every `Set` that returned: call and return.
    sets: Beyond<()>,
    /// Of everything that looks at a value: return and call.
    looks: Beyond<V>,
    /// Of everything that looks at all values.
    looks_at_all: Beyond<()>,
    /// Of everything that looks at something.
    looks_at_any: Beyond<()>,
}

impl<V: Copy + Ord> Rest<V> {
    fn new(items: &[Item<V>], removed: &[bool]) -> Self {
        let mut rest = Rest {
            sets: Beyond(Vec::new()),
            looks: Beyond(Vec::new()),
            looks_at_all: Beyond(Vec::new()),
            looks_at_any: Beyond(Vec::new()),
        };
        // Most histories have nothing that could have left anything.
        let opaque = items.iter().any(|item| matches!(item.effect, Effect::Opaque));
        for (item, _) in items.iter().zip(removed).filter(|(_, removed)| !**removed) {
            let (end, call) = (item.end(), item.call);
            match item.effect {
                Effect::Set { .. } => {
                    rest.sets.0.extend(item.ret.map(|ret| ((), call, ret)));
                    continue;
                }
                Effect::Observe(Some(value)) | Effect::Swap { from: value, .. } => {
                    rest.looks.0.push((value, end, call));
                }
                Effect::Observe(None) | Effect::Opaque => rest.looks_at_all.0.push(((), end, call)),
            }
            if opaque {
                rest.looks_at_any.0.push(((), end, call));
            }
        }
        rest.sets.close();
        rest.looks.close();
        rest.looks_at_all.close();
        rest.looks_at_any.close();
        rest
    }

    /// The condition of the lemma for one operation that is left out.
    fn allows(&self, item: &Item<V>) -> bool {
        // The first call among those that may look at it: of all that do not precede it.
        let first_look = match item.effect {
            Effect::Observe(_) => return true,
            Effect::Set { to } | Effect::Swap { to, .. } => {
                self.looks.least(to, item.call).min(self.looks_at_all.least((), item.call))
            }
            Effect::Opaque => self.looks_at_any.least((), item.call),
        };
        if first_look == u64::MAX {
            return true;
        }
        // The first return of a `Set` that it precedes.
        let overwritten = item.ret.map_or(u64::MAX, |ret| self.sets.least((), ret.saturating_add(1)));
        overwritten < first_look
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn item(effect: Effect<&Value>, call: u64, ret: Option<u64>) -> Item<&Value> {
        Item { effect, call, ret }
    }

    #[test]
    fn takes_back_what_is_looked_at() {
        let v: Vec<Value> = (0..5i64).map(Value::from).collect();
        let all = |effect| item(effect, 0, Some(10));
        let items = [
            all(Effect::Set { to: &v[1] }),
            all(Effect::Swap { from: &v[1], to: &v[2] }),
            all(Effect::Swap { from: &v[2], to: &v[3] }),
            all(Effect::Set { to: &v[4] }),
            all(Effect::Observe(Some(&v[2]))),
        ];
        // The read of 2 needs the swap to 2, which needs the write of 1.
        assert_eq!(removable(&items, &[true, true, true, true, false]), [false, false, true, true, false]);
        // Without the read everything may go.
        assert_eq!(removable(&items, &[true; 5]), [true; 5]);
        // The last swap alone keeps the chain before it.
        assert_eq!(removable(&items, &[true, true, false, true, true]), [false, false, false, true, true]);
    }

    #[test]
    fn a_witness_of_everything_keeps_every_write() {
        let one = Value::from(1);
        let all = |effect| item(effect, 0, None);
        let items = [
            all(Effect::Set { to: &one }),
            all(Effect::Observe(None)),
            all(Effect::Observe(Some(&one))),
            all(Effect::Opaque),
        ];
        assert_eq!(removable(&items, &[true, false, true, false]), [false, false, true, false]);
        assert_eq!(removable(&items[..3], &[true, false, true]), [false, false, true]);
        assert_eq!(removable(&items[..3], &[true; 3]), [true; 3]);
    }

    #[test]
    fn what_was_overwritten_may_go() {
        let (one, two) = (Value::from(1), Value::from(2));
        let first = item(Effect::Set { to: &one }, 0, Some(10));
        let look = item(Effect::Observe(Some(&one)), 30, Some(40));
        let wish = [true, false, false];
        for (call, ret, overwritten) in
            [(11, Some(29), true), (10, Some(29), false), (11, Some(30), false), (11, None, false)]
        {
            let between = item(Effect::Set { to: &two }, call, ret);
            assert_eq!(removable(&[first, between, look], &wish)[0], overwritten, "{call} {ret:?}");
        }
        // A swap in between is no help: it looks at something itself.
        let swap = item(Effect::Swap { from: &one, to: &two }, 11, Some(29));
        assert_eq!(removable(&[first, swap, look], &wish), [false, false, false]);
        // What looked before it was called does not look at it.
        let late = item(Effect::Set { to: &one }, 41, Some(50));
        assert_eq!(removable(&[late, first, look], &wish), [true, false, false]);
        let touching = item(Effect::Set { to: &one }, 40, None);
        assert_eq!(removable(&[touching, first, look], &wish), [false, false, false]);
    }
}
