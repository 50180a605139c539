//! The nodes' wall clocks, set wrong by agents; see [`crate::agent::clock`].
//!
//! ```text
//! set ──▶ the process and all that it has started ──▶ every KEPT: whoever has started or executed something since
//! ```
//! A program that starts has a right clock: the patch of a process does not outlive an exec. As long as a fault is in
//! force, the offset is put back, in what the node starts and in a node that starts again.

use super::{Part, agents::Agent};
use crate::agent::Request;
use async_trait::async_trait;
use nemesis::Capability;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// How often it is looked whose offset is to be put back.
const KEPT: Duration = Duration::from_millis(50);
/// For how long a node is watched for raw system calls, in milliseconds.
const WATCHED_MS: u64 = 100;

/// The wall clocks of all nodes.
pub struct Clocks {
    agents: Result<Vec<Arc<Agent>>, String>,
    all: Vec<Arc<Clock>>,
}

/// One of them.
#[derive(Default)]
struct Clock {
    /// What it is to be off by; locked while it is set, so that a late change cannot overtake a later one.
    wanted: tokio::sync::Mutex<i64>,
    /// The node's process, as far as it is known.
    pid: Mutex<Option<i32>>,
    /// The process that was watched before its clock was first set wrong.
    watched: Mutex<Option<i32>>,
    /// Somebody looks after it.
    kept: Mutex<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Clocks {
    /// Clocks that are set by these agents, one for each node (they may be the same), or the reason why they cannot be.
    pub fn new(nodes: usize, agents: Result<Vec<Arc<Agent>>, String>) -> Self {
        Clocks { agents, all: (0..nodes).map(|_| Arc::default()).collect() }
    }

    fn agent(&self, i: usize) -> Result<&Arc<Agent>, String> {
        self.agents.as_ref().map(|all| &all[i]).map_err(Clone::clone)
    }

    /// Sets a node's clock off and returns by how much it then was. A node that is down gets the offset when it starts.
    pub async fn set(&self, i: usize, pid: Result<i32, String>, offset_ns: i64) -> Result<i64, String> {
        let clock = &self.all[i];
        if let (Ok(pid), true) = (&pid, offset_ns != 0) {
            self.refuse_the_unreachable(i, *pid).await?;
        }
        let mut wanted = clock.wanted.lock().await;
        *wanted = offset_ns;
        *locked(&clock.pid) = pid.clone().ok();
        if offset_ns != 0 {
            clock.clone().keep(self.agent(i)?.clone());
        }
        match pid {
            Ok(pid) => self.agent(i)?.ask(Request::SetClock { pid, offset_ns }).await,
            Err(_) if offset_ns == 0 => Ok(0),
            Err(why) => Err(why),
        }
    }

    /// A program that asks the kernel by raw system calls keeps its right clock, whatever is done to its vDSO. This is a
    /// short look, once for each process, so that most faults that cannot work are refused; [`Clocks::raw_calls`] looks again.
    async fn refuse_the_unreachable(&self, i: usize, pid: i32) -> Result<(), String> {
        if *locked(&self.all[i].watched) == Some(pid) {
            return Ok(());
        }
        // A process that cannot be watched cannot be changed either: that error says why.
        let calls = self.raw_calls(i, pid).await?;
        if calls > 0 {
            return Err(format!(
                "it asks the kernel for the time by raw system calls ({calls} in {WATCHED_MS} ms), which no patch of its \
                 vDSO reaches"
            ));
        }
        *locked(&self.all[i].watched) = Some(pid);
        Ok(())
    }

    /// How many raw system calls for the time a node makes in a moment.
    pub async fn raw_calls(&self, i: usize, pid: i32) -> Result<u64, String> {
        self.agent(i)?.ask(Request::RawClockCalls { pid, span_ms: WATCHED_MS }).await
    }

    /// By how much a node's clock is off.
    pub async fn read(&self, i: usize, pid: i32) -> Result<i64, String> {
        let wanted = self.all[i].wanted.lock().await;
        self.agent(i)?.ask(Request::ReadClock { pid, wanted_ns: *wanted }).await
    }

    /// A node was started.
    pub fn started(&self, i: usize, pid: i32) {
        let (Ok(agent), clock) = (self.agent(i), self.all[i].clone()) else { return };
        *locked(&clock.pid) = Some(pid);
        let agent = agent.clone();
        tokio::spawn(async move { clock.put_back(&agent).await });
    }
}

impl Clock {
    /// Puts the offset back until it is 0. Nothing is done if somebody does so already.
    fn keep(self: Arc<Self>, agent: Arc<Agent>) {
        if std::mem::replace(&mut *locked(&self.kept), true) {
            return;
        }
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEPT).await;
                if !self.put_back(&agent).await {
                    return;
                }
            }
        });
    }

    /// Puts the offset back where it is missing. False if there is none any more, and nobody looks after it then.
    async fn put_back(&self, agent: &Agent) -> bool {
        let wanted = self.wanted.lock().await;
        if *wanted == 0 {
            *locked(&self.kept) = false;
            return false;
        }
        let pid = *locked(&self.pid);
        if let Some(pid) = pid {
            // A node that is just going down is no trouble; what the fault came to is measured in the end.
            let _: Result<u32, String> = agent.ask(Request::KeepClock { pid, offset_ns: *wanted }).await;
        }
        true
    }
}

#[async_trait]
impl Part for Clocks {
    fn supports(&self, capability: Capability) -> Option<Result<(), String>> {
        (capability == Capability::Clock).then(|| self.agents.as_ref().map(|_| ()).map_err(Clone::clone))
    }
}
