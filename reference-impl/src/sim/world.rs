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

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

use super::clock::Clock;
use super::link::{CLIENTS, Cut, Link, Passed};
use super::node::{Loss, Lost, Node};
use super::oracle::{Broken, Check, Invariant, Oracle};
use super::queue::Queue;
use crate::bugs::Hooks;
use crate::core::{
    Call, Command, Config, Core, Effect, Input, Message, Mono, NodeId, Note, Protocol, Reply, Status, Timing,
    Token,
};

/// Between two ticks that nobody asked for, in nanoseconds.
const IDLE_TICK: u64 = 10_000_000;
/// A copy of a message is so many times as late, at most.
const COPY_DELAYS: u64 = 20;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Decides everything that is random.
    pub seed: u64,
    /// How many nodes, numbered from 1.
    pub nodes: u32,
    /// How they decide.
    pub protocol: Protocol,
    /// Their durations.
    pub timing: Timing,
    /// Bugs planted in every node.
    pub hooks: Hooks,
    /// Largest error of the rate of a clock, in parts per million; each node draws its own.
    pub drift_ppm: u32,
    /// Shortest and longest time that a sync takes.
    pub sync: (Duration, Duration),
    /// Every link between nodes, at first.
    pub links: Link,
    /// Every link between clients and nodes, at first.
    pub client_links: Link,
    /// Whether the nodes' own invariants are checked.
    pub look_inside: bool,
    /// Whether nodes are ticked every 10 ms as well, which must change nothing: to test the moments that cores ask for.
    pub idle_ticks: bool,
}

