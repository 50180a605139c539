//! Healing is proven or not: schedules carried out against a cluster that lies, or stays as it was broken.

use super::*;
use crate::{DiskStats, DiskTrouble, Plan, Span, schedule::schedule};
use rand::SeedableRng;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Time that passes when it is slept through, and a little with each look at it.
struct Leap {
    now: AtomicU64,
    pace: u64,
}

impl Default for Leap {
    fn default() -> Self {
        Leap { now: AtomicU64::new(0), pace: 1 }
    }
}

#[async_trait]
impl Timeline for Leap {
    fn now(&self) -> u64 {
        self.now.fetch_add(self.pace, Relaxed)
    }
    async fn sleep_until(&self, ns: u64) {
        self.now.fetch_max(ns, Relaxed);
        tokio::task::yield_now().await;
    }
}

/// Three nodes that answer, and counters that grow with each look: by `disk` and `link`, from when they were broken.
struct Fake {
    nodes: Vec<NodeName>,
    state: NodeState,
    disk: fn(u64) -> DiskStats,
    link: fn(u64) -> LinkStats,
    looks: AtomicU64,
    /// How often a clock cannot be set right, since its process is ending.
    ending: AtomicU64,
    clock: AtomicI64,
    /// How many looks there had been when a node was last told that its end is not excused.
    strict_from: Arc<AtomicU64>,
}

impl Default for Fake {
    fn default() -> Self {
        let nodes = ["n1", "n2", "n3"].map(NodeName::from).to_vec();
        let (disk, link) = (|_| DiskStats::default(), |_| LinkStats::default());
        Fake {
            nodes,
            state: NodeState::Running,
            disk,
            link,
            looks: AtomicU64::new(0),
            ending: AtomicU64::new(0),
            clock: AtomicI64::new(0),
            strict_from: Arc::default(),
        }
    }
}

#[async_trait]
impl Cluster for Fake {
    fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }
    fn supports(&self, _: crate::Capability) -> Result<(), String> {
        Ok(())
    }
    async fn start(&self, _: &NodeName) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn kill(&self, _: &NodeName) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn pause(&self, _: &NodeName) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn resume(&self, _: &NodeName) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn stop(&self, _: &NodeName) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn shape(&self, _: &BTreeMap<Link, LinkShape>) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn state(&self, _: &NodeName) -> NodeState {
        self.state.clone()
    }
    async fn link_stats(&self, _: &Link) -> LinkStats {
        (self.link)(self.looks.fetch_add(1, Relaxed))
    }
    async fn answers(&self, _: &NodeName) -> bool {
        true
    }
    fn excuse(&self, _: &NodeName, yes: bool) {
        if !yes {
            self.strict_from.store(self.looks.load(Relaxed), Relaxed);
        }
    }
    async fn leader(&self) -> Option<NodeName> {
        None
    }
    async fn trouble_disk(&self, _: &NodeName, _: DiskTrouble) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn disk_stats(&self, _: &NodeName) -> DiskStats {
        (self.disk)(self.looks.fetch_add(1, Relaxed))
    }
    async fn set_clock(&self, node: &NodeName, offset_ns: i64) -> Result<i64, ClusterError> {
        if offset_ns == 0 && self.ending.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok() {
            let why = "it has just ended".to_owned();
            return Err(ClusterError { what: "set the clock of", node: node.to_string(), why });
        }
        self.clock.store(offset_ns, Relaxed);
        Ok(offset_ns)
    }
    async fn read_clock(&self, _: &NodeName) -> Result<i64, ClusterError> {
        Ok(self.clock.load(Relaxed))
    }
}

async fn carry_out(fake: Fake, fault: &str) -> Receipt {
    carry_out_at(Leap::default(), fake, fault).await
}

