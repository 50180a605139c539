//! Whether a run met its objectives: judged from what the checkers found.
//!
//! ```text
//! converge-within 5s     converged between 1.2 s and 1.3 s   met
//!                        converged between 5.2 s and 5.3 s   missed: Invalid
//!                        converged between 4.9 s and 5.1 s   nobody knows
//!                        not converged                       says the verdict on convergence; nothing to add
//! ```
//! Availability and latencies have checkers of their own, which are told what is demanded.

use crate::scenario::Objectives;
use checkers::{Anomaly, Validity, Verdict};
use nemesis::Span;
use serde_json::json;
use std::collections::BTreeMap;

/// The name of the verdict.
pub const NAME: &str = "objectives";

/// All objectives as one verdict; `None` if nothing was demanded, or of what was demanded others have said that it failed.
pub fn objectives(wanted: &Objectives, verdicts: &BTreeMap<String, Verdict>) -> Option<Verdict> {
    let all: Vec<Verdict> = [converge_within(wanted, verdicts)].into_iter().flatten().collect();
    if all.is_empty() {
        return None;
    }
    let mut merged = Verdict::valid(NAME);
    merged.validity = Validity::merge(all.iter().map(|v| v.validity));
    let reasons: Vec<String> = all.iter().filter_map(|v| v.reason.clone()).collect();
    merged.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    for one in all {
        merged.anomalies.extend(one.anomalies);
        merged.stats.extend(one.stats);
    }
    Some(merged)
}

fn converge_within(wanted: &Objectives, verdicts: &BTreeMap<String, Verdict>) -> Option<Verdict> {
    let limit = wanted.converge_within?;
    let converged = &verdicts.get("convergence")?.stats.get("converged")?;
    let ns = |field: &str| converged.get(field).and_then(serde_json::Value::as_u64);
    // Not converged: there is no time, and the verdict on convergence stands.
    let (at_least, at_most) = (ns("at_least_ns")?, ns("at_most_ns")?);
    let span = |ns: u64| Span(std::time::Duration::from_nanos(ns));
    let mut verdict = Verdict::valid(NAME);
    verdict.stats.insert(
        "converge-within".to_owned(),
        json!({"limit_ns": limit.ns(), "at_least_ns": at_least, "at_most_ns": at_most}),
    );
    if at_least > limit.ns() {
        let reason =
            format!("replicas converged after more than {}; `converge-within` is {limit}", span(at_least));
        verdict.validity = Validity::Invalid;
        verdict.anomalies.push(Anomaly {
            name: "converge-within".to_owned(),
            message: reason.clone(),
            operations: vec![],
            details: json!({"limit_ns": limit.ns(), "at_least_ns": at_least, "at_most_ns": at_most}),
            picture: None,
        });
        verdict.reason = Some(reason);
    } else if at_most > limit.ns() {
        verdict.validity = Validity::Unknown;
        verdict.reason = Some(format!(
            "replicas converged after {} to {}, and `converge-within` is {limit}: they were not read often enough to tell",
            span(at_least),
            span(at_most)
        ));
    }
    Some(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(limit_ms: Option<u64>, converged: Option<(u64, u64)>) -> Option<(Validity, String)> {
        let mut convergence = Verdict::unknown("convergence", "still converging");
        let time = |(a, b): (u64, u64)| json!({"at_least_ns": a * 1_000_000, "at_most_ns": b * 1_000_000});
        convergence.stats.insert("converged".to_owned(), converged.map_or(serde_json::Value::Null, time));
        let wanted = Objectives { converge_within: limit_ms.map(Span::ms), ..Objectives::default() };
        let verdicts = BTreeMap::from([("convergence".to_owned(), convergence)]);
        objectives(&wanted, &verdicts).map(|v| {
            assert_eq!(v.checker, NAME);
            assert_eq!(v.validity == Validity::Invalid, !v.anomalies.is_empty());
            (v.validity, v.reason.unwrap_or_default())
        })
    }

    #[test]
    fn only_what_was_certainly_too_slow_is_wrong() {
        assert_eq!(judge(Some(5000), Some((4000, 5000))), Some((Validity::Valid, String::new())));
        let slow = "replicas converged after more than 5.001s; `converge-within` is 5s".to_owned();
        assert_eq!(judge(Some(5000), Some((5001, 6000))), Some((Validity::Invalid, slow)));
        let (validity, why) = judge(Some(5000), Some((5000, 5001))).unwrap();
        assert!(validity == Validity::Unknown && why.contains("5s to 5.001s"), "{why}");
    }

    #[test]
    fn what_did_not_converge_is_left_to_the_verdict_on_convergence() {
        assert_eq!(judge(Some(5000), None), None);
        assert_eq!(judge(None, Some((1, 2))), None, "nothing was demanded");
    }
}
