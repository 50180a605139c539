//! One cluster, started, delayed, driven, and looked at from all sides.
//!
//! ```text
//! one client    visits every node in turn:  warm up │ count messages │ write, one at a time │ count messages
//!               and where it was not forwarded it reads under the lease
//! more clients  each at a node of its own, all for the same time
//! ```
//! Deliberately no opinion about the figures: that is `bounds`.

use super::Args;
use crate::{
    adapter::{Adapter, Node, Session, paxos_kv_grpc::PaxosKv},
    cluster::{Defendant, Surroundings, assembly::Assembly, process},
    owner::fresh_run,
    scenario::{ClusterSpec, Fsync, Protocol},
    store::Store,
};
use anyhow::{Context, Error, Result, bail};
use checkers::{Key, Op, ReadMode, Ret, Value};
use nemesis::{Cluster, LinkShape, NodeName, inject::all_links};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use workloads::{Client, Outcome};

/// One command as its client and its proposer saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) client_ns: u64,
    pub(super) commit_ns: u64,
    pub(super) forwarded: bool,
    pub(super) rounds: u32,
}

/// Messages that all nodes together sent for some commands, by kind.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) forwarded: bool,
    pub(super) commits: usize,
    pub(super) kinds: BTreeMap<String, u64>,
}

/// One cluster's measurements.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) samples: Vec<Sample>,
    /// One way, as measured at the proxies while samples were taken; 0 if nothing was delayed.
    pub(super) delay_ns: u64,
    pub(super) seconds: f64,
    pub(super) errors: usize,
    /// Commits of each client.
    pub(super) each: Vec<usize>,
    /// For each node that was visited.
    pub(super) sent: Vec<Sent>,
    /// Reads that the leader answered under its lease, as its client saw them, ns.
    pub(super) lease_reads: Vec<u64>,
}

/// What is measured.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    pub(super) protocol: Protocol,
    pub(super) fsync: Fsync,
    /// Clients at work at the same time, each at a node of its own; one client visits every node in turn.
    pub(super) clients: usize,
}

/// Commands that open connections on their way and are not counted.
const WARM_UP: usize = 3;
/// How long clients contend for each row of the table.
const CONTENTION: Duration = Duration::from_secs(5);

impl Measured {
    /// The distributions in it, by name; none is empty.
    pub(super) fn views(&self) -> Vec<(&'static str, Vec<u64>)> {
        let of = |pick: &dyn Fn(&Sample) -> Option<u64>| self.samples.iter().filter_map(pick).collect();
        let mut all: Vec<(_, Vec<u64>)> = vec![
            ("at the proposer", of(&|s| Some(s.commit_ns))),
            ("at the client, direct", of(&|s| (!s.forwarded).then_some(s.client_ns))),
            ("at the client, forwarded", of(&|s| s.forwarded.then_some(s.client_ns))),
            ("lease read, direct", self.lease_reads.clone()),
        ];
        all.iter_mut().for_each(|(_, values)| values.sort_unstable());
        all.retain(|(_, values)| !values.is_empty());
        all
    }
}

pub(super) async fn measure(args: &Args, store: &Store, setting: Setting) -> Result<Measured> {
    eprintln!("measuring {} with {} client(s), fsync {} …", setting.protocol, setting.clients, setting.fsync);
    let names: Vec<NodeName> = (1..=args.nodes).map(|i| NodeName::from(format!("n{i}"))).collect();
    // Patience grows with the distance, or the nodes would depose each other for being far away.
    let far = args.delay.0.as_millis() as u64 * 10;
    let arguments = [
        ("--protocol", setting.protocol.to_string()),
        ("--fsync", setting.fsync.to_string()),
        ("--heartbeat-ms", "50".to_owned()),
        ("--lease-ms", (1000 + 2 * far).to_string()),
        ("--election-ms", format!("{}..{}", 300 + far, 600 + 2 * far)),
    ];
    let arguments = arguments.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    let run =
        format!("paths-{}-{}-{}-{}", std::process::id(), setting.protocol, setting.fsync, setting.clients);
    let program = std::env::current_exe()?;
    let adapter = Arc::new(PaxosKv::new(program, arguments, run.clone(), &names));
    let part = Store::create(store.folder(), "clusters", &run)?;
    let around = Surroundings::new(
        adapter.clone(),
        names,
        part.clone(),
        0,
        fresh_run(),
        ClusterSpec::default(),
        Default::default(),
        std::env::current_exe()?,
    )?;
    let cluster = process::prepare(around).await?;
    cluster.set_up().await?;
    let shape = LinkShape { delay: args.delay, ..LinkShape::default() };
    cluster.shape(&all_links(cluster.nodes()).into_iter().map(|link| (link, shape)).collect()).await?;
    let result = drive(args, &adapter, &cluster, setting, part.folder()).await;
    cluster.tear_down().await;
    result
}

