//! The bundled cluster over gRPC: the adapter to read first, and to copy.
//!
//! ```text
//! tribunal node --id 1 --peer-listen … --client-listen … --peer 2=… --data …      (one process a node)
//! client ── Execute(Command { client_id, seq, op }) ──▶ any node ──▶ Reply { result, served }
//! ```
//! It knows the cluster by its published protocol only. What it must get right is the classification of errors: see
//! `PaxosKvClient::attempt`.

use super::{Adapter, Claim, Looker, Node, Session, paxos_kv_look::PaxosKvLooker};
use async_trait::async_trait;
use checkers::{Op, ReadMode, Ret, Value};
use std::{collections::BTreeMap, path::PathBuf, process::Command, sync::Arc, time::Duration};
use tonic::transport::{Channel, Endpoint};
use workloads::{Client, Outcome, Served};

/// The protocol's messages, compiled from the cluster's `.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod pb {
    tonic::include_proto!("paxoskv.v1");
}
use pb::{command, error::Code, kv_client::KvClient, reply};

/// How the nodes of the bundled cluster are started.
#[derive(Clone, Debug)]
pub struct PaxosKv {
    /// The program; `node` is its first argument. Defaults to this very program.
    pub program: PathBuf,
    /// Further arguments for every node: `--protocol`, `--bug`, `--fsync`, …
    pub arguments: Vec<String>,
    /// The run's id, which permits planted bugs.
    pub run: String,
    names: BTreeMap<u32, nemesis::NodeName>,
}

impl PaxosKv {
    /// An adapter for nodes with these names, numbered from 1.
    pub fn new(program: PathBuf, arguments: Vec<String>, run: String, names: &[nemesis::NodeName]) -> Self {
        let names = (1..).zip(names.iter().cloned()).collect();
        PaxosKv { program, arguments, run, names }
    }

    /// The command that starts a node, common to both faces of the cluster.
    pub(super) fn node_command(&self, node: &Node) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("node").args(["--id", &node.id.to_string(), "--cluster-id", &self.run]);
        command.arg("--data").arg(&node.data).arg("--watch-stdin");
        for (flag, port) in
            [("--peer-listen", "peer"), ("--client-listen", "client"), ("--http-listen", "http")]
        {
            command.args([flag, &node.port(port).to_string()]);
        }
        for peer in &node.peers {
            command.args(["--peer", &format!("{}={}", peer.id, peer.address)]);
        }
        command.args(&self.arguments).env("TRIBUNAL_RUN", &self.run);
        command
    }

    /// What a node says of itself.
    pub async fn status(&self, node: &Node) -> Result<pb::StatusReply, String> {
        let channel = dial(node, Duration::from_millis(300)).await?;
        let reply = KvClient::new(channel).status(pb::StatusRequest {}).await;
        reply.map(tonic::Response::into_inner).map_err(|e| e.message().to_owned())
    }

    /// How many messages of each kind a node has sent to others since it started.
    pub async fn sent(&self, node: &Node) -> Result<BTreeMap<String, u64>, String> {
        let status = self.status(node).await?;
        Ok(status.sent.into_iter().map(|sent| (sent.kind, sent.count)).collect())
    }
}

pub(super) async fn dial(node: &Node, timeout: Duration) -> Result<Channel, String> {
    let address = format!("http://{}", node.port("client"));
    let endpoint = Endpoint::from_shared(address).map_err(|e| e.to_string())?;
    let endpoint = endpoint.connect_timeout(timeout).tcp_nodelay(true);
    endpoint.connect().await.map_err(|e| format!("cannot connect to {}: {}", node.name, root_cause(&e)))
}

pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[async_trait]
impl Adapter for PaxosKv {
    fn name(&self) -> &str {
        "paxos-kv-grpc"
    }

    fn operations(&self) -> &[&str] {
        &["read", "write", "cas", "delete"]
    }

    fn ports(&self) -> &[&'static str] {
        &["peer", "client", "http"]
    }

    fn command(&self, node: &Node) -> Option<Command> {
        Some(self.node_command(node))
    }

    async fn ready(&self, node: &Node) -> Result<(), String> {
        let status = self.status(node).await?;
        if status.role != "proposer" && status.leader == 0 {
            return Err(format!("{} knows of no leader yet", node.name));
        }
        Ok(())
    }

    async fn leader_claim(&self, node: &Node) -> Option<Claim> {
        let status = self.status(node).await.ok()?;
        let ballot = status.leading.filter(|_| status.role == "leader")?;
        Some(Claim {
            rank: (ballot.round, u64::from(ballot.node)),
            node: self.names.get(&status.node)?.clone(),
        })
    }

    fn looker(&self, node: &Node) -> Option<Box<dyn Looker>> {
        Some(Box::new(PaxosKvLooker::new(node.clone())))
    }

    async fn connect(&self, session: &Session) -> Result<Box<dyn Client>, String> {
        let channel = dial(&session.home, session.op_timeout).await?;
        Ok(Box::new(PaxosKvClient {
            session: session.clone(),
            channels: vec![Some(KvClient::new(channel))],
            at: 0,
            seq: 0,
        }))
    }
}

/// A client of one process. Retries, if the session allows them, repeat the command's `(client_id, seq)`.
struct PaxosKvClient {
    session: Session,
    /// Connections to home and, opened when needed, to the others.
    channels: Vec<Option<KvClient<Channel>>>,
    at: usize,
    seq: u64,
}

/// What one attempt came to.
pub(super) enum Attempt {
    /// An answer.
    Answered(Outcome),
    /// It was definitely not applied.
    Refused(String),
    /// It may have been applied.
    Unclear(String),
}

