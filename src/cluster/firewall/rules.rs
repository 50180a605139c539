//! The chain of one receiver, as text for `iptables-restore`, and its counters, read back by the rules' comments. Pure.

use nemesis::{Cut, LinkShape, LinkStats, NodeName, grudge::CLIENTS};
use std::{collections::BTreeMap, fmt::Write, net::Ipv4Addr};

/// What the rules at a receiver do to the packets of each of its peers.
pub struct Rules {
    chain: String,
    peers: Vec<(NodeName, Ipv4Addr, LinkShape)>,
    clients: Option<(Clients, LinkShape, LinkShape)>,
    queue: Option<u16>,
}

/// How the clients are told from everybody else at a node.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// The addresses from which they may come.
    pub addresses: Vec<Ipv4Addr>,
    /// The ports that they speak to.
    pub ports: Vec<u16>,
}

/// What the answers of a node to the clients are called in comments.
pub const ANSWERS: &str = "to-clients";

/// How the chain of what a node answers clients ends.
pub const ANSWERS_SUFFIX: &str = "-C";

/// The chain of what a node answers clients.
pub fn answers(chain: &str) -> String {
    format!("{chain}{ANSWERS_SUFFIX}")
}

/// Whether netem, or what stands in for it, has to do something.
pub fn treated(shape: &LinkShape) -> bool {
    shape.delay.ns() > 0
        || shape.jitter.ns() > 0
        || shape.duplicate > 0.0
        || shape.reorder > 0.0
        || shape.corrupt > 0.0
}

/// The part of a shape that is done by rules.
pub fn of(incoming: &BTreeMap<NodeName, LinkShape>) -> Vec<(NodeName, Cut, u64, u64, bool)> {
    let part = |(name, s): (&NodeName, &LinkShape)| {
        (name.clone(), s.cut, s.loss.to_bits(), s.reset_probability.to_bits(), treated(s))
    };
    incoming.iter().map(part).filter(|p| p.1 != Cut::Open || p.2 != 0 || p.3 != 0 || p.4).collect()
}

impl Rules {
    /// The rules for these peers.
    pub fn new(chain: &str, peers: Vec<(NodeName, Ipv4Addr, LinkShape)>, queue: Option<u16>) -> Self {
        Rules { chain: chain.to_owned(), peers, clients: None, queue }
    }

    /// With rules for what clients ask and for what they are answered.
    pub fn with_clients(self, clients: Clients, asked: LinkShape, answered: LinkShape) -> Self {
        Rules { clients: Some((clients, asked, answered)), ..self }
    }

    /// As `iptables-restore --noflush` takes it: the chain is replaced at once, everything else stays.
    pub fn text(&self) -> String {
        let mut out = format!("*filter\n:{} - [0:0]\n", self.chain);
        if self.clients.is_some() {
            let _ = writeln!(out, ":{} - [0:0]", answers(&self.chain));
        }
        for (name, address, shape) in &self.peers {
            let mut rule = |what: &str, rest: &str| {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    out,
                    "-A {} -s {address}/32{rest} -m comment --comment \"{name} {what}\"{}",
                    self.chain,
                    jump(what, self.queue)
                );
            };
            match shape.cut {
                Cut::Hold => rule("held", ""),
                Cut::Reset => {
                    // Our own resets come back this way, if the other direction is reset as well.
                    rule("answers", " -p tcp --tcp-flags RST RST");
                    rule("reset", " -p tcp");
                    rule("held", "");
                }
                Cut::Open => {
                    if shape.loss > 0.0 {
                        rule("lost", &format!(" -m statistic --mode random --probability {:.6}", shape.loss));
                    }
                    if shape.reset_probability > 0.0 {
                        let p = shape.reset_probability;
                        rule("reset", &format!(" -p tcp -m statistic --mode random --probability {p:.6}"));
                    }
                    rule("delivered", "");
                    if treated(shape) && self.queue.is_some() {
                        rule("queued", "");
                    }
                }
            }
        }
        if let Some((clients, asked, answered)) = &self.clients {
            let ports = clients.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            for address in &clients.addresses {
                let who = format!("-s {address}/32 -p tcp -m multiport --dports {ports}");
                for (what, rest) in cut(asked.cut) {
                    let (chain, jump) = (&self.chain, jump(what, None));
                    let _ = writeln!(
                        out,
                        "-A {chain} {who}{rest} -m comment --comment \"{CLIENTS} {what}\"{jump}"
                    );
                }
                let who = format!("-d {address}/32 -p tcp -m multiport --sports {ports}");
                for (what, rest) in cut(answered.cut) {
                    let (chain, jump) = (answers(&self.chain), jump(what, None));
                    let _ = writeln!(
                        out,
                        "-A {chain} {who}{rest} -m comment --comment \"{ANSWERS} {what}\"{jump}"
                    );
                }
            }
        }
        out.push_str("COMMIT\n");
        out
    }
}

