//! A process whose threads are all stopped, and that goes on as if nothing had happened.
//!
//! ```text
//!   Stopped::seize ----> every thread: PTRACE_SEIZE, PTRACE_INTERRUPT, wait for the stop;
//!        |               again until a look at /proc/PID/task shows no new one
//!        |  read and write memory, walk a thread instruction by instruction
//!        v
//!   drop --------------> PTRACE_DETACH each, with the signal that was about to be delivered
//! ```
//!
//! A process stopped by SIGSTOP stays so: the kernel itself puts a detached thread back into the
//! stop of its process.
//!
//! Blocking system calls. A stop makes the kernel interrupt them, and then restart most of them
//! as if nothing had been (nanosleep, poll, select, futex, read, ... : with the time that is
//! left, if they have a limit). It does not for a few, which return EINTR instead: epoll_wait and
//! its kin, sigtimedwait, semop, and sockets with SO_RCVTIMEO or SO_SNDTIMEO. For those of them
//! that wait *without* a limit, `drop` asks the kernel for a restart as well (the return value
//! -EINTR becomes -ERESTARTNOHAND, which a handler that runs turns into EINTR again, as it
//! should). Those with a limit are left with EINTR: their start is not known, and starting the
//! full time anew at each change would let a clock that is moved often hold up every timer.

use super::ClockError;
use super::proc::{self, Memory};
use super::sys::{self, Errno, Regs, Seen, Stop};
use libc::siginfo_t;
use std::time::{Duration, Instant};

/// How long a thread may take to stop. One in an uninterruptible wait (a disk, vfork) can't.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most instructions that a walk may take; the kernel's clock functions take about a hundred.
const MOST_STEPS: u32 = 20_000;
/// The signals that get held back while a thread is walked: all but those which the CPU itself
/// raises (blocked, they would have their handlers reset by the kernel).
const HELD: u64 =
    !(bit(libc::SIGTRAP) | bit(libc::SIGSEGV) | bit(libc::SIGBUS) | bit(libc::SIGILL) | bit(libc::SIGFPE));

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

struct Thread {
    tid: i32,
    stop: Stop,
    /// It has been stepped: its stop (a SIGTRAP) is our doing.
    walked: bool,
    /// A signal that came in the way of the walk.
    pending: Option<siginfo_t>,
}

/// A process all of whose threads are stopped; dropping it lets them go.
pub(super) struct Stopped {
    pub pid: i32,
    pub memory: Memory,
    threads: Vec<Thread>,
}

impl Stopped {
    /// Stops every thread of the process. To be called where `sys::as_tracer` runs.
    pub(super) fn seize(pid: i32, options: usize) -> Result<Stopped, ClockError> {
        let mut threads = Vec::new();
        let result = seize_all(pid, options, &mut threads).and_then(|()| Memory::open(pid));
        match result {
            Ok(memory) => Ok(Stopped { pid, memory, threads }),
            Err(error) => {
                threads.iter().for_each(|thread| release(pid, thread));
                Err(error)
            }
        }
    }

    /// The threads, by number and why they are stopped, for someone who will look after them.
    pub(super) fn into_threads(mut self) -> Vec<(i32, Stop)> {
        std::mem::take(&mut self.threads).iter().map(|thread| (thread.tid, thread.stop)).collect()
    }

    /// How many threads there are; the other functions count them from 0.
    pub(super) fn count(&self) -> usize {
        self.threads.len()
    }

    /// Whether the thread is about to get a signal.
    pub(super) fn signalled(&self, thread: usize) -> bool {
        let Thread { stop, walked, pending, .. } = &self.threads[thread];
        pending.is_some() || (!walked && matches!(stop, Stop::Signal(_)))
    }

    pub(super) fn regs(&self, thread: usize) -> Result<Regs, ClockError> {
        sys::regs(self.threads[thread].tid).map_err(|errno| self.failed("reading registers", errno))
    }

    pub(super) fn set_regs(&self, thread: usize, regs: &Regs) -> Result<(), ClockError> {
        sys::set_regs(self.threads[thread].tid, regs).map_err(|errno| self.failed("setting registers", errno))
    }

    /// Where the thread's `struct rseq` is, if it has one.
    pub(super) fn rseq(&self, thread: usize) -> Option<u64> {
        sys::rseq(self.threads[thread].tid)
    }

    /// Runs a thread instruction by instruction until `done` says so; it is asked before each.
    pub(super) fn walk(
        &mut self,
        thread: usize,
        mut done: impl FnMut(&Regs) -> bool,
    ) -> Result<(), ClockError> {
        if done(&self.regs(thread)?) {
            return Ok(());
        }
        let tid = self.threads[thread].tid;
        if let (Stop::Signal(signal), false) = (self.threads[thread].stop, self.threads[thread].walked) {
            self.put_aside(thread, signal)?;
        }
        self.threads[thread].walked = true;
        let mask = sys::signal_mask(tid).map_err(|errno| self.failed("reading a signal mask", errno))?;
        sys::set_signal_mask(tid, HELD).map_err(|errno| self.failed("setting a signal mask", errno))?;
        let result = self.steps(thread, done);
        let back =
            sys::set_signal_mask(tid, mask).map_err(|errno| self.failed("setting a signal mask", errno));
        result.and(back)
    }

    fn steps(&mut self, thread: usize, mut done: impl FnMut(&Regs) -> bool) -> Result<(), ClockError> {
        let (pid, tid) = (self.pid, self.threads[thread].tid);
        for _ in 0..MOST_STEPS {
            sys::step(tid).map_err(|errno| self.failed("stepping", errno))?;
            let stop = wait(pid, tid, &[])?.ok_or(ClockError::Gone { pid })?;
            self.threads[thread].stop = stop;
            match stop {
                Stop::Signal(libc::SIGTRAP) => {}
                Stop::Signal(signal) => self.put_aside(thread, signal)?,
                // The interrupt that was still due, or a stop of the whole process: step on.
                _ => continue,
            }
            if done(&self.regs(thread)?) {
                return Ok(());
            }
        }
        Err(ClockError::Stuck { pid, tid })
    }

