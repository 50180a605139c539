//! A whole node: flags in, a running server out.
//!
//! ```text
//! paxos-kv --id 1 --data /tmp/n1 --peer-listen 127.0.0.1:7001 --client-listen 127.0.0.1:6001 \
//!          --http-listen 127.0.0.1:8001 --peer 2=127.0.0.1:7002 --peer 3=127.0.0.1:7003
//! ```
//!
//! Order matters at the start: addresses are bound first (a node that cannot listen must not count as started), then the log is
//! opened and the new incarnation written down, and only then is anything said to anyone. Deliberately no configuration
//! file and no daemon: a supervisor, or a tester, starts one process for each node.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::bugs::{self, Hooks};
use crate::clock::Clock;
use crate::core::{Backoff, Config, Core, Durable, Member, NodeId, Protocol};
use crate::driver::{Driver, EVENTS_MAX};
use crate::events::EventLog;
use crate::http;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::proto::v1::kv_server::KvServer;
use crate::proto::v1::peer_server::PeerServer;
use crate::server::Handle;
use crate::transport::{self, Inbound, Outboxes, Sender};
use crate::wal::{Fsync, Identity, Log, WalError, Writer};

/// Only a test run may plant bugs: it says so with this environment variable.
pub const TRIAL_VARIABLE: &str = "TRIBUNAL_RUN";
/// With the bug `accept-not-synced` records gather in memory for this long.
const LAZY_SYNC: Duration = Duration::from_millis(300);

/// The flags of a node.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// Number of this node, from 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub id: NodeId,
    /// Directory for the log; created if missing.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the other nodes reach this one.
    #[arg(long, value_name = "ADDR")]
    pub peer_listen: String,
    /// Where clients reach this node over gRPC.
    #[arg(long, value_name = "ADDR")]
    pub client_listen: String,
    /// Where clients reach this node over HTTP/JSON.
    #[arg(long, value_name = "ADDR")]
    pub http_listen: Option<String>,
    /// Another node and its address; once for each of them.
    #[arg(long = "peer", value_name = "ID=ADDR", value_parser = parse_peer)]
    pub peers: Vec<(NodeId, String)>,
    /// Name of the cluster; nodes of other clusters are turned away.
    #[arg(long, value_name = "TEXT", default_value = "default")]
    pub cluster_id: String,
    /// How commands are decided; fixed once the data directory exists.
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,
    /// When a record counts as written.
    #[arg(long, value_enum, default_value = "group")]
    pub fsync: Fsync,
    /// Plant a known bug (only in a test run; may be given more than once).
    #[arg(long = "bug", value_name = "NAME")]
    pub bugs: Vec<String>,
    /// Milliseconds between two heartbeats of a leader.
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub heartbeat_ms: u64,
    /// Milliseconds for which an acceptor binds itself to a leader; the same for all nodes.
    #[arg(long, value_name = "MS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub lease_ms: u64,
    /// Milliseconds of silence after which a leader is suspected, drawn from this range.
    #[arg(long, value_name = "MIN..MAX", default_value = "150..400", value_parser = parse_range)]
    pub election_ms: (u64, u64),
    /// Take a snapshot, and truncate the log, after this many applied entries; 0: never.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub snapshot_every: u64,
    /// Slots that stay in the log at least, for nodes that are a little behind.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub keep: u64,
    /// Start with an empty data directory without asking the other nodes. Only for a node that has never taken part: one
    /// that has lost its disk would break promises.
    #[arg(long)]
    pub bootstrap: bool,
    /// Start as a node that is to be added to a cluster: --peer names its members, as far as they are known; this one learns, and decides nothing
    /// until a change of the members adds it. (Ignored once the log knows a later configuration.)
    #[arg(long, conflicts_with = "bootstrap")]
    pub join: bool,
    /// What a Basic Paxos proposer does after a lost round.
    #[arg(long, value_enum, default_value_t)]
    pub backoff: Backoff,
    /// Seed of the random waits.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Threads that serve connections and the core; the log has one of its own. With one, replies and messages of one moment
    /// leave together, and nothing waits for another thread to wake up.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Write what happens in the node to this file, as lines of JSON.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Exit as soon as standard input ends: the parent is gone.
    #[arg(long)]
    pub watch_stdin: bool,
}

fn parse_peer(text: &str) -> Result<(NodeId, String), String> {
    let (id, address) = text.split_once('=').ok_or("expected ID=ADDR, like 2=127.0.0.1:7002")?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or("the ID must be a number from 1")?;
    if address.is_empty() {
        return Err("the address is empty".to_owned());
    }
    Ok((id, address.to_owned()))
}

