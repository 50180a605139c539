//! Micro-operations by key: what an inference works through, one key after the other, keys side by side.
//!
//! ```text
//! key 5   (T0, r) (T0, append) (T3, r) …      in the order of the transactions, within one in the order of the program
//! key 6   (T1, append) …
//! ```
//!
//! So all that one transaction does to one key is a run of neighbours, however long the transaction is. Deliberately no
//! inference.

use rayon::prelude::*;

use super::{
    findings::Findings,
    graph::Edge,
    input::{MopKind, Transactions},
};

/// A micro-operation and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) txn: u32,
    pub(super) mop: u32,
}

/// All micro-operations whose effect or answer can be known, by key.
pub(super) struct KeyIndex {
    first: Vec<u32>,
    entries: Vec<Entry>,
}

/// How many pieces the keys are cut into; more than there are cores, since pieces are not equally hard.
const PIECES: usize = 64;

impl KeyIndex {
    pub(super) fn new(txns: &Transactions) -> KeyIndex {
        let counts = |key: usize, kind: MopKind| kind != MopKind::Blind && !txns.mixed[key];
        let mut first = vec![0u32; txns.keys.len() + 1];
        for mop in &txns.mops {
            first[mop.key as usize + 1] += u32::from(counts(mop.key as usize, mop.kind));
        }
        for i in 0..txns.keys.len() {
            first[i + 1] += first[i];
        }
        let mut next = first.clone();
        let mut entries = vec![Entry { txn: 0, mop: 0 }; first[txns.keys.len()] as usize];
        for txn in 0..txns.len() as u32 {
            for mop in txns.first[txn as usize]..txns.first[txn as usize + 1] {
                let it = &txns.mops[mop as usize];
                if counts(it.key as usize, it.kind) {
                    let place = &mut next[it.key as usize];
                    entries[*place as usize] = Entry { txn, mop };
                    *place += 1;
                }
            }
        }
        KeyIndex { first, entries }
    }

    pub(super) fn of(&self, key: u32) -> &[Entry] {
        &self.entries[self.first[key as usize] as usize..self.first[key as usize + 1] as usize]
    }

    /// Ranges of keys with about equally many entries.
    fn pieces(&self) -> Vec<std::ops::Range<u32>> {
        let (keys, size) = (self.first.len() - 1, self.entries.len() / PIECES + 1);
        let (mut pieces, mut start) = (Vec::new(), 0);
        for key in 0..keys {
            if (self.first[key + 1] - self.first[start]) as usize >= size || key + 1 == keys {
                pieces.push(start as u32..key as u32 + 1);
                start = key + 1;
            }
        }
        pieces
    }

    /// Runs `each` over all keys, in parallel; the results of the pieces come in the order of the keys.
    pub(super) fn infer<S: Inference + Send>(&self, new: impl Fn() -> S + Sync) -> Vec<S> {
        self.pieces()
            .into_par_iter()
            .map(|keys| {
                let mut inference = new();
                for key in keys {
                    inference.key(key, self.of(key));
                }
                inference
            })
            .collect()
    }
}

/// What is learned of one key after the other.
pub(super) trait Inference {
    /// Learns all that the micro-operations of this key say.
    fn key(&mut self, key: u32, entries: &[Entry]);
}

/// The runs of entries that belong to one transaction each.
pub(super) fn runs(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    entries.chunk_by(|a, b| a.txn == b.txn)
}

/// What an inference hands on: edges, anomalies that need no cycle, and what could not be used.
#[derive(Default)]
pub(super) struct Learned {
    pub(super) edges: Vec<Edge>,
    pub(super) findings: Findings,
    /// A value that several transactions may have written, with its key: its reads say nothing.
    pub(super) ambiguous: Vec<(u32, u32)>,
    /// Keys of which not all edges were made, since they would be too many.
    pub(super) cut_keys: Vec<u32>,
}
