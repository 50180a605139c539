//! Real faults on real hosts, end to end: network namespaces, containers, compose projects, hosts behind ssh.
//!
//! Needs root, iptables, iproute2, FUSE, a Docker engine and sshd. Where something is missing a test says that it was left
//! out, unless `TRIBUNAL_REQUIRE_HOSTS` is set, as CI does: then it fails.

mod common;
mod ssh_hosts;

use common::{can, ended_well, eventually, kinds_seen, results, run, tribunal};
use nemesis::{Cluster, Nemesis, NodeName};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use tribunal::{
    adapter::paxos_kv_grpc::PaxosKv,
    cluster::{Defendant, Surroundings, netns},
    machine,
    scenario::ClusterSpec,
    store::Store,
};

/// Bugs that only these faults reveal: a power failure, a wrong clock, and cut links.
const BUGS: [&str; 4] = ["promise-not-fsynced", "lease-on-wall-clock", "quorum-off-by-one", "lease-from-ack"];

/// Puts a correct system on trial and returns the report. Fails unless the run ended well.
fn trial(folder: &Path, args: &[&str]) -> String {
    trial_by(tribunal(folder).arg("run").args(args), folder, args)
}

/// The same with a command that is ready to be run.
fn trial_by(command: &mut std::process::Command, folder: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(command);
    println!("{}: exit code {code}", args.join(" "));
    if let Err(why) = ended_well(folder, code) {
        panic!("{}: {why}\n{stdout}\n{stderr}", args.join(" "));
    }
    stdout
}

/// Makes runs with other seeds, at most four, until each kind was seen to bite and to heal. Each run must end well; what a
/// plan draws, and whether a fault finds something to bite on, is a matter of chances. The first run is as long as told; as
/// that was too short for this machine, the others are three times as long. `run` is given a folder and the arguments that
/// say how long and with which seed.
fn until_seen(
    kinds: &[&str],
    first_seed: u32,
    seconds: u32,
    mut run: impl FnMut(&Path, &[&str]) -> BTreeSet<String>,
) {
    let mut missing = kinds.to_vec();
    for n in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let limit = format!("{}s", if n == 0 { seconds } else { seconds * 3 });
        let seed = (first_seed + n).to_string();
        let seen = run(folder.path(), &["--time-limit", &limit, "--seed", &seed]);
        missing.retain(|kind| !seen.contains(*kind));
        if missing.is_empty() {
            return;
        }
        println!("not seen to bite and heal yet: {missing:?}; in this run {seen:?}");
    }
    panic!("{missing:?} were not seen to bite and heal in any of four runs");
}

/// All of the faults, on a correct cluster: valid, and every kind was seen to bite and to heal.
fn everything_is_survived(on: &str) {
    let kinds = ["kill", "pause", "partition", "loss", "power-failure", "slow-disk"];
    let clocks = ["clock-bump", "clock-strobe", "clock-drift"];
    until_seen(&[&kinds[..], &clocks].concat(), 11, 25, |folder, length| {
        trial(folder, &[&["register", "--on", on, "--nemesis", "everything"], length].concat());
        let operations = &results(folder)["operations"];
        let count = |what: &str| operations[what].as_u64().unwrap();
        // That each kind succeeded before, during and after the faults is for the guards to say; how many is the machine's.
        assert!(count("ok") * 10 > count("asked"), "{operations}");
        kinds_seen(folder)
    });
}

/// What no other plan does on real hosts: each kind in the script is seen to bite and to heal. With `rot` in place of the
/// flipped bit.
fn the_rest_is_survived(on: &str, rot: &str) {
    let script = include_str!("../nemesis/rest.yaml");
    assert!(script.contains("fault: bit-flip"));
    let script = script.replace("fault: bit-flip", &format!("fault: {rot}"));
    let kinds = ["restart", "torn-write", "disk-full", "disk-error", "partition", "slow", rot];
    until_seen(&kinds, 7, 25, |folder, length| {
        std::fs::write(folder.join("rest.yaml"), &script).unwrap();
        trial(folder, &[&["register", "--on", on, "--nemesis", "./rest.yaml"], length].concat());
        kinds_seen(folder)
    });
}

