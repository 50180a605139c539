//! Many numbers as a few: percentiles and a histogram whose buckets double.
//!
//! ```text
//! {"count":40,"p50":0,"p90":3,"p99":9,"max":9,"histogram":[{"up_to":0,"count":30},{"up_to":1,"count":4},…]}
//! ```

use serde_json::{Value as Json, json};

/// The buckets of the histogram end at 0, `unit`, twice, four times, … as far as is needed.
pub(super) fn distribution(mut values: Vec<u64>, unit: u64) -> Json {
    values.sort_unstable();
    let mut histogram = Vec::new();
    let (mut below, mut up_to) = (0, 0_u64);
    while below < values.len() {
        let here = values.partition_point(|value| *value <= up_to);
        histogram.push(json!({"up_to": up_to, "count": here - below}));
        below = here;
        up_to = if up_to == 0 { unit } else { up_to.saturating_mul(2) };
    }
    let mut out = percentiles(&values);
    out["histogram"] = histogram.into();
    out
}

/// The same without the histogram. Of none every percentile is `null`. By nearest rank; sorted values.
pub(super) fn percentiles(sorted: &[u64]) -> Json {
    let at = |share: usize| sorted.get((sorted.len() * share).div_ceil(100).saturating_sub(1));
    json!({"count": sorted.len(), "p50": at(50), "p90": at(90), "p99": at(99), "max": sorted.last()})
}
