//! Syncs: the one request that may take long, and must not keep others waiting while it does.
//!
//! ```text
//!   fsync ──▶ ticket (what it covers ends here) ──▶ wait ──▶ real fsync ──▶ log: done / failed ──▶ reply
//!             request thread                        own thread, if it waits or too many are at it
//! ```
//!
//! Not a queue: every sync that has to wait gets a thread of its own, as programs have few under way.

use super::{
    gate::{Arrival, Gate},
    inodes::Inode,
    undo::Ticket,
};
use fuser::{Errno, ReplyEmpty};
use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::AcqRel},
    },
    thread,
};

/// A sync that arrived.
pub(super) struct Sync {
    gate: Arc<Gate>,
    arrival: Arrival,
    file: Arc<File>,
    /// The file's undo log, and what of it this covers; none for a folder.
    covers: Option<(Arc<Inode>, Ticket)>,
    data_only: bool,
}

/// Carries out syncs.
#[derive(Default)]
pub(super) struct Syncs {
    at_it: Arc<AtomicUsize>,
}

impl Sync {
    /// Settles what it covers; `inode` is none for a folder.
    pub(super) fn new(
        gate: &Arc<Gate>,
        file: Arc<File>,
        inode: Option<&Arc<Inode>>,
        data_only: bool,
    ) -> Sync {
        let arrival = gate.arrive();
        let covers = inode.map(|inode| (inode.clone(), inode.sync_begin()));
        Sync { gate: gate.clone(), arrival, file, covers, data_only }
    }

    fn run(&self) -> io::Result<()> {
        let outcome = self.attempt();
        if let Some((inode, ticket)) = &self.covers {
            inode.sync_end(*ticket, outcome.is_ok());
        }
        outcome
    }

    fn attempt(&self) -> io::Result<()> {
        self.gate.hold(self.arrival)?;
        if self.data_only {
            self.file.sync_data()?
        } else {
            self.file.sync_all()?
        };
        // The power may have failed during the real one: then it is not done, whatever the real disk says.
        self.gate.same_life(self.arrival)
    }
}

impl Syncs {
    /// Carries out a sync and replies; here, if it is quick and fewer than `here` are being carried out.
    pub(super) fn carry_out(&self, sync: Sync, here: usize, reply: ReplyEmpty) {
        let before = self.at_it.fetch_add(1, AcqRel);
        let at_it = self.at_it.clone();
        let waits = sync.arrival.waits;
        let work = move || {
            let outcome = sync.run();
            at_it.fetch_sub(1, AcqRel);
            match outcome {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(Errno::from(error)),
            }
        };
        if !waits && before < here {
            work();
        } else if thread::Builder::new().name("disk-sync".into()).spawn(work).is_err() {
            // The reply was dropped with the closure, which answers EIO; the log keeps what it has.
            self.at_it.fetch_sub(1, AcqRel);
        }
    }
}
