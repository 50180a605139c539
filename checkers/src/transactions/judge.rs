//! From transactions to everything that is wrong with them: infer, connect, search.
//!
//! ```text
//! Transactions ── by key, in parallel ──> edges, findings
//!       edges ──> Graph ──> suspects ──> one component after the other, in parallel ──> cycles
//! ```
//!
//! Deliberately no verdict: which of it a model forbids is said in `verdict`.

use rayon::prelude::*;
use serde_json::{Map, json};

use super::{
    Options,
    components::{Level, Suspects, suspects},
    cycles::{Class, Cycle},
    graph::{Graph, touching},
    input::{Datatype, Transactions, TxnOutcome},
    keys::{Inference, KeyIndex, Learned},
    list_append::ListAppend,
    models::Phenomenon,
    rw_register::RwRegister,
    search::Search,
    writers::NONE,
};
use crate::Budget;

/// A cycle, what it is, and how large the component is that it lies in.
#[derive(Clone, Debug)]
pub(super) struct FoundCycle {
    pub(super) phenomenon: Phenomenon,
    pub(super) cycle: Cycle,
    pub(super) component: usize,
}

/// All that was found.
pub(super) struct Found {
    pub(super) learned: Learned,
    pub(super) index: KeyIndex,
    /// The worst first, those of one kind in the order of their components.
    pub(super) cycles: Vec<FoundCycle>,
    /// What may be there and was not reached within the allowance.
    pub(super) undecided: Vec<Phenomenon>,
    pub(super) cancelled: bool,
    pub(super) stats: Map<String, serde_json::Value>,
}

/// How many transactions are listed as members of components.
const MEMBERS: usize = 200_000;
/// The steps that are shared out among the components, for each class.
const SHARED_STEPS: u64 = 200_000_000;
/// No component gets more than this of them, but a walk or more through all of it in any case.
const MOST_SHARED: u64 = 2_000_000;

/// Finds all there is.
pub(super) fn judge(txns: &Transactions, options: &Options, budget: &Budget) -> Found {
    let index = KeyIndex::new(txns);
    let mut pieces: Vec<Learned> = match txns.datatype {
        Datatype::ListAppend => learned(index.infer(|| ListAppend::new(txns)), |piece| piece.learned),
        Datatype::RwRegister => {
            learned(index.infer(|| RwRegister::new(txns, options.keys)), |piece| piece.learned)
        }
    };
    let mut edges: Vec<_> = pieces.iter_mut().map(|piece| std::mem::take(&mut piece.edges)).collect();
    edges.push(touching(txns));
    let graph = Graph::new(txns.len(), &edges);
    drop(edges);
    let mut all = Learned::default();
    for piece in pieces {
        all.findings.append(piece.findings);
        all.ambiguous.extend(piece.ambiguous);
        all.cut_keys.extend(piece.cut_keys);
    }
    let mut found = Found {
        learned: all,
        index,
        cycles: Vec::new(),
        undecided: Vec::new(),
        cancelled: budget.is_cancelled(),
        stats: Map::new(),
    };
    let suspects = suspects(txns, &graph);
    count(&mut found.stats, txns, &graph, suspects.as_ref());
    if let Some(suspects) = suspects {
        search_levels(txns, &suspects, budget, &mut found);
    }
    found
}

fn learned<S: Inference>(pieces: Vec<S>, of: fn(S) -> Learned) -> Vec<Learned> {
    pieces.into_iter().map(of).collect()
}

fn count(
    stats: &mut Map<String, serde_json::Value>,
    txns: &Transactions,
    graph: &Graph,
    suspects: Option<&Suspects>,
) {
    let of = |outcome| txns.outcome.iter().filter(|o| **o == outcome).count();
    stats.insert("transactions".into(), txns.len().into());
    stats.insert("ok".into(), of(TxnOutcome::Ok).into());
    stats.insert("info".into(), of(TxnOutcome::Info).into());
    stats.insert("fail".into(), of(TxnOutcome::Fail).into());
    stats.insert("micro_operations".into(), txns.mops.len().into());
    stats.insert("keys".into(), txns.keys.len().into());
    let [ww, wr, rw, _] = graph.counts;
    stats.insert("edges".into(), json!({"ww": ww, "wr": wr, "rw": rw}));
    let sizes = |level: Level| suspects.map_or(0, |suspects| suspects.components[level as usize].len());
    let components = json!({
        "plain": sizes(Level::Plain), "process": sizes(Level::Process), "realtime": sizes(Level::Realtime),
    });
    stats.insert("components".into(), components);
    stats.insert("component_members".into(), members(txns, suspects));
}

