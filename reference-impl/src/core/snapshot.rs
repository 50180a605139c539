//! Snapshots: what the applied prefix of the log came to, in the log's place.
//!
//! ```text
//! applied + every ─→ Effect::Snapshot ─ on disk ─→ SnapshotSaved ─→ Effect::Truncate: the log keeps the last `keep` slots
//!
//! a node that was away for too long        another
//!   Fetch(slot) ───────────────────────────→  that slot is forgotten here
//!   ←────────────── Snapshot(piece, next at c)   a copy of the state now, kept while it is asked for
//!   FetchSnapshot(slot, c) ────────────────→
//!   ←────────────── Snapshot(last piece)
//!   Effect::Snapshot ─ on disk ─→ SnapshotSaved ─→ installed, log truncated, and Fetch for what came after it
//! ```
//!
//! The order makes every crash harmless. The log is truncated only when the snapshot that covers it is on the disk, and by
//! one atomic replacement that holds all that is still needed: promises, votes, the incarnation. A received snapshot
//! is used only once it is on the disk, and only if it is ahead of what was applied; a node writes one at a time, so that the one on the
//! disk never goes back. Slots up to the floor are applied, so a promise, which says "all up to `commit` is chosen: fetch
//! it", is never silent about them (P3); a node that is asked to vote for one answers with what was chosen instead.
//!
//! Deliberately nothing incremental: a snapshot is the whole state.

use std::sync::Arc;
use std::time::Duration;

use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::command::EntryId;
use super::machine::{Cursor, Machine, Piece};
use super::message::Message;
use super::record::Record;
use super::{Core, Effect, Note, Role};
use crate::bugs::Hooks;

/// A log that has grown by this much (and by as much as the state has) is worth a snapshot before `snapshot_every` entries.
const LOG_BYTES: usize = 64 << 20;
/// A copy that nobody has asked for during this time is dropped.
const SERVED_FOR: Duration = Duration::from_secs(10);
/// How long a piece is waited for before it is asked for again.
pub(super) const PIECE_PATIENCE: Duration = Duration::from_millis(500);
/// Times a piece is asked for before another node is asked for another snapshot.
const PIECE_TRIES: u32 = 6;

/// The state after all slots up to `slot`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The last slot in it.
    pub slot: Slot,
    /// Hash of the prefix.
    pub hash: u64,
    /// What the node that wrote it had promised for all slots; zero in one that came from another node.
    pub promised: Ballot,
    /// Keys, values, and sessions with their ages.
    pub machine: Machine,
}

/// A snapshot that arrives piece by piece.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Incoming {
    slot: Slot,
    hash: u64,
    from: NodeId,
    machine: Machine,
    next: Cursor,
    tries: u32,
}

/// What a node does about snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Snapshots {
    /// The newest one on the disk.
    saved: Slot,
    /// On its way to the disk.
    saving: Option<Arc<Snapshot>>,
    /// Received; waits until the disk is free.
    received: Option<Arc<Snapshot>>,
    incoming: Option<Incoming>,
    serving: Option<(Arc<Snapshot>, Mono)>,
    /// The slot after which the next one is due.
    due: Slot,
    /// Bytes of the entries applied since the last one.
    pub(super) applied_bytes: usize,
}

impl Snapshots {
    /// The nodes of a cluster apply the same slots at the same time; they should not all write a snapshot then.
    pub(super) fn after(saved: Slot, every: u64, rank: usize, nodes: usize) -> Self {
        let due = saved + every - every / 2 * rank as u64 / nodes.max(1) as u64;
        Snapshots { saved, due, ..Snapshots::default() }
    }

    /// Whether a state that is ahead of the own one is arriving, or being written.
    pub(super) fn is_catching_up(&self, applied: Slot) -> bool {
        self.incoming.is_some() || self.is_installing(applied)
    }

    /// The last slot of the newest one on the disk.
    pub(super) fn saved(&self) -> Slot {
        self.saved
    }

    pub(super) fn is_installing(&self, applied: Slot) -> bool {
        self.received.iter().chain(&self.saving).any(|snapshot| snapshot.slot > applied)
    }

