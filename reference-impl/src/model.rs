//! Every state that a small cluster can come to, by stateright.
//!
//! ```text
//! actions    deliver any message that is on its way, in any order, or never; a node stands for election; a disk syncs;
//!            a node crashes, loses what was not synced, and starts again
//! always     agreement; only proposed values; promises never go back; acknowledged implies chosen; learned implies chosen
//! sometimes  something is chosen; a later leader takes a value over; something is chosen after a crash
//! ```
//!
//! The very core that the server drives, with a clock that stands still but for elections, and no leases: what needs time is left to the
//! simulator. A message that is delivered is gone. What cannot change what is chosen (heartbeats, refusals where nobody stands twice) is
//! not put on its way: that is the same as losing it. There are no snapshots, no disk is lost, and no gap is filled: that needs two
//! leaders, of which one has two slots open, and those have more states than fit into 20 GB. Own messages are delivered within the step, when they are on disk.
//! `cargo test --release -p paxos-kv --test model -- --nocapture` prints how many states there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bugs::{Bug, Hooks};
use crate::core::{
    Backoff, Ballot, Command, Config, Core, Durable, Effect, Entry, Input, Message, Mono, NodeId, Note, Op,
    Protocol, Record, Slot, Token,
};
use stateright::{Checker, HasDiscoveries, Model, Property};

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
    /// Whether each leader is asked for something, or proposes its barrier alone.
    asked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    core: Core,
    disk: Durable,
    unsynced: Vec<(Token, Vec<Record>)>,
    /// Messages that wait for the disk.
    held: Vec<(Token, NodeId, Message)>,
    stood: u32,
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
    wrong: Option<&'static str>,
    saw: Saw,
}

/// Proof that a model is not stuck.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Saw {
    answered: bool,
    taken_over: bool,
    chosen_after_crash: bool,
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
        config.snapshot_every = 0;
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
            Message::Fetch { .. } | Message::Chosen { .. } => self.protocol == Protocol::MultiPaxos,
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
        let mut elected = false;
        for effect in effects {
            match effect {
                Effect::Persist { token, records } => {
                    state.nodes[id as usize - 1].unsynced.push((token, records))
                }
                Effect::Send { to, message, after: Some(token) } => {
                    state.nodes[id as usize - 1].held.push((token, to, message));
                }
                Effect::Send { to, message, after: None } => self.send(state, id, to, message),
                Effect::Reply { reply, .. } if reply.result.is_ok() => {
                    state.saw.answered = true;
                    if !state.chosen.contains_key(&reply.served.slot) {
                        state.wrong = Some("a command was acknowledged that is not chosen");
                    }
                }
                Effect::Note(Note::Elected { reproposed, .. }) => {
                    elected = true;
                    state.saw.taken_over |= reproposed > 0;
                }
                Effect::Note(Note::Conflict { .. }) => {
                    state.wrong = Some("two values were learned for one slot")
                }
                _ => {}
            }
        }
        if elected && self.asked {
            let stood = state.nodes[id as usize - 1].stood;
            self.ask(state, id, stood);
        }
        if self.crashes == 0 {
            self.sync(state, id);
        }
    }

    fn ask(&self, state: &mut State, id: NodeId, n: u32) {
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
        if self.matters(&message) {
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
            Node { core, disk, unsynced: Vec::new(), held: Vec::new(), stood: 0, promised: BTreeMap::new() }
        });
        vec![State {
            nodes: nodes.collect(),
            network: Vec::new(),
            crashed: 0,
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            wrong: None,
            saw: Saw::default(),
        }]
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
        if self.asked {
            properties
                .push(Property::sometimes("a command is answered", |_, state: &State| state.saw.answered));
        }
        if self.protocol == Protocol::MultiPaxos && self.proposers * self.stands > 1 {
            properties
                .push(Property::sometimes("a value is taken over", |_, state: &State| state.saw.taken_over));
        }
        if self.crashes > 0 {
            properties.push(Property::sometimes("something is chosen after a crash", |_, state: &State| {
                state.saw.chosen_after_crash
            }));
        }
        properties
    }
}

