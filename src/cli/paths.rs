//! `tribunal paths`: what the prepare phase costs. The same commands through Multi-Paxos, which commits in one round
//! trip under a stable leader, and through Basic Paxos, which needs two.
//!
//! ```text
//! at the proposer   Multi-Paxos 1 round trip          Basic Paxos 2          a read under the lease 0
//! at the client     direct 1, forwarded 2             2
//! ```
//! A command that reaches Multi-Paxos through a follower costs its client as many message delays as Basic Paxos does:
//! the table says so. Links are delayed in the proxies; with bare loopback one would measure little but fsync. The clock is
//! cross-checked by counting messages, and what theory demands is judged: the exit code is that of a verdict.

mod bounds;
mod draw;
mod measure;
mod show;

use super::{Failure, interrupts, runtime};
use crate::{
    scenario::{Fsync, Protocol},
    store::Store,
};
use anyhow::Result;
use measure::{Measured, Setting, measure};
use nemesis::Span;
use std::path::PathBuf;

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
    /// Only what is judged: not what contention and fsync cost
    #[arg(long)]
    brief: bool,
    /// Where runs are kept
    #[arg(long, default_value = "store", value_name = "FOLDER")]
    store: PathBuf,
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

/// What is printed, kept for the folder.
#[derive(Default)]
struct Page(String);

impl Page {
    fn say(&mut self, text: &str) {
        print!("{text}");
        self.0 += text;
    }
}

const BOTH: [Protocol; 2] = [Protocol::MultiPaxos, Protocol::BasicPaxos];

async fn all(args: &Args) -> Result<u8> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ").to_string();
    let store = Store::create(&args.store, "paths", &time)?;
    let rtt = 2.0 * args.delay.ns() as f64;
    let mut page = Page::default();
    page.say(&format!(
        "Links of {} one way, a round trip of {}; {} nodes.\nOne proposer, one command outstanding, fsync none:\n\n",
        args.delay,
        Span(args.delay.0 * 2),
        args.nodes
    ));
    let mut main: Vec<(Protocol, Measured)> = Vec::new();
    for protocol in BOTH {
        let setting = Setting { protocol, fsync: Fsync::None, clients: 1 };
        main.push((protocol, measure(args, &store, setting).await?));
    }
    page.say(&show::headline(&main, rtt));
    page.say("\nCommit time at the proposer, in round trips:\n\n");
    page.say(&show::side_by_side(&main, rtt));
    page.say("\nMessages between nodes for each commit, heartbeats apart:\n\n");
    page.say(&show::messages(&main));
    let bounds = bounds::of(&main, args.nodes);
    page.say("\nWhat theory demands, for links of the measured delay d, p50 in ms:\n\n");
    page.say(&bounds::table_of(&bounds));
    for (protocol, m) in &main {
        for (view, values) in m.views() {
            draw::hgrm(&store, &format!("{protocol}-{}", view.replace(", ", "-").replace(' ', "-")), values)?;
        }
    }
    store.write("paths.svg", draw::svg(&main).into_string())?;
    if !args.brief {
        contention(args, &store, &mut page, rtt).await?;
        fsyncs(args, &store, &mut page, rtt).await?;
    }
    page.say(&format!("\neverything in {}: paths.txt, paths.svg, *.hgrm\n", store.folder().display()));
    store.write("paths.txt", &page.0)?;
    Ok(bounds::exit_code(&bounds))
}

async fn contention(args: &Args, store: &Store, page: &mut Page, rtt: f64) -> Result<()> {
    page.say("\nContention: clients at different nodes, each with one command outstanding, fsync none:\n\n");
    let mut rows = Vec::new();
    for clients in [1, 2, args.nodes.max(3) as usize] {
        for protocol in BOTH {
            let m = measure(args, store, Setting { protocol, fsync: Fsync::None, clients }).await?;
            rows.push(show::contention_row(protocol, clients, &m, rtt));
        }
    }
    page.say(&show::contention(&rows));
    Ok(())
}

async fn fsyncs(args: &Args, store: &Store, page: &mut Page, rtt: f64) -> Result<()> {
    page.say("\nFsync: one client, one command outstanding:\n\n");
    let mut rows = Vec::new();
    for fsync in [Fsync::None, Fsync::Group, Fsync::Always] {
        for protocol in BOTH {
            let m = measure(args, store, Setting { protocol, fsync, clients: 1 }).await?;
            rows.push(show::fsync_row(protocol, fsync, &m, rtt));
        }
    }
    page.say(&show::fsyncs(&rows));
    Ok(())
}
