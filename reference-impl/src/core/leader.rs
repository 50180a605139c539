//! Phase 2 per slot, and what it takes to stay leader: heartbeats, the lease, retransmission.
//!
//! ```text
//! propose(41) ─ Accept → ┐
//! propose(42) ─ Accept → ├ up to `window` slots are open at once; each is chosen by its own quorum of Accepted
//! propose(43) ─ Accept → ┘ for this ballot, and applied when all before it are
//! ```
//!
//! Deliberately no waiting for company: a command is proposed the moment it comes in. What happens to be queued at the same
//! time is batched below, by the log's group commit and by the transport.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;

use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::clients::{Request, Waiter};
use super::command::{Entry, Failure, Op, Output, Path, ReadMode, Served};
use super::lease::Lease;
use super::message::Message;
use super::session::Seen;
use super::{Core, Role};

/// A leader's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    pub(super) ballot: Ballot,
    /// Local reads wait until this slot is applied.
    pub(super) barrier: Slot,
    pub(super) next: Slot,
    pub(super) lease: Lease,
    /// A stop-sign is proposed here: nothing is proposed behind it, and nothing read locally.
    pub(super) stop: Option<Slot>,
    /// Commands that wait for the window.
    pub(super) queue: VecDeque<Request>,
    heartbeat_at: Mono,
    /// When it was elected.
    pub(super) since: Mono,
}

/// A value on its way through phase 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proposal {
    pub(super) entry: Arc<Entry>,
    acks: BTreeSet<NodeId>,
    proposed: Mono,
    resend_at: Mono,
    resend_after: Duration,
}

impl Proposal {
    /// What the key would be.
    fn writes(&self, key: &str) -> Option<Bytes> {
        match &self.entry.command.as_ref()?.op {
            Op::Put { key: written, value } if written == key => Some(value.clone()),
            _ => None,
        }
    }
}

/// Accepts that are sent again in one tick, so that a healed link is not flooded.
const RESEND_MAX: usize = 64;
/// How long the others wait then.
const RESEND_PAUSE: Duration = Duration::from_millis(10);
/// A leader that heard of no quorum for this many leases gives up: it cannot commit, and clients should be told soon.
const QUORUM_LOST_LEASES: u32 = 4;

impl Leader {
    /// When it has to send heartbeats, or has heard of no quorum for too long.
    pub(super) fn wakeup(&self, lease: Duration) -> Mono {
        let lost = self.lease.last_quorum() + lease * QUORUM_LOST_LEASES + Duration::from_nanos(1);
        self.heartbeat_at.min(lost)
    }

    pub(super) fn new(ballot: Ballot, barrier: Slot, stop: Option<Slot>, now: Mono) -> Self {
        Leader {
            ballot,
            barrier,
            next: barrier + 1,
            stop,
            lease: Lease::new(now),
            queue: VecDeque::new(),
            heartbeat_at: now,
            since: now,
        }
    }
}

impl Core {
    pub(super) fn no_op(&mut self) -> Arc<Entry> {
        Arc::new(Entry { id: self.fresh_id(), command: None })
    }

    /// Asks all acceptors to accept `entry` for `slot` under the leader's ballot.
    pub(super) fn propose(&mut self, slot: Slot, entry: Arc<Entry>, now: Mono) {
        let Role::Leader(leader) = &self.role else { return };
        let ballot = leader.ballot;
        self.propose_under(ballot, slot, entry, now);
    }

    /// Phase 2 for one slot, under a ballot that a quorum has promised.
    pub(super) fn propose_under(&mut self, ballot: Ballot, slot: Slot, entry: Arc<Entry>, now: Mono) {
        let resend_after = self.config.timing.resend;
        let proposal = Proposal {
            entry: entry.clone(),
            acks: BTreeSet::new(),
            proposed: now,
            resend_at: now + resend_after,
            resend_after,
        };
        self.open_bytes += entry.size();
        self.resend_due = self.resend_due.min(proposal.resend_at);
        self.proposals.insert((slot, ballot), proposal);
        let accept = Message::Accept { ballot, slot, entry, commit: self.commit_index() };
        self.broadcast(&accept);
        self.send(self.config.id, accept, None);
    }

    /// Up to where everything is chosen.
    fn commit_index(&self) -> Slot {
        if self.config.hooks.commits_in_order() { self.learner.applied() } else { self.learner.last_chosen() }
    }

