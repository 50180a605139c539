//! A cluster of real processes, and workers whose appends tell afterwards what was lost or doubled.
//!
//! Nodes are counted from 0 here; node 0 is the one with `--id 1`.

#![allow(dead_code)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use paxos_kv::proto::v1;
use paxos_kv::proto::v1::command::Op;
use paxos_kv::proto::v1::kv_client::KvClient;
use paxos_kv::proto::v1::reply::Result as Outcome;
use tempfile::TempDir;
use tonic::transport::Channel;

/// Whatever takes longer never happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// Appends to one key before the next one is begun.
pub(crate) const LIST: u64 = 500;

/// Nodes on loopback; they end with it.
pub(crate) struct Cluster {
    dir: TempDir,
    /// Of peers, of clients.
    ports: Vec<(u16, u16)>,
    nodes: Vec<Option<Child>>,
    flags: fn(&Cluster, usize) -> Vec<String>,
}

impl Cluster {
    /// Nodes that are not started yet, with flags beside those that each needs.
    pub(crate) fn prepare(size: usize, flags: fn(&Cluster, usize) -> Vec<String>) -> Cluster {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // All at once, so that they differ.
        let held: Vec<_> = (0..size).map(|_| (free(), free())).collect();
        let port = |socket: &std::net::TcpListener| socket.local_addr().unwrap().port();
        let ports = held.iter().map(|(peer, client)| (port(peer), port(client))).collect();
        drop(held);
        Cluster { dir: TempDir::new().unwrap(), ports, nodes: (0..size).map(|_| None).collect(), flags }
    }

    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    /// Where other nodes reach it.
    pub(crate) fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node].0)
    }

    /// The flags that name these nodes to `node`.
    pub(crate) fn peers(&self, node: usize, others: impl IntoIterator<Item = usize>) -> Vec<String> {
        let others = others.into_iter().filter(|other| *other != node);
        others.map(|other| format!("--peer={}={}", other + 1, self.address(other))).collect()
    }

    pub(crate) fn launch(&mut self, node: usize) {
        let path = self.dir.path().join(format!("{node}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-kv"));
        command
            .args(["--id", &(node + 1).to_string(), "--data", self.data(node).to_str().unwrap()])
            .args(["--peer-listen", &self.address(node)])
            .args(["--client-listen", &format!("127.0.0.1:{}", self.ports[node].1)])
            .args(["--keep", "50", "--watch-stdin"])
            .args((self.flags)(self, node));
        let child = command.stdin(Stdio::piped()).stderr(log).spawn().unwrap();
        self.nodes[node] = Some(child);
    }

    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Tells it to stop, and waits until it has: its exit code.
    pub(crate) fn stop(&mut self, node: usize, signal: &str) -> Option<i32> {
        let mut child = self.nodes[node].take().unwrap();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{node}.log"))).unwrap_or_default()
    }

    pub(crate) fn logs(&self) -> String {
        (0..self.size()).map(|node| self.log(node)).collect::<Vec<_>>().join("\n---\n")
    }

    pub(crate) fn clients(&self) -> Vec<KvClient<Channel>> {
        let channel = |(_, port): &(u16, u16)| {
            Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy()
        };
        self.ports.iter().map(channel).map(KvClient::new).collect()
    }

    /// Waits for so many more acknowledgements, with patience for each of them: disks differ.
    pub(crate) async fn progress(&self, acked: &AtomicU64, more: u64) {
        let mut last = acked.load(Ordering::Relaxed);
        let (goal, mut until) = (last + more, Instant::now() + PATIENCE);
        while last < goal {
            let now = acked.load(Ordering::Relaxed);
            if now > last {
                (last, until) = (now, Instant::now() + PATIENCE);
            }
            assert!(Instant::now() < until, "no progress: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What a node believes, once it has started.
    pub(crate) async fn answers(&mut self, node: usize, client: &KvClient<Channel>) -> v1::StatusReply {
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

/// Clients that append 1, 2, 3, … to lists of their own, each number until it is acknowledged.
pub(crate) struct Workers {
    stop: Arc<AtomicBool>,
    /// How many were, by all of them.
    pub(crate) acked: Arc<AtomicU64>,
    workers: Vec<(u64, tokio::task::JoinHandle<u64>)>,
}

impl Workers {
    /// These, by number: no two may ever have the same.
    pub(crate) fn start(numbers: impl IntoIterator<Item = u64>, clients: &[KvClient<Channel>]) -> Workers {
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start =
            |worker| (worker, tokio::spawn(work(worker, clients.to_vec(), stop.clone(), acked.clone())));
        let workers = numbers.into_iter().map(start).collect();
        Workers { stop, acked, workers }
    }

    /// Lets them end, and demands that every number is there once, in order, read in each of these ways. How many there are.
    pub(crate) async fn all_there(self, clients: &[KvClient<Channel>], modes: &[v1::ReadMode]) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = 0;
        for (worker, done) in self.workers {
            let done = done.await.unwrap();
            total += done;
            for chunk in 0..done.div_ceil(LIST) {
                let expected: Vec<u64> = (chunk * LIST + 1..=done.min((chunk + 1) * LIST)).collect();
                for mode in modes {
                    let found = list(clients, &format!("{worker}/{chunk}"), *mode).await;
                    assert_eq!(found, expected, "what worker {worker} was promised, read by {mode:?}");
                }
            }
        }
        total
    }
}

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

async fn list(clients: &[KvClient<Channel>], key: &str, mode: v1::ReadMode) -> Vec<u64> {
    let get = v1::Get { key: key.to_owned(), mode: mode.into() };
    let command = v1::Command { op: Some(Op::Get(get)), deadline_ms: 2_000, ..v1::Command::default() };
    let until = Instant::now() + PATIENCE;
    for client in clients.iter().cycle() {
        let reply = client.clone().execute(command.clone()).await;
        if let Ok(Some(Outcome::Value(value))) = reply.map(|reply| reply.into_inner().result) {
            let bytes = value.value.unwrap_or_default();
            return bytes.chunks_exact(8).map(|b| u64::from_be_bytes(b.try_into().unwrap())).collect();
        }
        assert!(Instant::now() < until, "{key} cannot be read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    unreachable!("it ends by the clock")
}
