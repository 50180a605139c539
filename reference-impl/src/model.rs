//! Every state that a small cluster can come to, by stateright.
//!
//! ```text
//! actions    deliver any message that is on its way, in any order, or never; a node stands for election; a disk syncs;
//!            a node crashes, loses what was not synced, and starts again
//! always     agreement; only proposed values; promises never go back; acknowledged implies chosen; learned implies chosen; equal prefixes and states
//! sometimes  something is chosen; a later leader takes a value over, or fills a gap; something is chosen after a crash; a snapshot is installed
//! ```
//!
//! The very core that the server drives, with a clock that stands still but for elections, and no leases: those have models of their own (`model/leases.rs`). A
//! message that is delivered is gone. What cannot change what is chosen (heartbeats, refusals where nobody stands twice) is
//! not put on its way: that is the same as losing it. No disk is lost. Two leaders of which one has two slots open, which is what a gap needs, have more states than
//! fit into 20 GB; so that model begins where the first of them has been elected. Own messages are delivered within the step, when they are on disk.
//! `cargo test --release -p paxos-kv --test model -- --nocapture` prints how many states there are.

mod bounds;
mod leases;

pub use bounds::{Explored, Small, bounded, of_bug};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bugs::Hooks;
use crate::core::{
    Backoff, Ballot, Checkpoint, Command, Config, Core, Durable, Effect, Entry, Input, Message, Mono, NodeId,
    Note, Op, Protocol, Record, Slot, Token,
};
use stateright::{Model, Property};

/// A cluster, and how much may happen.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    protocol: Protocol,
    nodes: u32,
    /// These nodes, from 1, propose.
    proposers: u32,
    /// How often each stands (Multi-Paxos).
    stands: u32,
    /// The highest round of a ballot.
    rounds: u64,
    crashes: u32,
    /// A disk syncs before anything else happens, unless its node crashes first. Fewer orders of events, the same losses.
    prompt: bool,
    hooks: Hooks,
    /// How many of the proposers, from 1, are asked for something as leaders; the others propose their barriers alone.
    asked: u32,
    /// At first node 1 has been elected by itself and node 2, and what it proposes is on its way.
    led: bool,
    /// A snapshot is taken after each slot, and nothing before it is kept. Leaders are asked when they have applied their barriers.
    snapshots: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    core: Core,
    disk: Durable,
    unsynced: Vec<(Token, Vec<Record>)>,
    /// Messages that wait for the disk.
    held: Vec<(Token, NodeId, Message)>,
    stood: u32,
    asked: bool,
    /// What it has promised to anyone, by slot; 0 stands for all slots.
    promised: BTreeMap<Slot, Ballot>,
}

/// All nodes, what is on its way, and what an onlooker who sees everything knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    nodes: Vec<Node>,
    /// Sorted.
    network: Vec<(NodeId, NodeId, Message)>,
    crashed: u32,
    /// Who has ever had which vote on disk.
    votes: BTreeMap<(Slot, Ballot), (Arc<Entry>, BTreeSet<NodeId>)>,
    /// What a majority has had on disk under one ballot.
    chosen: BTreeMap<Slot, Arc<Entry>>,
    /// State and hash of each prefix that was applied.
    prefixes: BTreeMap<Slot, Checkpoint>,
    wrong: Option<&'static str>,
    saw: Saw,
}

/// Proof that a model is not stuck.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Saw {
    answered: bool,
    taken_over: bool,
    gap_filled: bool,
    chosen_after_crash: bool,
    installed: bool,
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // as the file begins
pub enum Action {
    Deliver(usize),
    Stand(NodeId),
    Sync(NodeId),
    Crash(NodeId),
}

/// The property that must hold in every state.
const WRONG: &str = "nothing is wrong";

/// A time beyond all patience.
const LONG: Duration = Duration::from_secs(1_000);

impl Cluster {
    fn config(&self, id: NodeId) -> Config {
        let mut config = Config::new(id, 1..=self.nodes, self.protocol);
        let day = LONG * 86;
        config.hooks = self.hooks;
        config.timing.lease = Duration::ZERO;
        config.timing.election = (Duration::from_secs(1), Duration::from_secs(1));
        config.timing.backoff_by = Backoff::None;
        (config.snapshot_every, config.keep) = (u64::from(self.snapshots), 0);
        (config.timing.deadline, config.timing.leader_wait, config.timing.resend) = (day, day, day);
        config
    }

    fn majority(&self) -> usize {
        self.nodes as usize / 2 + 1
    }