/// The transactions of each component whose cycles need no order in time.
fn members(txns: &Transactions, suspects: Option<&Suspects>) -> serde_json::Value {
    let mut left = MEMBERS;
    let of = |suspects: &Suspects, component: &[u32]| -> Vec<usize> {
        component.iter().map(|node| txns.operation[suspects.nodes[*node as usize] as usize]).collect()
    };
    let Some(suspects) = suspects else { return json!([]) };
    let mut members = Vec::new();
    for component in &suspects.components[Level::Plain as usize] {
        if component.len() <= left {
            left -= component.len();
            members.push(of(suspects, component));
        }
    }
    json!(members)
}

/// Level by level, since what was found without the order in time need not be found again with it.
fn search_levels(txns: &Transactions, suspects: &Suspects, budget: &Budget, found: &mut Found) {
    let n = suspects.nodes.len();
    // By node, how many classes are worse than the worst that was found around it.
    let mut worse = vec![Class::ALL.len(); n];
    let mut place = vec![NONE; n];
    let mut steps = 0;
    for level in [Level::Plain, Level::Process, Level::Realtime] {
        let components = &suspects.components[level as usize];
        place.fill(NONE);
        for component in components {
            component.iter().enumerate().for_each(|(i, node)| place[*node as usize] = i as u32);
        }
        let shared = (SHARED_STEPS / components.len().max(1) as u64).min(MOST_SHARED);
        let results: Vec<InComponent> = components
            .par_iter()
            .map(|component| {
                let classes = match level {
                    Level::Plain => Class::ALL.len(),
                    _ => component.iter().map(|node| worse[*node as usize]).min().unwrap_or(0),
                };
                let worth_it = match level {
                    Level::Realtime => component.iter().any(|node| suspects.late[*node as usize]),
                    _ => true,
                };
                if classes == 0 || !worth_it {
                    return InComponent::default();
                }
                in_component(txns, suspects, component, &place, level, &Class::ALL[..classes], shared, budget)
            })
            .collect();
        for (component, result) in components.iter().zip(results) {
            steps += result.steps;
            found.cancelled |= result.cancelled;
            for phenomenon in result.undecided {
                if !found.undecided.contains(&phenomenon) {
                    found.undecided.push(phenomenon);
                }
            }
            for cycle in result.cycles {
                let (class, level) = cycle.classify();
                component
                    .iter()
                    .for_each(|node| worse[*node as usize] = worse[*node as usize].min(class as usize));
                found.cycles.push(FoundCycle {
                    phenomenon: class.phenomenon(level),
                    cycle: cycle.rotated(),
                    component: component.len(),
                });
            }
        }
    }
    found.cycles.sort_by_key(|cycle| cycle.phenomenon);
    found.stats.insert("steps".into(), steps.into());
}

#[derive(Default)]
struct InComponent {
    cycles: Vec<Cycle>,
    undecided: Vec<Phenomenon>,
    cancelled: bool,
    steps: u64,
}

#[allow(clippy::too_many_arguments)] // one call, and each is needed
fn in_component(
    txns: &Transactions,
    suspects: &Suspects,
    component: &[u32],
    place: &[u32],
    level: Level,
    classes: &[Class],
    shared: u64,
    budget: &Budget,
) -> InComponent {
    let part = suspects.part(txns, component, place);
    let mut search = Search::new(&part, level);
    let allowance = shared + 16 * (part.graph.edges() + part.nodes.len()) as u64;
    let mut result = InComponent::default();
    let stop = || budget.is_cancelled();
    for &class in classes {
        let found = search.shortest(class, allowance, &stop);
        match found.cycle {
            Some(cycle) => {
                let known = |c: &Cycle| c.classify() == cycle.classify();
                if !result.cycles.iter().any(known) {
                    result.cycles.push(cycle);
                }
            }
            None if found.cut => result.undecided.push(class.phenomenon(level)),
            None => {}
        }
    }
    if result.cycles.is_empty() && level == Level::Plain {
        result.cycles.extend(search.any());
    }
    result.cancelled = budget.is_cancelled();
    result.steps = search.steps;
    result
}
