//! The order of the versions of one register, as far as it can be known.
//!
//! ```text
//! nil -> 1 -> 2          T1 wrote 1, T2 read 1 and wrote 2 (wfr), or came later (linearizable)
//!   \--> 7               of 7 only that it is not the initial value is known
//! ```
//!
//! Edges are reduced: real time through the frontier of those that returned last, the initial value to versions without
//! another before them. Whoever is left out follows on a way through others. Deliberately no guess where nothing is assumed.

use super::{RwRegister, Source, Touch, VersionEdge};
use crate::transactions::{
    components::SubGraph, findings::Finding, input::NEVER, models::Phenomenon, scc, writers::NONE,
};

/// Going through the frontier is cheap next to an edge.
const STEPS_PER_EDGE: usize = 16;

impl RwRegister<'_> {
    /// Fills `order`; whether that stayed within the bound.
    pub(super) fn order_versions(&mut self, key: u32, most: usize) -> bool {
        self.order.clear();
        let assume = self.assume;
        let mut complete = true;
        if assume.wfr || assume.sequential || assume.linearizable {
            self.writes_follow_reads();
        }
        if assume.sequential || assume.linearizable {
            self.in_processes();
        }
        if assume.linearizable {
            complete = self.in_real_time(most);
        }
        self.order.sort_unstable();
        self.order.dedup_by_key(|edge| (edge.from, edge.to));
        let kept = std::mem::take(&mut self.order);
        let all = with_initial(&kept, self.versions.len(), self.initial_known);
        self.order = match circle(&all, self.versions.len()) {
            None => all,
            Some(_) => self.without_circles(key, &kept),
        };
        self.leave_out_shortcuts(STEPS_PER_EDGE * most);
        complete
    }

    /// Leaves out an edge where two others lead to the same, each of a version with a writer in between: that cycles lead
    /// through it changes none to a milder class. The order has no circle and is sorted. Skipped where it costs too much.
    fn leave_out_shortcuts(&mut self, most: usize) {
        let order = &self.order;
        let mut first = vec![0u32; self.versions.len() + 1];
        order.iter().for_each(|edge| first[edge.from as usize + 1] += 1);
        for version in 0..self.versions.len() {
            first[version + 1] += first[version];
        }
        let after =
            |version: u32| &order[first[version as usize] as usize..first[version as usize + 1] as usize];
        if order.iter().map(|edge| after(edge.to).len()).sum::<usize>() > most {
            return;
        }
        let mut two_away = vec![NONE; self.versions.len()];
        let mut kept = Vec::with_capacity(order.len());
        for from in 0..self.versions.len() as u32 {
            for edge in after(from).iter().flat_map(|edge| after(edge.to)) {
                two_away[edge.to as usize] = from;
            }
            kept.extend(after(from).iter().filter(|edge| two_away[edge.to as usize] != from));
        }
        self.order = kept;
    }

    fn before(&mut self, from: u32, to: u32, source: Source, by: (u32, u32)) {
        if from != to && from != NONE && to != NONE {
            self.order.push(VersionEdge { from, to, source, by });
        }
    }

    fn writes_follow_reads(&mut self) {
        for i in 0..self.touches.len() {
            let Touch { txn, read, write } = self.touches[i];
            self.before(read, write, Source::Wfr, (txn, txn));
        }
    }

    fn in_processes(&mut self) {
        self.last_of_process.clear();
        for i in 0..self.touches.len() {
            let touch = self.touches[i];
            if touch.first() == NONE {
                continue;
            }
            let process = self.txns.process[touch.txn as usize];
            if let Some(last) = self.last_of_process.insert(process, i) {
                let last = self.touches[last];
                self.before(last.last(), touch.first(), Source::Sequential, (last.txn, touch.txn));
            }
        }
    }

    /// Whoever had returned before another was called, reduced to those that nobody came after in between.
    fn in_real_time(&mut self, most: usize) -> bool {
        let mut moments: Vec<(u64, bool, u32)> = Vec::with_capacity(2 * self.touches.len());
        for (i, touch) in self.touches.iter().enumerate().filter(|(_, touch)| touch.first() != NONE) {
            moments.push((self.txns.begin[touch.txn as usize], false, i as u32));
            let end = self.txns.end[touch.txn as usize];
            if end != NEVER {
                moments.push((end, true, i as u32));
            }
        }
        // A call comes before a return at the same moment: intervals are closed.
        moments.sort_unstable();
        let mut frontier: Vec<u32> = Vec::new();
        let (mut steps, made) = (0, self.order.len());
        for (_, returns, i) in moments {
            let touch = self.touches[i as usize];
            steps += frontier.len();
            if steps > STEPS_PER_EDGE * most || self.order.len() > made + most {
                return false;
            }
            if returns {
                let begin = self.txns.begin[touch.txn as usize];
                frontier.retain(|&j| self.txns.end[self.touches[j as usize].txn as usize] >= begin);
                frontier.push(i);
                continue;
            }
            for &j in &frontier {
                let last = self.touches[j as usize];
                self.before(last.last(), touch.first(), Source::Linearizable, (last.txn, touch.txn));
            }
        }
        true
    }

    /// Takes one source after the other, and drops each that closes a circle.
    fn without_circles(&mut self, key: u32, edges: &[VersionEdge]) -> Vec<VersionEdge> {
        let mut kept: Vec<VersionEdge> = Vec::new();
        for source in Source::ALL {
            let more = edges.iter().filter(|edge| edge.source == source);
            let mut tried: Vec<VersionEdge> = kept.iter().chain(more).copied().collect();
            tried.sort_unstable();
            match circle(&with_initial(&tried, self.versions.len(), self.initial_known), self.versions.len())
            {
                None => kept = tried,
                Some(round) => {
                    let txns: Vec<u32> = round.iter().flat_map(|edge| [edge.by.0, edge.by.1]).collect();
                    let mut finding = Finding::new(Phenomenon::CyclicVersions, key, &[]);
                    for txn in txns.into_iter().filter(|&txn| txn != NONE) {
                        if !finding.txns.contains(&txn) {
                            finding.txns.push(txn);
                        }
                    }
                    finding.values = round.iter().map(|edge| self.versions[edge.from as usize].0).collect();
                    // Which assumption it was.
                    finding.mops = vec![source as u32];
                    self.learned.findings.push(finding);
                }
            }
        }
        with_initial(&kept, self.versions.len(), self.initial_known)
    }
}

