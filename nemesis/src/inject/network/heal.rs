//! What shows that links are as they were: what was seen of the fault must be seen to be gone.
//!
//! Trains pass every link undisturbed, where trains can be sent; bytes pass, and none of them is kept, delayed or reset any
//! more. A counter that still rises is looked at again: what was under way when the fault was healed counts late.

use super::{super::Grip, Effect, Nemesis, Running, of_clients};
use crate::{
    cluster::{Cut, Link, LinkShape, LinkStats, NodeName, Probe},
    fault::FaultKind,
    schedule::Step,
};
use std::collections::{BTreeMap, BTreeSet};

impl Nemesis {
    /// Every link that nobody else disturbs must be as it was. `before` is what had passed the links when they were last
    /// looked at.
    pub(in crate::inject) async fn network_healed(
        &self,
        step: &Step,
        run: &mut Running,
        before: &mut BTreeMap<Link, LinkStats>,
    ) -> Result<Effect, String> {
        let kind = step.fault.fault;
        let ours = self.left_alone(run, kind).await;
        // What an earlier look saw may have been the doing of whoever changes them now.
        run.still_in_force = false;
        if ours.is_empty() {
            return match kind {
                FaultKind::Partition => Ok(Effect::missing("all of its links are cut by another fault")),
                _ => Err("all of its links are changed by another fault".to_owned()),
            };
        }
        let nodes: BTreeSet<Link> = ours.iter().filter(|l| !of_clients(l)).cloned().collect();
        let probes = self.probe_all(nodes.iter().collect()).await;
        let wrong = self.disturbed(step, run, &probes);
        self.knock(ours.iter()).await;
        let now = self.stats(&ours).await;
        let clients: Vec<&Link> = ours.iter().filter(|l| of_clients(l)).collect();
        let asked = step.fault.link.unwrap_or_default();
        let passed = |link: &Link| delta(&now, before, link, |s| s.delivered_bytes);
        let open = ours.iter().filter(|l| passed(l) > 0).count();
        let mut missing = Vec::new();
        if !wrong.is_empty() {
            missing.push(format!("probes do not pass undisturbed over {}", wrong.join(" ")));
        }
        let silent: Vec<String> = clients.iter().filter(|l| passed(l) == 0).map(|l| l.to_string()).collect();
        if !silent.is_empty() {
            missing.push(format!("no bytes pass {}", silent.join(" ")));
        }
        // Not every link has something to carry; where trains can be sent, they show that it passes.
        if open == 0 && (probes.is_empty() || kind == FaultKind::Slow) {
            missing.push("no bytes pass the links".to_owned());
        }
        let stays: Vec<String> = match kind {
            FaultKind::Partition => ours.iter().filter_map(|l| still_cut(l, &now, before)).collect(),
            FaultKind::Slow => still_slow(asked, self.base, &ours, &now, before).into_iter().collect(),
            _ => vec![],
        };
        // Where nothing tries, nobody knows; and a node that another fault holds may be out of reach for that reason.
        let held = |node: &NodeName| self.lock_held().contains_key(&(node.clone(), Grip::Node));
        let excused = ours.iter().any(|l| held(&l.from) || held(&l.to));
        run.still_in_force = (!wrong.is_empty() || !stays.is_empty()) && !excused;
        missing.extend(stays);
        if !missing.is_empty() {
            before.extend(now);
            return Err(missing.join(", "));
        }
        Ok(Effect::seen(match probes.len() {
            0 => format!("bytes pass again ({open} of {} links at once)", ours.len()),
            n => format!("probes pass {n} links undisturbed, bytes {open} of {}", ours.len()),
        }))
    }

    /// The links of a fault that no other one in force changes.
    async fn left_alone(&self, run: &Running, kind: FaultKind) -> BTreeSet<Link> {
        let active = self.links.lock().await;
        let others = |link: &Link| {
            active
                .values()
                .filter_map(|m| m.get(link))
                .any(|s| kind != FaultKind::Partition || s.cut != Cut::Open)
        };
        run.links.iter().filter(|l| !others(l)).cloned().collect()
    }

    /// The links whose trains show the fault.
    fn disturbed(&self, step: &Step, run: &Running, probes: &BTreeMap<Link, Probe>) -> Vec<String> {
        let asked = step.fault.link.unwrap_or_default();
        let calm = self.calm.lock().unwrap_or_else(|e| e.into_inner());
        let slowed = |link: &Link, p: &Probe| {
            let known = run.probes.get(link).map(|(before, _)| *before).filter(|p| p.arrived > 0);
            let Some(before) = known.or_else(|| calm.get(link).copied()).filter(|p| p.arrived > 0) else {
                return false;
            };
            // No packet is faster than the delay, while a machine that stands still for a moment slows down many: the fastest
            // tell. They say nothing of jitter.
            let (expected, added) = match asked.delay.ns() {
                0 => (asked.jitter.ns() / 2, p.mean_ns - before.mean_ns),
                delay => (delay, p.least_ns - before.least_ns),
            };
            expected > 0 && added > expected as i64 / 2
        };
        let disturbed = |link: &Link, p: &Probe| match step.fault.fault {
            FaultKind::Slow => slowed(link, p),
            FaultKind::Loss => p.arrived < p.sent,
            FaultKind::Duplicate => p.duplicates > 0,
            FaultKind::Reorder => p.overtaken > 0,
            FaultKind::Corrupt => p.corrupted > 0,
            _ => false,
        };
        let wrong = probes.iter().filter(|(l, p)| p.arrived == 0 || disturbed(l, p));
        wrong.map(|(l, _)| l.to_string()).collect()
    }
}

