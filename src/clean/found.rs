//! Looks for everything that a run can leave behind, and to which run it belongs.

use super::run_of_namespace;
use crate::{
    cluster::{
        docker::{
            OWNER, RUN,
            engine::{self, docker},
        },
        firewall::{rules, shaping},
    },
    machine,
    owner::{self, Owner, is_run},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    /// A process: its id, its command, and its user.
    Process(u32, String, u32),
    /// A container: its id, and its name.
    Container(String, String),
    /// A network of the Docker engine: its id, and its name.
    Network(String, String),
    /// A volume of the Docker engine.
    Volume(String),
    /// An image that a compose file has built: its id, and its name.
    Image(String, String),
    /// A network namespace.
    Namespace(String),
    /// A mounted file system.
    Mount(PathBuf),
    /// A chain of this machine's firewall: its table, the chain that leads to it, and its name.
    Chain(&'static str, &'static str, String),
    /// The root qdisc of a device.
    Qdisc(String),
    /// A folder: of a run on a host behind ssh, or of the sockets of its connections.
    Folder(PathBuf, u32),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Process(pid, command, _) => write!(f, "process {pid} ({command})"),
            Thing::Container(_, name) => write!(f, "container {name}"),
            Thing::Network(_, name) => write!(f, "network {name}"),
            Thing::Volume(name) => write!(f, "volume {name}"),
            Thing::Image(_, name) => write!(f, "image {name}"),
            Thing::Namespace(name) => write!(f, "namespace {name}"),
            Thing::Mount(at) => write!(f, "mount {}", at.display()),
            Thing::Chain(table, _, name) => write!(f, "firewall chain {name} (table {table})"),
            Thing::Qdisc(device) => write!(f, "qdisc of {device}"),
            Thing::Folder(at, _) => write!(f, "folder {}", at.display()),
        }
    }
}

impl Thing {
    /// Whether the record of its run would be where we look: namespaces need root, whose records are here, and sockets of
    /// ssh connections are beside the record.
    pub(super) fn would_have_its_record_here(&self) -> bool {
        match self {
            Thing::Namespace(_) => true,
            Thing::Folder(at, _) => at.parent() == Some(&*owner::folder()),
            _ => false,
        }
    }

