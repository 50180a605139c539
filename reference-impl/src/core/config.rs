//! What a node is told once, at its start.
//!
//! ```text
//! heartbeat 50 ms ──── lease 600 ms ─────────────────┐ the grant: keeps a second leader away
//!                      election 150..400 ms ──┐      │ the suspicion: somebody should lead again
//!                                             └──────┴→ candidate after both
//! ```
//!
//! All nodes of a cluster must be given the same nodes, protocol and lease. Deliberately no defaults that differ by
//! machine, and no file: flags are enough (see `node`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::ballot::{NodeId, Slot};
use super::members::{Member, Members, Nodes};
use super::snapshot::Snapshots;
use crate::bugs::{Hooks, Shortcuts};

/// Which protocol decides. Fixed when a data directory is first used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Protocol {
    /// A leader prepares once for all slots; each command then takes one round trip.
    #[default]
    MultiPaxos,
    /// Any node proposes; each command prepares its own slot: two round trips.
    BasicPaxos,
}

impl Protocol {
    /// Name on the command line and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::MultiPaxos => "multi-paxos",
            Protocol::BasicPaxos => "basic-paxos",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a Basic Paxos proposer does after a lost round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Backoff {
    /// Tries again at once. Two proposers may outbid each other for ever (Chandra, Griesemer, Redstone 2007, §3).
    None,
    /// Waits for a random time, whose bound doubles with each round lost in a row.
    #[default]
    Random,
    /// Waits for twice as long as the last time, and for a little less after each command that went through (after van Renesse and
    /// Altinbuken, "Paxos Made Moderately Complex", §3: multiplicative increase, additive decrease).
    Aimd,
}

impl std::fmt::Display for Backoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Backoff::None => "none",
            Backoff::Random => "random",
            Backoff::Aimd => "aimd",
        })
    }
}

/// Durations, all on the node's own clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// For how long an acceptor binds itself to a leader with each acknowledged heartbeat.
    pub lease: Duration,
    /// Assumed largest error of any clock's *rate*, in parts per million. The leader counts on its lease for only
    /// `lease * (1 - rho) / (1 + rho)`.
    pub drift_ppm: u32,
    /// A follower suspects the leader after a random time of this range without a sign of life.
    pub election: (Duration, Duration),
    /// An accept without an answer is sent again after this long, then after twice as long, …
    pub resend: Duration,
    /// How long a command waits for somebody to lead before it is refused.
    pub leader_wait: Duration,
    /// Time for a command whose client named none.
    pub deadline: Duration,
    /// First bound of the random back-off between duelling Basic Paxos proposers; doubles with each lost round.
    pub backoff: Duration,
    /// Largest bound of that back-off.
    pub backoff_max: Duration,
    /// What bounds it.
    pub backoff_by: Backoff,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: Duration::from_millis(50),
            lease: Duration::from_millis(600),
            drift_ppm: 10_000,
            election: (Duration::from_millis(150), Duration::from_millis(400)),
            resend: Duration::from_millis(150),
            leader_wait: Duration::from_millis(700),
            deadline: Duration::from_millis(2_000),
            backoff: Duration::from_millis(5),
            backoff_max: Duration::from_millis(250),
            backoff_by: Backoff::default(),
        }
    }
}

impl Timing {
    /// A node that has not said what it says with every heartbeat, or every other one, for so long is taken to be down when the members are
    /// changed: after twenty heartbeats.
    pub fn presence(&self) -> Duration {
        self.heartbeat * 20
    }

    /// The part of an acknowledged lease that a leader may count on (Gray & Cheriton 1989, with rates instead of offsets).
    pub fn usable_lease(&self) -> Duration {
        let rho = f64::from(self.drift_ppm) / 1e6;
        self.lease.mul_f64((1.0 - rho) / (1.0 + rho))
    }
}

/// Everything a core is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// All voters; at the start those of configuration 0, this node included unless it joins.
    pub nodes: BTreeSet<NodeId>,
    /// The number of that configuration.
    pub number: u64,
    /// The same nodes and their addresses.
    pub members: Arc<Nodes>,
    /// This node is none of configuration 0: it learns until a change adds it.
    pub joins: bool,
    /// How commands are decided.
    pub protocol: Protocol,
    /// Durations.
    pub timing: Timing,
    /// How many slots may be open at once.
    pub window: u64,
    /// How many bytes may be open at once; one entry is always allowed.
    pub window_bytes: usize,
    /// How many commands may wait for the window.
    pub queue: usize,
    /// After how many applied entries a snapshot is taken; 0 for never.
    pub snapshot_every: u64,
    /// How many of the last slots of a snapshot stay in the log, for nodes that are a little behind.
    pub keep: u64,
    /// Bytes of one piece of a snapshot on its way to another node, roughly.
    pub piece_bytes: usize,
    /// Seed of the random waits. Together with the inputs it determines everything the core does.
    pub seed: u64,
    /// Different at each start, so that an answer to an earlier one is recognised. Its upper bits should grow from start to start: the
    /// first incarnation of a disk that joins is taken from them.
    pub nonce: u64,
    /// Planted bugs; none by default.
    pub hooks: Hooks,
    /// The same about changes of membership.
    pub shortcuts: Shortcuts,
}

impl Config {
    /// A node of a cluster with the usual settings.
    pub fn new(id: NodeId, nodes: impl IntoIterator<Item = NodeId>, protocol: Protocol) -> Self {
        let mut nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
        nodes.insert(id);
        Config {
            id,
            members: Arc::new(nodes.iter().map(|node| (*node, Member::default())).collect()),
            nodes,
            number: 0,
            joins: false,
            protocol,
            timing: Timing::default(),
            window: 1024,
            window_bytes: 16 << 20,
            queue: 8192,
            snapshot_every: 100_000,
            keep: 10_000,
            piece_bytes: 256 << 10,
            seed: 0,
            nonce: 0,
            hooks: Hooks::default(),
            shortcuts: Shortcuts::default(),
        }
    }

    /// The same for a node that is to be added to a cluster whose nodes these are.
    #[must_use]
    pub fn joining(mut self) -> Self {
        self.nodes.remove(&self.id);
        Arc::make_mut(&mut self.members).remove(&self.id);
        self.joins = true;
        self
    }

    /// Goes on to a configuration of the log.
    pub(super) fn enter(&mut self, members: &Members) {
        self.number = members.config;
        self.nodes = members.nodes.keys().copied().collect();
        self.members = Arc::new(members.nodes.clone());
    }

    /// The plan for snapshots of a node whose last one was taken at `slot`.
    pub(super) fn snapshots_after(&self, slot: Slot) -> Snapshots {
        let rank = self.nodes.iter().take_while(|node| **node != self.id).count();
        Snapshots::after(slot, self.snapshot_every, rank, self.nodes.len())
    }

    /// How many nodes decide.
    pub fn quorum(&self) -> usize {
        self.hooks.quorum(self.nodes.len())
    }

    /// All voters but this one.
    pub fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().copied().filter(|node| *node != self.id)
    }
}
