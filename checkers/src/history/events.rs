//! `Events`: all events of a history, 32 bytes each, and the operations that they make.
//!
//! ```text
//!  push(Event) ──> row 0   invoke  write  key 3  value 7
//!                  row 1   ok      see row 0                  a completion repeats its invocation
//!                  └────> pairing: operation 0 = rows 0 and 1
//! ```
//!
//! Ten million operations are to be judged in a gigabyte, so that events are stored as rows of numbers and put together when
//! somebody looks at one. What has no form in a row (a stranger's operation, an event that breaks the rules) is kept whole,
//! beside them. Deliberately append-only: what was recorded does not change.

use std::{fmt, sync::Arc};

use rustc_hash::FxHashMap;

use super::{
    datum::{Datum, Values},
    pairing::Pairing,
};
use crate::{Event, Key, Kind, Meta, Mop, Op, Process, ReadMode, Ret, Value};

/// The built-in operations as rows know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum F {
    Read,
    Write,
    Cas,
    Append,
    Delete,
    Add,
    Remove,
    Contains,
    Enqueue,
    Dequeue,
    Drain,
    Push,
    Pop,
    Acquire,
    Release,
    Generate,
    Transfer,
    Txn,
    /// Kept whole.
    Custom,
}

/// An operation as numbers: `key`, `a` and `b` are what the operation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) f: F,
    /// The key; of a transfer, who pays.
    pub(crate) key: Datum,
    /// The value; of a cas the expected one; of a transfer, who is paid; of a transaction, f, key and value of each part in a
    /// row; of a read its mode.
    pub(crate) a: Datum,
    /// Of a cas the new value; of a transfer the amount.
    pub(crate) b: Datum,
}

impl Asked {
    /// How a read asks to be served.
    pub(crate) fn mode(self) -> ReadMode {
        ReadMode::ALL.get(self.a.bits() as usize).copied().unwrap_or_default()
    }
}

/// An answer as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// None at all.
    Nothing,
    /// [`Ret::Done`].
    Done,
    /// [`Ret::Value`].
    Value(Datum),
    /// [`Ret::Swapped`].
    Swapped(bool, Option<Datum>),
    /// [`Ret::Txn`], as a list.
    Txn(Datum),
}

/// How a row says what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// By itself: `key`, `a`, `b`.
    Plain,
    /// As the row at `key` does, with an answer in `a`.
    Linked,
    /// It is whole at `a`; its key, if it has one, is `key`, and `b` is 1.
    Odd,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    time: u64,
    process: u32,
    /// Place in `metas`, or [`NO_META`].
    meta: u32,
    key: u32,
    a: u32,
    b: u32,
    f: F,
    kind: Kind,
    form: Form,
    told: u8,
}

const NO_META: u32 = u32::MAX;
const NEMESIS: u32 = u32::MAX;
const OBSERVER: u32 = u32::MAX - 1;
/// Numbers of clients from here on are kept in a table.
const LARGE: u32 = u32::MAX - (1 << 28);

/// The events of a history, in the order in which they were recorded.
#[derive(Clone, Debug, Default)]
pub struct Events {
    rows: Vec<Row>,
    /// Indexes, once one differs from its place.
    indexes: Option<Vec<u64>>,
    metas: Vec<Meta>,
    odd: Vec<(Op, Option<Ret>)>,
    large: Vec<u64>,
    large_at: FxHashMap<u64, u32>,
    values: Values,
    pairing: Pairing,
}

