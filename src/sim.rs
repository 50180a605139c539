//! A test in virtual time: the same workload, plan, checkers and guards, against the simulated cluster.
//!
//! ```text
//! TestPlan ─▶ simulate ─▶ Run { history, receipts, broken } ─▶ judge ─▶ Judged
//!             start ─ warm up ─ load + faults ─ heal ─ settle ─ final reads          all of it in virtual time
//! ```
//!
//! A run is a pure function of its plan: the same seed gives the same history, byte for byte, on any machine and however many run
//! side by side. Reading order: `cluster` (the only file that knows the bundled cluster from inside), `clients`, [`faults`], then [`seeds`]
//! (many of them) and [`shrink`] (less of one). What it is not: a test of what surrounds the core, of sockets, files and processes. For that there is
//! `run`.

mod clients;
mod cluster;
#[cfg(test)]
mod controls;
pub mod faults;
pub mod seeds;
pub mod shrink;

use crate::{
    guards::{Evidence, guards},
    judge,
    plan::{TestPlan, stream},
    run::Record,
    worker::{Arrivals, FINAL, SAMPLE},
};
use anyhow::Result;
use checkers::{Budget, Event, Header, History, Kind, Meta, Op, Process, Validity, Verdict};
use clients::{Clients, Role, Wake};
use cluster::{Seen, Simulated};
use faults::Faults;
use nemesis::Receipt;
use serde_json::json;
use std::sync::Arc;

const MS: u64 = 1_000_000;
/// How often it is looked whether a phase is over.
const LOOK: u64 = 20 * MS;
/// Connections to each node for the final reads.
const CONNECTIONS: usize = 8;
/// The name of the verdict on what must hold inside of the nodes.
pub const INVARIANTS: &str = "invariants";
/// What is wrong with a run in which the tester had trouble: above all that the cluster served nobody any more, though everything was healed.
pub const PROGRESS: &str = "progress";

/// What a run leaves behind.
#[derive(Debug)]
pub struct Run {
    /// What clients saw, and the faults.
    pub history: History,
    /// Faults, times and troubles, as of a real run.
    pub record: Record,
    /// The first invariant of the nodes that did not hold: its name, and what was seen.
    pub broken: Option<(&'static str, String)>,
    /// How many operations arrived under load.
    pub arrived: u64,
    /// Simulated time, in nanoseconds.
    pub simulated_ns: u64,
    /// Messages, ticks, syncs, calls, answers, timers.
    pub events: u64,
}

/// What came of a run.
#[derive(Debug)]
pub struct Judged {
    /// Of the checkers, and of the nodes' invariants.
    pub verdicts: Vec<Verdict>,
    /// Whether a pass would mean something.
    pub guards: Verdict,
    /// Whether the tester had troubles that no other seed makes up for: the cluster did not recover.
    pub troubles: Vec<String>,
}

impl Judged {
    /// Of the verdicts and troubles; guards are for all seeds together.
    pub fn validity(&self) -> Validity {
        let troubled = if self.troubles.is_empty() { Validity::Valid } else { Validity::Unknown };
        Validity::merge(self.verdicts.iter().map(|v| v.validity).chain([troubled]))
    }

    /// The checkers that found something.
    pub fn findings(&self) -> Vec<&str> {
        let invalid = self.verdicts.iter().filter(|v| v.validity == Validity::Invalid);
        invalid.map(|v| v.checker.as_str()).collect()
    }

    /// What is worth shrinking, the surest first: a checker that found something, or [`PROGRESS`].
    pub fn wrong(&self) -> Option<&str> {
        let lost = (!self.troubles.is_empty()).then_some(PROGRESS);
        self.findings().first().copied().or(lost)
    }

