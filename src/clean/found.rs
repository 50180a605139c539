//! Looks for everything that a run can leave behind, and to which run it belongs.

use super::run_of_namespace;
use crate::{
    cluster::docker::{OWNER, RUN, engine::docker},
    machine,
    owner::{Owner, is_run},
};
use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    /// A process: its id, and its command.
    Process(u32, String),
    /// A container: its id, and its name.
    Container(String, String),
    /// A network of the Docker engine: its id, and its name.
    Network(String, String),
    /// A volume of the Docker engine.
    Volume(String),
    /// A network namespace.
    Namespace(String),
    /// A mounted file system.
    Mount(PathBuf),
    /// A chain of this machine's firewall.
    Chain(String),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Process(pid, command) => write!(f, "process {pid} ({command})"),
            Thing::Container(_, name) => write!(f, "container {name}"),
            Thing::Network(_, name) => write!(f, "network {name}"),
            Thing::Volume(name) => write!(f, "volume {name}"),
            Thing::Namespace(name) => write!(f, "namespace {name}"),
            Thing::Mount(at) => write!(f, "mount {}", at.display()),
            Thing::Chain(name) => write!(f, "firewall chain {name}"),
        }
    }
}

/// Everything that was found, by run.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) things: BTreeMap<String, Vec<Thing>>,
    /// Owners, as labels tell them.
    pub(super) owners: BTreeMap<String, Owner>,
    pub(super) troubles: Vec<String>,
}

impl Found {
    pub(super) async fn look() -> Found {
        let mut found = Found::default();
        found.processes();
        found.mounts();
        found.namespaces();
        found.chains();
        if machine::docker().is_ok() {
            found.docker().await;
        }
        found
    }

    fn add(&mut self, run: &str, thing: Thing) {
        self.things.entry(run.to_owned()).or_default().push(thing);
    }

    fn processes(&mut self) {
        let own = std::process::id();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids.filter(|pid| *pid != own) {
            if let Some(run) = run_of(pid) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                self.add(&run, Thing::Process(pid, name.trim().to_owned()));
            }
        }
    }

    fn mounts(&mut self) {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for (run, at) in mounts_in(&text) {
            self.add(&run, Thing::Mount(at));
        }
    }

    fn namespaces(&mut self) {
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(run) = run_of_namespace(&name) {
                self.add(&run, Thing::Namespace(name));
            }
        }
    }

    fn chains(&mut self) {
        if machine::root().is_err() || machine::program("iptables").is_none() {
            return;
        }
        let Ok(text) = machine::quiet(std::process::Command::new("iptables").args(["-w", "-S"])) else {
            return;
        };
        for chain in text.lines().filter_map(|l| l.strip_prefix("-N ")) {
            if let Some(run) = chain.strip_prefix("TRIB-").filter(|run| is_run(run)) {
                self.add(run, Thing::Chain(chain.to_owned()));
            }
        }
    }

    async fn docker(&mut self) {
        let filter = format!("label={RUN}");
        let format =
            format!("{{{{.ID}}}}\t{{{{.Names}}}}\t{{{{.Label \"{RUN}\"}}}}\t{{{{.Label \"{OWNER}\"}}}}");
        let containers =
            docker(&["ps", "--all", "--no-trunc", "--filter", &filter, "--format", &format]).await;
        self.listed(containers, Thing::Container);
        let format = format.replace("{{.Names}}", "{{.Name}}");
        let networks =
            docker(&["network", "ls", "--no-trunc", "--filter", &filter, "--format", &format]).await;
        self.listed(networks, Thing::Network);
        let format = format.replace("{{.ID}}", "{{.Name}}");
        let volumes = docker(&["volume", "ls", "--filter", &filter, "--format", &format]).await;
        self.listed(volumes, |name, _| Thing::Volume(name));
    }

    fn listed(&mut self, listed: Result<String, String>, thing: impl Fn(String, String) -> Thing) {
        match listed {
            Err(why) => self.troubles.push(why),
            Ok(text) => {
                for line in text.lines() {
                    let [id, name, run, owner] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
                    if let Ok(owner) = owner.parse() {
                        self.owners.insert(run.to_owned(), owner);
                    }
                    self.add(run, thing(id.to_owned(), name.to_owned()));
                }
            }
        }
    }
}

/// The run that a process belongs to: agents say it in their arguments, nodes in their environment. Processes in
/// containers belong to their containers.
pub(super) fn run_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    if matches!(stat.rsplit_once(')')?.1.split_whitespace().next(), Some("Z" | "X")) {
        return None;
    }
    if fs::read_link(format!("/proc/{pid}/ns/pid")).ok()? != fs::read_link("/proc/self/ns/pid").ok()? {
        return None;
    }
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = arguments.split(|b| *b == 0).collect();
    if let Some(at) = arguments.windows(2).position(|w| w[0] == b"agent" && w[1] == b"--run") {
        let run = arguments.get(at + 2).map(|run| String::from_utf8_lossy(run).into_owned());
        return run.filter(|run| is_run(run));
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|b| *b == 0);
    let run = variables.find_map(|v| v.strip_prefix(b"TRIBUNAL_RUN="))?;
    // The bundled node takes any value as leave to plant bugs; only ours names a run.
    Some(String::from_utf8_lossy(run).into_owned()).filter(|run| is_run(run))
}

/// The mounts of runs in a text like `/proc/self/mountinfo`.
fn mounts_in(text: &str) -> Vec<(String, PathBuf)> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let run = right.split(' ').nth(1)?.strip_prefix("tribunal:").filter(|run| is_run(run))?;
        let at = left.split(' ').nth(4)?;
        // The kernel writes blanks and the like as three octal digits.
        let at = at.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        Some((run.to_owned(), PathBuf::from(at)))
    };
    // The last first: they may stand on each other.
    text.lines().rev().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_their_source() {
        let text = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            101 22 0:50 / /tmp/my\\040store/disks/n1 rw,nosuid - fuse.tribunal tribunal:t0123abcd rw,user_id=0\n";
        assert_eq!(mounts_in(text), [("t0123abcd".to_owned(), PathBuf::from("/tmp/my store/disks/n1"))]);
    }
}
