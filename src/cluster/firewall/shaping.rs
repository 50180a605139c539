//! What one sender does to the packets for each of its peers: tc with one htb class a peer, and netem below it. Duplicates
//! are made by iptables: kernels of 2026 refuse a netem that duplicates beside any other netem on a device.
//!
//! ```text
//! root htb H: ── class H:2 rate 1 Mbit/s ── netem 20: delay 50ms      dst n2
//!             └─ class H:3 …                                          dst n3      everything else passes unshaped
//! ```

use super::Spot;
use crate::agent::Request;
use nemesis::{Capability, LinkShape};
use serde_json::Value;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// A class without a bandwidth: more than any link here carries.
const UNLIMITED: &str = "100gbit";
/// What the name of the chain of copies ends in.
pub const COPIES: &str = "-D";
/// Packets that netem keeps at most: a second of a fast link.
const KEPT: u32 = 100_000;

/// The qdiscs of one sender.
#[derive(Debug, Default)]
pub struct Shaping {
    device: String,
    /// The handle of the root, by which a qdisc of the run is known.
    handle: String,
    netem: bool,
    copying: bool,
    /// The chain of the run in the table `mangle`, once it was needed, and what it duplicates.
    copies: Option<String>,
    copied: BTreeMap<usize, (Ipv4Addr, f64)>,
    addresses: BTreeMap<usize, Ipv4Addr>,
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
        reorder: shape.reorder,
        corrupt: shape.corrupt,
        ..LinkShape::default()
    }
}

/// The handle of the root qdisc of a run, in hexadecimal: numbers are short, so it is no proof by itself, but nobody who
/// configures a qdisc by hand takes one like it.
pub fn handle(run: &str) -> String {
    let number = run.bytes().fold(0u16, |n, b| n.wrapping_mul(31).wrapping_add(u16::from(b)));
    // Above those of the leaves; the last is the kernel's own.
    format!("{:x}", 0x8000 | (number & 0x7ffe))
}

/// Where copies of packets for a peer are sent: to itself, or to the router on the way.
fn gateway(route: &str, peer: Ipv4Addr) -> Ipv4Addr {
    let via = route.split(" via ").nth(1).and_then(|rest| rest.split_whitespace().next());
    via.and_then(|address| address.parse().ok()).unwrap_or(peer)
}