/// Clients cut off from nodes, both ways and one way, and links and groups that the plan names: each is seen to bite and to
/// heal, and nobody takes the system for unhealthy meanwhile.
fn clients_are_cut_off(on: &str) {
    // Followers have nothing to say to each other: whoever leads must be among those that are cut off.
    let plan = include_str!("../nemesis/clients.yaml");
    let ring = "[n1>n2, n2>n3, n3>n4, n4>n5, n5>n1]";
    let plan_for_five = plan.replace("[n1>n2, n2>n3, n3>n1]", ring);
    assert_ne!(plan, plan_for_five);
    let kinds = ["clients ", "clients-mute", "clients-deaf", "(reset)", "n1>n2", "clients n1 | n2"];
    until_seen(&kinds, 3, 16, |folder, length| {
        std::fs::write(folder.join("clients.yaml"), &plan_for_five).unwrap();
        let args = ["register", "--on", on, "--nemesis", "./clients.yaml", "--rate", "300"];
        trial(folder, &[&args[..], length].concat());
        let results = results(folder);
        let seen = |f: &&serde_json::Value| f["effect"]["seen"] == true && f["healed"]["seen"] == true;
        let faults: Vec<&str> = results["faults"]
            .as_array()
            .unwrap()
            .iter()
            .filter(seen)
            .filter_map(|f| f["fault"].as_str())
            .collect();
        kinds
            .iter()
            .filter(|kind| faults.iter().any(|fault| fault.contains(**kind)))
            .map(ToString::to_string)
            .collect()
    });
}

fn bugs_are_caught(on: &str, bugs: &[&str]) {
    for bug in bugs {
        // When operations meet depends on the machine: a seed that finds a bug here need not find it everywhere. A run ends
        // at the first violation.
        let caught = (1..=5).any(|seed: u32| {
            let folder = tempfile::tempdir().unwrap();
            let args = ["--bug", bug, "--on", on, "--time-limit", "60s", "--seed", &seed.to_string()];
            let (code, stdout, stderr) = run(tribunal(folder.path()).arg("run").args(args));
            println!("{}: exit code {code}", args.join(" "));
            assert!(code <= 2, "{}\n{stdout}\n{stderr}", args.join(" "));
            if code == 1 {
                assert_eq!(results(folder.path())["valid"], false);
            }
            code == 1
        });
        assert!(caught, "{bug} was not caught on {on} with five seeds");
    }
}

/// Without `sch_netem` a plan that needs it is refused with the reason; a stand-in is used only where it is allowed, and
/// is named. With it, it is netem that does the work.
fn delays_are_netems_or_a_stand_ins(on: &str) {
    let folder = tempfile::tempdir().unwrap();
    let args = ["register", "--on", on, "--nemesis", "netem"];
    if machine::scheduler("netem").is_err() {
        let (code, _, stderr) = run(tribunal(folder.path()).arg("run").args(args));
        assert_eq!(code, 254, "{stderr}");
        assert!(!folder.path().join("store").exists(), "something was made");
        assert!(stderr.contains("no `sch_netem`") && stderr.contains("--stand-ins"), "{stderr}");
    }
    until_seen(&["slow", "duplicate", "reorder", "corrupt"], 5, 15, |folder, length| {
        let report = trial(folder, &[&args[..], &["--stand-ins"], length].concat());
        assert_eq!(report.contains("stand-in: delay"), machine::scheduler("netem").is_err(), "{report}");
        kinds_seen(folder)
    });
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
        bugs_are_caught("netns", &BUGS);
    }
}

#[test]
fn netns_survives_the_rest() {
    if can("netns", machine::namespaces().and(machine::fuse())) {
        the_rest_is_survived("netns", "bit-flip");
    }
}

