//! Judges the nodes from inside while a run goes on: what must hold whatever clients see.
//!
//! ```text
//! one value per slot │ equal prefixes have equal hashes and states, applied without gaps, never going back │ no answered promise is forgotten
//! what is chosen is on the disks of a majority │ a node can start again
//! ```
//!
//! It remembers what was agreed by whoever applied a slot first, and compares everyone else. It looks after every step of a node,
//! so that it must be cheap: nothing is done unless the node has applied something. Deliberately knows no clients; what those
//! see is judged elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::disks::Disks;
use crate::core::{Ballot, Checkpoint, Core, Entry, NodeId, Protocol, Record, Slot};

/// An invariant of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// All that apply a slot apply the same value, in the same place.
    OneValue,
    /// Where the same prefix is applied, state and sessions are the same.
    SameState,
    /// Slots are applied without gaps.
    NoGap,
    /// After a restart an acceptor knows every promise that it has answered.
    PromiseKept,
    /// A chosen value is on the disks of a majority of those that decide its slot.
    Durable,
    /// The applied prefix grows while a node runs.
    NeverBack,
    /// A node that has ended can start again with what is on its disk.
    Recoverable,
    /// A tick before the moment that the core asked for does nothing, and after one that moment is in the future.
    Wakeup,
}

impl Invariant {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Invariant::OneValue => "one-value",
            Invariant::SameState => "same-state",
            Invariant::NoGap => "no-gap",
            Invariant::PromiseKept => "promise-kept",
            Invariant::Durable => "durable",
            Invariant::NeverBack => "never-back",
            Invariant::Recoverable => "recoverable",
            Invariant::Wakeup => "wakeup",
        }
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub invariant: Invariant,
    /// What was seen, in words.
    pub what: String,
    /// When, in nanoseconds of the world.
    pub at: u64,
}

pub(super) type Check = Result<(), (Invariant, String)>;

/// Everything that has been agreed so far.
#[derive(Debug)]
pub(super) struct Oracle {
    protocol: Protocol,
    /// By slot, from 1.
    log: Vec<Option<Arc<Entry>>>,
    prefixes: Vec<Option<Checkpoint>>,
    applied: Vec<Slot>,
    /// By node; the highest promise of all slots (Multi-Paxos).
    promised: Vec<Ballot>,
    /// The same of single slots (Basic Paxos).
    promised_at: BTreeMap<(NodeId, Slot), Ballot>,
    disks: Disks,
}

impl Oracle {
    /// `nodes` in all, of which the first `members` decide at first.
    pub(super) fn new(protocol: Protocol, nodes: u32, members: u32) -> Self {
        let ends = nodes as usize + 1;
        Oracle {
            protocol,
            log: Vec::new(),
            prefixes: Vec::new(),
            applied: vec![0; ends],
            promised: vec![Ballot::ZERO; ends],
            promised_at: BTreeMap::new(),
            disks: Disks::new(nodes, members),
        }
    }

    /// The highest slot that anybody has applied.
    pub(super) fn slots(&self) -> u64 {
        self.prefixes.len() as u64
    }

    /// After a step of a node.
    pub(super) fn stepped(&mut self, node: NodeId, core: &Core) -> Check {
        let applied = core.learner().applied();
        if self.applied[node as usize] == applied { Ok(()) } else { self.compare(node, core) }
    }

    fn compare(&mut self, node: NodeId, core: &Core) -> Check {
        let learner = core.learner();
        let applied = learner.applied();
        let before = std::mem::replace(&mut self.applied[node as usize], applied);
        if self.log.len() < applied as usize {
            self.log.resize(applied as usize, None);
            self.prefixes.resize(applied as usize, None);
        }
        if applied < before {
            return Err((
                Invariant::NeverBack,
                format!("node {node} went back from slot {before} to {applied}"),
            ));
        }
        if learner.floor() > applied {
            return Err((Invariant::NoGap, format!("node {node} has forgotten more than it has applied")));
        }
        if let Some(members) = learner.machine().members() {
            self.disks.configuration(members);
        }
        // What a snapshot covers is judged by the hash.
        for slot in before.max(learner.floor()) + 1..=applied {
            let Some(entry) = learner.chosen(slot) else {
                return Err((Invariant::NoGap, format!("node {node} skipped slot {slot}")));
            };
            match &mut self.log[slot as usize - 1] {
                Some(agreed) if agreed == entry => {}
                Some(agreed) => {
                    let what = format!("slot {slot} is {entry:?} at node {node}, was {agreed:?} elsewhere");
                    return Err((Invariant::OneValue, what));
                }
                unknown => {
                    *unknown = Some(entry.clone());
                    self.disks.check(slot, entry)?;
                }
            }
        }
        let here = core.here();
        let agreed = *self.prefixes[applied as usize - 1].get_or_insert(here);
        if agreed.hash != here.hash {
            let what = format!("node {node} applied another prefix up to slot {applied}");
            return Err((Invariant::OneValue, what));
        }
        for (what, agreed, own) in
            [("state", agreed.state, here.state), ("sessions", agreed.sessions, here.sessions)]
        {
            if agreed != own {
                let what =
                    format!("after slot {applied} node {node} has other {what} than the first to apply it");
                return Err((Invariant::SameState, what));
            }
        }
        Ok(())
    }

    /// A promise or an acceptance has left a node.
    pub(super) fn promised(&mut self, node: NodeId, slot: Slot, ballot: Ballot) {
        let known = match self.protocol {
            Protocol::MultiPaxos => &mut self.promised[node as usize],
            Protocol::BasicPaxos => self.promised_at.entry((node, slot)).or_default(),
        };
        *known = (*known).max(ballot);
    }

    /// Records have reached a node's disk.
    pub(super) fn synced(&mut self, node: NodeId, records: &[Record]) {
        records.iter().for_each(|record| self.disks.synced(node, record));
    }

    /// A snapshot has reached a node's disk.
    pub(super) fn saved(&mut self, node: NodeId, slot: Slot) {
        self.disks.holds_prefix(node, slot);
    }

    /// A node has lost its disk: it may forget what it said, but not use that.
    pub(super) fn wiped(&mut self, node: NodeId) {
        self.disks.wiped(node);
        self.promised[node as usize] = Ballot::ZERO;
        self.promised_at.retain(|(who, _), _| *who != node);
    }

    /// A node has restarted from its disk.
    pub(super) fn restarted(&mut self, node: NodeId, core: &Core) -> Check {
        self.applied[node as usize] = 0;
        self.disks.read(node, core, &self.log)?;
        let everywhere = [((node, 1), self.promised[node as usize])];
        // In a slot that is forgotten the node helps no ballot at all.
        let first = core.learner().floor() + 1;
        let single =
            self.promised_at.range((node, first)..=(node, Slot::MAX)).map(|(at, ballot)| (*at, *ballot));
        for ((_, slot), ballot) in everywhere.into_iter().chain(single) {
            if core.acceptor().promised(slot) < ballot {
                let what = format!("node {node} forgot its promise {ballot} in a restart");
                return Err((Invariant::PromiseKept, what));
            }
        }
        self.stepped(node, core)
    }

    /// A node that had lost its disk has a vote again.
    pub(super) fn votes_again(&mut self, node: NodeId) -> Check {
        self.disks.votes_again(node, &self.log)
    }
}
