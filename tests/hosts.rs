//! Real faults on real hosts, end to end: network namespaces, containers, compose projects, hosts behind ssh.
//!
//! Needs root, iptables, iproute2, FUSE, a Docker engine and sshd. Where something is missing a test says that it was left
//! out, unless `TRIBUNAL_REQUIRE_HOSTS` is set, as CI does: then it fails.

mod common;
mod ssh_hosts;

use common::{can, eventually, kinds_seen, results, run, tribunal};
use std::{path::Path, time::Duration};
use tribunal::machine;

/// Bugs that only these faults reveal: a power failure, a wrong clock, and cut links.
const BUGS: [&str; 4] = ["promise-not-fsynced", "lease-on-wall-clock", "quorum-off-by-one", "lease-from-ack"];

/// Runs a test and returns its report. Fails unless the exit code is the wanted one.
fn trial(folder: &Path, wanted: i32, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(tribunal(folder).arg("run").args(args));
    println!("{}: exit code {code}", args.join(" "));
    assert_eq!(code, wanted, "{}\n{stdout}\n{stderr}", args.join(" "));
    stdout
}

/// All of the faults, on a correct cluster: valid, and every kind was seen to bite and to heal.
fn everything_is_survived(on: &str) {
    let folder = tempfile::tempdir().unwrap();
    let args = ["register", "--on", on, "--nemesis", "everything", "--time-limit", "25s", "--seed", "11"];
    trial(folder.path(), 0, &args);
    let seen = kinds_seen(folder.path());
    for kind in ["kill", "pause", "partition", "loss", "power-failure", "slow-disk"] {
        assert!(seen.contains(kind), "no {kind} was seen to bite and heal; only {seen:?}");
    }
    for kind in ["clock-bump", "clock-strobe", "clock-drift"] {
        assert!(seen.contains(kind), "no {kind} was seen to bite and heal; only {seen:?}");
    }
    assert!(results(folder.path())["operations"]["ok"].as_u64().unwrap() > 3000);
}

/// Clients cut off from nodes, both ways and one way, and links and groups that the plan names: each is seen to bite and to
/// heal, and nobody takes the system for unhealthy meanwhile.
fn clients_are_cut_off(on: &str) {
    let folder = tempfile::tempdir().unwrap();
    let args = ["register", "--on", on, "--nemesis", "clients", "--rate", "300"];
    trial(folder.path(), 0, &[&args[..], &["--time-limit", "16s", "--seed", "3"]].concat());
    let faults = results(folder.path())["faults"].as_array().unwrap().clone();
    for kind in ["clients ", "clients-mute", "clients-deaf", "(reset)", "n1>n2", "clients n1 | n2"] {
        let of_kind = |f: &&serde_json::Value| f["fault"].as_str().unwrap().contains(kind);
        let seen = |f: &serde_json::Value| f["effect"]["seen"] == true && f["healed"]["seen"] == true;
        assert!(faults.iter().filter(of_kind).any(seen), "no {kind} was seen to bite and heal: {faults:#?}");
    }
}

fn bugs_are_caught(on: &str) {
    for bug in BUGS {
        let folder = tempfile::tempdir().unwrap();
        trial(folder.path(), 1, &["--bug", bug, "--on", on, "--time-limit", "60s", "--seed", "1"]);
        assert_eq!(results(folder.path())["valid"], false);
    }
}

/// Without `sch_netem` a plan that needs it is refused with the reason; a stand-in is used only where it is allowed, and
/// is named. With it, it is netem that does the work.
fn delays_are_netems_or_a_stand_ins(on: &str) {
    let folder = tempfile::tempdir().unwrap();
    let args = ["register", "--on", on, "--nemesis", "netem", "--time-limit", "15s", "--seed", "5"];
    if machine::scheduler("netem").is_err() {
        let (code, _, stderr) = run(tribunal(folder.path()).arg("run").args(args));
        assert_eq!(code, 255, "{stderr}");
        assert!(
            stderr.contains("no `sch_netem` in its kernel") && stderr.contains("--stand-ins"),
            "{stderr}"
        );
    }
    let report = trial(folder.path(), 0, &[&args[..], &["--stand-ins"]].concat());
    assert_eq!(report.contains("stand-in: delay"), machine::scheduler("netem").is_err(), "{report}");
    let seen = kinds_seen(folder.path());
    for kind in ["slow", "duplicate", "reorder", "corrupt"] {
        assert!(seen.contains(kind), "no {kind} was seen to bite and heal; only {seen:?}");
    }
}

#[test]
fn netns_survives_everything() {
    if can("netns", machine::namespaces().and(machine::fuse())) {
        everything_is_survived("netns");
    }
}

#[test]
fn netns_catches_bugs_that_need_such_faults() {
    if can("netns", machine::namespaces().and(machine::fuse())) {
        bugs_are_caught("netns");
    }
}

#[test]
fn netns_cuts_off_clients() {
    if can("netns", machine::namespaces()) {
        clients_are_cut_off("netns");
    }
}

