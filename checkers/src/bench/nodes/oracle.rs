//! The checker against a cluster that keeps all invariants, and against definitions that compare everything with everything.
//!
//! ```text
//! a small cluster, at random: elections, votes, syncs, crashes, lost disks, snapshots ─▶ looks ─▶ valid
//!                                        one number of one look is changed ─▶ the checker and the definitions agree
//! ```

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::node_invariants;
use crate::{
    Budget, Checker, Event, Header, History, Kind, Meta, Op, Process, Validity, Verdict,
    node_state::{NODE_STATE, NODE_WATCH, NodeState, Prefix, SlotState},
};

type Ballot = (u64, u64);

#[derive(Clone, Default)]
struct Node {
    storage: u64,
    incarnation: u64,
    promised: Ballot,
    recovered: Ballot,
    /// Ballot, value, whether on the disk.
    votes: BTreeMap<u64, (Ballot, u64, bool)>,
    applied: u64,
    snapshot: u64,
}

/// A cluster that decides slot by slot, and keeps all its promises.
struct Cluster {
    rng: ChaCha8Rng,
    nodes: Vec<Node>,
    ballot: Ballot,
    chosen: Vec<u64>,
    looks: Vec<NodeState>,
    next_value: u64,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let size = [1, 3, 5][rng.random_range(0..3)];
        let node = |n| Node { storage: n, incarnation: 1, ..Node::default() };
        let nodes = (0..size).map(node).collect();
        Cluster { rng, nodes, ballot: (0, 0), chosen: vec![], looks: vec![], next_value: 100 }
    }

    fn majority(&mut self) -> BTreeSet<usize> {
        let size = self.nodes.len();
        let wanted = self.rng.random_range(size / 2 + 1..=size);
        let mut members = BTreeSet::new();
        while members.len() < wanted {
            members.insert(self.rng.random_range(0..size));
        }
        members
    }

    fn elect(&mut self) {
        self.ballot = (self.ballot.0 + 1, self.rng.random_range(1..=self.nodes.len() as u64));
        for node in self.majority() {
            self.nodes[node].promised = self.ballot;
        }
    }

    /// A majority votes for the next slot, as phase 1 demands; whether that is on all their disks decides if it is chosen.
    fn propose(&mut self) {
        self.elect();
        let slot = self.chosen.len() as u64 + 1;
        let voters = self.majority();
        // Everyone is asked, which is more than a majority: whatever was voted for is found.
        let voted = self.nodes.iter().filter_map(|node| node.votes.get(&slot)).max();
        let value = voted.map_or(self.next_value, |vote| vote.1);
        self.next_value += 1;
        let synced = self.rng.random_bool(0.8);
        for node in &voters {
            let node = &mut self.nodes[*node];
            node.promised = self.ballot;
            node.votes.insert(slot, (self.ballot, value, synced));
        }
        if synced {
            self.chosen.push(value);
        }
    }

    fn learn(&mut self, at: usize) {
        let to = self.rng.random_range(self.nodes[at].applied..=self.chosen.len() as u64);
        let ballot = self.ballot;
        let node = &mut self.nodes[at];
        for slot in node.applied + 1..=to {
            let value = self.chosen[slot as usize - 1];
            let vote = node.votes.entry(slot).or_insert((ballot, value, true));
            if vote.1 != value {
                *vote = (ballot, value, true);
            }
        }
        node.applied = to;
    }

    fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.incarnation += 1;
        node.recovered = node.promised;
        node.votes.retain(|_, vote| vote.2);
        node.applied = self.rng.random_range(node.snapshot..=node.applied);
    }

    /// Its votes are forgotten, and it comes back with all that was chosen, and a promise.
    fn lose_disk(&mut self, at: usize) {
        let storage = 1000 + self.looks.len() as u64;
        self.nodes[at] = Node { storage, incarnation: self.nodes[at].incarnation + 1, ..Node::default() };
        self.look(at, false);
        self.nodes[at].promised = self.ballot;
        let votes = self.chosen.iter().zip(1..).map(|(value, slot)| (slot, (self.ballot, *value, true)));
        self.nodes[at].votes = votes.collect();
        self.nodes[at].applied = self.chosen.len() as u64;
    }

    fn prefix(&self, slot: u64) -> Prefix {
        let digest = |salt: u64| {
            let sum =
                self.chosen[..slot as usize].iter().fold(salt, |sum, value| sum.wrapping_mul(31) + value);
            format!("{sum:x}")
        };
        Prefix { slot, hash: digest(1), state: digest(2), sessions: digest(3) }
    }

    fn look(&mut self, at: usize, last_look: bool) {
        let node = self.nodes[at].clone();
        let here = if node.applied > 0 { self.prefix(node.applied) } else { Prefix::default() };
        let from = if last_look { node.applied + 1 } else { self.rng.random_range(0..=node.applied + 1) };
        let log = node.votes.range(from.max(node.snapshot + 1)..).map(|(slot, (ballot, value, durable))| {
            SlotState {
                slot: *slot,
                // What was learned was not voted for.
                ballot: (*slot > node.applied).then_some(*ballot),
                hash: value.to_string(),
                chosen: *slot <= node.applied,
                durable: *durable,
                what: String::new(),
            }
        });
        let state = NodeState {
            node: format!("n{at}"),
            last_look,
            incarnation: node.incarnation,
            storage: node.storage.to_string(),
            votes: true,
            survives_power_failure: true,
            promised: Some(node.promised),
            recovered: Some(node.recovered),
            first: node.snapshot + 1,
            snapshot: node.snapshot,
            durable: node.applied,
            applied: node.applied,
            commit: node.applied,
            last: node.votes.keys().last().copied().unwrap_or(0).max(node.applied),
            hash: here.hash,
            state: here.state,
            sessions: here.sessions,
            checkpoints: (1..=node.applied)
                .filter(|slot| slot % 4 == 0)
                .map(|slot| self.prefix(slot))
                .collect(),
            log: log.collect(),
            ..NodeState::default()
        };
        self.looks.push(state);
    }

    fn run(mut self) -> (usize, Vec<NodeState>) {
        for _ in 0..40 {
            let at = self.rng.random_range(0..self.nodes.len());
            match self.rng.random_range(0..20) {
                0 => self.elect(),
                1 => self.crash(at),
                2 if self.rng.random_bool(0.2) && self.nodes.len() > 1 => self.lose_disk(at),
                3 => self.nodes[at].snapshot = self.nodes[at].applied,
                4..=9 => self.propose(),
                10..=13 => self.learn(at),
                _ => self.look(at, false),
            }
        }
        self.propose();
        for at in 0..self.nodes.len() {
            self.learn(at);
            self.look(at, false);
        }
        (0..self.nodes.len()).for_each(|at| self.look(at, true));
        (self.nodes.len(), self.looks)
    }
}

