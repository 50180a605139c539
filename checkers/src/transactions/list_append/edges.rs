//! What follows from the version order of one key: whose each element is, what is wrong with it, and the edges.
//!
//! ```text
//! order      1    2    3    4          T2 failed: 2 is in no chain, and whoever read it read an aborted write
//! of         T1   T2   T1   T4
//! chain      T1 ------ T1 - T4         ww between neighbours of different writers
//! read [1 2]         ^ prev = 1 (wr from T1), next = 3 (rw to T1): T1 was seen in the middle
//! ```
//!
//! Linear in the order and the number of reads. Deliberately one key at a time.

use super::{ListAppend, Order, Seen};
use crate::transactions::{
    findings::Finding,
    graph::{Edge, EdgeKind},
    input::MopKind,
    keys::Entry,
    models::Phenomenon,
    writers::{NONE, Origin},
};

impl ListAppend<'_> {
    /// Finds the writers of the order, and what is wrong with it by itself.
    pub(super) fn resolve(&mut self, mut order: Order) -> Order {
        let list = self.slice(order.elements.0, order.elements.1);
        let start = self.origins.len();
        order.origins = start as u32;
        let mut wrong = false;
        for (place, &value) in list.iter().enumerate() {
            let writer = self.writers.place(value, place as u32);
            self.origins.push(writer.origin);
            wrong |= matches!(writer.origin, Origin::Failed(_) | Origin::Nobody);
            if writer.place != NONE {
                order.total = false;
                if writer.count <= 1 {
                    let finding = Finding::new(Phenomenon::DuplicateElements, order.key, &[order.reader.0]);
                    self.learned.findings.push(finding.value(value).mop(order.reader.1));
                }
            }
        }
        self.next_good.clear();
        self.next_good.resize(list.len() + 1, NONE);
        self.prev_good.clear();
        self.prev_good.resize(list.len() + 1, NONE);
        for place in 0..list.len() {
            let good = self.origins[start + place].good().is_some();
            self.prev_good[place + 1] = if good { place as u32 } else { self.prev_good[place] };
        }
        for place in (0..list.len()).rev() {
            let good = self.origins[start + place].good().is_some();
            self.next_good[place] = if good { place as u32 } else { self.next_good[place + 1] };
        }
        if wrong {
            self.aborted_and_garbage(&order);
        }
        order
    }

    /// Elements of the order whose writer failed, or that nobody wrote.
    fn aborted_and_garbage(&mut self, order: &Order) {
        let list = self.slice(order.elements.0, order.elements.1);
        let mut readers = vec![0usize; list.len() + 1];
        for seen in &self.seen {
            readers[(seen.len as usize).min(list.len())] += 1;
        }
        for len in (0..list.len()).rev() {
            readers[len] += readers[len + 1];
        }
        // Who saw it all stands for the readers of every place, so that this stays linear.
        let (reader, mop) = order.reader;
        for (place, &value) in list.iter().enumerate() {
            let more = readers[place + 1].saturating_sub(1);
            let (kind, txns) = match self.origins[order.origins as usize + place] {
                Origin::Failed(writer) => (Phenomenon::G1a, vec![writer, reader]),
                Origin::Nobody => (Phenomenon::GarbageRead, vec![reader]),
                _ => continue,
            };
            let finding = Finding::new(kind, order.key, &txns).value(value).mop(mop).more(more);
            self.learned.findings.push(finding);
            let next = self.next_good[place];
            if kind == Phenomenon::G1a
                && let Some(after) = self.writer_at(order, next)
            {
                let finding = Finding::new(Phenomenon::DirtyUpdate, order.key, &[txns[0], after]);
                self.learned.findings.push(finding.value(value).value(list[next as usize]));
            }
        }
    }

    /// Who wrote the element at this place, if it counts.
    fn writer_at(&self, order: &Order, place: u32) -> Option<u32> {
        (place != NONE).then(|| self.origins[order.origins as usize + place as usize].good())?
    }

    /// The edges of one key, and the anomalies that need its order.
    pub(super) fn edges(&mut self, order: &Order, entries: &[Entry]) {
        let list = self.slice(order.elements.0, order.elements.1);
        if order.total {
            self.chain(order, list);
        }
        self.rmw.clear();
        self.run_known = ((NONE, NONE), (false, NONE));
        let (seen, loose) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.loose));
        let mut disagreeing: Option<Finding> = None;
        for seen in &seen {
            let base = self.slice(seen.at, seen.len);
            if list.starts_with(base) {
                self.prefix(order, seen, entries);
                continue;
            }
            match &mut disagreeing {
                Some(finding) => finding.more += 1,
                None => {
                    let txns = [order.reader.0, seen.txn];
                    let finding = Finding::new(Phenomenon::IncompatibleOrder, order.key, &txns);
                    disagreeing = Some(finding.mop(order.reader.1).mop(seen.mop));
                }
            }
            self.strange(order.key, seen.txn, seen.mop, base);
        }
        for &(txn, mop) in &loose {
            self.strange(order.key, txn, mop, self.txns.list(&self.txns.mops[mop as usize]));
        }
        (self.seen, self.loose) = (seen, loose);
        disagreeing.into_iter().for_each(|finding| self.learned.findings.push(finding));
        self.lost_updates(order.key);
    }

    /// Edges along the order. Neighbours of one writer must come in the order of its program.
    fn chain(&mut self, order: &Order, list: &[u32]) {
        let mut before: Option<(u32, u32)> = None;
        let mut shuffled: Option<Finding> = None;
        for (&value, origin) in list.iter().zip(&self.origins[order.origins as usize..]) {
            let Some(txn) = origin.good() else { continue };
            match before.replace((txn, value)) {
                Some((other, _)) if other != txn => {
                    self.learned.edges.push(Edge::new(other, txn, EdgeKind::Ww));
                }
                Some((_, earlier)) if self.writers.of(value).mop < self.writers.of(earlier).mop => {
                    shuffled.get_or_insert_with(|| {
                        let txns = [order.reader.0, txn];
                        let finding = Finding::new(Phenomenon::IncompatibleOrder, order.key, &txns);
                        finding.mop(order.reader.1).value(earlier).value(value)
                    });
                }
                _ => {}
            }
        }
        shuffled.into_iter().for_each(|finding| self.learned.findings.push(finding));
    }

    /// A read that fits the order.
    fn prefix(&mut self, order: &Order, seen: &Seen, entries: &[Entry]) {
        let (key, txn, len) = (order.key, seen.txn, seen.len);
        let next = self.next_good[len as usize];
        if let Some(writer) = self.writer_at(order, self.prev_good[len as usize])
            && writer != txn
        {
            self.learned.edges.push(Edge::new(writer, txn, EdgeKind::Wr));
        }
        let overwriter = self.writer_at(order, next).filter(|writer| order.total && *writer != txn);
        if let Some(writer) = overwriter {
            self.learned.edges.push(Edge::new(txn, writer, EdgeKind::Rw));
        }
        if len > 0 {
            let value = self.txns.elements[(order.elements.0 + len - 1) as usize];
            if let Some(writer) = self.writer_at(order, len - 1)
                && writer != txn
                && !self.writers.of(value).last
            {
                let finding = Finding::new(Phenomenon::G1b, key, &[writer, txn]).value(value).mop(seen.mop);
                self.learned.findings.push(finding);
            }
        }
        let (writes, first_own) = self.own_appends(txn, seen.run, entries);
        if first_own < len {
            let value = self.txns.elements[(order.elements.0 + first_own) as usize];
            let finding = Finding::new(Phenomenon::FutureRead, key, &[txn]).value(value).mop(seen.mop);
            self.learned.findings.push(finding);
        }
        if seen.external && writes {
            self.rmw.push((len, txn));
            if let Some(writer) = overwriter
                && first_own != NONE
                && next < first_own
            {
                let value = self.txns.elements[(order.elements.0 + next) as usize];
                let finding = Finding::new(Phenomenon::GCursor, key, &[txn, writer]).mop(seen.mop);
                self.learned.findings.push(finding.value(value));
            }
        }
    }

    /// Whether the transaction appends to the key, and where the first of these appends stands in the order.
    fn own_appends(&mut self, txn: u32, run: (u32, u32), entries: &[Entry]) -> (bool, u32) {
        // Reads of one transaction come together: do not go through a long one for each of them.
        if self.run_known.0 == run {
            return self.run_known.1;
        }
        let mut found = (false, NONE);
        for entry in &entries[run.0 as usize..run.1 as usize] {
            let mop = &self.txns.mops[entry.mop as usize];
            if mop.kind == MopKind::Write {
                let writer = self.writers.of(mop.at);
                found.0 = true;
                if writer.origin == Origin::Txn(txn) {
                    found.1 = found.1.min(writer.place);
                }
            }
        }
        self.run_known = (run, found);
        found
    }

    /// A read that fits no order: only whose appends it saw can be said.
    fn strange(&mut self, key: u32, txn: u32, mop: u32, list: &[u32]) {
        for &value in list {
            let (kind, txns) = match self.writers.of(value).origin {
                Origin::Failed(writer) => (Phenomenon::G1a, vec![writer, txn]),
                Origin::Nobody => (Phenomenon::GarbageRead, vec![txn]),
                _ => continue,
            };
            self.learned.findings.push(Finding::new(kind, key, &txns).value(value).mop(mop));
        }
        if let Some(&value) = list.last() {
            let writer = self.writers.of(value);
            if let Some(from) = writer.origin.good()
                && from != txn
            {
                self.learned.edges.push(Edge::new(from, txn, EdgeKind::Wr));
                if !writer.last {
                    let finding = Finding::new(Phenomenon::G1b, key, &[from, txn]).value(value).mop(mop);
                    self.learned.findings.push(finding);
                }
            }
        }
        let mut sorted = list.to_vec();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|w| w[0] == w[1] && self.writers.of(w[0]).count <= 1) {
            let finding = Finding::new(Phenomenon::DuplicateElements, key, &[txn]).value(twice[0]).mop(mop);
            self.learned.findings.push(finding);
        }
    }

    /// Committed transactions that read the same version and each wrote the next.
    fn lost_updates(&mut self, key: u32) {
        self.rmw.sort_unstable();
        for same in self.rmw.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            let finding = Finding::new(Phenomenon::LostUpdate, key, &[same[0].1, same[1].1]);
            self.learned.findings.push(finding.more(same.len() - 2));
        }
    }
}
