//! Removes what runs have left whose tester is dead: processes, containers, networks, namespaces, mounts, rules.
//!
//! ```text
//! find: labels, records, names of namespaces, mountinfo, environments ─▶ run ─▶ owner ─▶ dead? ─▶ remove
//! ```
//! Agents undo what they did by themselves when their tester dies, so most of the time there is little to do; this is for
//! what they cannot undo (containers), and for when they were killed too. What belongs to a living tester is never
//! touched, nor what belongs to one that cannot be looked for from here: that is listed and left alone.

mod found;

use crate::{
    cluster::{docker, netns},
    machine,
    owner::{self, Claim, Life},
};
use found::{Found, Thing};
use std::{collections::BTreeSet, time::Duration};

/// How long agents of a dead tester may take to undo what they did before they are killed.
const FAREWELL: Duration = Duration::from_secs(30);

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Things that were removed.
    pub removed: Vec<String>,
    /// Things that were left alone, and why.
    pub left: Vec<String>,
    /// Things that could not be removed, and why.
    pub failed: Vec<String>,
    /// Where nobody could look, and why.
    pub unseen: Vec<String>,
}

/// Removes what dead runs have left, or only lists it. With `run`, that run is removed whoever its owner is; nothing
/// else is touched.
pub async fn clean(run: Option<&str>, only_list: bool) -> Cleaned {
    let mut out = Cleaned::default();
    let found = Found::look().await;
    out.failed.extend(found.troubles.iter().cloned());
    out.unseen.extend(found.unseen.iter().cloned());
    let records = owner::records();
    let mut runs: BTreeSet<String> = found.things.keys().cloned().collect();
    runs.extend(records.keys().cloned());
    for name in runs {
        let things = found.things.get(&name).cloned().unwrap_or_default();
        let claims = records.get(&name).map(Vec::as_slice).unwrap_or_default();
        let believed = claims.iter().filter(|claim| believed(claim, &things)).map(|claim| &claim.owner);
        let life = match (run, owner::life_of(found.owners.get(&name).into_iter().chain(believed))) {
            (Some(wanted), _) if wanted == name => Life::Dead,
            (Some(_), _) => continue,
            (None, Some(life)) => life,
            // A record is written before anything is made and removed when all is gone. Of anything else it may be where
            // we cannot look.
            (None, None) if things.iter().all(Thing::would_have_its_record_here) => Life::Dead,
            (None, None) => Life::Unknown("there is no record of its run here".to_owned()),
        };
        match life {
            Life::Dead if only_list => {
                out.left.extend(things.iter().map(|t| format!("{t}: its run is dead")))
            }
            Life::Dead => remove(&name, &things, &mut out).await,
            Life::Alive => out.left.extend(things.iter().map(|t| format!("{t}: its run goes on"))),
            Life::Unknown(why) => out.left.extend(
                things.iter().map(|t| format!("{t}: {why}; `tribunal clean --run {name}` removes it anyway")),
            ),
        }
    }
    out
}

/// Whether a record may decide about things: root's may, and anybody's about what that user has made. What needs root to
/// be made (and has no label that names its owner) was not made by a run of anybody else.
fn believed(claim: &Claim, things: &[Thing]) -> bool {
    let mut makers = things.iter().filter_map(Thing::maker).peekable();
    claim.uid == 0 || makers.peek().is_none() || makers.any(|uid| uid == claim.uid)
}

/// What a new run does before it makes anything: the same, with a word about it if something was found.
pub async fn sweep() {
    let done = clean(None, false).await;
    if !done.removed.is_empty() {
        eprintln!("removed what a dead run had left: {}", done.removed.join(", "));
    }
    for failed in done.failed {
        eprintln!("warning: {failed}");
    }
}

/// Removes the images of nodes, which runs keep for the next.
pub async fn images() -> Cleaned {
    let mut out = Cleaned::default();
    let list = ["image", "ls", "--quiet", "--no-trunc", "--filter", "label=tribunal.image=1"];
    match docker::engine::docker(&list).await {
        Ok(ids) => {
            for id in ids.lines().collect::<BTreeSet<_>>() {
                match docker::engine::docker(&["image", "rm", "--force", id]).await {
                    Ok(_) => out.removed.push(format!("image {id}")),
                    Err(why) => out.failed.push(why),
                }
            }
        }
        Err(why) => out.failed.push(why),
    }
    out
}

