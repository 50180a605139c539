//! Nodes as child processes of the tester, on this machine. A node that ends although nobody ended it is noticed.
//!
//! A prefix can be put before each node's command, which must replace itself by it (`nsenter`), so that the child's
//! process id is the node's.

use super::{
    Part,
    processes::{NO_COMMAND, Processes},
    spawner,
};
use async_trait::async_trait;
use nemesis::{NodeName, NodeState};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    ffi::OsString,
    fs::OpenOptions,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// How long a node may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How long the kernel may take to tear down a node that was killed.
const REAP: Duration = Duration::from_secs(30);

/// One child.
#[derive(Debug)]
pub struct Place {
    /// Its name.
    pub name: NodeName,
    /// Where its output goes.
    pub log: PathBuf,
    /// What stands before its command.
    pub prefix: Vec<OsString>,
}

/// The children. Dropping them kills them.
pub struct Children {
    /// Marks their environment, so that they can be found if the tester is gone.
    run: String,
    places: Vec<Place>,
    slots: Vec<Mutex<Slot>>,
    excused: Vec<AtomicBool>,
    /// Nodes that were told to end: whoever notices that they have, they did not do it by themselves.
    asked: Vec<AtomicBool>,
    deaths: Mutex<Vec<String>>,
}

#[derive(Debug)]
enum Slot {
    Never,
    Running(Child),
    Paused(Child),
    Dead(String),
}

impl Children {
    /// None is started yet.
    pub fn new(run: &str, places: Vec<Place>) -> Self {
        Children {
            run: run.to_owned(),
            slots: places.iter().map(|_| Mutex::new(Slot::Never)).collect(),
            excused: places.iter().map(|_| AtomicBool::new(false)).collect(),
            asked: places.iter().map(|_| AtomicBool::new(false)).collect(),
            deaths: Mutex::default(),
            places,
        }
    }

    fn slot(&self, i: usize) -> MutexGuard<'_, Slot> {
        let mut slot = self.slots[i].lock().unwrap_or_else(|e| e.into_inner());
        // Whoever looks at a node first learns whether it ended by itself.
        if let Slot::Running(child) | Slot::Paused(child) = &mut *slot
            && let Ok(Some(status)) = child.try_wait()
        {
            let how = ended(status);
            if !self.excused[i].load(Relaxed) && !self.asked[i].load(Relaxed) {
                let place = &self.places[i];
                let death = format!("{} ended by itself ({how}); see {}", place.name, place.log.display());
                self.deaths.lock().unwrap_or_else(|e| e.into_inner()).push(death);
            }
            *slot = Slot::Dead(how);
        }
        slot
    }

    /// Whether a node that was asked to end has ended. Not by [`Children::slot`]: this end is no death by itself.
    fn ended_as_asked(&self, i: usize) -> Result<bool, String> {
        let mut slot = self.slots[i].lock().unwrap_or_else(|e| e.into_inner());
        let (Slot::Running(child) | Slot::Paused(child)) = &mut *slot else { return Ok(true) };
        let Some(status) = child.try_wait().map_err(|e| e.to_string())? else { return Ok(false) };
        *slot = Slot::Dead(ended(status));
        Ok(true)
    }

    fn signal(&self, i: usize, signal: Signal) -> Result<(), String> {
        let mut slot = self.slot(i);
        let taken = std::mem::replace(&mut *slot, Slot::Never);
        let (next, result) = match taken {
            Slot::Running(child) | Slot::Paused(child) => {
                let result = send(&child, signal).map_err(|e| e.to_string());
                (if signal == Signal::STOP { Slot::Paused(child) } else { Slot::Running(child) }, result)
            }
            other => (other, Err("it is not running".to_owned())),
        };
        *slot = next;
        result
    }
}

fn send(child: &Child, signal: Signal) -> std::io::Result<()> {
    let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| std::io::Error::other("no process id"))?;
    Ok(kill_process_group(pid, signal)?)
}

pub(crate) fn ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The state letter of a process: `T` for stopped.
pub(crate) fn state_letter(pid: u32) -> Option<char> {
    if cfg!(target_os = "linux") {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        return stat.rsplit_once(')')?.1.trim_start().chars().next();
    }
    let out = Command::new("ps").args(["-o", "state=", "-p", &pid.to_string()]).output().ok()?;
    String::from_utf8_lossy(&out.stdout).trim().chars().next()
}

