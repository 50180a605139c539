//! How far operations that cannot all be put in order can be: every order that works until nothing can follow.
//!
//! ```text
//! w 1   w 2   r -> 2   r -> 1          nil, w 1 {1}, w 2 {2}, r -> 2            stuck: r -> 1
//!                                      nil, w 1 {1}, r -> 1 ?                   no: w 2 had returned before
//! ```
//!
//! An order is *maximal* if no operation that is left can be placed next. Orders are paths in a graph of configurations
//! (what has been placed, and the state): any two ways into the same configuration go on alike. How long a path
//! is depends on the configuration that it ends in alone, so the longest that contains an operation is found without looking at
//! every path, of which there may be a factorial number. After Porcupine's partial linearizations and Knossos's final
//! paths.
//!
//! Deliberately for few operations, the evidence of [`shrink`](super::shrink), and without any of the engines' prunes:
//! what is shown to a person leaves nothing out.

use rustc_hash::{FxHashMap, FxHashSet};

use super::calls::Call;
use crate::model::Model;

/// The most operations. There is a bit for each, and an order to keep.
pub(super) const MAX_CALLS: usize = 96;
/// How many orders of so many operations are kept: enough to see what was tried, and room for one for each operation.
pub(super) fn most_orders(calls: usize) -> usize {
    calls.max(32)
}
/// The most looks at operations in configurations; some ten milliseconds.
const MAX_STEPS: usize = 100_000;
/// The most bytes of states, as the model weighs them.
const MAX_BYTES: usize = 32 << 20;

/// In place of a state: an operation that was not tried in one yet, or that cannot happen in it.
const NOT_ASKED: u32 = u32::MAX;
const IMPOSSIBLE: u32 = u32::MAX - 1;

/// A maximal order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    /// The operations, by their places among the calls.
    pub(super) calls: Vec<usize>,
    /// The states: at first, and after each of them.
    pub(super) states: Vec<usize>,
    /// What is left, and why it cannot be next.
    pub(super) stuck: Vec<(usize, Block)>,
}

/// Why an operation cannot be placed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Block {
    /// It would have answered something else in this state.
    State,
    /// It was called only after this one had returned, which is not placed yet.
    After(usize),
}

/// All orders, or as many as the bounds allow.
#[derive(Debug)]
pub(super) struct Orders<'a, S> {
    /// The operations in the order of their calls. All places refer to this list.
    pub(super) calls: Vec<Call<'a>>,
    /// Every state that was met; the one at the start is the first.
    pub(super) states: Vec<S>,
    /// What each operation makes of each state, where that was asked: state by state, operation by operation.
    steps: Vec<u32>,
    /// The operations that returned, the first to do so first.
    by_return: Vec<usize>,
    /// The same as a set.
    returned: u128,
    /// Of each operation: what was called only after it had returned.
    after: Vec<u128>,
    /// The longest first. Every operation that can be placed at all is in one of them, and the first of those that contain it
    /// is as long as any that do.
    pub(super) kept: Vec<Order>,
    /// How many maximal orders there are, kept or not; `u64::MAX` for more.
    pub(super) count: u64,
    /// Whether the steps ran out: then there may be more orders, and longer ones.
    pub(super) cut: bool,
    /// What the states weigh.
    bytes: usize,
}

/// What has been placed, and the state that this leads to.
struct Node {
    placed: u128,
    state: usize,
    /// The operations that can be next, and where they lead.
    next: Vec<(usize, usize)>,
    /// `None` until what can be next was looked at.
    paths: Option<u64>,
    /// The configuration it was first reached from, and by which operation.
    from: Option<(usize, usize)>,
}

