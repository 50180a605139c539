//! Sequentially consistent or not? What is left of a guarantee when linearizability is gone.
//!
//! ```text
//! p1: write x 1   read y -> nil        no order of the four keeps both programs and both answers:
//! p2: write y 1   read x -> nil        not sequentially consistent, though each key by itself is
//! ```
//!
//! Lamport, *How to make a multiprocessor computer that correctly executes multiprocess programs*, 1979: there is one order of
//! all operations in which each process keeps its own, and every read finds the last write. Real time does not matter. It is
//! not local, so keys are judged together, and it is NP-complete (Gibbons and Korach, *Testing shared memories*, 1997): after
//! a first guess, what must come before what is worked out until nothing new follows (`saturate`), which proves most guilt; then
//! an order is searched for (`search`), within a number of steps.
//!
//! For registers: reads, writes, compare-and-sets, deletes. An operation of unknown outcome is the last of its process, and need
//! not have happened. Deliberately bounded: beyond its budget it does not know.

mod acts;
#[cfg(test)]
mod oracle;
mod saturate;
mod search;
mod still_holds;

use serde_json::json;

use self::acts::Acts;
pub use self::still_holds::{StillHolds, still_holds};
use crate::{Anomaly, Budget, Checker, History, Operation, Operations, Validity, Value, Verdict, timeline};

pub(crate) const NAME: &str = "sequential";

/// How a history is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequentialOptions {
    /// What every key holds at first.
    pub initial: Value,
    /// Whether reads are judged that do not claim to see the latest write (`stale`, `unsafe-leader`).
    pub stale_reads: bool,
    /// How many steps the search may take.
    pub max_steps: u64,
}

impl Default for SequentialOptions {
    fn default() -> Self {
        SequentialOptions { initial: Value::Nil, stale_reads: true, max_steps: 50_000_000 }
    }
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Valid,
    /// These alone cannot be, by their numbers among the acts; with a reason in words, if there is a short one.
    Invalid(Vec<u32>, Option<String>),
    Unknown(String),
}

/// Judges registers of any number, together.
pub fn sequential(options: SequentialOptions) -> impl Checker {
    Sequential { options }
}

struct Sequential {
    options: SequentialOptions,
}

impl Checker for Sequential {
    fn name(&self) -> &str {
        NAME
    }

    fn check(&self, history: &History, budget: &Budget) -> Verdict {
        let operations = match history.paired() {
            Ok(operations) => operations,
            Err(error) => return Verdict::unknown(NAME, format!("the history is malformed: {error}")),
        };
        let acts = Acts::new(operations, &self.options);
        let mut verdict = Verdict::valid(NAME);
        let mut steps = 0;
        match decide(&acts, self.options.max_steps, budget, &mut steps) {
            Answer::Invalid(evidence, words) => {
                let evidence = minimise(&acts, evidence, budget);
                verdict.validity = Validity::Invalid;
                verdict.anomalies.push(explain(&acts, operations, evidence, words));
                verdict.reason =
                    Some("there is no order that all processes and all answers agree with".into());
            }
            Answer::Unknown(why) => verdict = Verdict::unknown(NAME, why),
            Answer::Valid if acts.foreign > 0 => {
                let why = format!(
                    "{} operations are none that it knows (read, write, cas, delete), and their keys were left out",
                    acts.foreign
                );
                verdict = Verdict::unknown(NAME, why);
            }
            Answer::Valid if acts.reads() == 0 => {
                verdict = Verdict::unknown(NAME, "nothing was read: there is nothing to judge");
            }
            Answer::Valid => {}
        }
        verdict.stats.insert("operations".into(), acts.all.len().into());
        verdict.stats.insert("steps".into(), steps.into());
        verdict
    }
}

fn decide(acts: &Acts, max_steps: u64, budget: &Budget, steps: &mut u64) -> Answer {
    if let Some(act) = acts.unexplained() {
        return Answer::Invalid(acts.witnessed(vec![act]), Some("nobody ever wrote what was read".into()));
    }
    // Most histories are fine, and then the first guess is.
    let (mut guessed, allowance) = (0, 8 * acts.all.len() as u64 + 10_000);
    let guess = search::search(acts, &saturate::reads(acts), allowance.min(max_steps), budget, &mut guessed);
    *steps += guessed;
    if guess == Answer::Valid {
        return guess;
    }
    let (mut saturated, mut searched) = (0, 0);
    let answer = match saturate::saturate(acts, max_steps, budget, &mut saturated) {
        Ok(order) => search::search(acts, &order, max_steps, budget, &mut searched),
        Err(Answer::Invalid(evidence, words)) => Answer::Invalid(acts.witnessed(evidence), words),
        Err(answer) => answer,
    };
    *steps += saturated + searched;
    answer
}

/// Up to so many operations are made fewer, with so many steps for each attempt.
const SMALL: usize = 200;
const ATTEMPT: u64 = 20_000;

/// Leaves out, one after the other, what is not needed for the proof. What others have read must stay.
fn minimise(acts: &Acts, mut evidence: Vec<u32>, budget: &Budget) -> Vec<u32> {
    if evidence.len() > SMALL {
        return evidence;
    }
    let mut at = evidence.len();
    while at > 0 {
        at -= 1;
        let mut fewer = evidence.clone();
        fewer.remove(at);
        let Some(part) = acts.only(&fewer) else { continue };
        if let Answer::Invalid(..) = decide(&part, ATTEMPT, budget, &mut 0) {
            evidence = fewer;
        }
    }
    evidence
}

fn explain(acts: &Acts, operations: Operations<'_>, evidence: Vec<u32>, words: Option<String>) -> Anomaly {
    let mut ids: Vec<usize> = evidence.iter().map(|act| acts.all[*act as usize].operation as usize).collect();
    ids.sort_unstable();
    ids.dedup();
    let shown: Vec<Operation> = ids.iter().take(SMALL).map(|id| operations.get(*id)).collect();
    let told: Vec<String> = shown
        .iter()
        .map(|operation| {
            let key = operation.op.key().cloned().unwrap_or_default();
            format!(
                "operation {} of process {}: {} on key {key}",
                operation.id,
                operation.process,
                timeline::label(operation)
            )
        })
        .collect();
    let because = words.unwrap_or_else(|| "every order was tried".to_owned());
    Anomaly {
        name: "not-sequential".into(),
        message: format!(
            "no order keeps what each process did and lets every read find the last write: {because}. {}",
            told.join("; ")
        ),
        operations: ids,
        details: json!({"because": because}),
        picture: Some(timeline::draw(&shown.iter().collect::<Vec<_>>(), &[])),
    }
}
