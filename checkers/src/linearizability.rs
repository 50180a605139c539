//! Linearizable or not? Each key by itself, by two engines that take turns.
//!
//! ```text
//! operations ── by key ──> Calls ──> Frontier  200k steps ┐ whoever answers first;
//!                                    Wgl       200k steps │ then twice as many, and so on,
//!                                    Frontier  400k steps ┘ until memory is out or the caller cancels
//!                                        │ invalid
//!                                        └──> shrink ──> explain ──> Anomaly
//! ```
//!
//! A history is linearizable if every operation can be thought to take effect at one instant between its call and its
//! return, so that the answers are those of a system with one thread (Herlihy and Wing, 1990). Keys are judged apart,
//! since linearizability is local (ibid., theorem 1). The problem is NP-complete (Gibbons and Korach, 1997), hence the
//! budget, and hence two engines: the frontier proves guilt fast, the depth-first search finds alibis fast.
//!
//! What is judged: failed operations are left out, they did not happen; so are reads of unknown outcome, and reads of
//! a mode that does not claim linearizability. Operations of unknown outcome stay open for ever.
//!
//! Deliberately takes turns by counting steps instead of racing threads: the same history takes the same way to the
//! same answer, everywhere.

mod calls;
mod explain;
mod frontier;
mod judge;
#[cfg(test)]
mod oracle;
mod outcome;
mod prune;
mod shrink;
mod space;
mod thin_air;
mod usage;
mod wgl;

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use serde_json::{Map, json};

use self::judge::{KeyResult, KeyVerdict, judge};
use crate::{
    Budget, Checker, History, Key, Op, OpOutcome, Operation, Validity, Value, Verdict,
    model::{CasRegister, Kv, Model, ModelName, Register},
};

/// How many invalid keys are explained; the others are only named.
const MAX_EXPLAINED: usize = 8;

/// Judges by a built-in model; every key is absent at first.
pub fn linearizable(model: ModelName) -> impl Checker {
    linearizable_from(model, Value::Nil)
}

/// Judges by a built-in model; every key holds `initial` at first.
pub fn linearizable_from(model: ModelName, initial: Value) -> impl Checker {
    match model {
        ModelName::Register => Named::Register(Linearizable::new(Register { initial })),
        ModelName::CasRegister => Named::CasRegister(Linearizable::new(CasRegister { initial })),
        ModelName::Kv => Named::Kv(Linearizable::new(Kv::holding(initial))),
    }
}

/// Judges by any model: one of [`models`](mod@crate::models) with other initial values, a [`Spec`](crate::models::Spec)
/// over a stateright specification, or a stranger's own.
pub fn linearizable_by<M: Model>(model: M) -> impl Checker {
    Linearizable::new(model)
}

enum Named {
    Register(Linearizable<Register>),
    CasRegister(Linearizable<CasRegister>),
    Kv(Linearizable<Kv>),
}

impl Checker for Named {
    fn name(&self) -> &str {
        NAME
    }

    fn check(&self, history: &History, budget: &Budget) -> Verdict {
        match self {
            Named::Register(checker) => checker.check(history, budget),
            Named::CasRegister(checker) => checker.check(history, budget),
            Named::Kv(checker) => checker.check(history, budget),
        }
    }
}

pub(crate) const NAME: &str = "linearizable";

struct Linearizable<M> {
    model: M,
}

impl<M> Linearizable<M> {
    fn new(model: M) -> Self {
        Linearizable { model }
    }
}

impl<M: Model> Checker for Linearizable<M> {
    fn name(&self) -> &str {
        NAME
    }

    fn check(&self, history: &History, budget: &Budget) -> Verdict {
        let operations = match history.operations() {
            Ok(operations) => operations,
            Err(error) => return Verdict::unknown(NAME, format!("the history is malformed: {error}")),
        };
        let keys = match by_key(&operations) {
            Ok(keys) => keys,
            Err(reason) => return Verdict::unknown(NAME, reason),
        };
        let side_by_side = rayon::current_num_threads().min(keys.len());
        let share = budget.split(side_by_side);
        let verdicts: Vec<KeyVerdict> =
            keys.par_iter().map(|(_, ids)| judge(&self.model, &operations, ids, &share)).collect();
        self.summarise(&operations, &keys, verdicts, budget)
    }
}

