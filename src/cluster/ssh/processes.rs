//! The nodes on hosts behind ssh: started, signalled and watched by their agents.

use super::host::Host;
use crate::{
    agent::Request,
    cluster::{
        Part,
        agents::Agent,
        processes::{NO_COMMAND, Processes},
    },
};
use async_trait::async_trait;
use nemesis::{NodeName, NodeState};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// How long a node may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// One node.
pub struct Remote {
    /// Its name.
    pub name: NodeName,
    /// Its host.
    pub host: Arc<Host>,
    /// The agent there.
    pub agent: Arc<Agent>,
    /// Where its log goes in the end.
    pub log: PathBuf,
}

/// All of them.
pub struct RemoteProcesses {
    all: Vec<Remote>,
    should_run: Vec<AtomicBool>,
    excused: Vec<AtomicBool>,
    deaths: Mutex<Vec<String>>,
    /// Programs that were copied to a host, with their paths there.
    uploaded: Mutex<BTreeMap<(usize, PathBuf), PathBuf>>,
}

impl RemoteProcesses {
    /// None of them is started yet.
    pub fn new(all: Vec<Remote>) -> Self {
        RemoteProcesses {
            should_run: all.iter().map(|_| AtomicBool::new(false)).collect(),
            excused: all.iter().map(|_| AtomicBool::new(false)).collect(),
            all,
            deaths: Mutex::default(),
            uploaded: Mutex::default(),
        }
    }

    fn remote_log(&self, i: usize) -> PathBuf {
        self.all[i].host.folder.join("node.log")
    }

    async fn ask(&self, i: usize) -> Result<(String, String), String> {
        self.all[i].agent.ask(Request::State { name: self.all[i].name.to_string() }).await
    }

    /// Looks whether a node that should run has ended, and if so remembers it.
    async fn look(&self, i: usize) -> Result<NodeState, String> {
        let (state, word) = self.ask(i).await?;
        if state == "dead" && self.should_run[i].swap(false, Relaxed) {
            if !self.excused[i].load(Relaxed) {
                let r = &self.all[i];
                let death = format!("{} ended by itself ({word}); see {}", r.name, r.log.display());
                self.deaths.lock().unwrap_or_else(|e| e.into_inner()).push(death);
            }
            self.collect_log(i).await;
        }
        Ok(match state.as_str() {
            "running" => NodeState::Running,
            "paused" => NodeState::Paused,
            _ => NodeState::Dead(word),
        })
    }

    async fn signal(&self, i: usize, signal: &str) -> Result<(), String> {
        let (name, signal) = (self.all[i].name.to_string(), signal.to_owned());
        self.all[i].agent.ask(Request::Signal { name, signal }).await
    }

    async fn collect_log(&self, i: usize) {
        let text = self.all[i].agent.ask::<String>(Request::Read { path: self.remote_log(i) }).await;
        if let Ok(text) = text {
            let _ = std::fs::write(&self.all[i].log, text);
        }
    }

    /// The program on the host: our own is there as the agent, a file of ours is copied, anything else must be there.
    async fn program(&self, i: usize, program: &str) -> Result<String, String> {
        let here = Path::new(program);
        if program == "tribunal" || !program.contains('/') || !here.is_file() {
            return Ok(program.to_owned());
        }
        let key = (i, here.to_owned());
        let known = self.uploaded.lock().unwrap_or_else(|e| e.into_inner()).get(&key).cloned();
        let there = match known {
            Some(there) => there,
            None => {
                let there = self.all[i].host.upload(here).await.map_err(|e| format!("{e:#}"))?;
                self.uploaded.lock().unwrap_or_else(|e| e.into_inner()).insert(key, there.clone());
                there
            }
        };
        Ok(there.to_string_lossy().into_owned())
    }
}

#[async_trait]
impl Part for RemoteProcesses {
    async fn tear_down(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for i in 0..self.all.len() {
            // A death that nobody has looked at yet is noticed here, before everyone is ended.
            let _ = self.look(i).await;
            if self.should_run[i].load(Relaxed) {
                errors.extend(self.kill(i).await.err());
            }
            self.collect_log(i).await;
        }
        errors
    }
}

#[async_trait]
impl Processes for RemoteProcesses {
    async fn start(&self, i: usize, command: Option<Command>) -> Result<(), String> {
        let command = command.ok_or(NO_COMMAND)?;
        let program = self.program(i, &command.get_program().to_string_lossy()).await?;
        let arguments = command.get_args().map(|a| a.to_string_lossy().into_owned());
        let argv = std::iter::once(program).chain(arguments).collect();
        let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
        let env = command.get_envs().filter_map(|(n, v)| Some((text(n), text(v?)))).collect();
        let name = self.all[i].name.to_string();
        self.all[i].agent.ask::<u32>(Request::Start { name, argv, env, log: self.remote_log(i) }).await?;
        self.should_run[i].store(true, Relaxed);
        Ok(())
    }

    async fn strike(&self, i: usize) -> Result<(), String> {
        self.look(i).await?;
        if self.should_run[i].swap(false, Relaxed) {
            self.signal(i, "KILL").await?;
        }
        Ok(())
    }

    async fn reap(&self, i: usize) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + GRACE * 6;
        while self.ask(i).await?.0 != "dead" {
            if tokio::time::Instant::now() > deadline {
                return Err("it was killed and is still there".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    async fn stop(&self, i: usize) -> Result<(), String> {
        self.should_run[i].store(false, Relaxed);
        self.signal(i, "TERM").await?;
        let deadline = tokio::time::Instant::now() + GRACE;
        while self.ask(i).await?.0 != "dead" {
            if tokio::time::Instant::now() > deadline {
                self.signal(i, "KILL").await?;
                return self.reap(i).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn pause(&self, i: usize) -> Result<(), String> {
        self.signal(i, "STOP").await?;
        // The signal is delivered to each thread in turn.
        for _ in 0..100 {
            if self.ask(i).await?.0 == "paused" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    async fn resume(&self, i: usize) -> Result<(), String> {
        self.signal(i, "CONT").await
    }

    async fn state(&self, i: usize) -> NodeState {
        self.look(i).await.unwrap_or_else(NodeState::Unknown)
    }

    fn excuse(&self, i: usize, excused: bool) {
        self.excused[i].store(excused, Relaxed);
    }

    async fn deaths(&self) -> Vec<String> {
        for i in 0..self.all.len() {
            if self.should_run[i].load(Relaxed) {
                let _ = self.look(i).await;
            }
        }
        self.deaths.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    async fn pid(&self, i: usize) -> Option<i32> {
        match self.ask(i).await {
            Ok((state, pid)) if state != "dead" => pid.parse().ok(),
            _ => None,
        }
    }
}
