//! Many seeds, several at a time: which is the first that fails, and what do all of them together prove?
//!
//! ```text
//! next seed ─▶ job 1 ─ simulate, judge ─┐
//!           └▶ job 2 ─ simulate, judge ─┴▶ Summary { seeds, first failing one, guards that all of them tripped }
//! ```
//!
//! The answer does not depend on the number of jobs: seeds are taken in ascending order, and after a failing one those before it
//! are finished. A guard speaks of all seeds together: what one seed did not prove, another may have. Deliberately no clock.

use super::{Judged, judge, simulate};
use crate::{plan::TestPlan, scenario::Scenario};
use anyhow::{Result, anyhow};
use checkers::Validity;
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What came of the seeds up to the first that is not valid.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many seeds were simulated.
    pub seeds: u64,
    /// Simulated time, in nanoseconds.
    pub simulated_ns: u64,
    /// Messages, ticks, syncs, calls, answers, timers.
    pub events: u64,
    /// Operations that arrived under load.
    pub operations: u64,
    /// Faults that had an effect.
    pub faults: u64,
    /// The first seed with a finding, or that is not decided.
    pub first: Option<(u64, Judged)>,
    /// What guards said, and of how many seeds.
    pub guards: BTreeMap<String, u64>,
}

impl Summary {
    /// Of everything.
    pub fn validity(&self) -> Validity {
        match &self.first {
            Some((_, judged)) => judged.validity(),
            None if self.seeds == 0 || !self.vain().is_empty() => Validity::Unknown,
            None => Validity::Valid,
        }
    }

    /// What no seed proved.
    pub fn vain(&self) -> Vec<&str> {
        self.guards.iter().filter(|(_, n)| **n == self.seeds).map(|(why, _)| why.as_str()).collect()
    }
}

struct One {
    simulated_ns: u64,
    events: u64,
    operations: u64,
    faults: u64,
    judged: Judged,
}

/// Simulates seeds until one fails. `told` is shown how many are done.
///
/// # Errors
/// If the tester made a mistake.
pub fn run(
    scenario: &Scenario,
    seeds: RangeInclusive<u64>,
    jobs: usize,
    only: Option<Arc<[u64]>>,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Summary> {
    let (next, stop, done) = (AtomicU64::new(*seeds.start()), AtomicU64::new(u64::MAX), AtomicU64::new(0));
    let results: Mutex<BTreeMap<u64, Result<One>>> = Mutex::default();
    let work = || loop {
        let seed = next.fetch_add(1, Relaxed);
        if seed > *seeds.end() || seed > stop.load(Relaxed) || seed < *seeds.start() {
            return;
        }
        let one = one(scenario, seed, only.clone());
        if !matches!(&one, Ok(one) if one.judged.validity() == Validity::Valid) {
            stop.fetch_min(seed, Relaxed);
        }
        results.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, one);
        told(done.fetch_add(1, Relaxed) + 1);
    };
    std::thread::scope(|scope| {
        // None more than there are seeds.
        let jobs = (jobs as u64).min((seeds.end() - seeds.start()).saturating_add(1));
        let others: Vec<_> = (1..jobs).map(|_| scope.spawn(work)).collect();
        work();
        others.into_iter().try_for_each(|job| job.join().map_err(|_| anyhow!("a simulation panicked")))
    })?;
    let mut summary = Summary::default();
    for (seed, one) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let one = one?;
        summary.seeds += 1;
        summary.simulated_ns += one.simulated_ns;
        summary.events += one.events;
        summary.operations += one.operations;
        summary.faults += one.faults;
        for reason in one.judged.guards.reason.iter().flat_map(|all| all.split("; ")) {
            *summary.guards.entry(kind_of(reason)).or_default() += 1;
        }
        if one.judged.validity() != Validity::Valid {
            summary.first = Some((seed, one.judged));
            break;
        }
    }
    Ok(summary)
}

/// What a guard says, without the times and counts of one run.
fn kind_of(reason: &str) -> String {
    let cut =
        reason.find(", at ").or_else(|| reason.find(" during the ")).or_else(|| reason.find(" (the first"));
    reason[..cut.unwrap_or(reason.len())].to_owned()
        + if reason.contains(" during the ") { " during faults that left a majority connected" } else { "" }
}

fn one(scenario: &Scenario, seed: u64, only: Option<Arc<[u64]>>) -> Result<One> {
    let plan = TestPlan::new(scenario, seed)?;
    let run = simulate(&plan, only);
    let judged = judge(&run, &plan)?;
    Ok(One {
        simulated_ns: run.simulated_ns,
        events: run.events,
        operations: run.arrived,
        faults: run.record.faults.iter().filter(|fault| fault.effect.seen).count() as u64,
        judged,
    })
}
