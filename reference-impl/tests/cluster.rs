//! Three real nodes in one process, over real sockets: both faces, forwarding, retries, a restart.

use std::time::{Duration, Instant};

use clap::Parser;
use paxos_kv::node::{Listeners, Node, NodeArgs};
use paxos_kv::proto::v1;
use paxos_kv::proto::v1::command::Op;
use paxos_kv::proto::v1::kv_client::KvClient;
use paxos_kv::proto::v1::reply::Result as Outcome;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    node: NodeArgs,
}

struct Cluster {
    nodes: Vec<Option<Node>>,
    lines: Vec<Vec<String>>,
    clients: Vec<KvClient<Channel>>,
    http: Vec<String>,
    _data: TempDir,
}

/// Whatever takes longer never happens.
const PATIENCE: Duration = Duration::from_secs(40);

impl Cluster {
    async fn start(size: usize, more: &[&str]) -> Cluster {
        let data = TempDir::new().unwrap();
        let mut listeners = Vec::new();
        for _ in 0..size {
            listeners.push(Listeners::bind("127.0.0.1:0", "127.0.0.1:0", Some("127.0.0.1:0")).await.unwrap());
        }
        let addresses: Vec<_> = listeners.iter().map(|l| l.addresses().unwrap()).collect();
        let mut cluster =
            Cluster { nodes: vec![], lines: vec![], clients: vec![], http: vec![], _data: data };
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (peer, client, http) = addresses[index];
            let dir = cluster._data.path().join(index.to_string());
            let mut line: Vec<String> =
                ["x", "--id", &(index + 1).to_string(), "--data", dir.to_str().unwrap()]
                    .into_iter()
                    .chain(["--peer-listen", &peer.to_string(), "--client-listen", &client.to_string()])
                    // So long that a machine which stands still for a moment has the same leader afterwards.
                    .chain(["--lease-ms", "3000", "--election-ms", "1000..1500"])
                    .chain(more.iter().copied())
                    .map(str::to_owned)
                    .collect();
            for (other, (peer, ..)) in addresses.iter().enumerate().filter(|(other, _)| *other != index) {
                line.extend(["--peer".to_owned(), format!("{}={peer}", other + 1)]);
            }
            let args = Line::try_parse_from(&line).unwrap_or_else(|e| panic!("{e}")).node;
            cluster.nodes.push(Some(Node::start(&args, listeners).unwrap()));
            cluster.lines.push(line);
            let channel = Channel::from_shared(format!("http://{client}")).unwrap().connect_lazy();
            cluster.clients.push(KvClient::new(channel));
            cluster.http.push(http.unwrap().to_string());
        }
        cluster
    }

    /// Sends until the answer is not "nobody leads".
    async fn run(&self, node: usize, command: v1::Command) -> v1::Reply {
        let until = Instant::now() + PATIENCE;
        loop {
            let reply = self.clients[node].clone().execute(command.clone()).await;
            match reply.map(|reply| reply.into_inner()) {
                Ok(v1::Reply { result: Some(Outcome::Error(error)), .. })
                    if error.code() == v1::error::Code::NotLeader && Instant::now() < until => {}
                Ok(reply) => return reply,
                Err(status) => assert!(Instant::now() < until, "{status}"),
            }
        }
    }

    async fn leader(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            for (index, node) in self.nodes.iter().enumerate() {
                let Some(node) = node else { continue };
                let status = node.handle().status();
                if status.role == "leader" && status.lease_left_ms > 0 {
                    return index;
                }
            }
            assert!(Instant::now() < until, "nobody leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The leader, when every node knows it: who does not cannot forward.
    async fn leader_of_all(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            if self.nodes.iter().flatten().all(|node| node.handle().status().leader as usize == leader + 1) {
                return leader;
            }
            assert!(Instant::now() < until, "not everybody knows who leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(&mut self, index: usize) {
        drop(self.nodes[index].take());
    }

    async fn restart(&mut self, index: usize) {
        let args = Line::try_parse_from(&self.lines[index]).unwrap_or_else(|e| panic!("{e}")).node;
        let until = Instant::now() + PATIENCE;
        // The tasks of the stopped node let go of its sockets and of its log one after the other.
        let node = loop {
            if let Ok(listeners) = Listeners::bind(&args.peer_listen, &args.client_listen, None).await
                && let Ok(node) = Node::start(&args, listeners)
            {
                break node;
            }
            assert!(Instant::now() < until, "the node does not come back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.nodes[index] = Some(node);
        // The old channel may still hold a connection to the stopped node.
        let channel = Channel::from_shared(format!("http://{}", args.client_listen)).unwrap().connect_lazy();
        self.clients[index] = KvClient::new(channel);
    }

    async fn same_state_everywhere(&self) -> v1::StatusReply {
        let until = Instant::now() + PATIENCE;
        loop {
            let all: Vec<_> = self.nodes.iter().flatten().map(|node| node.handle().status()).collect();
            if all
                .iter()
                .all(|s| (s.applied_index, s.applied_hash) == (all[0].applied_index, all[0].applied_hash))
            {
                return all[0].clone();
            }
            assert!(Instant::now() < until, "the nodes do not come together: {all:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn command(seq: u64, op: Op) -> v1::Command {
    v1::Command { client_id: 9, seq, op: Some(op), deadline_ms: 20_000, no_forward: false }
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(v1::Put { key: key.into(), value: value.to_owned().into() })
}

fn get(key: &str, mode: v1::ReadMode) -> Op {
    Op::Get(v1::Get { key: key.into(), mode: mode.into() })
}

fn value(reply: &v1::Reply) -> Option<String> {
    match &reply.result {
        Some(Outcome::Value(value)) => value.value.as_ref().map(|v| String::from_utf8(v.to_vec()).unwrap()),
        other => panic!("not a value: {other:?}"),
    }
}

fn path(reply: &v1::Reply) -> &str {
    &reply.served.as_ref().unwrap().path
}

/// A minimal HTTP/1.1 request; the answer's status and JSON.
async fn http(address: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_on_every_node_with_forwarding_sessions_and_a_restart() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;

    let reply = cluster.run(leader, command(1, put("a", "1"))).await;
    assert!(matches!(reply.result, Some(Outcome::Done(_))), "{reply:?}");
    assert_eq!(path(&reply), "1-rtt");
    assert!(!reply.served.as_ref().unwrap().forwarded);
    assert!(reply.served.as_ref().unwrap().commit_ns > 0);

    let swap = Op::Cas(v1::Cas { key: "a".into(), expected: Some("1".into()), new: "2".into() });
    let reply = cluster.run(follower, command(2, swap.clone())).await;
    assert!(matches!(&reply.result, Some(Outcome::Cas(cas)) if cas.swapped), "{reply:?}");
    assert!(reply.served.as_ref().unwrap().forwarded);

    let again = cluster.run(follower, command(2, swap)).await;
    assert_eq!(again.result, reply.result, "a retry gets the stored answer");
    assert_eq!(path(&again), "retry");
    let stale = cluster.run(leader, command(1, put("a", "9"))).await;
    assert!(
        matches!(&stale.result, Some(Outcome::Error(e)) if e.code() == v1::error::Code::StaleSeq),
        "{stale:?}"
    );

    for (mode, expected) in [(v1::ReadMode::Lease, "lease-read"), (v1::ReadMode::Log, "1-rtt")] {
        let reply = cluster.run(follower, command(0, get("a", mode))).await;
        assert_eq!((value(&reply).as_deref(), path(&reply)), (Some("2"), expected));
    }
    let refused = v1::Command { no_forward: true, ..command(3, put("a", "9")) };
    let refused = cluster.clients[follower].clone().execute(refused).await.unwrap().into_inner();
    let Some(Outcome::Error(error)) = refused.result else { panic!("{refused:?}") };
    assert_eq!((error.code(), error.leader_hint), (v1::error::Code::NotLeader, leader as u32 + 1));
    let invalid = cluster.run(leader, command(3, put("", "9"))).await;
    assert!(matches!(&invalid.result, Some(Outcome::Error(e)) if e.code() == v1::error::Code::Invalid));

    cluster.same_state_everywhere().await;
    let reply = cluster.run(follower, command(0, get("a", v1::ReadMode::Stale))).await;
    assert_eq!((value(&reply).as_deref(), path(&reply)), (Some("2"), "stale-read"));

    cluster.stop(leader).await;
    let reply = cluster.run(follower, command(4, put("b", "3"))).await;
    assert!(matches!(reply.result, Some(Outcome::Done(_))), "{reply:?}");
    cluster.restart(leader).await;
    let status = cluster.same_state_everywhere().await;
    assert!(status.applied_index >= 4, "{status:?}");
    let reply = cluster.run(leader, command(0, get("b", v1::ReadMode::Lease))).await;
    assert_eq!(value(&reply).as_deref(), Some("3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_speaks_the_same_language() {
    let cluster = Cluster::start(3, &["--fsync", "none"]).await;
    let leader = cluster.leader_of_all().await;
    let (here, there) = (&cluster.http[leader], &cluster.http[(leader + 1) % 3]);

    let (status, body) = http(here, "PUT", "/v1/kv/a", "1").await;
    assert_eq!((status, &body["result"]), (200, &json!({"done": true})), "{body}");
    let (status, body) = http(there, "GET", "/v1/kv/a?mode=lease", "").await;
    assert_eq!((status, &body["result"]), (200, &json!({"value": "1"})), "{body}");
    assert_eq!(body["served"]["forwarded"], json!(true));

    let execute = async |op: Value| {
        let body = json!({"client_id": 1, "seq": 0, "op": op, "deadline_ms": 20_000}).to_string();
        http(there, "POST", "/v1/execute", &body).await
    };
    let (_, body) = execute(json!({"cas": {"key": "a", "expected": "1", "new": "2"}})).await;
    assert_eq!(body["result"], json!({"swapped": true, "found": "1"}));
    let (_, body) = execute(json!({"append": {"key": "a", "value": "3"}})).await;
    assert_eq!(body["result"], json!({"done": true}));
    let (_, body) = execute(json!({"get": {"key": "a", "mode": "log"}})).await;
    assert_eq!(body["result"], json!({"value": "23"}));
    let (_, body) = execute(json!({"delete": {"key": "a"}})).await;
    assert_eq!(body["result"], json!({"done": true}));
    let (_, body) = execute(json!({"get": {"key": "a"}})).await;
    assert_eq!(body["result"], json!({"value": null}));
    let (status, body) = execute(json!({"put": {"key": "", "value": "x"}})).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("INVALID")));

    let (_, body) = http(here, "GET", "/v1/members", "").await;
    assert_eq!((&body["config"], body["members"].as_object().unwrap().len()), (&json!(0), 3), "{body}");
    let mut members = body["members"].clone();
    for (set, why) in
        [(json!({}), "names no node"), (json!({"1": "x"}), "no address"), (members.clone(), "already")]
    {
        let (status, body) = http(there, "POST", "/v1/members", &json!({"members": set}).to_string()).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("INVALID")), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(why), "{body}");
    }
    // The leader leaves: of the two others one leads at once.
    members.as_object_mut().unwrap().remove(&(leader + 1).to_string());
    let change = json!({"config": 0, "members": members}).to_string();
    let until = Instant::now() + PATIENCE;
    // Refused while the other two do not answer as voters.
    loop {
        let (status, body) = http(there, "POST", "/v1/members", &change).await;
        if status == 200 {
            assert_eq!(body["result"], json!({"done": true}), "{body}");
            break;
        }
        assert!(Instant::now() < until, "{body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let until = Instant::now() + PATIENCE;
    while http(there, "PUT", "/v1/kv/b", "1").await.0 != 200 {
        assert!(Instant::now() < until, "nobody leads after the change");
    }
    let (_, body) = http(there, "GET", "/v1/members", "").await;
    assert_eq!(body, json!({"config": 1, "members": members}));
    // Nobody waits for the one that was removed.
    let until = Instant::now() + PATIENCE;
    let body = loop {
        let (_, body) = http(here, "GET", "/status", "").await;
        if (&body["role"], &body["config"]) == (&json!("learner"), &json!(1)) {
            break body;
        }
        assert!(Instant::now() < until, "{body}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(&body["fsync"], &json!("none"));
    assert_eq!(http(here, "GET", "/health", "").await, (200, json!("ok\n")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_says_who_leads() {
    let cluster = Cluster::start(3, &["--fsync", "none"]).await;
    let here = &cluster.http[cluster.leader().await];
    let (_, body) = http(here, "GET", "/status", "").await;
    assert_eq!((&body["role"], &body["fsync"]), (&json!("leader"), &json!("none")));
    assert_eq!(http(here, "GET", "/health", "").await, (200, json!("ok\n")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_paxos_lets_every_node_propose() {
    let cluster = Cluster::start(3, &["--protocol", "basic-paxos"]).await;
    let writes = (0..30).map(|n| {
        let op = Op::Append(v1::Append { key: "list".into(), value: "x".into() });
        let command = v1::Command { client_id: 100 + n, ..command(1, op) };
        let cluster = &cluster;
        async move { cluster.run(n as usize % 3, command).await }
    });
    let mut writes: Vec<_> = writes.map(Box::pin).collect();
    while let Some(write) = writes.pop() {
        // Three at a time: the nodes duel for every slot.
        let (a, b, c) = match (writes.pop(), writes.pop()) {
            (Some(b), Some(c)) => tokio::join!(write, b, c),
            _ => panic!("there are thirty"),
        };
        for reply in [a, b, c] {
            assert!(matches!(reply.result, Some(Outcome::Done(_))), "{reply:?}");
            assert_eq!(path(&reply), "2-rtt");
            assert!(reply.served.unwrap().rounds >= 1);
        }
    }
    let reply = cluster.run(2, command(0, get("list", v1::ReadMode::Lease))).await;
    assert_eq!((value(&reply).map(|v| v.len()), path(&reply)), (Some(30), "2-rtt"));
    cluster.same_state_everywhere().await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Listeners::bind(&address, "127.0.0.1:0", None).await.err().unwrap().to_string();
    assert!(error.contains(&address) && error.contains("for peers"), "{error}");
}

/// What nodes say of themselves: the same at the same slots, whoever is asked, and by whichever face.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_tell_of_themselves_slot_by_slot_and_in_numbers() {
    let events = TempDir::new().unwrap();
    let events = events.path().join("events.jsonl");
    let mut cluster = Cluster::start(3, &["--events", events.to_str().unwrap()]).await;
    let leader = cluster.leader().await;
    for seq in 1..=40 {
        cluster.run(leader, command(seq, put(&format!("k{}", seq % 7), &seq.to_string()))).await;
    }
    let applied = cluster.same_state_everywhere().await.applied_index;
    let wanted = v1::ObserveRequest { from: 5, limit: 10, checkpoints_after: 0 };
    let mut seen = Vec::new();
    for client in &cluster.clients {
        let until = Instant::now() + PATIENCE;
        seen.push(loop {
            // Followers may still be writing.
            let seen = client.clone().observe(wanted).await.unwrap().into_inner();
            if seen.status.as_ref().unwrap().unsynced == 0 {
                break seen;
            }
            assert!(Instant::now() < until, "it never ends writing: {seen:?}");
        });
    }
    for one in &seen {
        let (status, first) = (one.status.as_ref().unwrap(), seen[0].status.as_ref().unwrap());
        let digests = |s: &v1::StatusReply| (s.applied_index, s.applied_hash, s.state_hash, s.session_hash);
        assert_eq!(digests(status), digests(first));
        assert_eq!(one.checkpoints, seen[0].checkpoints);
        assert_eq!(one.checkpoints.iter().map(|c| c.slot).collect::<Vec<_>>(), [16, 32]);
        let slots = |seen: &v1::ObserveReply| -> Vec<(u64, u64, String)> {
            seen.slots.iter().map(|slot| (slot.slot, slot.hash, slot.what.clone())).collect()
        };
        assert_eq!(slots(one), slots(&seen[0]));
        assert_eq!(one.slots.iter().map(|s| s.slot).collect::<Vec<_>>(), (5..15).collect::<Vec<_>>());
        assert!(one.slots.iter().all(|slot| slot.chosen && slot.durable), "{:?}", one.slots);
        assert_eq!((one.durable_to, status.incarnation, status.told), (applied, 1, status.promised));
    }
    let storages: std::collections::BTreeSet<u64> =
        seen.iter().map(|one| one.status.as_ref().unwrap().storage).collect();
    assert_eq!(storages.len(), 3, "each disk has a number of its own");

    let here = &cluster.http[leader];
    let (_, state) = http(here, "GET", "/state", "").await;
    assert_eq!((&state["applied"], &state["role"]), (&json!(applied), &json!("leader")));
    assert_eq!(state["hash"], format!("{:016x}", seen[0].status.as_ref().unwrap().applied_hash));
    let (_, log) = http(here, "GET", "/log?from=5&limit=10", "").await;
    assert_eq!(log["slots"][3]["hash"], format!("{:016x}", seen[0].slots[3].hash));
    assert!(log["slots"][3]["what"].as_str().unwrap().starts_with("put k"), "{log}");
    let (status, page) = http(here, "GET", "/metrics", "").await;
    let page = page.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("\npaxos_kv_commits_total{path=\"1-rtt\",entry=\"direct\"} 40\n"), "{page}");
    assert!(page.contains(&format!("\npaxos_kv_applied_slot {applied}\n")), "{page}");
    assert!(page.contains("\npaxos_kv_messages_received_total{kind=\"accepted\"} "), "{page}");
    assert!(!page.contains("\npaxos_kv_fsync_seconds_count 0\n"), "{page}");

    // The same disk in another incarnation, and what was promised is still told.
    let before = seen[leader].status.clone().unwrap();
    cluster.stop(leader).await;
    cluster.restart(leader).await;
    let after = cluster.nodes[leader].as_ref().unwrap().handle().status();
    assert_eq!((after.incarnation, after.storage), (2, before.storage));
    let ballot = |b: Option<v1::Ballot>| b.map(|b| (b.round, b.node));
    assert!(ballot(after.told) >= ballot(before.told), "{after:?} after {before:?}");

    let text = std::fs::read_to_string(events).unwrap();
    for event in ["restarted", "promised", "accepted", "applied", "led", "lease"] {
        assert!(text.contains(&format!("\"event\":\"{event}\"")), "no `{event}` in {text}");
    }
}
