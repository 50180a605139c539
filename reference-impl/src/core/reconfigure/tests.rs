//! Unit tests of changes of membership: the stop-sign, what a new leader does about one, and who takes part when.

use std::sync::Arc;

use super::*;
use crate::core::{Command, ReadMode};
use crate::core::{Config, Durable, EntryId, Input, Member, Protocol, Record, Scope, Vote, testing};

fn ballot(config: u64, round: u64, node: NodeId) -> Ballot {
    Ballot { round: Ballot::first_round(config) + round, node }
}

fn nodes(ids: impl IntoIterator<Item = NodeId>) -> Nodes {
    ids.into_iter().map(|id| (id, Member { address: format!("n:{id}"), born: 0 })).collect()
}

fn entry(n: u64, command: Option<Op>) -> Arc<Entry> {
    let command = command.map(|op| Command { client: 0, seq: 0, op });
    Arc::new(Entry { id: EntryId { node: 9, epoch: 1, n }, command })
}

fn stop(n: u64, from: u64, to: Nodes) -> Arc<Entry> {
    entry(n, Some(Op::Reconfigure { from, nodes: to }))
}

/// Node 1 of configuration 0 = {1, 2, 3}, on a disk that is immediate; 2 to 5 are known to it.
struct Node {
    core: Core,
    now: Mono,
}

impl Node {
    fn new(id: NodeId) -> Node {
        let known = (1..=5).filter(|node| *node != id).map(|node| Record::Known { node, epoch: 7 });
        let mut durable: Durable = known.collect();
        let start = durable.begin_incarnation(std::time::Duration::from_millis(600));
        durable.apply(start);
        let core = Core::new(Config::new(id, 1..=3, Protocol::MultiPaxos), durable, Mono(0));
        Node { core, now: Mono(0) }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        testing::step(&mut self.core, self.now, input)
    }

    fn hear(&mut self, from: NodeId, message: Message) -> Vec<(NodeId, Message)> {
        testing::sent(self.step(Input::Message { from, message }))
    }

    fn ask(&mut self, op: Op) -> Vec<Effect> {
        let command = Command { client: 0, seq: 0, op };
        self.step(Input::Client { call: 1, command, deadline: None, no_forward: true })
    }

    fn chosen(&mut self, from: NodeId, entries: &[(Slot, Arc<Entry>)]) {
        let commit = entries.last().map_or(0, |(slot, _)| *slot);
        self.hear(from, Message::Chosen { entries: entries.to_vec(), commit });
    }

    /// Makes it the leader of configuration 0, with its barrier chosen at slot 1.
    fn lead(&mut self) -> Ballot {
        self.now = Mono(0) + std::time::Duration::from_secs(5);
        self.step(Input::Tick);
        let (ballot, scope) = (self.core.acceptor().highest_promise(), Scope::From(1));
        self.hear(2, Message::Promise { ballot, scope, commit: 0, votes: vec![] });
        self.hear(2, Message::Accepted { ballot, slot: 1 });
        self.hear(2, Message::HeartbeatAck { ballot, round: 1 });
        assert_eq!((self.core.status().leading, self.core.learner().applied()), (Some(ballot), 1));
        [4, 5].into_iter().for_each(|guest| self.greeted_by(guest, 7));
        ballot
    }

    fn greeted_by(&mut self, node: NodeId, epoch: u64) {
        self.hear(node, Message::Hello { epoch, nonce: 1 });
    }

    fn passes(&mut self, ms: u64) {
        self.now = self.now + std::time::Duration::from_millis(ms);
    }
}

fn refusal(effects: &[Effect]) -> String {
    let reply = effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply, .. } => Some(reply),
        _ => None,
    });
    match reply.map(|reply| &reply.result) {
        Some(Err(Failure::Invalid(why))) => why.clone(),
        other => panic!("not refused: {other:?}"),
    }
}

fn is_busy(effects: &[Effect]) -> bool {
    let busy = |e: &Effect| matches!(e, Effect::Reply { reply, .. } if matches!(reply.result, Err(Failure::Overloaded(_))));
    effects.iter().any(busy)
}

