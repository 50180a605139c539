//! The checker `node-invariants` on real runs: it finds what clients rarely see, and leaves the correct cluster alone.

mod common;

use common::{results, run, tribunal};
use serde_json::Value;

/// What a run with these arguments came to.
fn run_of(args: &[&str]) -> (i32, Value) {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(["run"]).args(args));
    // Unknown is for the guards to say; what is tested here is one checker.
    assert!([0, 1, 2].contains(&code), "exit code {code}\n{stdout}\n{stderr}");
    (code, results(folder.path()))
}

/// Kinds of anomalies that were found on the nodes.
fn kinds(results: &Value) -> Vec<String> {
    let verdict = &results["checkers"]["node-invariants"];
    let counts = verdict["stats"]["anomaly_counts"].as_object().unwrap_or_else(|| panic!("{results:#}"));
    counts.keys().cloned().collect()
}

#[test]
fn a_replica_that_applies_otherwise_is_found_whatever_clients_saw() {
    let args = [
        "register",
        "--bug",
        "apply-depends-on-node",
        "--nemesis",
        "none",
        "--time-limit",
        "3s",
        "--seed",
        "1",
    ];
    let (code, r) = run_of(&args);
    assert_eq!((code, &r["checkers"]["node-invariants"]["valid"]), (1, &Value::Bool(false)), "{r:#}");
    // Only what the entries came to differs; the entries do not.
    let kinds = kinds(&r);
    assert!(
        kinds.contains(&"states-differ".to_owned()) && !kinds.contains(&"prefixes-differ".to_owned()),
        "{kinds:?}"
    );
    let details = &r["checkers"]["node-invariants"]["anomalies"][0]["details"];
    assert!(
        details["slot"].is_u64() && details["nodes"][1].is_string() && details["times_ns"][1].is_u64(),
        "{details}"
    );
}

#[test]
fn a_promise_that_was_not_written_down_is_found_after_a_restart() {
    // A node must be looked at between its promise and its kill, and be seen to come back: a slow machine needs longer.
    let found = [("2", "15s"), ("3", "60s"), ("4", "60s")].into_iter().any(|(seed, limit)| {
        let args = ["register", "--bug", "promise-not-written", "--nemesis", "kill"];
        let (code, r) = run_of(&[&args[..], &["--time-limit", limit, "--seed", seed]].concat());
        println!("seed {seed}: exit code {code}, {:#}", r["checkers"]["node-invariants"]["stats"]);
        code == 1 && kinds(&r).contains(&"promise-went-back".to_owned())
    });
    assert!(found, "none of three runs shows that a promise went back");
}

#[test]
fn the_correct_cluster_is_valid_with_nodes_that_come_and_go() {
    for (protocol, nemesis) in [("multi-paxos", "chaos"), ("basic-paxos", "kill")] {
        let args =
            ["register", "--protocol", protocol, "--nemesis", nemesis, "--time-limit", "12s", "--seed", "3"];
        let (_, r) = run_of(&args);
        let verdict = &r["checkers"]["node-invariants"];
        assert_eq!(verdict["valid"], true, "{protocol} under {nemesis}: {verdict:#}");
        let stat = |name: &str| verdict["stats"][name].as_u64().unwrap();
        // It has seen something: states of all nodes, a part of the log, and the end. However much the machine did: what
        // was acknowledged to clients has slots of its own.
        let ok = |kind: &str| r["by_operation"][kind]["ok"].as_u64().unwrap();
        let acknowledged = ok("write") + ok("cas");
        assert!(stat("chosen_to") >= acknowledged && acknowledged >= 10, "{acknowledged} {verdict:#}");
        assert!(stat("durable_to") >= stat("chosen_to") && stat("last_looks") == 5, "{verdict:#}");
        println!("{protocol}: {acknowledged} acknowledged, {:#}", verdict["stats"]);
        let some = acknowledged.min(50);
        assert!(stat("compared") >= some && stat("slots") >= some, "{verdict:#}");
    }
}