/// Finds the orders of these operations; `None` if there are more than [`MAX_CALLS`], or if states are so large that no order
/// could be followed to its end.
pub(super) fn orders<'a, M: Model>(model: &M, calls: &[Call<'a>]) -> Option<Orders<'a, M::State>> {
    if calls.len() > MAX_CALLS {
        return None;
    }
    let mut calls = calls.to_vec();
    calls.sort_by_key(|call| (call.called, call.id));
    let mut by_return: Vec<usize> = (0..calls.len()).filter(|call| calls[*call].returned.is_some()).collect();
    by_return.sort_by_key(|call| calls[*call].returned);
    let is_after =
        |call: &Call<'_>, first: &Call<'_>| first.returned.is_some_and(|(time, _)| call.called.0 > time);
    let after = calls.iter().map(|first| {
        let later = (0..calls.len()).filter(|call| is_after(&calls[*call], first));
        later.fold(0u128, |mask, call| mask | 1 << call)
    });
    let after = after.collect();
    let mut found = Orders {
        steps: vec![NOT_ASKED; calls.len()],
        calls,
        states: vec![model.init()],
        returned: mask(&by_return),
        by_return,
        after,
        kept: Vec::new(),
        count: 0,
        cut: false,
        bytes: 0,
    };
    let mut nodes = found.explore(model);
    found.count = count(&mut nodes);
    let paths = found.choose(&nodes);
    let mut kept: Vec<Order> = paths.into_iter().map(|path| found.order(&path)).collect();
    kept.sort_by_cached_key(|order| (std::cmp::Reverse(found.weight(mask(&order.calls))), order.clone()));
    found.kept = kept;
    (!found.kept.is_empty()).then_some(found)
}

fn mask(calls: &[usize]) -> u128 {
    calls.iter().fold(0, |mask, call| mask | 1 << call)
}

