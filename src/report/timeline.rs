//! The operations around a violation as SVG: a lane for each process, a bar for each operation, and through the bars the
//! orders that work as far as they go.
//!
//! ```text
//! process 0  |  w 1  (1) |              (1)──┐   the longest order; the number is the step,
//! process 1           | w 2  (2) |           └──(2)      the state behind it is in braces
//! process 2                        |x r -> 1 |       red: cannot be next, and why
//! ```
//!
//! The axis is in the order of events, not to scale: a microsecond and a second take the same room. The page works without
//! scripts, with the longest order drawn; `timeline.js` goes through the others. Deliberately of the evidence and a little
//! company only, whatever the length of the history: both are bounded by the checker.

use super::esc;
use checkers::Anomaly;
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// The least distance between two events, the room that a letter takes, and that of a step's mark, in pixels.
const STEP: f64 = 16.0;
const LETTER: f64 = 6.7;
const MARK: f64 = 24.0;
const LANE: f64 = 52.0;
const BAR: f64 = 40.0;
const LEFT: f64 = 96.0;
/// The most characters of a label, and of a state behind a mark.
const MOST_LABEL: usize = 40;
const MOST_STATE: usize = 12;

/// An operation of the window.
#[derive(Deserialize)]
struct Operation {
    id: usize,
    process: u64,
    label: String,
    call: u64,
    ret: Option<u64>,
    kind: String,
}

/// What the checker says of orders; see `docs/results.md`.
#[derive(Deserialize)]
struct Orders {
    count: u64,
    cut: bool,
    operations: Vec<Evidence>,
    states: Vec<State>,
    paths: Vec<Path>,
    impossible: Vec<Json>,
}

#[derive(Deserialize)]
struct Evidence {
    id: usize,
    call: u64,
    ret: Option<u64>,
}

#[derive(Deserialize)]
struct State {
    words: String,
    situation: String,
}

#[derive(Deserialize)]
struct Path {
    operations: Vec<usize>,
    states: Vec<usize>,
    stuck: Vec<Stuck>,
}

#[derive(Deserialize)]
struct Stuck {
    operation: usize,
    reason: String,
}

/// Where everything is.
struct Layout {
    /// By operation: from, to, and the top of its lane.
    bars: BTreeMap<usize, (f64, f64, f64)>,
    /// The lanes from top to bottom, by process.
    lanes: Vec<u64>,
    /// The places of all events, in order, and at the end of all.
    events: Vec<f64>,
    /// By operation: which event its call is.
    calls: BTreeMap<usize, usize>,
    width: f64,
}

/// Draws the `window` of an anomaly's details, and its `orders`; falls back to its picture in text.
pub(super) fn draw(anomaly: &Anomaly) -> Markup {
    let field = |name: &str| anomaly.details.get(name).cloned().unwrap_or_default();
    let operations: Vec<Operation> = serde_json::from_value(field("window")).unwrap_or_default();
    if operations.is_empty() {
        return html! { @if let Some(picture) = &anomaly.picture { pre { (picture) } } };
    }
    let guilty = field("operation").as_u64().map(|id| id as usize);
    let minimal: Vec<usize> = serde_json::from_value(field("minimal")).unwrap_or_default();
    let orders: Option<Orders> = serde_json::from_value(field("orders")).ok();
    // Of very large evidence not all operations are told, and an order with a hole is none.
    let orders = orders.filter(|orders| {
        orders.operations.iter().all(|one| operations.iter().any(|operation| operation.id == one.id))
    });
    let layout = layout(&operations, orders.as_ref());
    let height = layout.lanes.len() as f64 * LANE + 8.0;
    let class = |o: &Operation| {
        let part = match (guilty == Some(o.id), minimal.contains(&o.id)) {
            (true, _) => "guilty",
            (_, true) => "evidence",
            _ => "company",
        };
        format!("op {} {part}", o.kind)
    };
    html! {
        figure.orders tabindex="0" aria-label="timeline of the evidence" {
            @if let Some(orders) = &orders { (controls(orders)) }
            div.scroll {
                svg viewBox=(format!("0 0 {} {height}", px(layout.width))) style=(format!("width:{}px;max-width:none", px(layout.width))) role="img"
                    aria-label="a lane for each process, a bar for each operation" {
                    @for (i, process) in layout.lanes.iter().enumerate() {
                        @let y = i as f64 * LANE;
                        text.lane x="4" y=(px(y + 28.0)) { "process " (process) }
                        line x1=(px(LEFT)) x2=(px(layout.width)) y1=(px(y + 24.0)) y2=(px(y + 24.0)) stroke="#eaeef2" {}
                    }
                    @for o in &operations {
                        @let (from, to, y) = layout.bars[&o.id];
                        g class=(class(o)) data-op=(o.id) tabindex="0" role="button" {
                            title { (times(o)) }
                            rect x=(px(from)) y=(px(y + 4.0)) width=(px(to - from)) height=(BAR) rx="5" {}
                        }
                    }
                    g.line { @if let Some(orders) = &orders { (line(orders, &layout)) } }
                    @for o in &operations {
                        @let (from, _, y) = layout.bars[&o.id];
                        text.label x=(px(from + 7.0)) y=(px(y + 19.0)) { (clip(&o.label, MOST_LABEL)) }
                    }
                    g.marks { @if let Some(orders) = &orders { (marks(orders, &layout)) } }
                }
            }
            @if let Some(orders) = &orders {
                div.told aria-live="polite" { (steps(orders, &operations)) }
                script type="application/json" { (PreEscaped(esc(&data(orders, &operations, &layout)))) }
            }
            figcaption.quiet {
                span.key.guilty { "cannot be placed" } span.key.evidence { "with it, a smallest part that is still wrong" }
                span.key.company { "going on around it" } span.key.info { "never answered" } span.key.fail { "failed" }
                "Events are in order, not to scale; hover for times."
            }
        }
    }
}

