//! How a node learns what it missed: by the leader's commit index where its own vote is proof enough, by fetching otherwise.
//!
//! ```text
//! Heartbeat(b, commit = 50)     own vote for slot 49 is under b      → chosen, it is what b proposed
//!                               own vote for slot 50 is under b' < b → perhaps not: Fetch(50) → Chosen(50, entry)
//! ```
//!
//! The check of the ballot is the easiest thing in Multi-Paxos to forget. It relies on a leader's commit index to speak of that leader's own values. So a leader
//! that is told of a chosen value which it did not propose itself leads no more, before it tells anyone of a commit index that covers it: somebody was elected
//! without it, and a follower that has heard as little may still have its vote for what lost. A node that needs what others have forgotten is sent
//! a snapshot instead: see `snapshot`.
//!
//! What is told is learned in order only: a value behind a gap may have been decided by a later configuration, which a stop-sign in the gap began.
//! In this one it would pass for the proof that no stop-sign is there (see `reconfigure`).

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
    pub(super) fn close(&mut self, slot: Slot, chosen: EntryId) {
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

    /// Whether this node leads, and this is the first that it hears of a value which others have chosen without it.
    fn did_not_propose(&self, slot: Slot, entry: &Arc<Entry>) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let own = self.proposals.get(&(slot, leader.ballot)).is_some_and(|own| own.entry == *entry);
        slot > self.learner.applied() && self.learner.chosen(slot).is_none() && !own
    }

    pub(super) fn on_chosen(
        &mut self,
        from: NodeId,
        entries: Vec<(Slot, Arc<Entry>)>,
        commit: Slot,
        now: Mono,
    ) {
        let mut reach = self.learner.applied();
        for (slot, entry) in entries {
            while self.learner.chosen(reach + 1).is_some() {
                reach += 1;
            }
            if slot > reach + 1 && self.config.protocol == Protocol::MultiPaxos {
                break;
            }
            reach = reach.max(slot);
            if self.did_not_propose(slot, &entry) {
                self.step_down("somebody else has had a value chosen", now);
            }
            self.learn(slot, &entry, now);
        }
        let before = self.learner.applied();
        self.apply(now);
        let applied = self.learner.applied();
        self.catch_up.target = self.catch_up.target.max(commit).max(reach);
        if applied >= self.catch_up.target {
            self.catch_up.asked = None;
        } else if applied > before || self.catch_up.asked.is_none() {
            self.ask(from, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::message::{Scope, Vote};
    use crate::core::{Config, Input, testing};

    fn entry(node: NodeId, n: u64) -> Arc<Entry> {
        Arc::new(Entry { id: EntryId { node, epoch: 1, n }, command: None })
    }

    /// Steps with a disk that is immediate; returns what is sent.
    fn step(core: &mut Core, at: Mono, input: Input) -> Vec<Message> {
        testing::sent(testing::step(core, at, input)).into_iter().map(|(_, message)| message).collect()
    }

    /// The leader of five, with the promises of nodes 2 and 3, who have voted for nothing; its barrier is slot 1.
    fn leader() -> (Core, Ballot, Mono) {
        let mut durable = Durable::default();
        durable.begin_incarnation(Duration::ZERO);
        durable.known = (2..=5).map(|node| (node, 1)).collect();
        let mut core = Core::new(Config::new(1, 1..=5, Protocol::MultiPaxos), durable, Mono(0));
        let later = Mono(0) + Duration::from_secs(2);
        let sent = step(&mut core, later, Input::Tick);
        let ballot = sent.iter().find_map(|message| match message {
            Message::Prepare { ballot, .. } => Some(*ballot),
            _ => None,
        });
        let ballot = ballot.unwrap();
        for from in [2, 3] {
            let message =
                Message::Promise { ballot, scope: Scope::From(1), commit: 0, votes: Vec::<Vote>::new() };
            step(&mut core, later, Input::Message { from, message });
        }
        assert_eq!(core.status().leading, Some(ballot));
        (core, ballot, later)
    }

    fn commits(messages: &[Message], of: Ballot) -> Vec<Slot> {
        let commit = |message: &Message| match message {
            Message::Heartbeat { ballot, commit, .. } | Message::Accept { ballot, commit, .. }
                if *ballot == of =>
            {
                Some(*commit)
            }
            _ => None,
        };
        messages.iter().filter_map(commit).collect()
    }

    /// Otherwise a follower that knows of no other leader takes its own vote, for the barrier, for what was chosen there.
    #[test]
    fn a_leader_that_is_told_of_a_value_that_it_did_not_propose_tells_nobody_that_its_own_was_chosen() {
        let (mut core, ballot, now) = leader();
        // There is more to come: it is not told of the other leader yet.
        let message = Message::Chosen { entries: vec![(1, entry(4, 7))], commit: 99 };
        let mut sent = step(&mut core, now, Input::Message { from: 4, message });
        assert_eq!(core.status().applied, 1);
        for ms in [50, 100, 150, 200] {
            sent.extend(step(&mut core, now + Duration::from_millis(ms), Input::Tick));
        }
        assert!(commits(&sent, ballot).iter().all(|commit| *commit == 0), "{sent:?}");
        assert_eq!(core.status().leading, None);
    }

    #[test]
    fn a_leader_that_is_told_of_its_own_value_goes_on() {
        let (mut core, ballot, now) = leader();
        let own = core.slots_from(1, 1)[0].entry.clone();
        let message = Message::Chosen { entries: vec![(1, own)], commit: 1 };
        step(&mut core, now, Input::Message { from: 4, message });
        assert_eq!((core.status().applied, core.status().leading), (1, Some(ballot)));
    }

    /// Not even its acceptances would end it, since its slot has had its value all along.
    #[test]
    fn a_proposal_for_a_slot_that_is_known_to_be_chosen_ends_with_its_quorum() {
        let mut durable = Durable::default();
        durable.begin_incarnation(Duration::ZERO);
        durable.known = [(2, 1), (3, 1)].into();
        // Behind a gap.
        durable.apply(Record::Chosen { slot: 2, entry: entry(3, 2) });
        let mut core = Core::new(Config::new(1, 1..=3, Protocol::MultiPaxos), durable, Mono(0));
        let later = Mono(0) + Duration::from_secs(2);
        step(&mut core, later, Input::Tick);
        let ballot = Ballot { round: 1, node: 1 };
        let message = Message::Promise { ballot, scope: Scope::From(1), commit: 0, votes: vec![] };
        step(&mut core, later, Input::Message { from: 2, message });
        assert_eq!((core.status().leading, core.proposals.len()), (Some(ballot), 3));
        for slot in 1..=3 {
            step(&mut core, later, Input::Message { from: 2, message: Message::Accepted { ballot, slot } });
        }
        assert_eq!((core.status().applied, core.proposals.len(), core.open_bytes), (3, 0, 0));
    }
}
