//! The world: what is going to happen, the nodes, and the links between them and to the clients.
//!
//! ```text
//! let mut world = World::new(Cluster::new(7, 3, Protocol::MultiPaxos));
//! world.timer(SECOND, 1);
//! while let Some(happened) = world.next() {
//!     match happened { Timer(1) => { world.call(2, command, None, false); } Answer(answer) => …, … }
//! }
//! ```
//!
//! Every event is handled at its virtual time; a paused node gets its events when it goes on. A node is ticked when its core
//! wants that, not before. Deliberately single-threaded: many seeds are many worlds.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::clock::Clock;
use super::happening::{Event, IDLE_TICK, Request};
use super::link::{CLIENTS, Cut, Link, Passed, Way, nanos};
use super::node::{Fuse, Loss, Lost, Node};
use super::oracle::{Broken, Invariant, Oracle};
use super::queue::Queue;
use crate::bugs::{Hooks, Shortcuts};
use crate::core::{
    Call, Command, Config, Core, Effect, Input, Mono, NodeId, Protocol, Reply, Status, Timing,
};

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Decides everything that is random.
    pub seed: u64,
    /// How many nodes, numbered from 1.
    pub nodes: u32,
    /// How many of them are the members of configuration 0; the others are started to be added.
    pub members: u32,
    /// How they decide.
    pub protocol: Protocol,
    /// Their durations.
    pub timing: Timing,
    /// Bugs planted in every node.
    pub hooks: Hooks,
    /// The same about changes of membership.
    pub shortcuts: Shortcuts,
    /// Largest error of the rate of a clock, in parts per million; each node draws its own.
    pub drift_ppm: u32,
    /// Shortest and longest time that a sync takes.
    pub sync: (Duration, Duration),
    /// Every link between nodes, at first.
    pub links: Link,
    /// Every link between clients and nodes, at first.
    pub client_links: Link,
    /// After how many applied entries a node takes a snapshot; 0 for never.
    pub snapshot_every: u64,
    /// How many slots stay in its log then.
    pub keep: u64,
    /// Bytes of one piece of a snapshot on its way to another node, roughly.
    pub piece_bytes: usize,
    /// Whether the nodes' own invariants are checked.
    pub look_inside: bool,
    /// Whether nodes are ticked every 10 ms as well, which must change nothing: to test the moments that cores ask for.
    pub idle_ticks: bool,
}

impl Cluster {
    /// A correct cluster on a quiet network.
    pub fn new(seed: u64, nodes: u32, protocol: Protocol) -> Self {
        let us = Duration::from_micros;
        let usual = Config::new(1, 1..=nodes, protocol);
        Cluster {
            seed,
            nodes,
            members: nodes,
            protocol,
            timing: usual.timing,
            hooks: Hooks::default(),
            shortcuts: Shortcuts::default(),
            drift_ppm: 9_000,
            sync: (us(100), us(4_000)),
            links: Link::delayed(us(100), us(1_000)),
            client_links: Link::delayed(us(50), us(500)),
            snapshot_every: usual.snapshot_every,
            keep: usual.keep,
            piece_bytes: usual.piece_bytes,
            look_inside: true,
            idle_ticks: false,
        }
    }
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which.
    pub call: Call,
    /// Who was asked.
    pub node: NodeId,
    /// What was said.
    pub reply: Box<Reply>,
}

/// What a user of a world is told.
#[derive(Clone, Debug)]
pub enum Happened {
    /// A call was answered.
    Answer(Answer),
    /// A node is gone, and with it the connections to it and the calls on their way.
    Crashed {
        /// Which.
        node: NodeId,
        /// What its disk has lost.
        lost: Lost,
    },
    /// A timer of the user's own.
    Timer(u64),
    /// The first invariant that did not hold. The world goes on, and looks no more.
    Broken(Broken),
}

/// A simulated cluster.
pub struct World {
    pub(super) cluster: Cluster,
    pub(super) rng: Xoshiro256PlusPlus,
    pub(super) now: u64,
    pub(super) queue: Queue<Event>,
    /// By number; nobody is at 0.
    pub(super) nodes: Vec<Node>,
    /// By sender and receiver.
    pub(super) ways: Vec<Way>,
    pub(super) next_call: Call,
    pub(super) oracle: Option<Oracle>,
    pub(super) happened: VecDeque<Happened>,
    /// Memory for the effects of a step.
    pub(super) effects: Vec<Effect>,
    pub(super) events: u64,
    pub(super) elections: u64,
    pub(super) stored: Stored,
}