    /// Whether this is wrong, as [`Judged::wrong`] calls it.
    pub fn shows(&self, wrong: &str) -> bool {
        self.findings().contains(&wrong) || (wrong == PROGRESS && !self.troubles.is_empty())
    }
}

/// Why a test cannot be simulated, if so.
pub fn refusal(plan: &TestPlan) -> Option<String> {
    let workload = &plan.scenario.workload;
    if let Some(op) = workload.ops().into_iter().find(|op| !cluster::OPERATIONS.contains(op)) {
        return Some(format!(
            "the workload `{}` asks for `{op}`, which the simulated cluster does not speak; it speaks {}",
            workload.name,
            cluster::OPERATIONS.join(", ")
        ));
    }
    if plan.scenario.cluster.fsync != crate::scenario::Fsync::Group {
        return Some("the disks of a simulated cluster sync as with `fsync: group`".to_owned());
    }
    faults::refusal(&plan.faults)
}

/// Something to be done at a time.
#[derive(Clone, Copy, Debug)]
enum Action {
    Client(usize, u64, Wake),
    Begin(usize),
    End(usize),
    Strobe(usize),
    LoadEnds,
    Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    WarmingUp,
    Load,
    Healing,
    Settling,
    FinalReads,
}

struct Sim<'a> {
    plan: &'a TestPlan,
    cluster: Simulated,
    clients: Clients,
    faults: Faults,
    actions: Vec<Action>,
    free: Vec<u64>,
    phase: Phase,
    /// When the phase has taken too long.
    until: u64,
    /// When replicas are compared again, and how long that took to come.
    compare: (u64, u64),
    record: Record,
    broken: Option<(&'static str, String)>,
    over: bool,
}

/// Runs a test; `only` names the arrivals that are really asked, in ascending order.
pub fn simulate(plan: &TestPlan, only: Option<Arc<[u64]>>) -> Run {
    let (scenario, seed) = (&plan.scenario, plan.seed);
    let arrivals = Arrivals::new(
        scenario.workload.build(),
        (stream(seed, "operations"), stream(seed, "arrivals")),
        (scenario.load.pace, scenario.load.rate),
        scenario.load.max_wait.ns(),
    );
    let sim = Sim {
        plan,
        cluster: Simulated::new(scenario, seed, &plan.nodes),
        clients: Clients::new(plan, arrivals, only),
        faults: Faults::new(seed, plan.faults.links, plan.schedule.steps.clone()),
        actions: Vec::new(),
        free: Vec::new(),
        phase: Phase::Starting,
        until: scenario.bounds.set_up.ns(),
        compare: (0, 0),
        record: Record::default(),
        broken: None,
        over: false,
    };
    sim.run()
}

impl Sim<'_> {
    fn run(mut self) -> Run {
        self.faults.prepare(&mut self.cluster);
        for node in self.plan.nodes.clone() {
            self.cluster.start(&node);
        }
        self.at(LOOK, Action::Look);
        while !self.over
            && let Some(seen) = self.cluster.next()
        {
            match seen {
                Seen::Answer(call, said) => self.clients.answered(call, said, &mut self.cluster),
                Seen::Crashed(node, lost) => {
                    let name = self.plan.nodes[node].clone();
                    if self.faults.ended(&name, lost) {
                        self.cluster.start(&name);
                    }
                    self.clients.disconnected(node, &mut self.cluster);
                }
                Seen::Timer(id) => {
                    self.free.push(id);
                    self.act(self.actions[id as usize]);
                }
                Seen::Broken(name, what) => self.broken = Some((name, what)),
            }
            while let Some((at, seat, serial, wake)) = self.clients.timers.pop() {
                self.at(at, Action::Client(seat, serial, wake));
            }
        }
        let plan = self.plan;
        let nodes = plan.nodes.iter().map(|node| node.to_string()).collect();
        // The wall clock of a simulated world begins with that of Unix.
        let header =
            Header::new(plan.scenario.name.clone(), plan.seed, "1970-01-01T00:00:00Z".to_owned(), nodes);
        self.record.faults = std::mem::take(&mut self.faults.receipts);
        self.record.faults.sort_by_key(|receipt| receipt.step);
        self.record.dropped_arrivals = self.clients.arrivals.dropped();
        Run {
            arrived: self.clients.arrived,
            simulated_ns: self.cluster.now(),
            events: self.cluster.events(),
            history: History::new(header, self.clients.ledger.close()),
            record: self.record,
            broken: self.broken,
        }
    }

    fn at(&mut self, time: u64, action: Action) {
        let id = self.free.pop().unwrap_or(self.actions.len() as u64);
        match self.actions.get_mut(id as usize) {
            Some(place) => *place = action,
            None => self.actions.push(action),
        }
        self.cluster.timer(time, id);
    }

