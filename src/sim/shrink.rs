//! Less of a failing run: fewer faults, fewer operations, shorter, while the same checker still finds something.
//!
//! ```text
//! the plan as it was carried out (named nodes, named links, fixed times)
//!   └▶ shorter ─▶ fewer faults ─▶ fewer operations ─▶ shorter faults ─▶ once more, until nothing helps or the trials are used up
//! ```
//!
//! Each trial is a run of its own, with the same seed: a fault that is left out moves no other, and an operation that is left out
//! is drawn and not asked. But every message draws its delay, so that one message less moves all that come after it; a failure that hangs by
//! a hair is then gone. Where that leaves much, other seeds are tried as well: what is left is a run of the same kind that fails in the
//! same way. (Delta debugging; Zeller and Hildebrandt, 2002.) What is left is a plan that anybody can run again. Deliberately bounded by a number of
//! trials, not by time: the same failure shrinks to the same plan everywhere.

use super::{Judged, Run, judge, simulate};
use crate::{
    plan::TestPlan,
    scenario::{NemesisSpec, Scenario},
};
use anyhow::{Context, Result};
use nemesis::{Fault, FaultKind, LinkShape, Plan, Receipt, Span, Step, Target, plan::Explicit};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// Runs that one shrinking may take.
pub const TRIALS_MAX: u32 = 500;
/// Of these, with the first seed only.
const TRIALS_WITH_ONE_SEED: u32 = 250;
/// A run with no more operations than this can be read.
const FEW_OPERATIONS: usize = 60;
/// So many more seeds are tried of what is left of a run that cannot be read yet.
const OTHER_SEEDS: u64 = 4;

/// A run that can be made again.
#[derive(Clone, Debug)]
pub struct Case {
    /// The test, its fault plan written out.
    pub scenario: Scenario,
    /// Its seed.
    pub seed: u64,
    /// The arrivals that are really asked; all if there is no list.
    pub only: Option<Arc<[u64]>>,
}

/// A run that was shrunk.
#[derive(Debug)]
pub struct Shrunk {
    /// What is left.
    pub case: Case,
    /// What it does.
    pub run: Run,
    /// What is found in it.
    pub judged: Judged,
    /// The seed of the first run. That of what is left may be another.
    pub seed: u64,
    /// Runs that were made to find it.
    pub trials: u32,
    /// Faults, operations and length of the load: of the first run, and of what is left.
    pub sizes: [Size; 2],
}

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Faults.
    pub faults: usize,
    /// Operations that were asked under load.
    pub operations: usize,
    /// The length of the load.
    pub load: Span,
}

struct Shrinking<'a> {
    wrong: &'a str,
    trials: u32,
    most: u32,
    /// How many more seeds each case is tried with.
    others: u64,
    best: Case,
}

/// Shrinks a run in which something is `wrong`, as [`Judged::wrong`] says it.
///
/// # Errors
/// If the run does not fail when it is made again, or the tester made a mistake.
pub fn shrink(case: &Case, wrong: &str) -> Result<Shrunk> {
    let plan = TestPlan::new(&case.scenario, case.seed)?;
    let first = simulate(&plan, case.only.clone());
    let all: Arc<[u64]> = case.only.clone().unwrap_or_else(|| (0..first.arrived).collect());
    let of = |case: &Case, faults: usize, asked: &[u64]| Size {
        faults,
        operations: asked.len(),
        load: case.scenario.load.time_limit,
    };
    let before = of(case, plan.schedule.steps.len(), &all);
    let (trials, most) = (0, TRIALS_WITH_ONE_SEED);
    let mut shrinking = Shrinking { wrong, trials, most, others: 0, best: case.clone() };
    let explicit = as_carried_out(&plan, &first.record.faults);
    // With the arrivals that there were: where fewer faults hold clients up there would be more.
    shrinking.attempt(Case { only: Some(all.clone()), ..with_plan(case, explicit) });
    shrinking.rounds()?;
    shrinking.most = TRIALS_MAX;
    if shrinking.asked()? > FEW_OPERATIONS {
        shrinking.others = OTHER_SEEDS;
    }
    shrinking.rounds()?;
    let Shrinking { best, trials, .. } = shrinking;
    let plan = TestPlan::new(&best.scenario, best.seed)?;
    let run = simulate(&plan, best.only.clone());
    let judged = judge(&run, &plan)?;
    let kept = best.only.clone().unwrap_or_else(|| (0..run.arrived).collect());
    let asked: Vec<u64> = kept.iter().copied().filter(|at| *at < run.arrived).collect();
    let after = of(&best, plan.schedule.steps.len(), &asked);
    Ok(Shrunk { case: best, run, judged, seed: case.seed, trials, sizes: [before, after] })
}

