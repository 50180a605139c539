//! Why a key is not linearizable, as data, in words and as a picture.
//!
//! ```text
//! read of key 3 by process 7 returned 41, but given everything that returned before, the key could only hold 52 or 53
//! (operation 12, 1.204 ms to 3.980 ms). 41 was written by operation 4 of process 2, which had ended 0.310 ms before.
//!
//! process 2  |- w 41 -|
//! process 4            |- w 52 -|
//! process 7                      |= r -> 41 =|
//! ```
//!
//! `details`, all by ids of operations:
//!
//! | field | what |
//! |---|---|
//! | `key` | which key |
//! | `operation` | the first operation whose return cannot be: everything that returned before is linearizable |
//! | `first` | whether it is the first of the whole key, not only of the evidence |
//! | `previous_ok` | the operation of the key that returned last before it; `null` if none did |
//! | `prefix_len` | how many judged operations of the key were called up to that return |
//! | `states` | every state that is possible just before that return; at most 16, see `states_truncated` |
//! | `configs` | the same, each with the operations that were `pending` in it |
//! | `minimal` | a smallest part that is still not linearizable |
//! | `shrink_runs` | how many trials that took |
//! | `orders` | how far the minimal part can be put in order; see [`evidence`](super::evidence) |
//! | `window` | the minimal part and what was going on around it: `id process f label call ret kind` |
//!
//! Deliberately no guess at the cause: what was written where is stated, what went wrong inside is for a person.

use serde_json::{Value as Json, json};

use super::{
    evidence::{self, object},
    judge::{Guilt, Why, calls_of, whole_for},
    record::is_judged,
    shrink,
};
use crate::{
    Anomaly, Budget, OpOutcome, Operation, Operations, Ret, Value,
    history::{datum::Datum, events::F, operations::End, timeline},
    model::{Effect, Model},
};

/// The most operations in the picture, unless the minimal part alone has more.
const WINDOW: usize = 10;
/// The most operations of a minimal part that are drawn in text.
const MAX_DRAWN: usize = 24;
/// The most that are told as data, and how many may be told for company.
const MAX_TOLD: usize = 100;
const COMPANY: usize = 8;

/// Explains one invalid key; `key` is `None` if all keys were judged together.
pub(super) fn explain<M: Model>(
    model: &M,
    operations: &Operations<'_>,
    key: Option<Datum>,
    guilt: &Guilt,
    unobservable: usize,
    budget: &Budget,
) -> Anomaly {
    let part = whole_for(model, operations, &guilt.part);
    let calls = calls_of(&part);
    // It was fitted to the whole key before; the same calls fit again.
    let shapes: Vec<_> = calls.iter().map(|call| (call.op, call.ret)).collect();
    let model = model.fit(&shapes).unwrap_or_else(|_| model.clone());
    let prefix = shrink::prefix(&model, &calls, guilt.operation);
    let prefix_len = prefix.len();
    let (small, runs) = match guilt.why {
        // Without all that their answers are made of they would prove anything.
        Why::Element(_) => (prefix, 0),
        _ => shrink::shrink(&model, prefix, guilt.operation, budget),
    };
    let (longest_order, orders) = match guilt.why {
        Why::Element(_) => (None, json!({"skipped": "their answers are too long"})),
        _ => evidence::tell(&model, &small, &part),
    };
    let mut minimal: Vec<usize> = small.iter().map(|call| call.id).collect();
    minimal.sort_unstable();

    let guilty = operations.get(guilt.operation);
    let origin = key.and_then(|key| origin(&model, operations, key, &guilty));
    let named = origin.as_ref().and_then(|(_, writer)| *writer);
    let previous_ok = previous_ok(operations, key, &guilty);
    let whole = |mut ids: Vec<usize>| -> Vec<Operation> {
        ids.sort_unstable();
        ids.into_iter().map(|id| operations.get(id)).collect()
    };
    let drawn = whole(window(&part, &guilty, &minimal, named, MAX_DRAWN, WINDOW));
    let told = WINDOW.max(minimal.len() + COMPANY).min(MAX_TOLD);
    let told = whole(window(&part, &guilty, &minimal, named, MAX_TOLD, told));
    let key = key.map(|key| operations.values().get(key));
    let states: Json = guilt.configs.iter().map(|(_, state, _)| state.clone()).collect();
    let config = |(_, state, pending): &(String, Json, Vec<usize>)| {
        object([("state", state.clone()), ("pending", pending.clone().into())])
    };
    let configs: Json = guilt.configs.iter().map(config).collect();
    let mut message = message(&guilty, guilt, unobservable, origin.as_ref());
    if let Some(longest_order) = longest_order {
        message.push('\n');
        message.push_str(&longest_order);
    }
    Anomaly {
        name: "not-linearizable".into(),
        message,
        details: object([
            ("key", json!(key)),
            ("operation", guilt.operation.into()),
            ("first", (guilt.why == Why::NoState).into()),
            ("previous_ok", previous_ok.into()),
            ("prefix_len", prefix_len.into()),
            ("states", states),
            ("states_truncated", guilt.more.into()),
            ("configs", configs),
            ("minimal", minimal.clone().into()),
            ("shrink_runs", runs.into()),
            ("orders", orders),
            ("window", told.iter().map(entry).collect()),
        ]),
        picture: Some(timeline::draw(&drawn.iter().collect::<Vec<_>>(), &[guilt.operation])),
        operations: minimal,
    }
}

