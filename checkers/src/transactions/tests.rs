//! The search for cycles against a naive one, which walks all simple cycles of a small graph, and at scale.
//!
//! ```text
//! random edges, intervals and processes ──> suspects ──> Search     ┐ the same shortest lengths
//!                                      └──> all simple cycles       ┘
//! ```
//!
//! What histories mean is tested from outside, in `tests/`.

use proptest::prelude::*;

use super::{
    Options,
    components::{Level, suspects},
    cycles::{Class, Cycle},
    graph::{Edge, EdgeKind, Graph, touching},
    input::{Builder, Datatype, Transactions, TxnOutcome},
    search::Search,
    writers::NONE,
};
use crate::{Budget, Validity, Value};

/// Empty transactions at these times of these processes; a process goes on when the one before is over.
fn transactions(intervals: &[(u64, u64, u64)]) -> Transactions {
    let mut intervals = intervals.to_vec();
    intervals.sort_unstable();
    let mut free = [0; 3];
    let mut builder = Builder::new(Datatype::ListAppend);
    let mut calls: Vec<(u64, u64, u64)> = intervals
        .into_iter()
        .map(|(call, length, process)| {
            let call = call.max(free[process as usize]);
            free[process as usize] = call + length;
            (call, call + length, process)
        })
        .collect();
    calls.sort_by_key(|(call, ret, _)| (*call, *ret));
    for (id, (call, ret, process)) in calls.into_iter().enumerate() {
        builder.begin(id, process, call, Some(ret), TxnOutcome::Ok);
    }
    builder.finish().unwrap()
}

