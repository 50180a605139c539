//! Basic Paxos for every command: no leader, two round trips, duels.
//!
//! ```text
//! lowest slot not known to be chosen ─→ Prepare(b, that slot) ─→ quorum: highest reported value, or the own ─→ Accept ─→
//!     chosen, it is ours    → applied, answered
//!     chosen, another's     → next slot, at once
//!     refused by too many   → random back-off (doubling), next round for the same slot
//! ```
//!
//! A command moves on to another slot only when its slot is *known* to have another value, so it cannot be chosen twice.
//! One command of a node is on its way at a time. Deliberately no shortcut of any kind: no leader hint, no multi-slot
//! promise, no lease. It shows what the prepare phase costs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::Core;
use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::clients::{Request, Waiter};
use super::command::{Entry, Failure, Path, Served};
use super::config::Backoff;
use super::message::{Message, Scope, Vote};

/// The proposer of a Basic Paxos node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Basic {
    queue: VecDeque<Request>,
    attempt: Option<Attempt>,
    /// Rounds lost since the start.
    preempted: u64,
    /// How long the next back-off is, if it is learned ([`Backoff::Aimd`]).
    patience: Duration,
}

impl Basic {
    pub(super) fn preempted(&self) -> u64 {
        self.preempted
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    entry: Arc<Entry>,
    slot: Slot,
    ballot: Ballot,
    phase: Phase,
    refused: BTreeSet<NodeId>,
    rounds: u32,
    /// Rounds lost in a row at this slot.
    lost: u32,
    resend_at: Mono,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Prepare(BTreeMap<NodeId, Option<Vote>>),
    Accept,
    BackOff(Mono),
}

impl Basic {
    /// Gives up the attempt at a slot up to `slot`: whether it was chosen there cannot be found out any more.
    pub(super) fn give_up_below(&mut self, slot: Slot) -> Option<super::EntryId> {
        self.attempt.take_if(|attempt| attempt.slot <= slot).map(|attempt| attempt.entry.id)
    }
}

impl Core {
    pub(super) fn basic_enqueue(&mut self, request: Request) {
        if self.basic.queue.len() >= self.config.queue {
            let full = Failure::Overloaded("this node's queue is full");
            return self.answer(request, Err(full), Served::default());
        }
        self.basic.queue.push_back(request);
    }

    /// Does whatever can be done now: start the next command, go on to the next slot, end a back-off.
    pub(super) fn basic_advance(&mut self, now: Mono) {
        let Some(attempt) = &self.basic.attempt else { return self.basic_next(now) };
        if !self.clients.waits_for(attempt.entry.id) {
            self.basic.attempt = None;
            return self.basic_next(now);
        }
        match self.learner.chosen(attempt.slot) {
            Some(chosen) if chosen.id == attempt.entry.id => {} // applied as soon as the slots before it are known
            Some(_) => self.basic_round(now),
            None => {
                if let Phase::BackOff(until) = attempt.phase
                    && now >= until
                {
                    self.basic_round(now);
                }
            }
        }
    }

    fn basic_next(&mut self, now: Mono) {
        let Some(request) = self.basic.queue.pop_front() else { return };
        self.basic.patience = self.basic.patience.saturating_sub(self.config.timing.backoff / 4);
        if now >= request.deadline {
            let late = Failure::Overloaded("its time ran out before it could be proposed");
            self.answer(request, Err(late), Served::default());
            return self.basic_next(now);
        }
        let entry = Arc::new(Entry { id: self.fresh_id(), command: Some(request.command.clone()) });
        self.clients.wait(entry.id, Waiter::proposed(request, Ballot::ZERO, Path::TwoRtt, now));
        self.basic.attempt = Some(Attempt {
            entry,
            slot: 0,
            ballot: Ballot::ZERO,
            phase: Phase::BackOff(now),
            refused: BTreeSet::new(),
            rounds: 0,
            lost: 0,
            resend_at: now,
        });
        self.basic_round(now);
    }

    /// Phase 1 for the lowest slot that is not known to be chosen.
    fn basic_round(&mut self, now: Mono) {
        let mut slot = self.learner.applied() + 1;
        while self.learner.chosen(slot).is_some() {
            slot += 1;
        }
        let promised = self.acceptor.promised(slot).round;
        let Some(attempt) = &mut self.basic.attempt else { return };
        if attempt.slot == slot {
            attempt.ballot.round = attempt.ballot.round.max(promised) + 1;
        } else {
            attempt.lost = 0;
            attempt.slot = slot;
            attempt.ballot = Ballot { round: promised + 1, node: self.config.id };
        }
        attempt.rounds += 1;
        attempt.refused.clear();
        attempt.phase = Phase::Prepare(BTreeMap::new());
        attempt.resend_at = now + self.config.timing.resend;
        let (ballot, id, rounds) = (attempt.ballot, attempt.entry.id, attempt.rounds);
        self.clients.round(id, ballot, rounds);
        let prepare = Message::Prepare { ballot, scope: Scope::Only(slot) };
        self.broadcast(&prepare);
        self.send(self.config.id, prepare, None);
    }