/// The edges, and those from the initial version to all that have nothing before them.
fn with_initial(edges: &[VersionEdge], versions: usize, known: bool) -> Vec<VersionEdge> {
    let mut all = edges.to_vec();
    if known {
        let mut follows = vec![false; versions];
        edges.iter().for_each(|edge| follows[edge.to as usize] = true);
        let free = (1..versions as u32).filter(|&version| !follows[version as usize]);
        all.extend(free.map(|to| VersionEdge { from: 0, to, source: Source::Initial, by: (NONE, NONE) }));
        all.sort_unstable();
    }
    all
}

/// A shortest circle through the first version that is in one. The edges are sorted.
fn circle(edges: &[VersionEdge], versions: usize) -> Option<Vec<VersionEdge>> {
    let first = |version: u32| edges.partition_point(|edge| edge.from < version);
    let graph = SubGraph::new(versions, |version| {
        edges[first(version as u32)..].iter().take_while(move |e| e.from == version as u32).map(|e| e.to)
    });
    let component = scc::cyclic(versions, |version, i| graph.out(version).get(i as usize).copied());
    let start = *component.first()?.first()?;
    let mut by: Vec<Option<VersionEdge>> = vec![None; versions];
    let mut queue = vec![start];
    let mut head = 0;
    while by[start as usize].is_none() {
        let at = *queue.get(head)?;
        head += 1;
        for edge in edges[first(at)..].iter().take_while(|edge| edge.from == at) {
            if by[edge.to as usize].is_none() {
                by[edge.to as usize] = Some(*edge);
                queue.push(edge.to);
            }
        }
    }
    let mut round = Vec::new();
    let mut at = start;
    loop {
        let edge = by[at as usize]?;
        round.push(edge);
        at = edge.from;
        if at == start {
            round.reverse();
            return Some(round);
        }
    }
}
