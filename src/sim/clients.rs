//! The simulated clients: what `worker` does in real time, as a machine that is told what happened.
//!
//! ```text
//! Away ─ connect ─▶ Free ─ arrival ─▶ Waiting ─ due ─▶ Asking ─▶ Ok | Fail | Info
//!   ▲                                                             │        │
//!   └────────────── a new process and a new connection ◀──────────┴────────┘
//! ```
//!
//! After `Info` the process is retired for ever. A refused connection is `Fail`: nothing was sent; one that breaks is `Info`. Deliberately no clock: every
//! method is told the time by the cluster.

use super::cluster::{Said, Simulated};
use crate::{
    journal::Ledger,
    plan::TestPlan,
    worker::{Arrivals, FINAL, HOLD_BACK, SAMPLE, SAMPLE_EVERY},
};
use checkers::{Kind, Meta, Op, Process, Ret};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use workloads::Outcome;

/// Between two attempts of one operation.
const RETRY_PAUSE: u64 = 10_000_000;

/// What a client is for.
pub(super) enum Role {
    /// The load.
    Load { fails_over: bool },
    /// Asks until every kind of operation has succeeded once.
    Each { phase: &'static str, missing: Vec<&'static str> },
    /// Asks each operation until it is answered.
    Final { left: VecDeque<Op> },
    /// Looks at one replica again and again.
    Sample { ops: Vec<Op>, next: usize },
}

enum State {
    /// Without a connection.
    Away,
    /// With one, and nothing to do.
    Free,
    /// Until an operation is due.
    Waiting(u64, Op),
    /// For an answer.
    Asking(Asking),
    /// It is done.
    Gone,
}

struct Asking {
    op: Op,
    seq: u64,
    /// The call of the attempt under way.
    call: Option<u64>,
    attempt: u32,
    at: usize,
    unclear: Option<String>,
    refused: String,
    started: u64,
    ends: u64,
}

/// Whether an operation can get this answer, among those that a simulated cluster speaks.
fn is_answer(op: &Op, ret: &Ret) -> bool {
    match op {
        Op::Read { .. } => matches!(ret, Ret::Value(_)),
        Op::Cas { .. } => matches!(ret, Ret::Swapped { .. }),
        _ => *ret == Ret::Done,
    }
}

/// One client.
pub(super) struct Seat {
    pub(super) role: Role,
    process: u64,
    home: usize,
    seq: u64,
    /// Grows whenever what its timers were set for is over.
    serial: u64,
    state: State,
}

/// Why a client wants to be told the time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wake {
    /// It goes on.
    Go,
    /// The attempt has taken too long.
    Attempt,
    /// The operation has.
    Operation,
}

/// A timer of a client: when, and what for.
pub(super) type Timer = (u64, usize, u64, Wake);

/// All clients of a run.
pub(super) struct Clients {
    pub(super) seats: Vec<Seat>,
    pub(super) arrivals: Arrivals,
    pub(super) ledger: Ledger,
    /// Timers to be set.
    pub(super) timers: Vec<Timer>,
    names: Vec<Arc<str>>,
    next_process: u64,
    op_timeout: Duration,
    attempt_timeout: Duration,
    retries: u32,
    sessions: bool,
    load_end: u64,
    /// Which arrivals are really asked, in ascending order; all if there is no list.
    only: Option<Arc<[u64]>>,
    pub(super) arrived: u64,
    pub(super) sampling: Option<&'static str>,
}

impl Clients {
    pub(super) fn new(plan: &TestPlan, arrivals: Arrivals, only: Option<Arc<[u64]>>) -> Self {
        let load = &plan.scenario.load;
        Clients {
            seats: Vec::new(),
            arrivals,
            ledger: Ledger::default(),
            timers: Vec::new(),
            names: plan.nodes.clone(),
            next_process: 0,
            op_timeout: load.op_timeout.0,
            attempt_timeout: load.attempt(),
            retries: load.retries,
            sessions: load.sessions,
            load_end: 0,
            only,
            arrived: 0,
            sampling: None,
        }
    }

    /// The load is from now until `end`.
    pub(super) fn open(&mut self, now: u64, end: u64) {
        self.arrivals.open(now, end);
        self.load_end = end;
    }

