//! What was found, as anomalies and in words.
//!
//! ```text
//! diverged
//! key 3: n1 n2 hold 21 and n3 holds 17. They stood still for 10.2 s, …
//! ```

use serde_json::{Map, Value as Json, json};

use super::{
    NAME,
    end::Stand,
    evidence::{Evidence, Read, Register, Write},
    versions::Foreign,
};
use crate::{Anomaly, Operation, Operations, Validity, Value, Verdict, timeline};

/// The most anomalies that are told; all are counted.
const MAX_TOLD: usize = 20;
/// The most keys that a reason names.
pub(super) const MAX_NAMED: usize = 5;

/// A point in time or a length of it, in seconds.
pub(super) fn at(ns: u64) -> String {
    format!("{:.2} s", ns as f64 / 1e9)
}

/// What has been found so far.
pub(super) struct Findings<'a> {
    operations: Operations<'a>,
    evidence: &'a Evidence,
    told: Vec<Anomaly>,
    counts: Map<String, Json>,
    open: Vec<String>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(operations: Operations<'a>, evidence: &'a Evidence) -> Self {
        Findings { operations, evidence, told: vec![], counts: Map::new(), open: vec![] }
    }

    pub(super) fn is_guilty(&self) -> bool {
        !self.counts.is_empty()
    }

    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The anomaly's evidence is drawn as the linearizability checker's is: the guilty operation, and the smallest part.
    fn guilty(&mut self, name: &str, mut ids: Vec<usize>, guilty: usize, message: String, details: Json) {
        let count = self.counts.get(name).and_then(Json::as_u64).unwrap_or(0) + 1;
        self.counts.insert(name.to_owned(), count.into());
        if self.told.len() >= MAX_TOLD {
            return;
        }
        ids.sort_unstable();
        ids.dedup();
        let all: Vec<Operation> = ids.iter().map(|id| self.operations.get(*id)).collect();
        let label = |operation: &Operation| match &operation.meta.node {
            Some(node) => format!("{} {}", node, timeline::label(operation)),
            None => timeline::label(operation),
        };
        let mut details = details;
        details["window"] = all.iter().map(|op| json!({"id": op.id, "label": label(op)})).collect();
        details["minimal"] = ids.clone().into();
        details["operation"] = guilty.into();
        let picture = Some(timeline::draw(&all.iter().collect::<Vec<_>>(), &[guilty]));
        self.told.push(Anomaly { name: name.to_owned(), message, operations: ids, details, picture });
    }

    /// A value that should not be there.
    pub(super) fn foreign(&mut self, key: &Register, read: &Read, foreign: &Foreign) {
        let writes = |places: &[usize]| -> Vec<usize> {
            places.iter().map(|at| key.versions.writes[*at].id).collect()
        };
        let (name, value, writers, why) = match foreign {
            Foreign::Garbage(value) => ("garbage-read", value, vec![], "which nobody wrote".to_owned()),
            Foreign::Failed(value, all) => {
                let ids = writes(all);
                (
                    "failed-write-read",
                    value,
                    ids.clone(),
                    format!("which only {} tried to leave, without effect", named(&ids)),
                )
            }
            Foreign::Future(value, all) => {
                let ids = writes(all);
                (
                    "future-read",
                    value,
                    ids.clone(),
                    format!("before {} was called, which left it", named(&ids)),
                )
            }
        };
        let node = &self.evidence.nodes[read.node];
        let message = format!("{node} held {value} in key {} (operation {}), {why}", key.key, read.id);
        let details = json!({"key": key.key, "node": node, "value": value});
        let ids = [writers, vec![read.id]].concat();
        self.guilty(name, ids, read.id, message, details);
    }

    /// Two replicas that differ for good.
    pub(super) fn diverged(
        &mut self,
        key: &Register,
        stands: &[Option<Stand>],
        (a, b, lasted): (&Stand, &Stand, u64),
    ) {
        let names = |stand: &Stand| &self.evidence.nodes[stand.node];
        let lacking = |stand: &Stand| match key.versions.lacks(&stand.value) {
            Some(write) => format!(
                " {} lacks {} (operation {}), which was acknowledged at {}.",
                names(stand),
                told(write),
                write.id,
                at(write.ret)
            ),
            None => String::new(),
        };
        let (na, nb) = (names(a), names(b));
        let message = format!(
            "key {}: {}. {na} and {nb} stood still for {}, from {} to {}; everything was quiet since {}.{}{}",
            key.key,
            self.holdings(stands),
            at(lasted),
            at(a.from.max(b.from)),
            at(a.to.min(b.to)),
            at(self.evidence.quiet.since().unwrap_or(0)),
            lacking(a),
            lacking(b)
        );
        let details = json!({
            "key": key.key,
            "nodes": [na, nb],
            "values": [a.value, b.value],
            "held": self.held(stands),
            "stood_still_ns": lasted,
        });
        let writer =
            |value: &Value| key.versions.writers(value).first().map(|at| key.versions.writes[*at].id);
        let mut ids = vec![a.first, a.last, b.first, b.last];
        ids.extend(writer(&a.value).into_iter().chain(writer(&b.value)));
        let guilty = if key.versions.lacks(&a.value).is_some() { a.last } else { b.last };
        self.guilty("diverged", ids, guilty, message, details);
    }

    /// A replica that stood still without an acknowledged write.
    pub(super) fn lost(&mut self, key: &Register, stands: &[Option<Stand>], stand: &Stand, write: &Write) {
        let node = &self.evidence.nodes[stand.node];
        let message = format!(
            "key {}: {} (operation {}) was acknowledged at {}, and {node} held {} instead from {} to {}, for {}; \
             everything was quiet since {}. In the end {}",
            key.key,
            told(write),
            write.id,
            at(write.ret),
            stand.value,
            at(stand.from),
            at(stand.to),
            at(stand.lasted()),
            at(self.evidence.quiet.since().unwrap_or(0)),
            self.holdings(stands)
        );
        let details = json!({
            "key": key.key,
            "node": node,
            "value": stand.value,
            "lost": write.value,
            "held": self.held(stands),
            "stood_still_ns": stand.lasted(),
        });
        self.guilty("lost-write", vec![write.id, stand.first, stand.last], stand.last, message, details);
    }

    /// A key on which replicas differ, but not for good.
    pub(super) fn open(&mut self, key: &Register, stands: &[Option<Stand>]) {
        let lacking = stands.iter().flatten().find_map(|stand| key.versions.lacks(&stand.value));
        let lacking = lacking.map(|write| format!(" ({} is lacking)", told(write))).unwrap_or_default();
        self.open.push(format!("key {}: {}{lacking}", key.key, self.holdings(stands)));
    }

    /// `n1 n2 hold 21, n3 holds 17`.
    fn holdings(&self, stands: &[Option<Stand>]) -> String {
        let words = groups(stands).into_iter().map(|(value, nodes)| {
            let names: Vec<&str> = nodes.iter().map(|node| &*self.evidence.nodes[*node]).collect();
            let verb = if names.len() == 1 { "holds" } else { "hold" };
            format!("{} {verb} {value}", names.join(" "))
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn held(&self, stands: &[Option<Stand>]) -> Json {
        let names =
            |nodes: Vec<usize>| nodes.iter().map(|node| &*self.evidence.nodes[*node]).collect::<Vec<_>>();
        groups(stands)
            .into_iter()
            .map(|(value, nodes)| json!({"value": value, "nodes": names(nodes)}))
            .collect()
    }

    pub(super) fn verdict(self, doubts: Vec<String>) -> Verdict {
        let mut verdict = Verdict::valid(NAME);
        let mut reasons = Vec::new();
        if !self.counts.is_empty() {
            verdict.validity = Validity::Invalid;
            let counts: Vec<String> =
                self.counts.iter().map(|(name, count)| format!("{name}: {count}")).collect();
            reasons.push(counts.join(", "));
            // What is not known beside that matters no more.
            verdict.reason = reasons.pop();
            verdict.anomalies = self.told;
            return verdict;
        }
        if !(self.open.is_empty() && doubts.is_empty()) {
            verdict.validity = Validity::Unknown;
        }
        if !self.open.is_empty() {
            let more = match self.open.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                n => format!("; and {n} other keys"),
            };
            let healed = match self.evidence.quiet.healed {
                Some(_) => "",
                None => "; and nothing in the history says that the faults were healed",
            };
            let shown = self.open.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
            reasons.push(format!("still converging when the history ended: {shown}{more}{healed}"));
        }
        reasons.extend(doubts);
        verdict.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        verdict
    }
}

/// Which nodes hold which value, the most widely held first.
pub(super) fn groups(stands: &[Option<Stand>]) -> Vec<(&Value, Vec<usize>)> {
    let mut groups: Vec<(&Value, Vec<usize>)> = Vec::new();
    for stand in stands.iter().flatten() {
        match groups.iter_mut().find(|(value, _)| **value == stand.value) {
            Some((_, nodes)) => nodes.push(stand.node),
            None => groups.push((&stand.value, vec![stand.node])),
        }
    }
    groups.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    groups
}

fn told(write: &Write) -> String {
    match &write.value {
        Value::Nil => "the delete".to_owned(),
        value => format!("the write of {value}"),
    }
}

fn named(ids: &[usize]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("operation {id}")).collect();
    ids.join(" and ")
}
