//! The nodes' logs, looked through when the run is over: what is found is written into the history, where it is judged.
//!
//! ```text
//! nodes/n2.log ─▶ patterns ─▶ observer  log-finding {node: n2, line: 371, text: "thread 'main' panicked at …"} ─▶ history.jsonl
//! ```
//! Deliberately no verdict here: the checker `log-patterns` reads it off the history, as everything else is judged.

use crate::{journal, store::Store};
use anyhow::Result;
use checkers::{
    Op,
    bench::{LOG_FINDING, LOG_SCAN},
};
use regex::bytes::{Regex, RegexSet};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// What must not be in a node's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogsSpec {
    /// Lines that match one of these regular expressions are findings. None at all: the logs are left alone.
    pub patterns: Vec<String>,
    /// Unless they match one of these.
    pub ignore: Vec<String>,
}

/// What no program says that is well, in the languages that databases are written in. Each is the beginning of a death.
const DEFAULT_PATTERNS: [&str; 8] = [
    // Rust.
    r"thread '.*' (\(\d+\) )?panicked at",
    r"fatal runtime error: ",
    // Go.
    r"^panic: ",
    r"^fatal error: ",
    r"^WARNING: DATA RACE",
    // C and C++.
    r"SIGSEGV|[Ss]egmentation fault",
    r"^==\d+==ERROR: \w+Sanitizer|^WARNING: ThreadSanitizer",
    r"Assertion [`'].*' failed",
];

impl Default for LogsSpec {
    fn default() -> Self {
        LogsSpec { patterns: DEFAULT_PATTERNS.map(String::from).to_vec(), ignore: vec![] }
    }
}

impl LogsSpec {
    /// Whether it is what is done when nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == LogsSpec::default()
    }

    /// What is wrong with it, if anything.
    pub fn mistake(&self) -> Option<String> {
        let wrong = |pattern: &String| {
            let error = Regex::new(pattern).err()?.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Some(format!("`{pattern}` is no regular expression: {reason}"))
        };
        self.patterns.iter().chain(&self.ignore).find_map(wrong)
    }
}

/// Of one log so many findings are written down; the others would say the same.
const MOST: usize = 1000;
/// Longer lines are cut, in bytes.
const LONGEST: usize = 500;

/// Looks through the logs of `nodes` in the run's folder, and adds to its history what it finds and how much it has looked at.
///
/// # Errors
/// If a pattern is wrong or the history cannot be written.
pub fn record(store: &Store, nodes: &[String], spec: &LogsSpec) -> Result<()> {
    if spec.patterns.is_empty() {
        return Ok(());
    }
    let (patterns, ignore) = (RegexSet::new(&spec.patterns)?, RegexSet::new(&spec.ignore)?);
    let mut observed = Vec::new();
    for node in nodes {
        let (findings, lines, error) = look_through(&store.node_log(node), &patterns, &ignore);
        for Finding { line, text, pattern } in findings {
            let pattern = &spec.patterns[pattern];
            observed
                .push((LOG_FINDING, json!({"node": node, "line": line, "text": text, "pattern": pattern})));
        }
        let error = error.map(|error| error.to_string());
        observed.push((LOG_SCAN, json!({"node": node, "lines": lines, "error": error})));
    }
    let ops = observed.into_iter().map(|(f, value)| Op::Custom { f: f.into(), key: None, value }).collect();
    journal::append_observed(&store.file("history.jsonl"), ops)
}

struct Finding {
    line: u64,
    text: String,
    pattern: usize,
}

/// The findings of one log, how many lines it has, and why it could not be read to its end. The last line may be torn: a node
/// that is killed is in the middle of something.
fn look_through(
    path: &Path,
    patterns: &RegexSet,
    ignore: &RegexSet,
) -> (Vec<Finding>, u64, Option<io::Error>) {
    let (mut findings, mut lines): (Vec<Finding>, u64) = (Vec::new(), 0);
    let mut log = match File::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 18, file),
        // It never said anything.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (findings, 0, None),
        Err(error) => return (findings, 0, Some(error)),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        match read_line(&mut log, &mut line) {
            Ok(false) => return (findings, lines, None),
            Ok(true) => lines += 1,
            Err(error) => return (findings, lines, Some(error)),
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        // What a panic says stands in the line behind it.
        if let Some(last) = findings.last_mut().filter(|last| last.line + 1 == lines) {
            last.text = format!("{} / {}", last.text, cut(text));
        }
        let found = patterns.matches(text).iter().next();
        if let Some(pattern) = found.filter(|_| findings.len() < MOST && !ignore.is_match(text)) {
            findings.push(Finding { line: lines, text: cut(text), pattern });
        }
    }
}