#[test]
fn docker_survives_the_rest() {
    if can("docker", machine::docker().and(machine::fuse())) {
        the_rest_is_survived("docker", "truncate");
    }
}

/// `peers` makes one link slow, both ways, and leaves the others as they are.
#[tokio::test(flavor = "multi_thread")]
async fn one_link_is_slow_and_the_others_stay_fast() {
    if !can("netns", machine::namespaces()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // For as long as it takes: it is healed when the run is stopped. A delay far above what a busy machine adds.
    let plan = "steps: [{at: 0s, for: 100s, do: {fault: slow, target: n1, peers: n2, link: {delay: 400ms}}}]";
    let plan: nemesis::Plan = serde_yaml::from_str(plan).unwrap();
    let names: Vec<NodeName> = ["n1", "n2", "n3"].map(NodeName::from).to_vec();
    let program = std::path::PathBuf::from(env!("CARGO_BIN_EXE_tribunal"));
    let spec = ClusterSpec { nodes: 3, stand_ins: true, ..ClusterSpec::default() };
    let run = tribunal::owner::fresh_run();
    let adapter = Arc::new(PaxosKv::new(program.clone(), vec![], run.clone(), &names));
    let store = Store::create(folder.path(), "peers", "now").unwrap();
    let around = Surroundings::new(adapter, names, store, 1, run, spec, plan.needs(), program).unwrap();
    let cluster = Arc::new(netns::prepare(around).await.unwrap());
    let schedule = nemesis::schedule(&plan, nemesis::Span::ms(101_000), &mut rand::rng());
    let clock = Arc::new(tribunal::clock::Clock::start());
    let (begun, mut begins) = tokio::sync::watch::channel(false);
    let sink = move |notice: nemesis::inject::Notice| {
        begun.send_if_modified(|begun| {
            *begun |= notice.phase == "started";
            *begun
        });
    };
    let nemesis = Nemesis::new(cluster.clone(), clock, nemesis::LinkShape::default(), Arc::new(sink));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let delays = async || {
        let links = nemesis::inject::all_links(cluster.nodes());
        let links: Vec<nemesis::Link> = links.into_iter().collect();
        let sent = nemesis::inject::all(links.iter().map(|l| cluster.probe(l, 40)).collect()).await;
        links.into_iter().zip(sent).map(|(l, p)| (l.to_string(), p.unwrap().mean_ns)).collect::<Vec<_>>()
    };
    let before = delays().await;
    let run = tokio::spawn(async move { nemesis.run(&schedule, 0, stopped).await });
    begins.wait_for(|begun| *begun).await.unwrap();
    let during = delays().await;
    stop.send_replace(true);
    let receipts = run.await.unwrap();
    let left = cluster.tear_down().await;
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(receipts[0].links, ["n1→n2", "n2→n1"]);
    assert!(receipts[0].effect.seen, "{receipts:?}");
    for ((link, before), (_, during)) in before.into_iter().zip(during) {
        let added_ms = (during - before) / 1_000_000;
        match link.as_str() {
            "n1→n2" | "n2→n1" => assert!(added_ms >= 350, "{link}: {added_ms} ms"),
            _ => assert!(added_ms < 200, "{link} is slower by {added_ms} ms and nobody asked for that"),
        }
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
        // The first one's plan counts on faults that begin within 50 ms of each other; the engine takes longer for some.
        bugs_are_caught("docker", &BUGS[1..]);
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
    until_seen(&["cpu-limit"], 1, 12, |folder, length| {
        trial(folder, &[&["register", "--on", "docker", "--nemesis", "limits"], length].concat());
        kinds_seen(folder)
    });
    // Nodes grow with what they have been told, so that sooner or later one of them reaches its limit.
    until_seen(&["memory-limit"], 3, 25, |folder, length| {
        let args = ["register", "--on", "docker", "--nemesis", "memory", "--rate", "1500", "--clients", "20"];
        trial(folder, &[&args[..], length].concat());
        kinds_seen(folder)
    });
}

#[test]
fn a_compose_project_is_put_on_trial_and_faults_outlast_a_restart() {
    if !can("docker", machine::docker()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = Image(format!("tribunal-test:{}", std::process::id()));
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(["image", "--tag", &image.0]));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let compose = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/compose.yaml");
    // A node is killed and started while it is cut off: the cut must be put back into its new network.
    let plan = "{doc: x, repeat-every: 10s, steps: [\
        {at: 1s, for: 8s, do: {fault: partition, shape: isolate-leader}}, \
        {at: 1500ms, for: 700ms, do: {fault: kill, target: all}}, \
        {at: 6s, for: 2s, do: {fault: clock-bump, target: one, clock: {ahead: 9s}}}]}";
    let args = ["register", "--on", "docker", "--compose", compose, "--nemesis", "./plan.yaml"];
    let services = ["--service", "kv1", "--service", "kv2", "--service", "kv3"];
    until_seen(&["partition", "kill", "clock-bump"], 1, 22, |folder, length| {
        std::fs::write(folder.join("plan.yaml"), plan).unwrap();
        let args = [&args[..], &services, length].concat();
        let mut command = tribunal(folder);
        command.arg("run").args(&args).env("TRIBUNAL_NODE_IMAGE", &image.0);
        trial_by(&mut command, folder, &args);
        kinds_seen(folder)
    });
    image.remove();
}

/// An image of the test's own. Dropping it removes it.
struct Image(String);

impl Image {
    /// Removes it now: nothing may use it any more.
    fn remove(self) {
        let out = std::process::Command::new("docker").args(["image", "rm", &self.0]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A failed test leaves it here; otherwise it is gone by now.
        let _ = std::process::Command::new("docker").args(["image", "rm", "--force", &self.0]).output();
    }
}

#[test]
fn ssh_survives_everything() {
    if !can("sshd in namespaces", machine::namespaces().and(machine::fuse()).and(ssh_hosts::possible())) {
        return;
    }
    let hosts = ssh_hosts::Hosts::start(3);
    let kinds = ["kill", "pause", "partition", "loss", "power-failure", "slow-disk", "clock-bump"];
    until_seen(&kinds, 2, 25, |folder, length| {
        std::fs::write(folder.join("test.yaml"), hosts.test_file()).unwrap();
        trial(folder, &[&["./test.yaml", "--nemesis", "everything"], length].concat());
        kinds_seen(folder)
    });
    // Clients come from where the agents' connections come from, which must not be cut.
    until_seen(&["partition"], 3, 8, |folder, length| {
        std::fs::write(folder.join("test.yaml"), hosts.test_file()).unwrap();
        trial(folder, &[&["./test.yaml", "--nemesis", "clients"], length].concat());
        kinds_seen(folder)
    });
    // A connection that was ended takes its processes along, but not in the same moment.
    eventually("no process is left", Duration::from_secs(60), || {
        !hosts.leftovers().iter().any(|l| l.starts_with("process"))
    });
    assert_eq!(hosts.leftovers(), Vec::<String>::new());
}

#[test]
fn disks_fail_and_rot_and_nobody_answers_wrongly() {
    if !can("FUSE", machine::fuse()) {
        return;
    }
    let kinds = ["power-failure", "torn-write", "slow-disk", "disk-full", "disk-error"];
    until_seen(&kinds, 4, 25, |folder, length| {
        trial(folder, &[&["register", "--nemesis", "disk"], length].concat());
        kinds_seen(folder)
    });
    for (plan, kind) in [("bit-rot", "bit-flip"), ("cut-off", "truncate")] {
        until_seen(&[kind], 6, 10, |folder, length| {
            let report = trial(folder, &[&["register", "--nemesis", plan, "--rate", "200"], length].concat());
            let seen = kinds_seen(folder);
            assert!(!seen.contains(kind) || report.contains("refused to start"), "{report}");
            seen
        });
    }
}
