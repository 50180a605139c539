//! Hosts to log in to: network namespaces of the test's own, with an sshd in each, on keys and ports of their own.
//!
//! ```text
//! trib-ssh-<pid>-1 ─ 10.215.K.11:2222 sshd ─┐
//! trib-ssh-<pid>-2 ─ 10.215.K.12:2222 sshd ─┼─ bridge ─ tssh<pid> 10.215.K.1 (here)
//! ```
//! Each has a mount namespace too, with a /tmp and a /run/tribunal of its own.

#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tribunal::machine;

const PORT: u16 = 2222;

/// Whether there is an sshd.
pub(crate) fn possible() -> Result<(), String> {
    machine::programs(&[
        ("ssh", "openssh-client"),
        ("sshd", "openssh-server"),
        ("ssh-keygen", "openssh-client"),
    ])
}

/// Running hosts. Dropping them removes everything.
pub(crate) struct Hosts {
    folder: tempfile::TempDir,
    daemons: Vec<Child>,
    spaces: Vec<String>,
    interface: String,
    /// The third byte of their addresses.
    subnet: u8,
}

/// Where a host finds the program under test.
pub(crate) const PROGRAM: &str = "/mnt/program/tribunal";

/// What makes a mount namespace (`ip netns exec` makes one) a host's own: its /tmp and its records. In /mnt is what it needs
/// of this machine, which may be below /tmp. `noexec` is a folder where no program may be run.
fn own_places(keys: &Path, noexec: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_tribunal")).parent().expect("it is in a folder");
    let mut script = format!(
        "mount -t tmpfs tmpfs /mnt; mkdir /mnt/keys /mnt/program; mount --bind {} /mnt/keys; mount --bind {} /mnt/program; \
         mount -t tmpfs tmpfs /tmp; mkdir -p /run/tribunal; mount -t tmpfs tmpfs /run/tribunal",
        keys.display(),
        program.display()
    );
    if !noexec.is_empty() {
        script.push_str(&format!("; mount -t tmpfs -o noexec tmpfs {noexec}"));
    }
    script
}

