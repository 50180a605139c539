//! The kinds of faults, and one fault as a plan states it.
//!
//! ```yaml
//! - {fault: kill, target: leader}
//! - {fault: partition, shape: isolate-leader}
//! - {fault: slow, target: one, link: {delay: 50ms, jitter: 20ms}}
//! ```

use crate::{
    cluster::{Capability, LinkShape},
    grudge::Shape,
    target::Target,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What can be done. `tribunal list` prints [`FaultKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// SIGKILL, and a start at the end of the interval.
    Kill,
    /// SIGSTOP, and SIGCONT at the end of the interval.
    Pause,
    /// The links of a [`Shape`] are cut.
    Partition,
    /// The links from and to the target get the shape in `link`.
    Slow,
}

impl FaultKind {
    /// All kinds, each with a line of explanation.
    pub const ALL: &'static [(FaultKind, &'static str)] = &[
        (FaultKind::Kill, "SIGKILL the target's process group; started again when the interval ends"),
        (FaultKind::Pause, "SIGSTOP the target; SIGCONT when the interval ends"),
        (
            FaultKind::Partition,
            "cut links between nodes (shape: isolate-one, isolate-leader, leader-minority, ...)",
        ),
        (FaultKind::Slow, "shape the target's links: delay, jitter, bytes-per-second, reset-probability"),
    ];

    /// The name that plans, histories and reports use.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::Pause => "pause",
            FaultKind::Partition => "partition",
            FaultKind::Slow => "slow",
        }
    }

    /// What the cluster must be able to do.
    pub fn needs(self) -> Capability {
        match self {
            FaultKind::Kill | FaultKind::Pause => Capability::Processes,
            FaultKind::Partition | FaultKind::Slow => Capability::Links,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One fault of a plan: what, to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// What is done.
    pub fault: FaultKind,
    /// To whom (kill, pause, slow). Defaults to one node at random.
    #[serde(default)]
    pub target: Target,
    /// Which links are cut (partition).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Reset connections instead of holding their bytes (partition).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// What the links do (slow).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkShape>,
    /// How often this one is drawn, against the others of its lane.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}
fn is_one(n: &u32) -> bool {
    *n == 1
}

impl Fault {
    /// What does not fit together in this fault, if anything.
    pub fn mistake(&self) -> Option<String> {
        let kind = self.fault;
        match kind {
            FaultKind::Partition if self.shape.is_none() => {
                Some(format!("a partition needs a `shape`: one of {}", Shape::names()))
            }
            FaultKind::Partition if self.target != Target::default() => {
                Some("a partition takes a `shape`, not a `target`".to_owned())
            }
            FaultKind::Slow if self.link.is_none() => {
                Some("`slow` needs a `link`, for example `link: {delay: 50ms}`".to_owned())
            }
            FaultKind::Slow if self.link.is_some_and(|l| !(0.0..=1.0).contains(&l.reset_probability)) => {
                Some("`reset-probability` is a probability: 0 to 1".to_owned())
            }
            FaultKind::Kill | FaultKind::Pause | FaultKind::Slow if self.shape.is_some() => {
                Some(format!("`{kind}` takes a `target`, not a `shape`"))
            }
            FaultKind::Kill | FaultKind::Pause | FaultKind::Partition if self.link.is_some() => {
                Some(format!("`{kind}` takes no `link`; that belongs to `slow`"))
            }
            _ if self.reset && kind != FaultKind::Partition => {
                Some(format!("`{kind}` takes no `reset`; that belongs to `partition`"))
            }
            _ if self.weight == 0 => {
                Some("a `weight` of 0 means never; leave the fault out instead".to_owned())
            }
            _ => None,
        }
    }

    /// In words: `kill leader`, `partition isolate-one`.
    pub fn describe(&self) -> String {
        match self.shape {
            Some(shape) => format!("{} {}{}", self.fault, shape, if self.reset { " (reset)" } else { "" }),
            None => format!("{} {}", self.fault, self.target),
        }
    }
}
