//! `tribunal paths`: what the prepare phase costs. The same commands through Multi-Paxos, which commits in one round
//! trip under a stable leader, and through Basic Paxos, which needs two.
//!
//! ```text
//! at the proposer   Multi-Paxos 1 round trip          Basic Paxos 2
//! at the client     direct 1, forwarded 2             2
//! ```
//! A command that reaches Multi-Paxos through a follower costs its client as many message delays as Basic Paxos does:
//! the table says so. Links are delayed in the proxies; with bare loopback one would measure little but fsync.

use super::{Failure, interrupts, runtime};
use crate::{
    adapter::{Adapter, Session, paxos_kv_grpc::PaxosKv},
    cluster::{Defendant, Surroundings, assembly::Assembly, process},
    exit,
    owner::fresh_run,
    report::text::table,
    scenario::ClusterSpec,
    scenario::{Fsync, Protocol},
    store::Store,
};
use anyhow::{Context, Result, bail};
use checkers::{Key, Op, Ret, Value};
use nemesis::{Cluster, LinkShape, NodeName, Span, inject::all_links};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use workloads::Outcome;

/// How far apart the nodes are, and how many samples to take.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One-way delay of every link between nodes
    #[arg(long, default_value = "10ms")]
    delay: Span,
    /// Number of nodes
    #[arg(long, default_value_t = 5)]
    nodes: u32,
    /// Commands for each figure
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Where runs are kept
    #[arg(long, default_value = "store", value_name = "FOLDER")]
    store: PathBuf,
}

/// One command as its client and its proposer saw it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    client_ns: u64,
    commit_ns: u64,
    forwarded: bool,
    rounds: u32,
}

/// One cluster's measurements.
struct Measured {
    samples: Vec<Sample>,
    /// One way, as measured at the proxies.
    delay_ns: u64,
    seconds: f64,
    errors: usize,
    /// Commits of each client.
    each: Vec<usize>,
}

/// How much one client does.
#[derive(Clone, Copy)]
enum Share {
    /// So many commands, after a few that open connections on their way and are not counted.
    Count(usize),
    /// Commands until this moment; the one under way is waited for.
    Until(Instant),
}

/// How long clients contend for each row of the table.
const CONTENTION_SECONDS: u64 = 5;

/// What is measured.
#[derive(Clone, Copy)]
struct Setting {
    protocol: Protocol,
    fsync: Fsync,
    /// Clients at work at the same time, each at a node of its own; one client visits every node in turn.
    clients: usize,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    if args.nodes == 0 || args.samples == 0 {
        return Err(Failure::Arguments(anyhow::anyhow!("`--nodes` and `--samples` must be at least 1")));
    }
    runtime()?.block_on(async {
        let mut interrupt = interrupts();
        tokio::select! {
            done = all(&args) => done.map_err(Failure::Tester),
            Ok(_) = interrupt.wait_for(|i| *i) => Err(Failure::Tester(anyhow::anyhow!("interrupted"))),
        }
    })
}

async fn all(args: &Args) -> Result<u8> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ").to_string();
    let store = Store::create(&args.store, "paths", &time)?;
    let setting = |protocol, fsync, clients| Setting { protocol, fsync, clients };
    let both = [Protocol::MultiPaxos, Protocol::BasicPaxos];
    let rtt = 2.0 * args.delay.ns() as f64;

    println!(
        "Links of {} one way, a round trip of {}; {} nodes.",
        args.delay,
        Span(args.delay.0 * 2),
        args.nodes
    );
    println!("One proposer, one command outstanding, fsync none:\n");
    let mut main = Vec::new();
    for protocol in both {
        main.push((protocol, measure(args, &store, setting(protocol, Fsync::None, 1)).await?));
    }
    print!("{}", headline(&main, rtt));
    println!("\nCommit time at the proposer, in round trips:\n");
    print!("{}", side_by_side(&main, rtt));

    println!("\nContention: clients at different nodes, each with one command outstanding, fsync none:\n");
    let mut rows = Vec::new();
    for clients in [1, 2, args.nodes.max(3) as usize] {
        for protocol in both {
            let m = measure(args, &store, setting(protocol, Fsync::None, clients)).await?;
            rows.push(contention_row(protocol, clients, &m, rtt));
        }
    }
    let header = [
        "protocol",
        "clients",
        "commit p50 ms",
        "round trips",
        "p99 ms",
        "rounds/commit",
        "client p50 ms",
        "commits/s",
        "per client",
        "unanswered",
    ];
    print!("{}", table(&header, &rows, 9));

    println!("\nFsync: one client, one command outstanding:\n");
    let mut rows = Vec::new();
    for fsync in [Fsync::None, Fsync::Group, Fsync::Always] {
        for protocol in both {
            let m = measure(args, &store, setting(protocol, fsync, 1)).await?;
            let commits = sorted(&m.samples, |s| Some(s.commit_ns));
            let (p50, p99) = (at(&commits, 0.5), at(&commits, 0.99));
            rows.push(vec![protocol.to_string(), fsync.to_string(), ms(p50), times(p50, rtt), ms(p99)]);
        }
    }
    print!("{}", table(&["protocol", "fsync", "commit p50 ms", "round trips", "p99 ms"], &rows, 3));
    println!("\neverything in {}", store.folder().display());
    Ok(exit::VALID)
}

