//! The faces of a run's results: text for the terminal, one self-contained HTML page, JUnit for CI, histograms.
//!
//! ```text
//! Results ─┬─ text::render     stdout
//!          ├─ html::render     report.html
//!          ├─ junit::render    junit.xml
//!          └─ latency-*.hgrm   HdrHistogram's percentile format
//! ```
//! Drawing comes after the verdict is saved and cannot change it.

mod chart;
pub mod html;
pub mod junit;
pub mod text;
mod timeline;

use crate::{judge::Results, plan::TestPlan, store::Store};
use anyhow::Result;

/// Writes every face but the text into the run's folder. Returns what could not be drawn.
pub fn draw(results: &Results, plan: &TestPlan, store: &Store) -> Vec<String> {
    let faces: [(&str, Result<()>); 3] = [
        ("report.html", html::render(results, plan, store).and_then(|page| store.write("report.html", page))),
        ("junit.xml", junit::render(results).and_then(|xml| store.write("junit.xml", xml))),
        ("latency histograms", histograms(results, store)),
    ];
    faces
        .into_iter()
        .filter_map(|(name, drawn)| drawn.err().map(|e| format!("{name} was not drawn: {e:#}")))
        .collect()
}

/// One file for each path and each operation, in the format that HdrHistogram's plotter reads, in milliseconds.
fn histograms(results: &Results, store: &Store) -> Result<()> {
    let p = &results.performance;
    for series in p.by_f.iter().chain(&p.by_path) {
        let name = series.path.as_ref().or(series.f.as_ref());
        let Some(name) = name.filter(|_| series.ok > 0) else { continue };
        let plain: String =
            name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let mut text = Vec::new();
        series.response.write_hgrm(&mut text)?;
        store.write(&format!("latency-{plain}.hgrm"), text)?;
    }
    Ok(())
}

/// Nanoseconds as milliseconds with three significant digits or so: `0.123`, `4.56`, `789`.
pub(crate) fn ms(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ms {
        x if x < 1.0 => format!("{x:.3}"),
        x if x < 10.0 => format!("{x:.2}"),
        x if x < 100.0 => format!("{x:.1}"),
        x => format!("{x:.0}"),
    }
}
