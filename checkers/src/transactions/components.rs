//! Where cycles can be: the strongly connected components of the graph, with and without the order in time.
//!
//! ```text
//! T1 |----|                     T4 -rw-> T1, and T1 returned before T4 was called: a cycle with an edge in real time.
//!          T2 |--|              T2 lies between and so in the same component.
//!                 T4 |---|
//! ```
//!
//! Edges in real time are not made to find out that there is none in a cycle. If a cycle has two of them, a < b and c < d,
//! then a < d or c < b as well, since times are numbers (interval orders have no 2+2: Fishburn 1970), and one of the two
//! shortcuts makes a shorter cycle with no other anti-dependency. So there is a cycle if and only if there is one of
//! dependencies alone, or one with a single edge in real time: some b reaches some a that had returned before b was called.
//! One depth-first search decides both, by carrying the earliest return that each node reaches.
//!
//! Only where that finds something, the components are worked out, within the stretches of time from such a return to such
//! a call; a component with edges in real time never leaves them. There, real time is a line of stations in the order of
//! returns, two edges a transaction: a return leads to its station, a station to the next, and the last station before a
//! call to the called. So nothing is ever quadratic, however many run at once.

use super::{
    graph::{EdgeKind, Graph, pack, unpack},
    input::{Transactions, TxnOutcome},
    scc,
    writers::NONE,
};

/// How much of the order in time a component needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Level {
    /// None.
    Plain,
    /// That of each process.
    Process,
    /// All of it.
    Realtime,
}

/// The part of the graph in which all cycles are. Its nodes are numbered anew.
pub(super) struct Suspects {
    /// The transactions.
    pub(super) nodes: Vec<u32>,
    /// The edges between them: dependencies, and steps of a process that touch in time.
    pub(super) graph: SubGraph,
    /// Those that reach one which had returned before they were called.
    pub(super) late: Vec<bool>,
    /// The components of more than one node, by [`Level`]. Those of one level lie within those of the next.
    pub(super) components: [Vec<Vec<u32>>; 3],
}

/// Packed edges by origin.
pub(super) struct SubGraph {
    first: Vec<u32>,
    out: Vec<u32>,
}

impl SubGraph {
    /// Of each node its packed edges.
    pub(super) fn new<I: IntoIterator<Item = u32>>(nodes: usize, edges: impl Fn(usize) -> I) -> Self {
        let mut graph = SubGraph { first: vec![0], out: Vec::new() };
        for node in 0..nodes {
            graph.out.extend(edges(node));
            graph.first.push(graph.out.len() as u32);
        }
        graph
    }

    pub(super) fn out(&self, node: u32) -> &[u32] {
        &self.out[self.first[node as usize] as usize..self.first[node as usize + 1] as usize]
    }

    pub(super) fn edges(&self) -> usize {
        self.out.len()
    }
}

/// Looks for cycles; `None` if there is none, with or without the order in time.
pub(super) fn suspects(txns: &Transactions, graph: &Graph) -> Option<Suspects> {
    let n = txns.len();
    let mut reach = txns.end.clone();
    let mut suspect = vec![false; n];
    let mut windows: Vec<(u64, u64)> = Vec::new();
    let mut any = false;
    scc::components(
        n,
        |node, i| graph.successor(node, i),
        |component| {
            let mut earliest = u64::MAX;
            for &node in component {
                earliest = earliest.min(txns.end[node as usize]);
                for packed in graph.out(node) {
                    earliest = earliest.min(reach[(packed >> 2) as usize]);
                }
            }
            for &node in component {
                reach[node as usize] = earliest;
                let begin = txns.begin[node as usize];
                if earliest < begin {
                    windows.push((earliest, begin));
                }
                suspect[node as usize] = component.len() > 1;
            }
            any |= component.len() > 1;
        },
    );
    if !any && windows.is_empty() {
        return None;
    }
    let windows = merge(windows);
    for (txn, suspect) in suspect.iter_mut().enumerate() {
        let next = windows.partition_point(|window| window.1 < txns.begin[txn]);
        let inside = windows.get(next).is_some_and(|window| window.0 <= txns.end[txn]);
        *suspect |= inside && txns.outcome[txn] != TxnOutcome::Fail;
    }
    let nodes: Vec<u32> = (0..n as u32).filter(|&txn| suspect[txn as usize]).collect();
    let mut local = vec![NONE; n];
    nodes.iter().enumerate().for_each(|(place, &txn)| local[txn as usize] = place as u32);
    let sub = SubGraph::new(nodes.len(), |node| {
        let local = &local;
        graph.out(nodes[node]).iter().filter_map(move |&packed| {
            let to = local[(packed >> 2) as usize];
            (to != NONE).then_some(to << 2 | packed & 3)
        })
    });
    let late = nodes.iter().map(|&txn| reach[txn as usize] < txns.begin[txn as usize]).collect();
    let components = levels(txns, &nodes, &sub, windows.is_empty());
    Some(Suspects { nodes, graph: sub, late, components })
}

