//! Anomalies that need no cycle: one or two transactions and one value show them.
//!
//! ```text
//! G1a   T2 read 3 of key 5, which T1 wrote; T1 failed
//! ```
//!
//! All are counted, the first few of each kind are kept. Deliberately without words: see `explain`.

use super::models::Phenomenon;

/// How many of each kind are kept; the others are only counted.
pub(super) const KEPT: usize = 100;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Phenomenon,
    pub(super) key: u32,
    /// Who shows it; what each has to do with it depends on the kind.
    pub(super) txns: Vec<u32>,
    /// The values in question, as numbers.
    pub(super) values: Vec<u32>,
    /// The reads in question.
    pub(super) mops: Vec<u32>,
    /// How many more transactions show the same.
    pub(super) more: usize,
}

impl Finding {
    pub(super) fn new(kind: Phenomenon, key: u32, txns: &[u32]) -> Self {
        Finding { kind, key, txns: txns.to_vec(), values: Vec::new(), mops: Vec::new(), more: 0 }
    }

    pub(super) fn value(mut self, value: u32) -> Self {
        self.values.push(value);
        self
    }

    pub(super) fn mop(mut self, mop: u32) -> Self {
        self.mops.push(mop);
        self
    }

    pub(super) fn more(mut self, more: usize) -> Self {
        self.more = more;
        self
    }
}

/// The first of each kind, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) kept: Vec<Finding>,
    counts: Vec<(Phenomenon, usize)>,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        if self.count(finding.kind, 1) <= KEPT {
            self.kept.push(finding);
        }
    }

    /// Counts some more of a kind and says how many there are now.
    fn count(&mut self, kind: Phenomenon, more: usize) -> usize {
        match self.counts.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, count)) => {
                *count += more;
                *count
            }
            None => {
                self.counts.push((kind, more));
                more
            }
        }
    }

    /// Takes over those of later keys.
    pub(super) fn append(&mut self, later: Findings) {
        let mut room: Vec<(Phenomenon, usize)> = later
            .counts
            .iter()
            .map(|&(kind, more)| (kind, KEPT.saturating_sub(self.count(kind, more) - more)))
            .collect();
        self.kept.extend(later.kept.into_iter().filter(|finding| {
            let place = room.iter_mut().find(|(kind, _)| *kind == finding.kind);
            place.is_some_and(|(_, room)| std::mem::replace(room, room.saturating_sub(1)) > 0)
        }));
    }

    /// How many there are of each kind.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Phenomenon, usize)> {
        self.counts.iter().copied()
    }
}
