//! Anomalies as data and in words.
//!
//! ```text
//! G-single: T1 < T2, because T1 did not observe T2's append of 3 to key 5.
//!           However, T2 < T1, because T1 observed T2's append of 7 to key 6: a contradiction.
//! ```
//!
//! `details` of a cycle:
//!
//! | field | what |
//! |---|---|
//! | `cycle` | true |
//! | `component_size` | how many transactions are entangled with each other |
//! | `left_out` | how many transactions of a long cycle are not in `nodes`; all are in `operations` |
//! | `nodes` | `name operation process outcome call ret mops`: mops in text, in the order of the program |
//! | `edges` | `from to kind reason`, from and to as places in `nodes`; of dependencies also `key`, `values`, and `read`, the place in its mops of the read that shows it |
//!
//! Of an anomaly without a cycle: `nodes` likewise, `key`, `values`, `reads` (`[node, mop]`), and `others`, how many more
//! show the same. Of reads that do not fit together also `versions`, what each of them found, around the place at which they differ:
//! `{node, mop, length, from, elements}`, `from` being the place of the first element that is told; and `differ_at`.
//!
//! Deliberately no guess at the cause.

use serde_json::{Value as Json, json};

use super::{
    findings::Finding,
    graph::EdgeKind,
    input::{NEVER, Transactions, TxnOutcome},
    judge::FoundCycle,
    models::Phenomenon,
    reasons::{Reasons, mops},
    rw_register::Source,
    words::{Namer, list, short},
};
use crate::Anomaly;

/// The most transactions of a cycle that are explained; a longer one is told up to there.
const MOST_NODES: usize = 64;
/// The most micro-operations of one transaction in the picture.
const MOST_DRAWN: usize = 12;
/// How many elements of lists that differ are told before that place, and from it on.
const MOST_BEFORE: usize = 6;
const MOST_AFTER: usize = 10;
/// The most micro-operations of one transaction in the data.
const MOST_MOPS: usize = 1000;

/// A cycle, edge by edge.
pub(super) fn cycle(txns: &Transactions, reasons: &mut Reasons<'_>, found: &FoundCycle) -> Anomaly {
    let nodes = &found.cycle.nodes;
    let names = Namer::new(txns, nodes);
    let mut message = String::new();
    let mut edges = Vec::new();
    for (i, &kind) in found.cycle.kinds.iter().enumerate().take(MOST_NODES) {
        let next = (i + 1) % nodes.len();
        let (a, b) = (nodes[i], nodes[next]);
        let reason = reasons.of(a, b, kind, &names);
        let last = i + 1 == nodes.len();
        message.push_str(match (i, last) {
            (0, _) => "",
            (_, false) => "; ",
            (_, true) => "; however, ",
        });
        message.push_str(&format!("{} < {}, because {}", names.of(a), names.of(b), reason.words));
        let mut edge = json!({"from": i, "to": next, "kind": kind.to_string(), "reason": reason.words});
        if let (Some(edge), Json::Object(details)) = (edge.as_object_mut(), reason.details) {
            edge.extend(details);
        }
        edges.push(edge);
    }
    let left_out = nodes.len().saturating_sub(MOST_NODES);
    if left_out > 0 {
        message.push_str(&format!("; and so on over {left_out} more transactions, back to T1"));
    }
    message.push_str(": a contradiction");
    let details = json!({
        "cycle": true,
        "component_size": found.component,
        "left_out": left_out,
        "nodes": nodes_json(txns, nodes),
        "edges": edges,
    });
    anomaly(txns, found.phenomenon, nodes, message, details, Some(&found.cycle.kinds))
}

