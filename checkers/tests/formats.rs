//! Histories of others: every dialect reads as what it says, and what is broken says where.
//!
//! ```text
//! formats/{lines,list,tuples}.edn, {array,lines}.json ──> the same events
//! events ──> edn, json ──> the same events
//! any bytes, cut and changed files ──> an error, never a panic
//! ```

mod common;

use checkers::{
    Event, Header, History, Kind, Op, OpOutcome, Process, Ret, Validity, Value, edn,
    formats::{self, Format, NilReads, Options, ReadError},
    json,
};
use common::event;
use proptest::prelude::*;

const CORPUS: [(&str, &str); 8] = [
    ("lines.edn", include_str!("formats/lines.edn")),
    ("list.edn", include_str!("formats/list.edn")),
    ("tuples.edn", include_str!("formats/tuples.edn")),
    ("keyed.edn", include_str!("formats/keyed.edn")),
    ("reused-process.edn", include_str!("formats/reused-process.edn")),
    ("everything.edn", include_str!("formats/everything.edn")),
    ("array.json", include_str!("formats/array.json")),
    ("lines.json", include_str!("formats/lines.json")),
];

fn file(name: &str) -> &'static str {
    CORPUS.iter().find(|file| file.0 == name).unwrap_or_else(|| panic!("no file {name}")).1
}

fn read(text: &str) -> History {
    let (history, _) = formats::read(text.as_bytes(), &Options::default()).unwrap();
    history.operations().unwrap_or_else(|error| panic!("{error}\n{text}"));
    history
}

fn error(text: &str) -> String {
    formats::read(text.as_bytes(), &Options::default()).unwrap_err().to_string()
}

/// The events, in words.
fn words(history: &History) -> Vec<String> {
    let line = |event: Event| {
        let answer = match &event.ret {
            Some(Ret::Value(value)) => format!(" -> {value}"),
            Some(Ret::Txn(found)) => format!(" -> {}", Value::List(found.clone())),
            Some(Ret::Swapped { swapped, found: None }) => format!(" -> {swapped}"),
            Some(ret @ (Ret::Swapped { .. } | Ret::Custom(_))) => format!(" -> {ret:?}"),
            Some(Ret::Done) | None => String::new(),
        };
        format!("{} {} {}{answer}", event.process, event.kind, event.op)
    };
    history.events.iter().map(line).collect()
}

#[test]
fn every_dialect_says_the_same() {
    let expected = [
        "0 invoke write of 1 to key nil",
        "1 invoke read of key nil",
        "0 ok write of 1 to key nil",
        "1 ok read of key nil -> 1",
        "nemesis info start (null)",
        r#"nemesis info start ([":isolated",{"n1":["n2","n3"]}])"#,
        "0 invoke compare-and-set of key nil from 1 to 2",
        "0 fail compare-and-set of key nil from 1 to 2",
    ];
    for name in ["lines.edn", "list.edn", "tuples.edn", "array.json", "lines.json"] {
        let history = read(file(name));
        assert_eq!(words(&history), expected, "{name}");
        assert_eq!(history.header, Header::new("imported", 0, "", vec![]), "{name}");
        let indexes: Vec<u64> = history.events.iter().map(|event| event.index).collect();
        assert_eq!(indexes, (0..8).collect::<Vec<_>>(), "{name}");
        if name != "tuples.edn" {
            assert_eq!(history.events.get(3).meta.node.as_deref(), Some("n1"), "{name}");
            assert_eq!(history.events.get(7).meta.error.as_deref(), Some(":precondition"), "{name}");
        }
    }
    let (_, format) = formats::read(file("lines.json").as_bytes(), &Options::default()).unwrap();
    assert_eq!(format, Format::Json);
}

