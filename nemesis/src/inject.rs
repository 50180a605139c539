//! Carries out a schedule against a cluster, observes what it did, and heals.
//!
//! ```text
//! step:  sleep until `at` ─ resolve target ─ inject ─ observe ─ sleep until `until` ─ heal ─ observe ─▶ Receipt
//! ```
//! Each step is a task of its own. What is done to a node holds it: a second such fault that wants the same node picks
//! none and says so. Clocks are held apart from nodes, and link faults add up. Time comes from a [`Timeline`]; this module
//! owns no clock. One submodule for each [`Family`] says how it is injected, observed and healed.

mod clock;
mod damage;
mod disk;
mod healing;
mod limits;
mod network;
mod process;
#[cfg(test)]
mod tests;

use crate::{
    cluster::{Cluster, ClusterError, Cut, Link, LinkShape, LinkStats, NodeName, NodeState, Probe},
    fault::{Family, FaultKind},
    grudge::{CLIENTS, bridge, majority_connected},
    receipt::{Effect, Receipt},
    schedule::{Schedule, Step},
    target::Target,
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};

/// The run's clock as the nemesis sees it.
#[async_trait]
pub trait Timeline: Send + Sync {
    /// Nanoseconds since the run began.
    fn now(&self) -> u64;
    /// Returns when [`Timeline::now`] has reached this.
    async fn sleep_until(&self, ns: u64);
}

/// What the nemesis tells the journal, before and after everything it does.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The step's number.
    pub step: usize,
    /// The kind of fault.
    pub kind: FaultKind,
    /// `start`, `started`, `stop` or `stopped`.
    pub phase: &'static str,
    /// The fault in words.
    pub fault: String,
    /// Nodes or sides.
    pub on: String,
    /// At `started`, `stop` and `stopped`: what was observed so far, or went wrong.
    pub observed: Option<String>,
}

/// Where notices go. Called from several tasks.
pub type Sink = Arc<dyn Fn(Notice) + Send + Sync>;

/// Drives the faults of one run.
#[derive(Clone)]
pub struct Nemesis {
    cluster: Arc<dyn Cluster>,
    timeline: Arc<dyn Timeline>,
    sink: Sink,
    base: LinkShape,
    /// Probes of links that nothing was done to yet.
    calm: Arc<Mutex<BTreeMap<Link, Probe>>>,
    held: Arc<Mutex<BTreeMap<(NodeName, Grip), Held>>>,
    links: Arc<tokio::sync::Mutex<BTreeMap<usize, BTreeMap<Link, LinkShape>>>>,
}

/// What of a node a fault takes hold of, so that no second one interferes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grip {
    /// The process and what it stands on.
    Node,
    /// The wall clock.
    Clock,
}

/// Who holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    step: usize,
    down: bool,
}

const MS: u64 = 1_000_000;

impl Nemesis {
    /// A nemesis for a cluster whose links all have the shape `base` while nothing is done to them.
    pub fn new(cluster: Arc<dyn Cluster>, timeline: Arc<dyn Timeline>, base: LinkShape, sink: Sink) -> Self {
        let (calm, held, links) = (Arc::default(), Arc::default(), Arc::default());
        Nemesis { cluster, timeline, sink, base, calm, held, links }
    }

    /// Gives every link its base shape. Returns by how much that slowed packets down on average, in nanoseconds, if a
    /// delay is part of it and the cluster has a way to find out.
    ///
    /// # Errors
    /// If the cluster cannot.
    pub async fn prepare(&self) -> Result<Option<u64>, ClusterError> {
        if self.base == LinkShape::default() {
            return Ok(None);
        }
        let links = all_links(self.cluster.nodes());
        let slowed = self.base.delay.ns() > 0;
        let before = if slowed { self.probe(&links).await } else { BTreeMap::new() };
        self.cluster.shape(&self.everywhere(self.base)).await?;
        let after = if slowed { self.probe(&links).await } else { BTreeMap::new() };
        let added =
            after.iter().filter_map(|(l, p)| Some((p.mean_ns - before.get(l)?.mean_ns).max(0) as u64));
        let added: Vec<u64> = added.collect();
        Ok(added.iter().sum::<u64>().checked_div(added.len() as u64))
    }

