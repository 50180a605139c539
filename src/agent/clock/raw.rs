//! Who asks the kernel for the time directly? Such a program is not reached by a patched vDSO.
//!
//! All threads are traced from system call to system call for a while; those for the wall clock
//! are counted if the instruction is outside of the vDSO. That slows the process down (by some
//! 10 us per system call), so it is for a look beforehand, not for all the time.

use super::ClockError;
use super::proc;
use super::sys::{self, Errno, Seen, Stop};
use super::tracee::{Stopped, bury_dead};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Counts the raw clock calls of a process for a while. To be called where `sys::as_tracer`
/// runs, whose end lets the threads go (without another interruption of their system calls).
pub(super) fn count(pid: i32, span: Duration) -> Result<u64, ClockError> {
    let stopped = Stopped::seize(pid, sys::TRACE_SYSCALLS_AND_THREADS)?;
    let vdso = stopped.memory.vdso().clone();
    let mut threads = Vec::new();
    for (tid, stop) in stopped.into_threads() {
        threads.push(tid);
        // A thread that has ended meanwhile is none of our business: nor below.
        let _ = go_on(tid, stop);
    }
    let (start, mut calls, mut idle) = (Instant::now(), 0, 0u32);
    while start.elapsed() < span {
        match sys::wait(None).map_err(|errno| failed(pid, errno))? {
            Seen::Stopped(tid, stop) => {
                calls += u64::from(stop == Stop::Syscall && is_raw_clock_call(tid, &vdso));
                if stop == Stop::Clone {
                    threads.extend(sys::new_thread(tid));
                }
                let _ = go_on(tid, stop);
            }
            Seen::Nothing => {
                idle += 1;
                if idle.is_multiple_of(64) {
                    bury_dead(pid, &threads);
                    threads.retain(|tid| proc::status(*tid).is_ok());
                }
                std::thread::sleep(Duration::from_micros(100).min(span));
            }
            Seen::Gone if calls > 0 => break,
            Seen::Gone => return Err(ClockError::Gone { pid }),
        }
    }
    Ok(calls)
}

/// Lets a thread run to its next system call, with the signal it was stopped for.
fn go_on(tid: i32, stop: Stop) -> Result<(), Errno> {
    match stop {
        Stop::Signal(signal) => sys::run_to_syscall(tid, signal),
        Stop::Group => sys::listen(tid),
        Stop::Trap | Stop::Clone | Stop::Syscall => sys::run_to_syscall(tid, 0),
    }
}

/// Whether the thread is entering a system call for the wall clock, from its own code.
fn is_raw_clock_call(tid: i32, vdso: &Range<u64>) -> bool {
    let Ok(Some((ip, number, first))) = sys::syscall_entry(tid) else { return false };
    let wall = match number as i64 {
        // CLOCK_REALTIME and CLOCK_REALTIME_COARSE.
        libc::SYS_clock_gettime => matches!(first as i32, 0 | 5),
        libc::SYS_gettimeofday | libc::SYS_time => true,
        _ => false,
    };
    wall && !vdso.contains(&ip)
}

fn failed(pid: i32, errno: Errno) -> ClockError {
    ClockError::Failed { pid, doing: "waiting for its threads", errno }
}
