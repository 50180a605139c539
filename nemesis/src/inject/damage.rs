//! Bit flip, truncation and loss of bytes that a node had synced: what Paxos assumes that no disk does.
//!
//! ```text
//! kill ─ damage ─ start ─┬─ refuses to start: as it should ─ put the bytes back ─ start
//!                        └─ serves: then only the history can tell whether it answers wrongly
//! kill ─ wipe ─── start ─── learns from the others what it had promised, before it votes
//! ```

use super::{MS, Nemesis, Running};
use crate::{
    cluster::{ClusterError, Damage, NodeState},
    fault::FaultKind,
    schedule::Step,
};

impl Nemesis {
    pub(super) async fn inject_damage(&self, step: &Step, run: &mut Running) -> Result<(), ClusterError> {
        let damage = match step.fault.fault {
            FaultKind::BitFlip => Damage::BitFlip,
            FaultKind::Wipe => Damage::Wipe,
            _ => Damage::Truncate,
        };
        // One node at most: a plan is refused that names more, and `one` resolves to one.
        run.targets.truncate(1);
        for node in &run.targets {
            self.cluster.kill(node).await?;
            self.cluster.excuse(node, true);
            run.lost.push(self.cluster.damage(node, damage, step.choice).await?);
            self.cluster.start(node).await?;
        }
        Ok(())
    }

    /// Waits until the node has either ended or answered.
    pub(super) async fn observe_damage(&self, run: &mut Running, until: u64) {
        let mut seen = std::mem::take(&mut run.lost);
        let mut missing = Vec::new();
        for node in run.targets.clone() {
            loop {
                if let NodeState::Dead(how) = self.cluster.state(&node).await {
                    seen.push(format!("{node} refused to start ({how})"));
                    run.refused.insert(node);
                    break;
                }
                if self.cluster.answers(&node).await {
                    let what = if run.receipt.kind == FaultKind::Wipe { "without" } else { "on" };
                    seen.push(format!("{node} started {what} its damaged data and answers"));
                    break;
                }
                if self.timeline.now() >= until {
                    missing.push(format!("{node} neither ended nor answered"));
                    break;
                }
                self.timeline.sleep_until(self.timeline.now() + 10 * MS).await;
            }
        }
        if run.receipt.error.is_some() {
            missing.push("the data could not be damaged".to_owned());
        }
        run.conclude(seen, missing);
    }

    pub(super) async fn heal_damage(&self, run: &Running) -> Result<(), ClusterError> {
        for node in &run.refused {
            self.cluster.repair(node).await?;
        }
        self.revive(run).await
    }
}
