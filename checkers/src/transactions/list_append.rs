//! What histories of lists tell: a read shows every append before it, in order.
//!
//! ```text
//! reads of key 5      []   [1]   [1 2]   [1 2 4]         each a prefix of the longest: that is the version order
//! ww    writer of 1 -> writer of 2 -> writer of 4
//! wr    writer of 2 -> whoever read [1 2]
//! rw    whoever read [1 2] -> writer of 4
//! ```
//!
//! Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020), section 4 and its
//! anomalies of section 6. Linear in the lengths of the reads and the number of micro-operations.
//!
//! Rules that keep it from crying wolf: what failed is in no order. What nobody read, or whose outcome nobody knows and
//! nobody read, says nothing. A read after own appends must end in these; what is before them is what the transaction saw of
//! others. Where two reads disagree on the order, those that fit the longest read give edges, the others only tell whose
//! append they saw. A key in whose order an element stands twice gives no order at all.

mod edges;

use super::{
    findings::Finding,
    input::{MopKind, Transactions, TxnOutcome},
    keys::{Entry, Inference, Learned, runs},
    models::Phenomenon,
    writers::{NONE, Origin, Writers},
};

/// The list that a transaction saw of others, before it appended itself.
#[derive(Clone, Copy)]
struct Seen {
    txn: u32,
    mop: u32,
    at: u32,
    len: u32,
    /// Whether it was read before the transaction appended to the key.
    external: bool,
    /// The entries of the same transaction.
    run: (u32, u32),
}

/// A list with the reader's own appends at its end: `base` elements are of others.
#[derive(Clone, Copy)]
struct Extended {
    txn: u32,
    mop: u32,
    at: u32,
    len: u32,
    base: u32,
}

/// The version order of a key: a range of the elements, and whose each is.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    pub(super) key: u32,
    pub(super) elements: (u32, u32),
    /// Who saw it whole, and in which read.
    reader: (u32, u32),
    /// Where its writers begin in [`ListAppend::origins`].
    origins: u32,
    /// Whether edges were made of it.
    pub(super) total: bool,
}

/// The inference, for a piece of the keys.
pub(super) struct ListAppend<'a> {
    txns: &'a Transactions,
    pub(super) learned: Learned,
    pub(super) orders: Vec<Order>,
    origins: Vec<Origin>,
    writers: Writers,
    seen: Vec<Seen>,
    extended: Vec<Extended>,
    /// Reads of which nothing tells which part is of others: who and which.
    loose: Vec<(u32, u32)>,
    own: Vec<u32>,
    /// By place in the order: the first place at or after it that counts, the last before it.
    next_good: Vec<u32>,
    prev_good: Vec<u32>,
    /// Place read, and who then wrote.
    rmw: Vec<(u32, u32)>,
    /// Of the last run that was asked for: whether it appends, and where first.
    run_known: ((u32, u32), (bool, u32)),
}

impl Inference for ListAppend<'_> {
    fn key(&mut self, key: u32, entries: &[Entry]) {
        self.writers.clear();
        self.seen.clear();
        self.extended.clear();
        self.loose.clear();
        let mut at = 0;
        for run in runs(entries) {
            self.run(key, run, at);
            at += run.len() as u32;
        }
        let order = self.order(key);
        let order = self.resolve(order);
        self.edges(&order, entries);
        self.orders.push(order);
        if let Some(value) = self.writers.ambiguous() {
            self.learned.ambiguous.push((key, value));
        }
    }
}

impl<'a> ListAppend<'a> {
    pub(super) fn new(txns: &'a Transactions) -> Self {
        ListAppend {
            txns,
            learned: Learned::default(),
            orders: Vec::new(),
            origins: Vec::new(),
            writers: Writers::default(),
            seen: Vec::new(),
            extended: Vec::new(),
            loose: Vec::new(),
            own: Vec::new(),
            next_good: Vec::new(),
            prev_good: Vec::new(),
            rmw: Vec::new(),
            run_known: ((NONE, NONE), (false, NONE)),
        }
    }

    /// Whose the elements of an order are.
    pub(super) fn origins(&self, order: &Order) -> &[Origin] {
        &self.origins[order.origins as usize..][..order.elements.1 as usize]
    }