/// What is said of a return that cannot be while the run goes on.
pub(super) fn online(key: &Value, guilty: &Operation, states: &[String], local: bool) -> Anomaly {
    const SHOWN: usize = 5;
    let mut held = states.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(" or ");
    if states.len() > SHOWN {
        held.push_str(&format!(" or one of {} more", states.len() - SHOWN));
    }
    let message = format!(
        "{} by process {} {}, but given everything that returned before, the key could only hold {held} (operation {}, {} to {}).",
        guilty.op,
        guilty.process,
        short(answer(guilty)),
        guilty.id,
        ms(guilty.call),
        ms(guilty.ret.unwrap_or(guilty.call)),
    );
    Anomaly {
        name: "not-linearizable".into(),
        message,
        details: json!({
            "key": if local { json!(key) } else { Json::Null },
            "operation": guilty.id,
            "first": true,
            "states": states,
        }),
        picture: None,
        operations: vec![guilty.id],
    }
}

/// The judged operation of the key that returned last before this one did; of several at once the one that was called last.
fn previous_ok(operations: &Operations<'_>, key: Option<Datum>, guilty: &Operation) -> Option<usize> {
    let (time, index) = guilty.ret.zip(guilty.ret_index)?;
    let before = |id: &usize| {
        let ret = operations.raw(*id).ret;
        ret < time || ret == time && operations.get(*id).ret_index < Some(index)
    };
    (0..operations.len())
        .filter(|id| key.is_none() || operations.key(*id) == key)
        .filter(|id| operations.end(*id) == End::Ok && is_judged(operations, *id) && before(id))
        .max_by_key(|id| operations.raw(*id).ret)
}

/// What to draw: the operation that the message names, the minimal part (at most so many of it), then what overlaps the guilty
/// operation, then what came shortly before, until there are `enough`.
fn window(
    part: &[Operation],
    guilty: &Operation,
    minimal: &[usize],
    named: Option<usize>,
    most: usize,
    enough: usize,
) -> Vec<usize> {
    let (call, ret) = (guilty.call, guilty.ret.unwrap_or(u64::MAX));
    let mut window: Vec<usize> = vec![guilty.id];
    window.extend(named.filter(|named| !minimal.contains(named)));
    window.extend(minimal.iter().rev().filter(|id| **id != guilty.id).take(most - 1));
    let overlaps = |other: &&Operation| other.call <= ret && other.ret.is_some_and(|end| end >= call);
    let before = |other: &&Operation| other.ret.is_some_and(|end| end < call);
    for other in part.iter().filter(overlaps).chain(part.iter().rev().filter(before)) {
        if window.len() >= enough {
            break;
        }
        if !window.contains(&other.id) {
            window.push(other.id);
        }
    }
    window
}

/// An operation as data.
fn entry(operation: &Operation) -> Json {
    json!({
        "id": operation.id,
        "process": operation.process,
        "f": operation.op.f(),
        "label": timeline::label(operation),
        "call": operation.call,
        "ret": operation.ret,
        "kind": match operation.outcome {
            OpOutcome::Ok(_) => "ok",
            OpOutcome::Fail => "fail",
            OpOutcome::Info => "info",
        },
    })
}

fn message(guilty: &Operation, guilt: &Guilt, unobservable: usize, origin: Option<&Origin>) -> String {
    let why = match &guilt.why {
        Why::NoState => {
            format!("given everything that returned before, the key could only hold {}", held(guilt))
        }
        Why::NoStateOfEvidence => {
            format!(
                "given the operations shown that returned before, the key could only hold {}",
                held(guilt)
            )
        }
        Why::ThinAir => "nothing can have left that value".to_string(),
        Why::Values => "the operations about one value are in the way of those about another".to_string(),
        Why::Element(element) => {
            format!("what the operations shown say of the element {element} contradicts itself")
        }
    };
    let mut text = format!(
        "{} by process {} {}, but {why} (operation {}, {} to {}).",
        guilty.op,
        guilty.process,
        short(answer(guilty)),
        guilty.id,
        ms(guilty.call),
        ms(guilty.ret.unwrap_or(guilty.call)),
    );
    if unobservable > 0 {
        text.push_str(&format!(
            " Left aside: {unobservable} operation{} of unknown outcome whose value nobody ever saw.",
            if unobservable == 1 { "" } else { "s" },
        ));
    }
    if let Some((origin, _)) = origin {
        text.push(' ');
        text.push_str(origin);
    }
    text
}

