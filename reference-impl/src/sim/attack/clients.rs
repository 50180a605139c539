//! The simulated clients: each does one operation after the other, some stay with one node, some wander.
//!
//! ```text
//! append 17 to key 1 → node 3 … UNKNOWN → the same (client, seq) again, at node 5 … done
//! ```
//!
//! An unanswered operation stays open for ever and its client goes on under a new name, as real testers do.

use prost::bytes::Bytes;
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use crate::core::{Command, NodeId, Op, Output, ReadMode};

/// How many keys there are.
const KEYS: usize = 3;
/// Times an unanswered operation is asked again, at most.
const RETRIES_MAX: u32 = 3;

/// What a client is doing.
#[derive(Clone, Debug)]
pub(super) enum Doing {
    Append { token: u32 },
    Read { key: usize },
}

/// An operation under way.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) doing: Doing,
    pub(super) invoked: u64,
    pub(super) command: Command,
    pub(super) node: NodeId,
    pub(super) call: u64,
    pub(super) retries: u32,
    pub(super) unknown: bool,
}

/// One worker.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    name: u64,
    seq: u64,
    home: Option<NodeId>,
    pub(super) pending: Option<Pending>,
}

impl Worker {
    pub(super) fn new(index: u32, nodes: u32) -> Self {
        let home = index.is_multiple_of(2).then_some(index / 2 % nodes + 1);
        Worker { name: u64::from(index) + 1, seq: 0, home, pending: None }
    }

    /// The node to ask next.
    pub(super) fn node(&self, nodes: u32, rng: &mut Xoshiro256PlusPlus) -> NodeId {
        self.home.unwrap_or_else(|| rng.random_range(1..=nodes))
    }

    /// What to do next; `token` hands out numbers for appends.
    pub(super) fn next(
        &mut self,
        rng: &mut Xoshiro256PlusPlus,
        token: impl FnOnce(usize) -> u32,
    ) -> (Doing, Command) {
        self.seq += 1;
        let key = rng.random_range(0..KEYS);
        let name = format!("k{key}");
        let (doing, op) = if rng.random_bool(0.5) {
            let token = token(key);
            let value = Bytes::copy_from_slice(&token.to_be_bytes());
            (Doing::Append { token }, Op::Append { key: name, value })
        } else {
            let modes =
                [ReadMode::Lease, ReadMode::Lease, ReadMode::Log, ReadMode::ReadIndex, ReadMode::Quorum];
            let mode = modes[rng.random_range(0..modes.len())];
            (Doing::Read { key }, Op::Get { key: name, mode })
        };
        (doing, Command { client: self.name, seq: self.seq, op })
    }

    /// Whether an unanswered operation is worth asking again.
    pub(super) fn may_retry(pending: &Pending) -> bool {
        pending.retries < RETRIES_MAX
    }

    /// The operation stays open for ever; the worker goes on under a new name.
    pub(super) fn retire(&mut self) {
        self.name += 1_000;
        self.seq = 0;
        self.pending = None;
    }
}

/// The read that every run ends with.
pub(super) fn final_read(key: usize) -> (Doing, Command) {
    let op = Op::Get { key: format!("k{key}"), mode: ReadMode::Log };
    (Doing::Read { key }, Command { client: 0, seq: 0, op })
}

/// Keys that a final read must look at.
pub(super) fn keys() -> std::ops::Range<usize> {
    0..KEYS
}

/// The numbers in a list.
pub(super) fn tokens(output: &Output) -> Vec<u32> {
    let Output::Value(Some(value)) = output else { return Vec::new() };
    value.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect()
}
