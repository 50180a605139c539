//! How fast the simulator is: a quiet cluster under a steady load, on one core, without a tester around it.
//!
//! ```text
//! $ cargo run --release -p paxos-kv --example simulate -- 5 20 600      nodes, operations a second, simulated seconds
//! 600 s of 5 nodes under 20 operations/s in 0.06 s: 9500 simulated seconds and 4200000 events a second
//! ```
//!
//! Half of the operations are writes; they go to all nodes in turn. Deliberately without faults: those cost little by themselves, and
//! make a cluster do less.

use std::time::Instant;

use paxos_kv::core::{Command, Op, Protocol, ReadMode};
use paxos_kv::sim::{Cluster, Happened, World};

const SECOND: u64 = 1_000_000_000;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [nodes, rate, seconds] = numbers[..] else {
        eprintln!("usage: simulate NODES OPERATIONS-A-SECOND SECONDS, for example 5 20 600");
        std::process::exit(2);
    };
    let started = Instant::now();
    let (mut asked, mut answered) = (0, 0);
    let mut world = World::new(Cluster::new(1, nodes as u32, Protocol::MultiPaxos));
    let running = (1..=nodes as u32).filter(|node| world.start(*node)).count();
    assert_eq!(running as u64, nodes);
    world.timer(SECOND, 0);
    while let Some(happened) = world.next() {
        match happened {
            Happened::Timer(_) if world.now() >= (seconds + 1) * SECOND => break,
            Happened::Timer(_) => {
                let key = format!("k{}", asked % 5);
                let op = match asked % 2 {
                    0 => Op::Put { key, value: asked.to_string().into() },
                    _ => Op::Get { key, mode: ReadMode::Lease },
                };
                let command = Command { client: 1 + asked % 10, seq: 1 + asked / 10, op };
                let called = world.call(1 + (asked % nodes) as u32, command, None, false);
                assert!(called.is_some(), "every node runs");
                asked += 1;
                world.timer(world.now() + SECOND / rate, 0);
            }
            Happened::Answer(answer) => answered += u64::from(answer.reply.result.is_ok()),
            Happened::Crashed { .. } | Happened::Broken(_) => unreachable!("nothing was broken"),
        }
    }
    let took = started.elapsed().as_secs_f64();
    println!(
        "{seconds} s of {nodes} nodes under {rate} operations/s in {took:.2} s: {:.0} simulated seconds and {:.0} events a second",
        seconds as f64 / took,
        world.events() as f64 / took
    );
    println!("{answered} of {asked} operations were answered, {} slots were chosen", world.slots());
}
