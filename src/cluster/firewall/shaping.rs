//! What one sender does to the packets for each of its peers: tc with one htb class a peer, and netem below it.
//!
//! ```text
//! root htb 1: ── class 1:2 rate 1 Mbit/s ── netem 20: delay 50ms      dst n2
//!             └─ class 1:3 …                                          dst n3      everything else passes unshaped
//! ```

use super::Spot;
use crate::agent::Request;
use nemesis::{Capability, LinkShape};
use serde_json::Value;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// A class without a bandwidth: more than any link here carries.
const UNLIMITED: &str = "100gbit";
/// Packets that netem keeps at most: a second of a fast link.
const KEPT: u32 = 100_000;

/// The qdiscs of one sender.
#[derive(Debug, Default)]
pub struct Shaping {
    device: String,
    netem: bool,
    shaped: BTreeMap<usize, LinkShape>,
    /// Whether the root is ours at the moment.
    rooted: bool,
    /// What classes that are gone have counted.
    limited: BTreeMap<usize, u64>,
}

/// The part of a shape that is done by tc: all that it can do, or, where there is no netem, the bandwidth.
fn part(shape: LinkShape, netem: bool) -> LinkShape {
    if !netem {
        return LinkShape { bytes_per_second: shape.bytes_per_second, ..LinkShape::default() };
    }
    LinkShape {
        delay: shape.delay,
        jitter: shape.jitter,
        bytes_per_second: shape.bytes_per_second,
        duplicate: shape.duplicate,
        reorder: shape.reorder,
        corrupt: shape.corrupt,
        ..LinkShape::default()
    }
}

