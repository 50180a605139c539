//! All that a nemesis may see of a cluster and do to it.
//!
//! The controller implements [`Cluster`] for each place where nodes can live. A cluster says which faults it can
//! inject ([`Cluster::supports`]); a plan that asks for more is refused before anything starts.

use crate::span::Span;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// A node's name, such as `n1`. Unique within a cluster.
pub type NodeName = Arc<str>;

/// The way from one node to another; the way back is another link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Who sends.
    pub from: NodeName,
    /// Who receives.
    pub to: NodeName,
}

impl Link {
    /// The link from one node to another.
    pub fn new(from: &NodeName, to: &NodeName) -> Self {
        Link { from: from.clone(), to: to.clone() }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}", self.from, self.to)
    }
}

/// Whether bytes pass a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// They do.
    #[default]
    Open,
    /// They are held, on established connections too, and go on when the link opens again: what TCP does over a
    /// network that drops packets.
    Hold,
    /// Connections are reset and new ones refused.
    Reset,
}

/// What a link does to the bytes that pass it. The default is an open link without delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkShape {
    /// Whether bytes pass at all.
    #[serde(skip)]
    pub cut: Cut,
    /// One-way delay.
    pub delay: Span,
    /// Added to the delay: uniformly between zero and this. Order within a connection is kept.
    pub jitter: Span,
    /// Probability that a chunk of bytes is lost together with its connection, which is reset. 0 to 1.
    pub reset_probability: f64,
    /// Bytes per second; 0 means unlimited.
    pub bytes_per_second: u64,
}

impl LinkShape {
    /// Both shapes at once: the stronger cut, delays added, the higher loss, the lower bandwidth.
    pub fn and(self, other: LinkShape) -> LinkShape {
        let rate = |a: u64, b: u64| {
            if a == 0 {
                b
            } else if b == 0 {
                a
            } else {
                a.min(b)
            }
        };
        LinkShape {
            cut: self.cut.max(other.cut),
            delay: Span(self.delay.0 + other.delay.0),
            jitter: Span(self.jitter.0 + other.jitter.0),
            reset_probability: self.reset_probability.max(other.reset_probability),
            bytes_per_second: rate(self.bytes_per_second, other.bytes_per_second),
        }
    }
}

/// What was seen to pass a link since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Bytes delivered to the receiver.
    pub delivered_bytes: u64,
    /// Bytes and connections that arrived at the link while it was cut (bytes; a held connection counts as one).
    pub held_bytes: u64,
    /// Connections reset or refused by the link.
    pub resets: u64,
    /// Bytes that were delayed, and the sum of their actual delays in nanoseconds per chunk.
    pub delayed_chunks: u64,
    /// Sum over `delayed_chunks` of how long each was really kept, in nanoseconds.
    pub delayed_ns: u64,
}

/// What the operating system says of a node's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It runs.
    Running,
    /// It is stopped (SIGSTOP) and can be continued.
    Paused,
    /// It ended; how, in words: `killed by signal 9`, `exit code 1`.
    Dead(String),
}

/// Something that a cluster may or may not be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Start, kill, pause and continue nodes.
    Processes,
    /// Cut and shape the links between nodes.
    Links,
}

/// A command to a cluster that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} {node}: {why}")]
pub struct ClusterError {
    /// What was tried: `kill`, `start`, `pause`, …
    pub what: &'static str,
    /// On which node or link.
    pub node: String,
    /// What went wrong and what to do.
    pub why: String,
}

/// A running cluster, as a nemesis sees it. All methods may be called at the same time from several tasks.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// The nodes, in a fixed order.
    fn nodes(&self) -> &[NodeName];
    /// Whether this kind of cluster can do such a thing; if not, the reason and which kinds can.
    fn supports(&self, capability: Capability) -> Result<(), String>;
    /// Starts a node that is not running. Returns when its process exists; see [`Cluster::answers`].
    async fn start(&self, node: &NodeName) -> Result<(), ClusterError>;
    /// Ends a node at once, as SIGKILL does, and waits until it is gone.
    async fn kill(&self, node: &NodeName) -> Result<(), ClusterError>;
    /// Stops a node in its tracks, as SIGSTOP does.
    async fn pause(&self, node: &NodeName) -> Result<(), ClusterError>;
    /// Lets a paused node go on.
    async fn resume(&self, node: &NodeName) -> Result<(), ClusterError>;
    /// Sets what a link does from now on.
    async fn shape(&self, link: &Link, shape: LinkShape) -> Result<(), ClusterError>;
    /// What the operating system says of the node.
    async fn state(&self, node: &NodeName) -> NodeState;
    /// Counters of a link.
    async fn link_stats(&self, link: &Link) -> LinkStats;
    /// Whether the node answers a client within a short time (at most about a second).
    async fn answers(&self, node: &NodeName) -> bool;
    /// Who leads, by the nodes' own claims (the highest rank wins), if anyone claims to.
    async fn leader(&self) -> Option<NodeName>;
}
