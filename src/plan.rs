//! From a test file and a seed to everything that is decided before the run. Pure.
//!
//! ```text
//! Scenario + seed ──▶ TestPlan { nodes, clients, schedule }      `--dry-run` prints it
//! ```
//! A black-box run is not deterministic: when operations meet and what they return depends on the machine. The plan
//! is: same seed, same faults at the same times, same stream of requests.

use crate::scenario::{NemesisSpec, Scenario};
use anyhow::Result;
use nemesis::{NodeName, Plan, Schedule};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fmt::Write;

/// A run, decided.
#[derive(Clone, Debug)]
pub struct TestPlan {
    /// The test file, fully resolved: seed and fault plan included.
    pub scenario: Scenario,
    /// The seed.
    pub seed: u64,
    /// The nodes' names.
    pub nodes: Vec<NodeName>,
    /// The fault plan.
    pub faults: Plan,
    /// The faults of this run with their times, counted from the beginning of the load.
    pub schedule: Schedule,
    /// The clients.
    pub clients: Vec<ClientPlan>,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// The node it first talks to, as an index.
    pub home: usize,
    /// Whether it turns to another node when its own fails. Half of the clients do not: one that always finds a healthy
    /// node hides lost writes.
    pub fails_over: bool,
}

/// The randomness of one role in the run: its own stream of the run's seed, so that roles do not disturb each other.
pub fn stream(seed: u64, role: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // FNV-1a: any fixed hash of the name will do.
    rng.set_stream(
        role.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)),
    );
    rng
}

impl TestPlan {
    /// Decides a run.
    pub fn new(scenario: &Scenario, seed: u64) -> Result<TestPlan> {
        let faults = scenario.plan().map_err(anyhow::Error::msg)?;
        let nodes: Vec<NodeName> = scenario.node_names().into_iter().map(NodeName::from).collect();
        let schedule = nemesis::schedule(&faults, scenario.load.time_limit, &mut stream(seed, "nemesis"));
        let clients = (0..scenario.load.clients as usize)
            .map(|i| ClientPlan { home: (i / 2) % nodes.len(), fails_over: i % 2 == 1 })
            .collect();
        let scenario = Scenario {
            seed: Some(seed),
            nemesis: NemesisSpec::Inline(Box::new(faults.clone())),
            ..scenario.clone()
        };
        Ok(TestPlan { scenario, seed, nodes, faults, schedule, clients })
    }

    /// The plan for people, as `--dry-run` prints it.
    pub fn describe(&self) -> String {
        let s = &self.scenario;
        let mut out = String::new();
        let mut line = |text: String| {
            let _ = writeln!(out, "{text}");
        };
        line(format!("test      {} (seed {})", s.name, self.seed));
        line(format!(
            "cluster   {} nodes, {}, fsync {}{}",
            self.nodes.len(),
            s.cluster.protocol,
            s.cluster.fsync,
            s.cluster.bug.as_ref().map(|b| format!(", planted bug {b}")).unwrap_or_default()
        ));
        let rate = if s.load.rate > 0.0 {
            format!("{} ops/s, open loop", s.load.rate)
        } else {
            "closed loop".to_owned()
        };
        line(format!("load      {} clients, {rate}, for {}", s.load.clients, s.load.time_limit));
        for (i, c) in self.clients.iter().enumerate().take(10) {
            let how = if c.fails_over { "fails over" } else { "sticks" };
            line(format!("client    {i} at {}, {how}", self.nodes[c.home]));
        }
        if self.clients.len() > 10 {
            line(format!("client    … and {} more, in the same pattern", self.clients.len() - 10));
        }
        if self.faults.links != nemesis::LinkShape::default() {
            let l = self.faults.links;
            line(format!("links     delay {}, jitter {}, all along", l.delay, l.jitter));
        }
        if self.schedule.steps.is_empty() {
            line("faults    none".to_owned());
        }
        for step in &self.schedule.steps {
            line(format!("fault     {:>7} .. {:>7}  {}", step.at, step.until, step.preview(&self.nodes)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_plan_and_half_of_the_clients_stick() {
        let scenario = Scenario::load("register").unwrap();
        let plan = TestPlan::new(&scenario, 42).unwrap();
        assert_eq!(plan.describe(), TestPlan::new(&scenario, 42).unwrap().describe());
        assert_ne!(plan.describe(), TestPlan::new(&scenario, 43).unwrap().describe());
        assert_eq!(plan.clients.iter().filter(|c| c.fails_over).count() * 2, plan.clients.len());
        for node in 0..plan.nodes.len() {
            assert!(
                plan.clients.iter().any(|c| c.home == node && !c.fails_over),
                "nobody sticks to node {node}"
            );
        }
        insta::assert_snapshot!(plan.describe());
    }
}
