//! Linearizable so far? Judged while the run goes on, in memory that does not grow with it.
//!
//! ```text
//! events ──> by key ──> waiting until it is known what came of the oldest ──> Frontier ──> the first return that cannot be
//! ```
//!
//! The engine is the one that judges whole histories, and so is the verdict. Three things keep it small:
//! * What is settled is forgotten: of a key only the states that are possible now, the operations that are open, and those of
//!   unknown outcome are kept. The last are open for ever.
//! * An operation is looked at when its outcome is known, so that at most what is open at once waits.
//! * Keys retire: beyond [`MAX_KEYS`] the ones that nobody has touched for the longest time are forgotten. If one is
//!   touched again, nobody knows what it holds, and it is unknown.
//!
//! More than [`MAX_SLOTS`] open operations on a key, [`MAX_CRASHED`] kinds of unknown ones, or [`MAX_WAITING`] events behind one that does
//! not end: unknown, with the reason. Deliberately without minimal evidence: what was recorded can be judged as a whole, once it is known to
//! be worth it.

mod key;

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::json;

use self::key::{Ended, Live};
use super::{NAME, NOTHING, explain};
use crate::{
    Anomaly, Budget, Event, Key, Kind, Op, OpOutcome, Operation, Process, Ret, Validity, Value, Verdict,
    history::pairing::same_request,
    model::{
        CasRegister, Counter, FifoQueue, Kv, Model, ModelName, MultiRegister, Mutex, Nondeterministic,
        OwnedMutex, Register, Semaphore, Set, Stack, UnorderedQueue,
    },
};

/// The most keys that are watched at the same time.
pub const MAX_KEYS: usize = 10_000;
/// The most anomalies that are told.
const MAX_TOLD: usize = 20;
/// The most keys that are named as unknown, and of which it is remembered that they are decided.
const MAX_NAMED: usize = 1_000;
/// The most retired keys that are remembered one by one, where they are no numbers in a row.
const MAX_RETIRED: usize = 1_000_000;

/// A judge that is told what happens as it happens.
pub trait Online: Send {
    /// The next event, in the order in which they were recorded.
    fn see(&mut self, event: &Event);

    /// The first violation, if there was one so far.
    fn violation(&self) -> Option<&Anomaly>;

    /// The end: what is open stays open. The verdict on all that was seen.
    fn finish(&mut self) -> Verdict;
}

/// Judges linearizability online, by a built-in model that begins as in [`linearizable`](crate::linearizable). What one return may cost is bounded
/// by `budget`'s memory, and by a number of steps.
///
/// # Errors
/// A model that has to see the whole history before it can judge an operation.
pub fn online(model: ModelName, budget: Budget) -> Box<dyn Online> {
    fn boxed<M: Model + 'static>(model: M, budget: Budget) -> Box<dyn Online> {
        Box::new(Judge::new(model, budget))
    }
    match model {
        ModelName::Register => boxed(Register::default(), budget),
        ModelName::CasRegister => boxed(CasRegister::default(), budget),
        ModelName::MultiRegister => boxed(MultiRegister::default(), budget),
        ModelName::Kv => boxed(Kv::default(), budget),
        ModelName::Counter => boxed(Counter::default(), budget),
        ModelName::Set => boxed(Set::default(), budget),
        ModelName::FifoQueue => boxed(FifoQueue::default(), budget),
        ModelName::UnorderedQueue => boxed(Nondeterministic(UnorderedQueue::default()), budget),
        ModelName::Stack => boxed(Stack::default(), budget),
        ModelName::Mutex => boxed(Mutex::default(), budget),
        ModelName::OwnedMutex => boxed(OwnedMutex::plain(), budget),
        ModelName::ReentrantMutex => boxed(OwnedMutex::reentrant(), budget),
        ModelName::FencedMutex => boxed(OwnedMutex::fenced(), budget),
        ModelName::Semaphore => boxed(Semaphore::default(), budget),
    }
}

/// An operation that a client waits for.
struct Asked {
    id: usize,
    op: Op,
    call: (u64, u64),
    /// The key it is judged with; `None` if it is not.
    key: Option<Key>,
}

