//! Operations as a picture of text: one lane a process, time to the right.
//!
//! ```text
//! process 0  |-- w 5 --|
//! process 1       |-- cas 5->6 ok --|
//! process 2                            |== r -> 5 ==|
//! ```
//!
//! The axis is condensed: only the order of calls and returns is true, which is all that linearizability is about;
//! bars that overlap here overlapped then. Deliberately not for a whole history: it draws what it is given.

use crate::{Op, OpOutcome, Operation, Ret};

/// A short label: `w 5`, `r -> 3`, `cas 1->2 ok`, `cas 1->2 no (7)`, and `w 5 ?` when nobody knows.
pub fn label(operation: &Operation) -> String {
    let asked = match &operation.op {
        Op::Read { .. } => "r".to_string(),
        Op::Write { value, .. } => format!("w {value}"),
        Op::Cas { expected, new, .. } => format!("cas {expected}->{new}"),
        Op::Append { value, .. } => format!("append {value}"),
        Op::Delete { .. } => "del".to_string(),
        Op::Add { value, .. } => format!("add {value}"),
        Op::Enqueue { value, .. } => format!("enq {value}"),
        Op::Dequeue { .. } => "deq".to_string(),
        Op::Acquire { .. } => "acquire".to_string(),
        Op::Release { .. } => "release".to_string(),
        Op::Custom { f, .. } => f.to_string(),
    };
    match &operation.outcome {
        OpOutcome::Ok(Ret::Done) => asked,
        OpOutcome::Ok(Ret::Value(value)) => format!("{asked} -> {value}"),
        OpOutcome::Ok(Ret::Swapped { swapped: true, .. }) => format!("{asked} ok"),
        OpOutcome::Ok(Ret::Swapped { swapped: false, found: None }) => format!("{asked} no"),
        OpOutcome::Ok(Ret::Swapped { swapped: false, found: Some(found) }) => format!("{asked} no ({found})"),
        OpOutcome::Ok(Ret::Custom(value)) => format!("{asked} -> {value}"),
        OpOutcome::Fail => format!("{asked} failed"),
        OpOutcome::Info => format!("{asked} ?"),
    }
}
