//! `stats`: of every kind of operation one succeeded.
//!
//! ```text
//! read   asked 1750   ok 1747   fail 1   info 2   errors: "timed out" 2
//! ```
//!
//! Jepsen's `checker/stats` and `unhandled-exceptions`: how the operations ended, by kind, and what errors were met, the most
//! frequent first. Deliberately never invalid: that nothing succeeded proves nothing about what the system did.

use std::collections::BTreeMap;

use serde_json::json;

use super::checker;
use crate::{Checker, OpOutcome};

pub(super) const NAME: &str = "stats";

#[derive(Default)]
struct Kind {
    asked: u64,
    ok: u64,
    fail: u64,
    info: u64,
    errors: BTreeMap<String, u64>,
}

/// Counts. Unknown if nothing was asked, or if of some kind nothing succeeded.
pub fn stats() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
        for operation in operations.iter() {
            let kind = kinds.entry(operation.op.f().to_owned()).or_default();
            kind.asked += 1;
            match operation.outcome {
                OpOutcome::Ok(_) => kind.ok += 1,
                OpOutcome::Fail => kind.fail += 1,
                OpOutcome::Info => kind.info += 1,
            }
            if let Some(error) = &operation.meta.error {
                *kind.errors.entry(error.to_string()).or_insert(0) += 1;
            }
        }
        if kinds.is_empty() {
            findings.doubt("nothing was asked");
        }
        for (f, kind) in &kinds {
            let mut errors: Vec<(&String, &u64)> = kind.errors.iter().collect();
            errors.sort_by_key(|(error, count)| (std::cmp::Reverse(**count), *error));
            let told = json!({
                "asked": kind.asked, "ok": kind.ok, "fail": kind.fail, "info": kind.info,
                "errors": errors.iter().take(20).map(|(error, count)| json!([error, count])).collect::<Vec<_>>(),
            });
            findings.stat(f, told);
            if kind.ok == 0 {
                findings.doubt(format!("no {f} succeeded ({} asked)", kind.asked));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::{Op, Ret, Validity::*};

    #[test]
    fn each_kind_must_have_succeeded() {
        let write = |ret| (0, 0, 5, Op::Write { key: 1.into(), value: 2.into() }, ret);
        let delete = |ret| (1, 0, 5, Op::Delete { key: 1.into() }, ret);
        assert_eq!(check(&stats(), &history(&[])).0, Unknown);
        assert_eq!(check(&stats(), &history(&[write(Some(Ret::Done)), delete(None)])).0, Unknown);
        assert_eq!(check(&stats(), &history(&[write(Some(Ret::Done)), delete(Some(Ret::Done))])).0, Valid);
    }
}
