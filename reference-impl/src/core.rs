//! The consensus core, sans-IO: messages, ticks, client commands and disk completions in; disk writes, messages and replies
//! out. Same inputs, same outputs, for ever.
//!
//! ```text
//!            Input                               Effect
//!  Message{from, …} ─┐                     ┌─→ Persist{token, records}      to the log; later comes back as Persisted(token)
//!  Client{…}        ─┤   step(now, input)  ├─→ Send{to, message, after}     after: only once that token is on disk
//!  Tick             ─┼──────→ Core ───────→├─→ Reply{to, reply}
//!  Persisted(token) ─┘                     └─→ Note(…)                      for the operator's log
//!
//!  a write under Multi-Paxos                          a write under Basic Paxos
//!   client   leader    acceptors                       client  proposer  acceptors
//!     │ put ─→ │ Accept ──→ │ (disk)                     │ put ─→ │ Prepare ──→ │ (disk)
//!     │        │ ←─ Accepted│                            │        │ ←── Promise │
//!     │ ←─ ok  │  quorum: chosen, applied                │        │ Accept ───→ │ (disk)
//!     │        │  (others learn by the next              │        │ ←── Accepted│
//!     │        │   Accept or Heartbeat)                  │ ←─ ok  │ Chosen ───→ │
//! ```
//!
//! "After the token" is how promises and acceptances are durable *before* they are answered: a driver that obeys `after`
//! cannot get it wrong, and a crash loses exactly the tokens that were not reported. A node talks to itself like to anyone
//! else, through a loop-back that obeys the same rule, so that the leader's own vote counts only when it is on disk.
//!
//! Deliberately not here: sockets, clocks, threads, files, and any randomness but the seeded one of [`Config::seed`].

mod acceptor;
mod ballot;
mod basic;
mod catchup;
mod clients;
mod command;
mod config;
mod digest;
mod effect;
mod election;
mod identity;
mod joining;
mod leader;
mod learner;
mod lease;
mod machine;
mod members;
mod message;
mod observed;
mod reads;
mod reconfigure;
mod record;
mod session;
mod snapshot;
#[cfg(test)]
mod testing;
mod wakeup;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub use acceptor::{Acceptor, Refused};
pub use ballot::{Ballot, Mono, NodeId, Slot};
pub use command::{Command, Entry, EntryId, Failure, Op, Output, Path, ReadMode, Reply, Served};
pub use config::{Backoff, Config, Protocol, Timing};
pub use effect::{Call, Effect, Input, Note, Status, Token};
pub use joining::Forgotten;
pub use learner::{Conflict, Learner, entry_hash};
pub use lease::{Grant, Lease};
pub use machine::{Applied, Cursor, Machine, Piece};
pub use members::{MEMBERS_MAX, Member, Members, Nodes};
pub use message::{Message, Scope, Vote};
pub use observed::{CHECKPOINT_EVERY, Checkpoint, SlotView};
pub use record::{Durable, Record};
pub use session::{SESSIONS_MAX, Seen, SessionRow, Sessions};
pub use snapshot::Snapshot;

use basic::Basic;
use catchup::CatchUp;
use clients::Clients;
use election::Candidate;
use joining::Joining;
use leader::{Leader, Proposal};
use observed::Observed;
use reads::Reads;
use snapshot::Snapshots;

/// Largest key, in bytes.
pub const KEY_MAX: usize = 4 << 10;
/// Largest value, in bytes.
pub const VALUE_MAX: usize = 1 << 20;

/// What a node is at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    Follower,
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// One node of the cluster, without its surroundings.
#[derive(Clone, Debug)]
pub struct Core {
    config: Config,
    epoch: u64,
    rng: ChaCha8Rng,
    acceptor: Acceptor,
    learner: Learner,
    grant: Grant,
    role: Role,
    /// The highest ballot that a leader was heard of under.
    follows: Option<Ballot>,
    election_at: Mono,
    /// The highest round seen anywhere.
    top_round: u64,
    elections_won: u64,
    /// Accepts in flight, whoever leads by now: a quorum of votes chooses even for a leader who has been deposed.
    proposals: BTreeMap<(Slot, Ballot), Proposal>,
    /// Bytes of their entries.
    open_bytes: usize,
    /// None of the leader's own proposals is to be sent again before this.
    resend_due: Mono,
    clients: Clients,
    basic: Basic,
    catch_up: CatchUp,
    snapshots: Snapshots,
    joining: Joining,
    /// The log on the disk begins behind this slot.
    truncated: Slot,
    /// The longest lease that any incarnation may have granted.
    lease_noted: Duration,
    reads: Reads,
    next_id: u64,
    issued: Token,
    persisted: Token,
    /// Own messages that wait for the own disk.
    loopback: BTreeMap<Token, Vec<Message>>,
    inbox: VecDeque<Message>,
    /// Learned values that differ from the own vote: they are written before any commit hint that covers them.
    unwritten: Vec<Record>,
    commit_noted: Slot,
    commit_noted_at: Mono,
    next_gossip: Mono,
    observed: Observed,
    effects: Vec<Effect>,
}

