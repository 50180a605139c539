//! What is on the disks, as far as chosen values rest on it.
//!
//! ```text
//! slot 41, decided by {1, 2, 3}     node 1: the value     node 2: the value     node 3: nothing        a majority holds it
//! slot 42                           node 1: the value     node 2: lost its disk, has no vote          that may have been the other
//! ```
//!
//! Judged when a slot is first applied by anyone, and again whenever a disk turns out to have forgotten something: at a restart, and when
//! a node that had lost its disk votes again. Until then such a node may have been one of the majority. Deliberately slot by slot, in
//! memory that grows with the log: simulated clusters are small.

use std::sync::Arc;

use super::oracle::{Check, Invariant};
use crate::core::{Core, Entry, Members, NodeId, Record, Slot};

#[derive(Debug)]
pub(super) struct Disks {
    /// Nodes, and one more, as they are numbered from 1.
    ends: usize,
    /// By slot and node: the newest value that the disk has for the slot.
    held: Vec<Option<Arc<Entry>>>,
    /// By node: everything that is chosen up to here is on its disk.
    prefix: Vec<Slot>,
    /// By node: it has lost its disk and has no vote.
    excused: Vec<bool>,
    /// Who decides, as a bit each, and behind which slot.
    configurations: Vec<(Slot, u64)>,
    number: u64,
}

fn bit(node: NodeId) -> u64 {
    1 << node
}

impl Disks {
    pub(super) fn new(nodes: u32, members: u32) -> Self {
        let ends = nodes as usize + 1;
        Disks {
            ends,
            held: Vec::new(),
            prefix: vec![0; ends],
            excused: vec![false; ends],
            configurations: vec![(0, (1..=members).map(bit).sum())],
            number: 0,
        }
    }

    /// Somebody has applied the stop-sign that begins this configuration.
    pub(super) fn configuration(&mut self, members: &Members) {
        if members.config > self.number {
            self.number = members.config;
            self.configurations.push((members.since, members.nodes.keys().copied().map(bit).sum()));
        }
    }

    fn at(&self, slot: Slot, node: NodeId) -> usize {
        slot as usize * self.ends + node as usize
    }

    /// Makes room for all slots up to this one.
    fn reach(&mut self, slot: Slot) {
        let end = self.at(slot + 1, 0);
        if self.held.len() < end {
            self.held.resize(end, None);
        }
    }

    fn hold(&mut self, slot: Slot, node: NodeId, entry: &Arc<Entry>) {
        self.reach(slot);
        let at = self.at(slot, node);
        self.held[at] = Some(entry.clone());
    }

    pub(super) fn synced(&mut self, node: NodeId, record: &Record) {
        match record {
            Record::Accepted(vote) => self.hold(vote.slot, node, &vote.entry),
            Record::Chosen { slot, entry } => self.hold(*slot, node, entry),
            _ => {}
        }
    }

    pub(super) fn holds_prefix(&mut self, node: NodeId, slot: Slot) {
        let prefix = &mut self.prefix[node as usize];
        *prefix = (*prefix).max(slot);
    }

    pub(super) fn wiped(&mut self, node: NodeId) {
        self.excused[node as usize] = true;
        self.prefix[node as usize] = 0;
        self.held.iter_mut().skip(node as usize).step_by(self.ends).for_each(|held| *held = None);
    }

    pub(super) fn votes_again(&mut self, node: NodeId, log: &[Option<Arc<Entry>>]) -> Check {
        if std::mem::take(&mut self.excused[node as usize]) { self.check_all(0, log) } else { Ok(()) }
    }

    /// A node has started with what its disk has: less than was known of, or more, if a write that was never answered for has survived.
    pub(super) fn read(&mut self, node: NodeId, core: &Core, log: &[Option<Arc<Entry>>]) -> Check {
        let (learner, acceptor) = (core.learner(), core.acceptor());
        let applied = learner.applied();
        self.prefix[node as usize] = applied;
        // Perhaps there is more than anybody was told of: a write that had reached the disk when its node crashed.
        let last = acceptor.last_slot().max(learner.last_chosen());
        self.reach(last);
        let slots = (self.held.len() / self.ends) as Slot;
        for slot in applied + 1..slots {
            let at = self.at(slot, node);
            self.held[at] =
                learner.chosen(slot).or_else(|| acceptor.vote(slot).map(|vote| &vote.entry)).cloned();
        }
        self.check_all(applied, log)
    }

    /// Judges all slots after this one.
    fn check_all(&self, after: Slot, log: &[Option<Arc<Entry>>]) -> Check {
        for (index, entry) in log.iter().enumerate().skip(after as usize) {
            if let Some(entry) = entry {
                self.check(index as Slot + 1, entry)?;
            }
        }
        Ok(())
    }

