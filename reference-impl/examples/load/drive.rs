//! Clients at work, and what came of it.
//!
//! ```text
//! {"system":"etcd","op":"write","clients":64,"connections":8,"at":"leader","bytes":256,"seconds":5.0,
//!  "count":17203,"per_second":3440.6,"p50_us":18210,"p99_us":31022,"failed":0}
//! ```
//!
//! Each client has a key of its own and one request outstanding. What begins during the warm-up, or ends after the
//! measured time, is not counted.

use std::time::{Duration, Instant, SystemTime};

use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::target::{Client, System, connect, leads};

/// What is driven, and how hard.
#[derive(clap::Args)]
pub(crate) struct Drive {
    #[arg(long, value_enum)]
    system: System,
    /// gRPC addresses of the nodes.
    #[arg(long, value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// Clients, each with one request outstanding.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// TCP connections that they share.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Spread the connections over all nodes, instead of the leader alone.
    #[arg(long)]
    everywhere: bool,
    /// Measured seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Read instead of writing; each key is written once before.
    #[arg(long)]
    read: bool,
}

/// The figures of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) system: String,
    pub(crate) op: String,
    pub(crate) clients: usize,
    connections: usize,
    at: String,
    bytes: usize,
    seconds: f64,
    count: usize,
    pub(crate) per_second: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) failed: usize,
}

/// How long a cluster may take to elect somebody.
const LEADER_WITHIN: Duration = Duration::from_secs(20);

impl Drive {
    /// Runs the clients; one line of JSON.
    pub(crate) async fn run(&self) -> Result<String, Box<dyn std::error::Error>> {
        let nodes = if self.everywhere { self.nodes.clone() } else { vec![self.leader().await?] };
        let mut channels = Vec::new();
        for i in 0..self.connections.min(self.clients) {
            channels.push(connect(&nodes[i % nodes.len()]).await?);
        }
        // New names in every run: a name that was used before would have to go on with its sequence numbers.
        let names = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
        let from = Instant::now() + Duration::from_secs_f64(self.warm_up);
        let until = from + Duration::from_secs_f64(self.seconds);
        let mut clients = JoinSet::new();
        for i in 0..self.clients {
            let client = Client::new(self.system, channels[i % channels.len()].clone(), names + i as u64);
            let value = Bytes::from(vec![b'x'; self.bytes]);
            clients.spawn(one(client, format!("k{i}"), value, self.read, from, until));
        }
        let (mut micros, mut failed) = (Vec::new(), 0);
        for (some, not) in clients.join_all().await {
            micros.extend(some);
            failed += not;
        }
        micros.sort_unstable();
        let at = |q: f64| micros.get((micros.len() as f64 * q) as usize).copied().unwrap_or_default();
        Ok(serde_json::to_string(&Figures {
            system: self.system.name().to_owned(),
            op: if self.read { "read" } else { "write" }.to_owned(),
            clients: self.clients,
            connections: channels.len(),
            at: if self.everywhere { "all nodes" } else { "leader" }.to_owned(),
            bytes: self.bytes,
            seconds: self.seconds,
            count: micros.len(),
            per_second: micros.len() as f64 / self.seconds,
            p50_us: at(0.5),
            p99_us: at(0.99),
            failed,
        })?)
    }

    /// The node that leads, once one does.
    async fn leader(&self) -> Result<String, String> {
        let deadline = Instant::now() + LEADER_WITHIN;
        let mut why = String::new();
        while Instant::now() < deadline {
            for node in &self.nodes {
                let asked = async {
                    let channel: Channel = connect(node).await?;
                    leads(self.system, channel).await
                };
                match asked.await {
                    Ok(true) => return Ok(node.clone()),
                    Ok(false) => {}
                    Err(error) => why = error,
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("no node leads within {LEADER_WITHIN:?}; {why}"))
    }
}

/// Asks until the time is over. Latencies in microseconds, and how many requests failed.
async fn one(
    mut client: Client,
    key: String,
    value: Bytes,
    read: bool,
    from: Instant,
    until: Instant,
) -> (Vec<u64>, usize) {
    let (mut micros, mut failed) = (Vec::new(), 0);
    if read && !client.put(&key, &value).await {
        return (micros, 1);
    }
    loop {
        let sent = Instant::now();
        if sent >= until {
            return (micros, failed);
        }
        let done =
            if read { client.get(&key).await == Some(value.len()) } else { client.put(&key, &value).await };
        let now = Instant::now();
        if !done {
            failed += 1;
        } else if sent >= from && now <= until {
            micros.push((now - sent).as_micros() as u64);
        }
    }
}
