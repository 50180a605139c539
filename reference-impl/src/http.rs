//! The HTTP face: the same commands as JSON, for `curl` and for testers that speak nothing else.
//!
//! ```text
//! curl -d '{"op":{"put":{"key":"a","value":"1"}}}' -H 'content-type: application/json' localhost:8001/v1/execute
//!   {"result":{"done":true},"served":{"path":"1-rtt","slot":7,…}}
//! curl 'localhost:8001/v1/kv/a?mode=log'        {"result":{"value":"1"},"served":{…}}
//! curl -X PUT -d 2 localhost:8001/v1/kv/a       {"result":{"done":true},"served":{…}}
//! curl localhost:8001/v1/members                {"config":0,"members":{"1":"127.0.0.1:7001",…}}
//! curl -d '{"members":{"1":"127.0.0.1:7001",…}}' -H 'content-type: application/json' localhost:8001/v1/members
//! curl localhost:8001/status                    {"node":1,"role":"leader",…}
//! curl localhost:8001/state                     {"node":1,"incarnation":3,"storage":"5f…","told":{"round":2,"node":1},…}
//! curl 'localhost:8001/log?from=5&limit=20'     {"first":1,"last":9,"slots":[{"slot":5,"chosen":true,…},…]}
//! curl localhost:8001/metrics                   paxos_kv_commits_total{path="1-rtt",entry="direct"} 412 …
//! curl localhost:8001/health                    ok
//! ```
//!
//! An error is `{"error":{"code":"UNKNOWN","message":"…","leader_hint":2},"served":{…}}` with a matching HTTP status: 400
//! INVALID, 409 STALE_SEQ, 429 OVERLOADED, 503 NOT_LEADER, 504 UNKNOWN. Only 504 leaves open whether the command was, or
//! will be, applied. Values are JSON strings; bytes that are not UTF-8 (written over gRPC) are shown with replacements.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prost::bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::core::{Command, Failure, Member, Op, Output, ReadMode, Reply, Served};
use crate::observe;
use crate::proto::v1::ObserveRequest;
use crate::server::Handle;

