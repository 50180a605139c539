//! The one run loop: set up, wait until ready, load and faults, heal, final reads, tear down. Judging comes after, in
//! [`judge`].
//!
//! ```text
//! set up ─ ready ─┬─ workers ── journal ─┐                       ┌▶ history.jsonl
//!                 ├─ nemesis ── receipts ┼─ heal ─ final reads ──┤
//!                 └─ leader watch        ┘                       └▶ Record
//! ```
//! Every phase is bounded, and every way out of it tears the cluster down.

use crate::{
    adapter::Adapter,
    clock::Clock,
    cluster::Defendant,
    journal::{Counts, Journal, Watch},
    judge,
    node_watch::NodeWatch,
    plan::{TestPlan, stream},
    progress::Progress,
    store::Store,
    trial::Refused,
    worker::{self, Arrivals, Shared},
};
use anyhow::{Result, bail};
use checkers::{Budget, Event, Header, Kind, Meta, Online, Op, Process, Verdict, online};
use nemesis::{Nemesis, Notice, Receipt};
use rand::RngExt;
use serde::Serialize;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};

/// What a run leaves behind beside its history.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Record {
    /// The faults, as they were injected and observed.
    pub faults: Vec<Receipt>,
    /// When the load began and ended, in nanoseconds of the run's clock.
    pub load_start_ns: u64,
    /// See `load_start_ns`.
    pub load_end_ns: u64,
    /// Operations that were completed during the load.
    pub load_operations: u64,
    /// Who was seen to lead, and since when.
    pub leaders: Vec<Leader>,
    /// Arrivals that waited too long for a free client.
    pub dropped_arrivals: u64,
    /// Operations that free clients began more than 10 ms after they were due: the tester itself fell behind.
    pub late_starts: u64,
    /// The most that a free client was late, in nanoseconds.
    pub latest_start_ns: u64,
    /// What the links were asked to delay, and did, if they were.
    pub links: Option<LinkDelay>,
    /// The history could not be written to its end.
    pub journal_failed: bool,
    /// What went wrong, in the tester or around the cluster, that stands in the way of a pass.
    pub troubles: Vec<String>,
    /// Whether the cluster did not serve again although everything was healed.
    pub lost_progress: bool,
    /// What stood in for a mechanism that the machine lacks, in words.
    pub stand_ins: Vec<String>,
    /// The run was interrupted (Ctrl-C).
    pub interrupted: bool,
    /// The run was ended at the first violation, as was asked.
    pub stopped_early: bool,
    /// What the judge said that watched the run, if there was one.
    #[serde(skip)]
    pub online: Option<Verdict>,
}

/// A change of leadership as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leader {
    /// When it was first seen, in nanoseconds of the run's clock.
    pub since_ns: u64,
    /// Who.
    pub node: String,
}

/// The delay of the links between nodes during the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LinkDelay {
    /// One way, as asked, in nanoseconds.
    pub asked_ns: u64,
    /// One way, as measured at the proxies over all chunks, in nanoseconds.
    pub measured_ns: u64,
}

/// A cluster that does not serve, though nothing has been done to it yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoProgress(pub String);

/// What a run needs from outside.
pub struct Trial {
    /// What is to be done.
    pub plan: TestPlan,
    /// How to speak to the system.
    pub adapter: Arc<dyn Adapter>,
    /// The system.
    pub defendant: Arc<dyn Defendant>,
    /// Where everything is kept.
    pub store: Store,
    /// When it began, for the history's header (RFC 3339).
    pub started: String,
    /// Becomes true when the run shall end early.
    pub interrupt: watch::Receiver<bool>,
    /// Whether to stop at the first violation.
    pub fail_fast: bool,
    /// Whether to judge while the run goes on.
    pub online: bool,
}

/// The judge that watches a run, and whether it has seen a violation.
struct Watched {
    judge: Arc<Mutex<Box<dyn Online>>>,
    violated: watch::Receiver<bool>,
}

