//! Registers as numbers: the engines' food for registers whose values repeat, without looking at a single value.
//!
//! ```text
//! class 0   write 7          any state -> 7
//! class 1   read -> 7        7 -> 7
//! class 2   cas 7->9 ok      7 -> 9
//! class 3   cas 7->9 ?       7 -> 9, any other stays
//! ```
//!
//! A state is a [`Datum`], and a step is a comparison. Histories over thousands of keys spend most of their time on getting
//! ready to search; here nothing is copied, hashed or counted but numbers. Deliberately says nothing to operations beyond
//! those of a register with compare-and-set, and to answers that no register gives: [`Memo`](super::space::Memo) takes any.

use rustc_hash::FxHashMap;
use serde_json::Value as Json;

use super::{
    calls::{Calls, Entry, Step},
    prune::Item,
    record::{Record, Records},
    space::{IMPOSSIBLE, Space, StateId},
};
use crate::{
    Value,
    history::{
        datum::{Datum, Values},
        events::{F, Told},
        operations::End,
    },
    model::{Effect, RegisterLike, register},
};

/// What an operation needs and leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    /// Possible at this value.
    Reads(u32),
    /// Possible at any other.
    ReadsOther(u32),
    Writes(u32),
    Swaps(u32, u32),
    /// The same, of unknown outcome: at any other value it does nothing.
    MaySwap(u32, u32),
}

/// A key's operations on a register, laid out.
pub(super) struct Flat<'a> {
    pub(super) calls: Calls,
    /// The operation of each source.
    pub(super) ids: Vec<u32>,
    classes: Vec<Class>,
    start: u32,
    initial: &'a Value,
    values: &'a Values,
}

impl<'a> Flat<'a> {
    /// `None` if there are other operations than those of a register.
    pub(super) fn new(like: &RegisterLike<'a>, records: &Records<'a>) -> Option<Flat<'a>> {
        let mut entries = Vec::with_capacity(records.len());
        let mut ids = Vec::with_capacity(records.len());
        let mut classes: Vec<Class> = Vec::new();
        let mut known: FxHashMap<Class, u32> = FxHashMap::default();
        let seen = records.try_each(|record| {
            let (class, effect) = read(like, record).ok_or(())?;
            let class = *known.entry(class).or_insert_with(|| {
                classes.push(class);
                classes.len() as u32 - 1
            });
            let ret = (record.end == End::Ok).then_some(record.ret);
            entries.push(Entry { item: Item { effect, call: record.call, ret }, class });
            ids.push(record.id);
            Ok::<(), ()>(())
        });
        seen.ok()?;
        let values = records.values();
        let start = values.find(like.initial).unwrap_or(Datum::UNUSED).bits();
        let index = |step: Step| match step {
            Step::Invoke(source) => records.operations.call_index(ids[source as usize] as usize),
            Step::Return(source) => records.operations.ret_index(ids[source as usize] as usize),
        };
        let calls = Calls::lay_out(&entries, classes.len(), index);
        Some(Flat { calls, ids, classes, start, initial: like.initial, values })
    }

    /// Its states and steps.
    pub(super) fn space(&self) -> Numbers<'_> {
        Numbers(self)
    }
}

fn read(like: &RegisterLike<'_>, record: &Record) -> Option<(Class, Effect<u32>)> {
    let (a, b) = (record.a.bits(), record.b.bits());
    let found = match (record.f, record.end, record.told()) {
        (F::Read, End::Ok, Told::Value(value)) => {
            let value = value.bits();
            (Class::Reads(value), Effect::Observe(Some(value)))
        }
        (F::Write, ..) => (Class::Writes(a), Effect::Set { to: a }),
        (F::Cas, ..) if !like.cas => return None,
        // Setting what is there already is nothing but a look.
        (F::Cas, End::Info, _) if a == b => (Class::Reads(a), Effect::Observe(Some(a))),
        (F::Cas, End::Info, _) => (Class::MaySwap(a, b), Effect::Swap { from: a, to: b }),
        (F::Cas, _, Told::Swapped(true, found)) if found.is_none_or(|found| found == record.a) => {
            if a == b {
                (Class::Reads(a), Effect::Observe(Some(a)))
            } else {
                (Class::Swaps(a, b), Effect::Swap { from: a, to: b })
            }
        }
        (F::Cas, _, Told::Swapped(false, Some(found))) if found != record.a => {
            (Class::Reads(found.bits()), Effect::Observe(Some(found.bits())))
        }
        (F::Cas, _, Told::Swapped(false, None)) => (Class::ReadsOther(a), Effect::Observe(None)),
        _ => return None,
    };
    // The number that stands for "impossible" is no state.
    let states = match found.0 {
        Class::Reads(a) | Class::ReadsOther(a) | Class::Writes(a) => [a, a],
        Class::Swaps(a, b) | Class::MaySwap(a, b) => [a, b],
    };
    (!states.contains(&IMPOSSIBLE)).then_some(found)
}

/// The states of a [`Flat`].
pub(super) struct Numbers<'a>(&'a Flat<'a>);

impl Space for Numbers<'_> {
    fn start(&self) -> StateId {
        self.0.start
    }

    fn step(&mut self, state: StateId, class: u32) -> StateId {
        let (possible, next) = match self.0.classes[class as usize] {
            Class::Reads(value) => (state == value, state),
            Class::ReadsOther(value) => (state != value, state),
            Class::Writes(value) => (true, value),
            Class::Swaps(from, to) => (state == from, to),
            Class::MaySwap(from, to) => (true, if state == from { to } else { state }),
        };
        if possible { next } else { IMPOSSIBLE }
    }

    fn bytes(&self) -> u64 {
        (self.0.classes.len() * size_of::<Class>()) as u64
    }

    fn tell(&self, state: StateId) -> (String, Json) {
        let datum = Datum::from_bits(state);
        let value = if datum == Datum::UNUSED { self.0.initial.clone() } else { self.0.values.get(datum) };
        (value.to_string(), register::to_json(&value))
    }
}
