//! `node-invariants`: what nodes say of themselves must fit together, whatever clients saw.
//!
//! ```text
//! n1  ──slot 97: c1──applied 112: 9a──────────────┐
//! n2  ───────────────applied 112: 9a──────────────┤ one value a slot, equal prefixes at equal slots, promises that stand,
//! n3  ──slot 97: e0──promised 7.2──†──promised 6.1┘ and in the end everything that was chosen on a majority of the disks
//! ```
//!
//! Judged from the observer's events [`NODE_STATE`]. Whatever compares nodes compares what they say of the same *slot*, so it
//! does not matter when they were asked; whatever compares a node with itself relies on its answers being in order.
//!
//! | anomaly | what must never be |
//! |---|---|
//! | `two-values` | two values are chosen for one slot, on whatever nodes, at whatever times |
//! | `two-values-of-a-ballot` | two values are voted for under one ballot in one slot |
//! | `prefixes-differ` | two nodes, or one at two times, have other entries up to the same slot |
//! | `states-differ`, `sessions-differ` | the same entries came to other keys, or other sessions |
//! | `promise-went-back` | a node is bound by a lower ballot than it was, on the same disk |
//! | `commit-went-back`, `applied-went-back` | of one incarnation |
//! | `out-of-order` | not snapshot ≤ applied ≤ commit ≤ last, or a log that begins behind the snapshot |
//! | `chosen-not-durable` | in the end, after all faults, a chosen value is not on the disks of a majority |
//!
//! What excuses a node: a disk that was replaced; a failure of the power, if it had said that it does not survive one. Deliberately no
//! opinion on what clients saw: a cluster can keep all this and still answer wrongly.

mod end;
#[cfg(test)]
mod oracle;
mod order;
mod prefix;
mod slots;

use std::collections::BTreeMap;

use serde_json::json;

use super::{Findings, checker_of_history};
use crate::{
    Checker, Event, Op, Process,
    node_state::{NODE_STATE, NODE_WATCH, NodeState},
};

pub(super) const NAME: &str = "node-invariants";

/// The kinds of faults that lose what was not synced.
const LOSES_POWER: [&str; 2] = ["power-failure", "torn-write"];

/// One look at a node.
struct Look<'a> {
    state: &'a NodeState,
    /// When it had answered.
    time: u64,
    event: u64,
}

impl Look<'_> {
    /// Who said it, and when: `n1 at 3.204 s`.
    fn who(&self) -> String {
        format!("{} at {}", self.state.node, at(self.time))
    }
}

fn at(ns: u64) -> String {
    format!("{:.3} s", ns as f64 / 1e9)
}

/// Turns what was seen of nodes into anomalies. Unknown if none was seen, if no two could be compared, or if nobody looked at the
/// end.
pub fn node_invariants() -> impl Checker {
    checker_of_history(NAME, |history, _, findings| {
        let mut judge = Judge::default();
        for index in 0..history.events.len() {
            let told = matches!(history.events.process(index as u32), Process::Observer | Process::Nemesis);
            if told {
                judge.see(&history.events.get(index), findings);
            }
        }
        judge.conclude(findings);
    })
}

/// What is known so far.
#[derive(Default)]
struct Judge {
    /// Who is looked at.
    nodes: Vec<String>,
    /// How many answers there were from each.
    answers: BTreeMap<String, u64>,
    power_failed: bool,
    slots: slots::Slots,
    prefixes: prefix::Prefixes,
    order: order::Orders,
    end: end::End,
}

impl Judge {
    fn see(&mut self, event: &Event, findings: &mut Findings) {
        let Op::Custom { f, value, .. } = &event.op else { return };
        match (&event.process, &**f) {
            (Process::Nemesis, kind) => self.power_failed |= LOSES_POWER.contains(&kind),
            (_, NODE_WATCH) => {
                let names = value["nodes"].as_array().into_iter().flatten();
                self.nodes = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
            }
            (_, NODE_STATE) => match serde_json::from_value::<NodeState>(value.clone()) {
                Ok(state) => {
                    let look = Look { state: &state, time: event.time, event: event.index };
                    self.look(&look, findings);
                }
                Err(error) => findings.doubt(format!("event {} is no state of a node: {error}", event.index)),
            },
            _ => {}
        }
    }

    fn look(&mut self, look: &Look<'_>, findings: &mut Findings) {
        *self.answers.entry(look.state.node.clone()).or_default() += 1;
        self.order.see(look, self.power_failed, findings);
        self.slots.see(look, findings);
        self.prefixes.see(look, findings);
        self.end.see(look, self.power_failed);
    }

    fn conclude(self, findings: &mut Findings) {
        let (slots, compared) = (self.slots.count(), self.prefixes.compared() + self.slots.compared());
        for (name, count) in [
            ("looks", self.answers.values().sum()),
            ("slots", slots),
            ("prefixes", self.prefixes.count()),
            ("compared", compared),
            ("restarts", self.order.restarts()),
        ] {
            findings.stat(name, count);
        }
        findings.stat("nodes", json!(self.answers));
        self.prefixes.conclude(findings);
        if self.answers.is_empty() {
            return findings.doubt("no node was ever seen");
        }
        for unseen in self.nodes.iter().filter(|node| !self.answers.contains_key(*node)) {
            findings.doubt(format!("{unseen} was never seen"));
        }
        let several = self.nodes.len().max(self.answers.len()) > 1;
        if several && compared == 0 {
            findings.doubt("no two nodes were ever seen at the same slot");
        }
        let voters = self.nodes.len().max(self.answers.len());
        self.end.conclude(voters, &self.slots, findings);
    }
}