struct Judge<M: Model> {
    model: M,
    budget: Budget,
    keys: FxHashMap<Key, Live<M>>,
    /// With so many keys some have to retire.
    full: usize,
    clients: FxHashMap<u64, Asked>,
    retired: Retired,
    /// The clients that are no more, since an operation of theirs may still be running.
    crashed: Retired,
    now: u64,
    /// The index of the newest event.
    index: Option<u64>,
    /// Why nothing can be said from here on.
    broken: Option<String>,
    anomalies: Vec<Anomaly>,
    unknown: Vec<(Key, String)>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    operations: usize,
    judged: u64,
    /// Whether any of them was answered.
    answered: bool,
    keys: u64,
    invalid: u64,
    unknown: u64,
    most_keys: usize,
    most_waiting: usize,
    largest_frontier: usize,
    retired: u64,
}

impl<M: Model> Judge<M> {
    fn new(model: M, budget: Budget) -> Self {
        Judge {
            model,
            budget,
            keys: FxHashMap::default(),
            full: MAX_KEYS,
            clients: FxHashMap::default(),
            retired: Retired::default(),
            crashed: Retired::default(),
            now: 0,
            index: None,
            broken: None,
            anomalies: Vec::new(),
            unknown: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn invoke(&mut self, process: u64, event: &Event) {
        if let Some(before) = self.clients.get(&process) {
            self.broken = Some(format!("process {process} asked {} while {} was open", event.op, before.op));
            return;
        }
        if self.crashed.contains(&Value::Int(process as i64)) {
            let problem = "after one of its operations had ended in info, and may still be running";
            self.broken = Some(format!("process {process} asked {} {problem}", event.op));
            return;
        }
        let id = self.counts.operations;
        self.counts.operations += 1;
        let op = event.op.clone();
        let judged = !matches!(op, Op::Read { mode, .. } if !mode.claims_linearizability());
        let key = match (judged, self.model.is_local()) {
            (false, _) => None,
            (true, false) => Some(Value::Nil),
            (true, true) => match op.key() {
                Some(key) => Some(key.clone()),
                None => {
                    let reason = "has no key: it may touch any, so none can be judged";
                    self.broken = Some(format!("operation {id} of process {process}, {op}, {reason}"));
                    return;
                }
            },
        };
        if let Some(key) = &key {
            self.watch(key);
            let call = event.time;
            self.with(key, |live, _| live.invoke(id, call));
        }
        let call = (event.time, event.index);
        self.clients.insert(process, Asked { id, op, call, key });
    }

    fn complete(&mut self, process: u64, event: &Event) {
        let Some(asked) = self.clients.remove(&process) else {
            self.broken = Some(format!("process {process} was told of {}, which it did not ask", event.op));
            return;
        };
        if !same_request(&asked.op, &event.op) {
            self.broken =
                Some(format!("process {process} was told of {}, but it asked {}", event.op, asked.op));
            return;
        }
        if let Some(ret) = &event.ret
            && (event.kind != Kind::Ok || !event.op.accepts(ret))
        {
            let kind = event.kind;
            self.broken = Some(format!("{ret:?} is no answer to {} that ended in {kind}", event.op));
            return;
        }
        if event.kind == Kind::Info {
            self.crashed.insert(Value::Int(process as i64));
        }
        let Some(key) = asked.key.clone() else { return };
        let outcome = match (event.kind, &event.ret) {
            (Kind::Ok, Some(ret)) => OpOutcome::Ok(ret.clone()),
            (Kind::Ok, None) if !event.op.must_answer() => OpOutcome::Ok(Ret::Done),
            (Kind::Ok, None) => {
                self.broken = Some(format!(
                    "process {process} was told that {} succeeded, without an answer",
                    event.op
                ));
                return;
            }
            (Kind::Fail, _) => OpOutcome::Fail,
            (Kind::Info | Kind::Invoke, _) => OpOutcome::Info,
        };
        let operation = Operation {
            id: asked.id,
            process,
            op: self.named(asked.op, process),
            ret: matches!(outcome, OpOutcome::Ok(_)).then_some(event.time),
            outcome,
            call: asked.call.0,
            call_index: asked.call.1,
            ret_index: Some(event.index),
            meta: Default::default(),
        };
        self.counts.judged += u64::from(operation.outcome != OpOutcome::Fail);
        self.counts.answered |= matches!(operation.outcome, OpOutcome::Ok(_));
        let now = self.now;
        self.with(&key, |live, budget| live.complete(operation, now, budget));
    }

    /// What was asked, with the name of who asked, where that matters.
    fn named(&self, mut op: Op, process: u64) -> Op {
        if self.model.has_owners()
            && let Op::Acquire { owner, .. } | Op::Release { owner, .. } = &mut op
            && *owner == Value::Nil
        {
            *owner = format!("process {process}").into();
        }
        op
    }

    /// Does something with a key that is watched, and notes what became of it.
    fn with(&mut self, key: &Key, act: impl FnOnce(&mut Live<M>, &Budget) -> Option<Ended>) {
        let Some(live) = self.keys.get_mut(key) else { return };
        let ended = act(live, &self.budget);
        self.counts.most_waiting = self.counts.most_waiting.max(live.waiting());
        self.counts.largest_frontier = self.counts.largest_frontier.max(live.largest());
        match ended {
            None => {}
            Some(Ended::Unknown(reason)) => self.give_up(key, reason),
            Some(Ended::Invalid { operation, states }) => {
                self.counts.invalid += 1;
                if self.anomalies.len() < MAX_TOLD {
                    self.anomalies.push(explain::online(key, &operation, &states, self.model.is_local()));
                }
            }
        }
    }

    fn give_up(&mut self, key: &Key, reason: String) {
        self.counts.unknown += 1;
        if self.unknown.len() < MAX_NAMED {
            self.unknown.push((key.clone(), reason));
        }
    }

    fn watch(&mut self, key: &Key) {
        let turn = self.counts.operations as u64;
        if let Some(live) = self.keys.get_mut(key) {
            live.touched = turn;
            return;
        }
        if self.keys.len() >= self.full {
            self.retire();
            // If few could retire, looking through all of them at each new one would take for ever.
            self.full = MAX_KEYS.max(2 * self.keys.len());
        }
        let mut live = Live::new(self.model.clone());
        live.touched = turn;
        self.counts.keys += 1;
        if self.retired.contains(key) {
            live.end();
            self.give_up(key, "it was touched again after it had been retired".into());
        }
        self.keys.insert(key.clone(), live);
        self.counts.most_keys = self.counts.most_keys.max(self.keys.len());
    }

    /// Forgets the half of the keys that nobody has touched for the longest time.
    fn retire(&mut self) {
        let mut turns: Vec<u64> = self.keys.values().map(|live| live.touched).collect();
        let half = turns.len() / 2;
        let (_, middle, _) = turns.select_nth_unstable(half);
        let middle = *middle;
        let now = self.now;
        let old: Vec<Key> = self
            .keys
            .iter()
            .filter(|(_, live)| live.touched < middle && !live.has_open())
            .map(|(key, _)| key.clone())
            .collect();
        for key in old {
            self.with(&key, |live, budget| live.advance(now, budget));
            // What returned at this very moment can only be looked at when it is over.
            if self.keys.get(&key).is_some_and(|live| live.waiting() > 0) {
                continue;
            }
            self.keys.remove(&key);
            self.counts.retired += 1;
            self.retired.insert(key);
        }
        if self.retired.others.len() > MAX_RETIRED {
            self.broken = Some(format!("more than {MAX_RETIRED} keys that are no numbers have been retired"));
        }
    }
}

impl<M: Model> Online for Judge<M> {
    fn see(&mut self, event: &Event) {
        if self.broken.is_some() {
            return;
        }
        if let Some(before) = self.index.replace(event.index).filter(|before| *before >= event.index) {
            self.broken = Some(format!("index {} follows index {before}", event.index));
            return;
        }
        let Process::Client(process) = event.process else { return };
        if event.time < self.now {
            self.broken = Some(format!(
                "event {} is of {} ns, before the {} ns of an event that was recorded earlier",
                event.index, event.time, self.now
            ));
            return;
        }
        if event.time == u64::MAX {
            self.broken = Some(format!("event {} is of the last moment that there is", event.index));
            return;
        }
        self.now = event.time;
        match event.kind {
            Kind::Invoke => self.invoke(process, event),
            _ => self.complete(process, event),
        }
    }

    fn violation(&self) -> Option<&Anomaly> {
        self.anomalies.first()
    }

    fn finish(&mut self) -> Verdict {
        if self.broken.is_none() {
            let mut open: Vec<(u64, Asked)> = self.clients.drain().collect();
            open.sort_by_key(|(_, asked)| asked.id);
            for (process, asked) in open {
                let Some(key) = asked.key else { continue };
                let operation = Operation {
                    id: asked.id,
                    process,
                    op: self.named(asked.op, process),
                    outcome: OpOutcome::Info,
                    call: asked.call.0,
                    ret: None,
                    call_index: asked.call.1,
                    ret_index: None,
                    meta: Default::default(),
                };
                self.counts.judged += 1;
                let now = self.now;
                self.with(&key, |live, budget| live.complete(operation, now, budget));
            }
            let mut keys: Vec<Key> = self.keys.keys().cloned().collect();
            keys.sort();
            for key in keys {
                self.with(&key, |live, budget| live.advance(u64::MAX, budget));
            }
        }
        let counts = &self.counts;
        let mut verdict = Verdict::valid(NAME);
        verdict.stats = match json!({
            "online": true,
            "model": self.model.name(),
            "operations": counts.operations,
            "judged": counts.judged,
            "keys": counts.keys,
            "retired_keys": counts.retired,
            "most_keys_at_once": counts.most_keys,
            "most_events_waiting": counts.most_waiting,
            "largest_frontier": counts.largest_frontier,
            "invalid_keys": counts.invalid,
            "unknown_keys": counts.unknown,
        }) {
            serde_json::Value::Object(stats) => stats,
            _ => unreachable!("it is an object"),
        };
        let mut reasons = Vec::new();
        if counts.invalid > 0 {
            reasons.push(format!("{} of {} keys not linearizable", counts.invalid, counts.keys));
        }
        if counts.unknown > 0 {
            let named: Vec<String> =
                self.unknown.iter().take(3).map(|(key, why)| format!("key {key}: {why}")).collect();
            let more = if counts.unknown > 3 { "; …" } else { "" };
            reasons.push(format!(
                "{} of {} keys undecided: {}{more}",
                counts.unknown,
                counts.keys,
                named.join("; ")
            ));
        }
        if let Some(broken) = &self.broken {
            reasons.push(format!("the history is malformed, or cannot be judged while it grows: {broken}"));
        } else if !counts.answered {
            reasons.push(NOTHING.into());
        }
        verdict.validity = match (counts.invalid, reasons.is_empty()) {
            (1.., _) => Validity::Invalid,
            (0, false) => Validity::Unknown,
            (0, true) => Validity::Valid,
        };
        verdict.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        verdict.anomalies = std::mem::take(&mut self.anomalies);
        verdict
    }
}

/// Which keys were forgotten, or clients: numbers as ranges, since they are mostly used in a row.
#[derive(Default)]
struct Retired {
    /// First and last.
    ranges: std::collections::BTreeMap<i64, i64>,
    others: FxHashSet<Key>,
}

impl Retired {
    fn contains(&self, key: &Key) -> bool {
        match key {
            Value::Int(number) => {
                self.ranges.range(..=*number).next_back().is_some_and(|(_, last)| number <= last)
            }
            other => self.others.contains(other),
        }
    }

    fn insert(&mut self, key: Key) {
        let Value::Int(number) = key else {
            self.others.insert(key);
            return;
        };
        if self.contains(&Value::Int(number)) {
            return;
        }
        let mut first = number;
        let mut last = number;
        if let Some((&before, &end)) = self.ranges.range(..number).next_back()
            && end.checked_add(1) == Some(number)
        {
            first = before;
        }
        if let Some(after) = number.checked_add(1)
            && let Some(end) = self.ranges.remove(&after)
        {
            last = end;
        }
        self.ranges.insert(first, last);
    }
}

#[cfg(test)]
mod tests;