fn threads(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=1024).contains(n))
        .ok_or_else(|| "expected a number from 1 to 1024".to_owned())
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (min, max) = text.split_once("..").ok_or("expected MIN..MAX, like 150..400")?;
    match (min.parse(), max.parse()) {
        (Ok(min), Ok(max)) if 0 < min && min <= max => Ok((min, max)),
        _ => Err("expected two numbers, the smaller first, like 150..400".to_owned()),
    }
}

/// Why a node cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An address cannot be listened on.
    #[error("cannot listen for {whom} on {address}: {source}; choose another address or stop whoever has it")]
    Listen {
        /// Whom it is for.
        whom: &'static str,
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A bug that is not in the catalogue.
    #[error(transparent)]
    UnknownBug(#[from] bugs::UnknownBug),
    /// A bug outside of a test.
    #[error(
        "--bug {0} is refused: planted bugs lose data, and only a test run may ask for them (it sets {TRIAL_VARIABLE})"
    )]
    BugOutsideTrial(String),
    /// The flags contradict each other.
    #[error("{0}")]
    Flags(String),
    /// The system refuses something else.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was attempted.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A server inside the node has ended.
    #[error("the server for {0} has failed: {1}")]
    Served(&'static str, String),
}

/// Bound addresses, before anything is served on them. Port 0 asks the system for a free one.
pub struct Listeners {
    peer: TcpListener,
    client: TcpListener,
    http: Option<TcpListener>,
}

impl Listeners {
    /// Binds all of them.
    ///
    /// # Errors
    /// [`NodeError::Listen`] names the address that cannot be bound.
    pub async fn bind(peer: &str, client: &str, http: Option<&str>) -> Result<Self, NodeError> {
        async fn one(whom: &'static str, address: &str) -> Result<TcpListener, NodeError> {
            let failed = |source| NodeError::Listen { whom, address: address.to_owned(), source };
            TcpListener::bind(address).await.map_err(failed)
        }
        Ok(Listeners {
            peer: one("peers", peer).await?,
            client: one("clients", client).await?,
            http: match http {
                Some(address) => Some(one("HTTP clients", address).await?),
                None => None,
            },
        })
    }

    /// The addresses for peers, for clients, and for HTTP clients.
    ///
    /// # Errors
    /// If the system does not know them.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr, Option<SocketAddr>)> {
        let http = self.http.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok((self.peer.local_addr()?, self.client.local_addr()?, http))
    }
}

/// A node that runs in this process until it is dropped.
pub struct Node {
    handle: Handle,
    tasks: JoinSet<NodeError>,
}

impl NodeArgs {
    /// What the core is told.
    ///
    /// # Errors
    /// If the flags contradict each other, or ask for a bug that may not be planted.
    pub fn config(&self) -> Result<Config, NodeError> {
        let flags = |what: String| Err(NodeError::Flags(what));
        let mut config = Config::new(self.id, self.peers.iter().map(|(id, _)| *id), self.protocol);
        if let Some((id, _)) = self.peers.iter().find(|(id, _)| *id == self.id) {
            return flags(format!("--peer {id}=… names this node itself; name the other nodes only"));
        }
        let mut addresses: BTreeMap<NodeId, String> = self.peers.iter().cloned().collect();
        addresses.insert(self.id, self.peer_listen.clone());
        let members = addresses.into_iter().map(|(node, address)| (node, Member { address, born: 0 }));
        config.members = Arc::new(members.collect());
        if self.join && (self.peers.is_empty() || self.protocol == Protocol::BasicPaxos) {
            return flags(
                "--join needs a --peer for each member of the cluster, and --protocol multi-paxos".to_owned(),
            );
        }
        if config.nodes.len() != self.peers.len() + 1 {
            return flags("two --peer flags name the same node; name each other node once".to_owned());
        }
        if self.heartbeat_ms * 2 > self.lease_ms {
            return flags(format!(
                "--heartbeat-ms {} is too long for --lease-ms {}: at least two heartbeats must fit into a lease",
                self.heartbeat_ms, self.lease_ms
            ));
        }
        if let Some(first) = self.bugs.first() {
            if std::env::var_os(TRIAL_VARIABLE).is_none_or(|value| value.is_empty()) {
                return Err(NodeError::BugOutsideTrial(first.clone()));
            }
            let planted = self.bugs.iter().map(|name| bugs::find(name)).collect::<Result<Vec<_>, _>>()?;
            config.hooks = Hooks::planted(planted);
        }
        if self.join {
            config = config.joining();
        }
        config.timing.heartbeat = Duration::from_millis(self.heartbeat_ms);
        config.timing.lease = Duration::from_millis(self.lease_ms);
        let (min, max) = self.election_ms;
        config.timing.backoff_by = self.backoff;
        config.timing.election = (Duration::from_millis(min), Duration::from_millis(max));
        config.seed = self.seed;
        config.nonce = nonce();
        (config.snapshot_every, config.keep) = (self.snapshot_every, self.keep);
        Ok(config)
    }

