//! Carries out a schedule against a cluster, observes what it did, and heals.
//!
//! ```text
//! step:  sleep until `at` ─ resolve target ─ inject ─ observe ─ sleep until `until` ─ heal ─ observe ─▶ Receipt
//! ```
//! Each step is a task of its own. Process faults hold their node: a second one that wants the same node picks none
//! and says so. Link faults add up. Time comes from a [`Timeline`]; this module owns no clock.

use crate::{
    cluster::{Cluster, ClusterError, Cut, Link, LinkShape, LinkStats, NodeName, NodeState},
    fault::FaultKind,
    grudge::{bridge, grudge, majority_connected},
    receipt::{Effect, Receipt},
    schedule::{Schedule, Step, sides},
    target::Target,
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
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
    held: Arc<Mutex<BTreeMap<NodeName, usize>>>,
    links: Arc<tokio::sync::Mutex<BTreeMap<usize, BTreeMap<Link, LinkShape>>>>,
}

const MS: u64 = 1_000_000;
/// Links are observed from a moment after they were cut, so that a write under way at the cut is not taken for a leak.
const SETTLE: u64 = 20 * MS;
/// How long healing may take to show.
const HEAL_LIMIT: u64 = 10_000 * MS;
/// A pause shorter than this is not probed by a request, which would outlast it.
const PROBE_FROM: u64 = 600 * MS;

impl Nemesis {
    /// A nemesis for a cluster whose links all have the shape `base` while nothing is done to them.
    pub fn new(cluster: Arc<dyn Cluster>, timeline: Arc<dyn Timeline>, base: LinkShape, sink: Sink) -> Self {
        Nemesis { cluster, timeline, sink, base, held: Arc::default(), links: Arc::default() }
    }

    /// Gives every link its base shape.
    pub async fn prepare(&self) -> Result<(), ClusterError> {
        if self.base == LinkShape::default() {
            return Ok(());
        }
        for link in all_links(self.cluster.nodes()) {
            self.cluster.shape(&link, self.base).await?;
        }
        Ok(())
    }

    /// Carries out the schedule, whose times count from `origin` (nanoseconds of the timeline). When `stop` becomes
    /// true, faults in force are healed at once and the others never start. Receipts come in the order of steps; a step
    /// that never started has none.
    pub async fn run(&self, schedule: &Schedule, origin: u64, stop: watch::Receiver<bool>) -> Vec<Receipt> {
        let mut tasks = JoinSet::new();
        for step in schedule.steps.clone() {
            let (me, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move { me.step(step, origin, stop).await });
        }
        let mut receipts: Vec<Receipt> = tasks.join_all().await.into_iter().flatten().collect();
        receipts.sort_by_key(|r| r.step);
        receipts
    }

