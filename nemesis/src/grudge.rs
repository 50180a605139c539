//! Who does not hear whom: the shapes of network partitions, as sets of links that are cut.
//!
//! ```text
//! isolate-one       {a} | {b c d e}            halves            {a b} | {c d e}
//! isolate-leader    {leader} | {the rest}      leader-minority   {leader x} | {the rest}
//! majority-minority {a b} | {c d e}            bridge            {a b} - c - {d e}
//! leader-bridge     a bridge with the leader in one of the halves
//! majorities-ring   each hears only its neighbours on a ring, so that every node sees another majority
//! leader-deaf       nothing reaches the leader; it is still heard
//! leader-mute       the leader is not heard; everything reaches it
//! one-way           one random node is deaf or mute
//! clients           no client reaches the target, nor the target a client
//! clients-mute      what clients ask does not reach the target
//! clients-deaf      what the target answers does not reach the clients: it does what it is asked, and nobody learns of it
//! ```
//! A plan can also name links (`cut: [n1>n2, clients>n3]`) or groups (`groups: [[n1, n2], [n3]]`) itself; see [`explicit`].
//! The clients together are one end of a link there, [`CLIENTS`].
//! The names are Jepsen's where it has one. Pure: randomness is an argument.

use crate::cluster::{Link, NodeName};
use rand::{Rng, RngExt, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// What the clients together are called where a link is named.
pub const CLIENTS: &str = "clients";

/// The shape of a partition. Those between nodes never cut off clients, those of clients no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// One random node alone.
    IsolateOne,
    /// The leader alone.
    IsolateLeader,
    /// The leader with as many others as leave it a minority.
    LeaderMinority,
    /// A random minority against the rest.
    MajorityMinority,
    /// Two halves; with an odd number one is larger by one.
    Halves,
    /// Every node sees a majority, no two see the same (needs at least five nodes to differ from a whole network).
    MajoritiesRing,
    /// Two halves that only one node in the middle connects.
    Bridge,
    /// Two halves that only one node in the middle connects, which does not lead.
    LeaderBridge,
    /// The leader hears nobody, and is heard.
    LeaderDeaf,
    /// The leader hears everybody, and is not heard.
    LeaderMute,
    /// One random node is deaf or mute.
    OneWay,
    /// The target and the clients hear nothing of each other.
    Clients,
    /// The target does not hear the clients.
    ClientsMute,
    /// The clients do not hear the target.
    ClientsDeaf,
}

impl Shape {
    /// Every shape, in the order of the documentation.
    pub const ALL: &'static [Shape] = &[
        Shape::IsolateOne,
        Shape::IsolateLeader,
        Shape::LeaderMinority,
        Shape::MajorityMinority,
        Shape::Halves,
        Shape::MajoritiesRing,
        Shape::Bridge,
        Shape::LeaderBridge,
        Shape::LeaderDeaf,
        Shape::LeaderMute,
        Shape::OneWay,
        Shape::Clients,
        Shape::ClientsMute,
        Shape::ClientsDeaf,
    ];

    /// The names, for messages.
    pub fn names() -> String {
        Shape::ALL.iter().map(Shape::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Whether it is one between clients and nodes, which has a target.
    pub fn of_clients(self) -> bool {
        matches!(self, Shape::Clients | Shape::ClientsMute | Shape::ClientsDeaf)
    }

    /// Whether it depends on who leads.
    pub fn needs_leader(self) -> bool {
        matches!(
            self,
            Shape::IsolateLeader
                | Shape::LeaderMinority
                | Shape::LeaderBridge
                | Shape::LeaderDeaf
                | Shape::LeaderMute
        )
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::IsolateOne => "isolate-one",
            Shape::IsolateLeader => "isolate-leader",
            Shape::LeaderMinority => "leader-minority",
            Shape::MajorityMinority => "majority-minority",
            Shape::Halves => "halves",
            Shape::MajoritiesRing => "majorities-ring",
            Shape::Bridge => "bridge",
            Shape::LeaderBridge => "leader-bridge",
            Shape::LeaderDeaf => "leader-deaf",
            Shape::LeaderMute => "leader-mute",
            Shape::OneWay => "one-way",
            Shape::Clients => "clients",
            Shape::ClientsMute => "clients-mute",
            Shape::ClientsDeaf => "clients-deaf",
        })
    }
}