    /// A signal in the way of a walk: someone else's waits until the end; a fault ends the walk.
    fn put_aside(&mut self, thread: usize, signal: i32) -> Result<(), ClockError> {
        let (pid, tid) = (self.pid, self.threads[thread].tid);
        let info = sys::signal_info(tid).map_err(|errno| self.failed("reading a signal", errno))?;
        if self.threads[thread].walked && HELD & bit(signal) == 0 && info.si_code > 0 {
            return Err(ClockError::Fault { pid, tid, signal });
        }
        match &self.threads[thread].pending {
            None => self.threads[thread].pending = Some(info),
            Some(_) => sys::signal_thread(pid, tid, signal),
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, errno: Errno) -> ClockError {
        failed(self.pid, doing, errno)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.threads.iter().for_each(|thread| release(self.pid, thread));
    }
}

fn failed(pid: i32, doing: &'static str, errno: Errno) -> ClockError {
    if errno == libc::ESRCH { ClockError::Gone { pid } } else { ClockError::Failed { pid, doing, errno } }
}

/// Seizes and stops thread after thread until there are no others.
fn seize_all(pid: i32, options: usize, threads: &mut Vec<Thread>) -> Result<(), ClockError> {
    let mut seen = Vec::new();
    loop {
        let new: Vec<i32> = proc::threads(pid)?.into_iter().filter(|tid| !seen.contains(tid)).collect();
        if new.is_empty() {
            return if threads.is_empty() { Err(ClockError::Gone { pid }) } else { Ok(()) };
        }
        let mut seized = Vec::new();
        for tid in new {
            seen.push(tid);
            if seize_one(pid, tid, options)? {
                seized.push(tid);
            }
        }
        for tid in seized {
            if let Some(stop) = wait(pid, tid, &seen)? {
                threads.push(Thread { tid, stop, walked: false, pending: None });
            }
        }
    }
}

/// Whether the thread could be seized: not if it has just ended.
fn seize_one(pid: i32, tid: i32, options: usize) -> Result<bool, ClockError> {
    match sys::seize(tid, options).and_then(|()| sys::interrupt(tid)) {
        Ok(()) => Ok(true),
        Err(libc::ESRCH) => Ok(false),
        Err(errno) => match proc::status(tid) {
            Err(_) => Ok(false),
            Ok(status) if status.zombie => Ok(false),
            Ok(status) if status.tracer != 0 => Err(ClockError::Traced { pid, tracer: status.tracer }),
            Ok(_) => Err(ClockError::Permission { pid, errno }),
        },
    }
}

/// Waits until a thread stops; `None` if it has ended. Meanwhile collects those of `others`
/// that have ended, as a thread may be waiting for just that (in exec).
fn wait(pid: i32, tid: i32, others: &[i32]) -> Result<Option<Stop>, ClockError> {
    let start = Instant::now();
    for round in 0u32.. {
        match sys::wait(Some(tid)).map_err(|errno| failed(pid, "waiting for a thread", errno))? {
            Seen::Stopped(_, stop) => return Ok(Some(stop)),
            Seen::Gone => return Ok(None),
            Seen::Nothing if round < 100 => std::thread::yield_now(),
            Seen::Nothing if start.elapsed() > PATIENCE => break,
            Seen::Nothing => {
                if round.is_multiple_of(32) {
                    bury_dead(pid, others);
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
    Err(ClockError::Stuck { pid, tid })
}

/// Collects those of the threads that have ended (and are not the main thread, whose end belongs
/// to whoever started the process). Only those: asking for the end of a traced thread that is
/// merely stopped would consume the news of its stop.
pub(super) fn bury_dead(pid: i32, threads: &[i32]) {
    let dead = |tid: &&i32| **tid != pid && proc::status(**tid).is_ok_and(|status| status.zombie);
    threads.iter().filter(dead).for_each(|tid| sys::bury(*tid));
}

/// Lets a thread go, with the signal that it was about to get. Errors do not matter: the thread
/// has ended, or (if it has never stopped) the kernel lets it go when the tracer ends.
fn release(pid: i32, thread: &Thread) {
    let tid = thread.tid;
    let mut signal = match thread.stop {
        Stop::Signal(signal) if !thread.walked => signal,
        _ => 0,
    };
    if let Some(info) = &thread.pending {
        // With its sender and value where a signal can be delivered, else (in a stop of the whole
        // process) sent anew.
        if matches!(thread.stop, Stop::Signal(_)) && sys::set_signal_info(tid, info).is_ok() {
            signal = info.si_signo;
        } else {
            sys::signal_thread(pid, tid, info.si_signo);
        }
    }
    if signal == 0
        && let Ok(mut regs) = sys::regs(tid)
        && waits_without_limit(&regs)
    {
        regs.rax = -514i64 as u64; // -ERESTARTNOHAND
        let _ = sys::set_regs(tid, &regs);
    }
    let _ = sys::detach(tid, signal);
}

/// Whether a thread was interrupted in a call that returns EINTR though it has no time limit.
fn waits_without_limit(regs: &Regs) -> bool {
    if regs.rax as i64 != -i64::from(libc::EINTR) {
        return false;
    }
    match regs.orig_rax as i64 {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => (regs.r10 as i32) < 0,
        libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => regs.r10 == 0,
        libc::SYS_rt_sigtimedwait => regs.rdx == 0,
        libc::SYS_semop => true,
        _ => false,
    }
}
