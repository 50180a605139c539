//! The log against torn writes, damage, strangers and neighbours.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::core::{Ballot, Command, Entry, EntryId, Forgotten, Machine, Op, Scope, Vote};

fn identity() -> Identity {
    Identity { cluster_id: "test".into(), node: 2, protocol: Protocol::MultiPaxos }
}

fn vote(slot: u64) -> Record {
    let op = Op::Put { key: format!("k{slot}"), value: vec![slot as u8; slot as usize % 40].into() };
    let command = Some(Command { client: 1, seq: slot, op });
    let entry = Arc::new(Entry { id: EntryId { node: 2, epoch: 1, n: slot }, command });
    Record::Accepted(Vote { slot, ballot: Ballot { round: 3, node: 2 }, entry })
}

fn records(count: u64) -> Vec<Record> {
    let start = Record::Start { epoch: 1, lease: Duration::from_millis(600) };
    let promised = Record::Promised { ballot: Ballot { round: 3, node: 2 }, scope: Scope::Only(4) };
    let entry = Arc::new(Entry { id: EntryId::default(), command: None });
    let forgotten = Forgotten { ballot: Ballot::ZERO, slot: 3 };
    let rest = [
        Record::Chosen { slot: 9, entry },
        Record::Known { node: 1, epoch: 2 },
        Record::Forgotten(Some(forgotten)),
        Record::Forgotten(None),
        Record::Commit { slot: 9 },
    ];
    [start, promised].into_iter().chain((1..=count).map(vote)).chain(rest).collect()
}

/// A log with one frame per record; returns its directory and the offsets at which frames end.
fn written(records: &[Record]) -> (TempDir, Vec<u64>) {
    let dir = TempDir::new().unwrap();
    let (mut log, recovered) = Log::open(dir.path(), &identity()).unwrap();
    assert!(recovered.records.is_empty());
    let mut ends = vec![log.end];
    for record in records {
        log.write(std::slice::from_ref(record)).unwrap();
        ends.push(log.end);
    }
    (dir, ends)
}

fn wal(dir: &TempDir) -> PathBuf {
    dir.path().join("wal")
}

#[test]
fn what_was_written_is_read_again() {
    let (dir, _) = written(&records(20));
    let (_, recovered) = Log::open(dir.path(), &identity()).unwrap();
    assert_eq!(recovered.records, records(20));
    assert_eq!(recovered.torn, 0);
}

#[test]
fn a_torn_end_is_cut_off_and_the_log_goes_on_behind_it() {
    let (dir, ends) = written(&records(5));
    let file = OpenOptions::new().write(true).open(wal(&dir)).unwrap();
    file.set_len(ends[6] + 5).unwrap();
    let (mut log, recovered) = Log::open(dir.path(), &identity()).unwrap();
    assert_eq!(recovered.torn, 5);
    assert_eq!(recovered.records, records(5)[..6]);
    log.write(&[vote(77)]).unwrap();
    drop(log);
    let (_, recovered) = Log::open(dir.path(), &identity()).unwrap();
    assert_eq!(recovered.records.last(), Some(&vote(77)));
    assert_eq!(recovered.torn, 0);
}

#[test]
fn damage_before_an_intact_frame_is_refused_and_the_file_is_left_alone() {
    let (dir, ends) = written(&records(5));
    let mut bytes = std::fs::read(wal(&dir)).unwrap();
    bytes[ends[2] as usize + 12] ^= 0x40;
    std::fs::write(wal(&dir), &bytes).unwrap();
    let error = Log::open(dir.path(), &identity()).unwrap_err();
    assert!(
        matches!(error, WalError::Corrupt { offset, next, .. } if offset == ends[2] && next == ends[3]),
        "{error}"
    );
    assert!(error.to_string().contains("do NOT delete"), "{error}");
    assert_eq!(std::fs::read(wal(&dir)).unwrap(), bytes);
}

