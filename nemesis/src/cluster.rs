//! All that a nemesis may see of a cluster and do to it.
//!
//! The controller implements [`Cluster`] for each place where nodes can live. A cluster says which faults it can
//! inject ([`Cluster::supports`]); a plan that asks for more is refused before anything starts.

use crate::span::Span;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// A node's name, such as `n1`. Unique within a cluster.
pub type NodeName = Arc<str>;

/// The way from one node to another, or between the clients and a node; the way back is another link.
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

/// As a plan names it: `n1>n2`.
impl std::str::FromStr for Link {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.split_once(['>', '→']).map(|(from, to)| (from.trim(), to.trim()));
        match ends {
            Some((from, to)) if !from.is_empty() && !to.is_empty() && !to.contains(['>', '→']) => {
                Ok(Link { from: from.into(), to: to.into() })
            }
            _ => Err(format!(
                "`{text}` is no link; write who does not reach whom, such as n1>n2 or clients>n1"
            )),
        }
    }
}

impl Serialize for Link {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}>{}", self.from, self.to))
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
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
    /// Added to the delay: uniformly between zero and this. Proxies and packet queues keep the order within a connection;
    /// netem lets packets overtake each other, unless there is a bandwidth, and TCP puts them in order again.
    pub jitter: Span,
    /// Probability that a chunk of bytes is lost together with its connection, which is reset. 0 to 1.
    pub reset_probability: f64,
    /// Bytes per second; 0 means unlimited.
    pub bytes_per_second: u64,
    /// Probability that a packet is lost. 0 to 1.
    pub loss: f64,
    /// Probability that a packet arrives twice. 0 to 1.
    pub duplicate: f64,
    /// Probability that a packet overtakes those before it; needs a `delay` that it escapes. 0 to 1.
    pub reorder: f64,
    /// Probability that a bit of a packet is flipped. 0 to 1.
    pub corrupt: f64,
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
            loss: self.loss.max(other.loss),
            duplicate: self.duplicate.max(other.duplicate),
            reorder: self.reorder.max(other.reorder),
            corrupt: self.corrupt.max(other.corrupt),
        }
    }

    /// What a cluster must be able to do for this shape.
    pub fn needs(&self) -> BTreeSet<Capability> {
        let asked = [
            (Capability::Cut, self.cut != Cut::Open),
            (Capability::Delay, self.delay.ns() > 0 || self.jitter.ns() > 0),
            (Capability::Reset, self.reset_probability > 0.0),
            (Capability::Rate, self.bytes_per_second > 0),
            (Capability::Loss, self.loss > 0.0),
            (Capability::Scramble, self.duplicate > 0.0 || self.reorder > 0.0 || self.corrupt > 0.0),
        ];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(capability, _)| capability).collect()
    }

    /// What is wrong with it, if anything.
    pub fn mistake(&self) -> Option<String> {
        let probabilities = [
            ("reset-probability", self.reset_probability),
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("corrupt", self.corrupt),
        ];
        let bad = probabilities.into_iter().find(|(_, p)| !(0.0..=1.0).contains(p));
        if let Some((name, p)) = bad {
            return Some(format!("`{name}` is a probability, 0 to 1, and not {p}"));
        }
        let escapes = self.reorder > 0.0 && self.delay.ns() == 0;
        escapes.then(|| "`reorder` needs a `delay`: packets overtake those that are delayed".to_owned())
    }
}

/// What a train of numbered packets sent over a link found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Packets sent.
    pub sent: u32,
    /// Different packets that arrived.
    pub arrived: u32,
    /// Packets that arrived once more.
    pub duplicates: u32,
    /// Packets that arrived after a later one.
    pub overtaken: u32,
    /// Packets that the receiver's kernel dropped meanwhile because of a wrong checksum.
    pub corrupted: u32,
    /// Mean of (arrival on the receiver's clock − departure on the sender's), in nanoseconds. The clocks need not
    /// agree: what a fault added is the difference of two probes.
    pub mean_ns: i64,
    /// The least of the same.
    pub least_ns: i64,
}