    fn slice(&self, at: u32, len: u32) -> &'a [u32] {
        &self.txns.elements[at as usize..][..len as usize]
    }

    /// What one transaction did to the key, in the order of its program.
    fn run(&mut self, key: u32, run: &[Entry], place: u32) {
        let (txns, txn) = (self.txns, run[0].txn);
        let outcome = txns.outcome[txn as usize];
        let last = run.iter().rposition(|e| txns.mops[e.mop as usize].kind == MopKind::Write);
        let mut previous: Option<(&[u32], usize)> = None;
        self.own.clear();
        for (i, entry) in run.iter().enumerate() {
            let mop = &txns.mops[entry.mop as usize];
            if mop.kind == MopKind::Write {
                self.writers.add(mop.at, txn, entry.mop, outcome, Some(i) == last);
                self.own.push(mop.at);
                continue;
            }
            if outcome != TxnOutcome::Ok {
                continue;
            }
            let list = txns.list(mop);
            let ends_in_own = list.ends_with(&self.own);
            let consistent = match previous {
                Some((before, own)) => {
                    let new = &self.own[own..];
                    list.len() == before.len() + new.len() && list.starts_with(before) && list.ends_with(new)
                }
                None => ends_in_own,
            };
            let base = mop.len - if ends_in_own { self.own.len() as u32 } else { 0 };
            if !consistent {
                let finding = Finding::new(Phenomenon::Internal, key, &[txn]).mop(entry.mop);
                self.learned.findings.push(finding);
            }
            if consistent && base < mop.len {
                self.extended.push(Extended { txn, mop: entry.mop, at: mop.at, len: mop.len, base });
            }
            if !ends_in_own {
                self.loose.push((txn, entry.mop));
            } else if previous.is_none() || !consistent {
                let external = previous.is_none() && self.own.is_empty();
                let run = (place, place + run.len() as u32);
                self.seen.push(Seen { txn, mop: entry.mop, at: mop.at, len: base, external, run });
            }
            previous = Some((list, self.own.len()));
        }
    }

    /// The longest list that was seen, with the appends of one who saw it whole and then its own behind it.
    fn order(&self, key: u32) -> Order {
        let of = |txn, mop, elements| Order { key, elements, reader: (txn, mop), origins: 0, total: true };
        let mut longest = of(0, 0, (0, 0));
        for seen in &self.seen {
            if seen.len > longest.elements.1 {
                longest = of(seen.txn, seen.mop, (seen.at, seen.len));
            }
        }
        let (at, len) = longest.elements;
        let order = self.slice(at, len);
        let fits = |e: &&Extended| e.base == len && self.slice(e.at, e.base) == order;
        let Some(best) = self.extended.iter().filter(fits).reduce(|a, b| if b.len > a.len { b } else { a })
        else {
            return longest;
        };
        let whole = self.slice(best.at, best.len);
        // If two each saw the whole order and then only their own appends, nobody knows whose came first.
        let agreed = self.extended.iter().filter(fits).all(|e| whole.starts_with(self.slice(e.at, e.len)));
        if agreed { of(best.txn, best.mop, (best.at, best.len)) } else { longest }
    }
}

/// What explanations ask of the last key.
impl<'a> ListAppend<'a> {
    pub(super) fn list_of(&self, order: &Order) -> &'a [u32] {
        self.slice(order.elements.0, order.elements.1)
    }

    pub(super) fn writer_of(&self, value: u32) -> Origin {
        self.writers.of(value).origin
    }

    /// What a transaction saw of others, and in which reads.
    pub(super) fn seen_by(&self, txn: u32) -> impl Iterator<Item = (u32, &'a [u32])> {
        self.seen
            .iter()
            .filter(move |seen| seen.txn == txn)
            .map(|seen| (seen.mop, self.slice(seen.at, seen.len)))
    }

    /// All that it read, and in which reads: also where that fits nothing.
    pub(super) fn reads_of(&self, txn: u32) -> impl Iterator<Item = (u32, &'a [u32])> {
        let loose = self.loose.iter().filter(move |read| read.0 == txn);
        self.seen_by(txn).chain(loose.map(|read| (read.1, self.txns.list(&self.txns.mops[read.1 as usize]))))
    }
}