impl<S: Clone + Eq + std::hash::Hash> Orders<'_, S> {
    /// What must come before anything that is called later: of what is left, the first to have returned.
    fn first_to_return(&self, placed: u128) -> Option<usize> {
        self.by_return.iter().copied().find(|call| placed >> call & 1 == 0)
    }

    /// Whether `call` was called only after `first` had returned.
    fn is_after(&self, call: usize, first: Option<usize>) -> bool {
        first.is_some_and(|first| self.after[first] >> call & 1 == 1)
    }

    /// What the operation makes of the state, `None` if it cannot happen in it; `None` if nobody asked.
    pub(super) fn asked(&self, state: usize, call: usize) -> Option<Option<usize>> {
        match self.steps[state * self.calls.len() + call] {
            NOT_ASKED => None,
            IMPOSSIBLE => Some(None),
            next => Some(Some(next as usize)),
        }
    }

    /// How far an order goes that has placed these: operations that returned count first, and then all.
    fn weight(&self, placed: u128) -> (u32, u32) {
        ((placed & self.returned).count_ones(), placed.count_ones())
    }

    fn step<M: Model<State = S>>(
        &mut self,
        model: &M,
        ids: &mut FxHashMap<S, usize>,
        state: usize,
        call: usize,
    ) -> Option<usize> {
        if let Some(known) = self.asked(state, call) {
            return known;
        }
        let Call { op, ret, .. } = self.calls[call];
        let next = model.step(&self.states[state], op, ret).map(|next| {
            *ids.entry(next).or_insert_with_key(|next| {
                self.bytes += model.weight(next) + 4 * self.calls.len();
                self.states.push(next.clone());
                self.steps.resize(self.states.len() * self.calls.len(), NOT_ASKED);
                self.states.len() - 1
            })
        });
        self.steps[state * self.calls.len() + call] = next.map_or(IMPOSSIBLE, |next| next as u32);
        next
    }

    /// Every configuration, the first in depth first: whatever the bound, some orders are complete.
    fn explore<M: Model<State = S>>(&mut self, model: &M) -> Vec<Node> {
        let mut ids = FxHashMap::from_iter([(self.states[0].clone(), 0)]);
        let mut places = FxHashMap::from_iter([((0u128, 0usize), 0usize)]);
        let mut nodes = vec![Node { placed: 0, state: 0, next: Vec::new(), paths: None, from: None }];
        let mut open = vec![0];
        let mut spent = 0;
        'all: while let Some(at) = open.pop() {
            if nodes[at].paths.is_some() {
                continue;
            }
            if spent > MAX_STEPS {
                self.cut = true;
                break;
            }
            nodes[at].paths = Some(0);
            let (placed, state) = (nodes[at].placed, nodes[at].state);
            let first = self.first_to_return(placed);
            spent += self.calls.len();
            for call in 0..self.calls.len() {
                if placed >> call & 1 == 1 || self.is_after(call, first) {
                    continue;
                }
                let Some(state) = self.step(model, &mut ids, state, call) else { continue };
                if self.bytes > MAX_BYTES {
                    // What else could be next was not looked at.
                    nodes[at].paths = None;
                    self.cut = true;
                    break 'all;
                }
                let placed = placed | 1 << call;
                let to = *places.entry((placed, state)).or_insert_with(|| {
                    nodes.push(Node { placed, state, next: Vec::new(), paths: None, from: Some((at, call)) });
                    nodes.len() - 1
                });
                nodes[at].next.push((call, to));
            }
            open.extend(nodes[at].next.iter().rev().map(|(_, to)| *to));
        }
        nodes
    }

    /// The paths to keep: all, or one for each operation and then one for each end, the longest first.
    fn choose(&self, nodes: &[Node]) -> Vec<Vec<usize>> {
        let mut ends: Vec<usize> =
            (0..nodes.len()).filter(|at| nodes[*at].next.is_empty() && nodes[*at].paths.is_some()).collect();
        ends.sort_by_cached_key(|at| (std::cmp::Reverse(self.weight(nodes[*at].placed)), *at));
        let most = most_orders(self.calls.len());
        let mut known = FxHashSet::default();
        let mut chosen = Vec::new();
        let mut keep = |path: Vec<usize>| {
            if chosen.len() < most && known.insert(path.clone()) {
                chosen.push(path);
            }
        };
        if self.count > most as u64 {
            let with = |call: usize| ends.iter().find(|at| nodes[**at].placed >> call & 1 == 1);
            // The longest of all too, for it may contain none of which it is the first.
            let mut first: Vec<usize> = ends.first().into_iter().copied().collect();
            first.extend((0..self.calls.len()).filter_map(with));
            first.iter().chain(&ends).take(2 * MAX_CALLS + most).for_each(|at| keep(path_to(nodes, *at)));
        }
        // As many others as there is room for.
        let mut path = Vec::new();
        let mut places = vec![(0, 0)];
        let mut left = most;
        while let Some((at, next)) = places.last_mut()
            && left > 0
        {
            let node: &Node = &nodes[*at];
            if node.next.is_empty() && node.paths.is_some() {
                keep(path.clone());
                left -= 1;
            }
            // Only where some order is complete.
            let onward = node.next[*next..].iter().position(|(_, to)| nodes[*to].paths.unwrap_or(0) > 0);
            match onward {
                Some(skipped) => {
                    let (call, to) = node.next[*next + skipped];
                    *next += skipped + 1;
                    path.push(call);
                    places.push((to, 0));
                }
                None => {
                    places.pop();
                    path.pop();
                }
            }
        }
        chosen
    }

    /// An order with its states, and what it leaves.
    fn order(&self, path: &[usize]) -> Order {
        let mut states = vec![0];
        for call in path {
            let state = states[states.len() - 1];
            states.extend(self.asked(state, *call).flatten());
        }
        let placed = mask(path);
        let stuck = (0..self.calls.len()).filter(|call| placed >> call & 1 == 0);
        let first = self.first_to_return(placed);
        let why = |call| match first {
            Some(first) if self.is_after(call, Some(first)) => Block::After(first),
            _ => Block::State,
        };
        Order { calls: path.to_vec(), states, stuck: stuck.map(|call| (call, why(call))).collect() }
    }
}

/// Counts the maximal orders that go on from each configuration; gives those from the start.
fn count(nodes: &mut [Node]) -> u64 {
    let mut later_first: Vec<usize> = (0..nodes.len()).collect();
    later_first.sort_by_key(|at| std::cmp::Reverse(nodes[*at].placed.count_ones()));
    for at in later_first {
        if nodes[at].paths.is_some() {
            let ways = nodes[at].next.iter().map(|(_, to)| nodes[*to].paths.unwrap_or(0));
            let sum = ways.fold(0, u64::saturating_add);
            nodes[at].paths = Some(if nodes[at].next.is_empty() { 1 } else { sum });
        }
    }
    nodes[0].paths.unwrap_or(0)
}

/// The way on which a configuration was found.
fn path_to(nodes: &[Node], mut at: usize) -> Vec<usize> {
    let mut path = Vec::new();
    while let Some((before, call)) = nodes[at].from {
        path.push(call);
        at = before;
    }
    path.reverse();
    path
}
