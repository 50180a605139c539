//! A loaded cluster of three real processes, of which nodes are killed and power-failed at random moments: every node starts
//! again each time, and nothing that was acknowledged is lost or applied twice.
//!
//! ```text
//! $ PAXOS_KILLS=200 cargo test --release -p paxos-kv --test killed -- --nocapture     200 kills, then 200 power failures
//! ```
//!
//! A power failure is a kill after which the files are cut back to what was synced, or to some point behind that. Nodes take
//! a snapshot every 300 entries, so that many of the kills fall into snapshots and truncations.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, Workers};
use paxos_kv::proto::v1::ReadMode;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn flags(cluster: &Cluster, node: usize) -> Vec<String> {
    let mut flags = cluster.peers(node, 0..cluster.size());
    flags.extend(["--snapshot-every".to_owned(), "300".to_owned()]);
    flags
}

fn start(size: usize) -> Cluster {
    let mut cluster = Cluster::prepare(size, flags);
    (0..size).for_each(|node| cluster.launch(node));
    cluster
}

/// What was not synced is gone, or some of it is, or its end is garbage.
fn fail_power(data: &Path, rng: &mut ChaCha8Rng) -> u64 {
    let cut = |path: &Path, certain: u64, rng: &mut ChaCha8Rng| {
        let Ok(length) = std::fs::metadata(path).map(|file| file.len()) else { return 0 };
        let kept = rng.random_range(certain.min(length)..=length);
        let kept = if rng.random_bool(0.5) { certain.min(length) } else { kept };
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(kept).unwrap();
        length - kept
    };
    let certain = paxos_kv::wal::synced_bytes(data).unwrap();
    // A draft that has no name yet was never synced for anyone.
    cut(&data.join("wal"), certain, rng)
        + cut(&data.join("wal.new"), 0, rng)
        + cut(&data.join("snapshot.new"), 0, rng)
}

async fn torment(power: bool) {
    let times: u64 = std::env::var("PAXOS_KILLS").ok().and_then(|times| times.parse().ok()).unwrap_or(20);
    let mut rng = ChaCha8Rng::seed_from_u64(7 + u64::from(power));
    let mut cluster = start(3);
    let clients = cluster.clients();
    let workers = Workers::start(1..=6, &clients);
    let (mut failures, mut lost_bytes) = (0, 0);
    let began = Instant::now();
    while failures < times {
        // Some progress between two failures, so that each meets a cluster at work.
        cluster.progress(&workers.acked, rng.random_range(1..150)).await;
        let first = rng.random_range(0..3);
        let all = rng.random_bool(0.15);
        let victims: Vec<usize> = if all { (0..3).collect() } else { vec![first] };
        for victim in &victims {
            cluster.kill(*victim);
            if power {
                lost_bytes += fail_power(&cluster.data(*victim), &mut rng);
            }
            failures += 1;
        }
        // Sometimes it misses more than the others keep in their logs.
        let away = if rng.random_bool(0.2) { 1_000 } else { rng.random_range(0..200) };
        tokio::time::sleep(Duration::from_millis(away)).await;
        for victim in victims {
            cluster.launch(victim);
            cluster.answers(victim, &clients[victim]).await;
        }
    }
    let total = workers.all_there(&clients, &[ReadMode::Log]).await;
    let until = Instant::now() + PATIENCE;
    loop {
        let mut states = Vec::new();
        for (node, client) in clients.iter().enumerate() {
            let status = cluster.answers(node, client).await;
            states.push((status.applied_index, status.applied_hash));
        }
        if states.iter().all(|state| *state == states[0]) {
            break;
        }
        assert!(Instant::now() < until, "the nodes do not come together: {states:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let installed =
        (0..3).map(|node| cluster.log(node).matches("took over a snapshot").count()).sum::<usize>();
    for node in 0..3 {
        assert!(cluster.data(node).join("snapshot").exists(), "node {} has taken none", node + 1);
        let log = std::fs::metadata(cluster.data(node).join("wal")).unwrap().len();
        assert!(log < 1 << 20, "the log of node {} was not truncated: {log} bytes", node + 1);
    }
    println!(
        "{failures} {}: {total} appends acknowledged, none lost or doubled; {installed} snapshots received, \
         {lost_bytes} unsynced bytes cut off, {:.0?}",
        if power { "power failures" } else { "kills" },
        began.elapsed(),
    );
    assert!(total > 10 * times, "hardly anything happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_nodes_start_again_and_lose_nothing() {
    torment(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_failed_nodes_start_again_and_lose_nothing() {
    torment(true).await;
}

/// SIGTERM and SIGINT end a node properly: status 0, everything in the log, nothing torn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_flushes_and_exits_with_zero() {
    let mut cluster = start(1);
    let clients = cluster.clients();
    for (round, signal) in (1..).zip(["-TERM", "-INT"]) {
        let workers = Workers::start([round], &clients);
        cluster.progress(&workers.acked, 20).await;
        assert_eq!(cluster.stop(0, signal), Some(0), "{}", cluster.log(0));
        cluster.launch(0);
        cluster.answers(0, &clients[0]).await;
        workers.all_there(&clients, &[ReadMode::Log]).await;
    }
    assert!(!cluster.log(0).contains("torn"), "{}", cluster.log(0));
}

/// The first start of a cluster waits for its last node; a node that comes back with an empty disk has no vote until it
/// knows what it has forgotten, and then the cluster can rely on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_begins_when_its_last_node_starts_and_a_lost_disk_costs_a_vote_for_a_while() {
    let mut cluster = Cluster::prepare(3, flags);
    let clients = cluster.clients();
    cluster.launch(0);
    assert_eq!(cluster.answers(0, &clients[0]).await.role, "joining");
    cluster.launch(1);
    assert_eq!(
        cluster.answers(1, &clients[1]).await.role,
        "joining",
        "two of three cannot know what the third knows"
    );
    cluster.launch(2);
    let workers = Workers::start([1], &clients);
    // More than the others keep in their logs.
    cluster.progress(&workers.acked, 700).await;
    for victim in 0..3 {
        cluster.kill(victim);
        std::fs::remove_dir_all(cluster.data(victim)).unwrap();
        cluster.progress(&workers.acked, 50).await;
        cluster.launch(victim);
        let until = Instant::now() + PATIENCE;
        while !cluster.log(victim).contains("votes again") {
            assert!(
                Instant::now() < until,
                "node {} stays without a vote: {}",
                victim + 1,
                cluster.log(victim)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(cluster.log(victim).contains("other nodes know this one"), "{}", cluster.log(victim));
        // Now it is needed: one of the two others is gone.
        let other = (victim + 1) % 3;
        cluster.kill(other);
        cluster.progress(&workers.acked, 50).await;
        cluster.launch(other);
        cluster.answers(other, &clients[other]).await;
    }
    workers.all_there(&clients, &[ReadMode::Log]).await;
}