async fn remove(run: &str, things: &[Thing], out: &mut Cleaned) {
    let failed_before = out.failed.len();
    // Before the processes: an agent cannot unmount what a container still holds.
    for thing in things {
        if let Thing::Container(id, _) = thing {
            note(out, thing, docker::engine::docker(&["rm", "--force", "--volumes", id]).await.map(|_| ()));
        }
    }
    let processes: Vec<u32> = things
        .iter()
        .filter_map(|t| if let Thing::Process(pid, ..) = t { Some(*pid) } else { None })
        .collect();
    end_processes(run, &processes).await;
    for thing in things {
        let result = match thing {
            Thing::Process(..) => Ok(()),
            Thing::Mount(at) => unmount(at),
            _ => continue,
        };
        note(out, thing, result);
    }
    // What holds others together goes after them.
    for thing in things {
        let result = match thing {
            Thing::Network(id, _) => docker::engine::docker(&["network", "rm", id]).await.map(|_| ()),
            Thing::Volume(name) => {
                docker::engine::docker(&["volume", "rm", "--force", name]).await.map(|_| ())
            }
            Thing::Image(id, _) => docker::engine::docker(&["image", "rm", "--force", id]).await.map(|_| ()),
            Thing::Namespace(name) => {
                machine::quiet(std::process::Command::new("ip").args(["netns", "del", name])).map(|_| ())
            }
            Thing::Chain(table, parent, name) => remove_chain(table, parent, name),
            Thing::Qdisc(device) => {
                let mut tc = std::process::Command::new("tc");
                machine::quiet(tc.args(["qdisc", "del", "dev", device, "root"])).map(|_| ())
            }
            Thing::Folder(at, _) => std::fs::remove_dir_all(at).map_err(|e| e.to_string()),
            _ => continue,
        };
        note(out, thing, result);
    }
    if out.failed.len() == failed_before {
        owner::forget(run);
    }
}

fn note(out: &mut Cleaned, thing: &Thing, result: Result<(), String>) {
    match result {
        Ok(()) => out.removed.push(thing.to_string()),
        // An agent may have been faster.
        Err(why) if gone(&why) => {}
        Err(why) => out.failed.push(format!("{thing}: {why}")),
    }
}

fn gone(why: &str) -> bool {
    // Of the system and the engine; of iptables; of tc.
    let words = [
        "No such",
        "not found",
        "no such",
        "already in progress",
        "No chain",
        "handle of zero",
        "Cannot find",
    ];
    words.iter().any(|w| why.contains(w))
}

/// Lets processes end by themselves for a moment, then ends them.
async fn end_processes(run: &str, pids: &[u32]) {
    let still = |pid: &&u32| found::run_of(**pid).as_deref() == Some(run);
    let deadline = tokio::time::Instant::now() + FAREWELL;
    while pids.iter().any(|p| still(&p)) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for pid in pids.iter().filter(still) {
        if let Some(pid) = rustix::process::Pid::from_raw(*pid as i32) {
            // It may have ended in this moment.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    while pids.iter().any(|p| still(&p)) && tokio::time::Instant::now() < deadline + FAREWELL {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(target_os = "linux")]
fn unmount(at: &std::path::Path) -> Result<(), String> {
    use rustix::mount::{UnmountFlags, unmount};
    // By force: that ends what waits for the file system's answers. A process that was killed while it waited for an answer of
    // its own would else stay for ever.
    match unmount(at, UnmountFlags::FORCE | UnmountFlags::DETACH) {
        // Nothing is mounted there any more: its agent was faster.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(not(target_os = "linux"))]
fn unmount(_at: &std::path::Path) -> Result<(), String> {
    Ok(())
}

/// A chain in this machine's own firewall, left by an agent of a run over ssh.
fn remove_chain(table: &str, parent: &str, chain: &str) -> Result<(), String> {
    let iptables = |arguments: &[&str]| {
        machine::quiet(std::process::Command::new("iptables").args(["-w", "10", "-t", table]).args(arguments))
            .map(|_| ())
    };
    // It may not be jumped to any more.
    let _ = iptables(&["-D", parent, "-j", chain]);
    iptables(&["-F", chain])?;
    iptables(&["-X", chain])
}

/// The run that a namespace belongs to, by its name.
fn run_of_namespace(name: &str) -> Option<String> {
    let rest = name.strip_prefix(netns::PREFIX)?;
    let (run, _node) = rest.split_once('-')?;
    owner::is_run(run).then(|| run.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root's run in namespaces, and what a stranger writes into /tmp/tribunal-1000 about it.
    #[test]
    fn a_strangers_record_decides_nothing_about_what_root_has_made() {
        let claim = |uid| Claim { owner: owner::Owner::this(), uid };
        let root_made = [Thing::Namespace("x".to_owned()), Thing::Process(7, "node".to_owned(), 0)];
        assert!(!believed(&claim(1000), &root_made));
        assert!(believed(&claim(0), &root_made));
        let users = [Thing::Process(7, "node".to_owned(), 1000)];
        assert!(believed(&claim(1000), &users) && !believed(&claim(1001), &users));
        assert!(believed(&claim(1000), &[Thing::Container("id".to_owned(), "name".to_owned())]));
    }

    #[test]
    fn namespaces_name_their_run() {
        let name = netns::namespace("t0123abcd", "n1");
        assert_eq!(run_of_namespace(&name).as_deref(), Some("t0123abcd"));
        assert_eq!(run_of_namespace("tribunal-mine"), None);
        assert_eq!(run_of_namespace("other-t0123abcd-n1"), None);
    }
}
