//! A fault plan as a person writes it.
//!
//! ```yaml
//! doc: Kills and pauses, and now and then a partition.
//! start-after: 2s              # quiet at the beginning, so that there is something to compare with
//! links: {delay: 2ms}          # what every link between nodes does all along
//! lanes:                       # each lane is a chain: pause between, fault, pause between, fault, …
//!   - every: 1s..2s
//!     for: 500ms..2s
//!     faults: [{fault: kill, target: leader}, {fault: partition, shape: halves}]
//! steps:                       # and explicit steps, for a script
//!   - {at: 5s, for: 1s, do: {fault: pause, target: n1}}
//! repeat-every: 10s            # the script again and again
//! one-at-a-time: true          # never two faults together, however long the cluster takes to heal
//! ```
//!
//! A lane deals its faults from a shuffled bag, so that a run that is long enough sees every one of them.

use crate::{
    cluster::{Capability, Cluster, LinkShape, NodeName},
    fault::{Family, Fault, FaultKind},
    grudge::CLIENTS,
    span::{Range, Span},
    target::Target,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A fault plan. The default is the plan without faults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// One line for `tribunal list`.
    pub doc: String,
    /// No lane begins before this; steps have times of their own.
    pub start_after: Span,
    /// What every link between nodes does during the whole run.
    pub links: LinkShape,
    /// Chains of random faults. Lanes run side by side.
    pub lanes: Vec<Lane>,
    /// Faults at fixed times.
    pub steps: Vec<Explicit>,
    /// The steps are repeated with this period until the time is up; 0 means once.
    pub repeat_every: Span,
    /// No fault begins before the one before it has been seen to heal, or was given up on. It begins late then, and lasts
    /// as long as planned, or until the load ends; what does not begin before that is left out.
    pub one_at_a_time: bool,
}

/// A chain of random faults, one at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lane {
    /// Quiet time before each fault.
    pub every: Range,
    /// How long each fault lasts.
    #[serde(rename = "for")]
    pub lasts: Range,
    /// What is drawn from.
    pub faults: Vec<Fault>,
}

/// A fault at a fixed time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Explicit {
    /// Time since the load began.
    pub at: Span,
    /// How long it lasts.
    #[serde(rename = "for")]
    pub lasts: Span,
    /// What is done.
    #[serde(rename = "do")]
    pub fault: Fault,
}

/// A plan that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

impl Plan {
    /// All faults of the plan.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.lanes.iter().flat_map(|l| &l.faults).chain(self.steps.iter().map(|s| &s.fault))
    }

    /// The kinds of faults that the plan asks for.
    pub fn kinds(&self) -> BTreeSet<FaultKind> {
        self.faults().map(|f| f.fault).collect()
    }

    /// All that the plan asks of a cluster.
    pub fn needs(&self) -> BTreeSet<Capability> {
        self.faults().flat_map(Fault::needs).chain(self.links.needs()).collect()
    }

    /// Checks the plan by itself: that every fault is complete and that named nodes exist.
    pub fn validate(&self, nodes: &[String]) -> Result<(), PlanError> {
        if let Some(i) = self.lanes.iter().position(|l| l.faults.is_empty()) {
            return Err(PlanError(format!("lane {} of the fault plan has no faults", i + 1)));
        }
        if let Some(i) = self.lanes.iter().position(|l| l.every.max.ns() + l.lasts.max.ns() == 0) {
            return Err(PlanError(format!(
                "lane {} has `every: 0s` and `for: 0s`: it would never end",
                i + 1
            )));
        }
        if let Some(mistake) = self.links.mistake() {
            return Err(PlanError(format!("in `links`: {mistake}")));
        }
        let damages = self.faults().filter(|f| f.fault.family() == Family::Damage);
        let mut steps = 0;
        for fault in damages {
            if matches!(fault.target, Target::Minority | Target::Majority | Target::All)
                || matches!(&fault.target, Target::Named(names) if names.len() > 1)
            {
                return Err(PlanError(format!(
                    "in `{}`: synced bytes may be damaged on one node of a run only: Paxos assumes disks that keep \
                     what they were given",
                    fault.describe()
                )));
            }
            steps += 1;
        }
        let in_lanes = self.lanes.iter().flat_map(|l| &l.faults).any(|f| f.fault.family() == Family::Damage);
        if steps > 1 || in_lanes || (steps > 0 && self.repeat_every.ns() > 0) {
            return Err(PlanError(
                "synced bytes may be damaged once in a run, on one node: write one explicit step, without \
                 `repeat-every`"
                    .to_owned(),
            ));
        }
        for fault in self.faults() {
            if let Some(mistake) = fault.mistake() {
                return Err(PlanError(format!("in `{}`: {mistake}", fault.describe())));
            }
            if let Some(bad) = fault.named_ends().find(|x| !named(nodes, x) && &***x != CLIENTS) {
                return Err(PlanError(format!(
                    "there is no node `{bad}`, which `{}` names; the nodes are {}, and `{CLIENTS}` are the clients",
                    fault.describe(),
                    nodes.join(", ")
                )));
            }
            for target in [Some(&fault.target), fault.peers.as_ref()].into_iter().flatten() {
                let Target::Named(names) = target else { continue };
                if let Some(bad) = names.iter().find(|x| !named(nodes, x)) {
                    return Err(PlanError(format!(
                        "in `{}`: there is no node {bad}; the nodes are {}",
                        fault.describe(),
                        nodes.join(", ")
                    )));
                }
            }
        }
        Ok(())
    }

    /// Refuses a plan that asks for what the cluster cannot do, with the cluster's reason.
    pub fn supported_by(&self, cluster: &dyn Cluster) -> Result<(), PlanError> {
        for fault in self.faults() {
            for capability in fault.needs() {
                cluster.supports(capability).map_err(|why| {
                    PlanError(format!(
                        "the plan asks for `{}`, which this cluster cannot do: {why}",
                        fault.describe()
                    ))
                })?;
            }
        }
        for capability in self.links.needs() {
            cluster.supports(capability).map_err(|why| {
                PlanError(format!("the plan shapes `links`, which this cluster cannot do: {why}"))
            })?;
        }
        Ok(())
    }
}

fn named(nodes: &[String], node: &NodeName) -> bool {
    nodes.iter().any(|n| n.as_str() == &**node)
}
