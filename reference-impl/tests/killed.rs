//! A loaded cluster of three real processes, of which nodes are killed and power-failed at random moments: every node starts
//! again each time, and nothing that was acknowledged is lost or applied twice.
//!
//! ```text
//! $ PAXOS_KILLS=200 cargo test --release -p paxos-kv --test killed -- --nocapture     200 kills, then 200 power failures
//! ```
//!
//! A power failure is a kill after which the files are cut back to what was synced, or to some point behind that. Nodes take
//! a snapshot every 300 entries, so that many of the kills fall into snapshots and truncations.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use paxos_kv::proto::v1;
use paxos_kv::proto::v1::command::Op;
use paxos_kv::proto::v1::kv_client::KvClient;
use paxos_kv::proto::v1::reply::Result as Outcome;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tempfile::TempDir;
use tonic::transport::Channel;

const WORKERS: u64 = 6;
/// Appends to one key before the next one is begun.
const LIST: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(30);

struct Cluster {
    dir: TempDir,
    ports: Vec<(u16, u16)>,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    fn start(size: usize) -> Cluster {
        let mut cluster = Cluster::prepare(size);
        (0..size).for_each(|node| cluster.launch(node));
        cluster
    }

    /// Nodes that are not started yet.
    fn prepare(size: usize) -> Cluster {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // All at once, so that they differ.
        let held: Vec<_> = (0..size).map(|_| (free(), free())).collect();
        let port = |socket: &std::net::TcpListener| socket.local_addr().unwrap().port();
        let ports = held.iter().map(|(peer, client)| (port(peer), port(client))).collect();
        drop(held);
        Cluster { dir: TempDir::new().unwrap(), ports, nodes: (0..size).map(|_| None).collect() }
    }

    fn data(&self, node: usize) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    fn launch(&mut self, node: usize) {
        let (peer, client) = self.ports[node];
        let path = self.dir.path().join(format!("{node}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-kv"));
        command
            .args(["--id", &(node + 1).to_string(), "--data", self.data(node).to_str().unwrap()])
            .args(["--peer-listen", &format!("127.0.0.1:{peer}")])
            .args(["--client-listen", &format!("127.0.0.1:{client}")])
            .args(["--snapshot-every", "300", "--keep", "50", "--watch-stdin"]);
        for (other, (peer, _)) in self.ports.iter().enumerate().filter(|(other, _)| *other != node) {
            command.args(["--peer", &format!("{}=127.0.0.1:{peer}", other + 1)]);
        }
        let child = command.stdin(Stdio::piped()).stderr(log).spawn().unwrap();
        self.nodes[node] = Some(child);
    }

    fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{node}.log"))).unwrap()
    }

    fn clients(&self) -> Vec<KvClient<Channel>> {
        let channel = |(_, port): &(u16, u16)| {
            Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy()
        };
        self.ports.iter().map(channel).map(KvClient::new).collect()
    }

    /// The node has started again: it says what it believes.
    async fn answers(&mut self, node: usize, client: &KvClient<Channel>) -> v1::StatusReply {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(status) = client.clone().status(v1::StatusRequest {}).await {
                return status.into_inner();
            }
            let ended = self.nodes[node].as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "node {} does not start: {}", node + 1, self.log(node));
            assert!(Instant::now() < until, "node {} does not answer: {}", node + 1, self.log(node));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.kill(node));
    }
}

/// What was not synced is gone, or some of it is, or its end is garbage.
fn fail_power(data: &Path, rng: &mut ChaCha8Rng) -> u64 {
    let cut = |path: &Path, certain: u64, rng: &mut ChaCha8Rng| {
        let Ok(length) = std::fs::metadata(path).map(|file| file.len()) else { return 0 };
        let kept = rng.random_range(certain.min(length)..=length);
        let kept = if rng.random_bool(0.5) { certain.min(length) } else { kept };
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(kept).unwrap();
        length - kept
    };
    let certain = paxos_kv::wal::synced_bytes(data).unwrap();
    // A draft that has no name yet was never synced for anyone.
    cut(&data.join("wal"), certain, rng)
        + cut(&data.join("wal.new"), 0, rng)
        + cut(&data.join("snapshot.new"), 0, rng)
}

