//! Histories on disk: what is written comes back, a torn file reads up to the tear, a broken one says where.
//!
//! ```text
//! events ──> write ──> bytes ──> read ──> the same events
//!                        └─ cut at any byte ──> a prefix of them
//! ```

use std::sync::Arc;

use checkers::{
    Event, Header, History, Key, Kind, Meta, Mop, Op, Process, ReadMode, Ret, Value,
    jsonl::{self, ReadError},
};
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

fn event() -> impl Strategy<Value = Event> {
    let process = prop_oneof![8 => any::<u64>().prop_map(Process::Client), 1 => Just(Process::Nemesis), 1 => Just(Process::Observer)];
    let kind = prop::sample::select(vec![Kind::Invoke, Kind::Ok, Kind::Fail, Kind::Info]);
    (any::<u64>(), any::<u64>(), process, kind, op(), meta()).prop_map(
        |(index, time, process, kind, (op, ret), meta)| {
            let ret = (kind == Kind::Ok).then_some(ret);
            Event { index, time, process, kind, op, ret, meta }
        },
    )
}

fn header() -> Header {
    Header::new("register \"quoted\"", 7, "2026-01-02T03:04:05Z", vec!["n1".into(), "n2".into()])
}

fn write(events: &[Event]) -> Vec<u8> {
    let mut file = Vec::new();
    jsonl::write_header(&mut file, &header()).expect("a vector takes everything");
    for event in events {
        jsonl::write_event(&mut file, event).expect("well-formed");
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn what_is_written_comes_back(events in prop::collection::vec(event(), 0..6)) {
        let file = write(&events);
        prop_assert_eq!(jsonl::read(&file[..]).unwrap(), History::new(header(), events.clone()));
        // Every line is JSON to anybody.
        let text = String::from_utf8(file).unwrap();
        prop_assert_eq!(text.lines().count(), 1 + events.len());
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }

    #[test]
    fn a_file_cut_at_any_byte_reads_up_to_the_cut(events in prop::collection::vec(event(), 1..3)) {
        let file = write(&events);
        let ends: Vec<usize> = file.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
        for length in 0..=file.len() {
            let read = jsonl::read(&file[..length]);
            if length < ends[0] - 1 {
                prop_assert!(matches!(read, Err(ReadError::NoHeader)), "{} bytes: {:?}", length, read);
                continue;
            }
            let history = read.unwrap();
            // An event is whole when only the end of its line is missing.
            let whole = ends[1..].iter().filter(|end| **end <= length + 1).count();
            prop_assert!(history.events.iter().eq(events[..whole].iter().cloned()));
            let torn = !ends.iter().any(|end| *end == length || *end == length + 1);
            prop_assert_eq!(history.cut.is_some(), torn, "{} bytes: {:?}", length, history.cut);
            if let Some(cut) = history.cut {
                prop_assert_eq!(cut.offset as usize, ends[whole]);
                prop_assert_eq!((cut.offset + cut.dropped) as usize, length);
                prop_assert_eq!(cut.line as usize, whole + 2);
            }
        }
    }
}

/// A history of these lines, each with an end of line.
fn read_lines(lines: &[&str]) -> Result<History, ReadError> {
    let header = r#"{"format":"tribunal-history","version":1,"test":"t","seed":1,"started":"","nodes":[]}"#;
    let mut file = format!("{header}\n");
    for line in lines {
        file.push_str(line);
        file.push('\n');
    }
    jsonl::read(file.as_bytes())
}

const GOOD: &str = r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"read","key":1,"value":null}"#;

#[test]
fn the_format_is_the_documented_one() {
    let line = |kind, op, ret| {
        let meta = Meta { node: Some("n1".into()), rounds: Some(2), ..Meta::default() };
        let event = Event { index: 4, time: 1200, process: Process::Client(3), kind, op, ret, meta };
        let mut line = Vec::new();
        jsonl::write_event(&mut line, &event).unwrap();
        String::from_utf8(line).unwrap()
    };
    let key: Key = 9.into();
    let cas = Op::Cas { key: key.clone(), expected: Value::Nil, new: 2.into() };
    let swapped = Ret::Swapped { swapped: false, found: Some("x".into()) };
    assert_eq!(
        line(Kind::Ok, cas, Some(swapped)),
        "{\"index\":4,\"time\":1200,\"process\":3,\"type\":\"ok\",\"f\":\"cas\",\"key\":9,\"value\":[null,2],\
         \"swapped\":false,\"found\":\"x\",\"node\":\"n1\",\"rounds\":2}\n"
    );
    assert_eq!(
        line(Kind::Invoke, Op::Read { key, mode: ReadMode::ReadIndex }, None),
        "{\"index\":4,\"time\":1200,\"process\":3,\"type\":\"invoke\",\"f\":\"read\",\"key\":9,\"value\":null,\
         \"mode\":\"read-index\",\"node\":\"n1\",\"rounds\":2}\n"
    );
}