impl Shaping {
    /// Finds the device through which a node reaches its peers.
    pub async fn open(spot: &Spot, peer: Option<&Spot>) -> Result<Shaping, String> {
        let Some(peer) = peer else { return Ok(Shaping::default()) };
        let route = spot.agent.run(&["ip", "-o", "route", "get", &peer.address.to_string()], None).await?;
        let device = route.split(" dev ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let device = device.ok_or_else(|| format!("{} has no route to {}: {route}", spot.name, peer.name))?;
        Ok(Shaping { device: device.to_owned(), netem: true, ..Shaping::default() })
    }

    /// Which of the kernel's schedulers are there, tried on the node's own loopback device, which nobody shapes.
    pub async fn abilities(&self, spot: &Spot) -> Vec<(Capability, Result<(), String>)> {
        let netem = try_out(spot, "netem", &["delay", "1ms"]).await;
        let htb = try_out(spot, "htb", &[]).await;
        let both = htb.clone().and(netem);
        vec![(Capability::Rate, htb), (Capability::Delay, both.clone()), (Capability::Scramble, both)]
    }

    /// Sets what is done to the packets for one peer.
    pub async fn set(
        &mut self,
        spot: &Spot,
        peer: usize,
        address: Ipv4Addr,
        shape: LinkShape,
    ) -> Result<(), String> {
        let wanted = part(shape, self.netem);
        let now = self.shaped.get(&peer).copied().unwrap_or_default();
        if wanted == now {
            return Ok(());
        }
        let device = self.device.clone();
        let mut batch = Vec::new();
        if !self.rooted {
            self.refuse_anothers(spot).await?;
            let argv = ["tc", "qdisc", "del", "dev", &device, "root"].map(str::to_owned).to_vec();
            spot.agent.ask::<()>(Request::AtEnd { argv }).await?;
            batch.push(format!("qdisc add dev {device} root handle 1: htb"));
            self.rooted = true;
        }
        let class = peer + 1;
        if now != LinkShape::default() {
            let counted = self.read(spot, peer).await;
            *self.limited.entry(peer).or_default() += counted;
            batch.push(format!("filter del dev {device} parent 1: protocol ip prio {class} u32"));
            batch.push(format!("class del dev {device} classid 1:{class}"));
            self.shaped.remove(&peer);
        }
        if wanted != LinkShape::default() {
            batch.extend(commands(&device, class, address, wanted));
            self.shaped.insert(peer, wanted);
        }
        spot.agent.run(&["tc", "-batch", "-"], Some(batch.join("\n") + "\n")).await?;
        Ok(())
    }

    /// Leaves to a stand-in what netem would do.
    pub fn without_netem(&mut self) {
        self.netem = false;
    }

    /// Forgets what was set, because the network is a new one, and returns it to be set again.
    pub fn begin_anew(&mut self) -> BTreeMap<usize, LinkShape> {
        self.rooted = false;
        std::mem::take(&mut self.shaped)
    }

    /// A root that somebody has configured is not replaced: it could not be put back as it was.
    async fn refuse_anothers(&self, spot: &Spot) -> Result<(), String> {
        let shown = spot.agent.run(&["tc", "-j", "qdisc", "show", "dev", &self.device, "root"], None).await?;
        let all: Vec<Value> = serde_json::from_str(&shown).unwrap_or_default();
        let configured = all.iter().find(|q| {
            let handle = q.get("handle").and_then(Value::as_str).unwrap_or("0:");
            handle != "0:"
        });
        match configured {
            None => Ok(()),
            Some(q) => Err(format!(
                "{} has a qdisc of its own on {} ({}); remove it, for it could not be put back after the run",
                spot.name,
                self.device,
                q.get("kind").and_then(Value::as_str).unwrap_or("?")
            )),
        }
    }

    /// How many packets for a peer have had to wait for bandwidth.
    pub async fn limited(&self, spot: &Spot, peer: usize) -> u64 {
        let gone = self.limited.get(&peer).copied().unwrap_or(0);
        match self.shaped.get(&peer) {
            Some(shape) if shape.bytes_per_second > 0 => gone + self.read(spot, peer).await,
            _ => gone,
        }
    }

    async fn read(&self, spot: &Spot, peer: usize) -> u64 {
        let show = ["tc", "-s", "class", "show", "dev", &self.device];
        overlimits(&spot.agent.run(&show, None).await.unwrap_or_default(), peer + 1)
    }
}

/// Reads `tc -s class show`.
fn overlimits(text: &str, class: usize) -> u64 {
    let name = format!("class htb 1:{class} ");
    let block = text.split("class htb ").map(|b| format!("class htb {b}")).find(|b| b.starts_with(&name));
    let count =
        block.as_deref().and_then(|b| b.split("overlimits ").nth(1)).and_then(|r| r.split(' ').next());
    count.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What makes a class and its leaf.
fn commands(device: &str, class: usize, address: Ipv4Addr, shape: LinkShape) -> Vec<String> {
    let rate = match shape.bytes_per_second {
        0 => UNLIMITED.to_owned(),
        bytes => format!("{}bit", bytes.saturating_mul(8)),
    };
    let mut out = vec![
        format!("class add dev {device} parent 1: classid 1:{class} htb rate {rate} quantum 1514"),
        format!(
            "filter add dev {device} parent 1: protocol ip prio {class} u32 match ip dst {address}/32 flowid 1:{class}"
        ),
    ];
    let mut netem = String::new();
    if shape.delay.ns() > 0 || shape.jitter.ns() > 0 {
        // netem's jitter goes both ways, ours is added.
        let half = shape.jitter.ns() / 2000;
        netem.push_str(&format!(" delay {}us", shape.delay.ns() / 1000 + half));
        if half > 0 {
            netem.push_str(&format!(" {half}us"));
        }
    }
    for (word, probability) in
        [("duplicate", shape.duplicate), ("reorder", shape.reorder), ("corrupt", shape.corrupt)]
    {
        if probability > 0.0 {
            netem.push_str(&format!(" {word} {:.4}%", probability * 100.0));
        }
    }
    if !netem.is_empty() {
        out.push(format!(
            "qdisc add dev {device} parent 1:{class} handle {}: netem limit {KEPT}{netem}",
            class + 100
        ));
    }
    out
}

async fn try_out(spot: &Spot, kind: &str, arguments: &[&str]) -> Result<(), String> {
    let add: Vec<&str> =
        ["tc", "qdisc", "add", "dev", "lo", "root", kind].iter().chain(arguments).copied().collect();
    match spot.agent.run(&add, None).await {
        Ok(_) => {
            spot.agent.run(&["tc", "qdisc", "del", "dev", "lo", "root"], None).await?;
            Ok(())
        }
        Err(why) => Err(format!(
            "{} has no `sch_{kind}` in its kernel ({}); load the module, or use a kernel that has it",
            spot.name,
            why.lines().last().unwrap_or_default().trim()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemesis::Span;

    #[test]
    fn a_class_for_each_peer() {
        let address = Ipv4Addr::new(10, 213, 7, 12);
        let rate = LinkShape { bytes_per_second: 125_000, ..LinkShape::default() };
        let all = LinkShape {
            delay: Span::ms(50),
            jitter: Span::ms(20),
            duplicate: 0.1,
            reorder: 0.25,
            corrupt: 0.01,
            ..LinkShape::default()
        };
        let shown = [rate, all].map(|s| commands("eth0", 2, address, s).join("\n")).join("\n\n");
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn counters_of_a_class_are_found_among_others() {
        let text = "class htb 1:1 root prio 0 rate 1Mbit ceil 1Mbit burst 1600b cburst 1600b\n \
            Sent 100 bytes 2 pkt (dropped 0, overlimits 3 requeues 0)\n backlog 0b 0p requeues 0\n\n\
            class htb 1:12 root leaf 112: prio 0 rate 1Mbit\n Sent 0 bytes 0 pkt (dropped 0, overlimits 17 requeues 0)\n";
        assert_eq!((overlimits(text, 1), overlimits(text, 12), overlimits(text, 2)), (3, 17, 0));
    }
}