/// All simple cycles, by depth-first search from their smallest node.
fn all_cycles(txns: &Transactions, edges: &[(u32, u32, EdgeKind)]) -> Vec<Cycle> {
    let n = txns.len() as u32;
    let mut all: Vec<(u32, u32, EdgeKind)> = edges.to_vec();
    for a in 0..n {
        for b in 0..n {
            if txns.end[a as usize] < txns.begin[b as usize] {
                all.push((a, b, EdgeKind::Realtime));
            }
            if a < b && txns.process[a as usize] == txns.process[b as usize] {
                all.push((a, b, EdgeKind::Process));
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    fn walk(
        all: &[(u32, u32, EdgeKind)],
        nodes: &mut Vec<u32>,
        kinds: &mut Vec<EdgeKind>,
        out: &mut Vec<Cycle>,
    ) {
        let at = *nodes.last().unwrap();
        for &(_, to, kind) in all.iter().filter(|edge| edge.0 == at) {
            kinds.push(kind);
            if to == nodes[0] {
                out.push(Cycle { nodes: nodes.clone(), kinds: kinds.clone() });
            } else if to > nodes[0] && !nodes.contains(&to) {
                nodes.push(to);
                walk(all, nodes, kinds, out);
                nodes.pop();
            }
            kinds.pop();
        }
    }
    let mut out = Vec::new();
    (0..n).for_each(|start| walk(&all, &mut vec![start], &mut Vec::new(), &mut out));
    out
}

fn kind() -> impl Strategy<Value = EdgeKind> {
    prop_oneof![Just(EdgeKind::Ww), Just(EdgeKind::Wr), Just(EdgeKind::Rw), Just(EdgeKind::Rw)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn cycles_are_the_shortest_of_their_class(
        intervals in prop::collection::vec((0u64..12, 0u64..6, 0u64..3), 5),
        edges in prop::collection::vec((0u32..5, 0u32..5, kind()), 0..9),
    ) {
        let txns = transactions(&intervals);
        let edges: Vec<_> = edges.into_iter().filter(|edge| edge.0 != edge.1).collect();
        let mut parts = vec![edges.iter().map(|&(a, b, kind)| Edge::new(a, b, kind)).collect::<Vec<_>>()];
        parts.push(touching(&txns));
        let graph = Graph::new(txns.len(), &parts);
        let naive = all_cycles(&txns, &edges);
        let suspects = suspects(&txns, &graph);
        prop_assert_eq!(suspects.is_some() , !naive.is_empty());
        let Some(suspects) = suspects else { return Ok(()) };
        let mut worst = vec![Class::ALL.len(); suspects.nodes.len()];
        for level in [Level::Plain, Level::Process, Level::Realtime] {
            for component in &suspects.components[level as usize] {
                let mut place = vec![NONE; suspects.nodes.len()];
                component.iter().enumerate().for_each(|(i, node)| place[*node as usize] = i as u32);
                let part = suspects.part(&txns, component, &place);
                let inside = |cycle: &&Cycle| cycle.nodes.iter().all(|node| part.nodes.contains(node));
                let here: Vec<&Cycle> = naive.iter().filter(inside).filter(|c| c.classify().1 == level).collect();
                let mut search = Search::new(&part, level);
                let classes = component.iter().map(|node| worst[*node as usize]).min().unwrap();
                let mut worse_found = false;
                for class in Class::ALL.into_iter().take(if level == Level::Plain { 5 } else { classes }) {
                    let expected = here.iter().filter(|c| c.classify().0 == class).map(|c| c.nodes.len()).min();
                    let found = search.shortest(class, u64::MAX / 2, &|| false);
                    prop_assert!(!found.cut);
                    let found = found.cycle.filter(|cycle| cycle.classify() == (class, level));
                    if let Some(cycle) = &found {
                        prop_assert!(cycle.is_simple());
                        prop_assert!(naive.iter().any(|other| other.clone().rotated() == cycle.clone().rotated()));
                        component.iter().for_each(|node| worst[*node as usize] = worst[*node as usize].min(class as usize));
                    }
                    // Where a worse class was found, a shortest walk of a milder one may be two cycles of the worse.
                    if !worse_found || (level == Level::Plain && class != Class::GNonadjacent) {
                        prop_assert_eq!(found.as_ref().map(|c| c.nodes.len()), expected, "{:?} {:?}", class, level);
                    }
                    worse_found |= found.is_some();
                }
            }
        }
        // Nothing is outside of the components.
        for cycle in &naive {
            let level = cycle.classify().1;
            let within = |level: usize| suspects.components[level].iter().any(|component| {
                cycle.nodes.iter().all(|node| component.iter().any(|c| suspects.nodes[*c as usize] == *node))
            });
            prop_assert!(within(level as usize), "{:?}", cycle);
        }
    }
}

/// A list-append history in which every transaction misses the append of the next, and so all are in one circle.
fn ring(n: u32) -> Transactions {
    let mut builder = Builder::new(Datatype::ListAppend);
    for i in 0..n {
        builder.begin(i as usize, u64::from(i), 0, Some(1), TxnOutcome::Ok);
        builder.write(&Value::Int(i.into()), &Value::Int(1));
        builder.read(&Value::Int(((i + 1) % n).into()), Some(&Value::Nil));
    }
    builder.begin(n as usize, u64::from(n), 2, Some(3), TxnOutcome::Ok);
    for i in 0..n {
        builder.read(&Value::Int(i.into()), Some(&Value::from(vec![Value::Int(1)])));
    }
    builder.finish().unwrap()
}

#[test]
fn a_component_of_twenty_thousand_and_a_chain_of_a_million() {
    let verdict = super::list_append(Options::default()).judge(&ring(20_000), &Budget::unlimited());
    assert_eq!(verdict.validity, Validity::Invalid);
    assert_eq!(verdict.anomalies[0].operations.len(), 20_000);
    assert_eq!(verdict.stats["anomaly_counts"], serde_json::json!({"G2-item": 1}));

    // Each reads what the one before wrote, and all overlap: one chain of dependencies, no edge in real time.
    let mut builder = Builder::new(Datatype::RwRegister);
    for i in 0..1_000_000i64 {
        builder.begin(i as usize, i as u64, i as u64, Some(3_000_000), TxnOutcome::Ok);
        builder.read(&Value::Int(i), Some(&if i == 0 { Value::Nil } else { Value::Int(i) }));
        builder.write(&Value::Int(i + 1), &Value::Int(i + 1));
    }
    let txns = builder.finish().unwrap();
    let verdict = super::rw_register(Options::default()).judge(&txns, &Budget::unlimited());
    assert_eq!(verdict.validity, Validity::Valid, "{:?}", verdict.reason);

    // The same with lists of two elements: each appends to the list that the one before began, and begins the next.
    let mut builder = Builder::new(Datatype::ListAppend);
    for i in 0..1_000_000i64 {
        let n = i as u64;
        builder.begin(i as usize, n, n, Some(3_000_000), TxnOutcome::Ok);
        builder.write(&Value::Int(i), &Value::Int(2));
        let found: Vec<Value> = if i == 0 { vec![2.into()] } else { vec![1.into(), 2.into()] };
        builder.read(&Value::Int(i), Some(&found.into()));
        builder.write(&Value::Int(i + 1), &Value::Int(1));
    }
    let txns = builder.finish().unwrap();
    let verdict = super::list_append(Options::default()).judge(&txns, &Budget::unlimited());
    assert_eq!(verdict.validity, Validity::Valid, "{:?}", verdict.reason);
}
