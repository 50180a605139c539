//! How a node learns what it missed: by the leader's commit index where its own vote is proof enough, by fetching otherwise.
//!
//! ```text
//! Heartbeat(b, commit = 50)     own vote for slot 49 is under b      → chosen, it is what b proposed
//!                               own vote for slot 50 is under b' < b → perhaps not: Fetch(50) → Chosen(50, entry)
//! ```
//!
//! The check of the ballot is the easiest thing in Multi-Paxos to forget. A node that needs what others have forgotten is sent
//! a snapshot instead: see `snapshot`.

use std::sync::Arc;
use std::time::Duration;

use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::command::{Entry, EntryId};
use super::learner::Conflict;
use super::message::Message;
use super::observed::CHECKPOINT_EVERY;
use super::record::{Durable, Record};
use super::snapshot::PIECE_PATIENCE;
use super::{Core, Effect, Note, Protocol, Role};

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
    /// What the disk proves to be chosen: the snapshot, the entries right before it (for others who need them), those after.
    pub(super) fn recover_learner(&mut self, durable: &Durable, now: Mono) {
        if let Some(snapshot) = &durable.snapshot {
            self.learner.install(snapshot);
            while self.learner.floor() > durable.truncated
                && let Some(entry) = durable.known(self.learner.floor())
            {
                self.learner.remember(entry.clone());
            }
            self.acceptor.forget(self.learner.floor());
        }
        let voted = durable.votes.range(..=durable.commit).map(|(slot, _)| *slot);
        for slot in durable.chosen.keys().copied().chain(voted) {
            if let Some(entry) = durable.known(slot) {
                self.learn(slot, entry, now);
            }
        }
        // Nobody waits for anything yet.
        while let Some((_, entry, _)) = self.learner.apply_next(self.config.hooks) {
            self.snapshots.applied_bytes += entry.size();
        }
        if let Some(members) = self.learner.machine().members() {
            self.config.enter(members);
        }
    }

    /// `slot` is chosen. Applies nothing yet.
    pub(super) fn learn(&mut self, slot: Slot, entry: &Arc<Entry>, now: Mono) {
        match self.learner.choose(slot, entry) {
            Err(Conflict) => self.effects.push(Effect::Note(Note::Conflict { slot })),
            Ok(false) => {}
            Ok(true) => {
                if self.acceptor.vote(slot).is_none_or(|vote| vote.entry != *entry) {
                    self.unwritten.push(Record::Chosen { slot, entry: entry.clone() });
                }
                self.clients.chosen(entry.id, now);
                self.close(slot, entry.id);
                if entry.ends(self.config.number) && !self.config.shortcuts.waits_until_applied() {
                    self.enter_at_once(slot, entry, now);
                }
            }
        }
    }

    /// Forgets the proposals for a slot that has its value, and tells the clients of those that lost.
    fn close(&mut self, slot: Slot, chosen: EntryId) {
        let open = (slot, Ballot::ZERO)..=(slot, Ballot { round: u64::MAX, node: NodeId::MAX });
        let closed: Vec<_> = self.proposals.range(open).map(|(key, _)| *key).collect();
        for key in closed {
            let Some(proposal) = self.proposals.remove(&key) else { continue };
            self.open_bytes -= proposal.entry.size();
            // Basic Paxos tries such a command again at the next slot.
            if proposal.entry.id != chosen && self.config.protocol == Protocol::MultiPaxos {
                self.answer_unknown(proposal.entry.id, "another command was chosen for its slot");
            }
        }
    }

    /// Applies all that is chosen without a hole, and answers whoever waits for it.
    pub(super) fn apply(&mut self, now: Mono) {
        let before = self.learner.applied();
        while let Some((slot, entry, applied)) = self.learner.apply_next(self.config.hooks) {
            self.snapshots.applied_bytes += entry.size();
            if slot.is_multiple_of(CHECKPOINT_EVERY) {
                self.observed.checkpoint(self.here());
            }
            if let Some(applied) = applied {
                self.answer_applied(slot, entry.id, applied, now);
            }
            if entry.is_change() {
                self.follow_configuration(now);
            }
        }
        if self.learner.applied() > before {
            self.after_progress(now);
        }
    }

    /// The applied prefix has grown.
    pub(super) fn after_progress(&mut self, now: Mono) {
        self.snapshots.has_applied(self.learner.applied(), self.config.hooks);
        match self.role {
            Role::Candidate(_) => self.try_to_lead(now),
            Role::Leader(_) => self.fill_window(now),
            Role::Follower => {}
        }
        self.index_advance(now);
        self.quorum_advance(now);
    }

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

    /// Somebody knows all up to `slot`.
    pub(super) fn aims_at(&mut self, slot: Slot) {
        self.catch_up.target = self.catch_up.target.max(slot);
    }

    /// Whether nothing is asked for.
    pub(super) fn is_idle(&self) -> bool {
        self.catch_up.asked.is_none()
    }

    pub(super) fn ask(&mut self, node: NodeId, now: Mono) {
        self.catch_up.asked = None;
        if node != self.config.id {
            self.catch_up.asked = Some((node, now));
            let fetch = || Message::Fetch { from: self.learner.applied() + 1 };
            let request = self.snapshots.request(node).unwrap_or_else(fetch);
            self.send(node, request, None);
        }
    }

    /// A snapshot was installed: what came after it is still missing.
    pub(super) fn fetch_rest(&mut self, now: Mono) {
        if let Some((node, _)) = self.catch_up.asked
            && self.catch_up.target > self.learner.applied()
        {
            self.ask(node, now);
        }
    }

    pub(super) fn catch_up_wakeup(&self) -> Mono {
        let applied = self.learner.applied();
        match self.catch_up.asked {
            None => Mono::NEVER,
            Some(_) if applied >= self.catch_up.target => Mono::default(),
            Some(_) if self.snapshots.is_installing(applied) => Mono::NEVER,
            Some((_, at)) if self.snapshots.is_catching_up(applied) => at + PIECE_PATIENCE,
            Some((_, at)) => at + ASK_AGAIN,
        }
    }

    pub(super) fn catch_up_tick(&mut self, now: Mono) {
        let Some((node, at)) = self.catch_up.asked else { return };
        let applied = self.learner.applied();
        let snapshot = self.snapshots.is_catching_up(applied);
        if applied >= self.catch_up.target {
            self.catch_up.asked = None;
        } else if self.snapshots.is_installing(applied) {
            // The disk is at work.
        } else if snapshot && now.since(at) >= PIECE_PATIENCE && self.snapshots.is_late() {
            self.ask(node, now);
        } else if now.since(at) >= if snapshot { PIECE_PATIENCE } else { ASK_AGAIN } {
            let next =
                self.config.others().find(|other| *other > node).or_else(|| self.config.others().next());
            if let Some(next) = next {
                self.ask(next, now);
            }
        }
    }

    /// Tells what is known to be chosen from `slot` on, as much as fits.
    pub(super) fn on_fetch(&mut self, from: NodeId, slot: Slot, now: Mono) {
        if slot <= self.learner.floor() {
            return self.offer_snapshot(from, slot, now);
        }
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