impl Shrinking<'_> {
    /// Makes everything less by turns, until nothing becomes less or the trials are used up.
    fn rounds(&mut self) -> Result<()> {
        let mut size = (usize::MAX, usize::MAX, Span::default());
        loop {
            self.shorter();
            self.fewer_faults();
            self.fewer_operations()?;
            self.shorter_faults();
            let best = &self.best;
            let only = best.only.as_ref().map_or(0, |only| only.len());
            let now = (steps(&best.scenario).len(), only, best.scenario.load.time_limit);
            if now == size || self.trials >= self.most {
                return Ok(());
            }
            size = now;
        }
    }

    /// How many operations are really asked.
    fn asked(&self) -> Result<usize> {
        let plan = TestPlan::new(&self.best.scenario, self.best.seed)?;
        let arrived = simulate(&plan, self.best.only.clone()).arrived;
        let asked = |only: &Arc<[u64]>| only.iter().filter(|at| **at < arrived).count();
        Ok(self.best.only.as_ref().map_or(arrived as usize, asked))
    }

    /// Takes a smaller case if the same is wrong with it, perhaps with another seed.
    fn attempt(&mut self, case: Case) -> bool {
        let others = (1..=self.others).map(|more| case.seed.wrapping_add(more));
        let seeds: Vec<u64> = std::iter::once(case.seed).chain(others).collect();
        seeds.into_iter().any(|seed| self.attempt_one(Case { seed, ..case.clone() }))
    }

    fn attempt_one(&mut self, case: Case) -> bool {
        if self.trials >= self.most {
            return false;
        }
        self.trials += 1;
        let fails = || -> Result<bool> {
            let plan = TestPlan::new(&case.scenario, case.seed)?;
            let judged = judge(&simulate(&plan, case.only.clone()), &plan)?;
            Ok(judged.shows(self.wrong))
        };
        // A case that cannot be run is none.
        let fails = fails().unwrap_or(false);
        if fails {
            self.best = case;
        }
        fails
    }

    fn shorter(&mut self) {
        while [4, 8, 12, 14, 15].into_iter().any(|sixteenths| {
            let ms = self.best.scenario.load.time_limit.0.as_millis() as u64 * sixteenths / 16;
            ms > 0 && self.attempt(within(&self.best, Span::ms(ms)))
        }) {}
    }

    fn fewer_faults(&mut self) {
        let best = self.best.clone();
        reduce(steps(&best.scenario), |left| {
            let plan = Plan { steps: left.to_vec(), ..plan_of(&self.best.scenario) };
            self.attempt(with_plan(&self.best, plan))
        });
    }

    fn fewer_operations(&mut self) -> Result<()> {
        let plan = TestPlan::new(&self.best.scenario, self.best.seed)?;
        let arrived = simulate(&plan, self.best.only.clone()).arrived;
        let only = self.best.only.clone().unwrap_or_else(|| (0..arrived).collect());
        let asked: Vec<u64> = only.iter().copied().filter(|at| *at < arrived).collect();
        reduce(asked, |left| {
            let case = Case { only: Some(left.into()), ..self.best.clone() };
            self.attempt(case)
        });
        Ok(())
    }

    fn shorter_faults(&mut self) {
        for at in 0..steps(&self.best.scenario).len() {
            for _ in 0..4 {
                let mut plan = plan_of(&self.best.scenario);
                let Some(step) = plan.steps.get_mut(at) else { break };
                let half = Span::ms(step.lasts.0.as_millis() as u64 / 2);
                if half.is_zero() {
                    break;
                }
                step.lasts = half;
                if !self.attempt(with_plan(&self.best, plan)) {
                    break;
                }
            }
        }
    }
}

