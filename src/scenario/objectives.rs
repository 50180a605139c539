//! What a system has to achieve beside being correct: the section `objectives` of a test file.
//!
//! ```yaml
//! objectives:
//!   converge-within: 5s
//!   availability: {max-gap: 10s, recover-within: 5s}
//!   latency: [{operation: read, p99: 50ms}]
//! ```
//! Each objective is a field, left out if nothing is demanded. How they are judged: [`crate::objectives`].

use checkers::bench::{AvailabilityOptions, LatencyObjectives};
use nemesis::Span;
use serde::{Deserialize, Serialize};
use workloads::WorkloadSpec;

/// What is demanded; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Objectives {
    /// How soon all replicas must have come to the same state once faults are healed and writing has stopped.
    #[serde(alias = "converge_within", skip_serializing_if = "Option::is_none")]
    pub converge_within: Option<Span>,
    /// How long nobody may be without service, and how soon everybody must be served again.
    #[serde(skip_serializing_if = "is_default")]
    pub availability: AvailabilityOptions,
    /// How fast operations must be.
    #[serde(skip_serializing_if = "is_default")]
    pub latency: LatencyObjectives,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Objectives {
    /// Whether nothing is demanded.
    pub fn is_none(&self) -> bool {
        *self == Objectives::default()
    }

    /// What cannot be demanded of such a workload, if anything.
    pub(super) fn mistake(&self, workload: &WorkloadSpec) -> Option<String> {
        let judged = workload.info().checkers;
        if self.converge_within.is_some() && !judged.contains(&"convergence") {
            let with = workloads::WORKLOADS.iter().filter(|w| w.checkers.contains(&"convergence"));
            let with: Vec<&str> = with.map(|w| w.name).collect();
            return Some(format!(
                "`converge-within` can be demanded of workloads that are judged for convergence ({}); `{}` is not",
                with.join(", "),
                workload.name
            ));
        }
        if self.converge_within.is_some_and(|span| span.is_zero()) {
            return Some("`converge-within` is zero; nobody can be that fast".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::Scenario;

    #[test]
    fn either_spelling_is_read_and_mistakes_are_shown_where_they_stand() {
        for spelling in ["converge-within", "converge_within"] {
            let text = format!("{{workload: {{name: convergence}}, objectives: {{{spelling}: 5s}}}}");
            let scenario = Scenario::parse("test.yaml", &text).unwrap();
            assert_eq!(scenario.objectives.converge_within, Some(nemesis::Span::ms(5000)));
        }
        let wrong = [
            "workload: {name: convergence}\nobjectives: {converge-withn: 5s}",
            "workload: {name: convergence}\nobjectives: {converge-within: 5}",
            "workload: {name: convergence}\nobjectives: {converge-within: 0s}",
            "objectives: {converge-within: 5s}",
            "workload: {name: convergence}\nbounds:\n  stand-still: 30s",
            "workload: {name: convergence}\nload: {retries: 1}",
            "workload: {name: convergence, read-mode: lease}",
        ];
        let told = wrong.map(|text| Scenario::parse("test.yaml", text).unwrap_err().to_string());
        insta::assert_snapshot!(told.join("\n\n"));
    }
}