    pub(super) fn basic_promise(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        votes: Vec<Vote>,
        now: Mono,
    ) {
        let (quorum, me) = (self.config.quorum(), self.config.id);
        let Some(attempt) = &mut self.basic.attempt else { return };
        let Phase::Prepare(promises) = &mut attempt.phase else { return };
        if (attempt.ballot, attempt.slot) != (ballot, slot) {
            return;
        }
        promises.insert(from, votes.into_iter().find(|vote| vote.slot == slot));
        // The own promise must be on disk (it is, once it is here): after a restart this ballot must not be used again.
        if promises.len() < quorum || !promises.contains_key(&me) {
            return;
        }
        let reported = promises.values().flatten().max_by_key(|vote| vote.ballot);
        let entry = reported.map_or_else(|| attempt.entry.clone(), |vote| vote.entry.clone());
        attempt.phase = Phase::Accept;
        attempt.refused.clear();
        if entry.id == attempt.entry.id {
            self.clients.offered(entry.id, now);
        }
        self.propose_under(ballot, slot, entry, now);
    }

    /// A round is lost when so many refuse that no quorum is left. Until then late votes may still win it.
    pub(super) fn basic_nack(&mut self, from: NodeId, ballot: Ballot, slot: Slot, now: Mono) {
        let left = self.config.nodes.len() - self.config.quorum();
        let Some(attempt) = &mut self.basic.attempt else { return };
        if (attempt.ballot, attempt.slot) == (ballot, slot) && !matches!(attempt.phase, Phase::BackOff(_)) {
            attempt.refused.insert(from);
            if attempt.refused.len() > left {
                self.basic_back_off(now);
            }
        }
    }

    /// A round is lost. Whoever waits before the next one does so that two proposers do not outbid each other for ever.
    fn basic_back_off(&mut self, now: Mono) {
        let top = self.top_round;
        let Some(attempt) = &mut self.basic.attempt else { return };
        attempt.lost += 1;
        attempt.ballot.round = attempt.ballot.round.max(top);
        self.basic.preempted += 1;
        let timing = &self.config.timing;
        let wait = match timing.backoff_by {
            _ if !self.config.hooks.backs_off() => Duration::ZERO,
            Backoff::None => Duration::ZERO,
            Backoff::Random => {
                let bound = (timing.backoff * (1 << attempt.lost.min(10))).min(timing.backoff_max);
                bound.mul_f64(self.rng.random_range(0.0..1.0))
            }
            Backoff::Aimd => {
                let doubled = (self.basic.patience * 2).max(timing.backoff).min(timing.backoff_max);
                self.basic.patience = doubled;
                // Two that have lost equally often must not go on in step.
                doubled.mul_f64(self.rng.random_range(0.5..1.0))
            }
        };
        attempt.phase = Phase::BackOff(now + wait);
    }

    /// When a back-off ends, a question is to be repeated, or others are told what is chosen.
    pub(super) fn basic_wakeup(&self) -> Mono {
        let attempt = match &self.basic.attempt {
            None => Mono::NEVER,
            Some(Attempt { phase: Phase::BackOff(until), slot, .. }) => {
                // Its command is chosen, and waits for the slots before it: the back-off is over without a next round.
                if self.learner.chosen(*slot).is_some() { Mono::NEVER } else { *until }
            }
            Some(attempt) => attempt.resend_at,
        };
        attempt.min(self.next_gossip)
    }

    pub(super) fn basic_tick(&mut self, now: Mono) {
        if now >= self.next_gossip {
            self.next_gossip = now + self.config.timing.heartbeat * 2;
            let commit = self.learner.applied();
            let lease = Duration::ZERO;
            self.broadcast(&Message::Heartbeat { ballot: Ballot::ZERO, commit, round: 0, lease });
        }
        let Some(attempt) = &mut self.basic.attempt else { return };
        if now < attempt.resend_at || matches!(attempt.phase, Phase::BackOff(_)) {
            return;
        }
        attempt.resend_at = now + self.config.timing.resend;
        let (ballot, slot) = (attempt.ballot, attempt.slot);
        if !attempt.refused.is_empty() {
            return self.basic_back_off(now);
        }
        match &attempt.phase {
            Phase::Prepare(promises) => {
                let silent: Vec<NodeId> =
                    self.config.others().filter(|node| !promises.contains_key(node)).collect();
                for node in silent {
                    self.send(node, Message::Prepare { ballot, scope: Scope::Only(slot) }, None);
                }
            }
            Phase::Accept => self.resend(ballot, now),
            Phase::BackOff(_) => {}
        }
    }
}
