//! The Docker engine, through its command line: every command can be typed by a person.

use std::process::Stdio;
use tokio::process::Command;

/// Runs `docker …` and returns its standard output without the end of the line; an error shows the command and what it
/// said.
pub async fn docker<S: AsRef<str>>(arguments: &[S]) -> Result<String, String> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let mut command = Command::new("docker");
    // Not of our process group: a Ctrl-C must not end what is needed to heal.
    command.args(&arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let shown = format!("docker {}", arguments.join(" "));
    let out = command.output().await.map_err(|e| format!("cannot run `{shown}`: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        // What follows the first line is how to use it.
        return Err(format!("`{shown}` failed: {}", said.trim().lines().next().unwrap_or_default()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
}
