//! What happens in a world, event by event.
//!
//! ```text
//! (time, order) → Deliver │ Tick │ Synced │ Saved │ Request ─→ a step of a node ─→ its effects, one by one, until it crashes
//!                 Answer │ Timer ─→ the user
//! ```
//!
//! An effect is carried out in the moment of its step; the link or the disk says when it arrives. Deliberately nothing random but
//! delays, losses and copies: faults are the user's.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::link::{CLIENTS, Cut};
use super::node::Loss;
use super::oracle::{Broken, Check, Invariant};
use super::world::{Answer, Happened, World};
use crate::core::{Call, Command, Core, Effect, Input, Message, Mono, NodeId, Note, Token};

/// Between two ticks that nobody asked for, in nanoseconds.
pub(super) const IDLE_TICK: u64 = 10_000_000;
/// How long it takes to write a snapshot, at least and at most, in nanoseconds.
const SAVE: (u64, u64) = (1_000_000, 100_000_000);
/// A copy of a message is so many times as late, at most.
const COPY_DELAYS: u64 = 20;

/// Something that is going to happen.
pub(super) enum Event {
    Deliver { from: NodeId, to: NodeId, message: Message },
    Tick { node: NodeId, life: u32 },
    IdleTick { node: NodeId, life: u32 },
    Synced { node: NodeId, life: u32, token: Token },
    Saved { node: NodeId, life: u32 },
    Request { node: NodeId, life: u32, request: Box<Request> },
    Answer(Answer),
    Crash { node: NodeId, life: u32 },
    Timer(u64),
}

/// A call on its way.
pub(super) struct Request {
    pub(super) call: Call,
    pub(super) command: Command,
    pub(super) deadline: Option<Duration>,
    pub(super) no_forward: bool,
}

