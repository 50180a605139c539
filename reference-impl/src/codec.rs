//! Between the core's types and the protocol's.
//!
//! ```text
//! core::Message ⇄ proto::v1::PeerMessage      core::Command ← proto::v1::Command      core::Reply → proto::v1::Reply
//! ```
//!
//! Decoding answers `None` for what a newer node may say and this one does not understand; the caller drops it, as if it had
//! been lost. Deliberately no I/O, and no opinion about values: the core validates.

mod snapshot;

pub use snapshot::{piece_from, piece_to};

use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;

use crate::core::{
    Ballot, Command, Entry, EntryId, Failure, Member, Message, Nodes, Op, Output, Path, ReadMode, Reply,
    Scope, Served, Slot, Vote,
};
use crate::proto::v1;

/// To the wire.
pub fn ballot_to(ballot: Ballot) -> v1::Ballot {
    v1::Ballot { round: ballot.round, node: ballot.node }
}

/// From the wire; absent means zero.
pub fn ballot_from(ballot: Option<v1::Ballot>) -> Ballot {
    ballot.map_or(Ballot::ZERO, |ballot| Ballot { round: ballot.round, node: ballot.node })
}

/// To the wire.
pub fn scope_to(scope: Scope) -> v1::Scope {
    v1::Scope { slot: scope.slot(), only: matches!(scope, Scope::Only(_)) }
}

/// From the wire.
pub fn scope_from(scope: Option<v1::Scope>) -> Option<Scope> {
    scope.map(|scope| if scope.only { Scope::Only(scope.slot) } else { Scope::From(scope.slot) })
}

fn id_to(id: EntryId) -> v1::EntryId {
    v1::EntryId { node: id.node, epoch: id.epoch, n: id.n }
}

fn id_from(id: Option<v1::EntryId>) -> Option<EntryId> {
    id.map(|id| EntryId { node: id.node, epoch: id.epoch, n: id.n })
}

/// To the wire or the disk.
pub fn entry_to(entry: &Entry) -> v1::Entry {
    v1::Entry { id: Some(id_to(entry.id)), command: entry.command.as_ref().map(command_to) }
}

/// From the wire or the disk.
pub fn entry_from(entry: Option<v1::Entry>) -> Option<Arc<Entry>> {
    let entry = entry?;
    let command = match entry.command {
        Some(command) => Some(command_from(command)?),
        None => None,
    };
    Some(Arc::new(Entry { id: id_from(entry.id)?, command }))
}

/// To the wire or the disk.
pub fn vote_to(vote: &Vote) -> v1::Vote {
    v1::Vote { slot: vote.slot, ballot: Some(ballot_to(vote.ballot)), entry: Some(entry_to(&vote.entry)) }
}

/// From the wire or the disk.
pub fn vote_from(vote: v1::Vote) -> Option<Vote> {
    Some(Vote { slot: vote.slot, ballot: ballot_from(vote.ballot), entry: entry_from(vote.entry)? })
}

/// To the wire or the disk.
pub fn slot_entry_to(slot: Slot, entry: &Entry) -> v1::SlotEntry {
    v1::SlotEntry { slot, entry: Some(entry_to(entry)) }
}

/// From the wire or the disk.
pub fn slot_entry_from(chosen: v1::SlotEntry) -> Option<(Slot, Arc<Entry>)> {
    Some((chosen.slot, entry_from(chosen.entry)?))
}

fn command_to(command: &Command) -> v1::Command {
    use v1::command::Op as Wire;
    let op = match command.op.clone() {
        Op::Get { key, mode } => Wire::Get(v1::Get { key, mode: mode_to(mode).into() }),
        Op::Put { key, value } => Wire::Put(v1::Put { key, value }),
        Op::Cas { key, expected, new } => Wire::Cas(v1::Cas { key, expected, new }),
        Op::Append { key, value } => Wire::Append(v1::Append { key, value }),
        Op::Delete { key } => Wire::Delete(v1::Delete { key }),
        Op::Reconfigure { from, nodes } => {
            Wire::Reconfigure(v1::Reconfigure { config: from, members: nodes_to(&nodes) })
        }
    };
    v1::Command {
        client_id: command.client,
        seq: command.seq,
        op: Some(op),
        deadline_ms: 0,
        no_forward: false,
    }
}

