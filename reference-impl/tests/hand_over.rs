//! Leadership that is handed over: the next leader need not wait for the end of the lease.
//!
//! In a quiet simulated cluster, so that the time is exact: a lease lasts 600 ms, and an election takes a few messages.

use std::time::Duration;

use paxos_kv::core::{NodeId, Protocol};
use paxos_kv::sim::{Cluster, Cut, Happened, Loss, World};

const MS: u64 = 1_000_000;

/// Lets time pass until there is a leader other than `not`; gives it and how long that took.
fn next_leader(world: &mut World, not: Option<NodeId>) -> (NodeId, Duration) {
    let start = world.now();
    for tick in 0..5_000 {
        if let Some(leader) = world.leader().filter(|leader| Some(*leader) != not) {
            return (leader, Duration::from_nanos(world.now() - start));
        }
        world.timer(start + tick * MS, tick);
        while let Some(happened) = world.next() {
            match happened {
                Happened::Timer(_) => break,
                Happened::Broken(broken) => panic!("{broken:?}"),
                _ => {}
            }
        }
    }
    panic!("nobody leads")
}

fn cluster(seed: u64) -> (World, NodeId) {
    let mut world = World::new(Cluster::new(seed, 3, Protocol::MultiPaxos));
    (1..=3).for_each(|id| assert!(world.start(id)));
    let (leader, _) = next_leader(&mut world, None);
    // Until everybody has heard of it.
    let until = world.now() + 300 * MS;
    world.timer(until, 0);
    while world.now() < until {
        world.next();
    }
    (world, leader)
}

#[test]
fn a_leader_that_hands_over_is_followed_at_once_and_one_that_dies_is_not() {
    for seed in 0..20 {
        let (mut world, old) = cluster(seed);
        world.hand_over(old);
        let (new, handed) = next_leader(&mut world, Some(old));
        assert!(new != old && handed < Duration::from_millis(120), "seed {seed}: {handed:?}");
        assert_eq!(world.leader(), Some(new), "the old one does not come back");

        let (mut world, old) = cluster(seed);
        world.crash(old, Loss::Process);
        let (_, waited) = next_leader(&mut world, Some(old));
        assert!(
            waited > Duration::from_millis(400),
            "seed {seed}: {waited:?}, but the lease was granted for 600 ms"
        );
    }
}

/// It goes on asking for votes, and is never told of any: that must not keep those from standing who hear each other.
#[test]
fn a_node_that_is_heard_and_hears_nothing_does_not_keep_the_others_from_electing_one() {
    for seed in 0..20 {
        let (mut world, deaf) = cluster(seed);
        for from in (1..=3).filter(|from| *from != deaf) {
            let link = world.link(from, deaf);
            world.set_link(from, deaf, paxos_kv::sim::Link { cut: Cut::Drop, ..link });
        }
        let (new, waited) = next_leader(&mut world, Some(deaf));
        assert_ne!(new, deaf);
        println!("seed {seed}: node {new} leads after {waited:?}");
    }
}
