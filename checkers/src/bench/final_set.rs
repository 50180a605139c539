//! `set`: what was added is in the last read.
//!
//! ```text
//! add 1 ok   add 2 ok   add 3 ?   read -> [1 3 4]
//! lost: 2, acknowledged and not there        unexpected: 4, never added        recovered: 3
//! ```
//!
//! Jepsen's `checker/set`: one look, at the end. An add counts as acknowledged if it had returned before that read was called. For what
//! happens on the way see [`set_full`](super::set_full). Deliberately for sets that only grow.

use rustc_hash::FxHashMap;
use serde_json::json;

use super::checker;
use crate::{Checker, Key, Op, OpOutcome, Operation, Ret, Value};

pub(super) const NAME: &str = "set";

#[derive(Default)]
struct Set {
    /// Value, and the adds that did not fail.
    adds: Vec<(Value, Operation)>,
    /// Values whose adds failed.
    failed: Vec<(Value, usize)>,
    last: Option<Operation>,
    removals: bool,
}

/// Judges `add` and the last `read` of each set, by the time of its call. Unknown if a set was added to and never read, or removed from.
pub fn set() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut sets: FxHashMap<Key, Set> = FxHashMap::default();
        let mut keys = Vec::new();
        for operation in operations.iter() {
            let Some(key) = operation.op.key().cloned() else { continue };
            let set = sets.entry(key.clone()).or_insert_with(|| {
                keys.push(key);
                Set::default()
            });
            match (&operation.op, &operation.outcome) {
                (Op::Add { value, .. }, OpOutcome::Fail) => set.failed.push((value.clone(), operation.id)),
                (Op::Add { value, .. }, _) => set.adds.push((value.clone(), operation)),
                (Op::Remove { .. }, _) => set.removals = true,
                (Op::Read { .. }, OpOutcome::Ok(Ret::Value(Value::List(_) | Value::Nil)))
                    if set.last.as_ref().is_none_or(|last| last.call <= operation.call) =>
                {
                    set.last = Some(operation);
                }
                _ => {}
            }
        }
        let (mut added, mut acknowledged, mut recovered, mut read) = (0_u64, 0_u64, 0_u64, 0_u64);
        for key in keys {
            let Set { adds, failed, last, removals } = &sets[&key];
            if *removals {
                findings.doubt(format!("key {key} was removed from: this judge knows sets that only grow"));
                continue;
            }
            let Some(last) = last else {
                if !adds.is_empty() {
                    findings.doubt(format!("key {key} was added to and never read"));
                }
                continue;
            };
            let all: &[Value] = match &last.outcome {
                OpOutcome::Ok(Ret::Value(Value::List(all))) => all,
                _ => &[],
            };
            let mut there: FxHashMap<&Value, bool> = all.iter().map(|value| (value, false)).collect();
            read += there.len() as u64;
            for (value, add) in adds {
                added += 1;
                let before =
                    matches!(add.outcome, OpOutcome::Ok(_)) && add.ret.is_some_and(|ret| ret < last.call);
                acknowledged += u64::from(before);
                match there.get_mut(value) {
                    Some(known) => {
                        recovered += u64::from(!before && !*known);
                        *known = true;
                    }
                    None if before => findings.guilty(
                        "lost",
                        vec![add.id, last.id],
                        format!(
                            "{value} was added to key {key}, acknowledged, and the last read does not have it"
                        ),
                        json!({"key": key, "value": value}),
                    ),
                    None => {}
                }
            }
            let mut strange: Vec<&Value> =
                there.iter().filter(|(_, known)| !**known).map(|(value, _)| *value).collect();
            strange.sort();
            for value in strange {
                let failed: Vec<usize> =
                    failed.iter().filter(|(of, _)| of == value).map(|(_, id)| *id).collect();
                let why = if failed.is_empty() {
                    "nobody added it"
                } else {
                    "whoever added it was told that it failed"
                };
                findings.guilty(
                    "unexpected",
                    [failed, vec![last.id]].concat(),
                    format!("the last read of key {key} has {value}, but {why}"),
                    json!({"key": key, "value": value}),
                );
            }
        }
        if added == 0 {
            findings.doubt("nothing was added");
        }
        findings.stat("attempts", added);
        findings.stat("acknowledged", acknowledged);
        findings.stat("recovered", recovered);
        findings.stat("read", read);
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::Validity::*;

    type Row = (u64, u64, u64, Op, Option<Ret>);

    fn add(value: i64, call: u64, ret: u64, ok: bool) -> Row {
        let op = Op::Add { key: Value::Nil, value: value.into() };
        (value as u64, call, ret, op, ok.then_some(Ret::Done))
    }

    fn read(all: &[i64], call: u64) -> Row {
        let op = Op::Read { key: Value::Nil, mode: Default::default() };
        (100 + call, call, call + 1, op, Some(Ret::Value(all.iter().map(|v| Value::Int(*v)).collect())))
    }

    #[test]
    fn only_what_was_acknowledged_before_the_last_read_can_be_lost() {
        let judge = |rows: &[Row]| check(&set(), &history(rows));
        let lost = || (Invalid, vec!["lost".to_owned()]);
        assert_eq!(judge(&[]).0, Unknown);
        assert_eq!(judge(&[add(1, 0, 5, true)]).0, Unknown);
        assert_eq!(judge(&[add(1, 0, 5, true), read(&[1], 6)]).0, Valid);
        assert_eq!(judge(&[add(1, 0, 5, true), read(&[], 6)]), lost());
        // Touching is overlapping.
        assert_eq!(judge(&[add(1, 0, 6, true), read(&[], 6)]).0, Valid);
        assert_eq!(judge(&[add(1, 0, 5, false), read(&[], 6)]).0, Valid);
        assert_eq!(judge(&[add(1, 0, 5, false), read(&[1], 6)]).0, Valid);
        assert_eq!(judge(&[add(1, 0, 1, true), read(&[1, 2], 6)]), (Invalid, vec!["unexpected".to_owned()]));
        // Only the last read counts.
        assert_eq!(judge(&[add(1, 0, 1, true), read(&[], 2), read(&[1], 6)]).0, Valid);
        assert_eq!(judge(&[add(1, 0, 1, true), read(&[1], 2), read(&[], 6)]), lost());
    }
}
