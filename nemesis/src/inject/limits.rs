//! CPU and memory limits.
//!
//! Observed by the kernel's own accounts of the node: periods in which it was throttled, times that it hit its memory
//! limit, pages of it that were taken away and had to be read again, its end for want of memory. A node that the kernel ends for its memory is started again when the limit is lifted.
//! Healed: the node answers, and the kernel says that it has no limit.

use super::{Effect, Nemesis, Running, all_of};
use crate::{
    cluster::{ClusterError, Limits, NodeState, Usage},
    fault::FaultKind,
    schedule::Step,
};

/// So many pages read again during a memory limit are its doing: a node with memory to spare needs a few at most, for code
/// that runs for the first time, and one at its limit thousands a second.
const PAGES: u64 = 100;

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
                _ => memory_bit(&before, &now),
            };
            match limit_bit(node, state, hits, what) {
                Ok(words) => seen.push(words),
                Err(words) => missing.push(words),
            }
        }
        run.conclude(seen, missing);
    }

    pub(super) async fn limits_lifted(&self, run: &mut Running) -> Result<Effect, String> {
        let answers = self.answers_again(run).await?;
        if !answers.seen {
            return Ok(answers);
        }
        for node in &run.targets {
            let now = self.cluster.usage(node).await;
            let (limited, what) = match run.receipt.kind {
                FaultKind::CpuLimit => (now.cpus, "processors"),
                _ => (now.memory_limit.map(|bytes| bytes as f64), "bytes of memory"),
            };
            run.still_in_force = limited.is_some_and(|l| l != 0.0);
            match limited {
                Some(0.0) => {}
                Some(limit) => return Err(format!("{node} is still limited to {limit} {what}")),
                None => return Err(format!("not observed: the limits of {node} cannot be read")),
            }
        }
        Ok(Effect::seen("answers again, without a limit"))
    }

    pub(super) async fn heal_limits(&self, run: &Running) -> Result<(), ClusterError> {
        let c = &self.cluster;
        all_of(run.targets.iter().map(|x| c.limit(x, Limits::default())).collect()).await?;
        self.revive(run).await
    }
}

/// How a memory limit was felt between two looks.
fn memory_bit(before: &Usage, now: &Usage) -> (u64, &'static str) {
    let hits = now.memory_hits.saturating_sub(before.memory_hits);
    let read = now.pages_read.saturating_sub(before.pages_read);
    match hits {
        0 if read >= PAGES => (read, "pages taken away and read again"),
        _ => (hits, "times at the memory limit"),
    }
}

/// A limit bit if the node ran into it, or the kernel ended it for that. Any other end is not the limit's doing, as far as
/// anybody can tell.
fn limit_bit(node: &str, state: NodeState, hits: u64, what: &str) -> Result<String, String> {
    match state {
        NodeState::Unknown(why) => Err(format!("what became of {node} is not known ({why})")),
        NodeState::Dead(how) if hits > 0 || how.contains("out of memory") => {
            Ok(format!("{node} ended ({how}), {hits} {what}"))
        }
        NodeState::Dead(how) => Err(format!("{node} ended ({how}), and never came near its limit")),
        _ if hits > 0 => Ok(format!("{node}: {hits} {what}")),
        _ => Err(format!("{node} never came near its limit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_the_limits_doing_only_if_the_kernel_says_so() {
        let bit = |state, hits| limit_bit("n1", state, hits, "times").is_ok();
        let dead = |how: &str| NodeState::Dead(how.to_owned());
        assert!(bit(dead("out of memory, exit code 137"), 0) && bit(dead("exit code 1"), 3));
        assert!(!bit(dead("exit code 1"), 0), "it may have ended for any reason");
        assert!(!bit(NodeState::Unknown("no engine".to_owned()), 9));
        assert!(bit(NodeState::Running, 1) && !bit(NodeState::Running, 0));
    }

    #[test]
    fn a_memory_limit_is_felt_by_hits_or_by_many_pages_read_again() {
        let usage = |memory_hits, pages_read| Usage { memory_hits, pages_read, ..Usage::default() };
        let felt = |now: Usage| memory_bit(&usage(5, 40), &now).0;
        assert_eq!((felt(usage(5, 40)), felt(usage(5, 139)), felt(usage(5, 140))), (0, 0, 100));
        assert_eq!(felt(usage(7, 4000)), 2);
        assert_eq!(felt(usage(0, 0)), 0, "counters begin anew with a container's start");
    }
}
