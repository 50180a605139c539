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
    Op, Ret,
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
pub(super) struct Calls<'a> {
    pub(super) infos: Vec<Info>,
    pub(super) steps: Vec<Step>,
    /// What each class stands for.
    pub(super) classes: Vec<(&'a Op, Option<&'a Ret>)>,
    /// Of each class: whether it is possible in every state and looks at none.
    pub(super) sets: Vec<bool>,
    /// Of each crash class: the class, and the calls in the order of their invocation.
    pub(super) crashes: Vec<(u32, Vec<u32>)>,
    /// How many slots there are: the largest number of returning calls that are open at once.
    pub(super) slots: u32,
    /// How many calls of unknown outcome were left out since nobody could have seen them.
    pub(super) dropped: usize,
}

impl<'a> Calls<'a> {
    /// Lays out `calls`; leaves out what cannot matter.
    pub(super) fn new<M: Model>(model: &M, calls: &[Call<'a>]) -> Calls<'a> {
        let items = items(model, calls);
        let crashed: Vec<bool> = calls.iter().map(|call| call.returned.is_none()).collect();
        let dropped = if crashed.contains(&true) { removable(&items, &crashed) } else { crashed };

        let mut order: Vec<((u64, bool, u64), Step)> = Vec::with_capacity(2 * calls.len());
        for (i, call) in calls.iter().enumerate().filter(|(i, _)| !dropped[*i]) {
            order.push(((call.called.0, false, call.called.1), Step::Invoke(i as u32)));
            if let Some((time, index)) = call.returned {
                order.push(((time, true, index), Step::Return(i as u32)));
            }
        }
        order.sort_unstable_by_key(|(key, _)| *key);

        let mut laid = Calls {
            infos: Vec::with_capacity(calls.len()),
            steps: Vec::with_capacity(order.len()),
            classes: Vec::new(),
            sets: Vec::new(),
            crashes: Vec::new(),
            slots: 0,
            dropped: dropped.iter().filter(|dropped| **dropped).count(),
        };
        let mut classes: FxHashMap<(&Op, Option<&Ret>), u32> = FxHashMap::default();
        let mut crash_of_class: FxHashMap<u32, u32> = FxHashMap::default();
        let mut place = vec![u32::MAX; calls.len()];
        let mut free: Vec<u32> = Vec::new();
        for (_, step) in order {
            match step {
                Step::Invoke(source) => {
                    let call = &calls[source as usize];
                    let class = intern(&mut classes, &mut laid.classes, (call.op, call.ret));
                    let effect = items[source as usize].effect;
                    if laid.sets.len() < laid.classes.len() {
                        laid.sets.push(matches!(effect, Effect::Set { .. }));
                    }
                    let at = laid.infos.len() as u32;
                    place[source as usize] = at;
                    let observer = matches!(effect, Effect::Observe(_));
                    let mut info = Info { source, class, observer, crash: None, slot: u32::MAX };
                    if call.returned.is_some() {
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
pub(super) fn items<'a, M: Model>(model: &M, calls: &[Call<'a>]) -> Vec<Item<'a>> {
    calls
        .iter()
        .map(|call| Item {
            effect: model.effect(call.op, call.ret),
            call: call.called.0,
            ret: call.returned.map(|(time, _)| time),
        })
        .collect()
}

fn intern<T: Copy + Eq + Hash>(known: &mut FxHashMap<T, u32>, list: &mut Vec<T>, item: T) -> u32 {
    *known.entry(item).or_insert_with(|| {
        list.push(item);
        (list.len() - 1) as u32
    })
}