/// What is done to a node's wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClockChange {
    /// It shows so much more than it should.
    #[serde(skip_serializing_if = "Span::is_zero")]
    pub ahead: Span,
    /// It shows so much less than it should.
    #[serde(skip_serializing_if = "Span::is_zero")]
    pub behind: Span,
    /// Strobe: how long each of the two states lasts, off and right.
    #[serde(skip_serializing_if = "Span::is_zero")]
    pub every: Span,
    /// Drift: seconds that it counts in a second. 1.5 gains half a second each second.
    #[serde(skip_serializing_if = "is_zero")]
    pub rate: f64,
}

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

impl ClockChange {
    /// The offset of a bump or strobe in nanoseconds; negative if behind.
    pub fn offset_ns(&self) -> i64 {
        self.ahead.ns() as i64 - self.behind.ns() as i64
    }
}

/// What goes wrong with the disk below a node's data folder. The default is a healthy disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskTrouble {
    /// Every fsync takes so much longer.
    #[serde(skip_serializing_if = "Span::is_zero")]
    pub sync_delay: Span,
    /// Writes and fsyncs fail with EIO.
    #[serde(skip)]
    pub fail: bool,
    /// The disk is full (ENOSPC) after so many more bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_bytes: Option<u64>,
}

/// What was seen at the disk below a node's data folder since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// Writes that were let through.
    pub writes: u64,
    /// fsyncs that were let through.
    pub syncs: u64,
    /// fsyncs that were kept.
    pub delayed_syncs: u64,
    /// For how long in all, in nanoseconds.
    pub delayed_ns: u64,
    /// Calls that failed with EIO.
    pub errors: u64,
    /// Calls that failed with ENOSPC.
    pub refused_full: u64,
}

/// How bytes that a node had synced are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit of one file is flipped.
    BitFlip,
    /// The end of one file is cut off.
    Truncate,
    /// Everything is gone. That cannot be repaired.
    Wipe,
}

/// What a node may use. 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Processors: 0.1 is a tenth of one.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpus: f64,
    /// Memory in mebibytes.
    #[serde(skip_serializing_if = "is_none_mb")]
    pub memory_mb: u64,
}

fn is_none_mb(n: &u64) -> bool {
    *n == 0
}

/// What a node was seen to use, and be refused, since it was last limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Periods in which it wanted more processor time than it was given.
    pub throttled: u64,
    /// Times that it ran into its memory limit. Some kernels (6.18 with version 1 of control groups) leave most of them out.
    pub memory_hits: u64,
    /// Pages that had been taken away from it, or were never in memory, and that it had to wait for the disk to bring.
    pub pages_read: u64,
    /// The processors that it is limited to, as the kernel says; 0 if there is no limit, nothing if that cannot be read.
    pub cpus: Option<f64>,
    /// The memory that it is limited to, in bytes; 0 if there is no limit, nothing if that cannot be read.
    pub memory_limit: Option<u64>,
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
    /// Packets that the link lost on purpose while it was open.
    pub lost: u64,
    /// Packets that had to wait because of a bandwidth.
    pub limited: u64,
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
    /// Nobody could be asked, and why. The node may run or not: it is not started again, and nothing is concluded from it.
    Unknown(String),
}

/// Something that a cluster may or may not be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Start, kill, pause and continue nodes.
    Processes,
    /// End a node and take what it had not synced from its data folder.
    PowerFailure,
    /// Cut the links between nodes.
    Cut,
    /// Cut the links between clients and nodes.
    Clients,
    /// Delay what passes a link.
    Delay,
    /// Limit the bytes per second of a link.
    Rate,
    /// Reset connections at random.
    Reset,
    /// Lose packets.
    Loss,
    /// Duplicate, reorder and corrupt packets.
    Scramble,
    /// Set a node's wall clock wrong.
    Clock,
    /// Make the disk below a node's data folder slow, full or faulty.
    Disk,
    /// Damage bytes that a node had synced.
    Damage,
    /// Limit a node's processor time.
    Cpu,
    /// Limit a node's memory.
    Memory,
}

