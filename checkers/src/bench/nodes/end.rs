//! In the end, after all faults: what was chosen is on the disks of a majority.
//!
//! ```text
//! n1  disk holds all up to 112
//! n2  disk holds all up to 97, and votes for 98 … 112      two of three have each: well
//! n3  disk holds all up to 90
//! ```
//!
//! Only what was known to be chosen before the first of the last looks began is judged: what is chosen between two of them need not be
//! in the one that was taken before. A node that was not seen, or whose votes may have been lost with its disk, may be one of those that hold a value: then it is
//! not decided. It is not judged at all if nodes came and went, or if the power failed for nodes that do not survive that.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{Findings, Look, slots::Slots};

/// What one node's disk holds.
struct Holds {
    asked: u64,
    votes: bool,
    durable: u64,
    /// Slots after that, and the values.
    log: BTreeMap<u64, String>,
    /// All slots after that are there.
    whole: bool,
}

#[derive(Default)]
pub(super) struct End {
    last_looks: BTreeMap<String, Holds>,
    configs: BTreeSet<u64>,
    /// The highest slot that anybody had applied, whenever it grew.
    applied: Vec<(u64, u64)>,
    excused: bool,
}

/// Slots that are told of one finding.
const SHOWN: usize = 5;

impl End {
    pub(super) fn see(&mut self, look: &Look<'_>, power_failed: bool) {
        let state = look.state;
        if self.applied.last().is_none_or(|(_, applied)| *applied < state.applied) {
            self.applied.push((look.time, state.applied));
        }
        self.configs.extend(state.config);
        self.excused |= power_failed && !state.survives_power_failure;
        if state.last_look {
            let log = state.log.iter().filter(|entry| entry.durable && entry.slot > state.durable);
            let holds = Holds {
                asked: state.asked_ns,
                votes: state.votes,
                durable: state.durable,
                log: log.map(|entry| (entry.slot, entry.hash.clone())).collect(),
                whole: !state.cut,
            };
            self.last_looks.insert(state.node.clone(), holds);
        }
    }

    pub(super) fn conclude(&self, voters: usize, slots: &Slots, findings: &mut Findings) {
        findings.stat("last_looks", self.last_looks.len() as u64);
        if self.excused {
            return findings.stat("end", "not judged: the power failed, and nodes do not survive that");
        }
        if self.configs.len() > 1 {
            return findings.stat("end", "not judged: the set of nodes has changed");
        }
        if self.last_looks.is_empty() {
            return findings.doubt("nobody looked at the nodes when all was over");
        }
        let majority = voters / 2 + 1;
        let mut durable: Vec<u64> = self.last_looks.values().map(|holds| holds.durable).collect();
        durable.sort_unstable_by(|a, b| b.cmp(a));
        let held_by_all = durable.get(majority - 1).copied().unwrap_or(0);
        let began = self.last_looks.values().map(|holds| holds.asked).min().unwrap_or(0);
        let applied =
            self.applied.iter().rfind(|(time, _)| *time <= began).map_or(0, |(_, applied)| *applied);
        let chosen = applied.max(slots.last_before(began));
        let (mut missing, mut open) = (Vec::new(), 0_u64);
        // Votes count: a majority that has not yet heard that a value is chosen holds it all the same.
        let mut held_to = held_by_all.max(chosen);
        for slot in held_by_all + 1..=chosen {
            if slot > applied && !slots.chosen_before(slot, began) {
                continue;
            }
            let known = slots.chosen(slot);
            let (mut holders, mut perhaps) = (Vec::new(), voters - self.last_looks.len().min(voters));
            for (node, holds) in &self.last_looks {
                let value = holds.log.get(&slot);
                if slot <= holds.durable
                    || value.is_some_and(|value| known.is_none_or(|known| known == value))
                {
                    holders.push(node.clone());
                } else if !holds.votes || !holds.whole && value.is_none() {
                    perhaps += 1;
                }
            }
            if holders.len() < majority {
                held_to = held_to.min(slot - 1);
            }
            if holders.len() + perhaps < majority {
                missing.push((slot, holders));
            } else if holders.len() < majority {
                open += 1;
            }
        }
        findings.stat("chosen_to", chosen);
        findings.stat("durable_to", held_to);
        if let Some((first, holders)) = missing.first() {
            let all: Vec<u64> = missing.iter().map(|(slot, _)| *slot).collect();
            let shown = all.iter().take(SHOWN).map(u64::to_string).collect::<Vec<_>>().join(", ");
            let more =
                if all.len() > SHOWN { format!(" and {} more", all.len() - SHOWN) } else { String::new() };
            let on = if holders.is_empty() {
                "no disk".to_owned()
            } else {
                format!("the disk of {} only", holders.join(", "))
            };
            findings.guilty(
                "chosen-not-durable",
                vec![],
                format!("slot {first} was chosen, and in the end its value is on {on}, of {voters} nodes (slots {shown}{more})"),
                json!({"slot": first, "nodes": holders, "slots": all.len(), "values": slots.chosen(*first), "majority": majority}),
            );
        } else if open > 0 {
            findings.doubt(format!(
                "not all nodes could be asked in the end whether they hold what was chosen ({open} slots are open)"
            ));
        }
    }
}
