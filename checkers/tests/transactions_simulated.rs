//! Transactions of a simulated database: what it promises is never found broken, what it breaks is found.
//!
//! ```text
//! strict serializable    no anomaly at all
//! snapshot isolation     nothing that snapshot isolation forbids, also not its strong form; write skew
//! lost updates           lost updates
//! ```
//!
//! See `simulator`.

mod simulator;

use checkers::{
    Budget, Checker, Validity, Verdict,
    transactions::{Datatype, KeyAssumptions, Options, TransactionChecker, list_append, rw_register},
};
use proptest::prelude::*;
use simulator::{Isolation, Simulator, all_in_components, history, load, plant_write_skews, planted_pairs};

fn checker(datatype: Datatype, model: &str, keys: KeyAssumptions) -> TransactionChecker {
    let options = Options { consistency_model: model.parse().unwrap(), keys };
    match datatype {
        Datatype::ListAppend => list_append(options),
        Datatype::RwRegister => rw_register(options),
    }
}

const LINEARIZABLE: KeyAssumptions = KeyAssumptions { wfr: true, sequential: true, linearizable: true };

fn judge(simulator: &Simulator, model: &str) -> Verdict {
    let txns = load(simulator.datatype, &simulator.run());
    checker(simulator.datatype, model, LINEARIZABLE).judge(&txns, &Budget::unlimited())
}

fn datatype() -> impl Strategy<Value = Datatype> {
    prop_oneof![Just(Datatype::ListAppend), Just(Datatype::RwRegister)]
}

fn simulator() -> impl Strategy<Value = Simulator> {
    (any::<u64>(), datatype(), 1usize..12, 1usize..8, 1usize..40, 1usize..6, 0u32..100, 0u32..200).prop_map(
        |(seed, datatype, processes, keys, writes_per_key, mops, info, fail)| Simulator {
            seed,
            datatype,
            processes,
            keys,
            writes_per_key,
            mops,
            info,
            fail,
            transactions: 300,
            ..Simulator::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn strict_serializable_shows_nothing(simulator in simulator()) {
        let verdict = judge(&simulator, "strict-serializable");
        prop_assert_ne!(verdict.validity, Validity::Invalid, "{:#?}", verdict);
        prop_assert_eq!(verdict.stats["anomaly_counts"].as_object().unwrap().len(), 0);
    }

    #[test]
    fn snapshots_keep_strong_snapshot_isolation(simulator in simulator()) {
        let simulator = Simulator { isolation: Isolation::Snapshot, ..simulator };
        for model in ["snapshot-isolation", "strong-snapshot-isolation"] {
            let verdict = judge(&simulator, model);
            prop_assert_ne!(verdict.validity, Validity::Invalid, "{:#?}", verdict);
        }
    }

    #[test]
    fn old_snapshots_keep_snapshot_isolation(simulator in simulator()) {
        // Without assumptions on keys, which old reads break.
        let simulator = Simulator { isolation: Isolation::OldSnapshots, ..simulator };
        let txns = load(simulator.datatype, &simulator.run());
        let checker = checker(simulator.datatype, "snapshot-isolation", KeyAssumptions::default());
        let verdict = checker.judge(&txns, &Budget::unlimited());
        prop_assert_ne!(verdict.validity, Validity::Invalid, "{:#?}", verdict);
    }

    #[test]
    fn reading_what_is_committed_keeps_read_committed(simulator in simulator()) {
        // Registers are left out: their order is not that in which transactions that do not wait for each other return.
        let simulator =
            Simulator { isolation: Isolation::ReadCommitted, datatype: Datatype::ListAppend, ..simulator };
        let verdict = judge(&simulator, "read-committed");
        prop_assert_ne!(verdict.validity, Validity::Invalid, "{:#?}", verdict);
    }
}

#[test]
fn snapshots_show_write_skew_and_only_that() {
    let simulator =
        Simulator { isolation: Isolation::Snapshot, transactions: 20_000, ..Simulator::default() };
    let verdict = judge(&simulator, "serializable");
    assert_eq!(verdict.validity, Validity::Invalid);
    let counts = verdict.stats["anomaly_counts"].as_object().unwrap();
    assert!(counts["G2-item"].as_u64().unwrap() > 10, "{counts:?}");
    assert!(counts.keys().all(|name| name.starts_with("G2-item")), "{counts:?}");
    assert_eq!(judge(&simulator, "snapshot-isolation").validity, Validity::Valid);
}

#[test]
fn what_nobody_guards_is_lost() {
    for datatype in [Datatype::ListAppend, Datatype::RwRegister] {
        let simulator =
            Simulator { isolation: Isolation::LostUpdates, keys: 2, datatype, ..Simulator::default() };
        let verdict = judge(&simulator, "cursor-stability");
        assert_eq!(verdict.validity, Validity::Invalid);
        let counts = &verdict.stats["anomaly_counts"];
        assert!(counts["lost-update"].as_u64() > Some(0), "{datatype:?} {counts}");
        let verdict = judge(&simulator, "read-uncommitted");
        assert_eq!(verdict.validity, Validity::Valid, "{:?}", verdict.reason);
    }
}

#[test]
fn one_stale_read_is_found() {
    for datatype in [Datatype::ListAppend, Datatype::RwRegister] {
        let simulator = Simulator { stale_at: Some(500), datatype, ..Simulator::default() };
        let verdict = judge(&simulator, "strict-serializable");
        assert_eq!(verdict.validity, Validity::Invalid, "{datatype:?} {:?}", verdict.reason);
    }
}

#[test]
fn a_history_gives_what_its_transactions_give() {
    for datatype in [Datatype::ListAppend, Datatype::RwRegister] {
        let simulator = Simulator {
            isolation: Isolation::Snapshot,
            datatype,
            info: 20,
            fail: 50,
            ..Simulator::default()
        };
        let recorded = simulator.run();
        let checker = checker(datatype, "serializable", LINEARIZABLE);
        let from_history = checker.check(&history(datatype, &recorded), &Budget::unlimited());
        let direct = checker.judge(&load(datatype, &recorded), &Budget::unlimited());
        assert_eq!(from_history.stats["anomaly_counts"], direct.stats["anomaly_counts"]);
        assert_eq!(from_history.validity, direct.validity);
        assert_eq!(from_history, checker.check(&history(datatype, &recorded), &Budget::unlimited()));
    }
}

#[test]
fn each_planted_write_skew_is_in_a_component_with_a_cycle() {
    for isolation in [Isolation::StrictSerializable, Isolation::Snapshot] {
        let mut recorded = Simulator { isolation, transactions: 5_000, ..Simulator::default() }.run();
        plant_write_skews(&mut recorded, 150);
        let pairs = planted_pairs(&recorded);
        assert_eq!(pairs.len(), 150);
        let txns = load(Datatype::ListAppend, &recorded);
        let verdict =
            checker(Datatype::ListAppend, "serializable", LINEARIZABLE).judge(&txns, &Budget::unlimited());
        assert_eq!(verdict.validity, Validity::Invalid);
        let (inside, components, with_cycle) = all_in_components(&verdict, &pairs);
        assert_eq!((inside, with_cycle), (150, components));
        assert!(verdict.stats["anomaly_counts"]["G2-item"].as_u64() >= Some(150), "{:?}", verdict.stats);
        assert_eq!(verdict.anomalies.len(), 100, "the first hundred are explained");
        let weaker = checker(Datatype::ListAppend, "snapshot-isolation", LINEARIZABLE);
        assert_eq!(weaker.judge(&txns, &Budget::unlimited()).validity, Validity::Valid, "{isolation:?}");
    }
}
