//! Whose is it? Everything that outlives a process carries its owner, so that what the dead have left can be removed and
//! what the living hold is never touched.
//!
//! ```text
//! run id ─ pid ─ its start ─ boot ─ machine ─ pid namespace         in /run/tribunal/<run>, and in labels of containers
//! ```
//! Pids come again: a process is known by its pid, the moment of its start and the boot it belongs to. An owner that
//! cannot be looked for from here (on another machine, in another pid namespace) is taken to be alive.

use anyhow::{Context, Result, bail};
use rand::RngExt;
use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// A process that owns something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    start: u64,
    boot: String,
    machine: String,
    space: String,
}

/// Whether an owner lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Alive,
    /// It does not.
    Dead,
    /// That cannot be told from here, and why.
    Unknown(String),
}

impl Owner {
    /// This process.
    pub fn this() -> Owner {
        let pid = std::process::id();
        Owner {
            pid,
            start: start_of(pid).unwrap_or(0),
            boot: first_line("/proc/sys/kernel/random/boot_id"),
            machine: first_line("/etc/machine-id"),
            space: pid_namespace(),
        }
    }

    /// Whether it lives, as far as can be told from here.
    pub fn life(&self) -> Life {
        let here = Owner::this();
        if self.machine != here.machine {
            return Life::Unknown("its owner is on another machine".to_owned());
        }
        if self.boot != here.boot && self.machine == "none" {
            return Life::Unknown("its owner is of another boot, perhaps of another machine".to_owned());
        }
        if self.boot != here.boot {
            return Life::Dead;
        }
        if self.space != here.space {
            return Life::Unknown("its owner is in another pid namespace".to_owned());
        }
        if start_of(self.pid) == Some(self.start) {
            return Life::Alive;
        }
        // Where /proc hides the processes of others, not seeing one says nothing.
        let hidden = std::fs::read_to_string("/proc/1/stat").is_err();
        if hidden { Life::Unknown("/proc hides the processes of others".to_owned()) } else { Life::Dead }
    }
}

/// When a process started, in clock ticks since the boot; `None` if it does not exist, or is a zombie.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, parentheses included.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("none").trim().to_owned()
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    if digits.is_empty() { "none".to_owned() } else { digits }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.pid, self.start, self.boot, self.machine, self.space)
    }
}

impl FromStr for Owner {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        let parts: Vec<&str> = s.trim().split('/').collect();
        let [pid, start, boot, machine, space] = parts[..] else { bail!("`{s}` names no owner") };
        Ok(Owner {
            pid: pid.parse().with_context(|| format!("in `{s}`"))?,
            start: start.parse().with_context(|| format!("in `{s}`"))?,
            boot: boot.to_owned(),
            machine: machine.to_owned(),
            space: space.to_owned(),
        })
    }
}

/// A name for a run that no other run on any machine has, short enough for interfaces and chains.
pub fn fresh_run() -> String {
    format!("t{:08x}", rand::rng().random::<u32>())
}

/// Whether this is the name of a run: nothing else that looks a little like one is ever taken for ours.
pub fn is_run(name: &str) -> bool {
    name.len() == 9
        && name.starts_with('t')
        && name[1..].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Says in a file that a run exists and whose it is, before the run makes anything. Dropping it removes the file.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
}

/// Where records are kept: the same place for all users, if we may write there.
pub fn folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(ROOTS);
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|own| Path::new(own).is_dir()) {
        Some(own) => Path::new(&own).join("tribunal"),
        None => std::env::temp_dir().join(format!("tribunal-{}", rustix::process::geteuid().as_raw())),
    }
}

impl Record {
    /// Writes the record of a run.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(run: &str) -> Result<Record> {
        let folder = folder();
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join(run);
        fs::write(&path, Owner::this().to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Record { path })
    }

    /// Writes the record of a run on a host that the run has come to, whose owner is this process: unless the run has one
    /// here already, because the controller is on the same machine. A host where it cannot be written can be used all
    /// the same: what is left there is listed, and removed if somebody says so.
    pub fn write_if_there_is_none(run: &str) -> Option<Record> {
        let path = folder().join(run);
        fs::create_dir_all(folder()).ok()?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path).ok()?;
        let record = Record { path };
        file.write_all(Owner::this().to_string().as_bytes()).ok()?;
        Some(record)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // If it stays, `tribunal clean` finds that its owner is dead and nothing is left.
        let _ = fs::remove_file(&self.path);
    }
}

/// Somebody's word on whose a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is said to be.
    pub owner: Owner,
    /// The user who says so.
    pub uid: u32,
}

/// Root's records, whose word nobody else's stands against.
const ROOTS: &str = "/run/tribunal";

/// Every folder on this machine in which somebody may keep records, as far as we may look, each with the user whose it
/// is by its name.
fn folders() -> Vec<(PathBuf, u32)> {
    let below = |parent: &str| fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path());
    let mut all = vec![(PathBuf::from(ROOTS), 0), (folder(), rustix::process::geteuid().as_raw())];
    all.extend(below("/run/user").filter_map(|user| {
        let uid = user.file_name()?.to_str()?.parse().ok()?;
        Some((user.join("tribunal"), uid))
    }));
    all.extend(below("/tmp").filter_map(|path| user_of_folder(&path).map(|uid| (path, uid))));
    all.sort();
    all.dedup();
    all
}