    fn act(&mut self, action: Action) {
        let now = self.cluster.now();
        match action {
            Action::Client(seat, serial, Wake::Attempt) => {
                self.clients.attempt_over(seat, serial, &mut self.cluster);
            }
            Action::Client(seat, serial, wake) => self.clients.woken(seat, serial, wake, &mut self.cluster),
            Action::Begin(id) => {
                if let Some(receipt) = self.faults.begin(id, &mut self.cluster) {
                    self.tell(&receipt, "start", None);
                    self.tell(&receipt, "started", None);
                    if let Some(at) = self.strobe_at(id) {
                        self.at(at, Action::Strobe(id));
                    }
                }
            }
            Action::Strobe(id) => {
                if let Some(at) = self.faults.strobe(id, &mut self.cluster) {
                    self.at(at, Action::Strobe(id));
                }
            }
            Action::End(id) => {
                if let Some(receipt) = self.faults.end(id, &mut self.cluster) {
                    self.tell(&receipt, "stop", Some(&receipt.effect.what));
                    self.tell(&receipt, "stopped", Some(&receipt.healed.what));
                }
            }
            Action::LoadEnds => self.heal(),
            Action::Look => {
                self.look();
                self.at(now + LOOK, Action::Look);
            }
        }
    }

    fn strobe_at(&self, id: usize) -> Option<u64> {
        let fault = &self.plan.schedule.steps[id].fault;
        let strobes = fault.fault == nemesis::FaultKind::ClockStrobe;
        fault.clock.filter(|_| strobes).map(|clock| self.cluster.now() + clock.every.ns())
    }

    fn tell(&mut self, receipt: &Receipt, phase: &str, observed: Option<&str>) {
        let value = json!({
            "step": receipt.step, "phase": phase, "fault": receipt.fault, "on": receipt.on, "observed": observed,
        });
        let op = Op::Custom { f: receipt.kind.name().into(), key: None, value };
        let now = self.cluster.now();
        self.clients.ledger.record(now, Process::Nemesis, Kind::Info, op, None, Meta::default());
    }

    // --- phases ---------------------------------------------------------------------------------------------------------

    /// Looks whether the phase is over.
    fn look(&mut self) {
        let now = self.cluster.now();
        let late = now >= self.until;
        let bounds = &self.plan.scenario.bounds;
        match self.phase {
            Phase::Starting if self.all_ready() => {
                (self.phase, self.until) = (Phase::WarmingUp, now + bounds.set_up.ns());
                let missing = self.plan.scenario.workload.ops();
                self.clients.sit(Role::Each { phase: "warm-up", missing }, 0, &mut self.cluster);
            }
            Phase::WarmingUp if self.each_is_done() => self.load(),
            Phase::Starting | Phase::WarmingUp if late => {
                self.trouble(format!(
                    "the cluster did not serve every kind of operation within {}",
                    bounds.set_up
                ));
                self.over = true;
            }
            // Who is still waiting for an answer gets the time that an operation may take.
            Phase::Healing
                if self.all_ready() && self.clients.all_gone(|r| matches!(r, Role::Load { .. })) =>
            {
                (self.phase, self.until) = (Phase::Settling, now + bounds.heal.ns());
                let mut missing = self.plan.scenario.workload.ops();
                if self.clients.sampling.is_some() {
                    let last = self.faults.receipts.iter().map(|receipt| receipt.end_ns).max().unwrap_or(0);
                    missing.retain(|kind| !self.clients.arrivals.succeeded(kind, last));
                }
                self.clients.sit(Role::Each { phase: "settle", missing }, 0, &mut self.cluster);
            }
            Phase::Settling if self.each_is_done() => self.final_reads(),
            Phase::Healing | Phase::Settling if late => {
                self.trouble(format!(
                    "the healed cluster did not serve every kind of operation within {}",
                    bounds.heal
                ));
                self.clients.dismiss(|_| true);
                self.over = true;
            }
            Phase::FinalReads if late => {
                // Of replicas that never agree, the checker says so.
                if self.clients.sampling.is_none() {
                    self.trouble(format!("not all final reads were answered within {}", bounds.final_reads));
                }
                self.over = true;
            }
            Phase::FinalReads => self.over = self.are_read(),
            _ => {}
        }
    }

    fn trouble(&mut self, what: String) {
        self.record.troubles.push(what);
    }

    fn all_ready(&self) -> bool {
        (0..self.plan.nodes.len()).all(|node| self.cluster.is_ready(node))
    }

    fn each_is_done(&self) -> bool {
        self.clients.all_gone(|role| matches!(role, Role::Each { .. }))
    }

