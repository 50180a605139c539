//! Where events are stamped, numbered and written down, in one order, before anyone acts on them.
//!
//! ```text
//! worker ── record ──▶ [lock: stamp, number, push] ──▶ writer thread ──▶ history.jsonl
//! ```
//! Time and number are given under one lock, so that the order of the file is the order of time. The writer flushes at
//! least every 50 ms: a run that dies leaves a history that can be judged.

use crate::clock::Clock;
use anyhow::{Context, Result, bail};
use checkers::{Event, Header, Kind, Meta, Op, Process, Ret, jsonl};
use std::{
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
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

/// Is shown every event.
pub type Watch = Box<dyn FnMut(&Event) + Send>;

/// Ends the journal.
pub struct Writer {
    journal: Journal,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Journal {
    /// Opens the journal of a run, which writes to a new file. Whoever watches is shown every event once it is written.
    pub fn open(
        path: &Path,
        header: &Header,
        clock: Clock,
        watch: Option<Watch>,
    ) -> Result<(Journal, Writer)> {
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
            .spawn(move || writer.write_all(out, watch).with_context(|| format!("cannot write {place}")))?;
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

    fn write_all(&self, mut out: impl Write, mut watch: Option<Watch>) -> std::io::Result<()> {
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
            if let Some(watch) = &mut watch {
                batch.iter().for_each(&mut *watch);
            }
            batch.clear();
            if closed {
                return Ok(());
            }
        }
    }
}

/// The events of a run whose time is told by others: numbered as they come, and kept.
#[derive(Debug, Default)]
pub struct Ledger(Vec<Event>);

impl Ledger {
    /// Writes down an event that happened at `time`, which must not be before the last one's.
    pub fn record(&mut self, time: u64, process: Process, kind: Kind, op: Op, ret: Option<Ret>, meta: Meta) {
        self.0.push(Event { index: self.0.len() as u64, time, process, kind, op, ret, meta });
    }

    /// So far.
    pub fn events(&self) -> &[Event] {
        &self.0
    }

    /// All of them.
    pub fn close(self) -> Vec<Event> {
        self.0
    }
}

/// Adds to the end of a history that is closed what was observed when the run was over, at the time of its last event.
///
/// # Errors
/// If the file cannot be read or written, or its end is torn: then nothing is added.
pub fn append_observed(path: &Path, observed: Vec<Op>) -> Result<()> {
    let place = || format!("cannot add to {}", path.display());
    let mut file = File::options().read(true).write(true).open(path).with_context(place)?;
    let (next_index, time) = last_event(&mut file).with_context(place)?;
    let mut out = BufWriter::new(file);
    for (op, index) in observed.into_iter().zip(next_index..) {
        let (process, kind) = (Process::Observer, Kind::Info);
        let event = Event { index, time, process, kind, op, ret: None, meta: Meta::default() };
        jsonl::write_event(&mut out, &event).with_context(place)?;
    }
    out.flush().with_context(place)
}

/// The index behind the last event, and its time. Leaves the file at its end.
fn last_event(file: &mut File) -> Result<(u64, u64)> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut tail = Vec::new();
    // Until a whole line is in it.
    for reach in [1 << 16, 1 << 22, u64::MAX] {
        let start = length.saturating_sub(reach);
        file.seek(SeekFrom::Start(start))?;
        tail.clear();
        file.read_to_end(&mut tail)?;
        if start == 0 || tail.iter().rev().skip(1).any(|byte| *byte == b'\n') {
            break;
        }
    }
    let Some(whole) = tail.strip_suffix(b"\n") else { bail!("its end is torn") };
    let line = whole.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let last: serde_json::Value = serde_json::from_slice(line)?;
    // The header has no index.
    let next = last["index"].as_u64().map_or(0, |index| index + 1);
    Ok((next, last["time"].as_u64().unwrap_or(0)))
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
            Some(Err(_)) => bail!("the journal's writer panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}