    fn command(node: NodeId, n: u32) -> Command {
        Command {
            client: u64::from(node),
            seq: u64::from(n),
            op: Op::Put { key: "k".into(), value: format!("{node}.{n}").into() },
        }
    }

    /// Whether a message can change what is chosen.
    fn matters(&self, message: &Message) -> bool {
        match message {
            Message::Prepare { .. }
            | Message::Promise { .. }
            | Message::Accept { .. }
            | Message::Accepted { .. } => true,
            // A node that stands twice learns of higher ballots by them.
            Message::Nack { .. } => {
                self.stands > 1 || self.protocol == Protocol::BasicPaxos && self.rounds > 1
            }
            // Where they are lost a candidate that needs them never leads: that leaves fewer orders of events.
            Message::Fetch { .. } | Message::Chosen { .. } => {
                self.protocol == Protocol::MultiPaxos && !self.led
            }
            Message::FetchSnapshot { .. } | Message::Snapshot { .. } => self.snapshots,
            _ => false,
        }
    }

    fn now(node: &Node) -> Mono {
        Mono::default() + LONG * node.stood
    }

    fn step(&self, state: &mut State, id: NodeId, input: Input) {
        let node = &mut state.nodes[id as usize - 1];
        // What is handled has no time of its own: only standing has.
        let now = if matches!(input, Input::Tick) { Self::now(node) } else { Mono::default() };
        let effects = node.core.step(now, input);
        let (mut elected, mut later) = (None, Vec::new());
        for effect in effects {
            match effect {
                Effect::Persist { token, records } => {
                    state.nodes[id as usize - 1].unsynced.push((token, records))
                }
                Effect::Send { to, message, after: Some(token) } => {
                    state.nodes[id as usize - 1].held.push((token, to, message));
                }
                Effect::Send { to, message, after: None } => {
                    if let (Some(barrier), Message::Accept { slot, entry, .. }) = (elected, &message) {
                        state.saw.gap_filled |= *slot < barrier && entry.id.node == id;
                    }
                    self.send(state, id, to, message);
                }
                Effect::Reply { reply, .. } if reply.result.is_ok() => {
                    state.saw.answered = true;
                    if !state.chosen.contains_key(&reply.served.slot) {
                        state.wrong = Some("a command was acknowledged that is not chosen");
                    }
                }
                Effect::Note(Note::Elected { reproposed, barrier, .. }) => {
                    elected = Some(barrier);
                    state.saw.taken_over |= reproposed > 0;
                }
                Effect::Note(Note::Installed { .. }) => state.saw.installed = true,
                Effect::Snapshot(snapshot) => {
                    let slot = snapshot.slot;
                    state.nodes[id as usize - 1].disk.snapshot = Some(snapshot);
                    later.push(Input::SnapshotSaved(slot));
                }
                Effect::Truncate { token, records } => {
                    let node = &mut state.nodes[id as usize - 1];
                    let snapshot = node.disk.snapshot.take();
                    node.disk = Durable { snapshot, ..records.into_iter().collect() };
                    later.push(Input::Persisted(token));
                }
                Effect::Note(Note::Conflict { .. }) => {
                    state.wrong = Some("two values were learned for one slot")
                }
                _ => {}
            }
        }
        let node = &mut state.nodes[id as usize - 1];
        let applied = node.core.status().leading.is_some() && node.core.learner().applied() > 0;
        if id <= self.asked && !node.asked && if self.snapshots { applied } else { elected.is_some() } {
            let stood = node.stood;
            self.ask(state, id, stood);
        }
        if self.crashes == 0 {
            self.sync(state, id);
        }
        for input in later {
            self.step(state, id, input);
        }
    }

    fn ask(&self, state: &mut State, id: NodeId, n: u32) {
        state.nodes[id as usize - 1].asked = true;
        let command = Self::command(id, n);
        self.step(state, id, Input::Client { call: u64::from(n), command, deadline: None, no_forward: true });
    }