fn judged(size: usize, looks: &[NodeState]) -> Verdict {
    let nodes: Vec<String> = (0..size).map(|n| format!("n{n}")).collect();
    let watch = (NODE_WATCH, json!({"nodes": nodes, "every_ms": 200}));
    let looks = looks.iter().zip(1..).map(|(look, index)| {
        let look = NodeState { asked_ns: index * 1000 - 500, ..look.clone() };
        (NODE_STATE, serde_json::to_value(look).unwrap())
    });
    let event = |((f, value), index): ((&str, serde_json::Value), u64)| Event {
        index,
        time: index * 1000,
        process: Process::Observer,
        kind: Kind::Info,
        op: Op::Custom { f: f.into(), key: None, value },
        ret: None,
        meta: Meta::default(),
    };
    let events: Vec<Event> = std::iter::once(watch).chain(looks).zip(0..).map(event).collect();
    let history = History::new(Header::new("nodes", 0, "", vec![]), events);
    node_invariants().check(&history, &Budget::unlimited())
}

/// The definitions, as they stand in the table of the checker: everything is compared with everything.
fn broken(size: usize, looks: &[NodeState]) -> BTreeSet<&'static str> {
    let mut broken = BTreeSet::new();
    let prefixes = |look: &NodeState| {
        let here = Prefix {
            slot: look.applied,
            hash: look.hash.clone(),
            state: look.state.clone(),
            sessions: look.sessions.clone(),
        };
        let mut all = look.checkpoints.clone();
        all.extend((look.applied > 0).then_some(here));
        all
    };
    for (at, one) in looks.iter().enumerate() {
        let ordered = [one.snapshot, one.applied, one.commit, one.last].is_sorted();
        if !ordered || one.durable > one.commit || one.first > one.snapshot + 1 {
            broken.insert("out-of-order");
        }
        for other in &looks[at..] {
            for (a, b) in one.log.iter().flat_map(|a| other.log.iter().map(move |b| (a, b))) {
                if a.slot == b.slot && a.hash != b.hash && a.chosen && b.chosen {
                    broken.insert("two-values");
                }
                if a.slot == b.slot && a.hash != b.hash && a.ballot.is_some() && a.ballot == b.ballot {
                    broken.insert("two-values-of-a-ballot");
                }
            }
            for (a, b) in
                prefixes(one).iter().flat_map(|a| prefixes(other).into_iter().map(move |b| (a.clone(), b)))
            {
                let (entries, state) = (a.hash == b.hash, a.state == b.state);
                match a.slot == b.slot {
                    true if !entries => broken.insert("prefixes-differ"),
                    true if !state => broken.insert("states-differ"),
                    true if a.sessions != b.sessions => broken.insert("sessions-differ"),
                    _ => false,
                };
            }
        }
        if let Some(next) =
            looks[at + 1..].iter().find(|next| next.node == one.node && next.storage == one.storage)
        {
            if next.promised < one.promised
                || (next.incarnation > one.incarnation && next.recovered < one.promised)
            {
                broken.insert("promise-went-back");
            }
            if next.incarnation == one.incarnation && next.applied < one.applied {
                broken.insert("applied-went-back");
            }
            if next.incarnation == one.incarnation && next.commit < one.commit {
                broken.insert("commit-went-back");
            }
        }
    }
    let chosen: BTreeMap<u64, String> = looks
        .iter()
        .rev()
        .flat_map(|look| {
            look.log.iter().rev().filter(|entry| entry.chosen).map(|entry| (entry.slot, entry.hash.clone()))
        })
        .collect();
    let before = looks.iter().take_while(|look| !look.last_look);
    let applied = before.clone().map(|look| look.applied).max().unwrap_or(0);
    let told = before.flat_map(|look| look.log.iter().filter(|entry| entry.chosen).map(|entry| entry.slot));
    for slot in (1..=applied).chain(told) {
        let holders = looks.iter().filter(|look| look.last_look).filter(|look| {
            let has = |entry: &SlotState| {
                entry.durable && chosen.get(&slot).is_none_or(|value| *value == entry.hash)
            };
            slot <= look.durable || look.log.iter().any(|entry| entry.slot == slot && has(entry))
        });
        if holders.count() < size / 2 + 1 {
            broken.insert("chosen-not-durable");
        }
    }
    broken
}

