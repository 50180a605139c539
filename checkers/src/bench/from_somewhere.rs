//! `queue`: whatever comes out has gone in before.
//!
//! ```text
//! enq 1   deq -> 1   deq -> 1        it went in once and came out twice
//! deq -> 2   enq 2                   it came out before anybody put it in
//! ```
//!
//! Jepsen's `checker/queue`: every enqueue is assumed to take effect as soon as it is called, every dequeue as late as it can; what is
//! impossible even so is a fault. Deliberately says nothing of what is missing: that is for [`total_queue`](super::total_queue).

use rustc_hash::FxHashMap;
use serde_json::json;

use super::checker;
use crate::{Checker, Key, Op, OpOutcome, Ret, Value};

pub(super) const NAME: &str = "queue";

/// Judges `enqueue`, `dequeue` and `drain`. Unknown if nothing came out.
pub fn queue() -> impl Checker {
    checker(NAME, |operations, findings| {
        // Time, whether it comes out, id, key and value: what goes in at the same time goes in first.
        let mut moves: Vec<(u64, bool, usize, Key, Value)> = Vec::new();
        for operation in operations.iter() {
            let Some(key) = operation.op.key().cloned() else { continue };
            let (id, ret) = (operation.id, operation.ret.unwrap_or(u64::MAX));
            match (&operation.op, &operation.outcome) {
                (Op::Enqueue { .. }, OpOutcome::Fail) => {}
                (Op::Enqueue { value, .. }, _) => moves.push((operation.call, false, id, key, value.clone())),
                (Op::Dequeue { .. }, OpOutcome::Ok(Ret::Value(value))) if *value != Value::Nil => {
                    moves.push((ret, true, id, key, value.clone()));
                }
                (Op::Drain { .. }, OpOutcome::Ok(Ret::Value(Value::List(all)))) => {
                    moves.extend(all.iter().map(|value| (ret, true, id, key.clone(), value.clone())));
                }
                _ => {}
            }
        }
        moves.sort_by_key(|(time, out, id, ..)| (*time, *out, *id));
        let mut inside: FxHashMap<(Key, Value), (u64, Vec<usize>)> = FxHashMap::default();
        let mut out = 0_u64;
        for (_, comes_out, id, key, value) in moves {
            let (count, who) = inside.entry((key.clone(), value.clone())).or_default();
            who.push(id);
            if !comes_out {
                *count += 1;
                continue;
            }
            out += 1;
            match count.checked_sub(1) {
                Some(left) => *count = left,
                None => {
                    let (who, times) = (who.clone(), who.len());
                    let message = if times == 1 {
                        format!("{value} came out of key {key} before anybody had put it in")
                    } else {
                        format!("{value} came out of key {key} more often than it had gone in")
                    };
                    findings.guilty("unexpected", who, message, json!({"key": key, "value": value}));
                }
            }
        }
        if out == 0 {
            findings.doubt("nothing came out");
        }
        findings.stat("taken", out);
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::Validity::*;

    type Row = (u64, u64, u64, Op, Option<Ret>);

    fn enq(process: u64, call: u64, ret: u64, ok: bool) -> Row {
        (process, call, ret, Op::Enqueue { key: Value::Nil, value: 1.into() }, ok.then_some(Ret::Done))
    }

    fn deq(process: u64, call: u64, ret: u64) -> Row {
        (process, call, ret, Op::Dequeue { key: Value::Nil }, Some(Ret::Value(1.into())))
    }

    #[test]
    fn what_comes_out_has_gone_in() {
        let judge = |rows: &[Row]| check(&queue(), &history(rows)).0;
        assert_eq!(judge(&[]), Unknown);
        assert_eq!(judge(&[enq(0, 0, 1, true)]), Unknown);
        assert_eq!(judge(&[enq(0, 0, 1, true), deq(1, 2, 3)]), Valid);
        assert_eq!(judge(&[enq(0, 0, 1, false), deq(1, 2, 3)]), Valid);
        assert_eq!(judge(&[enq(0, 0, 1, true), deq(1, 2, 3), deq(1, 4, 5)]), Invalid);
        assert_eq!(judge(&[enq(0, 0, 1, true), enq(2, 2, 9, false), deq(1, 3, 3), deq(1, 4, 5)]), Valid);
        assert_eq!(judge(&[deq(1, 0, 3), enq(0, 4, 5, true)]), Invalid);
        // Touching is overlapping.
        assert_eq!(judge(&[deq(1, 0, 4), enq(0, 4, 5, true)]), Valid);
    }
}
