//! `Writers`: who wrote a value to a key.
//!
//! ```text
//! append 3 by T1 ok                     one writer, T1
//! append 3 by T1 fail, by T2 info       one writer, T2: what failed did not happen
//! append 3 by T1 ok,   by T2 info       ambiguous: a read of 3 says nothing
//! append 3 by T1 fail                   failed: a read of 3 is an aborted read
//! nobody                                garbage
//! ```
//!
//! Histories are recoverable, in Elle's word, because written values are distinct; where they are not, nothing is guessed.
//! One table serves all keys of a piece, emptied in between.

use rustc_hash::FxHashMap;

use super::input::TxnOutcome;

/// No transaction, no place.
pub(super) const NONE: u32 = u32::MAX;

/// What is known of a value's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This transaction wrote it, and committed or may have.
    Txn(u32),
    /// Only this one wrote it, and it failed.
    Failed(u32),
    /// Several may have.
    Ambiguous,
    /// Nobody did.
    Nobody,
}

impl Origin {
    /// The transaction, if it may have committed.
    pub(super) fn good(self) -> Option<u32> {
        match self {
            Origin::Txn(txn) => Some(txn),
            _ => None,
        }
    }
}

/// One value of the key at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) origin: Origin,
    /// The micro-operation that wrote it.
    pub(super) mop: u32,
    /// Whether the writer wrote nothing after it to the key.
    pub(super) last: bool,
    /// How many may have written it.
    pub(super) count: u32,
    /// For the inference: where it stands in the version order, or its number among the versions.
    pub(super) place: u32,
}

const GARBAGE: Writer = Writer { origin: Origin::Nobody, mop: NONE, last: true, count: 0, place: NONE };

/// Values of one key, by their number.
#[derive(Default)]
pub(super) struct Writers {
    by_value: FxHashMap<u32, Writer>,
}

impl Writers {
    pub(super) fn clear(&mut self) {
        self.by_value.clear();
    }

    pub(super) fn add(&mut self, value: u32, txn: u32, mop: u32, outcome: TxnOutcome, last: bool) {
        let writer = self.by_value.entry(value).or_insert(GARBAGE);
        if outcome == TxnOutcome::Fail {
            if writer.count == 0 {
                (writer.origin, writer.last) = (Origin::Failed(txn), last);
            }
            return;
        }
        writer.origin = if writer.count == 0 { Origin::Txn(txn) } else { Origin::Ambiguous };
        (writer.last, writer.mop) = (last, mop);
        writer.count += 1;
    }

    pub(super) fn of(&self, value: u32) -> Writer {
        self.by_value.get(&value).copied().unwrap_or(GARBAGE)
    }

    /// Sets the place of a value and returns what was known before.
    pub(super) fn place(&mut self, value: u32, place: u32) -> Writer {
        let writer = self.by_value.entry(value).or_insert(GARBAGE);
        let before = *writer;
        writer.place = place;
        before
    }

    /// A value that several may have written, if there is one; the smallest, so that it is always the same.
    pub(super) fn ambiguous(&self) -> Option<u32> {
        self.by_value.iter().filter(|(_, w)| w.origin == Origin::Ambiguous).map(|(value, _)| *value).min()
    }
}