#[test]
fn every_operation_is_known() {
    let expected = [
        r#"add of ":a" to key nil"#,
        r#"read of key nil -> [":a" ":b"]"#,
        r#"remove of ":a" from key nil"#,
        r#"look for ":a" in key nil -> false"#,
        r##"enqueue of "#edn 1.5" to key nil"##,
        r##"dequeue of key nil -> "#edn 1.5""##,
        "dequeue of key nil",
        "drain of key nil -> [3 1]",
        r##"push of "#edn 9223372036854775808" to key nil"##,
        "pop of key nil -> nil",
        r#"acquire of key nil for "c1" -> 5"#,
        r#"release of key nil for "c1""#,
        "generate of key nil -> 17",
        "transfer of 5 from 0 to 1",
        "read of key nil -> [[0 nil] [1 5]]",
        r#"txn [r ":x"; w ":y" 1; append "z" 2] -> [[3]]"#,
        r#"txn [r ":x"; r ":y"] -> [1 2]"#,
        r#"txn [w ":y" 2; w ":x" 3] -> []"#,
        r##"increment ({":by":2,":now":["#edn 1/2"]})"##,
        "write of 2 to key nil",
    ];
    let history = read(file("everything.edn"));
    let completed: Vec<String> = words(&history).into_iter().skip(1).step_by(2).collect();
    for (got, expected) in completed.iter().zip(expected) {
        let kind = if expected == "dequeue of key nil" { "fail" } else { "ok" };
        assert_eq!(*got, format!("0 {kind} {expected}"));
    }
    assert_eq!(completed.len(), expected.len());
}

#[test]
fn keys_are_found() {
    let keys = |history: &History| -> Vec<String> {
        history.events.iter().map(|event| event.op.key().map_or("-".into(), Value::to_string)).collect()
    };
    let keyed = read(file("keyed.edn"));
    assert_eq!(keys(&keyed), ["7", "7", "8", "8", "7", "7", "7", "7"]);
    assert_eq!(words(&keyed)[5], "0 ok compare-and-set of key 7 from 1 to 2 -> true");
    let is_keyed = |text: &str| *read(text).events.get(0).op.key().unwrap() != Value::Nil;
    for (text, expected) in [
        ("[0 :invoke :write #jepsen.independent.Tuple[1 2]]", true),
        ("[0 :invoke :write #clojure.lang.MapEntry[1 2]]", true),
        ("[0 :invoke :write [1 2]]", false),
        ("[0 :invoke :write [1 2]] [1 :invoke :read [1 nil]]", true),
        ("[0 :invoke :write [1 2]] [1 :invoke :read nil]", false),
        ("[0 :invoke :write [1 2]] [1 :invoke :cas [1 [2 3]]]", true),
        ("[0 :invoke :write [1 2]] [1 :invoke :cas [1 [2 3]]] [2 :invoke :read nil]", false),
        ("[0 :invoke :cas [nil [2 3]]]", false),
        ("[0 :invoke :cas [1 2]]", false),
        ("[0 :invoke :acquire [:lock nil]]", true),
    ] {
        assert_eq!(is_keyed(text), expected, "{text}");
    }
    let text = "[0 :invoke :write [1 2]]";
    for keyed in [true, false] {
        let options = Options { keyed: Some(keyed), ..Options::default() };
        let history = edn::read(text.as_bytes(), &options).unwrap();
        assert_eq!(history.events.get(0).op.key() == Some(&Value::Int(1)), keyed);
    }
    let txn = read("[0 :invoke :txn [7 [[:r :x nil]]]] [0 :ok :txn [7 [[:r :x 1]]]]");
    assert_eq!(words(&txn)[1], "0 ok txn [r [7 \":x\"]] -> [1]");
}

#[test]
fn a_process_that_is_used_again_gets_a_new_number() {
    let history = read(file("reused-process.edn"));
    let processes: Vec<String> = history.events.iter().map(|event| event.process.to_string()).collect();
    assert_eq!(processes, ["0", "0", "observer", "5", "5", "4"]);
    let outcomes: Vec<OpOutcome> =
        history.operations().unwrap().into_iter().map(|operation| operation.outcome).collect();
    assert_eq!(outcomes, [OpOutcome::Info, OpOutcome::Ok(Ret::Value(1.into())), OpOutcome::Info]);
}

#[test]
fn the_order_of_the_file_is_the_order_of_time() {
    let times = |text: &str| -> Vec<u64> { read(text).events.iter().map(|event| event.time).collect() };
    let file = |times: [&str; 4]| {
        times.iter().enumerate().fold(String::new(), |text, (process, time)| {
            format!("{text}{{:process {process} :type :invoke :f :read {time}}}\n")
        })
    };
    assert_eq!(times(&file(["", "", "", ""])), [0, 1, 2, 3]);
    assert_eq!(times(&file([":time 50", ":time 40", ":time 40", ":time 90"])), [50, 51, 52, 90]);
    assert_eq!(times(&file([":time -5", ":time 7", "", ":time 1.5e3"])), [0, 7, 8, 1500]);
}

