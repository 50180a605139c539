//! The learner: which values are chosen, applied strictly in the order of their slots.
//!
//! ```text
//! slot      1  2  3  4  5  6
//! chosen    x  x  x  ·  x  x      applied = 3: slot 4 is a hole, 5 and 6 wait for it
//! ```
//!
//! The hash of the applied prefix lets anyone compare replicas cheaply: equal `applied` must mean equal hashes. Entries up
//! to the *floor* are forgotten: a snapshot holds what they came to (see `snapshot`).

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::ballot::Slot;
use super::command::Entry;
use super::machine::{Applied, Machine};
use super::snapshot::Snapshot;
use crate::bugs::Hooks;

/// A slot was learned to have two values. Consensus is broken; a correct cluster never gets here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conflict;

/// What one replica knows and has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learner {
    chosen: BTreeMap<Slot, Arc<Entry>>,
    floor: Slot,
    applied: Slot,
    hash: u64,
    machine: Machine,
}

impl Learner {
    /// `slot` has `entry`. Returns whether that is news; what is below the floor never is.
    ///
    /// # Errors
    /// [`Conflict`] if another value was learned for it before; the first one stays.
    pub fn choose(&mut self, slot: Slot, entry: &Arc<Entry>) -> Result<bool, Conflict> {
        match self.chosen.get(&slot) {
            None if slot <= self.floor => Ok(false),
            None => {
                self.chosen.insert(slot, entry.clone());
                Ok(true)
            }
            Some(known) if known == entry => Ok(false),
            Some(_) => Err(Conflict),
        }
    }

    /// Applies the next entry, if it is known. `None` until the hole is filled.
    pub fn apply_next(&mut self, hooks: Hooks) -> Option<(Slot, Arc<Entry>, Option<Applied>)> {
        let next = self.applied + 1;
        let (slot, entry) = if hooks.waits_for_holes() {
            (next, self.chosen.get(&next)?.clone())
        } else {
            self.chosen.range(next..).next().map(|(slot, entry)| (*slot, entry.clone()))?
        };
        let applied = entry.command.as_ref().map(|command| self.machine.apply(slot, command, hooks));
        self.applied = slot;
        self.hash = chain(self.hash, slot, &entry);
        Some((slot, entry, applied))
    }

    /// Takes the state of a snapshot that is ahead, and forgets everything before it.
    pub fn install(&mut self, snapshot: &Snapshot) {
        self.applied = snapshot.slot;
        self.hash = snapshot.hash;
        self.machine = snapshot.machine.clone();
        self.forget(snapshot.slot);
    }

    /// Forgets the entries up to `floor`, which must be applied.
    pub fn forget(&mut self, floor: Slot) {
        self.floor = self.floor.max(floor.min(self.applied));
        self.chosen = self.chosen.split_off(&(self.floor + 1));
    }

    /// Gets back the entry right at the floor, which so goes down by one.
    pub fn remember(&mut self, entry: Arc<Entry>) {
        self.chosen.insert(self.floor, entry);
        self.floor -= 1;
    }

    /// All slots up to here are applied and their entries are forgotten.
    pub fn floor(&self) -> Slot {
        self.floor
    }

    /// The value of `slot`, if it is known to be chosen, and not forgotten.
    pub fn chosen(&self, slot: Slot) -> Option<&Arc<Entry>> {
        self.chosen.get(&slot)
    }

    /// Everything known to be chosen from `slot` on.
    pub fn chosen_from(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Arc<Entry>)> {
        self.chosen.range(slot..).map(|(slot, entry)| (*slot, entry))
    }

    /// The highest slot known to be chosen, 0 if none; there may be holes below.
    pub fn last_chosen(&self) -> Slot {
        self.chosen.last_key_value().map_or(self.applied, |(slot, _)| *slot)
    }

