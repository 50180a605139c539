//! In which order the writes must have been taken: a graph, and the circles in it.
//!
//! ```text
//! 1 -> 2    process 3 wrote 1 before it wrote 2
//! 2 -> 1    process 4 wrote 2, and after that it read 1
//! ```
//!
//! A circle is a proof that there is no such order. Nodes are writes, and helpers that stand for several of them, so that
//! "all of these come before that" costs no more than the writes it is about.

use std::collections::VecDeque;

use super::accesses::NONE;
use crate::transactions::scc;

/// Why one write comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Through a helper; the reason is told by an edge before or behind.
    Helper,
    /// This operation saw the later one, though the earlier one had to be visible to it; since its session had seen that by
    /// another operation, if one is named.
    Saw(u32, u32),
    /// One session wrote both, in this order.
    Session,
    /// A session saw the earlier one by this operation, and then wrote the later one.
    Followed(u32),
    /// A compare-and-set found the earlier one and put the later one in its place.
    Replaced,
    /// The earlier one returned before the later one was called.
    RealTime,
}

/// The graph.
pub(super) struct Order {
    writes: u32,
    nodes: u32,
    edges: Vec<(u32, u32, Why)>,
}

/// A circle: each write with the reason why it comes before the next, and the last before the first.
pub(super) type Circle = Vec<(u32, Why)>;

/// Where the search for a short circle may begin, at most.
const STARTS: usize = 16;

impl Order {
    pub(super) fn new(writes: usize) -> Order {
        Order { writes: writes as u32, nodes: writes as u32, edges: Vec::new() }
    }

    pub(super) fn helper(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    pub(super) fn before(&mut self, from: u32, to: u32, why: Why) {
        if from != to {
            self.edges.push((from, to, why));
        }
    }

    /// A short circle of each knot in the order; none if the writes can be put in order.
    pub(super) fn circles(mut self) -> Vec<Circle> {
        self.edges.sort_by_key(|edge| edge.0);
        let nodes = self.nodes as usize;
        let mut first = vec![0u32; nodes + 1];
        for edge in &self.edges {
            first[edge.0 as usize + 1] += 1;
        }
        for at in 0..nodes {
            first[at + 1] += first[at];
        }
        let out = |node: u32| &self.edges[first[node as usize] as usize..first[node as usize + 1] as usize];
        let knots = scc::cyclic(nodes, |node, i| out(node).get(i as usize).map(|edge| edge.1));
        let mut of = vec![NONE; nodes];
        for (number, knot) in knots.iter().enumerate() {
            knot.iter().for_each(|node| of[*node as usize] = number as u32);
        }
        let mut via: Vec<Option<(u32, Why)>> = vec![None; nodes];
        let mut circles = Vec::new();
        for (number, knot) in knots.iter().enumerate() {
            let mut best: Option<Circle> = None;
            let starts = knot.iter().filter(|node| **node < self.writes).take(STARTS);
            for &start in starts {
                knot.iter().for_each(|node| via[*node as usize] = None);
                let mut queue = VecDeque::from([start]);
                'search: while let Some(node) = queue.pop_front() {
                    for &(_, to, why) in out(node) {
                        if of[to as usize] != number as u32 || via[to as usize].is_some() {
                            continue;
                        }
                        via[to as usize] = Some((node, why));
                        if to == start {
                            break 'search;
                        }
                        queue.push_back(to);
                    }
                }
                let circle = self.walk_back(start, &via);
                if !circle.is_empty() && best.as_ref().is_none_or(|best| circle.len() < best.len()) {
                    best = Some(circle);
                }
            }
            circles.extend(best);
        }
        circles
    }

    /// The circle through `start`, without helpers.
    fn walk_back(&self, start: u32, via: &[Option<(u32, Why)>]) -> Circle {
        let mut circle = Vec::new();
        let (mut at, mut reason) = (start, Why::Helper);
        while let Some((from, why)) = via[at as usize] {
            if why != Why::Helper {
                reason = why;
            }
            if from < self.writes {
                circle.push((from, std::mem::replace(&mut reason, Why::Helper)));
            }
            if from == start {
                circle.reverse();
                return circle;
            }
            at = from;
        }
        Vec::new()
    }
}
