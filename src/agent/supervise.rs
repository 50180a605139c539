//! Nodes that an agent starts and watches: where the controller cannot be their parent, on hosts behind ssh.

use crate::cluster::children::{ended, state_letter};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

/// The nodes of one agent, by their names.
#[derive(Default)]
pub(super) struct Nodes(Mutex<BTreeMap<String, Child>>);

impl Nodes {
    /// Starts one. Answers its process id.
    pub(super) fn start(
        &self,
        run: &str,
        name: &str,
        argv: &[String],
        env: Vec<(String, String)>,
        log: &Path,
    ) -> Result<u32, String> {
        let [program, arguments @ ..] = argv else { return Err("nothing to start".to_owned()) };
        if let Some(child) = self.lock().get_mut(name)
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(child.id());
        }
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let copy = file.try_clone().map_err(|e| e.to_string())?;
        // We are the program that a host was given.
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = if program == "tribunal" { Command::new(own) } else { Command::new(program) };
        command.args(arguments).envs(env).env("TRIBUNAL_RUN", run).process_group(0);
        // The pipe stays with us: a node that watches it ends with us.
        command.stdin(Stdio::piped()).stdout(file).stderr(copy);
        let child = command.spawn().map_err(|e| format!("cannot run `{program}`: {e}"))?;
        let pid = child.id();
        self.lock().insert(name.to_owned(), child);
        Ok(pid)
    }

    /// Sends a signal to the group of one.
    pub(super) fn signal(&self, name: &str, signal: &str) -> Result<(), String> {
        let signal = match signal {
            "KILL" => Signal::KILL,
            "TERM" => Signal::TERM,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            other => return Err(format!("nobody sends the signal {other}")),
        };
        let mut nodes = self.lock();
        let child = nodes.get_mut(name).ok_or_else(|| format!("{name} was never started"))?;
        if matches!(child.try_wait(), Ok(Some(_))) {
            return Ok(());
        }
        let pid = Pid::from_raw(child.id() as i32).ok_or("no process id")?;
        kill_process_group(pid, signal).map_err(|e| e.to_string())?;
        Ok(())
    }

    /// What the operating system says of one.
    pub(super) fn state(&self, name: &str) -> (String, String) {
        let mut nodes = self.lock();
        let Some(child) = nodes.get_mut(name) else {
            return ("dead".to_owned(), "never started".to_owned());
        };
        match child.try_wait() {
            Ok(Some(status)) => ("dead".to_owned(), ended(status)),
            _ => {
                let paused = matches!(state_letter(child.id()), Some('T' | 't'));
                ((if paused { "paused" } else { "running" }).to_owned(), child.id().to_string())
            }
        }
    }

    pub(super) fn kill_all(&self) {
        let names: Vec<String> = self.lock().keys().cloned().collect();
        for name in names {
            // It may have ended by itself.
            let _ = self.signal(&name, "KILL");
        }
        for child in self.lock().values_mut() {
            let _ = child.wait();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Child>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
