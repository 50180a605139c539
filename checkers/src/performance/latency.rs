//! One distribution of latencies: percentiles for tables, a curve for charts, the histogram itself for `.hgrm` files.
//!
//! ```text
//! count 1000   p50 1.2 ms   p90 2.0 ms   p99 8.4 ms   p99.9 31 ms   max 44 ms
//! ```
//!
//! All in nanoseconds. Deliberately no mean without the rest: a mean alone hides everything that matters.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

/// A distribution. Percentiles are those of a histogram with three digits: at most 0.1 % above the truth.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// How many were measured. With 0 all the others are 0 as well.
    pub count: u64,
    /// The smallest, in ns; exact.
    pub min_ns: u64,
    /// The mean, in ns.
    pub mean_ns: f64,
    /// Half took at most this long, in ns.
    pub p50_ns: u64,
    /// 90 % took at most this long, in ns.
    pub p90_ns: u64,
    /// 99 % took at most this long, in ns.
    pub p99_ns: u64,
    /// 99.9 % took at most this long, in ns.
    pub p999_ns: u64,
    /// The largest, in ns; exact.
    pub max_ns: u64,
    /// The curve, for charts: from the smallest to the largest, denser towards the end.
    pub curve: Vec<Quantile>,
    /// All of it. Not in JSON.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// Between 0 and 1.
    pub quantile: f64,
    /// This share took at most so long, in ns.
    pub ns: u64,
}

/// Where the curve is sampled.
const CURVE: [f64; 22] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.995, 0.999,
    0.9995, 0.9999, 0.99999, 1.0,
];

impl Latency {
    /// Writes the distribution as HdrHistogram's own tools do (`.hgrm`), in milliseconds, for its plotter.
    ///
    /// # Errors
    /// What `w` reports.
    pub fn write_hgrm<W: Write>(&self, mut w: W) -> io::Result<()> {
        const MS: f64 = 1e6;
        writeln!(
            w,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        let mut total = 0;
        for step in self.histogram.iter_quantiles(5) {
            total += step.count_since_last_iteration();
            let (value, quantile) = (step.value_iterated_to() as f64 / MS, step.quantile_iterated_to());
            if quantile < 1.0 {
                writeln!(w, "{value:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))?;
            } else {
                writeln!(w, "{value:12.3} {quantile:2.12} {total:10}")?;
            }
        }
        let (mean, deviation) = (self.histogram.mean() / MS, self.histogram.stdev() / MS);
        writeln!(w, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
        writeln!(w, "#[Max     = {:12.3}, Total count    = {:12}]", self.max_ns as f64 / MS, self.count)?;
        writeln!(
            w,
            "#[Buckets = {:12}, SubBuckets     = {:12}]",
            self.histogram.buckets(),
            1 << (f64::from(self.histogram.sigfig()) * 10f64.log2() + 1.0).ceil() as u32
        )
    }
}

/// Of nanoseconds, in any order.
impl FromIterator<u64> for Latency {
    fn from_iter<T: IntoIterator<Item = u64>>(all: T) -> Self {
        let mut recorder = Recorder::default();
        all.into_iter().for_each(|ns| recorder.record(ns));
        recorder.finish()
    }
}

/// Takes latencies in.
pub(super) struct Recorder {
    histogram: Histogram<u64>,
    min_ns: u64,
    max_ns: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        // Three digits are within the bounds of the library, and the range grows by itself.
        let histogram = Histogram::new(3).expect("three digits are allowed");
        Recorder { histogram, min_ns: u64::MAX, max_ns: 0 }
    }
}

impl Recorder {
    pub(super) fn record(&mut self, ns: u64) {
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
        if self.histogram.record(ns).is_err() {
            self.histogram.saturating_record(ns);
        }
    }

    pub(super) fn finish(self) -> Latency {
        let Recorder { histogram, min_ns, max_ns } = self;
        let min_ns = min_ns.min(max_ns);
        let at = |quantile: f64| histogram.value_at_quantile(quantile).clamp(min_ns, max_ns);
        let curve = if histogram.is_empty() {
            Vec::new()
        } else {
            CURVE.iter().map(|&quantile| Quantile { quantile, ns: at(quantile) }).collect()
        };
        Latency {
            count: histogram.len(),
            min_ns,
            mean_ns: histogram.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns,
            curve,
            histogram,
        }
    }

    pub(super) fn finish_if_any(self) -> Option<Latency> {
        (!self.histogram.is_empty()).then(|| self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut recorder = Recorder::default();
        for ns in (1..=1000).rev() {
            recorder.record(ns * 1000);
        }
        let latency = recorder.finish();
        for (measured, exact) in [
            (latency.p50_ns, 500_000),
            (latency.p90_ns, 900_000),
            (latency.p99_ns, 990_000),
            (latency.p999_ns, 999_000),
        ] {
            assert!(measured >= exact && measured <= exact + exact / 1000 + 1, "{measured} for {exact}");
        }
        assert_eq!((latency.count, latency.max_ns), (1000, 1_000_000));
        assert!(latency.curve.is_sorted_by_key(|point| point.ns));
        assert_eq!(latency.curve.last(), Some(&Quantile { quantile: 1.0, ns: 1_000_000 }));
    }

    #[test]
    fn hgrm_ends_with_everything() {
        let mut recorder = Recorder::default();
        (1..=4).for_each(|ms| recorder.record(ms * 1_000_000));
        let mut file = Vec::new();
        recorder.finish().write_hgrm(&mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert_eq!(words(lines[0]), ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        assert_eq!(words(lines[2])[1..], ["0.000000000000", "1", "1.00"]);
        assert!(lines.iter().any(|line| line.contains("1.000000000000          4")), "{text}");
        assert!(text.contains("Max     =        4.000, Total count    =            4"), "{text}");
    }

    #[test]
    fn a_latency_beyond_all_reason_is_kept() {
        let mut recorder = Recorder::default();
        recorder.record(u64::MAX);
        assert_eq!(recorder.finish().max_ns, u64::MAX);
    }
}