fn accepts(effects: &[Effect]) -> usize {
    let accept = |e: &&Effect| matches!(e, Effect::Send { message: Message::Accept { .. }, .. });
    effects.iter().filter(accept).count()
}

#[test]
fn a_stop_sign_that_may_be_chosen_stays_and_nothing_behind_it_does() {
    let found = |slot, round, entry: &Arc<Entry>| (slot, (ballot(0, round, 1), entry.clone()));
    let sign = stop(2, 0, nodes(1..=5));
    let mut values =
        Found::from([found(1, 1, &entry(1, None)), found(2, 4, &sign), found(3, 3, &entry(3, None))]);
    assert_eq!(settle_stop_sign(&mut values, 0), Some(2));
    assert_eq!(values.keys().copied().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_stop_sign_that_a_later_leader_did_not_find_is_replaced() {
    let found = |slot, round, entry: &Arc<Entry>| (slot, (ballot(0, round, 1), entry.clone()));
    let sign = |n| stop(n, 0, nodes(1..=5));
    let mut values = Found::from([found(2, 4, &sign(2)), found(3, 5, &entry(3, None))]);
    assert_eq!(settle_stop_sign(&mut values, 0), None);
    assert_eq!(values.keys().copied().collect::<Vec<_>>(), [3], "slot 2 is free, slot 3 may be chosen");
    let mut values =
        Found::from([found(2, 4, &sign(2)), found(3, 5, &sign(3)), found(4, 1, &entry(4, None))]);
    assert_eq!(settle_stop_sign(&mut values, 0), Some(3), "the second one is judged by itself");
    let mut values = Found::from([found(2, 4, &stop(2, 1, nodes(1..=5))), found(3, 1, &entry(3, None))]);
    assert_eq!(settle_stop_sign(&mut values, 0), None, "it ends another configuration");
    assert_eq!(values.len(), 2);
}

#[test]
fn a_leader_proposes_nothing_behind_a_stop_sign_reads_nothing_and_runs_a_new_phase_1_behind_it() {
    let mut node = Node::new(1);
    let before = node.lead();
    let read = || Op::Get { key: "a".into(), mode: ReadMode::Lease };
    let replies = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::Reply { .. })).count();
    assert_eq!(replies(&node.ask(read())), 1, "by its lease");
    assert_eq!(accepts(&node.ask(Op::Reconfigure { from: 0, nodes: nodes([1, 4, 5]) })), 2);
    assert_eq!(accepts(&node.ask(Op::Delete { key: "a".into() })), 0, "nothing behind it");
    assert_eq!(replies(&node.ask(read())), 0, "no lease any more");
    let sent = node.hear(2, Message::Accepted { ballot: before, slot: 2 });
    assert_eq!((node.core.configuration(), node.core.status().leading), (1, None));
    let told: BTreeSet<NodeId> =
        sent.iter().filter(|(_, m)| matches!(m, Message::Chosen { .. })).map(|(to, _)| *to).collect();
    assert_eq!(told, BTreeSet::from([2, 3, 4, 5]), "everyone is told");
    let asked = sent.iter().filter_map(|(to, m)| match m {
        Message::Prepare { ballot, .. } => Some((*to, ballot.config())),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [(4, 1), (5, 1)], "a phase 1 among the new members");
    let ballot = node.core.acceptor().highest_promise();
    let promise = || Message::Promise { ballot, scope: Scope::From(3), commit: 2, votes: vec![] };
    node.hear(2, promise());
    node.hear(3, promise());
    assert_eq!(node.core.status().leading, None, "those who are members no more do not count");
    node.hear(5, promise());
    assert_eq!(node.core.status().leading, Some(ballot));
    let born = |id| node.core.members()[&id].born;
    assert_eq!((born(1), born(4), born(5)), (0, 7, 7), "the disks by which the leader knew them");
}

#[test]
fn a_change_that_makes_no_sense_is_refused() {
    let mut node = Node::new(1);
    node.lead();
    let mut refused = |from, nodes| refusal(&node.ask(Op::Reconfigure { from, nodes }));
    assert!(refused(0, Nodes::new()).contains("no node"));
    let same = (1..=3).map(|id| (id, Member::default())).collect();
    assert!(refused(0, same).contains("no address"));
    assert!(refused(4, nodes(1..=5)).contains("configuration 0"));
    assert_eq!(accepts(&node.ask(Op::Reconfigure { from: 0, nodes: nodes(1..=5) })), 2);
    let effects = node.ask(Op::Reconfigure { from: 0, nodes: nodes(1..=4) });
    assert!(is_busy(&effects), "one at a time: {effects:?}");
}

/// Whoever is down may come back without a vote, and a disk that was lost is not the one that is meant. Members that have none could not be helped if
/// they were a majority.
#[test]
fn a_change_names_disks_that_were_heard_of_lately_and_a_majority_that_answers() {
    let mut node = Node::new(1);
    node.lead();
    let ask = |node: &mut Node, ids: &[NodeId]| {
        node.ask(Op::Reconfigure { from: 0, nodes: nodes(ids.iter().copied()) })
    };
    assert!(is_busy(&ask(&mut node, &[1, 3])), "it may be about to hear of node 3");
    for _ in 0..2 {
        node.passes(600);
        let ballot = node.core.acceptor().highest_promise();
        node.hear(2, Message::HeartbeatAck { ballot, round: 1 });
        node.greeted_by(4, 7);
    }
    let why = refusal(&ask(&mut node, &[1, 3]));
    assert!(why.contains("2 must be up") && why.contains("[3] do not answer"), "{why}");
    node.passes(1_000);
    let why = refusal(&ask(&mut node, &[1, 2, 3, 4]));
    assert!(why.contains("node 4 has not greeted this leader"), "{why}");
    node.greeted_by(4, 7);
    let why = refusal(&ask(&mut node, &[1, 2, 3, 4]));
    assert!(why.contains("3 must be up") && why.contains("[2, 3] do not answer"), "{why}");
    // Its directory is empty: another disk.
    node.greeted_by(4, 0);
    assert!(refusal(&ask(&mut node, &[1, 2, 4])).contains("node 4 has not greeted"));
    assert!(refusal(&ask(&mut node, &[1, 2, 6])).contains("node 6 has never been heard of"));
    node.greeted_by(4, 9);
    let effects = ask(&mut node, &[1, 2, 4]);
    let born = effects.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Accept { entry, .. }, .. } => match &entry.command {
            Some(Command { op: Op::Reconfigure { nodes, .. }, .. }) => Some(nodes[&4].born),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(born, Some(9), "{effects:?}");
}

/// Otherwise it could not be added again: nobody else says anything to it of their own accord.
#[test]
fn a_node_that_was_removed_goes_on_greeting_the_members() {
    let mut node = Node::new(3);
    node.chosen(1, &[(1, entry(1, None)), (2, stop(2, 0, nodes([1, 2])))]);
    let welcome = |node: &Node| Message::Welcome {
        epoch: node.core.epoch,
        nonce: 0,
        known: 1,
        promised: Ballot::ZERO,
        slot: 2,
        leading: None,
        config: 1,
    };
    for _ in 0..3 {
        for from in [1, 2] {
            node.hear(from, welcome(&node));
        }
        node.passes(1_000);
        let effects = node.step(Input::Tick);
        let greets = |e: &&Effect| matches!(e, Effect::Send { message: Message::Hello { .. }, .. });
        assert_eq!(effects.iter().filter(greets).count(), 2, "{effects:?}");
    }
}

#[test]
fn a_member_takes_part_once_it_has_applied_the_stop_sign_and_forgets_no_promise_in_a_restart() {
    let mut node = Node::new(2);
    let prepare = |config| Message::Prepare { ballot: ballot(config, 1, 4), scope: Scope::From(3) };
    let sent = node.hear(4, prepare(1));
    assert!(matches!(&sent[..], [(4, Message::Fetch { from: 1 })]), "it is behind: {sent:?}");
    node.chosen(4, &[(1, entry(1, None)), (2, stop(2, 0, nodes([2, 4, 5])))]);
    assert_eq!((node.core.configuration(), node.core.votes()), (1, true));
    let sent = node.hear(4, prepare(1));
    assert!(sent.iter().any(|(to, m)| *to == 4 && matches!(m, Message::Promise { .. })), "{sent:?}");
    let sent = node.hear(3, Message::Prepare { ballot: ballot(0, 99, 3), scope: Scope::From(1) });
    assert!(matches!(&sent[..], [(3, Message::Chosen { commit: 2, .. })]), "who is behind is told: {sent:?}");
}

/// A node that was wiped, and then missed a change, knows none of the new members, and they have greeted its old disk.
#[test]
fn who_has_missed_a_change_learns_of_it_from_strangers_and_from_an_answer() {
    let heartbeat = Message::Heartbeat {
        ballot: ballot(2, 1, 8),
        commit: 9,
        round: 1,
        lease: std::time::Duration::from_millis(600),
    };
    let sent = Node::new(2).hear(8, heartbeat);
    assert!(matches!(&sent[..], [(8, Message::Fetch { from: 1 })]), "{sent:?}");
    let mut node = Node::new(2);
    let (epoch, promised) = (node.core.epoch, Ballot::ZERO);
    let welcome = Message::Welcome { epoch, nonce: 0, known: 0, promised, slot: 9, leading: None, config: 2 };
    let sent = node.hear(3, welcome);
    assert!(matches!(&sent[..], [(3, Message::Fetch { from: 1 })]), "{sent:?}");
}

#[test]
fn a_vote_of_the_configuration_before_never_outranks_one_of_the_next() {
    assert!(ballot(1, 1, 1) > ballot(0, (1 << 40) - 1, NodeId::MAX));
    assert_eq!((ballot(3, 5, 1).config(), ballot(3, 5, 1).to_string().as_str()), (3, "3/5.1"));
}

/// An answer to a question that it asked before a restart, in which it lost that it had applied the stop-sign: the next configuration decided
/// what it is told of, and that says nothing about which ballots proposed what in this one.
#[test]
fn what_was_chosen_behind_a_stop_sign_does_not_speak_against_it() {
    let mut node = Node::new(2);
    let (sign, under) = (stop(2, 0, nodes([1, 4, 5])), ballot(0, 1, 1));
    for (slot, entry) in [(1, entry(1, None)), (2, sign.clone())] {
        node.hear(1, Message::Accept { ballot: under, slot, entry, commit: slot - 1 });
    }
    assert_eq!((node.core.configuration(), node.core.learner().applied()), (0, 1));
    node.chosen(1, &[(3, entry(3, None))]);
    node.now = Mono(0) + std::time::Duration::from_secs(5);
    node.step(Input::Tick);
    let mine = node.core.acceptor().highest_promise();
    assert_eq!((mine.node, mine.config()), (2, 0), "it stands in the configuration that it knows");
    let promise = Message::Promise { ballot: mine, scope: Scope::From(2), commit: 0, votes: vec![] };
    let sent = node.hear(3, promise);
    let proposed: Vec<_> = sent
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Accept { slot, entry, .. } => Some((slot, entry)),
            _ => None,
        })
        .collect();
    assert_eq!(proposed, vec![(2, sign.clone()), (2, sign)], "{:?}", node.core.status());
}

