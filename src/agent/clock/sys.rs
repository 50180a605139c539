//! The system calls that are needed: ptrace, waitid, and a place to trace from.
//!
//! Thin wrappers, one call each; errors are errnos. What they are used for is in `tracee`.
//! This is no general ptrace library: x86-64 only, and `PTRACE_SEIZE` only.

use super::ClockError;
use libc::{c_int, c_long, siginfo_t, user_regs_struct};
use std::io::Error;

const SEIZE: c_long = 0x4206;
const INTERRUPT: c_long = 0x4207;
const LISTEN: c_long = 0x4208;
const CONT_TO_SYSCALL: c_long = 24;
const SINGLESTEP: c_long = 9;
const GETREGS: c_long = 12;
const SETREGS: c_long = 13;
const DETACH: c_long = 17;
const GETSIGINFO: c_long = 0x4202;
const SETSIGINFO: c_long = 0x4203;
const GETEVENTMSG: c_long = 0x4201;
const GETSIGMASK: c_long = 0x420a;
const SETSIGMASK: c_long = 0x420b;
const GET_SYSCALL_INFO: c_long = 0x420e;
const GET_RSEQ_CONFIGURATION: c_long = 0x420f;

/// Options for [`seize`]: mark stops at system calls, and trace new threads as well.
pub(super) const TRACE_SYSCALLS_AND_THREADS: usize = 0x01 | 0x08;

/// An errno.
pub(super) type Errno = i32;
pub(super) type Regs = user_regs_struct;

/// Why a thread is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// By `interrupt`, or newly attached.
    Trap,
    /// Its whole process is stopped (SIGSTOP and the like).
    Group,
    /// It has just made a thread.
    Clone,
    /// At the entry to or exit from a system call.
    Syscall,
    /// A signal is about to be delivered, unless it is resumed without.
    Signal(i32),
}

/// What `wait` saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Stopped(i32, Stop),
    Nothing,
    Gone,
}

