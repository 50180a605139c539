//! From a plan and randomness to a list of steps with times. Pure.
//!
//! ```text
//! lane 1   ··[kill leader]····[pause one]··[kill leader]·
//! lane 2   ·····[partition halves]·········[bridge]······
//!                                                   time limit, everything healed before it
//! ```

use crate::{
    cluster::{Link, NodeName},
    fault::{Fault, FaultKind},
    grudge::{CLIENTS, explicit, from_clients, grudge},
    plan::Plan,
    span::Span,
    target::Target,
};
use rand::{Rng, RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::BTreeSet;

/// One fault with its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Number within the schedule, from 0, in order of `at`.
    pub id: usize,
    /// When it starts, since the load began.
    pub at: Span,
    /// When it is healed.
    pub until: Span,
    /// What is done.
    pub fault: Fault,
    /// Seed of the random choices left to the moment it fires.
    pub choice: u64,
}

/// The faults of one run, in order of their start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Schedule {
    /// The steps.
    pub steps: Vec<Step>,
    /// Whether each of them waits until the one before it is over and healed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub one_at_a_time: bool,
}

/// Draws the schedule of a plan for a load that lasts `limit`. Every step ends before it; a fault that would not is
/// left out.
pub fn schedule(plan: &Plan, limit: Span, rng: &mut impl Rng) -> Schedule {
    let mut steps = Vec::new();
    let mut push = |at: Span, until: Span, fault: &Fault, choice| {
        steps.push(Step { id: 0, at, until, fault: fault.clone(), choice });
    };
    for lane in &plan.lanes {
        // A stream of its own for each lane: a change of one does not move the others.
        let mut rng = ChaCha8Rng::seed_from_u64(rng.random());
        let mut bag: Vec<&Fault> = Vec::new();
        let mut now = plan.start_after.0;
        loop {
            now += lane.every.draw(&mut rng).0;
            let until = now + lane.lasts.draw(&mut rng).0;
            if until >= limit.0 {
                break;
            }
            if bag.is_empty() {
                bag = lane.faults.iter().flat_map(|f| (0..f.weight).map(move |_| f)).collect();
                bag.shuffle(&mut rng);
            }
            let Some(fault) = bag.pop() else { break };
            push(Span(now), Span(until), fault, rng.random());
            now = until;
        }
    }
    let mut offset = std::time::Duration::ZERO;
    while !plan.steps.is_empty() && offset < limit.0 {
        // A script is done whole or not at all: half of one would be another fault than was written.
        if plan.steps.iter().all(|step| offset + step.at.0 + step.lasts.0 < limit.0)
            || plan.repeat_every.ns() == 0
        {
            for step in &plan.steps {
                let (at, until) = (offset + step.at.0, offset + step.at.0 + step.lasts.0);
                if until < limit.0 {
                    push(Span(at), Span(until), &step.fault, rng.random());
                }
            }
        }
        offset += if plan.repeat_every.ns() == 0 { limit.0 } else { plan.repeat_every.0 };
    }
    steps.sort_by_key(|s| (s.at, s.until));
    if plan.one_at_a_time {
        // As if healing took no time. How long it takes is known when it happens.
        let mut free = std::time::Duration::ZERO;
        steps.retain_mut(|step| {
            step.delay(free.saturating_sub(step.at.0));
            let fits = step.until < limit;
            if fits {
                free = step.until.0;
            }
            fits
        });
    }
    for (id, step) in steps.iter_mut().enumerate() {
        step.id = id;
    }
    Schedule { steps, one_at_a_time: plan.one_at_a_time }
}

impl Step {
    /// Begins and ends later.
    pub fn delay(&mut self, by: std::time::Duration) {
        self.at.0 += by;
        self.until.0 += by;
    }

    /// What the step will do, as far as it is known before it fires: targets that depend on the leader stay open.
    pub fn preview(&self, nodes: &[NodeName]) -> String {
        let leader_matters = match self.fault.shape {
            Some(shape) if !shape.of_clients() => shape.needs_leader(),
            _ => matches!(self.fault.target, Target::Leader | Target::Follower | Target::Bridge),
        };
        if leader_matters {
            return format!("{} (chosen when it fires)", self.fault.describe());
        }
        match self.fault.fault {
            FaultKind::Partition => {
                format!("{}: {}", self.fault.describe(), sides(nodes, &self.cut(nodes, None)))
            }
            _ => {
                let targets = self.fault.target.resolve(nodes, None, &mut self.rng());
                format!("{}: {}", self.fault.describe(), targets.join(" "))
            }
        }
    }

    /// The links that a partition cuts. `special` is the leader, or whoever else its target asks for.
    pub fn cut(&self, nodes: &[NodeName], special: Option<&NodeName>) -> BTreeSet<Link> {
        let mut rng = self.rng();
        match self.fault.shape {
            Some(shape) if shape.of_clients() => {
                from_clients(shape, &self.fault.target.resolve(nodes, special, &mut rng))
            }
            Some(shape) => grudge(shape, nodes, special, &mut rng),
            None => explicit(&self.fault.cut, &self.fault.groups),
        }
    }

