//! What this machine can do: each answer is a reason why not, with what to do about it.
//!
//! Found out by trying, where trying costs nothing; `tribunal doctor` prints it all, and plans are refused with the same
//! words.

use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    ffi::OsString,
    fs::OpenOptions,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

/// How long a program that only tries or removes something may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the Docker engine may take to say that it is there.
const ENGINE: Duration = Duration::from_secs(10);

/// Whether we are root.
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("needs root: run it with sudo, or use `--on docker`, which needs only the engine".to_owned())
    }
}

/// Where programs are looked for, by us and by what we run: on the path, and where administrators' programs are, which an
/// ordinary login has not on its path.
pub fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let known: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for folder in more.iter().filter(|folder| !known.contains(folder)) {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(folder);
    }
    path
}

/// Where a program is, if it is on the path (or where administrators' programs are).
pub fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|folder| folder.join(name)).find(|p| p.is_file())
}

/// Whether programs are there; if not, which Debian package has them.
pub fn programs(names: &[(&str, &str)]) -> Result<(), String> {
    let missing: Vec<String> = names
        .iter()
        .filter(|(name, _)| program(name).is_none())
        .map(|(name, package)| format!("`{name}` is not installed (Debian's package {package})"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
}

/// Whether file systems of our own can be mounted, so that a node's disk can fail: mounts one.
pub fn fuse() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("disks that can fail need FUSE, on Linux".to_owned());
    }
    root()?;
    if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        return Err("cannot open /dev/fuse: load the kernel's module `fuse`; a container needs `--device \
                    /dev/fuse --cap-add SYS_ADMIN`"
            .to_owned());
    }
    tried::mount().map_err(|why| {
        format!("no file system could be mounted with FUSE ({why}); a container needs `--cap-add SYS_ADMIN`")
    })
}

/// Whether this is a system and a processor on which the clock of a process can be set wrong at all.
pub fn clocks_are_known() -> Result<(), String> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(());
    }
    Err("the clock of a process is set wrong by patching its vDSO: Linux on x86-64 only".to_owned())
}

/// Whether the wall clock of a process on this machine can be set wrong: reads that of a child as we would read a node's.
pub fn clocks() -> Result<(), String> {
    clocks_are_known()?;
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if root().is_err() && !matches!(scope.trim(), "" | "0") {
        return Err(
            "needs root, or /proc/sys/kernel/yama/ptrace_scope set to 0, to trace the nodes".to_owned()
        );
    }
    tried::trace().map_err(|why| {
        format!("a process could not be traced ({why}); a container needs `--cap-add SYS_PTRACE`")
    })
}

/// Whether nodes can live in network namespaces: makes one with all that a node's has.
pub fn namespaces() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("network namespaces are Linux's".to_owned());
    }
    root()?;
    programs(&[
        ("ip", "iproute2"),
        ("tc", "iproute2"),
        ("iptables", "iptables"),
        ("nsenter", "util-linux"),
        ("unshare", "util-linux"),
    ])?;
    let script = "ip link set lo up && ip link add veth type veth peer name peer && ip link add bridge type bridge && \
                  iptables -w 10 -N x && iptables -w 10 -A x -s 10.0.0.1/32 -m comment --comment y -j DROP";
    in_new_network(script).map_err(|why| {
        format!("no network namespace could be made and used ({why}); a container must be started with `--privileged`")
    })
}

/// Runs a script in a network namespace that lives as long as the script.
fn in_new_network(script: &str) -> Result<(), String> {
    quiet(Command::new("unshare").args(["--net", "--", "sh", "-c", script])).map(|_| ())
}