/// An anomaly without a cycle.
pub(super) fn finding(txns: &Transactions, finding: &Finding) -> Anomaly {
    let nodes = &finding.txns;
    let names = Namer::new(txns, nodes);
    let message = sentence(txns, finding, &names);
    let values: Vec<_> = finding.values.iter().map(|value| &txns.values[*value as usize]).collect();
    let mut details = json!({
        "cycle": false,
        "nodes": nodes_json(txns, nodes),
        "key": txns.keys[finding.key as usize],
        "values": values,
        "others": finding.more,
    });
    if finding.kind == Phenomenon::CyclicVersions {
        details["source"] = Source::ALL[finding.mops[0] as usize].name().into();
    } else {
        let reads = finding.mops.iter().filter_map(|&mop| {
            let txn = txns.first.partition_point(|first| *first <= mop) - 1;
            let node = nodes.iter().position(|node| *node as usize == txn)?;
            Some(json!([node, mop - txns.first[txn]]))
        });
        details["reads"] = reads.collect();
    }
    if finding.kind == Phenomenon::IncompatibleOrder {
        versions(txns, finding, &mut details);
    }
    anomaly(txns, finding.kind, nodes, message, details, None)
}

/// The lists that were read, where they differ.
fn versions(txns: &Transactions, finding: &Finding, details: &mut Json) {
    let lists: Vec<&[u32]> = finding.mops.iter().map(|mop| txns.list(&txns.mops[*mop as usize])).collect();
    let same = |other: &&[u32]| lists[0].iter().zip(*other).take_while(|(a, b)| a == b).count();
    // One list alone differs from what was appended, where its first value in question stands.
    let differ_at = match &lists[..] {
        [] => return,
        [one] => one.iter().position(|value| finding.values.contains(value)).unwrap_or(0),
        [_, others @ ..] => others.iter().map(same).min().unwrap_or(0),
    };
    let from = differ_at.saturating_sub(MOST_BEFORE);
    let versions = lists.iter().zip(details["reads"].as_array().into_iter().flatten()).map(|(list, read)| {
        let elements = list.iter().skip(from).take(MOST_BEFORE + MOST_AFTER);
        let elements: Vec<_> = elements.map(|value| &txns.values[*value as usize]).collect();
        json!({"node": read[0], "mop": read[1], "length": list.len(), "from": from, "elements": elements})
    });
    let versions: Vec<Json> = versions.collect();
    details["versions"] = versions.into();
    details["differ_at"] = differ_at.into();
}

fn anomaly(
    txns: &Transactions,
    kind: Phenomenon,
    nodes: &[u32],
    message: String,
    details: Json,
    edges: Option<&[EdgeKind]>,
) -> Anomaly {
    let mut operations: Vec<usize> = nodes.iter().map(|node| txns.operation[*node as usize]).collect();
    operations.sort_unstable();
    let mut picture = String::new();
    for (i, &node) in nodes.iter().enumerate().take(MOST_NODES) {
        let mut parts = mops(txns, node, MOST_DRAWN);
        let more = txns.mops_of(node).len() - parts.len();
        if more > 0 {
            parts.push(format!("{more} more"));
        }
        picture.push_str(&format!(
            "T{} = operation {}, process {}, {}: [{}]\n",
            i + 1,
            txns.operation[node as usize],
            txns.processes[txns.process[node as usize] as usize],
            outcome(txns, node),
            parts.join("; ")
        ));
    }
    if let Some(kinds) = edges {
        let steps =
            kinds.iter().enumerate().take(MOST_NODES).map(|(i, kind)| format!("T{} -{kind}-> ", i + 1));
        picture.push_str(&steps.collect::<String>());
        picture.push_str(if nodes.len() > MOST_NODES { "… -> T1\n" } else { "T1\n" });
    }
    let message = format!("{}, {}: {message}", kind.name(), kind.entry().meaning);
    Anomaly { name: kind.name().into(), message, operations, details, picture: Some(picture) }
}

fn outcome(txns: &Transactions, txn: u32) -> &'static str {
    match txns.outcome[txn as usize] {
        TxnOutcome::Ok => "ok",
        TxnOutcome::Info => "info",
        TxnOutcome::Fail => "fail",
    }
}

