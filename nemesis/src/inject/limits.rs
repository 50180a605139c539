//! CPU and memory limits.
//!
//! Observed by the kernel's own accounts of the node: periods in which it was throttled, times that it hit its memory
//! limit. A node that the kernel ends for its memory is started again when the limit is lifted.

use super::{Nemesis, Running, all_of};
use crate::{
    cluster::{ClusterError, Limits, NodeState},
    fault::FaultKind,
    schedule::Step,
};

impl Nemesis {
    pub(super) async fn inject_limits(&self, step: &Step, run: &mut Running) -> Result<(), ClusterError> {
        let limits = step.fault.limit.unwrap_or_default();
        for node in &run.targets {
            run.usage.insert(node.clone(), self.cluster.usage(node).await);
            self.cluster.excuse(node, step.fault.fault == FaultKind::MemoryLimit);
        }
        all_of(run.targets.iter().map(|x| self.cluster.limit(x, limits)).collect()).await
    }

    pub(super) async fn observe_limits(&self, run: &mut Running) {
        let (mut seen, mut missing) = (Vec::new(), Vec::new());
        for node in &run.targets {
            let (now, before) = (self.cluster.usage(node).await, run.usage[node]);
            let state = self.cluster.state(node).await;
            let (hits, what) = match run.receipt.kind {
                FaultKind::CpuLimit => {
                    (now.throttled.saturating_sub(before.throttled), "periods without processor time")
                }
                _ => (now.memory_hits.saturating_sub(before.memory_hits), "times at the memory limit"),
            };
            match state {
                NodeState::Dead(how) if run.receipt.kind == FaultKind::MemoryLimit => {
                    seen.push(format!("{node} ended ({how})"));
                }
                _ if hits > 0 => seen.push(format!("{node}: {hits} {what}")),
                _ => missing.push(format!("{node} never came near its limit")),
            }
        }
        run.conclude(seen, missing);
    }

    pub(super) async fn heal_limits(&self, run: &Running) -> Result<(), ClusterError> {
        let c = &self.cluster;
        all_of(run.targets.iter().map(|x| c.limit(x, Limits::default())).collect()).await?;
        self.revive(run).await
    }
}
