//! `latency`: whether operations are as fast as was demanded.
//!
//! ```text
//! {operation: read, path: lease-read, p99: 5ms, max: 50ms}
//! ```
//!
//! On top of [`performance`](crate::performance), which measures; here it is only compared. Response time from the intended start by default, so
//! that a system which stalls cannot hide it. Deliberately about the load alone: warm-up and final reads are left out.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Span, checker};
use crate::{
    Checker, OpOutcome, Operation,
    performance::{self, Latency, Performance, Series},
};

pub(super) const NAME: &str = "latency";

/// What is demanded of latencies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LatencyObjectives(pub Vec<LatencyObjective>);

/// Bounds for the operations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LatencyObjective {
    /// Of which function, `read` or `write`; of all if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Of which path, `lease-read` or `1-rtt`; of all if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// From when it is measured.
    pub from: From,
    /// Half must be at least this fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<Span>,
    /// 90 % must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90: Option<Span>,
    /// 99 % must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<Span>,
    /// 99.9 % must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999: Option<Span>,
    /// All must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
}

/// From when a latency is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// From when the operation was due: what a user waits.
    #[default]
    Intended,
    /// From when it was sent: what the system takes.
    Call,
}

impl LatencyObjective {
    /// Whose latencies, in words.
    fn whose(&self) -> String {
        match (&self.operation, &self.path) {
            (Some(f), Some(path)) => format!("{f} by {path}"),
            (Some(f), None) => f.clone(),
            (None, Some(path)) => format!("operations by {path}"),
            (None, None) => "all operations".to_owned(),
        }
    }

    fn covers(&self, operation: &Operation) -> bool {
        self.operation.as_ref().is_none_or(|f| f == operation.op.f())
            && self.path.as_ref().is_none_or(|path| Some(&**path) == operation.meta.path.as_deref())
    }

    fn series<'a>(&self, all: &'a Performance) -> Option<&'a Series> {
        let list = match (&self.operation, &self.path) {
            (None, None) => return Some(&all.total),
            (Some(_), None) => &all.by_f,
            (None, Some(_)) => &all.by_path,
            (Some(_), Some(_)) => &all.by_f_path,
        };
        list.iter().find(|series| series.f == self.operation && series.path == self.path)
    }

    fn bounds(&self, latency: &Latency) -> Vec<(&'static str, Span, u64)> {
        let all = [
            ("p50", self.p50, latency.p50_ns),
            ("p90", self.p90, latency.p90_ns),
            ("p99", self.p99, latency.p99_ns),
            ("p99.9", self.p999, latency.p999_ns),
            ("max", self.max, latency.max_ns),
        ];
        all.into_iter().filter_map(|(name, limit, was)| Some((name, limit?, was))).collect()
    }

    /// How long an operation took, if it succeeded.
    fn took(&self, operation: &Operation) -> Option<u64> {
        let (OpOutcome::Ok(_), Some(ret)) = (&operation.outcome, operation.ret) else { return None };
        let due = operation.meta.intended.unwrap_or(operation.call).min(operation.call);
        Some(ret - if self.from == From::Call { operation.call } else { due })
    }
}

/// How many of the slowest operations are told as evidence.
const SLOWEST: usize = 3;