/// Leaves out as much as possible: halves first, then ever smaller parts. `holds` says whether what is left will do.
fn reduce<T: Clone>(mut items: Vec<T>, mut holds: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut part = items.len().div_ceil(2);
    while part > 0 && !items.is_empty() {
        let mut at = 0;
        while at < items.len() {
            let left: Vec<T> = items.iter().take(at).chain(items.iter().skip(at + part)).cloned().collect();
            if holds(&left) {
                items = left;
            } else {
                at += part;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    items
}

fn plan_of(scenario: &Scenario) -> Plan {
    // It was carried out, so that it can be read.
    scenario.plan().unwrap_or_default()
}

fn steps(scenario: &Scenario) -> Vec<Explicit> {
    plan_of(scenario).steps
}

fn with_plan(case: &Case, plan: Plan) -> Case {
    let scenario = Scenario { nemesis: NemesisSpec::Inline(Box::new(plan)), ..case.scenario.clone() };
    Case { scenario, ..case.clone() }
}

/// The same for a shorter time: faults that would begin later are left out, others end before.
fn within(case: &Case, limit: Span) -> Case {
    let mut plan = plan_of(&case.scenario);
    let last = limit.0.saturating_sub(Duration::from_millis(1));
    plan.steps.retain(|step| step.at.0 < last);
    for step in &mut plan.steps {
        let left = last.saturating_sub(step.at.0 + Duration::from_nanos(1));
        step.lasts = Span(step.lasts.0.min(Duration::from_millis(left.as_millis() as u64)));
    }
    let mut shorter = with_plan(case, plan);
    shorter.scenario.load.time_limit = limit;
    shorter
}

/// The plan that says what was really done: fixed times, and the nodes and links that were hit.
fn as_carried_out(plan: &TestPlan, receipts: &[Receipt]) -> Plan {
    let explicit = |step: &Step| {
        let receipt = receipts.iter().find(|receipt| receipt.step == step.id)?;
        let target = match receipt.targets.as_slice() {
            [] => Target::default(),
            names => Target::Named(names.iter().map(|name| name.as_str().into()).collect()),
        };
        let mut fault = Fault { target, weight: 1, ..step.fault.clone() };
        if fault.fault == FaultKind::Partition {
            (fault.shape, fault.groups, fault.target) = (None, vec![], Target::default());
            fault.cut = receipt.links.iter().filter_map(|link| link.parse().ok()).collect();
        }
        let hit = !receipt.targets.is_empty() || !fault.cut.is_empty();
        let lasts = Span(step.until.0.saturating_sub(step.at.0));
        hit.then_some(Explicit { at: step.at, lasts, fault })
    };
    Plan {
        links: plan.faults.links,
        steps: plan.schedule.steps.iter().filter_map(explicit).collect(),
        ..Plan::default()
    }
}

/// A plan as a file, without what is left at its default.
///
/// # Errors
/// If it cannot be written as YAML.
pub fn yaml(plan: &Plan) -> Result<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct File<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        links: Option<LinkShape>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        steps: &'a [Explicit],
    }
    let links = (plan.links != LinkShape::default()).then_some(plan.links);
    serde_yaml::to_string(&File { links, steps: &plan.steps }).context("the plan cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let needs = |left: &[u32]| left.contains(&3) && left.contains(&40);
        assert_eq!(reduce((0..100).collect::<Vec<u32>>(), needs), [3, 40]);
        assert!(reduce((0..5).collect::<Vec<u32>>(), |_| true).is_empty());
        assert_eq!(reduce(vec![7], |left: &[u32]| !left.is_empty()), [7]);
    }

    /// Where faults that held clients up are left out, more operations arrive; and one that is left out may move the failure away.
    #[test]
    fn what_is_left_is_never_more_than_there_was() {
        let mut scenario = Scenario::load("hunt").unwrap();
        scenario.nemesis = NemesisSpec::Named("kill-all".to_owned());
        scenario.cluster.bug = Some("accept-not-synced".to_owned());
        (scenario.load.rate, scenario.load.time_limit) = (60.0, Span::ms(8_000));
        let fails = |seed: &u64| {
            let plan = TestPlan::new(&scenario, *seed).unwrap();
            judge(&simulate(&plan, None), &plan).unwrap().findings().contains(&super::super::INVARIANTS)
        };
        let seed = (1..100).find(fails).expect("the bug is found");
        let case = Case { scenario, seed, only: None };
        let shrunk = shrink(&case, super::super::INVARIANTS).unwrap();
        let [before, after] = shrunk.sizes;
        assert!(
            after.faults <= before.faults && after.operations <= before.operations,
            "{before:?} {after:?}"
        );
        assert!(
            after.load <= before.load && after.operations < before.operations / 2,
            "{before:?} {after:?}"
        );
        assert!(shrunk.judged.findings().contains(&super::super::INVARIANTS) && shrunk.seed == seed);
    }

    /// Nothing is found in its history, and it is shrunk all the same.
    #[test]
    fn a_cluster_that_stands_still_is_shrunk_too() {
        let mut scenario = Scenario::load("hunt-wide").unwrap();
        scenario.nemesis = NemesisSpec::Named("flaky".to_owned());
        scenario.cluster.bug = Some("gaps-not-filled".to_owned());
        (scenario.load.rate, scenario.load.time_limit) = (60.0, Span::ms(8_000));
        let stands_still = |seed: &u64| {
            let plan = TestPlan::new(&scenario, *seed).unwrap();
            judge(&simulate(&plan, None), &plan).unwrap().wrong() == Some(super::super::PROGRESS)
        };
        let seed = (1..200).find(stands_still).expect("the bug is found");
        let shrunk = shrink(&Case { scenario, seed, only: None }, super::super::PROGRESS).unwrap();
        let [before, after] = shrunk.sizes;
        assert!(!shrunk.judged.troubles.is_empty());
        assert!(after.faults < before.faults && after.operations < before.operations, "{before:?} {after:?}");
    }

    #[test]
    fn the_plan_as_carried_out_gives_the_same_run() {
        let mut scenario = Scenario::load("hunt").unwrap();
        scenario.nemesis = NemesisSpec::Named("storm".to_owned());
        (scenario.load.rate, scenario.load.time_limit) = (40.0, Span::ms(8_000));
        for seed in 1..6 {
            let plan = TestPlan::new(&scenario, seed).unwrap();
            let first = simulate(&plan, None);
            let explicit = as_carried_out(&plan, &first.record.faults);
            let text = yaml(&explicit).unwrap();
            let read: Plan = serde_yaml::from_str(&text).unwrap();
            let case = Case { scenario: scenario.clone(), seed, only: None };
            let again = TestPlan::new(&with_plan(&case, read).scenario, seed).unwrap();
            let again = simulate(&again, None);
            let seen = |run: &Run| run.history.operations().unwrap();
            assert_eq!(seen(&first), seen(&again), "seed {seed}: {text}");
        }
    }
}