impl Events {
    /// Adds the next event.
    ///
    /// # Panics
    /// Beyond four thousand million events.
    pub fn push(&mut self, event: Event) {
        let at = self.rows.len();
        assert!(at < u32::MAX as usize, "a history of more than four thousand million events");
        let asked = self.asked_of(&event.op);
        let invocation = match event.process {
            Process::Client(number) => self.pairing.open(number),
            _ => None,
        };
        let same = asked.is_some() && invocation.is_some_and(|at| self.plain(at) == asked);
        let row = match (event.kind, asked) {
            (Kind::Invoke, Some(asked)) if event.ret.is_none() => {
                self.row(&event, Form::Plain, asked.key.bits(), asked.a.bits(), asked.b.bits(), asked.f, 0)
            }
            (Kind::Ok | Kind::Fail | Kind::Info, Some(asked)) => {
                let told = event.ret.as_ref().map_or(Some(Told::Nothing), |ret| self.told_of(ret));
                match (invocation, told) {
                    (Some(invocation), Some(told)) if same => {
                        let (code, a) = told.encode();
                        self.row(&event, Form::Linked, invocation, a, 0, asked.f, code)
                    }
                    _ => self.odd_row(&event),
                }
            }
            _ => self.odd_row(&event),
        };
        let mut pairing = std::mem::take(&mut self.pairing);
        pairing.see(at as u32, &event, same, |row| self.op(row), |row| self.index(row));
        self.pairing = pairing;
        if event.index != at as u64 || self.indexes.is_some() {
            self.indexes.get_or_insert_with(|| (0..at as u64).collect()).push(event.index);
        }
        if row.meta != NO_META {
            self.metas.push(event.meta);
        }
        self.rows.push(row);
    }

    #[allow(clippy::too_many_arguments)]
    fn row(&mut self, event: &Event, form: Form, key: u32, a: u32, b: u32, f: F, told: u8) -> Row {
        let process = self.process_of(event.process);
        let meta = if event.meta == Meta::default() { NO_META } else { self.metas.len() as u32 };
        Row { time: event.time, process, meta, key, a, b, f, kind: event.kind, form, told }
    }

    fn odd_row(&mut self, event: &Event) -> Row {
        let a = self.odd.len() as u32;
        self.odd.push((event.op.clone(), event.ret.clone()));
        let key = event.op.key().map(|key| self.values.intern(key));
        self.row(event, Form::Odd, key.map_or(0, Datum::bits), a, u32::from(key.is_some()), F::Custom, 0)
    }

    fn plain(&self, at: u32) -> Option<Asked> {
        let row = &self.rows[at as usize];
        (row.form == Form::Plain).then(|| row.asked())
    }

    fn process_of(&mut self, process: Process) -> u32 {
        match process {
            Process::Nemesis => NEMESIS,
            Process::Observer => OBSERVER,
            Process::Client(number) if number < u64::from(LARGE) => number as u32,
            Process::Client(number) => {
                let place = self.large.len() as u32;
                let at = *self.large_at.entry(number).or_insert(place);
                if at == place {
                    self.large.push(number);
                }
                assert!(at < OBSERVER - LARGE, "a history of too many clients with large numbers");
                LARGE + at
            }
        }
    }

    fn asked_of(&mut self, op: &Op) -> Option<Asked> {
        let values = &mut self.values;
        let mut asked = Asked { f: f_of(op), key: Datum::NIL, a: Datum::NIL, b: Datum::NIL };
        match op {
            Op::Custom { .. } => return None,
            Op::Txn { mops } => {
                let mut parts = Vec::with_capacity(3 * mops.len());
                for mop in mops.iter() {
                    let (f, value) = match mop {
                        Mop::Read { .. } => (0, Datum::NIL),
                        Mop::Write { value, .. } => (1, values.intern(value)),
                        Mop::Append { value, .. } => (2, values.intern(value)),
                    };
                    parts.extend([Datum::from_bits(f), values.intern(mop.key()), value]);
                }
                asked.a = values.list(&parts);
                return Some(asked);
            }
            Op::Transfer { from, to, amount } => {
                asked.key = values.intern(from);
                asked.a = values.intern(to);
                asked.b = values.intern(&Value::Int(*amount));
                return Some(asked);
            }
            Op::Read { mode, .. } => asked.a = Datum::from_bits(*mode as u32),
            Op::Cas { expected, new, .. } => {
                asked.a = values.intern(expected);
                asked.b = values.intern(new);
            }
            Op::Write { value, .. }
            | Op::Append { value, .. }
            | Op::Add { value, .. }
            | Op::Remove { value, .. }
            | Op::Contains { value, .. }
            | Op::Enqueue { value, .. }
            | Op::Push { value, .. }
            | Op::Acquire { owner: value, .. }
            | Op::Release { owner: value, .. } => asked.a = values.intern(value),
            Op::Delete { .. }
            | Op::Dequeue { .. }
            | Op::Drain { .. }
            | Op::Pop { .. }
            | Op::Generate { .. } => {}
        }
        asked.key = values.intern(op.key()?);
        Some(asked)
    }