/// What the exploration of a model came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// States with repetitions.
    pub visited: usize,
    /// The longest way to a state for the first time, in steps.
    pub depth: usize,
    /// What is wrong in a state that can be come to, and the shortest way there.
    pub wrong: Option<(&'static str, String)>,
    /// What ought to happen in some state, and does in none: the model is stuck.
    pub never: Vec<&'static str>,
    /// Whether all states were seen. Not if something is wrong.
    pub whole: bool,
}

impl Cluster {
    fn new(protocol: Protocol, proposers: u32, crashes: u32) -> Self {
        Cluster {
            protocol,
            nodes: 3,
            proposers,
            stands: 1,
            rounds: u64::from(proposers),
            crashes,
            prompt: false,
            hooks: Hooks::default(),
            asked: true,
        }
    }

    fn multi(leaders: u32, crashes: u32) -> Self {
        Self::new(Protocol::MultiPaxos, leaders, crashes)
    }

    fn basic(proposers: u32, crashes: u32) -> Self {
        Cluster { rounds: 1, ..Self::new(Protocol::BasicPaxos, proposers, crashes) }
    }

    fn prompt(self) -> Self {
        Cluster { prompt: true, ..self }
    }

    fn barriers_only(self) -> Self {
        Cluster { asked: false, ..self }
    }

    /// The same with a bug in every node.
    #[must_use]
    pub fn planted(self, bug: Bug) -> Self {
        Cluster { hooks: Hooks::planted([bug]), ..self }
    }

    /// Goes through all states, breadth first on two threads, or until something is wrong.
    pub fn explore(self) -> Explored {
        let checker = self.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let wrong = checker.discovery(WRONG).map(|path| {
            let what = path.last_state().wrong.unwrap_or_default();
            (what, format!("{:#?}", path.into_actions()))
        });
        let sometimes =
            self.properties().into_iter().map(|property| property.name).filter(|name| *name != WRONG);
        Explored {
            states: checker.unique_state_count(),
            visited: checker.state_count(),
            depth: checker.max_depth(),
            never: sometimes.filter(|name| checker.discovery(name).is_none()).collect(),
            whole: wrong.is_none() && checker.is_done(),
            wrong,
        }
    }
}

/// The models whose states can all be seen within a minute, with their names.
pub fn bounded() -> Vec<(&'static str, Cluster)> {
    vec![
        ("multi-paxos, one leader", Cluster::multi(1, 0)),
        ("multi-paxos, one leader, one crash", Cluster::multi(1, 1)),
        ("basic paxos, one proposer, one crash", Cluster::basic(1, 1)),
        ("basic paxos, two proposers", Cluster::basic(2, 0)),
        ("basic paxos, two proposers, one crash, prompt disks", Cluster::basic(2, 1).prompt()),
        ("basic paxos, three proposers", Cluster::basic(3, 0)),
        ("multi-paxos, two leaders with their barriers", Cluster::multi(2, 0).barriers_only()),
    ]
}

/// The model in which a bug can be found by looking at every state, if there is one that is small enough: of two or three proposers, at most one
/// crash, and nothing that needs time, a snapshot, a session or a read.
pub fn of_bug(bug: Bug) -> Option<(&'static str, Cluster)> {
    let (name, model) = match bug {
        Bug::AcceptBelowPromise
        | Bug::QuorumOffByOne
        | Bug::BallotsByRound
        | Bug::ChosenByOne
        | Bug::PromiseOmitsVotes => ("basic paxos, two proposers", Cluster::basic(2, 0)),
        Bug::IgnoreAccepted | Bug::LeadsUnprepared | Bug::InheritedIsChosen => {
            ("multi-paxos, two leaders with their barriers", Cluster::multi(2, 0).barriers_only())
        }
        Bug::AckBeforeQuorum => ("multi-paxos, two leaders", Cluster::multi(2, 0)),
        Bug::PromiseNotWritten | Bug::AcceptNotSynced => {
            ("multi-paxos, one leader, one crash, prompt disks", Cluster::multi(1, 1).prompt())
        }
        Bug::VoteIsNoPromise | Bug::OneBallotField => {
            ("basic paxos, three proposers", Cluster::basic(3, 0).barriers_only())
        }
        Bug::LowestVote | Bug::FirstVote => {
            ("multi-paxos, three leaders with their barriers", Cluster::multi(3, 0).barriers_only())
        }
        _ => return None,
    };
    Some((name, model.planted(bug)))
}
