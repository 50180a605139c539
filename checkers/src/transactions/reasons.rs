//! Why one transaction comes before another: the values that show it.
//!
//! ```text
//! T1 -rw-> T2     T1 did not observe T2's append of 4 to key 5
//! ```
//!
//! Edges carry no reasons, that would cost more than the search. For the few edges that are explained, the inference is run
//! once more over the keys that both transactions touch. Deliberately no search of its own.

use rustc_hash::FxHashMap;
use serde_json::{Value as Json, json};

use super::{
    Options,
    graph::EdgeKind,
    input::{Datatype, MopKind, Transactions},
    keys::{Inference, KeyIndex},
    list_append::ListAppend,
    rw_register::{RwRegister, Source, VersionEdge},
    words::{Namer, ms, short},
    writers::{NONE, Origin},
};

/// A reason, in words and as data.
pub(super) struct Reason {
    pub(super) words: String,
    pub(super) details: Json,
}

/// Finds reasons; keeps what it has learned of a key.
pub(super) struct Reasons<'a> {
    txns: &'a Transactions,
    index: &'a KeyIndex,
    options: &'a Options,
    lists: FxHashMap<u32, ListAppend<'a>>,
    registers: FxHashMap<u32, RwRegister<'a>>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(txns: &'a Transactions, index: &'a KeyIndex, options: &'a Options) -> Self {
        Reasons { txns, index, options, lists: FxHashMap::default(), registers: FxHashMap::default() }
    }

    /// Why `a` comes before `b`.
    pub(super) fn of(&mut self, a: u32, b: u32, kind: EdgeKind, names: &Namer<'_>) -> Reason {
        match kind {
            EdgeKind::Process => self.process(a, b, names),
            EdgeKind::Realtime => self.realtime(a, b, names),
            _ => self.dependency(a, b, kind, names).unwrap_or_else(|| Reason {
                words: format!("of their {kind} dependency"),
                details: json!({}),
            }),
        }
    }

    fn process(&self, a: u32, b: u32, names: &Namer<'_>) -> Reason {
        let process = self.txns.processes[self.txns.process[a as usize] as usize];
        let (a, b) = (names.of(a), names.of(b));
        Reason {
            words: format!("process {process} ran {a} before it ran {b}"),
            details: json!({"process": process}),
        }
    }

    fn realtime(&self, a: u32, b: u32, names: &Namer<'_>) -> Reason {
        let (end, begin) = (self.txns.end[a as usize], self.txns.begin[b as usize]);
        let (a, b) = (names.of(a), names.of(b));
        let gap = ms(begin.saturating_sub(end));
        Reason {
            words: format!("{a} returned at {} and {b} was called {gap} later, at {}", ms(end), ms(begin)),
            details: json!({"returned_ns": end, "called_ns": begin}),
        }
    }

    fn dependency(&mut self, a: u32, b: u32, kind: EdgeKind, names: &Namer<'_>) -> Option<Reason> {
        let keys = |txn| {
            let mut keys: Vec<u32> = self.txns.mops_of(txn).iter().map(|mop| mop.key).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        let of_b = keys(b);
        let shared: Vec<u32> = keys(a).into_iter().filter(|key| of_b.binary_search(key).is_ok()).collect();
        shared.into_iter().filter(|key| !self.txns.mixed[*key as usize]).find_map(|key| {
            match self.txns.datatype {
                Datatype::ListAppend => self.list(key, a, b, kind, names),
                Datatype::RwRegister => self.register(key, a, b, kind, names),
            }
        })
    }

    fn list(&mut self, key: u32, a: u32, b: u32, kind: EdgeKind, names: &Namer<'_>) -> Option<Reason> {
        let (txns, index) = (self.txns, self.index);
        let list = self.lists.entry(key).or_insert_with(|| {
            let mut list = ListAppend::new(txns);
            list.key(key, index.of(key));
            list
        });
        let (name_a, name_b, name) = (names.of(a), names.of(b), &txns.keys[key as usize]);
        let text = |value: u32| short(&txns.values[value as usize]);
        let (words, values, mop) = match kind {
            EdgeKind::Ww => {
                let (from, to) = list.neighbours(a, b)?;
                let (before, after) = (text(from), text(to));
                let words =
                    format!("{name_b} appended {after} to key {name} after {name_a} appended {before}");
                (words, vec![from, to], None)
            }
            EdgeKind::Wr => {
                let (value, mop) = list.observed(a, b)?;
                let words = format!("{name_b} observed {name_a}'s append of {} to key {name}", text(value));
                (words, vec![value], Some(mop))
            }
            _ => {
                let (value, mop) = list.missed(a, b)?;
                let words =
                    format!("{name_a} did not observe {name_b}'s append of {} to key {name}", text(value));
                (words, vec![value], Some(mop))
            }
        };
        Some(Reason { words, details: self.details(key, &values, mop) })
    }

    fn register(&mut self, key: u32, a: u32, b: u32, kind: EdgeKind, names: &Namer<'_>) -> Option<Reason> {
        let (txns, index, assume) = (self.txns, self.index, self.options.keys);
        let register = self.registers.entry(key).or_insert_with(|| {
            let mut register = RwRegister::new(txns, assume);
            register.key(key, index.of(key));
            register
        });
        let (name_a, name_b, name) = (names.of(a), names.of(b), &txns.keys[key as usize]);
        let text = |value: u32| short(&txns.values[value as usize]);
        if kind == EdgeKind::Wr {
            let wrote = |value: u32| register.writers.of(value).origin == Origin::Txn(a);
            let seen = *register.seen.iter().find(|seen| seen.txn == b && wrote(seen.value))?;
            let words = format!("{name_b} read {} of key {name}, which {name_a} wrote", text(seen.value));
            return Some(Reason { words, details: self.details(key, &[seen.value], Some(seen.mop)) });
        }
        let writer = |version: u32| register.versions[version as usize].1;
        let read =
            |version: u32| register.seen.iter().find(|s| s.txn == a && register.version(s.value) == version);
        let edge = *register.order.iter().filter(|edge| writer(edge.to) == b).find(|edge| match kind {
            EdgeKind::Ww => writer(edge.from) == a,
            _ => read(edge.from).is_some(),
        })?;
        let mop = if kind == EdgeKind::Rw { read(edge.from).map(|seen| seen.mop) } else { None };
        let [from, to] = [edge.from, edge.to].map(|version| register.versions[version as usize].0);
        let did = if kind == EdgeKind::Ww { "wrote" } else { "read" };
        let words = format!(
            "{name_a} {did} {} of key {name}, and {name_b} wrote {}, which came later: {}",
            text(from),
            text(to),
            self.source(&edge, from, to, names)
        );
        let mut details = self.details(key, &[from, to], mop);
        details["source"] = edge.source.name().into();
        Some(Reason { words, details })
    }

    /// Why a version comes before another.
    fn source(&self, edge: &VersionEdge, from: u32, to: u32, names: &Namer<'_>) -> String {
        let text = |value: u32| short(&self.txns.values[value as usize]);
        let (from, to) = (text(from), text(to));
        let by = |txn: u32| if txn == NONE { String::new() } else { names.of(txn) };
        let (first, then) = (by(edge.by.0), by(edge.by.1));
        match edge.source {
            Source::Initial => "every other value comes after the initial nil".into(),
            Source::Wfr => format!("{first} read {from} and then wrote {to}"),
            Source::Sequential => {
                format!("one process had {from} in {first} before it had {to} in {then}")
            }
            Source::Linearizable => {
                format!("{first}, which had {from}, returned before {then}, which had {to}, was called")
            }
        }
    }

    fn details(&self, key: u32, values: &[u32], mop: Option<u32>) -> Json {
        let values: Vec<_> = values.iter().map(|value| &self.txns.values[*value as usize]).collect();
        let mut details = json!({"key": self.txns.keys[key as usize], "values": values});
        if let Some(mop) = mop {
            let txn = self.txns.first.partition_point(|first| *first <= mop) - 1;
            details["read"] = (mop - self.txns.first[txn]).into();
        }
        details
    }
}

