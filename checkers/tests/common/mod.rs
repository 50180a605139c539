//! Any event there can be, for property tests.
//!
//! ```text
//! event()   Event { index: 7, process: nemesis, kind: ok, op: Cas { … }, ret: Some(Swapped { … }), meta: … }
//! ```
//!
//! Every event has a form on disk. Deliberately no histories: events do not fit each other.

use std::sync::Arc;

use checkers::{Event, Key, Kind, Meta, Mop, Op, Process, ReadMode, Ret, Value};
use proptest::{option, prelude::*};

fn text() -> impl Strategy<Value = Arc<str>> {
    // Plain names, and everything that needs escaping.
    prop_oneof!["[a-z][a-z0-9-]{0,8}", any::<String>(), "[\u{0}-\u{1f}\"\\\\]{1,4}"].prop_map(Arc::from)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![Just(i64::MIN), Just(i64::MAX), 0..10i64].prop_map(Value::from),
        text().prop_map(Value::Text),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Value::from))
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..3)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![(0..5i64).prop_map(Value::from), value()]
}

/// An operation and an answer that it can get.
fn op() -> impl Strategy<Value = (Op, Ret)> {
    let answer = || prop_oneof![Just(Ret::Done), value().prop_map(Ret::Value)];
    let mode = prop::sample::select(ReadMode::ALL.to_vec());
    prop_oneof![
        (key(), mode, value()).prop_map(|(key, mode, v)| (Op::Read { key, mode }, Ret::Value(v))),
        (key(), value(), answer()).prop_map(|(key, value, ret)| (Op::Write { key, value }, ret)),
        (key(), value(), value(), any::<bool>(), option::of(value())).prop_map(
            |(key, expected, new, swapped, found)| {
                (Op::Cas { key, expected, new }, Ret::Swapped { swapped, found })
            }
        ),
        (key(), value(), answer()).prop_map(|(key, value, ret)| (Op::Append { key, value }, ret)),
        (key(), answer()).prop_map(|(key, ret)| (Op::Delete { key }, ret)),
        (key(), value(), answer()).prop_map(|(key, value, ret)| (Op::Add { key, value }, ret)),
        (key(), value(), answer()).prop_map(|(key, value, ret)| (Op::Enqueue { key, value }, ret)),
        (key(), value()).prop_map(|(key, v)| (Op::Dequeue { key }, Ret::Value(v))),
        (key(), value(), answer()).prop_map(|(key, owner, ret)| (Op::Acquire { key, owner }, ret)),
        (key(), value(), answer()).prop_map(|(key, owner, ret)| (Op::Release { key, owner }, ret)),
        (key(), value(), answer()).prop_map(|(key, value, ret)| (Op::Remove { key, value }, ret)),
        (key(), value(), any::<bool>())
            .prop_map(|(key, value, there)| (Op::Contains { key, value }, Ret::Value(there.into()))),
        (key(), prop::collection::vec(value(), 0..3))
            .prop_map(|(key, all)| (Op::Drain { key }, Ret::Value(all.into()))),
        (key(), value(), answer()).prop_map(|(key, value, ret)| (Op::Push { key, value }, ret)),
        (key(), value()).prop_map(|(key, v)| (Op::Pop { key }, Ret::Value(v))),
        (key(), value()).prop_map(|(key, v)| (Op::Generate { key }, Ret::Value(v))),
        (key(), key(), any::<i64>(), answer())
            .prop_map(|(from, to, amount, ret)| (Op::Transfer { from, to, amount }, ret)),
        txn(),
        (text(), option::of(key()), json(), prop_oneof![Just(Ret::Done), json().prop_map(Ret::Custom)])
            .prop_map(|(f, key, value, ret)| (Op::Custom { f: format!("x-{f}").into(), key, value }, ret)),
    ]
}

/// A transaction and what its reads may find.
fn txn() -> impl Strategy<Value = (Op, Ret)> {
    let mop = (0..3u8, key(), value());
    prop::collection::vec(mop, 0..4).prop_map(|parts| {
        let mut found = Vec::new();
        let mops: Vec<Mop> = parts
            .into_iter()
            .map(|(f, key, value)| match f {
                0 => {
                    found.push(value);
                    Mop::Read { key }
                }
                1 => Mop::Write { key, value },
                _ => Mop::Append { key, value },
            })
            .collect();
        (Op::Txn { mops: mops.into() }, Ret::Txn(found.into()))
    })
}

fn meta() -> impl Strategy<Value = Meta> {
    let texts =
        (option::of(text()), option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let numbers = (option::of(any::<u64>()), option::of(any::<u64>()), option::of(any::<u64>()));
    (texts, numbers, option::of(any::<u32>()), option::of(any::<bool>())).prop_map(
        |((node, path, error, ballot, phase), (intended, commit_ns, slot), rounds, forwarded)| Meta {
            node,
            path,
            error,
            intended,
            commit_ns,
            slot,
            ballot,
            rounds,
            forwarded,
            phase,
        },
    )
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let process = prop_oneof![8 => any::<u64>().prop_map(Process::Client), 1 => Just(Process::Nemesis), 1 => Just(Process::Observer)];
    let kind = prop::sample::select(vec![Kind::Invoke, Kind::Ok, Kind::Fail, Kind::Info]);
    (any::<u64>(), any::<u64>(), process, kind, op(), meta()).prop_map(
        |(index, time, process, kind, (op, ret), meta)| {
            let ret = (kind == Kind::Ok).then_some(ret);
            Event { index, time, process, kind, op, ret, meta }
        },
    )
}
