//! Slow disk, full disk, EIO: what goes wrong below a node's data folder while the node runs.
//!
//! Observed by the disk's own counters: a fault that no call of the node met did not bite. A node may end because of a
//! full or failing disk, and rightly so: it is started again when the disk is healthy.

use super::{Effect, MS, Nemesis, Running, all_of};
use crate::{
    cluster::{ClusterError, DiskTrouble, NodeName, NodeState},
    fault::FaultKind,
    schedule::Step,
};

/// How long a node may take to end because of a fault that is over.
const ABOUT_TO_END: u64 = 5_000 * MS;

impl Nemesis {
    pub(super) async fn inject_disk(&self, step: &Step, run: &mut Running) -> Result<(), ClusterError> {
        let given = step.fault.disk.unwrap_or_default();
        let trouble = match step.fault.fault {
            FaultKind::DiskFull => {
                DiskTrouble { space_bytes: Some(given.space_bytes.unwrap_or(0)), ..DiskTrouble::default() }
            }
            FaultKind::DiskError => DiskTrouble { fail: true, ..DiskTrouble::default() },
            _ => given,
        };
        for node in &run.targets {
            run.disks.insert(node.clone(), self.cluster.disk_stats(node).await);
            self.cluster.excuse(node, step.fault.fault != FaultKind::SlowDisk);
        }
        all_of(run.targets.iter().map(|x| self.cluster.trouble_disk(x, trouble)).collect()).await
    }

    pub(super) async fn observe_disk(&self, step: &Step, run: &mut Running) {
        let (mut seen, mut missing) = (Vec::new(), Vec::new());
        for node in &run.targets {
            let (now, before) = (self.cluster.disk_stats(node).await, run.disks[node]);
            let (hits, what) = match step.fault.fault {
                FaultKind::SlowDisk => {
                    let n = now.delayed_syncs.saturating_sub(before.delayed_syncs);
                    let ns = now.delayed_ns.saturating_sub(before.delayed_ns);
                    let mean = ns.checked_div(n).unwrap_or(0);
                    (n, format!("fsyncs took {:.0} ms longer on average", mean as f64 / 1e6))
                }
                FaultKind::DiskFull => {
                    (now.refused_full.saturating_sub(before.refused_full), "writes found no space".to_owned())
                }
                _ => (now.errors.saturating_sub(before.errors), "calls failed with EIO".to_owned()),
            };
            if hits == 0 {
                missing.push(format!("{node} asked nothing of its disk"));
                continue;
            }
            let ended = match self.cluster.state(node).await {
                NodeState::Dead(how) => format!(", and it ended ({how})"),
                _ => String::new(),
            };
            seen.push(format!("{node}: {hits} {what}{ended}"));
        }
        run.conclude(seen, missing);
    }

    pub(super) async fn heal_disk(&self, run: &Running) -> Result<(), ClusterError> {
        let c = &self.cluster;
        all_of(run.targets.iter().map(|x| c.trouble_disk(x, DiskTrouble::default())).collect()).await?;
        self.revive(run).await
    }

    /// A disk is healthy that lets a sync through and neither fails nor keeps one: what is not asked proves nothing.
    pub(super) async fn disk_healed(&self, run: &mut Running) -> Result<Effect, String> {
        let answers = self.answers_again(run).await?;
        if !answers.seen {
            return Ok(answers);
        }
        for (node, before) in &mut run.disks {
            let now = self.cluster.disk_stats(node).await;
            let trouble = |s: &crate::DiskStats| (s.delayed_syncs, s.errors, s.refused_full);
            if trouble(&now) != trouble(before) {
                // A late count of what was under way must not spoil it for good, nor prove anything by itself.
                *before = now;
                run.still_in_force = std::mem::replace(&mut run.counted_late, true);
                return Err(format!("the disk of {node} still fails or keeps what it is asked"));
            }
            if now.syncs == before.syncs || now.writes == before.writes {
                return Err(format!("not observed: nothing was asked of the disk of {node}"));
            }
        }
        run.still_in_force = false;
        Ok(Effect::seen("answers again, and its disk does what it is asked"))
    }

    /// Starts those of the targets that the fault has ended.
    pub(super) async fn revive(&self, run: &Running) -> Result<(), ClusterError> {
        // A node that met the fault just before it was healed may still be about to end because of it, even if it answers: whoever
        // writes for it goes on only if it asks for a sync again.
        let syncs = async |node: &NodeName| match run.disks.contains_key(node) {
            true => Some(self.cluster.disk_stats(node).await.syncs),
            false => None,
        };
        let until = self.timeline.now() + ABOUT_TO_END;
        let mut waiting = Vec::new();
        for node in &run.targets {
            waiting.push((node, syncs(node).await));
        }
        loop {
            let mut left = Vec::new();
            for (node, before) in waiting {
                let dead = matches!(self.cluster.state(node).await, NodeState::Dead(_));
                if dead {
                    self.cluster.start(node).await?;
                } else if self.timeline.now() <= until {
                    let well =
                        self.cluster.answers(node).await && (before.is_none() || syncs(node).await > before);
                    if !well {
                        left.push((node, before));
                        continue;
                    }
                }
                self.cluster.excuse(node, false);
            }
            if left.is_empty() {
                return Ok(());
            }
            waiting = left;
            self.timeline.sleep_until(self.timeline.now() + 20 * MS).await;
        }
    }
}