/// Whether a Docker engine answers.
pub fn docker() -> Result<(), String> {
    programs(&[("docker", "docker.io")])?;
    let out = output(Command::new("docker").args(["version", "--format", "{{.Server.Os}}"]), ENGINE);
    let out = out.map_err(|e| format!("no Docker engine answers: `docker version`: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(format!("no Docker engine answers: {}", said.trim()));
    }
    match String::from_utf8_lossy(&out.stdout).trim() {
        "linux" => Ok(()),
        other => Err(format!("the Docker engine runs containers of {other}; they must be of linux")),
    }
}

/// Whether hosts can be reached over ssh.
pub fn ssh() -> Result<(), String> {
    programs(&[("ssh", "openssh-client")])
}

/// Whether a kind of packet scheduler works, tried in a network namespace that lives as long as the trial.
pub fn scheduler(kind: &str) -> Result<(), String> {
    namespaces()?;
    let arguments = if kind == "netem" { "delay 1ms" } else { "" };
    in_new_network(&format!("ip link set lo up && tc qdisc add dev lo root {kind} {arguments}")).map_err(
        |why| {
            format!("this kernel has no `sch_{kind}` ({why}): load the module, or use a kernel that has it")
        },
    )
}

/// Whether packets can be duplicated, tried in a network namespace that lives as long as the trial.
pub fn copying() -> Result<(), String> {
    namespaces()?;
    let script = "iptables -w 10 -t mangle -A OUTPUT -d 127.0.0.1 -j TEE --gateway 127.0.0.1";
    in_new_network(script)
        .map_err(|why| format!("this kernel has no `xt_TEE`, which duplicates packets ({why})"))
}

/// Whether packets can be lost at random.
pub fn losing() -> Result<(), String> {
    namespaces()?;
    in_new_network("iptables -w 10 -A INPUT -m statistic --mode random --probability 0.5 -j DROP")
        .map_err(|why| format!("this kernel has no `xt_statistic`, which loses packets at random ({why})"))
}

/// Whether connections can be reset at random.
pub fn resetting() -> Result<(), String> {
    losing()?;
    in_new_network("iptables -w 10 -A INPUT -p tcp -j REJECT --reject-with tcp-reset")
        .map_err(|why| format!("this kernel has no `ipt_REJECT`, which resets connections ({why})"))
}

/// Whether packets can be held in user space, which stands in for schedulers that the kernel lacks.
pub fn queueing() -> Result<(), String> {
    namespaces()?;
    in_new_network("iptables -w 10 -A INPUT -j NFQUEUE --queue-num 1 --queue-bypass")
        .and_then(|()| tried::queue())
        .map_err(|why| format!("this kernel has no NFQUEUE ({why})"))
}

/// What is tried by doing it.
#[cfg(target_os = "linux")]
mod tried {
    use crate::{
        agent::{disk::Disk, packets::PacketQueue},
        owner::fresh_run,
    };
    use std::process::{Command, Stdio};

    pub(super) fn mount() -> Result<(), String> {
        let words = |e: std::io::Error| e.to_string();
        let folder = std::env::temp_dir().join(format!("tribunal-try-{}", fresh_run()));
        let (backing, at) = (folder.join("backing"), folder.join("disk"));
        std::fs::create_dir_all(&backing).and_then(|()| std::fs::create_dir(&at)).map_err(words)?;
        // Named like that of a run, so that it is found if we are killed in this moment.
        let tried = Disk::mount(&backing, &at, &format!("tribunal:{}", fresh_run())).and_then(|disk| {
            std::fs::write(at.join("file"), "x")?;
            let arrived = std::fs::read(backing.join("file"))? == b"x";
            drop(disk);
            if arrived { Ok(()) } else { Err(std::io::Error::other("what is written does not arrive")) }
        });
        let _ = std::fs::remove_dir_all(&folder);
        tried.map_err(words)
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn trace() -> Result<(), String> {
        let mut child = Command::new("sleep");
        let child = child.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut child = child.map_err(|e| format!("cannot run `sleep`: {e}"))?;
        let measured = crate::agent::clock::measure(child.id() as i32);
        let _ = child.kill();
        let _ = child.wait();
        measured.map(|_| ()).map_err(|e| e.to_string())
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn trace() -> Result<(), String> {
        Ok(())
    }

    pub(super) fn queue() -> Result<(), String> {
        // Nothing leads to it. The number may be somebody's: another is tried then.
        let open = || PacketQueue::open(50_000 + rand::random::<u16>() % 15_000, 1);
        open().or_else(|_| open()).map(|_| ()).map_err(|e| e.to_string())
    }
}

/// Elsewhere nothing can be tried, and nobody gets here.
#[cfg(not(target_os = "linux"))]
mod tried {
    pub(super) fn mount() -> Result<(), String> {
        Ok(())
    }
    pub(super) fn trace() -> Result<(), String> {
        Ok(())
    }
    pub(super) fn queue() -> Result<(), String> {
        Ok(())
    }
}

/// Runs a command to its end, for a limited time; after that it is killed, with what it has started.
fn output(command: &mut Command, limit: Duration) -> Result<Output, String> {
    // A group of its own: what a shell has started would keep the pipes open.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.env("PATH", path()).spawn().map_err(|e| e.to_string())?;
    let group = Pid::from_raw(child.id() as i32);
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(limit) {
        Ok(out) => out.map_err(|e| e.to_string()),
        Err(_) => {
            if let Some(group) = group {
                // It may have ended in this moment.
                let _ = kill_process_group(group, Signal::KILL);
            }
            Err(format!("it did not end within {} s", limit.as_secs_f32()))
        }
    }
}

/// Runs a command and returns what it said if it failed.
pub fn quiet(command: &mut Command) -> Result<String, String> {
    let out = output(command, PATIENCE)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(said.lines().next().unwrap_or("it failed and said nothing").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended_with_what_it_has_started() {
        let mut hanging = Command::new("sh");
        hanging.args(["-c", "sleep 60; true"]);
        let why = output(&mut hanging, Duration::from_millis(50)).unwrap_err();
        assert_eq!(why, "it did not end within 0.05 s");
    }
}