    /// All slots up to here are chosen and applied.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// Hash of the applied prefix.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The state.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// Hash of an entry: what tells its value from others of the same slot.
pub fn entry_hash(entry: &Entry) -> u64 {
    fnv(entry)
}

/// The next link of the prefix hash.
fn chain(before: u64, slot: Slot, entry: &Entry) -> u64 {
    fnv(&(before, slot, entry))
}

/// FNV-1a (Fowler, Noll, Vo), which needs no crate. The same on every machine, whatever its order of bytes and the size of its words: nodes compare
/// their hashes. (Not of slices of wider numbers, which nothing here holds; nor from one compiler to another that derives `Hash` differently; all nodes of a cluster are built alike.)
pub(super) fn fnv(what: &impl Hash) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        fn write_u16(&mut self, number: u16) {
            self.write(&number.to_le_bytes());
        }
        fn write_u32(&mut self, number: u32) {
            self.write(&number.to_le_bytes());
        }
        fn write_u64(&mut self, number: u64) {
            self.write(&number.to_le_bytes());
        }
        // Signed ones, which the default takes for unsigned ones of their size, with them.
        fn write_usize(&mut self, number: usize) {
            self.write_u64(number as u64);
        }
        fn write_isize(&mut self, number: isize) {
            self.write_u64(number as i64 as u64);
        }
    }
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    what.hash(&mut fnv);
    fnv.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bugs::Bug;
    use crate::core::EntryId;

    fn entry(n: u64) -> Arc<Entry> {
        Arc::new(Entry { id: EntryId { node: 1, epoch: 1, n }, command: None })
    }

    fn apply_all(learner: &mut Learner, hooks: Hooks) -> Vec<Slot> {
        std::iter::from_fn(|| learner.apply_next(hooks)).map(|(slot, ..)| slot).collect()
    }

    /// By hand: eight bytes for a length or a variant, four for a node, the lowest first.
    #[test]
    fn hashes_do_not_depend_on_the_machine() {
        let by_hand = |bytes: &[u8]| {
            bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            })
        };
        let bytes =
            [&[1, 0, 0, 0][..], &[1, 0, 0, 0, 0, 0, 0, 0], &[7, 0, 0, 0, 0, 0, 0, 0], &[0; 8]].concat();
        assert_eq!(fnv(&*entry(7)), by_hand(&bytes));
        assert_eq!(fnv(&-1_i64), by_hand(&[255; 8]));
    }

    #[test]
    fn nothing_is_applied_beyond_a_hole() {
        let mut learner = Learner::default();
        for slot in [1, 3, 4] {
            assert_eq!(learner.choose(slot, &entry(slot)), Ok(true));
        }
        assert_eq!(apply_all(&mut learner.clone(), Hooks::planted([Bug::ApplySkipsHoles])), [1, 3, 4]);
        assert_eq!(apply_all(&mut learner, Hooks::default()), [1]);
        learner.choose(2, &entry(2)).unwrap();
        assert_eq!(apply_all(&mut learner, Hooks::default()), [2, 3, 4]);
    }

    #[test]
    fn an_installed_snapshot_takes_the_place_of_what_it_covers_and_the_rest_goes_on() {
        let mut ahead = Learner::default();
        (1..=6).for_each(|slot| assert_eq!(ahead.choose(slot, &entry(slot)), Ok(true)));
        let at_four = |learner: &Learner| Snapshot {
            promised: Default::default(),
            slot: 4,
            hash: learner.hash,
            machine: learner.machine.clone(),
        };
        let mut snapshot = None;
        while let Some((slot, ..)) = ahead.apply_next(Hooks::default()) {
            if slot == 4 {
                snapshot = Some(at_four(&ahead));
            }
        }
        let mut behind = Learner::default();
        [1, 3, 5, 6].into_iter().for_each(|slot| assert_eq!(behind.choose(slot, &entry(slot)), Ok(true)));
        behind.install(&snapshot.unwrap());
        assert_eq!((behind.applied(), behind.floor(), behind.chosen(3)), (4, 4, None));
        assert_eq!(behind.choose(2, &entry(9)), Ok(false), "nobody can tell any more");
        assert_eq!(apply_all(&mut behind, Hooks::default()), [5, 6]);
        assert_eq!(behind.hash(), ahead.hash());
        ahead.forget(3);
        assert_eq!((ahead.floor(), ahead.chosen(3), ahead.chosen(4).is_some()), (3, None, true));
        ahead.remember(entry(3));
        assert_eq!((ahead.floor(), ahead.chosen(3)), (2, Some(&entry(3))));
    }

    #[test]
    fn two_values_for_one_slot_are_a_conflict() {
        let mut learner = Learner::default();
        learner.choose(1, &entry(1)).unwrap();
        assert_eq!(learner.choose(1, &entry(1)), Ok(false));
        assert_eq!(learner.choose(1, &entry(2)), Err(Conflict));
    }

    #[test]
    fn the_hash_depends_on_every_entry_before() {
        let of = |entries: &[u64]| {
            let mut learner = Learner::default();
            for (slot, n) in (1..).zip(entries) {
                learner.choose(slot, &entry(*n)).unwrap();
            }
            apply_all(&mut learner, Hooks::default());
            learner.hash()
        };
        assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3]));
        assert_ne!(of(&[1, 2, 3]), of(&[2, 1, 3]));
    }
}