#[test]
fn a_read_of_nil_may_say_nothing() {
    let text = "[0 :invoke :read nil] [0 :ok :read nil]";
    let options = Options { nil_reads: NilReads::Unknown, ..Options::default() };
    let history = edn::read(text.as_bytes(), &options).unwrap();
    assert_eq!(history.events.get(1).kind, Kind::Fail);
    assert_eq!(read(text).events.get(1).ret, Some(Ret::Value(Value::Nil)));
}

#[test]
fn what_did_not_swap_is_a_failure_to_jepsen_and_an_observation_to_us() {
    let op = Op::Cas { key: Value::Nil, expected: 1.into(), new: 2.into() };
    let event = |index: u64, kind, ret| Event {
        index,
        time: index,
        process: Process::Client(0),
        kind,
        op: op.clone(),
        ret,
        meta: Default::default(),
    };
    let ret = Ret::Swapped { swapped: false, found: Some(7.into()) };
    let events = vec![event(0, Kind::Invoke, None), event(1, Kind::Ok, Some(ret))];
    let history = History::new(Header::new("t", 1, "", vec![]), events);
    let mut file = Vec::new();
    edn::write(&mut file, &history).unwrap();
    let text = String::from_utf8(file).unwrap();
    assert_eq!(
        text.lines().nth(1),
        Some("{:index 1, :time 1, :type :fail, :process 0, :f :cas, :value [1 2], :swapped false, :found 7}")
    );
    assert_eq!(read(&text), history);
    // Without the header it is anybody's, and means the same.
    let anybodys: String = text
        .lines()
        .map(|line| line.split(", :tribunal").next().unwrap_or_default())
        .fold(String::new(), |text, line| {
            format!("{text}{}{}\n", line, if line.ends_with('}') { "" } else { "}" })
        });
    assert_eq!(read(&anybodys).events, history.events);
}

#[test]
fn what_is_broken_says_where() {
    for (text, expected) in [
        (
            "{:type :invoke :f :read :process 0}\n{:type :ok :f",
            "line 2, column 1: what begins here has no end",
        ),
        ("[{:type :invoke :f :read :process 0}", "line 1, column 1: what begins here has no end"),
        ("{:type :invoke :f}", "line 1, column 18: expected the value of :f, found '}'"),
        ("{:type :invoke,\n :f @x}", "line 2, column 5: expected a form, found '@'"),
        ("{:type :invoke :f :read}", "line 1, column 1: an event needs a process"),
        ("{:f :read :process 0}", "column 1: an event needs a type"),
        ("{:type :okay :process 0}", "a type is invoke, ok, fail or info, not :okay"),
        ("{:type :ok :type :ok}", "the event has two fields type"),
        ("{:type :ok :process -1}", "a process is a number from 0 or a name such as nemesis, not -1"),
        (
            "\n  [0 :ok :read 5]",
            "line 2, column 3: process 0 completes (ok) read, but has no open invocation",
        ),
        ("[0 :invoke :read nil]\n[0 :invoke :read nil]", "line 2, column 1: process 0 invokes read while"),
        ("[0 :invoke :read nil]\n[0 :ok :write 1]", "line 2, column 1: process 0 completes write, but"),
        ("[0 :invoke :cas 5]", "the value of cas is [expected new], found a whole number: 5"),
        ("[0 :invoke :txn [[:cas 1 2]]]", "expected a micro-operation"),
        (
            "[0 :invoke :write #jepsen.independent.Tuple[1 2]]\n[1 :invoke :read 5]",
            "line 2, column 1: read needs a value of [key value]",
        ),
        (
            "{:process 0 :type :invoke :f :read :index 5}\n{:process 1 :type :invoke :f :read :index 5}",
            "line 2, column 1: the index 5 follows the index 5",
        ),
        ("(5)", "expected an event, a map such as"),
        ("[{:a 1}]\n]", "line 1, column 2: an event needs a process"),
        ("{:a \"\\q\"}", "line 1, column 6: \\q is no escape in a string"),
        ("{\"type\":\"ok\",\n \"f\" 1}", "line 2, column 6: expected ':', found '1'"),
        (
            "[{\"type\":\"info\",\"process\":\"nemesis\"} {}]",
            "line 1, column 38: expected ',' or ']', found '{'",
        ),
        ("{\"type\":tru}", "line 1, column 9: expected a value, found tru"),
        ("name: x", "line 1, column 1: a history begins with a map, a list or a comment, found 'n'"),
        ("", "the file is empty"),
        (
            "{:process 0 :type :info :tribunal {\"format\" \"tribunal-history\" \"version\" 2}}",
            "the history is of version 2",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}\n  {error}\n  {expected}");
    }
    let bytes = b"{:type :ok :process \"\xff\"}";
    let error = edn::read(&bytes[..], &Options::default()).unwrap_err();
    assert!(matches!(error, ReadError::Malformed { line: 1, column: 22, .. }), "{error}");
}

