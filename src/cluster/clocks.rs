//! The nodes' wall clocks, set wrong by agents; see [`crate::agent::clock`].
//!
//! A node that starts again has a right clock: as long as a fault is in force, the offset is put back, shortly after the
//! start, because the patch of a process does not outlive an exec.

use super::{Part, agents::Agent};
use crate::agent::Request;
use async_trait::async_trait;
use nemesis::Capability;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// When the offset is put back after a start: at once, and again in case the process was still about to exec.
const AGAIN: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(800)];

/// The wall clocks of all nodes.
pub struct Clocks {
    agents: Result<Vec<Arc<Agent>>, String>,
    /// What each clock is to be off by; locked while it is set, so that a late change cannot overtake a later one.
    wanted: Vec<Arc<tokio::sync::Mutex<i64>>>,
    /// Nodes that were watched and make no raw system calls for the time.
    reachable: Vec<AtomicBool>,
}

/// For how long a node is watched before its clock is first set wrong, in milliseconds.
const WATCHED_MS: u64 = 100;

impl Clocks {
    /// Clocks that are set by these agents, one for each node (they may be the same), or the reason why they cannot be.
    pub fn new(nodes: usize, agents: Result<Vec<Arc<Agent>>, String>) -> Self {
        Clocks {
            agents,
            wanted: (0..nodes).map(|_| Arc::default()).collect(),
            reachable: (0..nodes).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    fn agent(&self, i: usize) -> Result<&Arc<Agent>, String> {
        self.agents.as_ref().map(|all| &all[i]).map_err(Clone::clone)
    }

    /// Sets a node's clock off and returns by how much it then was. A node that is down gets the offset when it starts.
    pub async fn set(&self, i: usize, pid: Result<i32, String>, offset_ns: i64) -> Result<i64, String> {
        if let (Ok(pid), true) = (&pid, offset_ns != 0) {
            self.refuse_the_unreachable(i, *pid).await?;
        }
        let mut wanted = self.wanted[i].lock().await;
        *wanted = offset_ns;
        match pid {
            Ok(pid) => self.agent(i)?.ask(Request::SetClock { pid, offset_ns }).await,
            Err(_) if offset_ns == 0 => Ok(0),
            Err(why) => Err(why),
        }
    }

    /// A program that asks the kernel by raw system calls keeps its right clock, whatever is done to its vDSO.
    async fn refuse_the_unreachable(&self, i: usize, pid: i32) -> Result<(), String> {
        if self.reachable[i].load(Relaxed) {
            return Ok(());
        }
        let watch = Request::RawClockCalls { pid, span_ms: WATCHED_MS };
        // A process that cannot be watched cannot be changed either: that error says why.
        let calls: u64 = self.agent(i)?.ask(watch).await?;
        if calls > 0 {
            return Err(format!(
                "it asks the kernel for the time by raw system calls ({calls} in {WATCHED_MS} ms), which no patch of its \
                 vDSO reaches"
            ));
        }
        self.reachable[i].store(true, Relaxed);
        Ok(())
    }

    /// By how much a node's clock is off.
    pub async fn read(&self, i: usize, pid: i32) -> Result<i64, String> {
        self.agent(i)?.ask(Request::ReadClock { pid }).await
    }

    /// A node was started.
    pub fn started(&self, i: usize, pid: i32) {
        let (Ok(agent), wanted) = (self.agent(i), self.wanted[i].clone()) else { return };
        let agent = agent.clone();
        tokio::spawn(async move {
            for pause in AGAIN {
                tokio::time::sleep(pause).await;
                let offset_ns = wanted.lock().await;
                if *offset_ns == 0 {
                    return;
                }
                let _: Result<i64, String> =
                    agent.ask(Request::SetClock { pid, offset_ns: *offset_ns }).await;
            }
        });
    }
}

#[async_trait]
impl Part for Clocks {
    fn supports(&self, capability: Capability) -> Option<Result<(), String>> {
        (capability == Capability::Clock).then(|| self.agents.as_ref().map(|_| ()).map_err(Clone::clone))
    }
}