/// From the wire or the disk; `None` if it names no operation, or an unknown read mode.
pub fn command_from(command: v1::Command) -> Option<Command> {
    use v1::command::Op as Wire;
    let op = match command.op? {
        Wire::Get(v1::Get { key, mode }) => {
            Op::Get { key, mode: mode_from(v1::ReadMode::try_from(mode).ok()?) }
        }
        Wire::Put(v1::Put { key, value }) => Op::Put { key, value },
        Wire::Cas(v1::Cas { key, expected, new }) => Op::Cas { key, expected, new },
        Wire::Append(v1::Append { key, value }) => Op::Append { key, value },
        Wire::Delete(v1::Delete { key }) => Op::Delete { key },
        Wire::Reconfigure(v1::Reconfigure { config, members }) => {
            let (named, nodes) = (members.len(), nodes_from(members));
            // Which of two addresses is meant?
            (nodes.len() == named).then_some(())?;
            Op::Reconfigure { from: config, nodes }
        }
    };
    Some(Command { client: command.client_id, seq: command.seq, op })
}

/// The same command with memory of its own. What was decoded from the network shares the buffer that it was read into, and
/// would keep all of it for as long as the log keeps the value.
pub fn detached(mut command: Command) -> Command {
    let own = |bytes: &mut Bytes| *bytes = Bytes::copy_from_slice(bytes);
    match &mut command.op {
        Op::Get { .. } | Op::Delete { .. } | Op::Reconfigure { .. } => {}
        Op::Put { value, .. } | Op::Append { value, .. } => own(value),
        Op::Cas { expected, new, .. } => expected.iter_mut().chain([new]).for_each(own),
    }
    command
}

/// To the wire or the disk.
pub fn nodes_to(nodes: &Nodes) -> Vec<v1::Member> {
    let member = |(node, member): (&u32, &Member)| v1::Member {
        node: *node,
        address: member.address.clone(),
        born: member.born,
    };
    nodes.iter().map(member).collect()
}

/// From the wire or the disk.
pub fn nodes_from(members: Vec<v1::Member>) -> Nodes {
    members.into_iter().map(|m| (m.node, Member { address: m.address, born: m.born })).collect()
}

fn mode_to(mode: ReadMode) -> v1::ReadMode {
    match mode {
        ReadMode::Lease => v1::ReadMode::Lease,
        ReadMode::Log => v1::ReadMode::Log,
        ReadMode::Stale => v1::ReadMode::Stale,
        ReadMode::ReadIndex => v1::ReadMode::ReadIndex,
        ReadMode::Quorum => v1::ReadMode::Quorum,
    }
}

fn mode_from(mode: v1::ReadMode) -> ReadMode {
    match mode {
        v1::ReadMode::Lease => ReadMode::Lease,
        v1::ReadMode::Log => ReadMode::Log,
        v1::ReadMode::Stale => ReadMode::Stale,
        v1::ReadMode::ReadIndex => ReadMode::ReadIndex,
        v1::ReadMode::Quorum => ReadMode::Quorum,
    }
}

/// To the wire.
pub fn reply_to(reply: Reply) -> v1::Reply {
    use v1::error::Code;
    use v1::reply::Result as Wire;
    let result = match reply.result {
        Ok(Output::Value(value)) => Wire::Value(v1::Value { value }),
        Ok(Output::Cas { swapped, found }) => Wire::Cas(v1::CasResult { swapped, found }),
        Ok(Output::Done) => Wire::Done(v1::Done {}),
        Err(failure) => {
            let (code, message) = match failure {
                Failure::NotLeader => {
                    (Code::NotLeader, "this node does not lead and did not forward".to_owned())
                }
                Failure::Invalid(why) => (Code::Invalid, why),
                Failure::Overloaded(why) => (Code::Overloaded, why.to_owned()),
                Failure::Unknown(why) => (Code::Unknown, why.to_owned()),
                Failure::StaleSeq => {
                    (Code::StaleSeq, "a newer command of this client was applied".to_owned())
                }
            };
            Wire::Error(v1::Error { code: code.into(), message, leader_hint: reply.leader_hint })
        }
    };
    v1::Reply { result: Some(result), served: Some(served_to(&reply.served)) }
}

