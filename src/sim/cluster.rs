//! The simulated cluster in the tester's words: the one file of the simulation that knows the bundled cluster from inside.
//!
//! ```text
//! Op, n3, 2 ms ─→ Command, 3, Duration ─→ paxos_kv::sim::World ─→ Answer, Crashed, … ─→ Seen
//! ```
//!
//! Deliberately no decisions: what is asked is the clients' affair, what is broken that of the faults.

use crate::{
    adapter::paxos_kv_grpc::{from_bytes, to_bytes},
    scenario::{Protocol, Scenario},
};
use checkers::{Op, ReadMode, Ret};
use nemesis::{Cut, Link, LinkShape, NodeName, grudge::CLIENTS};
use paxos_kv::{
    bugs::{Hooks, find},
    core::{self as paxos, Command, Failure, Output, Timing},
    sim::{self, Cluster, Happened, Loss, World},
};
use std::{sync::Arc, time::Duration};
use workloads::{Outcome, Served};

/// What one attempt came to.
pub(super) enum Said {
    /// An answer.
    Answered(Outcome),
    /// It was definitely not applied.
    Refused(String),
    /// It may have been applied.
    Unclear(String),
}

/// How long a node that has handed leadership over stays to say so.
const FAREWELL: Duration = Duration::from_millis(50);

/// What is seen of the cluster.
pub(super) enum Seen {
    /// A call was answered.
    Answer(u64, Said),
    /// A node is gone; so many records that were not synced are lost with it.
    Crashed(usize, u64),
    /// A timer.
    Timer(u64),
    /// An invariant of the nodes did not hold: which, and what was seen.
    Broken(&'static str, String),
}

/// How a node is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Killed.
    Killed,
    /// Without power.
    Power,
    /// Without power in the middle of a write.
    Torn,
}

/// What passed some links so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    pub(super) stopped: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) hurried: u64,
    pub(super) delay_ns: u64,
}

/// The cluster.
pub(super) struct Simulated {
    world: World,
    nodes: Vec<NodeName>,
}

impl Simulated {
    /// A cluster as the test file wants it; nothing runs yet.
    pub(super) fn new(scenario: &Scenario, seed: u64, nodes: &[NodeName]) -> Self {
        let c = &scenario.cluster;
        let protocol = match c.protocol {
            Protocol::MultiPaxos => paxos::Protocol::MultiPaxos,
            Protocol::BasicPaxos => paxos::Protocol::BasicPaxos,
        };
        let mut cluster = Cluster::new(seed, nodes.len() as u32, protocol);
        cluster.timing = Timing {
            heartbeat: c.heartbeat.0,
            lease: c.lease.0,
            election: (c.election.min.0, c.election.max.0),
            ..Timing::default()
        };
        (cluster.snapshot_every, cluster.keep) = (c.snapshot_every, c.keep);
        cluster.hooks = Hooks::planted(c.bug.iter().filter_map(|bug| find(bug).ok()));
        Simulated { world: World::new(cluster), nodes: nodes.to_vec() }
    }

    /// The number of a node, or of the clients.
    fn end(&self, name: &NodeName) -> u32 {
        if &**name == CLIENTS {
            return sim::CLIENTS;
        }
        self.nodes.iter().position(|node| node == name).map_or(sim::CLIENTS, |at| at as u32 + 1)
    }

