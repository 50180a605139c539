//! Every anomaly of transactions, each in a history written by hand, with what the checker says of it.
//!
//! ```text
//! # write skew
//! 0 0-10  ok  append 1 1; r 2 []         process, call-return, outcome, micro-operations
//! 1 5-15  ok  append 2 1; r 1 []    ->   G2-item, and in words: snapshots/transactions__….snap
//! ```
//!
//! Deliberately no large histories: see `transactions_simulated` and `transactions_oracle`.

mod simulator;

use std::sync::Arc;

use checkers::{
    Budget, Validity, Verdict,
    transactions::{Datatype, KeyAssumptions, Options, TxnOutcome, list_append, rw_register},
};
use serde_json::json;
use simulator::{Recorded, Step, load};

fn parse(text: &str) -> Vec<Recorded> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut all: Vec<Recorded> = lines.map(line).collect();
    all.sort_by_key(|txn| txn.call);
    all
}

fn line(line: &str) -> Recorded {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    let process = word().parse().unwrap();
    let (call, ret) = word().split_once('-').unwrap();
    let outcome = match word() {
        "ok" => TxnOutcome::Ok,
        "info" => TxnOutcome::Info,
        _ => TxnOutcome::Fail,
    };
    let steps = word().split(';').map(str::trim).filter(|step| !step.is_empty()).map(step).collect();
    Recorded { process, call: call.parse().unwrap(), ret: ret.parse().unwrap(), outcome, steps }
}

