//! Partition, slow, loss, duplicate, reorder, corrupt: what is done to links.
//!
//! Observed twice: by the counters of the links themselves, over the cluster's own traffic, and, where the cluster has a
//! way to, by trains of numbered packets before and during the fault, over a few of its links. Clients and nodes cannot
//! send each other trains: there the node is asked once by ourselves. What shows that it is over is in [`heal`].

mod heal;

use super::{Effect, MS, Nemesis, Running, all, all_links, of_clients};
use crate::{
    cluster::{ClusterError, Cut, Link, LinkShape, LinkStats, NodeName, Probe},
    fault::FaultKind,
    grudge::CLIENTS,
    schedule::{Step, sides},
};
use std::collections::{BTreeMap, BTreeSet};

/// Links are observed from a moment after they were cut, so that a write under way at the cut is not taken for a leak.
const SETTLE: u64 = 20 * MS;
/// Links that are probed for each fault.
const PROBED: usize = 3;
/// Packets of a probe. The chance that none of them meets a fault of probability 0.05 is below one in a hundred.
const PACKETS: u32 = 100;
/// A fault shorter than this is not probed: the train would outlast it.
const PROBE_FROM: u64 = 400 * MS;

pub(super) fn choose(
    step: &Step,
    nodes: &[NodeName],
    leader: Option<&NodeName>,
    wanted: Vec<NodeName>,
    run: &mut Running,
) -> Result<(), String> {
    if step.fault.fault == FaultKind::Partition {
        // The stream of choices begins anew: the sides are those of the preview.
        run.links = step.cut(nodes, leader);
        run.receipt.on = sides(nodes, &run.links);
        return Ok(());
    }
    let peers = step.fault.peers.as_ref().map(|p| p.resolve(nodes, leader, &mut step.rng()));
    run.links = touched(nodes, &wanted, peers.as_deref());
    if run.links.is_empty() {
        return Err(format!("skipped: there is no link between {} and itself", wanted.join(" ")));
    }
    run.receipt.on = match &peers {
        Some(peers) => format!("{} to {}", wanted.join(" "), peers.join(" ")),
        None => wanted.join(" "),
    };
    run.targets = wanted;
    Ok(())
}

/// The links from and to the wanted nodes; with peers, only those between the two.
fn touched(nodes: &[NodeName], wanted: &[NodeName], peers: Option<&[NodeName]>) -> BTreeSet<Link> {
    let other = |node: &NodeName| peers.is_none_or(|peers| peers.contains(node));
    let touches =
        |l: &Link| (wanted.contains(&l.from) && other(&l.to)) || (wanted.contains(&l.to) && other(&l.from));
    all_links(nodes).into_iter().filter(touches).collect()
}

/// Whether a fault lasts long enough to be probed.
fn long_enough(step: &Step) -> bool {
    step.until.ns().saturating_sub(step.at.ns()) >= PROBE_FROM
}

/// A few links, spread over all.
fn some(links: &BTreeSet<Link>) -> Vec<&Link> {
    let step = links.len().div_ceil(PROBED).max(1);
    links.iter().step_by(step).collect()
}

impl Nemesis {
    pub(super) async fn inject_network(&self, step: &Step, run: &mut Running) -> Result<(), ClusterError> {
        let shape = match step.fault.fault {
            FaultKind::Partition => {
                let cut = if step.fault.reset { Cut::Reset } else { Cut::Hold };
                LinkShape { cut, ..LinkShape::default() }
            }
            _ => step.fault.link.unwrap_or_default(),
        };
        // Only what delays is compared with how it was before; a probe takes a moment, and faults are to begin in time.
        if long_enough(step) && step.fault.fault == FaultKind::Slow {
            run.probes =
                self.probe(&run.links).await.into_iter().map(|(l, p)| (l, (p, Probe::default()))).collect();
        }
        run.at_cut = self.stats(&run.links).await;
        let mut active = self.links.lock().await;
        active.insert(step.id, run.links.iter().map(|l| (l.clone(), shape)).collect());
        self.apply(&active, &run.links).await
    }

    pub(super) async fn heal_network(&self, step: &Step, run: &Running) -> Result<(), ClusterError> {
        let mut active = self.links.lock().await;
        active.remove(&step.id);
        self.apply(&active, &run.links).await
    }

