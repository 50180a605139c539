//! What the end-to-end tests share: running the binary, and looking for what it left behind.

#![allow(dead_code)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

/// The binary under test, run in a folder of the test's own.
pub(crate) fn tribunal(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tribunal"));
    command.current_dir(folder);
    command
}

/// Runs to the end. Returns exit code, stdout, stderr.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// The results of the newest run in a folder.
pub(crate) fn results(folder: &Path) -> serde_json::Value {
    let path = folder.join("store/latest/results.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(text.trim_start_matches(['{', '\n', ' ']).starts_with("\"valid\""), "`valid` comes first");
    serde_json::from_str(&text).expect("results.json is JSON")
}

/// Processes whose command line mentions the folder: the nodes of a run have their data there.
pub(crate) fn processes_in(folder: &Path) -> Vec<String> {
    let canonical = folder.canonicalize().expect("the folder exists");
    let needle = canonical.to_string_lossy().into_owned();
    let out = Command::new("ps").args(["-eo", "pid=,stat=,args="]).output().expect("ps runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // A zombie has no command line, and nobody to be bothered by it.
    text.lines().filter(|l| l.contains(&needle)).map(str::to_owned).collect()
}

/// Waits until a condition holds, or fails.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The folder of the only run of a test in a store.
pub(crate) fn run_folder(folder: &Path, test: &str) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(folder.join("store").join(test)).ok()?;
    Some(entries.next()?.ok()?.path())
}

/// Whether a test can be made here. In CI (`TRIBUNAL_REQUIRE_HOSTS=1`) it must be; elsewhere the test says that it was
/// left out, and why.
pub(crate) fn can(what: &str, answer: Result<(), String>) -> bool {
    let Err(why) = answer else { return true };
    assert!(std::env::var_os("TRIBUNAL_REQUIRE_HOSTS").is_none(), "{what} is required here: {why}");
    // Not by `eprintln`, of which the test harness shows nothing if the test passes.
    let said = writeln!(std::io::stderr(), "LEFT OUT, because {what} cannot be had here: {why}");
    said.expect("standard error is open");
    false
}

/// Whether a run of a correct system ended as it must: every checker but the guards found it valid, and these object to
/// nothing but kinds of faults that never bit, while others did. What a fault finds to bite on is chance; that nothing wrong was found, and
/// all was healed and judged, is not.
pub(crate) fn ended_well(folder: &Path, code: i32) -> Result<(), String> {
    if code != 0 && code != 2 {
        return Err(format!("exit code {code}"));
    }
    let checkers = &results(folder)["checkers"];
    let all = checkers.as_object().expect("checkers are an object");
    let doubtful: Vec<&String> =
        all.iter().filter(|(_, v)| v["valid"] != true).map(|(name, _)| name).collect();
    let stats = &checkers["guards"]["stats"];
    let listed = |what: &str| stats[what].as_array().map_or(0, Vec::len);
    let bit = || {
        let faults = results(folder)["faults"].as_array().cloned().unwrap_or_default();
        faults.iter().any(|fault| fault["effect"]["seen"] == true)
    };
    match (code, &doubtful[..]) {
        (0, []) => Ok(()),
        (2, [guards]) if *guards == "guards" && listed("other") == 0 && listed("unseen") > 0 && bit() => {
            Ok(())
        }
        _ => Err(format!("exit code {code}, not valid: {doubtful:?}, {stats}")),
    }
}

/// Kinds of faults that had an effect and were seen to be healed, in the newest run of a folder.
pub(crate) fn kinds_seen(folder: &Path) -> std::collections::BTreeSet<String> {
    let r = results(folder);
    let all = r["faults"].as_array().expect("faults are a list");
    let seen = all.iter().filter(|f| f["effect"]["seen"] == true && f["healed"]["seen"] == true);
    seen.map(|f| f["kind"].as_str().unwrap_or_default().to_owned()).collect()
}