    fn told_of(&mut self, ret: &Ret) -> Option<Told> {
        Some(match ret {
            Ret::Done => Told::Done,
            Ret::Value(value) => Told::Value(self.values.intern(value)),
            Ret::Swapped { swapped, found } => {
                Told::Swapped(*swapped, found.as_ref().map(|found| self.values.intern(found)))
            }
            Ret::Txn(found) => {
                let found: Vec<Datum> = found.iter().map(|value| self.values.intern(value)).collect();
                Told::Txn(self.values.list(&found))
            }
            Ret::Custom(_) => return None,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The event at a place.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, at: usize) -> Event {
        let row = &self.rows[at];
        Event {
            index: self.index(at as u32),
            time: row.time,
            process: self.process(at as u32),
            kind: row.kind,
            op: self.op(at as u32),
            ret: self.ret(at as u32),
            meta: self.meta(at as u32).cloned().unwrap_or_default(),
        }
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }

    pub(super) fn pairing(&self) -> &Pairing {
        &self.pairing
    }

    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    pub(super) fn index(&self, at: u32) -> u64 {
        self.indexes.as_ref().map_or(u64::from(at), |indexes| indexes[at as usize])
    }

    pub(super) fn time(&self, at: u32) -> u64 {
        self.rows[at as usize].time
    }

    pub(super) fn kind(&self, at: u32) -> Kind {
        self.rows[at as usize].kind
    }

    pub(super) fn meta(&self, at: u32) -> Option<&Meta> {
        self.metas.get(self.rows[at as usize].meta as usize)
    }

    pub(crate) fn process(&self, at: u32) -> Process {
        match self.rows[at as usize].process {
            NEMESIS => Process::Nemesis,
            OBSERVER => Process::Observer,
            number if number < LARGE => Process::Client(u64::from(number)),
            large => Process::Client(self.large[(large - LARGE) as usize]),
        }
    }

    /// What a row asks for, as numbers; `None` if it is kept whole.
    pub(super) fn asked(&self, at: u32) -> Option<Asked> {
        let row = &self.rows[at as usize];
        match row.form {
            Form::Plain => Some(row.asked()),
            Form::Linked => self.asked(row.key),
            Form::Odd => None,
        }
    }

    /// The answer, as numbers; `None` if it is kept whole.
    pub(super) fn told(&self, at: u32) -> Option<Told> {
        let row = &self.rows[at as usize];
        match row.form {
            Form::Plain => Some(Told::Nothing),
            Form::Linked => Some(Told::decode(row.told, row.a)),
            Form::Odd => None,
        }
    }

    /// The key of the row's operation.
    pub(super) fn key(&self, at: u32) -> Option<Datum> {
        let row = &self.rows[at as usize];
        match row.form {
            Form::Linked => self.key(row.key),
            Form::Odd => (row.b == 1).then(|| Datum::from_bits(row.key)),
            Form::Plain if matches!(row.f, F::Txn | F::Transfer) => None,
            Form::Plain => Some(Datum::from_bits(row.key)),
        }
    }

    pub(super) fn op(&self, at: u32) -> Op {
        match self.asked(at) {
            Some(asked) => self.op_of(asked),
            None => self.odd[self.rows[at as usize].a as usize].0.clone(),
        }
    }

    pub(super) fn ret(&self, at: u32) -> Option<Ret> {
        let list = |list: Datum| -> Arc<[Value]> {
            self.values
                .elements(list)
                .unwrap_or_default()
                .iter()
                .map(|datum| self.values.get(*datum))
                .collect()
        };
        match self.told(at) {
            None => self.odd[self.rows[at as usize].a as usize].1.clone(),
            Some(Told::Nothing) => None,
            Some(Told::Done) => Some(Ret::Done),
            Some(Told::Value(datum)) => Some(Ret::Value(self.values.get(datum))),
            Some(Told::Swapped(swapped, found)) => {
                Some(Ret::Swapped { swapped, found: found.map(|found| self.values.get(found)) })
            }
            Some(Told::Txn(found)) => Some(Ret::Txn(list(found))),
        }
    }

    fn op_of(&self, asked: Asked) -> Op {
        let of = |datum| self.values.get(datum);
        let key: Key = of(asked.key);
        match asked.f {
            F::Read => Op::Read { key, mode: asked.mode() },
            F::Write => Op::Write { key, value: of(asked.a) },
            F::Cas => Op::Cas { key, expected: of(asked.a), new: of(asked.b) },
            F::Append => Op::Append { key, value: of(asked.a) },
            F::Delete => Op::Delete { key },
            F::Add => Op::Add { key, value: of(asked.a) },
            F::Remove => Op::Remove { key, value: of(asked.a) },
            F::Contains => Op::Contains { key, value: of(asked.a) },
            F::Enqueue => Op::Enqueue { key, value: of(asked.a) },
            F::Dequeue => Op::Dequeue { key },
            F::Drain => Op::Drain { key },
            F::Push => Op::Push { key, value: of(asked.a) },
            F::Pop => Op::Pop { key },
            F::Acquire => Op::Acquire { key, owner: of(asked.a) },
            F::Release => Op::Release { key, owner: of(asked.a) },
            F::Generate => Op::Generate { key },
            F::Transfer => {
                let amount = self.values.number(asked.b).unwrap_or_default();
                Op::Transfer { from: key, to: of(asked.a), amount }
            }
            F::Txn | F::Custom => {
                let parts = self.values.elements(asked.a).unwrap_or_default();
                let mop = |part: &[Datum]| match part[0].bits() {
                    0 => Mop::Read { key: of(part[1]) },
                    1 => Mop::Write { key: of(part[1]), value: of(part[2]) },
                    _ => Mop::Append { key: of(part[1]), value: of(part[2]) },
                };
                Op::Txn { mops: parts.chunks_exact(3).map(mop).collect() }
            }
        }
    }
}

fn f_of(op: &Op) -> F {
    match op {
        Op::Read { .. } => F::Read,
        Op::Write { .. } => F::Write,
        Op::Cas { .. } => F::Cas,
        Op::Append { .. } => F::Append,
        Op::Delete { .. } => F::Delete,
        Op::Add { .. } => F::Add,
        Op::Remove { .. } => F::Remove,
        Op::Contains { .. } => F::Contains,
        Op::Enqueue { .. } => F::Enqueue,
        Op::Dequeue { .. } => F::Dequeue,
        Op::Drain { .. } => F::Drain,
        Op::Push { .. } => F::Push,
        Op::Pop { .. } => F::Pop,
        Op::Acquire { .. } => F::Acquire,
        Op::Release { .. } => F::Release,
        Op::Generate { .. } => F::Generate,
        Op::Transfer { .. } => F::Transfer,
        Op::Txn { .. } => F::Txn,
        Op::Custom { .. } => F::Custom,
    }
}

impl Row {
    fn asked(&self) -> Asked {
        let [key, a, b] = [self.key, self.a, self.b].map(Datum::from_bits);
        Asked { f: self.f, key, a, b }
    }
}

impl Told {
    /// As two numbers.
    pub(crate) fn encode(self) -> (u8, u32) {
        match self {
            Told::Nothing => (0, 0),
            Told::Done => (1, 0),
            Told::Value(datum) => (2, datum.bits()),
            Told::Txn(list) => (3, list.bits()),
            Told::Swapped(swapped, None) => (4 + u8::from(swapped), 0),
            Told::Swapped(swapped, Some(found)) => (6 + u8::from(swapped), found.bits()),
        }
    }

    /// What [`Told::encode`] gave.
    pub(crate) fn decode(code: u8, a: u32) -> Told {
        let datum = Datum::from_bits(a);
        match code {
            0 => Told::Nothing,
            1 => Told::Done,
            2 => Told::Value(datum),
            3 => Told::Txn(datum),
            4 | 5 => Told::Swapped(code == 5, None),
            _ => Told::Swapped(code == 7, Some(datum)),
        }
    }
}

impl Extend<Event> for Events {
    fn extend<T: IntoIterator<Item = Event>>(&mut self, events: T) {
        for event in events {
            self.push(event);
        }
    }
}

impl FromIterator<Event> for Events {
    fn from_iter<T: IntoIterator<Item = Event>>(events: T) -> Self {
        let mut all = Events::default();
        all.extend(events);
        all
    }
}

impl PartialEq for Events {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Events {}

impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events", self.len())
    }
}