    async fn apply(
        &self,
        active: &BTreeMap<usize, BTreeMap<Link, LinkShape>>,
        links: &BTreeSet<Link>,
    ) -> Result<(), ClusterError> {
        let shape = |link: &Link| {
            active.values().filter_map(|m| m.get(link)).fold(self.base_of(link), |a, b| a.and(*b))
        };
        self.cluster.shape(&links.iter().map(|link| (link.clone(), shape(link))).collect()).await
    }

    /// Sends trains over a few of the links, all at the same time.
    pub(super) async fn probe(&self, links: &BTreeSet<Link>) -> BTreeMap<Link, Probe> {
        self.send(some(links), PACKETS).await
    }

    /// Sends short trains over all of the links, all at the same time.
    pub(super) async fn probe_all(&self, links: Vec<&Link>) -> BTreeMap<Link, Probe> {
        self.send(links, PACKETS / 4).await
    }

    async fn send(&self, links: Vec<&Link>, packets: u32) -> BTreeMap<Link, Probe> {
        let links: Vec<&Link> = links.into_iter().filter(|l| !of_clients(l)).collect();
        let sent = all(links.iter().map(|link| self.cluster.probe(link, packets)).collect()).await;
        links.into_iter().zip(sent).filter_map(|(l, p)| Some((l.clone(), p?))).collect()
    }

    /// Asks the nodes at these links as a client does, so that something tries to pass.
    async fn knock<'a>(&self, links: impl Iterator<Item = &'a Link>) -> Vec<NodeName> {
        let nodes: BTreeSet<&NodeName> = links
            .filter(|l| of_clients(l))
            .map(|l| if &*l.from == CLIENTS { &l.to } else { &l.from })
            .collect();
        let answers = all(nodes.iter().map(|node| self.cluster.answers(node)).collect()).await;
        nodes.into_iter().zip(answers).filter(|(_, answers)| *answers).map(|(node, _)| node.clone()).collect()
    }

    pub(super) async fn observe_network_early(&self, step: &Step, run: &mut Running, until: u64) {
        let at = self.timeline.now() + SETTLE;
        self.timeline.sleep_until(at.min(until)).await;
        run.before = self.stats(&run.links).await;
        if long_enough(step) {
            for node in self.knock(run.links.iter()).await {
                run.lost.push(format!("{node} answers a client"));
            }
            for (link, probe) in self.probe(&run.links).await {
                run.probes.entry(link).or_default().1 = probe;
            }
        }
    }

    pub(super) async fn observe_network_late(&self, step: &Step, run: &mut Running) {
        let after = self.stats(&run.links).await;
        run.receipt.effect = if run.receipt.kind == FaultKind::Partition {
            cut_effect(run, &after)
        } else {
            shape_effect(step, run, &after)
        };
    }
}

/// A cut bit if nothing came through, and something tried to.
fn cut_effect(run: &Running, after: &BTreeMap<Link, LinkStats>) -> Effect {
    let mut held = (0, 0);
    let mut leaks = Vec::new();
    for link in &run.links {
        let of = |m: &BTreeMap<Link, LinkStats>| m.get(link).copied().unwrap_or_default();
        let (a, b, cut) = (of(after), of(&run.before), of(&run.at_cut));
        // What came since the cut, the settling time included; what was let through counts only after it.
        let bytes = a.held_bytes.saturating_sub(cut.held_bytes) + a.resets.saturating_sub(cut.resets);
        if a.delivered_bytes > b.delivered_bytes {
            leaks.push(format!("{link} let {} bytes through", a.delivered_bytes - b.delivered_bytes));
        } else if bytes > 0 {
            held = (held.0 + 1, held.1 + bytes);
        }
    }
    let probed: u32 = run.probes.values().map(|(_, p)| p.sent).sum();
    leaks.extend(run.lost.iter().cloned());
    leaks.extend(
        run.probes
            .iter()
            .filter(|(_, (_, p))| p.arrived > 0)
            .map(|(link, (_, p))| format!("{link} let {} of {} probes through", p.arrived, p.sent)),
    );
    let probes = if probed > 0 { format!(", none of {probed} probes arrived") } else { String::new() };
    match (leaks.is_empty(), held) {
        (false, _) => Effect::missing(leaks.join(", ")),
        // Probes count: what was dropped of them, the rules have counted too.
        (true, (0, _)) => Effect::missing("nothing tried to pass the cut links"),
        (true, (n, bytes)) => {
            Effect::seen(format!("{n} of {} links silent, {bytes} B held{probes}", run.links.len()))
        }
    }
}

