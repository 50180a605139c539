//! The thread that writes and syncs.
//!
//! ```text
//! core ─ write(token 7) ─┐                       ┌─ report(9): 7, 8 and 9 are on disk
//! core ─ write(token 8) ─┼→ queue → one frame, one sync ─┘      (always: one sync each; none: written at once, no sync)
//! core ─ write(token 9) ─┘
//! ```
//!
//! While one sync runs the next group gathers by itself: no timer, and no delay at low load. A failed write or sync aborts
//! the process, because nobody knows then what is on the disk. Snapshots are written beside all that, each by a thread of its
//! own, and reported by the same way. Deliberately does not know what the records mean.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::snapshot::Store;
use super::{Fsync, Log};
use crate::core::{Record, Slot, Snapshot, Token};
use crate::metrics::Metrics;

/// What is on the disk by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All writes up to this one.
    Written(Token),
    /// The snapshot that ends with this slot.
    Saved(Slot),
}

/// One write to the log.
#[derive(Debug)]
pub struct LogWrite {
    /// What it is reported by.
    pub token: Token,
    records: Vec<Record>,
    /// It takes the place of everything before it.
    replaces: bool,
}

impl LogWrite {
    /// Records that come after those before them.
    pub fn append(token: Token, records: Vec<Record>) -> Self {
        LogWrite { token, records, replaces: false }
    }

    /// Records that take the place of everything before them.
    pub fn replace(token: Token, records: Vec<Record>) -> Self {
        LogWrite { token, records, replaces: true }
    }
}

#[derive(Default)]
struct Queue {
    writes: Vec<LogWrite>,
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
pub struct Writer {
    mode: Mode,
    store: Store,
    report: Arc<dyn Fn(Done) + Send + Sync>,
    saving: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts writing to `log`. `report` is told the newest token that is on disk, from the writing thread. `lazily` lets records
    /// gather for that long before they are synced; nothing but a planted bug wants that.
    pub fn start(
        log: Log,
        fsync: Fsync,
        lazily: Option<Duration>,
        metrics: Arc<Metrics>,
        report: impl Fn(Done) + Send + Sync + 'static,
    ) -> Writer {
        let (store, report) = (log.store.clone(), Arc::new(report));
        if fsync == Fsync::None && lazily.is_none() {
            return Writer { mode: Mode::Inline(Box::new(log)), store, report, saving: None };
        }
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new() });
        let (inside, tell) = (shared.clone(), report.clone());
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || run(log, (fsync, lazily), &inside, &metrics, &*tell))
            .expect("the system can start a thread at start-up");
        Writer { mode: Mode::Thread(shared, Some(thread)), store, report, saving: None }
    }

    /// Writes a snapshot in the place of the one before, and reports it; the log goes on meanwhile. One at a time.
    pub fn save(&mut self, snapshot: Arc<Snapshot>) {
        let (store, report) = (self.store.clone(), self.report.clone());
        let save = move || {
            store.save(&snapshot).unwrap_or_else(|error| fail("write a snapshot in", &store.dir, &error));
            report(Done::Saved(snapshot.slot));
        };
        let thread = std::thread::Builder::new().name("snapshot".to_owned()).spawn(save);
        let dir = &self.store.dir;
        self.saving =
            Some(thread.unwrap_or_else(|error| fail("start a thread to write a snapshot in", dir, &error)));
    }

    /// Queues writes, in the order of their tokens. True if they are on disk already (as far as the mode promises) and will not
    /// be reported.
    pub fn write(&mut self, writes: Vec<LogWrite>) -> bool {
        match &mut self.mode {
            Mode::Inline(log) => {
                for group in groups(writes, false) {
                    let replaces = group.iter().any(|write| write.replaces);
                    let records: Vec<Record> = group.into_iter().flat_map(|write| write.records).collect();
                    put(log, replaces, &records);
                }
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
    /// Writes what is queued; a graceful stop loses nothing. The directory is unlocked when nothing writes there any more.
    fn drop(&mut self) {
        if let Some(saving) = self.saving.take() {
            // One that panicked has said so.
            drop(saving.join());
        }
        if let Mode::Thread(shared, thread) = &mut self.mode {
            shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
            shared.filled.notify_one();
            if let Some(thread) = thread.take() {
                // A writer that panicked has said so; there is nothing left to write for it.
                drop(thread.join());
            }
        }
    }
}

fn run(
    mut log: Log,
    (fsync, lazily): (Fsync, Option<Duration>),
    shared: &Shared,
    metrics: &Metrics,
    report: &dyn Fn(Done),
) {
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
        for group in groups(writes, fsync == Fsync::Always) {
            let newest = group.iter().map(|write| write.token).max().unwrap_or_default();
            let replaces = group.iter().any(|write| write.replaces);
            let records: Vec<Record> = group.into_iter().flat_map(|write| write.records).collect();
            put(&mut log, replaces, &records);
            if fsync != Fsync::None && !replaces {
                let begun = Instant::now();
                let synced = log.sync();
                heed(&log, "sync", synced);
                metrics.synced(begun.elapsed(), records.len());
            }
            report(Done::Written(newest));
        }
    }
}

/// What is written and synced together. A replacement holds what the writes before it would have written, so those are left
/// out; it syncs by itself.
fn groups(mut writes: Vec<LogWrite>, each_alone: bool) -> Vec<Vec<LogWrite>> {
    let mut groups = Vec::new();
    if let Some(last) = writes.iter().rposition(|write| write.replaces) {
        let rest = writes.split_off(last + 1);
        groups.extend(writes.pop().map(|replacement| vec![replacement]));
        writes = rest;
    }
    if each_alone {
        groups.extend(writes.into_iter().map(|write| vec![write]));
    } else if !writes.is_empty() {
        groups.push(writes);
    }
    groups
}

fn put(log: &mut Log, replaces: bool, records: &[Record]) {
    let (doing, done) =
        if replaces { ("replace", log.replace(records)) } else { ("write to", log.write(records)) };
    heed(log, doing, done);
}

fn heed(log: &Log, doing: &str, done: io::Result<()>) {
    match done {
        Err(error) if log.hooks.heeds_disk_errors() => fail(doing, log.path(), &error),
        _ => {}
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
