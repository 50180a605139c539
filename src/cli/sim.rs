//! `tribunal sim TEST`: a test in virtual time, over many seeds, and the smallest plan that still fails.
//!
//! ```text
//! $ tribunal sim register --plan storm --seeds 1..1000 --jobs 2
//! VALID register: seeds 1..1000
//! ```

use super::{Failure, OrArguments};
use crate::{
    bugs, exit, judge,
    plan::TestPlan,
    report,
    scenario::{NemesisSpec, Protocol, Scenario, diagnostic::Diagnostic},
    sim::{
        self,
        seeds::{self, Summary},
        shrink::{self, Case, Shrunk},
    },
};
use anyhow::{Context, anyhow};
use checkers::{Validity, Value};
use nemesis::Span;
use std::{
    fmt::Write,
    num::NonZeroUsize,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Instant,
};

/// Flags override what the test file says.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A test file, or the name of a test that ships with the program (see `tribunal list`)
    #[arg(value_name = "FILE|NAME")]
    test: Option<String>,
    /// A fault plan: a name (`storm` is the hardest), a file, or `none` [default: the test's own]
    #[arg(long, visible_alias = "nemesis", value_name = "PLAN")]
    plan: Option<String>,
    /// Which seeds, both ends included: 1..1000, or 17
    #[arg(long, default_value = "1..100", value_name = "A..B")]
    seeds: Seeds,
    /// Seeds that are simulated at the same time
    #[arg(long, default_value = "1", value_name = "N")]
    jobs: NonZeroUsize,
    /// Number of nodes
    #[arg(long)]
    nodes: Option<u32>,
    /// How they agree
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Plant a bug; takes the test and the fault plan that reveal it, unless told otherwise
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Number of concurrent clients
    #[arg(long)]
    clients: Option<u32>,
    /// Operations per simulated second over all clients, open loop; 0 for a closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// How long load and faults last, in simulated time, for example 30s
    #[arg(long)]
    time_limit: Option<Span>,
    /// Ask only these arrivals of the load, counted from 0: 3,7..9, or none (as a shrunk failure says)
    #[arg(long, value_name = "LIST")]
    operations: Option<Numbers>,
    /// Report a failure as it is
    #[arg(long)]
    no_shrink: bool,
    /// Write the history of the only seed to this file
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Write what is left of a failure into this folder: its history and its plan
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Seeds, both ends included.
#[derive(Clone, Debug)]
struct Seeds(RangeInclusive<u64>);

