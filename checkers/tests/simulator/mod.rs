//! A small database in memory, with concurrent clients and a choice of isolation, that records transactions.
//!
//! ```text
//! process 0   invoke ── start (snapshot) ── commit ── return
//! process 1        invoke ──── start ── commit ─────────── return          one step of one process at a time, by lot
//! ```
//!
//! Seeded: the same options give the same history. For tests and benchmarks only; deliberately no part of the crate.

#![allow(dead_code)] // each user needs a part of it

use checkers::{
    Event, Header, History, Kind, Meta, Mop, Op, Process, Ret, Value, Verdict,
    transactions::{Builder, Datatype, Transactions, TxnOutcome},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What the database promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Everything at one instant, between invocation and return.
    StrictSerializable,
    /// Reads from the state at the start; whoever commits first wins.
    Snapshot,
    /// The same, but the start may be before the call: what a lagging replica does.
    OldSnapshots,
    /// Reads from the state at the start; nobody wins.
    LostUpdates,
    /// Every read sees what is committed then; nobody wins.
    ReadCommitted,
}

/// What to record.
#[derive(Clone, Debug)]
pub(crate) struct Simulator {
    pub(crate) seed: u64,
    pub(crate) datatype: Datatype,
    pub(crate) isolation: Isolation,
    pub(crate) transactions: usize,
    pub(crate) processes: usize,
    /// Keys in use at once; a key that was written often enough gives way to a new one.
    pub(crate) keys: usize,
    pub(crate) writes_per_key: usize,
    pub(crate) mops: usize,
    /// Of a thousand transactions so many end unknown, and so many of the others fail.
    pub(crate) info: u32,
    pub(crate) fail: u32,
    /// From this transaction on, once, one reads a state of some time ago.
    pub(crate) stale_at: Option<usize>,
}

impl Default for Simulator {
    fn default() -> Self {
        Simulator {
            seed: 1,
            datatype: Datatype::ListAppend,
            isolation: Isolation::StrictSerializable,
            transactions: 1000,
            processes: 10,
            keys: 10,
            writes_per_key: 32,
            mops: 4,
            info: 0,
            fail: 0,
            stale_at: None,
        }
    }
}

/// A part of a transaction; what a read saw is told as the values behind it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(i64, i64),
    Read(i64, Vec<i64>),
}

/// A transaction as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) process: u64,
    pub(crate) call: u64,
    pub(crate) ret: u64,
    pub(crate) outcome: TxnOutcome,
    pub(crate) steps: Vec<Step>,
}

enum Phase {
    Idle,
    Invoked,
    Started,
    Called,
    Committed,
}

struct Client {
    process: u64,
    phase: Phase,
    at: usize,
    /// Keys of the running transaction and how many versions each had at its start.
    snapshot: Vec<(i64, usize)>,
}

struct Key {
    versions: Vec<i64>,
    written: i64,
}

