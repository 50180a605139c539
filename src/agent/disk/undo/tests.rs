//! The undo log against the simplest model there is: a file is a `Vec<u8>`, a sync is a copy of it.

use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Resize(usize),
    /// Begin a sync; it ends at a later `End`, well or not.
    Begin,
    End(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..6000, 0usize..2500).prop_map(|(at, count)| Step::Write(at, count)),
        2 => (0usize..8000).prop_map(Step::Resize),
        2 => Just(Step::Begin),
        2 => (0usize..3, any::<bool>()).prop_map(|(which, well)| Step::End(which, well)),
    ];
    prop::collection::vec(step, 0..40)
}

/// The file, its log, and what a sync that succeeded guarantees.
#[derive(Default)]
struct Model {
    file: Vec<u8>,
    log: Log,
    synced: Vec<u8>,
    /// When (in steps) the synced content was taken: an older sync ending later changes nothing.
    synced_at: usize,
    /// Which sectors were touched, and when last.
    touched: BTreeMap<u64, usize>,
    under_way: Vec<(Ticket, Vec<u8>, usize)>,
    now: usize,
}

impl Model {
    fn step(&mut self, step: &Step) {
        self.now += 1;
        let len = self.file.len();
        match *step {
            Step::Write(at, count) => self.write(at, count),
            Step::Resize(new) => {
                let file = &self.file;
                self.log.before_resize(len as u64, new as u64, |range| old(file, range)).unwrap();
                self.file.resize(new, 0);
                self.touch(new.min(len), new.max(len));
            }
            Step::Begin => self.under_way.push((self.log.sync_begin(), self.file.clone(), self.now)),
            Step::End(which, well) if which < self.under_way.len() => {
                let (ticket, content, at) = self.under_way.remove(which);
                self.log.sync_end(ticket, well);
                if well && at > self.synced_at {
                    (self.synced, self.synced_at) = (content, at);
                }
            }
            Step::End(..) => {}
        }
    }

    fn write(&mut self, at: usize, count: usize) {
        // As the kernel does: a write of nothing never arrives.
        if count == 0 {
            return;
        }
        let (file, len) = (&self.file, self.file.len());
        self.log.before_write(len as u64, at as u64, count as u64, |range| old(file, range)).unwrap();
        self.file.resize(len.max(at + count), 0);
        let mark = (self.now % 255) as u8 + 1;
        self.file[at..at + count].fill(mark);
        self.touch(at.min(len), at + count);
    }

    fn touch(&mut self, from: usize, to: usize) {
        for sector in from as u64 / SECTOR..(to as u64).div_ceil(SECTOR) {
            self.touched.insert(sector, self.now);
        }
    }

    /// The file after the power failure, and what the log says of it.
    fn fail(&mut self, torn: Option<u64>) -> (Vec<u8>, Option<Undo>) {
        let undo = self.log.power_failure(self.file.len() as u64, torn);
        let mut after = self.file.clone();
        if let Some(undo) = &undo {
            after.resize(undo.len as usize, 0);
            for (at, pre) in &undo.back {
                let place = &mut after[*at as usize..(at + pre.len()) as usize];
                match pre {
                    Pre::Bytes(bytes) => place.copy_from_slice(bytes),
                    Pre::Zeros(_) => place.fill(0),
                }
            }
        }
        (after, undo)
    }
}

fn old(file: &[u8], range: Range<u64>) -> Result<Vec<u8>, Infallible> {
    // The log must never ask for what is not there.
    Ok(file[range.start as usize..range.end as usize].to_vec())
}

/// A sector of a file, with zeros beyond its end, cut to `len` bytes.
fn sector(file: &[u8], number: usize, len: usize) -> Vec<u8> {
    (number * 512..number * 512 + len).map(|at| file.get(at).copied().unwrap_or(0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_power_failure_goes_back_to_the_last_sync(steps in steps()) {
        let mut model = Model::default();
        steps.iter().for_each(|step| model.step(step));
        let (after, undo) = model.fail(None);
        prop_assert_eq!(&after, &model.synced);
        prop_assert!(undo.is_none_or(|undo| undo.kept == 0));
        prop_assert!(model.log.is_empty() && model.log.bytes() == 0);
    }

    #[test]
    fn a_torn_one_leaves_every_sector_old_or_new(steps in steps(), seed: u64) {
        let mut model = Model::default();
        steps.iter().for_each(|step| model.step(step));
        let (old, new) = (model.synced.clone(), model.file.clone());
        let (after, _) = model.fail(Some(seed));
        prop_assert!(after.len() >= old.len().min(new.len()) && after.len() <= old.len().max(new.len()));
        for number in 0..after.len().div_ceil(512) {
            let len = (after.len() - number * 512).min(512);
            let (is, was, written) = (sector(&after, number, len), sector(&old, number, len), sector(&new, number, len));
            prop_assert!(is == was || is == written, "sector {} is neither", number);
            let untouched = model.touched.get(&(number as u64)).is_none_or(|&at| at < model.synced_at);
            prop_assert!(!untouched || is == was, "sector {} was synced", number);
        }
    }

    #[test]
    fn life_goes_on_after_a_failure(first in steps(), second in steps(), torn: Option<u64>) {
        let mut model = Model::default();
        first.iter().for_each(|step| model.step(step));
        let (after, _) = model.fail(torn);
        // What is there now is all there is; syncs from before the failure must mean nothing.
        let stale = std::mem::take(&mut model.under_way);
        (model.file, model.synced, model.synced_at) = (after.clone(), after, model.now);
        second.iter().for_each(|step| model.step(step));
        stale.iter().for_each(|(ticket, ..)| model.log.sync_end(*ticket, true));
        prop_assert_eq!(&model.fail(None).0, &model.synced);
    }
}

#[test]
fn small_appends_cost_one_node_and_overwrites_nothing() {
    let mut log = Log::default();
    for at in 0..1000 {
        log.before_write(at * 10, at * 10, 10, |_| -> Result<_, Infallible> { unreachable!() }).unwrap();
    }
    for _ in 0..5 {
        log.before_write(10_000, 0, 10_000, |_| -> Result<_, Infallible> { unreachable!() }).unwrap();
    }
    assert_eq!((log.layers[0].saved.len(), log.bytes()), (1, 10_000));
}

#[test]
fn torn_failures_differ_by_seed_and_by_seed_only() {
    let torn = |seed| {
        let mut log = Log::default();
        log.before_write(8192, 0, 8192, |range| {
            Ok::<_, Infallible>(vec![7; (range.end - range.start) as usize])
        })
        .unwrap();
        log.power_failure(8192, Some(seed)).unwrap()
    };
    assert_eq!(torn(1), torn(1));
    assert_ne!(torn(1), torn(2));
    let undo = torn(1);
    assert!(undo.lost > 0 && undo.kept > 0 && undo.lost + undo.kept == 8192);
}
