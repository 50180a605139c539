//! What fate does to nodes and links.
//!
//! ```text
//! crash (one, the leader, most at once; killed, or without power) │ wipe (the disk is lost) │ pause │ a disk fails, or is damaged │ partition that drops or holds, one way or both, healed
//! at once or link by link
//! ```
//!
//! A crash comes between any two effects of a node. Held messages are delivered when their link heals: late messages of a
//! deposed leader are the hardest test of an acceptor.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;

use super::user::{Action, MS, User};
use crate::core::{Command, Core, Member, NodeId, Nodes, Op};
use crate::sim::{Cut, Link, Loss};

impl User<'_> {
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let every = u64::try_from(self.setup.faults.every.as_nanos()).unwrap_or(u64::MAX);
        let next = self.world.now() + self.rng.random_range(every / 4..every * 2);
        self.at(next, Action::Fault);
        if self.setup.faults.changes && self.rng.random_bool(0.6) {
            self.change_members();
        }
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
        if self.setup.faults.disks {
            kinds.extend(["disk-error", "disk-error-leader", "slow-disk-leader", "damage"]);
        }
        if self.setup.faults.slow_disks {
            kinds.extend(["slow-disk", "slow-disk"]);
        }
        if !self.setup.hooks.measures_monotonic_time() {
            kinds.extend(["wall-clock", "wall-clock-leader", "wall-clock-leader"]);
        }
        if !kinds.is_empty() {
            kinds.push("hand-over-leader");
        }
        if kinds.is_empty() {
            return;
        }
        let kind = kinds[self.rng.random_range(0..kinds.len())];
        let victim = match self.world.leader() {
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
            "disk-error" | "disk-error-leader" => {
                self.report.disk_errors += 1;
                self.world.set_failing(victim, true);
                let mended = self.rng.random_range(20..600);
                self.after(mended, Action::Mend { node: victim });
            }
            "slow-disk" | "slow-disk-leader" => {
                let (more, mended) = (self.rng.random_range(20..200), self.rng.random_range(100..1_500));
                self.world.set_sync_delay(victim, Duration::from_millis(more));
                self.after(mended, Action::Mend { node: victim });
            }
            "damage" => {
                self.world.crash(victim, Loss::Process);
                self.report.damaged += u64::from(self.world.damage(victim) > 0);
                let (back, mended) = (self.rng.random_range(20..300), self.rng.random_range(300..600));
                self.after(back, Action::Start { node: victim });
                self.after(mended, Action::Mend { node: victim });
            }
            "pause" | "pause-leader" => {
                self.report.pauses += 1;
                self.world.pause(victim);
                self.pauses[victim as usize] += 1;
                let pause = self.pauses[victim as usize];
                let ms = self.rng.random_range(50..1_500);
                self.after(ms, Action::Resume { node: victim, pause });
            }
            "hand-over-leader" => {
                self.report.hand_overs += 1;
                self.world.hand_over(victim);
            }
            "wall-clock" | "wall-clock-leader" => {
                let offset = self.rng.random_range(-3_000..3_000) * MS as i64;
                self.world.set_wall(victim, offset, 0);
            }
            _ => self.cut_off(victim, kind == "partition-leader"),
        }
    }

    fn crash_for_a_while(&mut self, id: NodeId) {
        let loss = [Loss::Process, Loss::Power, Loss::Torn][self.rng.random_range(0..3)];
        if self.rng.random_bool(0.5) {
            self.world.crash(id, loss);
        } else {
            let (effects, within) = (self.rng.random_range(0..12), Duration::from_millis(10));
            match loss {
                Loss::Process => self.world.crash_after(id, loss, effects, within),
                Loss::Power | Loss::Torn => self.world.crash_in_write(id, loss, effects, within),
            }
        }
        let back = self.rng.random_range(20..600);
        self.after(back, Action::Start { node: id });
    }

    /// Asks a node for other members. Whatever becomes of it is not judged; what clients see meanwhile is.
    fn change_members(&mut self) {
        let asked = match self.world.leader() {
            Some(leader) if self.rng.random_bool(0.8) => leader,
            _ => self.rng.random_range(1..=self.setup.nodes),
        };
        let from = (1..=self.setup.nodes).filter_map(|id| Some(self.world.core(id)?.configuration())).max();
        let size = self.rng.random_range(3..=5.min(self.setup.nodes)) as usize;
        let mut nodes = Nodes::new();
        while nodes.len() < size {
            let id = self.rng.random_range(1..=self.setup.nodes);
            nodes.insert(id, Member { address: format!("n:{id}"), born: 0 });
        }
        let op = Op::Reconfigure { from: from.unwrap_or(0), nodes };
        // If the connection is refused another change comes soon.
        let _ = self.world.call(asked, Command { client: 0, seq: 0, op }, None, false);
    }

    /// Only a minority of the members may be without its memory at a time: here one.
    fn wipe(&mut self, victim: NodeId) {
        let members = self.world.members();
        let votes = |id: &NodeId| self.world.core(*id).is_some_and(Core::votes);
        if members.contains(&victim) && members.iter().all(votes) {
            self.report.wiped += 1;
            self.world.wipe(victim);
            let back = self.rng.random_range(20..600);
            self.after(back, Action::Start { node: victim });
        }
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
        let how = if self.rng.random_bool(0.6) { Cut::Hold } else { Cut::Drop };
        for a in 1..=self.setup.nodes {
            for b in 1..=self.setup.nodes {
                let leaves = side.contains(&a) && !side.contains(&b);
                let enters = !side.contains(&a) && side.contains(&b);
                if leaves && out || enters && back {
                    self.cut.push((a, b));
                    self.world.set_link(a, b, Link { cut: how, ..self.world.link(a, b) });
                }
            }
        }
        self.partition += 1;
        let partition = self.partition;
        let until = self.rng.random_range(200..2_000);
        if self.rng.random_bool(0.5) {
            return self.after(until, Action::Heal { partition });
        }
        // Real networks come back link by link.
        for link in self.cut.clone() {
            let later = self.rng.random_range(0..500);
            self.after(until + later, Action::HealLink { partition, link });
        }
    }

    pub(super) fn heal(&mut self) {
        for link in self.cut.clone() {
            self.heal_link(link);
        }
    }

    pub(super) fn heal_link(&mut self, link: (NodeId, NodeId)) {
        self.cut.retain(|cut| *cut != link);
        let (from, to) = link;
        self.world.set_link(from, to, Link { cut: Cut::Open, ..self.world.link(from, to) });
    }
}
