//! The event queue, the nodes with their disks, and the network between them.
//!
//! ```text
//! (time, order) → Deliver | Tick | Synced | Work | Crash | Restart | Partition | Heal | Stop
//! ```
//!
//! Every event is handled at its virtual time; a paused node gets its events when it wakes up. Deliberately single-threaded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::clients::{Doing, Pending, Worker, final_read, keys, tokens};
use super::disk::Disk;
use super::oracle::{Oracle, Violation};
use super::{Report, Setup};
use crate::core::{
    Call, Config, Core, Effect, Failure, Input, Message, Mono, NodeId, Note, Path, Protocol, Reply, Token,
};

pub(super) const MS: u64 = 1_000_000;
/// So that a snapshot takes several pieces.
const PIECE_BYTES: usize = 400;
/// One step in so many ends in a crash between two of its effects.
const CRASH_WITHIN: u32 = 10_000;
const TICK: u64 = 10 * MS;
/// Time after the load in which everything must come together.
const CALM: u64 = 15_000 * MS;

#[derive(Debug)]
pub(super) enum Event {
    Deliver { from: NodeId, to: NodeId, message: Message },
    Tick { node: NodeId, life: u64 },
    Wake { node: NodeId, life: u64 },
    Synced { node: NodeId, life: u64, token: Token },
    Saved { node: NodeId, life: u64 },
    Work { worker: usize },
    Fault,
    Restart { node: NodeId },
    Heal { partition: u64 },
    HealLink { partition: u64, link: (NodeId, NodeId) },
    Calm,
    Finish,
}

pub(super) struct Node {
    pub(super) core: Option<Core>,
    pub(super) life: u64,
    pub(super) disk: Disk,
    pub(super) held: BTreeMap<Token, Vec<Effect>>,
    pub(super) last_sync: u64,
    pub(super) wake_at: u64,
    pub(super) paused_until: u64,
    pub(super) clock_offset: u64,
    pub(super) clock_ppm: i64,
    /// How far its time of day is off, which only a node that goes by it notices.
    pub(super) wall_offset: i64,
}

pub(super) struct World<'a> {
    pub(super) setup: &'a Setup,
    pub(super) rng: ChaCha8Rng,
    pub(super) now: u64,
    pub(super) order: u64,
    pub(super) queue: BinaryHeap<Reverse<(u64, u64)>>,
    pub(super) events: BTreeMap<u64, Event>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) workers: Vec<Worker>,
    pub(super) calls: BTreeMap<Call, usize>,
    pub(super) next_call: Call,
    /// Directed links that are cut, whether they hold or drop, and by which partition.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) hold: bool,
    pub(super) held: Vec<(NodeId, NodeId, Message)>,
    pub(super) partition: u64,
    pub(super) calm: bool,
    pub(super) final_keys: Vec<usize>,
    pub(super) oracle: Oracle,
    pub(super) report: Report,
}

impl<'a> World<'a> {
    pub(super) fn new(setup: &'a Setup) -> Self {
        let mut world = World {
            setup,
            rng: ChaCha8Rng::seed_from_u64(setup.seed),
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            nodes: BTreeMap::new(),
            workers: (0..setup.clients).map(|index| Worker::new(index, setup.nodes)).collect(),
            calls: BTreeMap::new(),
            next_call: 1,
            cut: BTreeSet::new(),
            hold: false,
            held: Vec::new(),
            partition: 0,
            calm: false,
            final_keys: keys().collect(),
            oracle: Oracle::new(setup.look_inside),
            report: Report::default(),
        };
        for id in 1..=setup.nodes {
            let ppm = i64::from(setup.faults.drift_ppm);
            let node = Node {
                core: None,
                life: 0,
                disk: Disk::default(),
                held: BTreeMap::new(),
                last_sync: 0,
                wake_at: u64::MAX,
                paused_until: 0,
                clock_offset: world.rng.random_range(0..1_000_000 * MS),
                clock_ppm: world.rng.random_range(-ppm..=ppm),
                wall_offset: 0,
            };
            world.nodes.insert(id, node);
        }
        world
    }

