//! Every state of the master lease, in time that goes by in ticks.
//!
//! ```text
//! at first   node 1 leads, elected by itself and node 2, and its heartbeats are on their way
//! actions    deliver any message that is on its way, in any order, or never; a tick; a crash of somebody who has granted; a hand-over
//! always     who reads by its lease has no successor yet
//! sometimes  a read by the lease; a successor that holds a lease; a successor after a crash
//! ```
//!
//! All clocks run alike here, and a tick is the same one for all: it is about who waits for whom, and from when on that is counted. What clocks that run at
//! different rates need is arithmetic ([`crate::core::Timing::usable_lease`]), and left to the simulator. Disks are immediate. Messages that have nothing to
//! do with leases are not put on their way.

use std::collections::BTreeSet;
use std::time::Duration;

use stateright::{Model, Property};

use super::WRONG;
use crate::bugs::Hooks;
use crate::core::{
    Ballot, Command, Config, Core, Durable, Effect, Input, Message, Mono, NodeId, Note, Op, Protocol,
    ReadMode, Record,
};

/// Three nodes, of which the first leads and the second may succeed it.
#[derive(Clone, Copy, Debug)]
pub struct Leases {
    /// When time ends.
    pub(super) ticks: u32,
    /// The only one that grants leases to others; the others hear no heartbeats.
    pub(super) grants: NodeId,
    pub(super) crashes: u32,
    pub(super) hand_overs: u32,
    pub(super) hooks: Hooks,
}

const TICK: Duration = Duration::from_secs(1);
/// In ticks; a heartbeat is sent at each.
const LEASE: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    core: Core,
    disk: Durable,
}

/// All nodes, what is on its way, and what an onlooker who sees everything knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    now: u32,
    nodes: Vec<Node>,
    network: BTreeSet<(NodeId, NodeId, Message)>,
    crashed: u32,
    handed_over: u32,
    /// The highest ballot under which anybody was elected.
    elected: Ballot,
    pub(super) wrong: Option<&'static str>,
    read: bool,
    succeeded: bool,
    succeeded_after_crash: bool,
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // as the file begins
pub enum Action {
    Deliver(NodeId, NodeId, Message),
    Tick,
    Crash(NodeId),
    HandOver,
}

impl Leases {
    fn config(&self, id: NodeId) -> Config {
        let mut config = Config::new(id, 1..=3, Protocol::MultiPaxos);
        let never = TICK * 86_400;
        config.hooks = self.hooks;
        let timing = &mut config.timing;
        (timing.heartbeat, timing.lease, timing.drift_ppm) = (TICK, TICK * LEASE, 0);
        // Nobody but these two stands.
        timing.election = if id < 3 { (TICK, TICK) } else { (never, never) };
        (timing.deadline, timing.leader_wait, timing.resend) = (never, never, never);
        config.snapshot_every = 0;
        config
    }

    /// Whether a message has to do with leases, and is not always lost.
    fn matters(&self, state: &State, from: NodeId, to: NodeId, message: &Message) -> bool {
        match message {
            // Node 1 is not elected a second time.
            Message::Prepare { .. } => from == 2 || state.elected == Ballot::ZERO,
            Message::Promise { .. } | Message::Release { .. } => true,
            Message::Heartbeat { .. } => to == self.grants || from == self.grants,
            Message::HeartbeatAck { .. } => true,
            _ => false,
        }
    }

    /// A step on an immediate disk. Returns what has nothing to do with leases.
    fn step(&self, state: &mut State, id: NodeId, input: Input) -> Vec<(NodeId, Message)> {
        let now = Mono::default() + TICK * state.now;
        let (mut inputs, mut others) = (vec![input], Vec::new());
        while let Some(input) = inputs.pop() {
            for effect in state.nodes[id as usize - 1].core.step(now, input) {
                match effect {
                    Effect::Persist { token, records } => {
                        let node = &mut state.nodes[id as usize - 1];
                        records.into_iter().for_each(|record| node.disk.apply(record));
                        inputs.push(Input::Persisted(token));
                    }
                    Effect::Send { to, message, .. } if self.matters(state, id, to, &message) => {
                        state.network.insert((id, to, message));
                    }
                    Effect::Send { to, message, .. } => others.push((to, message)),
                    Effect::Note(Note::Elected { ballot, .. }) => state.elected = state.elected.max(ballot),
                    _ => {}
                }
            }
        }
        others
    }

