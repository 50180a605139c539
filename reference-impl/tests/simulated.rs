//! Many seeds of the simulator: a correct cluster is never accused, and planted bugs are.

use std::time::Duration;

use paxos_kv::bugs::{Bug, Hooks};
use paxos_kv::core::Protocol;
use paxos_kv::sim::{Report, Setup, run};

fn clean(nodes: u32, protocol: Protocol, seeds: std::ops::Range<u64>) -> Report {
    let mut total = Report::default();
    for seed in seeds {
        let report = run(&Setup::new(seed, nodes, protocol)).unwrap_or_else(|violation| panic!("{violation}"));
        total.slots += report.slots;
        total.elections += report.elections;
        total.crashes += report.crashes;
        total.pauses += report.pauses;
        total.partitions += report.partitions;
        total.ok += report.ok;
        total.unknown += report.unknown;
        total.refused += report.refused;
        total.lease_reads += report.lease_reads;
        total.forwarded += report.forwarded;
        total.retries += report.retries;
        total.steps += report.steps;
    }
    println!("{nodes} nodes, {protocol}: {total:?}");
    total
}

#[test]
fn p() {
    let t = std::time::Instant::now();
    clean(5, Protocol::MultiPaxos, 0..400);
    println!("{:?}", t.elapsed());
    clean(3, Protocol::MultiPaxos, 0..400);
    println!("{:?}", t.elapsed());
}
#[test]
fn b() {
    let t = std::time::Instant::now();
    clean(5, Protocol::BasicPaxos, 0..200);
    println!("{:?}", t.elapsed());
    clean(3, Protocol::BasicPaxos, 0..200);
    println!("{:?}", t.elapsed());
    let _ = (Hooks::planted([Bug::FollowerReads]), Duration::ZERO);
}
#[test]
fn bugs() {
    for info in paxos_kv::bugs::catalogue() {
        for (inside, name) in [(true, "inside"), (false, "clients")] {
            let mut found = 0; let mut first = None;
            for seed in 0..60 {
                let protocol = if info.protocol == "multi-paxos" { Protocol::MultiPaxos } else { Protocol::BasicPaxos };
                let mut s = Setup::new(seed, 5, protocol);
                s.hooks = Hooks::planted([info.bug]); s.look_inside = inside;
                if let Err(v) = run(&s) { found += 1; first.get_or_insert(v); }
            }
            println!("{} {name}: {found}/60 {first:?}", info.name);
        }
    }
}
#[test]
fn one() {
    println!("{:?}", run(&Setup::new(9, 5, Protocol::BasicPaxos)));
}
