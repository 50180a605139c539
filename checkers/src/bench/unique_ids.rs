//! `unique-ids`: no id is given to two.
//!
//! ```text
//! generate -> 7    generate -> 8    generate -> 7        duplicate-id: 7
//! ```
//!
//! Jepsen's `checker/unique-ids`. Deliberately blind to ids that were given out and never told.

use rustc_hash::FxHashMap;
use serde_json::json;

use super::checker;
use crate::{Checker, Op, OpOutcome, Ret, Value};

pub(super) const NAME: &str = "unique-ids";

/// Judges `generate`: whether all ids of one key are different. Unknown if none was given.
pub fn unique_ids() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut given: FxHashMap<(Value, Value), usize> = FxHashMap::default();
        let mut asked = 0;
        for operation in operations.iter() {
            let Op::Generate { key } = &operation.op else { continue };
            asked += 1;
            let OpOutcome::Ok(Ret::Value(id)) = &operation.outcome else { continue };
            if let Some(first) = given.get(&(key.clone(), id.clone())) {
                findings.guilty(
                    "duplicate-id",
                    vec![*first, operation.id],
                    format!(
                        "the id {id} was given twice: to operation {first} and to operation {} of process {}",
                        operation.id, operation.process
                    ),
                    json!({"id": id, "key": key}),
                );
            } else {
                given.insert((key.clone(), id.clone()), operation.id);
            }
        }
        findings.stat("asked", asked);
        findings.stat("given", given.len());
        if given.is_empty() {
            findings.doubt("no id was given");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::Validity::*;

    #[test]
    fn twice_is_once_too_often() {
        let id = |process, call, key: i64, id: Option<i64>| {
            let op = Op::Generate { key: key.into() };
            (process, call, call + 5, op, id.map(|id| Ret::Value(id.into())))
        };
        assert_eq!(check(&unique_ids(), &history(&[])).0, Unknown);
        assert_eq!(check(&unique_ids(), &history(&[id(0, 0, 1, None)])).0, Unknown);
        let fine = [id(0, 0, 1, Some(7)), id(1, 2, 1, Some(8)), id(2, 3, 2, Some(7)), id(3, 9, 1, None)];
        assert_eq!(check(&unique_ids(), &history(&fine)), (Valid, vec![]));
        let twice = [id(0, 0, 1, Some(7)), id(1, 2, 1, Some(8)), id(2, 3, 1, Some(7))];
        assert_eq!(check(&unique_ids(), &history(&twice)), (Invalid, vec!["duplicate-id".to_owned()]));
    }
}
