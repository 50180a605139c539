//! One trial from end to end: plan, cluster, run, verdict, reports.
//!
//! ```text
//! put_on_trial(scenario, adapter, options) ─▶ Results        (and the run's folder)
//! ```

use crate::{
    adapter::{Adapter, null::Null, paxos_kv_grpc::PaxosKv, paxos_kv_http::PaxosKvHttp},
    cluster::{Defendant, Surroundings, docker, external::External, netns, process, ssh},
    doctor,
    judge::{self, Results},
    logs,
    owner::fresh_run,
    plan::TestPlan,
    progress::Progress,
    report,
    run::{self, Trial},
    scenario::{On, Scenario},
    store::Store,
};
use anyhow::{Context, Result};
use rand::RngExt;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::watch;

/// How a trial is carried out, as opposed to what it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where runs are kept.
    pub store: PathBuf,
    /// Draw no progress.
    pub quiet: bool,
    /// Stop at the first violation instead of at the time limit.
    pub fail_fast: bool,
    /// Judge linearizability while the run goes on.
    pub online: bool,
    /// Becomes true when the run shall end early.
    pub interrupt: watch::Receiver<bool>,
    /// The program that runs the bundled cluster's nodes.
    pub program: PathBuf,
}

impl Options {
    /// Runs kept in `store`, progress drawn, never interrupted, nodes run by this very program.
    pub fn new(store: impl Into<PathBuf>) -> Result<Self> {
        Ok(Options {
            store: store.into(),
            quiet: false,
            fail_fast: false,
            online: false,
            interrupt: watch::channel(false).1,
            program: std::env::current_exe().context("cannot find the path of this program")?,
        })
    }
}

/// Why a test cannot be carried out with this machine or these hosts, however often it is tried. No node was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Refuses what this machine cannot do, before anything is made.
async fn refuse_the_impossible(plan: &TestPlan, adapter: &dyn Adapter) -> Result<()> {
    run::refuse_unspoken(plan, adapter)?;
    if adapter.ports().is_empty() {
        // Whoever cannot be started from here cannot be broken from here: the cluster itself says so.
        return Ok(());
    }
    let (cluster, needs) = (plan.scenario.cluster.clone(), plan.faults.needs());
    // Trying takes its time, on a thread that serves no tasks.
    match tokio::task::spawn_blocking(move || doctor::refusal(&cluster, &needs)).await? {
        Some(why) => Err(Refused(why).into()),
        None => Ok(()),
    }
}

/// A seed for a run that was given none.
pub fn fresh_seed() -> u64 {
    // Short enough to be typed.
    u64::from(rand::rng().random::<u32>())
}

