//! The nodes' processes, wherever they run: what can be done to them is the same everywhere.

use crate::cluster::Part;
use async_trait::async_trait;
use nemesis::{Limits, NodeState, Usage};
use std::process::Command;

/// What is said when there is nothing to start a node with.
pub const NO_COMMAND: &str = "the adapter has no command";

/// The processes of all nodes of a cluster, by the nodes' indices. Errors are in words.
#[async_trait]
pub trait Processes: Part {
    /// Starts a node that is not running, with this command if that is ours to say. Returns when its process exists.
    async fn start(&self, i: usize, command: Option<Command>) -> Result<(), String>;
    /// Sends a node what nobody survives, and returns when that is sent. It need not be running.
    async fn strike(&self, i: usize) -> Result<(), String>;
    /// Waits until a node that was struck is gone.
    async fn reap(&self, i: usize) -> Result<(), String>;
    /// Ends a node at once and waits until it is gone. It need not be running.
    async fn kill(&self, i: usize) -> Result<(), String> {
        self.strike(i).await?;
        self.reap(i).await
    }
    /// Asks a node to end and waits until it is gone; kills it if that takes too long.
    async fn stop(&self, i: usize) -> Result<(), String>;
    /// Stops a node in its tracks.
    async fn pause(&self, i: usize) -> Result<(), String>;
    /// Lets it go on.
    async fn resume(&self, i: usize) -> Result<(), String>;
    /// What the operating system says of it.
    async fn state(&self, i: usize) -> NodeState;
    /// Until told otherwise, it is right that this node ends.
    fn excuse(&self, i: usize, excused: bool);
    /// Nodes that ended although nobody ended them, in words.
    async fn deaths(&self) -> Vec<String>;
    /// Its process id, as the agent sees it that sets clocks.
    async fn pid(&self, i: usize) -> Option<i32>;
    /// Limits what it may use.
    async fn limit(&self, _i: usize, _limits: Limits) -> Result<(), String> {
        Err("this kind of cluster cannot limit what its nodes use".to_owned())
    }
    /// What it uses.
    async fn usage(&self, _i: usize) -> Usage {
        Usage::default()
    }
}