impl Simulator {
    /// Runs it.
    pub(crate) fn run(&self) -> Vec<Recorded> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut all: Vec<Recorded> = Vec::with_capacity(self.transactions);
        let mut keys: Vec<Key> = (0..self.keys).map(|_| Key { versions: Vec::new(), written: 0 }).collect();
        let mut active: Vec<i64> = (0..self.keys as i64).collect();
        let mut next_process = self.processes as u64;
        let mut clients: Vec<Client> = (0..self.processes as u64)
            .map(|process| Client { process, phase: Phase::Idle, at: 0, snapshot: Vec::new() })
            .collect();
        let (mut time, mut done, mut stale) = (0u64, 0, false);
        while done < self.transactions {
            time += 1 + rng.random_range(0..20u64);
            let who = rng.random_range(0..clients.len());
            let client = &mut clients[who];
            match client.phase {
                Phase::Idle if all.len() < self.transactions => {
                    client.at = all.len();
                    let steps = self.plan(&mut rng, &mut keys, &mut active);
                    let (process, outcome) = (client.process, TxnOutcome::Ok);
                    all.push(Recorded { process, call: time, ret: 0, outcome, steps });
                    client.phase = Phase::Invoked;
                }
                Phase::Idle => {}
                Phase::Invoked => {
                    client.snapshot.clear();
                    for step in &all[client.at].steps {
                        let (Step::Write(key, _) | Step::Read(key, _)) = step;
                        client.snapshot.push((*key, keys[*key as usize].versions.len()));
                    }
                    client.phase = Phase::Started;
                }
                Phase::Started if self.isolation == Isolation::OldSnapshots => {
                    all[client.at].call = time;
                    client.phase = Phase::Called;
                }
                Phase::Started | Phase::Called => {
                    let txn = &mut all[client.at];
                    let behind = self.stale_at.is_some_and(|at| !stale && client.at >= at);
                    stale |= self.commit(&mut rng, txn, &client.snapshot, &mut keys, behind);
                    client.phase = Phase::Committed;
                }
                Phase::Committed => {
                    let txn = &mut all[client.at];
                    txn.ret = time;
                    if rng.random_range(0..1000) < self.info {
                        txn.outcome = TxnOutcome::Info;
                        client.process = next_process;
                        next_process += 1;
                    }
                    client.phase = Phase::Idle;
                    done += 1;
                }
            }
        }
        all.sort_by_key(|txn| txn.call);
        all
    }

    fn plan(&self, rng: &mut ChaCha8Rng, keys: &mut Vec<Key>, active: &mut [i64]) -> Vec<Step> {
        (0..rng.random_range(1..=self.mops))
            .map(|_| {
                let slot = rng.random_range(0..active.len());
                let key = active[slot];
                if rng.random_range(0..2) == 0 {
                    return Step::Read(key, Vec::new());
                }
                let state = &mut keys[key as usize];
                state.written += 1;
                let value = state.written;
                if value as usize >= self.writes_per_key {
                    active[slot] = keys.len() as i64;
                    keys.push(Key { versions: Vec::new(), written: 0 });
                }
                Step::Write(key, value)
            })
            .collect()
    }

    /// Reads, and commits or aborts; says whether it read an old state, as told to.
    fn commit(
        &self,
        rng: &mut ChaCha8Rng,
        txn: &mut Recorded,
        snapshot: &[(i64, usize)],
        keys: &mut [Key],
        behind: bool,
    ) -> bool {
        let now = |key: i64| keys[key as usize].versions.len();
        let conflict = |(step, (key, then)): (&Step, &(i64, usize))| {
            matches!(step, Step::Write(..)) && now(*key) != *then
        };
        if rng.random_range(0..1000) < self.fail
            || (matches!(self.isolation, Isolation::Snapshot | Isolation::OldSnapshots)
                && txn.steps.iter().zip(snapshot).any(conflict))
        {
            txn.outcome = TxnOutcome::Fail;
            return false;
        }
        let mut old = false;
        let mut own: Vec<(i64, i64)> = Vec::new();
        for (step, (key, then)) in txn.steps.iter_mut().zip(snapshot) {
            match step {
                Step::Write(key, value) => own.push((*key, *value)),
                Step::Read(_, found) => {
                    let versions = &keys[*key as usize].versions;
                    let mut seen = match self.isolation {
                        Isolation::StrictSerializable | Isolation::ReadCommitted => versions.len(),
                        _ => *then,
                    };
                    if behind && seen >= 4 {
                        (seen, old) = (seen - 4, true);
                    }
                    // What was committed at the start or at the end: never half a transaction.
                    if self.isolation == Isolation::ReadCommitted && rng.random_range(0..2) == 0 {
                        seen = *then;
                    }
                    found.extend(&versions[..seen]);
                    found.extend(own.iter().filter(|own| own.0 == *key).map(|own| own.1));
                }
            }
        }
        for (key, value) in own {
            keys[key as usize].versions.push(value);
        }
        old
    }
}

/// Adds pairs of transactions that skew each other's writes, evenly over the run, and after each pair one that reads both keys.
///
/// ```text
/// process n    |- r x [], r y [], append x 1 -|   |- r x [1], r y [1] -|
/// process n+1  |- r x [], r y [], append y 1 -|                               nothing else touches x and y
/// ```
pub(crate) fn plant_write_skews(recorded: &mut Vec<Recorded>, pairs: usize) {
    let process = recorded.iter().map(|txn| txn.process + 1).max().unwrap_or(0);
    let key = |step: &Step| {
        let (Step::Write(key, _) | Step::Read(key, _)) = step;
        *key + 1
    };
    let first_key = recorded.iter().flat_map(|txn| txn.steps.iter().map(key)).max().unwrap_or(0);
    // Room for them between any two moments.
    for txn in recorded.iter_mut() {
        (txn.call, txn.ret) = (8 * txn.call, 8 * txn.ret);
    }
    let every = (recorded.len() / pairs.max(1)).max(1);
    let times: Vec<u64> = recorded.iter().step_by(every).take(pairs).map(|txn| txn.call).collect();
    assert_eq!(times.len(), pairs, "one moment for each pair");
    for (pair, time) in times.into_iter().enumerate() {
        let (x, y) = (first_key + 2 * pair as i64, first_key + 2 * pair as i64 + 1);
        let both = |seen: &[i64]| vec![Step::Read(x, seen.to_vec()), Step::Read(y, seen.to_vec())];
        let mut add = |process: u64, call: u64, ret: u64, steps: Vec<Step>| {
            recorded.push(Recorded { process, call, ret, outcome: TxnOutcome::Ok, steps });
        };
        for (i, own) in [x, y].into_iter().enumerate() {
            let mut steps = both(&[]);
            steps.push(Step::Write(own, 1));
            add(process + i as u64, time + 1 + i as u64, time + 3 + i as u64, steps);
        }
        add(process, time + 5, time + 6, both(&[1]));
    }
    recorded.sort_by_key(|txn| txn.call);
}

