//! What a node writes down before it speaks, and what it knows again after a restart.
//!
//! ```text
//! Start{epoch 3} Promised{7.2} Accepted{slot 41, 7.2, e} Accepted{slot 42, 7.2, e'} Commit{41}
//!                            fold
//! Durable { epoch: 3, promised: 7.2, votes: {41: e, 42: e'}, chosen: {}, commit: 41 }
//! ```
//!
//! [`Record::Commit`] is a hint and never waited for: it may be old, but what it says is true, because the records before
//! it are in the log too. Deliberately no file format: that is `wal`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ballot::{Ballot, NodeId, Slot};
use super::command::Entry;
use super::config::Config;
use super::joining::Forgotten;
use super::message::{Scope, Vote};
use super::snapshot::Snapshot;

/// One line of a node's diary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Record {
    /// A new incarnation, which may grant leases of this length.
    Start { epoch: u64, lease: Duration },
    /// No ballot below this one will be helped in these slots.
    Promised { ballot: Ballot, scope: Scope },
    /// Voted.
    Accepted(Vote),
    /// Learned from others; the own vote differs or is missing.
    Chosen { slot: Slot, entry: Arc<Entry> },
    /// All slots up to here are chosen, with the values of the records before this one.
    Commit { slot: Slot },
    /// The log begins behind this slot: what was before is in the snapshot, which reaches at least to here.
    Truncated { slot: Slot },
    /// This incarnation of another node has greeted this one.
    Known { node: NodeId, epoch: u64 },
    /// This node has lost what it had written, up to these bounds, and has no vote; or (`None`) it has one again.
    Forgotten(Option<Forgotten>),
}

/// All that survives a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Durable {
    /// Number of starts so far. (The first of a node that joins is drawn, so that no other disk has had it.)
    pub epoch: u64,
    /// The first incarnation of this disk, as far as it knows.
    pub first: u64,
    /// Longest lease that an earlier incarnation may have granted.
    pub lease: Duration,
    /// Highest promise for all slots.
    pub promised: Ballot,
    /// Highest promise for single slots (Basic Paxos).
    pub promised_at: BTreeMap<Slot, Ballot>,
    /// The newest vote for each slot.
    pub votes: BTreeMap<Slot, Vote>,
    /// Values learned from others.
    pub chosen: BTreeMap<Slot, Arc<Entry>>,
    /// All up to here is chosen.
    pub commit: Slot,
    /// The log begins behind this slot.
    pub truncated: Slot,
    /// The newest incarnations of the others that were heard of.
    pub known: BTreeMap<NodeId, u64>,
    /// What was lost, if this node has no vote for that reason.
    pub forgotten: Option<Forgotten>,
    /// The newest snapshot beside the log.
    pub snapshot: Option<Arc<Snapshot>>,
}

impl Durable {
    /// Takes one record in.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Start { epoch, lease } => {
                self.epoch = self.epoch.max(epoch);
                self.first = if self.first == 0 { epoch } else { self.first.min(epoch) };
                self.lease = self.lease.max(lease);
            }
            Record::Promised { ballot, scope: Scope::From(_) } => self.promised = self.promised.max(ballot),
            Record::Promised { ballot, scope: Scope::Only(slot) } => {
                let promised = self.promised_at.entry(slot).or_default();
                *promised = (*promised).max(ballot);
            }
            Record::Accepted(vote) => {
                // The raise of the promise that comes with a vote is done by the acceptor, who knows the protocol.
                self.votes.insert(vote.slot, vote);
            }
            Record::Chosen { slot, entry } => {
                self.chosen.insert(slot, entry);
            }
            Record::Commit { slot } => self.commit = self.commit.max(slot),
            Record::Known { node, epoch } => {
                let known = self.known.entry(node).or_default();
                *known = (*known).max(epoch);
            }
            Record::Forgotten(forgotten) => self.forgotten = forgotten,
            // It begins a log that takes the place of the one before.
            Record::Truncated { slot } => {
                *self = Durable { truncated: slot, snapshot: self.snapshot.take(), ..Durable::default() };
            }
        }
    }

    /// The value of `slot`, if these records prove that it is chosen.
    pub fn known(&self, slot: Slot) -> Option<&Arc<Entry>> {
        let voted = || self.votes.get(&slot).filter(|_| slot <= self.commit).map(|vote| &vote.entry);
        self.chosen.get(&slot).or_else(voted)
    }

    /// Begins an incarnation, unless the directory is empty and there are others to ask first whether they know this node: see
    /// `joining`.
    pub fn start(&mut self, config: &Config) -> Option<Record> {
        let asks = self.epoch == 0 && config.others().next().is_some();
        (!asks).then(|| self.begin_incarnation(config.timing.lease))
    }

    /// Counts a new start. The record must be on disk before the node says a word: the epoch is in every [`super::EntryId`],
    /// and two incarnations with one epoch could take each other's answers.
    pub fn begin_incarnation(&mut self, lease: Duration) -> Record {
        self.epoch += 1;
        Record::Start { epoch: self.epoch, lease }
    }
}

impl FromIterator<Record> for Durable {
    fn from_iter<T: IntoIterator<Item = Record>>(records: T) -> Self {
        let mut durable = Durable::default();
        records.into_iter().for_each(|record| durable.apply(record));
        durable
    }
}