impl Shaping {
    /// Finds the device through which a node reaches its peers.
    pub async fn open(run: &str, spot: &Spot, peer: Option<&Spot>) -> Result<Shaping, String> {
        let Some(peer) = peer else { return Ok(Shaping::default()) };
        let route = spot.agent.run(&["ip", "-o", "route", "get", &peer.address.to_string()], None).await?;
        let device = route.split(" dev ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let device = device.ok_or_else(|| format!("{} has no route to {}: {route}", spot.name, peer.name))?;
        Ok(Shaping {
            device: device.to_owned(),
            handle: handle(run),
            netem: true,
            copying: true,
            ..Shaping::default()
        })
    }

    /// Which of the kernel's schedulers are there, tried on the node's own loopback device, which nobody shapes.
    pub async fn abilities(&self, spot: &Spot) -> Vec<(Capability, Result<(), String>)> {
        let netem = try_out(spot, "netem", &["delay", "1ms"]).await;
        let htb = try_out(spot, "htb", &[]).await;
        let both = htb.clone().and(netem);
        let scramble = match &both {
            Ok(()) => try_copying(spot).await,
            Err(why) => Err(why.clone()),
        };
        let random = ["-m", "statistic", "--mode", "random", "--probability", "0.5"];
        let lossy = try_rule(spot, "filter", &[&random[..], &["-j", "DROP"]].concat()).await;
        let lossy = lossy.map_err(|why| lacks(spot, "xt_statistic", "loses packets at random", &why));
        let reset = ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"];
        let reset = try_rule(spot, "filter", &reset).await;
        let reset = reset.map_err(|why| lacks(spot, "ipt_REJECT", "resets connections", &why));
        let resets = lossy.clone().and(reset);
        vec![
            (Capability::Loss, lossy),
            (Capability::Reset, resets),
            (Capability::Rate, htb),
            (Capability::Delay, both),
            (Capability::Scramble, scramble),
        ]
    }

    /// Sets what is done to the packets for one peer. `chain` names the run's chain.
    ///
    /// # Errors
    /// If the node's kernel refuses; then nothing is done to that peer's packets any more.
    pub async fn set(
        &mut self,
        spot: &Spot,
        chain: &str,
        peer: usize,
        address: Ipv4Addr,
        shape: LinkShape,
    ) -> Result<(), String> {
        if self.copying {
            self.copy(spot, chain, peer, address, shape.duplicate).await?;
        }
        let wanted = part(shape, self.netem);
        let now = self.shaped.get(&peer).copied().unwrap_or_default();
        if wanted == now {
            return Ok(());
        }
        let (device, handle, class) = (self.device.clone(), self.handle.clone(), peer + 1);
        if !self.rooted {
            self.refuse_anothers(spot).await?;
            let major = format!("{handle}:");
            let root = ["tc", "qdisc", "add", "dev", &device, "root", "handle", &major, "htb"];
            spot.agent.run(&root, None).await?;
            self.rooted = true;
            let argv = ["tc", "qdisc", "del", "dev", &device, "root"].map(str::to_owned).to_vec();
            spot.agent.ask::<()>(Request::AtEnd { argv }).await?;
        }
        let mut batch = Vec::new();
        if now != LinkShape::default() {
            let counted = self.read(spot, peer).await;
            *self.limited.entry(peer).or_default() += counted;
            batch.extend(removal(&device, &handle, class));
        }
        if wanted != LinkShape::default() {
            batch.extend(commands(&device, &handle, class, address, wanted));
        }
        self.shaped.remove(&peer);
        if let Err(why) = spot.agent.run(&["tc", "-batch", "-"], Some(batch.join("\n") + "\n")).await {
            // Whatever of it is there goes: what is not there cannot be removed, and that is no error.
            let all = removal(&device, &handle, class).join("\n") + "\n";
            let _ = spot.agent.run(&["tc", "-force", "-batch", "-"], Some(all)).await;
            return Err(why);
        }
        if wanted != LinkShape::default() {
            self.shaped.insert(peer, wanted);
        }
        Ok(())
    }

    /// Sets which part of the packets for a peer is sent twice.
    async fn copy(
        &mut self,
        spot: &Spot,
        chain: &str,
        peer: usize,
        address: Ipv4Addr,
        probability: f64,
    ) -> Result<(), String> {
        let now = self.copied.get(&peer).map_or(0.0, |(_, p)| *p);
        if now == probability {
            return Ok(());
        }
        let chain = format!("{chain}{COPIES}");
        if self.copies.is_none() {
            let iptables = |words: &[&str]| {
                ["iptables", "-w", "10", "-t", "mangle"]
                    .iter()
                    .chain(words)
                    .map(|w| (*w).to_owned())
                    .collect::<Vec<_>>()
            };
            for (done, undone) in [
                (iptables(&["-N", &chain]), vec![iptables(&["-X", &chain]), iptables(&["-F", &chain])]),
                (
                    iptables(&["-I", "OUTPUT", "1", "-j", &chain]),
                    vec![iptables(&["-D", "OUTPUT", "-j", &chain])],
                ),
            ] {
                spot.agent.ask::<String>(Request::Run { argv: done, input: None }).await?;
                for argv in undone {
                    spot.agent.ask::<()>(Request::AtEnd { argv }).await?;
                }
            }
            self.copies = Some(chain.clone());
        }
        let mut wanted = self.copied.clone();
        if probability > 0.0 {
            let route = spot.agent.run(&["ip", "-o", "route", "get", &address.to_string()], None).await?;
            wanted.insert(peer, (gateway(&route, address), probability));
        } else {
            wanted.remove(&peer);
        }
        let mut rules = format!("*mangle\n:{chain} - [0:0]\n");
        for (to, (gateway, p)) in &wanted {
            let to = if *to == peer { address } else { self.addresses.get(to).copied().unwrap_or(*gateway) };
            rules.push_str(&format!(
                "-A {chain} -d {to}/32 -m statistic --mode random --probability {p:.6} -j TEE --gateway {gateway}\n"
            ));
        }
        rules.push_str("COMMIT\n");
        spot.agent.run(&["iptables-restore", "-w", "10", "--noflush"], Some(rules)).await?;
        self.addresses.insert(peer, address);
        self.copied = wanted;
        Ok(())
    }

    /// Leaves to a stand-in what netem would do, and duplicates, too.
    pub fn without_netem(&mut self) {
        (self.netem, self.copying) = (false, false);
    }

    /// Leaves duplicates to a stand-in.
    pub fn without_copies(&mut self) {
        self.copying = false;
    }

    /// Forgets what was set, because the network is a new one, and returns it to be set again.
    pub fn begin_anew(&mut self) -> BTreeMap<usize, LinkShape> {
        self.rooted = false;
        self.copies = None;
        let mut shapes = std::mem::take(&mut self.shaped);
        for (peer, (_, probability)) in std::mem::take(&mut self.copied) {
            shapes.entry(peer).or_default().duplicate = probability;
        }
        shapes
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
        overlimits(&spot.agent.run(&show, None).await.unwrap_or_default(), &self.handle, peer + 1)
    }
}

/// Reads `tc -s class show`.
fn overlimits(text: &str, handle: &str, class: usize) -> u64 {
    let name = format!("class htb {handle}:{class} ");
    let block = text.split("class htb ").map(|b| format!("class htb {b}")).find(|b| b.starts_with(&name));
    let count =
        block.as_deref().and_then(|b| b.split("overlimits ").nth(1)).and_then(|r| r.split(' ').next());
    count.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What removes a class, its leaf and its filter.
fn removal(device: &str, handle: &str, class: usize) -> Vec<String> {
    vec![
        format!("filter del dev {device} parent {handle}: protocol ip prio {class} u32"),
        format!("class del dev {device} classid {handle}:{class}"),
    ]
}

/// What makes a class and its leaf.
fn commands(device: &str, handle: &str, class: usize, address: Ipv4Addr, shape: LinkShape) -> Vec<String> {
    let rate = match shape.bytes_per_second {
        0 => UNLIMITED.to_owned(),
        bytes => format!("{}bit", bytes.saturating_mul(8)),
    };
    let mut out = vec![
        format!(
            "class add dev {device} parent {handle}: classid {handle}:{class} htb rate {rate} quantum 1514"
        ),
        format!(
            "filter add dev {device} parent {handle}: protocol ip prio {class} u32 match ip dst {address}/32 flowid {handle}:{class}"
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
    for (word, probability) in [("reorder", shape.reorder), ("corrupt", shape.corrupt)] {
        if probability > 0.0 {
            netem.push_str(&format!(" {word} {:.4}%", probability * 100.0));
        }
    }
    if !netem.is_empty() {
        out.push(format!(
            "qdisc add dev {device} parent {handle}:{class} handle {}: netem limit {KEPT}{netem}",
            class + 100
        ));
    }
    out
}

/// Tries to have packets copied.
async fn try_copying(spot: &Spot) -> Result<(), String> {
    let tried = try_rule(spot, "mangle", &["-d", "127.0.0.1", "-j", "TEE", "--gateway", "127.0.0.1"]).await;
    tried.map_err(|why| lacks(spot, "xt_TEE", "duplicates packets", &why))
}

/// Tries a rule, in a chain to which nothing leads.
async fn try_rule(spot: &Spot, table: &str, rule: &[&str]) -> Result<(), String> {
    let chain = format!("TRIB-try-{:08x}", rand::random::<u32>());
    let iptables = async |words: &[&str]| {
        let argv = [&["iptables", "-w", "10", "-t", table], words].concat();
        spot.agent.run(&argv, None).await
    };
    iptables(&["-N", &chain]).await?;
    let tried = iptables(&[&["-A", &chain], rule].concat()).await;
    iptables(&["-F", &chain]).await?;
    iptables(&["-X", &chain]).await?;
    tried.map(|_| ())
}

/// A module that a node's kernel lacks, what it would do, and what was said when it was tried.
fn lacks(spot: &Spot, module: &str, what: &str, said: &str) -> String {
    let said = said.lines().last().unwrap_or_default().trim();
    format!("{} has no `{module}` in its kernel, which {what} ({said}); load the module", spot.name)
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
            reorder: 0.25,
            corrupt: 0.01,
            ..LinkShape::default()
        };
        let shown = [rate, all].map(|s| commands("eth0", "8abc", 2, address, s).join("\n")).join("\n\n");
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn copies_go_to_the_peer_or_to_the_router_on_the_way() {
        let peer = Ipv4Addr::new(10, 0, 0, 5);
        assert_eq!(gateway("10.0.0.5 dev eth0 src 10.0.0.1 uid 0", peer), peer);
        let routed = "10.0.0.5 via 192.168.1.1 dev eth0 src 192.168.1.7";
        assert_eq!(gateway(routed, peer), Ipv4Addr::new(192, 168, 1, 1));
    }

    #[test]
    fn counters_of_a_class_are_found_among_others() {
        let text = "class htb 1:1 root prio 0 rate 1Mbit ceil 1Mbit burst 1600b cburst 1600b\n \
            Sent 100 bytes 2 pkt (dropped 0, overlimits 3 requeues 0)\n backlog 0b 0p requeues 0\n\n\
            class htb 1:12 root leaf 112: prio 0 rate 1Mbit\n Sent 0 bytes 0 pkt (dropped 0, overlimits 17 requeues 0)\n";
        assert_eq!(
            (overlimits(text, "1", 1), overlimits(text, "1", 12), overlimits(text, "1", 2)),
            (3, 17, 0)
        );
    }
}
