//! Duelling proposers of Basic Paxos: what a back-off is for.
//!
//! ```text
//! proposer 1   Prepare(1.1) ✓          Accept(1.1) ✗   Prepare(3.1) ✓                …
//! proposer 2          Prepare(2.2) ✓                       Accept(2.2) ✗   Prepare(4.2) ✓      for ever, if nobody waits
//! ```
//!
//! Three nodes propose at the same time over links and disks that all take equally long, in a simulated cluster: the livelock that
//! Chandra, Griesemer and Redstone describe ("Paxos Made Live", §3) shows in how many rounds a commit needs.

use std::time::Duration;

use paxos_kv::core::{Backoff, Command, NodeId, Op, Protocol};
use paxos_kv::sim::{Cluster, Happened, Link, World};

/// Commits and lost rounds within ten seconds.
fn duel(by: Backoff, proposers: u32) -> (u64, u64) {
    let one = Duration::from_millis(1);
    let mut cluster = Cluster::new(1, 3, Protocol::BasicPaxos);
    cluster.timing.backoff_by = by;
    cluster.links = Link::delayed(one, one);
    cluster.client_links = Link::delayed(one, one);
    cluster.sync = (one, one);
    cluster.drift_ppm = 0;
    let mut world = World::new(cluster);
    (1..=3).for_each(|id| assert!(world.start(id)));
    // Until they have met, and know that none of them has a past.
    world.timer(100_000_000, 0);
    while !matches!(world.next(), Some(Happened::Timer(_))) {}
    let ask = |world: &mut World, node: NodeId, seq: u64| {
        let op = Op::Put { key: "a".into(), value: "1".into() };
        let patience = Some(Duration::from_secs(20));
        world.call(node, Command { client: u64::from(node), seq, op }, patience, false);
    };
    let mut seq = [1; 4];
    (1..=proposers).for_each(|node| ask(&mut world, node, 1));
    world.timer(10_000_000_000, 0);
    let mut commits = 0;
    while let Some(happened) = world.next() {
        match happened {
            Happened::Answer(answer) if answer.reply.result.is_ok() => {
                commits += 1;
                seq[answer.node as usize] += 1;
                ask(&mut world, answer.node, seq[answer.node as usize]);
            }
            Happened::Timer(_) => break,
            Happened::Broken(broken) => panic!("{broken:?}"),
            _ => {}
        }
    }
    let lost = (1..=3).filter_map(|node| world.status(node)).map(|status| status.preempted).sum();
    (commits, lost)
}

#[test]
fn without_a_back_off_equal_proposers_outbid_each_other_for_ever() {
    let (alone, no_duel) = duel(Backoff::None, 1);
    assert!(alone > 500 && no_duel == 0, "one proposer needs no back-off: {alone}, {no_duel}");
    let (none, lost) = duel(Backoff::None, 3);
    let rounds = |commits: u64, lost: u64| match commits {
        0 => "no end of rounds".to_owned(),
        _ => format!("{:.1} rounds a commit", (commits + lost) as f64 / commits as f64),
    };
    println!("alone: {alone} commits, {}", rounds(alone, no_duel));
    println!("three with back-off none: {none} commits, {lost} rounds lost, {}", rounds(none, lost));
    for by in [Backoff::Random, Backoff::Aimd] {
        let (commits, lost) = duel(by, 3);
        println!(
            "three with back-off {by}: {commits} commits, {lost} rounds lost, {}",
            rounds(commits, lost)
        );
        assert!(commits > 20 * none.max(1), "{by}: {commits} commits, without {none}");
        assert!(lost < 5 * commits, "{by}: {lost} rounds lost for {commits} commits");
    }
    assert!(lost > 500, "it is a livelock, no standstill: {lost}");
}