/// Appends 1, 2, 3, … to lists of its own, each until it is acknowledged; returns how many were.
async fn work(
    worker: u64,
    clients: Vec<KvClient<Channel>>,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
) -> u64 {
    let mut at = worker as usize;
    for seq in 1.. {
        if stop.load(Ordering::Relaxed) {
            return seq - 1;
        }
        let key = format!("{worker}/{}", (seq - 1) / LIST);
        let op = Some(Op::Append(v1::Append { key, value: seq.to_be_bytes().to_vec().into() }));
        let command = v1::Command { client_id: worker, seq, op, deadline_ms: 500, no_forward: false };
        loop {
            let mut client = clients[at % clients.len()].clone();
            let call = tokio::time::timeout(Duration::from_secs(2), client.execute(command.clone())).await;
            match call.map(|reply| reply.map(|reply| reply.into_inner().result)) {
                Ok(Ok(Some(Outcome::Done(_)))) => break,
                Ok(Ok(Some(Outcome::Error(error)))) if error.code() == v1::error::Code::StaleSeq => {
                    panic!("worker {worker}: {seq} is said to be older than what it has sent")
                }
                _ => at += 1,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        acked.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("there are enough numbers")
}

async fn list(clients: &[KvClient<Channel>], key: &str) -> Vec<u64> {
    let get = v1::Get { key: key.to_owned(), mode: v1::ReadMode::Log.into() };
    let command = v1::Command { op: Some(Op::Get(get)), deadline_ms: 2_000, ..v1::Command::default() };
    let until = Instant::now() + PATIENCE;
    for at in 0.. {
        let reply = clients[at % clients.len()].clone().execute(command.clone()).await;
        if let Ok(Some(Outcome::Value(value))) = reply.map(|reply| reply.into_inner().result) {
            let bytes = value.value.unwrap_or_default();
            return bytes.chunks_exact(8).map(|b| u64::from_be_bytes(b.try_into().unwrap())).collect();
        }
        assert!(Instant::now() < until, "{key} cannot be read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    unreachable!("it ends by the clock")
}

/// Waits for so many more acknowledgements.
async fn progress(cluster: &Cluster, acked: &AtomicU64, more: u64) {
    let (goal, until) = (acked.load(Ordering::Relaxed) + more, Instant::now() + PATIENCE);
    while acked.load(Ordering::Relaxed) < goal {
        let logs = || (0..3).map(|node| cluster.log(node)).collect::<Vec<_>>().join("\n");
        assert!(Instant::now() < until, "no progress: {}", logs());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn torment(power: bool) {
    let times: u64 = std::env::var("PAXOS_KILLS").ok().and_then(|times| times.parse().ok()).unwrap_or(20);
    let mut rng = ChaCha8Rng::seed_from_u64(7 + u64::from(power));
    let mut cluster = Cluster::start(3);
    let clients = cluster.clients();
    let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (1..=WORKERS)
        .map(|worker| tokio::spawn(work(worker, clients.clone(), stop.clone(), acked.clone())))
        .collect();
    let (mut failures, mut lost_bytes) = (0, 0);
    let began = Instant::now();
    while failures < times {
        // Some progress between two failures, so that each meets a cluster at work.
        progress(&cluster, &acked, rng.random_range(1..150)).await;
        let first = rng.random_range(0..3);
        let all = rng.random_bool(0.15);
        let victims: Vec<usize> = if all { (0..3).collect() } else { vec![first] };
        for victim in &victims {
            cluster.kill(*victim);
            if power {
                lost_bytes += fail_power(&cluster.data(*victim), &mut rng);
            }
            failures += 1;
        }
        // Sometimes it misses more than the others keep in their logs.
        let away = if rng.random_bool(0.2) { 1_000 } else { rng.random_range(0..200) };
        tokio::time::sleep(Duration::from_millis(away)).await;
        for victim in victims {
            cluster.launch(victim);
            cluster.answers(victim, &clients[victim]).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for (worker, done) in (1..).zip(workers) {
        let done = done.await.unwrap();
        total += done;
        for chunk in 0..done.div_ceil(LIST) {
            let expected: Vec<u64> = (chunk * LIST + 1..=done.min((chunk + 1) * LIST)).collect();
            let found = list(&clients, &format!("{worker}/{chunk}")).await;
            assert_eq!(found, expected, "what worker {worker} was promised");
        }
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let mut states = Vec::new();
        for (node, client) in clients.iter().enumerate() {
            let status = cluster.answers(node, client).await;
            states.push((status.applied_index, status.applied_hash));
        }
        if states.iter().all(|state| *state == states[0]) {
            break;
        }
        assert!(Instant::now() < until, "the nodes do not come together: {states:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let installed =
        (0..3).map(|node| cluster.log(node).matches("took over a snapshot").count()).sum::<usize>();
    for node in 0..3 {
        assert!(cluster.data(node).join("snapshot").exists(), "node {} has taken none", node + 1);
        let log = std::fs::metadata(cluster.data(node).join("wal")).unwrap().len();
        assert!(log < 1 << 20, "the log of node {} was not truncated: {log} bytes", node + 1);
    }
    println!(
        "{failures} {}: {total} appends acknowledged, none lost or doubled; {installed} snapshots received, \
         {lost_bytes} unsynced bytes cut off, {:.0?}",
        if power { "power failures" } else { "kills" },
        began.elapsed(),
    );
    assert!(total > 10 * times, "hardly anything happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_nodes_start_again_and_lose_nothing() {
    torment(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_failed_nodes_start_again_and_lose_nothing() {
    torment(true).await;
}

/// SIGTERM and SIGINT end a node properly: status 0, everything in the log, nothing torn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_flushes_and_exits_with_zero() {
    let mut cluster = Cluster::start(1);
    let clients = cluster.clients();
    for (round, signal) in (1..).zip(["-TERM", "-INT"]) {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicU64::new(0));
        let worker = tokio::spawn(work(round, clients.clone(), stop.clone(), acked.clone()));
        while acked.load(Ordering::Relaxed) < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut child = cluster.nodes[0].take().unwrap();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it does not stop");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(status.code(), Some(0), "{}", cluster.log(0));
        cluster.launch(0);
        cluster.answers(0, &clients[0]).await;
        stop.store(true, Ordering::Relaxed);
        let done = worker.await.unwrap();
        assert_eq!(list(&clients, &format!("{round}/0")).await, (1..=done.min(LIST)).collect::<Vec<_>>());
    }
    assert!(!cluster.log(0).contains("torn"), "{}", cluster.log(0));
}

/// The first start of a cluster waits for its last node; a node that comes back with an empty disk has no vote until it
/// knows what it has forgotten, and then the cluster can rely on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_begins_when_its_last_node_starts_and_a_lost_disk_costs_a_vote_for_a_while() {
    let mut cluster = Cluster::prepare(3);
    let clients = cluster.clients();
    cluster.launch(0);
    assert_eq!(cluster.answers(0, &clients[0]).await.role, "joining");
    cluster.launch(1);
    assert_eq!(
        cluster.answers(1, &clients[1]).await.role,
        "joining",
        "two of three cannot know what the third knows"
    );
    cluster.launch(2);
    let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let worker = tokio::spawn(work(1, clients.clone(), stop.clone(), acked.clone()));
    // More than the others keep in their logs.
    progress(&cluster, &acked, 700).await;
    for victim in 0..3 {
        cluster.kill(victim);
        std::fs::remove_dir_all(cluster.data(victim)).unwrap();
        progress(&cluster, &acked, 50).await;
        cluster.launch(victim);
        let until = Instant::now() + PATIENCE;
        while !cluster.log(victim).contains("votes again") {
            assert!(
                Instant::now() < until,
                "node {} stays without a vote: {}",
                victim + 1,
                cluster.log(victim)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(cluster.log(victim).contains("other nodes know this one"), "{}", cluster.log(victim));
        // Now it is needed: one of the two others is gone.
        let other = (victim + 1) % 3;
        cluster.kill(other);
        progress(&cluster, &acked, 50).await;
        cluster.launch(other);
        cluster.answers(other, &clients[other]).await;
    }
    stop.store(true, Ordering::Relaxed);
    let done = worker.await.unwrap();
    for chunk in 0..done.div_ceil(LIST) {
        let expected: Vec<u64> = (chunk * LIST + 1..=done.min((chunk + 1) * LIST)).collect();
        assert_eq!(list(&clients, &format!("1/{chunk}")).await, expected);
    }
}
