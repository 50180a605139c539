//! The bench: judges of one property each, in the time that it takes to look at every operation once. Jepsen's, by name.
//!
//! ```text
//! set, set-full       every element that was added stays           unique-ids   no id twice
//! queue, total-queue  what went in comes out, and nothing else     counter      reads within bounds
//! bank          no money appears or vanishes                       stats        something of every kind succeeded
//! lock          nobody holds what another one holds                sessions     what one client may rely on
//! node-invariants  nodes fit together  log-patterns  no panic in a log      unhandled-errors            availability, latency      what a user waits
//! ```
//!
//! They need no search and never say "unknown" for want of time. Deliberately weaker than linearizability: each accepts some
//! histories that are not linearizable, and says something that a person who knows the system understands at once.

mod availability;
mod bank;
mod causal_reverse;
mod counter;
mod errors;
mod final_set;
mod from_somewhere;
mod latency;
mod lock;
mod logs;
mod long_fork;
mod monotonic;
mod nodes;
mod queue;
mod sessions;
mod set_full;
mod span;
mod stats;
mod unique_ids;

use serde_json::{Map, Value as Json};

pub(crate) use self::sessions::holds as session_holds;
pub use self::{
    availability::{AvailabilityOptions, availability},
    bank::{BankOptions, bank},
    causal_reverse::causal_reverse,
    counter::counter,
    errors::unhandled_errors,
    final_set::set,
    from_somewhere::queue,
    latency::{From as LatencyFrom, LatencyObjective, LatencyObjectives, latency},
    lock::{LockOptions, lock},
    logs::{LOG_FINDING, LOG_SCAN, log_patterns},
    long_fork::long_fork,
    monotonic::monotonic,
    nodes::node_invariants,
    queue::total_queue,
    sessions::{Guarantee, SessionOptions, session},
    set_full::set_full,
    span::Span,
    stats::stats,
    unique_ids::unique_ids,
};
use crate::{Anomaly, Budget, Checker, History, Operation, Operations, Validity, Verdict, timeline};

/// The checkers of the bench: name and one line each.
pub(crate) const BENCH: [(&str, &str); 22] = [
    (final_set::NAME, "every element that was acknowledged is in the last read of the set"),
    (set_full::NAME, "every element that was added is in all later reads of the set"),
    (from_somewhere::NAME, "whatever comes out of a queue has gone in before"),
    (queue::NAME, "whatever was enqueued comes out, and nothing else"),
    (unique_ids::NAME, "no id is given to two"),
    (counter::NAME, "every read of a counter is possible, given what was added before and meanwhile"),
    (bank::NAME, "transfers keep the total of all accounts, and none is overdrawn"),
    (stats::NAME, "of every kind of operation one succeeded"),
    (errors::NAME, "which errors the clients met, the same ones together"),
    (logs::NAME, "nothing in the nodes' logs that should not be there: no panic"),
    (
        nodes::NAME,
        "what nodes say of themselves fits together: one value a slot, equal prefixes, promises kept",
    ),
    (lock::NAME, "nobody holds a lock that another one holds, and fencing tokens grow"),
    (availability::NAME, "how long nobody was served, and how soon after a heal everybody was again"),
    (latency::NAME, "operations are as fast as was demanded"),
    (long_fork::NAME, "no two reads see two writes in opposite orders"),
    (causal_reverse::NAME, "nobody sees an effect without what had returned before it was called"),
    (monotonic::NAME, "what can only grow is never seen to shrink"),
    (Guarantee::ReadYourWrites.name(), "a session reads what it wrote"),
    (Guarantee::MonotonicReads.name(), "a session never reads older than it has read"),
    (Guarantee::MonotonicWrites.name(), "who sees a write of a session sees its earlier ones"),
    (Guarantee::WritesFollowReads.name(), "who sees a write of a session sees what that had read before"),
    (
        Guarantee::Causal.name(),
        "all session guarantees together: what may be a cause is seen before its effect",
    ),
];

/// The most anomalies that are told; all are counted.
const MAX_TOLD: usize = 20;

/// A judge that is a function.
struct Bench<F> {
    name: &'static str,
    judge: F,
}

