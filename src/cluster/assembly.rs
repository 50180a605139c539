//! A cluster put together from its parts: processes, links, disks and clocks. What is the same wherever nodes live is
//! here: names and indices, who answers, who leads, in which order parts are set up and torn down.

use super::{Defendant, Part, clocks::Clocks, disks::Disks, network::Network, processes::Processes, tail};
use crate::adapter::{Adapter, Node};
use anyhow::Result;
use async_trait::async_trait;
use nemesis::{
    Capability, Cluster, ClusterError, Damage, DiskStats, DiskTrouble, Limits, Link, LinkShape, LinkStats,
    NodeName, NodeState, Probe, Usage,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

/// How long a kill has to reach a node whose syncs are held before the power goes.
const STRIKE: Duration = Duration::from_millis(300);

/// What a cluster is assembled from.
pub struct Parts {
    /// How nodes are started and spoken to.
    pub adapter: Arc<dyn Adapter>,
    /// The nodes.
    pub members: Vec<Node>,
    /// Their logs.
    pub logs: Vec<PathBuf>,
    /// Their processes.
    pub processes: Box<dyn Processes>,
    /// Their links.
    pub network: Box<dyn Network>,
    /// Their data folders.
    pub disks: Disks,
    /// Their wall clocks.
    pub clocks: Clocks,
    /// What must live as long as the cluster, and goes last.
    pub ground: Box<dyn Part>,
}

/// A cluster made of parts.
pub struct Assembly {
    names: Vec<NodeName>,
    /// The nodes as clients reach them, where that is not how they are.
    faces: Option<Vec<Node>>,
    p: Parts,
}

impl Assembly {
    /// Nothing is started yet.
    pub fn new(parts: Parts) -> Self {
        Assembly { names: parts.members.iter().map(|m| m.name.clone()).collect(), faces: None, p: parts }
    }

    /// Clients reach the nodes at other addresses than their own, so that they can be cut off.
    pub fn with_faces(self, faces: Vec<Node>) -> Self {
        Assembly { faces: Some(faces), ..self }
    }

    /// The nodes as clients reach them.
    fn faces(&self) -> &[Node] {
        self.faces.as_deref().unwrap_or(&self.p.members)
    }

    fn index(&self, what: &'static str, node: &NodeName) -> Result<usize, ClusterError> {
        let missing =
            || ClusterError { what, node: node.to_string(), why: "there is no such node".to_owned() };
        self.names.iter().position(|n| n == node).ok_or_else(missing)
    }

    fn parts(&self) -> [&dyn Part; 5] {
        [&*self.p.processes, &*self.p.network, &self.p.disks, &self.p.clocks, &*self.p.ground]
    }

    async fn pid(&self, i: usize) -> Result<i32, String> {
        self.p.processes.pid(i).await.ok_or_else(|| "it is not running".to_owned())
    }
}

/// Adds what was tried and to whom.
fn on<T>(what: &'static str, node: &NodeName, result: Result<T, String>) -> Result<T, ClusterError> {
    result.map_err(|why| ClusterError { what, node: node.to_string(), why })
}

#[async_trait]
impl Cluster for Assembly {
    fn nodes(&self) -> &[NodeName] {
        &self.names
    }

    fn supports(&self, capability: Capability) -> Result<(), String> {
        if capability == Capability::Processes {
            return Ok(());
        }
        let answers = self.parts().into_iter().find_map(|part| part.supports(capability));
        answers.unwrap_or_else(|| {
            Err(match capability {
                Capability::Cpu | Capability::Memory => {
                    "CPU and memory limits are the Docker engine's: `--on docker` can".to_owned()
                }
                _ => "this kind of cluster cannot; `tribunal doctor` shows which can".to_owned(),
            })
        })
    }

    async fn start(&self, node: &NodeName) -> Result<(), ClusterError> {
        let i = self.index("start", node)?;
        let command = self.p.adapter.command(&self.p.members[i]);
        on("start", node, self.p.processes.start(i, command).await)?;
        on("start", node, self.p.network.started(i).await)?;
        if let Ok(pid) = self.pid(i).await {
            self.p.clocks.started(i, pid);
        }
        Ok(())
    }

    async fn kill(&self, node: &NodeName) -> Result<(), ClusterError> {
        on("kill", node, self.p.processes.kill(self.index("kill", node)?).await)
    }

    async fn stop(&self, node: &NodeName) -> Result<(), ClusterError> {
        on("stop", node, self.p.processes.stop(self.index("stop", node)?).await)
    }

    async fn pause(&self, node: &NodeName) -> Result<(), ClusterError> {
        on("pause", node, self.p.processes.pause(self.index("pause", node)?).await)
    }

    async fn resume(&self, node: &NodeName) -> Result<(), ClusterError> {
        on("resume", node, self.p.processes.resume(self.index("resume", node)?).await)
    }

    async fn shape(&self, links: &BTreeMap<Link, LinkShape>) -> Result<(), ClusterError> {
        let shaped = self.p.network.shape(links).await;
        shaped.map_err(|why| ClusterError { what: "shape", node: "the links".to_owned(), why })
    }

    async fn state(&self, node: &NodeName) -> NodeState {
        match self.index("look at", node) {
            Ok(i) => self.p.processes.state(i).await,
            Err(e) => NodeState::Unknown(e.why),
        }
    }

    async fn link_stats(&self, link: &Link) -> LinkStats {
        self.p.network.stats(link).await
    }

    async fn answers(&self, node: &NodeName) -> bool {
        let Ok(i) = self.index("ask", node) else { return false };
        let ready = self.p.adapter.ready(&self.faces()[i]);
        tokio::time::timeout(Duration::from_millis(400), ready).await.is_ok_and(|r| r.is_ok())
    }

    async fn leader(&self) -> Option<NodeName> {
        let asked = self.p.members.iter().map(|node| {
            let (adapter, node) = (self.p.adapter.clone(), node.clone());
            tokio::spawn(async move {
                let claim = adapter.leader_claim(&node);
                tokio::time::timeout(Duration::from_millis(250), claim).await.ok().flatten()
            })
        });
        let asked: Vec<_> = asked.collect();
        let mut best = None;
        for claim in asked {
            best = best.max(claim.await.ok().flatten());
        }
        best.map(|claim| claim.node)
    }

    fn excuse(&self, node: &NodeName, excused: bool) {
        if let Ok(i) = self.index("excuse", node) {
            self.p.processes.excuse(i, excused);
        }
    }

    async fn probe(&self, link: &Link, packets: u32) -> Option<Probe> {
        self.p.network.probe(link, packets).await
    }

    async fn power_failure(&self, node: &NodeName, torn: Option<u64>) -> Result<(u64, String), ClusterError> {
        const WHAT: &str = "power failure of";
        let i = self.index(WHAT, node)?;
        // Without power a sync fails, and a node that ends for that reason before the kill reaches it is right to.
        self.p.processes.excuse(i, true);
        let held = self.p.disks.hold_syncs(i).await;
        // An engine may wait until its container is gone, which it cannot be while a sync is held.
        let strike = self.p.processes.strike(i);
        tokio::pin!(strike);
        let struck = tokio::time::timeout(STRIKE, &mut strike).await;
        let cut = self.p.disks.cut_power(i).await;
        let struck = match struck {
            Ok(struck) => struck,
            Err(_) => strike.await,
        };
        let gone = match struck.and(cut) {
            Ok(()) => self.p.processes.reap(i).await,
            failed => failed,
        };
        let lost = self.p.disks.restore_power(i, gone.is_ok(), torn).await;
        self.p.processes.excuse(i, false);
        on(WHAT, node, gone)?;
        let (held, lost) = (on(WHAT, node, held)?, on(WHAT, node, lost)?);
        // What nobody had asked to sync is lost as well, but a node that asks for nothing is not tested by that.
        let bytes = if held { lost.lost_bytes } else { 0 };
        let under_way = if held { "" } else { " (no sync was under way)" };
        Ok((bytes, format!("{}{under_way}", lost.words(torn.is_some()))))
    }

    async fn set_clock(&self, node: &NodeName, offset_ns: i64) -> Result<i64, ClusterError> {
        let i = self.index("set the clock of", node)?;
        let pid = self.pid(i).await;
        on("set the clock of", node, self.p.clocks.set(i, pid, offset_ns).await)
    }

    async fn read_clock(&self, node: &NodeName) -> Result<i64, ClusterError> {
        let i = self.index("read the clock of", node)?;
        let pid = on("read the clock of", node, self.pid(i).await)?;
        on("read the clock of", node, self.p.clocks.read(i, pid).await)
    }

    async fn raw_clock_calls(&self, node: &NodeName) -> Result<u64, ClusterError> {
        const WHAT: &str = "watch the clock of";
        let i = self.index(WHAT, node)?;
        let pid = on(WHAT, node, self.pid(i).await)?;
        on(WHAT, node, self.p.clocks.raw_calls(i, pid).await)
    }

    async fn trouble_disk(&self, node: &NodeName, trouble: DiskTrouble) -> Result<(), ClusterError> {
        on("trouble the disk of", node, self.p.disks.trouble(self.index("disk", node)?, trouble).await)
    }

    async fn disk_stats(&self, node: &NodeName) -> DiskStats {
        match self.index("disk", node) {
            Ok(i) => self.p.disks.stats(i).await,
            Err(_) => DiskStats::default(),
        }
    }

    async fn damage(&self, node: &NodeName, damage: Damage, seed: u64) -> Result<String, ClusterError> {
        on("damage the data of", node, self.p.disks.damage(self.index("damage", node)?, damage, seed).await)
    }

    async fn repair(&self, node: &NodeName) -> Result<(), ClusterError> {
        on("repair the data of", node, self.p.disks.repair(self.index("repair", node)?).await)
    }

    async fn limit(&self, node: &NodeName, limits: Limits) -> Result<(), ClusterError> {
        on("limit", node, self.p.processes.limit(self.index("limit", node)?, limits).await)
    }

    async fn usage(&self, node: &NodeName) -> Usage {
        match self.index("usage", node) {
            Ok(i) => self.p.processes.usage(i).await,
            Err(_) => Usage::default(),
        }
    }
}

#[async_trait]
impl Defendant for Assembly {
    fn members(&self) -> &[Node] {
        self.faces()
    }

    fn uncut(&self) -> &[Node] {
        &self.p.members
    }

    async fn set_up(&self) -> Result<()> {
        for name in &self.names {
            self.start(name).await?;
        }
        Ok(())
    }

    async fn tear_down(&self) -> Vec<String> {
        let mut left = Vec::new();
        for part in self.parts() {
            left.extend(part.tear_down().await);
        }
        left
    }

    async fn deaths(&self) -> Vec<String> {
        self.p.processes.deaths().await
    }

    fn log_tail(&self, node: &Node) -> String {
        self.index("log", &node.name).map(|i| tail(&self.p.logs[i], 5)).unwrap_or_default()
    }

    fn stand_ins(&self) -> Vec<String> {
        self.parts().into_iter().flat_map(|part| part.stand_ins()).collect()
    }

    fn as_cluster(self: Arc<Self>) -> Arc<dyn Cluster> {
        self
    }
}