/// A majority of the old configuration knows of nothing behind the stop-sign, though much may be there.
#[test]
fn a_quorum_read_that_the_old_members_have_answered_is_asked_again_of_the_new_ones() {
    let mut node = Node::new(3);
    let get = Op::Get { key: "a".into(), mode: ReadMode::Quorum };
    let asked = |effect: &Effect| match effect {
        Effect::Send { message: Message::ReadQuery { id, .. }, .. } => Some(*id),
        _ => None,
    };
    let replies = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::Reply { .. })).count();
    let id = node.ask(get).iter().find_map(asked).unwrap();
    node.hear(2, Message::ReadAnswer { config: 0, id, last: 1 });
    let tell = |slot, entry: Arc<Entry>| {
        let message = Message::Chosen { entries: vec![(slot, entry)], commit: slot };
        Input::Message { from: 1, message }
    };
    let effects = node.step(tell(1, stop(1, 0, nodes([1, 3, 4]))));
    assert_eq!(node.core.configuration(), 1);
    assert_eq!(replies(&effects), 0, "it was answered by those that may know nothing");
    assert_eq!(effects.iter().filter_map(asked).count(), 2, "the others are asked");
    node.hear(4, Message::ReadAnswer { config: 1, id, last: 2 });
    assert_eq!(replies(&node.step(tell(2, entry(2, None)))), 1);
}