fn step(step: &str) -> Step {
    let mut words = step.splitn(3, ' ');
    let (f, key, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
    let key = key.parse().unwrap();
    let numbers = value.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    let mut numbers = numbers.map(|n| n.parse().unwrap());
    if f == "r" { Step::Read(key, numbers.collect()) } else { Step::Write(key, numbers.next().unwrap()) }
}

fn lists(model: &str, text: &str) -> Verdict {
    let checker = list_append(Options::new(model.parse().unwrap()));
    checker.judge(&load(Datatype::ListAppend, &parse(text)), &Budget::unlimited())
}

fn registers(keys: KeyAssumptions, text: &str) -> Verdict {
    let checker = rw_register(Options { keys, ..Options::default() });
    checker.judge(&load(Datatype::RwRegister, &parse(text)), &Budget::unlimited())
}

const NOTHING: KeyAssumptions = KeyAssumptions { wfr: false, sequential: false, linearizable: false };
const WFR: KeyAssumptions = KeyAssumptions { wfr: true, ..NOTHING };
const SEQUENTIAL: KeyAssumptions = KeyAssumptions { sequential: true, ..NOTHING };
const LINEARIZABLE: KeyAssumptions = KeyAssumptions { linearizable: true, ..NOTHING };

/// What a person sees of a verdict.
fn told(verdict: &Verdict) -> String {
    let mut text = format!("{}\n{}\n", verdict.validity, verdict.reason.as_deref().unwrap_or("no reason"));
    for field in ["anomaly_counts", "not", "also_not", "may_hold"] {
        text.push_str(&format!("{field}: {}\n", verdict.stats[field]));
    }
    for anomaly in &verdict.anomalies {
        text.push_str(&format!("\n{}\n{}", anomaly.message, anomaly.picture.as_deref().unwrap_or("")));
    }
    text
}

#[test]
fn a_search_that_was_cut_short_excludes_nothing() {
    let text = "
        0 0-10 fail append 1 1
        1 0-10 ok r 1 [1]
        2 0-10 ok append 2 1; r 3 []
        3 0-10 ok append 3 1; r 2 []
        4 20-30 ok r 2 [1]; r 3 [1]";
    let checker = list_append(Options::default());
    let txns = load(Datatype::ListAppend, &parse(text));
    let whole = checker.judge(&txns, &Budget::unlimited());
    assert!(!whole.reason.as_deref().unwrap().contains("may be ruled out"), "{}", told(&whole));
    let cut = checker.judge(&txns, &Budget::new(Arc::new(true.into()), u64::MAX));
    assert_eq!(cut.validity, Validity::Invalid, "{}", told(&cut));
    let reason = cut.reason.unwrap();
    assert!(
        reason.ends_with("; but the search was cancelled: more may be ruled out than was seen"),
        "{reason}"
    );
}

#[test]
fn reads_that_do_not_fit_are_told_around_the_place() {
    let text = "
        0 0-90 ok append 1 1; append 1 2; append 1 3; append 1 4; append 1 5; append 1 6; append 1 7; append 1 8
        1 0-90 ok append 1 9
        2 0-90 ok r 1 [1 2 3 4 5 6 7 8 9]
        3 0-90 ok r 1 [1 2 3 4 5 6 7 9]";
    let verdict = lists("strict-serializable", text);
    let anomaly = verdict.anomalies.iter().find(|anomaly| anomaly.name == "incompatible-order").unwrap();
    assert_eq!(
        (&anomaly.details["versions"], &anomaly.details["differ_at"]),
        (
            &json!([
                {"node": 0, "mop": 0, "length": 9, "from": 1, "elements": [2, 3, 4, 5, 6, 7, 8, 9]},
                {"node": 1, "mop": 0, "length": 8, "from": 1, "elements": [2, 3, 4, 5, 6, 7, 9]},
            ]),
            &json!(7)
        )
    );
}

/// Lists: the anomaly that must be found, the worst that may, and what is told of it.
macro_rules! lists {
    ($($name:ident $anomaly:literal $text:literal)*) => {$(
        #[test]
        fn $name() {
            let verdict = lists("strict-serializable", $text);
            assert_eq!(verdict.validity, Validity::Invalid, "{:?}", verdict.reason);
            assert!(verdict.anomalies.iter().any(|anomaly| anomaly.name == $anomaly), "{}", told(&verdict));
            insta::assert_snapshot!(told(&verdict));
        }
    )*};
}

lists! {
    g0 "G0" "
        0 0-10 ok append 1 1; append 2 1
        1 0-10 ok append 1 2; append 2 2
        2 20-30 ok r 1 [1 2]; r 2 [2 1]"
    g0_process "G0-process" "
        0 0-10 ok append 1 1
        0 20-30 ok append 1 2
        1 0-40 ok r 1 [2 1]"
    g0_realtime "G0-realtime" "
        0 0-10 ok append 1 1
        1 20-30 ok append 1 2
        2 0-40 ok r 1 [2 1]"
    g1a "G1a" "
        0 0-10 fail append 1 1
        1 0-10 ok r 1 [1]
        2 0-10 ok r 1 [1]"
    g1b "G1b" "
        0 0-10 ok append 1 1; append 1 2
        1 0-10 ok r 1 [1]"
    g1c "G1c" "
        0 0-10 ok append 1 1; r 2 [1]
        1 0-10 ok append 2 1; r 1 [1]"
    g1c_process "G1c-process" "
        0 0-10 ok r 1 [1]
        0 20-30 ok append 1 1"
    g1c_realtime "G1c-realtime" "
        0 0-10 ok r 1 [1]
        1 20-30 ok append 1 1"
    g_single "G-single" "
        0 0-10 ok r 1 []; r 2 [1]
        1 0-10 ok append 1 1; append 2 1
        2 5-10 ok r 1 [1]"
    g_single_process "G-single-process" "
        0 0-10 ok append 1 1
        0 20-30 ok r 1 []
        1 0-40 ok r 1 [1]"
    g_single_realtime "G-single-realtime" "
        0 0-10 ok append 1 1
        1 1000020-2000030 ok r 1 []
        2 0-40 ok r 1 [1]"
    g_nonadjacent "G-nonadjacent" "
        0 0-10 ok r 1 []; r 4 [1]
        1 0-10 ok append 1 1; append 3 1
        2 0-10 ok r 3 [1]; r 2 []
        3 0-10 ok append 2 1; append 4 1
        4 5-10 ok r 1 [1]; r 2 [1]"
    g_nonadjacent_process "G-nonadjacent-process" "
        0 0-10 ok append 1 1
        0 10-30 ok r 2 []
        1 0-10 ok append 2 1
        1 10-30 ok r 1 []
        2 0-30 ok r 1 [1]; r 2 [1]"
    g_nonadjacent_realtime "G-nonadjacent-realtime" "
        0 0-10 ok append 1 1
        1 20-40 ok r 2 []
        2 0-25 ok append 2 1; append 3 1
        3 0-25 ok r 3 [1]; r 1 []
        4 0-50 ok r 1 [1]; r 2 [1]"
    g2_item "G2-item" "
        0 0-10 ok r 1 []; append 2 1
        1 0-10 ok r 2 []; append 1 1
        2 5-10 ok r 1 [1]; r 2 [1]"
    g2_item_process "G2-item-process" "
        0 0-10 ok append 2 1
        0 20-30 ok r 1 []
        1 5-25 ok append 1 1; r 2 []
        2 5-40 ok r 1 [1]; r 2 [1]"
    g2_item_realtime "G2-item-realtime" "
        0 0-10 ok append 2 1
        3 20-30 ok r 1 []
        1 5-25 ok append 1 1; r 2 []
        2 5-40 ok r 1 [1]; r 2 [1]"
    internal "internal" "
        0 0-10 ok append 1 1; r 1 []
        1 0-10 ok r 2 []; r 2 [5]
        2 0-10 ok append 2 5"
    duplicate_elements "duplicate-elements" "
        0 0-10 ok append 1 1
        1 0-10 ok r 1 [1 1]"
    incompatible_order "incompatible-order" "
        0 0-10 ok append 1 1
        1 0-10 ok append 1 2
        2 0-20 ok r 1 [1 2]
        3 0-20 ok r 1 [2 1]
        4 0-20 ok r 1 [2]"
    incompatible_with_the_writer "incompatible-order" "
        0 0-10 ok append 1 1; append 1 2
        1 20-30 ok r 1 [2 1]"
    dirty_update "dirty-update" "
        0 0-10 fail append 1 1
        1 0-10 ok append 1 2
        2 0-10 ok r 1 [1 2]"
    lost_update "lost-update" "
        0 0-10 ok r 1 []; append 1 1
        1 0-10 ok r 1 []; append 1 2
        2 5-10 ok r 1 [1 2]"
    future_read "future-read" "
        0 0-10 ok r 1 [1]; append 1 1"
    garbage_read "garbage-read" "
        0 0-10 ok append 1 1
        1 0-10 ok r 1 [1 9]"
    g_cursor "G-cursor" "
        0 0-10 ok r 1 []; append 1 2
        1 0-10 ok append 1 1
        2 5-10 ok r 1 [1 2]"
    own_append_that_saw_less_than_it_should "G-single" "
        0 0-10 ok append 1 3; r 1 [1 3]
        1 0-10 ok append 1 2
        2 0-10 ok append 1 1
        3 5-10 ok r 1 [1 2 3]"
}

/// Registers, by what is assumed of keys.
macro_rules! registers {
    ($($name:ident $keys:ident $anomaly:literal $text:literal)*) => {$(
        #[test]
        fn $name() {
            let verdict = registers($keys, $text);
            assert_eq!(verdict.validity, Validity::Invalid, "{:?}", verdict.reason);
            assert!(verdict.anomalies.iter().any(|anomaly| anomaly.name == $anomaly), "{}", told(&verdict));
            insta::assert_snapshot!(told(&verdict));
        }
    )*};
}

registers! {
    register_aborted NOTHING "G1a" "
        0 0-10 fail w 1 1
        1 0-10 ok r 1 1"
    register_intermediate NOTHING "G1b" "
        0 0-10 ok w 1 1; w 1 2
        1 0-10 ok r 1 1"
    register_information_flows_in_a_circle NOTHING "G1c" "
        0 0-10 ok w 1 1; r 2 1
        1 0-10 ok w 2 1; r 1 1"
    register_nil_comes_first NOTHING "G-single" "
        0 0-10 ok r 1 nil; r 2 1
        1 0-10 ok w 1 1; w 2 1"
    register_write_skew NOTHING "G2-item" "
        0 0-10 ok r 1 nil; w 2 1
        1 0-10 ok r 2 nil; w 1 1"
    register_wfr WFR "G-single" "
        0 0-10 ok r 1 1; w 1 2; w 2 1
        1 0-10 ok w 1 1
        2 0-10 ok r 1 1; r 2 1"
    register_versions_in_a_circle WFR "cyclic-versions" "
        0 0-10 ok r 1 1; w 1 2
        1 0-10 ok r 1 2; w 1 1"
    register_sequential SEQUENTIAL "G-single" "
        0 0-10 ok w 1 1
        0 20-30 ok w 1 2
        1 0-45 ok r 1 2; w 2 5
        2 0-45 ok r 1 1; r 2 5"
    register_linearizable LINEARIZABLE "G-single" "
        0 0-10 ok w 1 1
        1 20-30 ok w 1 2
        2 20-40 ok r 1 2; w 2 5
        3 25-45 ok r 1 1; r 2 5"
    register_linearizable_realtime LINEARIZABLE "G-single-realtime" "
        0 0-10 ok w 1 1
        1 20-30 ok w 1 2; r 2 nil
        2 40-50 ok r 1 2
        3 60-70 ok r 2 nil; w 3 1
        4 0-10 ok w 2 1
        5 0-100 ok r 2 1"
    register_stale LINEARIZABLE "cyclic-versions" "
        0 0-10 ok w 1 1
        1 20-30 ok w 1 2
        2 40-50 ok r 1 1"
    register_lost_update NOTHING "lost-update" "
        0 0-10 ok r 1 nil; w 1 1
        1 0-10 ok r 1 nil; w 1 2"
    register_internal NOTHING "internal" "
        0 0-10 ok w 1 1; r 1 nil"
    register_future NOTHING "future-read" "
        0 0-10 ok r 1 1; w 1 1"
    register_garbage NOTHING "garbage-read" "
        0 0-10 ok r 1 9"
}

#[test]
fn the_chosen_model_decides() {
    let skew = "
        0 0-10 ok r 1 []; append 2 1
        1 0-10 ok r 2 []; append 1 1
        2 5-10 ok r 1 [1]; r 2 [1]";
    for (model, validity) in [
        ("strict-serializable", Validity::Invalid),
        ("PL-3", Validity::Invalid),
        ("repeatable-read", Validity::Invalid),
        ("snapshot-isolation", Validity::Valid),
        ("read-committed", Validity::Valid),
        ("linearizable", Validity::Unknown),
    ] {
        let verdict = lists(model, skew);
        assert_eq!(verdict.validity, validity, "{model}");
        assert_eq!(verdict.anomalies.is_empty(), validity != Validity::Invalid);
        assert_eq!(verdict.stats["findings"].as_array().unwrap().is_empty(), validity == Validity::Invalid);
    }
}

#[test]
fn nobody_is_accused_of_what_nobody_knows() {
    for (validity, text) in [
        // It was not read, so it may never have happened.
        (Validity::Valid, "0 0-10 info append 1 1\n1 20-30 ok r 1 []"),
        // It was read late: it may have happened late.
        (Validity::Valid, "0 0-10 info append 1 1\n1 20-30 ok r 1 []\n1 40-50 ok r 1 [1]"),
        // What an unknown transaction read says nothing.
        (Validity::Valid, "0 0-10 info r 1 [7]\n1 20-30 ok r 1 []"),
        // It failed, then somebody else appended the same.
        (Validity::Valid, "0 0-10 fail append 1 1\n1 20-30 ok append 1 1\n2 40-50 ok r 1 [1]"),
        // Own appends are not those of others.
        (Validity::Valid, "0 0-10 ok append 1 1; r 1 [1]; append 1 2; r 1 [1 2]"),
        (Validity::Valid, "0 0-10 ok append 1 1; r 1 [1]\n1 0-10 ok append 1 2"),
        // Two may have appended it.
        (Validity::Unknown, "0 0-10 ok append 1 1\n1 0-10 ok append 1 1\n2 20-30 ok r 1 [1 1]"),
        // Returning and calling in one nanosecond overlap.
        (Validity::Valid, "0 0-10 ok append 1 1\n1 10-30 ok r 1 []\n2 40-50 ok r 1 [1]"),
        (Validity::Unknown, "0 0-10 ok append 1 1"),
        (Validity::Unknown, "0 0-10 info r 1 []"),
        (Validity::Unknown, "0 0-10 fail r 1 []"),
        (Validity::Unknown, ""),
        (Validity::Unknown, "0 0-10 ok\n1 0-10 ok"),
        (Validity::Valid, "0 0-10 ok r 5 []\n1 0-10 ok"),
    ] {
        let verdict = lists("strict-serializable", text);
        assert_eq!(verdict.validity, validity, "{text}: {}", told(&verdict));
        assert_eq!(verdict.reason.is_some(), validity == Validity::Unknown, "{text}");
    }
}

#[test]
fn registers_without_assumptions_have_no_order() {
    let stale = "0 0-10 ok w 1 1\n1 20-30 ok w 1 2\n2 40-50 ok r 1 1";
    assert_eq!(registers(NOTHING, stale).validity, Validity::Valid);
    assert_eq!(
        registers(NOTHING, "0 0-10 ok w 1 1\n1 0-10 ok w 1 1\n2 40-50 ok r 1 1").validity,
        Validity::Unknown
    );
}

#[test]
fn hostile_input_is_only_slow() {
    use checkers::{
        Checker, Event, Header, History, Kind, Meta, Mop, Op, Process, Ret, Value, transactions::Builder,
    };
    let int = |n: i64| Value::Int(n);
    // One key, everything at once: long lists that disagree, a transaction without end, unknown keys, nothing at all.
    let mut builder = Builder::new(Datatype::ListAppend);
    let long: Vec<Value> = (0..20_000).map(int).collect();
    for i in 0..200 {
        builder.begin(i, i as u64, 0, Some(10), TxnOutcome::Ok);
        let mut list = long.clone();
        list.rotate_left(i % 7);
        builder.read(&int(1), Some(&Value::from(list)));
    }
    builder.begin(200, 200, 0, Some(10), TxnOutcome::Ok);
    for i in 0..50_000 {
        builder.write(&int(1), &int(i));
        builder.read(&int(2), Some(&Value::from(vec![int(i % 3)])));
    }
    builder.begin(201, 201, 0, Some(10), TxnOutcome::Ok);
    builder.read(&Value::from("never written"), Some(&Value::Nil));
    let txns = builder.finish().unwrap();
    let verdict = list_append(Options::default()).judge(&txns, &Budget::unlimited());
    assert_eq!(verdict.validity, Validity::Invalid);
    assert!(verdict.anomalies.len() <= 200);

    // One register that ten thousand read before, while and after ten thousand write it.
    for keys in [NOTHING, LINEARIZABLE] {
        let mut builder = Builder::new(Datatype::RwRegister);
        for i in 0..10_000i64 {
            builder.begin(2 * i as usize, 2 * i as u64, 0, Some(10), TxnOutcome::Ok);
            builder.read(&int(1), Some(&Value::Nil));
            builder.begin(2 * i as usize + 1, 2 * i as u64 + 1, 0, Some(10), TxnOutcome::Ok);
            builder.write(&int(1), &int(i));
        }
        let txns = builder.finish().unwrap();
        let verdict = rw_register(Options { keys, ..Options::default() }).judge(&txns, &Budget::unlimited());
        assert_eq!(verdict.validity, Validity::Unknown, "{}", told(&verdict));
    }

    // The wrong kind of everything.
    let op = |mops: Vec<Mop>| Op::Txn { mops: mops.into() };
    let mixed = op(vec![
        Mop::Append { key: int(1), value: Value::Nil },
        Mop::Write { key: int(1), value: int(3) },
        Mop::Read { key: int(1) },
        Mop::Read { key: int(2) },
    ]);
    let event = |index, kind, op: &Op, ret| Event {
        index,
        time: index,
        process: Process::Client(0),
        kind,
        op: op.clone(),
        ret,
        meta: Meta::default(),
    };
    let ret = Ret::Txn(vec![int(3), Value::from("text")].into());
    let events = vec![event(0, Kind::Invoke, &mixed, None), event(1, Kind::Ok, &mixed, Some(ret))];
    let history = History::new(Header::new("", 0, "", Vec::new()), events);
    let verdict = list_append(Options::default()).check(&history, &Budget::unlimited());
    assert_eq!(verdict.validity, Validity::Unknown, "{}", told(&verdict));
    // For registers the text is no wrong type, but nobody wrote it.
    let verdict = rw_register(Options::default()).check(&history, &Budget::unlimited());
    assert_eq!(verdict.anomalies[0].name, "garbage-read", "{}", told(&verdict));
    // A transfer may touch any key.
    let transfer = Op::Transfer { from: int(1), to: int(2), amount: 1 };
    let history =
        History::new(Header::new("", 0, "", Vec::new()), vec![event(0, Kind::Invoke, &transfer, None)]);
    assert_eq!(
        list_append(Options::default()).check(&history, &Budget::unlimited()).validity,
        Validity::Unknown
    );
}