/// A judge to watch the run if one is needed, and what shows it the events. Workloads that are not judged for linearizability have none.
fn watched(trial: &Trial) -> (Option<Watched>, Option<Watch>) {
    let scenario = &trial.plan.scenario;
    let info = scenario.workload.info();
    let wanted = trial.fail_fast || scenario.fail_fast || trial.online || scenario.online;
    let (true, true, Ok(model)) = (wanted, info.checkers.contains(&"linearizable"), info.model.parse())
    else {
        return (None, None);
    };
    let budget = Budget::new(Arc::default(), scenario.bounds.check_memory_mb << 20);
    let judge = Arc::new(Mutex::new(online(model, budget)));
    let (violation, violated) = watch::channel(false);
    let shown = judge.clone();
    let see = move |event: &Event| {
        let mut judge = shown.lock().unwrap_or_else(|e| e.into_inner());
        judge.see(event);
        violation.send_if_modified(|known| {
            let news = !*known && judge.violation().is_some();
            *known |= news;
            news
        });
    };
    (Some(Watched { judge, violated }), Some(Box::new(see)))
}

/// Runs a trial up to the teardown. An error means that it could not be set up or written down; the cluster is torn
/// down all the same.
pub async fn run(trial: &Trial, progress: &Progress) -> Result<Record> {
    let result = match refuse_the_impossible(trial) {
        Ok(()) => phases(trial, progress).await,
        Err(refused) => Err(refused),
    };
    let left = trial.defendant.tear_down().await;
    let mut record = result?;
    record.troubles.extend(trial.defendant.deaths().await);
    record.troubles.extend(left);
    Ok(record)
}

fn refuse_the_impossible(trial: &Trial) -> Result<()> {
    // What only the cluster itself knows: its hosts' kernels, its compose file.
    let supported = trial.plan.faults.supported_by(&*trial.defendant.clone().as_cluster());
    supported.map_err(|e| Refused(e.to_string()))?;
    refuse_unspoken(&trial.plan, &*trial.adapter)
}

/// Refuses a workload that asks for operations which an adapter does not speak.
pub fn refuse_unspoken(plan: &TestPlan, adapter: &dyn Adapter) -> Result<()> {
    let (speaks, workload) = (adapter.operations(), &plan.scenario.workload);
    match workload.ops().into_iter().find(|op| !speaks.contains(op)) {
        None => Ok(()),
        Some(op) => Err(Refused(format!(
            "the workload `{}` asks for `{op}`, which the adapter `{}` does not speak; it speaks {}",
            workload.name,
            adapter.name(),
            speaks.join(", ")
        ))
        .into()),
    }
}

