//! Small words: names for transactions, times, and values that do not fill a page.
//!
//! ```text
//! T1, T2      the transactions of one explanation        operation 17    any other
//! [1 2 3 … 98 99]                                        12.5 ms
//! ```
//!
//! Deliberately no sentences.

use std::fmt::Write;

use rustc_hash::FxHashMap;

use super::input::Transactions;
use crate::Value;

/// The most characters of a value that are shown.
const MOST_CHARS: usize = 64;
/// The most elements of a list that are shown, at its start and at its end.
const ENDS: (usize, usize) = (8, 8);

/// Names of the transactions in one explanation.
pub(super) struct Namer<'a> {
    txns: &'a Transactions,
    places: FxHashMap<u32, usize>,
}

impl<'a> Namer<'a> {
    /// T1, T2, … in this order.
    pub(super) fn new(txns: &'a Transactions, named: &[u32]) -> Self {
        Namer { txns, places: named.iter().enumerate().map(|(place, txn)| (*txn, place)).collect() }
    }

    pub(super) fn of(&self, txn: u32) -> String {
        match self.places.get(&txn) {
            Some(place) => format!("T{}", place + 1),
            None => format!("operation {}", self.txns.operation[txn as usize]),
        }
    }
}

/// A value, shortened.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A list of values, shortened in the middle: what matters is usually at its end.
pub(super) fn list(txns: &Transactions, elements: &[u32]) -> String {
    let mut text = String::from("[");
    let skipped = elements.len() > ENDS.0 + ENDS.1 + 1;
    for (i, element) in elements.iter().enumerate() {
        if skipped && i >= ENDS.0 && i < elements.len() - ENDS.1 {
            if i == ENDS.0 {
                text.push_str(" …");
            }
            continue;
        }
        if i > 0 {
            text.push(' ');
        }
        let _ = write!(text, "{}", short(&txns.values[*element as usize]));
    }
    text.push(']');
    text
}

/// Nanoseconds for people.
pub(super) fn ms(ns: u64) -> String {
    if ns < 1000 { format!("{ns} ns") } else { format!("{:.3} ms", ns as f64 / 1e6) }
}