/// From the wire, between nodes. Texts of failures are not carried back: only their class matters there.
fn reply_from(reply: v1::Reply) -> Option<Reply> {
    use v1::error::Code;
    use v1::reply::Result as Wire;
    let mut leader_hint = 0;
    let result = match reply.result? {
        Wire::Value(v1::Value { value }) => Ok(Output::Value(value)),
        Wire::Cas(v1::CasResult { swapped, found }) => Ok(Output::Cas { swapped, found }),
        Wire::Done(v1::Done {}) => Ok(Output::Done),
        Wire::Error(error) => {
            leader_hint = error.leader_hint;
            Err(match Code::try_from(error.code).unwrap_or(Code::Unknown) {
                Code::NotLeader => Failure::NotLeader,
                Code::Invalid => Failure::Invalid(error.message),
                Code::Overloaded => Failure::Overloaded("the leader is overloaded"),
                Code::StaleSeq => Failure::StaleSeq,
                Code::Unknown | Code::Unspecified => {
                    Failure::Unknown("the leader does not know what became of it")
                }
            })
        }
    };
    Some(Reply { result, served: served_from(reply.served.unwrap_or_default()), leader_hint })
}

fn served_to(served: &Served) -> v1::Served {
    v1::Served {
        path: served.path.name().to_owned(),
        forwarded: served.forwarded,
        slot: served.slot,
        ballot: Some(ballot_to(served.ballot)),
        node: served.node,
        queue_ns: nanos(served.queue),
        commit_ns: nanos(served.commit),
        phase1_ns: nanos(served.phase1),
        fsync_ns: nanos(served.fsync),
        apply_ns: nanos(served.apply),
        rounds: served.rounds,
    }
}