async fn phases(trial: &Trial, progress: &Progress) -> Result<Record> {
    let scenario = &trial.plan.scenario;
    let mut record = Record::default();
    let mut interrupt = trial.interrupt.clone();
    let clock = Clock::start();
    let nodes: Vec<String> = trial.plan.nodes.iter().map(|n| n.to_string()).collect();
    let header = Header::new(scenario.name.clone(), trial.plan.seed, trial.started.clone(), nodes);
    let (watched, see) = watched(trial);
    let (journal, writer) = Journal::open(&trial.store.file("history.jsonl"), &header, clock, see)?;

    let nemesis = nemesis(trial, &journal, clock, progress);
    progress.phase("setting up");
    trial.defendant.set_up().await?;
    let slowed = nemesis.prepare().await?;
    let ready = all_ready(trial, scenario.bounds.set_up.0);
    tokio::select! {
        ready = ready => if let Err(why) = ready { bail!("{why}") },
        () = interrupted(&mut interrupt) => {
            record.interrupted = true;
            return Ok(record);
        }
    }

    let shared = Arc::new(shared(trial, &journal, clock));
    let kinds = scenario.workload.ops();
    progress.phase("warming up");
    let until = clock.now() + scenario.bounds.set_up.ns();
    let cold = tokio::select! {
        cold = worker::each_kind(shared.clone(), "warm-up", &kinds, until) => cold,
        () = interrupted(&mut interrupt) => {
            record.interrupted = true;
            return Ok(record);
        }
    };
    if !cold.is_empty() {
        let (cold, within) = (cold.join(", no "), scenario.bounds.set_up);
        return Err(NoProgress(format!("no {cold} succeeded within {within} before the load began")).into());
    }
    let start = clock.now();
    record.load_start_ns = start;
    let before = completed(&journal);
    let end = start + scenario.load.time_limit.ns();
    shared.arrivals.open(start, end);
    let (stop, stopped) = watch::channel(false);
    progress.load(&journal, clock, start, end);
    let mut workers = JoinSet::new();
    for client in &trial.plan.clients {
        workers.spawn(worker::load(shared.clone(), client.clone(), stopped.clone()));
    }
    let (phase, sampled) = watch::channel(Some(worker::SAMPLE));
    let mut samplers = JoinSet::new();
    let samples = shared.arrivals.samples();
    for node in (0..shared.members.len()).filter(|_| !samples.is_empty()) {
        samplers.spawn(worker::sample(shared.clone(), node, samples.clone(), sampled.clone()));
    }
    let nodes = NodeWatch::start(&trial.adapter, trial.defendant.uncut(), &journal, clock);
    let leaders = Arc::new(Mutex::new(Vec::new()));
    let watching = tokio::spawn(watch_leaders(trial.defendant.clone(), journal.clone(), leaders.clone()));
    let faults = {
        let (nemesis, schedule, stopped) = (nemesis.clone(), trial.plan.schedule.clone(), stopped.clone());
        tokio::spawn(async move { nemesis.run(&schedule, start, stopped).await })
    };
    let over = async { while workers.join_next().await.is_some() {} };
    tokio::select! {
        () = over => {}
        () = first_violation(trial, watched.as_ref()) => record.stopped_early = true,
        () = interrupted(&mut interrupt) => record.interrupted = true,
    }
    record.load_end_ns = clock.now();
    let _ = stop.send(true);
    workers.join_all().await;
    record.load_operations = completed(&journal) - before;
    record.faults = faults.await?;

    progress.phase("healing");
    let errors = nemesis.heal_everything().await;
    if errors.is_empty() && !record.faults.iter().any(|fault| fault.unhealed) {
        // Whoever judges by the history alone has to know.
        let value = serde_json::json!({"faults": record.faults.len()});
        let op = Op::Custom { f: checkers::convergence::HEALED.into(), key: None, value };
        journal.record(Process::Observer, Kind::Info, op, None, Meta::default());
    }
    record.troubles.extend(errors.iter().map(|e| format!("healing: {e}")));
    if !record.stopped_early && !record.interrupted {
        let last_fault = record.faults.iter().map(|fault| fault.end_ns).max().unwrap_or(0);
        let watched = (!samples.is_empty()).then_some((&phase, last_fault));
        tokio::select! {
            () = aftermath(trial, progress, &shared, watched, &mut record.troubles, &mut record.lost_progress) => {}
            () = interrupted(&mut interrupt) => record.interrupted = true,
        }
    }
    let _ = phase.send(None);
    samplers.join_all().await;
    if let Some(nodes) = nodes {
        nodes.close(!record.stopped_early && !record.interrupted).await;
    }
    watching.abort();
    record.leaders = std::mem::take(&mut *leaders.lock().unwrap_or_else(|e| e.into_inner()));
    record.dropped_arrivals = shared.arrivals.dropped();
    record.late_starts = shared.lateness.late.load(Relaxed);
    record.latest_start_ns = shared.lateness.max_ns.load(Relaxed);
    record.links = link_delay(trial, slowed).await;
    record.stand_ins = trial.defendant.stand_ins();
    record.journal_failed = journal.failed();
    progress.phase("tearing down");
    writer.close()?;
    if let Some(watched) = watched.filter(|_| trial.online || scenario.online || record.stopped_early) {
        record.online = Some(watched.judge.lock().unwrap_or_else(|e| e.into_inner()).finish());
    }
    Ok(record)
}