/// Joins stretches of time that overlap.
fn merge(mut windows: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    windows.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for window in windows {
        match merged.last_mut() {
            Some(last) if window.0 <= last.1 => last.1 = last.1.max(window.1),
            _ => merged.push(window),
        }
    }
    merged
}

fn levels(txns: &Transactions, nodes: &[u32], sub: &SubGraph, timeless: bool) -> [Vec<Vec<u32>>; 3] {
    let n = nodes.len() as u32;
    let dependency = |node: u32, i: u32| sub.out(node).get(i as usize).map(|packed| packed >> 2);
    let touching = sub.out.iter().any(|&packed| unpack(packed).1 == EdgeKind::Process);
    let plain = if touching {
        // Steps of a process are no dependencies; where there are any, leave them out.
        let bare = SubGraph::new(nodes.len(), |node| {
            let out = sub.out(node as u32).iter().copied();
            out.filter(|&packed| unpack(packed).1 != EdgeKind::Process)
        });
        scc::cyclic(nodes.len(), |node, i| bare.out(node).get(i as usize).map(|packed| packed >> 2))
    } else {
        scc::cyclic(nodes.len(), dependency)
    };
    if timeless && !touching {
        return [plain, Vec::new(), Vec::new()];
    }
    let next = next_of_process(txns, nodes);
    let step = |node: u32, i: u32| {
        let own = sub.out(node).len() as u32;
        if i == own { Some(next[node as usize]).filter(|&next| next != NONE) } else { dependency(node, i) }
    };
    let process = scc::cyclic(nodes.len(), step);
    if timeless {
        return [plain, process, Vec::new()];
    }
    let line = Line::new(txns, nodes);
    let mut realtime = scc::cyclic(nodes.len() + line.stations(), |node, i| {
        if node >= n {
            return line
                .successor(node - n, i)
                .map(|to| if to & Line::STATION != 0 { n + (to ^ Line::STATION) } else { to });
        }
        let own = sub.out(node).len() as u32;
        match i.checked_sub(own) {
            None => dependency(node, i),
            Some(0) => line.station(node).map(|station| n + station),
            Some(_) => None,
        }
    });
    for component in &mut realtime {
        component.retain(|&node| node < n);
    }
    realtime.retain(|component| component.len() > 1);
    [plain, process, realtime]
}

/// Of each node the next one of its process.
fn next_of_process(txns: &Transactions, nodes: &[u32]) -> Vec<u32> {
    let mut last = vec![NONE; txns.processes.len()];
    let mut next = vec![NONE; nodes.len()];
    for (node, &txn) in nodes.iter().enumerate() {
        let last = &mut last[txns.process[txn as usize] as usize];
        if *last != NONE {
            next[*last as usize] = node as u32;
        }
        *last = node as u32;
    }
    next
}

/// Real time as a line of stations, one for each moment in which somebody returned.
struct Line {
    ends: Vec<u64>,
    station_of: Vec<u32>,
    /// By station, whoever was called after it and before the next.
    first: Vec<u32>,
    called: Vec<u32>,
}

impl Line {
    const STATION: u32 = 1 << 31;

