//! `tribunal bugs --matrix`: runs every planted bug before every judge.
//!
//! ```text
//! bug ─┬▶ simulator      --seeds hunts; each goes through simulated seeds of its own until it finds something
//!      ├▶ stateright     every state of the bug's model, if it has one
//!      └▶ real processes --seeds runs under the plan of the catalogue, and under `chaos`
//! ```
//!
//! Simulated hunts have the cores to themselves; runs of real processes go on side by side, `--jobs` at a time, because they wait more
//! than they work. What is counted and drawn is in [`crate::matrix`].

use super::{Failure, bugs, interrupts, runtime};
use crate::{
    bugs::{Known, explore, scenario},
    exit,
    matrix::{self, Cell, Channel, Control, Matrix, Row, Sample},
    plan::TestPlan,
    run::NoProgress,
    scenario::{NemesisSpec, Scenario},
    sim,
    trial::{Options, Refused, try_bundled},
};
use anyhow::{Context, Result};
use checkers::Validity;
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::{sync::Semaphore, task::JoinSet};

/// How the matrix is measured, and where it goes.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Simulated seeds after which a hunt gives up
    #[arg(long, default_value_t = 30, value_name = "N", requires = "matrix", value_parser = clap::value_parser!(u64).range(1..))]
    sim_seeds: u64,
    /// The same under the hardest plan, for bugs that their own plan does not show
    #[arg(long, default_value_t = 60, value_name = "N", requires = "matrix")]
    storm_seeds: u64,
    /// Runs without any finding after which `chaos` is given up for a bug [default: none]
    #[arg(long, value_name = "N", requires = "matrix")]
    patience: Option<u64>,
    /// Ask only this judge, and leave what `--data` has of the others (all if none is named)
    #[arg(long, value_name = "JUDGE", requires_all = ["matrix", "data"])]
    judge: Vec<Judge>,
    /// Take the matrix from this file, replace the rows that were measured, and write it back
    #[arg(long, value_name = "FILE", requires = "matrix")]
    data: Option<PathBuf>,
    /// Draw the table into this document, between the lines that mark its place
    #[arg(long, value_name = "FILE", requires = "matrix")]
    document: Option<PathBuf>,
    /// Measure nothing: draw what `--data` has
    #[arg(long, requires_all = ["matrix", "data", "document"])]
    draw: bool,
}

/// A column of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Judge {
    /// Virtual time
    Simulator,
    /// Every state of a small model
    Stateright,
    /// Real processes under the plan of the catalogue
    Processes,
    /// Real processes under the default plan
    Chaos,
}

impl Args {
    fn asks(&self, judge: Judge) -> bool {
        self.judge.is_empty() || self.judge.contains(&judge)
    }
}

/// The default plan, and the hardest of the simulator.
const CHAOS: &str = "chaos";
const STORM: &str = "storm";
/// Hunts go through seeds that are this far apart, so that no two of them see the same.
const APART: u64 = 10_000;