    /// The request for what is missing, to `node`; `None` if no snapshot of that node is on its way.
    pub(super) fn request(&self, node: NodeId) -> Option<Message> {
        let incoming = self.incoming.as_ref().filter(|incoming| incoming.from == node)?;
        Some(Message::FetchSnapshot { slot: incoming.slot, at: incoming.next.clone() })
    }

    /// What arrives is of no use any more once it is applied.
    pub(super) fn has_applied(&mut self, applied: Slot, hooks: Hooks) {
        self.incoming.take_if(|incoming| incoming.slot <= applied && hooks.drops_older_snapshots());
    }

    /// A piece is late. Whether the same node should be asked once more.
    pub(super) fn is_late(&mut self) -> bool {
        let again = self.incoming.as_mut().is_some_and(|incoming| {
            incoming.tries += 1;
            incoming.tries < PIECE_TRIES
        });
        if !again {
            self.incoming = None;
        }
        again
    }
}

impl Core {
    fn is_snapshot_due(&self) -> bool {
        let state = self.learner.machine().size();
        let snapshots = &self.snapshots;
        let applied = self.learner.applied();
        let due = applied >= snapshots.due || snapshots.applied_bytes >= state.max(LOG_BYTES);
        self.config.snapshot_every != 0 && due && applied > snapshots.saved && snapshots.saving.is_none()
    }

    /// Begins a snapshot if one is due. Called after every step, so that the applied prefix is at rest.
    pub(super) fn snapshot_if_due(&mut self, now: Mono) {
        if !self.is_snapshot_due() {
            return;
        }
        let snapshot = Arc::new(self.snapshot(self.acceptor.promise_to_write()));
        self.save(snapshot);
        if !self.config.hooks.truncates_after_snapshot() {
            self.snapshots.saved = self.learner.applied();
            self.truncate(now);
        }
    }

    fn snapshot(&self, promised: Ballot) -> Snapshot {
        let hooks = self.config.hooks;
        let slot = match self.learner.applied() {
            _ if !hooks.snapshots_what_is_applied() => {
                self.learner.last_chosen().max(self.acceptor.last_slot())
            }
            applied if !hooks.numbers_snapshots_with_their_state() => self.commit_noted.min(applied),
            applied => applied,
        };
        let machine = self.learner.machine();
        let machine = if hooks.snapshots_sessions() { machine.clone() } else { machine.without_sessions() };
        Snapshot { slot, hash: self.learner.hash(), promised, machine }
    }

    fn save(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshots.due = snapshot.slot + self.config.snapshot_every;
        self.snapshots.applied_bytes = 0;
        self.snapshots.saving = Some(snapshot.clone());
        self.effects.push(Effect::Snapshot(snapshot));
    }

    /// The snapshot up to `slot` is on the disk: it may be used, and the log truncated.
    pub(super) fn on_snapshot_saved(&mut self, slot: Slot, now: Mono) {
        let Some(snapshot) = self.snapshots.saving.take_if(|saving| saving.slot == slot) else { return };
        self.snapshots.saved = slot;
        let received = snapshot.promised == Ballot::ZERO;
        let installs =
            slot > self.learner.applied() || received && !self.config.hooks.drops_older_snapshots();
        if installs {
            self.install(&snapshot, now);
        }
        self.truncate(now);
        if installs {
            // Only now may anything be written that says that all of it is chosen.
            self.follow_configuration(now);
            self.after_progress(now);
            self.apply(now);
        }
        let applied = self.learner.applied();
        if let Some(received) = self.snapshots.received.take_if(|received| received.slot > applied.max(slot))
        {
            self.save(received);
        }
        self.snapshots.received = None;
        self.fetch_rest(now);
    }