/// The rules of a cut between a node and clients: what is counted, and what it matches beyond the rest.
fn cut(cut: Cut) -> Vec<(&'static str, &'static str)> {
    match cut {
        Cut::Open => vec![("delivered", "")],
        Cut::Hold => vec![("held", "")],
        Cut::Reset => vec![("answers", " --tcp-flags RST RST"), ("reset", "")],
    }
}

fn jump(what: &str, queue: Option<u16>) -> String {
    match (what, queue) {
        ("held" | "lost", _) => " -j DROP".to_owned(),
        ("reset", _) => " -j REJECT --reject-with tcp-reset".to_owned(),
        ("answers", _) => " -j ACCEPT".to_owned(),
        // If its reader dies, packets pass.
        ("queued", Some(number)) => format!(" -j NFQUEUE --queue-num {number} --queue-bypass"),
        _ => String::new(),
    }
}

/// Reads `iptables -n -v -x -L CHAIN`.
pub fn counters(text: &str) -> BTreeMap<NodeName, LinkStats> {
    let mut all: BTreeMap<NodeName, LinkStats> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(packets), Some(bytes)) = (number(words.next()), number(words.next())) else { continue };
        let Some(comment) = line.split("/* ").nth(1).and_then(|c| c.split(" */").next()) else { continue };
        let Some((name, what)) = comment.trim().rsplit_once(' ') else { continue };
        let stats = all.entry(NodeName::from(name)).or_default();
        match what {
            "held" => stats.held_bytes += bytes,
            "delivered" => stats.delivered_bytes += bytes,
            "reset" => stats.resets += packets,
            "lost" => stats.lost += packets,
            _ => {}
        }
    }
    all
}

fn number(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}

/// Adds counters.
pub fn add(to: &mut LinkStats, more: &LinkStats) {
    to.delivered_bytes += more.delivered_bytes;
    to.held_bytes += more.held_bytes;
    to.resets += more.resets;
    to.lost += more.lost;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(change: impl Fn(&mut LinkShape)) -> LinkShape {
        let mut shape = LinkShape::default();
        change(&mut shape);
        shape
    }

    #[test]
    fn a_chain_has_the_rules_of_all_its_peers() {
        let peers = [
            ("n1", LinkShape::default()),
            ("n3", shape(|s| s.cut = Cut::Hold)),
            ("n4", shape(|s| s.cut = Cut::Reset)),
            ("n5", shape(|s| (s.loss, s.reset_probability) = (0.2, 0.01))),
            ("n6", shape(|s| s.duplicate = 0.1)),
        ];
        let address = |i: usize| Ipv4Addr::new(10, 213, 7, 11 + i as u8);
        let peers =
            peers.iter().enumerate().map(|(i, (n, s))| (NodeName::from(*n), address(i), *s)).collect();
        insta::assert_snapshot!(Rules::new("TRIB-t1", peers, Some(4711)).text());
    }

    #[test]
    fn clients_are_cut_off_at_their_ports_only() {
        let clients = Clients { addresses: vec![Ipv4Addr::new(10, 213, 7, 1)], ports: vec![7001, 7002] };
        let of = |cut| LinkShape { cut, ..LinkShape::default() };
        let text =
            |a, b| Rules::new("TRIB-t1", vec![], None).with_clients(clients.clone(), of(a), of(b)).text();
        insta::assert_snapshot!([text(Cut::Hold, Cut::Open), text(Cut::Reset, Cut::Hold)].join("\n"));
    }

    #[test]
    fn counters_are_read_by_comment_whatever_the_columns() {
        let text = "Chain TRIB-t1 (1 references)\n\
            \x20   pkts      bytes target     prot opt in     out     source               destination\n\
            \x20       3      180 DROP       all  --  *      *       10.213.7.13          0.0.0.0/0            /* n3 held */\n\
            \x20      10     1200            all  --  *      *       10.213.7.11          0.0.0.0/0            /* n1 delivered */\n\
            \x20       4      240 DROP       0    --  *      *       10.213.7.15          0.0.0.0/0            statistic mode random probability 0.20000000019 /* n5 lost */\n\
            \x20       2      120 REJECT     6    --  *      *       10.213.7.14          0.0.0.0/0            /* n4 reset */ reject-with tcp-reset\n";
        let all = counters(text);
        let of = |n: &str| all[&NodeName::from(n)];
        assert_eq!(of("n3").held_bytes, 180);
        assert_eq!(of("n1").delivered_bytes, 1200);
        assert_eq!(of("n5").lost, 4);
        assert_eq!(of("n4").resets, 2);
    }
}
