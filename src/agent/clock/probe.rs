//! The observer: what does the process itself read off its wall clock?
//!
//! A stopped thread is made to call its own vDSO's `clock_gettime(CLOCK_REALTIME)`, patched or
//! not, one instruction at a time, and then gets its registers and its stack back. The real clock
//! is read right before and right after the one instruction in which the process's clock is read
//! (the system call in a stub, rdtsc in an original), so the answer is good to some 10 us.
//!
//! ```text
//!   rsp of the thread ->  | ...             |
//!                         | red zone (128)  |  may be in use: left alone
//!                         | timespec (16)   |  the result
//!                         | return address  |  never used: the walk ends before the `ret`
//!                         | callee's (1024) |
//!                         +-----------------+  from here up to rsp is saved and put back
//! ```
//!
//! It does not look at the patch: it would find a clock that is off for any other reason as well.

use super::ClockError;
use super::sys::Regs;
use super::tracee::Stopped;
use super::vdso::Layout;
use std::time::{SystemTime, UNIX_EPOCH};

const RED_ZONE: u64 = 128;
/// How much stack the vDSO function may use; it takes less than 200 bytes.
const CALLEE: u64 = 1024;

/// Read again if more time than this (ns) went by around the reading, but not more than so often.
const GOOD: i128 = 50_000;
const READINGS: u32 = 5;

/// How suitable a stopped thread is; the less the better.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// In its own code: nothing to restart.
    Running,
    /// In a system call that the kernel will restart.
    Restarting,
    /// In one that returns EINTR.
    Interrupted,
    /// About to get a signal, which must be put aside meanwhile.
    Signalled,
}

/// By how many nanoseconds the process's clock is ahead (negative: behind); 0 if it can't be told
/// from the real one. `image` is the process's vDSO as it is now.
pub(super) fn measure(stopped: &mut Stopped, image: &[u8], layout: &Layout) -> Result<i64, ClockError> {
    let mut threads = Vec::new();
    for thread in 0..stopped.count() {
        if let Some(rank) = rank(stopped, thread)? {
            threads.push((rank, thread));
        }
    }
    threads.sort();
    let mut failure = ClockError::NoThread { pid: stopped.pid };
    for (_, thread) in threads {
        match measure_on(stopped, thread, image, layout) {
            Err(error @ (ClockError::NoThread { .. } | ClockError::Fault { .. })) => failure = error,
            other => return other,
        }
    }
    Err(failure)
}

/// `None` for a thread that must be left alone.
fn rank(stopped: &Stopped, thread: usize) -> Result<Option<Rank>, ClockError> {
    let regs = stopped.regs(thread)?;
    // Wine and the like switch to 32-bit code at times.
    if regs.cs != 0x33 || in_rseq(stopped, thread) {
        return Ok(None);
    }
    Ok(Some(match regs.rax as i64 {
        _ if stopped.signalled(thread) => Rank::Signalled,
        _ if (regs.orig_rax as i64) < 0 => Rank::Running,
        -516..=-512 => Rank::Restarting,
        -4 => Rank::Interrupted,
        _ => Rank::Running,
    }))
}

/// Whether the thread may be within a restartable sequence (tcmalloc has them): taken elsewhere
/// and back, it would not be restarted when it should.
fn in_rseq(stopped: &Stopped, thread: usize) -> bool {
    let mut critical = [0; 8];
    match stopped.rseq(thread) {
        Some(at) => stopped.memory.read(at + 8, &mut critical).is_err() || critical != [0; 8],
        None => false,
    }
}

/// One measurement on one thread, which is as before afterwards.
fn measure_on(
    stopped: &mut Stopped,
    thread: usize,
    image: &[u8],
    layout: &Layout,
) -> Result<i64, ClockError> {
    let (pid, original) = (stopped.pid, stopped.regs(thread)?);
    let timespec = original.rsp.wrapping_sub(RED_ZONE + 32) & !15;
    let (bottom, top) = (timespec.wrapping_sub(CALLEE), original.rsp);
    // The callee writes as the process: into a guard page, that would be a fault.
    match stopped.memory.writable_around(top.wrapping_sub(1)) {
        Some(stack) if stack.start <= bottom && bottom < timespec => {}
        _ => return Err(ClockError::NoThread { pid }),
    }
    let mut saved = vec![0; (top - bottom) as usize];
    stopped.memory.read(bottom, &mut saved)?;
    let result = call_often(stopped, thread, &original, timespec, (image, layout));
    // Both, whatever happened before; of the errors the first is told.
    let memory = stopped.memory.write(bottom, &saved);
    let regs = stopped.set_regs(thread, &original);
    result.and_then(|offset| memory.and(regs).map(|()| offset))
}

