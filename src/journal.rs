//! Where events are stamped, numbered and written down, in one order, before anyone acts on them.
//!
//! ```text
//! worker ── record ──▶ [lock: stamp, number, push] ──▶ writer thread ──▶ history.jsonl
//! ```
//! Time and number are given under one lock, so that the order of the file is the order of time. The writer flushes at
//! least every 50 ms: a run that dies leaves a history that can be judged.

use crate::clock::Clock;
use anyhow::{Context, Result};
use checkers::{Event, Header, Kind, Meta, Op, Process, Ret, jsonl};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

const FLUSH: Duration = Duration::from_millis(50);

/// The journal of one run. Cheap to share.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    pending: Mutex<Pending>,
    closing: Condvar,
    failed: AtomicBool,
    counts: Counts,
}

#[derive(Default)]
struct Pending {
    next_index: u64,
    events: Vec<Event>,
    closed: bool,
}

/// How many operations were asked, and what became of them, so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Invocations.
    pub asked: AtomicU64,
    /// Completions with `Ok`.
    pub ok: AtomicU64,
    /// Completions with `Fail`.
    pub fail: AtomicU64,
    /// Completions with `Info`.
    pub info: AtomicU64,
}

/// Ends the journal.
pub struct Writer {
    journal: Journal,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Journal {
    /// Opens the journal of a run, which writes to a new file.
    pub fn open(path: &Path, header: &Header, clock: Clock) -> Result<(Journal, Writer)> {
        let place = path.display().to_string();
        let file = File::create(path).with_context(|| format!("cannot write {place}"))?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        jsonl::write_header(&mut out, header)
            .and_then(|()| out.flush())
            .with_context(|| format!("cannot write {place}"))?;
        let shared = Shared {
            clock,
            pending: Mutex::default(),
            closing: Condvar::new(),
            failed: AtomicBool::new(false),
            counts: Counts::default(),
        };
        let journal = Journal { shared: Arc::new(shared) };
        let writer = journal.clone();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.write_all(out).with_context(|| format!("cannot write {place}")))?;
        Ok((journal.clone(), Writer { journal, thread: Some(thread) }))
    }

    /// Stamps an event and hands it to the writer. Returns the stamp.
    pub fn record(&self, process: Process, kind: Kind, op: Op, ret: Option<Ret>, meta: Meta) -> u64 {
        if let Process::Client(_) = process {
            let counts = &self.shared.counts;
            match kind {
                Kind::Invoke => &counts.asked,
                Kind::Ok => &counts.ok,
                Kind::Fail => &counts.fail,
                Kind::Info => &counts.info,
            }
            .fetch_add(1, Relaxed);
        }
        let mut pending = self.lock();
        let (index, time) = (pending.next_index, self.shared.clock.now());
        pending.next_index += 1;
        pending.events.push(Event { index, time, process, kind, op, ret, meta });
        time
    }

    /// The tallies.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Whether writing failed (a full disk, say): the run must end, for what is not written down did not happen.
    pub fn failed(&self) -> bool {
        self.shared.failed.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.shared.pending.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn write_all(&self, mut out: impl Write) -> std::io::Result<()> {
        let mut batch = Vec::new();
        loop {
            let closed = {
                let pending = self.lock();
                let waited = self.shared.closing.wait_timeout_while(pending, FLUSH, |p| !p.closed);
                let mut pending = waited.unwrap_or_else(|e| e.into_inner()).0;
                std::mem::swap(&mut batch, &mut pending.events);
                pending.closed
            };
            let written = batch.iter().try_for_each(|event| jsonl::write_event(&mut out, event));
            if let Err(e) = written.and_then(|()| out.flush()) {
                self.shared.failed.store(true, Relaxed);
                return Err(e);
            }
            batch.clear();
            if closed {
                return Ok(());
            }
        }
    }
}

impl Writer {
    /// Writes what is pending and closes the file. Events recorded later are lost.
    pub fn close(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        self.journal.lock().closed = true;
        self.journal.shared.closing.notify_all();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => anyhow::bail!("the journal's writer panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}
