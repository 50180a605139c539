//! Skews the wall clock of one running, unmodified process; the host's clock stays right.
//!
//! ```text
//!   the process ----> libc, Go, JVM ... ----> vDSO of the process ----> kernel's clock
//!                                             |  clock_gettime |
//!                                             |  gettimeofday  | <- patched: real call, plus
//!                                             |  time          |    an offset kept in the patch
//! ```
//!
//! Programs read the clock through the vDSO, a page of code that the kernel maps into every
//! process. This module stops all threads of a process for a moment (ptrace), writes a stub into
//! the private copy of that page which this makes for the process, and lets the threads go on.
//! Nothing has to be installed in or started with the process; in a container it is reached from
//! outside. `CLOCK_REALTIME`, `CLOCK_REALTIME_COARSE`, `gettimeofday` and `time` are skewed;
//! `CLOCK_MONOTONIC` and all other clocks are not. Calls into a patched vDSO cost a system call
//! (some 100 ns instead of some 30).
//!
//! All state is in the process: anybody may change or restore the offset later on. A forked child
//! inherits the offset; a program started by exec has a fresh vDSO and the real time.
//!
//! What it deliberately is not:
//! - a way to reach programs that make raw system calls for the time ([`raw_calls`] tells) or that use the
//!   old vsyscall page;
//! - a skew of what the *kernel* does by the wall clock: file times, packet timestamps, and waits
//!   until an absolute `CLOCK_REALTIME` (pthread_cond_timedwait with the default clock,
//!   sem_timedwait, timerfd and clock_nanosleep with TIMER_ABSTIME) go by the real clock;
//! - careful about programs that *ignore* SIGTRAP: single-stepping one makes the kernel reset
//!   that to the default;
//! - a changed rate: the offset is constant until changed (change it often to drift or strobe).
//!
//! For Linux on x86-64; elsewhere each function returns [`ClockError::Platform`].
//!
//! Parts: `tree` (a program with all that it has started), `vdso` (the image and the patch, pure), `tracee` (stopping and stepping threads), `probe`
//! (the measurement), `patch` (puts these together), `raw` (finds unreachable programs), `proc`
//! and `sys` (`/proc` and system calls).

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod patch;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod probe;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod proc;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod raw;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracee;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tree;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vdso;

/// Everywhere else: nothing can be reached.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod tree {
    use super::ClockError;
    use std::time::Duration;

    pub fn set(_: i32, _: i64) -> Result<i64, ClockError> {
        Err(ClockError::Platform)
    }

    pub fn measure(_: i32, _: i64) -> Result<i64, ClockError> {
        Err(ClockError::Platform)
    }

    pub fn keep(_: i32, _: i64) -> Result<u32, ClockError> {
        Err(ClockError::Platform)
    }

    pub fn raw_calls(_: i32, _: Duration) -> Result<u64, ClockError> {
        Err(ClockError::Platform)
    }
}

/// Everywhere else: nothing can be reached.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod patch {
    use super::ClockError;
    use std::time::Duration;

    pub fn reachable(_: i32) -> Result<(), ClockError> {
        Err(ClockError::Platform)
    }

    pub fn set_offset(_: i32, _: i64) -> Result<i64, ClockError> {
        Err(ClockError::Platform)
    }

    pub fn measure(_: i32) -> Result<i64, ClockError> {
        Err(ClockError::Platform)
    }

    pub fn raw_calls(_: i32, _: Duration) -> Result<u64, ClockError> {
        Err(ClockError::Platform)
    }
}

use std::io::Error;
use std::time::Duration;

/// Why a process's clock can't be read or skewed. Unless said otherwise the process is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // each message says it
pub enum ClockError {
    #[error(
        "skewing a process's clock works on Linux on x86-64 only, and this is {} on {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )]
    Platform,
    #[error("process {pid} does not exist or has just ended: look up its number again")]
    Gone { pid: i32 },
    #[error("process {pid} is this very program, which can't trace itself: do it from another process")]
    Itself { pid: i32 },
    #[error(
        "process {pid} may not be traced ({}): run as root, or with CAP_SYS_PTRACE in the process's user namespace",
        Error::from_raw_os_error(*errno)
    )]
    Permission { pid: i32, errno: i32 },
    #[error(
        "process {pid} is traced by process {tracer} already (a debugger, strace, or another change of \
         its clock): end that one first"
    )]
    Traced { pid: i32, tracer: i32 },
    #[error(
        "process {pid} is a 32-bit program or one for another processor (ELF class {class}, machine \
         {machine}): only 64-bit x86 programs can be skewed"
    )]
    Foreign { pid: i32, class: u8, machine: u16 },
    #[error(
        "process {pid} has no vDSO (a kernel thread, or a kernel booted with vdso=0): its clock can't be skewed"
    )]
    NoVdso { pid: i32 },
    #[error("the vDSO of process {pid} can't be understood: its clock can't be skewed on this kernel")]
    Garbled { pid: i32 },
    #[error("the vDSO of process {pid} has no {symbol}: its clock can't be skewed on this kernel")]
    NoSymbol { pid: i32, symbol: &'static str },
    #[error(
        "the vDSO of process {pid} has no room for the patch at {place}: its clock can't be skewed on this kernel"
    )]
    NoRoom { pid: i32, place: &'static str },
    #[error(
        "the vDSO of process {pid} has been altered by something else, or by another version of this \
         program: restart the process"
    )]
    Altered { pid: i32 },
    #[error("an offset of {offset_ns} ns is too large: stay below 292 years")]
    Offset { offset_ns: i64 },
    #[error(
        "thread {tid} of process {pid} did not stop within 3 s (it waits for a disk, for a vfork, or is \
         frozen): try again later"
    )]
    Stuck { pid: i32, tid: i32 },
    #[error("process {pid} is in a signal handler which has interrupted its clock function: try again")]
    Busy { pid: i32 },
    /// The offset may have been set, but could not be measured.
    #[error("no thread of process {pid} can be used to read its clock (no room on any stack): try again")]
    NoThread { pid: i32 },
    /// The offset may have been set, but could not be measured.
    #[error("thread {tid} of process {pid} got signal {signal} when it was to read its clock: try again")]
    Fault { pid: i32, tid: i32, signal: i32 },
    /// The offset may have been set, but could not be measured.
    #[error(
        "the clock function of process {pid} returned an error: does a seccomp filter forbid clock_gettime?"
    )]
    Unread { pid: i32 },
    #[error("{doing} of process {pid} failed: {}", Error::from_raw_os_error(*errno))]
    Failed { pid: i32, doing: &'static str, errno: i32 },
    #[error("the helper that traces could not be started or has crashed: {}", Error::from_raw_os_error(*errno))]
    Helper { errno: i32 },
}

