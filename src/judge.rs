//! From a run's folder to its verdict: read the history back, let every checker look at it, apply the guards.
//!
//! The history is read from disk, not from memory: what is judged is what was saved.

use crate::{
    guards::{Evidence, guards},
    objectives::objectives,
    plan::TestPlan,
    progress,
    run::Record,
    scenario::Bounds,
};
use anyhow::{Context, Result, bail};
use checkers::{
    Budget, Checker, Cut, History, ModelName, OpOutcome, Operation, Validity, Value, Verdict, bench,
    convergence,
    formats::{self, Format, Options},
    jsonl, linearizable, node_state,
    performance::{self, Performance},
    still_holds,
};
use indicatif::ProgressBar;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

/// `results.json`. The schema is documented in `docs/results.md`.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The verdict: `true`, `false` or `"unknown"`. Always the first field.
    pub valid: Validity,
    /// The version of this schema.
    pub schema: u32,
    /// The test's name.
    pub test: String,
    /// The run's seed.
    pub seed: u64,
    /// The run's folder.
    pub folder: String,
    /// Each checker's verdict, by name; the guards' among them.
    pub checkers: BTreeMap<String, Verdict>,
    /// What became of the operations.
    pub operations: Tallies,
    /// The same for each kind of operation.
    pub by_operation: BTreeMap<String, Tallies>,
    /// What the run left behind: faults, leaders, troubles.
    #[serde(flatten)]
    pub record: Record,
    /// Latencies and rates.
    pub performance: Performance,
}

impl Results {
    /// The verdicts, the worst first.
    pub fn verdicts(&self) -> Vec<&Verdict> {
        let mut all: Vec<&Verdict> = self.checkers.values().collect();
        all.sort_by_key(|v| std::cmp::Reverse(v.validity));
        all
    }
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tallies {
    /// Asked.
    pub asked: u64,
    /// Succeeded.
    pub ok: u64,
    /// Definitely did not happen.
    pub fail: u64,
    /// Nobody knows.
    pub info: u64,
}

impl Tallies {
    fn add(&mut self, outcome: &OpOutcome) {
        self.asked += 1;
        match outcome {
            OpOutcome::Ok(_) => self.ok += 1,
            OpOutcome::Fail => self.fail += 1,
            OpOutcome::Info => self.info += 1,
        }
    }
}

/// Reads a history from a file in the tester's own format.
pub fn read_history(path: &Path) -> Result<History> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    jsonl::read(BufReader::with_capacity(1 << 18, file)).with_context(|| format!("in {}", path.display()))
}

/// Reads a history from a file in any format, and says in which it was. Draws how far it is.
pub fn read_any(path: &Path, options: &Options) -> Result<(History, Format)> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (bar, file) = reading(path, file);
    let read = formats::read(BufReader::with_capacity(1 << 18, file), options);
    bar.finish_and_clear();
    read.with_context(|| format!("in {}", path.display()))
}

/// Draws how far a file is read.
pub fn reading(path: &Path, file: File) -> (ProgressBar, impl Read) {
    let bytes = file.metadata().map_or(0, |known| known.len());
    let bar = progress::of_work(&format!("reading {}", path.display()), Some(bytes));
    (bar.clone(), bar.wrap_read(file))
}

/// The history that a path means: a file, or the one in a run's folder.
pub fn history_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("history.jsonl") } else { path.to_owned() }
}

/// Says on stderr that a history was cut off, if it was.
pub fn note_cut(path: &Path, history: &History) {
    note_torn(path, history.cut.as_ref());
}

/// The same of a history that was not kept.
pub fn note_torn(path: &Path, cut: Option<&Cut>) {
    if let Some(cut) = cut {
        eprintln!(
            "note: {} is cut off at line {}: {}; going on with what is before",
            path.display(),
            cut.line,
            cut.reason
        );
    }
}

