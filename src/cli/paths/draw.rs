//! The figures as files: one SVG with the histograms of both protocols over the same axis, and each distribution as HdrHistogram's
//! plotter reads it.
//!
//! ```text
//! paths.svg   ▁▂█▁            multi-paxos, a line at 2d
//!                     ▁▂█▁▁   basic-paxos, a line at 4d
//! ```

use super::measure::Measured;
use super::show::at;
use crate::{scenario::Protocol, store::Store};
use anyhow::Result;
use checkers::performance::Latency;
use maud::{Markup, html};

const W: f64 = 900.0;
const PANEL: f64 = 150.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 20.0;
const AXIS: f64 = 34.0;
const BUCKETS: usize = 120;
const COLOURS: [&str; 2] = ["#0969da", "#bc4c00"];

/// Writes one distribution of nanoseconds.
pub(super) fn hgrm(store: &Store, name: &str, values: Vec<u64>) -> Result<()> {
    let mut text = Vec::new();
    values.into_iter().collect::<Latency>().write_hgrm(&mut text)?;
    store.write(&format!("{name}.hgrm"), text)
}

/// Commit times at the proposer, a panel for each protocol. What is beyond the axis is counted in the last bar.
pub(super) fn svg(all: &[(Protocol, Measured)]) -> Markup {
    let of =
        |m: &Measured| m.views().into_iter().find(|(v, _)| *v == "at the proposer").map_or(vec![], |v| v.1);
    let panels: Vec<(Protocol, f64, Vec<u64>)> =
        all.iter().map(|(protocol, m)| (*protocol, m.delay_ns as f64, of(m))).collect();
    let widest = panels.iter().filter_map(|(.., values)| at(values, 0.99)).max().unwrap_or(1).max(1) as f64;
    let farthest = panels.iter().map(|(_, d, _)| 4.5 * d).fold(widest * 1.1, f64::max);
    let x = |ns: f64| LEFT + (ns / farthest).min(1.0) * (W - LEFT - RIGHT);
    let height = PANEL * panels.len() as f64 + AXIS;
    let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
    let step = step.into_iter().find(|s| farthest / 1e6 / s <= 12.0).unwrap_or(1000.0);
    let ticks = (0..=(farthest / 1e6 / step) as usize).map(|i| i as f64 * step);
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {W} {height}")) font-family="sans-serif"
            font-size="12" role="img" aria-label="commit time at the proposer" {
            rect width=(W) height=(height) fill="#ffffff" {}
            @for (i, (protocol, d, values)) in panels.iter().enumerate() {
                @let base = PANEL * (i + 1) as f64;
                @let colour = COLOURS[i % COLOURS.len()];
                text x="8" y=(base - PANEL / 2.0) { (protocol) }
                text x="8" y=(base - PANEL / 2.0 + 16.0) fill="#57606a" {
                    "p50 " (at(values, 0.5).map_or("-".to_owned(), crate::report::ms)) " ms"
                }
                (bars(values, farthest, base, colour))
                @let trips = if *protocol == Protocol::MultiPaxos { 2.0 } else { 4.0 };
                line x1=(px(x(trips * d))) x2=(px(x(trips * d))) y1=(base - PANEL + 8.0) y2=(base) stroke="#57606a"
                    stroke-dasharray="4 3" {}
                text x=(px(x(trips * d) - 4.0)) y=(base - PANEL + 18.0) text-anchor="end" fill="#57606a" { (trips) "d" }
                line x1=(LEFT) x2=(W - RIGHT) y1=(base) y2=(base) stroke="#8c959f" {}
            }
            @for t in ticks { text x=(px(x(t * 1e6))) y=(height - 14.0) text-anchor="middle" { (format!("{t}")) " ms" } }
        }
    }
}

fn bars(values: &[u64], farthest: f64, base: f64, colour: &str) -> Markup {
    let mut counts = [0u32; BUCKETS];
    for value in values {
        counts[((*value as f64 / farthest * BUCKETS as f64) as usize).min(BUCKETS - 1)] += 1;
    }
    let most = f64::from(counts.into_iter().max().unwrap_or(0).max(1));
    let width = (W - LEFT - RIGHT) / BUCKETS as f64;
    html! {
        @for (b, n) in counts.into_iter().enumerate().filter(|(_, n)| *n > 0) {
            @let tall = f64::from(n) / most * (PANEL - 26.0);
            rect x=(px(LEFT + b as f64 * width)) y=(px(base - tall)) width=(px(width - 0.5)) height=(px(tall)) fill=(colour) {
                title { (n) " of " (values.len()) }
            }
        }
    }
}

fn px(x: f64) -> String {
    format!("{x:.1}")
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::measured;
    use super::*;

    #[test]
    fn every_commit_is_in_a_bar_and_the_bounds_are_drawn() {
        let all = [
            (Protocol::MultiPaxos, measured(&[20, 21, 21, 2000], false, &["accept"])),
            (Protocol::BasicPaxos, measured(&[41, 42], false, &["accept"])),
        ];
        let drawn = svg(&all).into_string();
        let bar = |n: usize, of: usize| drawn.matches(&format!("<title>{n} of {of}</title>")).count();
        assert_eq!(bar(1, 4) + 2 * bar(2, 4) + 3 * bar(3, 4), 4, "{drawn}");
        assert_eq!(bar(1, 2) + 2 * bar(2, 2), 2, "{drawn}");
        assert!(drawn.contains(">2d<") && drawn.contains(">4d<"), "{drawn}");
    }
}