    /// A slot with this value is chosen.
    pub(super) fn check(&self, slot: Slot, entry: &Arc<Entry>) -> Check {
        let who =
            self.configurations.iter().rev().find(|(since, _)| *since < slot).map_or(0, |(_, who)| *who);
        let (mut holders, mut perhaps) = (0, 0);
        for node in (1..self.ends as NodeId).filter(|node| who & bit(*node) > 0) {
            let held = || self.held.get(self.at(slot, node)).and_then(Option::as_ref);
            let same = |held: &Arc<Entry>| Arc::ptr_eq(held, entry) || held == entry;
            if slot <= self.prefix[node as usize] || held().is_some_and(same) {
                holders |= bit(node);
            } else if self.excused[node as usize] {
                perhaps |= bit(node);
            }
        }
        if (holders | perhaps).count_ones() > who.count_ones() / 2 {
            return Ok(());
        }
        let names = |bits: u64| -> Vec<NodeId> {
            (1..self.ends as NodeId).filter(|node| bits & bit(*node) > 0).collect()
        };
        let what = format!(
            "slot {slot} is chosen, and its value {entry:?} is on the disks of {:?} only, of {:?}",
            names(holders),
            names(who)
        );
        Err((Invariant::Durable, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Ballot, Config, Durable, EntryId, Member, Mono, Protocol, Vote};

    fn entry(n: u64) -> Arc<Entry> {
        Arc::new(Entry { id: EntryId { node: 1, epoch: 1, n }, command: None })
    }

    fn vote(disks: &mut Disks, node: NodeId, slot: Slot, n: u64) {
        let vote = Vote { slot, ballot: Ballot { round: 1, node: 1 }, entry: entry(n) };
        disks.synced(node, &Record::Accepted(vote));
    }

    #[test]
    fn a_majority_of_those_that_decide_must_hold_this_very_value() {
        let mut disks = Disks::new(4, 3);
        vote(&mut disks, 1, 5, 50);
        vote(&mut disks, 2, 5, 51);
        // No member.
        vote(&mut disks, 4, 5, 50);
        let (invariant, what) = disks.check(5, &entry(50)).unwrap_err();
        assert_eq!(invariant, Invariant::Durable);
        assert!(what.contains("on the disks of [1] only, of [1, 2, 3]"), "{what}");
        disks.synced(2, &Record::Chosen { slot: 5, entry: entry(50) });
        assert_eq!(disks.check(5, &entry(50)), Ok(()));
        // A snapshot holds what it covers.
        assert!(disks.check(4, &entry(40)).is_err());
        disks.holds_prefix(1, 4);
        disks.holds_prefix(3, 4);
        assert_eq!(disks.check(4, &entry(40)), Ok(()));
    }

    /// What a crash has left on the disk counts, although nobody was told of it.
    #[test]
    fn what_a_disk_has_at_a_start_is_all_that_counts() {
        let mut durable = Durable::default();
        durable.begin_incarnation(std::time::Duration::ZERO);
        let ballot = Ballot { round: 1, node: 1 };
        durable.apply(Record::Accepted(Vote { slot: 3, ballot, entry: entry(1) }));
        let core = Core::new(Config::new(2, 1..=3, Protocol::MultiPaxos), durable, Mono(0));
        let mut disks = Disks::new(3, 3);
        vote(&mut disks, 2, 2, 7);
        assert_eq!(disks.read(2, &core, &[]), Ok(()));
        vote(&mut disks, 1, 3, 1);
        assert_eq!(disks.check(3, &entry(1)), Ok(()));
        vote(&mut disks, 1, 2, 7);
        assert!(disks.check(2, &entry(7)).is_err(), "it is gone");
    }

    #[test]
    fn a_slot_is_decided_by_its_own_configuration() {
        let mut disks = Disks::new(5, 3);
        let nodes = [3, 4, 5].map(|node| (node, Member::default())).into();
        disks.configuration(&Members { config: 1, since: 5, nodes });
        for slot in [5, 6] {
            vote(&mut disks, 4, slot, 1);
            vote(&mut disks, 5, slot, 1);
        }
        assert!(disks.check(5, &entry(1)).is_err());
        assert_eq!(disks.check(6, &entry(1)), Ok(()));
    }

    #[test]
    fn a_lost_disk_is_an_excuse_until_its_node_votes_again() {
        let mut disks = Disks::new(3, 3);
        let log = vec![Some(entry(1))];
        vote(&mut disks, 1, 1, 1);
        vote(&mut disks, 2, 1, 1);
        disks.wiped(2);
        assert_eq!(disks.check(1, &entry(1)), Ok(()));
        assert!(disks.votes_again(2, &log).is_err());
        disks.wiped(2);
        disks.holds_prefix(2, 1);
        assert_eq!(disks.votes_again(2, &log), Ok(()));
    }
}
