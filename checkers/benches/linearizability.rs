//! What judging linearizability costs, on histories of the kinds that hurt; the large ones are in `whole-process.sh`.
//!
//! ```console
//! $ cargo bench -p checkers --bench linearizability
//! ```
//!
//! `etcd`: 102 histories like those that etcd was tested with (Porcupine's test data): five clients, about 150 events, reads, writes and
//! compare-and-sets of five values, and timeouts that stay open. `kv`: ten clients with get, put and append over ten keys, judged as one
//! object, valid and with one wrong read. `crashed`: invalid, with operations of unknown outcome. `everything at once`: 5,000
//! operations that all overlap, which nobody decides; how long it takes to say so within a budget.

// A benchmark may look at the clock and print.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

#[path = "../tests/simulate/mod.rs"]
mod simulate;

use std::sync::Arc;

use checkers::{
    Budget, Checker, History, ModelName, Validity, linearizable, linearizable_by,
    models::{Kv, Unpartitioned},
};
use criterion::{Criterion, criterion_group, criterion_main};
use rayon::prelude::*;
use simulate::{LOAD, Load, all_at_once, appends::appends, make_stale, simulate};

fn etcd(stale: bool) -> Vec<History> {
    (0..102)
        .map(|seed| {
            let load = Load { operations: 75, clients: 5, crashed: 0.07, domain: Some(5), cas: 0.33, ..LOAD };
            let mut history = simulate(load, seed);
            // Of Porcupine's many are wrong. With five values a stale read is so in half of the cases.
            if stale {
                make_stale(&mut history);
            }
            history
        })
        .collect()
}

fn judge(c: &mut Criterion) {
    let budget = Budget::unlimited();
    let mut group = c.benchmark_group("linearizability");
    group.sample_size(10);
    let cas = linearizable(ModelName::CasRegister);
    let valid = etcd(false);
    group.bench_function("etcd, 102 histories, as they were before one read of each was made stale", |b| {
        b.iter(|| valid.iter().map(|history| cas.check(history, &budget).validity).max());
    });
    let histories = etcd(true);
    let invalid = histories.iter().filter(|h| cas.check(h, &budget).validity == Validity::Invalid).count();
    println!("etcd: 102 histories, {invalid} of them invalid");
    group.bench_function("etcd, 102 histories", |b| {
        b.iter(|| histories.iter().map(|history| cas.check(history, &budget).validity).max());
    });
    group.bench_function("etcd, 102 histories, one on each core", |b| {
        b.iter(|| histories.par_iter().map(|history| cas.check(history, &budget).validity).max());
    });
    let whole = linearizable_by(Unpartitioned::new(Kv::default()));
    for (name, operations, wrong) in [("valid", 337, false), ("invalid", 405, true)] {
        let history = appends(operations, 10, 10, wrong, 3);
        let expected = if wrong { Validity::Invalid } else { Validity::Valid };
        assert_eq!(whole.check(&history, &budget).validity, expected, "kv, {name}");
        group.bench_function(format!("kv unpartitioned, {name}"), |b| {
            b.iter(|| whole.check(&history, &budget))
        });
    }
    let register = linearizable(ModelName::Register);
    for (operations, clients, crashed) in [(500, 5, 0.05), (1000, 5, 0.03), (2000, 10, 0.01), (5000, 5, 0.01)]
    {
        for cas_share in [0.0, 0.3] {
            let mut history = simulate(Load { operations, clients, crashed, cas: cas_share, ..LOAD }, 7);
            make_stale(&mut history);
            let checker = if cas_share > 0.0 { &cas as &dyn Checker } else { &register };
            assert_eq!(checker.check(&history, &budget).validity, Validity::Invalid);
            group.bench_function(format!("crashed, {operations} operations, cas {cas_share}"), |b| {
                b.iter(|| checker.check(&history, &budget));
            });
        }
    }
    let alibi = Load { operations: 5000, crashed: 0.01, domain: Some(5), cas: 0.33, ..LOAD };
    let history = simulate(alibi, 7);
    group.bench_function("crashed, 5000 operations, five values, valid", |b| {
        b.iter(|| cas.check(&history, &budget));
    });
    let history = all_at_once(5000);
    let small = || Budget::new(Arc::default(), 64 << 20);
    println!("everything at once: {}", cas.check(&history, &small()).validity);
    group.bench_function("everything at once, 5000 operations, 64 MB", |b| {
        b.iter(|| cas.check(&history, &small()));
    });
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