/// After the faults: the cluster must recover, serve every kind of operation again, and be read through every node. If replicas
/// are `watched`, with the phase of their samples and the time of the last fault, they are left alone as soon as that was seen.
async fn aftermath(
    trial: &Trial,
    progress: &Progress,
    shared: &Arc<Shared>,
    watched: Option<(&watch::Sender<Option<&'static str>>, u64)>,
    troubles: &mut Vec<String>,
    lost_progress: &mut bool,
) {
    let bounds = &trial.plan.scenario.bounds;
    if let Err(why) = all_ready(trial, bounds.heal.0).await {
        *lost_progress = true;
        return troubles.push(format!("after healing: {why}"));
    }
    progress.phase("settling");
    let until = shared.clock.now() + bounds.heal.ns();
    let mut kinds = trial.plan.scenario.workload.ops();
    if let Some((_, last_fault)) = watched {
        // What is written now puts off the moment from which on replicas are left alone.
        kinds.retain(|kind| !shared.arrivals.succeeded(kind, last_fault));
    }
    for f in worker::each_kind(shared.clone(), "settle", &kinds, until).await {
        *lost_progress = true;
        troubles.push(format!("after healing no {f} succeeded within {}", bounds.heal));
    }
    progress.phase("final reads");
    if let Some((phase, _)) = watched {
        let _ = phase.send(Some(worker::FINAL));
        return agreement(trial).await;
    }
    let left = final_reads(shared, bounds.final_reads.ns()).await;
    if left > 0 {
        troubles.push(format!("{left} final reads were not answered within {}", bounds.final_reads));
    }
}

/// Waits until replicas have converged, or have diverged for good, or the bound for final reads is up. What decides is the checker
/// itself, on what was written down so far.
async fn agreement(trial: &Trial) {
    let started = tokio::time::Instant::now();
    let path = trial.store.file("history.jsonl");
    while started.elapsed() < trial.plan.scenario.bounds.final_reads.0 {
        let (path, plan, look) = (path.clone(), trial.plan.clone(), tokio::time::Instant::now());
        let judged = tokio::task::spawn_blocking(move || {
            let history = judge::read_history(&path).ok()?;
            let checker = judge::checker("convergence", &plan).ok()?;
            Some(judge::bounded(&*checker, &history, &plan.scenario.bounds).validity)
        });
        if judged.await.ok().flatten().is_some_and(|validity| validity != checkers::Validity::Unknown) {
            return;
        }
        // The longer the history, the less often it is looked at.
        tokio::time::sleep(Duration::from_millis(200).max(look.elapsed())).await;
    }
}

fn shared(trial: &Trial, journal: &Journal, clock: Clock) -> Shared {
    let load = &trial.plan.scenario.load;
    let seed = trial.plan.seed;
    let arrivals = Arrivals::new(
        trial.plan.scenario.workload.build(),
        (stream(seed, "operations"), stream(seed, "arrivals")),
        (load.pace, load.rate),
        load.max_wait.ns(),
    );
    Shared {
        adapter: trial.adapter.clone(),
        members: trial.defendant.members().to_vec(),
        clock,
        journal: journal.clone(),
        op_timeout: load.op_timeout.0,
        attempt_timeout: load.attempt(),
        sessions: load.sessions,
        retries: load.retries,
        // Must differ between runs against a cluster that lives on; a plan's seed would not.
        run: u64::from(rand::rng().random::<u32>()),
        next_process: AtomicU64::new(0),
        arrivals,
        lateness: worker::Lateness::default(),
    }
}

fn nemesis(trial: &Trial, journal: &Journal, clock: Clock, progress: &Progress) -> Nemesis {
    let (journal, faults) = (journal.clone(), progress.faults());
    let sink = move |notice: Notice| {
        faults.notice(&notice);
        let value = serde_json::json!({
            "step": notice.step, "phase": notice.phase, "fault": notice.fault, "on": notice.on,
            "observed": notice.observed,
        });
        let op = Op::Custom { f: notice.kind.name().into(), key: None, value };
        journal.record(Process::Nemesis, Kind::Info, op, None, Meta::default());
    };
    Nemesis::new(
        trial.defendant.clone().as_cluster(),
        Arc::new(clock),
        trial.plan.faults.links,
        Arc::new(sink),
    )
}

/// Waits until every node can serve clients. The error names the first that cannot, why, and the end of its log.
async fn all_ready(trial: &Trial, limit: Duration) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + limit;
    for node in trial.defendant.members() {
        loop {
            let asked = tokio::time::timeout(Duration::from_secs(1), trial.adapter.ready(node)).await;
            let why = match asked {
                Ok(Ok(())) => break,
                Ok(Err(why)) => why,
                Err(_) => "it does not answer".to_owned(),
            };
            let death = trial.defendant.deaths().await.into_iter().find(|d| d.starts_with(&*node.name));
            if tokio::time::Instant::now() >= deadline || death.is_some() {
                let log = trial.defendant.log_tail(node);
                let log =
                    if log.is_empty() { log } else { format!("\n  the end of its log:\n{}", indent(&log)) };
                return Err(match death {
                    Some(death) => format!("{death}{log}"),
                    None => format!("{} was not ready within {limit:?}: {why}{log}", node.name),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|l| format!("    {l}")).collect::<Vec<_>>().join("\n")
}

/// Reads everything through every node, with a few connections to each.
async fn final_reads(shared: &Arc<Shared>, limit: u64) -> usize {
    const CONNECTIONS: usize = 8;
    let ops = shared.arrivals.final_ops();
    let until = shared.clock.now() + limit;
    let mut readers = JoinSet::new();
    for node in 0..shared.members.len() {
        for part in ops.chunks(ops.len().div_ceil(CONNECTIONS).max(1)) {
            readers.spawn(worker::final_reads(shared.clone(), node, part.to_vec(), until));
        }
    }
    readers.join_all().await.into_iter().sum()
}

/// The mean over all links of how long they really kept bytes, if a delay was asked for; by the links' own counters, or,
/// where they have none, as probes found at the beginning.
async fn link_delay(trial: &Trial, probed: Option<u64>) -> Option<LinkDelay> {
    let asked = trial.plan.faults.links.delay.ns();
    let cluster = trial.defendant.clone().as_cluster();
    let (mut chunks, mut ns) = (0, 0);
    for link in nemesis::inject::all_links(cluster.nodes()) {
        let stats = cluster.link_stats(&link).await;
        chunks += stats.delayed_chunks;
        ns += stats.delayed_ns;
    }
    (asked > 0)
        .then(|| LinkDelay { asked_ns: asked, measured_ns: ns.checked_div(chunks).or(probed).unwrap_or(0) })
}

/// Returns when the run is interrupted; never, if nobody is left who could.
async fn interrupted(interrupt: &mut watch::Receiver<bool>) {
    if interrupt.wait_for(|i| *i).await.is_err() {
        std::future::pending().await
    }
}

/// Returns when the history so far is not linearizable any more, if the run shall stop at that; otherwise never. What
/// is wrong with the beginning of a history cannot be mended by its end, so looking early is sound.
async fn first_violation(trial: &Trial, watched: Option<&Watched>) {
    if let (true, Some(watched)) = (trial.fail_fast || trial.plan.scenario.fail_fast, watched)
        && watched.violated.clone().wait_for(|violated| *violated).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn watch_leaders(defendant: Arc<dyn Defendant>, journal: Journal, seen: Arc<Mutex<Vec<Leader>>>) {
    let mut last = None;
    loop {
        let now = defendant.leader().await;
        if now.is_some() && now != last {
            let node = now.as_deref().unwrap_or_default().to_owned();
            let op = Op::Custom { f: "leader".into(), key: None, value: node.clone().into() };
            let since_ns = journal.record(Process::Observer, Kind::Info, op, None, Meta::default());
            seen.lock().unwrap_or_else(|e| e.into_inner()).push(Leader { since_ns, node });
            last = now;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

fn completed(journal: &Journal) -> u64 {
    let [_, ok, fail, info] = tally(journal.counts());
    ok + fail + info
}

/// The tallies as plain numbers: asked, ok, fail, info.
pub fn tally(counts: &Counts) -> [u64; 4] {
    [&counts.asked, &counts.ok, &counts.fail, &counts.info].map(|c| c.load(Relaxed))
}