impl<F> Checker for Bench<F>
where
    F: Fn(&History, Operations<'_>, &mut Findings) + Send + Sync,
{
    fn name(&self) -> &str {
        self.name
    }

    fn check(&self, history: &History, _: &Budget) -> Verdict {
        match history.paired() {
            Err(error) => Verdict::unknown(self.name, format!("the history is malformed: {error}")),
            Ok(operations) => {
                let mut findings = Findings::default();
                (self.judge)(history, operations, &mut findings);
                findings.draw(operations);
                findings.verdict(self.name)
            }
        }
    }
}

fn checker<F>(name: &'static str, judge: F) -> impl Checker
where
    F: Fn(Operations<'_>, &mut Findings) + Send + Sync,
{
    checker_of_history(name, move |_, operations, findings| judge(operations, findings))
}

/// One that looks at more than the operations: at what the nemesis and the observer had to tell.
fn checker_of_history<F>(name: &'static str, judge: F) -> impl Checker
where
    F: Fn(&History, Operations<'_>, &mut Findings) + Send + Sync,
{
    Bench { name, judge }
}

/// What a judge of the bench has found so far.
#[derive(Default)]
struct Findings {
    told: Vec<Anomaly>,
    counts: Map<String, Json>,
    found: usize,
    doubts: Vec<String>,
    stats: Map<String, Json>,
}

impl Findings {
    /// Something that should not have been.
    fn guilty(&mut self, name: &str, operations: Vec<usize>, message: String, details: Json) {
        self.found += 1;
        let count = self.counts.get(name).and_then(Json::as_u64).unwrap_or(0) + 1;
        self.counts.insert(name.to_owned(), count.into());
        if self.told.len() < MAX_TOLD {
            self.told.push(Anomaly { name: name.to_owned(), message, operations, details, picture: None });
        }
    }

    /// More of the same, which are only counted.
    fn untold(&mut self, name: &str, more: u64) {
        if more > 0 {
            self.found += more as usize;
            let count = self.counts.get(name).and_then(Json::as_u64).unwrap_or(0) + more;
            self.counts.insert(name.to_owned(), count.into());
        }
    }

    /// Why a pass would mean nothing.
    fn doubt(&mut self, why: impl Into<String>) {
        self.doubts.push(why.into());
    }

    fn stat(&mut self, name: &str, value: impl Into<Json>) {
        self.stats.insert(name.to_owned(), value.into());
    }

    /// A picture of each, unless it would be too large to be looked at.
    fn draw(&mut self, operations: Operations<'_>) {
        const MOST: usize = 12;
        for anomaly in self.told.iter_mut().filter(|anomaly| (1..=MOST).contains(&anomaly.operations.len())) {
            let mut ids = anomaly.operations.clone();
            ids.sort_unstable();
            ids.dedup();
            let drawn: Vec<Operation> = ids.into_iter().map(|id| operations.get(id)).collect();
            anomaly.picture = Some(timeline::draw(&drawn.iter().collect::<Vec<_>>(), &[]));
        }
    }

    fn verdict(mut self, name: &str) -> Verdict {
        let mut verdict = Verdict::valid(name);
        let mut reasons = Vec::new();
        if self.found > 0 {
            verdict.validity = Validity::Invalid;
            let all: Vec<String> =
                self.counts.iter().map(|(name, count)| format!("{name}: {count}")).collect();
            reasons.push(all.join(", "));
        } else if !self.doubts.is_empty() {
            verdict.validity = Validity::Unknown;
        }
        reasons.append(&mut self.doubts);
        verdict.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        verdict.anomalies = self.told;
        verdict.stats = self.stats;
        verdict.stats.insert("anomaly_counts".into(), Json::Object(self.counts));
        verdict
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Event, Header, Kind, Meta, Op, Process, Ret};

    /// A history of operations with their process, call and return.
    pub(crate) fn history(operations: &[(u64, u64, u64, Op, Option<Ret>)]) -> History {
        let mut events = Vec::new();
        for (process, call, ret, op, told) in operations {
            let event = |time: u64, kind, ret| Event {
                index: 0,
                time,
                process: Process::Client(*process),
                kind,
                op: op.clone(),
                ret,
                meta: Meta::default(),
            };
            events.push(event(*call, Kind::Invoke, None));
            let kind = if told.is_some() { Kind::Ok } else { Kind::Info };
            events.push(event(*ret, kind, told.clone()));
        }
        events.sort_by_key(|event| (event.time, event.kind != Kind::Invoke));
        for (at, event) in events.iter_mut().enumerate() {
            event.index = at as u64;
        }
        History::new(Header::new("bench", 0, "", vec![]), events)
    }

    pub(crate) fn check(checker: &dyn Checker, history: &History) -> (Validity, Vec<String>) {
        let verdict = checker.check(history, &Budget::unlimited());
        (verdict.validity, verdict.anomalies.into_iter().map(|anomaly| anomaly.name).collect())
    }
}
