//! What histories of registers tell: a read shows one write, and by itself nothing of the order of the others.
//!
//! ```text
//! wr    writer of 3 -> whoever read 3                       written values are distinct
//! order of the versions of a key, from                      then
//!   initial        nil comes before all others              ww   writer of v -> writer of a version that follows v
//!   wfr            read v, then wrote w, in one txn         rw   whoever read v -> writer of a version that follows v
//!   sequential     one process had v before w
//!   linearizable   whoever had v returned before whoever had w was called
//! ```
//!
//! The last three hold only if the system promises them of each single key, so they are asked for. Sources: "Elle" (VLDB
//! 2020), section 5.2, and its checker, whose names these are. Only versions that a transaction left behind are ordered, and
//! writes of unknown outcome only if they were read. If an assumption puts the versions of a key into a circle, that is
//! reported and the assumption is dropped for this key. Near linear; per key a bound on the edges keeps it so, and a key
//! that meets it is named.

mod versions;

use rustc_hash::FxHashMap;

use super::{
    findings::Finding,
    graph::{Edge, EdgeKind},
    input::{MopKind, NIL, Transactions, TxnOutcome},
    keys::{Entry, Inference, Learned, runs},
    models::Phenomenon,
    writers::{NONE, Origin, Writers},
};

/// What may be assumed of each key by itself, over and above the consistency model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyAssumptions {
    /// Writes follow reads: what a transaction writes comes after what it read before.
    pub wfr: bool,
    /// Each key is sequentially consistent: a process meets its versions in order. Implies the above.
    pub sequential: bool,
    /// Each key is linearizable: its versions follow each other in real time. Implies both.
    pub linearizable: bool,
}

/// Why one version comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Initial,
    Wfr,
    Sequential,
    Linearizable,
}

impl Source {
    pub(super) const ALL: [Source; 4] =
        [Source::Initial, Source::Wfr, Source::Sequential, Source::Linearizable];

    pub(super) fn name(self) -> &'static str {
        ["initial", "wfr", "sequential", "linearizable"][self as usize]
    }
}

/// Version `from` comes before version `to`, as transactions `by` show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VersionEdge {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) source: Source,
    pub(super) by: (u32, u32),
}

/// An answer that a transaction got from others.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) txn: u32,
    pub(super) mop: u32,
    pub(super) value: u32,
    external: bool,
    writes: bool,
}

/// The first and the last version that a transaction had of the key.
#[derive(Clone, Copy)]
struct Touch {
    txn: u32,
    /// Value read from others, then version.
    read: u32,
    /// Value left behind, then version.
    write: u32,
}

impl Touch {
    fn first(&self) -> u32 {
        if self.read != NONE { self.read } else { self.write }
    }

    fn last(&self) -> u32 {
        if self.write != NONE { self.write } else { self.read }
    }
}

/// The inference, for a piece of the keys. What it knows of the last key stays, for explanations.
pub(super) struct RwRegister<'a> {
    txns: &'a Transactions,
    assume: KeyAssumptions,
    pub(super) learned: Learned,
    pub(super) writers: Writers,
    pub(super) seen: Vec<Seen>,
    touches: Vec<Touch>,
    /// By version its value and its writer; the first is the initial one.
    pub(super) versions: Vec<(u32, u32)>,
    pub(super) order: Vec<VersionEdge>,
    last_of_process: FxHashMap<u32, usize>,
    initial_known: bool,
}

/// Of each key at most so many edges for every micro-operation, and some.
const EDGES_PER_ENTRY: usize = 128;

impl Inference for RwRegister<'_> {
    fn key(&mut self, key: u32, entries: &[Entry]) {
        self.writers.clear();
        self.seen.clear();
        self.touches.clear();
        runs(entries).for_each(|run| self.run(key, run));
        self.initial_known = self.writers.of(NIL).count == 0;
        if let Some(value) = self.writers.ambiguous() {
            self.learned.ambiguous.push((key, value));
        } else if !self.initial_known {
            self.learned.ambiguous.push((key, NIL));
        }
        self.number_versions();
        self.read_edges(key);
        self.lost_updates(key);
        let most = EDGES_PER_ENTRY * entries.len() + 4096;
        let complete = self.order_versions(key, most) && self.order_edges(most);
        if !complete {
            self.learned.cut_keys.push(key);
        }
    }
}

impl<'a> RwRegister<'a> {
    pub(super) fn new(txns: &'a Transactions, assume: KeyAssumptions) -> Self {
        RwRegister {
            txns,
            assume,
            learned: Learned::default(),
            writers: Writers::default(),
            seen: Vec::new(),
            touches: Vec::new(),
            versions: Vec::new(),
            order: Vec::new(),
            last_of_process: FxHashMap::default(),
            initial_known: true,
        }
    }

