//! What the simulated network does to messages, and what fate does to nodes.
//!
//! ```text
//! crash (one, the leader, most at once) │ pause │ partition that drops or holds, one way or both, healed at once or link by link
//! ```
//!
//! Held messages are delivered when their link heals: late messages of a deposed leader are the hardest test of an acceptor.

use std::collections::BTreeSet;

use rand::RngExt;

use super::world::{Event, MS, World, nanos};
use crate::core::{Message, NodeId};

impl World<'_> {
    // --- network ------------------------------------------------------------------------------------------------------

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        match &message {
            Message::Promise { ballot, scope, .. } => {
                self.oracle.promised(from, self.setup.protocol, scope.slot(), *ballot);
            }
            Message::Accepted { ballot, slot } => {
                self.oracle.promised(from, self.setup.protocol, *slot, *ballot);
            }
            _ => {}
        }
        if self.cut.contains(&(from, to)) {
            if self.hold {
                self.held.push((from, to, message));
            }
            return;
        }
        if !self.calm && self.rng.random_bool(self.setup.faults.loss) {
            return;
        }
        let twice = !matches!(message, Message::Forward { .. })
            && !self.calm
            && self.rng.random_bool(self.setup.faults.duplication);
        if twice {
            let at = self.now + self.delay() * 20;
            self.at(at, Event::Deliver { from, to, message: message.clone() });
        }
        let at = self.now + self.delay();
        self.at(at, Event::Deliver { from, to, message });
    }

    fn delay(&mut self) -> u64 {
        let longest = nanos(self.setup.faults.delay).max(MS);
        self.rng.random_range(MS / 5..=longest)
    }

    // --- faults -------------------------------------------------------------------------------------------------------

    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let every = nanos(self.setup.faults.every);
        let next = self.now + self.rng.random_range(every / 4..every * 2);
        self.at(next, Event::Fault);
        let mut kinds = Vec::new();
        if self.setup.faults.crashes {
            kinds.extend(["crash", "crash", "crash-leader", "crash-many"]);
        }
        if self.setup.faults.pauses {
            kinds.extend(["pause", "pause-leader"]);
        }
        if self.setup.faults.partitions && self.setup.nodes > 1 {
            kinds.extend(["partition", "partition-leader", "partition-leader"]);
        }
        if self.setup.faults.wipes && self.setup.nodes > 2 {
            kinds.push("wipe");
        }
        if !self.setup.hooks.measures_monotonic_time() {
            kinds.extend(["wall-clock", "wall-clock-leader", "wall-clock-leader"]);
        }
        if kinds.is_empty() {
            return Ok(());
        }
        let kind = kinds[self.rng.random_range(0..kinds.len())];
        let victim = match self.leader() {
            Some(leader) if kind.ends_with("leader") => leader,
            _ => self.rng.random_range(1..=self.setup.nodes),
        };
        match kind {
            "crash" | "crash-leader" => self.crash_for_a_while(victim),
            "crash-many" => {
                for id in 1..=self.setup.nodes {
                    if self.rng.random_bool(0.8) {
                        self.crash_for_a_while(id);
                    }
                }
            }
            "wipe" => self.wipe(victim),
            "pause" | "pause-leader" => {
                self.report.pauses += 1;
                self.node(victim).paused_until = self.now + self.rng.random_range(50..1_500) * MS;
            }
            "wall-clock" | "wall-clock-leader" => {
                self.node(victim).wall_offset = self.rng.random_range(-3_000..3_000) * MS as i64;
            }
            _ => self.cut_off(victim, kind == "partition-leader"),
        }
        Ok(())
    }

    pub(super) fn crash_for_a_while(&mut self, id: NodeId) {
        self.crash(id);
        let back = self.now + self.rng.random_range(20..600) * MS;
        self.at(back, Event::Restart { node: id });
    }

    /// The node is killed and its disk lost, and so are its connections. Only a minority may lose its memory at a time: here one.
    fn wipe(&mut self, victim: NodeId) {
        let all_vote =
            self.nodes.values().all(|node| node.core.as_ref().is_some_and(crate::core::Core::votes));
        if !all_vote {
            return;
        }
        self.report.wiped += 1;
        self.crash_for_a_while(victim);
        self.node(victim).disk = super::disk::Disk::default();
        self.events.retain(
            |_, event| !matches!(event, Event::Deliver { from, to, .. } if *from == victim || *to == victim),
        );
        self.held.retain(|(from, to, _)| *from != victim && *to != victim);
        self.oracle.wiped(victim);
    }

    /// Who leads under the highest ballot, as far as the nodes know.
    fn leader(&self) -> Option<NodeId> {
        self.nodes
            .values()
            .filter_map(|node| node.core.as_ref()?.status().leading)
            .max()
            .map(|ballot| ballot.node)
    }

    fn cut_off(&mut self, victim: NodeId, in_minority: bool) {
        self.heal();
        self.report.partitions += 1;
        let size =
            if in_minority { (self.setup.nodes - 1) / 2 } else { self.rng.random_range(1..self.setup.nodes) };
        let mut side = BTreeSet::from([victim]);
        while side.len() < size as usize {
            side.insert(self.rng.random_range(1..=self.setup.nodes));
        }
        let (out, back) = if self.rng.random_bool(0.7) { (true, true) } else { (true, false) };
        for a in 1..=self.setup.nodes {
            for b in 1..=self.setup.nodes {
                let leaves = side.contains(&a) && !side.contains(&b);
                let enters = !side.contains(&a) && side.contains(&b);
                if leaves && out || enters && back {
                    self.cut.insert((a, b));
                }
            }
        }
        self.hold = self.rng.random_bool(0.6);
        self.partition += 1;
        let partition = self.partition;
        let until = self.now + self.rng.random_range(200..2_000) * MS;
        if self.rng.random_bool(0.5) {
            return self.at(until, Event::Heal { partition });
        }
        // Real networks come back link by link.
        for link in self.cut.clone() {
            let at = until + self.rng.random_range(0..500) * MS;
            self.at(at, Event::HealLink { partition, link });
        }
    }

    pub(super) fn heal(&mut self) {
        for link in self.cut.clone() {
            self.heal_link(link);
        }
    }

    pub(super) fn heal_link(&mut self, link: (NodeId, NodeId)) {
        self.cut.remove(&link);
        let (released, held) =
            std::mem::take(&mut self.held).into_iter().partition(|(from, to, _)| (*from, *to) == link);
        self.held = held;
        for (from, to, message) in Vec::from_iter::<Vec<_>>(released) {
            let at = self.now + self.delay();
            self.at(at, Event::Deliver { from, to, message });
        }
    }
}