/// Lets a checker work for a bounded time and with bounded memory. Both bounds end in `Unknown`.
pub fn bounded(checker: &dyn Checker, history: &History, bounds: &Bounds) -> Verdict {
    let limit = bounds.check.0;
    with_alarm(limit, bounds.check_memory_mb << 20, |budget| {
        let mut verdict = checker.check(history, budget);
        if verdict.validity == Validity::Unknown && budget.is_cancelled() {
            let why = verdict.reason.take().unwrap_or_default();
            verdict.reason = Some(format!("not decided within {}: {why}", seconds(limit)));
        }
        verdict
    })
}

/// Works with a budget that is cancelled when the time is up.
fn with_alarm<T>(limit: Duration, bytes: u64, work: impl FnOnce(&Budget) -> T) -> T {
    let cancel = Arc::new(AtomicBool::new(false));
    let budget = Budget::new(cancel.clone(), bytes);
    let (done, finished) = mpsc::channel::<()>();
    let alarm = std::thread::spawn(move || {
        if finished.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            cancel.store(true, Relaxed);
        }
    });
    let result = work(&budget);
    drop(done);
    let _ = alarm.join();
    result
}

fn seconds(d: Duration) -> String {
    nemesis::Span(d).to_string()
}

/// Says beside the verdict on linearizability, which is `Invalid`, what still holds.
pub fn note_what_still_holds(verdict: &mut Verdict, history: &History, initial: Value) {
    // A remark must not take longer than what it is a remark on.
    const MEMORY: u64 = 512 << 20;
    const LIMIT: Duration = Duration::from_secs(10);
    let holds = with_alarm(LIMIT, MEMORY, |budget| still_holds(history, initial, budget));
    if let Ok(json) = serde_json::to_value(holds) {
        verdict.stats.insert("still_holds".into(), json);
    }
}

/// A checker that a workload asks for, as this plan wants it.
///
/// # Errors
/// If there is none of that name.
pub fn checker(name: &str, plan: &TestPlan) -> Result<Box<dyn Checker>> {
    match name {
        "linearizable" => {
            let model: ModelName = plan.scenario.workload.info().model.parse().map_err(anyhow::Error::msg)?;
            Ok(Box::new(linearizable(model)))
        }
        "convergence" => {
            let stand_still_ns = plan.scenario.bounds.stand_still.ns();
            Ok(Box::new(convergence::convergence(convergence::Options { stand_still_ns })))
        }
        other => bail!("no workload can be judged by a checker `{other}`"),
    }
}

/// Judges a run from what is in its folder.
pub fn judge(history: &Path, plan: &TestPlan, mut record: Record, folder: &Path) -> Result<Results> {
    let history = read_history(history)?;
    let operations = history.operations().context("the history that was recorded is broken")?;
    let workload = &plan.scenario.workload;
    let info = workload.info();
    let mut checkers = BTreeMap::new();
    let bounds = &plan.scenario.bounds;
    for name in info.checkers {
        let seen = if *name == "linearizable" { record.online.take() } else { None };
        let mut verdict = match seen {
            Some(verdict) if verdict.validity == Validity::Valid => verdict,
            // For evidence, and since who sees everything may know more.
            seen => second_opinion(seen, bounded(&*checker(name, plan)?, &history, bounds)),
        };
        if *name == "linearizable" && verdict.validity == Validity::Invalid {
            note_what_still_holds(&mut verdict, &history, Value::Nil);
        }
        checkers.insert(verdict.checker.clone(), verdict);
    }
    if logs_were_looked_through(&history) {
        let verdict = bounded(&bench::log_patterns(), &history, bounds);
        checkers.insert(verdict.checker.clone(), verdict);
    }
    if node_state::were_looked_at(&history) {
        let verdict = bounded(&bench::node_invariants(), &history, bounds);
        checkers.insert(verdict.checker.clone(), verdict);
    }
    let wanted = &plan.scenario.objectives;
    let verdict = bounded(&bench::availability(wanted.availability), &history, bounds);
    checkers.insert(verdict.checker.clone(), verdict);
    if !wanted.latency.0.is_empty() {
        let verdict = bounded(&bench::latency(wanted.latency.clone()), &history, bounds);
        checkers.insert(verdict.checker.clone(), verdict);
    }
    let kinds = workload.ops();
    let planned: Vec<String> = plan.faults.kinds().iter().map(|k| k.name().to_owned()).collect();
    let guarded = guards(&Evidence {
        operations: &operations,
        record: &record,
        kinds: &kinds,
        replicas: info.checkers.contains(&"convergence"),
        planned: &planned,
        schedule: &plan.schedule,
    });
    checkers.insert(guarded.checker.clone(), guarded);
    let objectives = objectives(wanted, &checkers);
    checkers.extend(objectives.map(|verdict| (verdict.checker.clone(), verdict)));
    let (all, by_operation) = tallies(&operations);
    // Warming up and final reads are no load.
    let load: Vec<Operation> = operations.into_iter().filter(|o| o.meta.phase.is_none()).collect();
    Ok(Results {
        valid: Validity::merge(checkers.values().map(|v| v.validity)),
        schema: 1,
        test: plan.scenario.name.clone(),
        seed: plan.seed,
        folder: folder.display().to_string(),
        checkers,
        operations: all,
        by_operation,
        record,
        performance: performance::analyse(&load),
    })
}