/// The best of a few calls: on a busy machine this program may have to wait in one.
fn call_often(
    stopped: &mut Stopped,
    thread: usize,
    original: &Regs,
    timespec: u64,
    vdso: (&[u8], &Layout),
) -> Result<i64, ClockError> {
    let (mut width, mut offset) = call(stopped, thread, original, timespec, vdso)?;
    for _ in 1..READINGS {
        if width <= GOOD {
            break;
        }
        (width, offset) = (width, offset).min(call(stopped, thread, original, timespec, vdso)?);
    }
    Ok(offset)
}

/// Makes the thread call its clock, the result going to `timespec`, and compares: (within how
/// many ns it was read, how many ns it is off).
fn call(
    stopped: &mut Stopped,
    thread: usize,
    original: &Regs,
    timespec: u64,
    (image, layout): (&[u8], &Layout),
) -> Result<(i128, i64), ClockError> {
    let base = stopped.memory.vdso().start;
    let stack = timespec - 8;
    stopped.memory.write(stack, &original.rip.to_le_bytes())?;
    let mut regs = *original;
    regs.rip = base + layout.clock_gettime() as u64;
    (regs.rdi, regs.rsi, regs.rsp) = (0, timespec, stack);
    // No system call to restart; direction and trap flag clear, as the ABI demands.
    regs.orig_rax = u64::MAX;
    regs.eflags &= !0x500;
    stopped.set_regs(thread, &regs)?;
    let mut bracket = Bracket::new();
    let mut left = false;
    stopped.walk(thread, |regs| {
        let code = regs.rip.checked_sub(base).and_then(|at| image.get(at as usize..)).unwrap_or_default();
        bracket.before_instruction(code);
        left = code.is_empty();
        left || (regs.rsp == stack && code.starts_with(&[0xc3]))
    })?;
    let end = stopped.regs(thread)?;
    if left || end.rax as u32 != 0 {
        return Err(ClockError::Unread { pid: stopped.pid });
    }
    let mut result = [0; 16];
    stopped.memory.read(timespec, &mut result)?;
    Ok(bracket.compare(nanoseconds(result)))
}

/// The real time around the instruction in which the process's clock was read, in ns.
struct Bracket {
    inside: bool,
    before: i128,
    after: i128,
}

impl Bracket {
    fn new() -> Bracket {
        // In case that the clock is read by none of the instructions known here: the whole call.
        Bracket { inside: false, before: now(), after: i128::MAX }
    }

    /// To be told of each instruction before it is executed.
    fn before_instruction(&mut self, code: &[u8]) {
        if std::mem::take(&mut self.inside) {
            self.after = now();
        }
        let (syscall, rdtsc, rdtscp) = ([0x0f, 0x05], [0x0f, 0x31], [0x0f, 0x01, 0xf9]);
        if code.starts_with(&syscall) || code.starts_with(&rdtsc) || code.starts_with(&rdtscp) {
            self.inside = true;
            self.before = now();
        }
    }

    /// How long it took, and how far the clock that was read is off.
    fn compare(&self, read: i128) -> (i128, i64) {
        let after = if self.after == i128::MAX { now() } else { self.after };
        let width = after - self.before;
        if (self.before..=after).contains(&read) {
            return (width, 0);
        }
        let offset = read - (self.before + width / 2);
        (width, offset.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }
}

/// The real time since 1970 in ns.
fn now() -> i128 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

/// A `struct timespec` in ns.
fn nanoseconds(timespec: [u8; 16]) -> i128 {
    let number = u128::from_le_bytes(timespec);
    i128::from(number as i64) * 1_000_000_000 + i128::from((number >> 64) as i64)
}