impl<M: Model> Linearizable<M> {
    fn summarise(
        &self,
        operations: &[Operation],
        keys: &[(&Key, Vec<usize>)],
        verdicts: Vec<KeyVerdict>,
        budget: &Budget,
    ) -> Verdict {
        let mut verdict = Verdict::valid(NAME);
        let (mut invalid, mut unknown) = (Vec::new(), Vec::new());
        let sum = |of: fn(&KeyVerdict) -> u64| verdicts.iter().map(of).sum::<u64>();
        verdict.stats = Map::from_iter([
            ("model".into(), self.model.name().into()),
            ("keys".into(), keys.len().into()),
            ("operations".into(), operations.len().into()),
            ("judged".into(), sum(|v| v.judged as u64).into()),
            ("unobservable".into(), sum(|v| v.unobservable as u64).into()),
            ("steps".into(), sum(|v| v.steps).into()),
            (
                "largest_frontier".into(),
                verdicts.iter().map(|v| v.largest_frontier).max().unwrap_or(0).into(),
            ),
            ("depth_first_keys".into(), sum(|v| u64::from(v.depth_first)).into()),
        ]);
        for ((key, ids), found) in keys.iter().zip(verdicts) {
            match found.result {
                KeyResult::Valid => {}
                KeyResult::Unknown(reason) => unknown.push((key, reason)),
                KeyResult::Invalid(guilt) => {
                    if invalid.len() < MAX_EXPLAINED {
                        let anomaly = explain::explain(
                            &self.model,
                            operations,
                            key,
                            ids,
                            &guilt,
                            found.unobservable,
                            budget,
                        );
                        verdict.anomalies.push(anomaly);
                    }
                    invalid.push(key);
                }
            }
        }
        verdict.stats.insert("invalid_keys".into(), json!(invalid));
        verdict.stats.insert("unknown_keys".into(), unknown.iter().map(|(key, _)| json!(key)).collect());
        let mut reasons = Vec::new();
        if !invalid.is_empty() {
            let names: Vec<String> = invalid.iter().take(MAX_EXPLAINED).map(|key| key.to_string()).collect();
            let more = if invalid.len() > names.len() { ", …" } else { "" };
            reasons.push(format!(
                "{} of {} keys not linearizable: {}{more}",
                invalid.len(),
                keys.len(),
                names.join(", ")
            ));
        }
        if !unknown.is_empty() {
            let shown: Vec<String> =
                unknown.iter().take(3).map(|(key, why)| format!("key {key}: {why}")).collect();
            let more = if unknown.len() > shown.len() { "; …" } else { "" };
            reasons.push(format!(
                "{} of {} keys undecided: {}{more}",
                unknown.len(),
                keys.len(),
                shown.join("; ")
            ));
        }
        if keys.is_empty() {
            reasons.push("there is no operation to judge".into());
        }
        verdict.validity = match (invalid.is_empty(), unknown.is_empty() && !keys.is_empty()) {
            (false, _) => Validity::Invalid,
            (true, false) => Validity::Unknown,
            (true, true) => Validity::Valid,
        };
        verdict.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        verdict
    }
}

/// Whether the operation says anything about linearizability.
fn is_judged(operation: &Operation) -> bool {
    match (&operation.op, &operation.outcome) {
        (_, OpOutcome::Fail) => false,
        (Op::Read { .. }, OpOutcome::Info) => false,
        (Op::Read { mode, .. }, _) => mode.claims_linearizability(),
        _ => true,
    }
}

/// The ids of the judged operations of each key, keys in the order of their first one.
fn by_key(operations: &[Operation]) -> Result<Vec<(&Key, Vec<usize>)>, String> {
    let mut keys: Vec<(&Key, Vec<usize>)> = Vec::new();
    let mut places: FxHashMap<&Key, usize> = FxHashMap::default();
    for operation in operations.iter().filter(|operation| is_judged(operation)) {
        let Some(key) = operation.op.key() else {
            return Err(format!(
                "operation {} of process {}, {}, has no key: it may touch any, so none can be judged",
                operation.id, operation.process, operation.op
            ));
        };
        let place = *places.entry(key).or_insert_with(|| {
            keys.push((key, Vec::new()));
            keys.len() - 1
        });
        keys[place].1.push(operation.id);
    }
    Ok(keys)
}