    fn send(&self, state: &mut State, from: NodeId, to: NodeId, message: Message) {
        let promised = &mut state.nodes[from as usize - 1].promised;
        let said = match (&message, self.protocol) {
            (Message::Promise { ballot, .. } | Message::Accepted { ballot, .. }, Protocol::MultiPaxos) => {
                Some((0, *ballot))
            }
            (Message::Promise { ballot, scope, .. }, Protocol::BasicPaxos) => Some((scope.slot(), *ballot)),
            (Message::Accepted { ballot, slot }, Protocol::BasicPaxos) => Some((*slot, *ballot)),
            _ => None,
        };
        if let Some((slot, ballot)) = said {
            let known = promised.entry(slot).or_default();
            *known = ballot.max(*known);
        }
        // Node 1 has its answers then, and is otherwise cut off.
        let lost =
            self.led && to == 1 && state.nodes[0].asked && !matches!(message, Message::Accepted { .. });
        if self.matters(&message) && !lost {
            let place = state.network.partition_point(|other| *other < (from, to, message.clone()));
            state.network.insert(place, (from, to, message));
        }
    }

    /// All that a node has written is on its disk now.
    fn sync(&self, state: &mut State, id: NodeId) {
        let node = &mut state.nodes[id as usize - 1];
        let written = std::mem::take(&mut node.unsynced);
        let Some(last) = written.last().map(|(token, _)| *token) else { return };
        for record in written.into_iter().flat_map(|(_, records)| records) {
            if let Record::Accepted(vote) = &record {
                let fresh = || (vote.entry.clone(), BTreeSet::new());
                let (entry, voters) = state.votes.entry((vote.slot, vote.ballot)).or_insert_with(fresh);
                if *entry != vote.entry {
                    state.wrong = Some("two values were proposed for one slot under one ballot");
                }
                voters.insert(id);
                if voters.len() >= self.majority() {
                    state.saw.chosen_after_crash |=
                        state.crashed > 0 && !state.chosen.contains_key(&vote.slot);
                    let chosen = state.chosen.entry(vote.slot).or_insert_with(|| vote.entry.clone());
                    if *chosen != vote.entry {
                        state.wrong = Some("two values were chosen for one slot");
                    }
                }
            }
            node.disk.apply(record);
        }
        let (ready, later) =
            std::mem::take(&mut node.held).into_iter().partition(|(token, ..)| *token <= last);
        node.held = later;
        for (_, to, message) in Vec::from_iter::<Vec<(Token, NodeId, Message)>>(ready) {
            self.send(state, id, to, message);
        }
        self.step(state, id, Input::Persisted(last));
    }

    fn crash(&self, state: &mut State, id: NodeId) {
        state.crashed += 1;
        let config = self.config(id);
        let node = &mut state.nodes[id as usize - 1];
        (node.unsynced, node.held) = (Vec::new(), Vec::new());
        let start = node.disk.begin_incarnation(config.timing.lease);
        node.disk.apply(start);
        node.core = Core::new(config, node.disk.clone(), Mono::default());
        // What was on its way to the node, or from it, may still arrive: links outlive nodes here.
    }

    /// Takes questions off their way that can only be refused: their receiver has a higher promise on its disk, which no crash takes
    /// back, and refusals do not matter.
    fn prune(&self, state: &mut State) {
        if self.matters(&Message::Nack {
            ballot: Ballot::ZERO,
            slot: 0,
            promised: Ballot::ZERO,
            lease_left: Duration::ZERO,
        }) {
            return;
        }
        let nodes = &state.nodes;
        state.network.retain(|(_, to, message)| {
            let (ballot, slot) = match message {
                Message::Prepare { ballot, scope } => (*ballot, scope.slot()),
                Message::Accept { ballot, slot, .. } => (*ballot, *slot),
                _ => return true,
            };
            let disk = &nodes[*to as usize - 1].disk;
            let promised = match self.protocol {
                Protocol::MultiPaxos => {
                    disk.votes.values().map(|vote| vote.ballot).max().max(Some(disk.promised))
                }
                Protocol::BasicPaxos => {
                    let vote = disk.votes.get(&slot).map(|vote| vote.ballot);
                    vote.max(disk.promised_at.get(&slot).copied())
                }
            };
            promised.is_none_or(|promised| promised <= ballot)
        });
    }