/// Not more of an answer than a person wants to read.
fn short(text: String) -> String {
    const MOST: usize = 400;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}… ({} more characters)", &text[..end], text[end..].chars().count()),
        None => text,
    }
}

/// What it was told.
pub(super) fn answer(operation: &Operation) -> String {
    match &operation.outcome {
        OpOutcome::Ok(Ret::Done | Ret::Txn(_)) => "succeeded".into(),
        OpOutcome::Ok(Ret::Value(value)) => format!("returned {}", timeline::brief(value)),
        OpOutcome::Ok(Ret::Swapped { swapped: true, .. }) => "did swap".into(),
        OpOutcome::Ok(Ret::Swapped { swapped: false, found: None }) => "did not swap".into(),
        OpOutcome::Ok(Ret::Swapped { swapped: false, found: Some(found) }) => {
            format!("did not swap and found {found}")
        }
        OpOutcome::Ok(Ret::Custom(value)) => format!("answered {value}"),
        OpOutcome::Fail => "failed".into(),
        OpOutcome::Info => "may have happened".into(),
    }
}

/// `52`, `52 or 53`, `1, 2 or 3`, `1, 2, 3, 4 or one of 12 more`.
fn held(guilt: &Guilt) -> String {
    const SHOWN: usize = 5;
    let states: Vec<&str> = guilt.configs.iter().map(|(state, ..)| state.as_str()).collect();
    let (head, last) = match states.len() {
        0 | 1 => return states.concat(),
        n if n > SHOWN || guilt.more => {
            let at_least = if guilt.more { "at least " } else { "" };
            let shown = SHOWN.min(n);
            (&states[..shown], format!("one of {at_least}{} more", (n - shown).max(1)))
        }
        n => (&states[..n - 1], states[n - 1].into()),
    };
    format!("{} or {last}", head.join(", "))
}

/// The one value that the operation can only have seen, if there is one.
fn looked_at<'a, M: Model>(model: &M, operation: &'a Operation) -> Option<&'a Value> {
    let OpOutcome::Ok(ret) = &operation.outcome else { return None };
    match model.effect(&operation.op, Some(ret)) {
        Effect::Observe(Some(value)) | Effect::Swap { from: value, .. } => Some(value),
        _ => None,
    }
}

/// Where a value came from, in words, and the operation that they name.
type Origin = (String, Option<usize>);

/// Where the value came from that the guilty operation looked at.
fn origin<M: Model>(
    model: &M,
    operations: &Operations<'_>,
    key: Datum,
    guilty: &Operation,
) -> Option<Origin> {
    let value = looked_at(model, guilty)?;
    let end = guilty.ret.unwrap_or(u64::MAX);
    let mut writers = Vec::new();
    let mut failed = None;
    // Most can be told by their numbers: whole operations are dear.
    let datum = operations.values().find(value);
    let may_have_left_it = |id: &usize| match operations.asked(*id) {
        Some(asked) => match asked.f {
            F::Read | F::Contains => false,
            F::Write => Some(asked.a) == datum,
            F::Cas => Some(asked.b) == datum,
            _ => true,
        },
        None => true,
    };
    let of_the_key = (0..operations.len()).filter(|id| operations.key(*id) == Some(key));
    for id in of_the_key.filter(may_have_left_it) {
        let operation = operations.get(id);
        let ret = match &operation.outcome {
            OpOutcome::Ok(ret) => Some(ret),
            _ => None,
        };
        match model.effect(&operation.op, ret) {
            Effect::Set { to } | Effect::Swap { to, .. } if to == value => {}
            // An append may have made any value.
            Effect::Opaque => return None,
            _ => continue,
        }
        match operations.end(id) {
            End::Fail => failed = Some(operation),
            End::Ok | End::Info => writers.push(operation),
        }
    }
    let says = |operation: &Operation| format!("operation {} of process {}", operation.id, operation.process);
    // Of several writers name the last one that may have been seen.
    if let Some(writer) = writers.iter().rev().find(|writer| writer.call <= end) {
        let when = match writer.ret {
            Some(ret) if ret < guilty.call => format!("which had ended {} before", ms(guilty.call - ret)),
            Some(_) => "at the same time".into(),
            None => "whose outcome is unknown".into(),
        };
        return Some((format!("{value} was written by {}, {when}.", says(writer)), Some(writer.id)));
    }
    match (writers.first(), &failed) {
        (Some(writer), _) => Some((
            format!(
                "{value} was first written by {}, which was called only after this had returned.",
                says(writer)
            ),
            Some(writer.id),
        )),
        (None, Some(writer)) => Some((
            format!("{value} was written by {} only, which was told that it failed.", says(writer)),
            Some(writer.id),
        )),
        (None, None) if *value == Value::Nil => None,
        (None, None) => Some((format!("No operation ever wrote {value}."), None)),
    }
}

/// Nanoseconds as milliseconds, to the microsecond.
fn ms(ns: u64) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000)
}
