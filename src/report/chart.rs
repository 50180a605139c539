//! Charts as SVG: latency over time, rate over time, percentiles. Faults are bands behind the data.

use super::ms;
use crate::{run::Record, worker::SAMPLE};
use checkers::{
    OpOutcome, Operation,
    performance::{Performance, Series},
};
use maud::{Markup, html};

const W: f64 = 1120.0;
const H: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 32.0;
/// More points than this only make the page slow; they are thinned evenly.
const MAX_POINTS: usize = 6000;
const COLOURS: [&str; 8] =
    ["#0969da", "#1a7f4b", "#8250df", "#bc4c00", "#bf3989", "#57606a", "#9a6700", "#0a7ea4"];

/// A plane with its scales. Time is in seconds since the load began.
struct Plane {
    seconds: f64,
    low: f64,
    high: f64,
    log: bool,
}

impl Plane {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.seconds).clamp(0.0, 1.0) * (W - LEFT - RIGHT)
    }
    fn y(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        H - BOTTOM - part.clamp(0.0, 1.0) * (H - TOP - BOTTOM)
    }

    fn frame(&self, unit: &str) -> Markup {
        let step = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0];
        let step = step.into_iter().find(|s| self.seconds / s <= 16.0).unwrap_or(3600.0 * 6.0);
        let times = (0..=(self.seconds / step) as usize).map(|i| i as f64 * step);
        let values: Vec<f64> = if self.log {
            let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            decades.map(|d| 10f64.powi(d)).filter(|v| (self.low..=self.high).contains(v)).collect()
        } else {
            (0..=4).map(|i| self.low + (self.high - self.low) * f64::from(i) / 4.0).collect()
        };
        html! {
            @for v in values {
                line x1=(LEFT) x2=(W - RIGHT) y1=(px(self.y(v))) y2=(px(self.y(v))) stroke="#eaeef2" {}
                text x=(LEFT - 6.0) y=(px(self.y(v) + 4.0)) text-anchor="end" { (short(v)) " " (unit) }
            }
            @for t in times { text x=(px(self.x(t))) y=(H - BOTTOM + 16.0) text-anchor="middle" { (t) " s" } }
            line x1=(LEFT) x2=(W - RIGHT) y1=(H - BOTTOM) y2=(H - BOTTOM) stroke="#8c959f" {}
        }
    }

    fn bands(&self, record: &Record) -> Markup {
        let seconds = |ns: u64| ns.saturating_sub(record.load_start_ns) as f64 / 1e9;
        html! {
            @for f in record.faults.iter().filter(|f| f.end_ns > f.start_ns) {
                @let (a, b) = (self.x(seconds(f.start_ns)), self.x(seconds(f.end_ns)));
                rect x=(px(a)) y=(TOP) width=(px((b - a).max(1.0))) height=(H - TOP - BOTTOM) fill=(band(f.kind.name())) opacity=".25" {
                    title { (f.fault) " on " (f.on) ": " (f.effect.what) }
                }
            }
        }
    }
}

fn band(kind: &str) -> &'static str {
    match kind {
        "kill" => "#cf222e",
        "pause" => "#d4a72c",
        "partition" => "#8250df",
        _ => "#57606a",
    }
}

fn px(x: f64) -> String {
    format!("{x:.1}")
}

fn short(v: f64) -> String {
    if v >= 10.0 || v == 0.0 { format!("{v:.0}") } else { format!("{v}") }
}

fn legend(rows: &[(String, &str)]) -> Markup {
    html! {
        @for (i, (name, colour)) in rows.iter().enumerate() {
            rect x=(W - RIGHT + 12.0) y=(TOP + 4.0 + i as f64 * 17.0) width="10" height="10" fill=(*colour) {}
            text x=(W - RIGHT + 27.0) y=(TOP + 13.0 + i as f64 * 17.0) { (name) }
        }
    }
}

/// The bands that are there, for the legend.
fn fault_rows(record: &Record) -> impl Iterator<Item = (String, &'static str)> {
    let happened = |kind: &&str| record.faults.iter().any(|f| f.kind.name() == *kind);
    let kinds = ["kill", "pause", "partition", "slow"];
    kinds.into_iter().filter(happened).map(|kind| (kind.to_owned(), band(kind)))
}

fn svg(label: &str, body: Markup) -> Markup {
    html! { svg viewBox=(format!("0 0 {W} {H}")) role="img" aria-label=(label) { (body) } }
}