/// Whether the clock of process `pid` can be skewed, as far as can be told without stopping it:
/// whether it is there, may be traced, and has a vDSO that can be patched. Whether it *uses* the
/// vDSO is another question, which [`raw_calls`] answers.
///
/// # Errors
/// The reason why not: [`ClockError::Gone`], [`ClockError::Permission`], [`ClockError::Traced`],
/// [`ClockError::Itself`], [`ClockError::Foreign`], [`ClockError::NoVdso`],
/// [`ClockError::NoSymbol`], [`ClockError::NoRoom`], [`ClockError::Altered`].
pub fn reachable(pid: i32) -> Result<(), ClockError> {
    patch::reachable(pid)
}

/// Sets the offset of the process's wall clock against the real one, in nanoseconds, instead of
/// whatever it was before; 0 restores the original vDSO. Returns by how many nanoseconds the
/// process's clock was then measured to be off (see [`measure`]).
///
/// All threads stand still meanwhile, for a millisecond or so (more with hundreds of threads).
/// Blocking system calls go on afterwards, except that `epoll_wait` and the few others which the
/// kernel never restarts return EINTR if they have a time limit.
///
/// # Errors
/// Those of [`reachable`]; [`ClockError::Offset`] beyond 292 years; [`ClockError::Stuck`] if a
/// thread can't be stopped; [`ClockError::Busy`]; [`ClockError::Failed`].
pub fn set_offset(pid: i32, offset_ns: i64) -> Result<i64, ClockError> {
    patch::set_offset(pid, offset_ns)
}

/// By how many nanoseconds the process's wall clock is ahead of the real one (negative: behind),
/// as the process itself reads it: one of its threads is made to call its own clock function. Good
/// to some 10 us; 0 means that it can't be told from the real clock. Stops the process just as
/// [`set_offset`] does, but changes nothing.
///
/// # Errors
/// Those of [`set_offset`]; [`ClockError::NoThread`], [`ClockError::Fault`] and
/// [`ClockError::Unread`] if the clock could not be read.
pub fn measure(pid: i32) -> Result<i64, ClockError> {
    patch::measure(pid)
}

/// [`set_offset`] for a process, its living descendants and the members of its process group: whichever of them is the
/// server. Returns the measured offset that is farthest from the wanted one. Descendants that end meanwhile do not count.
///
/// # Errors
/// Those of [`set_offset`], the first of any of them; the others may have been set.
pub fn set_tree(pid: i32, offset_ns: i64) -> Result<i64, ClockError> {
    tree::set(pid, offset_ns)
}

/// [`measure`] for the same processes: the offset that is farthest from the wanted one.
///
/// # Errors
/// Those of [`measure`].
pub fn measure_tree(pid: i32, wanted_ns: i64) -> Result<i64, ClockError> {
    tree::measure(pid, wanted_ns)
}

/// Sets the offset of those of them that have another one, because they were started or have executed a program since. The
/// others are not stopped. Returns how many that were.
///
/// # Errors
/// Those of [`set_offset`].
pub fn keep_tree(pid: i32, offset_ns: i64) -> Result<u32, ClockError> {
    tree::keep(pid, offset_ns)
}

/// [`raw_calls`] of all of them together, each watched for `span` in turn.
///
/// # Errors
/// Those of [`raw_calls`].
pub fn raw_calls_of_tree(pid: i32, span: Duration) -> Result<u64, ClockError> {
    tree::raw_calls(pid, span)
}

/// Watches for `span` which threads ask the kernel for the wall clock by raw system calls
/// (`clock_gettime` for `CLOCK_REALTIME` or its coarse sibling, `gettimeofday`, `time`) from
/// outside the vDSO, and returns how many such calls were seen. If there are any, [`set_offset`]
/// does not reach (all of) the program. Slows the process down by some 10 us per system call.
///
/// # Errors
/// Those of [`set_offset`].
pub fn raw_calls(pid: i32, span: Duration) -> Result<u64, ClockError> {
    patch::raw_calls(pid, span)
}