/// How long a commit hint may wait for company before it is written alone.
const COMMIT_HINT_EVERY: Duration = Duration::from_millis(500);

impl Core {
    /// A node with what its disk remembers. [`Durable::start`] must have been called, and its record, if any, be on disk.
    pub fn new(mut config: Config, durable: Durable, now: Mono) -> Self {
        config.hooks = config.hooks.on(config.id);
        let first_start = durable.epoch <= 1 || !config.hooks.waits_after_restart();
        let grant = if first_start {
            Grant::default()
        } else {
            Grant::after_restart(now + durable.lease.max(config.timing.lease))
        };
        let seed =
            config.seed ^ (u64::from(config.id) << 32) ^ durable.epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let acceptor = Acceptor::recover(config.protocol, config.hooks, &durable);
        let mut core = Core {
            epoch: durable.epoch,
            rng: ChaCha8Rng::seed_from_u64(seed),
            top_round: acceptor.highest_promise().round,
            acceptor,
            learner: Learner::default(),
            grant,
            role: Role::Follower,
            follows: None,
            election_at: now,
            elections_won: 0,
            proposals: BTreeMap::new(),
            open_bytes: 0,
            resend_due: Mono::NEVER,
            clients: Clients::default(),
            basic: Basic::default(),
            catch_up: CatchUp::default(),
            snapshots: config.snapshots_after(durable.snapshot.as_ref().map_or(0, |snapshot| snapshot.slot)),
            joining: Joining::recover(&durable, now),
            truncated: durable.truncated,
            lease_noted: durable.lease.max(config.timing.lease),
            reads: Reads::default(),
            next_id: 1,
            issued: 0,
            persisted: 0,
            loopback: BTreeMap::new(),
            inbox: VecDeque::new(),
            unwritten: Vec::new(),
            commit_noted: durable.commit,
            commit_noted_at: now,
            next_gossip: now,
            observed: Observed::default(),
            effects: Vec::new(),
            config,
        };
        core.recover_learner(&durable, now);
        core.effects.clear();
        core.observed = Observed::recovered(core.acceptor.promised(Slot::MAX));
        core.unwritten.clear();
        core.reset_election(now);
        core
    }

    /// Takes one input at `now`, the node's own clock read *after* the input was received (a lease is checked against it),
    /// and returns what is to be done, in order.
    pub fn step(&mut self, now: Mono, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.step_into(now, input, &mut effects);
        effects
    }

    /// The same with the caller's own memory: `effects`, which must be empty, becomes what is to be done.
    pub fn step_into(&mut self, now: Mono, input: Input, effects: &mut Vec<Effect>) {
        std::mem::swap(&mut self.effects, effects);
        self.truncate_if_behind(now);
        match input {
            Input::Message { from, message } => {
                if self.may_say(from, &message) {
                    self.on_message(from, message, now);
                }
            }
            Input::Client { call, command, deadline, no_forward } => {
                self.on_client(call, command, deadline, no_forward, now);
            }
            Input::Tick => self.on_tick(now),
            Input::SnapshotSaved(slot) => self.on_snapshot_saved(slot, now),
            Input::HandOver => self.hand_over(now),
            Input::Persisted(token) => {
                self.persisted = self.persisted.max(token);
                let later = self.loopback.split_off(&(token + 1));
                let ready = std::mem::replace(&mut self.loopback, later);
                self.inbox.extend(ready.into_values().flatten());
                self.joining_persisted(now);
            }
        }
        self.settle(now);
        self.snapshot_if_due(now);
        if !self.unwritten.is_empty() {
            self.persist(Vec::new(), now);
        }
        self.observed.notice(self.issued, self.persisted, self.acceptor.promised(Slot::MAX));
        std::mem::swap(&mut self.effects, effects);
    }

    /// Handles what the node has told itself, until it is quiet.
    fn settle(&mut self, now: Mono) {
        loop {
            while let Some(message) = self.inbox.pop_front() {
                self.on_message(self.config.id, message, now);
            }
            if self.config.protocol == Protocol::BasicPaxos {
                self.basic_advance(now);
            }
            if self.inbox.is_empty() {
                break;
            }
        }
    }