/// The links that a shape cuts. Without a known leader a random node stands in for it, and a random node for the target of
/// a shape that has one; see [`from_clients`].
pub fn grudge(
    shape: Shape,
    nodes: &[NodeName],
    leader: Option<&NodeName>,
    rng: &mut impl Rng,
) -> BTreeSet<Link> {
    let n = nodes.len();
    let mut order = nodes.to_vec();
    order.shuffle(rng);
    if shape.needs_leader()
        && let Some(at) = leader.and_then(|l| order.iter().position(|x| x == l))
    {
        order.swap(0, at);
    }
    let minority = (n.saturating_sub(1)) / 2;
    match shape {
        Shape::IsolateOne | Shape::IsolateLeader => split(&order, 1),
        Shape::LeaderMinority => split(&order, minority.max(1)),
        Shape::MajorityMinority => {
            let k = rng.random_range(1..=minority.max(1));
            split(&order, k)
        }
        Shape::Halves => split(&order, n / 2),
        Shape::Bridge | Shape::LeaderBridge => {
            let (left, rest) = order.split_at(n / 2);
            between(left, rest.get(1..).unwrap_or_default())
        }
        Shape::MajoritiesRing => ring(&order),
        Shape::LeaderDeaf => one_way(&order, true),
        Shape::LeaderMute => one_way(&order, false),
        Shape::OneWay => {
            let deaf = rng.random();
            one_way(&order, deaf)
        }
        Shape::Clients | Shape::ClientsMute | Shape::ClientsDeaf => {
            from_clients(shape, order.get(..1).unwrap_or_default())
        }
    }
}

/// The links between these nodes and the clients that a shape cuts.
pub fn from_clients(shape: Shape, targets: &[NodeName]) -> BTreeSet<Link> {
    let clients = NodeName::from(CLIENTS);
    let mut cut = BTreeSet::new();
    for node in targets {
        if shape != Shape::ClientsDeaf {
            cut.insert(Link::new(&clients, node));
        }
        if shape != Shape::ClientsMute {
            cut.insert(Link::new(node, &clients));
        }
    }
    cut
}

/// The links that a plan names itself, and those between nodes of different groups. Nodes in no group keep all their
/// links.
pub fn explicit(cut: &[Link], groups: &[Vec<NodeName>]) -> BTreeSet<Link> {
    let mut all: BTreeSet<Link> = cut.iter().cloned().collect();
    for (i, group) in groups.iter().enumerate() {
        all.extend(groups[i + 1..].iter().flat_map(|other| between(group, other)));
    }
    all
}

/// What is wrong with links and groups that a plan names itself, if anything.
pub fn mistake(cut: &[Link], groups: &[Vec<NodeName>]) -> Option<String> {
    if let Some(link) = cut.iter().find(|l| l.from == l.to) {
        return Some(format!("there is no link from {} to itself", link.from));
    }
    if groups.len() == 1 || groups.iter().any(Vec::is_empty) {
        return Some(
            "`groups` are two at least, none of them empty: those of different groups are cut off".to_owned(),
        );
    }
    let mut seen = BTreeSet::new();
    let twice = groups.iter().flatten().find(|node| !seen.insert(*node));
    twice.map(|node| format!("{node} is in more than one of the `groups`"))
}

fn split(order: &[NodeName], at: usize) -> BTreeSet<Link> {
    let (left, right) = order.split_at(at);
    between(left, right)
}

fn between(left: &[NodeName], right: &[NodeName]) -> BTreeSet<Link> {
    left.iter().flat_map(|a| right.iter().flat_map(move |b| [Link::new(a, b), Link::new(b, a)])).collect()
}

fn one_way(order: &[NodeName], deaf: bool) -> BTreeSet<Link> {
    let (one, rest) = (&order[0], &order[1..]);
    rest.iter().map(|x| if deaf { Link::new(x, one) } else { Link::new(one, x) }).collect()
}

/// Everyone keeps the neighbours that make a bare majority with itself: `n/2` of them, on both sides of a ring.
fn ring(order: &[NodeName]) -> BTreeSet<Link> {
    let n = order.len();
    let reach = (n / 2).div_ceil(2);
    let mut cut = BTreeSet::new();
    for i in 0..n {
        for j in 0..n {
            let apart = i.abs_diff(j).min(n - i.abs_diff(j));
            if i != j && apart > reach {
                cut.insert(Link::new(&order[i], &order[j]));
            }
        }
    }
    cut
}

/// The only node of which no link is cut while others are cut off from each other, if there is exactly one.
pub fn bridge(nodes: &[NodeName], cut: &BTreeSet<Link>) -> Option<NodeName> {
    let mut whole = nodes.iter().filter(|x| !cut.iter().any(|l| l.from == **x || l.to == **x));
    let one = whole.next().cloned();
    one.filter(|_| !cut.is_empty() && whole.next().is_none())
}