/// A shape bit if the link's counters or the probes show what it does.
fn shape_effect(step: &Step, run: &Running, after: &BTreeMap<Link, LinkStats>) -> Effect {
    let want = step.fault.link.unwrap_or_default();
    let sum = |f: fn(&LinkStats) -> u64| {
        let total = |m: &BTreeMap<Link, LinkStats>| m.values().map(f).sum::<u64>();
        total(after).saturating_sub(total(&run.at_cut))
    };
    let (chunks, ns, resets) = (sum(|s| s.delayed_chunks), sum(|s| s.delayed_ns), sum(|s| s.resets));
    let (lost, limited) = (sum(|s| s.lost), sum(|s| s.limited));
    let mean = ns.checked_div(chunks).unwrap_or(0);
    let probe = Probes::of(run);
    let mut text = Vec::new();
    if chunks > 0 {
        text.push(format!("{chunks} chunks kept {:.1} ms on average", mean as f64 / 1e6));
    }
    if resets > 0 || want.reset_probability > 0.0 {
        text.push(format!("{resets} connections reset"));
    }
    if lost > 0 || want.loss > 0.0 {
        text.push(format!("{lost} packets lost"));
    }
    if want.bytes_per_second > 0 {
        text.push(format!("{limited} packets waited for bandwidth"));
    }
    text.extend(probe.words());
    // The mean of the jitter is half of it, and a train is short: half of what was asked proves the delay.
    let slowed = probe.added_ns > 0 && probe.added_ns as u64 >= want.delay.ns() / 2 + want.jitter.ns() / 10;
    let by_proxy = chunks > 0 && mean >= want.delay.ns() && mean > 0;
    let seen = match run.receipt.kind {
        FaultKind::Slow => {
            let delayed = want.delay.ns() > 0 || want.jitter.ns() > 0;
            (delayed && (by_proxy || slowed))
                || (want.bytes_per_second > 0 && (limited > 0 || (!delayed && by_proxy)))
                || (want.reset_probability > 0.0 && resets > 0)
        }
        // By the rule's own counter: another fault may lose probes as well.
        FaultKind::Loss => lost > 0,
        FaultKind::Duplicate => probe.duplicates > 0,
        FaultKind::Reorder => probe.overtaken > 0,
        _ => probe.corrupted > 0,
    };
    let text = if text.is_empty() { "nothing passed the links".to_owned() } else { text.join(", ") };
    if seen { Effect::seen(text) } else { Effect::missing(text) }
}

/// All probes of a fault together.
#[derive(Default)]
struct Probes {
    sent: u32,
    arrived: u32,
    duplicates: u32,
    overtaken: u32,
    corrupted: u32,
    added_ns: i64,
    compared: bool,
}

impl Probes {
    fn of(run: &Running) -> Probes {
        let mut all = Probes::default();
        let mut added = Vec::new();
        for (before, during) in run.probes.values() {
            all.sent += during.sent;
            all.arrived += during.arrived;
            all.duplicates += during.duplicates;
            all.overtaken += during.overtaken;
            all.corrupted += during.corrupted;
            if before.arrived > 0 && during.arrived > 0 {
                added.push(during.mean_ns - before.mean_ns);
            }
        }
        all.compared = !added.is_empty();
        all.added_ns = added.iter().sum::<i64>() / added.len().max(1) as i64;
        all
    }

    fn words(&self) -> Option<String> {
        if self.sent == 0 {
            return None;
        }
        let mut text = format!("probes: {} of {} arrived", self.arrived, self.sent);
        if self.compared {
            text.push_str(&format!(", {:.1} ms later than before", self.added_ns as f64 / 1e6));
        }
        for (n, what) in
            [(self.duplicates, "twice"), (self.overtaken, "overtaken"), (self.corrupted, "corrupted")]
        {
            if n > 0 {
                text.push_str(&format!(", {n} {what}"));
            }
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_link_can_be_meant_or_all_of_a_node() {
        let nodes: Vec<NodeName> = ["n1", "n2", "n3"].map(NodeName::from).to_vec();
        let words = |links: BTreeSet<Link>| links.iter().map(Link::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(words(touched(&nodes, &nodes[..1], Some(&nodes[1..2]))), "n1→n2 n2→n1");
        assert_eq!(words(touched(&nodes, &nodes[..1], None)), "n1→n2 n1→n3 n2→n1 n3→n1");
    }
}
