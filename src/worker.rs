//! One client at work: take the next arrival, wait until it is due, ask, write down what came of it.
//!
//! ```text
//! connect ─▶ arrival ─▶ wait ─▶ Invoke ─▶ client.invoke (with a deadline) ─▶ Ok | Fail | Info
//!    ▲                                                                          │        │
//!    └──────────── a new process and a new connection ◀─────────────────────────┴────────┘
//! ```
//! After `Info` the process is retired for ever, since its operation may still take effect. A client that cannot
//! connect takes no arrivals: the others do.

use crate::{
    adapter::{Adapter, Node, Session},
    clock::Clock,
    journal::Journal,
    plan::ClientPlan,
};
use checkers::{Kind, Meta, Op, Process};
use nemesis::Timeline;
use rand_chacha::ChaCha8Rng;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::watch;
use workloads::{Client, Generator, Outcome, Pace};

/// After a refusal or a failed connection a client holds back a little, so that one sick node does not eat the arrivals.
pub(crate) const HOLD_BACK: Duration = Duration::from_millis(50);

/// How often replicas are looked at, where a workload wants that.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// The phase of samples of replicas during the load.
pub const SAMPLE: &str = "sample";
/// The phase of what is read at the end.
pub const FINAL: &str = "final";

/// What all workers of a run share.
pub struct Shared {
    /// The system.
    pub adapter: Arc<dyn Adapter>,
    /// Its nodes.
    pub members: Vec<Node>,
    /// The clock.
    pub clock: Clock,
    /// The journal.
    pub journal: Journal,
    /// The deadline of an operation.
    pub op_timeout: Duration,
    /// The deadline of an attempt.
    pub attempt_timeout: Duration,
    /// How often an operation may be attempted again.
    pub retries: u32,
    /// Whether operations have an identity.
    pub sessions: bool,
    /// A number of the run's own.
    pub run: u64,
    /// Process numbers for clients that follow on retired ones.
    pub next_process: AtomicU64,
    /// Where operations come from.
    pub arrivals: Arrivals,
    /// The tester's own lateness.
    pub lateness: Lateness,
}

/// How late clients that were free asked what was due: the tester's fault, not the system's.
#[derive(Debug, Default)]
pub struct Lateness {
    /// Times it was more than [`Lateness::NOTABLE`].
    pub late: AtomicU64,
    /// The most, in nanoseconds.
    pub max_ns: AtomicU64,
}

impl Lateness {
    /// Ten milliseconds, in nanoseconds.
    pub const NOTABLE: u64 = 10_000_000;

    fn note(&self, ns: u64) {
        self.max_ns.fetch_max(ns, Relaxed);
        if ns > Lateness::NOTABLE {
            self.late.fetch_add(1, Relaxed);
        }
    }
}

/// The stream of arrivals: what is asked, and when it is due. Workers take from it in turn.
pub struct Arrivals {
    source: Mutex<Source>,
    dropped: AtomicU64,
}

struct Source {
    generator: Box<dyn Generator>,
    ops: ChaCha8Rng,
    times: ChaCha8Rng,
    pace: Pace,
    rate: f64,
    due: u64,
    end: u64,
    max_wait: u64,
    /// When the last operation of each kind that succeeded was called; samples left out.
    succeeded: BTreeMap<String, u64>,
}

impl Arrivals {
    /// Arrivals that begin with [`Arrivals::open`]. A `rate` of 0 is a closed loop. `max_wait` is in nanoseconds.
    pub fn new(
        generator: Box<dyn Generator>,
        (ops, times): (ChaCha8Rng, ChaCha8Rng),
        (pace, rate): (Pace, f64),
        max_wait: u64,
    ) -> Self {
        let succeeded = BTreeMap::new();
        let source = Source { generator, ops, times, pace, rate, due: 0, end: 0, max_wait, succeeded };
        Arrivals { source: Mutex::new(source), dropped: AtomicU64::new(0) }
    }

