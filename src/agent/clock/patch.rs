//! Puts the patch into a process, changes it, takes it out: stop, walk clear, write, measure.

use super::ClockError;
use super::proc::{self, Memory};
use super::tracee::Stopped;
use super::vdso::{Layout, Write, signal_frame_in};
use super::{probe, raw, sys};
use std::ops::Range;
use std::time::Duration;

/// How often, 1 ms apart, a process is stopped anew as one of its signal handlers has interrupted
/// the very code that is to change.
const TRIES: u32 = 20;
/// How many of its execs in a row a process may get in our way with.
const EXECS: u32 = 10;
/// How much of a stack is searched for signal frames, in bytes; a frame has less than 12 kB.
const STACK: u64 = 1 << 16;

pub(super) fn reachable(pid: i32) -> Result<(), ClockError> {
    let status = proc::status(pid)?;
    if status.process == std::process::id() as i32 {
        return Err(ClockError::Itself { pid });
    }
    if status.tracer != 0 {
        return Err(ClockError::Traced { pid, tracer: status.tracer });
    }
    let memory = Memory::open(pid)?;
    Layout::of(pid, &memory.vdso_image()?).map(drop)
}

pub(super) fn set_offset(pid: i32, offset_ns: i64) -> Result<i64, ClockError> {
    // Adding less than a second to it must not overflow in the stub.
    if offset_ns.checked_add(1_000_000_000).is_none() {
        return Err(ClockError::Offset { offset_ns });
    }
    trace(pid, |pid| {
        for _ in 1..TRIES {
            if let Some(measured) = try_set(pid, offset_ns, false)? {
                return Ok(measured);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        try_set(pid, offset_ns, true)?.ok_or(ClockError::Busy { pid })
    })
}

/// The offset that the patch of a process says, without stopping it; 0 if there is none.
pub(super) fn shown(pid: i32) -> Result<i64, ClockError> {
    let image = Memory::open(pid)?.vdso_image()?;
    Ok(Layout::of(pid, &image)?.offset(&image))
}

pub(super) fn measure(pid: i32) -> Result<i64, ClockError> {
    trace(pid, |pid| {
        let mut stopped = Stopped::seize(pid, 0)?;
        let image = stopped.memory.vdso_image()?;
        let layout = Layout::of(pid, &image)?;
        probe::measure(&mut stopped, &image, &layout)
    })
}

pub(super) fn raw_calls(pid: i32, span: Duration) -> Result<u64, ClockError> {
    trace(pid, |pid| raw::count(pid, span))
}

/// Runs `work` where it may trace, if there is a point in it. A few times if the process has
/// replaced itself (exec) under our hands: its memory is another one then, or just not there.
fn trace<T: Copy + Send>(
    pid: i32,
    work: impl Fn(i32) -> Result<T, ClockError> + Send + Sync,
) -> Result<T, ClockError> {
    let once = || {
        reachable(pid)?;
        let status = proc::status(pid)?;
        let child = status.parent == std::process::id() as i32;
        sys::as_tracer(child, || work(status.process))
    };
    let mut result = once();
    for _ in 1..EXECS {
        match result {
            Err(ClockError::Gone { .. } | ClockError::NoVdso { .. } | ClockError::Failed { .. }) => {}
            other => return other,
        }
        if proc::status(pid).map_or(true, |status| status.zombie) {
            return result;
        }
        std::thread::sleep(Duration::from_millis(1));
        result = once();
    }
    result
}

/// One attempt; `None` if a signal handler is in the way. `last`: then leave the (harmless) stub
/// where it is, and restore all else.
fn try_set(pid: i32, offset_ns: i64, last: bool) -> Result<Option<i64>, ClockError> {
    let mut stopped = Stopped::seize(pid, 0)?;
    let image = stopped.memory.vdso_image()?;
    let layout = Layout::of(pid, &image)?;
    let mut writes = match offset_ns {
        0 => layout.restore(&image),
        _ => layout.install(&image, offset_ns),
    };
    let base = stopped.memory.vdso().start;
    let place = |range: Range<usize>| base + range.start as u64..base + range.end as u64;
    // No thread may be where code changes: in the entries, unless they are jumps already and only
    // the offset changes; in the stub, if it is to be taken away.
    let mut critical: Vec<_> = layout.heads().map(place).to_vec();
    critical.retain(|head| writes.iter().any(|(at, _)| head.start == base + *at as u64 + 1));
    let erase = offset_ns == 0 && layout.patched();
    if erase {
        critical.push(place(layout.stub()));
    }
    let clear = walk_clear(&mut stopped, &critical)?;
    match (clear, erase) {
        (true, true) => writes.push(layout.erase()),
        (false, true) if last => {}
        (false, _) if !writes.is_empty() => return Ok(None),
        _ => {}
    }
    write_all(&stopped.memory, base, &image, &writes)?;
    let image = stopped.memory.vdso_image()?;
    let layout = Layout::of(pid, &image)?;
    probe::measure(&mut stopped, &image, &layout).map(Some)
}

/// Walks every thread out of the ranges. `false` if one will return into them from a handler.
fn walk_clear(stopped: &mut Stopped, critical: &[Range<u64>]) -> Result<bool, ClockError> {
    let mut clear = true;
    for thread in 0..stopped.count() {
        stopped.walk(thread, |regs| !critical.iter().any(|range| range.contains(&regs.rip)))?;
        let from = stopped.regs(thread)?.rsp & !7;
        let Some(stack) = stopped.memory.writable_around(from) else { continue };
        let mut bytes = vec![0; (stack.end - from).min(STACK) as usize];
        stopped.memory.read(from, &mut bytes)?;
        clear &= !signal_frame_in(&bytes, critical);
    }
    Ok(clear)
}

/// All the writes, or (as far as possible) none of them.
fn write_all(memory: &Memory, base: u64, image: &[u8], writes: &[Write]) -> Result<(), ClockError> {
    for (n, (at, bytes)) in writes.iter().enumerate() {
        if let Err(error) = memory.write(base + *at as u64, bytes) {
            for (at, bytes) in writes[..=n].iter().rev() {
                // What can't be undone either stays as it is; the first error is the one to tell.
                let _ = memory.write(base + *at as u64, &image[*at..*at + bytes.len()]);
            }
            return Err(error);
        }
    }
    Ok(())
}
