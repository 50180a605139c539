//! Real processes: a loaded cluster grows from three nodes to five and shrinks to three others, one of them is killed on the way, and nothing
//! that was acknowledged is lost or applied twice.
//!
//! ```text
//! {1, 2, 3} ─→ {1, 2, 3, 4, 5} ─→ {3, 4, 5} ─ 1 and 2 are stopped, 4 is killed and comes back ─→ every append is there, once
//! ```

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

const WORKERS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(40);

struct Cluster {
    dir: TempDir,
    /// Of peers, of clients.
    ports: Vec<(u16, u16)>,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    fn prepare(size: usize) -> Cluster {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // All at once, so that they differ.
        let held: Vec<_> = (0..size).map(|_| (free(), free())).collect();
        let port = |socket: &std::net::TcpListener| socket.local_addr().unwrap().port();
        let ports = held.iter().map(|(peer, client)| (port(peer), port(client))).collect();
        Cluster { dir: TempDir::new().unwrap(), ports, nodes: (0..size).map(|_| None).collect() }
    }

    fn address(&self, id: u32) -> String {
        format!("127.0.0.1:{}", self.ports[id as usize - 1].0)
    }

    fn log(&self, id: u32) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    fn launch(&mut self, id: u32) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(id)).unwrap();
        let data = self.dir.path().join(id.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-kv"));
        command
            .args(["--id", &id.to_string(), "--data", data.to_str().unwrap()])
            .args(["--peer-listen", &self.address(id)])
            .args(["--client-listen", &format!("127.0.0.1:{}", self.ports[id as usize - 1].1)])
            .args(["--snapshot-every", "200", "--keep", "50", "--watch-stdin"]);
        for peer in (1..=3).filter(|peer| *peer != id) {
            command.args(["--peer", &format!("{peer}={}", self.address(peer))]);
        }
        if id > 3 {
            command.arg("--join");
        }
        let child = command.stdin(Stdio::piped()).stderr(log).spawn().unwrap();
        self.nodes[id as usize - 1] = Some(child);
    }

    fn kill(&mut self, id: u32) {
        if let Some(mut child) = self.nodes[id as usize - 1].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn clients(&self) -> Vec<KvClient<Channel>> {
        let channel = |(_, port): &(u16, u16)| {
            Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy()
        };
        self.ports.iter().map(channel).map(KvClient::new).collect()
    }

    fn logs(&self) -> String {
        let all = (1..=self.nodes.len() as u32).filter_map(|id| std::fs::read_to_string(self.log(id)).ok());
        all.collect::<Vec<_>>().join("\n---\n")
    }

    /// Asks for these members, at any node, until that is done.
    async fn change(&self, clients: &[KvClient<Channel>], config: u64, ids: &[u32]) {
        let member = |id: &u32| v1::Member { node: *id, address: self.address(*id), born: 0 };
        let change = v1::Reconfigure { config, members: ids.iter().map(member).collect() };
        let command =
            v1::Command { op: Some(Op::Reconfigure(change)), deadline_ms: 2_000, ..v1::Command::default() };
        let until = Instant::now() + PATIENCE;
        let mut last = None;
        for client in clients.iter().cycle() {
            assert!(Instant::now() < until, "{ids:?} do not become the members: {last:?}\n{}", self.logs());
            match client.clone().execute(command.clone()).await.map(|reply| reply.into_inner().result) {
                Ok(Some(Outcome::Done(_))) => return,
                other => last = Some(format!("{other:?}")),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for so many more acknowledgements.
    async fn progress(&self, acked: &AtomicU64, more: u64) {
        let (goal, until) = (acked.load(Ordering::Relaxed) + more, Instant::now() + PATIENCE);
        while acked.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < until, "no progress: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (1..=self.nodes.len() as u32).for_each(|id| self.kill(id));
    }
}

/// Appends 1, 2, 3, … to a list of its own, each until it is acknowledged; returns how many were.
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
        let value = seq.to_be_bytes().to_vec().into();
        let op = Some(Op::Append(v1::Append { key: worker.to_string(), value }));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_cluster_grows_and_shrinks_to_others_and_loses_nothing() {
    let mut cluster = Cluster::prepare(5);
    (1..=5).for_each(|id| cluster.launch(id));
    let clients = cluster.clients();
    let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (1..=WORKERS)
        .map(|worker| tokio::spawn(work(worker, clients.clone(), stop.clone(), acked.clone())))
        .collect();
    // More than the members keep in their logs.
    cluster.progress(&acked, 400).await;

    cluster.change(&clients, 0, &[1, 2, 3, 4, 5]).await;
    cluster.progress(&acked, 200).await;
    cluster.change(&clients, 1, &[3, 4, 5]).await;
    cluster.progress(&acked, 200).await;
    // Who is no member any more is not needed, and says so.
    for id in [1, 2] {
        let status = clients[id - 1].clone().status(v1::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!((status.role.as_str(), status.config), ("learner", 2), "{status:?}");
        cluster.kill(id as u32);
    }
    cluster.progress(&acked, 100).await;
    // A new member that is killed knows by itself who the members are.
    cluster.kill(4);
    cluster.progress(&acked, 100).await;
    cluster.launch(4);
    let until = Instant::now() + PATIENCE;
    loop {
        let status = clients[3].clone().status(v1::StatusRequest {}).await.map(|reply| reply.into_inner());
        if let Ok(status) = &status
            && status.config == 2
            && status.members.iter().map(|member| member.node).eq([3, 4, 5])
            && status.role != "learner"
        {
            break;
        }
        assert!(Instant::now() < until, "node 4 does not come back: {status:?}\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Now it is needed: another one is gone.
    cluster.kill(3);
    cluster.progress(&acked, 100).await;

    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for (worker, done) in (1u64..).zip(workers) {
        let done = done.await.unwrap();
        total += done;
        let expected: Vec<u64> = (1..=done).collect();
        for mode in [v1::ReadMode::Log, v1::ReadMode::Lease, v1::ReadMode::Quorum] {
            let found = list(&clients[3..], &worker.to_string(), mode).await;
            assert_eq!(found, expected, "what worker {worker} was promised, read by {mode:?}");
        }
    }
    println!("{total} appends acknowledged over two changes of the members, none lost or doubled");
}
