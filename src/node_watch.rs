//! Looks at the nodes while the run goes on, and writes down what they say of themselves: states, and what is new in their logs.
//!
//! ```text
//! every 200 ms, each node by itself     observer  node-state {node: n1, applied: 41, hash: 9a…, log: ["42 7.2 c1… d …"]} ─▶ history.jsonl
//! when all is over                      once more, and then a last look that goes on to the end of each log
//! ```
//! Through connections of its own, one request at a time and each bounded, so that it is never in the way of clients. A node
//! that does not answer is asked again. Deliberately no verdict here: the checker `node-invariants` reads it off the history.

use crate::{
    adapter::{Adapter, Looker, Node, Wanted},
    clock::Clock,
    journal::Journal,
};
use checkers::{
    Kind, Meta, Op, Process,
    node_state::{NODE_STATE, NODE_WATCH, NodeState},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Between two looks at a node.
const EVERY: Duration = Duration::from_millis(200);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same when all is over: nobody is in anybody's way any more, and there is no other time.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// How long it is tried to get the last look at each node, and before it the one that tells what is chosen.
const LAST: Duration = Duration::from_secs(30);
/// Slots of a log that are asked for at once. A cluster that is faster than that is seen in part, slot by slot, and whole by its
/// checkpoints.
const SLOTS: u64 = 128;
/// The same in the last look, and how many times.
const LAST_SLOTS: u64 = 1024;
const LAST_PAGES: usize = 100;

/// All nodes of a run, being looked at.
pub struct NodeWatch {
    eyes: JoinSet<Eye>,
    open: watch::Sender<bool>,
}

impl NodeWatch {
    /// Begins to look, if the adapter knows how to.
    pub fn start(
        adapter: &Arc<dyn Adapter>,
        members: &[Node],
        journal: &Journal,
        clock: Clock,
    ) -> Option<Self> {
        let mut eyes = JoinSet::new();
        let (open, opened) = watch::channel(true);
        for node in members {
            let eye = Eye {
                looker: adapter.looker(node)?,
                journal: journal.clone(),
                clock,
                from: 1,
                checkpoints_after: 0,
                written: NodeState::default(),
                patience: PATIENCE,
            };
            eyes.spawn(eye.watch(opened.clone()));
        }
        let names: Vec<String> = members.iter().map(|node| node.name.to_string()).collect();
        let value = serde_json::json!({"nodes": names, "every_ms": EVERY.as_millis() as u64});
        let op = Op::Custom { f: NODE_WATCH.into(), key: None, value };
        journal.record(Process::Observer, Kind::Info, op, None, Meta::default());
        Some(NodeWatch { eyes, open })
    }

    /// Looks once more at all nodes; and then, if `all_over`, for the last time.
    pub async fn close(self, all_over: bool) {
        let _ = self.open.send(false);
        let mut eyes = self.eyes.join_all().await;
        if !all_over {
            return;
        }
        // What is chosen by now, whoever knows it, is what the last looks are judged by: so these begin when all have answered.
        for last in [false, true] {
            let mut looks = JoinSet::new();
            for mut eye in eyes {
                looks.spawn(async move {
                    eye.patience = LAST_PATIENCE;
                    let until = eye.clock.now() + LAST.as_nanos() as u64;
                    while !(if last { eye.last_look().await } else { eye.look().await }) {
                        if eye.clock.now() >= until {
                            break;
                        }
                        sleep(Duration::from_millis(50)).await;
                    }
                    eye
                });
            }
            eyes = looks.join_all().await;
        }
    }
}

/// Looks at one node.
struct Eye {
    looker: Box<dyn Looker>,
    journal: Journal,
    clock: Clock,
    /// All slots before were seen as chosen, or were skipped.
    from: u64,
    checkpoints_after: u64,
    /// What was written down last.
    written: NodeState,
    /// How long an answer is waited for.
    patience: Duration,
}

impl Eye {
    async fn watch(mut self, mut open: watch::Receiver<bool>) -> Self {
        while *open.borrow_and_update() {
            // A look that is under way is finished: what it would have told is not lost.
            self.look().await;
            tokio::select! {
                _ = open.changed() => {}
                () = sleep(EVERY) => {}
            }
        }
        self
    }

    async fn ask(&mut self, wanted: Wanted) -> Option<NodeState> {
        let asked_ns = self.clock.now();
        let state = timeout(self.patience, self.looker.look(wanted)).await.ok()?.ok()?;
        Some(NodeState { asked_ns, ..state })
    }

    /// One look. Whether there was an answer.
    async fn look(&mut self) -> bool {
        let wanted = Wanted { from: self.from, limit: SLOTS, checkpoints_after: self.checkpoints_after };
        let Some(state) = self.ask(wanted).await else { return false };
        if state.incarnation != self.written.incarnation || state.storage != self.written.storage {
            // It may have forgotten what it said before, and say something else now.
            self.from = 1.max(state.applied.saturating_sub(SLOTS));
            self.checkpoints_after = 0;
        } else {
            let known = state.log.iter().take_while(|slot| slot.chosen).last();
            self.from = known.map_or(self.from, |slot| slot.slot + 1);
            if state.last.saturating_sub(self.from) >= SLOTS {
                // Too fast to be seen slot by slot: the same slots of all nodes, as far as can be.
                self.from = (state.last - SLOTS / 2) / SLOTS * SLOTS;
            }
            let last = state.checkpoints.last();
            self.checkpoints_after = last.map_or(self.checkpoints_after, |prefix| prefix.slot);
        }
        self.write(state);
        true
    }

    /// The last look: everything that is not yet on the disk as part of the prefix. Whether there was an answer.
    async fn last_look(&mut self) -> bool {
        let wanted = Wanted { from: u64::MAX, limit: 0, checkpoints_after: self.checkpoints_after };
        let Some(mut state) = self.ask(wanted).await else { return false };
        let mut from = state.durable + 1;
        state.cut = true;
        for _ in 0..LAST_PAGES {
            let wanted = Wanted { from, limit: LAST_SLOTS, checkpoints_after: u64::MAX };
            let Some(more) = self.ask(wanted).await else { break };
            if more.incarnation != state.incarnation {
                return false;
            }
            let Some(last) = more.log.last() else {
                state.cut = false;
                break;
            };
            from = last.slot + 1;
            state.log.extend(more.log);
        }
        state.last_look = true;
        self.write(state);
        true
    }

    /// Writes down what was seen, unless it is what was written down last.
    fn write(&mut self, state: NodeState) {
        let same = NodeState { asked_ns: self.written.asked_ns, ..state.clone() } == self.written;
        if same && !state.last_look {
            return;
        }
        // All its fields are text, numbers, and lists of these.
        let value = serde_json::to_value(&state).unwrap_or_default();
        let op = Op::Custom { f: NODE_STATE.into(), key: None, value };
        self.journal.record(Process::Observer, Kind::Info, op, None, Meta::default());
        self.written = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{adapter::Session, judge};
    use async_trait::async_trait;
    use checkers::{Budget, Checker, Header, Validity, Verdict, bench, node_state::SlotState};
    use std::collections::BTreeMap;
    use workloads::Client;

    /// Nodes with a log of 3,000 slots, of which one has the first 1,500 on its disk as applied; or dumb ones.
    struct Made {
        dumb: bool,
    }

    struct Mouth {
        node: String,
        dumb: bool,
    }

    const LAST: u64 = 3000;

    #[async_trait]
    impl Looker for Mouth {
        async fn look(&mut self, wanted: Wanted) -> Result<NodeState, String> {
            if self.dumb {
                return std::future::pending().await;
            }
            let applied = if self.node == "n1" { LAST } else { 1500 };
            let slot = |slot| SlotState {
                slot,
                hash: format!("h{slot}"),
                chosen: slot <= applied,
                durable: true,
                ..SlotState::default()
            };
            let to = wanted.from.saturating_add(wanted.limit).min(LAST + 1);
            Ok(NodeState {
                node: self.node.clone(),
                incarnation: 1,
                votes: true,
                durable: applied,
                applied,
                commit: applied,
                last: LAST,
                hash: format!("p{applied}"),
                log: (wanted.from.max(1)..to).map(slot).collect(),
                ..NodeState::default()
            })
        }
    }

    #[async_trait]
    impl Adapter for Made {
        fn name(&self) -> &str {
            "made"
        }
        fn operations(&self) -> &[&str] {
            &[]
        }
        fn looker(&self, node: &Node) -> Option<Box<dyn Looker>> {
            Some(Box::new(Mouth { node: node.name.to_string(), dumb: self.dumb }))
        }
        async fn connect(&self, _: &Session) -> Result<Box<dyn Client>, String> {
            Err("nobody is there".to_owned())
        }
    }

    /// What is judged after two nodes were watched for a while, and what was seen in the last looks.
    async fn watched(dumb: bool, all_over: bool) -> (Verdict, Vec<NodeState>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let clock = Clock::start();
        let header = Header::new("nodes", 1, "", vec![]);
        let (journal, writer) = Journal::open(&path, &header, clock, None).unwrap();
        let node = |id: u32| Node {
            name: format!("n{id}").into(),
            id,
            ports: BTreeMap::new(),
            peers: vec![],
            data: folder.path().to_owned(),
        };
        let adapter: Arc<dyn Adapter> = Arc::new(Made { dumb });
        let watch = NodeWatch::start(&adapter, &[node(1), node(2)], &journal, clock).unwrap();
        sleep(Duration::from_millis(300)).await;
        watch.close(all_over).await;
        writer.close().unwrap();
        let history = judge::read_history(&path).unwrap();
        let events = (0..history.events.len()).map(|at| history.events.get(at));
        let states = events.filter_map(|event| match event.op {
            Op::Custom { value, .. } => {
                serde_json::from_value::<NodeState>(value).ok().filter(|s| s.last_look)
            }
            _ => None,
        });
        (bench::node_invariants().check(&history, &Budget::unlimited()), states.collect())
    }

    #[tokio::test]
    async fn what_nodes_say_is_written_down_and_the_last_look_goes_on_to_the_end() {
        let (verdict, last) = watched(false, true).await;
        assert_eq!(verdict.validity, Validity::Valid, "{verdict:?}");
        assert_eq!(
            (verdict.stats["chosen_to"].as_u64(), verdict.stats["durable_to"].as_u64()),
            (Some(3000), Some(3000))
        );
        // One has nothing behind what is durable, the other 1,500 votes, on two pages.
        let mut logs: Vec<usize> = last.iter().map(|state| state.log.len()).collect();
        logs.sort_unstable();
        assert_eq!(logs, [0, 1500]);
        assert!(last.iter().all(|state| !state.cut));
    }

    #[tokio::test]
    async fn a_run_that_was_broken_off_or_whose_nodes_are_dumb_is_no_pass() {
        let (verdict, last) = watched(false, false).await;
        assert_eq!((verdict.validity, last.len()), (Validity::Unknown, 0), "{verdict:?}");
        let (verdict, _) = watched(true, false).await;
        assert_eq!(verdict.reason.as_deref(), Some("no node was ever seen"));
    }
}