    /// Counts a vote. It counts for the ballot that asked for it, even if that leader has been deposed since: a quorum of
    /// votes under one ballot chooses.
    pub(super) fn on_accepted(&mut self, from: NodeId, ballot: Ballot, slot: Slot, now: Mono) {
        let hooks = self.config.hooks;
        let quorum = if hooks.waits_for_quorum() { self.config.quorum() } else { 1 };
        let own = from == self.config.id;
        let any = (slot, Ballot::ZERO)..=(slot, Ballot { round: u64::MAX, node: NodeId::MAX });
        let proposal = match self.proposals.get_mut(&(slot, ballot)) {
            None if !hooks.matches_ballots() => {
                self.proposals.range_mut(any).next_back().map(|(_, open)| open)
            }
            proposal => proposal,
        };
        let Some(proposal) = proposal else { return };
        // Not before the own vote is there: with that and one other, three nodes have a majority.
        let repeated = !proposal.acks.insert(from) && proposal.acks.contains(&self.config.id);
        if repeated && !hooks.counts_voters() {
            proposal.acks.insert(NodeId::MAX - proposal.acks.len() as NodeId);
        }
        if own {
            self.clients.synced(proposal.entry.id, now.since(proposal.proposed));
        }
        if proposal.acks.len() >= quorum {
            let entry = proposal.entry.clone();
            self.learn(slot, &entry, now);
            // It was known to be chosen before it was proposed, if the slots below it were not.
            self.close(slot, entry.id);
            self.apply(now);
            if self.config.protocol == super::Protocol::BasicPaxos {
                let commit = self.learner.applied();
                self.broadcast(&Message::Chosen { entries: vec![(slot, entry)], commit });
            }
        }
    }

    pub(super) fn leader_tick(&mut self, now: Mono) {
        let Role::Leader(leader) = &self.role else { return };
        if now.since(leader.lease.last_quorum()) > self.config.timing.lease * QUORUM_LOST_LEASES {
            return self.step_down("no quorum answers", now);
        }
        if now >= leader.heartbeat_at {
            self.send_heartbeats(now);
        }
        let Role::Leader(leader) = &self.role else { return };
        if now >= self.resend_due {
            self.resend(leader.ballot, now);
        }
    }