    /// Jumps to a state ahead. What this node waited for in between was decided, but nobody here can say how any more.
    fn install(&mut self, snapshot: &Snapshot, now: Mono) {
        const WHY: &str = "this node was behind and has skipped its slot";
        if matches!(self.role, Role::Leader(_)) {
            // Somebody else has chosen what this leader knows nothing of, or soon would.
            self.step_down("a snapshot was ahead of it", now);
        }
        let mut skipped: Vec<EntryId> = self
            .learner
            .chosen_from(self.learner.applied() + 1)
            .filter(|(slot, _)| *slot <= snapshot.slot)
            .map(|(_, entry)| entry.id)
            .collect();
        let open = self.proposals.split_off(&(snapshot.slot + 1, Ballot::ZERO));
        for proposal in std::mem::replace(&mut self.proposals, open).into_values() {
            self.open_bytes -= proposal.entry.size();
            skipped.push(proposal.entry.id);
        }
        skipped.extend(self.basic.give_up_below(snapshot.slot));
        let from = self.learner.applied();
        self.effects.push(Effect::Note(Note::Installed { from, to: snapshot.slot }));
        self.learner.install(snapshot);
        skipped.into_iter().for_each(|id| self.answer_unknown(id, WHY));
    }

    /// After a restart between "the received snapshot is on the disk" and "the log is replaced" the log may hold votes for
    /// slots of the snapshot that lost. They must be gone before a commit hint is written that would cover them.
    pub(super) fn truncate_if_behind(&mut self, now: Mono) {
        if self.truncated < self.learner.floor() {
            self.truncate(now);
        }
    }

    /// Replaces the log by what is still needed besides the snapshot on the disk: the last slots for those who are a little
    /// behind, and everything above.
    fn truncate(&mut self, now: Mono) {
        let saved = self.snapshots.saved;
        let mut floor = saved.saturating_sub(self.config.keep).max(self.learner.floor());
        let mut bytes = 0;
        for (slot, entry) in self.learner.chosen_from(floor + 1).collect::<Vec<_>>().into_iter().rev() {
            bytes += entry.size();
            if bytes > LOG_BYTES && slot <= saved {
                floor = slot;
                break;
            }
        }
        if let Some((serving, _)) = &self.snapshots.serving {
            floor = floor.min(serving.slot).max(self.learner.floor());
        }
        if floor <= self.truncated {
            return;
        }
        self.truncated = floor;
        self.learner.forget(floor);
        self.acceptor.forget(floor);
        let mut records = vec![
            Record::Truncated { slot: floor },
            Record::Start { epoch: self.epoch, lease: self.lease_noted },
        ];
        records.extend(self.joining.first_start(self.epoch, self.lease_noted));
        records.extend(self.joining.records());
        records.extend(self.acceptor.records());
        for (slot, entry) in self.learner.chosen_from(floor + 1) {
            if self.acceptor.vote(slot).is_none_or(|vote| vote.entry != *entry) {
                records.push(Record::Chosen { slot, entry: entry.clone() });
            }
        }
        self.observed.wrote(self.issued + 1, &std::mem::take(&mut self.unwritten));
        self.commit_noted = self.learner.applied();
        self.commit_noted_at = now;
        records.push(Record::Commit { slot: self.commit_noted });
        self.issued += 1;
        self.effects.push(Effect::Note(Note::Truncated { slot: floor }));
        self.effects.push(Effect::Truncate { token: self.issued, records });
    }

    // --- for a node that is far behind --------------------------------------------------------------------------------

    /// `to` needs `slot`, which is forgotten here: begin to send it a copy of the state.
    pub(super) fn offer_snapshot(&mut self, to: NodeId, slot: Slot, now: Mono) {
        let fits = |serving: &Snapshot| serving.slot >= slot && serving.slot >= self.learner.floor();
        if !self.snapshots.serving.as_ref().is_some_and(|(serving, _)| fits(serving)) {
            self.snapshots.serving = Some((Arc::new(self.snapshot(Ballot::ZERO)), now));
        }
        self.send_piece(to, &Cursor::default(), now);
    }

    pub(super) fn on_fetch_snapshot(&mut self, from: NodeId, slot: Slot, at: &Cursor, now: Mono) {
        match &self.snapshots.serving {
            Some((serving, _)) if serving.slot == slot => self.send_piece(from, at, now),
            // It was dropped, or this node has restarted: begin again, if the asker still needs one.
            _ => self.offer_snapshot(from, slot, now),
        }
    }

    fn send_piece(&mut self, to: NodeId, at: &Cursor, now: Mono) {
        let Some((serving, used)) = &mut self.snapshots.serving else { return };
        *used = now;
        let (piece, next) = serving.machine.piece(at, self.config.piece_bytes);
        let (slot, hash) = (serving.slot, serving.hash);
        self.send(to, Message::Snapshot { slot, hash, at: at.clone(), next, piece }, None);
    }

