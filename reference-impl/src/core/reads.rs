//! Linearizable reads that ask others, but write nothing: by read-index at the leader, and by quorum anywhere.
//!
//! ```text
//! read-index   client    leader                acceptors          quorum   client    any node             acceptors
//!                │ get ───→ │ index = applied      │                         │ get ───→ │ ReadQuery ─────────→ │
//!                │          │ Heartbeat(round r) ─→│                         │          │ ←─ highest slot voted│
//!                │          │ ←───────── ack(r) ── │                         │          │ majority: the highest of them
//!                │ ←─ value │ still leads          │                         │ ←─ value │ once that slot is applied here
//! ```
//!
//! *Read-index* (Ongaro's thesis, §6.4): whatever was answered before the read arrived is at or below what the leader had applied by
//! then, provided that it still led then. A round of heartbeats that was *sent after* the read arrived and that a quorum acknowledged
//! proves that. One round serves all reads that wait for it.
//!
//! *Quorum reads* (Charapko, Ailijiang, Demirbas: "Linearizable Quorum Reads in Paxos", HotStorage 2019): whatever was answered before
//! is accepted by a majority, so one of any majority knows its slot. The slot that is waited for need not be chosen yet, and nobody may be about to
//! propose there: a leader that has failed may have left a vote behind that no later one was told of. So a read that has waited for long goes
//! through the log instead. Deliberately no leases and no clocks in this file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::ballot::{Mono, NodeId, Slot};
use super::clients::Request;
use super::command::{EntryId, Failure, Op, Path, ReadMode, Served};
use super::message::Message;
use super::{Core, Role};

