//! A program and all that it has started: whoever of them is the server, its clock is meant.
//!
//! ```text
//! init ── shell ── server ── helper        the descendants of a process, and the members of its process group
//! ```
//! A child that is forked inherits an offset, a program that is executed does not: [`keep`] looks for those by reading
//! memory, which disturbs nobody, and stops only the ones that show another offset.

use super::{ClockError, patch};
use std::{collections::BTreeSet, fs, time::Duration};

/// How often new members are looked for while the clocks are set.
const ROUNDS: u32 = 4;

/// One process, of all that there are.
struct Entry {
    pid: i32,
    parent: i32,
    group: i32,
}

/// Reads `/proc/PID/stat`. Nothing of one that has ended.
fn entry(pid: i32) -> Option<Entry> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold any character.
    let mut words = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let alive = !matches!(words.next()?, "Z" | "X");
    let mut number = || words.next()?.parse().ok();
    let (parent, group) = (number()?, number()?);
    alive.then_some(Entry { pid, parent, group })
}

/// A process, its living descendants and the rest of its group, in an order in which parents come first.
pub(super) fn members(root: i32) -> Vec<i32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let all: Vec<Entry> = pids.filter_map(entry).collect();
    let mut members = vec![root];
    members.extend(all.iter().filter(|e| e.group == root && e.pid != root).map(|e| e.pid));
    let mut known: BTreeSet<i32> = members.iter().copied().collect();
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        for child in all.iter().filter(|e| e.parent == parent) {
            if known.insert(child.pid) {
                members.push(child.pid);
            }
        }
        next += 1;
    }
    members
}

/// Sets the offset of each of them, also of those that are started meanwhile. Returns the measured one that is farthest
/// from it.
pub(super) fn set(root: i32, offset_ns: i64) -> Result<i64, ClockError> {
    let mut worst = offset_ns;
    let mut done = BTreeSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<i32> = members(root).into_iter().filter(|pid| !done.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            done.insert(pid);
            worse(&mut worst, offset_ns, root, pid, patch::set_offset(pid, offset_ns))?;
        }
    }
    Ok(worst)
}

/// The offset of theirs that is farthest from the wanted one.
pub(super) fn measure(root: i32, wanted_ns: i64) -> Result<i64, ClockError> {
    let mut worst = wanted_ns;
    for pid in members(root) {
        worse(&mut worst, wanted_ns, root, pid, patch::measure(pid))?;
    }
    Ok(worst)
}

/// Sets the offset of those that show another one. Returns how many that were.
pub(super) fn keep(root: i32, offset_ns: i64) -> Result<u32, ClockError> {
    let mut count = 0;
    for pid in members(root) {
        // One that cannot be read is none that could be set.
        if patch::shown(pid).is_ok_and(|shown| shown != offset_ns) {
            let mut ignored = offset_ns;
            worse(&mut ignored, offset_ns, root, pid, patch::set_offset(pid, offset_ns))?;
            count += 1;
        }
    }
    Ok(count)
}

/// How many raw calls for the time all of them make, each watched for this long.
pub(super) fn raw_calls(root: i32, span: Duration) -> Result<u64, ClockError> {
    let mut sum = 0;
    for pid in members(root) {
        match patch::raw_calls(pid, span) {
            Ok(calls) => sum += calls,
            Err(ClockError::Gone { .. }) if pid != root => {}
            Err(why) => return Err(why),
        }
    }
    Ok(sum)
}

/// Keeps the worse of two. A descendant that has ended meanwhile has no clock.
fn worse(
    worst: &mut i64,
    wanted: i64,
    root: i32,
    pid: i32,
    measured: Result<i64, ClockError>,
) -> Result<(), ClockError> {
    match measured {
        Ok(off) if off.abs_diff(wanted) >= worst.abs_diff(wanted) => *worst = off,
        Ok(_) => {}
        Err(ClockError::Gone { .. }) if pid != root => {}
        Err(why) => return Err(why),
    }
    Ok(())
}
