//! The thread that writes and syncs.
//!
//! ```text
//! core ─ write(token 7) ─┐                       ┌─ report(9): 7, 8 and 9 are on disk
//! core ─ write(token 8) ─┼→ queue → one frame, one sync ─┘      (always: one sync each; none: written at once, no sync)
//! core ─ write(token 9) ─┘
//! ```
//!
//! While one sync runs the next group gathers by itself: no timer, and no delay at low load. A failed write or sync aborts
//! the process, because nobody knows then what is on the disk. Deliberately does not know what the records mean.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Fsync, Log};
use crate::core::{Record, Token};

#[derive(Default)]
struct Queue {
    writes: Vec<(Token, Vec<Record>)>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

enum Mode {
    /// The log itself: written by the caller.
    Inline(Box<Log>),
    Thread(Arc<Shared>, Option<JoinHandle<()>>),
}

/// Writes records in the order in which they are given, and reports what is on disk.
pub struct Writer(Mode);

impl Writer {
    /// Starts writing to `log`. `report` is told the newest token that is on disk, from the writing thread. `lazily` lets records
    /// gather for that long before they are synced; nothing but a planted bug wants that.
    pub fn start(
        log: Log,
        fsync: Fsync,
        lazily: Option<Duration>,
        report: impl Fn(Token) + Send + 'static,
    ) -> Writer {
        if fsync == Fsync::None && lazily.is_none() {
            return Writer(Mode::Inline(Box::new(log)));
        }
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new() });
        let inside = shared.clone();
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || run(log, fsync, lazily, &inside, report))
            .expect("the system can start a thread at start-up");
        Writer(Mode::Thread(shared, Some(thread)))
    }

    /// Queues records, in the order of their tokens. True if they are on disk already (as far as the mode promises) and will
    /// not be reported.
    pub fn write(&mut self, writes: Vec<(Token, Vec<Record>)>) -> bool {
        match &mut self.0 {
            Mode::Inline(log) => {
                let path = log.path().to_owned();
                let records: Vec<Record> = writes.into_iter().flat_map(|(_, records)| records).collect();
                log.write(&records).unwrap_or_else(|error| fail("write to", &path, &error));
                true
            }
            Mode::Thread(shared, _) => {
                let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.writes.extend(writes);
                drop(queue);
                shared.filled.notify_one();
                false
            }
        }
    }
}

impl Drop for Writer {
    /// Writes what is queued; a graceful stop loses nothing.
    fn drop(&mut self) {
        if let Mode::Thread(shared, thread) = &mut self.0 {
            shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
            shared.filled.notify_one();
            if let Some(thread) = thread.take() {
                // A writer that panicked has said so; there is nothing left to write for it.
                drop(thread.join());
            }
        }
    }
}

fn run(mut log: Log, fsync: Fsync, lazily: Option<Duration>, shared: &Shared, report: impl Fn(Token)) {
    loop {
        let writes = {
            let queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let mut queue = shared
                .filled
                .wait_while(queue, |queue| queue.writes.is_empty() && !queue.closed)
                .unwrap_or_else(PoisonError::into_inner);
            if queue.writes.is_empty() {
                return;
            }
            if let Some(lazily) = lazily
                && !queue.closed
            {
                drop(queue);
                std::thread::sleep(lazily);
                queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::take(&mut queue.writes)
        };
        let groups: Vec<Vec<(Token, Vec<Record>)>> = if fsync == Fsync::Always {
            writes.into_iter().map(|write| vec![write]).collect()
        } else {
            vec![writes]
        };
        for group in groups {
            let newest = group.iter().map(|(token, _)| *token).max().unwrap_or_default();
            let records: Vec<Record> = group.into_iter().flat_map(|(_, records)| records).collect();
            let path: PathBuf = log.path().to_owned();
            log.write(&records).unwrap_or_else(|error| fail("write to", &path, &error));
            if fsync != Fsync::None {
                log.sync().unwrap_or_else(|error| fail("sync", &path, &error));
            }
            report(newest);
        }
    }
}

/// Says why, and stops everything at once: a promise that may not be on disk must not be kept on anyone's behalf.
fn fail(doing: &str, path: &Path, error: &io::Error) -> ! {
    tracing::error!(
        "cannot {doing} {}: {error}; aborting, because nobody knows what is on the disk now",
        path.display()
    );
    std::process::abort();
}
