//! Hosts to log in to: network namespaces of the test's own, with an sshd in each, on keys and ports of their own.
//!
//! ```text
//! trib-ssh-<pid>-1 ─ 10.215.0.11:2222 sshd ─┐
//! trib-ssh-<pid>-2 ─ 10.215.0.12:2222 sshd ─┼─ bridge ─ 10.215.0.1 (here)
//! ```

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
}

fn sh(script: &str) {
    let out = Command::new("sh").args(["-e", "-c", script]).output().expect("sh runs");
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

impl Hosts {
    pub(crate) fn start(count: usize) -> Hosts {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        sh(&format!(
            "ssh-keygen -q -t ed25519 -N '' -f {at}/key; ssh-keygen -q -t ed25519 -N '' -f {at}/host; mkdir -p /run/sshd"
        ));
        let name = |i: usize| format!("trib-ssh-{}-{i}", std::process::id());
        let hub = name(0);
        let mut hosts = Hosts { folder, daemons: vec![], spaces: vec![hub.clone()] };
        sh(&format!(
            "ip netns add {hub}; ip link add tribssh type veth peer name host netns {hub}; \
             ip -n {hub} link add bridge type bridge; ip -n {hub} link set bridge up; \
             ip -n {hub} link set host master bridge up; ip addr add 10.215.0.1/24 dev tribssh; ip link set tribssh up"
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
                 ip -n {space} addr add 10.215.0.1{i}/24 dev eth0; ip -n {space} link set eth0 up"
            ));
            let option = |text: String| ["-o".to_owned(), text];
            let daemon = Command::new("ip")
                .args([
                    "netns",
                    "exec",
                    &space,
                    "/usr/sbin/sshd",
                    "-D",
                    "-f",
                    "/dev/null",
                    "-p",
                    &PORT.to_string(),
                ])
                .arg("-h")
                .arg(hosts.path("host"))
                .args(option(format!("AuthorizedKeysFile={}", hosts.path("key.pub").display())))
                .args(option(format!("PidFile={}", hosts.path(&format!("pid{i}")).display())))
                .args(option("StrictModes=no".to_owned()))
                .args(option("PermitRootLogin=prohibit-password".to_owned()))
                .stderr(Stdio::null())
                .spawn();
            hosts.daemons.push(daemon.expect("sshd starts"));
            known.push_str(&format!("[10.215.0.1{i}]:{PORT} {}\n", key.join(" ")));
        }
        std::fs::write(hosts.path("known_hosts"), known).unwrap();
        for i in 1..=count {
            let address = std::net::SocketAddr::from(([10, 215, 0, 10 + i as u8], PORT));
            crate::common::eventually("sshd listens", std::time::Duration::from_secs(20), || {
                std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1)).is_ok()
            });
        }
        hosts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A test of a cluster on these hosts.
    pub(crate) fn test_file(&self) -> String {
        let hosts: Vec<String> =
            (1..=self.daemons.len()).map(|i| format!("\"root@10.215.0.1{i}:{PORT}\"")).collect();
        format!(
            "name: ssh\ncluster:\n  on: ssh\n  nodes: {}\n  hosts: [{}]\n  ssh-key: {}\n  ssh-options: [\"UserKnownHostsFile={}\"]\n\
             load: {{rate: 300}}\n",
            self.daemons.len(),
            hosts.join(", "),
            self.path("key").display(),
            self.path("known_hosts").display()
        )
    }

    /// What a run has left on the hosts: rules, qdiscs, folders, processes.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for space in &self.spaces[1..] {
            let inside = |words: &[&str]| {
                let out = Command::new("ip").args(["netns", "exec", space]).args(words).output().unwrap();
                String::from_utf8_lossy(&out.stdout).into_owned()
            };
            left.extend(
                inside(&["iptables", "-S"]).lines().filter(|l| l.contains("TRIB")).map(str::to_owned),
            );
            left.extend(inside(&["tc", "qdisc"]).lines().filter(|l| l.contains("htb")).map(str::to_owned));
            // Besides the daemon itself.
            let pids = Command::new("ip").args(["netns", "pids", space]).output().unwrap();
            for pid in String::from_utf8_lossy(&pids.stdout).lines() {
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                // Besides the daemon itself, and those who have ended.
                if !words.contains("[listener]") && !words.is_empty() {
                    left.push(format!("process {pid}: {words}"));
                }
            }
        }
        let folders = Path::new("/tmp").read_dir().unwrap().flatten();
        left.extend(
            folders
                .map(|f| f.file_name().to_string_lossy().into_owned())
                .filter(|f| f.starts_with("tribunal-t")),
        );
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
        let _ = Command::new("ip").args(["link", "del", "tribssh"]).stderr(Stdio::null()).status();
    }
}