    pub(super) fn run(mut self) -> Result<Report, Violation> {
        for id in 1..=self.setup.nodes {
            self.at(0, Event::Restart { node: id });
        }
        for worker in 0..self.workers.len() {
            self.at(300 * MS + worker as u64 * MS, Event::Work { worker });
        }
        if !self.setup.faults.every.is_zero() {
            self.at(500 * MS, Event::Fault);
        }
        let load = nanos(self.setup.load);
        self.at(load, Event::Calm);
        self.at(load + CALM, Event::Finish);
        while let Some(Reverse((at, order))) = self.queue.pop() {
            let Some(event) = self.events.remove(&order) else { continue };
            self.now = at;
            if let Event::Finish = event {
                break;
            }
            self.handle(event).map_err(|what| self.violation(what))?;
            if self.calm && self.is_settled() {
                break;
            }
        }
        if !self.is_settled() {
            return Err(self.violation("the healed cluster did not come together again".to_owned()));
        }
        self.report.slots = self.oracle.slots();
        Ok(self.report)
    }

    fn violation(&self, what: String) -> Violation {
        Violation { what, seed: self.setup.seed, at_ms: self.now / MS }
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((time, self.order)));
        self.events.insert(self.order, event);
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        let target = match &event {
            Event::Deliver { to, .. } => Some(*to),
            Event::Tick { node, .. }
            | Event::Wake { node, .. }
            | Event::Synced { node, .. }
            | Event::Saved { node, .. } => Some(*node),
            _ => None,
        };
        if let Some(paused_until) = target.map(|id| self.nodes[&id].paused_until)
            && paused_until > self.now
        {
            self.at(paused_until, event);
            return Ok(());
        }
        match event {
            Event::Deliver { from, to, message } => self.step(to, Input::Message { from, message }),
            Event::Tick { node, life } if self.lives(node, life) => {
                self.at(self.now + TICK, Event::Tick { node, life });
                self.step(node, Input::Tick)
            }
            Event::Wake { node, life } if self.lives(node, life) => {
                self.node(node).wake_at = u64::MAX;
                self.step(node, Input::Tick)
            }
            Event::Synced { node, life, token } if self.lives(node, life) => self.synced(node, token),
            Event::Saved { node, life } if self.lives(node, life) => self.saved(node),
            Event::Tick { .. } | Event::Wake { .. } | Event::Synced { .. } | Event::Saved { .. } => Ok(()),
            Event::Work { worker } => self.work(worker),
            Event::Fault => self.fault(),
            Event::Restart { node } => self.restart(node),
            Event::Heal { partition } => {
                if partition == self.partition {
                    self.heal();
                }
                Ok(())
            }
            Event::HealLink { partition, link } => {
                if partition == self.partition {
                    self.heal_link(link);
                }
                Ok(())
            }
            Event::Calm => {
                self.calm = true;
                self.heal();
                for id in 1..=self.setup.nodes {
                    self.node(id).paused_until = 0;
                    if self.nodes[&id].core.is_none() {
                        self.restart(id)?;
                    }
                }
                Ok(())
            }
            Event::Finish => Ok(()),
        }
    }

    pub(super) fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("only known nodes are named")
    }

    fn lives(&self, id: NodeId, life: u64) -> bool {
        let node = &self.nodes[&id];
        node.core.is_some() && node.life == life
    }

    fn clock(&self, id: NodeId) -> Mono {
        let node = &self.nodes[&id];
        let drift = (self.now as i64 / 1_000_000) * node.clock_ppm;
        let wall = if self.setup.hooks.measures_monotonic_time() { 0 } else { node.wall_offset };
        Mono((node.clock_offset + self.now.saturating_add_signed(drift)).saturating_add_signed(wall))
    }

    // --- nodes --------------------------------------------------------------------------------------------------------

    pub(super) fn restart(&mut self, id: NodeId) -> Result<(), String> {
        if self.nodes[&id].core.is_some() {
            return Ok(());
        }
        let mut config = Config::new(id, 1..=self.setup.nodes, self.setup.protocol);
        config.seed = self.setup.seed;
        config.hooks = self.setup.hooks;
        (config.snapshot_every, config.keep) = (self.setup.snapshot_every, self.setup.keep);
        config.piece_bytes = PIECE_BYTES;
        let now = self.clock(id);
        let node = self.node(id);
        let mut durable = node.disk.read();
        config.nonce = node.life + 1;
        durable.start(&config).into_iter().for_each(|start| node.disk.append(start));
        let core = Core::new(config, durable, now);
        node.life += 1;
        node.last_sync = 0;
        node.wake_at = u64::MAX;
        let life = node.life;
        self.oracle.restarted(id, &core)?;
        self.node(id).core = Some(core);
        let first = self.now + self.rng.random_range(0..TICK);
        self.at(first, Event::Tick { node: id, life });
        Ok(())
    }

    pub(super) fn crash(&mut self, id: NodeId) {
        let hooks = self.setup.hooks;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.core.is_some()) else { return };
        node.core = None;
        node.disk.crash(&mut self.rng, hooks);
        node.held.clear();
        node.paused_until = 0;
        self.report.crashes += 1;
        let lost: Vec<usize> = (0..self.workers.len())
            .filter(|worker| self.workers[*worker].pending.as_ref().is_some_and(|pending| pending.node == id))
            .collect();
        for worker in lost {
            self.unanswered(worker);
        }
    }

    fn step(&mut self, id: NodeId, input: Input) -> Result<(), String> {
        let now = self.clock(id);
        let Some(core) = self.node(id).core.as_mut() else { return Ok(()) };
        let effects = core.step(now, input);
        self.report.steps += 1;
        let (life, wakeup) = {
            let node = &self.nodes[&id];
            let core = node.core.as_ref().expect("it has just stepped");
            self.oracle.stepped(id, core)?;
            (node.life, core.wakeup())
        };
        if let Some(wakeup) = wakeup {
            let at = self.now + wakeup.0.saturating_sub(now.0).max(MS / 10);
            if at < self.nodes[&id].wake_at {
                self.node(id).wake_at = at;
                self.at(at, Event::Wake { node: id, life });
            }
        }
        let dies = !self.calm && self.setup.faults.crashes && self.rng.random_ratio(1, CRASH_WITHIN);
        let carried_out = if dies { self.rng.random_range(0..=effects.len()) } else { effects.len() };
        for effect in effects.into_iter().take(carried_out) {
            self.effect(id, effect)?;
        }
        if dies {
            self.crash_for_a_while(id);
        }
        Ok(())
    }

    fn effect(&mut self, id: NodeId, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Persist { token, records } | Effect::Truncate { token, records } => {
                // A disk that syncs lazily, if its node does not wait for it: see the bug `accept-not-synced`.
                let slowest = if self.setup.hooks.syncs_acceptances() { 4 * MS } else { 300 * MS };
                let at = self.now + self.rng.random_range(MS / 10..slowest);
                let node = self.node(id);
                node.disk.write(token, records);
                node.last_sync = node.last_sync.max(at);
                let (at, life) = (node.last_sync, node.life);
                self.at(at, Event::Synced { node: id, life, token });
            }
            Effect::Snapshot(snapshot) => {
                let at = self.now + self.rng.random_range(MS..100 * MS);
                let node = self.node(id);
                node.disk.save(snapshot);
                let life = node.life;
                self.at(at, Event::Saved { node: id, life });
            }
            Effect::Send { after: Some(token), to, message } => {
                self.node(id).held.entry(token).or_default().push(Effect::Send { to, message, after: None });
            }
            Effect::Send { after: None, to, message } => self.send(id, to, message),
            Effect::Reply { call, reply } => self.reply(call, *reply)?,
            Effect::Note(Note::Elected { .. }) => self.report.elections += 1,
            Effect::Note(Note::VotesAgain { .. }) => self.report.rejoined += 1,
            Effect::Note(_) | Effect::Incarnation(_) => {}
        }
        Ok(())
    }

    fn synced(&mut self, id: NodeId, token: Token) -> Result<(), String> {
        let hooks = self.setup.hooks;
        let node = self.node(id);
        node.disk.synced(token, hooks);
        let later = node.held.split_off(&(token + 1));
        let ready = std::mem::replace(&mut node.held, later);
        for effect in ready.into_values().flatten() {
            self.effect(id, effect)?;
        }
        self.step(id, Input::Persisted(token))
    }

    fn saved(&mut self, id: NodeId) -> Result<(), String> {
        let node = self.node(id);
        let applied = node.core.as_ref().map_or(0, |core| core.learner().applied());
        let Some(slot) = node.disk.saved() else { return Ok(()) };
        self.report.snapshots += 1;
        self.report.installed += u64::from(slot > applied);
        self.step(id, Input::SnapshotSaved(slot))
    }

    // --- clients ------------------------------------------------------------------------------------------------------

    fn work(&mut self, index: usize) -> Result<(), String> {
        if self.workers[index].pending.is_some() {
            return Ok(());
        }
        let now = self.now;
        let (doing, command) = if !self.calm {
            let oracle = &mut self.oracle;
            self.workers[index].next(&mut self.rng, |key| oracle.invoke_append(key, now))
        } else if let Some(key) = self.final_keys.last() {
            final_read(*key)
        } else {
            return Ok(());
        };
        let node = self.workers[index].node(self.setup.nodes, &mut self.rng);
        self.call(index, Pending { doing, invoked: now, command, node, call: 0, retries: 0, unknown: false })
    }

    fn call(&mut self, index: usize, mut pending: Pending) -> Result<(), String> {
        let call = self.next_call;
        self.next_call += 1;
        pending.call = call;
        let (node, command) = (pending.node, pending.command.clone());
        self.workers[index].pending = Some(pending);
        self.calls.insert(call, index);
        if self.nodes[&node].core.is_none() {
            // Connection refused: nothing has happened, unless an earlier try of the same operation did.
            self.calls.remove(&call);
            return self.failed(index, &Failure::NotLeader);
        }
        if self.nodes[&node].paused_until > self.now {
            // The call waits in the socket of the paused node.
            self.calls.remove(&call);
            self.unanswered(index);
            return Ok(());
        }
        self.step(node, Input::Client { call, command, deadline: None, no_forward: false })
    }

    fn reply(&mut self, call: Call, reply: Reply) -> Result<(), String> {
        let Some(index) = self.calls.remove(&call) else { return Ok(()) };
        let Some(pending) = self.workers[index].pending.clone().filter(|pending| pending.call == call) else {
            return Ok(());
        };
        match &reply.result {
            Ok(output) => {
                self.report.ok += 1;
                self.report.lease_reads += u64::from(reply.served.path == Path::LeaseRead);
                self.report.retries += u64::from(reply.served.path == Path::Retry);
                self.report.forwarded += u64::from(reply.served.forwarded);
                match pending.doing {
                    Doing::Append { token } => self.oracle.acked(token, self.now),
                    Doing::Read { key } => {
                        self.oracle.read(key, pending.invoked, self.now, &tokens(output))?;
                        if self.calm {
                            self.final_keys.retain(|left| *left != key);
                        }
                    }
                }
                self.workers[index].pending = None;
                self.later(index);
                Ok(())
            }
            Err(failure) => self.failed(index, &failure.clone()),
        }
    }

    fn failed(&mut self, index: usize, failure: &Failure) -> Result<(), String> {
        let Some(pending) = self.workers[index].pending.clone() else { return Ok(()) };
        if !failure.is_definite() {
            self.unanswered(index);
        } else if pending.unknown {
            self.retire(index);
        } else {
            self.report.refused += 1;
            if let Doing::Append { token } = pending.doing {
                self.oracle.refused(token);
            }
            self.workers[index].pending = None;
            self.later(index);
        }
        Ok(())
    }

    /// Nobody knows. Ask again elsewhere with the same sequence number, or leave it open for ever.
    fn unanswered(&mut self, index: usize) {
        let Some(mut pending) = self.workers[index].pending.take() else { return };
        if self.rng.random_bool(0.7) && Worker::may_retry(&pending) {
            pending.retries += 1;
            pending.unknown = true;
            pending.node = self.rng.random_range(1..=self.setup.nodes);
            if self.call(index, pending).is_ok() {
                return;
            }
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
        let at = self.now + self.rng.random_range(MS..pause * MS);
        self.at(at, Event::Work { worker: index });
    }

    // --- the end ------------------------------------------------------------------------------------------------------

    /// After the load: every key was read, and all nodes have applied the same.
    fn is_settled(&self) -> bool {
        let mut states = self.nodes.values().map(|node| {
            let core = node.core.as_ref()?;
            // Nobody has to write for ever: under Basic Paxos a lost vote may have to wait for that.
            let votes = core.votes() || self.setup.protocol == Protocol::BasicPaxos;
            votes.then(|| (core.learner().applied(), core.learner().hash()))
        });
        let first = states.next().flatten();
        let together = first.is_some() && states.all(|state| state == first);
        self.calm && self.final_keys.is_empty() && (together || !self.setup.look_inside)
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
