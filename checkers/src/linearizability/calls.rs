//! One key's history, laid out for the search.
//!
//! ```text
//! events   invoke a, invoke b, return a, invoke c, return c, return b
//! slots          0         1                   0                        a slot is free again after the return
//! ```
//!
//! Intervals are closed: at equal times invocations come before returns, so that operations that merely touch overlap.
//! Operations of unknown outcome never return; equal ones are interchangeable and are kept as *crash classes*: of each
//! class only a number has taken effect so far, whichever. (Swap two equal ones in a linearization: the later of the two
//! may take the place of neither before its call, but the first to be called may always go first, and nothing else
//! changes.) Deliberately without a state: what an operation means is for the model.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::prune::{Item, removable};
use crate::{
    Op, Ret, Value,
    model::{Effect, Model},
};

/// An operation as the search sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The id of the operation.
    pub(super) id: usize,
    pub(super) op: &'a Op,
    /// What it answers if it takes effect; `None` if nobody knows.
    pub(super) ret: Option<&'a Ret>,
    /// When it was called, and its place among the events of that time.
    pub(super) called: (u64, u64),
    /// When it returned, by which it must have taken effect. `None` if it never did: then it need not have.
    pub(super) returned: Option<(u64, u64)>,
}

/// Something that the search comes by, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The call at this place begins.
    Invoke(u32),
    /// The call at this place ends: it must have taken effect by now.
    Return(u32),
}

/// A call in the search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    /// Place in the list that the search was made from.
    pub(super) source: u32,
    /// Calls of one class have equal operation and answer.
    pub(super) class: u32,
    /// Never changes the state.
    pub(super) observer: bool,
    /// `None` if it returns; else its crash class.
    pub(super) crash: Option<u32>,
    /// A number that no other call has while this one is open; for calls that return only.
    pub(super) slot: u32,
}

/// A history of one key, ready to be searched.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) infos: Vec<Info>,
    pub(super) steps: Vec<Step>,
    /// Of each class: whether it is possible in every state and looks at none.
    pub(super) sets: Vec<bool>,
    /// Of each crash class: the class, and the calls in the order of their invocation.
    pub(super) crashes: Vec<(u32, Vec<u32>)>,
    /// How many slots there are: the largest number of returning calls that are open at once.
    pub(super) slots: u32,
    /// How many calls it was made from.
    pub(super) sources: usize,
    /// How many calls of unknown outcome were left out since nobody could have seen them.
    pub(super) dropped: usize,
}

/// What each class of calls asks and is answered.
pub(super) type Classes<'a> = Vec<(&'a Op, Option<&'a Ret>)>;

/// A call about to be laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<V> {
    pub(super) item: Item<V>,
    pub(super) class: u32,
}

impl Calls {
    /// Lays out `calls`; leaves out what cannot matter.
    pub(super) fn new<'a, M: Model>(model: &M, calls: &[Call<'a>]) -> (Calls, Classes<'a>) {
        let mut classes = Classes::new();
        let mut known = FxHashMap::default();
        let entries: Vec<Entry<&Value>> = items(model, calls)
            .into_iter()
            .zip(calls)
            .map(|(item, call)| Entry { item, class: intern(&mut known, &mut classes, (call.op, call.ret)) })
            .collect();
        let index = |step: Step| match step {
            Step::Invoke(call) => calls[call as usize].called.1,
            Step::Return(call) => calls[call as usize].returned.map_or(u64::MAX, |(_, index)| index),
        };
        (Calls::lay_out(&entries, classes.len(), index), classes)
    }

    /// The same for any form of calls and so many classes. `index` gives the place of an event among those of its time.
    pub(super) fn lay_out<V: Copy + Ord>(
        entries: &[Entry<V>],
        classes: usize,
        index: impl Fn(Step) -> u64,
    ) -> Calls {
        let crashed: Vec<bool> = entries.iter().map(|entry| entry.item.ret.is_none()).collect();
        let dropped = if crashed.contains(&true) {
            let items: Vec<Item<V>> = entries.iter().map(|entry| entry.item).collect();
            removable(&items, &crashed)
        } else {
            crashed
        };

        let mut order: Vec<((u64, bool), Step)> = Vec::with_capacity(2 * entries.len());
        for (i, entry) in entries.iter().enumerate().filter(|(i, _)| !dropped[*i]) {
            order.push(((entry.item.call, false), Step::Invoke(i as u32)));
            if let Some(time) = entry.item.ret {
                order.push(((time, true), Step::Return(i as u32)));
            }
        }
        order.sort_unstable_by(|(a, one), (b, two)| a.cmp(b).then_with(|| index(*one).cmp(&index(*two))));

        let mut laid = Calls {
            infos: Vec::with_capacity(entries.len()),
            steps: Vec::with_capacity(order.len()),
            sets: vec![false; classes],
            crashes: Vec::new(),
            slots: 0,
            sources: entries.len(),
            dropped: dropped.iter().filter(|dropped| **dropped).count(),
        };
        let mut crash_of_class: FxHashMap<u32, u32> = FxHashMap::default();
        let mut place = vec![u32::MAX; entries.len()];
        let mut free: Vec<u32> = Vec::new();
        for (_, step) in order {
            match step {
                Step::Invoke(source) => {
                    let Entry { item, class, .. } = entries[source as usize];
                    laid.sets[class as usize] = matches!(item.effect, Effect::Set { .. });
                    let at = laid.infos.len() as u32;
                    place[source as usize] = at;
                    let observer = matches!(item.effect, Effect::Observe(_));
                    let mut info = Info { source, class, observer, crash: None, slot: u32::MAX };
                    if item.ret.is_some() {
                        info.slot = free.pop().unwrap_or_else(|| {
                            laid.slots += 1;
                            laid.slots - 1
                        });
                    } else {
                        let next = laid.crashes.len() as u32;
                        let crash = *crash_of_class.entry(class).or_insert(next);
                        if crash == next {
                            laid.crashes.push((class, Vec::new()));
                        }
                        laid.crashes[crash as usize].1.push(at);
                        info.crash = Some(crash);
                    }
                    laid.infos.push(info);
                    laid.steps.push(Step::Invoke(at));
                }
                Step::Return(source) => {
                    let at = place[source as usize];
                    free.push(laid.infos[at as usize].slot);
                    laid.steps.push(Step::Return(at));
                }
            }
        }
        laid
    }
}

/// The calls as the lemma of `prune` sees them.
pub(super) fn items<'a, M: Model>(model: &M, calls: &[Call<'a>]) -> Vec<Item<&'a Value>> {
    calls
        .iter()
        .map(|call| Item {
            effect: model.effect(call.op, call.ret),
            call: call.called.0,
            ret: call.returned.map(|(time, _)| time),
        })
        .collect()
}

pub(super) fn intern<T: Copy + Eq + Hash>(known: &mut FxHashMap<T, u32>, list: &mut Vec<T>, item: T) -> u32 {
    *known.entry(item).or_insert_with(|| {
        list.push(item);
        (list.len() - 1) as u32
    })
}