/// Those that [`plant_write_skews`] has planted, as places in the list.
pub(crate) fn planted_pairs(recorded: &[Recorded]) -> Vec<[usize; 2]> {
    let skews = |txn: &&(usize, &Recorded)| {
        matches!(&txn.1.steps[..], [Step::Read(x, a), Step::Read(y, b), Step::Write(own, 1)]
            if *y == x + 1 && (own == x || own == y) && a.is_empty() && b.is_empty())
    };
    let all: Vec<(usize, &Recorded)> = recorded.iter().enumerate().collect();
    let planted: Vec<&(usize, &Recorded)> = all.iter().filter(skews).collect();
    let key = |txn: &Recorded| match txn.steps[0] {
        Step::Read(key, _) | Step::Write(key, _) => key,
    };
    planted
        .windows(2)
        .filter(|pair| key(pair[0].1) == key(pair[1].1))
        .map(|pair| [pair[0].0, pair[1].0])
        .collect()
}

/// Whether each pair lies in one of the components that the verdict names, how many there are, and how many of them have a cycle.
pub(crate) fn all_in_components(verdict: &Verdict, pairs: &[[usize; 2]]) -> (usize, usize, usize) {
    let ids = |list: &serde_json::Value| -> Vec<usize> {
        list.as_array().into_iter().flatten().filter_map(|id| Some(id.as_u64()? as usize)).collect()
    };
    let components: Vec<Vec<usize>> =
        verdict.stats["component_members"].as_array().into_iter().flatten().map(ids).collect();
    let mut component_of = std::collections::HashMap::new();
    for (number, component) in components.iter().enumerate() {
        component_of.extend(component.iter().map(|id| (*id, number)));
    }
    let inside = |pair: &&[usize; 2]| {
        component_of.get(&pair[0]).is_some_and(|number| component_of.get(&pair[1]) == Some(number))
    };
    let cycles = verdict.stats["cycles"].as_array().into_iter().flatten().map(|cycle| ids(&cycle[1]));
    let with_cycle: std::collections::HashSet<usize> =
        cycles.filter_map(|cycle| component_of.get(cycle.first()?).copied()).collect();
    (pairs.iter().filter(inside).count(), components.len(), with_cycle.len())
}

/// What the read of a step found, as a value of the datatype.
fn found(datatype: Datatype, versions: &[i64]) -> Value {
    match datatype {
        Datatype::ListAppend => Value::List(versions.iter().map(|v| Value::Int(*v)).collect()),
        Datatype::RwRegister => versions.last().map_or(Value::Nil, |v| Value::Int(*v)),
    }
}

/// Loaded for a checker, without the way through a history.
pub(crate) fn load(datatype: Datatype, recorded: &[Recorded]) -> Transactions {
    let mut builder = Builder::new(datatype);
    for (id, txn) in recorded.iter().enumerate() {
        builder.begin(id, txn.process, txn.call, Some(txn.ret), txn.outcome);
        for step in &txn.steps {
            match step {
                Step::Write(key, value) => builder.write(&Value::Int(*key), &Value::Int(*value)),
                Step::Read(key, versions) => {
                    let value = (txn.outcome == TxnOutcome::Ok).then(|| found(datatype, versions));
                    builder.read(&Value::Int(*key), value.as_ref());
                }
            }
        }
    }
    builder.finish().expect("not too many")
}

/// As a history of events.
pub(crate) fn history(datatype: Datatype, recorded: &[Recorded]) -> History {
    let mut events: Vec<Event> = Vec::new();
    for txn in recorded {
        let (mut mops, mut reads) = (Vec::new(), Vec::new());
        for step in &txn.steps {
            match (step, datatype) {
                (Step::Write(key, value), Datatype::ListAppend) => {
                    mops.push(Mop::Append { key: (*key).into(), value: (*value).into() });
                }
                (Step::Write(key, value), Datatype::RwRegister) => {
                    mops.push(Mop::Write { key: (*key).into(), value: (*value).into() });
                }
                (Step::Read(key, versions), _) => {
                    mops.push(Mop::Read { key: (*key).into() });
                    reads.push(found(datatype, versions));
                }
            }
        }
        let op = Op::Txn { mops: mops.into() };
        let kind = match txn.outcome {
            TxnOutcome::Ok => Kind::Ok,
            TxnOutcome::Info => Kind::Info,
            TxnOutcome::Fail => Kind::Fail,
        };
        let ret = (kind == Kind::Ok).then(|| Ret::Txn(reads.into()));
        let event = |time, kind, ret| Event {
            index: 0,
            time,
            process: Process::Client(txn.process),
            kind,
            op: op.clone(),
            ret,
            meta: Meta::default(),
        };
        events.push(event(txn.call, Kind::Invoke, None));
        events.push(event(txn.ret, kind, ret));
    }
    events.sort_by_key(|event| (event.time, event.kind != Kind::Invoke));
    events.iter_mut().enumerate().for_each(|(index, event)| event.index = index as u64);
    History::new(Header::new("simulated", 0, "2026-01-01T00:00:00Z", Vec::new()), events)
}
