//! What may be done to a cluster, to whom, and when.
//!
//! ```text
//!   plan file (YAML)        seed, nodes, time limit
//!        │                        │
//!     Plan ──── schedule() ───────┘          pure: no clock, no randomness of its own
//!        │
//!     Schedule = Step { at, until, fault, target }, …
//!        │
//!     Nemesis::run ── resolve target, inject, observe, wait, heal, observe ──▶ Receipt
//!        │
//!     trait Cluster  (implemented by the controller: kill, pause, shape a link, …)
//! ```
//!
//! Reading order: [`fault`], [`target`], [`mod@grudge`], [`plan`], [`mod@schedule`], [`cluster`], [`receipt`], [`inject`] (one module for
//! each family of faults below it).
//!
//! This crate knows nodes and links, never operations: it cannot tell a read from a write, and does not judge.

pub mod cluster;
pub mod fault;
pub mod grudge;
pub mod inject;
pub mod plan;
pub mod receipt;
pub mod schedule;
pub mod span;
pub mod target;

pub use cluster::{
    Capability, ClockChange, Cluster, ClusterError, Cut, Damage, DiskStats, DiskTrouble, Limits, Link,
    LinkShape, LinkStats, NodeName, NodeState, Probe, Usage,
};
pub use fault::{Family, Fault, FaultKind};
pub use grudge::{Shape, grudge};
pub use inject::{Nemesis, Notice, Timeline};
pub use plan::{Lane, Plan, PlanError};
pub use receipt::{Effect, Receipt};
pub use schedule::{Schedule, Step, schedule};
pub use span::{Range, Span};
pub use target::Target;

/// The fault plans that ship with the crate: name and YAML text, in the order in which `tribunal list` shows them.
pub const PLANS: &[(&str, &str)] = &[
    ("chaos", include_str!("../chaos.yaml")),
    ("none", include_str!("../none.yaml")),
    ("kill", include_str!("../kill.yaml")),
    ("pause", include_str!("../pause.yaml")),
    ("partition", include_str!("../partition.yaml")),
    ("clients", include_str!("../clients.yaml")),
    ("kill-all", include_str!("../kill-all.yaml")),
    ("leader-churn", include_str!("../leader-churn.yaml")),
    ("leader-pause", include_str!("../leader-pause.yaml")),
    ("split-leader", include_str!("../split-leader.yaml")),
    ("split-long", include_str!("../split-long.yaml")),
    ("duel", include_str!("../duel.yaml")),
    ("flaky", include_str!("../flaky.yaml")),
    ("promise-churn", include_str!("../promise-churn.yaml")),
    ("everything", include_str!("../everything.yaml")),
    ("lossy", include_str!("../lossy.yaml")),
    ("netem", include_str!("../netem.yaml")),
    ("rest", include_str!("../rest.yaml")),
    ("clock", include_str!("../clock.yaml")),
    ("disk", include_str!("../disk.yaml")),
    ("limits", include_str!("../limits.yaml")),
    ("memory", include_str!("../memory.yaml")),
    ("bit-rot", include_str!("../bit-rot.yaml")),
    ("bit-churn", include_str!("../bit-churn.yaml")),
    ("disk-churn", include_str!("../disk-churn.yaml")),
    ("hand-over", include_str!("../hand-over.yaml")),
    ("wipe", include_str!("../wipe.yaml")),
    ("cut-off", include_str!("../cut-off.yaml")),
    ("skewed-split", include_str!("../skewed-split.yaml")),
    ("promise-power", include_str!("../promise-power.yaml")),
    ("storm", include_str!("../storm.yaml")),
];