    /// The user who has made it, if that can be told: some things only root can make. Those of the engine have labels.
    pub(super) fn maker(&self) -> Option<u32> {
        match self {
            Thing::Process(_, _, uid) | Thing::Folder(_, uid) => Some(*uid),
            Thing::Namespace(_) | Thing::Mount(_) | Thing::Chain(..) | Thing::Qdisc(_) => Some(0),
            Thing::Container(..) | Thing::Network(..) | Thing::Volume(_) | Thing::Image(..) => None,
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
    /// Where nobody could look, and why.
    pub(super) unseen: Vec<String>,
}

impl Found {
    pub(super) async fn look() -> Found {
        let mut found = Found::default();
        found.processes();
        found.mounts();
        found.namespaces();
        found.chains();
        found.folders();
        let known = found.things.keys().cloned().chain(owner::records().into_keys()).collect();
        found.qdiscs(&known);
        match engine::answers().await {
            Ok(()) => found.docker().await,
            Err(why) => found.unseen.push(format!("Docker was not looked at: {why}")),
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
                let Some(uid) = user_of(pid) else { continue };
                self.add(&run, Thing::Process(pid, name.trim().to_owned(), uid));
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
        if machine::program("iptables").is_none() {
            return;
        }
        if machine::root().is_err() {
            self.unseen.push("the firewall was not looked at, which needs root".to_owned());
            return;
        }
        let chains = [
            ("filter", "INPUT", ""),
            ("filter", "OUTPUT", rules::ANSWERS_SUFFIX),
            ("mangle", "OUTPUT", shaping::COPIES),
        ];
        for (table, parent, suffix) in chains {
            let mut list = std::process::Command::new("iptables");
            match machine::quiet(list.args(["-w", "10", "-t", table, "-S"])) {
                Ok(text) => {
                    for (run, chain) in chains_in(&text, suffix) {
                        self.add(&run, Thing::Chain(table, parent, chain));
                    }
                }
                Err(why) => {
                    self.unseen.push(format!("the firewall's table {table} was not looked at: {why}"))
                }
            }
        }
    }

    /// Qdiscs have handles and no names: only of the runs that are known here, by what else they have left.
    fn qdiscs(&mut self, runs: &BTreeSet<String>) {
        if machine::root().is_err() || machine::program("tc").is_none() {
            return;
        }
        let Ok(text) = machine::quiet(std::process::Command::new("tc").args(["qdisc", "show"])) else {
            return;
        };
        for run in runs {
            for device in qdiscs_in(&text, &shaping::handle(run)) {
                self.add(run, Thing::Qdisc(device));
            }
        }
    }

    fn folders(&mut self) {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let homes = fs::read_dir("/home").into_iter().flatten().flatten().map(|h| h.path().join(".cache"));
        let places = ["/tmp", "/var/tmp", "/run"].map(PathBuf::from).into_iter().chain(home).chain(homes);
        // Where the sockets of ssh connections are.
        let places: BTreeSet<PathBuf> = places.chain([owner::folder()]).collect();
        for entry in places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let (Some(run), Ok(meta)) = (run_of_folder(&name), entry.metadata()) else { continue };
            // Of others nobody but root can remove anything.
            let ours = machine::root().is_ok() || meta.uid() == rustix::process::geteuid().as_raw();
            if meta.is_dir() && ours {
                self.add(&run, Thing::Folder(entry.path(), meta.uid()));
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
        // Its list shows no labels.
        let images = docker(&["image", "ls", "--quiet", "--no-trunc", "--filter", &filter]).await;
        let ids: BTreeSet<String> = images.unwrap_or_default().lines().map(str::to_owned).collect();
        if !ids.is_empty() {
            let label = |name: &str| format!("{{{{index .Config.Labels \"{name}\"}}}}");
            let format =
                format!("{{{{.Id}}}}\t{{{{join .RepoTags \" \"}}}}\t{}\t{}", label(RUN), label(OWNER));
            let inspect = ["image", "inspect", "--format", &format].map(str::to_owned).into_iter().chain(ids);
            self.listed(docker(&inspect.collect::<Vec<_>>()).await, Thing::Image);
        }
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
    if let Some(run) = run_of_connection(&arguments) {
        return Some(run);
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|b| *b == 0);
    let run = variables.find_map(|v| v.strip_prefix(b"TRIBUNAL_RUN="))?;
    // The bundled node takes any value as leave to plant bugs; only ours names a run.
    Some(String::from_utf8_lossy(run).into_owned()).filter(|run| is_run(run))
}

/// The run of an ssh connection in the background, by its socket: it writes over its environment.
fn run_of_connection(arguments: &[&[u8]]) -> Option<String> {
    let title = String::from_utf8_lossy(arguments.first()?).into_owned();
    let socket = title.strip_prefix("ssh: ")?.split(" [mux]").next()?.to_owned();
    let folder = std::path::Path::new(&socket).parent()?.file_name()?.to_str()?.strip_suffix("-ssh")?;
    is_run(folder).then(|| folder.to_owned())
}

/// The chains of runs in what `iptables -S` says, whose names end like this.
fn chains_in(text: &str, suffix: &str) -> Vec<(String, String)> {
    let chains = text.lines().filter_map(|line| line.strip_prefix("-N "));
    let of_run = |chain: &str| {
        let run = chain.strip_prefix("TRIB-")?.strip_suffix(suffix)?;
        is_run(run).then(|| (run.to_owned(), chain.to_owned()))
    };
    chains.filter_map(of_run).collect()
}

/// The devices whose root has this handle, in what `tc qdisc show` says.
fn qdiscs_in(text: &str, handle: &str) -> Vec<String> {
    let root = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["qdisc", "htb", number, "dev", device, "root", ..] = words[..] else { return None };
        (number.trim_end_matches(':') == handle).then(|| device.to_owned())
    };
    text.lines().filter_map(root).collect()
}

/// The run that a folder belongs to, by its name: `tribunal-<run>-<node>` on a host, `<run>-ssh` where it was begun.
fn run_of_folder(name: &str) -> Option<String> {
    let run = match name.strip_prefix("tribunal-") {
        Some(rest) => rest.split_once('-')?.0,
        None => name.strip_suffix("-ssh")?,
    };
    is_run(run).then(|| run.to_owned())
}

/// The user of a process. Not the owner of its files in /proc, which is root if the process may not be traced.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
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
    fn a_connection_in_the_background_names_its_run_in_its_socket() {
        let title = b"ssh: /run/tribunal/t0123abcd-ssh/94a8c3f7d2 [mux]".as_slice();
        assert_eq!(run_of_connection(&[title, b""]).as_deref(), Some("t0123abcd"));
        for other in [b"ssh: /home/me/.ssh/cm-host [mux]".as_slice(), b"sshd: root", b""] {
            assert_eq!(run_of_connection(&[other]), None);
        }
    }

    #[test]
    fn chains_qdiscs_and_folders_name_their_run() {
        let chains = "-P INPUT ACCEPT\n-N TRIB-t0123abcd\n-N TRIB-t0123abcd-D\n-N TRIBUTE\n-A INPUT -j TRIB-t0123abcd\n";
        let run = "t0123abcd".to_owned();
        assert_eq!(chains_in(chains, ""), [(run.clone(), "TRIB-t0123abcd".to_owned())]);
        assert_eq!(chains_in(chains, "-D"), [(run.clone(), "TRIB-t0123abcd-D".to_owned())]);
        let handle = shaping::handle(&run);
        let qdiscs = format!(
            "qdisc noqueue 0: dev lo root refcnt 2\nqdisc htb 1: dev eth1 root refcnt 2 r2q 10\n\
             qdisc htb {handle}: dev eth0 root refcnt 2 r2q 10 default 0\n"
        );
        assert_eq!(qdiscs_in(&qdiscs, &handle), ["eth0"]);
        assert_eq!(run_of_folder("tribunal-t0123abcd-n1"), Some(run.clone()));
        assert_eq!(run_of_folder("t0123abcd-ssh"), Some(run));
        for other in ["tribunal-1000", "tribunal-mine-n1", "tribunal-t0123abcd", "mine-ssh", "t0123abcd"] {
            assert_eq!(run_of_folder(other), None, "{other}");
        }
    }

    #[test]
    fn mounts_are_found_by_their_source() {
        let text = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            101 22 0:50 / /tmp/my\\040store/disks/n1 rw,nosuid - fuse.tribunal tribunal:t0123abcd rw,user_id=0\n";
        assert_eq!(mounts_in(text), [("t0123abcd".to_owned(), PathBuf::from("/tmp/my store/disks/n1"))]);
    }
}
