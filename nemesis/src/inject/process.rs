//! Kill, pause, restart, stop, power failure, torn write: what is done to a node's process.
//!
//! A kill is not a power failure: what a killed process has written, the kernel keeps. Only a power failure loses what
//! was not synced, and it has an effect only if there was something to lose.

use super::{MS, Nemesis, Running, all, all_of};
use crate::{
    cluster::{ClusterError, NodeState},
    fault::FaultKind,
    schedule::Step,
};

/// A pause shorter than this is not probed by a request, which would outlast it.
const PROBE_FROM: u64 = 600 * MS;

impl Nemesis {
    pub(super) async fn inject_process(&self, step: &Step, run: &mut Running) -> Result<(), ClusterError> {
        let c = &self.cluster;
        match step.fault.fault {
            FaultKind::Pause => all_of(run.targets.iter().map(|x| c.pause(x)).collect()).await,
            FaultKind::Restart | FaultKind::Stop => {
                all_of(run.targets.iter().map(|x| c.stop(x)).collect()).await?;
                for node in &run.targets {
                    match c.state(node).await {
                        NodeState::Dead(how) => run.lost.push(format!("{node} {how}")),
                        other => run.receipt.error = Some(format!("{node} is {other:?} after SIGTERM")),
                    }
                }
                if step.fault.fault == FaultKind::Stop {
                    return Ok(());
                }
                all_of(run.targets.iter().map(|x| c.start(x)).collect()).await
            }
            FaultKind::PowerFailure | FaultKind::TornWrite => {
                let torn = (step.fault.fault == FaultKind::TornWrite).then_some(step.choice);
                let lost = all(run.targets.iter().map(|x| c.power_failure(x, torn)).collect()).await;
                for (node, lost) in run.targets.iter().zip(lost) {
                    let (bytes, words) = lost?;
                    match bytes {
                        0 => run.unlost.push(format!("{node} lost {words}")),
                        _ => run.lost.push(format!("{node} lost {words}")),
                    }
                }
                Ok(())
            }
            _ => all_of(run.targets.iter().map(|x| c.kill(x)).collect()).await,
        }
    }

    pub(super) async fn observe_process(&self, run: &mut Running, until: u64) {
        let (mut seen, mut missing) = (Vec::new(), Vec::new());
        let kind = run.receipt.kind;
        for node in &run.targets {
            let state = self.cluster.state(node).await;
            match (kind, &state) {
                (FaultKind::Kill | FaultKind::PowerFailure | FaultKind::TornWrite, NodeState::Dead(how)) => {
                    seen.push(format!("{node} {how}"));
                }
                (FaultKind::Restart, NodeState::Running) | (FaultKind::Stop, NodeState::Dead(_)) => {}
                (FaultKind::Pause, NodeState::Paused) => {
                    let probe = until.saturating_sub(self.timeline.now()) >= PROBE_FROM;
                    if probe && self.cluster.answers(node).await {
                        missing.push(format!("{node} is stopped, yet it answers"));
                    } else {
                        let silent = if probe { " and does not answer" } else { "" };
                        seen.push(format!("{node} is stopped{silent}"));
                    }
                }
                _ => missing.push(format!("{node} is {state:?}")),
            }
        }
        if matches!(kind, FaultKind::PowerFailure | FaultKind::TornWrite) && run.lost.is_empty() {
            missing.append(&mut run.unlost);
        }
        seen.append(&mut run.lost);
        run.conclude(seen, missing);
    }

    pub(super) async fn heal_process(&self, run: &Running) -> Result<(), ClusterError> {
        let c = &self.cluster;
        match run.receipt.kind {
            FaultKind::Pause => all_of(run.targets.iter().map(|x| c.resume(x)).collect()).await,
            FaultKind::Restart => Ok(()),
            _ => all_of(run.targets.iter().map(|x| c.start(x)).collect()).await,
        }
    }
}
