//! The loop around the core: the only place where its inputs and effects meet the world.
//!
//! ```text
//! peers ──┐                          ┌─→ Writer (log)      ─ token on disk ─┐
//! clients ┼→ events → step(now, …) ──┼─→ Outbox of each peer  ← after token ┤ held until then
//! timer ──┘       ↑                  └─→ replies                            │
//!                 └───────────────────────── Persisted ─────────────────────┘
//! ```
//!
//! The clock is read after each input was received and before it is handled, never once for several: a lease read must not
//! be checked against a time at which its request had not even arrived. Nothing waits for a tick that could go on at once.
//! Deliberately no protocol knowledge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::core::{
    Call, Command, Core, Effect, Failure, Input, Message, NodeId, Note, Reply, Served, Status, Token,
};
use crate::events::EventLog;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::wal::{Done, LogWrite, Writer};

/// Something from outside.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event {
    /// A batch of a peer.
    Peer { from: NodeId, messages: Vec<Message> },
    /// A client's call.
    Client { command: Command, deadline: Option<Duration>, no_forward: bool, reply: oneshot::Sender<Reply> },
    /// The node is about to stop: hand leadership over, and say whether there was anything to hand over.
    HandOver(oneshot::Sender<bool>),
    /// Somebody wants to look at the core. It must not take long: nothing else happens meanwhile.
    Look(Look),
}

/// What is done with the core by somebody who looks at it.
pub struct Look(pub Box<dyn FnOnce(&Core) + Send>);

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// Where events go.
pub type Events = mpsc::Sender<Event>;

/// Events that may wait for the core; whoever brings more waits itself.
pub const EVENTS_MAX: usize = 4_096;
/// Calls that may be open at a node.
const CALLS_MAX: usize = 16_384;
/// Inputs that are handled before their effects are carried out.
const BATCH: usize = 128;
/// Between two ticks of the core.
const TICK: Duration = Duration::from_millis(10);

/// The core with its surroundings.
pub struct Driver {
    core: Core,
    clock: Clock,
    writer: Writer,
    peers: Links,
    calls: BTreeMap<Call, oneshot::Sender<Reply>>,
    next_call: Call,
    held: BTreeMap<Token, Vec<(NodeId, Message)>>,
    /// To be written, and to be sent: handed over together after each batch of inputs.
    writes: Vec<LogWrite>,
    sends: BTreeMap<NodeId, Vec<Message>>,
    status: Arc<Mutex<Status>>,
    metrics: Arc<Metrics>,
    log: Option<EventLog>,
}

impl Driver {
    /// Wires everything up; but for connections nothing happens before [`Driver::run`]. Must be called within a tokio runtime.
    pub fn new(core: Core, clock: Clock, writer: Writer, mut peers: Links, metrics: Arc<Metrics>) -> Self {
        peers.follow(core.members());
        let status = Arc::new(Mutex::new(core.status()));
        Driver {
            core,
            clock,
            writer,
            peers,
            calls: BTreeMap::new(),
            next_call: 1,
            held: BTreeMap::new(),
            writes: Vec::new(),
            sends: BTreeMap::new(),
            status,
            metrics,
            log: None,
        }
    }

    /// What the node believes, kept up to date while it runs.
    pub fn status(&self) -> Arc<Mutex<Status>> {
        self.status.clone()
    }

    /// Tells there what happens.
    pub fn tells(&mut self, log: EventLog) {
        self.log = Some(log);
    }