fn span(operations: &[Operation], record: &Record) -> f64 {
    let last = operations.iter().filter_map(|o| o.ret).max().unwrap_or(0).max(record.load_end_ns);
    (last.saturating_sub(record.load_start_ns) as f64 / 1e9).max(0.001)
}

/// Whether the tester asked it beside the load.
fn sampled(o: &Operation) -> bool {
    o.meta.phase.as_deref() == Some(SAMPLE)
}

/// Each operation a point: when it was due, how long its user waited.
pub(super) fn latency(operations: &[Operation], record: &Record) -> Markup {
    let due = |o: &Operation| o.meta.intended.unwrap_or(o.call).min(o.call);
    let load = operations.iter().filter(|o| due(o) >= record.load_start_ns && !sampled(o));
    let points: Vec<(f64, f64, &Operation)> = load
        .filter_map(|o| Some((o, o.ret?)))
        .map(|(o, ret)| {
            let since = due(o).saturating_sub(record.load_start_ns) as f64 / 1e9;
            (since, (ret.saturating_sub(due(o)) as f64 / 1e6).max(0.001), o)
        })
        .collect();
    if points.is_empty() {
        return html! { p { "Nothing was completed." } };
    }
    let high = points.iter().map(|p| p.1).fold(1.0, f64::max) * 1.2;
    let low = points.iter().map(|p| p.1).fold(f64::MAX, f64::min) * 0.8;
    let plane = Plane { seconds: span(operations, record), low, high, log: true };
    let mut names: Vec<String> = points.iter().map(|p| series_name(p.2)).collect();
    names.sort();
    names.dedup();
    let colour = |name: &str| COLOURS[names.iter().position(|n| n == name).unwrap_or(0) % COLOURS.len()];
    let mut rows: Vec<(String, &str)> = names.iter().map(|n| (n.clone(), colour(n))).collect();
    rows.extend(fault_rows(record));
    let thin = points.len().div_ceil(MAX_POINTS).max(1);
    let body = html! {
        (plane.bands(record)) (plane.frame("ms"))
        // The slowest are what a chart like this is read for: they are never thinned out.
        @for (i, (x, y, o)) in points.iter().enumerate().filter(|(i, p)| i % thin == 0 || p.1 > high / 20.0) {
            circle cx=(px(plane.x(*x))) cy=(px(plane.y(*y))) r="1.6" fill=(colour(&series_name(o))) opacity=".6" data-i=(i) {}
        }
        (legend(&rows))
    };
    svg("latency over time", body)
}

fn series_name(o: &Operation) -> String {
    match (&o.outcome, &o.meta.path) {
        (OpOutcome::Ok(_), Some(path)) => path.to_string(),
        (OpOutcome::Ok(_), None) => o.op.f().to_owned(),
        (OpOutcome::Fail, _) => "failed".to_owned(),
        (OpOutcome::Info, _) => "unknown".to_owned(),
    }
}

/// Completions per second, by outcome.
pub(super) fn rate(operations: &[Operation], record: &Record) -> Markup {
    let seconds = span(operations, record);
    let buckets = (seconds.ceil() as usize).clamp(1, 3600);
    let mut count = [vec![0u32; buckets], vec![0; buckets], vec![0; buckets]];
    for o in operations.iter().filter(|o| !sampled(o)) {
        let Some(at) = o.ret.or(Some(o.call)).and_then(|t| t.checked_sub(record.load_start_ns)) else {
            continue;
        };
        let outcome = match o.outcome {
            OpOutcome::Ok(_) => 0,
            OpOutcome::Fail => 1,
            OpOutcome::Info => 2,
        };
        let bucket = (at / 1_000_000_000) as usize;
        if let Some(n) = count[outcome].get_mut(bucket) {
            *n += 1;
        }
    }
    let high = count.iter().flatten().copied().max().unwrap_or(1).max(1);
    let plane = Plane { seconds: buckets as f64, low: 0.0, high: f64::from(high) * 1.1, log: false };
    let lines = [("succeeded", "#1a7f4b"), ("failed", "#bc4c00"), ("unknown", "#cf222e")];
    let path = |n: &[u32]| {
        let point =
            |(i, v): (usize, &u32)| format!("{},{}", px(plane.x(i as f64 + 0.5)), px(plane.y(f64::from(*v))));
        n.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
    };
    let body = html! {
        (plane.bands(record)) (plane.frame("/s"))
        @for (n, (_, colour)) in count.iter().zip(lines) {
            polyline points=(path(n)) fill="none" stroke=(colour) stroke-width="1.8" {}
        }
        (legend(&lines.map(|(name, colour)| (name.to_owned(), colour))))
    };
    svg("rate over time", body)
}

