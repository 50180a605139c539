//! How many of each crash class have taken effect, as small numbers.
//!
//! ```text
//! 0: {}    1: {w 5: 1}    2: {w 5: 1, cas 5->6: 1}        at_most(1, 2)
//! ```
//!
//! Few of the crashed operations are ever used at once, so only those are listed. Deliberately append-only.

use rustc_hash::FxHashMap;

/// The number of a table of counts.
pub(super) type UsageId = u32;

/// None has taken effect.
pub(super) const NONE_USED: UsageId = 0;

/// Crash class and count, by class; no zeros.
type Counts = Box<[(u32, u32)]>;

pub(super) struct Usage {
    tables: Vec<Counts>,
    ids: FxHashMap<Counts, UsageId>,
    grown: FxHashMap<(UsageId, u32), UsageId>,
    heap_bytes: u64,
}

impl Usage {
    pub(super) fn new() -> Self {
        let mut ids = FxHashMap::default();
        ids.insert(Counts::default(), NONE_USED);
        Usage { tables: vec![Counts::default()], ids, grown: FxHashMap::default(), heap_bytes: 0 }
    }

    /// How many have taken effect of every class of which some have.
    pub(super) fn counts(&self, used: UsageId) -> &[(u32, u32)] {
        &self.tables[used as usize]
    }

    /// How many tables there are.
    pub(super) fn len(&self) -> usize {
        self.tables.len()
    }

    /// How many of the class have taken effect.
    pub(super) fn count(&self, used: UsageId, crash: u32) -> u32 {
        self.tables[used as usize].iter().find(|(class, _)| *class == crash).map_or(0, |(_, count)| *count)
    }

    /// The same and one more of the class.
    pub(super) fn one_more(&mut self, used: UsageId, crash: u32) -> UsageId {
        if let Some(grown) = self.grown.get(&(used, crash)) {
            return *grown;
        }
        let mut counts = self.tables[used as usize].to_vec();
        match counts.binary_search_by_key(&crash, |(class, _)| *class) {
            Ok(at) => counts[at].1 += 1,
            Err(at) => counts.insert(at, (crash, 1)),
        }
        let counts = counts.into_boxed_slice();
        let next = self.tables.len() as UsageId;
        let grown = match self.ids.get(&counts) {
            Some(known) => *known,
            None => {
                // Twice: in the list and in the map.
                self.heap_bytes += 2 * size_of_val(&*counts) as u64 + 40;
                self.tables.push(counts.clone());
                self.ids.insert(counts, next);
                next
            }
        };
        self.grown.insert((used, crash), grown);
        grown
    }

    /// Whether `a` has used up no more of any class than `b`.
    pub(super) fn at_most(&self, a: UsageId, b: UsageId) -> bool {
        if a == b || a == NONE_USED {
            return true;
        }
        let mut b = self.tables[b as usize].iter();
        self.tables[a as usize]
            .iter()
            .all(|(class, count)| b.any(|(other, have)| other == class && have >= count))
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.heap_bytes + self.grown.capacity() as u64 * 13
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_compares() {
        let mut usage = Usage::new();
        let five = usage.one_more(NONE_USED, 5);
        let five_seven = usage.one_more(five, 7);
        let seven = usage.one_more(NONE_USED, 7);
        assert_eq!(usage.one_more(seven, 5), five_seven);
        let five_twice = usage.one_more(five, 5);
        assert_eq!((usage.count(five_twice, 5), usage.count(five_twice, 7)), (2, 0));
        for (a, b, expected) in [
            (NONE_USED, five, true),
            (five, NONE_USED, false),
            (five, five_seven, true),
            (seven, five_seven, true),
            (five, seven, false),
            (five_twice, five_seven, false),
            (five_seven, five_twice, false),
            (five_twice, five_twice, true),
        ] {
            assert_eq!(usage.at_most(a, b), expected, "{a} {b}");
        }
    }
}
