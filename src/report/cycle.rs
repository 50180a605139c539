//! Transactions that contradict each other, as SVG: a box for each with its micro-operations, and between them why one must
//! come before the other.
//!
//! ```text
//! ┌ T1 ────────────┐        rw key 1        ┌ T2 ────────────┐
//! │ r 1 -> []      │ ─────────────────────> │ append 1 1     │
//! │ append 2 1     │ <───────────────────── │ r 2 -> []      │
//! └────────────────┘        rw key 2        └────────────────┘
//! ```
//!
//! Up to eight stand in a ring; more stand in a column, with arcs. An edge begins and ends at the micro-operations that show
//! it where they are known, else at the heads of the boxes. Anomalies without a cycle are boxes, with the reads in
//! question marked. Deliberately without a layout library: the same anomaly gives the same picture, byte by byte.

use super::layout::{Curve, GAP, HEAD, LETTER, RING, ROW, SMALL_GAP, Shape, place, px, spots};
use checkers::{Anomaly, Value};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value as Json;

/// The most rows of a box, and the most characters of a row.
const MOST_ROWS: usize = 10;
const MOST_CHARS: usize = 44;

/// A transaction, as the checker tells of it.
#[derive(Deserialize)]
struct Node {
    name: String,
    operation: usize,
    process: u64,
    outcome: String,
    mops: Vec<String>,
}

/// Why one comes before another.
#[derive(Deserialize)]
struct Edge {
    from: usize,
    to: usize,
    kind: String,
    reason: String,
    key: Option<Value>,
    #[serde(default)]
    values: Vec<Value>,
    /// The read that shows it, by its place in its transaction.
    read: Option<usize>,
}

/// What one of several reads found.
#[derive(Deserialize)]
struct Version {
    node: usize,
    length: usize,
    from: usize,
    elements: Vec<Value>,
}

/// An edge with the micro-operations that it begins and ends at.
struct Arrow<'a> {
    edge: &'a Edge,
    from: Option<usize>,
    to: Option<usize>,
}

/// Draws a transactional anomaly; `None` if it is none.
pub(super) fn draw(anomaly: &Anomaly) -> Option<Markup> {
    let field = |name: &str| anomaly.details.get(name).cloned().unwrap_or_default();
    let nodes: Vec<Node> =
        serde_json::from_value(field("nodes")).ok().filter(|nodes: &Vec<_>| !nodes.is_empty())?;
    let edges: Vec<Edge> = serde_json::from_value(field("edges")).unwrap_or_default();
    let edges: Vec<Edge> = edges.into_iter().filter(|e| e.from < nodes.len() && e.to < nodes.len()).collect();
    let reads: Vec<(usize, usize)> = serde_json::from_value(field("reads")).unwrap_or_default();
    let versions: Vec<Version> = serde_json::from_value(field("versions")).unwrap_or_default();
    let arrows: Vec<Arrow<'_>> = edges.iter().map(|edge| arrow(edge, &nodes)).collect();
    // Which rows must be there: those that something is shown by.
    let mut marked: Vec<(usize, usize, &str)> = Vec::new();
    for Arrow { edge, from, to } in &arrows {
        marked.extend(from.map(|mop| (edge.from, mop, edge.kind.as_str())));
        marked.extend(to.map(|mop| (edge.to, mop, edge.kind.as_str())));
    }
    if arrows.is_empty() {
        marked.extend(reads.iter().map(|(node, mop)| (*node, *mop, "bad")));
        marked.extend(writes(anomaly, &nodes).into_iter().map(|(node, mop)| (node, mop, "bad")));
    }
    let gap = if arrows.is_empty() { SMALL_GAP } else { GAP };
    let shapes = place(nodes.iter().enumerate().map(|(i, node)| shape(i, node, &marked)).collect(), gap);
    let differ_at = field("differ_at").as_u64().map(|at| at as usize);
    Some(html! {
        (svg(&nodes, &shapes, &arrows, &marked))
        @if !versions.is_empty() { (table(&nodes, &versions, differ_at)) }
    })
}

/// Where a transaction wrote a value.
fn write(node: &Node, key: &Value, value: &Value) -> Option<usize> {
    let texts = [format!("append {key} {value}"), format!("w {key} {value}")];
    node.mops.iter().position(|mop| texts.contains(mop))
}

