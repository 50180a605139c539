//! Writes as fast as a number of clients can, and says how fast that was.
//!
//! ```text
//! $ cargo run --release -p paxos-kv --example load -- --nodes 127.0.0.1:6001,127.0.0.1:6002 --clients 16 --seconds 5
//! 1834 writes/s   client p50 8.4 ms p99 17.0 ms   commit p50 4.1 ms (at the proposer)   0 not ok
//! ```
//!
//! A closed loop: each client sends its next write when the last one is answered, so latency and rate explain each other.
//! Deliberately no verdict and no faults: it only shows what a healthy cluster does.

use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use paxos_kv::proto::v1;
use paxos_kv::proto::v1::command::Op;
use paxos_kv::proto::v1::kv_client::KvClient;
use paxos_kv::proto::v1::reply::Result as Outcome;
use tonic::transport::Endpoint;

/// A closed-loop load generator.
#[derive(Parser)]
struct Load {
    /// Where clients reach the nodes.
    #[arg(long, value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// Concurrent clients, spread over the nodes.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// For how long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Read (by lease) instead of write.
    #[arg(long)]
    read: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let load = Load::parse();
    let until = Instant::now() + Duration::from_secs(load.seconds);
    // New names in every run: a name that was used before would have to go on with its sequence numbers.
    let names = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..load.clients {
        let node = &load.nodes[client % load.nodes.len()];
        let channel = Endpoint::from_shared(format!("http://{node}"))?.tcp_nodelay(true).connect().await?;
        let mut kv = KvClient::new(channel);
        let (bytes, read) = (load.bytes, load.read);
        clients.spawn(async move {
            let (mut latencies, mut commits, mut failed) = (Vec::new(), Vec::new(), 0);
            let key = format!("k{client}");
            for seq in 1.. {
                if Instant::now() >= until {
                    break;
                }
                let op = if read {
                    Op::Get(v1::Get { key: key.clone(), mode: v1::ReadMode::Lease.into() })
                } else {
                    Op::Put(v1::Put { key: key.clone(), value: vec![b'x'; bytes].into() })
                };
                let client_id = names + client as u64;
                let command = v1::Command { client_id, seq, op: Some(op), ..v1::Command::default() };
                let sent = Instant::now();
                match kv.execute(command).await.map(tonic::Response::into_inner) {
                    Ok(v1::Reply { result: Some(Outcome::Done(_) | Outcome::Value(_)), served }) => {
                        latencies.push(sent.elapsed());
                        commits.push(Duration::from_nanos(served.map_or(0, |served| served.commit_ns)));
                    }
                    _ => failed += 1,
                }
            }
            (latencies, commits, failed)
        });
    }
    let (mut latencies, mut commits, mut failed) = (Vec::new(), Vec::new(), 0);
    for (one, two, three) in clients.join_all().await {
        latencies.extend(one);
        commits.extend(two);
        failed += three;
    }
    println!(
        "{} {}/s   client p50 {:.2?} p99 {:.2?}   commit p50 {:.2?} (at the proposer)   {failed} not ok",
        latencies.len() as u64 / load.seconds,
        if load.read { "reads" } else { "writes" },
        percentile(&mut latencies, 0.5),
        percentile(&mut latencies, 0.99),
        percentile(&mut commits, 0.5),
    );
    Ok(())
}

fn percentile(of: &mut [Duration], share: f64) -> Duration {
    of.sort_unstable();
    of.get((of.len() as f64 * share) as usize).copied().unwrap_or_default()
}
