//! What still holds of a history that is not linearizable.
//!
//! ```text
//! not linearizable, but still sequentially consistent
//! not even sequentially consistent; still: read-your-writes; broken: monotonic-reads, causal
//! ```

use serde::Serialize;

use super::{SequentialOptions, sequential};
use crate::{
    Budget, Checker, History, Validity, Value,
    bench::{Guarantee, SessionOptions, session_holds},
};

/// Weaker guarantees, and whether the history keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StillHolds {
    /// Sequential consistency, of the reads that claim linearizability.
    pub sequential: Validity,
    /// Each session guarantee by its name, in the order of [`Guarantee::ALL`]. Unknown if nothing could have shown it.
    pub sessions: Vec<(&'static str, Validity)>,
    /// The same in words.
    pub words: String,
}

/// How much a judge may do for a remark, and how long a history may be.
const STEPS: u64 = 2_000_000;
const OPERATIONS: usize = 300_000;

/// Judges the weaker guarantees, with few steps.
pub fn still_holds(history: &History, initial: Value, budget: &Budget) -> StillHolds {
    if history.paired().is_ok_and(|operations| operations.len() > OPERATIONS) {
        let words =
            format!("what weaker guarantees it keeps is not looked at beyond {OPERATIONS} operations");
        return StillHolds { sequential: Validity::Unknown, sessions: Vec::new(), words };
    }
    let options = SequentialOptions { initial, stale_reads: false, max_steps: STEPS };
    let sequential = sequential(options).check(history, budget).validity;
    let sessions: Vec<(&str, Validity)> = match history.paired() {
        Ok(operations) => Guarantee::ALL
            .into_iter()
            .map(|guarantee| {
                let holds = session_holds(guarantee, operations, SessionOptions::default());
                (guarantee.name(), holds)
            })
            .collect(),
        Err(_) => Vec::new(),
    };
    let named = |wanted: Validity| -> Option<String> {
        let names = sessions.iter().filter(|(_, validity)| *validity == wanted).map(|(name, _)| *name);
        let names: Vec<&str> = names.collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let mut words = match sequential {
        Validity::Valid => "it is still sequentially consistent".to_owned(),
        Validity::Unknown => "whether it is still sequentially consistent was not decided".to_owned(),
        Validity::Invalid => "it is not even sequentially consistent".to_owned(),
    };
    if let Some(names) = named(Validity::Valid) {
        words += &format!("; still kept: {names}");
    }
    if let Some(names) = named(Validity::Invalid) {
        words += &format!("; broken: {names}");
    }
    StillHolds { sequential, sessions, words }
}