#[test]
fn damage_to_what_was_synced_is_never_taken_for_a_torn_write() {
    type Damage = (&'static str, fn(&mut Vec<u8>));
    let damage: [Damage; 3] = [
        ("the last frame", |bytes| *bytes.last_mut().unwrap() ^= 0x10),
        ("cut within a frame", |bytes| bytes.truncate(bytes.len() - 3)),
        ("cut between frames", |bytes| bytes.truncate(bytes.len() - frame::encode(0, &[vote(5)]).len())),
    ];
    for (what, damage) in damage {
        let (dir, ends) = written(&(1..=5).map(vote).collect::<Vec<_>>());
        let (mut log, _) = Log::open(dir.path(), &identity()).unwrap();
        log.sync().unwrap();
        drop(log);
        let mut bytes = std::fs::read(wal(&dir)).unwrap();
        damage(&mut bytes);
        std::fs::write(wal(&dir), &bytes).unwrap();
        let error = Log::open(dir.path(), &identity()).unwrap_err();
        assert!(matches!(error, WalError::Cut { synced, .. } if synced == ends[5]), "{what}: {error}");
        assert_eq!(std::fs::read(wal(&dir)).unwrap(), bytes, "{what}: the file was touched");
    }
}

/// A kill on the way must leave nothing that is taken for damage at the next start.
#[test]
fn the_first_note_has_its_name_when_it_is_complete_and_not_before() {
    let dir = TempDir::new().unwrap();
    // Here the node goes no further than the draft.
    std::fs::create_dir(dir.path().join("synced.new")).unwrap();
    assert!(matches!(Log::open(dir.path(), &identity()), Err(WalError::Io { .. })));
    assert!(!dir.path().join("synced").exists());
    std::fs::remove_dir(dir.path().join("synced.new")).unwrap();
    std::fs::write(dir.path().join("synced.new"), [1, 2, 3]).unwrap();
    Log::open(dir.path(), &identity()).unwrap();
    assert!(dir.path().join("synced").exists() && !dir.path().join("synced.new").exists());
}

#[test]
fn a_note_of_what_was_synced_that_is_unreadable_is_damage_and_a_missing_one_is_an_old_log() {
    let (dir, _) = written(&records(5));
    let note = dir.path().join("synced");
    let intact = std::fs::read(&note).unwrap();
    let mut both = intact.clone();
    (both[3], both[15]) = (both[3] ^ 1, both[15] ^ 1);
    for damaged in [both, vec![], vec![7; 11], vec![7; 30]] {
        std::fs::write(&note, damaged).unwrap();
        assert!(matches!(Log::open(dir.path(), &identity()), Err(WalError::Foreign { .. })));
    }
    // A disk that was full has cut one of them short.
    let torn = [&[7; 5], &intact[5..]].concat();
    std::fs::write(&note, torn).unwrap();
    assert!(Log::open(dir.path(), &identity()).is_ok());
    std::fs::remove_file(&note).unwrap();
    assert!(Log::open(dir.path(), &identity()).is_ok());
}

/// As the first version wrote it: a header with four fields, records of five kinds, and no note beside it.
#[test]
fn a_log_of_format_1_is_read_and_goes_on() {
    let mut records = records(5);
    records.retain(|record| !matches!(record, Record::Known { .. } | Record::Forgotten(_)));
    let whose = Identity::header(&identity(), 0);
    let header = disk::Header { format: 1, base: 0, complete: 0, storage: 0, ..whose };
    let mut bytes = [&frame::MAGIC[..], &frame::encode_header(&header)].concat();
    for record in &records {
        bytes.extend(frame::encode(bytes.len() as u64, std::slice::from_ref(record)));
    }
    let dir = TempDir::new().unwrap();
    std::fs::write(wal(&dir), bytes).unwrap();
    let (mut log, recovered) = Log::open(dir.path(), &identity()).unwrap();
    assert_eq!((&recovered.records, recovered.torn, recovered.snapshot.is_none()), (&records, 0, true));
    log.write(&[vote(77)]).unwrap();
    drop(log);
    let (_, recovered) = Log::open(dir.path(), &identity()).unwrap();
    records.push(vote(77));
    assert_eq!(recovered.records, records);
}

/// Format 2 differs from today's in what it may hold only: the number is written over in a log and a snapshot of today.
#[test]
fn a_log_and_a_snapshot_of_format_2_are_read_and_later_ones_are_refused() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = Log::open(dir.path(), &identity()).unwrap();
    log.store.save(&snapshot(9, 3)).unwrap();
    log.replace(&truncated(9)).unwrap();
    drop(log);
    let path = dir.path().join("snapshot");
    let (log, saved) = (std::fs::read(wal(&dir)).unwrap(), std::fs::read(&path).unwrap());
    let relabel = |format: u32| {
        let mut header = frame::decode_header(frame::intact(&log, frame::MAGIC.len()).unwrap()).unwrap();
        header.format = format;
        let header = frame::encode_header(&header);
        let rest = &log[frame::MAGIC.len() + header.len()..];
        std::fs::write(wal(&dir), [&frame::MAGIC[..], &header, rest].concat()).unwrap();
        std::fs::write(&path, snapshot::relabelled(&saved, format)).unwrap();
        Log::open(dir.path(), &identity())
    };
    let (_, recovered) = relabel(2).unwrap();
    assert_eq!((recovered.records, recovered.snapshot.unwrap().slot), (truncated(9), 9));
    let error = relabel(FORMAT + 1).unwrap_err();
    assert!(matches!(error, WalError::Foreign { .. }), "{error}");
}