/// The routes.
pub fn router(node: Handle) -> Router {
    Router::new()
        .route("/v1/execute", post(execute))
        .route("/v1/kv/{key}", get(read).put(write))
        .route("/v1/members", get(members).post(reconfigure))
        .route("/status", get(status))
        .route("/state", get(state))
        .route("/log", get(log))
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .with_state(node)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonCommand {
    #[serde(default)]
    client_id: u64,
    #[serde(default)]
    seq: u64,
    op: JsonOp,
    #[serde(default)]
    deadline_ms: u64,
    #[serde(default)]
    no_forward: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum JsonOp {
    Get {
        key: String,
        #[serde(default)]
        mode: JsonMode,
    },
    Put {
        key: String,
        value: String,
    },
    Cas {
        key: String,
        #[serde(default)]
        expected: Option<String>,
        new: String,
    },
    Append {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum JsonMode {
    #[default]
    Lease,
    Log,
    ReadIndex,
    Quorum,
    Stale,
}

impl JsonMode {
    fn mode(self) -> ReadMode {
        match self {
            JsonMode::Lease => ReadMode::Lease,
            JsonMode::Log => ReadMode::Log,
            JsonMode::Stale => ReadMode::Stale,
            JsonMode::ReadIndex => ReadMode::ReadIndex,
            JsonMode::Quorum => ReadMode::Quorum,
        }
    }
}

#[derive(Default, Deserialize)]
struct ReadQuery {
    #[serde(default)]
    mode: JsonMode,
}

async fn execute(State(node): State<Handle>, Json(body): Json<JsonCommand>) -> Response {
    let op = match body.op {
        JsonOp::Get { key, mode } => Op::Get { key, mode: mode.mode() },
        JsonOp::Put { key, value } => Op::Put { key, value: value.into() },
        JsonOp::Cas { key, expected, new } => {
            Op::Cas { key, expected: expected.map(Bytes::from), new: new.into() }
        }
        JsonOp::Append { key, value } => Op::Append { key, value: value.into() },
        JsonOp::Delete { key } => Op::Delete { key },
    };
    let command = Command { client: body.client_id, seq: body.seq, op };
    let deadline = (body.deadline_ms > 0).then(|| Duration::from_millis(body.deadline_ms));
    answer(node.execute(command, deadline, body.no_forward).await)
}

async fn read(
    State(node): State<Handle>,
    UrlPath(key): UrlPath<String>,
    Query(query): Query<ReadQuery>,
) -> Response {
    let op = Op::Get { key, mode: query.mode.mode() };
    answer(node.execute(Command { client: 0, seq: 0, op }, None, false).await)
}

async fn write(State(node): State<Handle>, UrlPath(key): UrlPath<String>, value: Bytes) -> Response {
    let op = Op::Put { key, value };
    answer(node.execute(Command { client: 0, seq: 0, op }, None, false).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonMembers {
    members: BTreeMap<u32, String>,
    #[serde(default)]
    config: Option<u64>,
    #[serde(default)]
    deadline_ms: u64,
}

async fn reconfigure(State(node): State<Handle>, Json(body): Json<JsonMembers>) -> Response {
    let member = |(node, address)| (node, Member { address, born: 0 });
    let deadline = (body.deadline_ms > 0).then(|| Duration::from_millis(body.deadline_ms));
    answer(node.reconfigure(body.config, body.members.into_iter().map(member).collect(), deadline).await)
}

async fn members(State(node): State<Handle>) -> Json<Value> {
    let s = node.status();
    Json(json!({"config": s.config, "members": addresses(&s)}))
}

fn addresses(status: &crate::proto::v1::StatusReply) -> Value {
    status.members.iter().map(|member| (member.node.to_string(), json!(member.address))).collect()
}

async fn status(State(node): State<Handle>) -> Json<Value> {
    let s = node.status();
    let ballot = |b: Option<crate::proto::v1::Ballot>| b.map(|b| json!({"round": b.round, "node": b.node}));
    Json(json!({
        "node": s.node, "role": s.role, "promised": ballot(s.promised), "leading": ballot(s.leading),
        "leader": s.leader, "commit_index": s.commit_index, "applied_index": s.applied_index,
        "last_slot": s.last_slot, "lease_left_ms": s.lease_left_ms, "protocol": s.protocol, "fsync": s.fsync,
        "config": s.config, "members": addresses(&s),
        "elections_won": s.elections_won, "preempted": s.preempted, "bugs": s.bugs, "applied_hash": format!("{:016x}", s.applied_hash),
    }))
}

async fn state(State(node): State<Handle>) -> Json<Value> {
    Json(observe::state(&node.status()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    #[serde(default)]
    from: u64,
    #[serde(default = "some")]
    limit: u32,
}

fn some() -> u32 {
    100
}

async fn log(State(node): State<Handle>, Query(query): Query<LogQuery>) -> Response {
    let wanted = ObserveRequest {
        from: query.from,
        limit: query.limit,
        checkpoints_after: query.from.saturating_sub(1),
    };
    match node.observe(wanted).await {
        Some(seen) => Json(observe::log(&seen)).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the node is stopping\n").into_response(),
    }
}

async fn metrics(State(node): State<Handle>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], node.metrics())
}

fn text(value: Option<Bytes>) -> Value {
    value.map_or(Value::Null, |bytes| String::from_utf8_lossy(&bytes).into())
}

fn served(served: &Served) -> Value {
    json!({
        "path": served.path.name(), "forwarded": served.forwarded, "slot": served.slot,
        "ballot": {"round": served.ballot.round, "node": served.ballot.node}, "node": served.node,
        "queue_ns": served.queue.as_nanos() as u64, "commit_ns": served.commit.as_nanos() as u64,
        "phase1_ns": served.phase1.as_nanos() as u64,
        "fsync_ns": served.fsync.as_nanos() as u64, "apply_ns": served.apply.as_nanos() as u64,
        "rounds": served.rounds,
    })
}

fn answer(reply: Reply) -> Response {
    let served = served(&reply.served);
    let (status, code, message) = match reply.result {
        Ok(output) => {
            let result = match output {
                Output::Value(value) => json!({"value": text(value)}),
                Output::Cas { swapped, found } => json!({"swapped": swapped, "found": text(found)}),
                Output::Done => json!({"done": true}),
            };
            return Json(json!({"result": result, "served": served})).into_response();
        }
        Err(Failure::NotLeader) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "NOT_LEADER",
            "this node does not lead and did not forward".to_owned(),
        ),
        Err(Failure::Invalid(why)) => (StatusCode::BAD_REQUEST, "INVALID", why),
        Err(Failure::Overloaded(why)) => (StatusCode::TOO_MANY_REQUESTS, "OVERLOADED", why.to_owned()),
        Err(Failure::Unknown(why)) => (StatusCode::GATEWAY_TIMEOUT, "UNKNOWN", why.to_owned()),
        Err(Failure::StaleSeq) => {
            (StatusCode::CONFLICT, "STALE_SEQ", "a newer command of this client was applied".to_owned())
        }
    };
    let error = json!({"code": code, "message": message, "leader_hint": reply.leader_hint});
    (status, Json(json!({"error": error, "served": served}))).into_response()
}
