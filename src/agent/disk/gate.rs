//! What every request passes: the troubles in force, and the counters.
//!
//! ```text
//!   write ──▶ may_write(4096) ──▶ 4096   go on
//!                             ──▶ 1000   the disk has room for so much (a short write)
//!                             ──▶ EIO / ENOSPC
//!   fsync ──▶ arrive ──▶ hold (until the delay is over, shortened, or the power fails) ──▶ the real fsync
//! ```
//!
//! It decides and counts; it touches no file.

use super::{DiskStats, Troubles};
use rustix::io::Errno;
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Locks even if a thread died holding it: what we guard is valid between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct State {
    troubles: Troubles,
    /// Bytes left until the disk is full.
    room: Option<u64>,
    /// How often the power failed.
    failures: u64,
}

#[derive(Default)]
struct Counters {
    writes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    delayed_syncs: AtomicU64,
    delayed_ns: AtomicU64,
    errors: AtomicU64,
    refused_full: AtomicU64,
}

/// A sync that arrived: under which troubles, in which life of the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    fails: bool,
    /// It will be kept waiting, so it must not keep a request thread.
    pub waits: bool,
    life: u64,
    at: Instant,
}

/// The troubles in force and the counters of one disk.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    counters: Counters,
    /// Bytes in undo logs; every inode keeps its part of it.
    pub unsynced: Arc<AtomicU64>,
}

impl Gate {
    /// Puts troubles in force; gives those that were.
    pub(super) fn set(&self, troubles: Troubles) -> Troubles {
        let mut state = lock(&self.state);
        state.room = troubles.full_after_bytes;
        let before = std::mem::replace(&mut state.troubles, troubles);
        // Syncs already waiting go by the new delay, so that lifting the trouble frees them.
        self.changed.notify_all();
        before
    }

    /// The power fails: syncs that wait will wait no longer, and fail.
    pub(super) fn power_fails(&self) {
        lock(&self.state).failures += 1;
        self.changed.notify_all();
    }

    /// May something be read?
    pub(super) fn may_read(&self) -> io::Result<()> {
        let fails = lock(&self.state).troubles.fail_reads;
        self.unless(fails)
    }

    /// How much of a write of `count` bytes is let through. A full disk takes what still has room, as a
    /// real one does, and refuses the next write.
    pub(super) fn may_write(&self, count: u64) -> io::Result<u64> {
        let mut state = lock(&self.state);
        self.unless(state.troubles.fail_writes)?;
        let Some(room) = &mut state.room else { return Ok(count) };
        let taken = count.min(*room);
        if taken == 0 && count > 0 {
            return Err(self.full());
        }
        *room -= taken;
        Ok(taken)
    }

    /// May a file grow by so much (zero: cut or changed in place)? All or nothing.
    pub(super) fn may_grow(&self, by: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        self.unless(state.troubles.fail_writes)?;
        match &mut state.room {
            Some(room) if *room < by || (*room == 0 && by > 0) => Err(self.full()),
            Some(room) => {
                *room -= by;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Room left, if the disk is going to be full.
    pub(super) fn room(&self) -> Option<u64> {
        lock(&self.state).room
    }

    /// A write went through.
    pub(super) fn wrote(&self, bytes: u64) {
        self.counters.writes.fetch_add(1, Relaxed);
        self.counters.written_bytes.fetch_add(bytes, Relaxed);
    }

    /// A sync arrives. Whether it fails is settled here, how long it waits by what is in force then.
    pub(super) fn arrive(&self) -> Arrival {
        self.counters.syncs.fetch_add(1, Relaxed);
        let state = lock(&self.state);
        Arrival {
            fails: state.troubles.fail_syncs,
            waits: state.troubles.sync_delay_ms > 0,
            life: state.failures,
            at: Instant::now(),
        }
    }

    /// Keeps the sync for as long as the troubles want; EIO if it is to fail, or the power failed meanwhile.
    pub(super) fn hold(&self, sync: Arrival) -> io::Result<()> {
        let mut state = lock(&self.state);
        while state.failures == sync.life {
            let delay = Duration::from_millis(state.troubles.sync_delay_ms);
            let Some(left) = delay.checked_sub(sync.at.elapsed()).filter(|left| !left.is_zero()) else {
                break;
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        if sync.waits {
            self.counters.delayed_syncs.fetch_add(1, Relaxed);
            let waited = sync.at.elapsed().as_nanos().try_into().unwrap_or(u64::MAX);
            self.counters.delayed_ns.fetch_add(waited, Relaxed);
        }
        self.unless(sync.fails)?;
        self.same_life(sync)
    }

    /// EIO if the power failed since the sync arrived: it must not be reported as done.
    pub(super) fn same_life(&self, sync: Arrival) -> io::Result<()> {
        let dead = lock(&self.state).failures != sync.life;
        if dead { Err(Errno::IO.into()) } else { Ok(()) }
    }

    /// The counters.
    pub(super) fn stats(&self) -> DiskStats {
        let Counters { writes, written_bytes, syncs, delayed_syncs, delayed_ns, errors, refused_full } =
            &self.counters;
        DiskStats {
            writes: writes.load(Relaxed),
            written_bytes: written_bytes.load(Relaxed),
            syncs: syncs.load(Relaxed),
            delayed_syncs: delayed_syncs.load(Relaxed),
            delayed_ns: delayed_ns.load(Relaxed),
            errors: errors.load(Relaxed),
            refused_full: refused_full.load(Relaxed),
            unsynced_bytes: self.unsynced.load(Relaxed),
        }
    }

    fn unless(&self, fails: bool) -> io::Result<()> {
        if !fails {
            return Ok(());
        }
        self.counters.errors.fetch_add(1, Relaxed);
        Err(Errno::IO.into())
    }

    fn full(&self) -> io::Error {
        self.counters.refused_full.fetch_add(1, Relaxed);
        Errno::NOSPC.into()
    }
}