/// The bug `damage-taken-for-end`, and nothing else, starts on such a log, and forgets what is behind the damage.
#[test]
fn a_planted_bug_takes_damage_for_the_end() {
    let (dir, ends) = written(&records(5));
    let mut bytes = std::fs::read(wal(&dir)).unwrap();
    bytes[ends[2] as usize + 12] ^= 0x40;
    std::fs::write(wal(&dir), &bytes).unwrap();
    let hooks = Hooks::planted([crate::bugs::Bug::DamageTakenForEnd]);
    let (_log, recovered) = Log::open_with(dir.path(), &identity(), hooks).unwrap();
    assert_eq!(recovered.records, records(5)[..2]);
    assert_eq!(recovered.torn, ends[ends.len() - 1] - ends[2]);
}

#[test]
fn a_damaged_length_is_damage_too() {
    let (dir, ends) = written(&records(5));
    let mut bytes = std::fs::read(wal(&dir)).unwrap();
    bytes[ends[1] as usize + 2] ^= 0x01;
    std::fs::write(wal(&dir), &bytes).unwrap();
    assert!(matches!(Log::open(dir.path(), &identity()), Err(WalError::Corrupt { .. })));
}

#[test]
fn another_cluster_node_or_protocol_is_refused() {
    let (dir, _) = written(&[]);
    let other = [
        Identity { cluster_id: "other".into(), ..identity() },
        Identity { node: 3, ..identity() },
        Identity { protocol: Protocol::BasicPaxos, ..identity() },
    ];
    for identity in other {
        let error = Log::open(dir.path(), &identity).unwrap_err();
        assert!(matches!(error, WalError::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains("empty --data"), "{error}");
    }
}

#[test]
fn a_strangers_file_is_refused() {
    let dir = TempDir::new().unwrap();
    std::fs::write(wal(&dir), "hello, I am somebody's diary").unwrap();
    assert!(matches!(Log::open(dir.path(), &identity()), Err(WalError::Foreign { .. })));
}

#[test]
fn two_nodes_cannot_share_a_directory() {
    let dir = TempDir::new().unwrap();
    let first = Log::open(dir.path(), &identity()).unwrap();
    assert!(matches!(Log::open(dir.path(), &identity()), Err(WalError::Locked(_))));
    drop(first);
    assert!(Log::open(dir.path(), &identity()).is_ok());
}

#[test]
fn every_mode_reports_all_tokens_and_keeps_their_order() {
    for fsync in [Fsync::Always, Fsync::Group, Fsync::None] {
        let dir = TempDir::new().unwrap();
        let (log, _) = Log::open(dir.path(), &identity()).unwrap();
        let (reports, reported) = mpsc::channel();
        let mut writer =
            Writer::start(log, fsync, None, Arc::default(), move |done| reports.send(done).unwrap());
        for token in 1..=50 {
            let now = writer.write(vec![LogWrite::append(token, vec![vote(token)])]);
            assert_eq!(now, fsync == Fsync::None);
        }
        if fsync != Fsync::None {
            let mut newest = 0;
            while newest < 50 {
                let Done::Written(token) = reported.recv_timeout(Duration::from_secs(10)).unwrap() else {
                    panic!("nothing was saved")
                };
                assert!(token > newest);
                newest = token;
            }
        }
        drop(writer);
        let (_, recovered) = Log::open(dir.path(), &identity()).unwrap();
        assert_eq!(recovered.records, (1..=50).map(vote).collect::<Vec<_>>(), "{fsync:?}");
    }
}

#[test]
fn what_is_not_synced_yet_is_not_in_the_file() {
    let dir = TempDir::new().unwrap();
    let (log, _) = Log::open(dir.path(), &identity()).unwrap();
    let before = std::fs::read(wal(&dir)).unwrap();
    // Long enough for us to look into the file before, whatever else the machine does.
    let lazily = Some(Duration::from_secs(3));
    let (reports, reported) = mpsc::channel();
    let mut writer =
        Writer::start(log, Fsync::Group, lazily, Arc::default(), move |done| reports.send(done).unwrap());
    writer.write(vec![LogWrite::append(1, vec![vote(1)])]);
    assert_eq!(std::fs::read(wal(&dir)).unwrap(), before, "kill -9 would lose it here");
    assert_eq!(reported.recv_timeout(Duration::from_secs(60)), Ok(Done::Written(1)));
    assert_ne!(std::fs::read(wal(&dir)).unwrap(), before);
}

fn snapshot(slot: u64, keys: u64) -> Arc<Snapshot> {
    let mut machine = Machine::default();
    for n in 0..keys {
        let op = Op::Put { key: format!("k{n}"), value: vec![n as u8; 30_000].into() };
        machine.apply(n + 1, &Command { client: n, seq: 1, op }, crate::bugs::Hooks::default());
    }
    Arc::new(Snapshot { slot, hash: 5, promised: Ballot { round: 3, node: 2 }, machine })
}

fn truncated(slot: u64) -> Vec<Record> {
    std::iter::once(Record::Truncated { slot }).chain((slot + 1..=slot + 5).map(vote)).collect()
}

/// Every state that a kill or a power failure can leave between the first byte of a snapshot and the last of a new log.
#[test]
fn whatever_interrupts_a_snapshot_or_a_truncation_leaves_the_old_or_the_new() {
    let (dir, _) = written(&(1..=9).map(vote).collect::<Vec<_>>());
    let files = |names: &[&str]| -> Vec<Vec<u8>> {
        names.iter().map(|name| std::fs::read(dir.path().join(name)).unwrap()).collect()
    };
    let (mut log, _) = Log::open(dir.path(), &identity()).unwrap();
    log.sync().unwrap();
    let before = files(&["wal", "synced"]);
    log.store.save(&snapshot(8, 100)).unwrap();
    log.replace(&truncated(4)).unwrap();
    let after = files(&["wal", "synced", "snapshot"]);
    drop(log);
    let old: Vec<Record> = (1..=9).map(vote).collect();
    let (wal, synced, saved) = (&after[0], &after[1], &after[2]);
    let (old_wal, old_synced) = (&before[0], &before[1]);
    type State<'a> = (&'a str, &'a [u8], &'a [u8], Option<&'a [u8]>, &'a str, &'a [u8], bool);
    let states: [State<'_>; 7] = [
        ("half a snapshot", old_wal, old_synced, None, "snapshot.new", &saved[..saved.len() / 2], false),
        ("a draft of a snapshot", old_wal, old_synced, None, "snapshot.new", saved, false),
        ("a snapshot, the old log", old_wal, old_synced, Some(saved), "x", &[], false),
        ("half a log", old_wal, old_synced, Some(saved), "wal.new", &wal[..wal.len() / 2], false),
        ("a draft of a log", old_wal, old_synced, Some(saved), "wal.new", wal, false),
        ("the new log, an old note", wal, old_synced, Some(saved), "x", &[], true),
        ("all of it", wal, synced, Some(saved), "x", &[], true),
    ];
    for (what, wal, synced, saved, draft, draft_bytes, is_new) in states {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("wal"), wal).unwrap();
        std::fs::write(dir.path().join("synced"), synced).unwrap();
        std::fs::write(dir.path().join(draft), draft_bytes).unwrap();
        if let Some(saved) = saved {
            std::fs::write(dir.path().join("snapshot"), saved).unwrap();
        }
        let (mut log, recovered) =
            Log::open(dir.path(), &identity()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(recovered.records, if is_new { truncated(4) } else { old.clone() }, "{what}");
        assert_eq!(recovered.snapshot, saved.map(|_| snapshot(8, 100)), "{what}");
        // And it goes on from there, through another one.
        log.store.save(&snapshot(20, 3)).unwrap();
        log.replace(&truncated(15)).unwrap();
        log.write(&[vote(99)]).unwrap();
        log.sync().unwrap();
        drop(log);
        let (_, recovered) = Log::open(dir.path(), &identity()).unwrap();
        assert_eq!(recovered.records.last(), Some(&vote(99)), "{what}");
        assert_eq!(recovered.snapshot, Some(snapshot(20, 3)), "{what}");
    }
}

#[test]
fn after_a_truncation_damage_to_what_was_synced_is_still_found() {
    let (dir, _) = written(&(1..=9).map(vote).collect::<Vec<_>>());
    let (mut log, _) = Log::open(dir.path(), &identity()).unwrap();
    log.store.save(&snapshot(8, 3)).unwrap();
    log.replace(&truncated(4)).unwrap();
    let replaced = log.end;
    log.write(&[vote(50)]).unwrap();
    log.sync().unwrap();
    let end = log.end;
    drop(log);
    let intact = std::fs::read(wal(&dir)).unwrap();
    assert_eq!(synced_bytes(dir.path()).unwrap(), end);
    for cut in [replaced as usize, replaced as usize - 5, intact.len() - 1] {
        std::fs::write(wal(&dir), &intact[..cut]).unwrap();
        let error = Log::open(dir.path(), &identity()).unwrap_err();
        assert!(matches!(error, WalError::Cut { synced, .. } if synced == end), "{error}");
    }
    // A power failure right after the replacement: the note is still one of before, but the log was complete.
    std::fs::write(dir.path().join("synced"), [note::one(3), note::one(4)].concat()).unwrap();
    std::fs::write(wal(&dir), &intact[..replaced as usize]).unwrap();
    assert_eq!(synced_bytes(dir.path()).unwrap(), replaced);
    assert!(Log::open(dir.path(), &identity()).is_ok());
    std::fs::write(wal(&dir), &intact[..replaced as usize - 1]).unwrap();
    assert!(matches!(Log::open(dir.path(), &identity()), Err(WalError::Cut { .. })));
}

#[test]
fn a_snapshot_that_is_damaged_missing_or_older_than_the_log_is_refused() {
    let (dir, _) = written(&[]);
    let (mut log, _) = Log::open(dir.path(), &identity()).unwrap();
    log.store.save(&snapshot(8, 100)).unwrap();
    log.replace(&truncated(4)).unwrap();
    let older = TempDir::new().unwrap();
    Store { dir: older.path().to_owned(), identity: identity(), hooks: Hooks::default() }
        .save(&snapshot(3, 1))
        .unwrap();
    drop(log);
    let file = dir.path().join("snapshot");
    let intact = std::fs::read(&file).unwrap();
    for at in [3, 30, 1_000_000, intact.len() - 2] {
        let mut bytes = intact.clone();
        bytes[at] ^= 4;
        std::fs::write(&file, &bytes).unwrap();
        let error = Log::open(dir.path(), &identity()).unwrap_err();
        assert!(matches!(&error, WalError::Snapshot { offset, .. } if *offset <= at as u64), "{error}");
        assert!(error.to_string().contains("do NOT delete it alone"), "{error}");
    }
    for cut in [0, 8, intact.len() / 2, intact.len() - 1] {
        std::fs::write(&file, &intact[..cut]).unwrap();
        assert!(matches!(Log::open(dir.path(), &identity()), Err(WalError::Snapshot { .. })), "{cut}");
    }
    std::fs::copy(older.path().join("snapshot"), &file).unwrap();
    let error = Log::open(dir.path(), &identity()).unwrap_err();
    assert!(
        matches!(&error, WalError::Gap { slot: 4, .. }) && error.to_string().contains("slot 3"),
        "{error}"
    );
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(Log::open(dir.path(), &identity()), Err(WalError::Gap { slot: 4, .. })));
    std::fs::write(&file, &intact).unwrap();
    std::fs::remove_file(wal(&dir)).unwrap();
    assert!(
        matches!(Log::open(dir.path(), &identity()), Err(WalError::Foreign { .. })),
        "the log is missing"
    );
}

