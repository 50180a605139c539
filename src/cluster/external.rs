//! A cluster that is already there: in this process, or at addresses that the adapter knows.
//!
//! Nothing is started, and nothing can be broken.

use super::Defendant;
use crate::adapter::{Adapter, Node};
use anyhow::Result;
use async_trait::async_trait;
use nemesis::{Capability, Cluster, ClusterError, Link, LinkShape, LinkStats, NodeName, NodeState};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// Nodes that are not ours.
pub struct External {
    adapter: Arc<dyn Adapter>,
    names: Vec<NodeName>,
    members: Vec<Node>,
}

impl External {
    /// A cluster with these nodes, reached through the adapter.
    pub fn new(adapter: Arc<dyn Adapter>, names: Vec<NodeName>) -> Self {
        let node = |(id, name): (u32, &NodeName)| Node {
            name: name.clone(),
            id,
            ports: BTreeMap::new(),
            peers: vec![],
            data: PathBuf::new(),
        };
        let members = (1..).zip(&names).map(node).collect();
        External { adapter, names, members }
    }
}

fn not_ours(what: &'static str, node: &str) -> ClusterError {
    ClusterError { what, node: node.to_owned(), why: "this cluster was not started by the tester".to_owned() }
}

#[async_trait]
impl Cluster for External {
    fn nodes(&self) -> &[NodeName] {
        &self.names
    }
    fn supports(&self, _capability: Capability) -> Result<(), String> {
        Err("the nodes of an external cluster are not the tester's to break; `--on process` can".to_owned())
    }
    async fn start(&self, node: &NodeName) -> Result<(), ClusterError> {
        Err(not_ours("start", node))
    }
    async fn kill(&self, node: &NodeName) -> Result<(), ClusterError> {
        Err(not_ours("kill", node))
    }
    async fn stop(&self, node: &NodeName) -> Result<(), ClusterError> {
        Err(not_ours("stop", node))
    }
    async fn pause(&self, node: &NodeName) -> Result<(), ClusterError> {
        Err(not_ours("pause", node))
    }
    async fn resume(&self, node: &NodeName) -> Result<(), ClusterError> {
        Err(not_ours("resume", node))
    }
    async fn shape(&self, _links: &BTreeMap<Link, LinkShape>) -> Result<(), ClusterError> {
        Err(not_ours("shape", "the links"))
    }
    async fn state(&self, _node: &NodeName) -> NodeState {
        NodeState::Running
    }
    async fn link_stats(&self, _link: &Link) -> LinkStats {
        LinkStats::default()
    }
    async fn answers(&self, node: &NodeName) -> bool {
        match self.members.iter().find(|n| n.name == *node) {
            Some(node) => self.adapter.ready(node).await.is_ok(),
            None => false,
        }
    }
    async fn leader(&self) -> Option<NodeName> {
        None
    }
}

#[async_trait]
impl Defendant for External {
    fn members(&self) -> &[Node] {
        &self.members
    }
    async fn set_up(&self) -> Result<()> {
        Ok(())
    }
    async fn tear_down(&self) -> Vec<String> {
        vec![]
    }
    async fn deaths(&self) -> Vec<String> {
        vec![]
    }
    fn log_tail(&self, _node: &Node) -> String {
        String::new()
    }
    fn as_cluster(self: Arc<Self>) -> Arc<dyn Cluster> {
        self
    }
}
