//! The gRPC face: the `Kv` service of `proto/paxos_kv.proto`.
//!
//! ```text
//! Execute(Command) ─→ driver ─→ Reply          Status ─→ what the node believes, without asking anyone
//! ```
//!
//! A gRPC error status means a malformed request and nothing else; everything that happens to a command is said in its
//! `Reply`. Deliberately no TLS and no authentication: this is a cluster for trials, to be kept on a private network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::clock::Clock;
use crate::codec;
use crate::core::{Command, Config, Core, Failure, Nodes, Op, Reply, Served};
use crate::driver::{Event, Events, Look};
use crate::metrics::{self, Metrics, Queues};
use crate::observe;
use crate::proto::v1;
use crate::proto::v1::kv_server::Kv;
use crate::transport::Outboxes;
use crate::wal::Fsync;

/// How long a node that hands leadership over stays, so that its last words leave.
const FAREWELL: Duration = Duration::from_millis(50);
/// A node that is too busy to hand over after this long stops anyway.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(500);

/// A way to use a running node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    events: Events,
    status: Arc<Mutex<crate::core::Status>>,
    clock: Clock,
    config: Arc<Config>,
    fsync: Fsync,
    storage: u64,
    links: Outboxes,
    metrics: Arc<Metrics>,
}

impl Handle {
    pub(crate) fn new(
        events: Events,
        status: Arc<Mutex<crate::core::Status>>,
        clock: Clock,
        config: Config,
        (fsync, storage): (Fsync, u64),
        links: Outboxes,
        metrics: Arc<Metrics>,
    ) -> Self {
        Handle { events, status, clock, config: Arc::new(config), fsync, storage, links, metrics }
    }

    /// Runs one command. `deadline` is how long the node may keep trying (`None`: its default).
    pub async fn execute(&self, command: Command, deadline: Option<Duration>, no_forward: bool) -> Reply {
        let (reply, answer) = oneshot::channel();
        let failed = |failure| Reply { result: Err(failure), served: Served::default(), leader_hint: 0 };
        if self.events.send(Event::Client { command, deadline, no_forward, reply }).await.is_err() {
            return failed(Failure::NotLeader);
        }
        answer.await.unwrap_or_else(|_| failed(Failure::Unknown("the node is stopping")))
    }

    /// Hands leadership over, if this node has it and another one can take it. Returns when that was said.
    pub async fn hand_over(&self) {
        let (done, answer) = oneshot::channel();
        let asked = async {
            self.events.send(Event::HandOver(done)).await.ok()?;
            answer.await.ok()
        };
        if let Ok(Some(true)) = tokio::time::timeout(HAND_OVER_PATIENCE, asked).await {
            // It is queued for the links by now. If it does not leave in time, the others wait for the end of the lease.
            tokio::time::sleep(FAREWELL).await;
        }
    }

    /// Asks for these members in the place of those of configuration `config`; `None` means the one that this node has applied.
    pub async fn reconfigure(&self, config: Option<u64>, nodes: Nodes, deadline: Option<Duration>) -> Reply {
        let from = config.unwrap_or_else(|| self.status().config);
        let op = Op::Reconfigure { from, nodes };
        self.execute(Command { client: 0, seq: 0, op }, deadline, false).await
    }

    /// What the node believes at this moment.
    pub fn status(&self) -> v1::StatusReply {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.status_reply(status)
    }

    /// What the node knows slot by slot, and what it believes at the same moment. `None` if it is stopping.
    pub async fn observe(&self, wanted: v1::ObserveRequest) -> Option<v1::ObserveReply> {
        let limit = wanted.limit.min(observe::SLOTS_MAX) as usize;
        let seen = self.look(move |core| {
            let checkpoints: Vec<_> = core.checkpoints_after(wanted.checkpoints_after).collect();
            (core.status(), core.durable_to(), core.slots_from(wanted.from, limit), checkpoints)
        });
        let (status, durable_to, slots, checkpoints) = seen.await?;
        Some(v1::ObserveReply {
            status: Some(self.status_reply(status)),
            slots: slots.iter().map(observe::slot).collect(),
            checkpoints: checkpoints.into_iter().map(observe::checkpoint).collect(),
            durable_to,
        })
    }

    /// What it has counted, as Prometheus reads it.
    pub fn metrics(&self) -> String {
        let inputs = (self.events.max_capacity() - self.events.capacity()) as u64;
        let queues = Queues { inputs, peers: self.links.waiting() };
        metrics::render(&self.metrics, &self.status(), &queues)
    }

    /// Lets `look` see the core, between two of its steps. `None` if the node is stopping.
    async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Core) -> T + Send + 'static) -> Option<T> {
        let (tell, told) = oneshot::channel();
        // Whoever asked may have gone.
        let look = Look(Box::new(|core| drop(tell.send(look(core)))));
        self.events.send(Event::Look(look)).await.ok()?;
        told.await.ok()
    }

    fn status_reply(&self, status: crate::core::Status) -> v1::StatusReply {
        let now = self.clock.now();
        let mut sent = BTreeMap::new();
        self.links.count_sent(&mut sent);
        v1::StatusReply {
            node: status.node,
            role: status.role.to_owned(),
            promised: Some(codec::ballot_to(status.promised)),
            leading: status.leading.map(codec::ballot_to),
            leader: status.leader,
            commit_index: status.commit,
            applied_index: status.applied,
            last_slot: status.last_slot,
            lease_left_ms: status.lease_until.map_or(0, |until| until.since(now).as_millis() as u64),
            protocol: self.config.protocol.name().to_owned(),
            fsync: self.fsync.name().to_owned(),
            elections_won: status.elections_won,
            preempted: status.preempted,
            bugs: self.config.hooks.names().into_iter().map(str::to_owned).collect(),
            applied_hash: status.applied_hash,
            config: status.config,
            members: codec::nodes_to(&status.members),
            sent: sent.into_iter().map(|(kind, count)| v1::Sent { kind: kind.to_owned(), count }).collect(),
            incarnation: status.epoch,
            storage: self.storage,
            told: Some(codec::ballot_to(status.told)),
            recovered: Some(codec::ballot_to(status.recovered)),
            snapshot_slot: status.snapshot,
            first_slot: status.first_slot,
            state_hash: status.here.state,
            session_hash: status.here.sessions,
            unsynced: status.unsynced,
        }
    }
}

#[async_trait::async_trait]
impl Kv for Handle {
    async fn execute(&self, request: Request<v1::Command>) -> Result<Response<v1::Reply>, Status> {
        let wire = request.into_inner();
        let deadline = (wire.deadline_ms > 0).then(|| Duration::from_millis(wire.deadline_ms.into()));
        let no_forward = wire.no_forward;
        let command = codec::command_from(wire).ok_or_else(|| {
            Status::invalid_argument("the command names no operation, or an unknown read mode")
        })?;
        let command = codec::detached(command);
        let reply = Handle::execute(self, command, deadline, no_forward).await;
        Ok(Response::new(codec::reply_to(reply)))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        Ok(Response::new(Handle::status(self)))
    }

    async fn observe(
        &self,
        request: Request<v1::ObserveRequest>,
    ) -> Result<Response<v1::ObserveReply>, Status> {
        let seen = Handle::observe(self, request.into_inner()).await;
        seen.map(Response::new).ok_or_else(|| Status::unavailable("the node is stopping"))
    }
}