    fn deliver(
        &self,
        state: &mut State,
        from: NodeId,
        to: NodeId,
        message: Message,
    ) -> Vec<(NodeId, Message)> {
        self.step(state, to, Input::Message { from, message })
    }

    /// Whether a node would answer a read from its own memory now.
    fn reads(state: &State, node: &Node) -> bool {
        let command = Command { client: 7, seq: 0, op: Op::Get { key: "k".into(), mode: ReadMode::Lease } };
        let read = Input::Client { call: 1, command, deadline: None, no_forward: true };
        let effects = node.core.clone().step(Mono::default() + TICK * state.now, read);
        effects.iter().any(|effect| matches!(effect, Effect::Reply { reply, .. } if reply.result.is_ok()))
    }

    fn inspect(&self, state: &mut State) {
        let now = Mono::default() + TICK * state.now;
        for node in &state.nodes {
            let status = node.core.status();
            let Some(ballot) = status.leading else { continue };
            if Self::reads(state, node) {
                state.read = true;
                if state.elected > ballot {
                    state.wrong = Some("somebody reads by a lease although a later leader was elected");
                }
            }
            if status.node != 1 && status.lease_until.is_some_and(|until| until > now) {
                state.succeeded = true;
                state.succeeded_after_crash |= state.crashed > 0;
            }
        }
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let nodes = (1..=3).map(|id| {
            let others = (1..=3).filter(|node| *node != id);
            let mut disk: Durable = others.map(|node| Record::Known { node, epoch: 1 }).collect();
            // Its first start, which has nothing to wait out.
            let start = disk.begin_incarnation(Duration::ZERO);
            disk.apply(start);
            Node { core: Core::new(self.config(id), disk.clone(), Mono::default()), disk }
        });
        let mut state = State {
            now: 1,
            nodes: nodes.collect(),
            network: BTreeSet::new(),
            crashed: 0,
            handed_over: 0,
            elected: Ballot::ZERO,
            wrong: None,
            read: false,
            succeeded: false,
            succeeded_after_crash: false,
        };
        self.step(&mut state, 1, Input::Tick);
        let mut barrier = Vec::new();
        for (from, to) in [(1, 2), (2, 1)] {
            let sent = state.network.iter().find(|(a, b, _)| (*a, *b) == (from, to)).cloned();
            if let Some((from, to, message)) = sent {
                barrier = self.deliver(&mut state, from, to, message);
            }
        }
        // Only its heartbeats are left on their way; its barrier is chosen, or it would read nothing.
        state.network.retain(|(.., message)| matches!(message, Message::Heartbeat { .. }));
        for (to, message) in barrier.into_iter().filter(|(to, _)| *to == 2) {
            for (_, answer) in self.deliver(&mut state, 1, to, message) {
                self.deliver(&mut state, 2, 1, answer);
            }
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let on_their_way = state.network.iter().cloned();
        actions.extend(on_their_way.map(|(from, to, message)| Action::Deliver(from, to, message)));
        if state.now < self.ticks {
            actions.push(Action::Tick);
        }
        if state.crashed < self.crashes {
            actions.extend([2, 3].map(Action::Crash));
        }
        if state.handed_over < self.hand_overs {
            actions.push(Action::HandOver);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(from, to, message) => {
                state.network.remove(&(from, to, message.clone()));
                self.deliver(&mut state, from, to, message);
            }
            Action::Tick => {
                state.now += 1;
                for id in 1..=3 {
                    self.step(&mut state, id, Input::Tick);
                }
            }
            Action::Crash(id) => {
                state.crashed += 1;
                let (config, now) = (self.config(id), Mono::default() + TICK * state.now);
                let node = &mut state.nodes[id as usize - 1];
                let start = node.disk.begin_incarnation(config.timing.lease);
                node.disk.apply(start);
                node.core = Core::new(config, node.disk.clone(), now);
            }
            Action::HandOver => {
                state.handed_over += 1;
                self.step(&mut state, 1, Input::HandOver);
            }
        }
        self.inspect(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(WRONG, |_, state: &State| state.wrong.is_none()),
            Property::sometimes("a read is answered by the lease", |_, state: &State| state.read),
            Property::sometimes("a successor holds a lease", |_, state: &State| state.succeeded),
        ];
        if self.crashes > 0 {
            properties
                .push(Property::sometimes("a successor holds a lease after a crash", |_, state: &State| {
                    state.succeeded_after_crash
                }));
        }
        properties
    }
}
