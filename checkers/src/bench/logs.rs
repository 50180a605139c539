//! `log-patterns`: a panic in a node's log is a finding.
//!
//! ```text
//! observer   log-scan      {node: n2, lines: 1204}
//! observer   log-finding   {node: n2, line: 371, text: "thread 'main' panicked at …", pattern: "…"}
//! ```
//!
//! Jepsen's `checker/log-file-pattern`. Deliberately looks at no file: whoever has the logs looks through them and writes down as
//! events of the process `observer` what was found, and that it was looked for. So a history alone is enough to judge.

use serde_json::{Value as Json, json};

use super::checker_of_history;
use crate::{Checker, Op, Process};

pub(super) const NAME: &str = "log-patterns";

/// The name of the event that says that a log was looked through: an object with `node`, `lines`, and `error` if it could
/// not be read to its end.
pub const LOG_SCAN: &str = "log-scan";
/// The name of the event for a line that matched: an object with `node`, `line` (from 1), `text` and `pattern`.
pub const LOG_FINDING: &str = "log-finding";

/// Turns findings into anomalies. Unknown if no line of any log was looked at, or a log could not be read.
pub fn log_patterns() -> impl Checker {
    checker_of_history(NAME, |history, _, findings| {
        let (mut logs, mut lines, mut found) = (0_u64, 0_u64, 0_u64);
        for at in 0..history.events.len() {
            if history.events.process(at as u32) != Process::Observer {
                continue;
            }
            let event = history.events.get(at);
            let Op::Custom { f, value, .. } = &event.op else { continue };
            let text = |field: &str| value[field].as_str().unwrap_or("").to_owned();
            let node = value["node"].as_str().unwrap_or("a node").to_owned();
            match &**f {
                LOG_SCAN => {
                    logs += 1;
                    lines += value["lines"].as_u64().unwrap_or(0);
                    if let Json::String(error) = &value["error"] {
                        findings.doubt(format!("the log of {node} could not be looked through: {error}"));
                    }
                }
                LOG_FINDING => {
                    found += 1;
                    let line = value["line"].as_u64().unwrap_or(0);
                    findings.guilty(
                        "log-finding",
                        vec![],
                        format!("the log of {node} says in line {line}: {}", text("text")),
                        json!({
                            "node": node, "line": line, "text": text("text"), "pattern": text("pattern"),
                            "event": event.index,
                        }),
                    );
                }
                _ => {}
            }
        }
        for (name, count) in [("logs", logs), ("lines", lines), ("findings", found)] {
            findings.stat(name, count);
        }
        if lines == 0 {
            findings.doubt(match logs {
                0 => "nobody looked through the nodes' logs",
                _ => "the nodes' logs are empty",
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;
    use crate::{Event, Header, History, Kind, Meta, Validity, Validity::*};

    fn observed(all: &[(&str, Json)]) -> History {
        let event = |((f, value), index): (&(&str, Json), u64)| Event {
            index,
            time: index,
            process: Process::Observer,
            kind: Kind::Info,
            op: Op::Custom { f: (*f).into(), key: None, value: value.clone() },
            ret: None,
            meta: Meta::default(),
        };
        History::new(Header::new("logs", 0, "", vec![]), all.iter().zip(0..).map(event).collect::<Vec<_>>())
    }

    fn judge(all: &[(&str, Json)]) -> (Validity, Vec<String>) {
        check(&log_patterns(), &observed(all))
    }

    #[test]
    fn a_finding_is_guilt_and_no_look_is_doubt() {
        let scan = |lines: u64| (LOG_SCAN, json!({"node": "n1", "lines": lines}));
        let finding =
            (LOG_FINDING, json!({"node": "n2", "line": 7, "text": "thread 'main' panicked at x.rs"}));
        assert_eq!(judge(&[]).0, Unknown);
        assert_eq!(judge(&[scan(0)]).0, Unknown);
        assert_eq!(judge(&[scan(12)]), (Valid, vec![]));
        assert_eq!(judge(&[scan(12), finding.clone()]), (Invalid, vec!["log-finding".to_owned()]));
        assert_eq!(
            judge(&[scan(12), (LOG_SCAN, json!({"node": "n2", "lines": 3, "error": "gone"}))]).0,
            Unknown
        );
        // What others observe is no matter of logs, and nothing strange may panic.
        assert_eq!(judge(&[scan(1), ("leader", json!("n1")), (LOG_SCAN, json!([1]))]).0, Valid);
        let verdict = log_patterns().check(&observed(&[finding]), &crate::Budget::unlimited());
        assert_eq!(
            verdict.anomalies[0].message,
            "the log of n2 says in line 7: thread 'main' panicked at x.rs"
        );
    }

    /// By counting the rows.
    #[test]
    fn every_finding_counts() {
        use rand::{RngExt, SeedableRng};
        for seed in 0..1000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let rows: Vec<(&str, Json)> = (0..rng.random_range(0..6))
                .map(|_| match rng.random_range(0..4) {
                    0 => (LOG_FINDING, json!({"node": "n1", "line": 1, "text": "x"})),
                    1 => ("leader", json!("n1")),
                    _ => (LOG_SCAN, json!({"node": "n1", "lines": rng.random_range(0..2)})),
                })
                .collect();
            let found = rows.iter().filter(|row| row.0 == LOG_FINDING).count();
            let looked = rows.iter().any(|row| row.0 == LOG_SCAN && row.1["lines"] == 1);
            let expected = match (found, looked) {
                (0, true) => Valid,
                (0, false) => Unknown,
                _ => Invalid,
            };
            let (validity, names) = judge(&rows);
            assert_eq!((validity, names.len()), (expected, found), "seed {seed}: {rows:?}");
        }
    }
}
