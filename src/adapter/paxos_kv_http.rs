//! The bundled cluster over its HTTP face: the same nodes, another protocol.
//!
//! ```text
//! POST /v1/execute  {"client_id":7,"seq":1,"op":{"put":{"key":"k","value":"1"}}}
//! ```
//! A second adapter for the same system costs only what differs: how a command is put and an answer is read.

use super::{
    Adapter, Claim, Looker, Node, Session,
    paxos_kv_grpc::{PaxosKv, client_id, from_bytes, to_bytes},
};
use async_trait::async_trait;
use checkers::{Op, ReadMode, Ret, Value};
use serde::Deserialize;
use serde_json::json;
use std::process::Command;
use workloads::{Client, Outcome, Served};

/// The adapter.
#[derive(Clone, Debug)]
pub struct PaxosKvHttp {
    nodes: PaxosKv,
}

impl PaxosKvHttp {
    /// The HTTP face of these nodes.
    pub fn new(nodes: PaxosKv) -> Self {
        PaxosKvHttp { nodes }
    }
}

#[async_trait]
impl Adapter for PaxosKvHttp {
    fn name(&self) -> &str {
        "paxos-kv-http"
    }
    fn operations(&self) -> &[&str] {
        self.nodes.operations()
    }
    fn ports(&self) -> &[&'static str] {
        self.nodes.ports()
    }
    fn command(&self, node: &Node) -> Option<Command> {
        self.nodes.command(node)
    }
    async fn ready(&self, node: &Node) -> Result<(), String> {
        self.nodes.ready(node).await
    }
    async fn leader_claim(&self, node: &Node) -> Option<Claim> {
        self.nodes.leader_claim(node).await
    }
    fn looker(&self, node: &Node) -> Option<Box<dyn Looker>> {
        // What a node says of itself is the same by either face.
        self.nodes.looker(node)
    }
    async fn connect(&self, session: &Session) -> Result<Box<dyn Client>, String> {
        let address = session.home.port("http");
        // HTTP connects with the first request; a client that nobody listens to shall fail here instead.
        let dial = tokio::net::TcpStream::connect(address);
        dial.await.map_err(|e| format!("cannot connect to {}: {e}", session.home.name))?;
        let http =
            reqwest::Client::builder().timeout(session.op_timeout).build().map_err(|e| e.to_string())?;
        let url = format!("http://{address}/v1/execute");
        Ok(Box::new(HttpClient {
            http,
            url,
            client_id: client_id(session),
            seq: 0,
            sessions: session.sessions,
            deadline: session.op_timeout,
        }))
    }
}

struct HttpClient {
    http: reqwest::Client,
    url: String,
    client_id: u64,
    seq: u64,
    sessions: bool,
    deadline: std::time::Duration,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    result: Option<ResultBody>,
    #[serde(default)]
    error: Option<ErrorBody>,
    #[serde(default)]
    served: Option<ServedBody>,
}

/// Told apart by their fields: `{"value":…}`, `{"swapped":…,"found":…}`, `{"done":true}`.
#[derive(Deserialize)]
struct ResultBody {
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    swapped: Option<bool>,
    #[serde(default)]
    found: Option<String>,
    #[serde(default)]
    done: bool,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServedBody {
    path: String,
    forwarded: bool,
    slot: u64,
    ballot: Option<BallotBody>,
    commit_ns: u64,
    rounds: u32,
}

#[derive(Deserialize)]
struct BallotBody {
    round: u64,
    node: u32,
}

#[async_trait]
impl Client for HttpClient {
    async fn invoke(&mut self, op: &Op) -> Outcome {
        let Some(op) = encode(op) else {
            return Outcome::Fail(format!("paxos-kv has no operation `{}`", op.f()));
        };
        // 0: no session.
        self.seq += u64::from(self.sessions);
        let deadline_ms = self.deadline.as_millis() as u64;
        let body =
            json!({"client_id": self.client_id, "seq": self.seq, "op": op, "deadline_ms": deadline_ms});
        let answer = match self.http.post(&self.url).json(&body).send().await {
            // Not connected: nothing was sent. Anything else may have arrived.
            Err(e) if e.is_connect() => return Outcome::Fail(e.to_string()),
            Err(e) => return Outcome::Info(super::paxos_kv_grpc::root_cause(&e)),
            Ok(answer) => answer,
        };
        let status = answer.status();
        let text = match answer.text().await {
            Ok(text) => text,
            Err(e) => return Outcome::Info(e.to_string()),
        };
        match serde_json::from_str::<Reply>(&text) {
            Ok(reply) => classify(reply),
            Err(_) => Outcome::Info(format!("HTTP {status}: {text}")),
        }
    }
}

fn encode(op: &Op) -> Option<serde_json::Value> {
    Some(match op {
        Op::Read { key, mode } => {
            let mode = match mode {
                ReadMode::Default => ReadMode::Lease,
                ReadMode::Lease
                | ReadMode::Log
                | ReadMode::Stale
                | ReadMode::ReadIndex
                | ReadMode::Quorum => *mode,
                _ => return None,
            };
            json!({"get": {"key": key.to_string(), "mode": mode.name()}})
        }
        Op::Write { key, value } => json!({"put": {"key": key.to_string(), "value": to_bytes(value)}}),
        Op::Cas { key, expected, new } => {
            let expected = (*expected != Value::Nil).then(|| to_bytes(expected));
            json!({"cas": {"key": key.to_string(), "expected": expected, "new": to_bytes(new)}})
        }
        Op::Delete { key } => json!({"delete": {"key": key.to_string()}}),
        _ => return None,
    })
}

fn classify(reply: Reply) -> Outcome {
    let served = reply.served.map(served).unwrap_or_default();
    let value = |text: Option<String>| from_bytes(text.as_deref().map(str::as_bytes));
    match (reply.result, reply.error) {
        (_, Some(e)) => match e.code.as_str() {
            "NOT_LEADER" | "INVALID" | "OVERLOADED" => Outcome::Fail(e.message),
            _ => Outcome::Info(e.message),
        },
        (Some(ResultBody { done: true, .. }), None) => Outcome::Ok(Ret::Done, served),
        (Some(ResultBody { swapped: Some(swapped), found, .. }), None) => match value(found) {
            Ok(found) => Outcome::Ok(Ret::Swapped { swapped, found: Some(found) }, served),
            Err(why) => Outcome::Info(why),
        },
        (Some(ResultBody { value: v, .. }), None) => match value(v) {
            Ok(v) => Outcome::Ok(Ret::Value(v), served),
            Err(why) => Outcome::Info(why),
        },
        (None, None) => Outcome::Info("the cluster answered nothing".to_owned()),
    }
}

fn served(s: ServedBody) -> Served {
    Served {
        path: (!s.path.is_empty()).then(|| s.path.into()),
        forwarded: Some(s.forwarded),
        commit_ns: (s.commit_ns > 0).then_some(s.commit_ns),
        slot: (s.slot > 0).then_some(s.slot),
        ballot: s.ballot.map(|b| format!("{}.{}", b.round, b.node).into()),
        rounds: (s.rounds > 0).then_some(s.rounds),
    }
}