/// What the judge of the whole history says, after one that watched the run and did not pass it. A violation that was seen stays
/// one, even if it could not be found again within the bounds.
fn second_opinion(seen: Option<Verdict>, whole: Verdict) -> Verdict {
    let Some(mut seen) = seen.filter(|seen| seen.validity == Validity::Invalid) else { return whole };
    match whole.validity {
        Validity::Invalid => whole,
        Validity::Unknown => {
            let why = [seen.reason.take(), whole.reason].map(Option::unwrap_or_default);
            seen.reason =
                Some(format!("{}, as was seen while it ran; of the whole history: {}", why[0], why[1]));
            seen
        }
        Validity::Valid => Verdict::unknown(
            whole.checker,
            "two judges disagree: one saw a violation while it ran, another finds none in what was recorded; please report \
             this as a bug, with the history",
        ),
    }
}

/// Whether there were logs to look through. A cluster that nobody here started keeps its own.
fn logs_were_looked_through(history: &History) -> bool {
    // They are looked through when all else is over.
    let last = history.events.len().checked_sub(1).map(|at| history.events.get(at));
    last.is_some_and(|event| event.op.f() == bench::LOG_SCAN)
}

fn tallies(operations: &[Operation]) -> (Tallies, BTreeMap<String, Tallies>) {
    let mut all = Tallies::default();
    let mut by: BTreeMap<String, Tallies> = BTreeMap::new();
    for op in operations {
        all.add(&op.outcome);
        by.entry(op.op.f().to_owned()).or_default().add(&op.outcome);
    }
    (all, by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn a_violation_that_was_seen_is_not_forgotten() {
        let verdict = |validity: Validity| Verdict { validity, ..Verdict::unknown("linearizable", "why") };
        use Validity::{Invalid, Unknown, Valid};
        for (seen, whole, expected) in [
            (None, Valid, Valid),
            (None, Unknown, Unknown),
            (Some(Unknown), Valid, Valid),
            (Some(Unknown), Invalid, Invalid),
            (Some(Invalid), Invalid, Invalid),
            (Some(Invalid), Unknown, Invalid),
            (Some(Invalid), Valid, Unknown),
        ] {
            let both = second_opinion(seen.map(verdict), verdict(whole));
            assert_eq!(both.validity, expected, "{seen:?} {whole:?}");
        }
    }

    #[test]
    fn every_workload_is_judged_by_checkers_that_exist() {
        for workload in workloads::WORKLOADS {
            let mut scenario = Scenario::default();
            scenario.workload.name = workload.name.to_owned();
            let plan = TestPlan::new(&scenario, 1).unwrap();
            assert!(!workload.checkers.is_empty(), "nobody judges {}", workload.name);
            for name in workload.checkers {
                assert_eq!(checker(name, &plan).unwrap().name(), *name);
            }
        }
    }
}
