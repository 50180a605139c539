//! Events to the fields that Jepsen would write, with our own beside them.
//!
//! ```text
//! Event { ok, Cas { 1, 2 }, Swapped { false, found 7 } }
//!   ->  :type :fail, :f :cas, :value [1 2], :swapped false, :found 7
//! ```
//!
//! What Jepsen knows is spelled as Jepsen does, so that its checkers judge it alike; what it does not know stands in
//! fields that it passes over, so that reading gives back exactly what was written. The first event carries the header.
//! Deliberately without a syntax: [`edn`](crate::edn) and [`json`](crate::json) have one each.

use std::io;

use serde_json::{Value as Json, json};

use crate::{Event, History, Kind, Meta, Mop, Op, Process, ReadMode, Ret, Value, history::op::BUILT_IN};

/// A part of an event, to be written in one syntax or the other.
pub(crate) enum Node<'a> {
    Nil,
    Bool(bool),
    Number(u64),
    Amount(i64),
    /// A keyword in EDN, a string in JSON.
    Word(&'a str),
    Text(&'a str),
    Value(&'a Value),
    Json(&'a Json),
    OwnJson(Json),
    List(Vec<Node<'a>>),
    Map(Vec<(&'static str, Node<'a>)>),
}

/// The fields of an event, in order.
pub(crate) type Fields<'a> = Vec<(&'static str, Node<'a>)>;

/// Hands over the fields of every event.
///
/// # Errors
/// What `each` reports; and [`io::ErrorKind::InvalidInput`] for an event that has no form on disk.
pub(crate) fn fields(
    history: &History,
    mut each: impl FnMut(&Fields<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let keyed = history.events.iter().any(|event| match &event.op {
        Op::Custom { .. } => false,
        op => op.key().is_some_and(|key| *key != Value::Nil),
    });
    for (place, event) in history.events.iter().enumerate() {
        let mut fields = describe(&event, keyed)?;
        if place == 0 {
            let mut header = serde_json::to_value(&history.header)?;
            header["keyed"] = json!(keyed);
            fields.push(("tribunal", Node::OwnJson(header)));
        }
        each(&fields)?;
    }
    Ok(())
}

fn describe(event: &Event, keyed: bool) -> io::Result<Fields<'_>> {
    check(event)?;
    let mut fields: Fields<'_> = vec![
        ("index", Node::Number(event.index)),
        ("time", Node::Number(event.time)),
        ("type", Node::Word(event.kind.name())),
        (
            "process",
            match event.process {
                Process::Client(number) => Node::Number(number),
                Process::Nemesis => Node::Word("nemesis"),
                Process::Observer => Node::Word("observer"),
            },
        ),
        ("f", Node::Word(event.op.f())),
    ];
    let value = value(event);
    match (&event.op, event.op.key()) {
        (Op::Custom { .. }, key) => {
            fields.push(("value", value));
            fields.extend(key.map(|key| ("key", Node::Value(key))));
        }
        (_, Some(key)) if keyed => fields.push(("value", Node::List(vec![Node::Value(key), value]))),
        _ => fields.push(("value", value)),
    }
    if let Op::Read { mode, .. } = &event.op
        && *mode != ReadMode::Default
    {
        fields.push(("mode", Node::Word(mode.name())));
    }
    match &event.ret {
        Some(Ret::Swapped { swapped, found }) => {
            if !swapped {
                // To Jepsen a compare-and-set that did not swap is a failure; an ok would mean that it swapped.
                fields[2].1 = Node::Word(Kind::Fail.name());
                fields.push(("swapped", Node::Bool(false)));
            }
            fields.extend(found.as_ref().map(|found| ("found", Node::Value(found))));
        }
        Some(Ret::Value(value)) if !event.op.asks() => fields.push(("ret", Node::Value(value))),
        Some(Ret::Custom(json)) => fields.push(("ret", Node::Json(json))),
        _ => {}
    }
    push_meta(&mut fields, &event.meta);
    Ok(fields)
}

/// The argument, or the answer in its place.
fn value(event: &Event) -> Node<'_> {
    match (&event.op, &event.ret) {
        (op, Some(Ret::Value(value))) if op.asks() => Node::Value(value),
        (Op::Txn { mops }, ret) => {
            let mut found = match ret {
                Some(Ret::Txn(found)) => found.iter(),
                _ => [].iter(),
            };
            let mops = mops.iter().map(|mop| {
                let value = match mop {
                    Mop::Read { .. } => found.next().map_or(Node::Nil, Node::Value),
                    Mop::Write { value, .. } | Mop::Append { value, .. } => Node::Value(value),
                };
                Node::List(vec![Node::Word(mop.f()), Node::Value(mop.key()), value])
            });
            Node::List(mops.collect())
        }
        (
            Op::Write { value, .. }
            | Op::Append { value, .. }
            | Op::Add { value, .. }
            | Op::Enqueue { value, .. }
            | Op::Remove { value, .. }
            | Op::Contains { value, .. }
            | Op::Push { value, .. }
            | Op::Acquire { owner: value, .. }
            | Op::Release { owner: value, .. },
            _,
        ) => Node::Value(value),
        (Op::Cas { expected, new, .. }, _) => Node::List(vec![Node::Value(expected), Node::Value(new)]),
        (Op::Transfer { from, to, amount }, _) => Node::Map(vec![
            ("from", Node::Value(from)),
            ("to", Node::Value(to)),
            ("amount", Node::Amount(*amount)),
        ]),
        (Op::Custom { value, .. }, _) => Node::Json(value),
        _ => Node::Nil,
    }
}

fn push_meta<'a>(fields: &mut Fields<'a>, meta: &'a Meta) {
    let Meta { node, path, error, intended, commit_ns, slot, ballot, rounds, forwarded, phase } = meta;
    let texts = [("node", node), ("path", path), ("error", error), ("ballot", ballot), ("phase", phase)];
    fields.extend(texts.into_iter().filter_map(|(name, text)| Some((name, Node::Text(text.as_deref()?)))));
    let rounds = rounds.map(u64::from);
    let numbers = [("intended", *intended), ("commit_ns", *commit_ns), ("slot", *slot), ("rounds", rounds)];
    fields.extend(numbers.into_iter().filter_map(|(name, number)| Some((name, Node::Number(number?)))));
    fields.extend(forwarded.map(|forwarded| ("forwarded", Node::Bool(forwarded))));
}

/// Refuses what would not come back.
fn check(event: &Event) -> io::Result<()> {
    let problem = match (&event.ret, event.kind, &event.op) {
        (_, _, Op::Custom { f, .. }) if BUILT_IN.contains(&&**f) => {
            "a custom operation takes a built-in name; use the operation of that name"
        }
        (None, Kind::Ok, op) if op.must_answer() => "an ok of this operation needs an answer",
        (Some(_), kind, _) if kind != Kind::Ok => "only ok may carry an answer",
        (Some(ret), _, op) if !op.accepts(ret) => "the answer has a shape that this operation cannot get",
        _ => return Ok(()),
    };
    let message = format!(
        "event {} of process {} ({} {}): {problem}",
        event.index, event.process, event.kind, event.op
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}