    /// The next operation and the time at which it is due; `None` when there are no more.
    pub(crate) fn next(&self, now: u64) -> Option<(u64, Op)> {
        let mut source = self.lock();
        let s = &mut *source;
        if s.rate == 0.0 {
            return (now < s.end).then(|| (now, s.generator.next(&mut s.ops)));
        }
        loop {
            s.due += s.pace.gap_ns(s.rate, &mut s.times);
            if s.due >= s.end {
                // Nobody may step back from the end.
                s.due = s.end;
                return None;
            }
            let op = s.generator.next(&mut s.ops);
            if s.due + s.max_wait >= now {
                return Some((s.due, op));
            }
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// An operation outside of the schedule of arrivals.
    pub(crate) fn any(&self) -> Op {
        let mut source = self.lock();
        let s = &mut *source;
        s.generator.next(&mut s.ops)
    }

    /// The load begins now (`start`) and lasts until `end`.
    pub fn open(&self, start: u64, end: u64) {
        let mut source = self.lock();
        source.due = start;
        source.end = end;
    }

    pub(crate) fn completed(&self, op: &Op, ret: &checkers::Ret, call: u64, sample: bool) {
        let mut source = self.lock();
        source.generator.completed(op, ret);
        if !sample {
            match source.succeeded.get_mut(op.f()) {
                Some(last) => *last = call.max(*last),
                None => drop(source.succeeded.insert(op.f().to_owned(), call)),
            }
        }
    }

    /// Whether an operation of this kind succeeded that was called at `since` or later.
    pub fn succeeded(&self, kind: &str, since: u64) -> bool {
        self.lock().succeeded.get(kind).is_some_and(|call| *call >= since)
    }

    /// What replicas are to be asked through the run; empty if they are not watched.
    pub fn samples(&self) -> Vec<Op> {
        self.lock().generator.samples()
    }

    /// The operations for after the faults.
    pub fn final_ops(&self) -> Vec<Op> {
        self.lock().generator.final_ops()
    }

    /// Arrivals that waited too long for a free client and were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Shared {
    fn session(&self, process: u64, home: usize, fails_over: bool) -> Session {
        let n = self.members.len();
        let others =
            if fails_over { (1..n).map(|i| self.members[(home + i) % n].clone()).collect() } else { vec![] };
        Session {
            process,
            run: self.run,
            home: self.members[home].clone(),
            others,
            op_timeout: self.op_timeout,
            attempt_timeout: self.attempt_timeout,
            retries: self.retries,
            sessions: self.sessions,
        }
    }

    fn new_process(&self) -> u64 {
        self.next_process.fetch_add(1, Relaxed)
    }

    /// Asks one operation and writes it down. Returns what came of it.
    async fn ask(&self, client: &mut dyn Client, process: u64, op: Op, invoke: Meta) -> Outcome {
        let who = Process::Client(process);
        let (node, phase) = (invoke.node.clone(), invoke.phase.clone());
        let call = self.journal.record(who, Kind::Invoke, op.clone(), None, invoke);
        let answer = tokio::time::timeout(self.op_timeout, client.invoke(&op)).await;
        let outcome =
            answer.unwrap_or_else(|_| Outcome::Info(format!("timed out after {:?}", self.op_timeout)));
        let sample = phase.as_deref() == Some(SAMPLE);
        let mut meta = Meta { node, phase, ..Meta::default() };
        match &outcome {
            Outcome::Ok(ret, served) => {
                let served = served.clone();
                meta.path = served.path;
                meta.forwarded = served.forwarded;
                meta.commit_ns = served.commit_ns;
                meta.slot = served.slot;
                meta.ballot = served.ballot;
                meta.rounds = served.rounds;
                self.journal.record(who, Kind::Ok, op.clone(), Some(ret.clone()), meta);
                self.arrivals.completed(&op, ret, call, sample);
            }
            Outcome::Fail(why) | Outcome::Info(why) => {
                meta.error = Some(why.as_str().into());
                let kind = if matches!(outcome, Outcome::Fail(_)) { Kind::Fail } else { Kind::Info };
                self.journal.record(who, kind, op, None, meta);
            }
        }
        outcome
    }

    async fn connect(&self, session: &Session) -> Result<Box<dyn Client>, String> {
        match tokio::time::timeout(self.op_timeout, self.adapter.connect(session)).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("no connection to {} in time", session.home.name)),
        }
    }
}

/// Works until the arrivals end or `stop` becomes true.
pub async fn load(shared: Arc<Shared>, plan: ClientPlan, mut stop: watch::Receiver<bool>) {
    let mut home = plan.home;
    let turn = |home: usize| if plan.fails_over { (home + 1) % shared.members.len() } else { home };
    let mut process = shared.new_process();
    while !*stop.borrow() {
        let session = shared.session(process, home, plan.fails_over);
        let Ok(mut client) = shared.connect(&session).await else {
            home = turn(home);
            if rest(&mut stop).await || shared.clock.now() >= shared.arrivals.lock().end {
                return;
            }
            continue;
        };
        loop {
            let Some((due, op)) = shared.arrivals.next(shared.clock.now()) else { return };
            if due > shared.clock.now() {
                tokio::select! {
                    () = Timeline::sleep_until(&shared.clock, due) => shared.lateness.note(shared.clock.now() - due),
                    _ = stop.wait_for(|s| *s) => return,
                }
            }
            let meta = Meta { node: Some(session.home.name.clone()), intended: Some(due), ..Meta::default() };
            match shared.ask(&mut *client, process, op, meta).await {
                Outcome::Ok(..) => {}
                Outcome::Fail(_) => {
                    home = turn(home);
                    if rest(&mut stop).await {
                        return;
                    }
                    if plan.fails_over {
                        process = shared.new_process();
                        break;
                    }
                }
                Outcome::Info(_) => {
                    home = turn(home);
                    process = shared.new_process();
                    break;
                }
            }
            if *stop.borrow() || shared.journal.failed() {
                return;
            }
        }
    }
}

