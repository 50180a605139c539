//! Tests only: the edges. A budget that is spent, times that fill their numbers, everything at once, one value written over and over.

use std::sync::{Arc, atomic::AtomicBool};

use super::*;
use crate::{Event, Header, Kind, Meta, Op, Process, ReadMode, Ret, Value};

/// `(op, node, call, ret)`; all succeed, reads find the last part.
type Row = (Op, Option<usize>, u64, u64, Value);

fn write(value: i64, call: u64, ret: u64) -> Row {
    (Op::Write { key: 1.into(), value: value.into() }, None, call, ret, Value::Nil)
}

fn read(node: usize, value: i64, call: u64, ret: u64) -> Row {
    (Op::Read { key: 1.into(), mode: ReadMode::Stale }, Some(node), call, ret, value.into())
}

fn history(rows: Vec<Row>) -> History {
    let mut events = Vec::new();
    for (process, (op, node, call, ret, found)) in rows.into_iter().enumerate() {
        let answer = if node.is_some() { Ret::Value(found) } else { Ret::Done };
        let meta = Meta { node: node.map(|n| format!("n{n}").into()), ..Meta::default() };
        let event = |time, kind, op, ret, meta| {
            let process = Process::Client(process as u64);
            Event { index: 0, time, process, kind, op, ret, meta }
        };
        events.push(event(call, Kind::Invoke, op.clone(), None, meta.clone()));
        events.push(event(ret, Kind::Ok, op, Some(answer), meta));
    }
    events.sort_by_key(|event| (event.time, event.kind != Kind::Invoke));
    for (index, event) in events.iter_mut().enumerate() {
        event.index = index as u64;
    }
    History::new(Header::new("edges", 0, "", vec![]), events)
}

fn judge(rows: Vec<Row>) -> Verdict {
    convergence(Options { stand_still_ns: 100 }).check(&history(rows), &Budget::unlimited())
}

#[test]
fn a_budget_that_is_spent_ends_in_unknown() {
    let rows = vec![write(1, 0, 1), read(0, 1, 2, 3), read(1, 1, 2, 3)];
    let spent = Budget::new(Arc::new(AtomicBool::new(true)), u64::MAX);
    let verdict = convergence(Options::default()).check(&history(rows.clone()), &spent);
    assert_eq!((verdict.validity, verdict.reason.as_deref()), (Validity::Unknown, Some("cancelled")));
    assert_eq!(judge(rows).validity, Validity::Valid);
}

#[test]
fn times_that_fill_their_numbers() {
    let max = u64::MAX;
    let verdict = judge(vec![write(1, 0, max), read(0, 1, 0, max), read(1, 2, max, max)]);
    assert_eq!(verdict.validity, Validity::Invalid, "nobody wrote 2");
    // The quiet would begin when time ends.
    let verdict = judge(vec![write(1, max, max), read(0, 1, max, max), read(1, 1, max, max)]);
    assert_eq!(verdict.validity, Validity::Unknown);
    let verdict = judge(vec![write(1, 0, 1), read(0, 1, max, max), read(1, 1, 2, max)]);
    assert_eq!(verdict.validity, Validity::Valid);
}

#[test]
fn everything_at_once_proves_nothing() {
    let writes = (0..2500).map(|v| write(v, 10, 20));
    let reads = (0..2500).map(|v| read(v as usize % 5, v, 10, 20));
    let verdict = judge(writes.chain(reads).collect());
    assert_eq!(verdict.validity, Validity::Unknown);
    assert_eq!(verdict.stats["staleness"]["k"]["max"], 0);
    assert_eq!(verdict.stats["divergent_keys"]["keys"], serde_json::json!([0]));
}

/// Linear, though every read may be of any of the writes.
#[test]
fn one_value_written_and_read_a_hundred_thousand_times() {
    let writes = (0..100_000).map(|at| write(7, 10 * at, 10 * at + 1));
    let reads = (0..100_000).map(|at| read(at as usize % 3, 7, 1_000_000 + at, 1_000_001 + at));
    let verdict = judge(writes.chain(reads).collect());
    assert_eq!(verdict.validity, Validity::Valid, "{:?}", verdict.reason);
}
