//! The faces of a run's results: text for the terminal, one self-contained HTML page, JUnit for CI, histograms.
//!
//! ```text
//! Results ─┬─ text::render     stdout
//!          ├─ html::render     report.html           with counterexamples from `timeline` and `cycle`
//!          ├─ junit::render    junit.xml
//!          └─ latency-*.hgrm   HdrHistogram's percentile format
//! ```
//! Drawing comes after the verdict is saved and cannot change it.

mod chart;
mod cycle;
pub mod html;
pub mod junit;
mod layout;
mod replicas;
pub mod text;
mod timeline;
mod words;

use crate::{judge::Results, plan::TestPlan, store::Store};
use anyhow::Result;

/// Writes every face but the text into the run's folder. Returns what could not be drawn.
pub fn draw(results: &Results, plan: &TestPlan, store: &Store) -> Vec<String> {
    let faces: [(&str, Result<()>); 3] = [
        ("report.html", html::render(results, plan, store).and_then(|page| store.write("report.html", page))),
        ("junit.xml", junit::render(results).and_then(|xml| store.write("junit.xml", xml))),
        ("latency histograms", histograms(results, store)),
    ];
    faces
        .into_iter()
        .filter_map(|(name, drawn)| drawn.err().map(|e| format!("{name} was not drawn: {e:#}")))
        .collect()
}

/// One file for each path and each operation, in the format that HdrHistogram's plotter reads, in milliseconds.
fn histograms(results: &Results, store: &Store) -> Result<()> {
    let p = &results.performance;
    for series in p.by_f.iter().chain(&p.by_path) {
        let name = series.path.as_ref().or(series.f.as_ref());
        let Some(name) = name.filter(|_| series.ok > 0) else { continue };
        let plain: String =
            name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let mut text = Vec::new();
        series.response.write_hgrm(&mut text)?;
        store.write(&format!("latency-{plain}.hgrm"), text)?;
    }
    Ok(())
}

/// Data as text that may stand in a script of a page, whatever it contains.
fn esc(data: &serde_json::Value) -> String {
    data.to_string().replace('<', "\\u003c")
}

/// Nanoseconds as milliseconds with three significant digits or so: `0.123`, `4.56`, `789`.
pub(crate) fn ms(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ms {
        x if x < 1.0 => format!("{x:.3}"),
        x if x < 10.0 => format!("{x:.2}"),
        x if x < 100.0 => format!("{x:.1}"),
        x => format!("{x:.0}"),
    }
}

/// A small run made by hand, for the tests of every face.
#[cfg(test)]
pub(crate) mod sample {
    use crate::{
        judge::{self, Results},
        plan::TestPlan,
        run::{Leader, Record},
        scenario::Scenario,
        store::Store,
    };
    use checkers::{Event, Header, Kind, Meta, Op, Process, ReadMode, Ret, Value, jsonl};
    use nemesis::{Effect, FaultKind, Receipt};
    use std::path::Path;

    const MS: u64 = 1_000_000;

    /// Two clients, a write that is acknowledged and a read that does not see it; a pause that was observed.
    pub(crate) fn run(folder: &Path) -> (Results, TestPlan, Store) {
        let store = Store::create(folder, "sample", "20260101T000000Z").expect("a folder");
        let mut file = Vec::new();
        let nodes = vec!["n1".to_owned(), "n2".to_owned()];
        jsonl::write_header(&mut file, &Header::new("sample", 7, "2026-01-01T00:00:00Z", nodes))
            .expect("a header");
        for (index, (ms, process, kind, value)) in EVENTS.into_iter().enumerate() {
            let key = Value::Int(1);
            let op = match process {
                2 => Op::Read { key, mode: ReadMode::Default },
                _ => Op::Write { key, value: Value::Int(5) },
            };
            let ret = (kind == Kind::Ok).then(|| value.map_or(Ret::Done, |v| Ret::Value(Value::Int(v))));
            let path = (kind == Kind::Ok).then(|| if process == 2 { "lease-read" } else { "1-rtt" }.into());
            let meta = Meta { path, intended: (kind == Kind::Invoke).then_some(ms * MS), ..Meta::default() };
            let (index, time, process) = (index as u64, ms * MS, Process::Client(process));
            jsonl::write_event(&mut file, &Event { index, time, process, kind, op, ret, meta })
                .expect("an event");
        }
        store.write("history.jsonl", file).expect("a history");
        let scenario = Scenario::parse("sample", "{name: sample, nemesis: none}").expect("a scenario");
        let plan = TestPlan::new(&scenario, 7).expect("a plan");
        let leader = |ms: u64, node: &str| Leader { since_ns: ms * MS, node: node.to_owned() };
        let record = Record {
            faults: vec![pause()],
            load_start_ns: 0,
            load_end_ns: 60 * MS,
            leaders: vec![leader(0, "n1"), leader(30, "n2")],
            ..Record::default()
        };
        let folder = Path::new("store/sample/20260101T000000Z");
        let results = judge::judge(&store.file("history.jsonl"), &plan, record, folder).expect("a verdict");
        (results, plan, store)
    }

    fn pause() -> Receipt {
        Receipt {
            step: 0,
            kind: FaultKind::Pause,
            fault: "pause leader".to_owned(),
            targets: vec!["n1".to_owned()],
            links: vec![],
            on: "n1".to_owned(),
            start_ns: 12 * MS,
            end_ns: 40 * MS,
            effect: Effect::seen("n1 is stopped and does not answer"),
            healed: Effect::seen("answers again"),
            majority: true,
            error: None,
            unhealed: false,
        }
    }

    /// Three replicas, one of which was cut off and came last.
    pub(crate) fn replicas(folder: &Path) -> Results {
        const HISTORY: &[u8] =
            include_bytes!("../checkers/tests/histories/valid-convergence-one-replica-comes-last.jsonl");
        let store = Store::create(folder, "sample", "20260101T000000Z").expect("a folder");
        store.write("history.jsonl", HISTORY).expect("a history");
        let test =
            "{name: sample, nemesis: none, workload: {name: convergence}, objectives: {converge-within: 1s}}";
        let scenario = Scenario::parse("sample", test).expect("a scenario");
        let plan = TestPlan::new(&scenario, 7).expect("a plan");
        let cut = Receipt {
            kind: FaultKind::Partition,
            fault: "partition isolate-one".to_owned(),
            on: "n1 n2 | n3".to_owned(),
            start_ns: 1500 * MS,
            end_ns: 3000 * MS,
            ..pause()
        };
        let record = Record { faults: vec![cut], load_end_ns: 4000 * MS, ..Record::default() };
        let folder = Path::new("store/sample/20260101T000000Z");
        judge::judge(&store.file("history.jsonl"), &plan, record, folder).expect("a verdict")
    }

    const EVENTS: [(u64, u64, Kind, Option<i64>); 6] = [
        (1, 2, Kind::Invoke, None),
        (2, 1, Kind::Invoke, None),
        (5, 1, Kind::Ok, None),
        (6, 2, Kind::Ok, Some(5)),
        (50, 2, Kind::Invoke, None),
        (53, 2, Kind::Ok, Some(4)),
    ];
}