    fn load(&mut self) {
        let (start, load) = (self.cluster.now(), &self.plan.scenario.load);
        let end = start + load.time_limit.ns();
        (self.phase, self.record.load_start_ns) = (Phase::Load, start);
        self.clients.open(start, end);
        for step in &self.plan.schedule.steps.clone() {
            self.at(start + step.at.ns(), Action::Begin(step.id));
            self.at(start + step.until.ns(), Action::End(step.id));
        }
        self.at(end, Action::LoadEnds);
        for client in &self.plan.clients {
            self.clients.sit(Role::Load { fails_over: client.fails_over }, client.home, &mut self.cluster);
        }
        let ops = self.clients.arrivals.samples();
        if !ops.is_empty() {
            self.clients.sampling = Some(SAMPLE);
            for node in 0..self.plan.nodes.len() {
                self.clients.sit(Role::Sample { ops: ops.clone(), next: 0 }, node, &mut self.cluster);
            }
        }
    }

    fn heal(&mut self) {
        let now = self.cluster.now();
        self.record.load_end_ns = now;
        for id in self.faults.in_force() {
            self.act(Action::End(id));
        }
        (self.phase, self.until) = (Phase::Healing, now + self.plan.scenario.bounds.heal.ns());
        for node in self.plan.nodes.clone() {
            self.cluster.start(&node);
        }
        let value = json!({"faults": self.faults.receipts.len()});
        let op = Op::Custom { f: checkers::convergence::HEALED.into(), key: None, value };
        self.clients.ledger.record(now, Process::Observer, Kind::Info, op, None, Meta::default());
    }

    fn final_reads(&mut self) {
        let now = self.cluster.now();
        (self.phase, self.until) = (Phase::FinalReads, now + self.plan.scenario.bounds.final_reads.ns());
        if self.clients.sampling.is_some() {
            self.clients.sampling = Some(FINAL);
            self.compare = (now + 200 * MS, 200 * MS);
            return;
        }
        let ops = self.clients.arrivals.final_ops();
        for node in 0..self.plan.nodes.len() {
            for part in ops.chunks(ops.len().div_ceil(CONNECTIONS).max(1)) {
                let left = part.to_vec().into();
                self.clients.sit(Role::Final { left }, node, &mut self.cluster);
            }
        }
    }

    fn are_read(&mut self) -> bool {
        if self.clients.sampling.is_none() {
            return self.clients.all_gone(|role| matches!(role, Role::Final { .. }));
        }
        let now = self.cluster.now();
        if now < self.compare.0 {
            return false;
        }
        // What decides is the checker itself; the longer it takes, the less often it is asked.
        let pause = self.compare.1 + self.compare.1 / 2;
        self.compare = (now + pause, pause);
        let history = History::new(header_of(self.plan), self.clients.ledger.events().iter().cloned());
        let checker = judge::checker("convergence", self.plan);
        let verdict = checker.map(|checker| checker.check(&history, &budget()));
        verdict.is_ok_and(|verdict| verdict.validity != Validity::Unknown)
    }
}

fn header_of(plan: &TestPlan) -> Header {
    Header::new(plan.scenario.name.clone(), plan.seed, String::new(), vec![])
}

/// Judges are bounded by memory alone: by time, the same seed would not always have the same verdict.
fn budget() -> Budget {
    Budget::new(Arc::default(), 512 << 20)
}

/// Judges a run.
///
/// # Errors
/// A history that breaks the rules, which is a mistake of the tester.
pub fn judge(run: &Run, plan: &TestPlan) -> Result<Judged> {
    let info = plan.scenario.workload.info();
    let mut verdicts = Vec::new();
    for name in info.checkers {
        verdicts.push(judge::checker(name, plan)?.check(&run.history, &budget()));
    }
    let mut inside = Verdict::valid(INVARIANTS);
    if let Some((name, what)) = &run.broken {
        inside.validity = Validity::Invalid;
        inside.reason = Some(format!("{name}: {what}"));
    }
    verdicts.push(inside);
    let operations = run.history.operations()?;
    let planned: Vec<String> = plan.faults.kinds().iter().map(|kind| kind.name().to_owned()).collect();
    let quiet = Record { troubles: vec![], ..run.record.clone() };
    let guards = guards(&Evidence {
        operations: &operations,
        record: &quiet,
        kinds: &plan.scenario.workload.ops(),
        replicas: info.checkers.contains(&"convergence"),
        planned: &planned,
        schedule: &plan.schedule,
    });
    Ok(Judged { verdicts, guards, troubles: run.record.troubles.clone() })
}

/// The events of a run as its file has them.
pub fn bytes(history: &History) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    checkers::jsonl::write_header(&mut out, &history.header)?;
    for at in 0..history.events.len() {
        let event: Event = history.events.get(at);
        checkers::jsonl::write_event(&mut out, &event)?;
    }
    Ok(out)
}
