//! The Docker engine, through its command line: every command can be typed by a person.
//!
//! Nothing waits for an engine for ever: one that hangs, or is far away and gone, is an error like any other.

use std::{process::Stdio, time::Duration};
use tokio::process::Command;

/// How long the engine may take for a command.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take for a command that may have to fetch an image first.
const FETCHING: Duration = Duration::from_secs(600);
/// How long building an image from this program may take, and whatever a compose file wants built or fetched.
pub const BUILDING: Duration = Duration::from_secs(900);

/// Runs `docker …` and returns its standard output without the end of the line; an error shows the command and what it
/// said.
pub async fn docker<S: AsRef<str>>(arguments: &[S]) -> Result<String, String> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let mut command = Command::new("docker");
    command.args(&arguments);
    let shown = format!("docker {}", arguments.join(" "));
    let fetches = matches!(arguments.first(), Some(&("create" | "run" | "pull")));
    let out = output(command, &shown, if fetches { FETCHING } else { PATIENCE }).await?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        // What follows the first line is how to use it.
        return Err(format!("`{shown}` failed: {}", said.trim().lines().next().unwrap_or_default()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
}

/// Runs a command that speaks to the engine and returns what it said, within a limit; after that it is ended.
pub(super) async fn output(
    mut command: Command,
    shown: &str,
    limit: Duration,
) -> Result<std::process::Output, String> {
    // Not of our process group: a Ctrl-C must not end what is needed to heal.
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(out) => out.map_err(|e| format!("cannot run `{shown}`: {e}")),
        Err(_) => Err(format!(
            "`{shown}` did not end within {} s: the engine does not answer; see `docker version` and DOCKER_HOST",
            limit.as_secs()
        )),
    }
}

/// Whether an engine answers, asked on a thread where waiting holds nobody up.
pub async fn answers() -> Result<(), String> {
    let asked = tokio::task::spawn_blocking(crate::machine::docker).await;
    asked.unwrap_or_else(|e| Err(format!("nobody could ask the Docker engine: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let why = output(command, "docker ps", Duration::from_millis(50)).await.unwrap_err();
        assert!(why.contains("`docker ps` did not end within"), "{why}");
    }
}