async fn measure(args: &Args, store: &Store, setting: Setting) -> Result<Measured> {
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
    let adapter: Arc<dyn Adapter> = Arc::new(PaxosKv::new(program, arguments, run.clone(), &names));
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
    adapter: &Arc<dyn Adapter>,
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
    let session = |process: usize, node: usize| Session {
        process: process as u64,
        run: 1,
        home: members[node].clone(),
        others: vec![],
        op_timeout: Duration::from_secs(10),
        attempt_timeout: Duration::from_secs(10),
        retries: 0,
    };
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    if setting.clients == 1 {
        let tour = (0..members.len()).map(|n| session(n, n)).collect();
        clients.spawn(client(adapter.clone(), tour, Share::Count(args.samples.div_ceil(members.len()))));
    } else {
        // Everyone works until the same moment: a client that is done would leave the others alone.
        let until = begun + Duration::from_secs(CONTENTION_SECONDS);
        for c in 0..setting.clients {
            clients.spawn(client(adapter.clone(), vec![session(c, c % members.len())], Share::Until(until)));
        }
    }
    let (mut samples, mut errors, mut each) = (Vec::new(), 0, Vec::new());
    for done in clients.join_all().await {
        let (some, failed) = done?;
        each.push(some.len());
        samples.extend(some);
        errors += failed;
    }
    let seconds = begun.elapsed().as_secs_f64();
    if samples.is_empty() {
        bail!("no command was committed; see {}", folder.display());
    }
    let (mut chunks, mut ns) = (0u64, 0u64);
    for link in all_links(cluster.nodes()) {
        let stats = cluster.link_stats(&link).await;
        chunks += stats.delayed_chunks;
        ns += stats.delayed_ns;
    }
    Ok(Measured { samples, delay_ns: ns.checked_div(chunks).unwrap_or(0), seconds, errors, each })
}

/// Writes values through each of the sessions in turn, one at a time.
async fn client(
    adapter: Arc<dyn Adapter>,
    sessions: Vec<Session>,
    share: Share,
) -> Result<(Vec<Sample>, usize)> {
    const WARM_UP: usize = 3;
    let (mut samples, mut errors) = (Vec::new(), 0);
    for session in sessions {
        let mut client = adapter.connect(&session).await.map_err(anyhow::Error::msg)?;
        let key = Key::Int(session.process as i64);
        for i in 0.. {
            let counts = match share {
                Share::Count(n) if i >= WARM_UP + n => break,
                Share::Count(_) => i >= WARM_UP,
                Share::Until(end) if Instant::now() >= end => break,
                Share::Until(_) => true,
            };
            let op = Op::Write { key: key.clone(), value: Value::Int(i as i64) };
            let start = Instant::now();
            let outcome = client.invoke(&op).await;
            let client_ns = start.elapsed().as_nanos() as u64;
            match outcome {
                Outcome::Ok(Ret::Done, served) if counts => samples.push(Sample {
                    client_ns,
                    commit_ns: served
                        .commit_ns
                        .context("the cluster did not say how long the commit took")?,
                    forwarded: served.forwarded.unwrap_or(false),
                    rounds: served.rounds.unwrap_or(1),
                }),
                Outcome::Ok(..) => {}
                Outcome::Fail(_) | Outcome::Info(_) => errors += 1,
            }
        }
    }
    Ok((samples, errors))
}

fn sorted(samples: &[Sample], pick: impl Fn(&Sample) -> Option<u64>) -> Vec<u64> {
    let mut all: Vec<u64> = samples.iter().filter_map(pick).collect();
    all.sort_unstable();
    all
}

