//! Which streams a node keeps open, as the members of the cluster change.
//!
//! ```text
//! member 3   ─ dials ─→  1, 2               of two members the one with the larger number dials the other
//! node 7, to be added, or removed  ─ dials ─→  all members            they do not know where it is, or do not care
//! ```
//!
//! A stream to a node that is removed stays until it ends: the news has to get there. While two nodes do not agree yet about who is a member both may dial: the newer stream replaces the older one, until they agree.
//! Deliberately no protocol: what is sent over the streams is the core's business.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::core::{NodeId, Nodes};
use crate::transport::{self, Inbound, Outbox, Outboxes};

/// The streams of a node. They are closed when it is dropped.
pub struct Links {
    node: NodeId,
    outboxes: Outboxes,
    inbound: Inbound,
    /// Those that were used, so that nobody has to be asked again.
    used: BTreeMap<NodeId, Arc<Outbox>>,
    dialled: BTreeMap<NodeId, Dialled>,
    tasks: JoinSet<()>,
}

struct Dialled {
    address: String,
    /// It is to end with its stream: a node that was removed has still to be told so.
    leaves: Arc<AtomicBool>,
}

impl Links {
    /// None yet.
    pub fn new(node: NodeId, outboxes: Outboxes, inbound: Inbound) -> Self {
        Links {
            node,
            outboxes,
            inbound,
            used: BTreeMap::new(),
            dialled: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// These are the members now. Must be called within a tokio runtime.
    pub fn follow(&mut self, nodes: &Nodes) {
        for node in nodes.keys().filter(|node| **node != self.node) {
            // If there are too many it is said to whoever cannot connect.
            let _ = self.outboxes.open(*node);
        }
        let wanted = wanted(self.node, nodes);
        self.dialled.retain(|peer, dialled| {
            let stays = wanted.get(peer) == Some(&dialled.address);
            dialled.leaves.store(!stays, Ordering::Relaxed);
            stays
        });
        for (peer, address) in wanted {
            let (inbound, tasks) = (&self.inbound, &mut self.tasks);
            self.dialled.entry(peer).or_insert_with(|| {
                let leaves = Arc::new(AtomicBool::new(false));
                let link = transport::keep_connected(peer, address.clone(), inbound.clone(), leaves.clone());
                tasks.spawn(link);
                Dialled { address, leaves }
            });
        }
    }

    /// What waits to be sent to `peer`.
    pub fn outbox(&mut self, peer: NodeId) -> Option<&Arc<Outbox>> {
        if !self.used.contains_key(&peer) {
            self.used.insert(peer, self.outboxes.get(peer)?);
        }
        self.used.get(&peer)
    }

    /// A node that had no incarnation has one now.
    pub fn speaks_as(&self, epoch: u64) {
        self.outboxes.speaks_as(epoch);
    }
}

/// Whom `node` dials, and where.
fn wanted(node: NodeId, nodes: &Nodes) -> BTreeMap<NodeId, String> {
    let member = nodes.contains_key(&node);
    let dials = |peer: NodeId| peer != node && (!member || peer < node);
    let known = nodes.iter().filter(|(peer, member)| dials(**peer) && !member.address.is_empty());
    known.map(|(peer, member)| (*peer, member.address.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Member;

    #[test]
    fn of_two_members_the_larger_dials_and_whoever_is_none_dials_all() {
        let member = |node: NodeId| (node, Member { address: format!("a:{node}"), born: 0 });
        let nodes: Nodes = [1, 3, 5].map(member).into();
        let dials = |node| wanted(node, &nodes).into_keys().collect::<Vec<_>>();
        assert_eq!((dials(1), dials(3), dials(5)), (vec![], vec![1], vec![1, 3]));
        assert_eq!(dials(2), [1, 3, 5], "to be added");
        assert_eq!(wanted(5, &nodes)[&3], "a:3");
    }
}