#[test]
fn the_writer_replaces_saves_and_goes_on_in_every_mode() {
    for fsync in [Fsync::Always, Fsync::Group, Fsync::None] {
        let dir = TempDir::new().unwrap();
        let (log, _) = Log::open(dir.path(), &identity()).unwrap();
        let (reports, reported) = mpsc::channel();
        let mut writer =
            Writer::start(log, fsync, None, Arc::default(), move |done| reports.send(done).unwrap());
        writer.save(snapshot(8, 2));
        while reported.recv_timeout(Duration::from_secs(10)).unwrap() != Done::Saved(8) {}
        for token in 1..=2 {
            writer.write(vec![LogWrite::append(token, vec![vote(token)])]);
        }
        // All at once, as a driver hands them over: the replacement keeps its place.
        writer.write(vec![
            LogWrite::append(3, vec![vote(3)]),
            LogWrite::replace(4, truncated(4)),
            LogWrite::append(5, vec![vote(77)]),
        ]);
        drop(writer);
        let (_, recovered) = Log::open(dir.path(), &identity()).unwrap();
        let expected: Vec<Record> = truncated(4).into_iter().chain([vote(77)]).collect();
        assert_eq!(recovered.records, expected, "{fsync:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever the file is cut, what is left is a prefix: never an error, never something else.
    #[test]
    fn a_cut_anywhere_leaves_a_prefix(count in 1u64..12, cut in 0.0f64..1.0) {
        let all = records(count);
        let (dir, ends) = written(&all);
        let len = ends[0] + ((ends[ends.len() - 1] - ends[0]) as f64 * cut) as u64;
        OpenOptions::new().write(true).open(wal(&dir)).unwrap().set_len(len).unwrap();
        let (_, recovered) = Log::open(dir.path(), &identity()).unwrap();
        let whole = ends.iter().skip(1).take_while(|end| **end <= len).count();
        prop_assert_eq!(recovered.records, &all[..whole]);
    }

    /// A flipped bit is never read as if nothing had happened.
    #[test]
    fn a_flipped_bit_never_passes(count in 2u64..8, place in 0.0f64..1.0, bit in 0u8..8) {
        let all = records(count);
        let (dir, ends) = written(&all);
        let mut bytes = std::fs::read(wal(&dir)).unwrap();
        let at = ends[0] as usize + ((bytes.len() - 1 - ends[0] as usize) as f64 * place) as usize;
        bytes[at] ^= 1 << bit;
        std::fs::write(wal(&dir), &bytes).unwrap();
        match Log::open(dir.path(), &identity()) {
            Err(WalError::Corrupt { .. }) => {}
            Ok((_, recovered)) => {
                // Only the last frame can be taken for a torn write.
                prop_assert_eq!(recovered.records, &all[..all.len() - 1]);
                prop_assert!(recovered.torn > 0);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
