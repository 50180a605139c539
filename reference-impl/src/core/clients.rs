//! Who waits for what: clients' commands on their way to a leader, through the log, and back.
//!
//! ```text
//!            ┌─ this node leads ────→ lead() ─→ waiting[entry id] ─ applied ─→ reply
//!  route() ──┼─ somebody else does ─→ forwarded[id] ── ForwardReply ─────────→ reply (forwarded = true)
//!            └─ nobody does ────────→ parked ─ a leader appears → route()
//!                                            └ too long → NOT_LEADER
//! ```
//!
//! The rule of all answers: once a command has left this node, or was proposed, it is never called "not applied" again
//! ([`Request::offered`]); if its fate is not known in time the answer is UNKNOWN. A command that may be sent twice (a read, or
//! one that the session table guards) is forwarded again when the answer is late or the leader changes; any other is not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::command::{Command, EntryId, Failure, Op, Output, Path, ReadMode, Reply, Served};
use super::machine::Applied;
use super::members;
use super::message::Message;
use super::{Call, Core, Effect, KEY_MAX, Protocol, Role, VALUE_MAX};

/// Whom to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    Local(Call),
    Peer { node: NodeId, id: EntryId },
}

/// A client's command, and how long there is to serve it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    origin: Origin,
    pub(super) command: Command,
    pub(super) arrived: Mono,
    pub(super) deadline: Mono,
    no_forward: bool,
    /// It was forwarded or proposed: from now on it may be applied, whatever happens here.
    pub(super) offered: bool,
}

impl Request {
    pub(super) fn may_be_forwarded(&self) -> bool {
        !self.no_forward && matches!(self.origin, Origin::Local(_))
    }
}

/// A command that was proposed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiter {
    request: Request,
    ballot: Ballot,
    path: Path,
    rounds: u32,
    proposed: Mono,
    chosen: Option<Mono>,
    synced: Duration,
    /// How long its own prepare phase took.
    phase1: Duration,
}

