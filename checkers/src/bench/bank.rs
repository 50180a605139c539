//! `bank`: transfers keep the total of all accounts, and none is overdrawn.
//!
//! ```text
//! read -> [[0 40] [1 60]]     100, as it must be        read -> [[0 40] [1 70]]     wrong-total: 110
//! ```
//!
//! Jepsen's `workload.bank`: a snapshot of all accounts shows whether transfers are atomic and isolated. A read answers pairs
//! of account and balance. Deliberately blind to where the money is: only the sum is looked at.

use serde_json::json;

use super::checker;
use crate::{Checker, Op, OpOutcome, Ret, Value};

pub(super) const NAME: &str = "bank";

/// What the bank holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BankOptions {
    /// The total of all accounts; `None` for that of the read that was called first.
    pub total: Option<i64>,
    /// Whether accounts may be overdrawn.
    pub negative: bool,
}

/// Judges reads of all accounts. Unknown if none succeeded, or if only one did and the total is not told.
pub fn bank(options: BankOptions) -> impl Checker {
    checker(NAME, move |operations, findings| {
        let mut total = options.total.map(|total| (i128::from(total), None));
        let mut accounts: Option<Vec<Value>> = None;
        let mut reads = 0;
        for operation in operations.iter() {
            let (Op::Read { .. }, OpOutcome::Ok(Ret::Value(read))) = (&operation.op, &operation.outcome)
            else {
                continue;
            };
            let Some(balances) = balances(read) else {
                findings.doubt(format!(
                    "operation {} read {read}, which is no list of pairs of account and balance",
                    operation.id
                ));
                continue;
            };
            reads += 1;
            let says = |what: String| {
                format!("operation {} of process {} read {read}: {what}", operation.id, operation.process)
            };
            let details = || json!({"read": read});
            let names: Vec<Value> = balances.iter().map(|(account, _)| account.clone()).collect();
            match &accounts {
                None => accounts = Some(names),
                Some(known) if *known != names => findings.guilty(
                    "wrong-accounts",
                    vec![operation.id],
                    says(format!("the accounts are {}", known.iter().cloned().collect::<Value>())),
                    details(),
                ),
                Some(_) => {}
            }
            if let Some((account, _)) = balances.iter().find(|(_, balance)| balance.is_none()) {
                let message = says(format!("account {account} has no balance"));
                findings.guilty("nil-balance", vec![operation.id], message, details());
                continue;
            }
            let sum: i128 = balances.iter().map(|(_, balance)| i128::from(balance.unwrap_or(0))).sum();
            match total {
                None => total = Some((sum, Some(operation.id))),
                Some((total, first)) if total != sum => {
                    let message = says(format!("that is {sum}, and not {total}"));
                    let evidence = first.into_iter().chain([operation.id]).collect();
                    findings.guilty("wrong-total", evidence, message, details());
                }
                Some(_) => {}
            }
            let overdrawn = balances.iter().find(|(_, balance)| balance.is_some_and(|balance| balance < 0));
            if let Some((account, _)) = overdrawn.filter(|_| !options.negative) {
                let message = says(format!("account {account} is overdrawn"));
                findings.guilty("negative-value", vec![operation.id], message, details());
            }
        }
        findings.stat("reads", reads);
        if reads == 0 || reads == 1 && options.total.is_none() {
            findings.doubt("the accounts were not read often enough to compare anything");
        }
    })
}

/// Accounts and balances in the order of the accounts.
fn balances(read: &Value) -> Option<Vec<(Value, Option<i64>)>> {
    let Value::List(pairs) = read else { return None };
    let pair = |pair: &Value| match pair {
        Value::List(pair) => match &pair[..] {
            [account, Value::Int(balance)] => Some((account.clone(), Some(*balance))),
            [account, Value::Nil] => Some((account.clone(), None)),
            _ => None,
        },
        _ => None,
    };
    let mut all: Vec<_> = pairs.iter().map(pair).collect::<Option<_>>()?;
    all.sort();
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::Validity::*;

    #[test]
    fn money_neither_appears_nor_vanishes() {
        let read = |at: u64, all: &[(i64, Option<i64>)]| {
            let pair = |(account, balance): &(i64, Option<i64>)| {
                Value::from(vec![(*account).into(), balance.map_or(Value::Nil, Value::Int)])
            };
            let op = Op::Read { key: Value::Nil, mode: Default::default() };
            (0, at, at + 5, op, Some(Ret::Value(all.iter().map(pair).collect())))
        };
        let judge = |options, all: &[_]| check(&bank(options), &history(all));
        let (told, found) = (BankOptions { total: Some(100), negative: false }, BankOptions::default());
        let first = read(0, &[(0, Some(40)), (1, Some(60))]);
        assert_eq!(judge(found, &[]).0, Unknown);
        assert_eq!(judge(found, std::slice::from_ref(&first)).0, Unknown);
        assert_eq!(judge(told, std::slice::from_ref(&first)).0, Valid);
        for (second, name) in [
            (read(10, &[(1, Some(0)), (0, Some(100))]), None),
            (read(10, &[(0, Some(40)), (1, Some(70))]), Some("wrong-total")),
            (read(10, &[(0, Some(-1)), (1, Some(101))]), Some("negative-value")),
            (read(10, &[(0, None), (1, Some(100))]), Some("nil-balance")),
            (read(10, &[(0, Some(100))]), Some("wrong-accounts")),
        ] {
            let (validity, names) = judge(found, &[first.clone(), second]);
            assert_eq!(validity, if name.is_some() { Invalid } else { Valid });
            assert_eq!(names.first().map(String::as_str), name);
        }
        let overdrawn = [first, read(10, &[(0, Some(-1)), (1, Some(101))])];
        assert_eq!(judge(BankOptions { negative: true, ..told }, &overdrawn).0, Valid);
    }
}
