//! What nodes say to each other.
//!
//! ```text
//! phase 1   Prepare →   ← Promise | Nack          once for all slots (Multi-Paxos), or for each slot (Basic Paxos)
//! phase 2   Accept  →   ← Accepted | Nack         for each slot
//! leading   Heartbeat → ← HeartbeatAck            carries the commit index and renews the lease
//! learning  Fetch   →   ← Chosen | Snapshot       Chosen is also broadcast by a Basic Paxos proposer
//!           FetchSnapshot → ← Snapshot            piece by piece
//! starting  Hello   →   ← Welcome
//! reading   ReadQuery → ← ReadAnswer
//! clients   Forward →   ← ForwardReply
//! leaving   Release →                             a leader hands over
//! ```
//!
//! Any of them may be lost, delayed, duplicated or reordered: no handler may rely on order. (`Forward` of a command without
//! a session must not be duplicated; the transport sends it once.)

use std::sync::Arc;
use std::time::Duration;

use super::ballot::{Ballot, NodeId, Slot};
use super::command::{Command, Entry, EntryId, Reply};
use super::machine::{Cursor, Piece};

/// The slots that a prepare speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This slot and all after it.
    From(Slot),
    /// This slot alone.
    Only(Slot),
}

impl Scope {
    /// Its first slot.
    pub fn slot(self) -> Slot {
        match self {
            Scope::From(slot) | Scope::Only(slot) => slot,
        }
    }
}

/// What an acceptor has accepted for a slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    /// For which slot.
    pub slot: Slot,
    /// Under which ballot.
    pub ballot: Ballot,
    /// Which value.
    pub entry: Arc<Entry>,
}

/// A message between two nodes (or of a node to itself).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Message {
    /// Will you promise to ignore lower ballots?
    Prepare { ballot: Ballot, scope: Scope },
    /// I do. These are my votes in the scope above `commit`; at or below it everything is chosen: fetch it.
    Promise { ballot: Ballot, scope: Scope, commit: Slot, votes: Vec<Vote> },
    /// I do not: I have promised `promised`, or I am bound to a leader for `lease_left` more.
    Nack { ballot: Ballot, slot: Slot, promised: Ballot, lease_left: Duration },
    /// Please accept. Everything up to `commit` is chosen.
    Accept { ballot: Ballot, slot: Slot, entry: Arc<Entry>, commit: Slot },
    /// I have.
    Accepted { ballot: Ballot, slot: Slot },
    /// I lead. Acknowledging binds you to me for `lease`. (Basic Paxos: only tells `commit`.)
    Heartbeat { ballot: Ballot, commit: Slot, round: u64, lease: Duration },
    /// I am bound to you, counted from when I received `round`.
    HeartbeatAck { ballot: Ballot, round: u64 },
    /// What was chosen from this slot on?
    Fetch { from: Slot },
    /// This was; I know all up to `commit`.
    Chosen { entries: Vec<(Slot, Arc<Entry>)>, commit: Slot },
    /// What comes next in your snapshot up to `slot`?
    FetchSnapshot { slot: Slot, at: Cursor },
    /// What you need is forgotten here. This is a piece of the state after `slot`, whose prefix has this hash; `next` is
    /// where the next piece begins, if this is not the last.
    Snapshot { slot: Slot, hash: u64, at: Cursor, next: Option<Cursor>, piece: Piece },
    /// I have started, as incarnation `epoch`: remember that. 0: my directory is empty; do you know me?
    Hello { epoch: u64, nonce: u64 },
    /// The answer to a `Hello` with the same two numbers. Of you I knew incarnation `known` (0: none) before; I have promised,
    /// or claim, this ballot, and know of slots up to this one; I lead under this ballot, and shall propose this slot next.
    Welcome {
        epoch: u64,
        nonce: u64,
        known: u64,
        promised: Ballot,
        slot: Slot,
        leading: Option<(Ballot, Slot)>,
        /// The configuration that I am in.
        config: u64,
    },
    /// What is the highest slot that you have voted for, in this configuration?
    ReadQuery { config: u64, id: EntryId },
    /// This.
    ReadAnswer { config: u64, id: EntryId, last: Slot },
    /// I lead no more, and do not read by my lease: you are not bound to me any longer. `to` shall stand at once.
    Release { ballot: Ballot, to: NodeId },
    /// A client's command for the leader, who has `ttl` to answer.
    Forward { id: EntryId, command: Command, ttl: Duration },
    /// What came of it.
    ForwardReply { id: EntryId, reply: Box<Reply> },
}

impl Message {
    /// The configuration whose members it is about; `None` if it may be said to anyone.
    pub fn config(&self) -> Option<u64> {
        match self {
            Message::Prepare { ballot, .. }
            | Message::Promise { ballot, .. }
            | Message::Nack { ballot, .. }
            | Message::Accept { ballot, .. }
            | Message::Accepted { ballot, .. }
            | Message::Heartbeat { ballot, .. }
            | Message::HeartbeatAck { ballot, .. } => Some(ballot.config()),
            Message::ReadQuery { config, .. } | Message::ReadAnswer { config, .. } => Some(*config),
            Message::Fetch { .. }
            | Message::Chosen { .. }
            | Message::FetchSnapshot { .. }
            | Message::Snapshot { .. }
            | Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Release { .. }
            | Message::Forward { .. }
            | Message::ForwardReply { .. } => None,
        }
    }

    /// Whether its sender wants something, so that one who is behind is worth telling.
    pub(super) fn is_question(&self) -> bool {
        matches!(
            self,
            Message::Prepare { .. }
                | Message::Accept { .. }
                | Message::Heartbeat { .. }
                | Message::ReadQuery { .. }
        )
    }

    /// What it is called in counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Message::Prepare { .. } => "prepare",
            Message::Promise { .. } => "promise",
            Message::Nack { .. } => "nack",
            Message::Accept { .. } => "accept",
            Message::Accepted { .. } => "accepted",
            Message::Heartbeat { .. } => "heartbeat",
            Message::HeartbeatAck { .. } => "heartbeat-ack",
            Message::Fetch { .. } => "fetch",
            Message::Chosen { .. } => "chosen",
            Message::FetchSnapshot { .. } => "fetch-snapshot",
            Message::Snapshot { .. } => "snapshot",
            Message::Hello { .. } => "hello",
            Message::Welcome { .. } => "welcome",
            Message::ReadQuery { .. } => "read-query",
            Message::ReadAnswer { .. } => "read-answer",
            Message::Release { .. } => "release",
            Message::Forward { .. } => "forward",
            Message::ForwardReply { .. } => "forward-reply",
        }
    }
}