    /// What one transaction did to the key, in the order of its program.
    fn run(&mut self, key: u32, run: &[Entry]) {
        let (txns, txn) = (self.txns, run[0].txn);
        let outcome = txns.outcome[txn as usize];
        let last = run.iter().rposition(|e| txns.mops[e.mop as usize].kind == MopKind::Write);
        let mut current = NONE;
        let mut touch = Touch { txn, read: NONE, write: NONE };
        for (i, entry) in run.iter().enumerate() {
            let mop = &txns.mops[entry.mop as usize];
            if mop.kind == MopKind::Write {
                self.writers.add(mop.at, txn, entry.mop, outcome, Some(i) == last);
                (current, touch.write) = (mop.at, mop.at);
            } else if outcome == TxnOutcome::Ok {
                if current == NONE {
                    touch.read = mop.at;
                } else if current != mop.at {
                    self.learned
                        .findings
                        .push(Finding::new(Phenomenon::Internal, key, &[txn]).mop(entry.mop));
                }
                if current != mop.at {
                    let (external, writes) = (current == NONE, last.is_some());
                    self.seen.push(Seen { txn, mop: entry.mop, value: mop.at, external, writes });
                }
                current = mop.at;
            }
        }
        if outcome != TxnOutcome::Fail {
            self.touches.push(touch);
        }
    }

    /// Numbers what transactions left behind, if it was read or certainly committed; the others are in no order.
    fn number_versions(&mut self) {
        self.versions.clear();
        self.versions.push((NIL, NONE));
        let ok = |txn: u32| self.txns.is_ok(txn);
        let read = self.seen.iter().map(|seen| (seen.value, true));
        let written = self.touches.iter().map(|touch| (touch.write, ok(touch.txn)));
        for (value, counts) in read.chain(written).filter(|(value, _)| *value != NONE && *value != NIL) {
            let writer = self.writers.of(value);
            if let Origin::Txn(txn) = writer.origin
                && writer.last
                && writer.place == NONE
                && counts
            {
                self.writers.place(value, self.versions.len() as u32);
                self.versions.push((value, txn));
            }
        }
        for i in 0..self.touches.len() {
            let Touch { txn, read, write } = self.touches[i];
            self.touches[i] = Touch { txn, read: self.version(read), write: self.version(write) };
        }
    }

    /// The number of the version with this value, if it is in the order.
    pub(super) fn version(&self, value: u32) -> u32 {
        match value {
            NONE => NONE,
            NIL if self.initial_known => 0,
            NIL => NONE,
            value => self.writers.of(value).place,
        }
    }

    /// Edges from writers to readers, and what is wrong with single reads.
    fn read_edges(&mut self, key: u32) {
        for seen in &self.seen {
            let writer = self.writers.of(seen.value);
            let finding = match writer.origin {
                Origin::Failed(from) if seen.value != NIL => {
                    Finding::new(Phenomenon::G1a, key, &[from, seen.txn])
                }
                Origin::Nobody if seen.value != NIL => {
                    Finding::new(Phenomenon::GarbageRead, key, &[seen.txn])
                }
                Origin::Txn(from) if from == seen.txn && seen.external => {
                    Finding::new(Phenomenon::FutureRead, key, &[seen.txn])
                }
                Origin::Txn(from) if from != seen.txn && seen.value != NIL => {
                    self.learned.edges.push(Edge::new(from, seen.txn, EdgeKind::Wr));
                    if writer.last {
                        continue;
                    }
                    Finding::new(Phenomenon::G1b, key, &[from, seen.txn])
                }
                _ => continue,
            };
            self.learned.findings.push(finding.value(seen.value).mop(seen.mop));
        }
    }

    /// Committed transactions that read the same version and each wrote another.
    fn lost_updates(&mut self, key: u32) {
        let updates = self.seen.iter().filter(|seen| seen.external && seen.writes);
        let certain = updates.filter(|seen| match self.writers.of(seen.value).origin {
            Origin::Txn(txn) => txn != seen.txn,
            _ => seen.value == NIL && self.initial_known,
        });
        let mut rmw: Vec<(u32, u32)> = certain.map(|seen| (seen.value, seen.txn)).collect();
        rmw.sort_unstable();
        for same in rmw.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            let finding = Finding::new(Phenomenon::LostUpdate, key, &[same[0].1, same[1].1]);
            self.learned.findings.push(finding.value(same[0].0).more(same.len() - 2));
        }
    }

    /// Edges between transactions from the order of the versions; whether all were made.
    fn order_edges(&mut self, most: usize) -> bool {
        let mut readers: Vec<(u32, u32)> = self.seen.iter().map(|s| (self.version(s.value), s.txn)).collect();
        readers.sort_unstable();
        readers.dedup();
        let mut made = 0;
        for edge in &self.order {
            let (before, after) = (self.versions[edge.from as usize].1, self.versions[edge.to as usize].1);
            if after == NONE {
                continue;
            }
            if before != NONE && before != after {
                self.learned.edges.push(Edge::new(before, after, EdgeKind::Ww));
            }
            let first = readers.partition_point(|reader| reader.0 < edge.from);
            for reader in readers[first..].iter().take_while(|reader| reader.0 == edge.from) {
                if reader.1 != after {
                    self.learned.edges.push(Edge::new(reader.1, after, EdgeKind::Rw));
                }
                made += 1;
            }
            if made > most {
                return false;
            }
        }
        true
    }
}
