//! Carries out a schedule against the simulated cluster: the nemesis of a world whose time stands still meanwhile.
//!
//! ```text
//! begin(step): resolve target ─ take hold ─ inject        end(step): observe ─ heal ─▶ Receipt
//! ```
//!
//! Targets, holds and the sums of link faults are those of `nemesis::inject`, which works in real time. What is left to chance in the
//! moment of a fault (between which two effects a node is killed) follows from the seed and the fault's own time, so that it
//! stays the same when other faults are taken out of the plan. Deliberately knows no operations.

use super::cluster::{End, Simulated, Traffic};
use nemesis::{
    Cut, Effect, Family, Fault, FaultKind, Link, LinkShape, NodeName, Plan, Receipt, Step, Target,
    grudge::{bridge, majority_connected},
    inject::all_links,
    schedule::sides,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A node that is to be killed in the middle of a step is killed at last after this.
const WITHIN: Duration = Duration::from_millis(3);
/// The power is to fail when something is being written: it is waited so long for that.
const WITHIN_WRITE: Duration = Duration::from_millis(100);
/// In the middle: after so many effects at most.
const EFFECTS: u32 = 12;

/// Why a plan cannot be carried out by a simulator, if so: the fault by its name, and the reason.
pub fn refusal(plan: &Plan) -> Option<String> {
    let of_link = |link: &LinkShape| {
        let asks = [
            (
                "reset-probability",
                link.reset_probability > 0.0,
                "it has messages, and no connections: use loss",
            ),
            (
                "bytes-per-second",
                link.bytes_per_second > 0,
                "its messages have no size: use delay and jitter",
            ),
            (
                "corrupt",
                link.corrupt > 0.0,
                "its messages have no bits: what arrives broken is lost, so use loss",
            ),
        ];
        asks.into_iter().find(|(_, asked, _)| *asked).map(|(field, _, why)| (field, why))
    };
    let why = |fault: &Fault| match fault.fault {
        FaultKind::DiskFull => Some("its disks have no size: use disk-error"),
        FaultKind::CpuLimit => Some("its nodes take no time to work: use pause, or slow links"),
        FaultKind::MemoryLimit => Some("its nodes take no memory of their own"),
        _ => fault.link.as_ref().and_then(of_link).map(|(_, why)| why),
    };
    let fault = plan.faults().find_map(|fault| Some((fault, why(fault)?)));
    if let Some((fault, why)) = fault {
        return Some(format!(
            "a simulated cluster cannot do `{}`, which the plan asks for: {why}",
            fault.describe()
        ));
    }
    let (field, why) = of_link(&plan.links)?;
    Some(format!("a simulated cluster cannot shape `links` with `{field}`, which the plan asks for: {why}"))
}

/// What of a node a fault takes hold of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grip {
    Node,
    Clock,
}

struct Running {
    receipt: Receipt,
    targets: Vec<NodeName>,
    links: BTreeSet<Link>,
    before: Traffic,
    /// Nodes that ended meanwhile, with the records that they lost.
    ended: BTreeMap<NodeName, u64>,
    strobe: bool,
    /// Records that became unreadable, and whether their node refused to start without them.
    unreadable: u64,
    refused: bool,
}

/// The faults of one run.
pub(super) struct Faults {
    seed: u64,
    base: LinkShape,
    steps: Vec<Step>,
    running: BTreeMap<usize, Running>,
    held: BTreeMap<(NodeName, Grip), (usize, bool)>,
    shapes: BTreeMap<usize, (BTreeSet<Link>, LinkShape)>,
    pub(super) receipts: Vec<Receipt>,
}