impl Capability {
    /// All of them, each with the faults that need it.
    pub const ALL: &'static [(Capability, &'static str)] = &[
        (Capability::Processes, "kill, pause, restart, stop"),
        (Capability::PowerFailure, "power failure, torn write"),
        (Capability::Cut, "partition, both ways and one way"),
        (Capability::Clients, "partition between clients and nodes"),
        (Capability::Loss, "packet loss"),
        (Capability::Reset, "connection resets"),
        (Capability::Rate, "bandwidth"),
        (Capability::Delay, "delay, jitter"),
        (Capability::Scramble, "duplication, reordering, corruption"),
        (Capability::Clock, "clock bump, strobe, drift"),
        (Capability::Disk, "disk slow, full, EIO"),
        (Capability::Damage, "bit flip, truncation, wipe"),
        (Capability::Cpu, "CPU limit"),
        (Capability::Memory, "memory limit"),
    ];
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
    /// Asks a node to end, as SIGTERM does, and waits until it is gone; ends it like [`Cluster::kill`] if it takes too
    /// long.
    async fn stop(&self, node: &NodeName) -> Result<(), ClusterError>;
    /// Sets what links do from now on. Links that are not named stay as they are.
    async fn shape(&self, links: &BTreeMap<Link, LinkShape>) -> Result<(), ClusterError>;
    /// What the operating system says of the node.
    async fn state(&self, node: &NodeName) -> NodeState;
    /// Counters of a link.
    async fn link_stats(&self, link: &Link) -> LinkStats;
    /// Whether the node answers a client within a short time (at most about a second).
    async fn answers(&self, node: &NodeName) -> bool;
    /// Who leads, by the nodes' own claims (the highest rank wins), if anyone claims to.
    async fn leader(&self) -> Option<NodeName>;

    /// Until told otherwise, a death of this node is the doing of a fault, and not to be held against it.
    fn excuse(&self, _node: &NodeName, _excused: bool) {}
    /// Sends a train of packets over a link; `None` where there is no way to.
    async fn probe(&self, _link: &Link, _packets: u32) -> Option<Probe> {
        None
    }
    /// Ends a node like [`Cluster::kill`] and takes from its data folder what was not synced; with `torn`, a part of it
    /// that follows from that seed. Returns how many bytes were
    /// lost that the node was just syncing, and what was lost in words.
    async fn power_failure(
        &self,
        node: &NodeName,
        _torn: Option<u64>,
    ) -> Result<(u64, String), ClusterError> {
        Err(unsupported("power failure of", node))
    }
    /// Sets a node's wall clock off by so many nanoseconds, over restarts too; 0 sets it right. Returns by how much the
    /// node's clock was then measured to be off.
    async fn set_clock(&self, node: &NodeName, _offset_ns: i64) -> Result<i64, ClusterError> {
        Err(unsupported("set the clock of", node))
    }
    /// By how many nanoseconds a node's wall clock is off.
    async fn read_clock(&self, node: &NodeName) -> Result<i64, ClusterError> {
        Err(unsupported("read the clock of", node))
    }
    /// How often a node, watched for a moment, asks for the time in a way that no wrong clock reaches.
    async fn raw_clock_calls(&self, _node: &NodeName) -> Result<u64, ClusterError> {
        Ok(0)
    }
    /// Sets what goes wrong with a node's disk from now on.
    async fn trouble_disk(&self, node: &NodeName, _trouble: DiskTrouble) -> Result<(), ClusterError> {
        Err(unsupported("trouble the disk of", node))
    }
    /// Counters of a node's disk.
    async fn disk_stats(&self, _node: &NodeName) -> DiskStats {
        DiskStats::default()
    }
    /// Damages synced bytes in the data folder of a node that is not running. Returns what was done, in words.
    async fn damage(&self, node: &NodeName, _damage: Damage, _seed: u64) -> Result<String, ClusterError> {
        Err(unsupported("damage the data of", node))
    }
    /// Puts back what [`Cluster::damage`] took, if the node has not run on it.
    async fn repair(&self, node: &NodeName) -> Result<(), ClusterError> {
        Err(unsupported("repair the data of", node))
    }
    /// Limits what a node may use.
    async fn limit(&self, node: &NodeName, _limits: Limits) -> Result<(), ClusterError> {
        Err(unsupported("limit", node))
    }
    /// What a node uses.
    async fn usage(&self, _node: &NodeName) -> Usage {
        Usage::default()
    }
}

fn unsupported(what: &'static str, node: &NodeName) -> ClusterError {
    ClusterError { what, node: node.to_string(), why: "this kind of cluster cannot".to_owned() }
}