    fn everywhere(&self, shape: LinkShape) -> BTreeMap<Link, LinkShape> {
        all_links(self.cluster.nodes()).into_iter().map(|link| (link, shape)).collect()
    }

    /// What a link does while nothing is done to it.
    fn base_of(&self, link: &Link) -> LinkShape {
        if of_clients(link) { LinkShape::default() } else { self.base }
    }

    /// Carries out the schedule, whose times count from `origin` (nanoseconds of the timeline). When `stop` becomes
    /// true, faults in force are healed at once and the others never start. Receipts come in the order of steps; a step
    /// that never started has none.
    pub async fn run(&self, schedule: &Schedule, origin: u64, stop: watch::Receiver<bool>) -> Vec<Receipt> {
        // What slowed links down must be seen to be gone: that needs something to compare with.
        if schedule.steps.iter().any(|step| step.fault.fault == FaultKind::Slow) {
            let links = all_links(self.cluster.nodes());
            let calm = self.probe_all(links.iter().collect()).await;
            *self.calm.lock().unwrap_or_else(|e| e.into_inner()) = calm;
        }
        if schedule.one_at_a_time {
            return self.one_after_the_other(schedule, origin, stop).await;
        }
        let mut tasks = JoinSet::new();
        for step in schedule.steps.clone() {
            let (me, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move { me.step(step, origin, stop).await });
        }
        let mut receipts: Vec<Receipt> = tasks.join_all().await.into_iter().flatten().collect();
        receipts.sort_by_key(|r| r.step);
        receipts
    }

