//! What clients ask for, what consensus chooses (an [`Entry`] of the log), and what clients are told.
//!
//! ```text
//! Command { client: 7, seq: 3, op: Put { key: "a", value: "1" } }  →  Entry { id: 2/1/41, command }  →  Reply { Done, … }
//! ```
//!
//! Deliberately not the wire format: that is `proto/paxos_kv.proto`, translated in `codec`.

use std::time::Duration;

use prost::bytes::Bytes;

use super::ballot::{Ballot, NodeId, Slot};
use super::members::Nodes;

/// How a read may be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadMode {
    /// Linearizable; by the leader's lease without a round trip, else through the log.
    #[default]
    Lease,
    /// Linearizable; as an entry of the log.
    Log,
    /// Linearizable; from the leader's memory, once a majority has confirmed that it still leads.
    ReadIndex,
    /// Linearizable; from this node's memory, once all that a majority has voted for is applied.
    Quorum,
    /// Whatever the node has applied; not linearizable.
    Stale,
}

/// One operation on the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Op {
    /// Reads a key.
    Get { key: String, mode: ReadMode },
    /// Writes a key.
    Put { key: String, value: Bytes },
    /// Writes `new` if the value is `expected` (`None`: if the key is absent).
    Cas { key: String, expected: Option<Bytes>, new: Bytes },
    /// Appends to the value; an absent one counts as empty.
    Append { key: String, value: Bytes },
    /// Removes a key.
    Delete { key: String },
    /// Ends configuration `from`, and begins the next one with these nodes.
    Reconfigure { from: u64, nodes: Nodes },
}

impl Op {
    /// The key that it concerns; empty if it concerns the cluster.
    pub fn key(&self) -> &str {
        match self {
            Op::Get { key, .. }
            | Op::Put { key, .. }
            | Op::Cas { key, .. }
            | Op::Append { key, .. }
            | Op::Delete { key } => key,
            Op::Reconfigure { .. } => "",
        }
    }

    /// Whether it only looks.
    pub fn is_read(&self) -> bool {
        matches!(self, Op::Get { .. })
    }

    /// Bytes of the key and the values.
    pub fn size(&self) -> usize {
        self.key().len()
            + match self {
                Op::Get { .. } | Op::Delete { .. } => 0,
                Op::Reconfigure { nodes, .. } => nodes.values().map(|member| 16 + member.address.len()).sum(),
                Op::Put { value, .. } | Op::Append { value, .. } => value.len(),
                Op::Cas { expected, new, .. } => expected.as_ref().map_or(0, Bytes::len) + new.len(),
            }
    }
}

/// An operation of a client. `(client, seq)` is applied once; `seq` 0 means "no session".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Command {
    /// Who asks.
    pub client: u64,
    /// The client's own count, from 1; a retry keeps it.
    pub seq: u64,
    /// What to do.
    pub op: Op,
}

impl Command {
    /// Whether running it twice cannot be told from running it once: reads, whatever the session table guards, and changes of
    /// membership, which name what they replace.
    pub fn may_be_sent_again(&self) -> bool {
        self.seq != 0 || self.op.is_read() || matches!(self.op, Op::Reconfigure { .. })
    }
}

/// Names one proposal, or one forwarded command, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Node that made it.
    pub node: NodeId,
    /// That node's incarnation.
    pub epoch: u64,
    /// A counter within the incarnation.
    pub n: u64,
}

/// A value that consensus can choose for a slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Tells two proposals of equal commands apart.
    pub id: EntryId,
    /// `None` is a no-op: it fills a gap, or serves as a new leader's barrier.
    pub command: Option<Command>,
}

impl Entry {
    /// Whether it is a change of membership, whether or not that counts.
    pub fn is_change(&self) -> bool {
        matches!(&self.command, Some(Command { op: Op::Reconfigure { .. }, .. }))
    }

    /// Whether it is the stop-sign of configuration `config`.
    pub fn ends(&self, config: u64) -> bool {
        let op = self.command.as_ref().map(|command| &command.op);
        matches!(op, Some(Op::Reconfigure { from, .. }) if *from == config)
    }

    /// Bytes it takes, roughly.
    pub fn size(&self) -> usize {
        48 + self.command.as_ref().map_or(0, |command| command.op.size())
    }
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Output {
    /// Of a read.
    Value(Option<Bytes>),
    /// Of a compare-and-set: whether it swapped, and what it found.
    Cas { swapped: bool, found: Option<Bytes> },
    /// Of everything else.
    Done,
}

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// Definitely not applied: this node does not lead and did not forward.
    NotLeader,
    /// Definitely not applied: the request is malformed; why.
    Invalid(String),
    /// Definitely not applied: there was no room, or no time, to propose it; which.
    Overloaded(&'static str),
    /// Nobody knows whether it was or will be applied; why.
    Unknown(&'static str),
    /// A newer command of this client was applied; the reply to this one is no longer kept.
    StaleSeq,
}

impl Failure {
    /// Whether the command certainly has no effect, now or later.
    pub fn is_definite(&self) -> bool {
        matches!(self, Failure::NotLeader | Failure::Invalid(_) | Failure::Overloaded(_))
    }
}

/// The way by which a command was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Not served.
    #[default]
    None,
    /// Proposed under a ballot that was already prepared.
    OneRtt,
    /// Waited for its own prepare phase.
    TwoRtt,
    /// From the leader's state, under its lease.
    LeaseRead,
    /// From the leader's state, after a round of heartbeats.
    ReadIndex,
    /// From this replica's state, after a majority was asked.
    QuorumRead,
    /// From this replica's state.
    StaleRead,
    /// A duplicate, answered from the session table.
    Retry,
}

impl Path {
    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Path::None => "",
            Path::OneRtt => "1-rtt",
            Path::TwoRtt => "2-rtt",
            Path::LeaseRead => "lease-read",
            Path::ReadIndex => "read-index",
            Path::QuorumRead => "quorum-read",
            Path::StaleRead => "stale-read",
            Path::Retry => "retry",
        }
    }

    /// The path called `name`; [`Path::None`] for any other.
    pub fn named(name: &str) -> Path {
        let all = [
            Path::OneRtt,
            Path::TwoRtt,
            Path::LeaseRead,
            Path::ReadIndex,
            Path::QuorumRead,
            Path::StaleRead,
            Path::Retry,
        ];
        all.into_iter().find(|path| path.name() == name).unwrap_or_default()
    }
}

/// How a command was served; durations were measured at the proposer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Served {
    /// By which way.
    pub path: Path,
    /// It reached the proposer through another node.
    pub forwarded: bool,
    /// Where it is in the log, or for a local read the newest applied slot.
    pub slot: Slot,
    /// Under which ballot it was proposed.
    pub ballot: Ballot,
    /// Node that proposed or answered.
    pub node: NodeId,
    /// Waiting before it was proposed.
    pub queue: Duration,
    /// From the proposal (Basic Paxos: from the first prepare) until it was known to be chosen.
    pub commit: Duration,
    /// Of `commit`: until its own prepare phase was over, zero under a ballot that was already prepared.
    pub phase1: Duration,
    /// The proposer's own fsync of the entry; zero if the others were faster.
    pub fsync: Duration,
    /// From known-chosen until applied.
    pub apply: Duration,
    /// Prepare rounds that this command needed.
    pub rounds: u32,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reply {
    /// What came of it.
    pub result: Result<Output, Failure>,
    /// How it was served.
    pub served: Served,
    /// Believed leader, 0 if none; meaningful with [`Failure::NotLeader`].
    pub leader_hint: NodeId,
}
