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
        operations::{End, Operations},
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
        let mut flat = Builder::new(records.len());
        records
            .try_each(|record| read(like, record).and_then(|read| flat.add(record, read)).ok_or(()))
            .ok()?;
        let values = records.values();
        let start = values.find(like.initial).unwrap_or(Datum::UNUSED).bits();
        Some(flat.build(records.operations, start, like.initial))
    }

    /// One element of a set that is empty at first; `None` if there are reads of the whole.
    pub(super) fn element(operations: &'a Operations<'a>, records: &[Record]) -> Option<Flat<'a>> {
        let mut flat = Builder::new(records.len());
        for record in records {
            flat.add(record, is_inside(record)?)?;
        }
        Some(flat.build(operations, Datum::FALSE.bits(), &Value::Bool(false)))
    }

    /// Its states and steps.
    pub(super) fn space(&self) -> Numbers<'_> {
        Numbers(self)
    }
}

/// A [`Flat`] while its operations come in.
struct Builder {
    entries: Vec<Entry<u32>>,
    ids: Vec<u32>,
    classes: Vec<Class>,
    known: FxHashMap<Class, u32>,
}

impl Builder {
    fn new(operations: usize) -> Self {
        Builder {
            entries: Vec::with_capacity(operations),
            ids: Vec::with_capacity(operations),
            classes: Vec::new(),
            known: FxHashMap::default(),
        }
    }

    fn add(&mut self, record: &Record, (class, effect): (Class, Effect<u32>)) -> Option<()> {
        // The number that stands for "impossible" is no state.
        let states = match class {
            Class::Reads(a) | Class::ReadsOther(a) | Class::Writes(a) => [a, a],
            Class::Swaps(a, b) | Class::MaySwap(a, b) => [a, b],
        };
        if states.contains(&IMPOSSIBLE) {
            return None;
        }
        let class = *self.known.entry(class).or_insert_with(|| {
            self.classes.push(class);
            self.classes.len() as u32 - 1
        });
        let ret = (record.end == End::Ok).then_some(record.ret);
        self.entries.push(Entry { item: Item { effect, call: record.call, ret }, class });
        self.ids.push(record.id);
        Some(())
    }

    fn build<'a>(self, operations: &'a Operations<'a>, start: u32, initial: &'a Value) -> Flat<'a> {
        let Builder { entries, ids, classes, .. } = self;
        let index = |step: Step| match step {
            Step::Invoke(source) => operations.call_index(ids[source as usize] as usize),
            Step::Return(source) => operations.ret_index(ids[source as usize] as usize),
        };
        let calls = Calls::lay_out(&entries, classes.len(), index);
        Flat { calls, ids, classes, start, initial, values: operations.values() }
    }
}

/// An operation on an element of a set, as one on a register that says whether it is inside.
fn is_inside(record: &Record) -> Option<(Class, Effect<u32>)> {
    let set = |to: Datum| (Class::Writes(to.bits()), Effect::Set { to: to.bits() });
    let seen = |there: Datum| (Class::Reads(there.bits()), Effect::Observe(Some(there.bits())));
    match (record.f, record.end, record.told()) {
        (F::Add, ..) => Some(set(Datum::TRUE)),
        (F::Remove, ..) => Some(set(Datum::FALSE)),
        // Whatever it saw, nobody was told.
        (F::Contains, End::Info, _) => Some(seen(Datum::FALSE)),
        (F::Contains, _, Told::Value(there @ (Datum::FALSE | Datum::TRUE))) => Some(seen(there)),
        _ => None,
    }
}

fn read(like: &RegisterLike<'_>, record: &Record) -> Option<(Class, Effect<u32>)> {
    let (a, b) = (record.a.bits(), record.b.bits());
    Some(match (record.f, record.end, record.told()) {
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
    })
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