/// Waits a little; true if the run was stopped meanwhile.
async fn rest(stop: &mut watch::Receiver<bool>) -> bool {
    tokio::time::timeout(HOLD_BACK, stop.wait_for(|s| *s)).await.is_ok()
}

/// Asks, outside of the load, until every kind of operation has succeeded once: proof that the cluster works before the
/// faults, and again after them. Returns the kinds that did not succeed in time.
pub async fn each_kind(
    shared: Arc<Shared>,
    phase: &str,
    kinds: &[&'static str],
    until: u64,
) -> Vec<&'static str> {
    let mut missing = kinds.to_vec();
    let mut home = 0;
    let mut process = shared.new_process();
    while !missing.is_empty() && shared.clock.now() < until {
        let session = shared.session(process, home, false);
        let Ok(mut client) = shared.connect(&session).await else {
            home = (home + 1) % shared.members.len();
            tokio::time::sleep(HOLD_BACK).await;
            continue;
        };
        while !missing.is_empty() && shared.clock.now() < until {
            let op = shared.arrivals.any();
            if !missing.contains(&op.f()) {
                continue;
            }
            let meta =
                Meta { node: Some(session.home.name.clone()), phase: Some(phase.into()), ..Meta::default() };
            let f = op.f().to_owned();
            match shared.ask(&mut *client, process, op, meta).await {
                Outcome::Ok(..) => missing.retain(|m| *m != f),
                _ => {
                    home = (home + 1) % shared.members.len();
                    process = shared.new_process();
                    tokio::time::sleep(HOLD_BACK).await;
                    break;
                }
            }
        }
    }
    missing
}

/// Asks each operation through one node until it is answered, or the time is up. Returns how many stayed unanswered.
pub async fn final_reads(shared: Arc<Shared>, node: usize, ops: Vec<Op>, until: u64) -> usize {
    let mut ops = ops.into_iter();
    let mut current = ops.next();
    let mut process = shared.new_process();
    while current.is_some() && shared.clock.now() < until {
        let session = shared.session(process, node, false);
        let Ok(mut client) = shared.connect(&session).await else {
            tokio::time::sleep(HOLD_BACK).await;
            continue;
        };
        while let Some(op) = current.take() {
            let meta =
                Meta { node: Some(session.home.name.clone()), phase: Some(FINAL.into()), ..Meta::default() };
            let outcome = shared.ask(&mut *client, process, op.clone(), meta).await;
            if let Outcome::Ok(..) = outcome {
                current = ops.next();
                continue;
            }
            current = Some(op);
            process = shared.new_process();
            tokio::time::sleep(HOLD_BACK).await;
            break;
        }
    }
    usize::from(current.is_some()) + ops.len()
}

/// Looks at one replica again and again, under the phase that `phase` says at the time, until that is `None`. A sample that is not
/// answered is written down like any other operation; while there is no connection, nothing is asked.
pub async fn sample(
    shared: Arc<Shared>,
    node: usize,
    ops: Vec<Op>,
    mut phase: watch::Receiver<Option<&'static str>>,
) {
    let mut process = shared.new_process();
    while phase.borrow().is_some() {
        let session = shared.session(process, node, false);
        let Ok(mut client) = shared.connect(&session).await else {
            let _ = tokio::time::timeout(HOLD_BACK, phase.wait_for(Option::is_none)).await;
            continue;
        };
        'connected: loop {
            for op in &ops {
                let Some(now) = *phase.borrow() else { return };
                let home = session.home.name.clone();
                let meta = Meta { node: Some(home), phase: Some(now.into()), ..Meta::default() };
                if !matches!(shared.ask(&mut *client, process, op.clone(), meta).await, Outcome::Ok(..)) {
                    process = shared.new_process();
                    break 'connected;
                }
            }
            if tokio::time::timeout(SAMPLE_EVERY, phase.wait_for(Option::is_none)).await.is_ok() {
                return;
            }
        }
        let _ = tokio::time::timeout(HOLD_BACK, phase.wait_for(Option::is_none)).await;
    }
}