    /// The randomness of this step's choices.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.choice)
    }
}

/// A set of cut links as people read it: `n1 | n2 n3 n4 n5` for two sides, otherwise the links.
pub fn sides(nodes: &[NodeName], cut: &BTreeSet<Link>) -> String {
    let silent =
        |a: &NodeName, b: &NodeName| cut.contains(&Link::new(a, b)) && cut.contains(&Link::new(b, a));
    let Some(first) = nodes.first() else { return String::new() };
    let (left, right): (Vec<_>, Vec<_>) = nodes.iter().partition(|x| *x == first || !silent(first, x));
    let two_sides = !right.is_empty()
        && left.iter().all(|a| right.iter().all(|b| silent(a, b)))
        && cut.len() == 2 * left.len() * right.len();
    let names = |side: Vec<&NodeName>| side.iter().map(|x| x.to_string()).collect::<Vec<_>>().join(" ");
    if two_sides {
        return format!("{} | {}", names(left), names(right));
    }
    let clients = NodeName::from(CLIENTS);
    let alone: Vec<_> = nodes.iter().filter(|x| silent(&clients, x)).collect();
    if !alone.is_empty() && cut.len() == 2 * alone.len() {
        return format!("{CLIENTS} | {}", names(alone));
    }
    cut.iter().map(Link::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> Plan {
        serde_yaml::from_str(crate::PLANS.iter().find(|p| p.0 == "chaos").unwrap().1).unwrap()
    }

    #[test]
    fn the_plans_that_ship_are_right_and_name_real_nodes() {
        let nodes: Vec<String> = (1..=5).map(|i| format!("n{i}")).collect();
        for (name, text) in crate::PLANS {
            let plan: Plan = serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            plan.validate(&nodes).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!plan.doc.is_empty(), "{name} has no doc");
        }
    }

    proptest! {
        #[test]
        fn a_seed_fixes_the_schedule_and_it_always_ends_healed(seed: u64, secs in 1u64..60) {
            let limit = Span::ms(secs * 1000);
            let draw = || schedule(&plan(), limit, &mut ChaCha8Rng::seed_from_u64(seed));
            let one = draw();
            prop_assert_eq!(&one, &draw());
            prop_assert!(one.steps.iter().all(|s| s.at <= s.until && s.until < limit && s.at >= plan().start_after));
            prop_assert!(one.steps.windows(2).all(|w| w[0].at <= w[1].at));
        }

        #[test]
        fn thirty_seconds_of_chaos_see_every_kind_of_fault(seed: u64) {
            let all = schedule(&plan(), Span::ms(30_000), &mut ChaCha8Rng::seed_from_u64(seed));
            let kinds: std::collections::BTreeSet<_> = all.steps.iter().map(|s| s.fault.fault).collect();
            prop_assert_eq!(kinds, plan().kinds());
        }
    }

    #[test]
    fn one_at_a_time_means_that_the_next_one_waits() {
        let text = "{one-at-a-time: true, steps: [{at: 1s, for: 3s, do: {fault: kill}}, {at: 2s, for: 1s, do: {fault: pause}}, \
                    {at: 2s, for: 5s, do: {fault: kill}}, {at: 6s, for: 2s, do: {fault: pause}}]}";
        let plan: Plan = serde_yaml::from_str(text).unwrap();
        let all = schedule(&plan, Span::ms(9000), &mut ChaCha8Rng::seed_from_u64(1));
        let times: Vec<_> = all.steps.iter().map(|s| (s.id, s.at.0.as_secs(), s.until.0.as_secs())).collect();
        assert_eq!(times, [(0, 1, 4), (1, 4, 5), (2, 6, 8)], "the third one would not end before the limit");
        assert!(all.one_at_a_time);
    }

    #[test]
    fn a_script_is_repeated_whole() {
        let text = "{repeat-every: 4s, steps: [{at: 1s, for: 1s, do: {fault: kill}}, {at: 2s, for: 1s, do: {fault: pause}}]}";
        let plan: Plan = serde_yaml::from_str(text).unwrap();
        let all = schedule(&plan, Span::ms(10_500), &mut ChaCha8Rng::seed_from_u64(1));
        let at: Vec<u128> = all.steps.iter().map(|s| s.at.0.as_millis()).collect();
        assert_eq!(at, [1000, 2000, 5000, 6000], "the third time would not end before the limit");
    }

    #[test]
    fn mistakes_in_a_plan_are_named() {
        let nodes = vec!["n1".to_owned()];
        let check = |text: &str| serde_yaml::from_str::<Plan>(text).unwrap().validate(&nodes).unwrap_err().0;
        assert!(check("steps: [{at: 1s, for: 1s, do: {fault: partition}}]").contains("needs a `shape`"));
        assert!(check("steps: [{at: 1s, for: 1s, do: {fault: kill, target: n7}}]").contains("no node n7"));
        assert!(check("lanes: [{every: 0s, for: 0s, faults: [{fault: kill}]}]").contains("never end"));
        assert!(check("lanes: [{every: 1s, for: 0s, faults: []}]").contains("no faults"));
    }
}
