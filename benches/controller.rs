//! What the tester itself costs: operations per second that it drives and records against a system that answers at once.
//!
//! `cargo bench --bench controller` prints the throughput; the acceptance bound is 100,000 operations per second on two
//! cores. A closed loop with one client per core; the history is written to disk as in any run, and not judged.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use tribunal::{Scenario, trial};

fn drive(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut group = c.benchmark_group("controller");
    group.sample_size(10).measurement_time(Duration::from_secs(30));
    for clients in [2, 10] {
        // Each sample runs for a fixed time and reports how long as many operations as criterion asked for would take.
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("null-adapter-{clients}-clients"), |b| {
            b.iter_custom(|operations| {
                let rate = runtime.block_on(measure(clients, folder.path()));
                Duration::from_secs_f64(operations as f64 / rate)
            });
        });
    }
    group.finish();
}

async fn measure(clients: u32, folder: &std::path::Path) -> f64 {
    let text = format!(
        "{{name: bench, nemesis: none, cluster: {{nodes: 1}}, load: {{rate: 0, clients: {clients}, time-limit: 2s}}}}"
    );
    let scenario = Scenario::parse("bench", &text).expect("the scenario is right");
    let options = trial::Options { quiet: true, ..trial::Options::new(folder).expect("a path") };
    trial::drive_null(&scenario, &options).await.expect("the run succeeds")
}

criterion_group!(benches, drive);
criterion_main!(benches);
