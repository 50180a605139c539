//! Results as one self-contained HTML page: verdict, counterexample, latency over time, rate, faults, percentiles. Or a verdict
//! alone, of a stored history.
//!
//! No fonts, no requests: the page can be mailed. Charts are SVG from the module `chart`, counterexamples from `timeline`
//! and `cycle`. One small script, in the page, goes through the orders of a counterexample; without it the page says the same.

use super::{chart, cycle, ms, replicas, text, timeline, words};
use crate::{judge, judge::Results, plan::TestPlan, store::Store};
use anyhow::Result;
use checkers::{Anomaly, Operation, Validity, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value as Json;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("timeline.js");
/// The most anomalies of one name that are shown.
const SHOWN: usize = 20;

/// The page. Reads the operations back from the run's history, for the charts.
pub fn render(results: &Results, plan: &TestPlan, store: &Store) -> Result<String> {
    let operations = judge::read_history(&store.file("history.jsonl"))?.operations()?;
    Ok(page(results, plan, &operations).into_string())
}

/// The page of a stored history: what was judged, and the verdict.
pub fn check(verdict: &Verdict, file: &str) -> String {
    let header = html! { p { "the checker " (verdict.checker) } };
    shell(verdict.validity, file, &header, &html! { (self::verdict(verdict)) }).into_string()
}

fn shell(valid: Validity, name: &str, header: &Markup, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (text::word(valid)) " · " (name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header class=(text::word(valid).to_lowercase()) {
                    h1 { (text::word(valid)) " " span { (name) } }
                    (header)
                }
                main { (main) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn page(r: &Results, plan: &TestPlan, operations: &[Operation]) -> Markup {
    let header = html! {
        p { "seed " (r.seed) " · " (r.operations.asked) " operations: " (r.operations.ok) " succeeded, "
            (r.operations.fail) " failed, " (r.operations.info) " unknown · " (r.record.faults.len()) " faults" }
    };
    let main = html! {
        @for v in r.verdicts() { (verdict(v)) }
        (replicas::html(r))
        section {
            h2 { "Latency over time" }
            p { "Response time of each operation, from when it was due; logarithmic. Bands are faults in force." }
            (chart::latency(operations, &r.record))
        }
        section {
            h2 { "Rate" }
            p { "Operations per second by outcome, when they were completed." }
            (chart::rate(operations, &r.record))
        }
        section { h2 { "Percentiles by path" } (chart::percentiles(&r.performance)) (latencies(r)) }
        section { h2 { "Faults" } (faults(r)) }
        section { h2 { "The test" } pre { (serde_yaml::to_string(&plan.scenario).unwrap_or_default()) } }
    };
    shell(r.valid, &r.test, &header, &main)
}

fn verdict(v: &Verdict) -> Markup {
    let count = |name: &str| v.stats.get("anomaly_counts").and_then(|counts| counts.get(name)?.as_u64());
    html! {
        section {
            h2 { (v.checker) ": " span class=(text::word(v.validity).to_lowercase()) { (text::word(v.validity).to_lowercase()) } }
            @if let Some(reason) = &v.reason { p { (reason) } }
            (keys(v))
            @for kind in v.anomalies.chunk_by(|a, b| a.name == b.name) {
                @let shown = kind.len().min(SHOWN);
                @let all = count(&kind[0].name).map_or(kind.len(), |count| count as usize);
                @if cycle::is_transactional(&kind[0].details) {
                    h3 { (kind[0].name) @if all > shown { " · the first " (shown) " of " (all) } @else if all > 1 { " · " (all) } }
                } @else if all > shown { p.quiet { "The first " (shown) " of " (all) " " (kind[0].name) "." } }
                @for one in &kind[..shown] { (anomaly(one)) }
            }
            @if v.validity == Validity::Valid && !v.stats.is_empty() {
                p.quiet { @for (k, value) in v.stats.iter().filter(|(_, value)| is_short(value)) { (k.replace('_', " ")) ": " (value) " · " } }
            }
        }
    }
}

/// Whether a figure can stand in a line.
fn is_short(value: &Json) -> bool {
    !value.is_object() && value.as_array().is_none_or(|list| list.len() <= 20)
}

/// Where several keys are explained: a choice of one, for the script.
fn keys(v: &Verdict) -> Markup {
    let keys: Vec<&Json> = v.anomalies.iter().filter_map(|anomaly| anomaly.details.get("key")).collect();
    let choice =
        keys.len() == v.anomalies.len() && v.anomalies.iter().all(|a| a.details.get("orders").is_some());
    html! {
        @if choice && keys.len() > 1 {
            p hidden { "Key " select.keys aria-label="key" { @for key in keys { option { (key) } } } " of those that are explained" }
        }
    }
}

fn anomaly(anomaly: &Anomaly) -> Markup {
    let (steps, drawn) = (words::because(anomaly), cycle::draw(anomaly));
    html! {
        article {
            @if drawn.is_none() { h3 { (anomaly.name) } }
            @match &steps {
                Some((meaning, steps)) => { p { (meaning) } ul.because { @for step in steps { li { (step) } } } }
                // Orders are told below the timeline.
                None if anomaly.details.get("window").is_some() => { p { (words::what(anomaly).lines().next().unwrap_or_default()) } }
                None => { @for paragraph in words::what(anomaly).lines() { p { (paragraph) } } }
            }
            @match drawn { Some(drawn) => (drawn), None => (timeline::draw(anomaly)) }
        }
    }
}

fn faults(r: &Results) -> Markup {
    let seconds = |ns: u64| format!("{:.2}", ns.saturating_sub(r.record.load_start_ns) as f64 / 1e9);
    html! {
        @if r.record.faults.is_empty() { p { "None." } } @else {
            table {
                tr { th { "from s" } th { "to s" } th { "fault" } th { "on" } th { "observed effect" } th { "after healing" } }
                @for f in &r.record.faults {
                    tr class=[(!f.effect.seen).then_some("missed")] {
                        td.n { (seconds(f.start_ns)) } td.n { (seconds(f.end_ns)) }
                        td { (f.fault) } td { (f.on) }
                        td { @if !f.effect.seen { "NOT SEEN: " } (f.effect.what) } td { (f.healed.what) }
                    }
                }
            }
        }
    }
}

fn latencies(r: &Results) -> Markup {
    let p = &r.performance;
    let rows = p.by_f.iter().chain(&p.by_path).chain(&p.by_f_path).filter(|s| s.ok > 0);
    html! {
        table {
            tr { th { "operation" } th { "path" } th { "count" } th { "p50 ms" } th { "p90" } th { "p99" } th { "p99.9" } th { "max" }
                 th { "commit p50 at proposer" } }
            @for s in rows {
                tr {
                    td { (s.f.as_deref().unwrap_or("all")) } td { (s.path.as_deref().unwrap_or("all")) }
                    td.n { (s.ok) }
                    @for ns in [s.response.p50_ns, s.response.p90_ns, s.response.p99_ns, s.response.p999_ns, s.response.max_ns] {
                        td.n { (ms(ns)) }
                    }
                    td.n { @if let Some(c) = &s.commit { (ms(c.p50_ns)) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_stands_alone_and_shows_the_counterexample() {
        let folder = tempfile::tempdir().unwrap();
        let (results, plan, store) = crate::report::sample::run(folder.path());
        let page = super::render(&results, &plan, &store).unwrap();
        for outside in [" src=", "href=", "@import", "url(", "http://", "https://", "fetch(", "import "] {
            let asked = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!asked.contains(outside), "the page asks for something outside: {outside}");
        }
        let body = page.split("<main>").nth(1).unwrap().split("<script>").next().unwrap().replace('>', ">\n");
        insta::assert_snapshot!(body);
    }
}
