//! Where the nodes live. Each kind implements [`nemesis::Cluster`]; the controller sees only [`Defendant`].
//!
//! ```text
//! Assembly = Processes + Network + Disks + Clocks
//!   process   children          TCP proxies       a local agent
//!   netns     children          iptables, tc      agents in the namespaces and a local one
//!   docker    containers        iptables, tc      agents in holder containers and a local one
//!   ssh       an agent's        iptables, tc      the agent on the host
//! External: whatever the adapter connects to, which nobody here can start or break.
//! ```

pub mod agents;
pub mod assembly;
pub mod children;
pub mod clocks;
pub mod disks;
pub mod docker;
pub mod external;
pub mod firewall;
pub mod netns;
pub mod network;
pub mod ports;
pub mod process;
pub mod processes;
pub mod proxy;
pub mod spawner;
pub mod ssh;
pub mod surroundings;
pub mod timer;

use crate::adapter::Node;
use anyhow::Result;
use async_trait::async_trait;
use nemesis::{Capability, Cluster};
use std::{path::Path, sync::Arc};
pub use surroundings::Surroundings;

/// A cluster on trial: what the nemesis may do to it, and what only the controller does.
#[async_trait]
pub trait Defendant: Cluster {
    /// The nodes as adapters know them.
    fn members(&self) -> &[Node];
    /// The same, reached by what no fault cuts: for the tester's own looks.
    fn uncut(&self) -> &[Node] {
        self.members()
    }
    /// Starts everything and returns when every process exists.
    async fn set_up(&self) -> Result<()>;
    /// Ends everything. Never fails: what could not be ended is returned in words.
    async fn tear_down(&self) -> Vec<String>;
    /// Nodes that ended although nobody ended them, in words.
    async fn deaths(&self) -> Vec<String>;
    /// The last lines of a node's log, if it has one.
    fn log_tail(&self, node: &Node) -> String;
    /// What stands in for a mechanism that this machine lacks, in words, for the report.
    fn stand_ins(&self) -> Vec<String> {
        vec![]
    }
    /// As the nemesis sees it.
    fn as_cluster(self: Arc<Self>) -> Arc<dyn Cluster>;
}

/// One of the parts that a cluster is assembled from.
#[async_trait]
pub trait Part: Send + Sync {
    /// Whether it can do such a thing, and if not, why, and who can; `None` if that is not its business.
    fn supports(&self, _capability: Capability) -> Option<Result<(), String>> {
        None
    }
    /// What stands in for a mechanism that this machine lacks, in words.
    fn stand_ins(&self) -> Vec<String> {
        vec![]
    }
    /// Removes what it made. What could not be removed is returned in words.
    async fn tear_down(&self) -> Vec<String> {
        vec![]
    }
}

/// Nothing: for a cluster whose last part is put in later.
struct NoPart;

impl Part for NoPart {}

/// The last lines of a file, for error messages.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
