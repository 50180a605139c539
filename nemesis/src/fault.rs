//! The kinds of faults, and one fault as a plan states it.
//!
//! ```yaml
//! - {fault: kill, target: leader}
//! - {fault: partition, shape: isolate-leader}
//! - {fault: partition, shape: clients, target: leader}
//! - {fault: partition, cut: [n1>n2, n3>n1]}
//! - {fault: partition, groups: [[n1, n2], [n3, n4, n5]]}
//! - {fault: slow, target: one, link: {delay: 50ms, jitter: 20ms}}
//! - {fault: slow, target: n1, peers: n2, link: {delay: 50ms}}
//! - {fault: loss, target: all, link: {loss: 0.2}}
//! - {fault: clock-bump, target: leader, clock: {behind: 2s}}
//! - {fault: slow-disk, target: minority, disk: {sync-delay: 100ms}}
//! - {fault: cpu-limit, target: one, limit: {cpus: 0.1}}
//! ```

use crate::{
    cluster::{Capability, ClockChange, DiskTrouble, Limits, Link, LinkShape, NodeName},
    grudge::{self, CLIENTS, Shape},
    target::Target,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// What can be done. `tribunal list` prints [`FaultKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// SIGKILL, and a start at the end of the interval.
    Kill,
    /// SIGSTOP, and SIGCONT at the end of the interval.
    Pause,
    /// SIGTERM, and a start as soon as the node is gone.
    Restart,
    /// SIGTERM, and a start at the end of the interval.
    Stop,
    /// SIGKILL and the loss of what was not synced; a start at the end of the interval.
    PowerFailure,
    /// A power failure that loses only some of the sectors that were not synced.
    TornWrite,
    /// The links of a [`Shape`] are cut.
    Partition,
    /// The links from and to the target get the shape in `link`.
    Slow,
    /// The links from and to the target lose packets.
    Loss,
    /// The links from and to the target deliver packets twice.
    Duplicate,
    /// The links from and to the target deliver packets out of order.
    Reorder,
    /// The links from and to the target flip bits.
    Corrupt,
    /// The wall clock jumps, and back at the end of the interval.
    ClockBump,
    /// The wall clock jumps to and fro.
    ClockStrobe,
    /// The wall clock runs too fast or too slow, and is set right at the end of the interval.
    ClockDrift,
    /// fsync takes its time.
    SlowDisk,
    /// No space is left for writes.
    DiskFull,
    /// Writes and fsyncs fail with EIO.
    DiskError,
    /// A bit that was synced is flipped while the node is down.
    BitFlip,
    /// The end of a file that was synced is cut off while the node is down.
    Truncate,
    /// All that the node had on its disk is lost while it is down, and it is started without it.
    Wipe,
    /// The node gets little processor time.
    CpuLimit,
    /// The node gets little memory.
    MemoryLimit,
}

/// What a kind of fault is done to; the injection of each family is one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The node's process.
    Process,
    /// Links.
    Network,
    /// The node's wall clock.
    Clock,
    /// The disk below the node's data folder.
    Disk,
    /// Bytes that were synced.
    Damage,
    /// What the node may use.
    Limits,
}

