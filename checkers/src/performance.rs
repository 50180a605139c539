//! How fast it was: latency by operation and by path, and over time.
//!
//! ```text
//!     due        sent                      answered
//!      |--------->|--------------------------->|
//!      |          |<---------- service ------->|       what the system took
//!      |<---------------- response ----------->|       what a user waited: without coordinated omission
//!                     |<- commit ->|                   what the proposer took, by its own clock
//! ```
//!
//! Only operations that succeeded have a latency; the others are counted. Response latency is measured from the intended
//! start where there is one (Tene's *coordinated omission*, as wrk2 does), else from the call. Histograms keep three
//! digits. Deliberately no verdict, and no choice of what belongs to the load: the caller passes the operations.

mod latency;
mod over_time;

use std::collections::BTreeMap;

use serde::Serialize;

use self::{latency::Recorder, over_time::Seconds};
pub use self::{
    latency::{Latency, Quantile},
    over_time::Second,
};
use crate::{OpOutcome, Operation};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Performance {
    /// From the first arrival to the last completion, in ns.
    pub span_ns: u64,
    /// Everything together.
    pub total: Series,
    /// By function: `read`, `write`, …, by name.
    pub by_f: Vec<Series>,
    /// By path (`1-rtt`, `lease-read`, …), by name; operations that report no path are not in it.
    pub by_path: Vec<Series>,
    /// By function and path; operations that report no path have the path `None`.
    pub by_f_path: Vec<Series>,
}

/// The operations of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Their function, if they have one in common.
    pub f: Option<String>,
    /// Their path, if they have one in common.
    pub path: Option<String>,
    /// How many succeeded.
    pub ok: u64,
    /// How many definitely failed.
    pub fail: u64,
    /// How many have an unknown outcome.
    pub info: u64,
    /// Successes a second, over the whole span; 0 if there is none.
    pub ok_per_second: f64,
    /// Completion minus intended start.
    pub response: Latency,
    /// Completion minus call.
    pub service: Latency,
    /// Commit time as the proposer saw it, where it is reported.
    pub commit: Option<Latency>,
    /// Second by second; only in `total` and `by_f`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub over_time: Vec<Second>,
}

/// Measures `operations`.
pub fn analyse(operations: &[Operation]) -> Performance {
    let mut total = Collector::with_seconds();
    let mut by_f: BTreeMap<&str, Collector> = BTreeMap::new();
    let mut by_path: BTreeMap<&str, Collector> = BTreeMap::new();
    let mut by_f_path: BTreeMap<(&str, Option<&str>), Collector> = BTreeMap::new();
    let (mut first, mut last) = (u64::MAX, 0);
    for operation in operations {
        let (f, path) = (operation.op.f(), operation.meta.path.as_deref());
        first = first.min(arrival(operation));
        last = last.max(operation.ret.unwrap_or(operation.call));
        total.add(operation);
        by_f.entry(f).or_insert_with(Collector::with_seconds).add(operation);
        by_f_path.entry((f, path)).or_default().add(operation);
        if let Some(path) = path {
            by_path.entry(path).or_default().add(operation);
        }
    }
    let span_ns = last.saturating_sub(first);
    Performance {
        span_ns,
        total: total.finish(None, None, span_ns),
        by_f: by_f.into_iter().map(|(f, series)| series.finish(Some(f), None, span_ns)).collect(),
        by_path: by_path.into_iter().map(|(path, series)| series.finish(None, Some(path), span_ns)).collect(),
        by_f_path: by_f_path
            .into_iter()
            .map(|((f, path), series)| series.finish(Some(f), path, span_ns))
            .collect(),
    }
}

/// When it was due.
fn arrival(operation: &Operation) -> u64 {
    // Nobody can be late for what is still to come: a call before its intended time counts from the call.
    operation.meta.intended.map_or(operation.call, |intended| intended.min(operation.call))
}

#[derive(Default)]
struct Collector {
    ok: u64,
    fail: u64,
    info: u64,
    response: Recorder,
    service: Recorder,
    commit: Recorder,
    seconds: Option<Seconds>,
}

impl Collector {
    fn with_seconds() -> Self {
        Collector { seconds: Some(Seconds::default()), ..Collector::default() }
    }

    fn add(&mut self, operation: &Operation) {
        let arrival = arrival(operation);
        let response = match (&operation.outcome, operation.ret) {
            (OpOutcome::Ok(_), Some(ret)) => {
                self.ok += 1;
                self.service.record(ret.saturating_sub(operation.call));
                if let Some(commit) = operation.meta.commit_ns {
                    self.commit.record(commit);
                }
                let response = ret.saturating_sub(arrival);
                self.response.record(response);
                Some(response)
            }
            (OpOutcome::Fail, _) => {
                self.fail += 1;
                None
            }
            _ => {
                self.info += 1;
                None
            }
        };
        if let Some(seconds) = &mut self.seconds {
            seconds.add(arrival, &operation.outcome, response);
        }
    }

