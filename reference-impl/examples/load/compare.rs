//! Many runs of both systems, as one table: the median of each figure, the ratio, and whether a bound holds.
//!
//! ```text
//!          clients   etcd /s   p99 ms   paxos-kv /s   p99 ms   ratio   wanted
//! write         64      4,100     24.1         8,900     11.0    2.17    1.50
//! ```
//!
//! Deliberately no averages: one round that something else on the machine has slowed down must not move the result.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::drive::Figures;

/// What is compared.
#[derive(clap::Args)]
pub(crate) struct Compare {
    /// Lines of `load drive`, of both systems.
    file: PathBuf,
}

/// At least so many times as many a second, by operation and clients. p99 must never be worse.
const BOUNDS: [(&str, usize, f64); 6] = [
    ("write", 1, 0.9),
    ("write", 64, 1.5),
    ("write", 256, 1.5),
    ("read", 1, 2.0),
    ("read", 64, 2.0),
    ("read", 256, 2.0),
];

impl Compare {
    /// Prints the table. Fails if a bound is missed or was not measured.
    pub(crate) fn run(&self) -> Result<ExitCode, Box<dyn Error>> {
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| format!("cannot read {}: {error}", self.file.display()))?;
        let runs = text.lines().map(serde_json::from_str).collect::<Result<Vec<Figures>, _>>()?;
        let (table, missed) = table(&runs);
        print!("{table}");
        Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// One side of a row: medians over the rounds.
struct Side {
    rounds: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    failed: usize,
}

fn side(runs: &[&Figures]) -> Option<Side> {
    let median = |pick: &dyn Fn(&Figures) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(|run| pick(run)).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    Some(Side {
        rounds: runs.len(),
        per_second: median(&|run| run.per_second)?,
        p50_ms: median(&|run| run.p50_us as f64 / 1e3)?,
        p99_ms: median(&|run| run.p99_us as f64 / 1e3)?,
        failed: runs.iter().map(|run| run.failed).sum(),
    })
}

/// The table, and how many bounds are missed.
fn table(runs: &[Figures]) -> (String, usize) {
    let mut by: BTreeMap<(&str, usize, &str), Vec<&Figures>> = BTreeMap::new();
    for run in runs {
        by.entry((&run.op, run.clients, &run.system)).or_default().push(run);
    }
    let mut out = String::from(
        "| | clients | etcd /s | p50 ms | p99 ms | paxos-kv /s | p50 ms | p99 ms | ratio | wanted | holds |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let (mut missed, mut failed, mut rounds) = (0, 0, usize::MAX);
    for (op, clients, wanted) in BOUNDS {
        let of = |system| by.get(&(op, clients, system)).and_then(|runs| side(runs));
        let (Some(theirs), Some(ours)) = (of("etcd"), of("paxos-kv")) else {
            missed += 1;
            out += &format!("| {op} | {clients} | | | | | | | | {wanted:.1} | not measured |\n");
            continue;
        };
        let ratio = ours.per_second / theirs.per_second;
        let holds = match (ratio >= wanted, ours.p99_ms <= theirs.p99_ms) {
            (true, true) => "yes",
            (true, false) => "p99 is worse",
            (false, _) => "NO",
        };
        missed += usize::from(holds != "yes");
        failed += theirs.failed + ours.failed;
        rounds = rounds.min(theirs.rounds).min(ours.rounds);
        out += &format!(
            "| {op} | {clients} | {:.0} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} | {ratio:.2} | {wanted:.1} | {holds} |\n",
            theirs.per_second, theirs.p50_ms, theirs.p99_ms, ours.per_second, ours.p50_ms, ours.p99_ms,
        );
    }
    if rounds < usize::MAX {
        out += &format!("\nMedians of {rounds} rounds; {failed} requests failed.\n");
    }
    (out, missed)
}