    /// Nanoseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.world.now()
    }

    /// How much has happened.
    pub(super) fn events(&self) -> u64 {
        self.world.events()
    }

    /// The nodes, in their order.
    pub(super) fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// Whether a node takes connections.
    pub(super) fn runs(&self, node: usize) -> bool {
        self.world.core(node as u32 + 1).is_some()
    }

    /// Whether a node runs, is not paused, and knows whom to ask.
    pub(super) fn is_ready(&self, node: usize) -> bool {
        let id = node as u32 + 1;
        self.world.is_up(id) && self.world.status(id).is_some_and(|s| s.role == "proposer" || s.leader != 0)
    }

    /// Whether clients and a node hear each other.
    pub(super) fn reaches_clients(&self, node: usize) -> bool {
        let open = |from, to| self.world.link(from, to).cut == sim::Cut::Open;
        open(sim::CLIENTS, node as u32 + 1) && open(node as u32 + 1, sim::CLIENTS)
    }

    /// Who leads, by the nodes' own claims.
    pub(super) fn leader(&self) -> Option<NodeName> {
        self.world.leader().map(|id| self.nodes[id as usize - 1].clone())
    }

    /// Tells `id` back at this time.
    pub(super) fn timer(&mut self, at: u64, id: u64) {
        self.world.timer(at, id);
    }

    /// Asks a node. `None` if the connection is refused.
    pub(super) fn ask(
        &mut self,
        node: usize,
        client: u64,
        seq: u64,
        op: &Op,
        deadline: Duration,
    ) -> Option<u64> {
        let command = Command { client, seq, op: encode(op)? };
        self.world.call(node as u32 + 1, command, Some(deadline), false)
    }

    /// Starts a node. False if it runs already, or cannot.
    pub(super) fn start(&mut self, node: &NodeName) -> bool {
        self.world.start(self.end(node))
    }

    /// Ends a node: at once, or after some more effects of its (if the power fails, counted from its next write on), at last after
    /// `within`.
    pub(super) fn end_soon(&mut self, node: &NodeName, how: End, effects: u32, within: Duration) {
        let loss = match how {
            End::Killed => Loss::Process,
            End::Power => Loss::Power,
            End::Torn => Loss::Torn,
        };
        match (effects, how) {
            (0, _) => self.world.crash(self.end(node), loss),
            (_, End::Killed) => self.world.crash_after(self.end(node), loss, effects - 1, within),
            _ => self.world.crash_in_write(self.end(node), loss, effects - 1, within),
        }
    }

    /// Stops a node in its tracks.
    pub(super) fn pause(&mut self, node: &NodeName) {
        self.world.pause(self.end(node));
    }

    /// Lets it go on.
    pub(super) fn resume(&mut self, node: &NodeName) {
        self.world.resume(self.end(node));
    }

    /// Sets what a link does. Without a delay it has that of a quiet network.
    pub(super) fn shape(&mut self, link: &Link, shape: &LinkShape) {
        let cluster = self.world.cluster();
        let (from, to) = (self.end(&link.from), self.end(&link.to));
        let clients = from == sim::CLIENTS || to == sim::CLIENTS;
        let (shortest, longest) = if clients { cluster.client_links } else { cluster.links }.delay;
        let more = shape.delay.0;
        let to_be = sim::Link {
            cut: match shape.cut {
                Cut::Open => sim::Cut::Open,
                Cut::Hold => sim::Cut::Hold,
                Cut::Reset => sim::Cut::Drop,
            },
            delay: (shortest + more, longest + more + shape.jitter.0),
            loss: shape.loss,
            duplicate: shape.duplicate,
            hurry: shape.reorder,
        };
        self.world.set_link(from, to, to_be);
    }

    /// What passed a link.
    pub(super) fn traffic(&self, link: &Link) -> Traffic {
        let p = self.world.passed(self.end(&link.from), self.end(&link.to));
        Traffic {
            sent: p.sent,
            stopped: p.stopped,
            lost: p.lost,
            doubled: p.doubled,
            hurried: p.hurried,
            delay_ns: p.delay_ns,
        }
    }

    /// Sets the time of day of a node.
    pub(super) fn set_wall(&mut self, node: &NodeName, offset_ns: i64, ppm: i64) {
        self.world.set_wall(self.end(node), offset_ns, ppm);
    }

    /// By how many nanoseconds it is off.
    pub(super) fn wall_offset(&self, node: &NodeName) -> i64 {
        self.world.wall_offset(self.end(node))
    }

    /// Every sync takes so much longer.
    pub(super) fn slow_disk(&mut self, node: &NodeName, more: Duration) {
        self.world.set_sync_delay(self.end(node), more);
    }

    /// Writes fail, or no longer.
    pub(super) fn fail_disk(&mut self, node: &NodeName, failing: bool) {
        self.world.set_failing(self.end(node), failing);
    }

    /// Asks a node to hand leadership over, and ends it when it has said so: as on SIGTERM.
    pub(super) fn stop(&mut self, node: &NodeName) {
        let id = self.end(node);
        self.world.hand_over(id);
        self.world.crash_after(id, Loss::Process, u32::MAX, FAREWELL);
    }

    /// Ends a node whose disk is lost.
    pub(super) fn wipe(&mut self, node: &NodeName) {
        self.world.wipe(self.end(node));
    }

    /// Ends a node, and makes a part of what it had synced unreadable; returns how many records.
    pub(super) fn damage(&mut self, node: &NodeName) -> u64 {
        self.world.crash(self.end(node), Loss::Process);
        self.world.damage(self.end(node))
    }

    /// Makes that readable again.
    pub(super) fn repair(&mut self, node: &NodeName) {
        self.world.repair(self.end(node));
    }

    /// What is seen next.
    pub(super) fn next(&mut self) -> Option<Seen> {
        Some(match self.world.next()? {
            Happened::Answer(answer) => Seen::Answer(answer.call, said(*answer.reply)),
            Happened::Crashed { node, lost } => Seen::Crashed(node as usize - 1, lost.records),
            Happened::Timer(id) => Seen::Timer(id),
            Happened::Broken(broken) => Seen::Broken(broken.invariant.name(), broken.what),
        })
    }
}

