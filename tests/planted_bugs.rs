//! Every bug of the first part of the catalogue is caught, and the correct cluster is left alone under the very same tests and plans.
//!
//! One seed each. How often each bug is found over many seeds is measured by `tribunal bugs`; see the README.

mod common;

use common::{can, ended_well, processes_in, results, run, tribunal};
use nemesis::Capability;
use std::{collections::BTreeSet, sync::Mutex};
use tribunal::{
    bugs::{Known, known, scenario},
    machine,
    plan::TestPlan,
};

/// Runs that go on at the same time: they wait more than they work.
const AT_ONCE: usize = 3;

/// Whether the plan that reveals a bug can be carried out here: some need a disk that fails, or a wrong clock.
fn possible(bug: &Known) -> bool {
    let scenario = scenario(bug, true, 1).expect("the bug's test and plan are there");
    let needs = TestPlan::new(&scenario, 1).expect("they make a plan").faults.needs();
    let asks = |capability| needs.contains(&capability);
    let disk =
        if asks(Capability::Disk) || asks(Capability::PowerFailure) { machine::fuse() } else { Ok(()) };
    let clock = if asks(Capability::Clock) { machine::clocks() } else { Ok(()) };
    can(&format!("what `{}` needs", bug.name), disk.and(clock))
}

/// Does a job for each of the bugs, a few at a time, and fails with all that went wrong.
fn for_each(mut bugs: Vec<Known>, job: impl Fn(&Known) -> Result<(), String> + Sync) {
    bugs.retain(|bug| bug.always && possible(bug));
    let (queue, wrong) = (Mutex::new(bugs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(bug) = queue.lock().unwrap().pop() else { return };
                    if let Err(why) = job(&bug) {
                        wrong.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_planted_bug_is_caught() {
    assert!(known().len() >= 8, "the catalogue has shrunk");
    for_each(known(), |bug| {
        let mut outcomes = Vec::new();
        // Finding one is a matter of chances, on real processes also with the same seed: longer than by default (the run ends at the first
        // violation), and with other seeds if need be.
        for seed in ["1", "2", "3"] {
            let folder = tempfile::tempdir().unwrap();
            let args = ["run", "--bug", bug.name, "--seed", seed, "--time-limit", "40s"];
            let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
            println!("{}, seed {seed}: exit code {code}", bug.name);
            let left = processes_in(folder.path());
            if !left.is_empty() {
                return Err(format!("{} left {left:?}", bug.name));
            }
            let r = results(folder.path());
            let verdict = &r["checkers"]["linearizable"];
            if code == 1 && verdict["valid"] == false {
                let anomaly = &verdict["anomalies"][0];
                let evidence = anomaly["details"]["minimal"].as_array().is_some_and(|ids| !ids.is_empty());
                return match r["valid"] == false && evidence && anomaly["picture"].is_string() {
                    true => Ok(()),
                    false => Err(format!("{}: no evidence in {r}", bug.name)),
                };
            }
            outcomes.push(format!("seed {seed}: exit code {code}\n{stdout}\n{stderr}"));
        }
        Err(format!("{} was not caught by clients\n{}", bug.name, outcomes.join("\n")))
    });
}

#[test]
fn the_correct_cluster_is_left_alone_under_the_same_plans() {
    let mut seen = BTreeSet::new();
    let mut different = known();
    different.retain(|bug| seen.insert((bug.workload, bug.plan, bug.protocol.to_string())));
    for_each(different, |bug| {
        let folder = tempfile::tempdir().unwrap();
        let protocol = bug.protocol.to_string();
        let args = ["run", bug.workload, "--nemesis", bug.plan, "--protocol", &protocol, "--seed", "1"];
        let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
        println!("{} under {}: exit code {code}", bug.workload, bug.plan);
        let left = processes_in(folder.path());
        let ended =
            if left.is_empty() { ended_well(folder.path(), code) } else { Err(format!("left {left:?}")) };
        // Which faults bite in a run of this length depends on the machine, and is not what is tested here.
        ended.map_err(|why| format!("{} under {}: {why}\n{stdout}\n{stderr}", bug.workload, bug.plan))
    });
}
