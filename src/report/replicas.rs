//! What the convergence checker saw of replicas: who lagged how far behind, how stale reads were, on how many keys they differed.
//!
//! ```text
//!   replica  reads  stale  stale ms p50   p90   p99   max  versions max  arrived ms
//!   n1        1756    122             0     0   625  1734            54          19
//! ```
//! Read from the checker's stats, whose schema `docs/results.md` describes; nothing if the checker did not judge.

use super::{chart, ms, text};
use crate::judge::Results;
use maud::{Markup, html};
use serde_json::{Map, Value as Json};

const HEADER: [&str; 9] =
    ["replica", "reads", "stale", "stale ms p50", "p90", "p99", "max", "versions max", "arrived ms"];

fn stats(r: &Results) -> Option<&Map<String, Json>> {
    r.checkers.get("convergence").map(|v| &v.stats).filter(|stats| stats.contains_key("replicas"))
}

fn list<'a>(of: &'a Json, field: &str) -> &'a [Json] {
    of[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A time in milliseconds, or a dash.
fn time(ns: &Json) -> String {
    match ns.as_u64() {
        Some(0) => "0".to_owned(),
        Some(ns) => ms(ns),
        None => "-".to_owned(),
    }
}

/// One row for each replica, under [`HEADER`].
fn rows(stats: &Map<String, Json>) -> Vec<Vec<String>> {
    let replicas = stats["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |replica: &Json| {
        let t = |field: &str| time(&replica["t_ns"][field]);
        let versions = replica["k"]["max"].as_u64().map_or("-".to_owned(), |k| k.to_string());
        vec![
            replica["node"].as_str().unwrap_or_default().to_owned(),
            replica["reads"].to_string(),
            replica["stale"].to_string(),
            t("p50"),
            t("p90"),
            t("p99"),
            t("max"),
            versions,
            time(&replica["arrived"]["at_most_ns"]),
        ]
    };
    replicas.iter().map(row).collect()
}

/// When all had come together, in words; the last word on it if they did not is the verdict.
fn together(stats: &Map<String, Json>) -> Option<String> {
    let converged = stats.get("converged")?;
    let (at_least, at_most) = (converged["at_least_ns"].as_u64()?, converged["at_most_ns"].as_u64()?);
    Some(format!(
        "all replicas had converged {} to {} ms after faults were healed and writing had stopped",
        time(&at_least.into()),
        time(&at_most.into())
    ))
}

/// The table for a terminal, or nothing.
pub(super) fn text(r: &Results) -> String {
    let Some(stats) = stats(r) else { return String::new() };
    let together = together(stats).map(|words| format!("  {words}\n")).unwrap_or_default();
    format!("\n{}{together}", text::table(&HEADER, &rows(stats), HEADER.len() - 1))
}

/// The section of the page, or nothing.
pub(super) fn html(r: &Results) -> Markup {
    let Some(stats) = stats(r) else { return html! {} };
    let over_time = &stats["divergent_keys"];
    let keys: Vec<u64> = list(over_time, "keys").iter().filter_map(Json::as_u64).collect();
    let bucket_ns = over_time["bucket_ns"].as_u64().unwrap_or(1).max(1);
    html! {
        section {
            h2 { "Replicas" }
            @if let Some(words) = together(stats) { p { "In the end, " (words) "." } }
            h3 { "Divergent keys over time" }
            p { "Keys of which two replicas certainly held different values at one moment, in buckets of "
                (ms(bucket_ns)) " ms. Bands are faults in force." }
            (chart::divergent_keys(&keys, bucket_ns, &r.record))
            h3 { "Lag of each replica" }
            p { "A read is stale if what it found had certainly been overwritten by an acknowledged write before it was called. "
                "Arrived: when a replica was first seen to hold what it held in the end, after everything was quiet." }
            table {
                tr { @for title in HEADER { th { (title) } } }
                @for row in rows(stats) {
                    tr { @for (i, cell) in row.iter().enumerate() { td.n[i > 0] { (cell) } } }
                }
            }
            h3 { "Staleness of reads" }
            (histogram("in time", &stats["staleness"]["t_ns"], |up_to| format!("{} ms", time(up_to))))
            (histogram("in versions", &stats["staleness"]["k"], Json::to_string))
        }
    }
}

/// A histogram as a table whose cells are bars.
fn histogram(name: &str, distribution: &Json, label: impl Fn(&Json) -> String) -> Markup {
    let buckets = list(distribution, "histogram");
    let all = distribution["count"].as_u64().unwrap_or(0).max(1) as f64;
    let share = |bucket: &Json| bucket["count"].as_u64().unwrap_or(0) as f64 / all;
    html! {
        table {
            tr { th { (name) ", up to" } th { "reads" } th { "share" } th {} }
            @for bucket in buckets {
                tr {
                    td.n { (label(&bucket["up_to"])) } td.n { (bucket["count"]) }
                    td.n { (format!("{:.1} %", share(bucket) * 100.0)) }
                    td { svg width="300" height="10" role="img" aria-label=(name) {
                        rect width=(format!("{:.1}", share(bucket) * 300.0)) height="10" fill="#0969da" {}
                    } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::report::sample;

    #[test]
    fn replicas_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let results = sample::replicas(folder.path());
        let page = super::html(&results).into_string().replace('>', ">\n");
        insta::assert_snapshot!(format!("{}\n{page}", super::text(&results)));
    }

    #[test]
    fn nothing_is_said_where_nobody_looked_at_replicas() {
        let folder = tempfile::tempdir().unwrap();
        let (results, ..) = sample::run(folder.path());
        assert_eq!(super::text(&results) + &super::html(&results).into_string(), "");
    }
}
