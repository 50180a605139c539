//! One node's disk: the log, the snapshot, and what is on its way to them when the power fails.
//!
//! ```text
//! write ─→ unsynced ─ synced(token) ─→ log                  save ─→ saving ─ saved ─→ snapshot
//!             └─ crash: a prefix of it may be on the disk, unreported        └─ crash: old or new
//! ```
//!
//! Deliberately only what a correct file layer leaves behind: records are there whole or not at all. Its bytes are tested in
//! `wal`.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::bugs::Hooks;
use crate::core::{Durable, Record, Snapshot, Token};

#[derive(Debug, Default)]
pub(super) struct Disk {
    log: Vec<Record>,
    snapshot: Option<Arc<Snapshot>>,
    unsynced: VecDeque<(Token, Vec<Record>)>,
    saving: Option<Arc<Snapshot>>,
}

impl Disk {
    /// What a node that starts now finds.
    pub(super) fn read(&self) -> Durable {
        let mut durable: Durable = self.log.iter().cloned().collect();
        durable.snapshot = self.snapshot.clone();
        durable
    }

    /// Written at once.
    pub(super) fn append(&mut self, record: Record) {
        self.log.push(record);
    }

    /// On its way. Records that begin with a truncation take the place of everything before them.
    pub(super) fn write(&mut self, token: Token, records: Vec<Record>) {
        self.unsynced.push_back((token, records));
    }

    pub(super) fn save(&mut self, snapshot: Arc<Snapshot>) {
        self.saving = Some(snapshot);
    }

    /// Everything up to `token` is on the disk. Without a sync a promise does not survive a crash, which here is a power
    /// failure.
    pub(super) fn synced(&mut self, token: Token, hooks: Hooks) {
        while self.unsynced.front().is_some_and(|(first, _)| *first <= token) {
            let Some((_, records)) = self.unsynced.pop_front() else { return };
            if let Some(Record::Truncated { .. }) = records.first() {
                self.log.clear();
            }
            let survives = |r: &Record| hooks.syncs_promises() || !matches!(r, Record::Promised { .. });
            self.log.extend(records.into_iter().filter(survives));
        }
    }

    /// The snapshot is on the disk; returns its last slot.
    pub(super) fn saved(&mut self) -> Option<u64> {
        self.snapshot = Some(self.saving.take()?);
        self.snapshot.as_ref().map(|snapshot| snapshot.slot)
    }

    /// What is on its way reaches the disk, or does not; nobody is told.
    pub(super) fn crash(&mut self, rng: &mut ChaCha8Rng, hooks: Hooks) {
        if self.saving.is_some() && rng.random_bool(0.5) {
            self.saved();
        }
        if !self.unsynced.is_empty() && rng.random_bool(0.3) {
            let reached = rng.random_range(0..self.unsynced.len());
            self.synced(self.unsynced[reached].0, hooks);
        }
        self.saving = None;
        self.unsynced.clear();
    }
}