/// On how many keys replicas certainly differed, in buckets of the run's clock that begin with it.
pub(super) fn divergent_keys(keys: &[u64], bucket_ns: u64, record: &Record) -> Markup {
    let since = |ns: u64| ns.saturating_sub(record.load_start_ns) as f64 / 1e9;
    let seconds = since(bucket_ns.saturating_mul(keys.len() as u64).max(record.load_end_ns)).max(0.001);
    let most = keys.iter().copied().max().unwrap_or(0).max(4);
    // A multiple of four, for the marks on the axis.
    let plane = Plane { seconds, low: 0.0, high: most.next_multiple_of(4) as f64, log: false };
    let shown = keys.iter().enumerate().filter(|(at, _)| (*at as u64 + 1) * bucket_ns > record.load_start_ns);
    let mut area = String::new();
    let mut last = 0.0;
    for (at, count) in shown {
        let (from, to) = (since(at as u64 * bucket_ns), since((at as u64 + 1) * bucket_ns));
        let y = px(plane.y(*count as f64));
        area += &format!("{},{y} {},{y} ", px(plane.x(from)), px(plane.x(to)));
        last = to;
    }
    let floor = px(plane.y(0.0));
    let points = format!("{},{floor} {area}{},{floor}", px(plane.x(0.0)), px(plane.x(last)));
    let rows: Vec<(String, &str)> =
        std::iter::once(("divergent keys".to_owned(), COLOURS[0])).chain(fault_rows(record)).collect();
    let body = html! {
        (plane.bands(record)) (plane.frame(""))
        polygon points=(points) fill=(COLOURS[0]) fill-opacity=".25" stroke=(COLOURS[0]) stroke-width="1.2" {}
        (legend(&rows))
    };
    svg("divergent keys over time", body)
}

/// Response time over percentile, a line for each path; the axis is stretched towards the slow end.
pub(super) fn percentiles(p: &Performance) -> Markup {
    let series: Vec<&Series> =
        p.by_path.iter().chain(&p.by_f).filter(|s| s.ok > 1).take(COLOURS.len()).collect();
    if series.is_empty() {
        return html! { p { "Nothing was completed." } };
    }
    let high = series.iter().map(|s| s.response.max_ns).max().unwrap_or(1) as f64 / 1e6 * 1.2;
    let low = series.iter().map(|s| s.response.min_ns).min().unwrap_or(1).max(1000) as f64 / 1e6 * 0.8;
    // "Nines": 0.9 lies at 1, 0.99 at 2, …
    let nines = |q: f64| -(1.0 - q.min(0.99999)).log10();
    let plane = Plane { seconds: 5.0, low, high: high.max(low * 10.0), log: true };
    let line = |s: &Series| {
        let all = s.response.curve.iter();
        let points =
            all.map(|q| format!("{},{}", px(plane.x(nines(q.quantile))), px(plane.y(q.ns as f64 / 1e6))));
        points.collect::<Vec<_>>().join(" ")
    };
    let name = |s: &Series| s.path.clone().or_else(|| s.f.clone()).unwrap_or_default();
    let rows: Vec<(String, &str)> = series
        .iter()
        .zip(COLOURS)
        .map(|(s, c)| (format!("{} p50 {}", name(s), ms(s.response.p50_ns)), c))
        .collect();
    let ticks = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];
    let decades = (low.log10().floor() as i32..=high.log10().ceil() as i32).map(|d| 10f64.powi(d));
    let body = html! {
        @for v in decades.filter(|v| (plane.low..=plane.high).contains(v)) {
            line x1=(LEFT) x2=(W - RIGHT) y1=(px(plane.y(v))) y2=(px(plane.y(v))) stroke="#eaeef2" {}
            text x=(LEFT - 6.0) y=(px(plane.y(v) + 4.0)) text-anchor="end" { (short(v)) " ms" }
        }
        @for (q, label) in ticks {
            line x1=(px(plane.x(nines(q)))) x2=(px(plane.x(nines(q)))) y1=(TOP) y2=(H - BOTTOM) stroke="#eaeef2" {}
            text x=(px(plane.x(nines(q)))) y=(H - BOTTOM + 16.0) text-anchor="middle" { (label) }
        }
        @for (s, colour) in series.iter().zip(COLOURS) {
            polyline points=(line(s)) fill="none" stroke=(colour) stroke-width="1.8" {}
        }
        (legend(&rows))
    };
    svg("latency percentiles", body)
}