fn nodes_json(txns: &Transactions, nodes: &[u32]) -> Vec<Json> {
    let node = |(i, &txn): (usize, &u32)| {
        let end = txns.end[txn as usize];
        json!({
            "name": format!("T{}", i + 1),
            "operation": txns.operation[txn as usize],
            "process": txns.processes[txns.process[txn as usize] as usize],
            "outcome": outcome(txns, txn),
            "call": txns.begin[txn as usize],
            "ret": (end != NEVER).then_some(end),
            "mops": mops(txns, txn, MOST_MOPS),
        })
    };
    nodes.iter().enumerate().take(MOST_NODES).map(node).collect()
}

fn sentence(txns: &Transactions, finding: &Finding, names: &Namer<'_>) -> String {
    use Phenomenon::*;
    let key = &txns.keys[finding.key as usize];
    let t =
        |place: usize| finding.txns.get(place).map_or_else(|| "a transaction".into(), |txn| names.of(*txn));
    let value = |place: usize| {
        finding.values.get(place).map_or_else(String::new, |value| short(&txns.values[*value as usize]))
    };
    let read = |place: usize| {
        let Some(mop) = finding.mops.get(place).map(|mop| &txns.mops[*mop as usize]) else {
            return String::new();
        };
        match txns.datatype {
            super::input::Datatype::ListAppend => list(txns, txns.list(mop)),
            super::input::Datatype::RwRegister => short(&txns.values[mop.at as usize]),
        }
    };
    let others = |did: &str| match finding.more {
        0 => String::new(),
        more => format!("; {more} more {did}"),
    };
    match finding.kind {
        G1a => format!(
            "{} observed {} in key {key}, which {} wrote, and {} failed{}",
            t(1),
            value(0),
            t(0),
            t(0),
            others("observed it as well")
        ),
        G1b => format!(
            "{} observed {} in key {key}, which {} wrote, and {} then wrote more to the key: its state was not meant to be seen",
            t(1),
            value(0),
            t(0),
            t(0)
        ),
        Internal => format!(
            "{} found {} in key {key}, which does not follow from its own reads and writes before",
            t(0),
            read(0)
        ),
        DuplicateElements => {
            format!("{} found {} in key {key}, in which {} stands twice", t(0), read(0), value(0))
        }
        IncompatibleOrder if finding.values.len() == 2 => format!(
            "{} found {} in key {key}, with {} before {}, but {} appended {} first",
            t(0),
            read(0),
            value(0),
            value(1),
            t(1),
            value(1)
        ),
        IncompatibleOrder => format!(
            "{} found {} in key {key}, and {} found {}: neither is how the other began{}",
            t(0),
            read(0),
            t(1),
            read(1),
            others("do not fit the first either")
        ),
        DirtyUpdate => format!(
            "{} wrote {} to key {key} and failed, and {} wrote {} on top of it",
            t(0),
            value(0),
            t(1),
            value(1)
        ),
        LostUpdate => {
            format!(
                "{} and {} read the same version of key {key}, and both wrote to it{}",
                t(0),
                t(1),
                others("did so too")
            )
        }
        FutureRead => format!("{} observed {} in key {key}, which it wrote only later", t(0), value(0)),
        GarbageRead => format!(
            "{} observed {} in key {key}, which nobody wrote{}",
            t(0),
            value(0),
            others("observed it as well")
        ),
        GCursor => format!(
            "{} read key {key}, {} then wrote {}, and {} wrote to the key after that without having seen it",
            t(0),
            t(1),
            value(0),
            t(0)
        ),
        CyclicVersions => {
            let round: Vec<String> = (0..finding.values.len()).chain([0]).map(value).collect();
            format!(
                "the values of key {key} come one before the other in a circle, {}; the assumption ({}) is dropped for this key",
                round.join(" < "),
                Source::ALL[finding.mops[0] as usize].name()
            )
        }
        other => other.entry().meaning.into(),
    }
}