impl World {
    /// The next thing that a user has to know; `None` when nothing is left to happen, which is never while a node runs.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Happened> {
        loop {
            if let Some(happened) = self.happened.pop_front() {
                return Some(happened);
            }
            let (at, event) = self.queue.pop()?;
            self.now = at;
            self.events += 1;
            match event {
                Event::Timer(id) => return Some(Happened::Timer(id)),
                Event::Answer(answer) => return Some(Happened::Answer(answer)),
                event => self.handle(event),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let (target, life) = match &event {
            Event::Deliver { to, .. } => (*to, None),
            Event::Tick { node, life }
            | Event::IdleTick { node, life }
            | Event::Synced { node, life, .. }
            | Event::Saved { node, life }
            | Event::Request { node, life, .. }
            | Event::Crash { node, life } => (*node, Some(*life)),
            Event::Answer(_) | Event::Timer(_) => return,
        };
        let node = &mut self.nodes[target as usize];
        if node.core.is_none() || life.is_some_and(|life| life != node.life) {
            return;
        }
        if node.paused && !matches!(event, Event::Crash { .. }) {
            return node.waiting.push(event);
        }
        match event {
            Event::Deliver { from, to, message } => self.step(to, Input::Message { from, message }),
            Event::Tick { node, .. } => self.tick(node),
            Event::IdleTick { node, life } => {
                self.queue.push(self.now + IDLE_TICK, Event::IdleTick { node, life });
                self.idle_tick(node);
            }
            Event::Synced { node, token, .. } => self.synced(node, token),
            Event::Saved { node, .. } => self.saved(node),
            Event::Request { node, request, .. } => {
                let Request { call, command, deadline, no_forward } = *request;
                self.step(node, Input::Client { call, command, deadline, no_forward });
            }
            Event::Crash { node, .. } => {
                if let Some(fuse) = self.nodes[node as usize].fuse {
                    self.crash(node, fuse.loss);
                }
            }
            Event::Answer(_) | Event::Timer(_) => {}
        }
    }

    /// A tick was due; or it was, until something was heard meanwhile.
    fn tick(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        if node.wake_at > self.now {
            // Another tick was found to be due before this one, and has come.
            return;
        }
        let now = node.clock.read(self.now);
        (node.wake_at, node.wake_due) = (u64::MAX, Mono::NEVER);
        let due = node.core.as_ref().and_then(Core::wakeup);
        if due.is_some_and(|due| due <= now) {
            self.step(id, Input::Tick);
            let node = &self.nodes[id as usize];
            if let Some(due) = node.core.as_ref().and_then(Core::wakeup)
                && due <= now
            {
                let what = format!("node {id} was ticked at {} and wants a tick at {}", now.0, due.0);
                self.check(Err((Invariant::Wakeup, what)));
            }
        } else {
            self.wake(id);
        }
    }

    /// A tick that nobody asked for.
    fn idle_tick(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        let now = node.clock.read(self.now);
        let Some(core) = &mut node.core else { return };
        if core.wakeup().is_some_and(|due| due <= now) {
            // The tick that was asked for comes in this moment.
            return;
        }
        let effects = core.step(now, Input::Tick);
        if !effects.is_empty() {
            let what = format!("node {id} was ticked before it wanted to, and did {effects:?}");
            self.check(Err((Invariant::Wakeup, what)));
        }
    }

    /// Sees to it that the core is ticked when it wants to be.
    pub(super) fn wake(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        let Some(due) = node.core.as_ref().and_then(Core::wakeup) else { return };
        if due < node.wake_due {
            node.wake_due = due;
            node.wake_at = node.clock.when(self.now, due);
            self.queue.push(node.wake_at, Event::Tick { node: id, life: node.life });
        }
    }

    pub(super) fn step(&mut self, id: NodeId, input: Input) {
        let node = &mut self.nodes[id as usize];
        let Some(core) = node.core.as_mut() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        core.step_into(node.clock.read(self.now), input, &mut effects);
        if let Some(oracle) = &mut self.oracle {
            let checked = oracle.stepped(id, core);
            if checked.is_err() {
                self.check(checked);
            }
        }
        self.wake(id);
        for effect in effects.drain(..) {
            if !self.may_go_on(id, matches!(effect, Effect::Persist { .. } | Effect::Truncate { .. })) {
                break;
            }
            self.effect(id, effect);
        }
        self.effects = effects;
    }

    /// Whether a node lives to carry out its next effect, which may be a write.
    fn may_go_on(&mut self, id: NodeId, write: bool) -> bool {
        let node = &mut self.nodes[id as usize];
        let Some(fuse) = &mut node.fuse else { return node.core.is_some() };
        if fuse.in_write {
            // The write itself is begun.
            (fuse.in_write, fuse.writing) = (!write, write);
            return true;
        }
        if fuse.effects > 0 {
            fuse.effects -= 1;
            return true;
        }
        let loss = fuse.loss;
        self.crash(id, loss);
        false
    }

    fn effect(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Persist { token, records } | Effect::Truncate { token, records } => {
                let failing = self.nodes[id as usize].failing;
                if failing && self.cluster.hooks.heeds_disk_errors() {
                    // Nobody knows what is on the disk: the process ends itself.
                    return self.crash(id, Loss::Process);
                }
                let records = if failing { Vec::new() } else { records };
                let (shortest, longest) = self.nodes[id as usize].sync;
                let at = self.now + shortest + self.draw(longest.saturating_sub(shortest));
                let node = &mut self.nodes[id as usize];
                node.unsynced.push_back((token, records));
                node.last_sync = node.last_sync.max(at);
                self.queue.push(node.last_sync, Event::Synced { node: id, life: node.life, token });
            }
            Effect::Snapshot(snapshot) => {
                if self.nodes[id as usize].failing {
                    return self.crash(id, Loss::Process);
                }
                let at = self.now + SAVE.0 + self.draw(SAVE.1 - SAVE.0);
                let node = &mut self.nodes[id as usize];
                node.saving = Some(snapshot);
                self.queue.push(at, Event::Saved { node: id, life: node.life });
            }
            Effect::Send { after: Some(token), to, message } => {
                self.nodes[id as usize].hold(token, to, message);
            }
            Effect::Send { after: None, to, message } => self.send(id, to, message),
            Effect::Reply { call, reply } => {
                self.pass(id, CLIENTS, Event::Answer(Answer { call, node: id, reply }));
            }
            Effect::Note(Note::Elected { .. }) => self.elections += 1,
            Effect::Note(Note::Conflict { slot }) => {
                let what = format!("node {id} learned two values for slot {slot}");
                self.check(Err((Invariant::OneValue, what)));
            }
            Effect::Note(Note::VotesAgain { .. }) => {
                self.stored.rejoined += 1;
                if let Some(oracle) = &mut self.oracle {
                    let checked = oracle.votes_again(id);
                    self.check(checked);
                }
            }
            Effect::Note(Note::Configuration { config, member: true, .. }) => {
                self.stored.configurations = self.stored.configurations.max(config);
            }
            Effect::Note(_) | Effect::Incarnation(_) | Effect::Members(_) => {}
        }
    }