    fn on_message(&mut self, from: NodeId, message: Message, now: Mono) {
        if let Some(config) = message.config() {
            if config != self.config.number {
                return self.other_configuration(from, &message, config, now);
            }
            if !self.config.nodes.contains(&from) {
                return;
            }
        }
        match message {
            Message::Prepare { ballot, scope } => self.on_prepare(from, ballot, scope, now),
            Message::Promise { ballot, scope, commit, votes } => {
                self.on_promise(from, ballot, scope, commit, votes, now);
            }
            Message::Nack { ballot, slot, promised, .. } => self.on_nack(from, ballot, slot, promised, now),
            Message::Accept { ballot, slot, entry, commit } => {
                self.on_accept(from, ballot, slot, entry, commit, now);
            }
            Message::Accepted { ballot, slot } => self.on_accepted(from, ballot, slot, now),
            Message::Heartbeat { ballot, commit, round, lease } => {
                self.on_heartbeat(from, ballot, commit, round, lease, now);
            }
            Message::HeartbeatAck { ballot, round } => self.on_heartbeat_ack(from, ballot, round, now),
            Message::Fetch { from: slot } => self.on_fetch(from, slot, now),
            Message::FetchSnapshot { slot, at } => self.on_fetch_snapshot(from, slot, &at, now),
            Message::Snapshot { slot, hash, at, next, piece } => {
                self.on_snapshot(from, (slot, hash), at, next, piece, now);
            }
            Message::Hello { epoch, nonce } => self.on_hello(from, epoch, nonce, now),
            welcome @ Message::Welcome { .. } => self.on_welcome(from, welcome, now),
            Message::Chosen { entries, commit } => self.on_chosen(from, entries, commit, now),
            Message::ReadQuery { id, .. } => self.on_read_query(from, id),
            Message::ReadAnswer { id, last, .. } => self.on_read_answer(from, id, last, now),
            Message::Release { ballot, to } if ballot.node == from => self.on_release(ballot, to, now),
            Message::Release { .. } => {}
            Message::Forward { id, command, ttl } => self.on_forward(from, id, command, ttl, now),
            Message::ForwardReply { id, reply } => self.on_forward_reply(id, *reply, now),
        }
    }

    fn on_tick(&mut self, now: Mono) {
        self.joining_tick(now);
        if self.is_asking() {
            return;
        }
        match self.config.protocol {
            Protocol::MultiPaxos => {
                self.election_tick(now);
                self.leader_tick(now);
            }
            Protocol::BasicPaxos => self.basic_tick(now),
        }
        self.catch_up_tick(now);
        self.snapshots_tick(now);
        self.clients_tick(now);
        self.reads_tick(now);
        if self.learner.applied() > self.commit_noted && now.since(self.commit_noted_at) >= COMMIT_HINT_EVERY
        {
            self.persist(Vec::new(), now);
        }
    }

    // --- the acceptor's messages ------------------------------------------------------------------------------------

    fn on_prepare(&mut self, from: NodeId, ballot: Ballot, scope: Scope, now: Mono) {
        self.top_round = self.top_round.max(ballot.round);
        if !self.votes() {
            return;
        }
        let slot = scope.slot();
        if let Scope::Only(slot) = scope
            && (slot <= self.learner.floor() || self.learner.chosen(slot).is_some())
        {
            return self.on_fetch(from, slot, now);
        }
        if self.config.protocol == Protocol::MultiPaxos && self.config.hooks.honours_lease() {
            let lease_left = self.grant.refuses(from, now);
            if !lease_left.is_zero() {
                let promised = self.acceptor.promised(slot);
                return self.send(from, Message::Nack { ballot, slot, promised, lease_left }, None);
            }
        }
        match self.acceptor.prepare(ballot, scope) {
            Err(Refused(promised)) => self.refuse(from, ballot, slot, promised),
            Ok(record) => {
                if let Some(record) = record
                    && self.config.hooks.writes_promises()
                {
                    self.persist(vec![record], now);
                }
                self.yield_to(ballot, now);
                let commit = self.learner.applied();
                let votes = self.acceptor.votes(scope, commit);
                let commit = if self.config.hooks.tells_commit() { commit } else { 0 };
                self.send_when_durable(from, Message::Promise { ballot, scope, commit, votes });
            }
        }
    }