/// Shown by the script only.
fn controls(orders: &Orders) -> Markup {
    let (kept, count) = (orders.paths.len(), orders.count);
    let most = if orders.cut { format!("{count} or more") } else { count.to_string() };
    html! {
        div.controls hidden {
            span.group {
                button data-do="path-" title="a longer order (↑)" { "↑" } button data-do="path+" title="another order (↓)" { "↓" }
                " order " b.path { "1" } " of " (kept)
                @if count > kept as u64 { " (" (most) " in all)" }
            }
            span.group {
                button data-do="first" title="to the start (Home)" { "⇤" } button data-do="step-" title="a step back (←)" { "←" }
                button data-do="step+" title="a step forward (→)" { "→" } button data-do="last" title="to the end (End)" { "⇥" }
                " step " b.step {} " of " b.steps {}
            }
            span.quiet { "Click an operation for the longest order that contains it." }
        }
    }
}

/// Lanes, bars, and as much room between two events as what is drawn there needs.
fn layout(operations: &[Operation], orders: Option<&Orders>) -> Layout {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (i, o) in operations.iter().enumerate() {
        events.push((o.call, false, i));
        events.extend(o.ret.map(|ret| (ret, true, i)));
    }
    events.sort_unstable();
    let calls: BTreeMap<usize, usize> = events
        .iter()
        .enumerate()
        .filter(|(_, event)| !event.1)
        .map(|(at, event)| (operations[event.2].id, at))
        .collect();
    let mut room = vec![STEP; events.len()];
    // By operation: the widest state behind its mark.
    let mut states: BTreeMap<usize, usize> = BTreeMap::new();
    for (path, orders) in orders.iter().flat_map(|orders| orders.paths.iter().map(move |path| (path, orders)))
    {
        let mut needed: BTreeMap<usize, f64> = BTreeMap::new();
        for (i, slot) in slots(&path.operations, &calls).into_iter().enumerate() {
            *needed.entry(slot).or_insert(STEP) += MARK;
            let width = state(orders, path.states[i + 1]).chars().count();
            states.entry(path.operations[i]).and_modify(|most| *most = width.max(*most)).or_insert(width);
        }
        needed.into_iter().for_each(|(slot, width)| room[slot] = room[slot].max(width));
    }
    let length = |o: &Operation| {
        let label = clip(&o.label, MOST_LABEL).chars().count() as f64 * LETTER + 14.0;
        let mark = states.get(&o.id).map_or(0.0, |width| STEP + 14.0 + *width as f64 * LETTER);
        label.max(mark)
    };
    let mut places = vec![LEFT; events.len() + 1];
    for (at, &(_, ends, i)) in events.iter().enumerate() {
        if ends {
            let start = places[calls[&operations[i].id]];
            places[at] = places[at].max(start + length(&operations[i]));
        }
        places[at + 1] = places[at] + room[at];
    }
    let end = places[events.len()];
    let open = operations.iter().filter(|o| o.ret.is_none());
    let end = open.map(|o| places[calls[&o.id]] + length(o) + STEP).fold(end, f64::max);
    if let Some(last) = places.last_mut() {
        *last = end;
    }
    let mut sorted: Vec<&Operation> = operations.iter().collect();
    sorted.sort_by_key(|o| (o.process, calls[&o.id]));
    let mut lanes: Vec<(u64, f64)> = Vec::new();
    let mut bars = BTreeMap::new();
    for o in sorted {
        let from = places[calls[&o.id]];
        let place = |event: &(u64, bool, usize)| event.1 && operations[event.2].id == o.id;
        let to = events.iter().position(place).map_or(end, |at| places[at]);
        // Intervals that touch overlap: then a process has a second lane.
        let free = lanes.iter().position(|(process, until)| *process == o.process && *until < from);
        let lane = free.unwrap_or_else(|| {
            lanes.push((o.process, 0.0));
            lanes.len() - 1
        });
        lanes[lane].1 = to;
        bars.insert(o.id, (from, to, lane as f64 * LANE));
    }
    let lanes = lanes.into_iter().map(|lane| lane.0).collect();
    Layout { bars, lanes, events: places, calls, width: end + STEP }
}