/// Compares. Unknown if nothing succeeded of what something is demanded of. Percentiles are those of a histogram with three
/// digits; one that exceeds a bound by less than that is not held against anybody.
pub fn latency(objectives: LatencyObjectives) -> impl Checker {
    checker(NAME, move |operations, findings| {
        let load: Vec<Operation> =
            operations.iter().filter(|operation| operation.meta.phase.is_none()).collect();
        let all = performance::analyse(&load);
        for series in all.by_f_path.iter().chain([&all.total]).filter(|series| series.ok > 0) {
            let name = match (&series.f, &series.path) {
                (Some(f), Some(path)) => format!("{f} {path}"),
                (f, path) => f.clone().or(path.clone()).unwrap_or_else(|| "all".to_owned()),
            };
            let told = |latency: &Latency| {
                json!({
                    "count": latency.count, "p50_ns": latency.p50_ns, "p90_ns": latency.p90_ns, "p99_ns": latency.p99_ns,
                    "p999_ns": latency.p999_ns, "max_ns": latency.max_ns,
                })
            };
            findings
                .stat(&name, json!({"response": told(&series.response), "service": told(&series.service)}));
        }
        if all.total.ok == 0 {
            findings.doubt("nothing succeeded");
        }
        for objective in &objectives.0 {
            let whose = objective.whose();
            let Some(series) = objective.series(&all).filter(|series| series.ok > 0) else {
                findings.doubt(format!("of {whose} nothing succeeded"));
                continue;
            };
            let latency = if objective.from == From::Call { &series.service } else { &series.response };
            for (name, limit, was) in objective.bounds(latency) {
                // What the histogram may add.
                let least = if name == "max" { was } else { was - was / 1000 };
                if least <= limit.0 {
                    continue;
                }
                let covered = load.iter().filter(|operation| objective.covers(operation));
                let mut slowest: Vec<(u64, usize)> = covered
                    .filter_map(|operation| Some((objective.took(operation)?, operation.id)))
                    .collect();
                slowest.sort_unstable_by(|a, b| b.cmp(a));
                slowest.truncate(SLOWEST);
                findings.guilty(
                    "too-slow",
                    slowest.into_iter().map(|(_, id)| id).collect(),
                    format!("{name} of {whose} was {}, over {} of them; {limit} was demanded", Span(was), latency.count),
                    json!({"of": whose, "quantile": name, "ns": was, "limit_ns": limit.0, "count": latency.count}),
                );
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::{Budget, Op, ReadMode, Ret, Validity::*, Value};

    fn reads(took: &[u64]) -> crate::History {
        let rows: Vec<_> = took
            .iter()
            .zip(0..)
            .map(|(took, process)| {
                let op = Op::Read { key: Value::Nil, mode: ReadMode::Default };
                (process, 10, 10 + took, op, Some(Ret::Value(Value::Nil)))
            })
            .collect();
        history(&rows)
    }

    fn demand(text: &str) -> LatencyObjectives {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn bounds_are_compared_with_what_was_measured() {
        let history = reads(&[1_000_000, 2_000_000, 3_000_000, 50_000_000]);
        for (text, fine) in [
            (r#"[]"#, true),
            (r#"[{"operation": "read", "p50": "2ms"}]"#, true),
            (r#"[{"operation": "read", "p50": "1.9ms"}]"#, false),
            (r#"[{"max": "50ms"}]"#, true),
            (r#"[{"max": "49ms", "from": "call"}]"#, false),
            (r#"[{"p99": "50ms", "p999": "50ms"}]"#, true),
        ] {
            let verdict = latency(demand(text)).check(&history, &Budget::unlimited());
            assert_eq!(verdict.validity, if fine { Valid } else { Invalid }, "{text}: {verdict:?}");
        }
        let verdict = latency(demand(r#"[{"max": "10ms"}]"#)).check(&history, &Budget::unlimited());
        // The slowest first.
        assert_eq!(verdict.anomalies[0].operations, [3, 2, 1]);
        assert_eq!(check(&latency(demand(r#"[{"path": "1-rtt", "max": "1s"}]"#)), &history).0, Unknown);
        assert_eq!(check(&latency(demand("[]")), &reads(&[])).0, Unknown);
        assert!(serde_json::from_str::<LatencyObjectives>(r#"[{"p98": "1s"}]"#).is_err());
    }

    /// Percentiles by sorting.
    #[test]
    fn agrees_with_sorting() {
        use rand::{RngExt, SeedableRng};
        let mut both = [0; 2];
        for seed in 0..1000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut took: Vec<u64> =
                (0..rng.random_range(1..40)).map(|_| rng.random_range(1..100_000)).collect();
            let history = reads(&took);
            took.sort_unstable();
            let p90 = took[(took.len() * 9).div_ceil(10) - 1];
            let limit = rng.random_range(1..100_000);
            // Too near to tell with three digits.
            if p90.abs_diff(limit) <= p90 / 500 {
                continue;
            }
            let objective = LatencyObjective { p90: Some(Span(limit)), ..Default::default() };
            let (validity, _) = check(&latency(LatencyObjectives(vec![objective])), &history);
            assert_eq!(validity, if p90 > limit { Invalid } else { Valid }, "seed {seed}");
            both[usize::from(p90 > limit)] += 1;
        }
        assert!(both[0] > 100 && both[1] > 100, "{both:?}");
    }
}