    async fn one_after_the_other(
        &self,
        schedule: &Schedule,
        origin: u64,
        mut stop: watch::Receiver<bool>,
    ) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for mut step in schedule.steps.clone() {
            if !self.wait(origin + step.at.ns(), &mut stop).await {
                break;
            }
            step.delay(Duration::from_nanos(self.timeline.now().saturating_sub(origin + step.at.ns())));
            receipts.extend(self.step(step, origin, stop.clone()).await);
        }
        receipts
    }

    /// Undoes whatever may still be in force: opens all links, mends disks and clocks, resumes the paused, starts the
    /// dead. Returns what went wrong.
    pub async fn heal_everything(&self) -> Vec<ClusterError> {
        let mut errors = Vec::new();
        let can = |c| self.cluster.supports(c).is_ok();
        use crate::Capability::{Clients, Clock, Cpu, Cut, Disk, Memory, Processes};
        let touched = !std::mem::take(&mut *self.links.lock().await).is_empty();
        let mut open = BTreeMap::new();
        if touched || can(Cut) {
            open = self.everywhere(self.base);
        }
        if can(Clients) {
            open.extend(client_links(self.cluster.nodes()).into_iter().map(|l| (l, LinkShape::default())));
        }
        if !open.is_empty() {
            errors.extend(self.cluster.shape(&open).await.err());
        }
        let held: Vec<(NodeName, Grip)> = self.lock_held().keys().cloned().collect();
        for (node, grip) in held {
            match grip {
                Grip::Clock if can(Clock) => errors.extend(self.cluster.set_clock(&node, 0).await.err()),
                Grip::Node => {
                    if can(Disk) {
                        errors.extend(self.cluster.trouble_disk(&node, Default::default()).await.err());
                    }
                    if can(Cpu) || can(Memory) {
                        errors.extend(self.cluster.limit(&node, Default::default()).await.err());
                    }
                }
                Grip::Clock => {}
            }
        }
        for node in self.cluster.nodes() {
            match self.cluster.state(node).await {
                NodeState::Running => {}
                NodeState::Paused => errors.extend(self.cluster.resume(node).await.err()),
                NodeState::Dead(_) if can(Processes) => errors.extend(self.cluster.start(node).await.err()),
                NodeState::Dead(_) => {}
                // It may be alive: nothing is started that could be there twice.
                NodeState::Unknown(why) => {
                    errors.push(ClusterError { what: "look at", node: node.to_string(), why });
                }
            }
            self.cluster.excuse(node, false);
        }
        self.lock_held().clear();
        errors
    }

    async fn step(&self, step: Step, origin: u64, mut stop: watch::Receiver<bool>) -> Option<Receipt> {
        if !self.wait(origin + step.at.ns(), &mut stop).await {
            return None;
        }
        let mut run = match self.choose(&step).await {
            Ok(run) => run,
            Err(why) => {
                let mut skipped = Running::nothing(&step);
                skipped.receipt.effect = Effect::missing(why);
                skipped.receipt.start_ns = self.timeline.now();
                skipped.receipt.end_ns = skipped.receipt.start_ns;
                return Some(skipped.receipt);
            }
        };
        self.tell(&run, "start", None);
        let injected = self.inject(&step, &mut run).await;
        run.receipt.start_ns = self.timeline.now();
        if let Err(e) = &injected {
            run.receipt.error = Some(e.to_string());
        }
        self.tell(&run, "started", injected.err().map(|e| e.to_string()));
        run.receipt.majority = self.majority().await;
        let until = origin + step.until.ns();
        self.observe_early(&step, &mut run, until).await;
        self.while_in_force(&step, &mut run, until, &mut stop).await;
        self.observe_late(&step, &mut run).await;
        if let (Some(error), true) = (&run.receipt.error, run.receipt.effect.seen) {
            // A part of it was done at most.
            run.receipt.effect = Effect::missing(format!("{}, but {error}", run.receipt.effect.what));
        }
        // Another fault may have taken the majority away meanwhile.
        run.receipt.majority &= self.majority().await;
        self.tell(&run, "stop", Some(run.receipt.effect.what.clone()));
        run.receipt.end_ns = self.timeline.now();
        let healed = self.heal(&step, &mut run).await;
        run.receipt.healed = match healed {
            // What it holds it goes on holding, until everything is healed in the end.
            Err(e) => {
                run.receipt.unhealed = true;
                Effect::missing(e.to_string())
            }
            Ok(()) => {
                self.release(step.id);
                self.observe_healed(&step, &mut run, &mut stop).await
            }
        };
        self.tell(&run, "stopped", Some(run.receipt.healed.what.clone()));
        Some(run.receipt)
    }

    /// Resolves the target and takes hold of it.
    async fn choose(&self, step: &Step) -> Result<Running, String> {
        let nodes = self.cluster.nodes();
        let mut rng = step.rng();
        let mut run = Running::nothing(step);
        let leader = match (&step.fault.target, step.fault.shape) {
            (Target::Leader | Target::Follower, _) => self.cluster.leader().await,
            (Target::Bridge, _) => bridge(nodes, &self.cut_links().await),
            (_, Some(shape)) if shape.needs_leader() => self.cluster.leader().await,
            _ => None,
        };
        let wanted = step.fault.target.resolve(nodes, leader.as_ref(), &mut rng);
        match step.fault.fault.family() {
            Family::Network => network::choose(step, nodes, leader.as_ref(), wanted, &mut run)?,
            Family::Clock => self.take_hold(step, Grip::Clock, wanted, &mut run)?,
            Family::Process | Family::Disk | Family::Damage | Family::Limits => {
                self.take_hold(step, Grip::Node, wanted, &mut run)?;
            }
        }
        run.receipt.targets = run.targets.iter().map(|x| x.to_string()).collect();
        run.receipt.links = run.links.iter().map(Link::to_string).collect();
        Ok(run)
    }

    /// Holds those of the wanted nodes that nobody holds yet.
    fn take_hold(
        &self,
        step: &Step,
        grip: Grip,
        wanted: Vec<NodeName>,
        run: &mut Running,
    ) -> Result<(), String> {
        let mut held = self.lock_held();
        let free = wanted.iter().filter(|x| !held.contains_key(&((*x).clone(), grip)));
        run.targets = free.cloned().collect();
        if run.targets.is_empty() {
            let by = if grip == Grip::Clock { "the clock is held" } else { "already down or held" };
            return Err(format!("skipped: {} {by} by another fault", wanted.join(" ")));
        }
        let down = step.fault.fault.takes_down();
        held.extend(run.targets.iter().map(|x| ((x.clone(), grip), Held { step: step.id, down })));
        run.receipt.on = run.targets.join(" ");
        Ok(())
    }

    async fn inject(&self, step: &Step, run: &mut Running) -> Result<(), ClusterError> {
        match step.fault.fault.family() {
            Family::Process => self.inject_process(step, run).await,
            Family::Network => self.inject_network(step, run).await,
            Family::Clock => self.inject_clock(step, run).await,
            Family::Disk => self.inject_disk(step, run).await,
            Family::Damage => self.inject_damage(step, run).await,
            Family::Limits => self.inject_limits(step, run).await,
        }
    }

    /// What can be seen as soon as the fault is in force.
    async fn observe_early(&self, step: &Step, run: &mut Running, until: u64) {
        match step.fault.fault.family() {
            Family::Process => self.observe_process(run, until).await,
            Family::Network => self.observe_network_early(step, run, until).await,
            Family::Clock => {}
            Family::Disk => {}
            Family::Damage => self.observe_damage(run, until).await,
            Family::Limits => {}
        }
    }

    /// Returns when the interval is over or the run is stopped.
    async fn while_in_force(
        &self,
        step: &Step,
        run: &mut Running,
        until: u64,
        stop: &mut watch::Receiver<bool>,
    ) {
        match step.fault.fault {
            FaultKind::ClockStrobe | FaultKind::ClockDrift => self.move_clock(step, run, until, stop).await,
            _ => {
                self.wait(until, stop).await;
            }
        }
    }

    /// What can be seen only after the fault has been in force for a while.
    async fn observe_late(&self, step: &Step, run: &mut Running) {
        match step.fault.fault.family() {
            Family::Process | Family::Damage => {}
            Family::Network => self.observe_network_late(step, run).await,
            Family::Clock => self.observe_clock(step, run).await,
            Family::Disk => self.observe_disk(step, run).await,
            Family::Limits => self.observe_limits(run).await,
        }
    }

    async fn heal(&self, step: &Step, run: &mut Running) -> Result<(), ClusterError> {
        match step.fault.fault.family() {
            Family::Process => self.heal_process(run).await,
            Family::Network => self.heal_network(step, run).await,
            Family::Clock => self.heal_clock(run).await,
            Family::Disk => self.heal_disk(run).await,
            Family::Damage => self.heal_damage(run).await,
            Family::Limits => self.heal_limits(run).await,
        }
    }

    async fn stats(&self, links: &BTreeSet<Link>) -> BTreeMap<Link, LinkStats> {
        let mut all = BTreeMap::new();
        for link in links {
            all.insert(link.clone(), self.cluster.link_stats(link).await);
        }
        all
    }

    async fn majority(&self) -> bool {
        let down: BTreeSet<NodeName> =
            self.lock_held().iter().filter(|(_, h)| h.down).map(|((node, _), _)| node.clone()).collect();
        majority_connected(self.cluster.nodes(), &self.cut_links().await, &down)
    }

    /// The links that are cut at the moment.
    async fn cut_links(&self) -> BTreeSet<Link> {
        let active = self.links.lock().await;
        let cut = |m: &BTreeMap<Link, LinkShape>| -> Vec<Link> {
            m.iter().filter(|(_, s)| s.cut != Cut::Open).map(|(l, _)| l.clone()).collect()
        };
        active.values().flat_map(cut).collect()
    }

    fn tell(&self, run: &Running, phase: &'static str, observed: Option<String>) {
        let r = &run.receipt;
        let (step, kind, fault, on) = (r.step, r.kind, r.fault.clone(), r.on.clone());
        (self.sink)(Notice { step, kind, phase, fault, on, observed });
    }

    fn release(&self, step: usize) {
        self.lock_held().retain(|_, held| held.step != step);
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeName, Grip), Held>> {
        self.held.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Sleeps; false if the run was stopped first.
    async fn wait(&self, until: u64, stop: &mut watch::Receiver<bool>) -> bool {
        tokio::select! {
            _ = stop.wait_for(|s| *s) => false,
            () = self.timeline.sleep_until(until) => true,
        }
    }
}

