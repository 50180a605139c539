//! Do transactions look as if each happened at once, and how strictly? What Elle does, for lists and registers.
//!
//! ```text
//! T1  [append x 1; r y -> []]      T1 < T2: it did not observe T2's append to y
//! T2  [append y 1; r x -> []]      T2 < T1: it did not observe T1's append to x        G2-item: write skew
//!
//! Transactions ─ by key ─> order of versions ─> dependencies ─> components ─> shortest cycles ─> Verdict
//! ```
//!
//! Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020); anomalies and
//! levels after Adya's thesis (MIT, 1999). Every anomaly is looked for; the consistency model only decides which of them
//! make the verdict `Invalid`, the others are told in `stats.findings`. G2 has no name of its own here: its part without
//! predicates is G2-item.
//!
//! What is judged: reads of committed transactions. What failed did not happen; what nobody knows the outcome of counts
//! if it was seen. Sound, as Elle is: an anomaly that is reported is in every history that agrees with what was seen (for
//! registers: if the assumptions on keys hold). Not complete: what was never read says nothing.
//!
//! Linear in micro-operations, elements read and dependencies until something is found; then the search in a component is
//! bounded by counted steps. Deliberately no solver: where an order is not told by the history, none is guessed.

mod components;
mod cycles;
mod explain;
mod findings;
mod graph;
mod input;
mod judge;
mod keys;
mod list_append;
mod models;
mod reasons;
mod rw_register;
pub(crate) mod scc;
mod search;
mod verdict;
mod words;
mod writers;

#[cfg(test)]
mod tests;

pub use self::{
    graph::EdgeKind,
    input::{Builder, Datatype, Transactions, TxnOutcome},
    models::{
        Boundary, CONSISTENCY_MODELS, ConsistencyModel, ModelEntry, PHENOMENA, Phenomenon, PhenomenonEntry,
    },
    rw_register::KeyAssumptions,
};
use crate::{Budget, Checker, History, Verdict};

/// What to judge by.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The model that the system claims.
    pub consistency_model: ConsistencyModel,
    /// For registers: what may be assumed of each key.
    pub keys: KeyAssumptions,
}

impl Options {
    /// By this model, and nothing assumed of single keys.
    pub fn new(consistency_model: ConsistencyModel) -> Self {
        Options { consistency_model, keys: KeyAssumptions::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new(ConsistencyModel::strict_serializable())
    }
}

pub(crate) const LIST_APPEND: &str = "list-append";
pub(crate) const RW_REGISTER: &str = "rw-register";

/// Judges transactions that append to lists and read them.
pub fn list_append(options: Options) -> TransactionChecker {
    TransactionChecker { datatype: Datatype::ListAppend, options }
}

/// Judges transactions that overwrite registers and read them. Written values should be distinct, and not nil.
pub fn rw_register(options: Options) -> TransactionChecker {
    TransactionChecker { datatype: Datatype::RwRegister, options }
}

/// One of the two checkers.
#[derive(Clone, Copy, Debug)]
pub struct TransactionChecker {
    datatype: Datatype,
    options: Options,
}

/// Bytes that the search needs for each transaction and each micro-operation, about.
const BYTES: (u64, u64) = (96, 56);

impl TransactionChecker {
    /// Judges what is loaded already. It must have been loaded for this checker's datatype.
    pub fn judge(&self, txns: &Transactions, budget: &Budget) -> Verdict {
        let name = self.name();
        if txns.datatype != self.datatype {
            return Verdict::unknown(name, "the transactions were loaded for another datatype");
        }
        let needed = txns.len() as u64 * BYTES.0 + txns.mops.len() as u64 * BYTES.1;
        if needed > budget.bytes() {
            return Verdict::unknown(name, format!("it needs about {} MB of memory", needed >> 20));
        }
        let found = judge::judge(txns, &self.options, budget);
        verdict::verdict(name, txns, &self.options, found)
    }
}

impl Checker for TransactionChecker {
    fn name(&self) -> &str {
        match self.datatype {
            Datatype::ListAppend => LIST_APPEND,
            Datatype::RwRegister => RW_REGISTER,
        }
    }

    fn check(&self, history: &History, budget: &Budget) -> Verdict {
        match Transactions::of_history(history, self.datatype) {
            Ok(txns) => self.judge(&txns, budget),
            Err(reason) => Verdict::unknown(self.name(), reason),
        }
    }
}