    /// Adds a client, who begins at once.
    pub(super) fn sit(&mut self, role: Role, home: usize, cluster: &mut Simulated) {
        let process = self.fresh();
        self.seats.push(Seat { role, process, home, seq: 0, serial: 0, state: State::Away });
        self.go(self.seats.len() - 1, cluster);
    }

    /// Whether all clients of a kind are done.
    pub(super) fn all_gone(&self, kind: impl Fn(&Role) -> bool) -> bool {
        self.seats.iter().filter(|seat| kind(&seat.role)).all(|seat| matches!(seat.state, State::Gone))
    }

    /// Sends those of a kind away who are not done, whatever they wait for.
    pub(super) fn dismiss(&mut self, kind: impl Fn(&Role) -> bool) {
        for seat in self.seats.iter_mut().filter(|seat| kind(&seat.role)) {
            seat.serial += 1;
            seat.state = State::Gone;
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next_process += 1;
        self.next_process - 1
    }

    fn later(&mut self, at: u64, seat: usize, wake: Wake) {
        self.timers.push((at, seat, self.seats[seat].serial, wake));
    }

    /// A timer of a client.
    pub(super) fn woken(&mut self, index: usize, serial: u64, wake: Wake, cluster: &mut Simulated) {
        if self.seats[index].serial != serial {
            return;
        }
        match wake {
            Wake::Go => self.go(index, cluster),
            Wake::Operation => {
                let why = format!("timed out after {:?}", self.op_timeout);
                self.done(index, Outcome::Info(why), cluster);
            }
            Wake::Attempt => {
                let why = format!("no answer within {} ms", self.attempt_timeout.as_millis());
                self.attempted(index, Said::Unclear(why), cluster);
            }
        }
    }

    /// Does what can be done next.
    fn go(&mut self, index: usize, cluster: &mut Simulated) {
        let now = cluster.now();
        match std::mem::replace(&mut self.seats[index].state, State::Gone) {
            State::Gone => {}
            State::Away => self.connect(index, cluster),
            State::Waiting(due, op) if due <= now => self.ask(index, op, Some(due), cluster),
            State::Asking(asking) if asking.call.is_none() => {
                self.seats[index].state = State::Asking(asking);
                self.attempt(index, cluster);
            }
            State::Free => self.choose(index, cluster),
            state @ (State::Waiting(..) | State::Asking(_)) => self.seats[index].state = state,
        }
    }

    fn connect(&mut self, index: usize, cluster: &mut Simulated) {
        let now = cluster.now();
        let home = self.seats[index].home;
        if cluster.runs(home) && cluster.reaches_clients(home) {
            self.seats[index].state = State::Free;
            return self.go(index, cluster);
        }
        let over = match &self.seats[index].role {
            Role::Load { .. } => now >= self.load_end,
            Role::Sample { .. } => self.sampling.is_none(),
            Role::Each { .. } | Role::Final { .. } => false,
        };
        if over {
            return;
        }
        // Who is not refused waits for the connection until it is given up.
        let pause = if cluster.runs(home) { self.op_timeout } else { HOLD_BACK };
        self.turn(index);
        self.seats[index].state = State::Away;
        self.later(now + pause.as_nanos() as u64, index, Wake::Go);
    }

    /// To the next node, for whom that is allowed.
    fn turn(&mut self, index: usize) {
        let nodes = self.names.len();
        let seat = &mut self.seats[index];
        if matches!(seat.role, Role::Load { fails_over: true } | Role::Each { .. }) {
            seat.home = (seat.home + 1) % nodes;
        }
    }

    /// What a connected client asks next.
    fn choose(&mut self, index: usize, cluster: &mut Simulated) {
        let now = cluster.now();
        let op = match &mut self.seats[index].role {
            Role::Load { .. } => {
                while let Some((due, op)) = self.arrivals.next(now) {
                    self.arrived += 1;
                    if self.only.as_ref().is_some_and(|only| only.binary_search(&(self.arrived - 1)).is_err())
                    {
                        continue;
                    }
                    if due > now {
                        self.seats[index].state = State::Waiting(due, op);
                        return self.later(due, index, Wake::Go);
                    }
                    return self.ask(index, op, Some(due), cluster);
                }
                None
            }
            Role::Each { missing, .. } if missing.is_empty() => None,
            Role::Each { missing, .. } => loop {
                let op = self.arrivals.any();
                if missing.contains(&op.f()) {
                    break Some(op);
                }
            },
            Role::Final { left } => left.front().cloned(),
            Role::Sample { ops, next } => self.sampling.map(|_| ops[*next % ops.len()].clone()),
        };
        if let Some(op) = op {
            self.ask(index, op, None, cluster);
        }
    }

    fn phase(&self, index: usize) -> Option<Arc<str>> {
        match &self.seats[index].role {
            Role::Load { .. } => None,
            Role::Each { phase, .. } => Some((*phase).into()),
            Role::Final { .. } => Some(FINAL.into()),
            Role::Sample { .. } => Some(self.sampling.unwrap_or(SAMPLE).into()),
        }
    }

    fn meta(&self, index: usize) -> Meta {
        let node = Some(self.names[self.seats[index].home].clone());
        Meta { node, phase: self.phase(index), ..Meta::default() }
    }

    fn ask(&mut self, index: usize, op: Op, intended: Option<u64>, cluster: &mut Simulated) {
        let now = cluster.now();
        let meta = Meta { intended, ..self.meta(index) };
        let who = Process::Client(self.seats[index].process);
        self.ledger.record(now, who, Kind::Invoke, op.clone(), None, meta);
        let ends = now + self.op_timeout.as_nanos() as u64;
        let seat = &mut self.seats[index];
        // 0: no session.
        (seat.seq, seat.serial) = (seat.seq + u64::from(self.sessions), seat.serial + 1);
        let (seq, refused) = (seat.seq, String::new());
        let asking =
            Asking { op, seq, call: None, attempt: 0, at: 0, unclear: None, refused, started: now, ends };
        seat.state = State::Asking(asking);
        if self.retries > 0 {
            self.later(ends, index, Wake::Operation);
        }
        self.attempt(index, cluster);
    }

    fn attempt(&mut self, index: usize, cluster: &mut Simulated) {
        let (nodes, now) = (self.names.len(), cluster.now());
        let seat = &mut self.seats[index];
        let State::Asking(asking) = &mut seat.state else { return };
        let node = (seat.home + asking.at) % nodes;
        // The name of a process is that of a session: a new one begins anew.
        asking.call = cluster.ask(node, seat.process + 1, asking.seq, &asking.op, self.op_timeout);
        if asking.call.is_none() {
            return self.attempted(
                index,
                Said::Refused(format!("cannot connect to {}", self.names[node])),
                cluster,
            );
        }
        let (last, ends) = (now + self.attempt_timeout.as_nanos() as u64, asking.ends);
        if last < ends {
            // A timer for this attempt only.
            let call = asking.call;
            self.timers.push((last, index, call.unwrap_or_default() | ATTEMPT, Wake::Attempt));
        } else if self.retries == 0 {
            self.later(ends, index, Wake::Operation);
        }
    }

    /// The timer of an attempt.
    pub(super) fn attempt_over(&mut self, index: usize, call: u64, cluster: &mut Simulated) {
        let State::Asking(asking) = &self.seats[index].state else { return };
        if asking.call == Some(call & !ATTEMPT) {
            let serial = self.seats[index].serial;
            self.woken(index, serial, Wake::Attempt, cluster);
        }
    }

    /// A node has answered.
    pub(super) fn answered(&mut self, call: u64, said: Said, cluster: &mut Simulated) {
        let asks = |seat: &Seat| matches!(&seat.state, State::Asking(asking) if asking.call == Some(call));
        if let Some(index) = self.seats.iter().position(asks) {
            self.attempted(index, said, cluster);
        }
    }

    /// A node is gone, and with it the connections to it.
    pub(super) fn disconnected(&mut self, node: usize, cluster: &mut Simulated) {
        for index in 0..self.seats.len() {
            let seat = &self.seats[index];
            let State::Asking(asking) = &seat.state else { continue };
            if asking.call.is_some() && (seat.home + asking.at) % self.names.len() == node {
                self.attempted(index, Said::Unclear("the connection broke".to_owned()), cluster);
            }
        }
    }

    /// An attempt is over: the operation is, too, or it is repeated under the same identity.
    fn attempted(&mut self, index: usize, said: Said, cluster: &mut Simulated) {
        let (nodes, now, retries) = (self.names.len(), cluster.now(), self.retries);
        let seat = &mut self.seats[index];
        let fails_over = matches!(seat.role, Role::Load { fails_over: true });
        let State::Asking(asking) = &mut seat.state else { return };
        asking.call = None;
        match said {
            // An answer to something else proves nothing about this; a real client could not even read it.
            Said::Answered(Outcome::Ok(ret, _)) if !is_answer(&asking.op, &ret) => {
                asking.unclear = Some(format!("it was answered with {ret:?}"));
            }
            Said::Answered(outcome) => return self.done(index, outcome, cluster),
            Said::Refused(why) => asking.refused = why,
            Said::Unclear(why) => asking.unclear = Some(why),
        }
        if asking.attempt < retries {
            asking.attempt += 1;
            asking.at = if fails_over { (asking.at + 1) % nodes } else { 0 };
            return self.later(now + RETRY_PAUSE, index, Wake::Go);
        }
        // One attempt in doubt leaves the operation in doubt, however clearly the others were refused.
        let outcome = match asking.unclear.take() {
            Some(why) => Outcome::Info(why),
            None => Outcome::Fail(std::mem::take(&mut asking.refused)),
        };
        self.done(index, outcome, cluster);
    }

    fn done(&mut self, index: usize, outcome: Outcome, cluster: &mut Simulated) {
        let now = cluster.now();
        let State::Asking(asking) = std::mem::replace(&mut self.seats[index].state, State::Free) else {
            return;
        };
        let who = Process::Client(self.seats[index].process);
        let mut meta = self.meta(index);
        self.seats[index].serial += 1;
        let sample = matches!(self.seats[index].role, Role::Sample { .. });
        let kind = match &outcome {
            Outcome::Ok(ret, served) => {
                let served = served.clone();
                (meta.path, meta.forwarded, meta.commit_ns) =
                    (served.path, served.forwarded, served.commit_ns);
                (meta.slot, meta.ballot, meta.rounds) = (served.slot, served.ballot, served.rounds);
                self.ledger.record(now, who, Kind::Ok, asking.op.clone(), Some(ret.clone()), meta);
                self.arrivals.completed(&asking.op, ret, asking.started, sample);
                return self.succeeded(index, &asking.op, cluster);
            }
            Outcome::Fail(_) => Kind::Fail,
            Outcome::Info(_) => Kind::Info,
        };
        if let Outcome::Fail(why) | Outcome::Info(why) = &outcome {
            meta.error = Some(why.as_str().into());
        }
        self.ledger.record(now, who, kind, asking.op, None, meta);
        let fails_over = match &self.seats[index].role {
            Role::Load { fails_over } => *fails_over,
            _ => true,
        };
        self.turn(index);
        let over = matches!(self.seats[index].role, Role::Load { .. }) && kind == Kind::Info;
        if kind == Kind::Info || fails_over {
            self.seats[index].process = self.fresh();
            self.seats[index].seq = 0;
            self.seats[index].state = State::Away;
        }
        let pause = if over { 0 } else { HOLD_BACK.as_nanos() as u64 };
        self.later(now + pause, index, Wake::Go);
    }

    fn succeeded(&mut self, index: usize, op: &Op, cluster: &mut Simulated) {
        let now = cluster.now();
        match &mut self.seats[index].role {
            Role::Load { .. } => {}
            Role::Each { missing, .. } => missing.retain(|f| *f != op.f()),
            Role::Final { left } => drop(left.pop_front()),
            Role::Sample { ops, next } => {
                *next += 1;
                if next.is_multiple_of(ops.len()) {
                    return self.later(now + SAMPLE_EVERY.as_nanos() as u64, index, Wake::Go);
                }
            }
        }
        self.go(index, cluster);
    }
}

/// Marks the serial of a timer as the number of a call.
pub(super) const ATTEMPT: u64 = 1 << 63;
