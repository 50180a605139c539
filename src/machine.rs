//! What this machine can do: each answer is a reason why not, with what to do about it.
//!
//! Found out by trying, where trying costs nothing; `tribunal doctor` prints it all, and plans are refused with the same
//! words.

use std::{
    fs::OpenOptions,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Whether we are root.
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("needs root: run it with sudo, or use `--on docker`, which needs only the engine".to_owned())
    }
}

/// Where a program is, if it is on the path (or where administrators' programs are).
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|folder| folder.join(name)).find(|p| p.is_file())
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

/// Whether file systems of our own can be mounted, so that a node's disk can fail.
pub fn fuse() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("disks that can fail need FUSE, on Linux".to_owned());
    }
    if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        return Err("cannot open /dev/fuse: load the kernel's module `fuse`, and run as root".to_owned());
    }
    root()
}

/// Whether the wall clock of a process on this machine can be set wrong.
pub fn clocks() -> Result<(), String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(
            "the clock of a process is set wrong by patching its vDSO: Linux on x86-64 only".to_owned()
        );
    }
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if root().is_err() && !matches!(scope.trim(), "" | "0") {
        return Err(
            "needs root, or /proc/sys/kernel/yama/ptrace_scope set to 0, to trace the nodes".to_owned()
        );
    }
    Ok(())
}

/// Whether nodes can live in network namespaces.
pub fn namespaces() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("network namespaces are Linux's".to_owned());
    }
    root()?;
    programs(&[("ip", "iproute2"), ("tc", "iproute2"), ("iptables", "iptables"), ("nsenter", "util-linux")])
}

/// Whether a Docker engine answers.
pub fn docker() -> Result<(), String> {
    programs(&[("docker", "docker.io")])?;
    let out = Command::new("docker").args(["version", "--format", "{{.Server.Os}}"]).output();
    let out = out.map_err(|e| format!("cannot run `docker`: {e}"))?;
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
    let script = format!("ip link set lo up && tc qdisc add dev lo root {kind} {arguments}");
    quiet(Command::new("unshare").args(["--net", "--", "sh", "-c", &script])).map(|_| ()).map_err(|why| {
        format!("this kernel has no `sch_{kind}` ({why}): load the module, or use a kernel that has it")
    })
}

/// Whether packets can be duplicated, tried in a network namespace that lives as long as the trial.
pub fn copying() -> Result<(), String> {
    namespaces()?;
    let script = "iptables -w -t mangle -A OUTPUT -d 127.0.0.1 -j TEE --gateway 127.0.0.1";
    let tried = quiet(Command::new("unshare").args(["--net", "--", "sh", "-c", script]));
    tried.map(|_| ()).map_err(|why| format!("this kernel has no `xt_TEE`, which duplicates packets ({why})"))
}

/// Runs a command and returns what it said if it failed.
pub fn quiet(command: &mut Command) -> Result<String, String> {
    let out = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(said.lines().next().unwrap_or("it failed and said nothing").trim().to_owned())
}
