//! Histories, and the judges of histories.
//!
//! ```text
//!   jsonl::read ──> History ── operations() ──> [Operation] ──> Checker::check ──> Verdict
//!                   (events)                    (closed          (a Model says       (data, words,
//!                                                intervals)       what is right)      a picture)
//! ```
//!
//! Deliberately pure: no async, no files, no clock, no randomness. A history goes in, a verdict comes out, the same one
//! every time; how long a judge may think is decided outside, through a [`Budget`].

pub mod bench;
mod budget;
pub mod convergence;
mod history;
mod linearizability;
mod model;
pub mod node_state;
pub mod performance;
mod sequential;
pub mod transactions;
mod verdict;

pub use budget::Budget;
pub use history::{
    Cut, Event, Events, Header, History, HistoryError, Key, Kind, Meta, Mop, Op, OpOutcome, Operation,
    Operations, Problem, Process, ReadMode, Ret, Value, edn, formats, json, jsonl, timeline,
};
pub use linearizability::{
    linearizable, linearizable_by, linearizable_from,
    online::{MAX_KEYS as MAX_ONLINE_KEYS, Online, online},
};
pub use model::{Effect, Model, ModelName, RegisterLike, Special, models};
pub use sequential::{SequentialOptions, StillHolds, sequential, still_holds};
pub use verdict::{Anomaly, Validity, Verdict};

/// A judge: decides one property of a history.
pub trait Checker: Send + Sync {
    /// A short name, as in `results.json` and on the command line.
    fn name(&self) -> &str;

    /// Judges. Never panics on a malformed history and never guesses: what cannot be decided within the budget is
    /// [`Validity::Unknown`], with the reason.
    fn check(&self, history: &History, budget: &Budget) -> Verdict;
}

/// The checkers of this crate: name and one line each.
pub fn checkers() -> &'static [(&'static str, &'static str)] {
    const OWN: [(&str, &str); 5] = [
        (
            linearizability::NAME,
            "each operation seems to take effect at one instant between its call and its return",
        ),
        (
            sequential::NAME,
            "one order fits what each process did and every read of a register, whatever the time",
        ),
        (transactions::LIST_APPEND, "transactions that append to lists keep their consistency model"),
        (transactions::RW_REGISTER, "transactions that overwrite registers keep their consistency model"),
        (
            convergence::NAME,
            "replicas that are left alone come to the same state, and nothing acknowledged is missing",
        ),
    ];
    const ALL: [(&str, &str); OWN.len() + bench::BENCH.len()] = {
        let mut all = [OWN[0]; OWN.len() + bench::BENCH.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = if at < OWN.len() { OWN[at] } else { bench::BENCH[at - OWN.len()] };
            at += 1;
        }
        all
    };
    &ALL
}
