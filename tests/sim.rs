//! `tribunal sim` from outside: the same seed is the same history, planted bugs are found and shrunk, correct clusters are not accused.

mod common;

use common::{run, tribunal};
use std::{collections::BTreeSet, path::Path};

/// Simulates in a folder. Returns exit code, stdout and stderr.
fn sim(folder: &Path, args: &str) -> (i32, String, String) {
    run(tribunal(folder).arg("sim").args(args.split_whitespace()))
}

#[test]
fn a_seed_is_a_history_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let history = |seed: u64, more: &str| {
        let file = folder.path().join(format!("{seed}{more}.jsonl"));
        let args = format!(
            "register --plan storm --rate 60 --time-limit 20s --seeds {seed} --history {}",
            file.display()
        );
        let (code, _, stderr) = sim(folder.path(), &args);
        // A guard may find that one seed alone proves too little.
        assert!(code == 0 || code == 2, "{stderr}");
        std::fs::read(file).unwrap()
    };
    let first = history(7, "a");
    assert!(first.len() > 50_000, "{} bytes: hardly anything happened", first.len());
    assert_eq!(first, history(7, "b"));
    assert_ne!(first, history(8, ""));
    // Every machine makes this one, and every build of this version; another version of the core, or of the plan, makes another.
    insta::assert_snapshot!(
        "history-of-seed-7",
        format!("{} bytes, CRC-32 {:08x}", first.len(), crc32fast::hash(&first))
    );
    // It can be judged like any other.
    let (code, stdout, _) = run(tribunal(folder.path()).args(["check", "7a.jsonl"]));
    assert_eq!((code, stdout.as_str()), (0, "linearizable: valid\n"));
}

#[test]
fn what_is_said_does_not_depend_on_the_number_of_jobs() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        "register --plan storm --rate 20 --time-limit 8s --seeds 1..12",
        "--bug lease-not-waited-out --time-limit 10s --rate 100 --seeds 1..40 --no-shrink",
    ] {
        let (code, one, stderr) = sim(folder.path(), &format!("{args} --jobs 1"));
        assert_eq!(sim(folder.path(), &format!("{args} --jobs 3")).1, one, "{stderr}");
        assert_eq!(code, i32::from(args.contains("bug")), "{one}");
    }
}

/// Five proposers that meet are slow. Clients that gave up long before their commands did once left them no time for anything but
/// commands of clients that had gone.
#[test]
fn the_final_reads_of_a_slow_cluster_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        sim(folder.path(), "hunt-basic --plan duel --seeds 1..40 --jobs 2 --no-shrink");
    assert_eq!(code, 0, "{stdout}{stderr}");
}

#[test]
fn a_planted_bug_is_found_and_shrunk_and_what_is_left_finds_it_again() {
    let folder = tempfile::tempdir().unwrap();
    for bug in ["ack-before-quorum", "retry-applied-twice", "accept-below-promise"] {
        let (code, stdout, stderr) =
            sim(folder.path(), &format!("--bug {bug} --time-limit 12s --seeds 1..60 --jobs 2 --out out"));
        assert_eq!(code, 1, "{bug}: {stdout}{stderr}");
        assert!(stdout.starts_with("INVALID hunt") && stdout.contains("\nlinearizable: invalid"), "{stdout}");
        let line = |start: &str| {
            let line = stdout.lines().find(|line| line.starts_with(start));
            line.unwrap_or_else(|| panic!("no `{start}`: {stdout}")).to_owned()
        };
        let sizes: Vec<u64> = line("shrunk in ")
            .split_once("operations to ")
            .unwrap()
            .1
            .split(',')
            .take(1)
            .map(|n| n.trim().parse().unwrap())
            .collect();
        assert!(sizes[0] <= 40, "{stdout}");
        for (start, same_words) in
            [("to see it again: tribunal sim ", true), ("before it was shrunk: tribunal sim ", false)]
        {
            let args = line(start)[start.len()..].to_owned();
            let (code, again, _) = sim(folder.path(), &format!("{args} --no-shrink"));
            assert_eq!(code, 1, "{args}: {again}");
            let why = |text: &str| {
                text.split("not-linearizable").nth(1).map(|t| t.lines().nth(1).unwrap().to_owned())
            };
            assert!(!same_words || why(&again) == why(&stdout), "{args}: {again}\n{stdout}");
        }
    }
}

#[test]
fn a_broken_invariant_of_the_nodes_is_a_finding_although_no_client_saw_it() {
    let folder = tempfile::tempdir().unwrap();
    let args = "hunt-three --bug promise-not-written --plan storm --rate 2 --time-limit 6s --seeds 1..50";
    let (code, stdout, _) = sim(folder.path(), args);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("invariants: invalid: promise-kept: node "), "{stdout}");
    assert!(stdout.contains("\nlinearizable: valid"), "{stdout}");
}

#[test]
fn correct_clusters_are_not_accused() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        "register --plan storm --rate 20 --seeds 1..6 --time-limit 15s",
        "register --nodes 3 --plan storm --rate 20 --seeds 1..6 --time-limit 15s",
        "register --seeds 1..3 --time-limit 20s",
        "register-basic --plan storm --rate 20 --seeds 1..6 --time-limit 15s",
        "hunt-retry --plan leader-pause --seeds 1..3 --time-limit 10s",
        "hunt-reads --plan skewed-split --seeds 1..2 --rate 100 --time-limit 14s",
        "convergence --seeds 1..3 --time-limit 12s --rate 50",
    ] {
        let (code, stdout, stderr) = sim(folder.path(), args);
        assert_eq!(code, 0, "{args}: {stdout}{stderr}");
    }
}

#[test]
fn a_run_without_faults_says_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        sim(folder.path(), "register --plan none --rate 0.01 --time-limit 1s --seeds 1..2");
    // Nothing arrived: a pass would mean nothing.
    assert_eq!(code, 2, "{stdout}{stderr}");
    insta::assert_snapshot!("sim-vain", stdout);
    assert!(stderr.contains("simulated seconds and") && stderr.contains("events a second"), "{stderr}");
}

#[test]
fn what_a_simulator_cannot_do_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    let seeds = ["--seeds 3..1", "--seeds 1..5 --history x", "--operations 3,x --seeds 1"];
    let plans = ["netem", "limits", "disk", "lossy", "rest", "choas"].map(|plan| format!("--plan {plan}"));
    let mut distinct = BTreeSet::new();
    for args in plans.into_iter().chain(seeds.map(str::to_owned)) {
        let (code, stdout, stderr) = sim(folder.path(), &format!("register {args}"));
        assert_eq!((code, stdout.as_str()), (254, ""), "{args}: {stderr}");
        said += &format!("$ tribunal sim register {args}\n{stderr}\n");
        assert!(distinct.insert(stderr));
    }
    insta::assert_snapshot!("sim-refused", said);
}
