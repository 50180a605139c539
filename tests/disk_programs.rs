//! Real programs on the disk: SQLite (through Python), and a map written without `write`.
//!
//! Left out, with a word about it, where there is no python3 or no FUSE; with `TRIBUNAL_REQUIRE_HOSTS` that fails.

mod common;

use common::can;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};
use tribunal::{
    agent::disk::{Disk, Loss, Troubles},
    machine,
};

const SQLITE: &str = r#"
import sqlite3, sys, time
folder, how = sys.argv[1], sys.argv[2]
db = sqlite3.connect(folder + "/db", isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("pragma synchronous=full")
db.execute("create table if not exists t (n integer primary key, filler blob)")
db.execute("pragma wal_checkpoint(truncate)")
db.execute("pragma synchronous=" + how)
n = 0
while True:
    n += 1
    db.execute("insert into t values (?, randomblob(3000))", (n,))
    print(n, flush=True)
    if n == 300:
        # Whoever kills it is slow. The log must not become so long that SQLite copies it back, with a sync.
        time.sleep(1000)
"#;

const COUNT: &str = r#"
import sqlite3, sys
try:
    db = sqlite3.connect(sys.argv[1] + "/db")
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    rows = [row[0] for row in db.execute("select n from t order by n")]
    assert rows == list(range(1, len(rows) + 1)), rows
    print(len(rows))
except (AssertionError, sqlite3.DatabaseError) as error:
    print("broken:", error)
"#;

const MAP: &str = r#"
import mmap, sys, time
file = open(sys.argv[1] + "/map", "r+b")
map = mmap.mmap(file.fileno(), 0)
map[5000:5004] = b"safe"
map.flush()
map[5000:5010] = b"not synced"
print(file.read()[5000:5010].decode(), flush=True)
time.sleep(1000)
"#;

fn python(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]).args(args).stdout(Stdio::piped());
    command
}

fn there_is_python() -> bool {
    let there = Command::new("python3").args(["-c", "import sqlite3"]).status().is_ok_and(|s| s.success());
    let there = if there { Ok(()) } else { Err("`python3` with its sqlite3 does not run".to_owned()) };
    can("FUSE and python3", machine::fuse().and(there))
}

/// A program that dies with the test, whatever becomes of that.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        self.0.kill().unwrap();
    }

    fn reap(&mut self) {
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines a program prints.
fn lines(child: &mut Running) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok)
}

/// Runs SQLite, kills it after the 40th commit it told us of, fails the power: what it told, what is left.
fn crash_sqlite(how: &str, torn: Option<u64>) -> (u64, String, Loss) {
    let (back, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = Disk::mount(back.path(), at.path(), "tribunal:sqlite").unwrap();
    let folder = at.path().to_str().unwrap();
    let mut child = Running(python(SQLITE, &[folder, how]).spawn().unwrap());
    let mut told = lines(&mut child);
    let mut last: u64 = told.by_ref().nth(39).unwrap().parse().unwrap();
    child.kill();
    child.reap();
    last = told.last().map_or(last, |line| line.parse().unwrap());
    let loss = disk.power_failure(torn).unwrap();
    let left = python(COUNT, &[folder]).output().unwrap().stdout;
    (last, String::from_utf8(left).unwrap().trim().to_owned(), loss)
}

#[test]
fn sqlite_keeps_what_it_syncs() {
    if !there_is_python() {
        return;
    }
    for torn in [None, Some(1), Some(2), Some(3)] {
        let (told, left, loss) = crash_sqlite("full", torn);
        eprintln!("full, {torn:?}: told {told}, left {left}, {loss:?}");
        assert!(left.parse::<u64>().unwrap() >= told);
    }
}

#[test]
fn sqlite_loses_what_it_does_not_sync() {
    if !there_is_python() {
        return;
    }
    let (told, left, loss) = crash_sqlite("off", None);
    eprintln!("off: told {told}, left {left}, {loss:?}");
    assert_eq!(left, "0");
    assert!(loss.lost_bytes > told * 3000);
    for seed in 1..4 {
        let (told, left, loss) = crash_sqlite("off", Some(seed));
        eprintln!("off, torn by {seed}: told {told}, left {left}, {loss:?}");
        assert!(left.parse::<u64>().is_ok_and(|left| left < told), "checksums find torn frames");
    }
}

#[test]
fn a_map_written_is_undone_even_before_it_is_written_back() {
    if !there_is_python() {
        return;
    }
    let (back, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = Disk::mount(back.path(), at.path(), "tribunal:map").unwrap();
    let file = at.path().join("map");
    std::fs::write(&file, [0; 8192]).unwrap();
    let mut child = Running(python(MAP, &[at.path().to_str().unwrap()]).spawn().unwrap());
    assert_eq!(lines(&mut child).next().unwrap(), "not synced");
    // Still alive, with a dirty page that never was written.
    disk.power_failure(None).unwrap();
    let holds = |path: &Path| String::from_utf8(std::fs::read(path).unwrap()[5000..5010].to_vec()).unwrap();
    assert_eq!(holds(&file), "safe\0\0\0\0\0\0");
    child.kill();
    child.reap();
    assert_eq!(
        (holds(&file), holds(&back.path().join("map"))),
        ("safe\0\0\0\0\0\0".into(), "safe\0\0\0\0\0\0".into())
    );
}

#[test]
fn a_program_killed_during_a_slow_sync_can_be_reaped() {
    if !there_is_python() {
        return;
    }
    let (back, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = Disk::mount(back.path(), at.path(), "tribunal:slow").unwrap();
    disk.set(Troubles { sync_delay_ms: 600_000, ..Troubles::default() });
    let script = "import os,sys; f=open(sys.argv[1]+'/f','wb'); f.write(b'x'); f.flush(); print(1,flush=True); os.fsync(f)";
    let mut child = Running(python(script, &[at.path().to_str().unwrap()]).spawn().unwrap());
    lines(&mut child).next().unwrap();
    while disk.stats().syncs == 0 {
        std::thread::yield_now();
    }
    child.kill();
    disk.set(Troubles::default());
    child.reap();
}
