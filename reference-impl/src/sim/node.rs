//! One simulated node: its core while it runs, its disk for ever, and what a crash takes.
//!
//! ```text
//! Persist ─→ unsynced ─ sync ─→ written ─ start ─→ durable        a crash: unsynced is lost, but for the first few that
//!               │ │ └─ "after" ─→ sends held until then           had reached the disk already; a torn one counts as lost
//! Snapshot ─→ saving ─ saved ─→ durable                           a crash: the old one or the new
//! ```
//!
//! Deliberately records, not bytes: what a torn frame looks like, and that it is cut off, is the log's business (`wal`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::clock::Clock;
use super::happening::Event;
use crate::bugs::Hooks;
use crate::core::{Config, Core, Durable, Message, Mono, NodeId, Record, Slot, Snapshot, Token};

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process is killed: what it had not written is lost; what the operating system has, it keeps.
    Process,
    /// The power fails: everything that was not synced is lost.
    Power,
    /// The power fails while the disk writes: some of what was not synced is there nevertheless.
    Torn,
}

/// What a crash took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Records that were not synced and are gone.
    pub records: u64,
    /// Records that were not synced and are there.
    pub survived: u64,
}

/// A crash between two effects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fuse {
    /// Effects that are still carried out.
    pub(super) effects: u32,
    pub(super) loss: Loss,
    /// They count from the next write on.
    pub(super) in_write: bool,
    /// That write has begun: the crash comes before its sync ends.
    pub(super) writing: bool,
}

pub(super) struct Node {
    pub(super) core: Option<Core>,
    /// Number of the incarnation.
    pub(super) life: u32,
    /// It has lost its disk, and is started to be added, or to find out that it was.
    pub(super) rejoins: bool,
    durable: Durable,
    /// Synced, and not folded into `durable` yet.
    written: Vec<Record>,
    /// Written and never synced: only a planted bug has such.
    unsafe_promises: Vec<Record>,
    /// The log as it was before the last one took its place: only a planted bug leaves the new name unsynced.
    unnamed: Option<(Durable, Vec<Record>)>,
    /// The first of the records in `written` that is unreadable.
    damaged: Option<usize>,
    pub(super) unsynced: VecDeque<(Token, Vec<Record>)>,
    /// A snapshot on its way to the disk.
    pub(super) saving: Option<Arc<Snapshot>>,
    held: VecDeque<(Token, NodeId, Message)>,
    pub(super) last_sync: u64,
    /// Shortest and longest time that a sync takes, in nanoseconds.
    pub(super) sync: (u64, u64),
    /// Writes fail.
    pub(super) failing: bool,
    /// The tick that is in the queue: by the world's time and by the node's clock.
    pub(super) wake_at: u64,
    pub(super) wake_due: Mono,
    pub(super) paused: bool,
    /// What happens when it goes on.
    pub(super) waiting: Vec<Event>,
    pub(super) clock: Clock,
    /// It crashes soon.
    pub(super) fuse: Option<Fuse>,
}

impl Node {
    pub(super) fn new(clock: Clock, sync: (u64, u64)) -> Self {
        Node {
            core: None,
            life: 0,
            rejoins: false,
            durable: Durable::default(),
            written: Vec::new(),
            unsafe_promises: Vec::new(),
            unnamed: None,
            damaged: None,
            unsynced: VecDeque::new(),
            saving: None,
            held: VecDeque::new(),
            last_sync: 0,
            sync,
            failing: false,
            wake_at: u64::MAX,
            wake_due: Mono::NEVER,
            paused: false,
            waiting: Vec::new(),
            clock,
            fuse: None,
        }
    }

    /// Whether its disk is readable. One that is not is refused, as it should be; what lies behind the damage is lost on a node that
    /// does not refuse.
    pub(super) fn reads_disk(&mut self, hooks: Hooks) -> bool {
        if let Some(at) = self.damaged.take_if(|_| !hooks.tells_damage_from_end()) {
            self.written.truncate(at);
        }
        self.damaged.is_none()
    }

    /// What a log is missing that begins behind the end of the snapshot: the last slot of the snapshot, and where the log begins.
    pub(super) fn gap(&mut self) -> Option<(Slot, Slot)> {
        self.fold();
        let reaches = self.durable.snapshot.as_ref().map_or(0, |snapshot| snapshot.slot);
        (self.durable.truncated > reaches).then_some((reaches, self.durable.truncated))
    }

    fn fold(&mut self) {
        for record in self.written.drain(..) {
            self.durable.apply(record);
        }
    }

