//! Joining invocations to completions, and every way in which a history is no history.
//!
//! ```text
//! "0 invoke r", "0 ok r 5"   ->   one operation
//! "0 ok r 5"                 ->   event 0 of process 0: it completes (ok) read, but …
//! ```

use checkers::{
    Budget, Event, Header, History, HistoryError, Kind, Meta, ModelName, Op, OpOutcome, Problem, Process,
    ReadMode, Ret, Validity, linearizable,
};

fn event(index: u64, process: u64, kind: Kind, op: Op, ret: Option<Ret>) -> Event {
    Event { index, time: index * 10, process: Process::Client(process), kind, op, ret, meta: Meta::default() }
}

fn read(key: i64) -> Op {
    Op::Read { key: key.into(), mode: ReadMode::Default }
}

fn write(value: i64) -> Op {
    Op::Write { key: 1.into(), value: value.into() }
}

fn five() -> Option<Ret> {
    Some(Ret::Value(5.into()))
}

fn history(events: Vec<Event>) -> History {
    History::new(Header::new("pairing", 0, "", vec![]), events)
}

fn problem(events: Vec<Event>) -> HistoryError {
    let history = history(events);
    let error = history.operations().unwrap_err();
    // A checker says so too, and does not guess.
    let verdict = checkers::Checker::check(&linearizable(ModelName::Kv), &history, &Budget::unlimited());
    assert_eq!(verdict.validity, Validity::Unknown);
    assert!(verdict.reason.unwrap().contains(&error.to_string()));
    error
}

#[test]
fn joins_by_process() {
    use Kind::*;
    let mut late = event(0, 1, Invoke, write(7), None);
    late.meta =
        Meta { intended: Some(3), node: Some("n1".into()), phase: Some("load".into()), ..Meta::default() };
    let mut done = event(4, 1, Ok, write(7), Some(Ret::Done));
    done.meta = Meta {
        node: Some("n2".into()),
        path: Some("1-rtt".into()),
        commit_ns: Some(9),
        intended: Some(4),
        ..Meta::default()
    };
    let nemesis = |index| Event {
        process: Process::Nemesis,
        ..event(
            index,
            0,
            Info,
            Op::Custom { f: "kill".into(), key: None, value: serde_json::Value::Null },
            None,
        )
    };
    let operations = history(vec![
        late,
        nemesis(1),
        event(2, 2, Invoke, read(1), None),
        nemesis(3),
        done,
        event(5, 1, Invoke, read(1), None),
        event(6, 2, Info, read(1), None),
        event(7, 1, Fail, read(1), None),
        event(8, 1, Invoke, write(8), None),
    ])
    .operations()
    .unwrap();
    let shape: Vec<_> =
        operations.iter().map(|o| (o.id, o.process, o.call, o.ret, o.call_index, o.ret_index)).collect();
    assert_eq!(
        shape,
        [
            (0, 1, 0, Some(40), 0, Some(4)),
            (1, 2, 20, None, 2, Some(6)),
            (2, 1, 50, Some(70), 5, Some(7)),
            (3, 1, 80, None, 8, None),
        ]
    );
    let outcomes: Vec<_> = operations.iter().map(|o| o.outcome.clone()).collect();
    assert_eq!(outcomes, [OpOutcome::Ok(Ret::Done), OpOutcome::Info, OpOutcome::Fail, OpOutcome::Info]);
    let meta = &operations[0].meta;
    assert_eq!(
        (meta.node.as_deref(), meta.path.as_deref(), meta.phase.as_deref()),
        (Some("n1"), Some("1-rtt"), Some("load"))
    );
    assert_eq!((meta.intended, meta.commit_ns), (Some(3), Some(9)));
}

#[test]
fn a_write_may_be_silent_about_its_success() {
    let operations =
        history(vec![event(0, 1, Kind::Invoke, write(7), None), event(1, 1, Kind::Ok, write(7), None)]);
    assert_eq!(operations.operations().unwrap()[0].outcome, OpOutcome::Ok(Ret::Done));
}

#[test]
fn a_custom_completion_may_fill_in_its_value() {
    let custom = |value: i64| Op::Custom { f: "drain".into(), key: None, value: value.into() };
    let events = vec![event(0, 1, Kind::Invoke, custom(0), None), event(1, 1, Kind::Ok, custom(3), None)];
    assert_eq!(history(events).operations().unwrap()[0].op, custom(0));
}

#[test]
fn every_malformed_history_is_named() {
    use Kind::*;
    use Problem::*;
    let invoke = |index| event(index, 1, Invoke, read(1), None);
    let cases = [
        (vec![event(3, 1, Ok, read(1), five())], NotInvoked { kind: Ok, f: "read".into() }),
        (
            vec![invoke(0), event(1, 1, Ok, read(1), five()), event(2, 1, Fail, read(1), None)],
            NotInvoked { kind: Fail, f: "read".into() },
        ),
        (vec![invoke(4), event(5, 1, Invoke, write(2), None)], AlreadyOpen { f: "write".into(), open: 4 }),
        (vec![invoke(0), event(1, 1, Info, read(1), None), invoke(2)], Retired { f: "read".into(), info: 1 }),
        (
            vec![invoke(0), event(1, 1, Ok, read(2), five())],
            Mismatch { invoked: "read of key 1".into(), completed: "read of key 2".into(), open: 0 },
        ),
        (
            vec![event(0, 1, Invoke, write(1), None), event(1, 1, Ok, write(2), Some(Ret::Done))],
            Mismatch {
                invoked: "write of 1 to key 1".into(),
                completed: "write of 2 to key 1".into(),
                open: 0,
            },
        ),
        (vec![invoke(0), event(1, 1, Ok, read(1), None)], NoAnswer { op: "read of key 1".into() }),
        (
            vec![invoke(0), event(1, 1, Ok, read(1), Some(Ret::Done))],
            WrongAnswer { op: "read of key 1".into(), ret: "Done".into() },
        ),
        (vec![invoke(0), event(1, 1, Fail, read(1), five())], UnexpectedAnswer { kind: Fail }),
        (vec![event(0, 1, Invoke, read(1), five())], UnexpectedAnswer { kind: Invoke }),
        (vec![invoke(7), event(7, 2, Invoke, read(1), None)], IndexOrder { previous: 7 }),
        (vec![invoke(7), event(6, 2, Invoke, read(1), None)], IndexOrder { previous: 7 }),
        (
            vec![invoke(5), Event { time: 49, ..event(6, 1, Ok, read(1), five()) }],
            TimeBackwards { time: 49, previous: 50 },
        ),
        (
            vec![invoke(5), event(6, 1, Ok, read(1), five()), Event { time: 59, ..invoke(7) }],
            TimeBackwards { time: 59, previous: 60 },
        ),
    ];
    for (events, expected) in cases {
        let last = events.last().unwrap().clone();
        let error = problem(events);
        assert_eq!(error.problem, expected);
        assert_eq!((error.index, error.process), (last.index, last.process));
        assert!(
            error.to_string().starts_with(&format!("event {} of process {}: ", last.index, last.process)),
            "{error}"
        );
    }
}