/// Where the values in question were written, of an anomaly without a cycle.
fn writes(anomaly: &Anomaly, nodes: &[Node]) -> Vec<(usize, usize)> {
    let field = |name: &str| anomaly.details.get(name).cloned().unwrap_or_default();
    let key: Value = serde_json::from_value(field("key")).unwrap_or_default();
    let values: Vec<Value> = serde_json::from_value(field("values")).unwrap_or_default();
    let of_node = |(i, node)| {
        values.iter().filter_map(|value| Some((i, write(node, &key, value)?))).collect::<Vec<_>>()
    };
    nodes.iter().enumerate().flat_map(of_node).collect()
}

/// Finds the micro-operations of an edge.
fn arrow<'a>(edge: &'a Edge, nodes: &[Node]) -> Arrow<'a> {
    let write = |node: usize, value: Option<&Value>| write(&nodes[node], edge.key.as_ref()?, value?);
    let (from, to) = match edge.kind.as_str() {
        "ww" => (write(edge.from, edge.values.first()), write(edge.to, edge.values.last())),
        "wr" => (write(edge.from, edge.values.first()), edge.read),
        "rw" => (edge.read, write(edge.to, edge.values.last())),
        _ => (None, None),
    };
    Arrow { edge, from, to }
}

fn shape(i: usize, node: &Node, marked: &[(usize, usize, &str)]) -> Shape {
    let all = node.mops.iter().enumerate();
    let needed = |mop: usize| marked.iter().any(|(node, marked, _)| (*node, *marked) == (i, mop));
    let short = node.mops.len() <= MOST_ROWS;
    let mut room = MOST_ROWS.saturating_sub((0..node.mops.len()).filter(|mop| needed(*mop)).count());
    let mut rows = Vec::new();
    let mut left_out = 0;
    for (mop, text) in all {
        let others_fit = !needed(mop) && room > 0;
        if short || needed(mop) || others_fit {
            room -= usize::from(others_fit && !short);
            rows.push((Some(mop), clip(text)));
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        rows.push((None, format!("… {left_out} more")));
    }
    let widest = rows.iter().map(|row| row.1.chars().count()).chain([head(node).chars().count() + 1]).max();
    Shape { x: 0.0, y: 0.0, width: widest.unwrap_or(0) as f64 * LETTER + 22.0, rows }
}

fn head(node: &Node) -> String {
    let outcome = if node.outcome == "ok" { String::new() } else { format!(", {}", node.outcome) };
    format!("{} · process {}{outcome}", node.name, node.process)
}

fn svg(nodes: &[Node], shapes: &[Shape], arrows: &[Arrow<'_>], marked: &[(usize, usize, &str)]) -> Markup {
    let middle = shapes.iter().map(|shape| shape.centre().0).sum::<f64>() / shapes.len().max(1) as f64;
    let curve = |arrow: &Arrow<'_>| {
        let (from, to) = (&shapes[arrow.edge.from], &shapes[arrow.edge.to]);
        let outwards = match shapes.len() > RING {
            true => arrow.edge.from < arrow.edge.to,
            false => from.centre().0 + to.centre().0 >= 2.0 * middle,
        };
        Curve::new(from, to, (from.anchor(arrow.from), to.anchor(arrow.to)), outwards)
    };
    let curves: Vec<Curve> = arrows.iter().map(curve).collect();
    let labels: Vec<String> = arrows.iter().map(|arrow| label(arrow.edge)).collect();
    let spots = spots(&curves, &labels);
    // Of all that is drawn.
    let mut least = (0.0, 0.0);
    let mut most: (f64, f64) = (0.0, 0.0);
    let mut spread = |x: f64, y: f64| {
        least = (f64::min(least.0, x), f64::min(least.1, y));
        most = (f64::max(most.0, x), f64::max(most.1, y));
    };
    shapes.iter().for_each(|shape| spread(shape.x + shape.width + 10.0, shape.y + shape.height() + 10.0));
    curves.iter().for_each(|curve| curve.points.iter().for_each(|(x, y)| spread(*x, *y)));
    for ((x, y), label) in spots.iter().zip(&labels) {
        let half = label.chars().count() as f64 * LETTER / 2.0 + 6.0;
        spread(x - half, *y - 12.0);
        spread(x + half, *y + 12.0);
    }
    let (width, height) = (most.0 - least.0, most.1 - least.1);
    let mark = |node: usize, mop: usize| {
        marked.iter().find(|mark| (mark.0, mark.1) == (node, mop)).map(|mark| mark.2)
    };
    html! {
        div.scroll {
            svg.cycle viewBox=(format!("{} {} {} {}", px(least.0), px(least.1), px(width), px(height))) style=(format!("width:{}px;max-width:none", px(width)))
                role="img" aria-label="transactions and why one must come before the other" {
                @for (i, (node, shape)) in nodes.iter().zip(shapes).enumerate() {
                    g.txn {
                        title { (format!("{}: operation {} of process {}, {}", node.name, node.operation, node.process, node.outcome)) }
                        rect.box x=(px(shape.x)) y=(px(shape.y)) width=(px(shape.width)) height=(px(shape.height())) rx="6" {}
                        text.head x=(px(shape.x + 10.0)) y=(px(shape.y + 16.0)) { (head(node)) }
                        line x1=(px(shape.x)) x2=(px(shape.x + shape.width)) y1=(px(shape.y + HEAD - 2.0)) y2=(px(shape.y + HEAD - 2.0)) {}
                        @for (row, (mop, text)) in shape.rows.iter().enumerate() {
                            @let y = shape.y + HEAD + ROW * row as f64;
                            @if let Some(kind) = mop.and_then(|mop| mark(i, mop)) {
                                rect class=(format!("row {kind}")) x=(px(shape.x + 3.0)) y=(px(y + 1.0)) width=(px(shape.width - 6.0)) height=(px(ROW - 2.0)) rx="3" {}
                            }
                            text.mop x=(px(shape.x + 10.0)) y=(px(y + 14.0)) { (text) }
                        }
                    }
                }
                @for (arrow, curve) in arrows.iter().zip(&curves) {
                    g class=(format!("edge {}", arrow.edge.kind)) tabindex="0" {
                        title { (because(nodes, arrow.edge)) }
                        path.wide d=(curve.path()) {}
                        path d=(curve.path()) {}
                        polygon points=(curve.head()) {}
                    }
                }
                // On top of all.
                @for (arrow, (label, spot)) in arrows.iter().zip(labels.iter().zip(&spots)) {
                    @let half = label.chars().count() as f64 * LETTER / 2.0;
                    g class=(format!("edge {}", arrow.edge.kind)) {
                        title { (because(nodes, arrow.edge)) }
                        rect.under x=(px(spot.0 - half)) y=(px(spot.1 - 8.0)) width=(px(2.0 * half)) height="16" rx="3" {}
                        text x=(px(spot.0)) y=(px(spot.1 + 4.0)) { (label) }
                    }
                }
            }
        }
        @if !arrows.is_empty() { (legend(arrows)) }
    }
}

fn because(nodes: &[Node], edge: &Edge) -> String {
    format!("{} < {}, because {}", nodes[edge.from].name, nodes[edge.to].name, edge.reason)
}

fn label(edge: &Edge) -> String {
    match &edge.key {
        Some(key) => format!("{} key {}", edge.kind, clip(&key.to_string())),
        None => edge.kind.clone(),
    }
}

fn legend(arrows: &[Arrow<'_>]) -> Markup {
    const KINDS: [(&str, &str); 5] = [
        ("ww", "wrote before it was overwritten"),
        ("wr", "wrote what was read"),
        ("rw", "read before it was overwritten"),
        ("process", "came first in its process"),
        ("realtime", "had returned before the other was called"),
    ];
    let kinds = KINDS.into_iter().filter(|kind| arrows.iter().any(|arrow| arrow.edge.kind == kind.0));
    html! { p.quiet { @for (kind, words) in kinds { span class=(format!("edge-key {kind}")) { (kind) } " " (words) ". " } "Hover over an arrow for the reason." } }
}

/// What the reads found, one below the other.
fn table(nodes: &[Node], versions: &[Version], differ_at: Option<usize>) -> Markup {
    let name = |node: usize| nodes.get(node).map_or("?", |node| node.name.as_str());
    let from = versions.iter().map(|version| version.from).min().unwrap_or(0);
    let columns = versions.iter().map(|version| version.elements.len()).max().unwrap_or(0);
    html! {
        table.versions {
            tr { th { "read by" } th { "length" } @for i in 0..columns { th { (from + i) } } }
            @for version in versions {
                tr {
                    td { (name(version.node)) } td.n { (version.length) }
                    @for i in 0..columns {
                        td class=[(differ_at == Some(from + i)).then_some("differs")] {
                            @if let Some(element) = version.elements.get(i) { (clip(&element.to_string())) }
                        }
                    }
                }
            }
        }
        p.quiet { "What the reads found, by place in the list, from just before they differ." }
    }
}

/// Whether an anomaly is one of transactions.
pub(super) fn is_transactional(details: &Json) -> bool {
    details.get("nodes").is_some_and(Json::is_array)
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARS) {
        // What matters is usually at the end.
        Some(_) => {
            let all: Vec<char> = text.chars().collect();
            let half = MOST_CHARS / 2;
            let (head, tail) = (&all[..half], &all[all.len() - half + 1..]);
            format!("{}…{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use checkers::{
        Anomaly, Budget, Checker, edn, formats,
        transactions::{Options, list_append},
    };

    /// Transactions, a line each: process, call and return, outcome, micro-operations.
    fn anomalies(text: &str) -> Vec<Anomaly> {
        let mut events: Vec<(u64, bool, String)> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.splitn(5, ' ').collect();
            let [process, call, ret, outcome, mops] = words[..] else { panic!("{line}") };
            let asked: Vec<String> = mops
                .split("; ")
                .map(|mop| match mop.split_once(" -> ") {
                    Some((read, _)) => format!("[:{read} nil]"),
                    None => format!("[:{mop}]"),
                })
                .collect();
            let answered: Vec<String> =
                mops.split("; ").map(|mop| format!("[:{}]", mop.replace(" -> ", " "))).collect();
            let event = |time: &str, kind: &str, mops: &[String]| {
                format!(
                    "{{:process {process} :type :{kind} :time {time} :f :txn :value [{}]}}\n",
                    mops.join(" ")
                )
            };
            let end = if outcome == "ok" { &answered } else { &asked };
            events.push((call.parse().unwrap(), false, event(call, "invoke", &asked)));
            events.push((ret.parse().unwrap(), true, event(ret, outcome, end)));
        }
        events.sort();
        let text: String = events.into_iter().map(|event| event.2).collect();
        let history = edn::read(text.as_bytes(), &formats::Options::default()).unwrap();
        list_append(Options::default()).check(&history, &Budget::unlimited()).anomalies
    }

    fn drawn(text: &str) -> String {
        let pages = anomalies(text);
        assert!(!pages.is_empty());
        let draw = |anomaly| super::draw(anomaly).unwrap().into_string().replace('>', ">\n");
        pages.iter().map(draw).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn two_that_did_not_see_each_other() {
        insta::assert_snapshot!(drawn(
            "0 0 10 ok r 1 -> []; append 2 1
             1 0 10 ok r 2 -> []; append 1 1
             2 0 99 ok r 1 -> [1]; r 2 -> [1]"
        ));
    }

    #[test]
    fn a_ring_with_edges_of_every_kind() {
        let text = drawn(
            "1 0 100 ok append 1 2; r 5 -> [1]; append 2 1
             2 0 100 ok r 2 -> [1]; append 3 1
             3 0 20 ok r 3 -> [1]; append 4 1
             4 60 100 ok r 7 -> []; r 9 -> []
             5 0 100 ok append 7 1; append 8 1; append 9 1
             6 0 100 ok r 8 -> [1]; append 5 1
             7 0 100 ok r 7 -> [1]; r 9 -> [1]",
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_long_cycle_is_a_column() {
        let mut text: String =
            (0..12).map(|i| format!("{i} 0 100 ok r {i} -> []; append {} 1\n", (i + 1) % 12)).collect();
        let reads: Vec<String> = (0..12).map(|i| format!("r {i} -> [1]")).collect();
        text += &format!("12 0 100 ok {}", reads.join("; "));
        let column = drawn(&text);
        assert_eq!(column.matches("<g class=\"txn\">").count(), 12);
        assert_eq!(column.matches("<polygon").count(), 12);
        insta::assert_snapshot!(column);
    }

    #[test]
    fn reads_that_do_not_fit_are_a_table() {
        insta::assert_snapshot!(drawn(
            "0 0 90 ok append 7 1; append 7 2; append 7 3
             1 0 90 ok append 7 4
             2 0 90 ok r 7 -> [1 2 3 4]
             3 0 90 ok r 7 -> [1 2 4]"
        ));
    }

    #[test]
    fn of_a_large_transaction_only_what_matters_is_drawn() {
        let many: Vec<String> = (0..500).map(|i| format!("append {} 1", 100 + i)).collect();
        let text = drawn(&format!(
            "0 0 10 ok {0}; r 1 -> []; append 2 1
             1 0 10 ok r 2 -> []; append 1 1
             2 0 99 ok r 1 -> [1]; r 2 -> [1]",
            many.join("; ")
        ));
        assert!(text.contains("… 492 more"), "{text}");
        assert!(text.contains("r 1 -&gt; []"), "{text}");
        assert!(text.len() < 10_000, "{}", text.len());
    }

    #[test]
    fn what_is_not_of_transactions_is_not_drawn() {
        for details in
            [serde_json::json!({}), serde_json::json!({"nodes": 3}), serde_json::json!({"nodes": []})]
        {
            let anomaly = Anomaly {
                name: String::new(),
                message: String::new(),
                operations: Vec::new(),
                details,
                picture: None,
            };
            assert!(super::draw(&anomaly).is_none());
        }
    }
}
