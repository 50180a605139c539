//! Bugs that random runs do not meet: five cores, and a script that says which message arrives when.
//!
//! ```text
//!         n1        n2        n3        n4        n5
//! b1      leads     votes v   votes v                     the acceptances are late; n1 forgets v in a restart
//! b2      promises                      votes w   promises
//! b3      votes v   promises  promises                    n2 and n3 report v; now the late acceptances of b1 arrive
//! b4                promises            reports w leads   w is the value of the highest ballot that was reported
//! ```
//!
//! No clock but the script's own, and disks that are immediate unless the script takes them away.

use std::collections::{BTreeMap, BTreeSet};

use paxos_kv::bugs::{Bug, Hooks};
use paxos_kv::core::{Config, Core, Durable, Effect, Entry, Input, Message, Mono, NodeId, Protocol};

struct Script {
    hooks: Hooks,
    now: Mono,
    cores: BTreeMap<NodeId, Core>,
    disks: BTreeMap<NodeId, Durable>,
    /// Nodes whose writes never end.
    slow: BTreeSet<NodeId>,
    sent: Vec<(NodeId, NodeId, Message)>,
}

impl Script {
    fn new(hooks: Hooks) -> Script {
        let (cores, disks, slow, sent) = Default::default();
        let mut script = Script { hooks, now: Mono(0), cores, disks, slow, sent };
        for node in 1..=5 {
            // They have met before.
            let known = (1..=5).filter(|other| *other != node).map(|other| (other, 1)).collect();
            script.disks.insert(node, Durable { epoch: 1, known, ..Durable::default() });
            script.start(node);
        }
        script
    }

    fn start(&mut self, node: NodeId) {
        let config = Config { hooks: self.hooks, ..Config::new(node, 1..=5, Protocol::MultiPaxos) };
        let disk = self.disks.get_mut(&node).unwrap();
        disk.start(&config);
        self.cores.insert(node, Core::new(config, disk.clone(), self.now));
        self.slow.remove(&node);
    }

    fn step(&mut self, node: NodeId, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.cores.get_mut(&node).unwrap().step(self.now, input) {
                match effect {
                    Effect::Persist { token, records } if !self.slow.contains(&node) => {
                        records
                            .into_iter()
                            .for_each(|record| self.disks.get_mut(&node).unwrap().apply(record));
                        inputs.push(Input::Persisted(token));
                    }
                    Effect::Send { to, message, .. } => self.sent.push((node, to, message)),
                    _ => {}
                }
            }
        }
    }

    /// Takes what was sent from one of these to one of those, if it is of this kind; the rest stays on its way for ever.
    fn take(
        &mut self,
        from: &[NodeId],
        to: &[NodeId],
        kind: fn(&Message) -> bool,
    ) -> Vec<(NodeId, NodeId, Message)> {
        let takes =
            |(a, b, message): &(NodeId, NodeId, Message)| from.contains(a) && to.contains(b) && kind(message);
        let (taken, left) = std::mem::take(&mut self.sent).into_iter().partition(takes);
        self.sent = left;
        assert!(!Vec::is_empty(&taken), "the script expected a message from {from:?} to {to:?}");
        taken
    }

    fn deliver(&mut self, messages: Vec<(NodeId, NodeId, Message)>) {
        for (from, to, message) in messages {
            self.step(to, Input::Message { from, message });
        }
    }

    /// Lets a node win an election with the promises of these, after all leases are over.
    fn elect(&mut self, node: NodeId, voters: &[NodeId]) {
        self.now = Mono(self.now.0 + 10_000_000_000);
        self.sent
            .retain(|(.., message)| !matches!(message, Message::Prepare { .. } | Message::Promise { .. }));
        self.step(node, Input::Tick);
        let asked = self.take(&[node], voters, |m| matches!(m, Message::Prepare { .. }));
        self.deliver(asked);
        let promised = self.take(voters, &[node], |m| matches!(m, Message::Promise { .. }));
        if self.now.0 == 10_000_000_000 {
            // The first leader's own vote does not reach its disk.
            self.slow.insert(node);
        }
        self.deliver(promised);
        assert_eq!(self.cores[&node].status().role, "leader", "node {node}");
    }

    fn chosen(&self, node: NodeId) -> Option<&Entry> {
        self.cores[&node].learner().chosen(1).map(|entry| &**entry)
    }
}

/// What the nodes 1 and 5 take for chosen in slot 1 when the script is over.
fn play(hooks: Hooks) -> (Option<Entry>, Option<Entry>) {
    let accept = |m: &Message| matches!(m, Message::Accept { slot: 1, .. });
    let accepted = |m: &Message| matches!(m, Message::Accepted { slot: 1, .. });
    let mut script = Script::new(hooks);
    script.elect(1, &[2, 3]);
    let asked = script.take(&[1], &[2, 3], accept);
    script.deliver(asked);
    let late = script.take(&[2, 3], &[1], accepted);
    assert_eq!(late.len(), 2);
    script.start(1);
    assert!(script.cores[&1].acceptor().vote(1).is_none(), "it has forgotten what it proposed");
    script.elect(4, &[1, 5]);
    let lost = script.take(&[4], &[1, 2, 3, 5], accept);
    assert_eq!(script.cores[&4].acceptor().vote(1).map(|vote| &vote.entry), proposed(&lost[0].2));
    script.elect(1, &[2, 3]);
    let again = script.take(&[1], &[2, 3, 4, 5], accept);
    assert_eq!(proposed(&again[0].2), proposed_by(&late, &script), "what 2 and 3 have reported");
    script.deliver(late);
    let first = script.chosen(1).cloned();
    script.elect(5, &[2, 4]);
    let asked = script.take(&[5], &[2, 4], accept);
    script.deliver(asked);
    let votes = script.take(&[2, 4], &[5], accepted);
    script.deliver(votes);
    (first, script.chosen(5).cloned())
}

fn proposed(message: &Message) -> Option<&std::sync::Arc<Entry>> {
    match message {
        Message::Accept { entry, .. } => Some(entry),
        _ => None,
    }
}

/// What the senders of these acceptances have voted for.
fn proposed_by<'a>(
    late: &[(NodeId, NodeId, Message)],
    script: &'a Script,
) -> Option<&'a std::sync::Arc<Entry>> {
    script.cores[&late[0].0].acceptor().vote(1).map(|vote| &vote.entry)
}

#[test]
fn votes_for_an_older_ballot_choose_nothing_under_a_newer_one() {
    let (first, second) = play(Hooks::default());
    assert_eq!(first, None, "one vote of five under the newest ballot");
    assert!(second.is_some());
    let (first, second) = play(Hooks::planted([Bug::VotesOfAnyBallot]));
    assert!(first.is_some() && second.is_some() && first != second, "{first:?} {second:?}");
}