/// After which event each operation of an order takes effect at the earliest: the latest call so far.
fn slots(path: &[usize], calls: &BTreeMap<usize, usize>) -> Vec<usize> {
    let mut latest = 0;
    path.iter()
        .map(|id| {
            latest = latest.max(calls.get(id).copied().unwrap_or(0));
            latest
        })
        .collect()
}

/// The points of an order: in every bar, one to the right of the other.
fn points(path: &Path, layout: &Layout) -> Vec<(f64, f64)> {
    let slots = slots(&path.operations, &layout.calls);
    let mut used: BTreeMap<usize, f64> = BTreeMap::new();
    path.operations
        .iter()
        .zip(slots)
        .map(|(id, slot)| {
            let used = used.entry(slot).or_insert(STEP);
            let x = layout.events[slot] + *used;
            *used += MARK;
            (x, layout.bars.get(id).map_or(0.0, |bar| bar.2) + 32.0)
        })
        .collect()
}

fn state(orders: &Orders, place: usize) -> String {
    format!("{{{}}}", orders.states.get(place).map_or(String::new(), |state| clip(&state.words, MOST_STATE)))
}

fn line(orders: &Orders, layout: &Layout) -> Markup {
    let Some(path) = orders.paths.first() else { return html! {} };
    let points = points(path, layout);
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", px(*x), px(*y))).collect();
    html! { polyline points=(points.join(" ")) {} }
}

fn marks(orders: &Orders, layout: &Layout) -> Markup {
    let Some(path) = orders.paths.first() else { return html! {} };
    html! {
        @for (i, (x, y)) in points(path, layout).into_iter().enumerate() {
            @let state = path.states[i + 1];
            g.mark {
                title { "step " (i + 1) ": " (orders.states[state].situation) }
                circle cx=(px(x)) cy=(px(y)) r="8" {}
                text.number x=(px(x)) y=(px(y + 3.5)) { (i + 1) }
                text.state x=(px(x + 11.0)) y=(px(y + 4.0)) { (self::state(orders, state)) }
            }
        }
        @for stuck in &path.stuck {
            @let (from, _, y) = layout.bars.get(&stuck.operation).copied().unwrap_or_default();
            g.stuck { title { (stuck.reason) } text x=(px(from + 7.0)) y=(px(y + 37.0)) { "✗" } }
        }
    }
}

/// The longest order in words.
fn steps(orders: &Orders, operations: &[Operation]) -> Markup {
    let Some(path) = orders.paths.first() else { return html! {} };
    let label =
        |id: usize| operations.iter().find(|o| o.id == id).map_or(String::new(), |o| name(o, operations));
    html! {
        ol {
            li value="0" { "at first " code { (orders.states[path.states[0]].words) } }
            @for (id, state) in path.operations.iter().zip(&path.states[1..]) {
                li { (label(*id)) " " code { (orders.states[*state].words) } }
            }
        }
        ul {
            @for stuck in &path.stuck { li.no { b { (label(stuck.operation)) } " cannot be next: " (stuck.reason) } }
        }
    }
}

/// What the script needs.
fn data(orders: &Orders, operations: &[Operation], layout: &Layout) -> Json {
    let point = |(x, y): (f64, f64)| json!([x.round(), y.round()]);
    let paths = orders.paths.iter().map(|path| {
        json!({
            "ops": path.operations,
            "states": path.states,
            "at": points(path, layout).into_iter().map(point).collect::<Vec<_>>(),
        })
    });
    let states =
        orders.states.iter().enumerate().map(|(i, one)| json!([one.words, one.situation, state(orders, i)]));
    // Times as ranks: a script's numbers are not made for nanoseconds of months.
    let mut times: Vec<u64> =
        orders.operations.iter().flat_map(|o| [Some(o.call), o.ret]).flatten().collect();
    times.sort_unstable();
    times.dedup();
    let rank = |time: u64| times.partition_point(|known| *known < time);
    let evidence = orders.operations.iter().map(|o| json!([o.id, rank(o.call), o.ret.map(rank)]));
    let bars = operations.iter().map(|o| {
        let (from, _, y) = layout.bars[&o.id];
        json!([o.id, name(o, operations), from.round(), y.round()])
    });
    let impossible =
        orders.impossible.iter().map(|one| json!([one["operation"], one["state"], one["reason"]]));
    json!({
        "paths": paths.collect::<Vec<_>>(),
        "states": states.collect::<Vec<_>>(),
        "evidence": evidence.collect::<Vec<_>>(),
        "bars": bars.collect::<Vec<_>>(),
        "impossible": impossible.collect::<Vec<_>>(),
    })
}

