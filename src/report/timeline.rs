//! The operations around a violation as SVG: a lane for each process, a bar for each operation.
//!
//! Bars of the operation that cannot be placed are red, those of the smallest failing part are blue. The axis is in
//! order of events, not to scale: a microsecond and a second take the same room.

use checkers::{Anomaly, Operation};
use maud::{Markup, html};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// The least distance between two events, and the room that a letter takes, in pixels.
const STEP: f64 = 16.0;
const LETTER: f64 = 6.4;
const LANE: f64 = 30.0;
const LEFT: f64 = 90.0;

/// Draws the `window` of an anomaly's details; falls back to its picture in text.
pub(super) fn draw(anomaly: &Anomaly, operations: &[Operation]) -> Markup {
    let ids = |field: &str| -> BTreeSet<usize> {
        let list = anomaly.details.get(field).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|v| v.get("id").unwrap_or(v).as_u64()).map(|id| id as usize).collect()
    };
    let shown: Vec<&Operation> = ids("window").iter().filter_map(|&id| operations.get(id)).collect();
    if shown.is_empty() {
        return html! { @if let Some(picture) = &anomaly.picture { pre { (picture) } } };
    }
    let guilty = anomaly.details.get("operation").and_then(Json::as_u64).map(|id| id as usize);
    let minimal = ids("minimal");
    let labels: Vec<(usize, String)> = labels(anomaly);
    let label =
        |o: &Operation| labels.iter().find(|l| l.0 == o.id).map_or(o.op.f(), |l| l.1.as_str()).to_owned();
    // Every call and every return gets a place of its own, in order (calls first where times are equal), and as far
    // apart as the label between them needs.
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for o in &shown {
        events.push((o.call, false, o.id));
        events.extend(o.ret.map(|ret| (ret, true, o.id)));
    }
    events.sort_unstable();
    let mut places: BTreeMap<(usize, bool), f64> = BTreeMap::new();
    let mut x = LEFT;
    for &(_, end, id) in &events {
        x += STEP;
        if end && let (Some(start), Some(o)) = (places.get(&(id, false)), shown.iter().find(|o| o.id == id)) {
            x = x.max(start + label(o).chars().count() as f64 * LETTER + 12.0);
        }
        places.insert((id, end), x);
    }
    let right = x
        + shown.iter().map(|o| label(o).chars().count()).max().unwrap_or(0) as f64 * LETTER / 2.0
        + 2.0 * STEP;
    let mut lanes: Vec<u64> = shown.iter().map(|o| o.process).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let width = right + STEP;
    let height = lanes.len() as f64 * LANE + 10.0;
    html! {
        svg viewBox=(format!("0 0 {width} {height}")) style=(format!("width:{width}px;max-width:none")) role="img" aria-label="timeline" {
            @for (i, process) in lanes.iter().enumerate() {
                text x="4" y=(i as f64 * LANE + 22.0) { "process " (process) }
                line x1=(LEFT) x2=(width) y1=(i as f64 * LANE + 18.0) y2=(i as f64 * LANE + 18.0) stroke="#eaeef2" {}
            }
            @for o in &shown {
                @let lane = lanes.iter().position(|p| *p == o.process).unwrap_or(0) as f64;
                @let from = places.get(&(o.id, false)).copied().unwrap_or(LEFT);
                @let to = places.get(&(o.id, true)).copied().unwrap_or(right);
                @let fill = if guilty == Some(o.id) { "#ffb3ad" } else if minimal.contains(&o.id) { "#b6d4fe" } else { "#e7ebef" };
                g {
                    title { (format!("operation {}, {:.3} ms to {}", o.id, o.call as f64 / 1e6,
                        o.ret.map_or("never answered".to_owned(), |r| format!("{:.3} ms", r as f64 / 1e6)))) }
                    rect x=(from) y=(lane * LANE + 6.0) width=(to - from) height="24" rx="4"
                        fill=(fill) stroke="#57606a" stroke-dasharray=[o.ret.is_none().then_some("4 3")] {}
                    text x=(from + 5.0) y=(lane * LANE + 22.0) { (label(o)) }
                }
            }
        }
        p.quiet { "Red: the operation that cannot be placed. Blue: with it, a smallest part that is still wrong. Dashed: never answered. "
            "Events are in order, not to scale; hover for times." }
    }
}

fn labels(anomaly: &Anomaly) -> Vec<(usize, String)> {
    let window =
        anomaly.details.get("window").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let label = |v: &Json| Some((v.get("id")?.as_u64()? as usize, v.get("label")?.as_str()?.to_owned()));
    window.iter().filter_map(label).collect()
}