fn served_from(served: v1::Served) -> Served {
    Served {
        path: Path::named(&served.path),
        forwarded: served.forwarded,
        slot: served.slot,
        ballot: ballot_from(served.ballot),
        node: served.node,
        queue: Duration::from_nanos(served.queue_ns),
        commit: Duration::from_nanos(served.commit_ns),
        phase1: Duration::from_nanos(served.phase1_ns),
        fsync: Duration::from_nanos(served.fsync_ns),
        apply: Duration::from_nanos(served.apply_ns),
        rounds: served.rounds,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// To the wire.
pub fn message_to(message: Message) -> v1::PeerMessage {
    use v1::peer_message::Body;
    let body = match message {
        Message::Prepare { ballot, scope } => {
            Body::Prepare(v1::Prepare { ballot: Some(ballot_to(ballot)), scope: Some(scope_to(scope)) })
        }
        Message::Promise { ballot, scope, commit, votes } => Body::Promise(v1::Promise {
            ballot: Some(ballot_to(ballot)),
            scope: Some(scope_to(scope)),
            commit,
            votes: votes.iter().map(vote_to).collect(),
        }),
        Message::Nack { ballot, slot, promised, lease_left } => Body::Nack(v1::Nack {
            ballot: Some(ballot_to(ballot)),
            slot,
            promised: Some(ballot_to(promised)),
            lease_left_ns: nanos(lease_left),
        }),
        Message::Accept { ballot, slot, entry, commit } => Body::Accept(v1::Accept {
            ballot: Some(ballot_to(ballot)),
            slot,
            entry: Some(entry_to(&entry)),
            commit,
        }),
        Message::Accepted { ballot, slot } => {
            Body::Accepted(v1::Accepted { ballot: Some(ballot_to(ballot)), slot })
        }
        Message::Heartbeat { ballot, commit, round, lease } => Body::Heartbeat(v1::Heartbeat {
            ballot: Some(ballot_to(ballot)),
            commit,
            round,
            lease_ns: nanos(lease),
        }),
        Message::HeartbeatAck { ballot, round } => {
            Body::HeartbeatAck(v1::HeartbeatAck { ballot: Some(ballot_to(ballot)), round })
        }
        Message::Fetch { from } => Body::Fetch(v1::Fetch { from }),
        Message::FetchSnapshot { slot, at } => {
            Body::FetchSnapshot(v1::FetchSnapshot { slot, at: Some(snapshot::cursor_to(at)) })
        }
        Message::Snapshot { slot, hash, at, next, piece } => {
            Body::Snapshot(snapshot::message_to(slot, hash, at, next, piece))
        }
        Message::ReadQuery { config, id } => Body::ReadQuery(v1::ReadQuery { id: Some(id_to(id)), config }),
        Message::ReadAnswer { config, id, last } => {
            Body::ReadAnswer(v1::ReadAnswer { id: Some(id_to(id)), last, config })
        }
        Message::Release { ballot, to } => Body::Release(v1::Release { ballot: Some(ballot_to(ballot)), to }),
        Message::Chosen { entries, commit } => {
            let entries = entries.iter().map(|(slot, entry)| slot_entry_to(*slot, entry)).collect();
            Body::Chosen(v1::Chosen { entries, commit })
        }
        Message::Hello { epoch, nonce } => Body::Hello(v1::Hello { epoch, nonce }),
        Message::Welcome { epoch, nonce, known, promised, slot, leading, config } => {
            Body::Welcome(v1::Welcome {
                epoch,
                nonce,
                known,
                promised: Some(ballot_to(promised)),
                slot,
                leads: leading.map(|(ballot, _)| ballot_to(ballot)),
                next: leading.map_or(0, |(_, next)| next),
                config,
            })
        }
        Message::Forward { id, command, ttl } => Body::Forward(v1::Forward {
            id: Some(id_to(id)),
            command: Some(command_to(&command)),
            ttl_ns: nanos(ttl),
        }),
        Message::ForwardReply { id, reply } => {
            Body::ForwardReply(v1::ForwardReply { id: Some(id_to(id)), reply: Some(reply_to(*reply)) })
        }
    };
    v1::PeerMessage { body: Some(body) }
}

/// From the wire.
pub fn message_from(message: v1::PeerMessage) -> Option<Message> {
    use v1::peer_message::Body;
    Some(match message.body? {
        Body::Prepare(m) => Message::Prepare { ballot: ballot_from(m.ballot), scope: scope_from(m.scope)? },
        Body::Promise(m) => Message::Promise {
            ballot: ballot_from(m.ballot),
            scope: scope_from(m.scope)?,
            commit: m.commit,
            // A promise that lacks a vote is no promise: one that cannot be read spoils the whole.
            votes: m.votes.into_iter().map(vote_from).collect::<Option<Vec<_>>>()?,
        },
        Body::Nack(m) => Message::Nack {
            ballot: ballot_from(m.ballot),
            slot: m.slot,
            promised: ballot_from(m.promised),
            lease_left: Duration::from_nanos(m.lease_left_ns),
        },
        Body::Accept(m) => Message::Accept {
            ballot: ballot_from(m.ballot),
            slot: m.slot,
            entry: entry_from(m.entry)?,
            commit: m.commit,
        },
        Body::Accepted(m) => Message::Accepted { ballot: ballot_from(m.ballot), slot: m.slot },
        Body::Heartbeat(m) => Message::Heartbeat {
            ballot: ballot_from(m.ballot),
            commit: m.commit,
            round: m.round,
            lease: Duration::from_nanos(m.lease_ns),
        },
        Body::HeartbeatAck(m) => Message::HeartbeatAck { ballot: ballot_from(m.ballot), round: m.round },
        Body::Fetch(m) => Message::Fetch { from: m.from },
        Body::FetchSnapshot(m) => Message::FetchSnapshot { slot: m.slot, at: snapshot::cursor_from(m.at) },
        Body::Snapshot(m) => snapshot::message_from(m)?,
        Body::ReadQuery(m) => Message::ReadQuery { config: m.config, id: id_from(m.id)? },
        Body::ReadAnswer(m) => Message::ReadAnswer { config: m.config, id: id_from(m.id)?, last: m.last },
        Body::Release(m) => Message::Release { ballot: ballot_from(m.ballot), to: m.to },
        Body::Chosen(m) => Message::Chosen {
            entries: m.entries.into_iter().map(slot_entry_from).collect::<Option<Vec<_>>>()?,
            commit: m.commit,
        },
        Body::Hello(m) => Message::Hello { epoch: m.epoch, nonce: m.nonce },
        Body::Welcome(m) => Message::Welcome {
            epoch: m.epoch,
            nonce: m.nonce,
            known: m.known,
            promised: ballot_from(m.promised),
            slot: m.slot,
            leading: m.leads.map(|leads| (ballot_from(Some(leads)), m.next)),
            config: m.config,
        },
        Body::Forward(m) => Message::Forward {
            id: id_from(m.id)?,
            command: command_from(m.command?)?,
            ttl: Duration::from_nanos(m.ttl_ns),
        },
        Body::ForwardReply(m) => {
            Message::ForwardReply { id: id_from(m.id)?, reply: Box::new(reply_from(m.reply?)?) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Cursor, Members, Piece, SessionRow};

    #[test]
    fn every_message_survives_the_wire() {
        let ballot = Ballot { round: 7, node: 2 };
        let id = EntryId { node: 1, epoch: 2, n: 3 };
        let cas = Op::Cas { key: "k".into(), expected: Some("x".into()), new: "y".into() };
        let command = Command { client: 4, seq: 5, op: cas };
        let entry = Arc::new(Entry { id, command: Some(command.clone()) });
        let no_op = Arc::new(Entry { id, command: None });
        let served = Served { path: Path::OneRtt, slot: 9, ballot, node: 1, rounds: 2, ..Served::default() };
        let ns = Duration::from_nanos(17);
        let reply = |result| Box::new(Reply { result, served: served.clone(), leader_hint: 0 });
        let at = Cursor { part: 3, client: 1, key: "k".into() };
        let row = |output| SessionRow { client: 1, seq: 2, slot: 3, output };
        let cas = Output::Cas { swapped: false, found: Some("x".into()) };
        let sessions = vec![row(Output::Done), row(cas), row(Output::Value(None))];
        let nodes = Nodes::from([(4, Member { address: "a:1".into(), born: 9 })]);
        let members = Some(Arc::new(Members { config: 3, since: 2, nodes: nodes.clone() }));
        let change = Command { client: 0, seq: 0, op: Op::Reconfigure { from: 2, nodes } };
        let piece = Piece { sessions, entries: vec![("k".into(), "v".into())], members };
        let messages = [
            Message::Prepare { ballot, scope: Scope::From(3) },
            Message::Prepare { ballot, scope: Scope::Only(3) },
            Message::Promise {
                ballot,
                scope: Scope::From(3),
                commit: 2,
                votes: vec![Vote { slot: 3, ballot, entry: entry.clone() }],
            },
            Message::Nack { ballot, slot: 1, promised: ballot, lease_left: ns },
            Message::Accept { ballot, slot: 1, entry: no_op.clone(), commit: 1 },
            Message::Accepted { ballot, slot: 4 },
            Message::Heartbeat { ballot, commit: 1, round: 2, lease: ns },
            Message::HeartbeatAck { ballot, round: 2 },
            Message::Fetch { from: 3 },
            Message::Hello { epoch: 3, nonce: 9 },
            Message::Welcome {
                epoch: 3,
                nonce: 9,
                known: 2,
                promised: ballot,
                slot: 7,
                leading: None,
                config: 0,
            },
            Message::Welcome {
                epoch: 3,
                nonce: 9,
                known: 2,
                promised: ballot,
                slot: 7,
                leading: Some((ballot, 8)),
                config: 4,
            },
            Message::FetchSnapshot { slot: 4, at: at.clone() },
            Message::Snapshot {
                slot: 4,
                hash: 5,
                at: at.clone(),
                next: Some(at.clone()),
                piece: Piece::default(),
            },
            Message::Snapshot { slot: 4, hash: 5, at, next: None, piece },
            Message::ReadQuery { config: 1, id },
            Message::ReadAnswer { config: 2, id, last: 9 },
            Message::Release { ballot, to: 2 },
            Message::Chosen { entries: vec![(3, entry), (4, no_op)], commit: 4 },
            Message::Forward { id, command, ttl: ns },
            Message::Forward { id, command: change, ttl: ns },
            Message::ForwardReply { id, reply: reply(Ok(Output::Cas { swapped: false, found: None })) },
            Message::ForwardReply { id, reply: reply(Ok(Output::Value(Some("v".into())))) },
            Message::ForwardReply { id, reply: reply(Err(Failure::StaleSeq)) },
        ];
        for message in messages {
            assert_eq!(message_from(message_to(message.clone())), Some(message));
        }
    }

    #[test]
    fn what_cannot_be_understood_is_dropped_whole() {
        assert_eq!(message_from(v1::PeerMessage { body: None }), None);
        assert_eq!(command_from(v1::Command::default()), None);
        let vote = v1::Vote { slot: 1, ballot: None, entry: None };
        let promise =
            v1::Promise { ballot: None, scope: Some(v1::Scope::default()), commit: 0, votes: vec![vote] };
        let body = Some(v1::peer_message::Body::Promise(promise));
        assert_eq!(message_from(v1::PeerMessage { body }), None);
    }
}
