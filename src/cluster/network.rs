//! The links between nodes, wherever they run.

use super::{Part, proxy::Net};
use async_trait::async_trait;
use nemesis::{Capability, Link, LinkShape, LinkStats, Probe};
use std::collections::BTreeMap;

/// All links of a cluster. Errors are in words.
#[async_trait]
pub trait Network: Part {
    /// Sets what links do from now on.
    async fn shape(&self, links: &BTreeMap<Link, LinkShape>) -> Result<(), String>;
    /// A node was started: its network may be a new one, into which what is in force must be put.
    async fn started(&self, _i: usize) -> Result<(), String> {
        Ok(())
    }
    /// Counters of a link.
    async fn stats(&self, link: &Link) -> LinkStats;
    /// Sends a train of packets over a link, if there is a way to.
    async fn probe(&self, _link: &Link, _packets: u32) -> Option<Probe> {
        None
    }
}

#[async_trait]
impl Part for Net {
    fn supports(&self, capability: Capability) -> Option<Result<(), String>> {
        match capability {
            Capability::Cut | Capability::Delay | Capability::Rate | Capability::Reset => Some(Ok(())),
            Capability::Clients if self.has_clients() => Some(Ok(())),
            Capability::Clients => Some(Err("the clients' links were not prepared for faults".to_owned())),
            Capability::Loss | Capability::Scramble => Some(Err(
                "its links are TCP proxies, which lose, duplicate, reorder and corrupt no packets (but can reset \
                 connections: `reset-probability`); `--on netns` and `--on docker` can"
                    .to_owned(),
            )),
            _ => None,
        }
    }
}

#[async_trait]
impl Network for Net {
    async fn shape(&self, links: &BTreeMap<Link, LinkShape>) -> Result<(), String> {
        for (link, shape) in links {
            if !self.set(link, *shape) {
                return Err(format!("there is no link {link}"));
            }
        }
        Ok(())
    }

    async fn stats(&self, link: &Link) -> LinkStats {
        self.read(link)
    }
}
