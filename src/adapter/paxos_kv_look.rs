//! How a node of the bundled cluster is looked at: its `Observe`, in the tester's words.

use super::{
    Looker, Node, Wanted,
    paxos_kv_grpc::{dial, pb, root_cause},
};
use async_trait::async_trait;
use checkers::node_state::{NodeState, Prefix, SlotState};
use pb::kv_client::KvClient;
use std::time::Duration;
use tonic::transport::Channel;

/// A connection to one node, opened when it is needed.
pub(super) struct PaxosKvLooker {
    node: Node,
    channel: Option<KvClient<Channel>>,
}

impl PaxosKvLooker {
    pub(super) fn new(node: Node) -> Self {
        PaxosKvLooker { node, channel: None }
    }
}

#[async_trait]
impl Looker for PaxosKvLooker {
    async fn look(&mut self, wanted: Wanted) -> Result<NodeState, String> {
        // Taken out: a connection that has not answered in time is given up.
        let mut kv = match self.channel.take() {
            Some(kv) => kv,
            None => KvClient::new(dial(&self.node, Duration::from_millis(300)).await?),
        };
        let request = pb::ObserveRequest {
            from: wanted.from,
            limit: wanted.limit.try_into().unwrap_or(u32::MAX),
            checkpoints_after: wanted.checkpoints_after,
        };
        let seen = kv.observe(request).await.map_err(|status| root_cause(&status))?.into_inner();
        self.channel = Some(kv);
        state(self.node.name.to_string(), seen).ok_or_else(|| "the node told nothing of its state".to_owned())
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn state(node: String, seen: pb::ObserveReply) -> Option<NodeState> {
    let s = seen.status?;
    let ballot = |b: pb::Ballot| (b.round, u64::from(b.node));
    let slots = seen.slots.into_iter().map(|slot| SlotState {
        slot: slot.slot,
        ballot: slot.ballot.map(ballot),
        hash: hex(slot.hash),
        chosen: slot.chosen,
        durable: slot.durable,
        what: slot.what,
    });
    let checkpoints = seen.checkpoints.into_iter().map(|checkpoint| Prefix {
        slot: checkpoint.slot,
        hash: hex(checkpoint.hash),
        state: hex(checkpoint.state),
        sessions: hex(checkpoint.sessions),
    });
    Some(NodeState {
        node,
        incarnation: s.incarnation,
        storage: hex(s.storage),
        votes: s.role != "joining" && s.role != "learner",
        role: s.role,
        config: Some(s.config),
        survives_power_failure: s.fsync != "none",
        // Under Basic Paxos each slot has its own promise.
        promised: s.told.filter(|_| s.protocol != "basic-paxos").map(ballot),
        recovered: s.recovered.filter(|_| s.protocol != "basic-paxos").map(ballot),
        first: s.first_slot,
        snapshot: s.snapshot_slot,
        durable: seen.durable_to,
        applied: s.applied_index,
        commit: s.commit_index,
        last: s.last_slot,
        hash: hex(s.applied_hash),
        state: hex(s.state_hash),
        sessions: hex(s.session_hash),
        checkpoints: checkpoints.collect(),
        log: slots.collect(),
        ..NodeState::default()
    })
}
