//! Starts child processes so that they cannot outlive the run.
//!
//! Each child is in a process group of its own, so that a kill reaches its children too. It dies with us: on Linux by
//! `PR_SET_PDEATHSIG`, which the kernel sends when the *thread* that spawned the child ends, and so all spawning is done
//! by one thread that lives as long as the process; elsewhere by its standard input, a pipe that ends when we do and
//! that the bundled node watches.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{LazyLock, Mutex, mpsc},
};
use tokio::sync::oneshot;

type Job = (Command, oneshot::Sender<io::Result<Child>>);

static SPAWNER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    let spawned = std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
        for (mut command, reply) in queue {
            let _ = reply.send(bind_to_us(&mut command).spawn());
        }
    });
    spawned.expect("the spawner thread starts");
    Mutex::new(jobs)
});

/// Starts a command in its own process group, bound to our life.
pub async fn spawn(command: Command) -> io::Result<Child> {
    let (reply, child) = oneshot::channel();
    let gone = || io::Error::other("the spawner thread is gone");
    SPAWNER.lock().unwrap_or_else(|e| e.into_inner()).send((command, reply)).map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn bind_to_us(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    command.process_group(0);
    // SAFETY: the closure runs in the child between fork and exec. It makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // If we died between the fork and the call above, nobody will send the signal any more.
            match rustix::process::getppid() {
                Some(p) if p == parent => Ok(()),
                _ => Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error())),
            }
        })
    }
}

#[cfg(not(target_os = "linux"))]
fn bind_to_us(command: &mut Command) -> &mut Command {
    command.process_group(0)
}