impl Cluster {
    /// A correct cluster on a quiet network.
    pub fn new(seed: u64, nodes: u32, protocol: Protocol) -> Self {
        let us = Duration::from_micros;
        Cluster {
            seed,
            nodes,
            protocol,
            timing: Timing::default(),
            hooks: Hooks::default(),
            drift_ppm: 9_000,
            sync: (us(100), us(4_000)),
            links: Link::delayed(us(100), us(1_000)),
            client_links: Link::delayed(us(50), us(500)),
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

/// Something that is going to happen.
pub(super) enum Event {
    Deliver { from: NodeId, to: NodeId, message: Message },
    Tick { node: NodeId, life: u32 },
    IdleTick { node: NodeId, life: u32 },
    Synced { node: NodeId, life: u32, token: Token },
    Request { node: NodeId, life: u32, request: Box<Request> },
    Answer(Answer),
    Crash { node: NodeId, life: u32 },
    Timer(u64),
}

pub(super) struct Request {
    call: Call,
    command: Command,
    deadline: Option<Duration>,
    no_forward: bool,
}

struct Way {
    link: Link,
    /// Shortest delay, and how much longer it can be, in nanoseconds.
    delay: (u64, u64),
    passed: Passed,
    held: Vec<Event>,
}

impl Way {
    fn new(link: Link) -> Self {
        let (shortest, longest) = (nanos(link.delay.0), nanos(link.delay.1));
        let delay = (shortest, longest.saturating_sub(shortest));
        Way { link, delay, passed: Passed::default(), held: Vec::new() }
    }
}

/// A simulated cluster.
pub struct World {
    cluster: Cluster,
    rng: Xoshiro256PlusPlus,
    now: u64,
    queue: Queue<Event>,
    /// By number; nobody is at 0.
    nodes: Vec<Node>,
    /// By sender and receiver.
    ways: Vec<Way>,
    next_call: Call,
    oracle: Option<Oracle>,
    happened: VecDeque<Happened>,
    /// Memory for the effects of a step.
    effects: Vec<Effect>,
    events: u64,
    elections: u64,
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
        let oracle = cluster.look_inside.then(|| Oracle::new(cluster.protocol, cluster.nodes));
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

    /// Whether all nodes run and have applied the same.
    pub fn is_together(&self) -> bool {
        let mut states = (1..=self.cluster.nodes)
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

    fn way(&self, from: NodeId, to: NodeId) -> usize {
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

    /// Starts a node with what its disk remembers. False if it runs already, or its disk fails.
    pub fn start(&mut self, id: NodeId) -> bool {
        let node = &mut self.nodes[id as usize];
        if node.core.is_some() || node.failing {
            return false;
        }
        let mut config = Config::new(id, 1..=self.cluster.nodes, self.cluster.protocol);
        config.timing = self.cluster.timing.clone();
        config.seed = self.cluster.seed;
        config.hooks = self.cluster.hooks;
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
        let survivors = if most > 0 { self.draw(most) as usize } else { 0 };
        let lost = self.nodes[id as usize].crash(loss, survivors, self.cluster.hooks);
        self.happened.push_back(Happened::Crashed { node: id, lost });
    }

    /// Ends a node after so many more of its effects (messages, writes, answers) were carried out: in the middle of a step. At
    /// last after `within`.
    pub fn crash_after(&mut self, id: NodeId, loss: Loss, effects: u32, within: Duration) {
        let node = &mut self.nodes[id as usize];
        if node.core.is_none() {
            return;
        }
        node.fuse = Some((effects, loss));
        let life = node.life;
        self.queue.push(self.now + nanos(within), Event::Crash { node: id, life });
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

    // --- happening ------------------------------------------------------------------------------------------------------

    /// The next thing that a user has to know; `None` when nothing is left to happen, which is never while a node runs.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Happened> {
        loop {
            if let Some(happened) = self.happened.pop_front() {
                return Some(happened);
            }
            let (at, event) = self.queue.pop()?;
            self.now = at;
            self.events += 1;
            match event {
                Event::Timer(id) => return Some(Happened::Timer(id)),
                Event::Answer(answer) => return Some(Happened::Answer(answer)),
                event => self.handle(event),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let (target, life) = match &event {
            Event::Deliver { to, .. } => (*to, None),
            Event::Tick { node, life }
            | Event::IdleTick { node, life }
            | Event::Synced { node, life, .. }
            | Event::Request { node, life, .. }
            | Event::Crash { node, life } => (*node, Some(*life)),
            Event::Answer(_) | Event::Timer(_) => return,
        };
        let node = &mut self.nodes[target as usize];
        if node.core.is_none() || life.is_some_and(|life| life != node.life) {
            return;
        }
        if node.paused && !matches!(event, Event::Crash { .. }) {
            return node.waiting.push(event);
        }
        match event {
            Event::Deliver { from, to, message } => self.step(to, Input::Message { from, message }),
            Event::Tick { node, .. } => self.tick(node),
            Event::IdleTick { node, life } => {
                self.queue.push(self.now + IDLE_TICK, Event::IdleTick { node, life });
                self.idle_tick(node);
            }
            Event::Synced { node, token, .. } => self.synced(node, token),
            Event::Request { node, request, .. } => {
                let Request { call, command, deadline, no_forward } = *request;
                self.step(node, Input::Client { call, command, deadline, no_forward });
            }
            Event::Crash { node, .. } => {
                if let Some((_, loss)) = self.nodes[node as usize].fuse {
                    self.crash(node, loss);
                }
            }
            Event::Answer(_) | Event::Timer(_) => {}
        }
    }

    /// A tick was due; or it was, until something was heard meanwhile.
    fn tick(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        if node.wake_at > self.now {
            // Another tick was found to be due before this one, and has come.
            return;
        }
        let now = node.clock.read(self.now);
        (node.wake_at, node.wake_due) = (u64::MAX, Mono::NEVER);
        let due = node.core.as_ref().and_then(Core::wakeup);
        if due.is_some_and(|due| due <= now) {
            self.step(id, Input::Tick);
            let node = &self.nodes[id as usize];
            if let Some(due) = node.core.as_ref().and_then(Core::wakeup)
                && due <= now
            {
                let what = format!("node {id} was ticked at {} and wants a tick at {}", now.0, due.0);
                self.check(Err((Invariant::Wakeup, what)));
            }
        } else {
            self.wake(id);
        }
    }

    /// A tick that nobody asked for.
    fn idle_tick(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        let now = node.clock.read(self.now);
        let Some(core) = &mut node.core else { return };
        if core.wakeup().is_some_and(|due| due <= now) {
            // The tick that was asked for comes in this moment.
            return;
        }
        let effects = core.step(now, Input::Tick);
        if !effects.is_empty() {
            let what = format!("node {id} was ticked before it wanted to, and did {effects:?}");
            self.check(Err((Invariant::Wakeup, what)));
        }
    }

    /// Sees to it that the core is ticked when it wants to be.
    fn wake(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        let Some(due) = node.core.as_ref().and_then(Core::wakeup) else { return };
        if due < node.wake_due {
            node.wake_due = due;
            node.wake_at = node.clock.when(self.now, due);
            self.queue.push(node.wake_at, Event::Tick { node: id, life: node.life });
        }
    }

    fn step(&mut self, id: NodeId, input: Input) {
        let node = &mut self.nodes[id as usize];
        let Some(core) = node.core.as_mut() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        core.step_into(node.clock.read(self.now), input, &mut effects);
        if let Some(oracle) = &mut self.oracle {
            let checked = oracle.stepped(id, core);
            if checked.is_err() {
                self.check(checked);
            }
        }
        self.wake(id);
        for effect in effects.drain(..) {
            if !self.may_go_on(id) {
                break;
            }
            self.effect(id, effect);
        }
        self.effects = effects;
    }

    /// Whether a node lives to carry out its next effect.
    fn may_go_on(&mut self, id: NodeId) -> bool {
        let node = &mut self.nodes[id as usize];
        match &mut node.fuse {
            Some((0, loss)) => {
                let loss = *loss;
                self.crash(id, loss);
                false
            }
            Some((left, _)) => {
                *left -= 1;
                true
            }
            None => node.core.is_some(),
        }
    }

    fn effect(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Persist { token, records } => {
                if self.nodes[id as usize].failing {
                    // Nobody knows what is on the disk: the process ends itself.
                    return self.crash(id, Loss::Process);
                }
                let (shortest, longest) = self.nodes[id as usize].sync;
                let at = self.now + shortest + self.draw(longest.saturating_sub(shortest));
                let node = &mut self.nodes[id as usize];
                node.unsynced.push_back((token, records));
                node.last_sync = node.last_sync.max(at);
                self.queue.push(node.last_sync, Event::Synced { node: id, life: node.life, token });
            }
            Effect::Send { after: Some(token), to, message } => {
                self.nodes[id as usize].hold(token, to, message);
            }
            Effect::Send { after: None, to, message } => self.send(id, to, message),
            Effect::Reply { call, reply } => {
                self.pass(id, CLIENTS, Event::Answer(Answer { call, node: id, reply }));
            }
            Effect::Note(Note::Elected { .. }) => self.elections += 1,
            Effect::Note(Note::Conflict { slot }) => {
                let what = format!("node {id} learned two values for slot {slot}");
                self.check(Err((Invariant::OneValue, what)));
            }
            Effect::Note(_) => {}
        }
    }

    fn synced(&mut self, id: NodeId, token: Token) {
        let hooks = self.cluster.hooks;
        self.nodes[id as usize].synced(token, hooks);
        while self.may_go_on(id)
            && let Some((to, message)) = self.nodes[id as usize].release(token)
        {
            self.send(id, to, message);
        }
        self.step(id, Input::Persisted(token));
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if let Some(oracle) = &mut self.oracle {
            match &message {
                Message::Promise { ballot, scope, .. } => oracle.promised(from, scope.slot(), *ballot),
                Message::Accepted { ballot, slot } => oracle.promised(from, *slot, *ballot),
                _ => {}
            }
        }
        self.pass(from, to, Event::Deliver { from, to, message });
    }

    /// Sends something over a link.
    fn pass(&mut self, from: NodeId, to: NodeId, event: Event) {
        let at = self.way(from, to);
        let way = &mut self.ways[at];
        way.passed.sent += 1;
        match way.link.cut {
            Cut::Open => {}
            Cut::Hold => {
                way.passed.stopped += 1;
                return way.held.push(event);
            }
            Cut::Drop => {
                way.passed.stopped += 1;
                return;
            }
        }
        let link = way.link;
        if link.loss > 0.0 && self.chance(link.loss) {
            self.ways[at].passed.lost += 1;
            return;
        }
        if let Event::Deliver { message, .. } = &event
            && link.duplicate > 0.0
            && !matches!(message, Message::Forward { .. })
            && self.chance(link.duplicate)
        {
            let copy = Event::Deliver { from, to, message: message.clone() };
            let (delay, _) = self.delay(at);
            self.ways[at].passed.doubled += 1;
            self.queue.push(self.now + delay * COPY_DELAYS, copy);
        }
        let (delay, hurried) = self.delay(at);
        let passed = &mut self.ways[at].passed;
        passed.delay_ns += delay;
        passed.hurried += u64::from(hurried);
        self.queue.push(self.now + delay, event);
    }

    /// Draws a delay; and whether it is none because the message overtakes others.
    fn delay(&mut self, at: usize) -> (u64, bool) {
        let ((shortest, more), hurry) = (self.ways[at].delay, self.ways[at].link.hurry);
        if hurry > 0.0 && self.chance(hurry) {
            return (1, true);
        }
        (shortest + self.draw(more), false)
    }

    /// Draws between 0 and `most`, both possible. One multiplication: what is left of a bias is beyond what anybody can measure.
    fn draw(&mut self, most: u64) -> u64 {
        ((u128::from(self.rng.next_u64()) * (u128::from(most) + 1)) >> 64) as u64
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability.clamp(0.0, 1.0))
    }

    fn check(&mut self, checked: Check) {
        if let Err((invariant, what)) = checked
            && self.cluster.look_inside
        {
            // What follows from it would be no news.
            self.cluster.look_inside = false;
            self.oracle = None;
            self.happened.push_back(Happened::Broken(Broken { invariant, what, at: self.now }));
        }
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