pub(super) fn main(args: &bugs::Args, bugs: &[Known]) -> Result<u8, Failure> {
    let own = &args.of_matrix;
    let mut all: Matrix = match &own.data {
        Some(file) if file.exists() => read(file)?,
        _ => Matrix::default(),
    };
    let (mut complete, mut validity) = (true, all.validity());
    if !own.draw {
        let (measured, whole) = measure(args, bugs, &all)?;
        (complete, validity) = (whole, measured.validity());
        print!("{}", matrix::table(&measured));
        all.update(measured);
    }
    if !complete {
        eprintln!("interrupted: nothing was written");
        return Ok(exit::UNKNOWN);
    }
    if let Some(file) = &own.data {
        let text = serde_json::to_string_pretty(&all).context("the matrix cannot be written as JSON")?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &own.document {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let text = matrix::document(&text, &all).with_context(|| format!("in {}", file.display()))?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(exit::of(validity))
}

fn read(file: &Path) -> Result<Matrix> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no matrix of this version", file.display()))
}

/// Measures; also tells whether nobody interrupted it. `before` is where cells come from that are not asked for.
fn measure(args: &bugs::Args, bugs: &[Known], before: &Matrix) -> Result<(Matrix, bool), Failure> {
    let own = &args.of_matrix;
    let seeds = args.first_seed..args.first_seed.saturating_add(args.seeds());
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for bug in bugs {
        let known = before.rows.iter().find(|row| row.bug == bug.name).cloned();
        let mut row = known.unwrap_or_else(|| Row::new(bug.name));
        if own.asks(Judge::Simulator) {
            row.simulator = simulator(bug, true, &seeds, own)?;
            eprintln!("{}: simulator {}/{}", bug.name, row.simulator.found, row.simulator.runs);
        }
        if own.asks(Judge::Stateright) {
            row.stateright = stateright(bug);
        }
        rows.insert(bug.name, row);
    }
    let mut controls: Vec<(Control, &Known)> = Vec::new();
    let (virtually, really) = (own.asks(Judge::Simulator), own.asks(Judge::Processes));
    for bug in bugs.iter().filter(|_| args.controls() > 0 && (virtually || really)) {
        let under = under(bug.workload, bug.plan);
        if controls.iter().any(|(control, _)| control.under == under) {
            continue;
        }
        let known = before.controls.iter().find(|control| control.under == under).cloned();
        let mut control = known.unwrap_or_else(|| Control::new(under));
        if virtually {
            let seeds = args.first_seed..args.first_seed.saturating_add(args.controls());
            control.simulator = simulator(bug, false, &seeds, own)?;
        }
        controls.push((control, bug));
    }
    let mut cells = Vec::new();
    for bug in bugs {
        let chaos = (CHAOS, own.patience.unwrap_or(u64::MAX));
        let plans = match (really, own.asks(Judge::Chaos)) {
            (false, false) => vec![],
            (true, true) if bug.plan != CHAOS => vec![(bug.plan, u64::MAX), chaos],
            (true, _) => vec![(bug.plan, u64::MAX)],
            (false, true) => vec![chaos],
        };
        for (plan, patience) in plans {
            cells.push(Job {
                bug: bug.clone(),
                planted: true,
                plan: plan.to_owned(),
                seeds: seeds.clone(),
                patience,
            });
        }
    }
    for (control, bug) in controls.iter().filter(|_| really) {
        let seeds = args.first_seed..args.first_seed.saturating_add(args.controls());
        let plan = bug.plan.to_owned();
        let job = Job { bug: (*bug).clone(), planted: false, plan, seeds, patience: u64::MAX };
        debug_assert_eq!(control.under, under(bug.workload, bug.plan));
        cells.push(job);
    }
    let done = runtime()?.block_on(async {
        let interrupt = interrupts();
        let options = Options { quiet: true, interrupt: interrupt.clone(), ..Options::new(&args.store)? };
        let done = processes(cells, &options, args.jobs.get()).await?;
        anyhow::Ok((!*interrupt.borrow()).then_some(done))
    })?;
    let Some(done) = done else { return Ok((Matrix::default(), false)) };
    for (job, cell) in done {
        if !job.planted {
            let under = under(job.bug.workload, job.bug.plan);
            if let Some((control, _)) = controls.iter_mut().find(|(control, _)| control.under == under) {
                control.processes = cell;
            }
            continue;
        }
        let Some(row) = rows.get_mut(job.bug.name) else { continue };
        if job.plan == CHAOS {
            row.chaos = cell.clone();
        }
        if job.plan == job.bug.plan {
            row.processes = cell;
        }
    }
    let mut measured = Matrix::default();
    let controls = controls.into_iter().map(|(control, _)| control).collect();
    measured.update(Matrix { rows: rows.into_values().collect(), controls, ..Matrix::default() });
    Ok((measured, true))
}

fn under(test: &str, plan: &str) -> String {
    format!("`{test}`, `{plan}`")
}

// --- in virtual time --------------------------------------------------------------------------------------------------------

/// Hunts under the bug's own plan, and if that shows nothing under the hardest.
fn simulator(bug: &Known, planted: bool, seeds: &Range<u64>, args: &Args) -> Result<Cell> {
    let own = scenario(bug, planted, 1)?;
    let cell = match sim::refusal(&TestPlan::new(&own, 1)?) {
        Some(why) => Cell::not_asked(why),
        None => hunts(&own, under(bug.workload, bug.plan), seeds, args.sim_seeds)?,
    };
    if cell.found > 0 || !planted || bug.plan == STORM {
        return Ok(cell);
    }
    let mut hard = own;
    hard.nemesis = NemesisSpec::Named(STORM.to_owned());
    match sim::refusal(&TestPlan::new(&hard, 1)?) {
        Some(_) => Ok(cell),
        None => hunts(&hard, under(bug.workload, STORM), seeds, args.storm_seeds),
    }
}

fn hunts(scenario: &Scenario, under: String, seeds: &Range<u64>, limit: u64) -> Result<Cell> {
    let (next, hunts) = (AtomicUsize::new(0), seeds.clone().collect::<Vec<u64>>());
    let samples: Mutex<Vec<Result<Sample>>> = Mutex::default();
    let work = || {
        while let Some(hunt) = hunts.get(next.fetch_add(1, Relaxed)) {
            let sample = hunt_in_virtual_time(scenario, (hunt - 1) * APART + 1, limit);
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
        work();
    });
    let samples = samples.into_inner().unwrap_or_else(PoisonError::into_inner);
    let samples: Vec<Sample> = samples.into_iter().collect::<Result<_>>()?;
    let mut cell = Cell::of(under, &samples);
    cell.note =
        samples.iter().all(|s| s.channels.is_empty()).then(|| format!("{limit} simulated seeds each"));
    Ok(cell)
}

fn hunt_in_virtual_time(scenario: &Scenario, first: u64, limit: u64) -> Result<Sample> {
    let start = Instant::now();
    let mut sample = Sample { seed: first, channels: Vec::new(), seconds: 0.0 };
    for seed in first..first + limit {
        let plan = TestPlan::new(scenario, seed)?;
        let run = sim::simulate(&plan, None);
        let judged = sim::judge(&run, &plan)?;
        let mut channels: Vec<Channel> = judged.findings().iter().map(|name| Channel::of(name)).collect();
        channels.extend((!judged.troubles.is_empty()).then_some(Channel::LostProgress));
        channels.sort_unstable();
        channels.dedup();
        if !channels.is_empty() {
            (sample.seed, sample.channels) = (seed, channels);
            break;
        }
    }
    sample.seconds = start.elapsed().as_secs_f64();
    Ok(sample)
}

// --- every state ------------------------------------------------------------------------------------------------------------

fn stateright(bug: &Known) -> Cell {
    let start = Instant::now();
    let Some((name, wrong, states)) = explore(bug) else { return Cell::not_asked("no small model") };
    let channels = wrong.iter().map(|_| Channel::NodeInvariants).collect();
    let sample = Sample { seed: 0, channels, seconds: start.elapsed().as_secs_f64() };
    Cell { note: Some(format!("{states} states")), first_seed: None, ..Cell::of(name, &[sample]) }
}

// --- real processes ---------------------------------------------------------------------------------------------------------

/// One cell: a bug, or none, under a plan.
#[derive(Clone)]
struct Job {
    bug: Known,
    planted: bool,
    plan: String,
    seeds: Range<u64>,
    patience: u64,
}

/// Runs cells side by side, the seeds of each one after the other.
async fn processes(jobs: Vec<Job>, options: &Options, at_once: usize) -> Result<Vec<(Job, Cell)>> {
    let turns = Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)));
    let mut running = JoinSet::new();
    for job in jobs {
        let (options, turns) = (options.clone(), turns.clone());
        running.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let cell = cell(&job, &options).await;
            (job, cell)
        });
    }
    let mut done = Vec::new();
    while let Some(joined) = running.join_next().await {
        let (job, cell) = joined?;
        let what = if job.planted { job.bug.name } else { "the correct cluster" };
        eprintln!("{what} under {}: {}/{}", job.plan, cell.found, cell.runs);
        done.push((job, cell));
    }
    Ok(done)
}