    /// What must hold of the nodes after each step.
    fn inspect(&self, state: &mut State) {
        for node in &state.nodes {
            for (slot, ballot) in &node.promised {
                if node.core.acceptor().promised((*slot).max(1)) < *ballot {
                    state.wrong = Some("a promise was forgotten");
                }
            }
            let here = node.core.here();
            if here.slot > 0 && *state.prefixes.entry(here.slot).or_insert(here) != here {
                state.wrong = Some("two nodes have applied something else");
            }
            for (slot, entry) in node.core.learner().chosen_from(1) {
                if state.chosen.get(&slot) != Some(entry) {
                    state.wrong = Some("a node has learned what is not chosen");
                }
            }
        }
        let known = |command: &Command| {
            (1..=self.proposers)
                .any(|node| (1..=self.stands.max(1)).any(|n| *command == Self::command(node, n)))
        };
        if state.chosen.values().any(|entry| entry.command.as_ref().is_some_and(|command| !known(command))) {
            state.wrong = Some("a value was chosen that nobody has proposed");
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let nodes = (1..=self.nodes).map(|id| {
            // All have started once, and know each other: a first start is about nothing that is modelled here.
            let others = (1..=self.nodes).filter(|node| *node != id);
            let mut disk: Durable = others.map(|node| Record::Known { node, epoch: 1 }).collect();
            let config = self.config(id);
            let start = disk.begin_incarnation(config.timing.lease);
            disk.apply(start);
            let core = Core::new(config, disk.clone(), Mono::default());
            let (unsynced, held, promised) = (Vec::new(), Vec::new(), BTreeMap::new());
            Node { core, disk, unsynced, held, stood: 0, asked: false, promised }
        });
        let mut state = State {
            nodes: nodes.collect(),
            network: Vec::new(),
            crashed: 0,
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            wrong: None,
            saw: Saw::default(),
        };
        if self.led {
            state = self.next_state(&state, Action::Stand(1)).unwrap_or(state);
            for link in [(1, 2), (2, 1)] {
                if let Some(at) = state.network.iter().position(|(from, to, _)| (*from, *to) == link) {
                    state = self.next_state(&state, Action::Deliver(at)).unwrap_or(state);
                }
            }
            state.network.retain(|(.., message)| matches!(message, Message::Accept { .. }));
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if self.prompt
            && let Some(at) = state.nodes.iter().position(|node| !node.unsynced.is_empty())
        {
            let id = at as NodeId + 1;
            actions.push(Action::Sync(id));
            actions.extend((state.crashed < self.crashes).then_some(Action::Crash(id)));
            return;
        }
        let news = |i: &usize| *i == 0 || state.network[*i] != state.network[*i - 1];
        actions.extend((0..state.network.len()).filter(news).map(Action::Deliver));
        for id in 1..=self.nodes {
            let node = &state.nodes[id as usize - 1];
            if id <= self.proposers
                && node.stood < self.stands
                && matches!(node.core.status().role, "follower" | "proposer")
            {
                actions.push(Action::Stand(id));
            }
            if !node.unsynced.is_empty() {
                actions.push(Action::Sync(id));
            }
            if state.crashed < self.crashes {
                actions.push(Action::Crash(id));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(at) => {
                let (from, to, message) = state.network.remove(at);
                self.step(&mut state, to, Input::Message { from, message });
            }
            Action::Stand(id) => {
                state.nodes[id as usize - 1].stood += 1;
                let stood = state.nodes[id as usize - 1].stood;
                match self.protocol {
                    Protocol::MultiPaxos => self.step(&mut state, id, Input::Tick),
                    Protocol::BasicPaxos => self.ask(&mut state, id, stood),
                }
            }
            Action::Sync(id) => self.sync(&mut state, id),
            Action::Crash(id) => self.crash(&mut state, id),
        }
        self.inspect(&mut state);
        self.prune(&mut state);
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let in_bounds = |(.., message): &(NodeId, NodeId, Message)| match message {
            Message::Prepare { ballot, scope } => {
                ballot.round <= self.rounds && scope.slot() <= u64::from(self.proposers * self.stands)
            }
            _ => true,
        };
        state.network.iter().all(in_bounds)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(WRONG, |_, state: &State| state.wrong.is_none()),
            Property::sometimes("something is chosen", |_, state: &State| !state.chosen.is_empty()),
        ];
        if self.asked > 0 {
            properties
                .push(Property::sometimes("a command is answered", |_, state: &State| state.saw.answered));
        }
        if self.protocol == Protocol::MultiPaxos && self.proposers * self.stands > 1 {
            properties
                .push(Property::sometimes("a value is taken over", |_, state: &State| state.saw.taken_over));
        }
        if self.led {
            properties.push(Property::sometimes("a gap is filled", |_, state: &State| state.saw.gap_filled));
        }
        if self.snapshots {
            properties
                .push(Property::sometimes("a snapshot is installed", |_, state: &State| state.saw.installed));
        }
        if self.crashes > 0 {
            properties.push(Property::sometimes("something is chosen after a crash", |_, state: &State| {
                state.saw.chosen_after_crash
            }));
        }
        properties
    }
}