/// What nodes did about their disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Snapshots that reached the disk.
    pub snapshots: u64,
    /// Those of them that came from another node and were put in place.
    pub installed: u64,
    /// Nodes that got a vote: back, after they had lost their disk, or their first, having been added.
    pub rejoined: u64,
    /// Number of the newest configuration.
    pub configurations: u64,
}

impl World {
    /// A world at time 0 in which no node runs yet.
    pub fn new(cluster: Cluster) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(cluster.seed);
        let by_day = !cluster.hooks.measures_monotonic_time();
        let ppm = i64::from(cluster.drift_ppm);
        // A disk that syncs lazily, if its node does not wait for it: see the bug `accept-not-synced`.
        let slowest =
            if cluster.hooks.syncs_acceptances() { cluster.sync.1 } else { Duration::from_millis(300) };
        let sync = (nanos(cluster.sync.0), nanos(slowest));
        let nodes = (0..=cluster.nodes)
            .map(|_| {
                let origin = rng.random_range(0..1_000_000_000_000u64);
                Node::new(Clock::new(origin, rng.random_range(-ppm..=ppm), by_day), sync)
            })
            .collect();
        let ends = cluster.nodes + 1;
        let of =
            |from, to| if from == CLIENTS || to == CLIENTS { cluster.client_links } else { cluster.links };
        let ways = (0..ends * ends).map(|i| Way::new(of(i / ends, i % ends))).collect();
        let oracle =
            cluster.look_inside.then(|| Oracle::new(cluster.protocol, cluster.nodes, cluster.members));
        World {
            rng,
            now: 0,
            queue: Queue::new(),
            nodes,
            ways,
            next_call: 1,
            oracle,
            happened: VecDeque::new(),
            effects: Vec::new(),
            events: 0,
            elections: 0,
            stored: Stored::default(),
            cluster,
        }
    }

    // --- looking --------------------------------------------------------------------------------------------------------

    /// Nanoseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What it was made of.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How much has happened: messages, ticks, syncs, calls, answers, timers.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How often somebody was elected.
    pub fn elections(&self) -> u64 {
        self.elections
    }

    /// How often nodes took or received snapshots, or got their vote back.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// The highest slot that a node was seen to apply; 0 if nobody looks inside.
    pub fn slots(&self) -> u64 {
        self.oracle.as_ref().map_or(0, Oracle::slots)
    }

    /// The core of a node that runs.
    pub fn core(&self, node: NodeId) -> Option<&Core> {
        self.nodes[node as usize].core.as_ref()
    }

    /// Whether a node runs, and is not paused.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.core(node).is_some() && !self.is_paused(node)
    }

    /// Whether a node is paused.
    pub fn is_paused(&self, node: NodeId) -> bool {
        self.nodes[node as usize].paused
    }

    /// What a node that runs believes.
    pub fn status(&self, node: NodeId) -> Option<Status> {
        self.core(node).map(Core::status)
    }

    /// Who leads under the highest ballot, as far as the nodes know that run.
    pub fn leader(&self) -> Option<NodeId> {
        let leading = (1..=self.cluster.nodes).filter_map(|node| self.status(node)?.leading);
        leading.max().map(|ballot| ballot.node)
    }

    /// The members of the newest configuration that any node which runs has applied.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let all = (1..=self.cluster.nodes).filter_map(|node| self.core(node));
        let newest = all.max_by_key(|core| core.configuration());
        newest.map_or_else(BTreeSet::new, |core| core.config().nodes.clone())
    }

    /// Whether all members run and have applied the same.
    pub fn is_together(&self) -> bool {
        let members = self.members();
        let mut states = members
            .into_iter()
            .map(|node| self.core(node).map(|core| (core.learner().applied(), core.learner().hash())));
        let first = states.next().flatten();
        first.is_some() && states.all(|state| state == first)
    }

    /// What a link does.
    pub fn link(&self, from: NodeId, to: NodeId) -> Link {
        self.ways[self.way(from, to)].link
    }

    /// What was seen to pass a link.
    pub fn passed(&self, from: NodeId, to: NodeId) -> Passed {
        self.ways[self.way(from, to)].passed
    }

    /// By how many nanoseconds a node's time of day is off.
    pub fn wall_offset(&self, node: NodeId) -> i64 {
        self.nodes[node as usize].clock.offset(self.now)
    }

    pub(super) fn way(&self, from: NodeId, to: NodeId) -> usize {
        (from * (self.cluster.nodes + 1) + to) as usize
    }

    // --- doing ----------------------------------------------------------------------------------------------------------

    /// Tells `id` back at this time, or now if it has passed.
    pub fn timer(&mut self, at: u64, id: u64) {
        self.queue.push(at.max(self.now), Event::Timer(id));
    }

    /// Calls a node; `deadline` is for how long it may try. `None` if the connection is refused: the node is down, and nothing
    /// was sent. A call that the network or a crash takes is never answered.
    pub fn call(
        &mut self,
        node: NodeId,
        command: Command,
        deadline: Option<Duration>,
        no_forward: bool,
    ) -> Option<Call> {
        let life = self.nodes[node as usize].life;
        self.core(node)?;
        let call = self.next_call;
        self.next_call += 1;
        let request = Box::new(Request { call, command, deadline, no_forward });
        self.pass(CLIENTS, node, Event::Request { node, life, request });
        Some(call)
    }

    /// Starts a node with what its disk remembers. False if it runs already, or its disk fails or is unreadable.
    pub fn start(&mut self, id: NodeId) -> bool {
        let node = &mut self.nodes[id as usize];
        if node.core.is_some() || node.failing || !node.reads_disk(self.cluster.hooks) {
            return false;
        }
        if let Some((reaches, begins)) = node.gap() {
            let what = format!(
                "node {id} cannot start: its log begins behind slot {begins}, its snapshot ends with {reaches}"
            );
            self.check(Err((Invariant::Recoverable, what)));
            return false;
        }
        let node = &mut self.nodes[id as usize];
        let mut config = Config::new(id, 1..=self.cluster.members, self.cluster.protocol);
        if id > self.cluster.members || node.rejoins {
            config = config.joining();
        }
        config.shortcuts = self.cluster.shortcuts;
        config.timing = self.cluster.timing.clone();
        config.seed = self.cluster.seed;
        config.hooks = self.cluster.hooks;
        (config.snapshot_every, config.keep) = (self.cluster.snapshot_every, self.cluster.keep);
        config.piece_bytes = self.cluster.piece_bytes;
        node.start(config, self.now);
        if let (Some(oracle), Some(core)) = (&mut self.oracle, &node.core) {
            let checked = oracle.restarted(id, core);
            self.check(checked);
        }
        self.wake(id);
        if self.cluster.idle_ticks {
            let life = self.nodes[id as usize].life;
            self.queue.push(self.now + IDLE_TICK, Event::IdleTick { node: id, life });
        }
        true
    }

    /// Ends a node at once. Does nothing if it does not run.
    pub fn crash(&mut self, id: NodeId, loss: Loss) {
        let node = &self.nodes[id as usize];
        if node.core.is_none() {
            return;
        }
        // Whoever does not wait for the disk has them in memory for long.
        let most = match loss {
            Loss::Process | Loss::Torn if self.cluster.hooks.syncs_acceptances() => {
                node.unsynced.len() as u64
            }
            _ => 0,
        };
        let saving = node.saving.is_some();
        let survivors = if most > 0 { self.draw(most) as usize } else { 0 };
        let saved = saving && self.draw(1) == 1;
        let lost = self.nodes[id as usize].crash(loss, survivors, saved, self.cluster.hooks);
        self.happened.push_back(Happened::Crashed { node: id, lost });
    }

    /// Ends a node after so many more of its effects (messages, writes, answers) were carried out: in the middle of a step. At
    /// last after `within`.
    pub fn crash_after(&mut self, id: NodeId, loss: Loss, effects: u32, within: Duration) {
        self.light(id, Fuse { effects, loss, in_write: false, writing: false }, within);
    }

    /// The same, with the effects counted from the next write on, and before that is synced.
    pub fn crash_in_write(&mut self, id: NodeId, loss: Loss, effects: u32, within: Duration) {
        self.light(id, Fuse { effects, loss, in_write: true, writing: false }, within);
    }

    fn light(&mut self, id: NodeId, fuse: Fuse, within: Duration) {
        let node = &mut self.nodes[id as usize];
        if node.core.is_none() {
            return;
        }
        node.fuse = Some(fuse);
        let life = node.life;
        self.queue.push(self.now + nanos(within), Event::Crash { node: id, life });
    }

    /// Ends a node, and its disk is lost. Its connections end as well: nothing that it has said is still on its way. A cluster can
    /// bear that only while fewer than a majority are without their memory.
    pub fn wipe(&mut self, id: NodeId) {
        self.crash(id, Loss::Power);
        // Flags say nothing about a later configuration.
        let rejoins = self.stored.configurations > 0;
        self.nodes[id as usize].wipe(rejoins);
        let gone =
            |event: &Event| matches!(event, Event::Deliver { from, to, .. } if *from == id || *to == id);
        self.queue.lose(gone);
        self.ways.iter_mut().for_each(|way| way.held.retain(|event| !gone(event)));
        self.nodes.iter_mut().for_each(|node| node.waiting.retain(|event| !gone(event)));
        if let Some(oracle) = &mut self.oracle {
            oracle.wiped(id);
        }
    }

    /// Makes something unreadable that a node which does not run had synced; it refuses to start until that is repaired. Returns how many
    /// records cannot be read any more.
    pub fn damage(&mut self, id: NodeId) -> u64 {
        if self.nodes[id as usize].core.is_some() {
            return 0;
        }
        let mut rng = self.rng.clone();
        let lost = self.nodes[id as usize].damage(|most| rng.random_range(0..=most));
        self.rng = rng;
        lost
    }

    /// Puts back what [`World::damage`] took, if the node has not run on the rest.
    pub fn repair(&mut self, id: NodeId) {
        self.nodes[id as usize].repair();
    }

    /// Asks a node to hand leadership over, if it leads.
    pub fn hand_over(&mut self, id: NodeId) {
        if !self.nodes[id as usize].paused {
            self.step(id, Input::HandOver);
        }
    }

    /// Stops a node in its tracks.
    pub fn pause(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        node.paused |= node.core.is_some();
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        node.paused = false;
        for event in std::mem::take(&mut node.waiting) {
            self.queue.push(self.now, event);
        }
    }

    /// Sets what a link does from now on. What it has kept is delivered when it opens, and lost when it drops.
    pub fn set_link(&mut self, from: NodeId, to: NodeId, link: Link) {
        let at = self.way(from, to);
        let (passed, held) = (self.ways[at].passed, std::mem::take(&mut self.ways[at].held));
        self.ways[at] = Way { passed, ..Way::new(link) };
        match link.cut {
            Cut::Hold => self.ways[at].held = held,
            Cut::Drop => {}
            Cut::Open => {
                for event in held {
                    let (delay, _) = self.delay(at);
                    self.queue.push(self.now + delay, event);
                }
            }
        }
    }

    /// Sets a node's time of day off by so many nanoseconds, and lets it gain so many millionths from now on. A node that goes by
    /// a monotonic clock does not notice.
    pub fn set_wall(&mut self, id: NodeId, offset: i64, ppm: i64) {
        let now = self.now;
        let node = &mut self.nodes[id as usize];
        node.clock.set(now, offset, ppm);
        if !self.cluster.hooks.measures_monotonic_time() {
            node.wake_due = Mono::NEVER;
            self.wake(id);
        }
    }

    /// Every sync of a node takes so much longer than usual from now on.
    pub fn set_sync_delay(&mut self, id: NodeId, more: Duration) {
        let (shortest, longest) = self.nodes[CLIENTS as usize].sync;
        self.nodes[id as usize].sync = (shortest + nanos(more), longest + nanos(more));
    }

    /// Writes of a node fail from now on, or no longer. A node whose write fails ends, and does not start.
    pub fn set_failing(&mut self, id: NodeId, failing: bool) {
        self.nodes[id as usize].failing = failing;
    }
}
