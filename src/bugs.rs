//! The planted bugs of the bundled cluster, as the tester knows them: names, stories, and the test that reveals each.
//!
//! The only file of the tester that looks into the catalogue and the models of the bundled cluster.

use crate::scenario::{
    NemesisSpec, Protocol, Scenario,
    diagnostic::{Diagnostic, did_you_mean},
};
use anyhow::Result;

/// A planted bug, as the catalogue of the bundled cluster has it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// What kind of bug it is.
    pub family: &'static str,
    /// Which promise it breaks.
    pub breaks: &'static str,
    /// Where mistakes of its kind were seen.
    pub seen_in: &'static str,
    /// The situation that reveals it.
    pub reveals: &'static str,
    /// The test that reveals it.
    pub workload: &'static str,
    /// The fault plan that reveals it.
    pub plan: &'static str,
    /// The protocol that it lives in.
    pub protocol: Protocol,
    /// Whether every change to the tester is tried with it.
    pub always: bool,
    /// Why clients of real processes see nothing of it, or hardly anything.
    pub hidden: Option<&'static str>,
    /// Whether no judge is expected to find it, only a script.
    pub scripted: bool,
}

/// All of them.
pub fn known() -> Vec<Known> {
    let known = |b: &paxos_kv::bugs::BugInfo| Known {
        name: b.name,
        family: b.family,
        breaks: b.breaks,
        seen_in: b.seen_in,
        reveals: b.reveals,
        workload: b.workload,
        plan: b.plan,
        protocol: if b.protocol == "basic-paxos" { Protocol::BasicPaxos } else { Protocol::MultiPaxos },
        always: paxos_kv::bugs::first().iter().any(|first| first.bug == b.bug),
        hidden: paxos_kv::bugs::hidden(b.bug),
        scripted: paxos_kv::bugs::scripted(b.bug),
    };
    paxos_kv::bugs::catalogue().iter().map(known).collect()
}

/// One of them, or what is wrong with the name.
pub fn find(name: &str) -> Result<Known, String> {
    let all = known();
    let names: Vec<&str> = all.iter().map(|b| b.name).collect();
    let hint = did_you_mean(name, &names);
    let missing = || format!("there is no bug `{name}`{hint} (there is {})", names.join(", "));
    all.iter().find(|b| b.name == name).cloned().ok_or_else(missing)
}

/// The test that is named, or that of the bug with its plan and protocol, or the default; with the bug planted.
pub fn test_of(test: Option<&str>, bug: Option<&str>) -> Result<Scenario, Diagnostic> {
    let bug = bug.map(find).transpose().map_err(Diagnostic::plain)?;
    let of_bug = bug.as_ref().map(|bug| bug.workload);
    let mut s = Scenario::load(test.or(of_bug).unwrap_or("register"))?;
    if let Some(bug) = bug {
        s.cluster.bug = Some(bug.name.to_owned());
        if test.is_none() {
            s.nemesis = NemesisSpec::Named(bug.plan.to_owned());
            s.cluster.protocol = bug.protocol;
        }
    }
    Ok(s)
}

/// The scenario in which a bug is looked for; without the bug it is its control.
pub fn scenario(bug: &Known, planted: bool, seed: u64) -> Result<Scenario> {
    let mut s = Scenario::load(bug.workload)?;
    s.nemesis = NemesisSpec::Named(bug.plan.to_owned());
    s.cluster.protocol = bug.protocol;
    s.cluster.bug = planted.then(|| bug.name.to_owned());
    s.name =
        if planted { format!("bug-{}", bug.name) } else { format!("control-{}-{}", bug.workload, bug.plan) };
    s.seed = Some(seed);
    Ok(s)
}

/// Looks at every state of the small model in which a bug can be seen: the model's name, what is wrong in one of its states, and how many states were seen.
/// Nothing if there is no such model.
pub fn explore(bug: &Known) -> Option<(&'static str, Option<&'static str>, usize)> {
    let (name, cluster) = paxos_kv::model::of_bug(paxos_kv::bugs::find(bug.name).ok()?)?;
    let seen = cluster.explore();
    Some((name, seen.wrong.map(|(what, _)| what), seen.states))
}
