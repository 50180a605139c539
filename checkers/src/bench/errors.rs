//! `unhandled-errors`: what went wrong for the clients, the same things together.
//!
//! ```text
//! info  write   "timed out after # ms"     1204 times     operations 17, 18, 40
//! fail  read    "not the leader"             31 times     operations 3, 5, 90
//! ```
//!
//! Jepsen's `checker/unhandled-exceptions`. Messages are of one class if they differ in numbers only (addresses, durations,
//! ids). Deliberately never invalid: an error is what a client may meet; what it may not meet, the other judges say.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::json;

use super::checker;
use crate::{Checker, OpOutcome, Operation};

pub(super) const NAME: &str = "unhandled-errors";

/// How many classes are told, and how many examples of each.
const CLASSES: usize = 100;
const EXAMPLES: usize = 3;
/// Longer messages are cut.
const LETTERS: usize = 200;

#[derive(Default)]
struct Class {
    count: u64,
    nodes: BTreeMap<String, u64>,
    examples: Vec<Operation>,
}

/// Groups the errors of failed operations and of those of unknown outcome, the most frequent first. Unknown if nothing was
/// asked.
pub fn unhandled_errors() -> impl Checker {
    checker(NAME, |operations, findings| {
        let mut classes: BTreeMap<(&str, String, String), Class> = BTreeMap::new();
        let (mut silent, mut errors) = (0_u64, 0_u64);
        for operation in operations.iter() {
            let outcome = match operation.outcome {
                OpOutcome::Ok(_) => continue,
                OpOutcome::Fail => "fail",
                OpOutcome::Info => "info",
            };
            let Some(error) = &operation.meta.error else {
                silent += 1;
                continue;
            };
            errors += 1;
            let class = classes.entry((outcome, operation.op.f().to_owned(), class(error))).or_default();
            class.count += 1;
            if let Some(node) = &operation.meta.node {
                *class.nodes.entry(node.to_string()).or_insert(0) += 1;
            }
            if class.examples.len() < EXAMPLES {
                class.examples.push(operation);
            }
        }
        findings.stat("errors", errors);
        findings.stat("without_a_message", silent);
        findings.stat("classes", classes.len());
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|(_, class)| Reverse(class.count));
        let told = classes.iter().take(CLASSES).map(|((outcome, f, name), class)| {
            let example = |operation: &Operation| {
                let error: String =
                    operation.meta.error.as_deref().unwrap_or("").chars().take(LETTERS).collect();
                json!({"operation": operation.id, "process": operation.process, "error": error})
            };
            json!({
                "type": outcome, "f": f, "class": name, "count": class.count, "nodes": class.nodes,
                "examples": class.examples.iter().map(example).collect::<Vec<_>>(),
            })
        });
        findings.stat("by_class", told.collect::<Vec<_>>());
        if operations.is_empty() {
            findings.doubt("nothing was asked");
        }
    })
}

/// The message with `#` for each number.
fn class(error: &str) -> String {
    let mut class = String::new();
    let mut in_number = false;
    for letter in error.chars().take(LETTERS) {
        let digit = letter.is_ascii_digit();
        match (digit, in_number) {
            (true, true) => {}
            (true, false) => class.push('#'),
            (false, _) => class.push(letter),
        }
        in_number = digit;
    }
    class
}

#[cfg(test)]
mod tests {
    use super::super::tests::history;
    use super::*;
    use crate::{Budget, Event, History, Kind, Op, Validity::*};

    fn with_errors(rows: &[(u64, Kind, Option<&str>)]) -> History {
        let write = |process, told| {
            (process, process, process + 5, Op::Write { key: 1.into(), value: 2.into() }, told)
        };
        let plain: Vec<_> = rows.iter().map(|(process, ..)| write(*process, None)).collect();
        let history = history(&plain);
        let events = history.events.iter().map(|mut event: Event| {
            let row = rows.iter().find(|row| event.process == crate::Process::Client(row.0)).unwrap();
            if event.kind != Kind::Invoke {
                event.kind = row.1;
                event.meta.error = row.2.map(Into::into);
                event.meta.node = Some("n1".into());
            }
            event
        });
        History::new(history.header.clone(), events.collect::<Vec<_>>())
    }

    #[test]
    fn what_differs_in_numbers_is_the_same() {
        let history = with_errors(&[
            (0, Kind::Info, Some("timed out after 1000 ms")),
            (1, Kind::Info, Some("timed out after 7 ms")),
            (2, Kind::Fail, Some("not the leader")),
            (3, Kind::Fail, None),
            (4, Kind::Ok, Some("a warning")),
        ]);
        let verdict = unhandled_errors().check(&history, &Budget::unlimited());
        assert_eq!(verdict.validity, Valid);
        assert_eq!((&verdict.stats["errors"], &verdict.stats["without_a_message"]), (&json!(3), &json!(1)));
        assert_eq!(
            verdict.stats["by_class"],
            json!([
                {"type": "info", "f": "write", "class": "timed out after # ms", "count": 2, "nodes": {"n1": 2}, "examples": [
                    {"operation": 0, "process": 0, "error": "timed out after 1000 ms"},
                    {"operation": 1, "process": 1, "error": "timed out after 7 ms"},
                ]},
                {"type": "fail", "f": "write", "class": "not the leader", "count": 1, "nodes": {"n1": 1}, "examples": [
                    {"operation": 2, "process": 2, "error": "not the leader"},
                ]},
            ])
        );
        let nothing = unhandled_errors().check(&with_errors(&[]), &Budget::unlimited());
        assert_eq!(nothing.validity, Unknown);
    }

    /// Counting by hand: every error is in one class, and classes tell apart what differs in more than numbers.
    #[test]
    fn every_error_is_counted_once() {
        use rand::{RngExt, SeedableRng};
        for seed in 0..1000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let texts: Vec<(Kind, String)> = (0..rng.random_range(1..12))
                .map(|_| {
                    let kind = if rng.random_bool(0.5) { Kind::Fail } else { Kind::Info };
                    let letter = ["a", "b", "é"][rng.random_range(0..3)];
                    (kind, format!("{letter}{}{letter}", rng.random_range(0..2000)))
                })
                .collect();
            let rows: Vec<_> =
                texts.iter().zip(0..).map(|((kind, text), at)| (at, *kind, Some(text.as_str()))).collect();
            let verdict = unhandled_errors().check(&with_errors(&rows), &Budget::unlimited());
            let mut expected: Vec<(Kind, String)> = texts
                .iter()
                .map(|(kind, text)| (*kind, text.chars().filter(|c| !c.is_ascii_digit()).collect()))
                .collect();
            let total = expected.len() as u64;
            expected.sort();
            expected.dedup();
            let classes = verdict.stats["by_class"].as_array().unwrap();
            assert_eq!(classes.len(), expected.len(), "seed {seed}: {texts:?}");
            let sum: u64 = classes.iter().filter_map(|class| class["count"].as_u64()).sum();
            assert_eq!(sum, total);
        }
    }
}