impl ListAppend<'_> {
    /// Neighbours in the order of the last key of which the first is by `a` and the second by `b`.
    fn neighbours(&self, a: u32, b: u32) -> Option<(u32, u32)> {
        let order = self.orders.last()?;
        let mut before = None;
        for (value, origin) in self.list_of(order).iter().zip(self.origins(order)) {
            let Some(writer) = origin.good() else { continue };
            match before.replace((writer, *value)) {
                Some((other, from)) if other == a && writer == b => return Some((from, *value)),
                _ => {}
            }
        }
        None
    }

    /// The last append of `a` that `b` saw, and in which read.
    fn observed(&self, a: u32, b: u32) -> Option<(u32, u32)> {
        self.reads_of(b).find_map(|(mop, list)| {
            let by_a = |value: &&u32| self.writer_of(**value) == Origin::Txn(a);
            list.iter().rev().find(by_a).map(|value| (*value, mop))
        })
    }

    /// An append of `b` that came next after what `a` saw, and in which read.
    fn missed(&self, a: u32, b: u32) -> Option<(u32, u32)> {
        let order = self.orders.last()?;
        let (list, origins) = (self.list_of(order), self.origins(order));
        self.seen_by(a).find_map(|(mop, seen)| {
            let next = (seen.len()..list.len()).find(|&place| origins[place].good().is_some())?;
            (list.starts_with(seen) && origins[next] == Origin::Txn(b)).then(|| (list[next], mop))
        })
    }
}

/// The first micro-operations of a transaction in words.
pub(super) fn mops(txns: &Transactions, txn: u32, most: usize) -> Vec<String> {
    let list = txns.datatype == Datatype::ListAppend;
    let text = |mop: &super::input::Mop| {
        let key = &txns.keys[mop.key as usize];
        match (mop.kind, list) {
            (MopKind::Blind, _) => format!("r {key}"),
            (MopKind::Write, true) => format!("append {key} {}", short(&txns.values[mop.at as usize])),
            (MopKind::Write, false) => format!("w {key} {}", short(&txns.values[mop.at as usize])),
            (MopKind::Read, true) => format!("r {key} -> {}", super::words::list(txns, txns.list(mop))),
            (MopKind::Read, false) => format!("r {key} -> {}", short(&txns.values[mop.at as usize])),
        }
    };
    txns.mops_of(txn).iter().take(most).map(text).collect()
}
