//! An attack on a simulated cluster: random clients and faults, judged while it goes on.
//!
//! ```text
//! load and faults ─────────────→ everything is healed ─→ every key is read, all nodes have applied the same ─→ Report
//!        └ an invariant, or a list that cannot be: Violation
//! ```
//!
//! A violation found once is found again with the same seed. Deliberately no general tester: its operations are chosen so
//! that judging them is cheap.

mod clients;
mod faults;
mod lists;
mod user;

use std::time::Duration;

use crate::bugs::{Hooks, Shortcuts};
use crate::core::Protocol;

/// What goes wrong, and how often.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Share of messages that are lost.
    pub loss: f64,
    /// Share of messages that arrive twice. (Never a forwarded command: the transport sends those once.)
    pub duplication: f64,
    /// Longest delay of a link; each message draws its own, so that they overtake each other.
    pub delay: Duration,
    /// Mean time between two faults of the kinds below; zero means none.
    pub every: Duration,
    /// Whether nodes are killed, and everything unsynced is lost.
    pub crashes: bool,
    /// Whether nodes are paused for a while.
    pub pauses: bool,
    /// Whether the network is partitioned: at random, or with the leader on the smaller side.
    pub partitions: bool,
    /// Whether nodes lose their disks, one at a time.
    pub wipes: bool,
    /// Whether disks fail for a while, or become unreadable while their node is down.
    pub disks: bool,
    /// Whether disks, of any node, take long for a while.
    pub slow_disks: bool,
    /// Whether the members are changed, to any three to five of the nodes.
    pub changes: bool,
    /// Largest error of the rate of a clock, in parts per million.
    pub drift_ppm: u32,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            loss: 0.02,
            duplication: 0.02,
            delay: Duration::from_millis(4),
            every: Duration::from_millis(350),
            crashes: true,
            pauses: true,
            partitions: true,
            wipes: true,
            disks: false,
            slow_disks: false,
            changes: false,
            drift_ppm: 9_000,
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that is random.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many of them are the members at first.
    pub members: u32,
    /// How it decides.
    pub protocol: Protocol,
    /// Virtual time under load and faults; then everything is healed and must converge.
    pub load: Duration,
    /// Concurrent clients.
    pub clients: u32,
    /// What goes wrong.
    pub faults: Faults,
    /// After how many applied entries a node takes a snapshot. Few, so that a run has many of them.
    pub snapshot_every: u64,
    /// How many slots stay in its log then.
    pub keep: u64,
    /// Bugs planted in every node.
    pub hooks: Hooks,
    /// The same about changes of membership.
    pub shortcuts: Shortcuts,
    /// Whether the nodes' own invariants are checked too, or only what clients see.
    pub look_inside: bool,
    /// Whether nodes are ticked more often than they ask for, which must change nothing.
    pub idle_ticks: bool,
}

impl Setup {
    /// A run of a correct cluster under all faults.
    pub fn new(seed: u64, nodes: u32, protocol: Protocol) -> Self {
        Setup {
            seed,
            nodes,
            members: nodes,
            protocol,
            load: Duration::from_secs(4),
            clients: 6,
            faults: Faults::default(),
            snapshot_every: 20,
            keep: seed % 3 * 5,
            hooks: Hooks::default(),
            shortcuts: Shortcuts::default(),
            look_inside: true,
            idle_ticks: false,
        }
    }

    /// A run of six nodes, of which three decide at first, whose members change.
    pub fn changing(seed: u64) -> Self {
        let faults = Faults { changes: true, ..Faults::default() };
        Setup { members: 3, faults, ..Setup::new(seed, 6, Protocol::MultiPaxos) }
    }

    /// The same, with disks that are slow or fail: a node so forgets more in a crash.
    pub fn changing_on_bad_disks(seed: u64) -> Self {
        let mut setup = Setup::changing(seed);
        (setup.faults.disks, setup.faults.slow_disks) = (true, true);
        setup
    }
}

/// What happened in a run that found nothing: proof that it was not vacuous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Report {
    pub slots: u64,
    pub elections: u64,
    pub crashes: u64,
    pub pauses: u64,
    pub partitions: u64,
    pub ok: u64,
    pub unknown: u64,
    pub refused: u64,
    pub lease_reads: u64,
    pub index_reads: u64,
    pub quorum_reads: u64,
    pub hand_overs: u64,
    pub forwarded: u64,
    pub retries: u64,
    pub snapshots: u64,
    pub installed: u64,
    pub wiped: u64,
    pub rejoined: u64,
    pub disk_errors: u64,
    pub damaged: u64,
    pub configurations: u64,
    pub steps: u64,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Report) {
        self.slots += other.slots;
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.partitions += other.partitions;
        self.ok += other.ok;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.lease_reads += other.lease_reads;
        self.index_reads += other.index_reads;
        self.quorum_reads += other.quorum_reads;
        self.hand_overs += other.hand_overs;
        self.forwarded += other.forwarded;
        self.retries += other.retries;
        self.snapshots += other.snapshots;
        self.installed += other.installed;
        self.wiped += other.wiped;
        self.rejoined += other.rejoined;
        self.disk_errors += other.disk_errors;
        self.damaged += other.damaged;
        self.configurations += other.configurations;
        self.steps += other.steps;
    }
}

/// What was found, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (seed {seed}, at {at_ms} ms)")]
pub struct Violation {
    /// What is wrong.
    pub what: String,
    /// Seed of the run.
    pub seed: u64,
    /// Virtual time.
    pub at_ms: u64,
}

/// Runs a cluster.
///
/// # Errors
/// The first [`Violation`] of an invariant, of linearizability as clients see it, or of progress after everything was healed.
pub fn run(setup: &Setup) -> Result<Report, Violation> {
    user::User::new(setup).run()
}