fn sh(script: &str) {
    let out = Command::new("sh").args(["-e", "-c", script]).output().expect("sh runs");
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// The first subnet that no route here leads to, beginning where other processes do not.
fn free_subnet() -> u8 {
    let routes = Command::new("ip").args(["-4", "-o", "route", "show"]).output().expect("ip runs").stdout;
    let routes = String::from_utf8_lossy(&routes).into_owned();
    let first = std::process::id() as u8;
    let mut all = (0..=255u8).map(|i| first.wrapping_add(i));
    all.find(|k| !routes.contains(&format!("10.215.{k}."))).expect("a subnet is free")
}

impl Hosts {
    pub(crate) fn start(count: usize) -> Hosts {
        Hosts::start_with(count, "")
    }

    /// Hosts on which no program may be run from this folder.
    pub(crate) fn start_with(count: usize, noexec: &str) -> Hosts {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        sh(&format!(
            "ssh-keygen -q -t ed25519 -N '' -f {at}/key; ssh-keygen -q -t ed25519 -N '' -f {at}/host; mkdir -p /run/sshd"
        ));
        let name = |i: usize| format!("trib-ssh-{}-{i}", std::process::id());
        let (hub, subnet) = (name(0), free_subnet());
        let interface = format!("tssh{}", std::process::id());
        let mut hosts = Hosts {
            folder,
            daemons: vec![],
            spaces: vec![hub.clone()],
            interface: interface.clone(),
            subnet,
        };
        sh(&format!(
            "ip netns add {hub}; ip link add {interface} type veth peer name host netns {hub}; \
             ip -n {hub} link add bridge type bridge; ip -n {hub} link set bridge up; \
             ip -n {hub} link set host master bridge up; ip addr add 10.215.{subnet}.1/24 dev {interface}; \
             ip link set {interface} up"
        ));
        let public = std::fs::read_to_string(hosts.path("host.pub")).unwrap();
        let key: Vec<&str> = public.split_whitespace().take(2).collect();
        let mut known = String::new();
        for i in 1..=count {
            let space = name(i);
            hosts.spaces.push(space.clone());
            sh(&format!(
                "ip netns add {space}; ip -n {hub} link add n{i} type veth peer name eth0 netns {space}; \
                 ip -n {hub} link set n{i} master bridge up; ip -n {space} link set lo up; \
                 ip -n {space} addr add 10.215.{subnet}.1{i}/24 dev eth0; ip -n {space} link set eth0 up"
            ));
            let option = |text: String| ["-o".to_owned(), text];
            let script =
                format!("set -e; {}; exec /usr/sbin/sshd \"$@\"", own_places(hosts.folder.path(), noexec));
            let daemon = Command::new("ip")
                .args(["netns", "exec", &space, "sh", "-c", &script, "sshd"])
                .args(["-D", "-f", "/dev/null", "-p", &PORT.to_string()])
                .args(["-h", "/mnt/keys/host"])
                .args(option("AuthorizedKeysFile=/mnt/keys/key.pub".to_owned()))
                .args(option("PidFile=none".to_owned()))
                .args(option("StrictModes=no".to_owned()))
                .args(option("PermitRootLogin=prohibit-password".to_owned()))
                .stderr(Stdio::null())
                .spawn();
            hosts.daemons.push(daemon.expect("sshd starts"));
            known.push_str(&format!("[10.215.{subnet}.1{i}]:{PORT} {}\n", key.join(" ")));
        }
        std::fs::write(hosts.path("known_hosts"), known).unwrap();
        for i in 1..=count {
            let address = std::net::SocketAddr::from(([10, 215, subnet, 10 + i as u8], PORT));
            crate::common::eventually("sshd listens", std::time::Duration::from_secs(20), || {
                std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1)).is_ok()
            });
        }
        hosts
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.daemons.len()
    }

    /// A command on a host, counted from 0: in its network, with its folders. This machine's processes are everybody's.
    pub(crate) fn on(&self, i: usize, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.daemons[i].id().to_string(), "--mount", "--net", "--"]).args(words);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A test of a cluster on these hosts.
    pub(crate) fn test_file(&self) -> String {
        let subnet = self.subnet;
        let hosts: Vec<String> =
            (1..=self.count()).map(|i| format!("\"root@10.215.{subnet}.1{i}:{PORT}\"")).collect();
        format!(
            "name: ssh\ncluster:\n  on: ssh\n  nodes: {}\n  hosts: [{}]\n  ssh-key: {}\n  ssh-options: [\"UserKnownHostsFile={}\"]\n\
             load: {{rate: 300}}\n",
            self.count(),
            hosts.join(", "),
            self.path("key").display(),
            self.path("known_hosts").display()
        )
    }

    /// What a run has left on the hosts: rules, qdiscs, folders, records, processes. Nothing else is there.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for i in 0..self.count() {
            let inside = |words: &[&str]| -> Vec<String> {
                let out = self.on(i, words).output().unwrap();
                String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
            };
            for table in ["filter", "mangle"] {
                let rules = inside(&["iptables", "-w", "10", "-t", table, "-S"]);
                left.extend(rules.into_iter().filter(|l| l.contains("TRIB")));
            }
            left.extend(inside(&["tc", "qdisc"]).into_iter().filter(|l| l.contains("htb")));
            for folder in ["/tmp", "/run/tribunal"] {
                left.extend(inside(&["ls", folder]).into_iter().map(|name| format!("{folder}/{name}")));
            }
            // Besides the daemon itself.
            let pids = Command::new("ip").args(["netns", "pids", &self.spaces[i + 1]]).output().unwrap();
            for pid in String::from_utf8_lossy(&pids.stdout).lines() {
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                // Besides the daemon itself, and those who have ended.
                if !words.contains("[listener]") && !words.is_empty() {
                    left.push(format!("process {pid}: {words}"));
                }
            }
        }
        left
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for space in &self.spaces {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
        let _ = Command::new("ip").args(["link", "del", &self.interface]).stderr(Stdio::null()).status();
    }
}