fn delta(
    now: &BTreeMap<Link, LinkStats>,
    before: &BTreeMap<Link, LinkStats>,
    link: &Link,
    field: impl Fn(&LinkStats) -> u64,
) -> u64 {
    let of = |m: &BTreeMap<Link, LinkStats>| m.get(link).map_or(0, &field);
    of(now).saturating_sub(of(before))
}

/// Says so if a link still keeps what is sent.
fn still_cut(
    link: &Link,
    now: &BTreeMap<Link, LinkStats>,
    before: &BTreeMap<Link, LinkStats>,
) -> Option<String> {
    let held = delta(now, before, link, |s| s.held_bytes);
    let passed = delta(now, before, link, |s| s.delivered_bytes);
    (held > 0 && passed == 0).then(|| format!("{link} still keeps what is sent ({held} B)"))
}

/// Says so if links still delay, limit or reset, beyond what they do all along.
fn still_slow(
    asked: LinkShape,
    base: LinkShape,
    links: &BTreeSet<Link>,
    now: &BTreeMap<Link, LinkStats>,
    before: &BTreeMap<Link, LinkStats>,
) -> Option<String> {
    let sum = |field: fn(&LinkStats) -> u64| links.iter().map(|l| delta(now, before, l, field)).sum::<u64>();
    let (chunks, ns) = (sum(|s| s.delayed_chunks), sum(|s| s.delayed_ns));
    let mean = ns.checked_div(chunks).unwrap_or(0);
    let usual = base.delay.ns() + base.jitter.ns();
    let added = asked.delay.ns() + asked.jitter.ns() / 2;
    // Of what has no delay of its own, nothing at all may be kept.
    let kept = if base == LinkShape::default() { chunks > 0 } else { mean > usual + added / 2 };
    if kept {
        return Some(format!("{chunks} chunks were still kept, {:.1} ms on average", mean as f64 / 1e6));
    }
    if asked.reset_probability > 0.0 && base.reset_probability == 0.0 && sum(|s| s.resets) > 0 {
        return Some("connections are still reset".to_owned());
    }
    if asked.bytes_per_second > 0 && base.bytes_per_second == 0 && sum(|s| s.limited) > 0 {
        return Some("packets still wait for bandwidth".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;

    fn link() -> Link {
        Link::new(&NodeName::from("n1"), &NodeName::from("n2"))
    }

    fn slow(asked: LinkShape, now: LinkStats) -> Option<String> {
        let stats = |s| BTreeMap::from([(link(), s)]);
        let links = BTreeSet::from([link()]);
        still_slow(asked, LinkShape::default(), &links, &stats(now), &stats(LinkStats::default()))
    }

    #[test]
    fn whatever_was_asked_of_a_slow_link_must_be_gone() {
        let some = LinkStats { delivered_bytes: 9000, ..LinkStats::default() };
        let delay = LinkShape { delay: Span::ms(20), ..LinkShape::default() };
        let rate = LinkShape { bytes_per_second: 1000, ..LinkShape::default() };
        let reset = LinkShape { reset_probability: 0.1, ..LinkShape::default() };
        for asked in [delay, rate, reset] {
            assert_eq!(slow(asked, some), None);
        }
        assert!(slow(delay, LinkStats { delayed_chunks: 2, delayed_ns: 40_000_000, ..some }).is_some());
        assert!(slow(rate, LinkStats { limited: 1, ..some }).is_some());
        assert!(slow(reset, LinkStats { resets: 1, ..some }).is_some());
        assert!(slow(rate, LinkStats { resets: 1, ..some }).is_none(), "not what was asked");
    }

    #[test]
    fn a_link_that_only_keeps_is_still_cut() {
        let stats = |held_bytes, delivered_bytes| {
            BTreeMap::from([(link(), LinkStats { held_bytes, delivered_bytes, ..LinkStats::default() })])
        };
        let before = stats(100, 100);
        assert!(still_cut(&link(), &stats(160, 100), &before).is_some());
        assert!(still_cut(&link(), &stats(160, 101), &before).is_none());
        assert!(still_cut(&link(), &stats(100, 100), &before).is_none(), "nobody tried");
    }
}
