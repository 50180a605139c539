//! What a system has to achieve beside being correct: the section `objectives` of a test file.
//!
//! ```yaml
//! objectives: {converge-within: 5s}
//! ```
//! Each objective is a field, left out if nothing is demanded. How they are judged: [`crate::objectives`].

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
