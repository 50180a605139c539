//! Small list-append histories against brute force: all orders of the transactions, or of their starts and commits.
//!
//! ```text
//! serializable            some order explains every read
//! strict-serializable     … that agrees with real time
//! snapshot-isolation      some order of starts and commits does; of two that overlap and write the same key one aborts
//! strong-…                … that agrees with real time
//! ```
//!
//! Where all that was appended is read at last, the order of the versions is known and both must agree (Adya for the first;
//! Cerone and Gotsman, PODC 2016, theorem 9, for snapshots). Elsewhere, and for registers, at least
//! nobody must be accused wrongly.

mod simulator;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use checkers::{
    Budget, Validity,
    transactions::{Datatype, KeyAssumptions, Options, TxnOutcome, list_append, rw_register},
};
use proptest::prelude::*;
use simulator::{Isolation, Recorded, Simulator, Step, load};

type State = BTreeMap<i64, Vec<i64>>;

/// Does the transaction read what it read, from this state? Then what it appends.
fn replay(txn: &Recorded, state: &State, datatype: Datatype) -> Option<State> {
    let mut own = state.clone();
    for step in &txn.steps {
        match step {
            Step::Write(key, value) => own.entry(*key).or_default().push(*value),
            Step::Read(key, found) if txn.outcome == TxnOutcome::Ok => {
                let there = own.get(key).map_or(&[][..], |list| list);
                let same = match datatype {
                    Datatype::ListAppend => there == found,
                    Datatype::RwRegister => there.last() == found.last(),
                };
                if !same {
                    return None;
                }
            }
            Step::Read(..) => {}
        }
    }
    Some(own)
}

fn before(a: &Recorded, b: &Recorded) -> bool {
    a.outcome == TxnOutcome::Ok && a.ret < b.call
}

fn serial(
    txns: &[&Recorded],
    done: &mut Vec<bool>,
    state: &State,
    realtime: bool,
    datatype: Datatype,
) -> bool {
    if done.iter().all(|done| *done) {
        return true;
    }
    (0..txns.len()).any(|i| {
        let blocked = |j: usize| !done[j] && realtime && before(txns[j], txns[i]);
        if done[i] || (0..txns.len()).any(blocked) {
            return false;
        }
        let Some(next) = replay(txns[i], state, datatype) else { return false };
        done[i] = true;
        let found = serial(txns, done, &next, realtime, datatype);
        done[i] = false;
        found
    })
}

/// 0 not started, 1 running, 2 committed.
fn snapshots(
    txns: &[&Recorded],
    phase: &mut Vec<u8>,
    state: &State,
    versions: &mut Vec<BTreeMap<i64, usize>>,
    realtime: bool,
    datatype: Datatype,
) -> bool {
    if phase.iter().all(|phase| *phase == 2) {
        return true;
    }
    for i in 0..txns.len() {
        let writes: Vec<(i64, i64)> = txns[i]
            .steps
            .iter()
            .filter_map(|step| if let Step::Write(key, value) = step { Some((*key, *value)) } else { None })
            .collect();
        match phase[i] {
            0 => {
                let blocked = |j: usize| phase[j] != 2 && realtime && before(txns[j], txns[i]);
                if (0..txns.len()).any(blocked) || replay(txns[i], state, datatype).is_none() {
                    continue;
                }
                versions[i] =
                    writes.iter().map(|(key, _)| (*key, state.get(key).map_or(0, Vec::len))).collect();
                phase[i] = 1;
                if snapshots(txns, phase, state, versions, realtime, datatype) {
                    return true;
                }
                phase[i] = 0;
            }
            1 => {
                let newer = |(key, _): &(i64, i64)| state.get(key).map_or(0, Vec::len) != versions[i][key];
                if writes.iter().any(newer) {
                    continue;
                }
                let mut next = state.clone();
                writes.iter().for_each(|(key, value)| next.entry(*key).or_default().push(*value));
                phase[i] = 2;
                if snapshots(txns, phase, &next, versions, realtime, datatype) {
                    return true;
                }
                phase[i] = 1;
            }
            _ => {}
        }
    }
    false
}

/// Some way to spoil a read.
#[derive(Clone, Debug)]
struct Spoil {
    txn: usize,
    step: usize,
    how: u8,
}

fn histories() -> impl Strategy<Value = Vec<Recorded>> {
    let isolation = prop_oneof![
        Just(Isolation::StrictSerializable),
        Just(Isolation::Snapshot),
        Just(Isolation::OldSnapshots),
        Just(Isolation::LostUpdates),
        Just(Isolation::ReadCommitted),
    ];
    let spoil = (0usize..5, 0usize..4, 0u8..4).prop_map(|(txn, step, how)| Spoil { txn, step, how });
    (any::<u64>(), isolation, 2usize..5, 1usize..4, prop::collection::vec(spoil, 0..2)).prop_map(
        |(seed, isolation, processes, keys, spoil)| {
            let simulator = Simulator {
                seed,
                isolation,
                processes,
                keys,
                transactions: 4,
                mops: 3,
                info: 60,
                fail: 60,
                ..Simulator::default()
            };
            let mut all = simulator.run();
            for Spoil { txn, step, how } in spoil {
                let steps = &mut all[txn % 4].steps;
                let step = step % steps.len();
                let Step::Read(_, found) = &mut steps[step] else { continue };
                match how {
                    0 => drop(found.pop()),
                    1 => found.reverse(),
                    2 => found.clear(),
                    _ => found.extend(found.last().map(|last| last + 1)),
                }
            }
            read_all(&mut all);
            all
        },
    )
}