/// Whether some majority of the nodes can all hear each other although these links are cut, and clients can speak to one
/// of them.
pub fn majority_connected(nodes: &[NodeName], cut: &BTreeSet<Link>, down: &BTreeSet<NodeName>) -> bool {
    let need = nodes.len() / 2 + 1;
    let both =
        |a: &NodeName, b: &NodeName| !cut.contains(&Link::new(a, b)) && !cut.contains(&Link::new(b, a));
    let clients = NodeName::from(CLIENTS);
    // A leader needs only to reach a majority itself: one hub is enough.
    nodes.iter().filter(|x| !down.contains(*x)).any(|hub| {
        let near = || nodes.iter().filter(|x| !down.contains(*x) && (*x == hub || both(hub, x)));
        near().count() >= need && near().any(|x| both(&clients, x))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn nodes(n: usize) -> Vec<NodeName> {
        (1..=n).map(|i| NodeName::from(format!("n{i}"))).collect()
    }

    fn hears(to: &NodeName, all: &[NodeName], cut: &BTreeSet<Link>) -> usize {
        all.iter().filter(|x| *x != to && !cut.contains(&Link::new(x, to))).count()
    }

    proptest! {
        #[test]
        fn every_shape_cuts_something_and_never_a_node_from_itself(n in 3usize..8, seed: u64, lead in 0usize..3) {
            let all = nodes(n);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for &shape in Shape::ALL {
                let cut = grudge(shape, &all, Some(&all[lead]), &mut rng);
                if !(n < 5 && matches!(shape, Shape::MajoritiesRing)) {
                    prop_assert!(!cut.is_empty(), "{shape} with {n} nodes");
                }
                prop_assert!(cut.iter().all(|l| l.from != l.to));
            }
        }

        #[test]
        fn the_leader_is_where_the_shape_says(n in 3usize..8, seed: u64, lead in 0usize..3) {
            let all = nodes(n);
            let leader = &all[lead];
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let cut = grudge(Shape::IsolateLeader, &all, Some(leader), &mut rng);
            prop_assert_eq!(hears(leader, &all, &cut), 0);
            let cut = grudge(Shape::LeaderMinority, &all, Some(leader), &mut rng);
            prop_assert!(hears(leader, &all, &cut) < n.div_ceil(2));
            let cut = grudge(Shape::LeaderMute, &all, Some(leader), &mut rng);
            prop_assert_eq!(hears(leader, &all, &cut), n - 1);
            prop_assert!(cut.iter().all(|l| &l.from == leader));
        }
    }

    #[test]
    fn links_and_groups_can_be_named() {
        let link = |text: &str| text.parse::<Link>().unwrap();
        let group = |names: &str| names.split(' ').map(NodeName::from).collect::<Vec<_>>();
        let words = |cut: BTreeSet<Link>| cut.iter().map(Link::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(words(explicit(&[link("n1>n2"), link("clients>n3")], &[])), "clients→n3 n1→n2");
        let cut = explicit(&[link("n3>n1")], &[group("n1 n2"), group("n4")]);
        assert_eq!(words(cut), "n1→n4 n2→n4 n3→n1 n4→n1 n4→n2");
        assert!("n1-n2".parse::<Link>().is_err() && ">n2".parse::<Link>().is_err());
        assert!(mistake(&[link("n1>n1")], &[]).unwrap().contains("to itself"));
        assert!(mistake(&[], &[group("n1 n2"), group("n2")]).unwrap().contains("n2 is in more than one"));
        assert!(mistake(&[], &[group("n1 n2")]).unwrap().contains("two at least"));
    }

    #[test]
    fn clients_that_reach_no_node_of_the_majority_reach_no_majority() {
        let (all, none) = (nodes(3), BTreeSet::new());
        let one = from_clients(Shape::ClientsDeaf, &all[..1]);
        assert!(majority_connected(&all, &one, &none), "two nodes can be asked");
        assert!(!majority_connected(&all, &from_clients(Shape::ClientsMute, &all), &none));
        // The two that clients reach are cut off from each other, the third is not reached.
        let cut =
            from_clients(Shape::Clients, &all[1..]).union(&between(&all[..1], &all[1..])).cloned().collect();
        assert!(!majority_connected(&all, &cut, &none));
    }

    #[test]
    fn in_a_ring_every_node_sees_a_majority_and_no_two_the_same() {
        let all = nodes(5);
        let cut = grudge(Shape::MajoritiesRing, &all, None, &mut ChaCha8Rng::seed_from_u64(1));
        let seen: BTreeSet<Vec<&NodeName>> = all
            .iter()
            .map(|x| all.iter().filter(|y| *y == x || !cut.contains(&Link::new(y, x))).collect())
            .collect();
        assert_eq!(seen.len(), 5);
        assert!(seen.iter().all(|s| s.len() == 3));
    }

    #[test]
    fn a_bridge_connects_a_majority_and_halves_of_four_do_not() {
        let all = nodes(5);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let none = BTreeSet::new();
        let cut = grudge(Shape::Bridge, &all, None, &mut rng);
        assert!(majority_connected(&all, &cut, &none));
        let middle = bridge(&all, &cut).unwrap();
        assert_eq!(hears(&middle, &all, &cut), 4);
        assert_eq!(bridge(&all, &BTreeSet::new()), None);
        let four = nodes(4);
        assert!(!majority_connected(&four, &grudge(Shape::Halves, &four, None, &mut rng), &none));
        assert!(!majority_connected(&all, &BTreeSet::new(), &all[..3].iter().cloned().collect()));
    }
}
