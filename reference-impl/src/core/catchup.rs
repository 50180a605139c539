//! How a node learns what it missed: by the leader's commit index where its own vote is proof enough, by fetching otherwise.
//!
//! ```text
//! Heartbeat(b, commit = 50)     own vote for slot 49 is under b      → chosen, it is what b proposed
//!                               own vote for slot 50 is under b' < b → perhaps not: Fetch(50) → Chosen(50, entry)
//! ```
//!
//! The check of the ballot is the easiest thing in Multi-Paxos to forget. Deliberately no snapshots yet: a node that was
//! away fetches the log.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::command::Entry;
use super::message::Message;

/// What is missing, and who was asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CatchUp {
    /// Somebody knows that everything up to here is chosen.
    target: Slot,
    asked: Option<(NodeId, Mono)>,
    /// Up to where the votes under this ballot were looked through.
    scanned: (Ballot, Slot),
}

/// Entries in one answer.
const CHUNK_ENTRIES: usize = 512;
/// Bytes in one answer, roughly.
const CHUNK_BYTES: usize = 1 << 20;
/// How long an answer is waited for before another node is asked.
const ASK_AGAIN: Duration = Duration::from_millis(150);

impl Core {
    /// The leader of `ballot` says that everything up to `commit` is chosen.
    pub(super) fn learn_commit(&mut self, from: NodeId, ballot: Ballot, commit: Slot, now: Mono) {
        if commit <= self.learner.applied() {
            return;
        }
        let scanned = if self.catch_up.scanned.0 == ballot { self.catch_up.scanned.1 } else { 0 };
        for slot in self.learner.applied().max(scanned) + 1..=commit {
            if let Some(vote) = self.acceptor.vote(slot)
                && (vote.ballot == ballot || !self.config.hooks.matches_ballot_when_learning())
            {
                let entry = vote.entry.clone();
                self.learn(slot, &entry, now);
            }
        }
        self.catch_up.scanned = (ballot, commit.max(scanned));
        self.apply(now);
        self.want(commit, from, now);
    }

    /// `from` knows that everything up to `commit` is chosen: fetch what is missing.
    pub(super) fn want(&mut self, commit: Slot, from: NodeId, now: Mono) {
        self.catch_up.target = self.catch_up.target.max(commit);
        if self.catch_up.target > self.learner.applied() && self.catch_up.asked.is_none() {
            self.ask(from, now);
        }
    }

    fn ask(&mut self, node: NodeId, now: Mono) {
        self.catch_up.asked = None;
        if node != self.config.id {
            self.catch_up.asked = Some((node, now));
            self.send(node, Message::Fetch { from: self.learner.applied() + 1 }, None);
        }
    }

    pub(super) fn catch_up_wakeup(&self) -> Mono {
        match self.catch_up.asked {
            None => Mono::NEVER,
            Some(_) if self.learner.applied() >= self.catch_up.target => Mono::default(),
            Some((_, at)) => at + ASK_AGAIN,
        }
    }

    pub(super) fn catch_up_tick(&mut self, now: Mono) {
        let Some((node, at)) = self.catch_up.asked else { return };
        if self.learner.applied() >= self.catch_up.target {
            self.catch_up.asked = None;
        } else if now.since(at) >= ASK_AGAIN {
            let next =
                self.config.others().find(|other| *other > node).or_else(|| self.config.others().next());
            if let Some(next) = next {
                self.ask(next, now);
            }
        }
    }

    /// Tells what is known to be chosen from `slot` on, as much as fits.
    pub(super) fn on_fetch(&mut self, from: NodeId, slot: Slot) {
        let commit = self.learner.applied();
        let mut size = 0;
        let entries: Vec<(Slot, Arc<Entry>)> = self
            .learner
            .chosen_from(slot)
            .take(CHUNK_ENTRIES)
            .take_while(|(_, entry)| {
                let fits = size < CHUNK_BYTES;
                size += entry.size();
                fits
            })
            .map(|(slot, entry)| (slot, entry.clone()))
            .collect();
        self.send(from, Message::Chosen { entries, commit }, None);
    }

    pub(super) fn on_chosen(
        &mut self,
        from: NodeId,
        entries: Vec<(Slot, Arc<Entry>)>,
        commit: Slot,
        now: Mono,
    ) {
        let last = entries.last().map_or(0, |(slot, _)| *slot);
        for (slot, entry) in entries {
            self.learn(slot, &entry, now);
        }
        let before = self.learner.applied();
        self.apply(now);
        let applied = self.learner.applied();
        self.catch_up.target = self.catch_up.target.max(commit).max(last);
        if applied >= self.catch_up.target {
            self.catch_up.asked = None;
        } else if applied > before || self.catch_up.asked.is_none() {
            self.ask(from, now);
        }
    }
}
