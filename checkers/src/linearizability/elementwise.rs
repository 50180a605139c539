//! Sets of which only single elements are looked at: each element by itself.
//!
//! ```text
//! add 1   remove 1   contains 2? no   add 2         element 1: write true, write false
//!                                                   element 2: read false, write true
//! ```
//!
//! As long as nobody reads the whole, the elements know nothing of each other, and a set is as many registers as it has
//! elements; linearizability is local (Herlihy and Wing, 1990, theorem 1; for sets also Abdulla et al., PLDI 2025, section 6). Deliberately
//! no more than the split: each element is then searched.

use rayon::prelude::*;

use super::{
    flat::Flat,
    judge::{KeyResult, KeyVerdict, decide_flat},
    record::{Record, Records},
    register::Answer,
};
use crate::{Budget, history::events::F};

/// Decides a set that is empty at first, with these judged operations.
pub(super) fn decide(records: &Records<'_>, budget: &Budget) -> Answer {
    let mut all: Vec<Record> = Vec::with_capacity(records.len());
    let read = records.try_each(|record| {
        all.push(*record);
        if matches!(record.f, F::Add | F::Remove | F::Contains) { Ok(()) } else { Err(()) }
    });
    if read.is_err() {
        return Answer::NotForMe;
    }
    all.sort_unstable_by_key(|record| (record.a, record.id));
    let share = budget.split(rayon::current_num_threads());
    let judged: Vec<Answer> = all
        .par_chunk_by(|one, other| one.a == other.a)
        .map(|element| one(records, element, &share))
        .filter(|answer| *answer != Answer::Valid(0))
        .collect();
    let mut unseen = 0;
    let mut doubt = None;
    for answer in judged {
        match answer {
            Answer::Valid(more) => unseen += more,
            Answer::Invalid(_) | Answer::Huge(..) | Answer::NotForMe => return answer,
            Answer::Unknown(_) => doubt = doubt.or(Some(answer)),
        }
    }
    doubt.unwrap_or(Answer::Valid(unseen))
}

/// Decides one element.
fn one(records: &Records<'_>, element: &[Record], budget: &Budget) -> Answer {
    let Some(flat) = Flat::element(records.operations, element) else { return Answer::NotForMe };
    let KeyVerdict { result, unobservable, .. } = decide_flat(&flat, budget);
    match result {
        KeyResult::Valid => Answer::Valid(unobservable),
        KeyResult::Unknown(reason) => {
            Answer::Unknown(format!("element {}: {reason}", records.values().get(element[0].a)))
        }
        KeyResult::Invalid(_) => Answer::Invalid(flat.ids),
    }
}
