//! The event log of a node: what it promised, accepted, learned and applied, as lines of JSON, for `--events FILE`.
//!
//! ```text
//! {"seq":7,"ns":1288310,"incarnation":2,"event":"accepted","slot":97,"ballot":{"round":7,"node":2},"hash":"c1…"}
//! {"seq":8,"ns":1290077,"incarnation":2,"event":"applied","from":96,"to":97,"hash":"9a…"}
//! ```
//!
//! `seq` grows by one with each line of an incarnation, `ns` is the node's own monotonic clock. A thread of its own turns
//! events into text and writes them; the core only hands them over, and never waits: what finds no room is counted, and the
//! line `lost` says how many there were. Nothing is done, and no thread started, without the flag. Deliberately not durable:
//! a kill loses what was not written yet.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::core::{Ballot, Effect, Entry, Mono, Note, Record, Scope, Slot, Status, entry_hash};

/// Events that may wait to be written.
const WAITING_MAX: usize = 65_536;

/// Something that happened in a node.
#[derive(Debug)]
enum Happening {
    Restarted { node: u32, storage: u64, applied: Slot },
    Promised { ballot: Ballot, scope: Scope },
    Accepted { slot: Slot, ballot: Ballot, entry: Arc<Entry> },
    Chosen { slot: Slot, entry: Arc<Entry> },
    Applied { from: Slot, to: Slot, hash: u64 },
    Lease { held: bool },
    Snapshot { slot: Slot },
    Noted(Note),
    Lost(u64),
}

#[derive(Debug)]
struct Line {
    at: Mono,
    incarnation: u64,
    what: Happening,
}

/// Where a driver tells what happens.
#[derive(Debug)]
pub struct EventLog {
    lines: Option<SyncSender<Line>>,
    writer: Option<JoinHandle<()>>,
    lost: u64,
    incarnation: u64,
    applied: Slot,
    leased: bool,
}

impl EventLog {
    /// Adds to a file. `status` is that of the start.
    ///
    /// # Errors
    /// If the file cannot be opened, or no thread be started.
    pub fn open(path: &Path, status: &Status, storage: u64, now: Mono) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (lines, taken) = sync_channel(WAITING_MAX);
        let path = path.to_owned();
        let write = move || {
            if let Err(error) = write(&taken, file) {
                tracing::warn!("cannot write events to {}: {error}; goes on without", path.display());
            }
        };
        let writer = std::thread::Builder::new().name("events".to_owned()).spawn(write)?;
        let mut log = EventLog {
            lines: Some(lines),
            writer: Some(writer),
            lost: 0,
            incarnation: status.epoch,
            applied: status.applied,
            leased: false,
        };
        log.tell(now, Happening::Restarted { node: status.node, storage, applied: status.applied });
        Ok(log)
    }

    /// What the core wants done is about to be done.
    pub fn effect(&mut self, now: Mono, effect: &Effect) {
        match effect {
            Effect::Persist { records, .. } => {
                for record in records {
                    match record {
                        Record::Promised { ballot, scope } => {
                            self.tell(now, Happening::Promised { ballot: *ballot, scope: *scope });
                        }
                        Record::Accepted(vote) => {
                            let (slot, ballot, entry) = (vote.slot, vote.ballot, vote.entry.clone());
                            self.tell(now, Happening::Accepted { slot, ballot, entry });
                        }
                        Record::Chosen { slot, entry } => {
                            self.tell(now, Happening::Chosen { slot: *slot, entry: entry.clone() });
                        }
                        _ => {}
                    }
                }
            }
            Effect::Incarnation(epoch) => self.incarnation = *epoch,
            Effect::Note(note) => self.tell(now, Happening::Noted(note.clone())),
            _ => {}
        }
    }

    /// What the node believes now.
    pub fn status(&mut self, now: Mono, status: &Status) {
        if status.applied > self.applied {
            let (from, to, hash) = (self.applied + 1, status.applied, status.applied_hash);
            self.applied = to;
            self.tell(now, Happening::Applied { from, to, hash });
        }
        let held = status.lease_until.is_some_and(|until| until > now);
        if held != self.leased {
            self.leased = held;
            self.tell(now, Happening::Lease { held });
        }
    }

    /// A snapshot is on the disk.
    pub fn saved(&mut self, now: Mono, slot: Slot) {
        self.tell(now, Happening::Snapshot { slot });
    }

    fn tell(&mut self, at: Mono, what: Happening) {
        let Some(lines) = &self.lines else { return };
        let incarnation = self.incarnation;
        if self.lost > 0 {
            if lines.try_send(Line { at, incarnation, what: Happening::Lost(self.lost) }).is_err() {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if lines.try_send(Line { at, incarnation, what }).is_err() {
            self.lost += 1;
        }
    }
}

impl Drop for EventLog {
    /// Writes what waits.
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            // One that panicked has said so.
            drop(writer.join());
        }
    }
}

