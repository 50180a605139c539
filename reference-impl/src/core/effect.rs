//! What goes into a core and what comes out of it.
//!
//! ```text
//! step(now, Input::Client { call: 7, … }) = [ Persist { token: 3, … }, Send { to: 2, …, after: None }, … ]
//! step(now, Input::Persisted(3))          = [ … ]      step(…) = [ …, Reply { call: 7, … } ]
//! ```
//!
//! Deliberately only words: how they are obeyed is the driver's part, or the simulator's.

use std::sync::Arc;
use std::time::Duration;

use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::command::{Command, Reply};
use super::members::Nodes;
use super::message::Message;
use super::observed::Checkpoint;
use super::record::Record;
use super::snapshot::Snapshot;

/// Names a write to the log; grows by one with each. Reporting one reports all before it.
pub type Token = u64;

/// Names a client's call at this node; the driver's choice.
pub type Call = u64;

/// What can happen to a core.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Input {
    /// A message arrived.
    Message { from: NodeId, message: Message },
    /// A client calls. `deadline` is how long the node may keep trying (`None`: `Timing::deadline`).
    Client { call: Call, command: Command, deadline: Option<Duration>, no_forward: bool },
    /// Time has passed.
    Tick,
    /// Hand leadership over, if this node leads: it is about to stop.
    HandOver,
    /// This token, and every one before it, is on disk.
    Persisted(Token),
    /// The snapshot that ends with this slot is on disk, under its name.
    SnapshotSaved(Slot),
}

/// What a core wants done, in this order.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Effect {
    /// Write these records, in the order of their tokens, then report `Input::Persisted(token)`.
    Persist { token: Token, records: Vec<Record> },
    /// Write this snapshot in the place of the one before, then report `Input::SnapshotSaved`. There is one at a time.
    Snapshot(Arc<Snapshot>),
    /// From now on say in every batch that this incarnation speaks. (Before, it was none: 0.)
    Incarnation(u64),
    /// Replace everything in the log by these records, all of it or nothing, then report `Input::Persisted(token)`.
    Truncate { token: Token, records: Vec<Record> },
    /// Send, but not before `after` is on disk.
    Send { to: NodeId, message: Message, after: Option<Token> },
    /// Answer a call, once.
    Reply { call: Call, reply: Box<Reply> },
    /// These decide from now on: be connected with them.
    Members(Arc<Nodes>),
    /// Tell the operator.
    Note(Note),
}

impl From<Note> for Effect {
    fn from(note: Note) -> Effect {
        Effect::Note(note)
    }
}

/// Something an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Note {
    /// Stands for election.
    Candidate { ballot: Ballot, after: Slot },
    /// Has a quorum of promises; `reproposed` open slots were taken over, reads wait for `barrier`.
    Elected { ballot: Ballot, reproposed: usize, barrier: Slot },
    /// No longer leads; why.
    SteppedDown { ballot: Ballot, why: &'static str },
    /// Follows a new leader.
    Follows { ballot: Ballot },
    /// A leader asks for a longer lease than this node was configured for; its heartbeats are not acknowledged.
    LeaseTooLong { leader: NodeId, asked: Duration },
    /// The directory was empty, but others know this node: it has no vote until it knows what it has forgotten.
    LostItsDisk { epoch: u64 },
    /// It does.
    VotesAgain { applied: Slot },
    /// The directory was empty, and the node was started to be added: it has no vote until a change does that.
    Joins { epoch: u64 },
    /// The slots behind `since` are decided by this configuration, of which this node is a member or not.
    Configuration { config: u64, since: Slot, member: bool },
    /// The log now begins behind this slot; a snapshot stands for what was before.
    Truncated { slot: Slot },
    /// A snapshot of another node was put in place: this one had applied only up to `from`.
    Installed { from: Slot, to: Slot },
    /// Two values were learned for one slot: the cluster has lost data, or a node's disk was changed.
    Conflict { slot: Slot },
}

/// What a node believes at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Status {
    pub node: NodeId,
    /// `leader`, `candidate`, `follower` or `proposer`; without a vote `joining` (its directory was empty, and not all others
    /// have answered yet) or `learner` (it knows too little, or is no member).
    pub role: &'static str,
    pub promised: Ballot,
    pub leading: Option<Ballot>,
    /// Believed leader, 0 if none.
    pub leader: NodeId,
    pub commit: Slot,
    pub applied: Slot,
    pub last_slot: Slot,
    /// On the node's own clock.
    pub lease_until: Option<Mono>,
    pub elections_won: u64,
    /// Rounds of Basic Paxos that this incarnation has lost to others.
    pub preempted: u64,
    pub applied_hash: u64,
    /// This incarnation; 0 while it is not known.
    pub epoch: u64,
    /// The promise for all slots that others may have been told of: it survives a crash.
    pub told: Ballot,
    /// The same when this incarnation began: what the disk remembered.
    pub recovered: Ballot,
    /// The first slot that the log may hold.
    pub first_slot: Slot,
    /// The last slot of the snapshot on the disk, 0 without one.
    pub snapshot: Slot,
    /// What the applied prefix came to.
    pub here: Checkpoint,
    /// Writes that are on their way to the disk.
    pub unsynced: u64,
    /// Number of the configuration, and its nodes.
    pub config: u64,
    pub members: Arc<Nodes>,
}