    /// What nodes that may talk to each other call themselves: all of one cluster, and of one protocol.
    fn party(&self) -> String {
        match self.protocol {
            Protocol::MultiPaxos => self.cluster_id.clone(),
            other => format!("{} ({})", self.cluster_id, other.name()),
        }
    }
}

/// Seconds since 2020 in the upper 31 bits, chance below. A clock that was set back costs nothing but patience: see [`crate::core::Config::nonce`].
fn nonce() -> u64 {
    let year_2020 = UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    let seconds = SystemTime::now().duration_since(year_2020).map_or(0, |since| since.as_secs());
    seconds << 33 | std::hash::RandomState::new().build_hasher().finish() >> 31
}

impl Node {
    /// Starts a node on addresses that are already bound. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the flags make no sense or the log cannot be used.
    pub fn start(args: &NodeArgs, listeners: Listeners) -> Result<Node, NodeError> {
        let config = args.config()?;
        let identity =
            Identity { cluster_id: args.cluster_id.clone(), node: args.id, protocol: args.protocol };
        let (mut log, mut recovered) = Log::open_with(&args.data, &identity, config.hooks)?;
        if !config.hooks.syncs_promises() {
            let aside = log.keep_promises_aside();
            recovered
                .records
                .extend(aside.map_err(|source| NodeError::System { doing: "open the log", source })?);
        }
        if recovered.torn > 0 {
            tracing::warn!("cut a torn end of {} bytes off {}", recovered.torn, log.path().display());
        }
        let count = recovered.records.len();
        let mut durable: Durable = recovered.records.into_iter().collect();
        durable.snapshot = recovered.snapshot;
        let start = if args.bootstrap && durable.epoch == 0 {
            Some(durable.begin_incarnation(config.timing.lease))
        } else {
            durable.start(&config)
        };
        let epoch = durable.epoch;
        match start {
            Some(start) => log
                .write(&[start])
                .and_then(|()| log.sync())
                .map_err(|source| NodeError::System { doing: "write the log", source })?,
            None => {
                tracing::info!("the data directory is empty: asks all other nodes whether they know this one")
            }
        }
        let clock = Clock::start(config.hooks);
        let core = Core::new(config.clone(), durable, clock.now());
        tracing::info!(
            "node {} of {} starts: {}, fsync {}, incarnation {epoch}, recovered {count} records up to slot {}",
            config.id,
            config.nodes.len(),
            config.protocol,
            args.fsync.name(),
            core.learner().applied(),
        );
        if !args.bugs.is_empty() {
            tracing::warn!("planted bugs: {}", args.bugs.join(", "));
        }

        let storage = log.storage();
        let (synced, reports) = mpsc::unbounded_channel();
        let lazily = (!config.hooks.syncs_acceptances()).then_some(LAZY_SYNC);
        let metrics = Arc::new(Metrics::default());
        let writer = Writer::start(log, args.fsync, lazily, metrics.clone(), move |done| {
            // The driver is gone only when the node stops.
            let _ = synced.send(done);
        });
        let cluster_id = Bytes::from(args.party());
        let sender = Sender { cluster_id: cluster_id.clone(), node: args.id, epoch };
        let mut tasks = JoinSet::new();
        let outboxes = Outboxes::new(sender);
        let (events, inputs) = mpsc::channel(EVENTS_MAX);
        let inbound = Inbound::new(cluster_id, events.clone(), outboxes.clone());
        let links = Links::new(args.id, outboxes.clone(), inbound.clone());
        let log = args.events.as_ref().map(|path| EventLog::open(path, &core.status(), storage, clock.now()));
        let log = log.transpose().map_err(|source| NodeError::System { doing: "write events", source })?;
        let mut driver = Driver::new(core, clock, writer, links, metrics.clone());
        log.into_iter().for_each(|log| driver.tells(log));
        let handle =
            Handle::new(events, driver.status(), clock, config, (args.fsync, storage), outboxes, metrics);
        tasks.spawn(async move {
            driver.run(inputs, reports).await;
            NodeError::Served("the core", "its inputs ended".to_owned())
        });
        let peers = PeerServer::new(inbound).max_decoding_message_size(transport::DECODE_MAX);
        serve_grpc(&mut tasks, "peers", listeners.peer, move |server| {
            let (every, patience) = transport::KEEP_ALIVE;
            let mut server =
                server.http2_keepalive_interval(Some(every)).http2_keepalive_timeout(Some(patience));
            server.add_service(peers)
        });
        let kv = KvServer::new(handle.clone());
        serve_grpc(&mut tasks, "clients", listeners.client, move |mut server| server.add_service(kv));
        if let Some(listener) = listeners.http {
            let router = http::router(handle.clone());
            tasks.spawn(async move {
                let ended = axum::serve(listener, router).await;
                NodeError::Served("HTTP clients", format!("{ended:?}"))
            });
        }
        Ok(Node { handle, tasks })
    }