/// Writes lines until nobody is left who tells any; nothing stays in memory while there is nothing to do.
fn write(lines: &Receiver<Line>, file: File) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let mut seq = 0_u64;
    loop {
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Disconnected) => return out.flush(),
            Err(TryRecvError::Empty) => {
                out.flush()?;
                let Ok(line) = lines.recv() else { return Ok(()) };
                line
            }
        };
        seq += 1;
        let mut object = json!({"seq": seq, "ns": line.at.0, "incarnation": line.incarnation});
        if let (Value::Object(all), Value::Object(more)) = (&mut object, words(&line.what)) {
            all.extend(more);
        }
        writeln!(out, "{object}")?;
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn ballot(ballot: &Ballot) -> Value {
    json!({"round": ballot.round, "node": ballot.node})
}

fn words(what: &Happening) -> Value {
    match what {
        Happening::Restarted { node, storage, applied } => {
            json!({"event": "restarted", "node": node, "storage": hex(*storage), "applied": applied})
        }
        Happening::Promised { ballot: b, scope } => {
            let only = matches!(scope, Scope::Only(_));
            json!({"event": "promised", "ballot": ballot(b), "slot": scope.slot(), "only": only})
        }
        Happening::Accepted { slot, ballot: b, entry } => {
            json!({"event": "accepted", "slot": slot, "ballot": ballot(b), "hash": hex(entry_hash(entry))})
        }
        Happening::Chosen { slot, entry } => {
            json!({"event": "chosen", "slot": slot, "hash": hex(entry_hash(entry))})
        }
        Happening::Applied { from, to, hash } => {
            json!({"event": "applied", "from": from, "to": to, "hash": hex(*hash)})
        }
        Happening::Lease { held } => json!({"event": "lease", "held": held}),
        Happening::Snapshot { slot } => json!({"event": "snapshot", "slot": slot}),
        Happening::Lost(count) => json!({"event": "lost", "count": count}),
        Happening::Noted(note) => match note {
            Note::Candidate { ballot: b, after } => {
                json!({"event": "stands", "ballot": ballot(b), "after": after})
            }
            Note::Elected { ballot: b, reproposed, barrier } => {
                json!({"event": "led", "ballot": ballot(b), "reproposed": reproposed, "barrier": barrier})
            }
            Note::SteppedDown { ballot: b, why } => {
                json!({"event": "stepped-down", "ballot": ballot(b), "why": why})
            }
            Note::Follows { ballot: b } => json!({"event": "follows", "ballot": ballot(b)}),
            Note::Truncated { slot } => json!({"event": "truncated", "slot": slot}),
            Note::Installed { from, to } => json!({"event": "installed", "from": from, "to": to}),
            other => json!({"event": "note", "what": format!("{other:?}")}),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        let (lines, taken) = sync_channel(2);
        let mut log =
            EventLog { lines: Some(lines), writer: None, lost: 0, incarnation: 1, applied: 0, leased: false };
        for slot in 1..=5 {
            log.saved(Mono(slot), slot);
        }
        assert_eq!(log.lost, 3);
        taken.try_iter().for_each(drop);
        log.saved(Mono(6), 6);
        let told: Vec<String> = taken.try_iter().map(|line| words(&line.what).to_string()).collect();
        assert_eq!(told, [r#"{"count":3,"event":"lost"}"#, r#"{"event":"snapshot","slot":6}"#]);
    }

    #[test]
    fn a_line_is_written_for_each_event_and_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut log = EventLog::open(&path, &Status::default(), 7, Mono(1)).unwrap();
        let promise = Record::Promised { ballot: Ballot { round: 3, node: 2 }, scope: Scope::From(5) };
        log.effect(Mono(2), &Effect::Persist { token: 1, records: vec![promise] });
        let status =
            Status { applied: 9, applied_hash: 0xab, lease_until: Some(Mono(9)), ..Status::default() };
        log.status(Mono(3), &status);
        log.status(Mono(20), &status);
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["restarted", "promised", "applied", "lease", "lease"]);
        assert!(lines.iter().zip(1..).all(|(line, seq)| line["seq"] == seq));
        assert_eq!(
            lines[2],
            json!({"seq": 3, "ns": 3, "incarnation": 0, "event": "applied", "from": 1, "to": 9,
                                    "hash": "00000000000000ab"})
        );
        assert_eq!(lines[4]["held"], false);
    }
}