#[async_trait]
impl Client for PaxosKvClient {
    async fn invoke(&mut self, op: &Op) -> Outcome {
        let Some(op) = encode(op) else {
            return Outcome::Fail(format!("paxos-kv has no operation `{}`", op.f()));
        };
        // 0: no session.
        self.seq += u64::from(self.session.sessions);
        let command = pb::Command {
            client_id: client_id(&self.session),
            seq: self.seq,
            op: Some(op),
            deadline_ms: self.session.op_timeout.as_millis() as u32,
            no_forward: false,
        };
        let mut unclear = None;
        let mut refused = String::new();
        for attempt in 0..=self.session.retries {
            if attempt > 0 {
                self.turn();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            match self.attempt(command.clone()).await {
                Attempt::Answered(outcome) => return outcome,
                Attempt::Refused(why) => refused = why,
                Attempt::Unclear(why) => unclear = Some(why),
            }
        }
        // One attempt in doubt leaves the operation in doubt, however clearly the others were refused.
        match unclear {
            Some(why) => Outcome::Info(why),
            None => Outcome::Fail(refused),
        }
    }
}

impl PaxosKvClient {
    async fn attempt(&mut self, command: pb::Command) -> Attempt {
        let limit = self.session.attempt_timeout;
        let kv = match self.channel().await {
            Ok(kv) => kv,
            // Not connected: nothing was sent.
            Err(why) => return Attempt::Refused(why),
        };
        match tokio::time::timeout(limit, kv.execute(command)).await {
            Err(_) => Attempt::Unclear(format!("no answer within {} ms", limit.as_millis())),
            // A broken connection may break after the request arrived: in doubt, unclear.
            Ok(Err(status)) => {
                self.channels[self.at] = None;
                Attempt::Unclear(root_cause(&status))
            }
            Ok(Ok(reply)) => classify(reply.into_inner()),
        }
    }

    async fn channel(&mut self) -> Result<&mut KvClient<Channel>, String> {
        let node = if self.at == 0 { &self.session.home } else { &self.session.others[self.at - 1] };
        let slot = &mut self.channels[self.at];
        if slot.is_none() {
            *slot = Some(KvClient::new(dial(node, self.session.attempt_timeout).await?));
        }
        slot.as_mut().ok_or_else(|| "no connection".to_owned())
    }

    /// To the next node, for a client that may fail over.
    fn turn(&mut self) {
        self.at = (self.at + 1) % (1 + self.session.others.len());
        self.channels.resize_with(1 + self.session.others.len(), || None);
    }
}

/// An id that no other process of this or another run has.
pub(super) fn client_id(session: &Session) -> u64 {
    (session.run << 32) | (session.process + 1)
}

/// Values travel as JSON text, so that none can be taken for another.
pub(crate) fn to_bytes(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(crate) fn from_bytes(bytes: Option<&[u8]>) -> Result<Value, String> {
    match bytes {
        None => Ok(Value::Nil),
        Some(b) => {
            serde_json::from_slice(b).map_err(|e| format!("the cluster returned a value never written: {e}"))
        }
    }
}

fn encode(op: &Op) -> Option<command::Op> {
    let bytes = |v: &Value| to_bytes(v).into_bytes();
    Some(match op {
        Op::Read { key, mode } => {
            let mode = match mode {
                ReadMode::Default | ReadMode::Lease => pb::ReadMode::Lease,
                ReadMode::Log => pb::ReadMode::Log,
                ReadMode::Stale => pb::ReadMode::Stale,
                ReadMode::ReadIndex => pb::ReadMode::ReadIndex,
                ReadMode::Quorum => pb::ReadMode::Quorum,
                _ => return None,
            };
            command::Op::Get(pb::Get { key: key.to_string(), mode: mode as i32 })
        }
        Op::Write { key, value } => command::Op::Put(pb::Put { key: key.to_string(), value: bytes(value) }),
        Op::Cas { key, expected, new } => command::Op::Cas(pb::Cas {
            key: key.to_string(),
            expected: (*expected != Value::Nil).then(|| bytes(expected)),
            new: bytes(new),
        }),
        Op::Delete { key } => command::Op::Delete(pb::Delete { key: key.to_string() }),
        _ => return None,
    })
}

fn classify(reply: pb::Reply) -> Attempt {
    let served = reply.served.map(served).unwrap_or_default();
    let value = |bytes: Option<Vec<u8>>| from_bytes(bytes.as_deref());
    let answered = |ret| Attempt::Answered(Outcome::Ok(ret, served));
    match reply.result {
        Some(reply::Result::Value(v)) => match value(v.value) {
            Ok(v) => answered(Ret::Value(v)),
            Err(why) => Attempt::Unclear(why),
        },
        Some(reply::Result::Cas(c)) => match value(c.found) {
            Ok(found) => answered(Ret::Swapped { swapped: c.swapped, found: Some(found) }),
            Err(why) => Attempt::Unclear(why),
        },
        Some(reply::Result::Done(_)) => answered(Ret::Done),
        Some(reply::Result::Error(e)) => match e.code() {
            Code::NotLeader | Code::Invalid | Code::Overloaded => Attempt::Refused(e.message),
            Code::Unknown | Code::StaleSeq | Code::Unspecified => Attempt::Unclear(e.message),
        },
        None => Attempt::Unclear("the cluster answered nothing".to_owned()),
    }
}

fn served(s: pb::Served) -> Served {
    Served {
        path: (!s.path.is_empty()).then(|| Arc::from(s.path)),
        forwarded: Some(s.forwarded),
        commit_ns: (s.commit_ns > 0).then_some(s.commit_ns),
        slot: (s.slot > 0).then_some(s.slot),
        ballot: s.ballot.map(|b| Arc::from(format!("{}.{}", b.round, b.node))),
        rounds: (s.rounds > 0).then_some(s.rounds),
    }
}