/// The label, and whose it is if others have the same.
fn name(o: &Operation, operations: &[Operation]) -> String {
    let others = operations.iter().any(|other| other.label == o.label && other.id != o.id);
    if others { format!("{} (operation {})", o.label, o.id) } else { o.label.clone() }
}

fn times(o: &Operation) -> String {
    let ms = |ns: u64| format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000);
    let end = match (o.ret, o.kind.as_str()) {
        (Some(ret), "fail") => format!("{}, when it was told that it had failed", ms(ret)),
        (Some(ret), _) => ms(ret),
        (None, _) => "never answered".to_owned(),
    };
    format!("{}: operation {} of process {}, {} to {end}", o.label, o.id, o.process, ms(o.call))
}

fn px(x: f64) -> String {
    format!("{x:.0}")
}

fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use checkers::{Anomaly, Budget, Checker, ModelName, Validity, edn, formats, linearizable};

    fn anomaly(model: ModelName, text: &str) -> Anomaly {
        let history = edn::read(text.as_bytes(), &formats::Options::default()).unwrap();
        let mut verdict = linearizable(model).check(&history, &Budget::unlimited());
        assert_eq!(verdict.validity, Validity::Invalid, "{:?}", verdict.reason);
        verdict.anomalies.remove(0)
    }

    fn drawn(anomaly: &Anomaly) -> String {
        super::draw(anomaly).into_string().replace('>', ">\n").replace("},{", "},\n{").replace("],[", "],\n[")
    }

    #[test]
    fn the_longest_order_is_drawn_and_the_others_are_in_the_data() {
        let text = "[0 :invoke :enqueue 1] [1 :invoke :enqueue 2] [2 :invoke :enqueue 4] [0 :ok :enqueue 1] [1 :ok :enqueue 2]
            [2 :info :enqueue 4] [0 :invoke :dequeue nil] [1 :invoke :dequeue nil] [0 :ok :dequeue 4] [1 :ok :dequeue 2]
            [0 :invoke :dequeue nil] [0 :ok :dequeue 2]";
        let anomaly = anomaly(ModelName::FifoQueue, text);
        let orders = &anomaly.details["orders"];
        assert!(orders["count"].as_u64().unwrap() > 1, "{orders}");
        insta::assert_snapshot!(drawn(&anomaly));
    }

    #[test]
    fn what_a_history_says_stays_text() {
        let text = r#"[0 :invoke :write "</script><b>&"] [0 :ok :write "</script><b>&"] [0 :invoke :read nil] [0 :ok :read "<!--"]"#;
        let page = super::draw(&anomaly(ModelName::Register, text)).into_string();
        assert!(page.contains("&lt;/script&gt;&lt;b&gt;&amp;"), "{page}");
        assert!(page.contains("\\u003c/script>"), "{page}");
        assert_eq!(page.matches("</script>").count(), 1, "{page}");
        assert!(!page.contains("<b>&") && !page.contains("<!--"), "{page}");
    }

    #[test]
    fn the_page_is_small_however_many_orders_there_are() {
        let event = |process: usize, kind: &str| format!("[{process} :{kind} :push {process}]");
        let mut text: String = (0..7).map(|process| event(process, "invoke")).collect();
        text.extend((0..7).map(|process| event(process, "ok")));
        text += "[0 :invoke :pop nil] [0 :ok :pop 60]";
        let anomaly = anomaly(ModelName::Stack, &text);
        assert_eq!(anomaly.details["orders"]["paths"].as_array().unwrap().len(), 32);
        assert_eq!(anomaly.details["orders"]["cut"], true);
        let page = drawn(&anomaly);
        assert!(page.len() < 100_000, "{}", page.len());
    }

    #[test]
    fn without_a_window_there_is_the_picture() {
        let mut anomaly = anomaly(ModelName::Register, "[0 :invoke :read nil] [0 :ok :read 7]");
        anomaly.details = serde_json::json!({});
        assert_eq!(
            super::draw(&anomaly).into_string(),
            format!("<pre>{}</pre>", anomaly.picture.unwrap().replace('>', "&gt;"))
        );
    }
}
