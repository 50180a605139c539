//! How a system is plugged in: [`Adapter`] and, for its clients, [`Client`].
//!
//! ```text
//! Adapter::command   what starts a node                 Adapter::connect       a client of one process
//! Adapter::ready     when it can be used                Adapter::leader_claim  who claims to lead
//! ```
//! The bundled cluster has no privileges: it is reached through these, twice, by gRPC
//! ([`paxos_kv_grpc`], the implementation to read first) and over HTTP ([`paxos_kv_http`]).

pub mod null;
pub mod paxos_kv_grpc;
pub mod paxos_kv_http;
mod paxos_kv_look;

use async_trait::async_trait;
use checkers::node_state::NodeState;
use nemesis::NodeName;
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::Command, time::Duration};
use workloads::Client;

/// A system under test, as the tester knows it.
#[async_trait]
pub trait Adapter: Send + Sync {
    /// A short name, for reports.
    fn name(&self) -> &str;

    /// The operations its clients speak, by their names in histories. A workload that asks for another one is refused
    /// before anything starts.
    fn operations(&self) -> &[&str];

    /// What the ports of a node are called. The first is the one through which nodes reach each other: the links to it
    /// can be cut. Empty for a system whose nodes are not started here.
    fn ports(&self) -> &[&'static str] {
        &[]
    }

    /// The command that starts a node, or `None` if nodes are not started here. It must run in the foreground; its
    /// output goes to the node's log. A restart after a kill runs the same command again.
    fn command(&self, _node: &Node) -> Option<Command> {
        None
    }

    /// Whether a node can serve clients, and if not, why. Asked again and again, so it should answer within a second.
    async fn ready(&self, _node: &Node) -> Result<(), String> {
        Ok(())
    }

    /// Whether this node claims to lead, with the rank of its claim. Used to aim faults at the leader and to count
    /// changes of leadership; several nodes may claim, and the highest rank wins.
    async fn leader_claim(&self, _node: &Node) -> Option<Claim> {
        None
    }

    /// Who looks at a node, if nodes tell of their own state: then the run is judged by it, see the checker `node-invariants`.
    /// Nothing is asked before [`Looker::look`].
    fn looker(&self, _node: &Node) -> Option<Box<dyn Looker>> {
        None
    }

    /// Connects a client. An error means that nothing was sent; the run loop tries again after a moment.
    async fn connect(&self, session: &Session) -> Result<Box<dyn Client>, String>;
}

/// Looks at one node from outside, by a connection of its own.
#[async_trait]
pub trait Looker: Send {
    /// What the node says of itself now, all of it of one moment. Given up after half a second; the next look must not meet what
    /// is left of it.
    async fn look(&mut self, wanted: Wanted) -> Result<NodeState, String>;
}

/// What of a node's log is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The first slot.
    pub from: u64,
    /// At most so many slots.
    pub limit: u64,
    /// Checkpoints after this slot.
    pub checkpoints_after: u64,
}

/// One node of the cluster, with everything that an adapter may need to start or reach it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its number, from 1.
    pub id: u32,
    /// Its own addresses, by the names of [`Adapter::ports`].
    pub ports: BTreeMap<&'static str, SocketAddr>,
    /// The other nodes, as this one must address them: through the links that can be cut.
    pub peers: Vec<Peer>,
    /// A folder of its own for its data. Kept over restarts within a run.
    pub data: PathBuf,
}

impl Node {
    /// One of its addresses.
    ///
    /// # Panics
    /// If [`Adapter::ports`] names no such port: a mistake of the adapter's author.
    pub fn port(&self, name: &str) -> SocketAddr {
        *self.ports.get(name).unwrap_or_else(|| panic!("the adapter's ports() names no port `{name}`"))
    }
}

/// Another node, seen from one.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Its number.
    pub id: u32,
    /// Where it is reached.
    pub address: SocketAddr,
}

/// A node's claim to lead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Ballot, term or epoch; of several claims the highest is believed.
    pub rank: (u64, u64),
    /// Who leads.
    pub node: NodeName,
}

/// What a client is connected for.
#[derive(Clone, Debug)]
pub struct Session {
    /// The process number: unique within a run.
    pub process: u64,
    /// A number that differs between runs, for ids that must be unique in the system.
    pub run: u64,
    /// The node it talks to.
    pub home: Node,
    /// The nodes it may also turn to when home does not answer. Empty for a client that sticks to its node.
    pub others: Vec<Node>,
    /// The deadline of an operation.
    pub op_timeout: Duration,
    /// How long one attempt may take before it is made again, if the workload wants retries.
    pub attempt_timeout: Duration,
    /// How many times an operation may be attempted again, under the same identity.
    pub retries: u32,
    /// Whether operations shall have an identity. Without, none is attempted again.
    pub sessions: bool,
}