    pub(super) fn send_heartbeats(&mut self, now: Mono) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_at = now + self.config.timing.heartbeat;
        let round = leader.lease.send_round(now, self.config.timing.presence());
        self.reads.round_sent(round);
        let heartbeat = Message::Heartbeat {
            ballot: leader.ballot,
            commit: self.learner.applied(),
            round,
            lease: self.config.timing.lease,
        };
        self.broadcast(&heartbeat);
        self.send(self.config.id, heartbeat, None);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        commit: Slot,
        round: u64,
        lease: Duration,
        now: Mono,
    ) {
        if self.config.protocol == super::Protocol::BasicPaxos {
            return self.want(commit, from, now);
        }
        self.top_round = self.top_round.max(ballot.round);
        let promised = self.acceptor.highest_promise();
        if !self.votes() {
            // It learns, and can send clients to the leader, but is bound to nobody.
            self.hear_leader(ballot, now);
        } else if ballot < promised {
            self.send(from, Message::Nack { ballot, slot: 0, promised, lease_left: Duration::ZERO }, None);
        } else if lease > self.config.timing.lease {
            // After a restart this node refuses candidates for its own lease only: it must not promise more.
            self.effects.push(super::Effect::Note(super::Note::LeaseTooLong { leader: from, asked: lease }));
        } else if self.grant.extend(ballot, now + self.granted()) {
            self.hear_leader(ballot, now);
            self.send(from, Message::HeartbeatAck { ballot, round }, None);
        }
        self.learn_commit(from, ballot, commit, now);
    }

    /// For how long an acknowledged heartbeat binds.
    fn granted(&self) -> Duration {
        let lease = self.config.timing.lease;
        if self.config.hooks.grants_whole_lease() { lease } else { lease / 2 }
    }

    pub(super) fn on_heartbeat_ack(&mut self, from: NodeId, ballot: Ballot, round: u64, now: Mono) {
        let quorum = if self.config.hooks.leases_by_quorum() { self.config.quorum() } else { 1 };
        let from_send = self.config.hooks.counts_lease_from_send();
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot == ballot
        {
            leader.lease.acknowledged(round, from, quorum, |sent| if from_send { sent } else { now });
            self.index_advance(now);
        }
    }

    pub(super) fn lease_until(&self, leader: &Leader) -> Option<Mono> {
        let usable = self.config.timing.usable_lease();
        leader.lease.until(if self.config.hooks.counts_lease_from_send() {
            usable
        } else {
            self.config.timing.lease * 2
        })
    }

    /// Sends accepts again that have waited too long, to whoever has not voted. Twice as patient each time.
    pub(super) fn resend(&mut self, under: Ballot, now: Mono) {
        let nodes: Vec<NodeId> = self.config.nodes.iter().copied().collect();
        let commit = self.learner.applied();
        let mut again = Vec::new();
        let (mut sent, mut next) = (0, Mono::NEVER);
        for ((slot, ballot), proposal) in
            self.proposals.iter_mut().filter(|((_, ballot), _)| *ballot == under)
        {
            if now < proposal.resend_at || sent == RESEND_MAX {
                next = next.min(proposal.resend_at.max(now + RESEND_PAUSE));
                continue;
            }
            sent += 1;
            proposal.resend_after = (proposal.resend_after * 2).min(Duration::from_secs(1));
            proposal.resend_at = now + proposal.resend_after;
            next = next.min(proposal.resend_at);
            for node in nodes.iter().filter(|node| !proposal.acks.contains(node)) {
                let entry = proposal.entry.clone();
                again.push((*node, Message::Accept { ballot: *ballot, slot: *slot, entry, commit }));
            }
        }
        self.resend_due = next;
        for (node, accept) in again {
            self.send(node, accept, None);
        }
    }

    // --- commands at the leader ---------------------------------------------------------------------------------------

    /// A command has reached the leader: answer it locally, propose it, or queue it.
    pub(super) fn lead(&mut self, mut request: Request, now: Mono) {
        let Role::Leader(leader) = &self.role else { return };
        let ballot = leader.ballot;
        let served = |path, slot| Served { path, slot, ballot, node: self.config.id, ..Served::default() };
        let applied = self.learner.applied();
        let reads = leader.stop.is_none() || !self.config.shortcuts.stops_reading();
        if let Op::Get { key, mode: ReadMode::Lease } = &request.command.op
            && reads
            && (applied >= leader.barrier || !self.config.hooks.waits_for_barrier())
            && (self.lease_until(leader).is_some_and(|until| now < until)
                || !self.config.hooks.checks_lease())
        {
            let chosen = || self.learner.machine().get(key);
            let output = if self.config.hooks.reads_what_is_chosen() {
                chosen()
            } else {
                self.proposals.values().rev().find_map(|proposal| proposal.writes(key)).or_else(chosen)
            };
            let output = Output::Value(output);
            let served = served(Path::LeaseRead, applied);
            return self.answer(request, Ok(output), served);
        }
        if let Op::Get { mode: ReadMode::ReadIndex, .. } = request.command.op {
            return self.read_index(request, now);
        }
        if let Op::Reconfigure { from, nodes } = &mut request.command.op {
            match self.admit_change(*from, nodes, now) {
                Ok(true) => {}
                Ok(false) => {
                    let served = served(Path::Retry, applied);
                    return self.answer(request, Ok(Output::Done), served);
                }
                Err(why) => return self.answer(request, Err(why), Served::default()),
            }
        }
        if self.config.hooks.consults_sessions() {
            match self.learner.machine().seen(&request.command) {
                Seen::New => {}
                Seen::Before(slot, first) => {
                    let anew = || self.learner.machine().preview(&request.command.op);
                    let output = if self.config.hooks.repeats_the_answer() { first } else { anew() };
                    let served = served(Path::Retry, slot);
                    return self.answer(request, Ok(output), served);
                }
                Seen::Stale => {
                    let served = served(Path::None, 0);
                    return self.answer(request, Err(Failure::StaleSeq), served);
                }
            }
        }
        if !self.config.hooks.answers_after_quorum() {
            let output = self.learner.machine().preview(&request.command.op);
            let served = served(Path::OneRtt, leader.next);
            self.answer(request.clone(), Ok(output), served);
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.queue.len() >= self.config.queue {
            return self.answer(
                request,
                Err(Failure::Overloaded("the leader's queue is full")),
                Served::default(),
            );
        }
        self.clients.look_at(request.deadline);
        leader.queue.push_back(request);
        self.fill_window(now);
    }

    /// Proposes queued commands while there is room for open slots.
    pub(super) fn fill_window(&mut self, now: Mono) {
        loop {
            let Role::Leader(leader) = &self.role else { return };
            if leader.stop.is_some() || !self.window_has_room(leader.next) {
                return;
            }
            let Role::Leader(leader) = &mut self.role else { return };
            let Some(request) = leader.queue.pop_front() else { return };
            let (slot, ballot) = (leader.next, leader.ballot);
            leader.next += 1;
            let entry = Arc::new(Entry { id: self.fresh_id(), command: Some(request.command.clone()) });
            if entry.ends(self.config.number)
                && let Role::Leader(leader) = &mut self.role
            {
                leader.stop = Some(slot);
            }
            self.clients.wait(entry.id, Waiter::proposed(request, ballot, Path::OneRtt, now));
            self.propose(slot, entry, now);
        }
    }

    fn window_has_room(&self, next: Slot) -> bool {
        let open = next.saturating_sub(self.learner.applied() + 1);
        open == 0 || open < self.config.window && self.open_bytes < self.config.window_bytes
    }
}
