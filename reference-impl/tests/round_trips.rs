//! What a command costs, exactly: one round trip under Multi-Paxos, two under Basic Paxos, none for a lease read.
//!
//! ```text
//! three cores, every message takes 5 ms, every disk is immediate:   multi 10 ms   basic 20 ms   lease read 0 ms
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use paxos_kv::core::{
    Command, Config, Core, Durable, Effect, Input, Message, Mono, NodeId, Op, Output, Path, Protocol,
    ReadMode, Reply,
};

const ONE_WAY: Duration = Duration::from_millis(5);
const TICK: Duration = Duration::from_millis(10);

/// Cores on a network where every message takes the same time.
struct Bench {
    now: Mono,
    cores: BTreeMap<NodeId, Core>,
    /// In order of arrival, because all take equally long.
    flying: VecDeque<(Mono, NodeId, NodeId, Message)>,
    next_tick: Mono,
    reply: Option<Reply>,
}

impl Bench {
    fn new(protocol: Protocol) -> Bench {
        let cores = (1..=3).map(|id| {
            let config = Config::new(id, 1..=3, protocol);
            let mut durable = Durable::default();
            durable.begin_incarnation(config.timing.lease);
            (id, Core::new(config, durable, Mono(0)))
        });
        Bench {
            now: Mono(0),
            cores: cores.collect(),
            flying: VecDeque::new(),
            next_tick: Mono(0),
            reply: None,
        }
    }

    fn step(&mut self, node: NodeId, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.cores.get_mut(&node).unwrap().step(self.now, input) {
                match effect {
                    Effect::Persist { token, .. } => inputs.push_back(Input::Persisted(token)),
                    // The disk is immediate, so nothing has to be held back.
                    Effect::Send { to, message, .. } => {
                        self.flying.push_back((self.now + ONE_WAY, node, to, message));
                    }
                    Effect::Reply { reply, .. } => self.reply = Some(*reply),
                    Effect::Note(_)
                    | Effect::Incarnation(_)
                    | Effect::Members(_)
                    | Effect::Snapshot(_)
                    | Effect::Truncate { .. } => {}
                }
            }
        }
    }

    /// Goes on until `done`, or for ten seconds.
    fn until(&mut self, done: impl Fn(&Bench) -> bool) {
        while !done(self) {
            assert!(self.now < Mono(10_000_000_000), "nothing comes of it");
            let arrival = self.flying.front().map_or(Mono(u64::MAX), |(at, ..)| *at);
            if arrival <= self.next_tick {
                let (at, from, to, message) = self.flying.pop_front().unwrap();
                self.now = at;
                self.step(to, Input::Message { from, message });
            } else {
                self.now = self.next_tick;
                self.next_tick = self.now + TICK;
                for node in 1..=3 {
                    self.step(node, Input::Tick);
                }
            }
        }
    }

    /// Runs one command at `node`, alone.
    fn run(&mut self, node: NodeId, seq: u64, op: Op) -> (Reply, Duration) {
        let started = self.now;
        self.reply = None;
        let command = Command { client: 1, seq, op };
        self.step(node, Input::Client { call: seq, command, deadline: None, no_forward: false });
        self.until(|bench| bench.reply.is_some());
        (self.reply.clone().unwrap(), self.now.since(started))
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |core: &Core| core.status().lease_until.is_some_and(|until| self.now < until);
        self.cores.iter().find(|(_, core)| leads(core)).map(|(id, _)| *id)
    }
}

fn put(value: &'static str) -> Op {
    Op::Put { key: "a".into(), value: value.into() }
}

fn get(mode: ReadMode) -> Op {
    Op::Get { key: "a".into(), mode }
}

#[test]
fn multi_paxos_takes_one_round_trip_and_a_lease_read_takes_none() {
    let mut bench = Bench::new(Protocol::MultiPaxos);
    bench.until(|bench| bench.leader().is_some());
    let leader = bench.leader().unwrap();
    for seq in 1..20 {
        let (reply, took) = bench.run(leader, seq, put("1"));
        assert_eq!((reply.result, reply.served.path), (Ok(Output::Done), Path::OneRtt));
        assert_eq!((reply.served.commit, took), (ONE_WAY * 2, ONE_WAY * 2));
    }
    let (reply, took) = bench.run(leader, 20, get(ReadMode::Lease));
    assert_eq!((reply.result, reply.served.path), (Ok(Output::Value(Some("1".into()))), Path::LeaseRead));
    assert_eq!(took, Duration::ZERO);
    let (reply, took) = bench.run(leader, 21, get(ReadMode::Log));
    assert_eq!((reply.served.path, took), (Path::OneRtt, ONE_WAY * 2));
    let (reply, took) = bench.run(leader % 3 + 1, 22, put("2"));
    assert!(reply.served.forwarded);
    assert_eq!((reply.served.commit, took), (ONE_WAY * 2, ONE_WAY * 4), "one hop more each way");
}

#[test]
fn basic_paxos_takes_two_round_trips_at_every_node() {
    let mut bench = Bench::new(Protocol::BasicPaxos);
    // New nodes count each other's votes once they have greeted each other.
    bench.until(|bench| bench.now > Mono(0) + ONE_WAY * 4);
    for seq in 1..20 {
        let node = seq as NodeId % 3 + 1;
        let (reply, took) = bench.run(node, seq, put("1"));
        assert_eq!((reply.result, reply.served.path), (Ok(Output::Done), Path::TwoRtt));
        assert_eq!((reply.served.commit, took), (ONE_WAY * 4, ONE_WAY * 4));
        assert_eq!((reply.served.rounds, reply.served.node), (1, node));
        // The others hear what was chosen before the next command starts.
        let heard = bench.now + ONE_WAY;
        bench.until(|bench| bench.now > heard);
    }
    let (reply, took) = bench.run(2, 20, get(ReadMode::Lease));
    assert_eq!(
        (reply.served.path, took),
        (Path::TwoRtt, ONE_WAY * 4),
        "there is no lease: a read is an instance"
    );
}