    /// Undoes whatever may still be in force: opens all links, resumes the paused, starts the dead. Returns what went
    /// wrong.
    pub async fn heal_everything(&self) -> Vec<ClusterError> {
        let mut errors = Vec::new();
        let links_touched = self.cluster.supports(crate::Capability::Links).is_ok();
        if links_touched {
            self.links.lock().await.clear();
            for link in all_links(self.cluster.nodes()) {
                errors.extend(self.cluster.shape(&link, self.base).await.err());
            }
        }
        for node in self.cluster.nodes() {
            match self.cluster.state(node).await {
                NodeState::Running => {}
                NodeState::Paused => errors.extend(self.cluster.resume(node).await.err()),
                NodeState::Dead(_) => errors.extend(self.cluster.start(node).await.err()),
            }
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
        run.at_cut = self.stats(&run.links).await;
        let injected = self.inject(&step, &run).await;
        run.receipt.start_ns = self.timeline.now();
        if let Err(e) = &injected {
            run.receipt.error = Some(e.to_string());
        }
        self.tell(&run, "started", injected.err().map(|e| e.to_string()));
        run.receipt.majority = self.majority().await;
        let until = origin + step.until.ns();
        self.observe_early(&mut run, until).await;
        self.wait(until, &mut stop).await;
        self.observe_late(&step, &mut run).await;
        // Another fault may have taken the majority away meanwhile.
        run.receipt.majority &= self.majority().await;
        self.tell(&run, "stop", Some(run.receipt.effect.what.clone()));
        run.receipt.end_ns = self.timeline.now();
        let healed = self.heal(&step, &run).await;
        self.release(step.id);
        run.receipt.healed = match healed {
            Err(e) => {
                run.receipt.error = Some(e.to_string());
                Effect::missing(e.to_string())
            }
            Ok(()) => self.observe_healed(&run, &mut stop).await,
        };
        self.tell(&run, "stopped", Some(run.receipt.healed.what.clone()));
        Some(run.receipt)
    }

    /// Resolves the target and takes hold of its nodes.
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
        match step.fault.fault {
            FaultKind::Partition => {
                let shape = step.fault.shape.ok_or("a partition without a shape")?;
                let cut = grudge(shape, nodes, leader.as_ref(), &mut rng);
                run.receipt.on = sides(nodes, &cut);
                run.links = cut;
            }
            FaultKind::Slow => {
                run.targets = step.fault.target.resolve(nodes, leader.as_ref(), &mut rng);
                run.links = all_links(nodes)
                    .into_iter()
                    .filter(|l| run.targets.contains(&l.from) || run.targets.contains(&l.to))
                    .collect();
                run.receipt.on = run.targets.join(" ");
            }
            FaultKind::Kill | FaultKind::Pause => {
                let wanted = step.fault.target.resolve(nodes, leader.as_ref(), &mut rng);
                let mut held = self.lock_held();
                run.targets = wanted.iter().filter(|x| !held.contains_key(*x)).cloned().collect();
                if run.targets.is_empty() {
                    return Err(format!("skipped: {} already down by another fault", wanted.join(" ")));
                }
                held.extend(run.targets.iter().map(|x| (x.clone(), step.id)));
                run.receipt.on = run.targets.join(" ");
            }
        }
        run.receipt.targets = run.targets.iter().map(|x| x.to_string()).collect();
        run.receipt.links = run.links.iter().map(Link::to_string).collect();
        Ok(run)
    }

    async fn inject(&self, step: &Step, run: &Running) -> Result<(), ClusterError> {
        match step.fault.fault {
            FaultKind::Kill => {
                let jobs = run.targets.iter().map(|x| self.cluster.kill(x));
                all_of(jobs.collect()).await
            }
            FaultKind::Pause => {
                let jobs = run.targets.iter().map(|x| self.cluster.pause(x));
                all_of(jobs.collect()).await
            }
            FaultKind::Partition => {
                let cut = if step.fault.reset { Cut::Reset } else { Cut::Hold };
                self.shape(step.id, run, LinkShape { cut, ..LinkShape::default() }).await
            }
            FaultKind::Slow => self.shape(step.id, run, step.fault.link.unwrap_or_default()).await,
        }
    }

    async fn heal(&self, step: &Step, run: &Running) -> Result<(), ClusterError> {
        match step.fault.fault {
            FaultKind::Kill => all_of(run.targets.iter().map(|x| self.cluster.start(x)).collect()).await,
            FaultKind::Pause => all_of(run.targets.iter().map(|x| self.cluster.resume(x)).collect()).await,
            FaultKind::Partition | FaultKind::Slow => {
                let mut active = self.links.lock().await;
                active.remove(&step.id);
                self.apply(&active, &run.links).await
            }
        }
    }

    async fn shape(&self, id: usize, run: &Running, shape: LinkShape) -> Result<(), ClusterError> {
        let mut active = self.links.lock().await;
        active.insert(id, run.links.iter().map(|l| (l.clone(), shape)).collect());
        self.apply(&active, &run.links).await
    }