/// Changes one thing of one look.
fn mutate(rng: &mut ChaCha8Rng, looks: &mut [NodeState]) {
    let at = rng.random_range(0..looks.len());
    let look = &mut looks[at];
    let slot = rng.random_range(0..=look.last + 1);
    match rng.random_range(0..13) {
        12 => look.recovered = look.recovered.map(|ballot| (ballot.0.saturating_sub(1), ballot.1)),
        0 => look.promised = look.promised.map(|ballot| (ballot.0.saturating_sub(1), ballot.1)),
        1 => look.applied = slot,
        2 => look.commit = slot,
        3 => look.snapshot = slot,
        4 => look.hash += "x",
        5 => look.state += "x",
        6 => look.sessions += "x",
        7 => look.durable = slot,
        8 => look.last = slot,
        9 => {
            let some = look.checkpoints.len();
            if some > 0 {
                let checkpoint = &mut look.checkpoints[rng.random_range(0..some)];
                *[&mut checkpoint.hash, &mut checkpoint.state, &mut checkpoint.sessions]
                    [rng.random_range(0..3)] += "x";
            }
        }
        _ => {
            let some = look.log.len();
            if some > 0 {
                let entry = &mut look.log[rng.random_range(0..some)];
                match rng.random_range(0..3) {
                    0 => entry.hash += "x",
                    1 => entry.durable = false,
                    _ => entry.chosen = true,
                }
            }
        }
    }
}