#[test]
fn depth_is_bounded() {
    for open in ["[", "(", "{", "#{", "#a ", "{:a ", "[{", "#_ ", "[#_"] {
        for depth in [10_000, 300_000] {
            let text = format!("{{:process {}", open.repeat(depth));
            let error = edn::read(text.as_bytes(), &Options::default()).unwrap_err().to_string();
            assert!(error.contains("more than 512 deep"), "{open}: {error}");
        }
    }
    let error = error(&format!("{{\"a\":{}", "[".repeat(100_000)));
    assert!(error.contains("more than 512 deep"), "{error}");
    // Deeper than other readers can take.
    let deep = |depth| format!("[0 :invoke :write {}{}]", "[".repeat(depth), "]".repeat(depth));
    assert!(self::error(&deep(101)).contains("more than 100 deep"));
    let history = read(&deep(100));
    for format in Format::ALL {
        let mut file = Vec::new();
        formats::write(&mut file, &history, format).unwrap();
        assert_eq!(formats::read(&file[..], &Options::default()).unwrap().0, history, "{format}");
    }
}

#[test]
fn a_file_longer_than_the_window_is_read() {
    let mut text = String::from("[\n");
    for number in 0..20_000u32 {
        text.push_str(&format!("{{:process 0, :type :invoke, :f :write, :value \"{number}\"}} ; x\n"));
        text.push_str(&format!("{{:process 0, :type :ok, :f :write, :value \"{number}\"}}\n"));
    }
    text.push(']');
    assert_eq!(read(&text).events.len(), 40_000);
    let broken = format!("{}  @", &text[..text.len() - 1]);
    assert!(
        error(&broken).starts_with("line 40002, column 3: expected a form, found '@'"),
        "{}",
        error(&broken)
    );
    let long = format!("{{:process 0, :type :invoke, :f :write, :value \"{}\"}}", "x".repeat(3_000_000));
    assert_eq!(read(&long).events.len(), 1);
}

#[test]
fn a_cut_file_is_never_read_as_a_whole_one() {
    for (name, text) in CORPUS {
        let whole = read(text).events.len();
        for length in (0..text.len()).filter(|length| text.is_char_boundary(*length)) {
            match formats::read(&text.as_bytes()[..length], &Options::default()) {
                Ok((history, _)) => assert!(history.events.len() <= whole, "{name} cut at {length}"),
                Err(error) => assert!(
                    !matches!(error, ReadError::Jsonl(_)) || length < 12,
                    "{name} cut at {length}: {error}"
                ),
            }
        }
    }
}

#[test]
fn the_corpus_survives_every_format() {
    for (name, text) in CORPUS {
        let history = read(text);
        for format in Format::ALL {
            let mut file = Vec::new();
            formats::write(&mut file, &history, format).unwrap();
            let (again, found) = formats::read(&file[..], &Options::default())
                .unwrap_or_else(|error| panic!("{name} as {format}: {error}"));
            assert_eq!((&again, found), (&history, format), "{name}\n{}", String::from_utf8_lossy(&file));
        }
    }
}

