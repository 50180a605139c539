//! Linearizable or not? Each key by itself, by two engines that take turns.
//!
//! ```text
//! operations ── by key ──> a register, a queue, a set whose values are all different? ──> a specialist: at once
//!                      └─> Calls ──> Frontier  200k steps ┐ whoever answers first;
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
mod elements;
mod elementwise;
mod evidence;
mod explain;
mod flat;
mod frontier;
mod judge;
#[cfg(test)]
mod models_oracle;
pub(crate) mod online;
#[cfg(test)]
mod oracle;
mod orders;
#[cfg(test)]
mod orders_oracle;
mod outcome;
mod prune;
mod queue;
mod record;
mod register;
#[cfg(test)]
mod register_oracle;
mod set;
mod shrink;
mod space;
mod stack;
mod thin_air;
mod trees;
mod usage;
mod wgl;

use serde_json::{Map, json};

use self::{
    judge::{KeyResult, KeyVerdict, judge},
    record::Keys,
};
use crate::{
    Budget, Checker, History, Operations, Validity, Value, Verdict,
    model::{
        CasRegister, Counter, FifoQueue, Kv, Model, ModelName, MultiRegister, Mutex, Nondeterministic,
        OwnedMutex, Register, Semaphore, Set, Stack, UnorderedQueue,
    },
};

/// How many invalid keys are explained; the others are only named.
const MAX_EXPLAINED: usize = 8;

/// Judges by a built-in model; every key is absent at first, every queue empty, every lock free.
pub fn linearizable(model: ModelName) -> impl Checker {
    Named(match by_name(model, None) {
        Ok(checker) => checker,
        Err(_) => unreachable!("without an initial state there is nothing to refuse"),
    })
}

/// The same with another state at the start: the value of a register (of each key), the number of a counter, the elements of
/// a collection as a list, `true` for a lock that is held, the number of permits of a semaphore.
///
/// # Errors
/// If the model cannot begin with that.
pub fn linearizable_from(model: ModelName, initial: Value) -> Result<impl Checker, String> {
    Ok(Named(by_name(model, Some(initial))?))
}

fn by_name(model: ModelName, initial: Option<Value>) -> Result<Box<dyn Checker>, String> {
    fn boxed<M: Model + 'static>(model: M) -> Box<dyn Checker> {
        Box::new(Linearizable::new(model))
    }
    let given = initial.clone().unwrap_or_default();
    let list = || match &initial {
        None | Some(Value::Nil) => Ok(Vec::new()),
        Some(Value::List(values)) => Ok(values.to_vec()),
        Some(other) => Err(format!("the model {model} begins with a list of elements, not with {other}")),
    };
    let number = |or: i64| match &initial {
        None | Some(Value::Nil) => Ok(or),
        Some(Value::Int(number)) => Ok(*number),
        Some(other) => Err(format!("the model {model} begins with a number, not with {other}")),
    };
    let free = || match &initial {
        None | Some(Value::Nil) => Ok(()),
        Some(other) => Err(format!("the model {model} begins free, not with {other}")),
    };
    Ok(match model {
        ModelName::Register => boxed(Register { initial: given }),
        ModelName::CasRegister => boxed(CasRegister { initial: given }),
        ModelName::MultiRegister => boxed(MultiRegister { initial: given }),
        ModelName::Kv => boxed(Kv::new(given)),
        ModelName::Counter => boxed(Counter { initial: number(0)? }),
        ModelName::Set => boxed(Set { initial: list()?.into_iter().collect() }),
        ModelName::FifoQueue => boxed(FifoQueue { initial: list()?.into() }),
        ModelName::UnorderedQueue => {
            let mut queue = UnorderedQueue::default();
            for element in list()? {
                *queue.initial.entry(element).or_insert(0) += 1;
            }
            boxed(Nondeterministic(queue))
        }
        ModelName::Stack => boxed(Stack { initial: list()? }),
        ModelName::Mutex => match given {
            Value::Nil | Value::Bool(false) => boxed(Mutex { held: false }),
            Value::Bool(true) => boxed(Mutex { held: true }),
            other => {
                return Err(format!("the model {model} begins with true (held) or false, not with {other}"));
            }
        },
        ModelName::OwnedMutex => free().map(|()| boxed(OwnedMutex::plain()))?,
        ModelName::ReentrantMutex => free().map(|()| boxed(OwnedMutex::reentrant()))?,
        ModelName::FencedMutex => free().map(|()| boxed(OwnedMutex::fenced()))?,
        ModelName::Semaphore => {
            let permits = number(i64::from(Semaphore::default().permits))?;
            let permits =
                u32::try_from(permits).map_err(|_| format!("a semaphore has no {permits} permits"))?;
            boxed(Semaphore { permits })
        }
    })
}

/// Judges by any model: one of [`models`](mod@crate::models) with other initial values, a [`Spec`](crate::models::Spec)
/// over a stateright specification, or a stranger's own.
pub fn linearizable_by<M: Model>(model: M) -> impl Checker {
    Linearizable::new(model)
}

struct Named(Box<dyn Checker>);

impl Checker for Named {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn check(&self, history: &History, budget: &Budget) -> Verdict {
        self.0.check(history, budget)
    }
}

pub(crate) const NAME: &str = "linearizable";
/// Why there is no verdict on a history of which no operation that is judged was answered.
const NOTHING: &str = "there is no operation to judge";

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
        let operations = match history.paired() {
            Ok(operations) => operations,
            Err(error) => return Verdict::unknown(NAME, format!("the history is malformed: {error}")),
        };
        let keys = match Keys::of(&operations, self.model.is_local()) {
            Ok(keys) => keys,
            Err(reason) => return Verdict::unknown(NAME, reason),
        };
        let side_by_side = rayon::current_num_threads().min(keys.len());
        let share = budget.split(side_by_side);
        let verdicts = keys.map(&operations, |records| judge(&self.model, &records, &share));
        self.summarise(&operations, &keys, verdicts, budget)
    }
}

impl<M: Model> Linearizable<M> {
    fn summarise(
        &self,
        operations: &Operations<'_>,
        keys: &Keys,
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
            ("specialist_keys".into(), sum(|v| u64::from(v.special)).into()),
        ]);
        let (local, values) = (self.model.is_local(), operations.values());
        for (&key, found) in keys.keys.iter().zip(verdicts) {
            match found.result {
                KeyResult::Valid => {}
                KeyResult::Unknown(reason) => unknown.push((values.get(key), reason)),
                KeyResult::Invalid(guilt) => {
                    if invalid.len() < MAX_EXPLAINED {
                        let anomaly = explain::explain(
                            &self.model,
                            operations,
                            local.then_some(key),
                            &guilt,
                            found.unobservable,
                            budget,
                        );
                        verdict.anomalies.push(anomaly);
                    }
                    invalid.push(values.get(key));
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
        if !keys.answered {
            reasons.push(NOTHING.into());
        }
        verdict.validity = match (invalid.is_empty(), unknown.is_empty() && keys.answered) {
            (false, _) => Validity::Invalid,
            (true, false) => Validity::Unknown,
            (true, true) => Validity::Valid,
        };
        verdict.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        verdict
    }
}