/// A step in force.
struct Running {
    targets: Vec<NodeName>,
    links: BTreeSet<Link>,
    at_cut: BTreeMap<Link, LinkStats>,
    before: BTreeMap<Link, LinkStats>,
    probes: BTreeMap<Link, (Probe, Probe)>,
    disks: BTreeMap<NodeName, crate::DiskStats>,
    usage: BTreeMap<NodeName, crate::Usage>,
    lost: Vec<String>,
    unlost: Vec<String>,
    clock: clock::Seen,
    refused: BTreeSet<NodeName>,
    still_in_force: bool,
    counted_late: bool,
    receipt: Receipt,
}

impl Running {
    fn nothing(step: &Step) -> Self {
        Running {
            targets: vec![],
            links: BTreeSet::new(),
            at_cut: BTreeMap::new(),
            before: BTreeMap::new(),
            probes: BTreeMap::new(),
            disks: BTreeMap::new(),
            usage: BTreeMap::new(),
            lost: vec![],
            unlost: vec![],
            clock: clock::Seen::default(),
            refused: BTreeSet::new(),
            still_in_force: false,
            counted_late: false,
            receipt: Receipt {
                step: step.id,
                kind: step.fault.fault,
                fault: step.fault.describe(),
                targets: vec![],
                links: vec![],
                on: String::new(),
                start_ns: 0,
                end_ns: 0,
                effect: Effect::default(),
                healed: Effect::default(),
                majority: true,
                error: None,
                unhealed: false,
            },
        }
    }

