//! One value a slot, and one value a ballot in a slot: over all nodes and all times.

use rustc_hash::FxHashMap;
use serde_json::json;

use super::{Findings, Look, at};

/// Who said first that a slot has a value.
struct First {
    hash: String,
    what: String,
    node: String,
    time: u64,
    /// Somebody else, or somebody later, has said so too.
    told_again: bool,
    /// It was contradicted, and that was told.
    broken: bool,
}

#[derive(Default)]
pub(super) struct Slots {
    chosen: FxHashMap<u64, First>,
    voted: FxHashMap<(u64, (u64, u64)), First>,
    compared: u64,
}

impl Slots {
    pub(super) fn see(&mut self, look: &Look<'_>, findings: &mut Findings) {
        for entry in &look.state.log {
            let first = || First {
                hash: entry.hash.clone(),
                what: entry.what.clone(),
                node: look.state.node.clone(),
                time: look.time,
                told_again: false,
                broken: false,
            };
            let mut clash = |known: &mut First, name: &str, verb: &str, under: Option<(u64, u64)>| {
                if known.node != look.state.node && !known.told_again {
                    known.told_again = true;
                    self.compared += 1;
                }
                if known.hash == entry.hash || known.broken {
                    return;
                }
                known.broken = true;
                let ballot =
                    under.map_or(String::new(), |(round, node)| format!(" under ballot {round}.{node}"));
                findings.guilty(
                    name,
                    vec![],
                    format!(
                        "slot {}: {} at {} {verb} {} ({}){ballot}, {} {verb} {} ({})",
                        entry.slot, known.node, at(known.time), known.hash, known.what, look.who(), entry.hash, entry.what
                    ),
                    json!({
                        "slot": entry.slot, "nodes": [known.node, look.state.node], "values": [known.hash, entry.hash],
                        "what": [known.what, entry.what], "times_ns": [known.time, look.time], "ballot": under,
                        "event": look.event,
                    }),
                );
            };
            if entry.chosen {
                let known = self.chosen.entry(entry.slot).or_insert_with(first);
                clash(known, "two-values", "knows as chosen", None);
            }
            if let Some(ballot) = entry.ballot {
                let known = self.voted.entry((entry.slot, ballot)).or_insert_with(first);
                clash(known, "two-values-of-a-ballot", "has voted for", Some(ballot));
            }
        }
    }

    /// The value of a slot, if somebody said that it is chosen.
    pub(super) fn chosen(&self, slot: u64) -> Option<&str> {
        self.chosen.get(&slot).map(|first| &*first.hash)
    }

    /// Whether somebody had said by then that the slot is chosen.
    pub(super) fn chosen_before(&self, slot: u64, time: u64) -> bool {
        self.chosen.get(&slot).is_some_and(|first| first.time <= time)
    }

    /// The highest slot of which somebody had said by then that it is chosen.
    pub(super) fn last_before(&self, time: u64) -> u64 {
        let said = self.chosen.iter().filter(|(_, first)| first.time <= time);
        said.map(|(slot, _)| *slot).max().unwrap_or(0)
    }

    pub(super) fn count(&self) -> u64 {
        self.chosen.len() as u64
    }

    /// Slots that more than one node had a word on.
    pub(super) fn compared(&self) -> u64 {
        self.compared
    }
}
