//! The controller's end of an agent: one process where a node lives, asked by lines of JSON; see [`crate::agent`].
//!
//! ```text
//! Agent::open("docker exec -i holder tribunal agent") ─▶ ask(Request) ─▶ reply     many requests at the same time
//! ```
//! When the controller ends, however that happens, the agent's standard input ends, and the agent undoes what it did.

use crate::agent::{Answer, Call, Request};
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::oneshot,
};

/// How long an agent may take to say hello: a first login over ssh takes its time.
const HELLO: Duration = Duration::from_secs(60);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an agent may take to undo what it did: one program after the other, for each rule and mount.
const FAREWELL: Duration = Duration::from_secs(60);

/// Who waits for which answer; nothing when nobody will answer any more.
type Open = Option<BTreeMap<u64, oneshot::Sender<Result<Value, String>>>>;
type Waiting = Arc<Mutex<Open>>;

/// A running agent.
pub struct Agent {
    what: String,
    stdin: tokio::sync::Mutex<Option<ChildStdin>>,
    waiting: Waiting,
    next: AtomicU64,
    child: tokio::sync::Mutex<Child>,
    /// Its answer to the first request: what it is.
    pub hello: Value,
}

impl Agent {
    /// Starts one with a command that ends in `tribunal agent …`; `what` names it in errors.
    ///
    /// # Errors
    /// If it cannot be started or says nothing.
    pub async fn open(what: &str, command: std::process::Command) -> Result<Agent> {
        let shown = shown(&command);
        let mut command = Command::from(command);
        // Not of our process group: a Ctrl-C is for us, and the agent must be there to heal.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("cannot run `{shown}`"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("`{shown}` has no pipes");
        };
        let waiting: Waiting = Arc::new(Mutex::new(Some(BTreeMap::new())));
        tokio::spawn(listen(BufReader::new(stdout).lines(), waiting.clone()));
        let mut agent = Agent {
            what: what.to_owned(),
            stdin: tokio::sync::Mutex::new(Some(stdin)),
            waiting,
            next: AtomicU64::new(0),
            child: tokio::sync::Mutex::new(child),
            hello: Value::Null,
        };
        let hello = tokio::time::timeout(HELLO, agent.ask::<Value>(Request::Hello)).await;
        match hello {
            Ok(Ok(hello)) => agent.hello = hello,
            Ok(Err(why)) => bail!("{why} (started with `{shown}`)"),
            Err(_) => bail!("{what} said nothing within {HELLO:?} (started with `{shown}`)"),
        }
        Ok(agent)
    }

    /// Asks for something and waits for the answer.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, String> {
        let id = self.next.fetch_add(1, Relaxed);
        let (reply, answer) = oneshot::channel();
        let gone = || format!("{} is gone", self.what);
        match &mut *self.lock_waiting() {
            Some(waiting) => waiting.insert(id, reply),
            None => return Err(gone()),
        };
        let mut line = serde_json::to_vec(&Call { id, request }).map_err(|e| e.to_string())?;
        line.push(b'\n');
        let mut stdin = self.stdin.lock().await;
        let written = match &mut *stdin {
            Some(stdin) => stdin.write_all(&line).await.map_err(|_| gone()),
            None => Err(gone()),
        };
        drop(stdin);
        written?;
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.map_err(|_| format!("{} did not answer within {PATIENCE:?}", self.what))?;
        let value = answer.map_err(|_| gone())??;
        serde_json::from_value(value).map_err(|e| format!("{} answered strangely: {e}", self.what))
    }

    /// Runs a program there and returns its standard output.
    pub async fn run(&self, argv: &[&str], input: Option<String>) -> Result<String, String> {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        self.ask(Request::Run { argv, input }).await
    }

    /// Ends it: it undoes what it did. Returns what went wrong.
    pub async fn close(&self) -> Option<String> {
        self.stdin.lock().await.take();
        let mut child = self.child.lock().await;
        match tokio::time::timeout(FAREWELL, child.wait()).await {
            Ok(Ok(_)) => None,
            Ok(Err(e)) => Some(format!("{}: {e}", self.what)),
            Err(_) => {
                let _ = child.start_kill();
                Some(format!("{} did not end within {FAREWELL:?}; see `tribunal clean`", self.what))
            }
        }
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, Open> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }
}

async fn listen(mut lines: Lines<BufReader<ChildStdout>>, waiting: Waiting) {
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(answer) = serde_json::from_str::<Answer>(&line) else { continue };
        let mut all = waiting.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(reply) = all.as_mut().and_then(|all| all.remove(&answer.id)) {
            let _ = reply.send(answer.result);
        }
    }
    // Nobody will answer any more: dropping the senders tells those who wait.
    waiting.lock().unwrap_or_else(|e| e.into_inner()).take();
}

/// A command as a person would type it, nearly.
pub fn shown(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