impl Faults {
    pub(super) fn new(seed: u64, base: LinkShape, steps: Vec<Step>) -> Self {
        let (running, held, shapes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Faults { seed, base, steps, running, held, shapes, receipts: Vec::new() }
    }

    /// Gives the links between nodes their base shape.
    pub(super) fn prepare(&self, cluster: &mut Simulated) {
        for link in all_links(cluster.nodes()) {
            cluster.shape(&link, &self.base);
        }
    }

    /// Begins a step at `now`. Returns the receipt so far, to be told, if it has begun; a step that was skipped has a receipt.
    pub(super) fn begin(&mut self, id: usize, cluster: &mut Simulated) -> Option<Receipt> {
        let (step, now) = (self.steps[id].clone(), cluster.now());
        let mut run = Running {
            receipt: Receipt {
                step: id,
                kind: step.fault.fault,
                fault: step.fault.describe(),
                targets: vec![],
                links: vec![],
                on: String::new(),
                start_ns: now,
                end_ns: now,
                effect: Effect::default(),
                healed: Effect::default(),
                majority: true,
                error: None,
                unhealed: false,
            },
            targets: vec![],
            links: BTreeSet::new(),
            before: Traffic::default(),
            ended: BTreeMap::new(),
            strobe: false,
            unreadable: 0,
            refused: false,
        };
        if let Err(why) = self.choose(&step, cluster, &mut run) {
            run.receipt.effect = Effect::missing(why);
            self.receipts.push(run.receipt);
            return None;
        }
        run.receipt.targets = run.targets.iter().map(|node| node.to_string()).collect();
        run.receipt.links = run.links.iter().map(Link::to_string).collect();
        run.before = traffic(cluster, &run.links);
        self.inject(&step, cluster, &mut run);
        run.receipt.majority = self.majority(cluster);
        let told = run.receipt.clone();
        self.running.insert(id, run);
        Some(told)
    }

    fn choose(&mut self, step: &Step, cluster: &Simulated, run: &mut Running) -> Result<(), String> {
        let nodes = cluster.nodes();
        let special = match (&step.fault.target, step.fault.shape) {
            (Target::Leader | Target::Follower, _) => cluster.leader(),
            (Target::Bridge, _) => bridge(nodes, &self.cut()),
            (_, Some(shape)) if shape.needs_leader() => cluster.leader(),
            _ => None,
        };
        let family = step.fault.fault.family();
        if step.fault.fault == FaultKind::Partition {
            run.links = step.cut(nodes, special.as_ref());
            run.receipt.on = sides(nodes, &run.links);
            return Ok(());
        }
        let mut rng = step.rng();
        let wanted = step.fault.target.resolve(nodes, special.as_ref(), &mut rng);
        if family == Family::Network {
            let peers =
                step.fault.peers.as_ref().map(|p| p.resolve(nodes, special.as_ref(), &mut step.rng()));
            let other = |node: &NodeName| peers.as_ref().is_none_or(|peers| peers.contains(node));
            run.links = all_links(nodes)
                .into_iter()
                .filter(|l| {
                    (wanted.contains(&l.from) && other(&l.to)) || (wanted.contains(&l.to) && other(&l.from))
                })
                .collect();
            run.receipt.on = wanted.join(" ");
            run.targets = wanted;
            return if run.links.is_empty() {
                Err("skipped: there is no such link".to_owned())
            } else {
                Ok(())
            };
        }
        let grip = if family == Family::Clock { Grip::Clock } else { Grip::Node };
        run.targets =
            wanted.iter().filter(|x| !self.held.contains_key(&((*x).clone(), grip))).cloned().collect();
        if run.targets.is_empty() {
            let by = if grip == Grip::Clock { "the clock is held" } else { "already down or held" };
            return Err(format!("skipped: {} {by} by another fault", wanted.join(" ")));
        }
        let down = step.fault.fault.takes_down();
        self.held.extend(run.targets.iter().map(|x| ((x.clone(), grip), (step.id, down))));
        run.receipt.on = run.targets.join(" ");
        Ok(())
    }

    fn inject(&mut self, step: &Step, cluster: &mut Simulated, run: &mut Running) {
        let fault = &step.fault;
        // Its own: neither the schedule nor other faults move it.
        let own = self.seed ^ step.at.ns().rotate_left(20) ^ step.until.ns().rotate_left(41);
        let mut rng = ChaCha8Rng::seed_from_u64(own ^ fault.fault as u64);
        let how = way_to_end(fault.fault);
        match fault.fault {
            FaultKind::Stop | FaultKind::Restart => run.targets.iter().for_each(|node| cluster.stop(node)),
            FaultKind::Wipe => {
                for node in run.targets.iter().take(1) {
                    cluster.wipe(node);
                    cluster.start(node);
                }
            }
            // Records have no bits, and one that is cut off is as unreadable as one that has changed.
            FaultKind::BitFlip | FaultKind::Truncate => {
                for node in run.targets.iter().take(1) {
                    run.unreadable = cluster.damage(node);
                    run.refused = !cluster.start(node);
                }
            }
            FaultKind::Kill | FaultKind::PowerFailure | FaultKind::TornWrite => {
                for node in &run.targets {
                    let (least, within) = if how == End::Killed { (0, WITHIN) } else { (1, WITHIN_WRITE) };
                    cluster.end_soon(node, how, rng.random_range(least..=EFFECTS), within);
                }
            }
            FaultKind::Pause => run.targets.iter().for_each(|node| cluster.pause(node)),
            FaultKind::DiskError => run.targets.iter().for_each(|node| cluster.fail_disk(node, true)),
            FaultKind::SlowDisk => {
                let more = fault.disk.unwrap_or_default().sync_delay.0;
                run.targets.iter().for_each(|node| cluster.slow_disk(node, more));
            }
            FaultKind::ClockBump | FaultKind::ClockStrobe | FaultKind::ClockDrift => {
                run.strobe = true;
                self.set_clock(step, cluster, &run.targets, true);
            }
            FaultKind::Partition => {
                let cut = if fault.reset { Cut::Reset } else { Cut::Hold };
                self.shape(step.id, cluster, &run.links, LinkShape { cut, ..LinkShape::default() });
            }
            _ => self.shape(step.id, cluster, &run.links, fault.link.unwrap_or_default()),
        }
    }

    fn set_clock(&self, step: &Step, cluster: &mut Simulated, targets: &[NodeName], off: bool) {
        let clock = step.fault.clock.unwrap_or_default();
        let ppm = if clock.rate > 0.0 { ((clock.rate - 1.0) * 1e6) as i64 } else { 0 };
        for node in targets {
            cluster.set_wall(node, if off { clock.offset_ns() } else { 0 }, if off { ppm } else { 0 });
        }
    }

    /// The other state of a strobe. Returns when the next is due, if it goes on.
    pub(super) fn strobe(&mut self, id: usize, cluster: &mut Simulated) -> Option<u64> {
        let step = self.steps[id].clone();
        let every = step.fault.clock.filter(|_| step.fault.fault == FaultKind::ClockStrobe)?.every.ns();
        let run = self.running.get_mut(&id)?;
        run.strobe = !run.strobe;
        let (targets, off) = (run.targets.clone(), run.strobe);
        self.set_clock(&step, cluster, &targets, off);
        Some(cluster.now() + every)
    }

    fn shape(&mut self, id: usize, cluster: &mut Simulated, links: &BTreeSet<Link>, shape: LinkShape) {
        self.shapes.insert(id, (links.clone(), shape));
        self.apply(cluster, links);
    }

    fn apply(&self, cluster: &mut Simulated, links: &BTreeSet<Link>) {
        for link in links {
            let of_clients = &*link.from == nemesis::grudge::CLIENTS || &*link.to == nemesis::grudge::CLIENTS;
            let base = if of_clients { LinkShape::default() } else { self.base };
            let active =
                self.shapes.values().filter(|(links, _)| links.contains(link)).map(|(_, shape)| *shape);
            cluster.shape(link, &active.fold(base, LinkShape::and));
        }
    }

    fn cut(&self) -> BTreeSet<Link> {
        let cut = self.shapes.values().filter(|(_, shape)| shape.cut != Cut::Open);
        cut.flat_map(|(links, _)| links.clone()).collect()
    }

    fn majority(&self, cluster: &Simulated) -> bool {
        let down =
            self.held.iter().filter(|(_, (_, down))| *down).map(|((node, _), _)| node.clone()).collect();
        majority_connected(cluster.nodes(), &self.cut(), &down)
    }

    /// A node has ended. Returns whether it is to be started again at once.
    pub(super) fn ended(&mut self, node: &NodeName, lost: u64) -> bool {
        let Some((step, _)) = self.held.get(&(node.clone(), Grip::Node)) else { return false };
        let Some(run) = self.running.get_mut(step) else { return false };
        run.ended.insert(node.clone(), lost);
        run.receipt.kind == FaultKind::Restart
    }

    /// Ends a step: says what was seen of it, and heals. Returns its receipt.
    pub(super) fn end(&mut self, id: usize, cluster: &mut Simulated) -> Option<Receipt> {
        let mut run = self.running.remove(&id)?;
        run.receipt.effect = observed(&run, cluster);
        run.receipt.majority &= self.majority(cluster);
        run.receipt.end_ns = cluster.now();
        let step = self.steps[id].clone();
        match step.fault.fault.family() {
            Family::Network => {
                self.shapes.remove(&id);
                self.apply(cluster, &run.links);
            }
            Family::Clock => self.set_clock(&step, cluster, &run.targets, false),
            _ => {
                for node in &run.targets {
                    if is_crash(step.fault.fault) && !run.ended.contains_key(node) {
                        // It was over before the moment came.
                        cluster.end_soon(node, way_to_end(step.fault.fault), 0, WITHIN);
                    }
                    cluster.fail_disk(node, false);
                    cluster.slow_disk(node, Duration::ZERO);
                    cluster.resume(node);
                    cluster.repair(node);
                    cluster.start(node);
                }
            }
        }
        self.held.retain(|_, (step, _)| *step != id);
        run.receipt.healed = Effect::seen("undone");
        self.receipts.push(run.receipt.clone());
        Some(run.receipt)
    }

    /// Whether anything is in force.
    pub(super) fn in_force(&self) -> Vec<usize> {
        self.running.keys().copied().collect()
    }
}

fn is_crash(kind: FaultKind) -> bool {
    use FaultKind::{Kill, PowerFailure, Restart, Stop, TornWrite};
    matches!(kind, Kill | PowerFailure | TornWrite | Restart | Stop)
}

fn way_to_end(kind: FaultKind) -> End {
    match kind {
        FaultKind::PowerFailure => End::Power,
        FaultKind::TornWrite => End::Torn,
        _ => End::Killed,
    }
}

fn traffic(cluster: &Simulated, links: &BTreeSet<Link>) -> Traffic {
    links.iter().map(|link| cluster.traffic(link)).fold(Traffic::default(), |a, b| Traffic {
        sent: a.sent + b.sent,
        stopped: a.stopped + b.stopped,
        lost: a.lost + b.lost,
        doubled: a.doubled + b.doubled,
        hurried: a.hurried + b.hurried,
        delay_ns: a.delay_ns + b.delay_ns,
    })
}

/// What a fault did, right before it is undone.
fn observed(run: &Running, cluster: &Simulated) -> Effect {
    let counted = |n: u64, what: &str| {
        let words = format!("{n} {what}");
        if n > 0 { Effect::seen(words) } else { Effect::missing(words) }
    };
    let now = traffic(cluster, &run.links);
    let sent = now.sent - run.before.sent;
    match run.receipt.kind {
        FaultKind::PowerFailure | FaultKind::TornWrite => {
            counted(run.ended.values().sum(), "records lost that were not synced")
        }
        FaultKind::Kill | FaultKind::Restart | FaultKind::Stop | FaultKind::Wipe | FaultKind::DiskError => {
            counted(run.ended.len() as u64, "nodes ended")
        }
        FaultKind::BitFlip | FaultKind::Truncate => {
            let then = if run.refused { "its node refused to start" } else { "its node started without" };
            counted(run.unreadable, &format!("records unreadable, {then}"))
        }
        FaultKind::Pause => counted(run.targets.len() as u64, "nodes stood still"),
        FaultKind::SlowDisk => counted(run.targets.len() as u64, "nodes synced slowly"),
        FaultKind::Partition => {
            counted(now.stopped - run.before.stopped, &format!("of {sent} messages did not pass"))
        }
        FaultKind::Loss => counted(now.lost - run.before.lost, &format!("of {sent} messages lost")),
        FaultKind::Duplicate => {
            counted(now.doubled - run.before.doubled, &format!("of {sent} messages doubled"))
        }
        FaultKind::Reorder => {
            counted(now.hurried - run.before.hurried, &format!("of {sent} messages overtook others"))
        }
        FaultKind::Slow => counted(sent, "messages delayed"),
        _ => {
            let off =
                run.targets.iter().map(|node| cluster.wall_offset(node).unsigned_abs()).max().unwrap_or(0);
            // A strobe is right half of the time.
            let seen = off > 0 || run.receipt.kind == FaultKind::ClockStrobe;
            let words = format!("the time of day was off by {:.1} ms", off as f64 / 1e6);
            if seen { Effect::seen(words) } else { Effect::missing(words) }
        }
    }
}