/// The operations that it has.
pub(super) const OPERATIONS: &[&str] = &["read", "write", "cas", "delete"];

fn encode(op: &Op) -> Option<paxos::Op> {
    Some(match op {
        Op::Read { key, mode } => {
            let mode = match mode {
                ReadMode::Default | ReadMode::Lease => paxos::ReadMode::Lease,
                ReadMode::Log => paxos::ReadMode::Log,
                ReadMode::Stale => paxos::ReadMode::Stale,
                ReadMode::ReadIndex => paxos::ReadMode::ReadIndex,
                ReadMode::Quorum => paxos::ReadMode::Quorum,
                _ => return None,
            };
            paxos::Op::Get { key: key.to_string(), mode }
        }
        Op::Write { key, value } => paxos::Op::Put { key: key.to_string(), value: to_bytes(value).into() },
        Op::Cas { key, expected, new } => paxos::Op::Cas {
            key: key.to_string(),
            expected: (*expected != checkers::Value::Nil).then(|| to_bytes(expected).into()),
            new: to_bytes(new).into(),
        },
        Op::Delete { key } => paxos::Op::Delete { key: key.to_string() },
        _ => return None,
    })
}

/// As the adapters classify what comes over the wire.
fn said(reply: paxos::Reply) -> Said {
    let served = served(&reply.served);
    let answered = |ret: Result<Ret, String>| match ret {
        Ok(ret) => Said::Answered(Outcome::Ok(ret, served)),
        Err(why) => Said::Unclear(why),
    };
    match reply.result {
        Ok(Output::Value(value)) => answered(from_bytes(value.as_deref()).map(Ret::Value)),
        Ok(Output::Cas { swapped, found }) => {
            answered(from_bytes(found.as_deref()).map(|found| Ret::Swapped { swapped, found: Some(found) }))
        }
        Ok(Output::Done) => answered(Ok(Ret::Done)),
        Err(Failure::NotLeader) => Said::Refused("nobody leads".to_owned()),
        Err(Failure::Invalid(why)) => Said::Refused(why),
        Err(Failure::Overloaded(why)) => Said::Refused(why.to_owned()),
        Err(Failure::Unknown(why)) => Said::Unclear(why.to_owned()),
        Err(Failure::StaleSeq) => Said::Unclear("a newer command of this client was applied".to_owned()),
    }
}

fn served(s: &paxos::Served) -> Served {
    let ballot = (s.ballot != paxos::Ballot::ZERO).then(|| Arc::from(s.ballot.to_string()));
    let commit_ns = u64::try_from(s.commit.as_nanos()).unwrap_or(u64::MAX);
    Served {
        path: (s.path != paxos::Path::None).then(|| Arc::from(s.path.name())),
        forwarded: Some(s.forwarded),
        commit_ns: (commit_ns > 0).then_some(commit_ns),
        slot: (s.slot > 0).then_some(s.slot),
        ballot,
        rounds: (s.rounds > 0).then_some(s.rounds),
    }
}