/// Compared but for what is a consequence: what is told of a contradicted slot or a prefix once is not told again.
fn names(verdict: &Verdict) -> BTreeSet<String> {
    verdict.stats["anomaly_counts"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_cluster_that_keeps_its_promises_is_valid() {
    let mut compared = 0;
    for seed in 0..2_000 {
        let (size, looks) = Cluster::new(seed).run();
        let verdict = judged(size, &looks);
        assert!(broken(size, &looks).is_empty(), "seed {seed}: the small cluster is wrong");
        assert_ne!(verdict.validity, Validity::Invalid, "seed {seed}: {verdict:#?}");
        compared += usize::from(verdict.validity == Validity::Valid);
    }
    assert!(compared > 1_500, "only {compared} were judged");
}

#[test]
fn whatever_is_changed_the_checker_agrees_with_the_definitions() {
    let mut found = BTreeMap::new();
    for seed in 0..20_000 {
        let (size, mut looks) = Cluster::new(seed).run();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        mutate(&mut rng, &mut looks);
        let (verdict, expected) = (judged(size, &looks), broken(size, &looks));
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(names(&verdict), expected, "seed {seed}: {:#?}", verdict.anomalies);
        assert_eq!(verdict.validity == Validity::Invalid, !expected.is_empty());
        expected.into_iter().for_each(|name| *found.entry(name).or_insert(0) += 1);
    }
    // Every kind was met, and often.
    assert_eq!(found.len(), 10, "{found:?}");
    assert!(found.values().all(|times| *times > 50), "{found:?}");
}

fn two(change: impl Fn(&mut NodeState, &mut NodeState)) -> Verdict {
    let look = |node: &str| NodeState {
        node: node.into(),
        incarnation: 1,
        storage: "s".into(),
        votes: true,
        promised: Some((3, 1)),
        applied: 4,
        commit: 4,
        last: 4,
        durable: 4,
        hash: "h".into(),
        last_look: true,
        ..NodeState::default()
    };
    let (mut one, mut other) = (look("n0"), look("n1"));
    change(&mut one, &mut other);
    let before = |look: &NodeState| NodeState { last_look: false, ..look.clone() };
    judged(2, &[before(&one), before(&other), one, other])
}

#[test]
fn a_pass_needs_answers_comparisons_and_a_last_look() {
    assert_eq!(two(|_, _| {}).validity, Validity::Valid);
    let why = |verdict: Verdict| {
        assert_eq!(verdict.validity, Validity::Unknown);
        verdict.reason.unwrap()
    };
    assert_eq!(why(judged(2, &[])), "no node was ever seen");
    assert!(why(two(|one, _| one.applied = 3)).contains("no two nodes were ever seen at the same slot"));
    assert!(why(two(|_, other| other.node = "n0".into())).contains("n1 was never seen"));
    let early = two(|one, other| (one.last_look, other.last_look) = (false, false));
    assert!(why(early).contains("nobody looked at the nodes when all was over"));
    // One that was not asked in the end, or has lost its votes, may hold what the other does not.
    assert!(why(two(|_, other| other.last_look = false)).contains("slots are open"));
    assert!(why(two(|_, other| (other.durable, other.votes) = (2, false))).contains("2 slots are open"));
    let alone = judged(1, &[NodeState { node: "n0".into(), last_look: true, ..NodeState::default() }]);
    assert_eq!(alone.validity, Validity::Valid, "one node has nobody to be compared with");
}

/// A node is the last to hear that its vote was part of a majority; what counts in the end is that the vote is on its disk.
#[test]
fn what_a_majority_has_voted_for_is_durable_before_all_of_them_know() {
    let slot =
        |slot, hash: &str| SlotState { slot, hash: hash.into(), durable: true, ..SlotState::default() };
    let behind = |other: &mut NodeState, log| {
        (other.applied, other.commit, other.durable, other.hash) = (3, 3, 3, "g".into());
        other.log = log;
        other.checkpoints = vec![];
    };
    let ends = |log: Vec<SlotState>| {
        let verdict = two(|one, other| {
            let before = Prefix { slot: 3, hash: "g".into(), ..Prefix::default() };
            one.checkpoints = vec![before];
            one.log = vec![SlotState { chosen: true, ..slot(4, "four") }];
            behind(other, log.clone());
        });
        let stat = |name: &str| verdict.stats[name].as_u64().unwrap();
        (verdict.validity, stat("chosen_to"), stat("durable_to"))
    };
    assert_eq!(ends(vec![slot(4, "four")]), (Validity::Valid, 4, 4));
    assert_eq!(ends(vec![slot(4, "another")]), (Validity::Invalid, 4, 3));
    assert_eq!(ends(vec![SlotState { durable: false, ..slot(4, "four") }]), (Validity::Invalid, 4, 3));
}

#[test]
fn a_finding_names_slot_nodes_values_and_times() {
    let verdict = two(|_, other| other.hash = "x".into());
    assert_eq!(
        verdict.anomalies[0].message,
        "up to slot 4: n1 at 0.000 s has other entries than n0 at 0.000 s: x instead of h"
    );
    assert_eq!(verdict.anomalies[0].details["times_ns"], json!([1000, 2000]));
    let verdict = two(|_, other| {
        *other = NodeState { node: "n0".into(), incarnation: 2, promised: Some((2, 9)), ..other.clone() }
    });
    assert_eq!(
        verdict.anomalies[0].message,
        "n0 at 0.000 s: in incarnation 2 it was started again bound by ballot 2.9 only, and had promised 3.1 at 0.000 s, in incarnation 1"
    );
}

#[test]
fn a_disk_that_was_replaced_or_does_not_survive_a_failure_of_the_power_excuses() {
    let again = |change: &dyn Fn(&mut NodeState)| {
        let (size, mut looks) = Cluster::new(3).run();
        let mut after = looks.last().unwrap().clone();
        (after.incarnation, after.promised) = (after.incarnation + 1, Some((0, 1)));
        change(&mut after);
        looks.push(after);
        judged(size, &looks).validity
    };
    assert_eq!(again(&|_| {}), Validity::Invalid);
    assert_eq!(again(&|after| after.storage = "new".into()), Validity::Valid);
    assert_eq!(
        again(&|after| after.survives_power_failure = false),
        Validity::Invalid,
        "the power never failed"
    );
}