#[test]
fn a_broken_line_says_where() {
    let cases = [
        (r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"read","key":1,"value":null"#, 79, "EOF"),
        (
            r#"{"index":0,"time":1,"process":"nobody","type":"invoke","f":"read"}"#,
            38,
            "the number of a client",
        ),
        (r#"{"index":0,"time":1,"process":0,"type":"maybe","f":"read"}"#, 46, "unknown variant `maybe`"),
        (r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"write","value":1.5}"#, 71, "1.5"),
        (
            r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"write","value":[1,{}]}"#,
            73,
            "invalid type: map",
        ),
        (r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"write"}"#, 1, "write needs a \"value\""),
        (
            r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"cas","value":[1]}"#,
            1,
            "[expected,new], not [1]",
        ),
        (
            r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"read","mode":"fast"}"#,
            1,
            "lease, log, read-index",
        ),
        (r#"{"time":1,"process":0,"type":"invoke","f":"read"}"#, 49, "missing field `index`"),
        ("nonsense", 2, "expected"),
    ];
    for (line, at, expected) in cases {
        // In the middle, and at the end: a line with an end of line was written like this.
        for lines in [&[GOOD, line, GOOD][..], &[GOOD, line]] {
            let error = read_lines(lines).unwrap_err();
            let ReadError::Line { line: 3, column, problem } = &error else { panic!("{line}: {error:?}") };
            assert!(problem.contains(expected), "{line}: {problem}");
            assert_eq!(*column, at, "{line}: {problem}");
            assert!(error.to_string().starts_with("line 3, column "), "{error}");
        }
    }
}

#[test]
fn a_last_line_that_is_whole_but_wrong_is_not_a_cut() {
    let mut file = write(&[]);
    file.extend(br#"{"index":0,"time":1,"process":0,"type":"maybe","f":"read"}"#);
    assert!(matches!(jsonl::read(&file[..]), Err(ReadError::Line { line: 2, .. })));
    // What a file system may leave behind after a power failure is one.
    let mut file = write(&[]);
    file.extend([0; 100]);
    let cut = jsonl::read(&file[..]).unwrap().cut.unwrap();
    assert_eq!((cut.line, cut.dropped), (2, 100));
}

#[test]
fn strangers_fields_and_empty_lines_are_passed_over() {
    let more = GOOD.replace("\"time\"", "\"shoe-size\":[43],\"time\"");
    let history = read_lines(&[&more, "", "  "]).unwrap();
    assert_eq!(history.events, read_lines(&[GOOD]).unwrap().events);
}

#[test]
fn another_header_is_refused() {
    let read = |text: &str| jsonl::read(text.as_bytes()).unwrap_err().to_string();
    let newer = read("{\"format\":\"tribunal-history\",\"version\":2}\n");
    assert_eq!(
        newer,
        "the history is of version 2, but this build reads up to version 1; judge it with a newer build"
    );
    assert!(read("{\"format\":\"shopping\",\"version\":1}\n").contains("its format is \"shopping\""));
    assert!(read("{:type :invoke, :f :read}\n").contains("not the header of a tribunal history"));
    assert!(read("[]\n").contains("not the header of a tribunal history"));
    assert!(read("{\"format\":\"tribunal-history\",\"version\":0}\n").contains("no version 0"));
    assert!(read("").contains("ends before its header"));
}

#[test]
fn what_has_no_form_on_disk_is_refused_and_leaves_no_trace() {
    let event = |kind, op, ret| Event {
        index: 5,
        time: 1,
        process: Process::Client(2),
        kind,
        op,
        ret,
        meta: Meta::default(),
    };
    let read = || Op::Read { key: Value::Nil, mode: ReadMode::Default };
    let custom = Op::Custom { f: "read".into(), key: None, value: serde_json::Value::Null };
    for (event, expected) in [
        (event(Kind::Ok, read(), Some(Ret::Done)), "shape"),
        (event(Kind::Fail, read(), Some(Ret::Value(1.into()))), "only ok"),
        (event(Kind::Invoke, custom, None), "built-in name"),
    ] {
        let mut file = Vec::new();
        let error = jsonl::write_event(&mut file, &event).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().starts_with("event 5 of process 2"), "{error}");
        assert!(file.is_empty());
    }
}