fn at(sorted: &[u64], quantile: f64) -> Option<u64> {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

fn ms(ns: Option<u64>) -> String {
    ns.map_or("-".to_owned(), crate::report::ms)
}

fn times(ns: Option<u64>, rtt: f64) -> String {
    match ns {
        Some(ns) if rtt > 0.0 => format!("{:.2}", ns as f64 / rtt),
        _ => "-".to_owned(),
    }
}

fn headline(all: &[(Protocol, Measured)], rtt: f64) -> String {
    let mut rows = Vec::new();
    let mut notes = String::new();
    for (protocol, m) in all {
        let views = [
            ("at the proposer", sorted(&m.samples, |s| Some(s.commit_ns))),
            ("at the client, direct", sorted(&m.samples, |s| (!s.forwarded).then_some(s.client_ns))),
            ("at the client, forwarded", sorted(&m.samples, |s| s.forwarded.then_some(s.client_ns))),
        ];
        for (view, values) in views.into_iter().filter(|v| !v.1.is_empty()) {
            let q = |q| at(&values, q);
            rows.push(vec![
                protocol.to_string(),
                view.to_owned(),
                values.len().to_string(),
                ms(q(0.5)),
                times(q(0.5), rtt),
                ms(q(0.9)),
                ms(q(0.99)),
                ms(q(1.0)),
            ]);
        }
        let measured = 2 * m.delay_ns;
        notes += &format!(
            "  {protocol}: the proxies' measured round trip is {} ms; {} commands unanswered\n",
            crate::report::ms(measured),
            m.errors
        );
    }
    let header = ["protocol", "measured", "count", "p50 ms", "round trips", "p90 ms", "p99 ms", "max ms"];
    table(&header, &rows, 6)
        + &notes
        + "  A Multi-Paxos command that is forwarded to the leader costs its client two round trips, as Basic Paxos does.\n"
}

/// Both histograms in the same buckets of a tenth of a round trip.
fn side_by_side(all: &[(Protocol, Measured)], rtt: f64) -> String {
    const WIDTH: usize = 40;
    let bucket = |s: &Sample| ((s.commit_ns as f64 / rtt.max(1e6)) * 10.0) as usize;
    let highest = all.iter().flat_map(|(_, m)| m.samples.iter().map(bucket)).max().unwrap_or(0).min(60);
    let counts: Vec<Vec<usize>> = all
        .iter()
        .map(|(_, m)| {
            let mut n = vec![0; highest + 1];
            m.samples.iter().for_each(|s| n[bucket(s).min(highest)] += 1);
            n
        })
        .collect();
    let most = counts.iter().flatten().copied().max().unwrap_or(1).max(1);
    let bar = |n: usize| "#".repeat((n * WIDTH).div_ceil(most));
    let mut out = format!("  {:>11}  {:WIDTH$}  {}\n", "round trips", all[0].0, all[1].0);
    for b in (0..=highest).filter(|&b| counts.iter().any(|c| c[b] > 0)) {
        let range = format!("{:.1}..{:.1}", b as f64 / 10.0, (b + 1) as f64 / 10.0);
        let line = format!("  {range:>11}  {:WIDTH$}  {}", bar(counts[0][b]), bar(counts[1][b]));
        out += line.trim_end();
        out.push('\n');
    }
    out
}

fn contention_row(protocol: Protocol, clients: usize, m: &Measured, rtt: f64) -> Vec<String> {
    let commits = sorted(&m.samples, |s| Some(s.commit_ns));
    let client = sorted(&m.samples, |s| Some(s.client_ns));
    let rounds: u64 = m.samples.iter().map(|s| u64::from(s.rounds.max(1))).sum();
    vec![
        protocol.to_string(),
        clients.to_string(),
        ms(at(&commits, 0.5)),
        times(at(&commits, 0.5), rtt),
        ms(at(&commits, 0.99)),
        format!("{:.2}", rounds as f64 / m.samples.len() as f64),
        ms(at(&client, 0.5)),
        format!("{:.0}", m.samples.len() as f64 / m.seconds),
        format!("{}..{}", m.each.iter().min().unwrap_or(&0), m.each.iter().max().unwrap_or(&0)),
        m.errors.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(commit_ms: &[u64], forwarded: bool) -> Measured {
        let sample = |&ms: &u64| Sample {
            client_ns: (ms + if forwarded { 20 } else { 1 }) * 1_000_000,
            commit_ns: ms * 1_000_000,
            forwarded,
            rounds: 1,
        };
        Measured {
            samples: commit_ms.iter().map(sample).collect(),
            delay_ns: 10_100_000,
            seconds: 1.0,
            errors: 0,
            each: vec![commit_ms.len()],
        }
    }

    #[test]
    fn histograms_stand_side_by_side() {
        let all = [
            (Protocol::MultiPaxos, measured(&[20, 21, 21, 22, 30], true)),
            (Protocol::BasicPaxos, measured(&[40, 41, 42, 42, 55], false)),
        ];
        insta::assert_snapshot!(format!("{}\n{}", headline(&all, 20e6), side_by_side(&all, 20e6)));
    }
}
