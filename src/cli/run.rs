//! `tribunal run [FILE|NAME]`: the main job.

use super::{Failure, OrArguments, interrupts, runtime};
use crate::{
    bugs, exit,
    plan::TestPlan,
    report,
    scenario::{Fsync, NemesisSpec, On, Protocol, Scenario, diagnostic::Diagnostic},
    trial::{Options, fresh_seed, try_bundled},
};
use checkers::Validity;
use nemesis::Span;
use std::path::PathBuf;

/// Flags override what the test file says.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// A test file, or the name of a test that ships with the program (see `tribunal list`)
    #[arg(value_name = "FILE|NAME")]
    test: Option<String>,
    /// Where the nodes live
    #[arg(long)]
    on: Option<On>,
    /// Put the services of this compose file on trial (with `--on docker`)
    #[arg(long, value_name = "FILE", requires = "service")]
    compose: Option<PathBuf>,
    /// A service of the compose file that is a node, or several if it is scaled; may be repeated
    #[arg(long, value_name = "NAME", requires = "compose")]
    service: Vec<String>,
    /// Let something else do what this machine lacks (a packet queue in user space for sch_netem); the report names it
    #[arg(long)]
    stand_ins: bool,
    /// Number of nodes
    #[arg(long)]
    nodes: Option<u32>,
    /// Number of concurrent clients
    #[arg(long)]
    clients: Option<u32>,
    /// Operations per second over all clients, open loop; 0 for a closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// How long load and faults last, for example 30s
    #[arg(long)]
    time_limit: Option<Span>,
    /// A fault plan: a name (see `tribunal list`), a file, or `none`
    #[arg(long, value_name = "PLAN")]
    nemesis: Option<String>,
    /// How the bundled cluster agrees
    #[arg(long)]
    protocol: Option<Protocol>,
    /// When the bundled cluster's log reaches the disk
    #[arg(long)]
    fsync: Option<Fsync>,
    /// Plant a bug; takes the test and the fault plan that reveal it, unless told otherwise
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Fixes the plan
    #[arg(long)]
    seed: Option<u64>,
    /// Where runs are kept
    #[arg(long, default_value = "store", value_name = "FOLDER")]
    store: PathBuf,
    /// Run the test so many times, with the seeds that follow on the first
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: u32,
    /// Stop a run at its first violation, and a repetition at the first run that is not valid
    #[arg(long)]
    fail_fast: bool,
    /// Judge linearizability while the run goes on, in memory that does not grow with it
    #[arg(long)]
    online: bool,
    /// Print results as JSON, one document a run, instead of a report
    #[arg(long)]
    json: bool,
    /// Print the plan and start nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    let scenario = resolve(&args).or_arguments()?;
    let first = scenario.seed.unwrap_or_else(fresh_seed);
    let seeds = (0..u64::from(args.repeat)).map(|i| first.wrapping_add(i));
    if args.repeat == 0 {
        return Err(Failure::Arguments(anyhow::anyhow!("`--repeat 0` would judge nothing")));
    }
    if args.dry_run {
        for seed in seeds {
            print!("{}", TestPlan::new(&scenario, seed).or_arguments()?.describe());
        }
        return Ok(exit::VALID);
    }
    runtime()?.block_on(async {
        let options = Options {
            quiet: args.json,
            fail_fast: args.fail_fast,
            online: args.online,
            interrupt: interrupts(),
            ..Options::new(&args.store)?
        };
        let mut validities = Vec::new();
        for seed in seeds {
            if !args.json {
                eprintln!("test {} with seed {seed}", scenario.name);
            }
            let results = try_bundled(&Scenario { seed: Some(seed), ..scenario.clone() }, &options).await?;
            if args.json {
                println!("{}", serde_json::to_string(&results)?);
            } else {
                print!("{}", report::text::render(&results));
            }
            validities.push(results.valid);
            let stop = args.fail_fast && results.valid != Validity::Valid;
            if stop || *options.interrupt.borrow() {
                break;
            }
        }
        if validities.len() > 1 && !args.json {
            println!("\n{}", summary(&validities));
        }
        Ok(exit::of(Validity::merge(validities)))
    })
}

fn summary(all: &[Validity]) -> String {
    let count = |v: Validity| all.iter().filter(|x| **x == v).count();
    format!(
        "{} runs: {} valid, {} invalid, {} unknown",
        all.len(),
        count(Validity::Valid),
        count(Validity::Invalid),
        count(Validity::Unknown)
    )
}

/// The test file with the flags laid over it.
fn resolve(args: &Args) -> Result<Scenario, Diagnostic> {
    let mut s = bugs::test_of(args.test.as_deref(), args.bug.as_deref())?;
    let c = &mut s.cluster;
    c.on = args.on.unwrap_or(c.on);
    if let Some(file) = &args.compose {
        c.compose = Some(file.clone());
        c.services = args.service.clone();
        if c.services.len() > 1 {
            c.nodes = c.services.len() as u32;
        }
    }
    c.nodes = args.nodes.unwrap_or(c.nodes);
    c.stand_ins |= args.stand_ins;
    c.protocol = args.protocol.unwrap_or(c.protocol);
    c.fsync = args.fsync.unwrap_or(c.fsync);
    s.load.clients = args.clients.unwrap_or(s.load.clients);
    s.load.rate = args.rate.unwrap_or(s.load.rate);
    s.load.time_limit = args.time_limit.unwrap_or(s.load.time_limit);
    s.seed = args.seed.or(s.seed);
    if let Some(plan) = &args.nemesis {
        s.nemesis = NemesisSpec::Named(plan.clone());
    }
    match s.mistake().or_else(|| s.bundled_mistake()) {
        Some(mistake) => Err(Diagnostic::plain(mistake)),
        None => Ok(s),
    }
}