    fn new(txns: &Transactions, nodes: &[u32]) -> Line {
        let end = |node: usize| txns.end[nodes[node] as usize];
        let mut ends: Vec<u64> = (0..nodes.len()).map(end).filter(|&end| end != u64::MAX).collect();
        ends.sort_unstable();
        ends.dedup();
        let at = |time: u64| ends.partition_point(|&end| end < time);
        let station_of =
            (0..nodes.len()).map(|node| if end(node) == u64::MAX { NONE } else { at(end(node)) as u32 });
        let station_of = station_of.collect();
        // Whoever was called hears from the last station strictly before.
        let hears: Vec<u32> = nodes.iter().map(|&txn| at(txns.begin[txn as usize]) as u32).collect();
        let mut first = vec![0u32; ends.len() + 1];
        hears.iter().filter(|&&count| count > 0).for_each(|&count| first[count as usize] += 1);
        for station in 0..ends.len() {
            first[station + 1] += first[station];
        }
        let mut place = first.clone();
        let mut called = vec![0; first[ends.len()] as usize];
        for (node, &count) in hears.iter().enumerate().filter(|(_, count)| **count > 0) {
            let place = &mut place[count as usize - 1];
            called[*place as usize] = node as u32;
            *place += 1;
        }
        Line { ends, station_of, first, called }
    }

    fn stations(&self) -> usize {
        self.ends.len()
    }

    fn station(&self, node: u32) -> Option<u32> {
        Some(self.station_of[node as usize]).filter(|&station| station != NONE)
    }

    /// The next station first, marked; then the called.
    fn successor(&self, station: u32, i: u32) -> Option<u32> {
        let last = station as usize + 1 == self.ends.len();
        if i == 0 && !last {
            return Some(Self::STATION | (station + 1));
        }
        let at = self.first[station as usize] + i - u32::from(!last);
        (at < self.first[station as usize + 1]).then(|| self.called[at as usize])
    }
}

/// One component, with all that the search for cycles asks. Nodes are numbered anew once more.
pub(super) struct Part {
    pub(super) nodes: Vec<u32>,
    pub(super) graph: SubGraph,
    /// The same edges by target; packed is the origin.
    pub(super) reverse: SubGraph,
    pub(super) begin: Vec<u64>,
    pub(super) end: Vec<u64>,
    pub(super) process: Vec<u32>,
    pub(super) late: Vec<bool>,
}

impl Suspects {
    /// Cuts out one component. `place` must hold, for each of its nodes, the place in it, and for all others something
    /// that is not the place of that node.
    pub(super) fn part(&self, txns: &Transactions, component: &[u32], place: &[u32]) -> Part {
        let inside = |node: u32| {
            let at = place[node as usize];
            (component.get(at as usize) == Some(&node)).then_some(at)
        };
        let graph = SubGraph::new(component.len(), |node| {
            self.graph
                .out(component[node])
                .iter()
                .filter_map(move |&packed| inside(packed >> 2).map(|to| to << 2 | packed & 3))
        });
        let mut first = vec![0u32; component.len() + 1];
        graph.out.iter().for_each(|packed| first[(packed >> 2) as usize + 1] += 1);
        for node in 0..component.len() {
            first[node + 1] += first[node];
        }
        let (mut next, mut out) = (first.clone(), vec![0; graph.out.len()]);
        for from in 0..component.len() as u32 {
            for &packed in graph.out(from) {
                let (to, kind) = unpack(packed);
                out[next[to as usize] as usize] = pack(from, kind);
                next[to as usize] += 1;
            }
        }
        let txn = |node: &u32| self.nodes[*node as usize] as usize;
        Part {
            nodes: component.iter().map(|node| self.nodes[*node as usize]).collect(),
            graph,
            reverse: SubGraph { first, out },
            begin: component.iter().map(|node| txns.begin[txn(node)]).collect(),
            end: component.iter().map(|node| txns.end[txn(node)]).collect(),
            process: component.iter().map(|node| txns.process[txn(node)]).collect(),
            late: component.iter().map(|node| self.late[*node as usize]).collect(),
        }
    }
}
