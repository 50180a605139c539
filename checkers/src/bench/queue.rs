//! `total-queue`: whatever was enqueued comes out, and nothing else.
//!
//! ```text
//! enq 1 ok   enq 2 ok   enq 3 ?   deq -> 1   drain -> [3 4]
//! lost: 2, acknowledged and not there        unexpected: 4, never enqueued        recovered: 3
//! ```
//!
//! Jepsen's `checker/total-queue`. The order does not matter, and an element may come out more than once without being a fault
//! (at-least-once delivery); it is counted. An element is lost only if the queue was emptied afterwards: by a drain, or by a dequeue
//! that found nothing, both called after everything was enqueued. Otherwise it may still be inside, and what is missing is
//! a reason to doubt, not a proof.

use rustc_hash::FxHashMap;
use serde_json::json;

use super::checker;
use crate::{Checker, Key, Op, OpOutcome, Ret, Value};

pub(super) const NAME: &str = "total-queue";

#[derive(Default)]
struct Element {
    attempts: u64,
    acknowledged: Vec<usize>,
    taken: Vec<usize>,
}

#[derive(Default)]
struct Queue {
    elements: FxHashMap<Value, Element>,
    order: Vec<Value>,
    /// When the last enqueue ended, and when the last emptying was called.
    enqueued: u64,
    emptied: Option<u64>,
    open_dequeues: u64,
}

impl Queue {
    fn element(&mut self, value: &Value) -> &mut Element {
        self.elements.entry(value.clone()).or_insert_with(|| {
            self.order.push(value.clone());
            Element::default()
        })
    }
}

/// Judges `enqueue`, `dequeue` and `drain`. Unknown if nothing was taken, or if something is missing from a queue that was
/// never emptied, or that a dequeue of unknown outcome may have taken.
pub fn total_queue() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut queues: FxHashMap<Key, Queue> = FxHashMap::default();
        let mut keys = Vec::new();
        for operation in operations.iter() {
            let Some(key) = operation.op.key() else { continue };
            let queue = queues.entry(key.clone()).or_insert_with(|| {
                keys.push(key.clone());
                Queue::default()
            });
            match (&operation.op, &operation.outcome) {
                (Op::Enqueue { .. }, OpOutcome::Fail) => {}
                (Op::Enqueue { value, .. }, outcome) => {
                    let element = queue.element(value);
                    element.attempts += 1;
                    if let OpOutcome::Ok(_) = outcome {
                        element.acknowledged.push(operation.id);
                        queue.enqueued = queue.enqueued.max(operation.ret.unwrap_or(operation.call));
                    }
                }
                (Op::Dequeue { .. }, OpOutcome::Ok(Ret::Value(Value::Nil))) => {
                    queue.emptied = queue.emptied.max(Some(operation.call));
                }
                (Op::Dequeue { .. }, OpOutcome::Ok(Ret::Value(value))) => {
                    queue.element(value).taken.push(operation.id);
                }
                (Op::Drain { .. }, OpOutcome::Ok(Ret::Value(Value::List(all)))) => {
                    queue.emptied = queue.emptied.max(Some(operation.call));
                    all.iter().for_each(|value| queue.element(value).taken.push(operation.id));
                }
                (Op::Dequeue { .. } | Op::Drain { .. }, OpOutcome::Info) => queue.open_dequeues += 1,
                _ => {}
            }
        }
        let (mut taken, mut recovered, mut again, mut missing) = (0_u64, 0_u64, 0_u64, 0_u64);
        for key in keys {
            let queue = &queues[&key];
            let mut missing_here = 0;
            let is_empty = queue.emptied.is_some_and(|emptied| emptied > queue.enqueued);
            for value in &queue.order {
                let element = &queue.elements[value];
                let (out, into) = (element.taken.len() as u64, element.attempts);
                taken += out;
                again += out.saturating_sub(into.max(1));
                recovered += out.min(into).saturating_sub(element.acknowledged.len() as u64);
                if into == 0 {
                    findings.guilty(
                        "unexpected",
                        element.taken.clone(),
                        format!("{value} came out of key {key} and was never enqueued"),
                        json!({"key": key, "value": value}),
                    );
                }
                if out < element.acknowledged.len() as u64 {
                    missing_here += 1;
                    if is_empty && queue.open_dequeues == 0 {
                        findings.guilty(
                            "lost",
                            element.acknowledged.clone(),
                            format!("{value} was enqueued into key {key}, acknowledged, and never came out"),
                            json!({"key": key, "value": value}),
                        );
                    }
                }
            }
            missing += missing_here;
            if missing_here > 0 && !(is_empty && queue.open_dequeues == 0) {
                let why = match queue.open_dequeues {
                    0 => "it was not emptied after the last enqueue".to_owned(),
                    open => format!("{open} dequeues of unknown outcome may have taken something"),
                };
                findings.doubt(format!("elements of key {key} are missing, but {why}"));
            }
        }
        for (name, count) in
            [("taken", taken), ("recovered", recovered), ("duplicated", again), ("missing", missing)]
        {
            findings.stat(name, count);
        }
        if taken == 0 {
            findings.doubt("nothing was taken");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::Validity::*;

    #[test]
    fn lost_only_if_it_cannot_be_inside() {
        let key = || Value::from(1);
        let enq = |process, value: i64, ok: bool| {
            (process, 0, 5, Op::Enqueue { key: key(), value: value.into() }, ok.then_some(Ret::Done))
        };
        let deq = |process, call, value: Option<Value>| {
            (process, call, call + 2, Op::Dequeue { key: key() }, value.map(Ret::Value))
        };
        let drain = |call, all: &[i64]| {
            let all: Value = all.iter().map(|v| Value::Int(*v)).collect();
            (9, call, call + 2, Op::Drain { key: key() }, Some(Ret::Value(all)))
        };
        let judge = |all: &[_]| check(&total_queue(), &history(all));
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let fine = [enq(0, 1, true), enq(1, 2, false), drain(10, &[2, 1])];
        assert_eq!(judge(&fine), (Valid, vec![]));
        let lost = [enq(0, 1, true), enq(1, 2, true), drain(10, &[2])];
        assert_eq!(judge(&lost), (Invalid, names(&["lost"])));
        let inside = [enq(0, 1, true), enq(1, 2, true), deq(2, 10, Some(2.into()))];
        assert_eq!(judge(&inside).0, Unknown);
        let emptied = [inside.to_vec(), vec![deq(3, 20, Some(Value::Nil))]].concat();
        assert_eq!(judge(&emptied), (Invalid, names(&["lost"])));
        let open = [emptied.clone(), vec![deq(4, 12, None)]].concat();
        assert_eq!(judge(&open).0, Unknown);
        assert_eq!(judge(&[enq(0, 1, true), drain(10, &[1, 7])]), (Invalid, names(&["unexpected"])));
        assert_eq!(judge(&[enq(0, 1, true), drain(10, &[1, 1])]).0, Valid);
        assert_eq!(judge(&[]).0, Unknown);
    }
}