    /// Starts it with what its disk remembers.
    pub(super) fn start(&mut self, mut config: Config, now: u64) {
        self.fold();
        self.life += 1;
        // The upper bits are those that the first incarnation of a disk is drawn from.
        config.nonce = u64::from(self.life) << 40 | u64::from(self.life);
        let started = self.durable.start(&config);
        self.core = Some(Core::new(config, self.durable.clone(), self.clock.read(now)));
        started.into_iter().for_each(|record| self.durable.apply(record));
        (self.last_sync, self.wake_at, self.wake_due) = (0, u64::MAX, Mono::NEVER);
    }

    /// Ends it. The first `survivors` writes that were not synced had reached the disk, and a snapshot on its way had if `saved`.
    pub(super) fn crash(&mut self, loss: Loss, survivors: usize, saved: bool, hooks: Hooks) -> Lost {
        self.core = None;
        if saved {
            self.saved();
        }
        self.saving = None;
        self.held.clear();
        self.waiting.clear();
        (self.paused, self.fuse) = (false, None);
        let mut lost = Lost::default();
        for (index, (_, records)) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            if index < survivors {
                lost.survived += records.len() as u64;
                self.write(records, hooks);
            } else {
                lost.records += records.len() as u64;
            }
        }
        let promises = std::mem::take(&mut self.unsafe_promises);
        if loss == Loss::Process {
            self.written.extend(promises);
        } else {
            lost.records += promises.len() as u64;
            if let Some((durable, written)) = self.unnamed.take() {
                lost.records += self.written.len() as u64;
                // The snapshot is another file.
                let snapshot = self.durable.snapshot.take();
                (self.durable, self.written) = (Durable { snapshot, ..durable }, written);
            }
        }
        lost
    }

    /// It has lost its disk. Only for one that does not run.
    pub(super) fn wipe(&mut self, rejoins: bool) {
        self.rejoins |= rejoins;
        self.durable = Durable::default();
        self.written.clear();
        (self.unnamed, self.damaged) = (None, None);
    }

    /// Makes one of the records unreadable that it has written since it was last started. Only for one that does not run. Not one of the
    /// last: those it may be right to forget. `choose` draws between 0 and a number. Returns how many records cannot be read any more, 0
    /// if there was nothing to damage.
    pub(super) fn damage(&mut self, choose: impl FnOnce(u64) -> u64) -> u64 {
        // The name of a log and the first of its records are one.
        let first = usize::from(matches!(self.written.first(), Some(Record::Truncated { .. })));
        let last = self.written.len() * 3 / 4;
        if last <= first {
            return 0;
        }
        let at = first + choose((last - first - 1) as u64) as usize;
        self.damaged = Some(at);
        (self.written.len() - at) as u64
    }

    /// Makes it readable again, if the node has not gone on without it.
    pub(super) fn repair(&mut self) {
        self.damaged = None;
    }

    fn write(&mut self, records: Vec<Record>, hooks: Hooks) {
        if let Some(Record::Truncated { .. }) = records.first() {
            // They take the place of everything before them.
            let before = std::mem::take(&mut self.written);
            if !hooks.syncs_names() {
                self.unnamed = Some((self.durable.clone(), before));
            }
            self.unsafe_promises.clear();
        }
        if hooks.syncs_promises() {
            self.written.extend(records);
            return;
        }
        for record in records {
            let promise = matches!(record, Record::Promised { .. });
            if promise { &mut self.unsafe_promises } else { &mut self.written }.push(record);
        }
    }

    /// What is on the disk once everything up to `token` is.
    pub(super) fn syncing(&self, token: Token) -> impl Iterator<Item = &[Record]> {
        self.unsynced.iter().take_while(move |(first, _)| *first <= token).map(|(_, records)| &records[..])
    }

    /// Everything up to `token` is on the disk.
    pub(super) fn synced(&mut self, token: Token, hooks: Hooks) {
        while self.unsynced.front().is_some_and(|(first, _)| *first <= token) {
            if let Some((_, records)) = self.unsynced.pop_front() {
                self.write(records, hooks);
            }
        }
    }

    /// The snapshot is on the disk; returns its last slot.
    pub(super) fn saved(&mut self) -> Option<Slot> {
        let snapshot = self.saving.take()?;
        let slot = snapshot.slot;
        self.durable.snapshot = Some(snapshot);
        Some(slot)
    }

    /// A message that must not leave before `token` is on the disk.
    pub(super) fn hold(&mut self, token: Token, to: NodeId, message: Message) {
        self.held.push_back((token, to, message));
    }

    /// The next message that may leave now that `token` is on the disk.
    pub(super) fn release(&mut self, token: Token) -> Option<(NodeId, Message)> {
        if self.held.front().is_none_or(|(after, ..)| *after > token) {
            return None;
        }
        self.held.pop_front().map(|(_, to, message)| (to, message))
    }
}