fn errno() -> Errno {
    Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The raw call. `data` is a number or an address, as the request demands.
#[allow(unsafe_code)]
fn ptrace(request: c_long, tid: i32, addr: usize, data: usize) -> Result<c_long, Errno> {
    // SAFETY: the callers in this file pass as `data` either a number or a pointer to a live
    // buffer of the size which the request fills or reads; PEEK requests are not used.
    let done = unsafe { libc::syscall(libc::SYS_ptrace, request, c_long::from(tid), addr, data) };
    if done == -1 { Err(errno()) } else { Ok(done) }
}

pub(super) fn seize(tid: i32, options: usize) -> Result<(), Errno> {
    ptrace(SEIZE, tid, 0, options).map(drop)
}

pub(super) fn interrupt(tid: i32) -> Result<(), Errno> {
    ptrace(INTERRUPT, tid, 0, 0).map(drop)
}

/// Lets a stopped thread of a stopped process be, until SIGCONT.
pub(super) fn listen(tid: i32) -> Result<(), Errno> {
    ptrace(LISTEN, tid, 0, 0).map(drop)
}

pub(super) fn step(tid: i32) -> Result<(), Errno> {
    ptrace(SINGLESTEP, tid, 0, 0).map(drop)
}

pub(super) fn run_to_syscall(tid: i32, signal: i32) -> Result<(), Errno> {
    ptrace(CONT_TO_SYSCALL, tid, 0, signal as usize).map(drop)
}

pub(super) fn detach(tid: i32, signal: i32) -> Result<(), Errno> {
    ptrace(DETACH, tid, 0, signal as usize).map(drop)
}

#[allow(unsafe_code)]
pub(super) fn regs(tid: i32) -> Result<Regs, Errno> {
    // SAFETY: plain numbers, for which all zeros are valid.
    let mut regs: Regs = unsafe { std::mem::zeroed() };
    ptrace(GETREGS, tid, 0, &raw mut regs as usize).map(|_| regs)
}

pub(super) fn set_regs(tid: i32, regs: &Regs) -> Result<(), Errno> {
    ptrace(SETREGS, tid, 0, std::ptr::from_ref(regs) as usize).map(drop)
}

/// The signals that the thread blocks, bit n-1 for signal n.
pub(super) fn signal_mask(tid: i32) -> Result<u64, Errno> {
    let mut mask = 0u64;
    ptrace(GETSIGMASK, tid, 8, &raw mut mask as usize).map(|_| mask)
}

pub(super) fn set_signal_mask(tid: i32, mask: u64) -> Result<(), Errno> {
    ptrace(SETSIGMASK, tid, 8, &raw const mask as usize).map(drop)
}

#[allow(unsafe_code)]
pub(super) fn signal_info(tid: i32) -> Result<siginfo_t, Errno> {
    // SAFETY: plain numbers, for which all zeros are valid.
    let mut info: siginfo_t = unsafe { std::mem::zeroed() };
    ptrace(GETSIGINFO, tid, 0, &raw mut info as usize).map(|_| info)
}

pub(super) fn set_signal_info(tid: i32, info: &siginfo_t) -> Result<(), Errno> {
    ptrace(SETSIGINFO, tid, 0, std::ptr::from_ref(info) as usize).map(drop)
}

/// The new thread's number, at a [`Stop::Clone`].
pub(super) fn new_thread(tid: i32) -> Result<i32, Errno> {
    let mut message = 0u64;
    ptrace(GETEVENTMSG, tid, 0, &raw mut message as usize).map(|_| message as i32)
}

/// At the entry to a system call: (address behind the instruction, number, first argument).
/// `None` at any other stop.
pub(super) fn syscall_entry(tid: i32) -> Result<Option<(u64, u64, u64)>, Errno> {
    // struct ptrace_syscall_info: op (1 = entry), arch; ip; sp; nr; args[6].
    let mut info = [0u64; 11];
    ptrace(GET_SYSCALL_INFO, tid, size_of_val(&info), info.as_mut_ptr() as usize)?;
    Ok((info[0] & 0xff == 1).then_some((info[1], info[3], info[4])))
}

/// Where the thread's `struct rseq` is, if it has registered one.
pub(super) fn rseq(tid: i32) -> Option<u64> {
    let mut configuration = [0u64; 3];
    let at = configuration.as_mut_ptr() as usize;
    ptrace(GET_RSEQ_CONFIGURATION, tid, size_of_val(&configuration), at).ok()?;
    Some(configuration[0]).filter(|at| *at != 0)
}

/// Sends a signal to one thread.
#[allow(unsafe_code)]
pub(super) fn signal_thread(pid: i32, tid: i32, signal: i32) {
    // SAFETY: numbers only; a thread that has gone is an error that does not matter.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
}

/// Looks, without blocking, whether `tid` (or any traced thread, for `None`) has stopped. Never
/// collects an exit: if the process is our child, that belongs to whoever started it.
#[allow(unsafe_code)]
pub(super) fn wait(tid: Option<i32>) -> Result<Seen, Errno> {
    let (kind, id) = tid.map_or((libc::P_ALL, 0), |tid| (libc::P_PID, tid as libc::id_t));
    let flags = libc::WSTOPPED | libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: plain numbers, for which all zeros are valid.
    let mut info: siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a live siginfo_t.
    if unsafe { libc::waitid(kind, id, &raw mut info, flags) } == -1 {
        return match errno() {
            libc::ECHILD => Ok(Seen::Gone),
            libc::EINTR => Ok(Seen::Nothing),
            other => Err(other),
        };
    }
    // SAFETY: waitid succeeded: these fields are set, or still zero if nothing was there.
    let (tid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(if tid == 0 { Seen::Nothing } else { Seen::Stopped(tid, stop(status)) })
}

fn stop(status: c_int) -> Stop {
    match (status >> 8, status & 0xff) {
        (128, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => Stop::Group,
        (3, _) => Stop::Clone,
        (0, 0x85) => Stop::Syscall,
        (0, signal) => Stop::Signal(signal),
        _ => Stop::Trap,
    }
}

/// Collects a thread that is known to be dead (never a process: pass no thread-group leader). A
/// traced dead thread would hold up an `exec` of its process.
#[allow(unsafe_code)]
pub(super) fn bury(tid: i32) {
    let flags = libc::WEXITED | libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: plain numbers, for which all zeros are valid; the pointer is live.
    unsafe {
        let mut info: siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, tid as libc::id_t, &raw mut info, flags);
    }
}

/// Runs `work` where it may trace: in a thread of its own, at whose end the kernel lets go of
/// whatever is still traced. `child` says that the process is a child of ours: then it must be
/// another *process*, as otherwise someone here who waits for the child would be handed the
/// stops of the tracing as if the child had ended.
pub(super) fn as_tracer<T: Copy + Send>(
    child: bool,
    work: impl FnOnce() -> Result<T, ClockError> + Send,
) -> Result<T, ClockError> {
    if child {
        return in_process(work);
    }
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("clock-tracer".into());
        match builder.spawn_scoped(scope, work) {
            Ok(thread) => thread.join().unwrap_or(Err(ClockError::Helper { errno: 0 })),
            Err(error) => Err(ClockError::Helper { errno: error.raw_os_error().unwrap_or(0) }),
        }
    })
}