#[test]
fn a_node_that_is_a_member_no_more_votes_no_more_and_says_whom_to_ask() {
    let mut node = Node::new(1);
    node.chosen(2, &[(1, stop(1, 0, nodes([2, 4, 5])))]);
    assert_eq!((node.core.votes(), node.core.status().role), (false, "learner"));
    assert!(node.hear(2, Message::Prepare { ballot: ballot(1, 1, 2), scope: Scope::From(2) }).is_empty());
    let effects = node.ask(Op::Delete { key: "a".into() });
    let hint = effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply, .. } if reply.result == Err(Failure::NotLeader) => Some(reply.leader_hint),
        _ => None,
    });
    assert_eq!(hint, Some(2));
    node.now = Mono(0) + std::time::Duration::from_secs(60);
    let asks = |e: &Effect| matches!(e, Effect::Send { message: Message::Prepare { .. }, .. });
    assert!(!node.step(Input::Tick).iter().any(asks), "it never stands");
    let sent = node.hear(3, Message::Fetch { from: 1 });
    assert!(matches!(&sent[..], [(3, Message::Chosen { commit: 1, .. })]), "it serves catch-up");
}

#[test]
fn a_new_disk_under_the_number_of_a_member_has_no_vote_and_the_disk_that_was_added_has() {
    for (born, votes) in [(12, true), (11, false)] {
        let config = Config { nonce: 10 << 12, ..Config::new(4, 1..=3, Protocol::MultiPaxos).joining() };
        let mut node = Node { core: Core::new(config, Durable::default(), Mono(0)), now: Mono(0) };
        let nonce = 10 << 12;
        let welcome = |epoch, known, promised| Message::Welcome {
            epoch,
            nonce,
            known,
            promised,
            slot: 0,
            leading: None,
            config: 0,
        };
        node.hear(1, welcome(0, 1, Ballot::ZERO));
        node.hear(1, Message::Hello { epoch: 7, nonce: 1 });
        assert_eq!(
            (node.core.epoch, node.core.votes()),
            (12, false),
            "one above the known, and what it drew"
        );
        let mut to = nodes([1, 2, 4]);
        to.get_mut(&4).unwrap().born = born;
        node.chosen(1, &[(1, stop(1, 0, to))]);
        assert_eq!((node.core.configuration(), node.core.votes()), (1, votes), "born as {born}");
    }
}

#[test]
fn the_configuration_is_known_again_after_a_restart() {
    let sign = stop(2, 0, nodes([1, 4, 5]));
    let vote = |slot, entry| Record::Accepted(Vote { slot, ballot: ballot(0, 1, 2), entry });
    let mut durable: Durable =
        [vote(1, entry(1, None)), vote(2, sign), Record::Commit { slot: 2 }].into_iter().collect();
    durable.begin_incarnation(std::time::Duration::from_millis(600));
    let core = Core::new(Config::new(1, 1..=3, Protocol::MultiPaxos), durable, Mono(0));
    assert_eq!((core.configuration(), core.config().nodes.clone()), (1, BTreeSet::from([1, 4, 5])));
}
