//! The dependency graph: who must have come before whom, and for what kind of reason.
//!
//! ```text
//! T1 -ww-> T2     T2's version of a key follows T1's             (Adya's write dependency)
//! T1 -wr-> T2     T2 read T1's version                           (read dependency)
//! T1 -rw-> T2     T1 read a version, T2 wrote the next           (anti-dependency)
//! T1 -process-> T2   one process did both, T1 first
//! T1 -realtime-> T2  T1 had returned before T2 was called
//! ```
//!
//! Kinds of edges: Adya, "Weak Consistency" (PhD thesis, MIT, 1999), chapter 4; the last two as in Kingsbury and Alvaro,
//! "Elle" (VLDB 2020). Four bytes an edge. Deliberately without the last two kinds: they follow from the intervals, and
//! `components` and `search` make them up where they are needed.

use std::fmt;

use super::input::Transactions;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeKind {
    /// The second overwrote what the first wrote.
    Ww,
    /// The second read what the first wrote.
    Wr,
    /// The second overwrote what the first read.
    Rw,
    /// The same process did both, in this order.
    Process,
    /// The first had returned before the second was called.
    Realtime,
}

impl fmt::Display for EdgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EdgeKind::Ww => "ww",
            EdgeKind::Wr => "wr",
            EdgeKind::Rw => "rw",
            EdgeKind::Process => "process",
            EdgeKind::Realtime => "realtime",
        })
    }
}

/// From whom, to whom and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) from: u32,
    /// Target and kind.
    packed: u32,
}

impl Edge {
    pub(super) fn new(from: u32, to: u32, kind: EdgeKind) -> Self {
        Edge { from, packed: pack(to, kind) }
    }
}

/// A target with the kind of the edge in its lowest bits. Targets stay below 2^30.
pub(super) fn pack(to: u32, kind: EdgeKind) -> u32 {
    to << 2
        | match kind {
            EdgeKind::Ww => 0,
            EdgeKind::Wr => 1,
            EdgeKind::Rw => 2,
            EdgeKind::Process | EdgeKind::Realtime => 3,
        }
}

/// The reverse of [`pack`], for the kinds that are stored.
pub(super) fn unpack(packed: u32) -> (u32, EdgeKind) {
    let kind = [EdgeKind::Ww, EdgeKind::Wr, EdgeKind::Rw, EdgeKind::Process][(packed & 3) as usize];
    (packed >> 2, kind)
}

/// Edges by their origin, in one array.
#[derive(Debug, Default)]
pub(super) struct Graph {
    first: Vec<u32>,
    out: Vec<u32>,
    /// How many edges of each stored kind there are.
    pub(super) counts: [usize; 4],
}

impl Graph {
    /// Sorts the edges by origin, by counting; those of one origin keep their order.
    pub(super) fn new(nodes: usize, parts: &[Vec<Edge>]) -> Graph {
        let mut first = vec![0u32; nodes + 1];
        for edge in parts.iter().flatten() {
            first[edge.from as usize + 1] += 1;
        }
        for i in 0..nodes {
            first[i + 1] += first[i];
        }
        let mut next = first.clone();
        let mut out = vec![0; first[nodes] as usize];
        let mut counts = [0; 4];
        for edge in parts.iter().flatten() {
            let place = &mut next[edge.from as usize];
            out[*place as usize] = edge.packed;
            *place += 1;
            counts[(edge.packed & 3) as usize] += 1;
        }
        Graph { first, out, counts }
    }

    /// The edges that leave a node, packed.
    pub(super) fn out(&self, node: u32) -> &[u32] {
        &self.out[self.first[node as usize] as usize..self.first[node as usize + 1] as usize]
    }

    /// The i-th target of a node.
    pub(super) fn successor(&self, node: u32, i: u32) -> Option<u32> {
        let at = self.first[node as usize] + i;
        (at < self.first[node as usize + 1]).then(|| self.out[at as usize] >> 2)
    }
}

/// Steps of a process in which the next transaction is called in the very nanosecond in which the one before returned.
/// Everywhere else the order of a process is part of the order in real time.
pub(super) fn touching(txns: &Transactions) -> Vec<Edge> {
    let mut last: Vec<Option<u32>> = vec![None; txns.processes.len()];
    let mut edges = Vec::new();
    for txn in 0..txns.len() as u32 {
        let last = &mut last[txns.process[txn as usize] as usize];
        if let Some(before) = *last
            && txns.end[before as usize] >= txns.begin[txn as usize]
        {
            edges.push(Edge::new(before, txn, EdgeKind::Process));
        }
        if txns.outcome[txn as usize] != super::input::TxnOutcome::Fail {
            *last = Some(txn);
        }
    }
    edges
}
