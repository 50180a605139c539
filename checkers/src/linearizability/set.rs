//! Sets that only grow and are read as a whole, in the time that it takes to look at every read once.
//!
//! ```text
//! read -> [1]   read -> [1 2]        the reads are a chain: each has all that the smaller ones have
//! add 2              |----|          and 2 came between the two
//! ```
//!
//! If every element is added once and nothing is removed, each read tells how far the set had grown, and the reads can only come in
//! the order of their sizes. So the operations fall into stages: what is new in the first read, the reads that saw just
//! this, what is new in the next, and so on, and last what no read has seen. A history is linearizable if and only if the reads
//! are such a chain and no operation returns before one of an earlier stage is called: then each stage can be placed at the
//! latest call so far. (That a weak order extends an interval order under just this condition is Fishburn, *Interval orders
//! and interval graphs*, 1985, chapter 2.)
//!
//! **Unknown outcomes**: an add whose element no read has seen need not have happened. Deliberately says "not for me" to removals,
//! to questions about single elements, and to elements that are added twice.

use rustc_hash::FxHashMap;

use super::{record::Records, register::Answer};
use crate::history::{
    datum::{Datum, Values},
    events::{F, Told},
    operations::End,
};

const NONE: u32 = u32::MAX;
/// The most operations that are evidence by themselves.
const MAX_EVIDENCE: usize = 2_000;

struct Add {
    id: u32,
    call: u64,
    ret: u64,
    /// Whether a read has seen it.
    seen: bool,
    /// The last read that was looked at and had it.
    read: u32,
}

struct Read {
    id: u32,
    call: u64,
    ret: u64,
    list: Datum,
    size: usize,
}

struct Set<'a> {
    values: &'a Values,
    adds: FxHashMap<Datum, Add>,
    reads: Vec<Read>,
}

/// Decides a set that is empty at first, with these judged operations.
pub(super) fn decide(records: &Records<'_>) -> Answer {
    let mut set = Set { values: records.values(), adds: FxHashMap::default(), reads: Vec::new() };
    let read = records.try_each(|record| {
        let (id, call, ret) = (record.id, record.call, record.ret);
        match (record.f, record.end, record.told()) {
            (F::Add, ..) => {
                let add = Add { id, call, ret, seen: false, read: NONE };
                if set.adds.insert(record.a, add).is_some() {
                    return Err(());
                }
            }
            (F::Read, End::Ok, Told::Value(list)) => {
                let size = match set.values.elements(list) {
                    Some(elements) => elements.len(),
                    None if list == Datum::NIL => 0,
                    None => return Err(()),
                };
                set.reads.push(Read { id, call, ret, list, size });
            }
            _ => return Err(()),
        }
        Ok(())
    });
    if read.is_err() {
        return Answer::NotForMe;
    }
    set.reads.sort_by_key(|read| read.size);
    let reads = std::mem::take(&mut set.reads);
    match set.judge(&reads) {
        Ok(dropped) => Answer::Valid(dropped),
        Err((mut guilty, element)) => {
            let guilty_reads = reads.iter().filter(|read| guilty.contains(&read.id));
            if guilty_reads.map(|read| read.size).sum::<usize>() <= MAX_EVIDENCE {
                return Answer::Invalid(set.evidence(&reads, &guilty));
            }
            guilty.extend(set.adds.get(&element).map(|add| add.id));
            guilty.retain(|id| *id != NONE);
            guilty.sort_unstable();
            guilty.dedup();
            Answer::Huge(guilty, element)
        }
    }
}

impl Set<'_> {
    /// Gives how many adds were left out, or the operations that cannot be and an element that shows it.
    fn judge(&mut self, reads: &[Read]) -> Result<usize, (Vec<u32>, Datum)> {
        // The latest call of the stages so far, whose it is, a read of its stage, and an element of it.
        let mut latest = (0, NONE, NONE, Datum::NIL);
        let mut known = 0;
        let mut before = NONE;
        for stage in reads.chunk_by(|one, next| one.size == next.size) {
            let mut called = latest;
            for read in stage {
                let elements = self.values.elements(read.list).unwrap_or_default();
                for element in elements {
                    let Some(add) = self.adds.get_mut(element) else {
                        return Err((vec![read.id], *element));
                    };
                    if std::mem::replace(&mut add.read, read.id) == read.id {
                        // It has an element twice.
                        return Err((vec![read.id], *element));
                    }
                    if !std::mem::replace(&mut add.seen, true) {
                        known += 1;
                        if add.ret < latest.0 {
                            return Err((vec![add.id, latest.1, latest.2, read.id], *element));
                        }
                        called = called.max((add.call, add.id, read.id, *element));
                    }
                }
                // All of it is known; so something is missing that a smaller or an equal read has seen.
                if known != read.size {
                    let missing = self.adds.iter().filter(|(_, add)| add.seen && add.read != read.id);
                    let missing = missing.map(|(element, _)| *element).min();
                    return Err((vec![before, read.id], missing.unwrap_or(Datum::NIL)));
                }
                before = read.id;
            }
            for read in stage {
                if read.ret < called.0 {
                    return Err((vec![read.id, called.1], called.3));
                }
            }
            latest =
                stage.iter().fold(called, |latest, read| latest.max((read.call, read.id, read.id, called.3)));
        }
        let unseen = self.adds.iter().filter(|(_, add)| !add.seen);
        // The one that returned first, so that it is the same one every time.
        match unseen.clone().map(|(element, add)| (add.ret, add.id, *element)).min() {
            Some((ret, id, element)) if ret < latest.0 => Err((vec![id, latest.1, latest.2], element)),
            _ => Ok(unseen.filter(|(_, add)| add.ret == u64::MAX).count()),
        }
    }

    /// The operations with all adds that their reads saw: without the other reads, and without the adds that these reads did
    /// not see, a linearization would still be one.
    fn evidence(&self, reads: &[Read], guilty: &[u32]) -> Vec<u32> {
        let mut evidence: Vec<u32> = guilty.iter().copied().filter(|id| *id != NONE).collect();
        for read in reads.iter().filter(|read| guilty.contains(&read.id)) {
            let elements = self.values.elements(read.list).unwrap_or_default();
            evidence.extend(elements.iter().filter_map(|element| self.adds.get(element)).map(|add| add.id));
        }
        evidence.sort_unstable();
        evidence.dedup();
        evidence
    }
}