    fn saved(&mut self, id: NodeId) {
        let node = &mut self.nodes[id as usize];
        let applied = node.core.as_ref().map_or(0, |core| core.learner().applied());
        if let Some(slot) = node.saved() {
            if let Some(oracle) = &mut self.oracle {
                oracle.saved(id, slot);
            }
            self.stored.snapshots += 1;
            self.stored.installed += u64::from(slot > applied);
            self.step(id, Input::SnapshotSaved(slot));
        }
    }

    fn synced(&mut self, id: NodeId, token: Token) {
        if let Some(fuse) = self.nodes[id as usize].fuse.filter(|fuse| fuse.writing) {
            return self.crash(id, fuse.loss);
        }
        let hooks = self.cluster.hooks;
        if let Some(oracle) = &mut self.oracle {
            self.nodes[id as usize].syncing(token).for_each(|records| oracle.synced(id, records));
        }
        self.nodes[id as usize].synced(token, hooks);
        while self.may_go_on(id, false)
            && let Some((to, message)) = self.nodes[id as usize].release(token)
        {
            self.send(id, to, message);
        }
        self.step(id, Input::Persisted(token));
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if let Some(oracle) = &mut self.oracle {
            match &message {
                Message::Promise { ballot, scope, .. } => oracle.promised(from, scope.slot(), *ballot),
                Message::Accepted { ballot, slot } => oracle.promised(from, *slot, *ballot),
                _ => {}
            }
        }
        self.pass(from, to, Event::Deliver { from, to, message });
    }

    /// Sends something over a link.
    pub(super) fn pass(&mut self, from: NodeId, to: NodeId, event: Event) {
        let at = self.way(from, to);
        let way = &mut self.ways[at];
        way.passed.sent += 1;
        match way.link.cut {
            Cut::Open => {}
            Cut::Hold => {
                way.passed.stopped += 1;
                return way.held.push(event);
            }
            Cut::Drop => {
                way.passed.stopped += 1;
                return;
            }
        }
        let link = way.link;
        if link.loss > 0.0 && self.chance(link.loss) {
            self.ways[at].passed.lost += 1;
            return;
        }
        if let Event::Deliver { message, .. } = &event
            && link.duplicate > 0.0
            && !matches!(message, Message::Forward { .. })
            && self.chance(link.duplicate)
        {
            let copy = Event::Deliver { from, to, message: message.clone() };
            let (delay, _) = self.delay(at);
            self.ways[at].passed.doubled += 1;
            self.queue.push(self.now + delay * COPY_DELAYS, copy);
        }
        let (delay, hurried) = self.delay(at);
        let passed = &mut self.ways[at].passed;
        passed.delay_ns += delay;
        passed.hurried += u64::from(hurried);
        self.queue.push(self.now + delay, event);
    }

    /// Draws a delay; and whether it is none because the message overtakes others.
    pub(super) fn delay(&mut self, at: usize) -> (u64, bool) {
        let ((shortest, more), hurry) = (self.ways[at].delay, self.ways[at].link.hurry);
        if hurry > 0.0 && self.chance(hurry) {
            return (1, true);
        }
        (shortest + self.draw(more), false)
    }

    /// Draws between 0 and `most`, both possible. One multiplication: what is left of a bias is beyond what anybody can measure.
    pub(super) fn draw(&mut self, most: u64) -> u64 {
        ((u128::from(self.rng.next_u64()) * (u128::from(most) + 1)) >> 64) as u64
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability.clamp(0.0, 1.0))
    }

    pub(super) fn check(&mut self, checked: Check) {
        if let Err((invariant, what)) = checked
            && self.cluster.look_inside
        {
            // What follows from it would be no news.
            self.cluster.look_inside = false;
            self.oracle = None;
            self.happened.push_back(Happened::Broken(Broken { invariant, what, at: self.now }));
        }
    }
}
