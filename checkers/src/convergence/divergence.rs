//! On how many keys replicas differed, over time.
//!
//! ```text
//! n1  ──[7]─────[7]──────[7]──[9]──      held 7 from the return of the first read to the call of the third
//! n2  ───────[8]──────[8]──────────      held 8 at some moment within its first read, while n1 held 7: certainly divergent
//! ```
//!
//! Only what is certain is counted: samples of two replicas are never taken at the same moment, and what changed in between is
//! no divergence. A replica holds a value between two reads of it that follow each other (values are written once; for
//! those that are written again this is a guess). Deliberately no verdict.

use super::evidence::{Read, Register};
use crate::{Budget, Value};

/// The most buckets that time is cut into.
const MOST: u64 = 600;
/// Buckets are a multiple of this, in ns.
const STEP: u64 = 100_000_000;

/// How many keys were certainly divergent at some moment of each bucket; the first begins with the run's clock.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OverTime {
    pub(super) bucket_ns: u64,
    pub(super) keys: Vec<u64>,
}

/// A value that a replica held for a while.
struct Hold<'a> {
    value: &'a Value,
    from: u64,
    to: u64,
}

/// `None` if the budget did not suffice.
pub(super) fn over_time(keys: &[Register], nodes: usize, budget: &Budget) -> Option<OverTime> {
    let end = keys.iter().flat_map(|key| &key.reads).map(|read| read.ret).max();
    let Some(end) = end else { return Some(OverTime { bucket_ns: STEP, keys: vec![] }) };
    let bucket_ns = end.div_ceil(MOST).div_ceil(STEP).max(1) * STEP;
    let buckets = (end / bucket_ns) as usize + 1;
    let mut counts = vec![0; buckets];
    for key in keys {
        let divergent = divergent(&key.reads, nodes, (bucket_ns, buckets), budget)?;
        for (count, divergent) in counts.iter_mut().zip(divergent) {
            *count += u64::from(divergent);
        }
    }
    Some(OverTime { bucket_ns, keys: counts })
}

fn divergent(
    reads: &[Read],
    nodes: usize,
    (bucket_ns, buckets): (u64, usize),
    budget: &Budget,
) -> Option<Vec<bool>> {
    let mut marks = vec![false; buckets];
    let mut mark = |from: u64, to: u64| {
        let (from, to) = ((from / bucket_ns) as usize, (to / bucket_ns) as usize);
        marks[from..=to.min(buckets - 1)].fill(true);
    };
    let holds = holds(reads, nodes);
    for read in reads {
        if budget.is_cancelled() {
            return None;
        }
        for (_, others) in holds.iter().enumerate().filter(|(node, _)| *node != read.node) {
            let at = others.partition_point(|hold| hold.to < read.ret);
            if others.get(at).is_some_and(|hold| hold.from <= read.call && *hold.value != read.value) {
                mark(read.ret, read.ret);
            }
        }
    }
    for (i, one) in holds.iter().enumerate() {
        if budget.is_cancelled() {
            return None;
        }
        for other in &holds[i + 1..] {
            let (mut a, mut b) = (0, 0);
            while let (Some(x), Some(y)) = (one.get(a), other.get(b)) {
                let (from, to) = (x.from.max(y.from), x.to.min(y.to));
                if from <= to && x.value != y.value {
                    mark(from, to);
                }
                if x.to <= y.to { a += 1 } else { b += 1 }
            }
        }
    }
    Some(marks)
}

/// What each replica held between reads, in order. Reads are in the order of their calls.
fn holds(reads: &[Read], nodes: usize) -> Vec<Vec<Hold<'_>>> {
    let mut all: Vec<Vec<Hold<'_>>> = (0..nodes).map(|_| vec![]).collect();
    for read in reads {
        let holds = &mut all[read.node];
        match holds.last_mut() {
            Some(hold) if *hold.value == read.value => {
                hold.from = hold.from.min(read.ret);
                hold.to = read.call;
            }
            _ => holds.push(Hold { value: &read.value, from: read.ret, to: read.call }),
        }
    }
    for holds in &mut all {
        holds.retain(|hold| hold.from <= hold.to);
    }
    all
}
