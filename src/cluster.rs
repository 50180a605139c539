//! Where the nodes live. Each kind implements [`nemesis::Cluster`]; the controller sees only [`Defendant`].
//!
//! `process`: child processes on loopback behind proxies. `external`: whatever the adapter connects to, which nobody
//! here can start or break.

pub mod external;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod spawner;
pub mod timer;

use crate::adapter::Node;
use anyhow::Result;
use async_trait::async_trait;
use nemesis::Cluster;
use std::{path::Path, sync::Arc};

/// A cluster on trial: what the nemesis may do to it, and what only the controller does.
#[async_trait]
pub trait Defendant: Cluster {
    /// The nodes as adapters know them.
    fn members(&self) -> &[Node];
    /// Starts everything and returns when every process exists.
    async fn set_up(&self) -> Result<()>;
    /// Ends everything. Never fails: what could not be ended is returned in words.
    async fn tear_down(&self) -> Vec<String>;
    /// Nodes that ended although nobody ended them, in words.
    fn deaths(&self) -> Vec<String>;
    /// The last lines of a node's log, if it has one.
    fn log_tail(&self, node: &Node) -> String;
    /// As the nemesis sees it.
    fn as_cluster(self: Arc<Self>) -> Arc<dyn Cluster>;
}

/// The last lines of a file, for error messages.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