/// The user whose records are in a folder with the name `tribunal-<uid>`: what else begins like that is somebody else's.
fn user_of_folder(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix("tribunal-")?.parse().ok()
}

/// All runs that have a record on this machine, with everybody's word on whose they are. Where root has one, it alone is
/// told: root's runs are recorded before they make anything, and anybody may write the name of a run into /tmp.
pub fn records() -> BTreeMap<String, Vec<Claim>> {
    let mut all: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
    for (folder, uid) in folders() {
        for (run, owner) in records_in(&folder, uid) {
            all.entry(run).or_default().push(Claim { owner, uid });
        }
    }
    for claims in all.values_mut() {
        if claims.iter().any(|claim| claim.uid == 0) {
            claims.retain(|claim| claim.uid == 0);
        }
    }
    all
}

/// Whether the owner of a run lives, by several words on who that is: one that lives is enough, and so is one of whom
/// nobody knows. `None` if there is no word.
pub fn life_of<'a>(owners: impl IntoIterator<Item = &'a Owner>) -> Option<Life> {
    let mut all: Option<Life> = None;
    for life in owners.into_iter().map(Owner::life) {
        all = Some(match (all, life) {
            (Some(Life::Alive), _) | (_, Life::Alive) => Life::Alive,
            (Some(Life::Unknown(why)), _) | (_, Life::Unknown(why)) => Life::Unknown(why),
            _ => Life::Dead,
        });
    }
    all
}

/// The records in one folder of a user. Anybody may have put anything there: only that user's own regular files of the
/// right name are read, for whoever opens a FIFO waits for its other end.
fn records_in(folder: &Path, uid: u32) -> Vec<(String, Owner)> {
    let read = |entry: fs::DirEntry| {
        let run = entry.file_name().into_string().ok().filter(|name| is_run(name))?;
        // Of the entry itself, not of what a link leads to.
        entry.metadata().ok().filter(|m| m.is_file() && m.uid() == uid)?;
        let owner = fs::read_to_string(entry.path()).ok()?.parse().ok()?;
        Some((run, owner))
    };
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(read).collect()
}

/// Forgets the record of a run.
pub fn forget(run: &str) {
    for (folder, _) in folders() {
        // It is in one of them.
        let _ = fs::remove_file(folder.join(run));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_can_be_written_down() {
        let me = Owner::this();
        assert_eq!(me.life(), Life::Alive);
        assert_eq!(me.to_string().parse::<Owner>().unwrap(), me);
    }

    #[test]
    fn a_pid_that_came_again_is_somebody_else() {
        let me = Owner::this();
        assert_eq!(Owner { start: me.start + 1, ..me.clone() }.life(), Life::Dead);
        assert_eq!(Owner { boot: "another".to_owned(), ..me.clone() }.life(), Life::Dead);
        assert!(matches!(Owner { machine: "x".to_owned(), ..me.clone() }.life(), Life::Unknown(_)));
        assert!(matches!(Owner { space: "1".to_owned(), ..me }.life(), Life::Unknown(_)));
    }

    /// Reading a FIFO would wait for ever: if this test hangs, it has failed.
    #[test]
    fn only_records_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let me = Owner::this();
        fs::write(at("t0123abcd"), me.to_string()).unwrap();
        fs::write(at("notes"), me.to_string()).unwrap();
        fs::write(at("t89abcdef"), "nonsense").unwrap();
        std::os::unix::fs::symlink(at("t0123abcd"), at("t00000001")).unwrap();
        for fifo in ["out", "t00000002"] {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, at(fifo), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(records_in(folder.path(), uid), [("t0123abcd".to_owned(), me)]);
        assert_eq!(
            records_in(folder.path(), uid + 1),
            [],
            "who writes into another's folder is not believed"
        );
    }

    #[test]
    fn one_owner_who_lives_is_enough() {
        let me = Owner::this();
        let dead = Owner { start: me.start + 1, ..me.clone() };
        let elsewhere = Owner { space: "1".to_owned(), ..me.clone() };
        assert_eq!(life_of([]), None);
        assert_eq!(life_of([&dead, &dead]), Some(Life::Dead));
        assert_eq!(life_of([&dead, &me, &elsewhere]), Some(Life::Alive));
        assert_eq!(life_of([&elsewhere, &me, &dead]), Some(Life::Alive));
        assert!(matches!(life_of([&dead, &elsewhere, &dead]), Some(Life::Unknown(_))));
    }

    #[test]
    fn folders_of_records_are_known_by_the_name_of_a_user() {
        assert_eq!(user_of_folder(Path::new("/tmp/tribunal-1000")), Some(1000));
        for other in ["/tmp/tribunal-uml.x7Qk2a", "/tmp/tribunal-", "/tmp/tribunal", "/tmp/1000"] {
            assert_eq!(user_of_folder(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_dead_child_is_dead_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let start = start_of(child.id()).unwrap();
        let owner = Owner { pid: child.id(), start, ..Owner::this() };
        assert_eq!(owner.life(), Life::Alive);
        child.kill().unwrap();
        while owner.life() == Life::Alive {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(owner.life(), Life::Dead);
    }
}
