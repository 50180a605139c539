//! What really happened when a fault was injected, as opposed to what was planned.

use crate::fault::FaultKind;
use serde::{Deserialize, Serialize};

/// Something that an observer saw, or did not see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Whether the effect was seen.
    pub seen: bool,
    /// What was seen, in words, with figures.
    pub what: String,
}

impl Effect {
    /// It was seen.
    pub fn seen(what: impl Into<String>) -> Self {
        Effect { seen: true, what: what.into() }
    }
    /// It was not.
    pub fn missing(what: impl Into<String>) -> Self {
        Effect { seen: false, what: what.into() }
    }
}

/// One fault of a run: planned, injected, observed, healed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The step's number in the schedule.
    pub step: usize,
    /// The kind of fault.
    pub kind: FaultKind,
    /// The fault in words, as the plan states it.
    pub fault: String,
    /// The nodes it was done to.
    pub targets: Vec<String>,
    /// The links it was done to, as `n1→n2`.
    pub links: Vec<String>,
    /// A short text for tables: `n3`, or the sides of a partition.
    pub on: String,
    /// When it was in force: nanoseconds since the run began. Equal for a fault that was never injected.
    pub start_ns: u64,
    /// When healing began.
    pub end_ns: u64,
    /// What the observer saw while it was in force.
    pub effect: Effect,
    /// What the observer saw after healing.
    pub healed: Effect,
    /// Whether a majority of nodes was up and connected, both when it began and when it ended.
    pub majority: bool,
    /// Why it could not be carried out, if so.
    pub error: Option<String>,
    /// Healing it failed: from then on nobody knows what was in force.
    #[serde(default)]
    pub unhealed: bool,
}