    fn on_accept(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        entry: Arc<Entry>,
        commit: Slot,
        now: Mono,
    ) {
        self.top_round = self.top_round.max(ballot.round);
        if !self.votes() {
            return self.want(commit, from, now);
        }
        if slot <= self.learner.floor() {
            // Nothing but the chosen value is of any use there, and a vote would not be remembered.
            return self.on_fetch(from, slot, now);
        }
        if let Some(chosen) = self.learner.chosen(slot).filter(|chosen| **chosen != entry) {
            // A late vote that lost. It must not pass for the chosen value when a commit hint is read back.
            self.unwritten.push(Record::Chosen { slot, entry: chosen.clone() });
        }
        if slot <= self.learner.applied() && !self.config.hooks.remembers_decided_slots() {
            self.acceptor.forget(slot);
        }
        match self.acceptor.accept(ballot, slot, entry) {
            Err(Refused(promised)) => self.refuse(from, ballot, slot, promised),
            Ok(record) => {
                if let Some(record) = record {
                    self.persist(vec![record], now);
                }
                if self.config.protocol == Protocol::MultiPaxos {
                    self.hear_leader(ballot, now);
                }
                let accepted = Message::Accepted { ballot, slot };
                let own = from == self.config.id && !self.config.hooks.syncs_own_votes();
                if self.config.hooks.syncs_acceptances() && !own {
                    self.send_when_durable(from, accepted);
                } else {
                    self.send(from, accepted, None);
                }
            }
        }
        match self.config.protocol {
            Protocol::MultiPaxos => self.learn_commit(from, ballot, commit, now),
            // Ballots of different slots have nothing to do with each other: an own vote proves nothing.
            Protocol::BasicPaxos => self.want(commit, from, now),
        }
    }

    fn refuse(&mut self, from: NodeId, ballot: Ballot, slot: Slot, promised: Ballot) {
        self.send(from, Message::Nack { ballot, slot, promised, lease_left: Duration::ZERO }, None);
    }

    fn on_nack(&mut self, from: NodeId, ballot: Ballot, slot: Slot, promised: Ballot, now: Mono) {
        self.top_round = self.top_round.max(promised.round);
        match self.config.protocol {
            Protocol::MultiPaxos if promised > ballot => self.outbid(ballot, now),
            Protocol::MultiPaxos => {} // bound by a lease for a while: the candidate keeps asking
            Protocol::BasicPaxos => self.basic_nack(from, ballot, slot, now),
        }
    }

    // --- plumbing ---------------------------------------------------------------------------------------------------

    fn fresh_id(&mut self) -> EntryId {
        self.next_id += 1;
        EntryId { node: self.config.id, epoch: self.epoch, n: self.next_id - 1 }
    }

    /// Writes records, and the commit hint with them if it has moved.
    fn persist(&mut self, mut records: Vec<Record>, now: Mono) {
        records.append(&mut self.unwritten);
        if self.learner.applied() > self.commit_noted {
            self.commit_noted = self.learner.applied();
            self.commit_noted_at = now;
            records.push(Record::Commit { slot: self.commit_noted });
        }
        if !records.is_empty() {
            self.issued += 1;
            self.observed.wrote(self.issued, &records);
            self.effects.push(Effect::Persist { token: self.issued, records });
        }
    }

    fn send(&mut self, to: NodeId, message: Message, after: Option<Token>) {
        if to != self.config.id {
            self.effects.push(Effect::Send { to, message, after });
        } else if let Some(token) = after {
            self.loopback.entry(token).or_default().push(message);
        } else {
            self.inbox.push_back(message);
        }
    }

    /// Sends once everything that was decided so far is on disk: also what an earlier step decided and a duplicate repeats.
    fn send_when_durable(&mut self, to: NodeId, message: Message) {
        let after = (self.issued > self.persisted).then_some(self.issued);
        self.send(to, message, after);
    }

    fn broadcast(&mut self, message: &Message) {
        let others: Vec<NodeId> = self.config.others().collect();
        for to in others {
            self.send(to, message.clone(), None);
        }
    }

    // --- looking in -------------------------------------------------------------------------------------------------

    /// What this node believes.
    pub fn status(&self) -> Status {
        let (role, leading, lease_until) = match &self.role {
            _ if let Some(role) = self.joining.role() => (role, None, None),
            Role::Follower if !self.is_member() => ("learner", None, None),
            _ if self.config.protocol == Protocol::BasicPaxos => ("proposer", None, None),
            Role::Follower => ("follower", None, None),
            Role::Candidate(_) => ("candidate", None, None),
            Role::Leader(leader) => ("leader", Some(leader.ballot), self.lease_until(leader)),
        };
        let (told, recovered) = self.observed.promises();
        Status {
            node: self.config.id,
            role,
            promised: self.acceptor.highest_promise(),
            leading,
            leader: self.follows.map_or(0, |ballot| ballot.node),
            commit: self.learner.applied(),
            applied: self.learner.applied(),
            last_slot: self.acceptor.last_slot().max(self.learner.last_chosen()),
            lease_until,
            elections_won: self.elections_won,
            preempted: self.basic.preempted(),
            applied_hash: self.learner.hash(),
            epoch: self.epoch,
            told,
            recovered,
            first_slot: self.truncated + 1,
            snapshot: self.snapshots.saved(),
            here: self.here(),
            unsynced: self.issued - self.persisted,
            config: self.config.number,
            members: self.members().clone(),
        }
    }

    /// The acceptor's memory.
    pub fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// What was chosen and applied.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// How it was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
