//! The user of the attacked world: its clients' operations, and the order of things.
//!
//! ```text
//! world ── Answer ─→ the worker who asked ─ judged ─→ its next operation after a pause
//!       ── Crashed ─→ the workers who were asking there: nobody knows
//!       ── Timer ──→ Action: work, give up, a fault, a heal, calm, the end
//! ```
//!
//! Deliberately knows nothing of the insides of nodes but what the world says.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::clients::{Doing, Pending, Worker, final_read, keys, tokens};
use super::lists::Lists;
use super::{Report, Setup, Violation};
use crate::core::{Call, Core, Failure, NodeId, Path, Protocol};
use crate::sim::{Answer, Cluster, Happened, Link, World};

pub(super) const MS: u64 = 1_000_000;
/// Time after the load in which everything must come together.
const CALM: u64 = 15_000 * MS;
/// So that a snapshot takes several pieces.
const PIECE_BYTES: usize = 400;
/// How long an answer is waited for.
const PATIENCE: u64 = 900 * MS;

/// What is to be done at some time.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Work { worker: usize },
    GiveUp { worker: usize, call: Call },
    Fault,
    Start { node: NodeId },
    Mend { node: NodeId },
    Resume { node: NodeId, pause: u64 },
    Heal { partition: u64 },
    HealLink { partition: u64, link: (NodeId, NodeId) },
    Calm,
    Finish,
}

pub(super) struct User<'a> {
    pub(super) setup: &'a Setup,
    pub(super) world: World,
    pub(super) rng: Xoshiro256PlusPlus,
    actions: Vec<Action>,
    workers: Vec<Worker>,
    calls: BTreeMap<Call, usize>,
    /// Directed links that are cut, and by which partition.
    pub(super) cut: Vec<(NodeId, NodeId)>,
    pub(super) partition: u64,
    pub(super) pauses: Vec<u64>,
    pub(super) calm: bool,
    final_keys: Vec<usize>,
    lists: Lists,
    pub(super) report: Report,
}