/// Reads every key at last: the longest list that was read, and what nobody has read behind it. So the order is known.
fn read_all(all: &mut Vec<Recorded>) {
    let mut last: State = State::new();
    for txn in all.iter() {
        for step in &txn.steps {
            match step {
                Step::Read(key, found) if txn.outcome == TxnOutcome::Ok => {
                    let list = last.entry(*key).or_default();
                    if found.len() > list.len() {
                        list.clone_from(found);
                    }
                }
                Step::Read(key, _) | Step::Write(key, _) => drop(last.entry(*key).or_default()),
            }
        }
    }
    for txn in all.iter().filter(|txn| txn.outcome == TxnOutcome::Ok) {
        for step in &txn.steps {
            if let Step::Write(key, value) = step
                && !last[key].contains(value)
            {
                last.entry(*key).or_default().push(*value);
            }
        }
    }
    let time = all.iter().map(|txn| txn.ret).max().unwrap_or(0) + 1;
    let steps = last.into_iter().map(|(key, list)| Step::Read(key, list)).collect();
    all.push(Recorded { process: 1000, call: time, ret: time + 1, outcome: TxnOutcome::Ok, steps });
}

/// So many histories were possible and impossible, by model.
static SEEN: [[AtomicUsize; 2]; 4] = [const { [const { AtomicUsize::new(0) }; 2] }; 4];

#[test]
fn verdicts_are_those_of_brute_force() {
    agrees();
    for (model, [impossible, possible]) in SEEN.iter().enumerate() {
        let (impossible, possible) = (impossible.load(Relaxed), possible.load(Relaxed));
        assert!(
            impossible > 400 && possible > 400,
            "model {model}: {impossible} impossible, {possible} possible"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    fn agrees(all in histories()) {
        let was_read = |value: &(i64, i64)| all.iter().filter(|txn| txn.outcome == TxnOutcome::Ok).any(|txn| {
            txn.steps.iter().any(|step| matches!(step, Step::Read(key, found) if *key == value.0 && found.contains(&value.1)))
        });
        // An unknown one happened if something of it was read; otherwise it changes nothing.
        let happened = |txn: &&Recorded| match txn.outcome {
            TxnOutcome::Ok => true,
            TxnOutcome::Fail => false,
            TxnOutcome::Info => txn.steps.iter().any(|step| match step {
                Step::Write(key, value) => was_read(&(*key, *value)),
                Step::Read(..) => false,
            }),
        };
        let txns: Vec<&Recorded> = all.iter().filter(happened).collect();
        // Of an unknown one all must have been read for the order to be known.
        let known = txns.iter().all(|txn| txn.steps.iter().all(|step| match step {
            Step::Write(key, value) => was_read(&(*key, *value)),
            Step::Read(..) => true,
        }));
        let [lists, values] = [Datatype::ListAppend, Datatype::RwRegister].map(|datatype| load(datatype, &all));
        for (i, (model, realtime, si)) in [
            ("serializable", false, false),
            ("strict-serializable", true, false),
            ("snapshot-isolation", false, true),
            ("strong-snapshot-isolation", true, true),
        ].into_iter().enumerate() {
            // What each of these models promises of a single key.
            let keys = KeyAssumptions { wfr: true, sequential: realtime, linearizable: realtime };
            let options = Options { consistency_model: model.parse().unwrap(), keys };
            let possible = |datatype| {
                let n = txns.len();
                if si {
                    let mut versions = vec![BTreeMap::new(); n];
                    snapshots(&txns, &mut vec![0; n], &State::new(), &mut versions, realtime, datatype)
                } else {
                    serial(&txns, &mut vec![false; n], &State::new(), realtime, datatype)
                }
            };
            let verdict = rw_register(options).judge(&values, &Budget::unlimited());
            let invalid = verdict.validity == Validity::Invalid;
            prop_assert!(!invalid || !possible(Datatype::RwRegister), "wrongly accused of not being {model}: {verdict:#?}");
            let verdict = list_append(options).judge(&lists, &Budget::unlimited());
            let (invalid, possible) = (verdict.validity == Validity::Invalid, possible(Datatype::ListAppend));
            prop_assert!(!(possible && invalid), "wrongly accused of not being {model}: {verdict:#?}");
            if known {
                SEEN[i][usize::from(possible)].fetch_add(1, Relaxed);
                prop_assert!(possible || invalid, "{model}: nothing found in {all:#?}");
            }
        }
    }
}
