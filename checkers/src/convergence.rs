//! Eventual convergence: once faults are healed and writing has stopped, do all replicas come to the same state, and is it the
//! right one? Beside that: how stale were they meanwhile?
//!
//! ```text
//!            load and faults            quiet               bound
//! writes  |-| |--|  |-|   |---|           |                   |
//! n1      7     8      8      9           9    9    9           converged
//! n2      7  7      7  7  7               7    9    9           with the others 1 sample later
//! n3      7  7      7  7  7               7    7    7           stood still long enough: diverged for good
//! ```
//!
//! What replicas hold is known by reads of mode [`Stale`](crate::ReadMode) whose event names the `node` that answered. *Quiet* is the
//! later of two moments: the last fault was healed (the observer's event [`HEALED`]), and the last write was answered or given up.
//!
//! - **Converged**: by the last read of each replica after the quiet began, all hold the same of every key, and it *lacks* nothing: each
//!   acknowledged write is in it, or superseded by it. A register's value supersedes every write that was not called after the
//!   value's own write had returned; one of unknown outcome supersedes everything.
//! - **Diverged for good**: two replicas were seen to stand still on different values at the same time, for as long as
//!   [`Options::stand_still_ns`] asks, all of it in the quiet; or one stood still so long on a value that lacks an acknowledged write.
//!   Eventual consistency has no deadline (Vogels, CACM 52(1), 2009): what "for good" means is for the caller to say.
//! - Otherwise they are **still converging**, and nobody knows.
//!
//! A value that nobody wrote, or that only writes left that failed or came later, is wrong wherever it is read. Whatever is
//! not known for certain never makes a history invalid.
//!
//! Staleness is after Bailis et al., *Probabilistically bounded staleness for practical partial quorums* (VLDB 2012, section 3), as it
//! can be seen from outside: a read is stale by t if what it found had certainly been overwritten t before it was called (in this
//! sense the largest t is the least Δ for which reads are Δ-atomic: Golab, Li, Shah, PODC 2011, which their Γ of ICDCS 2014 refines), and by k if
//! k acknowledged writes were certainly newer. Collections are judged as Jepsen's `set-full` does, replica by replica.

mod distribution;
mod divergence;
mod end;
mod evidence;
#[cfg(test)]
mod oracle;
mod stats;
#[cfg(test)]
mod tests;
mod versions;
mod words;

use rustc_hash::FxHashSet;
use serde_json::json;

pub use self::evidence::HEALED;
use self::{
    end::{End, Stand},
    evidence::{Evidence, Fate, Register, gather},
    words::Findings,
};
use crate::{Budget, Checker, History, Operations, Validity, Verdict};

/// The name of the checker.
pub(crate) const NAME: &str = "convergence";

/// What is asked of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long replicas must have stood still, and differed, to have diverged for good; in ns. At least as long as the system
    /// may rest between two attempts to repair itself.
    pub stand_still_ns: u64,
}

impl Default for Options {
    /// Ten seconds.
    fn default() -> Self {
        Options { stand_still_ns: 10_000_000_000 }
    }
}

/// Judges registers (write, compare-and-set, delete) and collections that grow (add, append). O(n log n) for registers; for
/// collections O(total size of the reads) and what each read lacks.
pub fn convergence(options: Options) -> impl Checker {
    Convergence(options)
}

struct Convergence(Options);

impl Checker for Convergence {
    fn name(&self) -> &str {
        NAME
    }

    fn check(&self, history: &History, budget: &Budget) -> Verdict {
        match history.paired() {
            Err(error) => Verdict::unknown(NAME, format!("the history is malformed: {error}")),
            Ok(operations) => judge(self.0, history, operations, budget),
        }
    }
}

/// A key with what each replica came to hold of it.
type Final<'a> = (&'a Register, Vec<Option<Stand>>);

