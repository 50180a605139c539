//! Results as one self-contained HTML page: verdict, counterexample, latency over time, rate, faults, percentiles.
//!
//! No scripts, no fonts, no requests: the page can be mailed. Charts are SVG from the module `chart`, the
//! counterexample from `timeline`.

use super::{chart, ms, replicas, text, timeline};
use crate::{judge, judge::Results, plan::TestPlan, store::Store};
use anyhow::Result;
use checkers::{Operation, Validity, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// The page. Reads the operations back from the run's history, for the charts.
pub fn render(results: &Results, plan: &TestPlan, store: &Store) -> Result<String> {
    let operations = judge::read_history(&store.file("history.jsonl"))?.operations()?;
    Ok(page(results, plan, &operations).into_string())
}

fn page(r: &Results, plan: &TestPlan, operations: &[Operation]) -> Markup {
    let class = text::word(r.valid).to_lowercase();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (text::word(r.valid)) " · " (r.test) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header class=(class) {
                    h1 { (text::word(r.valid)) " " span { (r.test) } }
                    p { "seed " (r.seed) " · " (r.operations.asked) " operations: " (r.operations.ok) " succeeded, "
                        (r.operations.fail) " failed, " (r.operations.info) " unknown · " (r.record.faults.len()) " faults" }
                }
                main {
                    @for v in r.verdicts() { (verdict(v, operations)) }
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
                }
            }
        }
    }
}

fn verdict(v: &Verdict, operations: &[Operation]) -> Markup {
    html! {
        section {
            h2 { (v.checker) ": " span class=(text::word(v.validity).to_lowercase()) { (text::word(v.validity).to_lowercase()) } }
            @if let Some(reason) = &v.reason { p { (reason) } }
            @for anomaly in v.anomalies.iter().take(5) {
                h3 { (anomaly.name) }
                p { (anomaly.message) }
                (timeline::draw(anomaly, operations))
            }
            @if v.anomalies.len() > 5 { p { "… and " (v.anomalies.len() - 5) " more in results.json" } }
            @if v.validity == Validity::Valid && !v.stats.is_empty() {
                p.quiet { @for (k, value) in v.stats.iter().filter(|(_, v)| !v.is_object() && !v.is_array()) {
                    (k.replace('_', " ")) ": " (value) " · "
                } }
            }
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
        for outside in ["<script", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "the page asks for something outside: {outside}");
        }
        let body = page.split("<main>").nth(1).unwrap().replace('>', ">\n");
        insta::assert_snapshot!(body);
    }
}
