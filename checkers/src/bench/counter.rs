//! `counter`: every read is possible, given what was added before and meanwhile.
//!
//! ```text
//! add 1 |--|     add 2  |----------|        the read may see 1 (add 2 comes later) or 3, but not 0, 2 or 4
//!                     read |--|
//! ```
//!
//! Jepsen's `checker/counter`. A read lies between two bounds: below, all that was added for certain before it was called and
//! everything negative that may have been added until it returned; above, the other way round. Necessary and not
//! sufficient: a read of 2 is within the bounds here. The model `counter` of the linearizability checker says more, and searches.

use rustc_hash::FxHashMap;
use serde_json::json;

use super::checker;
use crate::{Checker, Key, Op, OpOutcome, Operation, Ret, Value};

pub(super) const NAME: &str = "counter";

/// Sums of what was added, by time: how much at or before a moment.
#[derive(Default)]
struct Sums(Vec<(u64, i128)>);

impl Sums {
    fn close(&mut self) {
        self.0.sort_unstable();
        let mut sum = 0;
        for (_, more) in &mut self.0 {
            sum += *more;
            *more = sum;
        }
    }

    /// The sum of all whose time is less than `time`.
    fn before(&self, time: u64) -> i128 {
        let at = self.0.partition_point(|(when, _)| *when < time);
        at.checked_sub(1).map_or(0, |at| self.0[at].1)
    }
}

/// What was added to one counter: for certain by the return, perhaps from the call on; upwards and downwards.
#[derive(Default)]
struct Added {
    certain: [Sums; 2],
    possible: [Sums; 2],
    reads: Vec<Operation>,
}

/// Judges `add` and `read` of counters that begin with 0. Unknown if there is no read that succeeded.
pub fn counter() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut counters: FxHashMap<Key, Added> = FxHashMap::default();
        let mut keys = Vec::new();
        for operation in operations.iter() {
            let Some(key) = operation.op.key() else { continue };
            let added = counters.entry(key.clone()).or_insert_with(|| {
                keys.push(key.clone());
                Added::default()
            });
            match (&operation.op, &operation.outcome) {
                (_, OpOutcome::Fail) => {}
                (Op::Add { value: Value::Int(more), .. }, outcome) => {
                    let down = usize::from(*more < 0);
                    added.possible[down].0.push((operation.call, i128::from(*more)));
                    if let (OpOutcome::Ok(_), Some(ret)) = (outcome, operation.ret) {
                        added.certain[down].0.push((ret, i128::from(*more)));
                    }
                }
                (Op::Read { mode, .. }, OpOutcome::Ok(_)) if mode.claims_linearizability() => {
                    added.reads.push(operation);
                }
                _ => {}
            }
        }
        let mut reads = 0;
        for key in keys {
            let Some(mut added) = counters.remove(&key) else { continue };
            added.certain.iter_mut().chain(&mut added.possible).for_each(Sums::close);
            for read in &added.reads {
                let (Some(ret), OpOutcome::Ok(Ret::Value(value))) = (read.ret, &read.outcome) else {
                    continue;
                };
                let value = match value {
                    Value::Int(value) => *value,
                    Value::Nil => 0,
                    other => {
                        findings.doubt(format!("operation {} read {other}, which is no number", read.id));
                        continue;
                    }
                };
                reads += 1;
                // Closed intervals: what returned when the read was called may have come after it.
                let certain = |down: usize| added.certain[down].before(read.call);
                let possible = |down: usize| added.possible[down].before(ret.saturating_add(1));
                let (low, high) = (certain(0) + possible(1), possible(0) + certain(1));
                if !(low..=high).contains(&i128::from(value)) {
                    findings.guilty(
                        "out-of-bounds",
                        vec![read.id],
                        format!(
                            "operation {} of process {} read {value} from key {key}, which must be at least {low} and at most {high}",
                            read.id, read.process
                        ),
                        json!({"key": key, "value": value, "low": low.to_string(), "high": high.to_string()}),
                    );
                }
            }
        }
        findings.stat("reads", reads);
        if reads == 0 {
            findings.doubt("no counter was read");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::Validity::*;

    #[test]
    fn bounds_move_with_what_is_known() {
        let add = |process, call, ret, more: i64, ok: bool| {
            (process, call, ret, Op::Add { key: 1.into(), value: more.into() }, ok.then_some(Ret::Done))
        };
        let read = |value: i64| {
            let op = Op::Read { key: 1.into(), mode: Default::default() };
            (9, 20, 30, op, Some(Ret::Value(value.into())))
        };
        let adds = [add(0, 0, 10, 1, true), add(1, 15, 40, 2, true), add(2, 5, 6, -4, false)];
        for (value, expected) in [(-4, Invalid), (-3, Valid), (1, Valid), (3, Valid), (4, Invalid)] {
            let all = [adds.to_vec(), vec![read(value)]].concat();
            assert_eq!(check(&counter(), &history(&all)).0, expected, "{value}");
        }
        // What touches may have come first, or not.
        for (value, expected) in [(0, Valid), (1, Valid), (2, Invalid)] {
            let all = [add(0, 0, 20, 1, true), read(value)];
            assert_eq!(check(&counter(), &history(&all)).0, expected, "{value}");
        }
        assert_eq!(check(&counter(), &history(&adds)).0, Unknown);
    }
}
