//! What judging a million transactions costs.
//!
//! `cargo bench -p checkers --bench transactions` prints, for each history, how long recording and loading took and then,
//! by criterion, the judging alone. `TXNS=100000` makes it smaller. Histories come from the simulator of the tests: 20
//! processes, 1 to 4 micro-operations, seeded.

// A benchmark may look at the clock and print.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

#[path = "../tests/simulator/mod.rs"]
mod simulator;

use std::time::{Duration, Instant};

use checkers::{
    Budget, Checker, Validity,
    transactions::{Datatype, KeyAssumptions, Options, list_append, rw_register},
};
use criterion::{Criterion, criterion_group, criterion_main};
use simulator::{Isolation, Simulator, all_in_components, history, load, plant_write_skews, planted_pairs};

const LINEARIZABLE: KeyAssumptions = KeyAssumptions { wfr: true, sequential: true, linearizable: true };

fn judge(c: &mut Criterion) {
    let transactions = std::env::var("TXNS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let base = Simulator { transactions, processes: 20, ..Simulator::default() };
    let register = Simulator { datatype: Datatype::RwRegister, ..base.clone() };
    let snapshot = Simulator { isolation: Isolation::Snapshot, ..base.clone() };
    let late = Some(transactions / 1000 * 995);
    let old = Simulator { isolation: Isolation::OldSnapshots, ..base.clone() };
    let cases = [
        ("list-append, strict serializable", base.clone(), Validity::Valid),
        ("list-append, a stale read at 99.5 %", Simulator { stale_at: late, ..base }, Validity::Invalid),
        ("list-append, snapshot isolation", snapshot, Validity::Invalid),
        ("list-append, old snapshots", old, Validity::Invalid),
        ("rw-register, strict serializable", register.clone(), Validity::Valid),
        ("rw-register, a stale read at 99.5 %", Simulator { stale_at: late, ..register }, Validity::Invalid),
    ];
    let mut group = c.benchmark_group("transactions");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (name, simulator, expected) in cases {
        let recorded = simulator.run();
        let start = Instant::now();
        let txns = load(simulator.datatype, &recorded);
        println!("{name}: loaded in {:?}", start.elapsed());
        drop(recorded);
        resident_mb();
        let options = Options { keys: LINEARIZABLE, ..Options::default() };
        let checker = match simulator.datatype {
            Datatype::ListAppend => list_append(options),
            Datatype::RwRegister => rw_register(options),
        };
        let (before, cpu) = (resident_mb(), cpu_ms());
        let verdict = checker.judge(&txns, &Budget::unlimited());
        println!(
            "{name}: {before} MB loaded, at most {} MB while judging, which took {} ms of processors",
            resident_mb(),
            cpu_ms() - cpu
        );
        assert_eq!(verdict.validity, expected, "{name}: {:?}", verdict.reason);
        println!(
            "{name}: {} components {} steps {:?}",
            verdict.stats["anomaly_counts"],
            verdict.stats["components"],
            verdict.stats.get("steps")
        );
        group.bench_function(name, |b| b.iter(|| checker.judge(&txns, &Budget::unlimited())));
    }
    group.finish();
    planted(transactions);
    from_history(transactions);
}

/// Time that processors spent on this process, to 10 ms: what a busy machine does not falsify.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or("").split(' ').map(|f| f.parse().unwrap_or(0)).collect();
    10 * (fields.get(12).unwrap_or(&0) + fields.get(13).unwrap_or(&0))
}

/// The most memory that was resident since this was asked last, in MB.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    let kb: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    kb >> 10
}

/// Write skews that were planted, 16 in a thousand transactions, and whether each was found: once.
fn planted(transactions: usize) {
    let skews = transactions / 1000 * 16;
    let simulator =
        Simulator { transactions: transactions - 3 * skews, processes: 18, ..Simulator::default() };
    let mut recorded = simulator.run();
    plant_write_skews(&mut recorded, skews);
    let pairs = planted_pairs(&recorded);
    let (history, count) = (history(Datatype::ListAppend, &recorded), recorded.len());
    drop(recorded);
    let checker = list_append(Options::default());
    for _ in 0..5 {
        let start = Instant::now();
        let verdict = checker.check(&history, &Budget::unlimited());
        let took = start.elapsed();
        assert_eq!(verdict.validity, Validity::Invalid);
        let (inside, components, with_cycle) = all_in_components(&verdict, &pairs);
        assert_eq!((inside, with_cycle), (pairs.len(), components), "each pair, and each component");
        println!(
            "list-append, planted write skews, from the history's events: {took:?} for {} transactions; {inside} of {} pairs in a component, a cycle in \
             {with_cycle} of {components} components, {} explained; {}",
            count,
            pairs.len(),
            verdict.anomalies.len(),
            verdict.stats["anomaly_counts"]
        );
    }
}

/// The way from a history of events, for comparison: once.
fn from_history(transactions: usize) {
    let simulator = Simulator { transactions, processes: 20, ..Simulator::default() };
    let history = history(Datatype::ListAppend, &simulator.run());
    let start = Instant::now();
    let verdict = list_append(Options::default()).check(&history, &Budget::unlimited());
    println!("list-append, from the history's events: {:?}, {}", start.elapsed(), verdict.validity);
}

criterion_group!(benches, judge);
criterion_main!(benches);