async fn carry_out_at(leap: Leap, fake: Fake, fault: &str) -> Receipt {
    let plan: Plan = serde_yaml::from_str(&format!("steps: [{{at: 1s, for: 1s, do: {fault}}}]")).unwrap();
    let schedule = schedule(&plan, Span::ms(9000), &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
    let nemesis = Nemesis::new(Arc::new(fake), Arc::new(leap), LinkShape::default(), Arc::new(|_| {}));
    let (_keep, stop) = watch::channel(false);
    nemesis.run(&schedule, 0, stop).await.remove(0)
}

/// The phases of two faults whose times overlap, in the order in which they were told of, and the receipts.
async fn two_that_overlap(one_at_a_time: bool) -> (Vec<String>, Vec<Receipt>) {
    let plan = format!(
        "one-at-a-time: {one_at_a_time}\nsteps:\n\
         - {{at: 1s, for: 3s, do: {{fault: pause, target: n1}}}}\n\
         - {{at: 2s, for: 1s, do: {{fault: pause, target: n2}}}}"
    );
    let plan: Plan = serde_yaml::from_str(&plan).unwrap();
    let schedule = schedule(&plan, Span::ms(9000), &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = {
        let told = told.clone();
        Arc::new(move |n: Notice| told.lock().unwrap().push(format!("{} {}", n.phase, n.on)))
    };
    let nemesis =
        Nemesis::new(Arc::new(Fake::default()), Arc::new(Leap::default()), LinkShape::default(), sink);
    let (_keep, stop) = watch::channel(false);
    let receipts = nemesis.run(&schedule, 0, stop).await;
    let told = told.lock().unwrap().clone();
    (told, receipts)
}

#[tokio::test]
async fn one_at_a_time_no_fault_begins_before_the_last_is_healed() {
    let (told, receipts) = two_that_overlap(true).await;
    let phases = |on| ["start", "started", "stop", "stopped"].map(|phase| format!("{phase} {on}"));
    assert_eq!(told, [phases("n1"), phases("n2")].concat());
    let lasted = |r: &Receipt| r.end_ns - r.start_ns;
    assert!(lasted(&receipts[1]) >= 900 * MS, "it lasts as long as planned, {receipts:?}");
    let (told, _) = two_that_overlap(false).await;
    assert_ne!(told, [phases("n1"), phases("n2")].concat(), "the control: otherwise they overlap");
}

#[tokio::test]
async fn a_disk_is_healed_only_if_it_was_asked_and_did_what_it_was_asked() {
    let of = |disk| carry_out(Fake { disk, ..Fake::default() }, "{fault: disk-error, target: n1}");
    let healthy = of(|n| DiskStats { errors: n.min(1), writes: n, syncs: n, ..DiskStats::default() }).await;
    assert!(healthy.effect.seen && healthy.healed.seen && !healthy.unhealed, "{healthy:?}");
    // What was under way when it was healed is counted late, and once.
    let late = of(|n| DiskStats { errors: n.min(5), writes: n, syncs: n, ..DiskStats::default() }).await;
    assert!(late.healed.seen && !late.unhealed, "{late:?}");
    let idle = of(|n| DiskStats { errors: n.min(1), ..DiskStats::default() }).await;
    assert!(!idle.healed.seen && idle.healed.what.contains("nothing was asked"), "{idle:?}");
    assert!(!idle.unhealed, "nobody knows");
    // One late count, and then nobody asks any more.
    let silent =
        of(|n| DiskStats { errors: n.min(5), writes: n.min(3), syncs: n.min(3), ..DiskStats::default() })
            .await;
    assert!(!silent.healed.seen && !silent.unhealed, "{silent:?}");
    let broken = of(|n| DiskStats { errors: n, writes: n, syncs: n, ..DiskStats::default() }).await;
    assert!(!broken.healed.seen && broken.unhealed, "{broken:?}");
}

/// Whoever answers may still be about to end for what its disk did.
#[tokio::test]
async fn a_node_stays_excused_until_its_disk_has_synced_again() {
    let strict_from = Arc::default();
    let disk = |n: u64| DiskStats {
        errors: n.min(1),
        writes: n,
        syncs: n.saturating_sub(20),
        ..DiskStats::default()
    };
    let fake = Fake { disk, strict_from: Arc::clone(&strict_from), ..Fake::default() };
    let done = carry_out(fake, "{fault: disk-error, target: n1}").await;
    assert!(done.healed.seen, "{done:?}");
    assert!(strict_from.load(Relaxed) > 20, "{strict_from:?}");
}

#[tokio::test]
async fn links_that_still_keep_what_is_sent_are_not_healed() {
    let cut = "{fault: partition, cut: [n1>n2]}";
    let of = |link| carry_out(Fake { link, ..Fake::default() }, cut);
    let stuck = of(|n| LinkStats { held_bytes: n, ..LinkStats::default() }).await;
    assert!(stuck.effect.seen && !stuck.healed.seen && stuck.unhealed, "{stuck:?}");
    let open = of(|n| LinkStats {
        held_bytes: n.min(2),
        delivered_bytes: n.saturating_sub(2),
        ..LinkStats::default()
    });
    let open = open.await;
    assert!(open.effect.seen && open.healed.seen && !open.unhealed, "{open:?}");
    let silent = of(|n| LinkStats { held_bytes: n.min(2), ..LinkStats::default() }).await;
    assert!(!silent.healed.seen && !silent.unhealed, "nobody tried: {silent:?}");
}

/// Where seconds pass whenever somebody looks at the time, ten of them are no more than a look or two.
#[tokio::test]
async fn a_slow_machine_looks_five_times_before_it_gives_up() {
    let healed_at_look = async |link| {
        let leap = Leap { pace: 4_000 * MS, ..Leap::default() };
        carry_out_at(leap, Fake { link, ..Fake::default() }, "{fault: partition, cut: [n1>n2]}").await
    };
    // The counters are looked at four times before: twice around the cut, when it ends, and when it is healed.
    let fifth = healed_at_look(|n| LinkStats {
        held_bytes: n.min(7),
        delivered_bytes: n.saturating_sub(7),
        ..LinkStats::default()
    });
    let fifth = fifth.await;
    assert!(fifth.effect.seen && fifth.healed.seen && !fifth.unhealed, "{fifth:?}");
    let never = healed_at_look(|n| LinkStats { held_bytes: n, ..LinkStats::default() }).await;
    assert!(!never.healed.seen && never.unhealed, "{never:?}");
}

#[tokio::test]
async fn a_node_that_cannot_be_asked_about_proves_nothing() {
    for fault in ["kill", "pause"] {
        let state = NodeState::Unknown("the agent is gone".to_owned());
        let done =
            carry_out(Fake { state, ..Fake::default() }, &format!("{{fault: {fault}, target: n1}}")).await;
        assert!(!done.effect.seen && done.effect.what.contains("the agent is gone"), "{done:?}");
    }
}

/// Another fault may kill the process in the moment in which its clock is to be set right.
#[tokio::test]
async fn a_clock_whose_process_is_just_ending_is_looked_at_again() {
    let of = |ending: u64| {
        let fake = Fake { ending: ending.into(), ..Fake::default() };
        carry_out(fake, "{fault: clock-bump, target: n1, clock: {ahead: 2s}}")
    };
    let killed = of(3).await;
    assert!(killed.effect.seen && killed.healed.seen && !killed.unhealed, "{killed:?}");
    let stuck = of(u64::MAX).await;
    assert!(!stuck.healed.seen && stuck.unhealed, "{stuck:?}");
}