/// Puts the bundled cluster on trial.
pub async fn try_bundled(scenario: &Scenario, options: &Options) -> Result<Results> {
    let plan = TestPlan::new(scenario, scenario.seed.unwrap_or_else(fresh_seed))?;
    let c = &plan.scenario.cluster;
    let mut arguments: Vec<String> = [
        ("--protocol", c.protocol.to_string()),
        ("--fsync", c.fsync.to_string()),
        ("--heartbeat-ms", c.heartbeat.0.as_millis().to_string()),
        ("--lease-ms", c.lease.0.as_millis().to_string()),
        ("--election-ms", format!("{}..{}", c.election.min.0.as_millis(), c.election.max.0.as_millis())),
        ("--snapshot-every", c.snapshot_every.to_string()),
        ("--keep", c.keep.to_string()),
        ("--seed", plan.seed.to_string()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect();
    arguments.extend(c.bug.iter().flat_map(|bug| ["--bug".to_owned(), bug.clone()]));
    let run = format!("{}-{}-{}", plan.scenario.name, plan.seed, std::process::id());
    let program = match c.on {
        On::Docker => docker::PROGRAM.into(),
        // The agent's own program.
        On::Ssh => "tribunal".into(),
        _ => options.program.clone(),
    };
    let paxos = PaxosKv::new(program, arguments, run, &plan.nodes);
    let adapter: Arc<dyn Adapter> = match c.adapter.as_str() {
        "paxos-kv-http" => Arc::new(PaxosKvHttp::new(paxos)),
        _ => Arc::new(paxos),
    };
    refuse_the_impossible(&plan, &*adapter).await?;
    let (store, started) = open_store(&plan, options)?;
    carry_out(plan, adapter, store, started, options).await
}

/// Puts a system on trial that is reached through an adapter. If the adapter starts nodes, they are child processes;
/// otherwise nothing can be broken, and the scenario's `nemesis` must be `none`.
///
/// # Errors
/// If the scenario has a mistake, the cluster cannot be set up, or the results cannot be written.
pub async fn put_on_trial(
    scenario: &Scenario,
    adapter: Arc<dyn Adapter>,
    options: &Options,
) -> Result<Results> {
    if let Some(mistake) = scenario.mistake() {
        anyhow::bail!("in the scenario: {mistake}");
    }
    // What was run must not be taken for a run of the bundled cluster.
    let mut scenario = scenario.clone();
    scenario.cluster.adapter = adapter.name().to_owned();
    let plan = TestPlan::new(&scenario, scenario.seed.unwrap_or_else(fresh_seed))?;
    refuse_the_impossible(&plan, &*adapter).await?;
    let (store, started) = open_store(&plan, options)?;
    carry_out(plan, adapter, store, started, options).await
}

/// Drives the in-process store that answers at once, writes the history down and does not judge it. Returns operations
/// per second of the load: what the tester itself costs.
///
/// # Errors
/// If the run cannot be carried out or written down.
pub async fn drive_null(scenario: &Scenario, options: &Options) -> Result<f64> {
    let plan = TestPlan::new(scenario, scenario.seed.unwrap_or_else(fresh_seed))?;
    let (store, started) = open_store(&plan, options)?;
    let progress = Progress::new(options.quiet, &store.file("tribunal.log"));
    let adapter: Arc<dyn Adapter> = Arc::new(Null::default());
    let defendant = Arc::new(External::new(adapter.clone(), plan.nodes.clone()));
    let interrupt = options.interrupt.clone();
    let trial =
        Trial { plan, adapter, defendant, store, started, interrupt, fail_fast: false, online: false };
    let record = run::run(&trial, &progress).await?;
    let seconds = (record.load_end_ns - record.load_start_ns) as f64 / 1e9;
    Ok(record.load_operations as f64 / seconds)
}

fn open_store(plan: &TestPlan, options: &Options) -> Result<(Store, String)> {
    let now = jiff::Timestamp::now();
    let time = now.strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
    let name = if plan.scenario.name.is_empty() { "test" } else { &plan.scenario.name };
    let store = Store::create(&options.store, name, &time)?;
    store.write("test.yaml", serde_yaml::to_string(&plan.scenario)?)?;
    Ok((store, now.to_string()))
}

async fn carry_out(
    plan: TestPlan,
    adapter: Arc<dyn Adapter>,
    store: Store,
    started: String,
    options: &Options,
) -> Result<Results> {
    let progress = Progress::new(options.quiet, &store.file("tribunal.log"));
    let defendant: Arc<dyn Defendant> = if adapter.ports().is_empty() {
        Arc::new(External::new(adapter.clone(), plan.nodes.clone()))
    } else {
        let spec = plan.scenario.cluster.clone();
        let (on, run) = (spec.on, fresh_run());
        // Whatever is made from here on carries this name.
        progress.phase(&format!("preparing run {run} on {on}"));
        let around = Surroundings::new(
            adapter.clone(),
            plan.nodes.clone(),
            store.clone(),
            plan.seed,
            run,
            spec,
            plan.faults.needs(),
            options.program.clone(),
        )?;
        Arc::new(match on {
            On::Process => process::prepare(around).await?,
            On::Netns => netns::prepare(around).await?,
            On::Docker => docker::prepare(around).await?,
            On::Ssh => ssh::prepare(around).await?,
        })
    };
    let trial = Trial {
        plan,
        adapter,
        defendant,
        store,
        started,
        interrupt: options.interrupt.clone(),
        fail_fast: options.fail_fast,
        online: options.online,
    };
    let is_ours = !trial.adapter.ports().is_empty();
    let mut record = run::run(&trial, &progress).await?;
    progress.phase("judging");
    let Trial { plan, store, .. } = trial;
    // The checkers keep a core busy for as long as they like: not on a thread that serves tasks.
    let (results, plan, store) = tokio::task::spawn_blocking(move || {
        if is_ours {
            let nodes: Vec<String> = plan.nodes.iter().map(ToString::to_string).collect();
            let looked = logs::record(&store, &nodes, &plan.scenario.logs);
            let trouble = |error| format!("the nodes' logs could not be looked through: {error:#}");
            record.troubles.extend(looked.err().map(trouble));
        }
        let results = judge::judge(&store.file("history.jsonl"), &plan, record, store.folder());
        (results, plan, store)
    })
    .await?;
    let results = results?;
    store.write("results.json", serde_json::to_vec_pretty(&results)?)?;
    progress.done();
    // From here on nothing can take the verdict away.
    for trouble in report::draw(&results, &plan, &store) {
        eprintln!("warning: {trouble}");
    }
    Ok(results)
}