    /// What the disks have counted when healing begins to be observed.
    async fn note_disks(&mut self, cluster: &dyn Cluster) {
        for (node, stats) in &mut self.disks {
            *stats = cluster.disk_stats(node).await;
        }
    }

    /// What was seen and what was missing, as an effect: everything must have been seen, and something.
    fn conclude(&mut self, seen: Vec<String>, missing: Vec<String>) {
        self.receipt.effect = if missing.is_empty() && !seen.is_empty() {
            Effect::seen(seen.join(", "))
        } else {
            Effect::missing(missing.join(", "))
        };
    }
}

/// Whether a link is one between the clients and a node.
fn of_clients(link: &Link) -> bool {
    &*link.from == CLIENTS || &*link.to == CLIENTS
}

/// Every link between the clients and a node, both ways.
fn client_links(nodes: &[NodeName]) -> BTreeSet<Link> {
    let clients = NodeName::from(CLIENTS);
    nodes.iter().flat_map(|node| [Link::new(&clients, node), Link::new(node, &clients)]).collect()
}

/// Every directed link between different nodes.
pub fn all_links(nodes: &[NodeName]) -> BTreeSet<Link> {
    nodes.iter().flat_map(|a| nodes.iter().filter(move |b| *b != a).map(move |b| Link::new(a, b))).collect()
}

/// Something that is under way.
pub type Job<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs all jobs at the same time and returns what they returned, in their order.
pub async fn all<T>(jobs: Vec<Job<'_, T>>) -> Vec<T> {
    let mut jobs: Vec<(Job<'_, T>, Option<T>)> = jobs.into_iter().map(|job| (job, None)).collect();
    std::future::poll_fn(|cx| {
        for (job, done) in &mut jobs {
            if done.is_none()
                && let std::task::Poll::Ready(result) = job.as_mut().poll(cx)
            {
                *done = Some(result);
            }
        }
        if jobs.iter().any(|(_, done)| done.is_none()) {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    jobs.into_iter().filter_map(|(_, done)| done).collect()
}

/// Runs all jobs at the same time and returns the first error, after all have ended.
async fn all_of(jobs: Vec<Job<'_, Result<(), ClusterError>>>) -> Result<(), ClusterError> {
    all(jobs).await.into_iter().collect()
}
