//! Clock bump, strobe and drift: one node's wall clock shows something else than the others'.
//!
//! ```text
//! bump    ───┐          ┌───      strobe  ─┐ ┌─┐ ┌─┐ ┌──      drift   ───.        ┌──
//!            └──────────┘                  └─┘ └─┘ └─┘                    `-.____.┘
//! ```
//! Observed by measuring the clocks of the node's own processes, and by seeing that none of them reads the time past them. A node that is down has no clock: it gets the offset when
//! it starts again, which is the cluster's work.

use super::{Effect, MS, Nemesis, Running, all_of};
use crate::{
    cluster::{ClusterError, NodeName},
    fault::FaultKind,
    schedule::Step,
};
use tokio::sync::watch;

/// How far a clock may be from where it was put before the fault counts as not observed.
const TOLERANCE: i64 = 100 * MS as i64; // and at most a quarter of the offset
/// How far a clock may be off that is right again. It is measured to some 10 µs.
const RIGHT: i64 = 20 * MS as i64;
/// A drifting clock is moved on this often.
const DRIFT_STEP: u64 = 50 * MS;
/// A process that ends is known to be gone after this: longer than a cluster waits for one of its threads to stop.
const ENDING: u64 = 15_000 * MS;

/// What was seen of the clocks while they were moved.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    injected_at: u64,
    changes: u64,
    off: Vec<(NodeName, i64)>,
    errors: Vec<String>,
}

impl Nemesis {
    pub(super) async fn inject_clock(&self, step: &Step, run: &mut Running) -> Result<(), ClusterError> {
        let change = step.fault.clock.unwrap_or_default();
        run.clock.injected_at = self.timeline.now();
        if step.fault.fault == FaultKind::ClockDrift {
            return Ok(());
        }
        for node in &run.targets {
            match self.cluster.set_clock(node, change.offset_ns()).await {
                Ok(off) => run.clock.off.push((node.clone(), off)),
                // A node that is down gets the offset when it starts; what comes of it is observed in the end.
                Err(e) => run.clock.errors.push(e.to_string()),
            }
        }
        run.clock.changes = 1;
        Ok(())
    }

    /// Moves the clocks of a strobe or a drift until the interval is over.
    pub(super) async fn move_clock(
        &self,
        step: &Step,
        run: &mut Running,
        until: u64,
        stop: &mut watch::Receiver<bool>,
    ) {
        let change = step.fault.clock.unwrap_or_default();
        let strobe = step.fault.fault == FaultKind::ClockStrobe;
        let pace = if strobe { change.every.ns() } else { DRIFT_STEP };
        let mut off = true;
        loop {
            let next = self.timeline.now() + pace;
            if next >= until || !self.wait(next, stop).await {
                break;
            }
            off = !off;
            let elapsed = self.timeline.now() - run.clock.injected_at;
            let offset = match strobe {
                true if off => change.offset_ns(),
                true => 0,
                false => (elapsed as f64 * (change.rate - 1.0)) as i64,
            };
            for node in &run.targets {
                match self.cluster.set_clock(node, offset).await {
                    Ok(seen) if (seen - offset).abs() <= TOLERANCE => {
                        run.clock.changes += 1;
                        if offset != 0 {
                            run.clock.off.retain(|(n, _)| n != node);
                            run.clock.off.push((node.clone(), seen));
                        }
                    }
                    Ok(seen) => run.clock.errors.push(format!("{node} is off by {}", seconds(seen))),
                    Err(e) => run.clock.errors.push(e.to_string()),
                }
            }
        }
        self.wait(until, stop).await;
    }

    pub(super) async fn observe_clock(&self, step: &Step, run: &mut Running) {
        let change = step.fault.clock.unwrap_or_default();
        let (mut seen, mut missing) = (Vec::new(), Vec::new());
        for node in &run.targets {
            let offset = match step.fault.fault {
                FaultKind::ClockBump => self.cluster.read_clock(node).await.ok(),
                _ => run.clock.off.iter().find(|(n, _)| n == node).map(|(_, off)| *off),
            };
            let wanted = match step.fault.fault {
                FaultKind::ClockDrift => None,
                _ => Some(change.offset_ns()),
            };
            match offset {
                Some(off)
                    if wanted.is_none_or(|w| (off - w).abs() <= TOLERANCE.min(w.abs() / 4)) && off != 0 =>
                {
                    seen.push(format!("{node} is off by {}", seconds(off)));
                }
                Some(off) => missing.push(format!("{node} is off by {}", seconds(off))),
                // Down at the end: what was measured at the beginning counts.
                None => match run.clock.off.iter().find(|(n, _)| n == node) {
                    Some((_, off)) if *off != 0 => {
                        seen.push(format!("{node} was off by {} before it went down", seconds(*off)));
                    }
                    _ => missing.push(format!("{node} showed no clock")),
                },
            }
        }
        // A look before the first change may have been too short to meet such a call.
        for node in &run.targets {
            if let Ok(calls @ 1..) = self.cluster.raw_clock_calls(node).await {
                missing.push(format!(
                    "{node} was right all the same: it asks for the time by raw system calls ({calls})"
                ));
            }
        }
        if step.fault.fault != FaultKind::ClockBump {
            seen.push(format!("{} changes", run.clock.changes));
        }
        if seen.len() <= 1 && (step.fault.fault != FaultKind::ClockBump || seen.is_empty()) {
            missing.extend(run.clock.errors.first().cloned());
        }
        run.conclude(seen, missing);
    }

    /// A process that another fault is just killing may be gone before its clock is set. Soon that is known, and there is nothing to set.
    pub(super) async fn heal_clock(&self, run: &Running) -> Result<(), ClusterError> {
        let limit = self.timeline.now() + ENDING;
        let right = |node| async move {
            loop {
                match self.cluster.set_clock(node, 0).await {
                    Err(_) if self.timeline.now() < limit => {
                        self.timeline.sleep_until(self.timeline.now() + DRIFT_STEP).await;
                    }
                    done => return done.map(|_| ()),
                }
            }
        };
        all_of(run.targets.iter().map(|x| Box::pin(right(x)) as _).collect()).await
    }

    pub(super) async fn clock_healed(&self, run: &mut Running) -> Result<Effect, String> {
        for node in &run.targets.clone() {
            match self.cluster.read_clock(node).await {
                Ok(off) if off.abs() <= RIGHT => {}
                Ok(off) => {
                    run.still_in_force = true;
                    return Err(format!("{node} is still off by {}", seconds(off)));
                }
                Err(e) => {
                    run.still_in_force = false;
                    return Err(e.to_string());
                }
            }
        }
        Ok(Effect::seen("the clock is right again"))
    }
}

fn seconds(ns: i64) -> String {
    format!("{:+.3} s", ns as f64 / 1e9)
}
