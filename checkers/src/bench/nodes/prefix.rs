//! Equal prefixes at equal slots: the same entries, the same state, the same sessions.
//!
//! Once two replicas have gone apart they differ at every slot behind. Only the lowest slot of each kind and pair of nodes is told.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde_json::json;

use super::{Findings, Look, at};
use crate::node_state::Prefix;

/// Who was the first to be seen at a slot.
struct First {
    prefix: Prefix,
    node: String,
    time: u64,
    others: bool,
}

#[derive(Default)]
pub(super) struct Prefixes {
    seen: FxHashMap<u64, First>,
    compared: u64,
    /// Kinds of differences and pairs of nodes that were told.
    told: BTreeSet<(&'static str, String, String)>,
    /// How many were not.
    untold: BTreeMap<&'static str, u64>,
}

impl Prefixes {
    pub(super) fn see(&mut self, look: &Look<'_>, findings: &mut Findings) {
        let state = look.state;
        for checkpoint in &state.checkpoints {
            self.one(checkpoint, look, findings);
        }
        if state.applied > 0 {
            let here = Prefix {
                slot: state.applied,
                hash: state.hash.clone(),
                state: state.state.clone(),
                sessions: state.sessions.clone(),
            };
            self.one(&here, look, findings);
        }
    }

    fn one(&mut self, prefix: &Prefix, look: &Look<'_>, findings: &mut Findings) {
        let first = self.seen.entry(prefix.slot).or_insert_with(|| First {
            prefix: prefix.clone(),
            node: look.state.node.clone(),
            time: look.time,
            others: false,
        });
        if first.node != look.state.node && !first.others {
            first.others = true;
            self.compared += 1;
        }
        let known = &first.prefix;
        // Whoever has other entries has another state, too: that says nothing more.
        let (name, what, values) = if known.hash != prefix.hash {
            ("prefixes-differ", "other entries", [&known.hash, &prefix.hash])
        } else if known.state != prefix.state {
            ("states-differ", "another state from the same entries", [&known.state, &prefix.state])
        } else if known.sessions != prefix.sessions {
            ("sessions-differ", "other sessions from the same entries", [&known.sessions, &prefix.sessions])
        } else {
            return;
        };
        let mut pair = [first.node.clone(), look.state.node.clone()];
        pair.sort();
        let [one, other] = pair;
        if !self.told.insert((name, one, other)) {
            return *self.untold.entry(name).or_default() += 1;
        }
        findings.guilty(
            name,
            vec![],
            format!(
                "up to slot {}: {} has {what} than {} at {}: {} instead of {}",
                prefix.slot,
                look.who(),
                first.node,
                at(first.time),
                values[1],
                values[0]
            ),
            json!({
                "slot": prefix.slot, "nodes": [first.node, look.state.node], "values": values,
                "times_ns": [first.time, look.time], "event": look.event,
            }),
        );
    }

    /// Counts the differences that were not told.
    pub(super) fn conclude(&self, findings: &mut Findings) {
        for (name, more) in &self.untold {
            findings.untold(name, *more);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Slots at which more than one node was seen.
    pub(super) fn compared(&self) -> u64 {
        self.compared
    }
}