async fn drive(
    args: &Args,
    adapter: &Arc<PaxosKv>,
    cluster: &Assembly,
    setting: Setting,
    folder: &Path,
) -> Result<Measured> {
    let members = cluster.members();
    let deadline = Instant::now() + Duration::from_secs(30);
    for node in members {
        while let Err(why) = adapter.ready(node).await {
            if Instant::now() > deadline {
                bail!("{} was not ready within 30 s: {why}; see {}", node.name, folder.display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let (chunks, ns) = delays(cluster).await;
    let begun = Instant::now();
    let mut m = Measured::default();
    if setting.clients == 1 {
        // Its connections are on its own thread: what is measured has no wake-up of another one in it.
        let tour = tour(args, adapter, members, setting.protocol, &mut m);
        tokio::task::block_in_place(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(tour)
        })?;
    } else {
        // Everyone works until the same moment: a client that is done would leave the others alone.
        let until = begun + CONTENTION;
        let mut clients = JoinSet::new();
        for c in 0..setting.clients {
            clients.spawn(contender(adapter.clone(), session(c, &members[c % members.len()]), until));
        }
        for done in clients.join_all().await {
            let (some, failed) = done?;
            m.each.push(some.len());
            m.samples.extend(some);
            m.errors += failed;
        }
    }
    m.seconds = begun.elapsed().as_secs_f64();
    if m.samples.is_empty() {
        bail!("no command was committed; see {}", folder.display());
    }
    let (more_chunks, more_ns) = delays(cluster).await;
    m.delay_ns = (more_ns - ns).checked_div(more_chunks - chunks).unwrap_or(0);
    Ok(m)
}

/// How many chunks all links have delayed so far, and for how long together.
async fn delays(cluster: &Assembly) -> (u64, u64) {
    let (mut chunks, mut ns) = (0, 0);
    for link in all_links(cluster.nodes()) {
        let stats = cluster.link_stats(&link).await;
        chunks += stats.delayed_chunks;
        ns += stats.delayed_ns;
    }
    (chunks, ns)
}

fn session(process: usize, node: &Node) -> Session {
    Session {
        process: process as u64,
        run: 1,
        home: node.clone(),
        others: vec![],
        op_timeout: Duration::from_secs(10),
        attempt_timeout: Duration::from_secs(10),
        retries: 0,
        sessions: true,
    }
}

/// One client at every node in turn, one command outstanding.
async fn tour(
    args: &Args,
    adapter: &Arc<PaxosKv>,
    members: &[Node],
    protocol: Protocol,
    m: &mut Measured,
) -> Result<()> {
    for (n, node) in members.iter().enumerate() {
        let mut client = adapter.connect(&session(n, node)).await.map_err(Error::msg)?;
        for i in 0..WARM_UP {
            let _ = write(&mut *client, n, i).await?;
        }
        let before = quiet(args, adapter, members).await?;
        let (mut commits, mut forwarded) = (0, false);
        for i in WARM_UP..WARM_UP + args.samples.div_ceil(members.len()) {
            match write(&mut *client, n, i).await? {
                Some(sample) => {
                    commits += 1;
                    forwarded |= sample.forwarded;
                    m.samples.push(sample);
                }
                None => m.errors += 1,
            }
        }
        let mut kinds = quiet(args, adapter, members).await?;
        kinds.iter_mut().for_each(|(kind, count)| *count -= before.get(kind).copied().unwrap_or(0));
        kinds.retain(|_, count| *count > 0);
        m.sent.push(Sent { forwarded, commits, kinds });
        if protocol == Protocol::MultiPaxos && !forwarded {
            for i in 0..WARM_UP + args.samples {
                let op = Op::Read { key: Key::Int(n as i64), mode: ReadMode::Lease };
                let start = Instant::now();
                let outcome = client.invoke(&op).await;
                let ns = start.elapsed().as_nanos() as u64;
                match outcome {
                    // One that went through the log is none of these.
                    Outcome::Ok(_, served) if served.path.as_deref() == Some("lease-read") => {
                        if i >= WARM_UP {
                            m.lease_reads.push(ns);
                        }
                    }
                    Outcome::Ok(..) => {}
                    Outcome::Fail(_) | Outcome::Info(_) => m.errors += 1,
                }
            }
        }
    }
    m.each.push(m.samples.len());
    Ok(())
}

/// What all nodes have sent, by kind, once nothing of it is on its way any more. Heartbeats never end and are left out.
async fn quiet(args: &Args, adapter: &PaxosKv, members: &[Node]) -> Result<BTreeMap<String, u64>> {
    let mut last = None;
    for _ in 0..100 {
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for node in members {
            for (kind, count) in adapter.sent(node).await.map_err(Error::msg)? {
                *all.entry(kind).or_default() += count;
            }
        }
        all.retain(|kind, _| !kind.starts_with("heartbeat"));
        if last.as_ref() == Some(&all) {
            return Ok(all);
        }
        last = Some(all);
        tokio::time::sleep(args.delay.0 * 3 + Duration::from_millis(20)).await;
    }
    bail!("the cluster does not come to rest though nobody asks it for anything")
}

/// Writes until `end`; the command under way is waited for.
async fn contender(adapter: Arc<PaxosKv>, session: Session, end: Instant) -> Result<(Vec<Sample>, usize)> {
    let (mut samples, mut errors) = (Vec::new(), 0);
    let mut client = adapter.connect(&session).await.map_err(Error::msg)?;
    for i in 0.. {
        if Instant::now() >= end {
            break;
        }
        match write(&mut *client, session.process as usize, i).await? {
            Some(sample) => samples.push(sample),
            None => errors += 1,
        }
    }
    Ok((samples, errors))
}

/// One write; `None` if it was not answered as done.
async fn write(client: &mut dyn Client, key: usize, i: usize) -> Result<Option<Sample>> {
    let op = Op::Write { key: Key::Int(key as i64), value: Value::Int(i as i64) };
    let start = Instant::now();
    let outcome = client.invoke(&op).await;
    let client_ns = start.elapsed().as_nanos() as u64;
    let Outcome::Ok(Ret::Done, served) = outcome else { return Ok(None) };
    Ok(Some(Sample {
        client_ns,
        commit_ns: served.commit_ns.context("the cluster did not say how long the commit took")?,
        forwarded: served.forwarded.unwrap_or(false),
        rounds: served.rounds.unwrap_or(1),
    }))
}