/// Reads that wait for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    /// At the leader, in the order of their arrival.
    index: VecDeque<IndexRead>,
    quorum: BTreeMap<EntryId, QuorumRead>,
    /// The quorum reads that a majority has answered, by the slot that they wait for.
    told: BTreeSet<(Slot, EntryId)>,
    /// Nothing is to be repeated or given up before this.
    due: Mono,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct IndexRead {
    request: Request,
    /// What must be applied before it is answered.
    index: Slot,
    /// The round that must be acknowledged; none was sent since it arrived if `None`.
    round: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct QuorumRead {
    request: Request,
    /// The highest slot that each has voted for.
    last: BTreeMap<NodeId, Slot>,
    /// The highest of them, once there is a majority of them: later ones do not matter.
    waits_for: Option<Slot>,
    /// Until then whoever has not answered is given time; or, if a slot is waited for, that slot is.
    patient_until: Mono,
}

impl Reads {
    /// When a question may have to be repeated, or a read may have waited for too long. Perhaps it was answered meanwhile: that is not looked
    /// for with every step.
    pub(super) fn wakeup(&self) -> Mono {
        if self.index.is_empty() && self.quorum.is_empty() { Mono::NEVER } else { self.due }
    }

    /// A read has come that must be looked at then.
    fn look_at(&mut self, due: Mono) {
        self.due = self.wakeup().min(due);
    }

    fn next_due(&self) -> Mono {
        let index = self.index.iter().map(|read| read.request.deadline);
        let quorum = self.quorum.values().map(|read| read.request.deadline.min(read.patient_until));
        index.chain(quorum).min().unwrap_or(Mono::NEVER)
    }

    /// A round of heartbeats is being sent: it confirms whatever has arrived before.
    pub(super) fn round_sent(&mut self, round: u64) {
        self.index
            .iter_mut()
            .rev()
            .take_while(|read| read.round.is_none())
            .for_each(|read| read.round = Some(round));
    }

    /// Whoever led does not any more: its reads have to go elsewhere.
    pub(super) fn take_index(&mut self) -> impl Iterator<Item = Request> + use<> {
        std::mem::take(&mut self.index).into_iter().map(|read| read.request)
    }
}

impl Core {
    /// A read by read-index has reached the leader.
    pub(super) fn read_index(&mut self, request: Request, now: Mono) {
        let Role::Leader(leader) = &self.role else { return };
        if self.reads.index.len() >= self.config.queue {
            let full = Failure::Overloaded("the leader's queue of reads is full");
            return self.answer(request, Err(full), Served::default());
        }
        // Before the barrier the leader may not know what its predecessor has answered.
        let index = self.learner.applied().max(leader.barrier);
        let known = leader.lease.confirmed();
        let round = (!self.config.hooks.confirms_after_arrival()).then_some(known);
        self.reads.look_at(request.deadline);
        self.reads.index.push_back(IndexRead { request, index, round });
        self.index_advance(now);
    }

    /// Answers the reads whose round was acknowledged and whose index is applied, and sends a round for those that wait for one.
    pub(super) fn index_advance(&mut self, now: Mono) {
        if self.reads.index.is_empty() {
            return;
        }
        let applied = self.learner.applied();
        let Role::Leader(leader) = &self.role else { return };
        if leader.stop.is_some() && self.config.shortcuts.stops_reading() {
            // They wait for whoever leads in the next configuration.
            return;
        }
        let (ballot, confirmed) = (leader.ballot, leader.lease.confirmed());
        while let Some(read) = self.reads.index.front()
            && read.round.is_some_and(|round| round <= confirmed)
            && (read.index <= applied || !self.config.hooks.waits_for_index())
        {
            let Some(read) = self.reads.index.pop_front() else { break };
            let waited = now.since(read.request.arrived);
            let output = self.learner.machine().preview(&read.request.command.op);
            let node = self.config.id;
            let served = Served {
                path: Path::ReadIndex,
                slot: applied,
                ballot,
                node,
                commit: waited,
                ..Served::default()
            };
            self.answer(read.request, Ok(output), served);
        }
        // An open round was sent before the newest read arrived. The next one waits for its end, so that a busy leader does not send one
        // for each read.
        let sent = self.reads.index.partition_point(|read| read.round.is_some());
        let newest = sent.checked_sub(1).and_then(|at| self.reads.index[at].round);
        if sent < self.reads.index.len() && newest.is_none_or(|round| round <= confirmed) {
            self.send_heartbeats(now);
        }
    }

    /// A quorum read has reached some node.
    pub(super) fn quorum_read(&mut self, request: Request, now: Mono) {
        let id = self.fresh_id();
        let patient_until = now + self.config.timing.resend;
        self.reads.look_at(request.deadline.min(patient_until));
        let read = QuorumRead { request, last: BTreeMap::new(), waits_for: None, patient_until };
        self.reads.quorum.insert(id, read);
        let query = Message::ReadQuery { config: self.config.number, id };
        self.broadcast(&query);
        self.send(self.config.id, query, None);
    }

    /// How far have you voted? A vote that is not on disk yet may be told: it only makes the reader wait. One that is forgotten because
    /// a snapshot covers it is of a slot that is applied; a node that may have lost votes must not answer at all.
    pub(super) fn on_read_query(&mut self, from: NodeId, id: EntryId) {
        if !self.votes() {
            return;
        }
        let voted = if self.config.hooks.asks_for_votes() { self.acceptor.last_slot() } else { 0 };
        let last = voted.max(self.learner.applied());
        self.send(from, Message::ReadAnswer { config: self.config.number, id, last }, None);
    }

    /// The members have changed. What a write of the next configuration has reached says nothing about those of the last, so everybody
    /// is asked again, also for those reads that have had their majority already: it may not have known that it was over. A write of the
    /// last configuration was applied by now.
    pub(super) fn restart_quorum_reads(&mut self, now: Mono) {
        let again = now + self.config.timing.resend;
        self.reads.told.clear();
        self.reads.look_at(again);
        for read in self.reads.quorum.values_mut() {
            read.last.clear();
            read.waits_for = None;
            read.patient_until = again;
        }
        let open: Vec<EntryId> = self.reads.quorum.keys().copied().collect();
        for id in open {
            let query = Message::ReadQuery { config: self.config.number, id };
            self.broadcast(&query);
            if self.is_member() {
                self.send(self.config.id, query, None);
            }
        }
    }

    pub(super) fn on_read_answer(&mut self, from: NodeId, id: EntryId, last: Slot, now: Mono) {
        let (quorum, waits) = (self.config.quorum(), self.config.hooks.waits_for_votes());
        let Some(read) = self.reads.quorum.get_mut(&id).filter(|read| read.waits_for.is_none()) else {
            return;
        };
        read.last.entry(from).or_insert(last);
        if read.last.len() >= quorum {
            let highest = read.last.values().copied().max().filter(|_| waits).unwrap_or(0);
            read.waits_for = Some(highest);
            read.patient_until = now + self.config.timing.resend;
            self.reads.told.insert((highest, id));
            self.quorum_advance(now);
        }
    }

    /// Answers the quorum reads that a majority has answered and whose slot is applied.
    pub(super) fn quorum_advance(&mut self, now: Mono) {
        let applied = self.learner.applied();
        while let Some((slot, id)) = self.reads.told.first().copied()
            && slot <= applied
        {
            self.reads.told.pop_first();
            let Some(read) = self.reads.quorum.remove(&id) else { continue };
            let waited = now.since(read.request.arrived);
            let output = self.learner.machine().preview(&read.request.command.op);
            let node = self.config.id;
            let served =
                Served { path: Path::QuorumRead, slot: applied, node, commit: waited, ..Served::default() };
            self.answer(read.request, Ok(output), served);
        }
    }

    /// Gives up what has waited for too long, and asks again.
    pub(super) fn reads_tick(&mut self, now: Mono) {
        if now < self.reads.wakeup() {
            return;
        }
        let late = |read: &QuorumRead| now >= read.request.deadline;
        let ids: Vec<EntryId> =
            self.reads.quorum.iter().filter(|(_, read)| late(read)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(read) = self.reads.quorum.remove(&id) {
                if let Some(slot) = read.waits_for {
                    self.reads.told.remove(&(slot, id));
                }
                self.unread(
                    read.request,
                    "no majority told what it has voted for, or that was not chosen in time",
                );
            }
        }
        self.give_up_waiting(now);
        let (late, index) =
            std::mem::take(&mut self.reads.index).into_iter().partition(|read| now >= read.request.deadline);
        self.reads.index = index;
        for read in Vec::from_iter::<VecDeque<IndexRead>>(late) {
            self.unread(read.request, "no majority confirmed in time that this node still leads");
        }
        let again = now + self.config.timing.resend;
        let mut silent = Vec::new();
        for (id, read) in &mut self.reads.quorum {
            if now >= read.patient_until && read.waits_for.is_none() {
                read.patient_until = again;
                silent.extend(
                    self.config.others().filter(|node| !read.last.contains_key(node)).map(|node| (node, *id)),
                );
            }
        }
        for (node, id) in silent {
            self.send(node, Message::ReadQuery { config: self.config.number, id }, None);
        }
        self.reads.due = self.reads.next_due();
    }

    /// What is waited for may be an orphan's vote, which nobody knows of who could have it chosen. A read of the log needs nobody's word for it.
    fn give_up_waiting(&mut self, now: Mono) {
        let leads = matches!(self.role, Role::Leader(_));
        let mut stuck = Vec::new();
        for (id, read) in &mut self.reads.quorum {
            let Some(slot) = read.waits_for.filter(|_| now >= read.patient_until) else { continue };
            if leads || read.request.may_be_forwarded() {
                stuck.push((slot, *id));
            } else {
                read.patient_until = read.request.deadline;
            }
        }
        for told in stuck {
            self.reads.told.remove(&told);
            let Some(QuorumRead { mut request, .. }) = self.reads.quorum.remove(&told.1) else { continue };
            if let Op::Get { mode, .. } = &mut request.command.op {
                *mode = ReadMode::Log;
            }
            self.route(request, now);
        }
    }

    fn unread(&mut self, request: Request, why: &'static str) {
        self.answer(request, Err(Failure::Unknown(why)), Served::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ballot::Ballot;
    use crate::core::testing;
    use crate::core::{Command, Config, Durable, Effect, Entry, Input, Output, Protocol, Reply};
    use std::sync::Arc;
    use std::time::Duration;

    const HERS: Ballot = Ballot { round: 5, node: 2 };

    /// Steps with a disk that is immediate; returns what is sent to node 2, and answers.
    fn step(core: &mut Core, at: Mono, input: Input) -> (Vec<Message>, Vec<Reply>) {
        let (mut sent, mut replies) = (Vec::new(), Vec::new());
        for effect in testing::step(core, at, input) {
            match effect {
                Effect::Send { to: 2, message, .. } => sent.push(message),
                Effect::Reply { reply, .. } => replies.push(*reply),
                _ => {}
            }
        }
        (sent, replies)
    }

    fn says(message: Message) -> Input {
        Input::Message { from: 2, message }
    }

    /// The vote for slot 2 is all that is left of a leader that has failed; nobody writes, so that nothing is ever chosen there.
    #[test]
    fn a_quorum_read_that_waits_for_an_orphans_vote_is_answered_through_the_log() {
        let mut durable = Durable::default();
        durable.begin_incarnation(Duration::ZERO);
        durable.known = [(2, 1), (3, 1)].into();
        let mut core = Core::new(Config::new(1, [2, 3], Protocol::MultiPaxos), durable, Mono(0));
        let op = Op::Put { key: "a".to_owned(), value: "x".into() };
        let command = Some(Command { client: 7, seq: 1, op });
        let entry = |n| Arc::new(Entry { id: EntryId { node: 2, epoch: 1, n }, command: command.clone() });
        let accept = |slot, commit| Message::Accept { ballot: HERS, slot, entry: entry(slot), commit };
        step(&mut core, Mono(0), says(accept(1, 0)));
        step(&mut core, Mono(0), says(accept(2, 1)));
        let op = Op::Get { key: "a".to_owned(), mode: ReadMode::Quorum };
        let command = Command { client: 8, seq: 1, op };
        let read = Input::Client { call: 1, command, deadline: None, no_forward: false };
        let (sent, replies) = step(&mut core, Mono(0), read);
        let [Message::ReadQuery { config: 0, id }] = sent[..] else { panic!("{sent:?}") };
        assert!(replies.is_empty());
        let (_, replies) = step(&mut core, Mono(0), says(Message::ReadAnswer { config: 0, id, last: 1 }));
        assert!(replies.is_empty(), "slot 2 may have been chosen and answered for");
        // The leader is there, and silent about slot 2: it never proposed anything there.
        let later = Mono(0) + Duration::from_millis(100);
        let heartbeat = Message::Heartbeat { ballot: HERS, commit: 1, round: 1, lease: Duration::ZERO };
        step(&mut core, later, says(heartbeat));
        let later = Mono(0) + Duration::from_millis(150);
        assert!(core.wakeup().is_some_and(|due| due <= later));
        let (sent, _) = step(&mut core, later, Input::Tick);
        let forwarded = sent.iter().find_map(|message| match message {
            Message::Forward { id, command, .. } => Some((*id, command.op.clone())),
            _ => None,
        });
        let Some((id, Op::Get { mode: ReadMode::Log, .. })) = forwarded else { panic!("{sent:?}") };
        let result = Ok(Output::Value(Some("x".into())));
        let reply = Reply { result, served: Served::default(), leader_hint: 0 };
        let (_, replies) = step(&mut core, later, says(Message::ForwardReply { id, reply: Box::new(reply) }));
        assert!(matches!(&replies[..], [Reply { result: Ok(Output::Value(Some(_))), .. }]), "{replies:?}");
    }
}
