//! `tribunal bugs`: does the tester find each planted bug, seed after seed,
//! and does it leave the correct cluster alone under the same plans?
//!
//! ```text
//! bug                   found   median   |  the correct cluster under its plan
//! accept-below-promise  30/30   4.1 s    |  20/20 valid
//! ```

use super::{Failure, OrArguments, interrupts, matrix, runtime};
use crate::{
    bugs::{Known, find, known, scenario},
    exit,
    scenario::{Scenario, TESTS},
    trial::{Options, try_bundled},
};
use anyhow::Result;
use checkers::Validity;
use std::{collections::BTreeSet, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Instant};
use tokio::{sync::Semaphore, task::JoinSet};

/// Which bugs, and how often.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these bugs (all if none is named)
    bugs: Vec<String>,
    /// Seeds per bug [default: 30; 10 with --matrix]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Seeds of the correct cluster per plan [default: 20; 3 with --matrix]
    #[arg(long)]
    controls: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub(super) first_seed: u64,
    /// Runs at the same time
    #[arg(long, default_value = "1", value_name = "N")]
    pub(super) jobs: NonZeroUsize,
    /// Where runs are kept
    #[arg(long, default_value = "store", value_name = "FOLDER")]
    pub(super) store: PathBuf,
    /// Every bug before every judge: the simulator, stateright, real processes
    #[arg(long)]
    matrix: bool,
    #[command(flatten)]
    pub(super) of_matrix: matrix::Args,
}

impl Args {
    pub(super) fn seeds(&self) -> u64 {
        self.seeds.unwrap_or(if self.matrix { 10 } else { 30 })
    }

    pub(super) fn controls(&self) -> u64 {
        self.controls.unwrap_or(if self.matrix { 3 } else { 20 })
    }
}

/// One cell of the matrix.
#[derive(Clone)]
struct Job {
    row: String,
    bug: bool,
    scenario: Scenario,
}

struct Outcome {
    row: String,
    bug: bool,
    seed: u64,
    validity: Option<Validity>,
    seconds: f64,
    note: String,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    let bugs: Vec<Known> = match args.bugs.as_slice() {
        [] => known(),
        names => {
            let found: Result<Vec<_>, _> = names.iter().map(|n| find(n)).collect();
            found.map_err(anyhow::Error::msg).or_arguments()?
        }
    };
    if args.matrix {
        return matrix::main(&args, &bugs);
    }
    let seeds = |n: u64| args.first_seed..args.first_seed.saturating_add(n);
    let mut jobs = Vec::new();
    for bug in &bugs {
        for seed in seeds(args.seeds()) {
            jobs.push(Job { row: bug.name.to_owned(), bug: true, scenario: scenario(bug, true, seed)? });
        }
    }
    let mut plans: BTreeSet<String> = BTreeSet::new();
    for bug in &bugs {
        let row = format!("{} + {}", bug.workload, bug.plan);
        if plans.insert(row.clone()) {
            for seed in seeds(args.controls()) {
                jobs.push(Job { row: row.clone(), bug: false, scenario: scenario(bug, false, seed)? });
            }
        }
    }
    if args.bugs.is_empty() {
        for seed in seeds(args.controls()) {
            let scenario = Scenario { seed: Some(seed), ..Scenario::load(TESTS[0].0)? };
            jobs.push(Job { row: "default".to_owned(), bug: false, scenario });
        }
    }
    let wanted = jobs.len();
    let outcomes = runtime()?.block_on(async {
        let options = Options { quiet: true, interrupt: interrupts(), ..Options::new(&args.store)? };
        run_all(jobs, &options, args.jobs.get()).await
    })?;
    let (table, right) = table(&outcomes);
    print!("{table}");
    if outcomes.len() < wanted {
        eprintln!("interrupted: {} of {wanted} runs were made", outcomes.len());
        return Ok(exit::UNKNOWN);
    }
    Ok(if right { exit::VALID } else { exit::INVALID })
}

async fn run_all(jobs: Vec<Job>, options: &Options, at_once: usize) -> Result<Vec<Outcome>> {
    let turns = Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)));
    let mut running = JoinSet::new();
    let total = jobs.len();
    for (order, job) in jobs.into_iter().enumerate() {
        let options = options.clone();
        let turns = turns.clone();
        running.spawn(async move {
            let _turn = turns.acquire_owned().await;
            if *options.interrupt.borrow() {
                return None;
            }
            Some((order, one(job, &options).await))
        });
    }
    let mut outcomes = Vec::new();
    while let Some(joined) = running.join_next().await {
        let Some((order, outcome)) = joined? else { continue };
        eprintln!(
            "{:>4}/{total} {} seed {}: {} in {:.1} s{}",
            outcomes.len() + 1,
            outcome.row,
            outcome.seed,
            outcome.validity.map_or("failed".to_owned(), |v| format!("{v:?}").to_lowercase()),
            outcome.seconds,
            outcome.note
        );
        outcomes.push((order, outcome));
    }
    outcomes.sort_by_key(|o| o.0);
    Ok(outcomes.into_iter().map(|o| o.1).collect())
}

async fn one(job: Job, options: &Options) -> Outcome {
    let start = Instant::now();
    let result = try_bundled(&job.scenario, options).await;
    let seconds = start.elapsed().as_secs_f64();
    let (validity, note) = match result {
        Ok(results) => {
            let wanted = if job.bug { Validity::Invalid } else { Validity::Valid };
            let reasons: Vec<String> = results.checkers.values().filter_map(|v| v.reason.clone()).collect();
            let odd = format!("; {}; {}", reasons.join("; "), results.folder);
            (Some(results.valid), if results.valid == wanted { String::new() } else { odd })
        }
        Err(e) => (None, format!("; {e:#}")),
    };
    Outcome {
        row: job.row,
        bug: job.bug,
        seed: job.scenario.seed.unwrap_or_default(),
        validity,
        seconds,
        note,
    }
}

/// The table, and whether every bug was found in nine of ten seeds and every control passed.
fn table(outcomes: &[Outcome]) -> (String, bool) {
    let mut out = String::from(
        "| what | runs | as it should be | median seconds | otherwise |\n|---|---|---|---|---|\n",
    );
    let mut right = !outcomes.is_empty();
    let mut rows: Vec<(&str, bool)> = Vec::new();
    for o in outcomes {
        if !rows.contains(&(&o.row, o.bug)) {
            rows.push((&o.row, o.bug));
        }
    }
    for (row, bug) in rows {
        let of: Vec<&Outcome> = outcomes.iter().filter(|o| o.row == row && o.bug == bug).collect();
        let wanted = if bug { Validity::Invalid } else { Validity::Valid };
        let good = of.iter().filter(|o| o.validity == Some(wanted)).count();
        right &= if bug { good * 10 >= of.len() * 9 } else { good == of.len() };
        let mut seconds: Vec<f64> = of.iter().map(|o| o.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let odd: Vec<String> = of
            .iter()
            .filter(|o| o.validity != Some(wanted))
            .map(|o| {
                format!("seed {}: {}", o.seed, o.validity.map_or("failed".to_owned(), |v| format!("{v:?}")))
            })
            .collect();
        let kind = if bug { "bug" } else { "correct:" };
        out += &format!(
            "| {kind} {row} | {} | {good} {} | {:.1} | {} |\n",
            of.len(),
            if bug { "found" } else { "valid" },
            seconds[seconds.len() / 2],
            odd.join(", ")
        );
    }
    (out, right)
}