impl<'a> User<'a> {
    pub(super) fn new(setup: &'a Setup) -> Self {
        let mut cluster = Cluster::new(setup.seed, setup.nodes, setup.protocol);
        (cluster.hooks, cluster.shortcuts) = (setup.hooks, setup.shortcuts);
        cluster.members = setup.members;
        cluster.drift_ppm = setup.faults.drift_ppm;
        cluster.look_inside = setup.look_inside;
        cluster.idle_ticks = setup.idle_ticks;
        (cluster.snapshot_every, cluster.keep) = (setup.snapshot_every, setup.keep);
        cluster.piece_bytes = PIECE_BYTES;
        cluster.links = Link {
            loss: setup.faults.loss,
            duplicate: setup.faults.duplication,
            ..Link::delayed(Duration::from_micros(200), setup.faults.delay)
        };
        User {
            setup,
            world: World::new(cluster),
            // Its own stream: the world draws from another.
            rng: Xoshiro256PlusPlus::seed_from_u64(!setup.seed),
            actions: Vec::new(),
            workers: (0..setup.clients).map(|index| Worker::new(index, setup.nodes)).collect(),
            calls: BTreeMap::new(),
            cut: Vec::new(),
            partition: 0,
            pauses: vec![0; setup.nodes as usize + 1],
            calm: false,
            final_keys: keys().collect(),
            lists: Lists::default(),
            report: Report::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<Report, Violation> {
        for node in 1..=self.setup.nodes {
            self.world.start(node);
        }
        for worker in 0..self.workers.len() {
            self.at(300 * MS + worker as u64 * MS, Action::Work { worker });
        }
        if !self.setup.faults.every.is_zero() {
            self.at(500 * MS, Action::Fault);
        }
        let load = u64::try_from(self.setup.load.as_nanos()).unwrap_or(u64::MAX);
        self.at(load, Action::Calm);
        self.at(load + CALM, Action::Finish);
        while !self.is_settled()
            && let Some(happened) = self.world.next()
        {
            let done = match happened {
                Happened::Timer(id) if matches!(self.actions[id as usize], Action::Finish) => break,
                Happened::Timer(id) => {
                    self.act(id);
                    Ok(())
                }
                Happened::Answer(answer) => self.answered(&answer),
                Happened::Crashed { node, .. } => {
                    self.report.crashes += 1;
                    self.disconnected(node);
                    Ok(())
                }
                Happened::Broken(broken) => Err(broken.what),
            };
            done.map_err(|what| self.violation(what))?;
        }
        if !self.is_settled() {
            let states: Vec<String> = (1..=self.setup.nodes)
                .filter_map(|id| self.world.status(id))
                .map(|s| format!("{} {} c{} {}", s.node, s.role, s.config, s.applied))
                .collect();
            let (members, states) = (self.world.members(), states.join(", "));
            let what = format!("the healed cluster {members:?} did not come together again: {states}");
            return Err(self.violation(what));
        }
        self.report.slots = self.world.slots();
        self.report.steps = self.world.events();
        self.report.elections = self.world.elections();
        let stored = self.world.stored();
        (self.report.snapshots, self.report.installed) = (stored.snapshots, stored.installed);
        (self.report.rejoined, self.report.configurations) = (stored.rejoined, stored.configurations);
        Ok(self.report)
    }

    fn violation(&self, what: String) -> Violation {
        Violation { what, seed: self.setup.seed, at_ms: self.world.now() / MS }
    }

    pub(super) fn at(&mut self, time: u64, action: Action) {
        self.world.timer(time, self.actions.len() as u64);
        self.actions.push(action);
    }

    pub(super) fn after(&mut self, ms: u64, action: Action) {
        self.at(self.world.now() + ms * MS, action);
    }

    fn act(&mut self, id: u64) {
        match self.actions[id as usize].clone() {
            Action::Work { worker } => self.work(worker),
            Action::GiveUp { worker, call } => {
                if self.calls.remove(&call).is_some() {
                    self.unanswered(worker);
                }
            }
            Action::Fault => self.fault(),
            Action::Start { node } => drop(self.world.start(node)),
            Action::Mend { node } => self.mend(node),
            Action::Resume { node, pause } => {
                if self.pauses[node as usize] == pause {
                    self.world.resume(node);
                }
            }
            Action::Heal { partition } if partition == self.partition => self.heal(),
            Action::HealLink { partition, link } if partition == self.partition => self.heal_link(link),
            Action::Heal { .. } | Action::HealLink { .. } | Action::Finish => {}
            Action::Calm => {
                self.calm = true;
                self.heal();
                let quiet = Link { loss: 0.0, duplicate: 0.0, ..self.world.cluster().links };
                for node in 1..=self.setup.nodes {
                    self.world.resume(node);
                    self.mend(node);
                    for other in (1..=self.setup.nodes).filter(|other| *other != node) {
                        self.world.set_link(node, other, quiet);
                    }
                }
            }
        }
    }

    fn mend(&mut self, node: NodeId) {
        self.world.set_failing(node, false);
        self.world.set_sync_delay(node, Duration::ZERO);
        self.world.repair(node);
        self.world.start(node);
    }

    // --- clients --------------------------------------------------------------------------------------------------------

    fn work(&mut self, index: usize) {
        if self.workers[index].pending.is_some() {
            return;
        }
        let now = self.world.now();
        let (doing, command) = if !self.calm {
            let lists = &mut self.lists;
            self.workers[index].next(&mut self.rng, |key| lists.invoke_append(key, now))
        } else if let Some(key) = self.final_keys.last() {
            final_read(*key)
        } else {
            return;
        };
        let node = self.workers[index].node(self.setup.nodes, &mut self.rng);
        self.call(index, Pending { doing, invoked: now, command, node, call: 0, retries: 0, unknown: false });
    }

    fn call(&mut self, index: usize, mut pending: Pending) {
        let called = self.world.call(pending.node, pending.command.clone(), None, false);
        pending.call = called.unwrap_or_default();
        self.workers[index].pending = Some(pending);
        match called {
            Some(call) => {
                self.calls.insert(call, index);
                self.at(self.world.now() + PATIENCE, Action::GiveUp { worker: index, call });
            }
            // Connection refused: nothing has happened, unless an earlier try of the same operation did.
            None => self.failed(index, &Failure::NotLeader),
        }
    }

    fn disconnected(&mut self, node: NodeId) {
        for index in 0..self.workers.len() {
            let asking = self.workers[index].pending.as_ref().filter(|pending| pending.node == node);
            if let Some(call) = asking.map(|pending| pending.call)
                && self.calls.remove(&call).is_some()
            {
                self.unanswered(index);
            }
        }
    }

    fn answered(&mut self, answer: &Answer) -> Result<(), String> {
        let Some(index) = self.calls.remove(&answer.call) else { return Ok(()) };
        let Some(pending) = self.workers[index].pending.clone().filter(|pending| pending.call == answer.call)
        else {
            return Ok(());
        };
        let served = &answer.reply.served;
        match &answer.reply.result {
            Ok(output) => {
                self.report.ok += 1;
                self.report.lease_reads += u64::from(served.path == Path::LeaseRead);
                self.report.index_reads += u64::from(served.path == Path::ReadIndex);
                self.report.quorum_reads += u64::from(served.path == Path::QuorumRead);
                self.report.retries += u64::from(served.path == Path::Retry);
                self.report.forwarded += u64::from(served.forwarded);
                let now = self.world.now();
                match pending.doing {
                    Doing::Append { token } => self.lists.acked(token, now),
                    Doing::Read { key } => {
                        self.lists.read(key, pending.invoked, now, &tokens(output))?;
                        if self.calm {
                            self.final_keys.retain(|left| *left != key);
                        }
                    }
                }
                self.workers[index].pending = None;
                self.later(index);
            }
            Err(failure) => self.failed(index, failure),
        }
        Ok(())
    }

    fn failed(&mut self, index: usize, failure: &Failure) {
        let Some(pending) = self.workers[index].pending.clone() else { return };
        if !failure.is_definite() {
            self.unanswered(index);
        } else if pending.unknown {
            self.retire(index);
        } else {
            self.report.refused += 1;
            if let Doing::Append { token } = pending.doing {
                self.lists.refused(token);
            }
            self.workers[index].pending = None;
            self.later(index);
        }
    }

    /// Nobody knows. Ask again elsewhere with the same sequence number, or leave it open for ever.
    fn unanswered(&mut self, index: usize) {
        let Some(mut pending) = self.workers[index].pending.take() else { return };
        if self.rng.random_bool(0.7) && Worker::may_retry(&pending) {
            pending.retries += 1;
            pending.unknown = true;
            pending.node = self.rng.random_range(1..=self.setup.nodes);
            return self.call(index, pending);
        }
        self.retire(index);
    }

    fn retire(&mut self, index: usize) {
        self.report.unknown += 1;
        self.workers[index].retire();
        self.later(index);
    }

    fn later(&mut self, index: usize) {
        let pause = if self.setup.protocol == Protocol::MultiPaxos { 20 } else { 60 };
        let at = self.world.now() + self.rng.random_range(MS..pause * MS);
        self.at(at, Action::Work { worker: index });
    }

    // --- the end --------------------------------------------------------------------------------------------------------

    /// After the load: every key was read, and all members have applied the same and vote.
    fn is_settled(&self) -> bool {
        // Nobody has to write for ever: under Basic Paxos a lost vote may have to wait for that.
        let votes = |id| self.world.core(id).is_some_and(Core::votes);
        let all_vote =
            || self.setup.protocol == Protocol::BasicPaxos || self.world.members().into_iter().all(votes);
        self.calm
            && self.final_keys.is_empty()
            && (!self.setup.look_inside || self.world.is_together() && all_vote())
    }
}