    /// A way to use it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until a part of it fails, which no part does on its own.
    pub async fn failed(&mut self) -> NodeError {
        match self.tasks.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(error)) => NodeError::Served("a task", error.to_string()),
            None => NodeError::Served("all tasks", "none is left".to_owned()),
        }
    }
}

fn serve_grpc(
    tasks: &mut JoinSet<NodeError>,
    whom: &'static str,
    listener: TcpListener,
    add: impl FnOnce(Server) -> tonic::transport::server::Router + Send + 'static,
) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .initial_stream_window_size(transport::WINDOW)
        .initial_connection_window_size(transport::WINDOW * 2);
    let router = add(server);
    tasks.spawn(async move {
        let ended = router.serve_with_incoming(incoming).await;
        NodeError::Served(whom, format!("{ended:?}"))
    });
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// Everything that keeps it from starting or from going on. The caller prints it and exits with 1.
pub fn run(args: NodeArgs) -> Result<(), NodeError> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Someone who embeds the node may have set up logging already; then theirs is used.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_timer(tracing_subscriber::fmt::time::uptime())
            .with_target(false)
            .with_ansi(false)
            .compact()
            .try_init(),
    );
    if args.watch_stdin {
        std::thread::spawn(|| {
            let mut buffer = [0; 256];
            while matches!(std::io::stdin().read(&mut buffer), Ok(read) if read > 0) {}
            tracing::info!("standard input has ended: exits");
            std::process::exit(0);
        });
    }
    let mut runtime = match args.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime
        .worker_threads(args.threads)
        .enable_all()
        .build()
        .map_err(|source| NodeError::System { doing: "start the runtime", source })?;
    runtime.block_on(async {
        let listeners =
            Listeners::bind(&args.peer_listen, &args.client_listen, args.http_listen.as_deref()).await?;
        let mut node = Node::start(&args, listeners)?;
        let system = |source| NodeError::System { doing: "watch for signals", source };
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(system)?;
        tokio::select! {
            error = node.failed() => return Err(error),
            _ = terminate.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(system)?,
        }
        node.handle().hand_over().await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        node: NodeArgs,
    }

    fn parse(more: &[&str]) -> NodeArgs {
        let first = ["x", "--id", "1", "--data", "/d", "--peer-listen", "a:1", "--client-listen", "a:2"];
        <Line as clap::Parser>::try_parse_from(first.iter().chain(more))
            .unwrap_or_else(|e| panic!("{e}"))
            .node
    }

    #[test]
    fn flags_become_a_configuration() {
        let args =
            parse(&["--peer", "2=b:1", "--peer", "3=c:1", "--election-ms", "10..20", "--fsync", "none"]);
        let config = args.config().unwrap();
        assert_eq!(config.nodes.iter().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(config.timing.election, (Duration::from_millis(10), Duration::from_millis(20)));
        assert_eq!(config.protocol, Protocol::MultiPaxos);
        assert_eq!(args.fsync, Fsync::None);
    }

    #[test]
    fn nodes_of_two_protocols_are_of_two_parties_and_a_later_start_has_a_higher_nonce() {
        assert_eq!(parse(&["--cluster-id", "c"]).party(), "c");
        assert_eq!(parse(&["--cluster-id", "c", "--protocol", "basic-paxos"]).party(), "c (basic-paxos)");
        let (one, other) = (nonce(), nonce());
        assert!(one != other && one >> 33 <= other >> 33, "{one:x} {other:x}");
        assert!(one >> 33 > 5 * 365 * 86_400, "seconds since 2020: {:x}", one >> 33);
    }

    #[test]
    fn contradictions_are_refused_with_a_reason() {
        let refused = |more: &[&str]| parse(more).config().unwrap_err().to_string();
        assert!(refused(&["--peer", "1=b:1"]).contains("this node itself"));
        assert!(refused(&["--peer", "2=b:1", "--peer", "2=c:1"]).contains("the same node"));
        assert!(refused(&["--heartbeat-ms", "400"]).contains("lease"));
    }

    #[test]
    fn bugs_are_refused_outside_of_a_trial() {
        // The variable is not set in this test's process.
        let error = parse(&["--bug", "follower-reads"]).config().unwrap_err();
        assert!(matches!(error, NodeError::BugOutsideTrial(_)), "{error}");
    }
}