    async fn apply(
        &self,
        active: &BTreeMap<usize, BTreeMap<Link, LinkShape>>,
        links: &BTreeSet<Link>,
    ) -> Result<(), ClusterError> {
        for link in links {
            let shape = active.values().filter_map(|m| m.get(link)).fold(self.base, |a, b| a.and(*b));
            self.cluster.shape(link, shape).await?;
        }
        Ok(())
    }

    /// What can be seen as soon as the fault is in force.
    async fn observe_early(&self, run: &mut Running, until: u64) {
        match run.receipt.kind {
            FaultKind::Kill | FaultKind::Pause => {
                let mut seen = Vec::new();
                let mut missing = Vec::new();
                for node in &run.targets {
                    let state = self.cluster.state(node).await;
                    match (run.receipt.kind, &state) {
                        (FaultKind::Kill, NodeState::Dead(how)) => seen.push(format!("{node} {how}")),
                        (FaultKind::Pause, NodeState::Paused) => {
                            let probe = until.saturating_sub(self.timeline.now()) >= PROBE_FROM;
                            if probe && self.cluster.answers(node).await {
                                missing.push(format!("{node} is stopped, yet it answers"));
                            } else {
                                let silent = if probe { " and does not answer" } else { "" };
                                seen.push(format!("{node} is stopped{silent}"));
                            }
                        }
                        _ => missing.push(format!("{node} is {state:?}")),
                    }
                }
                run.receipt.effect = if missing.is_empty() && !seen.is_empty() {
                    Effect::seen(seen.join(", "))
                } else {
                    Effect::missing(missing.join(", "))
                };
            }
            FaultKind::Partition | FaultKind::Slow => {
                let at = self.timeline.now() + SETTLE;
                self.timeline.sleep_until(at.min(until)).await;
                run.before = self.stats(&run.links).await;
            }
        }
    }

    /// What can be seen only after the fault has been in force for a while.
    async fn observe_late(&self, step: &Step, run: &mut Running) {
        if !matches!(run.receipt.kind, FaultKind::Partition | FaultKind::Slow) {
            return;
        }
        let after = self.stats(&run.links).await;
        let delta = |link: &Link| {
            let (a, b) = (
                after.get(link).copied().unwrap_or_default(),
                run.before.get(link).copied().unwrap_or_default(),
            );
            (a, b)
        };
        run.receipt.effect = if run.receipt.kind == FaultKind::Partition {
            let mut held = (0, 0);
            let mut leaks = Vec::new();
            for link in &run.links {
                let (a, b) = delta(link);
                // What came since the cut, the settling time included; what was let through counts only after it.
                let cut = run.at_cut.get(link).copied().unwrap_or_default();
                let bytes = (a.held_bytes - cut.held_bytes) + (a.resets - cut.resets);
                if a.delivered_bytes > b.delivered_bytes {
                    leaks.push(format!("{link} let {} bytes through", a.delivered_bytes - b.delivered_bytes));
                } else if bytes > 0 {
                    held = (held.0 + 1, held.1 + bytes);
                }
            }
            match (leaks.is_empty(), held) {
                (false, _) => Effect::missing(leaks.join(", ")),
                (true, (0, _)) => Effect::missing("nothing tried to pass the cut links"),
                (true, (n, bytes)) => {
                    Effect::seen(format!("{n} of {} links silent, {bytes} B held", run.links.len()))
                }
            }
        } else {
            self.slow_effect(step, run, &after)
        };
    }