#[test]
fn a_history_of_jepsens_is_judged() {
    use checkers::{Budget, Checker, linearizable_by, models::CasRegister};
    let judge = |text: &str| {
        let checker = linearizable_by(CasRegister { initial: 0.into() });
        checker.check(&read(text), &Budget::unlimited()).validity
    };
    let good = "[0 :invoke :read nil] [1 :invoke :write 5] [0 :ok :read 0] [1 :ok :write 5] [0 :invoke :read nil] [0 :ok :read 5]";
    assert_eq!(judge(good), Validity::Valid);
    assert_eq!(judge(&good.replace("[0 :ok :read 5]", "[0 :ok :read 0]")), Validity::Invalid);
}

fn header() -> Header {
    Header::new("a \":test\"", 7, "2026-01-02T03:04:05Z", vec!["n1".into(), ":n2".into(), "#edn 1.5".into()])
}

/// Any bytes that look a bit like a history.
fn almost() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            "(",
            ")",
            "#{",
            "#",
            "#_",
            "\"",
            "\\",
            ";",
            "\n",
            ":",
            ",",
            " ",
            "nil",
            "null",
            ":type",
            ":process",
            ":value",
            "\"type\":",
            "\"process\":",
            ":invoke",
            ":ok",
            "\"ok\"",
            ":f",
            ":read",
            ":txn",
            "0",
            "-",
            "1.5",
            "1/0",
            "9999999999999999999N",
            "1e999",
            "#a",
            "#edn ",
            "##NaN",
            "\\u",
            "\\ud800",
            "{:type :invoke :process 0 :f :read}",
            "[0 :ok :read 5]",
            ":tribunal",
            "\u{feff}",
            "é",
        ])
        .prop_map(|part| part.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// Reads as every format; what can be read can be written and read again.
fn survives(bytes: &[u8]) {
    let options = Options::default();
    let histories = [
        formats::read(bytes, &options).map(|read| read.0),
        edn::read(bytes, &options),
        json::read(bytes, &options),
    ];
    for history in histories.into_iter().flatten() {
        let _ = history.operations();
        for format in Format::ALL {
            let mut file = Vec::new();
            if formats::write(&mut file, &history, format).is_ok() && !history.events.is_empty() {
                let again = formats::read(&file[..], &options).unwrap().0;
                assert_eq!(again.events, history.events, "{format}: {}", String::from_utf8_lossy(&file));
            }
        }
    }
}

/// What the first line says may come late, and a byte at a time.
#[test]
fn a_file_may_begin_with_blanks() {
    struct Slow<'a>(&'a [u8]);
    impl std::io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let at_most = buffer.len().min(1);
            self.0.read(&mut buffer[..at_most])
        }
    }
    for blank in ["\n", " \n\n", "\u{feff}\n", "\t"] {
        survives(blank.as_bytes());
        let error = formats::read(blank.as_bytes(), &Options::default()).unwrap_err();
        assert!(matches!(error, formats::ReadError::Empty), "{blank:?}: {error}");
    }
    let json = "\n[\n\n{\"process\":0,\"type\":\"invoke\",\"f\":\"write\",\"value\":1}\n]\n";
    let edn = "\n[\n\n{:process 0, :type :invoke, :f :write, :value 1}\n]\n";
    for (text, format) in [(json, Format::Json), (edn, Format::Edn)] {
        let slow = std::io::BufReader::with_capacity(1, Slow(text.as_bytes()));
        assert_eq!(formats::read(slow, &Options::default()).unwrap().1, format);
        survives(text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn what_is_written_comes_back(events in prop::collection::vec(event(), 1..6)) {
        let history = History::new(header(), events);
        for format in [Format::Edn, Format::Json] {
            let mut file = Vec::new();
            formats::write(&mut file, &history, format).unwrap();
            let text = String::from_utf8_lossy(&file).into_owned();
            let (again, found) = formats::read(&file[..], &Options::default())
                .map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(found, format, "{}", text);
            prop_assert_eq!(&again, &history, "{}", text);
            if format == Format::Json {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_history(bytes in almost()) {
        survives(&bytes);
    }

    #[test]
    fn a_changed_file_is_an_error_or_a_history(
        file in prop::sample::select(CORPUS.map(|file| file.1).to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let mut bytes = file.as_bytes().to_vec();
        for (place, byte, how) in changes {
            let place = place.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        survives(&bytes);
    }
}
