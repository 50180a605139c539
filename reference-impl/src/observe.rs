//! What a node tells of itself, in the protocol's words and as JSON: `/state` and `/log`.
//!
//! ```text
//! /state   {"node":1,"incarnation":3,"storage":"5f0c…","role":"leader","told":{"round":2,"node":1},"applied":41,…}
//! /log     {"first":1,"last":42,"slots":[{"slot":42,"ballot":{…},"hash":"9a…","chosen":false,"durable":true,"what":"put a"}],…}
//! ```
//!
//! Hashes are sixteen hexadecimal digits: many readers of JSON keep no 64 bits. Deliberately no judgement: that is for whoever
//! compares what several nodes say.

use serde_json::{Value, json};

use crate::codec;
use crate::core::{Checkpoint, Entry, Op, SlotView, entry_hash};
use crate::proto::v1;

/// Slots in one answer.
pub const SLOTS_MAX: u32 = 1_024;
/// Characters of a key that are shown.
const KEY_SHOWN: usize = 40;

/// To the wire.
pub fn slot(view: &SlotView) -> v1::SlotView {
    v1::SlotView {
        slot: view.slot,
        ballot: view.ballot.map(codec::ballot_to),
        hash: entry_hash(&view.entry),
        chosen: view.chosen,
        durable: view.durable,
        what: words(&view.entry),
    }
}

/// To the wire.
pub fn checkpoint(at: Checkpoint) -> v1::Checkpoint {
    v1::Checkpoint { slot: at.slot, hash: at.hash, state: at.state, sessions: at.sessions }
}

/// What an entry asks for: `put k7 (3 B) by client 12, seq 4`.
fn words(entry: &Entry) -> String {
    let Some(command) = &entry.command else { return "no-op".to_owned() };
    let key: String = command.op.key().chars().take(KEY_SHOWN).collect();
    let what = match &command.op {
        Op::Get { .. } => format!("get {key}"),
        Op::Put { value, .. } => format!("put {key} ({} B)", value.len()),
        Op::Cas { new, .. } => format!("cas {key} ({} B)", new.len()),
        Op::Append { value, .. } => format!("append {key} ({} B)", value.len()),
        Op::Delete { .. } => format!("delete {key}"),
        Op::Reconfigure { from, nodes } => {
            let nodes: Vec<String> = nodes.keys().map(ToString::to_string).collect();
            format!("members {} after configuration {from}", nodes.join(", "))
        }
    };
    match command.seq {
        0 => what,
        seq => format!("{what} by client {}, seq {seq}", command.client),
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn ballot(ballot: Option<v1::Ballot>) -> Value {
    ballot.map_or(Value::Null, |b| json!({"round": b.round, "node": b.node}))
}

/// The body of `/state`.
pub fn state(s: &v1::StatusReply) -> Value {
    json!({
        "node": s.node, "incarnation": s.incarnation, "storage": hex(s.storage), "role": s.role,
        "protocol": s.protocol, "fsync": s.fsync, "bugs": s.bugs,
        "promised": ballot(s.promised), "told": ballot(s.told), "recovered": ballot(s.recovered), "leading": ballot(s.leading), "leader": s.leader,
        "lease_left_ms": s.lease_left_ms, "elections_won": s.elections_won, "preempted": s.preempted,
        "config": s.config, "members": s.members.iter().map(|m| m.node).collect::<Vec<_>>(),
        "snapshot": s.snapshot_slot, "first": s.first_slot, "applied": s.applied_index, "commit": s.commit_index,
        "last": s.last_slot, "unsynced": s.unsynced,
        "hash": hex(s.applied_hash), "state_hash": hex(s.state_hash), "session_hash": hex(s.session_hash),
    })
}

/// The body of `/log`.
pub fn log(seen: &v1::ObserveReply) -> Value {
    let status = seen.status.clone().unwrap_or_default();
    let slots = seen.slots.iter().map(|s| {
        json!({
            "slot": s.slot, "ballot": ballot(s.ballot), "hash": hex(s.hash), "chosen": s.chosen,
            "durable": s.durable, "what": s.what,
        })
    });
    let checkpoints = seen.checkpoints.iter().map(|c| {
        json!({"slot": c.slot, "hash": hex(c.hash), "state_hash": hex(c.state), "session_hash": hex(c.sessions)})
    });
    json!({
        "node": status.node, "incarnation": status.incarnation, "first": status.first_slot,
        "last": status.last_slot, "durable_to": seen.durable_to, "slots": slots.collect::<Vec<_>>(), "checkpoints": checkpoints.collect::<Vec<_>>(),
    })
}