async fn cell(job: &Job, options: &Options) -> Cell {
    let (mut samples, mut notes) = (Vec::new(), Vec::new());
    for seed in job.seeds.clone() {
        let found = samples.iter().any(|s: &Sample| !s.channels.is_empty());
        if *options.interrupt.borrow() || (!found && samples.len() as u64 >= job.patience) {
            break;
        }
        let start = Instant::now();
        match run(job, seed, options).await {
            Ok((channels, note)) => {
                samples.push(Sample { seed, channels, seconds: start.elapsed().as_secs_f64() });
                notes.extend(note);
            }
            Err(e) if e.is::<Refused>() => {
                notes.push(format!("{e:#}"));
                break;
            }
            Err(e) => notes.push(format!("seed {seed}: {e:#}")),
        }
    }
    let mut cell = Cell::of(under(job.bug.workload, &job.plan), &samples);
    cell.note = (!notes.is_empty()).then(|| notes.join("; "));
    cell
}

/// One run: through what something was found, and what of a correct cluster's finding has to be told.
async fn run(job: &Job, seed: u64, options: &Options) -> Result<(Vec<Channel>, Option<String>)> {
    let mut scenario = scenario(&job.bug, job.planted, seed)?;
    scenario.nemesis = NemesisSpec::Named(job.plan.clone());
    let results = match try_bundled(&scenario, options).await {
        Ok(results) => results,
        Err(e) if e.is::<NoProgress>() => return Ok((vec![Channel::LostProgress], None)),
        Err(e) => return Err(e),
    };
    let invalid = results.checkers.values().filter(|v| v.validity == Validity::Invalid);
    let mut channels: Vec<Channel> = invalid.map(|v| Channel::of(&v.checker)).collect();
    channels.extend(results.record.lost_progress.then_some(Channel::LostProgress));
    channels.sort_unstable();
    channels.dedup();
    let note = (!job.planted && !channels.is_empty()).then(|| format!("seed {seed}: {}", results.folder));
    Ok((channels, note))
}
