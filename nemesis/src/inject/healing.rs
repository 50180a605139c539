//! Looks again and again whether what was healed is healed, and knows when to give up.
//!
//! ```text
//! heal ─ look ─ look ─ look ─ … ─ look ─▶ not healed      after 10 s and 5 looks, whichever is later; no new look after 60 s
//!                └ nothing of it any more ─▶ healed
//! ```
//! Both, because one look can take seconds on a slow machine: what was under way when the fault was healed spoils the first
//! of them, and the last one must not be the second.

use super::{Effect, Grip, MS, Nemesis, Running, of_clients};
use crate::{fault::Family, schedule::Step};
use tokio::sync::watch;

/// How long healing may take to show.
const LIMIT: u64 = 10_000 * MS;
/// How many looks there are at least,
const LOOKS: u32 = 5;
/// unless they take longer than this.
const LONGEST: u64 = 60_000 * MS;

impl Nemesis {
    /// Looks until there is nothing of the fault any more, or for as long as healing may take to show.
    pub(super) async fn observe_healed(
        &self,
        step: &Step,
        run: &mut Running,
        stop: &mut watch::Receiver<bool>,
    ) -> Effect {
        let (begun, mut looks) = (self.timeline.now(), 0);
        let mut before = self.stats(&run.links).await;
        run.note_disks(&*self.cluster).await;
        run.still_in_force = false;
        loop {
            let seen = match step.fault.fault.family() {
                Family::Network => self.network_healed(step, run, &mut before).await,
                Family::Clock => self.clock_healed(run).await,
                Family::Process | Family::Damage => self.answers_again(run).await,
                Family::Disk => self.disk_healed(run).await,
                Family::Limits => self.limits_lifted(run).await,
            };
            let missing = match seen {
                Ok(effect) => return effect,
                Err(missing) => missing,
            };
            looks += 1;
            let passed = self.timeline.now() - begun;
            let over = |limit, least| passed > limit && (looks >= least || passed > LONGEST);
            if over(LIMIT, LOOKS) {
                run.receipt.unhealed |= run.still_in_force;
                return Effect::missing(missing);
            }
            if *stop.borrow() && over(LIMIT / 2, LOOKS / 2) {
                return Effect::missing("not observed: the run was ending");
            }
            self.timeline.sleep_until(self.timeline.now() + 25 * MS).await;
        }
    }

    /// `Ok` when there is nothing more to wait for, otherwise what is missing.
    pub(super) async fn answers_again(&self, run: &Running) -> Result<Effect, String> {
        let mut silent = Vec::new();
        let cut = self.cut_links().await;
        for node in &run.targets {
            if !self.cluster.answers(node).await {
                silent.push(node.to_string());
            }
        }
        if silent.is_empty() {
            return Ok(Effect::seen("answers again"));
        }
        if cut.iter().any(|l| of_clients(l) && silent.iter().any(|x| **x == *l.from || **x == *l.to)) {
            return Ok(Effect::missing("not observed: another fault cuts it off from its clients"));
        }
        // Somebody else may have taken the node down meanwhile: then there is nothing to wait for.
        if run.targets.iter().any(|x| self.lock_held().contains_key(&(x.clone(), Grip::Node))) {
            return Ok(Effect::missing("taken down again before it answered"));
        }
        Err(format!("{} does not answer", silent.join(" ")))
    }
}