impl FaultKind {
    /// All kinds, each with a line of explanation.
    pub const ALL: &'static [(FaultKind, &'static str)] = &[
        (FaultKind::Kill, "SIGKILL the target's process group; started again when the interval ends"),
        (FaultKind::Pause, "SIGSTOP the target; SIGCONT when the interval ends"),
        (FaultKind::Restart, "SIGTERM the target and start it again as soon as it is gone"),
        (
            FaultKind::Stop,
            "SIGTERM the target, so that it can take its leave; started again when the interval ends",
        ),
        (
            FaultKind::PowerFailure,
            "kill the target and lose what it had not synced; start it when the interval ends",
        ),
        (FaultKind::TornWrite, "a power failure that loses only some of the sectors that were not synced"),
        (
            FaultKind::Partition,
            "cut links between nodes, or to clients (shape: isolate-one, ..., or cut: [n1>n2], or groups)",
        ),
        (FaultKind::Slow, "shape the target's links: delay, jitter, bytes-per-second, reset-probability"),
        (FaultKind::Loss, "the target's links lose packets (link: {loss: 0.2})"),
        (FaultKind::Duplicate, "the target's links deliver packets twice (link: {duplicate: 0.2})"),
        (FaultKind::Reorder, "the target's links reorder packets (link: {reorder: 0.2, delay: 10ms})"),
        (FaultKind::Corrupt, "the target's links flip bits (link: {corrupt: 0.05})"),
        (FaultKind::ClockBump, "the target's wall clock jumps (clock: {ahead: 2s} or {behind: 2s})"),
        (
            FaultKind::ClockStrobe,
            "the target's wall clock jumps to and fro (clock: {ahead: 2s, every: 100ms})",
        ),
        (FaultKind::ClockDrift, "the target's wall clock runs at another rate (clock: {rate: 1.5})"),
        (FaultKind::SlowDisk, "fsync in the target's data folder takes longer (disk: {sync-delay: 100ms})"),
        (FaultKind::DiskFull, "no space is left in the target's data folder (disk: {space-bytes: 0})"),
        (FaultKind::DiskError, "writes and fsyncs in the target's data folder fail with EIO"),
        (
            FaultKind::BitFlip,
            "flip a synced bit of the target's data while it is down; it should refuse to start",
        ),
        (
            FaultKind::Truncate,
            "cut off synced bytes of the target's data while it is down; it should refuse to start",
        ),
        (FaultKind::Wipe, "kill the target, empty its data folder, and start it; it should not vote at once"),
        (FaultKind::CpuLimit, "the target gets little processor time (limit: {cpus: 0.1})"),
        (FaultKind::MemoryLimit, "the target gets little memory (limit: {memory-mb: 16})"),
    ];

    /// The name that plans, histories and reports use.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::Pause => "pause",
            FaultKind::Restart => "restart",
            FaultKind::Stop => "stop",
            FaultKind::PowerFailure => "power-failure",
            FaultKind::TornWrite => "torn-write",
            FaultKind::Partition => "partition",
            FaultKind::Slow => "slow",
            FaultKind::Loss => "loss",
            FaultKind::Duplicate => "duplicate",
            FaultKind::Reorder => "reorder",
            FaultKind::Corrupt => "corrupt",
            FaultKind::ClockBump => "clock-bump",
            FaultKind::ClockStrobe => "clock-strobe",
            FaultKind::ClockDrift => "clock-drift",
            FaultKind::SlowDisk => "slow-disk",
            FaultKind::DiskFull => "disk-full",
            FaultKind::DiskError => "disk-error",
            FaultKind::BitFlip => "bit-flip",
            FaultKind::Truncate => "truncate",
            FaultKind::Wipe => "wipe",
            FaultKind::CpuLimit => "cpu-limit",
            FaultKind::MemoryLimit => "memory-limit",
        }
    }

    /// What it is done to.
    pub fn family(self) -> Family {
        match self {
            FaultKind::Kill
            | FaultKind::Pause
            | FaultKind::Restart
            | FaultKind::Stop
            | FaultKind::PowerFailure
            | FaultKind::TornWrite => Family::Process,
            FaultKind::Partition
            | FaultKind::Slow
            | FaultKind::Loss
            | FaultKind::Duplicate
            | FaultKind::Reorder
            | FaultKind::Corrupt => Family::Network,
            FaultKind::ClockBump | FaultKind::ClockStrobe | FaultKind::ClockDrift => Family::Clock,
            FaultKind::SlowDisk | FaultKind::DiskFull | FaultKind::DiskError => Family::Disk,
            FaultKind::BitFlip | FaultKind::Truncate | FaultKind::Wipe => Family::Damage,
            FaultKind::CpuLimit | FaultKind::MemoryLimit => Family::Limits,
        }
    }

    /// Whether a node that this is done to may be unable to take part in a majority.
    pub fn takes_down(self) -> bool {
        match self.family() {
            Family::Process | Family::Damage => true,
            Family::Network | Family::Clock => false,
            Family::Disk => self != FaultKind::SlowDisk,
            Family::Limits => self == FaultKind::MemoryLimit,
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
    /// To whom (everything but a partition between nodes). Defaults to one node at random.
    #[serde(default)]
    pub target: Target,
    /// Which links are cut (partition).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// These links are cut, `n1>n2` or `clients>n1`, instead of a shape's (partition).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<Link>,
    /// The links between nodes of different groups are cut, instead of a shape's (partition).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Vec<NodeName>>,
    /// Reset connections instead of holding their bytes (partition).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// What the links do (slow, loss, duplicate, reorder, corrupt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkShape>,
    /// Only the links between the target and these (slow, loss, duplicate, reorder, corrupt): one link can be slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Target>,
    /// What the clock does (clock-bump, clock-strobe, clock-drift).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockChange>,
    /// What the disk does (slow-disk, disk-full).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskTrouble>,
    /// What the node may use (cpu-limit, memory-limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limits>,
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
    /// What the cluster must be able to do.
    pub fn needs(&self) -> BTreeSet<Capability> {
        let mut needs = self.link.map(|l| l.needs()).unwrap_or_default();
        needs.extend(match self.fault {
            FaultKind::Kill | FaultKind::Pause | FaultKind::Restart | FaultKind::Stop => {
                Some(Capability::Processes)
            }
            FaultKind::PowerFailure | FaultKind::TornWrite => Some(Capability::PowerFailure),
            FaultKind::Partition if self.shape.is_some_and(Shape::of_clients) => Some(Capability::Clients),
            FaultKind::Partition => Some(Capability::Cut),
            // The link says.
            FaultKind::Slow
            | FaultKind::Loss
            | FaultKind::Duplicate
            | FaultKind::Reorder
            | FaultKind::Corrupt => None,
            FaultKind::ClockBump | FaultKind::ClockStrobe | FaultKind::ClockDrift => Some(Capability::Clock),
            FaultKind::SlowDisk | FaultKind::DiskFull | FaultKind::DiskError => Some(Capability::Disk),
            FaultKind::BitFlip | FaultKind::Truncate | FaultKind::Wipe => Some(Capability::Damage),
            FaultKind::CpuLimit => Some(Capability::Cpu),
            FaultKind::MemoryLimit => Some(Capability::Memory),
        });
        needs.extend(self.named_ends().any(|end| &**end == CLIENTS).then_some(Capability::Clients));
        needs
    }

    /// The nodes that `cut` and `groups` name, and perhaps the clients.
    pub fn named_ends(&self) -> impl Iterator<Item = &NodeName> {
        self.cut.iter().flat_map(|l| [&l.from, &l.to]).chain(self.groups.iter().flatten())
    }

    /// What does not fit together in this fault, if anything.
    pub fn mistake(&self) -> Option<String> {
        let kind = self.fault;
        let family = kind.family();
        if kind == FaultKind::Partition {
            let explicit = !self.cut.is_empty() || !self.groups.is_empty();
            if self.shape.is_none() && !explicit {
                return Some(format!(
                    "a partition needs a `shape`, one of {}; or links to `cut`, or `groups`",
                    Shape::names()
                ));
            }
            if self.shape.is_some() && explicit {
                return Some("a partition takes either a `shape` or links to `cut` and `groups`".to_owned());
            }
            if self.target != Target::default() && !self.shape.is_some_and(Shape::of_clients) {
                return Some(
                    "a partition takes a `shape`, not a `target` (those of clients take both)".to_owned(),
                );
            }
            if let Some(mistake) = grudge::mistake(&self.cut, &self.groups) {
                return Some(mistake);
            }
        } else if self.shape.is_some() {
            return Some(format!("`{kind}` takes a `target`, not a `shape`"));
        }
        let takes_link = family == Family::Network && kind != FaultKind::Partition;
        let belongs = [
            ("link", self.link.is_some(), takes_link, "slow, loss, duplicate, reorder and corrupt"),
            ("peers", self.peers.is_some(), takes_link, "slow, loss, duplicate, reorder and corrupt"),
            ("reset", self.reset, kind == FaultKind::Partition, "partition"),
            ("cut", !self.cut.is_empty(), kind == FaultKind::Partition, "partition"),
            ("groups", !self.groups.is_empty(), kind == FaultKind::Partition, "partition"),
            ("clock", self.clock.is_some(), family == Family::Clock, "the clock faults"),
            ("disk", self.disk.is_some(), family == Family::Disk, "slow-disk and disk-full"),
            ("limit", self.limit.is_some(), family == Family::Limits, "cpu-limit and memory-limit"),
        ];
        if let Some((field, _, _, whose)) = belongs.iter().find(|(_, given, taken, _)| *given && !taken) {
            return Some(format!("`{kind}` takes no `{field}`; that belongs to {whose}"));
        }
        if self.weight == 0 {
            return Some("a `weight` of 0 means never; leave the fault out instead".to_owned());
        }
        self.missing()
    }

    /// What the fault needs to be told and was not.
    fn missing(&self) -> Option<String> {
        let kind = self.fault;
        if let Some(mistake) = self.link.and_then(|l| l.mistake()) {
            return Some(mistake);
        }
        let link = self.link.unwrap_or_default();
        let clock = self.clock.unwrap_or_default();
        let one_way = (clock.ahead.ns() > 0) != (clock.behind.ns() > 0);
        let (ok, example) = match kind {
            FaultKind::Slow => (
                link.delay.ns() > 0
                    || link.jitter.ns() > 0
                    || link.bytes_per_second > 0
                    || link.reset_probability > 0.0,
                "a `link`, for example `link: {delay: 50ms}`",
            ),
            FaultKind::Loss => (link.loss > 0.0, "a `link` that loses, for example `link: {loss: 0.2}`"),
            FaultKind::Duplicate => (link.duplicate > 0.0, "for example `link: {duplicate: 0.2}`"),
            FaultKind::Reorder => (link.reorder > 0.0, "for example `link: {reorder: 0.2, delay: 10ms}`"),
            FaultKind::Corrupt => (link.corrupt > 0.0, "for example `link: {corrupt: 0.05}`"),
            FaultKind::ClockBump => (
                one_way && clock.every.is_zero() && clock.rate == 0.0,
                "`clock: {ahead: 2s}` or `{behind: 2s}`",
            ),
            FaultKind::ClockStrobe => (
                one_way && clock.every.ns() >= 5_000_000 && clock.rate == 0.0,
                "for example `clock: {ahead: 2s, every: 100ms}`, with at least 5ms",
            ),
            FaultKind::ClockDrift => (
                clock.rate > 0.0 && clock.rate != 1.0 && !one_way && clock.every.is_zero(),
                "a rate above 0 that is not 1, for example `clock: {rate: 1.5}`",
            ),
            FaultKind::SlowDisk => (
                self.disk.is_some_and(|d| d.sync_delay.ns() > 0 && d.space_bytes.is_none()),
                "for example `disk: {sync-delay: 100ms}`",
            ),
            FaultKind::DiskFull => {
                (self.disk.is_none_or(|d| d.sync_delay.is_zero()), "at most `disk: {space-bytes: 65536}`")
            }
            FaultKind::DiskError => (self.disk.is_none(), "no `disk`"),
            FaultKind::CpuLimit => (
                self.limit.is_some_and(|l| l.cpus > 0.0 && l.cpus.is_finite() && l.memory_mb == 0),
                "for example `limit: {cpus: 0.1}`",
            ),
            FaultKind::MemoryLimit => (
                self.limit.is_some_and(|l| l.memory_mb > 0 && l.cpus == 0.0),
                "for example `limit: {memory-mb: 16}`",
            ),
            _ => (true, ""),
        };
        (!ok).then(|| format!("`{kind}` needs {example}"))
    }

    /// In words: `kill leader`, `partition isolate-one`.
    pub fn describe(&self) -> String {
        let reset = if self.reset { " (reset)" } else { "" };
        match self.shape {
            Some(shape) if shape.of_clients() => format!("{} {shape} {}{reset}", self.fault, self.target),
            Some(shape) => format!("{} {shape}{reset}", self.fault),
            None if self.fault == FaultKind::Partition => {
                let links = self.cut.iter().map(|l| format!("{}>{}", l.from, l.to)).collect::<Vec<_>>();
                let sides = self.groups.iter().map(|g| g.join(" ")).collect::<Vec<_>>().join(" | ");
                let parts = [links.join(" "), sides];
                let parts = parts.iter().filter(|p| !p.is_empty()).map(String::as_str).collect::<Vec<_>>();
                format!("{} {}{reset}", self.fault, parts.join(", "))
            }
            None => match &self.peers {
                Some(peers) => format!("{} {} to {peers}", self.fault, self.target),
                None => format!("{} {}", self.fault, self.target),
            },
        }
    }
}
