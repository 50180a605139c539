//! Strongly connected components, without recursion.
//!
//! ```text
//! 0 -> 1 -> 2 -> 0      2 -> 3          emits {3}, then {2 1 0}: what is reached comes before what reaches it
//! ```
//!
//! Tarjan, "Depth-first search and linear graph algorithms" (SIAM J. Comput. 1(2), 1972), with its own stack: a chain of a
//! million nodes is no deeper than a pair. O(nodes + edges). Deliberately knows nothing of edges but their targets: the
//! caller may store them, or make them up.

/// Not seen yet.
const NEW: u32 = 0;
/// Its component is out.
const DONE: u32 = u32::MAX;

struct Frame {
    node: u32,
    next: u32,
    low: u32,
}

/// Calls `emit` with the nodes of each component, those that are reached first. `successor(node, i)` is the i-th one.
pub(crate) fn components(
    nodes: usize,
    successor: impl Fn(u32, u32) -> Option<u32>,
    mut emit: impl FnMut(&[u32]),
) {
    let mut order = vec![NEW; nodes];
    let mut count = NEW;
    let mut open: Vec<u32> = Vec::new();
    let mut frames: Vec<Frame> = Vec::new();
    for root in 0..nodes as u32 {
        if order[root as usize] != NEW {
            continue;
        }
        count += 1;
        order[root as usize] = count;
        open.push(root);
        frames.push(Frame { node: root, next: 0, low: count });
        while let Some(frame) = frames.last_mut() {
            if let Some(target) = successor(frame.node, frame.next) {
                frame.next += 1;
                match order[target as usize] {
                    NEW => {
                        count += 1;
                        order[target as usize] = count;
                        open.push(target);
                        frames.push(Frame { node: target, next: 0, low: count });
                    }
                    DONE => {}
                    seen => frame.low = frame.low.min(seen),
                }
                continue;
            }
            let Frame { node, low, .. } = frames.pop().expect("it was just looked at");
            if let Some(parent) = frames.last_mut() {
                parent.low = parent.low.min(low);
            }
            if low == order[node as usize] {
                let mut start = open.len();
                loop {
                    start -= 1;
                    order[open[start] as usize] = DONE;
                    if open[start] == node {
                        break;
                    }
                }
                emit(&open[start..]);
                open.truncate(start);
            }
        }
    }
}

/// The components of more than one node, each sorted, in the order of their smallest.
pub(crate) fn cyclic(nodes: usize, successor: impl Fn(u32, u32) -> Option<u32>) -> Vec<Vec<u32>> {
    let mut found = Vec::new();
    components(nodes, successor, |component| {
        if component.len() > 1 {
            let mut component = component.to_vec();
            component.sort_unstable();
            found.push(component);
        }
    });
    found.sort_unstable_by_key(|component| component[0]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chain_of_a_million_and_the_ring_it_closes() {
        let n = 1_000_000;
        let mut emitted = 0;
        components(n, |u, i| (i == 0 && (u as usize) < n - 1).then_some(u + 1), |c| emitted += c.len());
        assert_eq!(emitted, n);
        let ring = cyclic(n, |u, i| (i == 0).then_some((u + 1) % n as u32));
        assert_eq!(ring.len(), 1);
        assert_eq!(ring[0].len(), n);
    }

    proptest! {
        #[test]
        fn two_nodes_are_together_if_each_reaches_the_other(edges in prop::collection::vec((0u32..9, 0u32..9), 0..24)) {
            let next = |u: u32, i: u32| edges.iter().filter(|e| e.0 == u).nth(i as usize).map(|e| e.1);
            let mut reach = [[false; 9]; 9];
            for (i, row) in reach.iter_mut().enumerate() {
                row[i] = true;
            }
            for _ in 0..9 {
                for &(a, b) in &edges {
                    for row in &mut reach {
                        row[b as usize] |= row[a as usize];
                    }
                }
            }
            let (mut name, mut order) = ([0; 9], 0);
            components(9, next, |component| {
                order += 1;
                component.iter().for_each(|&node| name[node as usize] = order);
            });
            for a in 0..9 {
                for b in 0..9 {
                    prop_assert_eq!(name[a] == name[b], reach[a][b] && reach[b][a]);
                    prop_assert!(!reach[a][b] || name[b] <= name[a], "what is reached comes first");
                }
            }
        }
    }
}
