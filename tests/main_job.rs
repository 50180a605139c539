//! The main job, end to end: a correct cluster under faults is valid and leaves nothing behind; so does a controller
//! that is interrupted, or killed.

mod common;

use common::{eventually, processes_in, results, run, run_folder, tribunal};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Whether most of what was asked for succeeded: how much that is depends on the machine.
fn most_succeeded(results: &serde_json::Value) -> bool {
    let count = |what: &str| results["operations"][what].as_u64().unwrap();
    count("ok") * 2 > count("asked") && count("asked") > 100
}

#[test]
fn the_default_run_is_valid_and_not_vacuous() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(["run", "--seed", "7"]));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let r = results(folder.path());
    assert_eq!(r["valid"], true);
    assert!(most_succeeded(&r), "{}", r["operations"]);
    for kind in ["kill", "pause", "partition"] {
        let seen =
            r["faults"].as_array().unwrap().iter().any(|f| f["kind"] == kind && f["effect"]["seen"] == true);
        assert!(seen, "no {kind} was seen to have an effect");
    }
    assert!(r["leaders"].as_array().unwrap().len() > 1, "leadership never changed");
    for what in [
        "VALID register (seed 7)",
        "p99.9",
        "1-rtt",
        "lease-read",
        "commit at proposer",
        "leadership changed",
    ] {
        assert!(stdout.contains(what), "`{what}` is missing in\n{stdout}");
    }
    let latest = folder.path().join("store/latest");
    for file in [
        "test.yaml",
        "history.jsonl",
        "report.html",
        "junit.xml",
        "tribunal.log",
        "nodes/n1.log",
        "latency-1-rtt.hgrm",
    ] {
        assert!(latest.join(file).exists(), "{file} is missing");
    }
    assert_eq!(processes_in(folder.path()), Vec::<String>::new());

    // What was stored can be judged again, and run again.
    let (code, stdout, _) = run(tribunal(folder.path()).args(["check", "store/latest", "--json"]));
    assert_eq!(code, 0, "{stdout}");
    let (_, first, _) = run(tribunal(folder.path()).args(["run", "store/latest/test.yaml", "--dry-run"]));
    let (_, named, _) = run(tribunal(folder.path()).args(["run", "register", "--seed", "7", "--dry-run"]));
    assert_eq!(first, named, "test.yaml is the test as it was run");
}

#[test]
fn the_same_over_http_and_judged_while_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let args =
        ["run", "register-http", "--time-limit", "12s", "--nemesis", "kill", "--seed", "3", "--online"];
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let results = results(folder.path());
    assert!(most_succeeded(&results), "{}", results["operations"]);
    let stats = &results["checkers"]["linearizable"]["stats"];
    let judged = stats["judged"].as_u64().unwrap() * 2 > results["operations"]["ok"].as_u64().unwrap();
    assert_eq!((&stats["online"], judged), (&true.into(), true), "{stats}");
}

#[test]
fn a_run_ends_at_its_first_violation() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["run", "--bug", "quorum-off-by-one", "--seed", "1", "--time-limit", "60s", "--fail-fast"];
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
    assert_eq!(code, 1, "{stdout}\n{stderr}");
    let results = results(folder.path());
    assert_eq!(results["stopped_early"], true);
    assert!(
        results["checkers"]["linearizable"]["anomalies"][0]["picture"].is_string(),
        "evidence of the whole"
    );
}

/// A run that is under load, with nodes up.
fn under_load(folder: &Path) -> Child {
    let mut command = tribunal(folder);
    command.args(["run", "--time-limit", "60s", "--nemesis", "pause", "--seed", "1"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the run is under load", LIMIT, || {
        let history = run_folder(folder, "register").map(|f| f.join("history.jsonl"));
        history.and_then(|h| std::fs::read_to_string(h).ok()).is_some_and(|t| t.lines().count() > 400)
    });
    assert_eq!(processes_in(folder).len(), 5, "five nodes");
    child
}

#[test]
fn a_killed_controller_leaves_no_process_and_a_history_that_can_be_judged() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = under_load(folder.path());
    // In the midst of a pause: a stopped process must die as well.
    let log = run_folder(folder.path(), "register").unwrap().join("tribunal.log");
    eventually("a node is paused", LIMIT, || {
        std::fs::read_to_string(&log)
            .is_ok_and(|t| t.lines().last().is_some_and(|l| l.contains("started pause")))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("every node has ended", LIMIT, || processes_in(folder.path()).is_empty());
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(["check", "store/latest"]));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert!(stdout.contains("linearizable: valid"), "{stdout}");
    // And nothing stands in the way of the next run.
    let args = ["run", "--time-limit", "2s", "--nemesis", "none", "--seed", "1"];
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
}

#[test]
fn ctrl_c_heals_tears_down_and_judges_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let child = under_load(folder.path());
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut child = child;
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(2), "an interrupted run is no pass");
    let r = results(folder.path());
    assert_eq!(r["valid"], "unknown");
    assert_eq!(r["checkers"]["linearizable"]["valid"], true);
    assert!(r["checkers"]["guards"]["reason"].as_str().unwrap().contains("interrupted"));
    assert_eq!(processes_in(folder.path()), Vec::<String>::new());
}

#[test]
fn two_runs_side_by_side_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let start = |seed: &str| {
        let mut command = tribunal(folder.path());
        command.args(["run", "--time-limit", "6s", "--nemesis", "none", "--rate", "100", "--seed", seed]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let runs = [start("1"), start("2")];
    for mut child in runs {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn guards_turn_empty_passes_into_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 3] = [
        ("ever overlapped", &["alone.yaml"]),
        ("too short for one", &["--nemesis", "kill", "--time-limit", "2s"]),
        ("no `slow` had an effect", &["slow-nothing.yaml", "--time-limit", "5s"]),
    ];
    // A fault that does next to nothing cannot be seen to bite: the observer must say so.
    let plan = "{name: slow-nothing, nemesis: {steps: [{at: 1s, for: 1s, do: {fault: slow, link: {reset-probability: 0.000000001}}}]}}";
    std::fs::write(folder.path().join("slow-nothing.yaml"), plan).unwrap();
    // An operation that is given up overlaps with whatever follows: nothing may be given up.
    let alone = "{name: alone, nemesis: none, load: {clients: 1, time-limit: 2s, op-timeout: 60s}}";
    std::fs::write(folder.path().join("alone.yaml"), alone).unwrap();
    for (reason, args) in cases {
        let (code, stdout, stderr) = run(tribunal(folder.path()).arg("run").args(args));
        assert_eq!(code, 2, "{reason}: {stdout}\n{stderr}");
        assert!(stdout.contains(reason), "`{reason}` is missing in\n{stdout}");
    }
}