impl Waiter {
    pub(super) fn proposed(mut request: Request, ballot: Ballot, path: Path, now: Mono) -> Self {
        request.offered |= path == Path::OneRtt;
        Waiter {
            request,
            ballot,
            path,
            rounds: 0,
            proposed: now,
            chosen: None,
            synced: Duration::ZERO,
            phase1: Duration::ZERO,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Forwarded {
    request: Request,
    to: NodeId,
    again_at: Mono,
    again_after: Duration,
    /// It was sent more than once, or proposed before.
    again: bool,
}

/// Everybody who waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Clients {
    waiting: BTreeMap<EntryId, Waiter>,
    forwarded: BTreeMap<EntryId, Forwarded>,
    parked: Vec<(Mono, Request)>,
    /// Before this nobody has waited for too long, and nothing is to be asked again.
    due: Mono,
}

impl Default for Clients {
    fn default() -> Self {
        Clients { waiting: BTreeMap::new(), forwarded: BTreeMap::new(), parked: Vec::new(), due: Mono::NEVER }
    }
}

impl Clients {
    pub(super) fn wait(&mut self, id: EntryId, waiter: Waiter) {
        self.look_at(waiter.request.deadline);
        self.waiting.insert(id, waiter);
    }

    /// Somebody's patience ends, or something is to be asked again, at this moment.
    pub(super) fn look_at(&mut self, due: Mono) {
        self.due = self.due.min(due);
    }

    /// When that is, or a moment before it.
    pub(super) fn wakeup(&self) -> Mono {
        self.due
    }

    fn park(&mut self, until: Mono, request: Request) {
        self.look_at(until);
        self.parked.push((until, request));
    }

    pub(super) fn waits_for(&self, id: EntryId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// The entry is known to be chosen.
    pub(super) fn chosen(&mut self, id: EntryId, now: Mono) {
        if let Some(waiter) = self.waiting.get_mut(&id) {
            waiter.chosen.get_or_insert(now);
        }
    }

    /// The proposer's own vote for the entry is on disk.
    pub(super) fn synced(&mut self, id: EntryId, took: Duration) {
        if let Some(waiter) = self.waiting.get_mut(&id) {
            waiter.synced = took;
        }
    }

    /// A Basic Paxos round for the entry begins.
    pub(super) fn round(&mut self, id: EntryId, ballot: Ballot, rounds: u32) {
        if let Some(waiter) = self.waiting.get_mut(&id) {
            waiter.ballot = ballot;
            waiter.rounds = rounds;
        }
    }

    /// The entry was sent in an accept: it may be chosen from now on.
    pub(super) fn offered(&mut self, id: EntryId, now: Mono) {
        if let Some(waiter) = self.waiting.get_mut(&id) {
            waiter.request.offered = true;
            waiter.phase1 = now.since(waiter.proposed);
        }
    }
}

impl Core {
    pub(super) fn on_client(
        &mut self,
        call: Call,
        command: Command,
        deadline: Option<Duration>,
        no_forward: bool,
        now: Mono,
    ) {
        let deadline = now + deadline.unwrap_or(self.config.timing.deadline);
        let request = Request {
            origin: Origin::Local(call),
            command,
            arrived: now,
            deadline,
            no_forward,
            offered: false,
        };
        if let Err(why) = validate(&request.command.op) {
            return self.answer(request, Err(Failure::Invalid(why)), Served::default());
        }
        if self.is_asking() || self.config.protocol == Protocol::BasicPaxos && !self.votes() {
            return self.answer(request, Err(Failure::NotLeader), Served::default());
        }
        if let Op::Get { mode: ReadMode::Stale, .. } = request.command.op {
            return self.answer_locally(request, Path::StaleRead);
        }
        if !self.is_member() && matches!(self.role, Role::Follower) {
            return self.answer(request, Err(Failure::NotLeader), Served::default());
        }
        if let Op::Reconfigure { .. } = request.command.op
            && self.config.protocol == Protocol::BasicPaxos
        {
            let why = "under basic-paxos the members cannot be changed".to_owned();
            return self.answer(request, Err(Failure::Invalid(why)), Served::default());
        }
        if let Op::Cas { .. } = request.command.op
            && !self.config.hooks.decides_every_cas()
            && matches!(
                self.learner.machine().preview(&request.command.op),
                Output::Cas { swapped: false, .. }
            )
        {
            return self.answer_locally(request, Path::OneRtt);
        }
        match self.config.protocol {
            Protocol::MultiPaxos => match request.command.op {
                Op::Get { mode: ReadMode::Quorum, .. } => self.quorum_read(request, now),
                _ => self.route(request, now),
            },
            Protocol::BasicPaxos => self.basic_enqueue(request),
        }
    }

    fn answer_locally(&mut self, request: Request, path: Path) {
        let output = self.learner.machine().preview(&request.command.op);
        let served = Served { path, slot: self.learner.applied(), node: self.config.id, ..Served::default() };
        self.answer(request, Ok(output), served);
    }

    /// Brings a command to whoever leads.
    pub(super) fn route(&mut self, request: Request, now: Mono) {
        if matches!(self.role, Role::Leader(_)) {
            return self.lead(request, now);
        }
        if request.command.op.is_read() && !self.config.hooks.forwards_reads() {
            return self.answer_locally(request, Path::LeaseRead);
        }
        let local = matches!(request.origin, Origin::Local(_));
        match self.follows {
            Some(leader) if local && !request.no_forward && leader.node != self.config.id => {
                let id = self.fresh_id();
                self.forward(id, request, leader.node, now);
            }
            None if local && !request.no_forward => {
                let until = (now + self.config.timing.leader_wait).min(request.deadline);
                self.clients.park(until, request);
            }
            _ => self.answer(request, Err(Failure::NotLeader), Served::default()),
        }
    }

    fn forward(&mut self, id: EntryId, mut request: Request, to: NodeId, now: Mono) {
        let again = std::mem::replace(&mut request.offered, true);
        let (command, ttl) = (request.command.clone(), request.deadline.since(now));
        let again_after = self.config.timing.resend;
        self.clients.look_at(request.deadline.min(now + again_after));
        self.clients
            .forwarded
            .insert(id, Forwarded { request, to, again_at: now + again_after, again_after, again });
        self.send(to, Message::Forward { id, command, ttl }, None);
    }

    pub(super) fn on_forward(
        &mut self,
        from: NodeId,
        id: EntryId,
        command: Command,
        ttl: Duration,
        now: Mono,
    ) {
        let origin = Origin::Peer { node: from, id };
        self.route(
            Request { origin, command, arrived: now, deadline: now + ttl, no_forward: true, offered: false },
            now,
        );
    }

    pub(super) fn on_forward_reply(&mut self, id: EntryId, mut reply: Reply, now: Mono) {
        let Some(forwarded) = self.clients.forwarded.remove(&id) else { return };
        let mut request = forwarded.request;
        match &reply.result {
            Err(Failure::Invalid(_)) if !forwarded.again => {
                // It was sent once, and refused.
                request.offered = false;
                self.answer(request, reply.result, reply.served);
            }
            Err(failure) if failure.is_definite() => {
                if request.command.may_be_sent_again() && now < request.deadline {
                    let until = (now + self.config.timing.leader_wait).min(request.deadline);
                    self.clients.park(until, request);
                } else {
                    self.answer(request, Err(Failure::Unknown("the leader did not take it")), reply.served);
                }
            }
            _ => {
                reply.served.forwarded = true;
                self.answer(request, reply.result, reply.served);
            }
        }
    }

    /// Somebody leads (perhaps this node): whoever waits for that can go on.
    pub(super) fn leader_known(&mut self, now: Mono) {
        for (_, request) in std::mem::take(&mut self.clients.parked) {
            self.route(request, now);
        }
        // What was asked of this leader before may be asked again.
        self.clients.look_at(now);
        let Some(leader) = self.follows else { return };
        let moved: Vec<EntryId> = self
            .clients
            .forwarded
            .iter()
            .filter(|(_, forwarded)| {
                forwarded.to != leader.node && forwarded.request.command.may_be_sent_again()
            })
            .map(|(id, _)| *id)
            .collect();
        for id in moved {
            let Some(forwarded) = self.clients.forwarded.remove(&id) else { continue };
            if leader.node == self.config.id {
                self.lead(forwarded.request, now);
            } else {
                self.forward(id, forwarded.request, leader.node, now);
            }
        }
    }

    /// Gives up what has waited for too long, and asks again where that is harmless.
    pub(super) fn clients_tick(&mut self, now: Mono) {
        if now < self.clients.due {
            return;
        }
        let late: Vec<EntryId> = expired(&self.clients.waiting, |waiter| now >= waiter.request.deadline);
        for id in late {
            self.answer_unknown(id, "the time ran out after it was proposed");
        }
        let late: Vec<EntryId> =
            expired(&self.clients.forwarded, |forwarded| now >= forwarded.request.deadline);
        for id in late {
            if let Some(forwarded) = self.clients.forwarded.remove(&id) {
                let why = Failure::Unknown("the time ran out after it was forwarded");
                self.answer(forwarded.request, Err(why), Served::default());
            }
        }
        let (late, parked) =
            std::mem::take(&mut self.clients.parked).into_iter().partition(|(until, _)| now >= *until);
        self.clients.parked = parked;
        for (_, request) in Vec::from_iter::<Vec<(Mono, Request)>>(late) {
            self.answer(request, Err(Failure::NotLeader), Served::default());
        }
        if let Role::Leader(leader) = &mut self.role {
            let (late, queue) =
                std::mem::take(&mut leader.queue).into_iter().partition(|request| now >= request.deadline);
            leader.queue = queue;
            for request in Vec::from_iter::<VecDeque<Request>>(late) {
                self.answer(
                    request,
                    Err(Failure::Overloaded("no room to propose it in time")),
                    Served::default(),
                );
            }
        }
        self.forward_again(now);
        self.clients.due = self.next_due();
    }

    fn next_due(&self) -> Mono {
        let clients = &self.clients;
        let waiting = clients.waiting.values().map(|waiter| waiter.request.deadline);
        let forwarded = clients.forwarded.values().map(|forwarded| {
            let request = &forwarded.request;
            let again = self.follows.is_some() && request.command.may_be_sent_again();
            if again { forwarded.again_at.min(request.deadline) } else { request.deadline }
        });
        let parked = clients.parked.iter().map(|(until, _)| *until);
        let queue = match &self.role {
            Role::Leader(leader) => Some(leader.queue.iter().map(|request| request.deadline)),
            _ => None,
        };
        let all = waiting.chain(forwarded).chain(parked).chain(queue.into_iter().flatten());
        all.min().unwrap_or(Mono::NEVER)
    }

    fn forward_again(&mut self, now: Mono) {
        let Some(leader) = self.follows else { return };
        let mut again = Vec::new();
        for (id, forwarded) in &mut self.clients.forwarded {
            if now >= forwarded.again_at && forwarded.request.command.may_be_sent_again() {
                forwarded.again = true;
                forwarded.again_after *= 2;
                forwarded.again_at = now + forwarded.again_after;
                let (command, ttl) =
                    (forwarded.request.command.clone(), forwarded.request.deadline.since(now));
                again.push(Message::Forward { id: *id, command, ttl });
            }
        }
        for message in again {
            if leader.node != self.config.id {
                self.send(leader.node, message, None);
            }
        }
    }

    /// Answers a request, once. A failure that claims "not applied" is weakened if the command was offered to anyone.
    pub(super) fn answer(&mut self, request: Request, result: Result<Output, Failure>, served: Served) {
        let result = match result {
            Err(failure) if failure.is_definite() && request.offered && self.config.hooks.admits_doubt() => {
                Err(Failure::Unknown("it was offered to a leader that may have taken it"))
            }
            other => other,
        };
        // Who is no member hears of no leader.
        let likely = if self.is_member() { None } else { self.config.nodes.first().copied() };
        let leader_hint = self.follows.map(|ballot| ballot.node).or(likely).unwrap_or(0);
        let reply = Box::new(Reply { result, served, leader_hint });
        match request.origin {
            Origin::Local(call) => self.effects.push(Effect::Reply { call, reply }),
            Origin::Peer { node, id } => self.send(node, Message::ForwardReply { id, reply }, None),
        }
    }

    /// Answers whoever waits for this very entry, now that it is applied at `slot`.
    pub(super) fn answer_applied(&mut self, slot: Slot, id: EntryId, applied: Applied, now: Mono) {
        let Some(waiter) = self.clients.waiting.remove(&id) else { return };
        let chosen = waiter.chosen.unwrap_or(now);
        let served = Served {
            path: if applied.duplicate { Path::Retry } else { waiter.path },
            forwarded: false,
            slot,
            ballot: waiter.ballot,
            node: self.config.id,
            queue: waiter.proposed.since(waiter.request.arrived),
            commit: chosen.since(waiter.proposed),
            phase1: waiter.phase1,
            fsync: waiter.synced,
            apply: now.since(chosen),
            rounds: waiter.rounds,
        };
        self.answer(waiter.request, applied.result, served);
    }

    /// Gives up waiting for an entry. Only if it never left this node does that say anything about its fate.
    pub(super) fn answer_unknown(&mut self, id: EntryId, why: &'static str) {
        let Some(waiter) = self.clients.waiting.remove(&id) else { return };
        let failure = if waiter.request.offered && self.config.hooks.admits_doubt() {
            Failure::Unknown(why)
        } else {
            Failure::Overloaded("no majority answered the prepare in time; it was not proposed")
        };
        let served = Served {
            ballot: waiter.ballot,
            node: self.config.id,
            rounds: waiter.rounds,
            ..Served::default()
        };
        self.answer(waiter.request, Err(failure), served);
    }
}

fn expired<T>(map: &BTreeMap<EntryId, T>, is_late: impl Fn(&T) -> bool) -> Vec<EntryId> {
    map.iter().filter(|(_, item)| is_late(item)).map(|(id, _)| *id).collect()
}

fn validate(op: &Op) -> Result<(), String> {
    if let Op::Reconfigure { nodes, .. } = op {
        return members::validate(nodes);
    }
    if op.key().is_empty() {
        return Err("the key is empty; name one".to_owned());
    }
    if op.key().len() > KEY_MAX {
        return Err(format!("the key has {} bytes; at most {KEY_MAX} are allowed", op.key().len()));
    }
    let size = op.size() - op.key().len();
    if size > VALUE_MAX {
        return Err(format!("the values have {size} bytes; at most {VALUE_MAX} are allowed"));
    }
    Ok(())
}
