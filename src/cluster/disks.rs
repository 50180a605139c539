//! The disks below the nodes' data folders: plain folders, or, if the plan asks for it, a file system of our own on top of
//! them that can fail; see [`crate::agent::disk`].

use super::{Part, agents::Agent};
use crate::agent::Request;
use async_trait::async_trait;
use nemesis::{Capability, Damage, DiskStats, DiskTrouble};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long syncs are held up before the power fails, at most: until something has been written that is not synced.
const BROWNOUT: Duration = Duration::from_millis(400);

/// One node's data folder.
pub struct Folder {
    /// Where the bytes are.
    pub backing: PathBuf,
    /// Where the file system is mounted, if there is one: what the node sees.
    pub mount: Option<PathBuf>,
    /// Who mounted it, and who does surgery on the backing folder.
    pub agent: Option<Arc<Agent>>,
}

/// The data folders of all nodes.
pub struct Disks {
    folders: Vec<Folder>,
    /// Why there is no file system, if there is none.
    why_not: Option<String>,
    damaged: Vec<Mutex<Option<Request>>>,
}

/// What an agent says of a disk.
#[derive(Deserialize)]
struct Stats {
    writes: u64,
    syncs: u64,
    delayed_syncs: u64,
    delayed_ns: u64,
    errors: u64,
    refused_full: u64,
}

/// What a power failure took.
#[derive(Deserialize)]
pub struct Loss {
    /// Files that lost something.
    pub files: u64,
    /// Bytes that were lost.
    pub lost_bytes: u64,
    /// Bytes that were not synced and are there all the same, after a torn write.
    pub kept_bytes: u64,
}

impl Loss {
    /// In words.
    pub fn words(&self, torn: bool) -> String {
        let kept = if torn { format!(" and kept {}", self.kept_bytes) } else { String::new() };
        format!("{} bytes that were not synced, of {} files{kept}", self.lost_bytes, self.files)
    }
}

impl Disks {
    /// Folders whose file systems, if any, are mounted already.
    pub fn new(folders: Vec<Folder>, why_not: Option<String>) -> Self {
        Disks { damaged: folders.iter().map(|_| Mutex::default()).collect(), folders, why_not }
    }

    /// The folder that a node sees.
    pub fn folder(&self, i: usize) -> PathBuf {
        let folder = &self.folders[i];
        folder.mount.clone().unwrap_or_else(|| folder.backing.clone())
    }

    fn mounted(&self, i: usize) -> Result<(&Arc<Agent>, &Path), String> {
        let folder = &self.folders[i];
        match (&folder.agent, &folder.mount) {
            (Some(agent), Some(mount)) => Ok((agent, mount)),
            _ => {
                Err(self.why_not.clone().unwrap_or_else(|| "the disk was not prepared for faults".to_owned()))
            }
        }
    }

    /// Sets what goes wrong from now on.
    pub async fn trouble(&self, i: usize, trouble: DiskTrouble) -> Result<(), String> {
        if trouble == DiskTrouble::default() && self.mounted(i).is_err() {
            return Ok(());
        }
        let (agent, at) = self.mounted(i)?;
        agent
            .ask(Request::TroubleDisk {
                at: at.to_owned(),
                sync_delay_ms: trouble.sync_delay.0.as_millis() as u64,
                fail: trouble.fail,
                full_after_bytes: trouble.space_bytes,
            })
            .await
    }

    async fn ask_stats(&self, i: usize) -> Result<Stats, String> {
        let (agent, at) = self.mounted(i)?;
        agent.ask(Request::DiskStats { at: at.to_owned() }).await
    }

    /// Counters since the mount.
    pub async fn stats(&self, i: usize) -> DiskStats {
        self.ask_stats(i).await.map_or_else(
            |_| DiskStats::default(),
            |s| DiskStats {
                writes: s.writes,
                syncs: s.syncs,
                delayed_syncs: s.delayed_syncs,
                delayed_ns: s.delayed_ns,
                errors: s.errors,
                refused_full: s.refused_full,
            },
        )
    }

    /// Holds up syncs until the node waits for one, so that a power failure has something to take. A disk that is slow for
    /// a moment before the power goes is nothing that a node may complain of. Returns whether a sync is held.
    pub async fn hold_syncs(&self, i: usize) -> Result<bool, String> {
        let before = self.ask_stats(i).await?.syncs;
        let slow = DiskTrouble { sync_delay: nemesis::Span(BROWNOUT * 4), ..DiskTrouble::default() };
        self.trouble(i, slow).await?;
        let mut held = false;
        for _ in 0..BROWNOUT.as_millis() / 5 {
            held = self.ask_stats(i).await.is_ok_and(|s| s.syncs > before);
            if held {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(held)
    }

    /// From now on nothing is written or synced any more, and syncs that are held fail: a process cannot end while the
    /// kernel waits for one.
    pub async fn cut_power(&self, i: usize) -> Result<(), String> {
        let (agent, at) = self.mounted(i)?;
        agent.ask(Request::CutPower { at: at.to_owned() }).await
    }

    /// The power is back. If the node is gone, what was not synced is taken first.
    pub async fn restore_power(&self, i: usize, gone: bool, torn: Option<u64>) -> Result<Loss, String> {
        let (agent, at) = self.mounted(i)?;
        // Before the undo, which makes the kernel write what it still has, to be undone like the rest.
        self.trouble(i, DiskTrouble::default()).await?;
        match gone {
            true => agent.ask(Request::PowerFailure { at: at.to_owned(), torn }).await,
            false => Ok(Loss { files: 0, lost_bytes: 0, kept_bytes: 0 }),
        }
    }

    /// Damages synced bytes of a node that is not running.
    pub async fn damage(&self, i: usize, damage: Damage, seed: u64) -> Result<String, String> {
        let folder = &self.folders[i];
        let agent = folder.agent.as_ref().ok_or("nobody can reach its data folder")?;
        if damage == Damage::Wipe {
            // Through the file system of ours, if there is one: it would go on knowing what is gone below it.
            return agent.ask(Request::Wipe { folder: self.folder(i) }).await;
        }
        let truncate = damage == Damage::Truncate;
        let (words, undo): (String, Request) =
            agent.ask(Request::Damage { folder: folder.backing.clone(), truncate, seed }).await?;
        *self.damaged[i].lock().unwrap_or_else(|e| e.into_inner()) = Some(undo);
        Ok(words)
    }

    /// Puts back what was damaged.
    pub async fn repair(&self, i: usize) -> Result<(), String> {
        let undo = self.damaged[i].lock().unwrap_or_else(|e| e.into_inner()).take();
        match (undo, &self.folders[i].agent) {
            (Some(undo), Some(agent)) => agent.ask(undo).await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Part for Disks {
    fn supports(&self, capability: Capability) -> Option<Result<(), String>> {
        match capability {
            Capability::Disk | Capability::PowerFailure => {
                Some((0..self.folders.len()).try_for_each(|i| self.mounted(i).map(|_| ())))
            }
            Capability::Damage => Some(match self.folders.iter().all(|f| f.agent.is_some()) {
                true => Ok(()),
                false => Err("nobody can reach the nodes' data folders".to_owned()),
            }),
            _ => None,
        }
    }

    async fn tear_down(&self) -> Vec<String> {
        let mut left = Vec::new();
        for folder in &self.folders {
            if let (Some(agent), Some(mount)) = (&folder.agent, &folder.mount) {
                left.extend(agent.ask::<()>(Request::Unmount { at: mount.clone() }).await.err());
            }
        }
        left
    }
}
