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
    let args = [
        "register",
        "--bug",
        "promise-not-written",
        "--nemesis",
        "kill",
        "--time-limit",
        "15s",
        "--seed",
        "2",
    ];
    let (code, r) = run_of(&args);
    assert_eq!(code, 1, "{r:#}");
    assert!(kinds(&r).contains(&"promise-went-back".to_owned()), "{:#}", r["checkers"]["node-invariants"]);
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
        // It has seen something: states of all nodes, most of the log, and the end.
        assert!(stat("compared") > 50 && stat("slots") > 50 && stat("last_looks") == 5, "{verdict:#}");
        assert!(stat("durable_to") >= stat("chosen_to") && stat("chosen_to") > 50, "{verdict:#}");
    }
}
