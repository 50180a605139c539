//! Runs a program to its end.

use crate::machine;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Runs it and returns its standard output; an error shows the command, how it ended and what it said.
pub(super) fn run(argv: &[String], input: Option<&str>) -> Result<String, String> {
    let shown = argv.join(" ");
    let [program, arguments @ ..] = argv else { return Err("nothing to run".to_owned()) };
    let mut command = Command::new(program);
    command.env("PATH", machine::path());
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|e| format!("cannot run `{shown}`: {e}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).map_err(|e| format!("`{shown}`: {e}"))?;
    }
    let out = child.wait_with_output().map_err(|e| format!("`{shown}`: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let input = input.map(|i| format!(" given\n{i}")).unwrap_or_default();
        return Err(format!("`{shown}`{input} failed ({}): {}", out.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn administrators_programs_are_found() {
        let path = run(&["sh", "-c", "echo $PATH"].map(str::to_owned), None).unwrap();
        assert!(path.trim().split(':').any(|folder| folder == "/usr/sbin"), "{path}");
    }
}
