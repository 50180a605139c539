//! Every planted bug is caught, and the correct cluster is left alone under the very same tests and plans.
//!
//! One seed each. How often each bug is found over many seeds is measured by `tribunal bugs`; see the README.

mod common;

use common::{processes_in, results, run, tribunal};
use std::collections::BTreeSet;
use tribunal::cli::bugs::known;

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    assert!(known().len() >= 8, "the catalogue has shrunk");
    for bug in known() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than by default: the run ends at the first violation, and finding one is a matter of chances.
        let args = ["run", "--bug", bug.name, "--seed", "1", "--time-limit", "40s"];
        let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
        println!("{}: exit code {code}", bug.name);
        if code != 1 {
            missed.push(format!("{}: exit code {code}\n{stdout}\n{stderr}", bug.name));
            continue;
        }
        let r = results(folder.path());
        assert_eq!(r["valid"], false);
        let anomaly = &r["checkers"]["linearizable"]["anomalies"][0];
        assert!(!anomaly["details"]["minimal"].as_array().unwrap().is_empty(), "{}: no evidence", bug.name);
        assert!(anomaly["picture"].is_string(), "{}: no picture", bug.name);
        assert_eq!(processes_in(folder.path()), Vec::<String>::new());
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n\n"));
}

#[test]
fn the_correct_cluster_is_left_alone_under_the_same_plans() {
    let mut seen = BTreeSet::new();
    for bug in known() {
        if !seen.insert((bug.workload, bug.plan, bug.protocol.to_string())) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let protocol = bug.protocol.to_string();
        let args = ["run", bug.workload, "--nemesis", bug.plan, "--protocol", &protocol, "--seed", "1"];
        let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
        println!("{} under {}: exit code {code}", bug.workload, bug.plan);
        assert_eq!(code, 0, "{} under {}:\n{stdout}\n{stderr}", bug.workload, bug.plan);
    }
}