impl FromStr for Seeds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` are no seeds; write for example 1..1000 (both included) or 17");
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        let (from, to) = (number(from)?, number(to)?);
        if from > to || to == u64::MAX { Err(wrong()) } else { Ok(Seeds(from..=to)) }
    }
}

/// A list of numbers with ranges, both ends included.
#[derive(Clone, Debug)]
struct Numbers(Arc<[u64]>);

impl FromStr for Numbers {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Numbers(Arc::default()));
        }
        let mut all = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let Seeds(range) =
                part.parse().map_err(|_| format!("`{part}` is no number and no range; write 3,7..9"))?;
            if range.end() - range.start() > 10_000_000 {
                return Err(format!("`{part}` are too many operations"));
            }
            all.extend(range);
        }
        all.sort_unstable();
        all.dedup();
        Ok(Numbers(all.into()))
    }
}

/// As [`Numbers`] reads it.
fn ranges(numbers: &[u64]) -> String {
    if numbers.is_empty() {
        return "none".to_owned();
    }
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => parts.push((n, n)),
        }
    }
    let part = |&(a, b): &(u64, u64)| if a == b { a.to_string() } else { format!("{a}..{b}") };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    let scenario = resolve(&args).or_arguments()?;
    let Seeds(seeds) = args.seeds.clone();
    let plan = TestPlan::new(&scenario, *seeds.start()).or_arguments()?;
    if let Some(why) = sim::refusal(&plan) {
        return Err(Failure::Arguments(anyhow!(why)));
    }
    if args.history.is_some() && seeds.start() != seeds.end() {
        return Err(Failure::Arguments(anyhow!(
            "--history is of one seed; name it, such as --seeds {}",
            seeds.start()
        )));
    }
    let only = args.operations.as_ref().map(|Numbers(only)| only.clone());
    if let Some(file) = &args.history {
        write(file, &sim::bytes(&sim::simulate(&plan, only.clone()).history)?)?;
    }
    let all = seeds.end() - seeds.start() + 1;
    let every = (all / 10).max(1);
    let started = Instant::now();
    let told = |done: u64| {
        if all > 1 && done.is_multiple_of(every) {
            eprintln!("{done}/{all} seeds, {:.1} s", started.elapsed().as_secs_f64());
        }
    };
    let summary = seeds::run(&scenario, seeds.clone(), args.jobs.get(), only.clone(), &told)?;
    eprintln!("{}", speed(&summary, started.elapsed().as_secs_f64(), args.jobs.get()));
    print!("{}", totals(&args, &scenario, &summary));
    if let Some((seed, judged)) = &summary.first {
        let case = Case { scenario: scenario.clone(), seed: *seed, only };
        match judged.wrong() {
            Some(wrong) if !args.no_shrink => {
                let shrunk = shrink::shrink(&case, wrong)?;
                print!("{}", shrunken(&args, &shrunk)?);
            }
            _ => {
                let run = sim::simulate(&TestPlan::new(&scenario, *seed)?, case.only.clone());
                print!("{}", verdicts(judged, &run));
                print!("\nto see it again: {}\n", replay(&args, &case, None));
            }
        }
    }
    Ok(exit::of(summary.validity()))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn speed(summary: &Summary, took: f64, jobs: usize) -> String {
    let simulated = summary.simulated_ns as f64 / 1e9;
    format!(
        "{simulated:.0} simulated seconds and {} events in {took:.2} s with {jobs} jobs: {:.0} simulated seconds and {:.0} events a second",
        summary.events,
        simulated / took,
        summary.events as f64 / took
    )
}

fn totals(args: &Args, scenario: &Scenario, summary: &Summary) -> String {
    let word = report::text::word(summary.validity());
    let Seeds(seeds) = &args.seeds;
    let mut out = match &summary.first {
        Some((seed, _)) => format!(
            "{word} {}: seed {seed} is the first of {}..{}",
            scenario.name,
            seeds.start(),
            seeds.end()
        ),
        None => format!("{word} {}: seeds {}..{}", scenario.name, seeds.start(), seeds.end()),
    };
    let _ = write!(
        out,
        "\n{} nodes, {}: {} seeds, {:.1} simulated seconds, {} operations, {} faults with an effect\n",
        scenario.cluster.nodes,
        scenario.cluster.protocol,
        summary.seeds,
        summary.simulated_ns as f64 / 1e9,
        summary.operations,
        summary.faults
    );
    for (why, n) in &summary.guards {
        let _ = writeln!(out, "guards: of {n} seeds: {why}");
    }
    out
}

/// The verdicts of one run, the worst first.
fn verdicts(judged: &sim::Judged, run: &sim::Run) -> String {
    let mut all = judged.verdicts.clone();
    all.sort_by_key(|verdict| std::cmp::Reverse(verdict.validity));
    let mut out = String::new();
    for mut verdict in all {
        if verdict.checker == "linearizable" && verdict.validity == Validity::Invalid {
            judge::note_what_still_holds(&mut verdict, &run.history, Value::Nil);
        }
        let _ = write!(
            out,
            "\n{}",
            report::text::verdict(&verdict, "--history FILE and `tribunal check FILE --html` draw them")
        );
    }
    for trouble in &judged.troubles {
        let _ = writeln!(out, "\nunknown: {trouble}");
    }
    out
}

fn shrunken(args: &Args, shrunk: &Shrunk) -> anyhow::Result<String> {
    let case = &shrunk.case;
    let plan = case.scenario.plan().map_err(anyhow::Error::msg)?;
    let yaml = shrink::yaml(&plan)?;
    let mut place = "FILE".to_owned();
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(format!("seed-{}.yaml", case.seed));
        write(&file, yaml.as_bytes())?;
        write(&folder.join(format!("seed-{}.jsonl", case.seed)), &sim::bytes(&shrunk.run.history)?)?;
        place = file.display().to_string();
    }
    let [before, after] = shrunk.sizes;
    let mut out = verdicts(&shrunk.judged, &shrunk.run);
    let scenario = Scenario { load: load(args, case), ..case.scenario.clone() };
    let first = Case { scenario, seed: shrunk.seed, only: None };
    let _ = write!(
        out,
        "\nshrunk in {} trials: from {} faults to {}, from {} operations to {}, from {} to {}\n\
         what is left of the plan:\n\n{}\n\
         to see it again: {}\nbefore it was shrunk: {}\n",
        shrunk.trials,
        before.faults,
        after.faults,
        before.operations,
        after.operations,
        before.load,
        after.load,
        yaml,
        replay(args, case, Some(&place)),
        replay(
            args,
            &Case { only: args.operations.as_ref().map(|Numbers(only)| only.clone()), ..first },
            None
        )
    );
    Ok(out)
}

/// The load as the arguments have it.
fn load(args: &Args, case: &Case) -> crate::scenario::Load {
    let mut load = case.scenario.load.clone();
    load.time_limit = args.time_limit.unwrap_or(load.time_limit);
    load
}

/// The command that makes a run again, with the plan in this file, if it is another than that of the arguments.
fn replay(args: &Args, case: &Case, plan: Option<&str>) -> String {
    let mut words = vec!["tribunal sim".to_owned()];
    words.extend(args.test.clone());
    let mut flag = |name: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("--{name} {value}")));
    };
    flag("bug", args.bug.clone());
    flag("plan", plan.map(str::to_owned).or_else(|| args.plan.clone()));
    flag("nodes", args.nodes.map(|n| n.to_string()));
    flag("protocol", args.protocol.map(|p| p.to_string()));
    flag("clients", args.clients.map(|n| n.to_string()));
    flag("rate", args.rate.map(|rate| rate.to_string()));
    let limit = plan.map(|_| case.scenario.load.time_limit).or(args.time_limit);
    flag("time-limit", limit.map(|limit| limit.to_string()));
    flag("seeds", Some(case.seed.to_string()));
    flag("operations", case.only.as_ref().map(|only| ranges(only)));
    words.join(" ")
}

/// The test file with the flags laid over it.
fn resolve(args: &Args) -> Result<Scenario, Diagnostic> {
    let mut s = bugs::test_of(args.test.as_deref(), args.bug.as_deref())?;
    s.cluster.nodes = args.nodes.unwrap_or(s.cluster.nodes);
    s.cluster.protocol = args.protocol.unwrap_or(s.cluster.protocol);
    s.load.clients = args.clients.unwrap_or(s.load.clients);
    s.load.rate = args.rate.unwrap_or(s.load.rate);
    s.load.time_limit = args.time_limit.unwrap_or(s.load.time_limit);
    if let Some(plan) = &args.plan {
        s.nemesis = NemesisSpec::Named(plan.clone());
    }
    match s.mistake().or_else(|| s.bundled_mistake()) {
        Some(mistake) => Err(Diagnostic::plain(mistake)),
        None => Ok(s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_operations_read_back_the_same() {
        for text in ["3", "0..4,7,9..10", "none"] {
            let Numbers(numbers) = text.parse().unwrap();
            assert_eq!(ranges(&numbers), text);
        }
        assert!("x".parse::<Numbers>().unwrap_err().contains("3,7..9"));
        assert!("9..3".parse::<Seeds>().unwrap_err().contains("1..1000"));
    }
}