    pub(super) fn snapshots_tick(&mut self, now: Mono) {
        self.snapshots.serving.take_if(|(_, used)| now.since(*used) >= SERVED_FOR);
    }

    /// When a copy is dropped that nobody asks for any more. Now, if the first step after a restart has something to do.
    pub(super) fn snapshots_wakeup(&self) -> Mono {
        if self.truncated < self.learner.floor() || self.is_snapshot_due() {
            return Mono::default();
        }
        self.snapshots.serving.as_ref().map_or(Mono::NEVER, |(_, used)| *used + SERVED_FOR)
    }

    /// A piece has arrived. Whatever is not the next one of what is awaited is a duplicate, or late.
    pub(super) fn on_snapshot(
        &mut self,
        from: NodeId,
        (slot, hash): (Slot, u64),
        at: Cursor,
        next: Option<Cursor>,
        piece: Piece,
        now: Mono,
    ) {
        let older = slot <= self.learner.applied() && self.config.hooks.drops_older_snapshots();
        if older || self.snapshots.is_installing(self.learner.applied()) {
            return;
        }
        let awaited = self.snapshots.incoming.as_ref();
        let replaces = awaited.is_none_or(|known| known.from == from && known.slot < slot);
        if at == Cursor::default() && replaces {
            let machine = Machine::default();
            self.snapshots.incoming =
                Some(Incoming { slot, hash, from, machine, next: at.clone(), tries: 0 });
            if matches!(self.role, Role::Candidate(_)) {
                // The one who has the state can lead; this node would only keep it from doing so.
                self.step_down("it needs a snapshot first", now);
            }
        }
        let Some(mut incoming) = self
            .snapshots
            .incoming
            .take_if(|known| (known.slot, known.hash) == (slot, hash) && known.next == at)
        else {
            return;
        };
        self.aims_at(slot);
        incoming.machine.absorb(piece);
        if let Some(next) = next {
            self.snapshots.incoming = Some(Incoming { next, from, tries: 0, ..incoming });
            return self.ask(from, now);
        }
        let Incoming { machine, .. } = incoming;
        let snapshot = Arc::new(Snapshot { slot, hash, promised: Ballot::ZERO, machine });
        if self.snapshots.saving.is_some() {
            self.snapshots.received = Some(snapshot);
        } else {
            self.save(snapshot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Config, Durable, Entry, Input, Protocol, Vote};

    /// Killed between "the received snapshot is on the disk" and "the log is replaced", a node finds votes of its own in slots
    /// of the snapshot. They may have lost, and a later commit hint would make them pass for what was chosen.
    #[test]
    fn a_log_that_a_received_snapshot_has_overtaken_is_replaced_before_anything_is_added_to_it() {
        let ballot = Ballot { round: 1, node: 2 };
        let vote = |slot| {
            let entry = Arc::new(Entry { id: EntryId { node: 2, epoch: 1, n: slot }, command: None });
            Record::Accepted(Vote { slot, ballot, entry })
        };
        let records = (1..=9).map(vote).chain([Record::Commit { slot: 5 }]);
        let mut durable: Durable = records.collect();
        let machine = Machine::default();
        durable.snapshot = Some(Arc::new(Snapshot { slot: 8, hash: 7, promised: Ballot::ZERO, machine }));
        let config = Config::new(1, 1..=3, Protocol::MultiPaxos);
        durable.begin_incarnation(config.timing.lease);
        let mut core = Core::new(config, durable, Mono(0));
        assert_eq!((core.learner().applied(), core.learner().floor()), (8, 8), "nothing proves slots 6 to 8");
        let effects = core.step(Mono(0), Input::Tick);
        let first = effects.iter().find(|e| matches!(e, Effect::Persist { .. } | Effect::Truncate { .. }));
        let Some(Effect::Truncate { records, .. }) = first else { panic!("{effects:?}") };
        assert!(records.contains(&Record::Truncated { slot: 8 }), "{records:?}");
        let votes = records.iter().filter(|record| matches!(record, Record::Accepted(_))).count();
        assert_eq!(votes, 1, "that for slot 9");
    }
}