/// Runs `work` in a forked process and brings its result back through a pipe. The result is
/// `Copy`: it holds no memory of its own, and addresses of constants are the same in both.
#[allow(unsafe_code)]
fn in_process<T: Copy>(work: impl FnOnce() -> Result<T, ClockError>) -> Result<T, ClockError> {
    let mut pipe = [0; 2];
    // SAFETY: `pipe` has room for the two descriptors.
    if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) } == -1 {
        return Err(ClockError::Helper { errno: errno() });
    }
    // SAFETY: the child calls only `work` and then `_exit`. Its memory is a copy in which other
    // threads' locks may be held; `work` uses none but the allocator's, which both glibc and
    // musl (since 1.2.2) bring into order in fork.
    let helper = unsafe { libc::fork() };
    if helper == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let result = result.unwrap_or(Err(ClockError::Helper { errno: 0 }));
        // SAFETY: a live value and its size; _exit ends this process without running anything else.
        unsafe {
            libc::write(pipe[1], (&raw const result).cast(), size_of_val(&result));
            libc::_exit(0);
        }
    }
    let error = errno();
    // SAFETY: closes our copy of the writing end, which nobody else knows of.
    unsafe { libc::close(pipe[1]) };
    let result =
        if helper == -1 { Err(ClockError::Helper { errno: error }) } else { collect(pipe[0], helper) };
    // SAFETY: as above, the reading end.
    unsafe { libc::close(pipe[0]) };
    result
}

/// Reads the helper's result and waits for its end.
#[allow(unsafe_code)]
fn collect<T: Copy>(pipe: c_int, helper: i32) -> Result<T, ClockError> {
    let mut result = std::mem::MaybeUninit::<Result<T, ClockError>>::uninit();
    let size = size_of_val(&result);
    let read = loop {
        // SAFETY: the buffer is live and `size` bytes long. One write below PIPE_BUF comes whole.
        let read = unsafe { libc::read(pipe, result.as_mut_ptr().cast(), size) };
        if read != -1 || errno() != libc::EINTR {
            break read;
        }
    };
    // SAFETY: our own child; ECHILD (someone waits for all children) does not matter.
    while unsafe { libc::waitpid(helper, std::ptr::null_mut(), 0) } == -1 && errno() == libc::EINTR {}
    if read == size as isize {
        // SAFETY: the bytes of a value of this type, from a copy of this very process.
        unsafe { result.assume_init() }
    } else {
        Err(ClockError::Helper { errno: 0 })
    }
}