    fn finish(self, f: Option<&str>, path: Option<&str>, span_ns: u64) -> Series {
        Series {
            f: f.map(String::from),
            path: path.map(String::from),
            ok: self.ok,
            fail: self.fail,
            info: self.info,
            ok_per_second: if span_ns == 0 { 0.0 } else { self.ok as f64 * 1e9 / span_ns as f64 },
            response: self.response.finish(),
            service: self.service.finish(),
            commit: self.commit.finish_if_any(),
            over_time: self.seconds.map_or_else(Vec::new, Seconds::finish),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Meta, Op, ReadMode, Ret, Value};

    fn operation(id: usize, call: u64, ret: Option<u64>, outcome: OpOutcome, meta: Meta) -> Operation {
        let op = if id.is_multiple_of(2) {
            Op::Read { key: Value::Nil, mode: ReadMode::Default }
        } else {
            Op::Write { key: Value::Nil, value: 1.into() }
        };
        Operation { id, process: 0, op, outcome, call, ret, call_index: 0, ret_index: None, meta }
    }

    fn ok() -> OpOutcome {
        OpOutcome::Ok(Ret::Done)
    }

    #[test]
    fn response_counts_from_when_it_was_due() {
        let ms = 1_000_000;
        // A stall of 100 ms: the second write was due at once but could not be sent before the first had ended.
        let late = Meta { intended: Some(ms), ..Meta::default() };
        let found = analyse(&[
            operation(1, 0, Some(100 * ms), ok(), Meta::default()),
            operation(3, 100 * ms, Some(101 * ms), ok(), late),
        ]);
        let writes = &found.by_f[0];
        assert_eq!((writes.f.as_deref(), writes.ok), (Some("write"), 2));
        assert_eq!((writes.service.min_ns, writes.response.min_ns), (ms, 100 * ms));
        assert_eq!(found.span_ns, 101 * ms);
        assert!((found.total.ok_per_second - 2000.0 / 101.0).abs() < 1e-9);
    }

    #[test]
    fn by_function_and_path() {
        let path = |path: &str, commit_ns| Meta { path: Some(path.into()), commit_ns, ..Meta::default() };
        let found = analyse(&[
            operation(0, 0, Some(10), ok(), path("lease-read", None)),
            operation(1, 0, Some(20), ok(), path("1-rtt", Some(5))),
            operation(3, 0, Some(40), ok(), path("2-rtt", Some(7))),
            operation(5, 0, Some(60), OpOutcome::Fail, Meta::default()),
            operation(7, 0, None, OpOutcome::Info, Meta::default()),
        ]);
        let names = |series: &[Series]| -> Vec<_> {
            series
                .iter()
                .map(|s| (s.f.clone().unwrap_or_default(), s.path.clone(), s.ok, s.fail, s.info))
                .collect()
        };
        let some = |path: &str| Some(path.to_string());
        assert_eq!(names(&found.by_f), [("read".into(), None, 1, 0, 0), ("write".into(), None, 2, 1, 1)]);
        assert_eq!(
            names(&found.by_path),
            [
                (String::new(), some("1-rtt"), 1, 0, 0),
                (String::new(), some("2-rtt"), 1, 0, 0),
                (String::new(), some("lease-read"), 1, 0, 0)
            ]
        );
        assert_eq!(
            names(&found.by_f_path),
            [
                ("read".into(), some("lease-read"), 1, 0, 0),
                ("write".into(), None, 0, 1, 1),
                ("write".into(), some("1-rtt"), 1, 0, 0),
                ("write".into(), some("2-rtt"), 1, 0, 0)
            ]
        );
        assert_eq!(found.by_f[1].commit.as_ref().map(|commit| (commit.count, commit.max_ns)), Some((2, 7)));
        assert!(found.by_f[0].commit.is_none());
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["by_f"][1]["response"]["p50_ns"], 20);
        assert_eq!(json["by_f"][1]["over_time"][0]["ok"], 2);
    }

    #[test]
    fn nothing_measures_as_nothing() {
        let found = analyse(&[]);
        assert_eq!((found.span_ns, found.total.ok, found.total.response.count), (0, 0, 0));
        assert!(found.by_f.is_empty() && found.total.over_time.is_empty());
    }
}