/// Reads a line, of which no more is kept than a pattern can need: a log may be one endless line.
fn read_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    const KEPT: usize = 1 << 16;
    let mut any = false;
    loop {
        let available = log.fill_buf()?;
        if available.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(available.len(), |at| at + 1);
        let room = KEPT.saturating_sub(line.len()).min(used);
        line.extend_from_slice(&available[..room]);
        log.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn cut(text: &[u8]) -> String {
    let short = &text[..text.len().min(LONGEST)];
    let more = if text.len() > LONGEST { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(short))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, judge, plan::TestPlan, run::Record, scenario::Scenario};
    use checkers::{Budget, Checker, Header, Kind, Meta, Process, Validity, Verdict, bench};

    const PANIC: &str = "starting\n2026-01-01 ready\nthread 'tokio-rt-worker' (71) panicked at src/wal.rs:7:5:\n\
                         the log has a hole\nnote: run with `RUST_BACKTRACE=1`\nthread 'main";

    /// Puts a run with these logs into a folder, and looks through them.
    fn looked_through(folder: &Path, logs: &[(&str, &[u8])], spec: &LogsSpec) -> Store {
        let store = Store::create(folder, "logs", "20260101T000000Z").unwrap();
        let path = store.file("history.jsonl");
        let header = Header::new("logs", 1, "", vec![]);
        let (journal, writer) = journal::Journal::open(&path, &header, Clock::start(), None).unwrap();
        let leader = Op::Custom { f: "leader".into(), key: None, value: "n1".into() };
        journal.record(Process::Observer, Kind::Info, leader, None, Meta::default());
        writer.close().unwrap();
        for (node, text) in logs {
            std::fs::write(store.node_log(node), text).unwrap();
        }
        let nodes: Vec<String> = ["n1", "n2"].map(String::from).to_vec();
        record(&store, &nodes, spec).unwrap();
        store
    }

    /// What the checker says of the history of such a run.
    fn judged(logs: &[(&str, &[u8])], spec: &LogsSpec) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let store = looked_through(folder.path(), logs, spec);
        let history = judge::read_history(&store.file("history.jsonl")).unwrap();
        assert!(history.operations().is_ok(), "the history is no history any more");
        bench::log_patterns().check(&history, &Budget::unlimited())
    }

    #[test]
    fn a_panic_in_a_nodes_log_is_a_finding_with_its_place() {
        let verdict = judged(&[("n1", b"ready\n"), ("n2", PANIC.as_bytes())], &LogsSpec::default());
        assert_eq!(verdict.validity, Validity::Invalid);
        let messages: Vec<&str> = verdict.anomalies.iter().map(|anomaly| anomaly.message.as_str()).collect();
        let expected = "the log of n2 says in line 3: thread 'tokio-rt-worker' (71) panicked at src/wal.rs:7:5: / the log has a hole";
        assert_eq!(messages, [expected]);
        assert_eq!((&verdict.stats["logs"], &verdict.stats["lines"]), (&json!(2), &json!(7)));
    }

    #[test]
    fn a_run_with_a_panic_in_a_log_is_invalid() {
        let folder = tempfile::tempdir().unwrap();
        let scenario = Scenario::parse("logs", "{name: logs, nemesis: none}").unwrap();
        let plan = TestPlan::new(&scenario, 1).unwrap();
        let judge = |text: &str| {
            let store = looked_through(folder.path(), &[("n2", text.as_bytes())], &scenario.logs);
            let history = store.file("history.jsonl");
            judge::judge(&history, &plan, Record::default(), store.folder()).unwrap()
        };
        let results = judge(PANIC);
        assert_eq!(results.valid, Validity::Invalid);
        assert_eq!(results.checkers["log-patterns"].validity, Validity::Invalid);
        // Nothing was asked: no pass either.
        let results = judge("ready\n");
        assert_eq!(results.valid, Validity::Unknown);
        assert_eq!(results.checkers["log-patterns"].validity, Validity::Valid);
    }

    #[test]
    fn what_is_ignored_or_not_looked_for_is_none() {
        let logs: [(&str, &[u8]); 1] = [("n1", PANIC.as_bytes())];
        let ignoring = LogsSpec { ignore: vec![r"src/wal\.rs".to_owned()], ..LogsSpec::default() };
        assert_eq!(judged(&logs, &ignoring).validity, Validity::Valid);
        let other = LogsSpec { patterns: vec!["ready$".to_owned()], ignore: vec![] };
        assert_eq!(judged(&logs, &other).anomalies[0].details["line"], 2);
        // Then nobody has looked.
        let none = LogsSpec { patterns: vec![], ignore: vec![] };
        assert_eq!(judged(&logs, &none).validity, Validity::Unknown);
        assert_eq!(judged(&[], &LogsSpec::default()).validity, Validity::Unknown);
    }

    #[test]
    fn strange_logs_are_read_to_their_end() {
        let long = [vec![b'x'; 1 << 20], b"\nSIGSEGV\n".to_vec()].concat();
        let verdict =
            judged(&[("n1", &long), ("n2", b"\xff\xfe\0\r\nSegmentation fault")], &LogsSpec::default());
        let lines: Vec<_> = verdict.anomalies.iter().map(|anomaly| anomaly.details["line"].clone()).collect();
        assert_eq!(lines, [json!(2), json!(2)]);
        let many = "panic: no\n".repeat(5000);
        let verdict = judged(&[("n1", many.as_bytes())], &LogsSpec::default());
        assert_eq!(verdict.stats["findings"], json!(MOST));
    }

    #[test]
    fn a_wrong_pattern_is_a_mistake() {
        assert_eq!(LogsSpec::default().mistake(), None);
        let wrong = LogsSpec { patterns: vec!["(".to_owned()], ..LogsSpec::default() };
        assert_eq!(wrong.mistake().unwrap(), "`(` is no regular expression: unclosed group");
    }
}