    /// Runs until all senders of `events` are gone.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, mut synced: mpsc::UnboundedReceiver<Done>) {
        let mut next_tick = tokio::time::Instant::now();
        loop {
            let now = tokio::time::Instant::now();
            let wake = self.core.wakeup().map(|at| now + at.since(self.clock.now()));
            let wake = wake.map_or(next_tick, |wake| wake.min(next_tick));
            tokio::select! {
                biased;
                Some(done) = synced.recv() => self.on_disk(done),
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                () = tokio::time::sleep_until(wake) => {
                    next_tick = tokio::time::Instant::now() + TICK;
                    self.step(Input::Tick);
                }
            }
            for _ in 0..BATCH {
                if let Ok(done) = synced.try_recv() {
                    self.on_disk(done);
                } else if let Ok(event) = events.try_recv() {
                    self.on_event(event);
                } else {
                    break;
                }
            }
            if tokio::time::Instant::now() >= next_tick {
                next_tick = tokio::time::Instant::now() + TICK;
                self.step(Input::Tick);
            }
            self.flush();
            self.metrics.open_calls(self.calls.len());
            let status = self.core.status();
            if let Some(log) = &mut self.log {
                log.status(self.clock.now(), &status);
            }
            *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Peer { from, messages } => {
                self.metrics.received(&messages);
                for message in messages {
                    self.step(Input::Message { from, message });
                }
            }
            Event::Client { command, deadline, no_forward, reply } => {
                if self.calls.len() >= CALLS_MAX {
                    let result = Err(Failure::Overloaded("too many calls are open at this node"));
                    // A client that has gone away needs no answer.
                    drop(reply.send(Reply { result, served: Served::default(), leader_hint: 0 }));
                    return;
                }
                let call = self.next_call;
                self.next_call += 1;
                self.calls.insert(call, reply);
                self.step(Input::Client { call, command, deadline, no_forward });
            }
            Event::Look(Look(look)) => look(&self.core),
            Event::HandOver(done) => {
                let led = self.core.status().leading;
                self.step(Input::HandOver);
                self.flush();
                // Whoever asked may have gone.
                let _ = done.send(led.is_some() && self.core.status().leading != led);
            }
        }
    }

    fn on_disk(&mut self, done: Done) {
        match done {
            Done::Written(token) => self.on_synced(token),
            Done::Saved(slot) => {
                self.metrics.saved();
                if let Some(log) = &mut self.log {
                    log.saved(self.clock.now(), slot);
                }
                self.step(Input::SnapshotSaved(slot));
            }
        }
    }

    fn on_synced(&mut self, token: Token) {
        let later = self.held.split_off(&(token + 1));
        let ready = std::mem::replace(&mut self.held, later);
        for (to, message) in ready.into_values().flatten() {
            self.send(to, message);
        }
        self.step(Input::Persisted(token));
    }

    fn step(&mut self, input: Input) {
        let now = self.clock.now();
        for effect in self.core.step(now, input) {
            if let Some(log) = &mut self.log {
                log.effect(now, &effect);
            }
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist { token, records } => self.writes.push(LogWrite::append(token, records)),
            Effect::Truncate { token, records } => self.writes.push(LogWrite::replace(token, records)),
            Effect::Incarnation(epoch) => self.peers.speaks_as(epoch),
            Effect::Snapshot(snapshot) => self.writer.save(snapshot),
            Effect::Send { to, message, after: None } => self.send(to, message),
            Effect::Send { to, message, after: Some(token) } => {
                self.held.entry(token).or_default().push((to, message));
            }
            Effect::Reply { call, reply } => {
                self.metrics.replied(&reply);
                if let Some(client) = self.calls.remove(&call) {
                    // A client that has gone away needs no answer.
                    drop(client.send(*reply));
                }
            }
            Effect::Members(nodes) => self.peers.follow(&nodes),
            Effect::Note(note) => {
                self.metrics.note(&note);
                log(&note);
            }
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.sends.entry(to).or_default().push(message);
    }

    /// Hands over what has gathered: one wake-up for each peer and one for the log, however many commands there were.
    /// Messages first: they travel while the log is synced.
    fn flush(&mut self) {
        loop {
            for (to, messages) in &mut self.sends {
                match self.peers.outbox(*to) {
                    Some(peer) => peer.push(messages.drain(..)),
                    None => messages.clear(),
                }
            }
            let Some(newest) = self.writes.last().map(|write| write.token) else { return };
            if !self.writer.write(std::mem::take(&mut self.writes)) {
                return;
            }
            // Written without a sync: nothing else will report it, and what it lets go is to be sent as well.
            self.on_synced(newest);
        }
    }
}

fn log(note: &Note) {
    match note {
        Note::Candidate { ballot, after } => {
            tracing::info!("stands for election: ballot {ballot}, after slot {after}")
        }
        Note::Elected { ballot, reproposed, barrier } => {
            tracing::info!(
                "became leader: ballot {ballot}, {reproposed} open slots taken over, barrier at {barrier}"
            );
        }
        Note::SteppedDown { ballot, why } => tracing::info!("stepped down: ballot {ballot}, {why}"),
        Note::Follows { ballot } => tracing::info!("follows node {}: ballot {ballot}", ballot.node),
        Note::LeaseTooLong { leader, asked } => tracing::warn!(
            "node {leader} wants a lease of {asked:?}, longer than this node's; give all nodes the same --lease-ms"
        ),
        Note::LostItsDisk { epoch } => tracing::warn!(
            "the data directory was empty, but other nodes know this one: it rejoins as incarnation {epoch}, and has no vote \
             until it knows everything that it may have voted for"
        ),
        Note::VotesAgain { applied } => {
            tracing::info!("votes again, having applied all up to slot {applied}")
        }
        Note::Joins { epoch } => tracing::info!(
            "joins as incarnation {epoch}: it learns, and has no vote until a change of the members adds it"
        ),
        Note::Configuration { config, since, member } => tracing::info!(
            "configuration {config} has begun behind slot {since}; this node is {} of its members",
            if *member { "one" } else { "none" }
        ),
        Note::Truncated { slot } => tracing::info!("truncated the log up to slot {slot}"),
        Note::Installed { from, to } => {
            tracing::info!("took over a snapshot up to slot {to}, had applied only up to {from}");
        }
        Note::Conflict { slot } => tracing::error!(
            "slot {slot} was chosen with two values: consensus is broken; compare the logs of all nodes before going on"
        ),
    }
}
