//! Histories on disk: what is written comes back, a torn file reads up to the tear, a broken one says where.
//!
//! ```text
//! events ──> write ──> bytes ──> read ──> the same events
//!                        └─ cut at any byte ──> a prefix of them
//! ```

mod common;

use checkers::{
    Event, Header, History, Key, Kind, Meta, Op, Process, ReadMode, Ret, Value,
    jsonl::{self, ReadError},
};
use common::event;
use proptest::prelude::*;

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