fn judge(options: Options, history: &History, operations: Operations<'_>, budget: &Budget) -> Verdict {
    let evidence = gather(history, operations);
    let mut findings = Findings::new(operations, &evidence);
    for key in &evidence.keys {
        let mut told = FxHashSet::default();
        for read in &key.reads {
            if budget.is_cancelled() {
                return cancelled();
            }
            let foreign = key.versions.foreign(read).filter(|foreign| told.insert(foreign.clone()));
            if let Some(foreign) = foreign {
                findings.foreign(key, read, &foreign);
            }
        }
    }
    let since = evidence.quiet.since();
    let nodes = evidence.nodes.len();
    // Without a quiet there is no end.
    let finals: Vec<Final<'_>> = evidence
        .keys
        .iter()
        .map(|key| (key, end::stands(&key.reads, nodes, since.unwrap_or(u64::MAX))))
        .collect();
    let enough = evidence.quiet.healed.map(|_| options.stand_still_ns);
    for (key, stands) in &finals {
        if budget.is_cancelled() {
            return cancelled();
        }
        match end::end(&key.versions, stands, enough) {
            End::Agreed => {}
            End::Diverged(a, b, lasted) => findings.diverged(key, stands, (a, b, lasted)),
            End::Lost(stand, write) => findings.lost(key, stands, stand, write),
            End::Open => findings.open(key, stands),
        }
    }
    let doubts = doubts(&evidence, &finals);
    let outcome = match (findings.is_guilty(), findings.is_open(), doubts.is_empty()) {
        (true, ..) => "diverged",
        (false, true, _) => "converging",
        (false, false, true) => "converged",
        (false, false, false) => "untested",
    };
    let mut verdict = findings.verdict(doubts);
    match stats::stats(&evidence, &finals, since, budget) {
        Some(stats) => verdict.stats = stats,
        // What was found stands; a pass without a look at everything does not.
        None if verdict.validity != Validity::Invalid => return cancelled(),
        None => {}
    }
    let converged = match outcome {
        "converged" => stats::converged(&finals, nodes, since.unwrap_or(0), evidence.quiet.healed),
        _ => serde_json::Value::Null,
    };
    verdict.stats.insert("converged".into(), converged);
    verdict.stats.insert("outcome".into(), outcome.into());
    verdict.stats.insert("stand_still_ns".into(), json!(options.stand_still_ns));
    debug_assert_eq!(verdict.validity == Validity::Valid, outcome == "converged");
    verdict
}

fn cancelled() -> Verdict {
    Verdict::unknown(NAME, "cancelled")
}

/// Why a pass would mean nothing.
fn doubts(evidence: &Evidence, finals: &[Final<'_>]) -> Vec<String> {
    let mut doubts = Vec::new();
    if evidence.reads().next().is_none() {
        let unnamed = match evidence.nameless {
            0 => String::new(),
            n => format!(": {n} stale reads do not say which node answered"),
        };
        return vec![format!("no replica was read{unnamed}")];
    }
    if !evidence.keys.iter().any(|key| key.versions.is_written()) {
        doubts.push("no write was acknowledged: there was nothing to come to".to_owned());
    }
    if evidence.nodes.len() < 2 {
        doubts.push("there is only one replica".to_owned());
    }
    doubts
        .extend(evidence.beyond.iter().take(words::MAX_NAMED).map(|(key, why)| format!("key {key}: {why}")));
    let Some(since) = evidence.quiet.since() else {
        doubts.push("writing had not stopped: a write was still open when the history ended".to_owned());
        return doubts;
    };
    let answered: Vec<bool> = (0..evidence.nodes.len())
        .map(|node| finals.iter().any(|(_, stands)| stands[node].is_some()))
        .collect();
    if !answered.contains(&true) {
        doubts.push(format!("no replica answered after {}, when everything was quiet", words::at(since)));
        return doubts;
    }
    for (node, _) in answered.iter().enumerate().filter(|(_, answered)| !**answered) {
        let silences = || evidence.silences.iter().filter(|s| s.node == node && s.call > since);
        let name = &evidence.nodes[node];
        doubts.push(match silences().next_back() {
            None => format!("{name} was not read after {}, when everything was quiet", words::at(since)),
            Some(last) => format!(
                "{name} did not answer in the end ({} reads; the last: {})",
                silences().count(),
                last.why
            ),
        });
    }
    let mut unread = Vec::new();
    for (key, stands) in finals {
        let exists = !key.reads.is_empty() || key.versions.writes.iter().any(|w| w.fate != Fate::Never);
        let missing = stands.iter().enumerate().filter(|(node, stand)| stand.is_none() && answered[*node]);
        let missing: Vec<&str> = missing.map(|(node, _)| &*evidence.nodes[node]).collect();
        if exists && !missing.is_empty() {
            unread.push(format!("key {} was not read in the end at {}", key.key, missing.join(" ")));
        }
    }
    let more = unread.len().saturating_sub(words::MAX_NAMED);
    unread.truncate(words::MAX_NAMED);
    doubts.append(&mut unread);
    if more > 0 {
        doubts.push(format!("nor were {more} other keys"));
    }
    doubts
}