/// The same command with something before it. Its environment and folder stay.
pub(super) fn prefixed(command: Command, prefix: &[OsString]) -> Command {
    let [program, arguments @ ..] = prefix else { return command };
    let mut out = Command::new(program);
    out.args(arguments).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => out.env(name, value),
            None => out.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        out.current_dir(folder);
    }
    out
}

#[async_trait]
impl Part for Children {
    async fn tear_down(&self) -> Vec<String> {
        // A death that nobody has looked at yet is noticed here, before everyone is ended.
        for i in 0..self.places.len() {
            drop(self.slot(i));
        }
        let mut errors = Vec::new();
        for i in 0..self.places.len() {
            errors.extend(self.kill(i).await.err());
        }
        errors
    }
}

#[async_trait]
impl Processes for Children {
    async fn start(&self, i: usize, command: Option<Command>) -> Result<(), String> {
        if matches!(*self.slot(i), Slot::Running(_) | Slot::Paused(_)) {
            return Ok(());
        }
        let command = command.ok_or(NO_COMMAND)?;
        let path = &self.places[i].log;
        let log = OpenOptions::new().create(true).append(true).open(path);
        let log = log.map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let copy = log.try_clone().map_err(|e| e.to_string())?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut command = prefixed(command, &self.places[i].prefix);
        // The pipe stays with us: when we end, however that happens, it ends too.
        command.stdin(Stdio::piped()).stdout(log).stderr(copy).env("TRIBUNAL_RUN", &self.run);
        let child = spawner::spawn(command).await;
        let child = child.map_err(|e| format!("cannot run `{program}`: {e}"))?;
        let mut slot = self.slot(i);
        self.asked[i].store(false, Relaxed);
        *slot = Slot::Running(child);
        Ok(())
    }

    async fn strike(&self, i: usize) -> Result<(), String> {
        match &*self.slot(i) {
            Slot::Running(child) | Slot::Paused(child) => {
                self.asked[i].store(true, Relaxed);
                send(child, Signal::KILL).map_err(|e| e.to_string())
            }
            Slot::Never | Slot::Dead(_) => Ok(()),
        }
    }

    async fn reap(&self, i: usize) -> Result<(), String> {
        // SIGKILL cannot be refused, so this takes as long as the kernel needs to tear a process down; only a disk
        // that does not answer can hold that up.
        let deadline = tokio::time::Instant::now() + REAP;
        while !self.ended_as_asked(i)? {
            if tokio::time::Instant::now() > deadline {
                return Err(format!("it was killed and is still there after {REAP:?}"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn stop(&self, i: usize) -> Result<(), String> {
        if let Slot::Running(child) | Slot::Paused(child) = &*self.slot(i) {
            self.asked[i].store(true, Relaxed);
            send(child, Signal::TERM).map_err(|e| e.to_string())?;
        }
        let deadline = tokio::time::Instant::now() + GRACE;
        while tokio::time::Instant::now() < deadline {
            if self.ended_as_asked(i)? {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.kill(i).await
    }

    async fn pause(&self, i: usize) -> Result<(), String> {
        self.signal(i, Signal::STOP)?;
        // The signal is delivered to each thread in turn.
        for _ in 0..200 {
            if self.state(i).await == NodeState::Paused {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn resume(&self, i: usize) -> Result<(), String> {
        self.signal(i, Signal::CONT)
    }

    async fn state(&self, i: usize) -> NodeState {
        match &*self.slot(i) {
            Slot::Never => NodeState::Dead("never started".to_owned()),
            Slot::Dead(how) => NodeState::Dead(how.clone()),
            // What the kernel says, not what we asked for.
            Slot::Running(child) | Slot::Paused(child) => match state_letter(child.id()) {
                Some('T' | 't') => NodeState::Paused,
                _ => NodeState::Running,
            },
        }
    }

    fn excuse(&self, i: usize, excused: bool) {
        self.excused[i].store(excused, Relaxed);
    }

    async fn deaths(&self) -> Vec<String> {
        for i in 0..self.places.len() {
            drop(self.slot(i));
        }
        self.deaths.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    async fn pid(&self, i: usize) -> Option<i32> {
        match &*self.slot(i) {
            Slot::Running(child) | Slot::Paused(child) => Some(child.id() as i32),
            Slot::Never | Slot::Dead(_) => None,
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            let slot = slot.get_mut().unwrap_or_else(|e| e.into_inner());
            if let Slot::Running(child) | Slot::Paused(child) = slot {
                let _ = send(child, Signal::KILL);
                let _ = child.wait();
            }
        }
    }
}
