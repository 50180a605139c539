//! A controller that is killed in the middle of its faults: the next run works, and `tribunal clean` leaves nothing.

mod common;
mod ssh_hosts;

use common::{can, eventually, run, run_folder, tribunal};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tribunal::machine;

const LIMIT: Duration = Duration::from_secs(90);

/// Everything at once that leaves something behind: rules, qdiscs, mounts, a wrong clock.
const PLAN: &str = "{doc: x, steps: [\
    {at: 1s, for: 100s, do: {fault: partition, shape: isolate-leader}}, \
    {at: 1s, for: 100s, do: {fault: slow, target: all, link: {bytes-per-second: 1000000}}}, \
    {at: 1s, for: 100s, do: {fault: clock-bump, target: one, clock: {ahead: 9s}}}, \
    {at: 2s, for: 100s, do: {fault: slow-disk, target: one, disk: {sync-delay: 5ms}}}]}";

fn lines(program: &str, args: &[&str]) -> Vec<String> {
    let Ok(out) = Command::new(program).args(args).output() else { return vec![] };
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

/// All that a run may have left anywhere on this machine.
fn left_by(run: &str) -> Vec<String> {
    let label = format!("label=tribunal.run={run}");
    let mut left = Vec::new();
    let mut add =
        |what: &str, found: Vec<String>| left.extend(found.into_iter().map(|f| format!("{what}: {f}")));
    let of_run = |all: Vec<String>| -> Vec<String> { all.into_iter().filter(|l| l.contains(run)).collect() };
    if machine::docker().is_ok() {
        add("container", lines("docker", &["ps", "-aq", "--filter", &label]));
        add("network", lines("docker", &["network", "ls", "-q", "--filter", &label]));
        add("image", lines("docker", &["image", "ls", "-q", "--filter", &label]));
        add("volume", lines("docker", &["volume", "ls", "-q", "--filter", &label]));
    }
    add("namespace", of_run(lines("ip", &["netns", "list"])));
    // By their aliases: names have no room for the run's.
    add("interface", of_run(lines("ip", &["-o", "link"])));
    add("rule", of_run(lines("iptables", &["-w", "10", "-S"])));
    add("rule", of_run(lines("iptables", &["-w", "10", "-t", "mangle", "-S"])));
    add("mount", of_run(lines("cat", &["/proc/self/mountinfo"])));
    add("record", of_run(lines("ls", &["/run/tribunal"])));
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter(|p| {
        let read = |file: &str| std::fs::read(p.path().join(file)).unwrap_or_default();
        let text = [read("cmdline"), read("environ")].concat();
        p.file_name().to_string_lossy().parse::<u32>().is_ok() && String::from_utf8_lossy(&text).contains(run)
    });
    add("process", processes.map(|p| p.file_name().to_string_lossy().into_owned()).collect());
    left
}

/// The name of the run that a log is of.
fn run_named_in(log: &str) -> String {
    log.split("preparing run ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
}

/// Starts a run, waits until all of its faults are in force, and kills its controller; with `agents`, them too. Returns
/// the run's name.
fn killed_in_the_middle(folder: &Path, test: &[&str], agents: bool) -> String {
    std::fs::write(folder.join("plan.yaml"), PLAN).unwrap();
    let mut command = tribunal(folder);
    command.arg("run").args(test).args(["--nemesis", "./plan.yaml", "--time-limit", "120s"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = || {
        let name = test[0].trim_start_matches("./").trim_end_matches(".yaml");
        let log = run_folder(folder, name).map(|f| f.join("tribunal.log"));
        log.and_then(|l| std::fs::read_to_string(l).ok()).unwrap_or_default()
    };
    eventually("all faults are in force", LIMIT, || {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", log());
        log().matches(" started ").count() >= 4
    });
    let text = log();
    let name = run_named_in(&text);
    assert!(!left_by(&name).is_empty(), "what shall be found must be there before");
    if agents {
        // At the same moment: they must not have the time to undo anything.
        let agents = lines("pgrep", &["-f", &format!("agent --run {name}")]);
        let _ = Command::new("kill").arg("-9").args(agents).status();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    name
}

/// Waits until a run has left nothing. The kernel removes some things, interfaces above all, when it comes to it.
fn nothing_is_left_by(run: &str, said: &str) {
    let mut left = Vec::new();
    let deadline = std::time::Instant::now() + LIMIT;
    while std::time::Instant::now() < deadline {
        left = left_by(run);
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("left: {left:?} after\n{said}");
}

fn leaves_nothing(on: &str) {
    for agents in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let name = killed_in_the_middle(folder.path(), &["register", "--on", on], agents);
        let (code, stdout, stderr) = run(tribunal(folder.path()).arg("clean"));
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        nothing_is_left_by(&name, &format!("{stdout}\n{stderr}"));
        println!("{on}, agents killed {agents}: {} things removed", stdout.matches("removed").count());
    }
    let folder = tempfile::tempdir().unwrap();
    let name = killed_in_the_middle(folder.path(), &["register", "--on", on], false);
    let next = tempfile::tempdir().unwrap();
    let args = ["run", "register", "--on", on, "--nemesis", "none", "--time-limit", "3s"];
    let (code, stdout, stderr) = run(tribunal(next.path()).args(args));
    assert_eq!(code, 0, "the next run: {stdout}\n{stderr}");
    let (code, stdout, stderr) = run(tribunal(folder.path()).arg("clean"));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    nothing_is_left_by(&name, &format!("{stdout}\n{stderr}"));
}

#[test]
fn netns_leaves_nothing() {
    if can("netns", machine::namespaces().and(machine::fuse())) {
        leaves_nothing("netns");
    }
}

#[test]
fn docker_leaves_nothing() {
    if can("docker", machine::docker().and(machine::fuse())) {
        leaves_nothing("docker");
    }
}

/// A project that builds its image and wants everything started again: neither outlives the run, nor hides a kill.
#[test]
fn a_compose_project_that_builds_leaves_nothing() {
    if !can("docker", machine::docker()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = format!("tribunal-test-built:{}", std::process::id());
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(["image", "--tag", &image]));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    std::fs::write(folder.path().join("Dockerfile"), format!("FROM {image}\nENV BUILT=1\n")).unwrap();
    let mut compose = "version: '3.4'\nx-node: &node {build: ., restart: always}\nservices:\n".to_owned();
    for i in 1..=3 {
        let peers = (1..=3).filter(|j| *j != i).map(|j| format!("--peer, \"{j}=kv{j}:7000\""));
        compose.push_str(&format!(
            "  kv{i}: {{<<: *node, command: [node, --id, \"{i}\", --cluster-id, built, --data, /data, \
             --peer-listen, 0.0.0.0:7000, --client-listen, 0.0.0.0:7001, --http-listen, 0.0.0.0:7002, {}]}}\n",
            peers.collect::<Vec<_>>().join(", ")
        ));
    }
    std::fs::write(folder.path().join("compose.yaml"), compose).unwrap();
    let plan = "{doc: x, repeat-every: 5500ms, steps: [{at: 1s, for: 3s, do: {fault: kill, target: one}}]}";
    std::fs::write(folder.path().join("plan.yaml"), plan).unwrap();
    let args = ["run", "register", "--on", "docker", "--compose", "compose.yaml", "--nemesis", "./plan.yaml"];
    let services = ["--service", "kv1", "--service", "kv2", "--service", "kv3", "--time-limit", "12s"];
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(args).args(services));
    let log = std::fs::read_to_string(run_folder(folder.path(), "register").unwrap().join("tribunal.log"));
    nothing_is_left_by(&run_named_in(&log.unwrap()), &format!("{stdout}\n{stderr}"));
    assert!(Command::new("docker").args(["image", "rm", &image]).status().unwrap().success());
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    // Nobody but us has started it: it was down for three seconds, at least one of the two times.
    assert!(common::kinds_seen(folder.path()).contains("kill"), "{stdout}");
    assert!(!stdout.contains("started again by somebody else"), "{stdout}");
}

/// Agents that are killed undo nothing: `tribunal clean` on each host finds it.
#[test]
fn ssh_leaves_nothing_on_the_hosts() {
    if !can("sshd in namespaces", machine::namespaces().and(machine::fuse()).and(ssh_hosts::possible())) {
        return;
    }
    let (folder, hosts) = (tempfile::tempdir().unwrap(), ssh_hosts::Hosts::start(3));
    std::fs::write(folder.path().join("ssh.yaml"), hosts.test_file()).unwrap();
    let name = killed_in_the_middle(folder.path(), &["./ssh.yaml"], true);
    // What duplicates packets where the kernel can: here perhaps it cannot.
    let chain = format!("TRIB-{name}-D");
    for rule in [&["-N", &chain][..], &["-I", "OUTPUT", "1", "-j", &chain]] {
        let words = [&["iptables", "-w", "10", "-t", "mangle"], rule].concat();
        assert!(hosts.on(0, &words).status().unwrap().success());
    }
    let left = hosts.leftovers();
    for part in ["TRIB-", "htb", "/tmp/tribunal-", "/run/tribunal/"] {
        assert!(left.iter().any(|l| l.contains(part)), "no {part} was left, so nothing is tried: {left:?}");
    }
    for i in 0..hosts.count() {
        let (code, stdout, stderr) = run(&mut hosts.on(i, &[ssh_hosts::PROGRAM, "clean"]));
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        println!("host {i}:\n{stdout}{stderr}");
    }
    // The daemon's own processes for a connection end when that has ended.
    eventually("nothing is left on the hosts", LIMIT, || hosts.leftovers().is_empty());
    let (code, stdout, stderr) = run(tribunal(folder.path()).arg("clean"));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    nothing_is_left_by(&name, &format!("{stdout}\n{stderr}"));
}

/// Where /tmp allows no programs, another place is taken.
#[test]
fn ssh_needs_no_tmp_that_allows_programs() {
    if !can("sshd in namespaces", machine::namespaces().and(ssh_hosts::possible())) {
        return;
    }
    let (folder, hosts) = (tempfile::tempdir().unwrap(), ssh_hosts::Hosts::start_with(3, "/tmp"));
    std::fs::write(folder.path().join("ssh.yaml"), hosts.test_file()).unwrap();
    let args = ["run", "./ssh.yaml", "--nemesis", "none", "--time-limit", "3s"];
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    eventually("nothing is left on the hosts", LIMIT, || hosts.leftovers().is_empty());
}

#[test]
fn a_living_run_is_never_touched() {
    if !can("netns", machine::namespaces().and(machine::fuse())) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = tribunal(folder.path());
    command.args(["run", "register", "--on", "netns", "--nemesis", "pause", "--time-limit", "600s"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the run is under load", LIMIT, || {
        let history = run_folder(folder.path(), "register").map(|f| f.join("history.jsonl"));
        history.and_then(|h| std::fs::read_to_string(h).ok()).is_some_and(|t| t.lines().count() > 100)
    });
    // Anybody may say that the run's owner is dead, and is not believed.
    let log =
        std::fs::read_to_string(run_folder(folder.path(), "register").unwrap().join("tribunal.log")).unwrap();
    let name = run_named_in(&log);
    let record = std::fs::read_to_string(format!("/run/tribunal/{name}")).unwrap();
    let (_, rest) = record.split_once('/').unwrap();
    let forged = Path::new("/tmp/tribunal-54321");
    std::fs::create_dir_all(forged).unwrap();
    std::fs::write(forged.join(&name), format!("999999999/{rest}")).unwrap();
    std::os::unix::fs::chown(forged.join(&name), Some(54321), None).unwrap();
    let (code, stdout, stderr) = run(tribunal(folder.path()).arg("clean"));
    std::fs::remove_dir_all(forged).unwrap();
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("its run goes on") && !stdout.contains("removed"), "{stdout}");
    // It goes on until we end it; an interrupted run is no pass, however valid.
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stdout));
    let r = common::results(folder.path());
    assert_eq!(r["checkers"]["linearizable"]["valid"], true, "{r:#}");
    let other = r["checkers"]["guards"]["stats"]["other"].as_array().unwrap();
    assert!(other.iter().any(|why| why == "the run was interrupted"), "{r:#}");
    // Nobody has hurt it: a node that was ended, or a fault that was undone, would be told of.
    assert!(!other.iter().any(|why| why.as_str().unwrap().contains("ended")), "{r:#}");
}