#[test]
fn docker_cuts_off_clients() {
    if can("docker", machine::docker()) {
        clients_are_cut_off("docker");
    }
}

#[test]
fn clients_of_processes_are_cut_off_by_proxies() {
    clients_are_cut_off("process");
}

#[test]
fn netns_delays_packets() {
    if can("netns", machine::namespaces()) {
        delays_are_netems_or_a_stand_ins("netns");
    }
}

#[test]
fn docker_survives_everything() {
    if can("docker", machine::docker().and(machine::fuse())) {
        everything_is_survived("docker");
    }
}

#[test]
fn docker_catches_bugs_that_need_such_faults() {
    if can("docker", machine::docker().and(machine::fuse())) {
        bugs_are_caught("docker");
    }
}

#[test]
fn docker_delays_packets() {
    if can("docker", machine::docker()) {
        delays_are_netems_or_a_stand_ins("docker");
    }
}

#[test]
fn docker_limits_processors_and_memory() {
    if !can("docker", machine::docker()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    trial(folder.path(), 0, &["register", "--on", "docker", "--nemesis", "limits", "--time-limit", "12s"]);
    assert!(kinds_seen(folder.path()).contains("cpu-limit"));
    // Nodes grow with what they have been told, so that sooner or later one of them reaches its limit.
    let load = ["--rate", "1500", "--clients", "20", "--time-limit", "25s", "--seed", "3"];
    trial(folder.path(), 0, &[&["register", "--on", "docker", "--nemesis", "memory"], &load[..]].concat());
    assert!(kinds_seen(folder.path()).contains("memory-limit"));
}

#[test]
fn a_compose_project_is_put_on_trial_and_faults_outlast_a_restart() {
    if !can("docker", machine::docker()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = format!("tribunal-test:{}", std::process::id());
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(["image", "--tag", &image]));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let compose = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/compose.yaml");
    // A node is killed and started while it is cut off: the cut must be put back into its new network.
    let plan = "{doc: x, repeat-every: 6s, steps: [\
        {at: 1s, for: 4s, do: {fault: partition, shape: isolate-leader}}, \
        {at: 1500ms, for: 700ms, do: {fault: kill, target: all}}, \
        {at: 2500ms, for: 1s, do: {fault: clock-bump, target: one, clock: {ahead: 9s}}}]}";
    std::fs::write(folder.path().join("plan.yaml"), plan).unwrap();
    let args = ["run", "register", "--on", "docker", "--compose", compose, "--nemesis", "./plan.yaml"];
    let services = ["--service", "kv1", "--service", "kv2", "--service", "kv3", "--time-limit", "14s"];
    let mut command = tribunal(folder.path());
    let (code, stdout, stderr) = run(command.args(args).args(services).env("TRIBUNAL_NODE_IMAGE", &image));
    let removed = std::process::Command::new("docker").args(["image", "rm", &image]).output().unwrap();
    assert!(removed.status.success());
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let seen = kinds_seen(folder.path());
    for kind in ["partition", "kill", "clock-bump"] {
        assert!(seen.contains(kind), "no {kind} was seen to bite and heal; only {seen:?}\n{stdout}");
    }
}

#[test]
fn ssh_survives_everything() {
    if !can("sshd in namespaces", machine::namespaces().and(machine::fuse()).and(ssh_hosts::possible())) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hosts = ssh_hosts::Hosts::start(3);
    let args = ["./test.yaml", "--nemesis", "everything", "--time-limit", "25s", "--seed", "2"];
    std::fs::write(folder.path().join("test.yaml"), hosts.test_file()).unwrap();
    trial(folder.path(), 0, &args);
    let seen = kinds_seen(folder.path());
    for kind in ["kill", "pause", "partition", "loss", "power-failure", "slow-disk", "clock-bump"] {
        assert!(seen.contains(kind), "no {kind} was seen to bite and heal; only {seen:?}");
    }
    // A connection that was ended takes its processes along, but not in the same moment.
    eventually("no process is left", Duration::from_secs(20), || {
        !hosts.leftovers().iter().any(|l| l.starts_with("process"))
    });
    assert_eq!(hosts.leftovers(), Vec::<String>::new());
}

#[test]
fn disks_fail_and_rot_and_nobody_answers_wrongly() {
    if !can("FUSE", machine::fuse()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    trial(folder.path(), 0, &["register", "--nemesis", "disk", "--time-limit", "25s", "--seed", "4"]);
    let seen = kinds_seen(folder.path());
    for kind in ["power-failure", "torn-write", "slow-disk", "disk-full", "disk-error"] {
        assert!(seen.contains(kind), "no {kind} was seen to bite and heal; only {seen:?}");
    }
    for (plan, kind) in [("bit-rot", "bit-flip"), ("cut-off", "truncate")] {
        let load = ["--rate", "200", "--time-limit", "10s", "--seed", "6"];
        let report = trial(folder.path(), 0, &[&["register", "--nemesis", plan], &load[..]].concat());
        assert!(report.contains("refused to start"), "{report}");
        assert!(kinds_seen(folder.path()).contains(kind));
    }
}