    fn slow_effect(&self, step: &Step, run: &Running, after: &BTreeMap<Link, LinkStats>) -> Effect {
        let want = step.fault.link.unwrap_or_default();
        let sum = |f: fn(&LinkStats) -> u64| {
            let total = |m: &BTreeMap<Link, LinkStats>| m.values().map(f).sum::<u64>();
            total(after).saturating_sub(total(&run.before))
        };
        let (chunks, ns, resets) = (sum(|s| s.delayed_chunks), sum(|s| s.delayed_ns), sum(|s| s.resets));
        let mean = ns.checked_div(chunks).unwrap_or(0);
        let text = format!(
            "{chunks} chunks kept {:.1} ms on average, {resets} connections reset",
            mean as f64 / 1e6
        );
        let delayed = chunks > 0 && mean >= want.delay.ns();
        let wanted_delay = want.delay.ns() > 0 || want.jitter.ns() > 0 || want.bytes_per_second > 0;
        if (wanted_delay && delayed && mean > 0) || (want.reset_probability > 0.0 && resets > 0) {
            Effect::seen(text)
        } else {
            Effect::missing(text)
        }
    }

    async fn observe_healed(&self, run: &Running, stop: &mut watch::Receiver<bool>) -> Effect {
        let limit = self.timeline.now() + HEAL_LIMIT;
        let before = self.stats(&run.links).await;
        loop {
            match run.receipt.kind {
                FaultKind::Kill | FaultKind::Pause => {
                    let mut silent = Vec::new();
                    for node in &run.targets {
                        if !self.cluster.answers(node).await {
                            silent.push(node.to_string());
                        }
                    }
                    if silent.is_empty() {
                        return Effect::seen("answers again");
                    }
                    // Somebody else may have taken the node down meanwhile: then there is nothing to wait for.
                    if run.targets.iter().any(|x| self.lock_held().contains_key(x)) {
                        return Effect::missing("taken down again before it answered");
                    }
                    if self.timeline.now() > limit {
                        return Effect::missing(format!("{} does not answer", silent.join(" ")));
                    }
                }
                FaultKind::Partition | FaultKind::Slow => {
                    let now = self.stats(&run.links).await;
                    let open =
                        |l: &&Link| now[l].delivered_bytes > before.get(l).map_or(0, |s| s.delivered_bytes);
                    let count = run.links.iter().filter(open).count();
                    if count > 0 {
                        return Effect::seen(format!(
                            "bytes pass again ({count} of {} links at once)",
                            run.links.len()
                        ));
                    }
                    if self.timeline.now() > limit {
                        return Effect::missing("no bytes pass the links");
                    }
                }
            }
            if *stop.borrow() && self.timeline.now() + HEAL_LIMIT / 2 > limit {
                return Effect::missing("not observed: the run was ending");
            }
            self.timeline.sleep_until(self.timeline.now() + 25 * MS).await;
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
        let down: BTreeSet<NodeName> = self.lock_held().keys().cloned().collect();
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
        self.lock_held().retain(|_, s| *s != step);
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeName, usize>> {
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
    receipt: Receipt,
}

impl Running {
    fn nothing(step: &Step) -> Self {
        Running {
            targets: vec![],
            links: BTreeSet::new(),
            at_cut: BTreeMap::new(),
            before: BTreeMap::new(),
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
            },
        }
    }
}

/// Every directed link between different nodes.
pub fn all_links(nodes: &[NodeName]) -> BTreeSet<Link> {
    nodes.iter().flat_map(|a| nodes.iter().filter(move |b| *b != a).map(move |b| Link::new(a, b))).collect()
}

type Job<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), ClusterError>> + Send + 'a>>;

/// Runs all jobs at the same time and returns the first error, after all have ended.
async fn all_of(jobs: Vec<Job<'_>>) -> Result<(), ClusterError> {
    let mut jobs = jobs;
    let mut result = Ok(());
    let mut left: Vec<bool> = vec![true; jobs.len()];
    std::future::poll_fn(|cx| {
        for (job, left) in jobs.iter_mut().zip(&mut left) {
            if *left && let std::task::Poll::Ready(r) = job.as_mut().poll(cx) {
                *left = false;
                if result.is_ok() {
                    result = r;
                }
            }
        }
        if left.iter().any(|l| *l) { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    result
}
