//! What must not go back on one node, and what must be in order at one moment.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Findings, Look, at};

/// The last that was seen of a node.
#[derive(Clone)]
struct Last {
    storage: String,
    incarnation: u64,
    promised: Option<(u64, u64)>,
    /// When that promise was first seen, and in which incarnation.
    promised_at: (u64, u64),
    applied: u64,
    commit: u64,
    time: u64,
    /// Nothing that it promised before this look can be counted on.
    excused: bool,
}

#[derive(Default)]
pub(super) struct Orders {
    nodes: BTreeMap<String, Last>,
    restarts: u64,
}

impl Orders {
    pub(super) fn see(&mut self, look: &Look<'_>, power_failed: bool, findings: &mut Findings) {
        let state = look.state;
        in_order(look, findings);
        let mut last = Last {
            storage: state.storage.clone(),
            incarnation: state.incarnation,
            promised: state.promised,
            promised_at: (look.time, state.incarnation),
            applied: state.applied,
            commit: state.commit,
            time: look.time,
            excused: power_failed && !state.survives_power_failure,
        };
        if let Some(before) = self.nodes.get(&state.node) {
            let same_disk = before.storage == state.storage;
            // A node without an incarnation has no past yet, and may be started many times.
            let same_start = same_disk && state.incarnation != 0 && before.incarnation == state.incarnation;
            self.restarts += u64::from(before.incarnation != state.incarnation);
            if same_start {
                for (name, was, is) in [
                    ("commit-went-back", before.commit, state.commit),
                    ("applied-went-back", before.applied, state.applied),
                ] {
                    if is < was {
                        let message = format!(
                            "{} went back from slot {was} at {} to slot {is}, in incarnation {}",
                            look.who(),
                            at(before.time),
                            state.incarnation
                        );
                        let details = json!({
                            "nodes": [state.node], "slot": is, "values": [was, is],
                            "times_ns": [before.time, look.time], "event": look.event,
                        });
                        findings.guilty(name, vec![], message, details);
                    }
                }
            }
            let excused = !same_start && (last.excused || before.excused);
            if same_disk && !excused {
                // A node that was started again soon promises as much as before, whatever it had forgotten: what it began with tells.
                let began = state.recovered.filter(|_| before.incarnation < state.incarnation);
                let is = began.into_iter().chain(state.promised).min();
                if let (Some(was), Some(is)) = (before.promised, is) {
                    if is < was {
                        went_back(look, before, was, is, findings);
                    } else if state.promised == Some(was) {
                        last.promised_at = before.promised_at;
                    }
                }
            }
        }
        self.nodes.insert(state.node.clone(), last);
    }

    /// How many times a node was seen in another incarnation than before.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }
}

/// A promise was taken back, or forgotten.
fn went_back(look: &Look<'_>, before: &Last, was: (u64, u64), is: (u64, u64), findings: &mut Findings) {
    let (then, now) = (before.promised_at.1, look.state.incarnation);
    let bound = if then == now { "is bound" } else { "was started again bound" };
    let message = format!(
        "{}: in incarnation {now} it {bound} by ballot {}.{} only, and had promised {}.{} at {}, in incarnation {then}",
        look.who(),
        is.0,
        is.1,
        was.0,
        was.1,
        at(before.promised_at.0)
    );
    let details = json!({
        "nodes": [look.state.node], "values": [was, is], "incarnations": [then, now],
        "times_ns": [before.promised_at.0, look.time], "event": look.event,
    });
    findings.guilty("promise-went-back", vec![], message, details);
}

fn in_order(look: &Look<'_>, findings: &mut Findings) {
    let s = look.state;
    let in_order = s.snapshot <= s.applied
        && s.applied <= s.commit
        && s.commit <= s.last
        && s.durable <= s.commit
        && s.first <= s.snapshot + 1;
    if !in_order {
        let message = format!(
            "{}: first {}, snapshot {}, durable {}, applied {}, commit {}, last {} are not in order",
            look.who(),
            s.first,
            s.snapshot,
            s.durable,
            s.applied,
            s.commit,
            s.last
        );
        let details = json!({
            "nodes": [s.node], "values": [s.first, s.snapshot, s.durable, s.applied, s.commit, s.last],
            "times_ns": [look.time], "event": look.event,
        });
        findings.guilty("out-of-order", vec![], message, details);
    }
}
