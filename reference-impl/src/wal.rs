//! The write-ahead log: everything a node must not forget, in one append-only file.
//!
//! ```text
//! DIR/wal    "PAXOSKV1" frame(header) frame frame frame …          DIR/lock   held while a node runs
//! DIR/snapshot  the state that stands for the slots before the log: see `snapshot`
//! DIR/synced end u64 │ crc32 u32, twice, written in turns           how far the log was certainly on the disk
//! frame      len u32 │ crc32 u32 │ record record …                 all records of one sync; crc over offset and records
//! record     kind u8 │ len u32 │ payload                           payloads are those of proto/wal.proto
//! ```
//!
//! Records stay in this process's memory until they are synced, so that `kill -9` loses exactly what a power failure would
//! lose. A frame holds what one sync covers: a frame is written only after the one before it was synced. So a bad frame at
//! the end is a torn write that nobody relied on, and is cut off; a bad frame with a good one behind it is damage to what
//! was promised, and the node refuses to start. (Under [`Fsync::None`] that inference only holds for a killed process, not
//! for a power failure.)
//!
//! That inference cannot tell damage to the very last frame, or a file that was cut off, from a torn write. So after each
//! sync the end of what it covered is noted in a second file, which is itself never waited for: a log that ends before
//! that was damaged, and the node refuses to start. (A power failure may take the newest notes, and then damage to the
//! frames since the last one that survived goes unnoticed. "Protocol-Aware Recovery", Alagappan et al., FAST 2018, §3.3,
//! says why a log alone cannot do better.) An fsync that fails aborts the process: nothing is known about the file any more.
//!
//! A log is truncated by replacing it: the records that are still needed go into a new file, which is complete and synced
//! before it gets the name. Offsets in `DIR/synced` count on over a replacement (the header says from where), so that a note
//! of before is true of the new file as well. A log that says what it was truncated to needs a snapshot that reaches there,
//! or the node refuses to start. On a restart snapshot and log are read whole.

mod frame;
mod note;
mod snapshot;
mod writer;

pub use writer::{Done, LogWrite, Writer};

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bugs::Hooks;
use crate::core::{NodeId, Protocol, Record, Snapshot};
use crate::proto::wal::v1 as disk;
use snapshot::Store;

/// When a record counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Fsync {
    /// After a sync of its own.
    Always,
    /// After a sync that covers everything that was waiting.
    #[default]
    Group,
    /// As soon as the operating system has it. A crash of the machine can break the protocol's promises.
    None,
}

impl Fsync {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fsync::Always => "always",
            Fsync::Group => "group",
            Fsync::None => "none",
        }
    }
}

/// Whose log it is. A data directory belongs to one node of one cluster under one protocol, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster_id: String,
    /// The node.
    pub node: NodeId,
    /// How it decides.
    pub protocol: Protocol,
}

impl Identity {
    fn header(&self, base: u64) -> disk::Header {
        disk::Header {
            format: FORMAT,
            cluster_id: self.cluster_id.clone(),
            node: self.node,
            protocol: self.protocol.name().to_owned(),
            base,
            complete: 1,
            storage: 0,
        }
    }

    fn check(&self, file: &Path, header: &disk::Header) -> Result<(), WalError> {
        let checks = [
            ("the cluster id", header.cluster_id.clone(), self.cluster_id.clone()),
            ("the node id", header.node.to_string(), self.node.to_string()),
            ("the protocol", header.protocol.clone(), self.protocol.name().to_owned()),
        ];
        for (what, found, expected) in checks {
            if found != expected {
                return Err(WalError::Mismatch { file: file.to_owned(), what, found, expected });
            }
        }
        Ok(())
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Another process has it.
    #[error("the data directory {} is in use by another process; stop that node or give this one its own --data", .0.display())]
    Locked(PathBuf),
    /// It belongs to somebody else.
    #[error("{} holds {what} {found:?}, but this node was started with {expected:?}; start it with the same flags as before, \
             or give it an empty --data", .file.display())]
    Mismatch {
        /// The log.
        file: PathBuf,
        /// Which property differs.
        what: &'static str,
        /// What the log says.
        found: String,
        /// What the flags say.
        expected: String,
    },
    /// What was synced has changed.
    #[error("{} is damaged at byte {offset}: a record there is unreadable, but the record at byte {next} is intact, so this is \
             not a torn write. Restore the file from a copy; do NOT delete or cut it, the node would forget its promises",
             .file.display())]
    Corrupt {
        /// The log.
        file: PathBuf,
        /// Where the damage is.
        offset: u64,
        /// Where the next intact frame begins.
        next: u64,
    },
    /// It ends before what was synced.
    #[error("{} is damaged: it is readable up to byte {end}, but {synced} bytes of it were synced. Restore the file from a \
             copy; do NOT delete it, the node would forget its promises", .file.display())]
    Cut {
        /// The log.
        file: PathBuf,
        /// Where the readable part ends.
        end: u64,
        /// How far it was synced.
        synced: u64,
    },
    /// The snapshot has changed since it was written.
    #[error("{} is damaged at byte {offset}: what follows is not what was written. Restore the file from a copy, or give the \
             node an empty --data and let it rejoin; do NOT delete it alone, the log begins where it ends", .file.display())]
    Snapshot {
        /// The snapshot.
        file: PathBuf,
        /// Where the frame begins that is unreadable.
        offset: u64,
    },
    /// The log says that there is a snapshot, but there is none, or an older one.
    #[error("{} begins behind slot {slot}, but the snapshot beside it {found}. Restore both files from the same copy", .file.display())]
    Gap {
        /// The log.
        file: PathBuf,
        /// What it was truncated to.
        slot: u64,
        /// What there is instead of a snapshot up to there.
        found: String,
    },
    /// It is not a log of this program, or its beginning is damaged.
    #[error("{} does not begin like a paxos-kv log of format 1 to 3: {why}. If it is one, restore it from a copy", .file.display())]
    Foreign {
        /// The log.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The operating system refuses.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What an opened log held.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Its records, oldest first.
    pub records: Vec<Record>,
    /// Bytes of a torn write that were cut off.
    pub torn: u64,
    /// The snapshot beside it.
    pub snapshot: Option<Arc<Snapshot>>,
}

/// An open, locked log.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    store: Store,
    end: u64,
    /// Where it begins, in the count of `synced`.
    base: u64,
    storage: u64,
    synced: File,
    /// Notes written, so that the last but one survives a write that is cut short (a full disk).
    notes: u64,
    aside: Option<Aside>,
    hooks: Hooks,
    _lock: File,
}

/// A second file, for promises only, that is never synced: see the bug `promise-not-fsynced`.
#[derive(Debug)]
struct Aside {
    file: File,
    end: u64,
}

/// Format 1 had neither snapshots nor a base, format 2 no changes of membership; both are read as well.
const FORMAT: u32 = 3;
/// Bytes of records in one frame of a log that is written anew, roughly.
const FRAME_BYTES: usize = 4 << 20;

impl Log {
    /// Opens the log in `dir`, or creates both.
    ///
    /// # Errors
    /// Everything that would make the node forget or mistake its promises: see [`WalError`].
    pub fn open(dir: &Path, identity: &Identity) -> Result<(Log, Recovered), WalError> {
        Log::open_with(dir, identity, Hooks::default())
    }

    /// The same, on a node with planted bugs.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(dir: &Path, identity: &Identity, hooks: Hooks) -> Result<(Log, Recovered), WalError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| WalError::Io { doing, path, source }
        };
        std::fs::create_dir_all(dir).map_err(io("create the directory", dir))?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WalError::Locked(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path)(source)),
        }
        let path = dir.join("wal");
        let store = Store { dir: dir.to_owned(), identity: identity.clone(), hooks };
        if !path.exists() {
            if snapshot::is_there(dir) {
                let why = "it is missing, though there is a snapshot beside it".to_owned();
                return Err(WalError::Foreign { file: path, why });
            }
            create(&store, &path, (0, fresh_storage()), &[]).map_err(io("create", &path))?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(io("open", &path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read", &path))?;
        let (mut recovered, end, header) = recover(&path, &bytes, identity, hooks)?;
        let base = header.base;
        recovered.snapshot = store.load()?;
        let truncated = recovered.records.iter().filter_map(|record| match record {
            Record::Truncated { slot } => Some(*slot),
            _ => None,
        });
        let reaches = recovered.snapshot.as_ref().map(|snapshot| snapshot.slot);
        if let Some(slot) = truncated.max().filter(|slot| *slot > reaches.unwrap_or(0)) {
            let found = reaches.map_or("is missing".to_owned(), |slot| format!("ends with slot {slot}"));
            return Err(WalError::Gap { file: path, slot, found });
        }
        let note_path = dir.join("synced");
        let synced = note::open(dir, &note_path, base + end).map_err(io("open", &note_path))?;
        match note::read(&synced).map_err(io("read", &note_path))? {
            None => {
                return Err(WalError::Foreign { file: note_path, why: "its checksum is wrong".to_owned() });
            }
            Some(synced)
                if synced.max(base + header.complete) > base + end && hooks.tells_damage_from_end() =>
            {
                let synced = synced.saturating_sub(base).max(header.complete);
                return Err(WalError::Cut { file: path, end, synced });
            }
            Some(_) => {}
        }
        if recovered.torn > 0 {
            file.set_len(end).and_then(|()| file.sync_data()).map_err(io("cut the torn end of", &path))?;
        }
        file.seek(SeekFrom::Start(end)).map_err(io("seek in", &path))?;
        let storage = header.storage;
        let log =
            Log { file, path, store, end, base, storage, synced, notes: 0, aside: None, hooks, _lock: lock };
        Ok((log, recovered))
    }

    /// Hands the records to the operating system, as one frame.
    ///
    /// # Errors
    /// Those of the file. The log must not be used after one.
    pub fn write(&mut self, records: &[Record]) -> io::Result<()> {
        if self.aside.is_some() {
            let others = self.put_aside(records)?;
            return if others.is_empty() { Ok(()) } else { self.append(&others) };
        }
        self.append(records)
    }

    /// Writes the promises to the file aside, if there is one; returns the other records.
    fn put_aside(&mut self, records: &[Record]) -> io::Result<Vec<Record>> {
        let Some(aside) = &mut self.aside else { return Ok(records.to_vec()) };
        let (promises, others): (Vec<Record>, Vec<Record>) =
            records.iter().cloned().partition(|r| matches!(r, Record::Promised { .. }));
        if !promises.is_empty() {
            let frame = frame::encode(aside.end, &promises);
            aside.file.write_all(&frame)?;
            aside.end += frame.len() as u64;
        }
        Ok(others)
    }

    /// Replaces everything in the log by these records, which must hold all that is still needed. A kill or a power failure on
    /// the way leaves the old log or the new one, and both are whole. The new one is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the files. The log must not be used after one.
    pub fn replace(&mut self, records: &[Record]) -> io::Result<()> {
        let records = self.put_aside(records)?;
        let base = self.base + self.end;
        (self.file, self.end) = create(&self.store, &self.path, (base, self.storage), &records)?;
        self.base = base;
        self.note()
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let frame = frame::encode(self.end, records);
        self.file.write_all(&frame)?;
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Waits until everything written is on the disk.
    ///
    /// # Errors
    /// Those of the file. The log must not be used after one.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.note()
    }

    /// Notes how far the log is on the disk. Not synced: a note that is old is true as well.
    fn note(&mut self) -> io::Result<()> {
        self.notes += 1;
        note::write(&self.synced, self.notes, self.base + self.end)
    }

    /// From now on promises go to a file of their own that is never synced, and are read back from there; nothing but a
    /// planted bug wants that. Returns what that file holds.
    ///
    /// # Errors
    /// Those of the file.
    pub fn keep_promises_aside(&mut self) -> io::Result<Vec<Record>> {
        let path = self.path.with_file_name("promises");
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // What a power failure has left of it may be anything.
        if !bytes.starts_with(frame::MAGIC) {
            bytes = frame::MAGIC.to_vec();
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&bytes)?;
        }
        let (mut records, mut end) = (Vec::new(), bytes.len() as u64);
        if let Ok(scan) = frame::scan(&bytes, true) {
            records.extend(scan.frames.into_iter().filter_map(|f| frame::decode(f).ok()).flatten());
            end = scan.end;
        }
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        self.aside = Some(Aside { file, end });
        Ok(records)
    }

    /// A number that this directory got when it was empty: after a loss of the disk it is another one.
    pub fn storage(&self) -> u64 {
        self.storage
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// How many bytes of the log in `dir` are on the disk for certain, whatever happens to the machine: what a tester may not cut
/// off when it plays a power failure.
///
/// # Errors
/// Those of the files; a log or a note that is unreadable counts as an error too.
pub fn synced_bytes(dir: &Path) -> io::Result<u64> {
    let bytes = std::fs::read(dir.join("wal"))?;
    let header = frame::intact(&bytes, frame::MAGIC.len()).and_then(frame::decode_header);
    let note = note::read(&File::open(dir.join("synced"))?)?;
    match (header, note) {
        (Some(header), Some(note)) => Ok(note.saturating_sub(header.base).max(header.complete)),
        _ => Err(io::Error::other("the header of the log or the note beside it is unreadable")),
    }
}

/// A number that no other directory has, and that is not 0.
fn fresh_storage() -> u64 {
    std::hash::RandomState::new().build_hasher().finish().max(1)
}

/// Creates a log that holds its header and these records, or nothing at all: it gets its name only when it is complete and
/// synced. Returns it and its length.
fn create(
    store: &Store,
    path: &Path,
    (base, storage): (u64, u64),
    records: &[Record],
) -> io::Result<(File, u64)> {
    let draft = store.dir.join("wal.new");
    let mut file = File::create(&draft)?;
    let mut header = disk::Header { storage, ..store.identity.header(base) };
    let begin = |header: &disk::Header| [frame::MAGIC.as_slice(), &frame::encode_header(header)].concat();
    file.write_all(&begin(&header))?;
    let mut end = begin(&header).len() as u64;
    let mut rest = records;
    while !rest.is_empty() {
        let mut size = 0;
        let fits = rest.iter().take_while(|record| {
            let room = size < FRAME_BYTES;
            size += weight(record);
            room
        });
        let (now, later) = rest.split_at(fits.count());
        let frame = frame::encode(end, now);
        file.write_all(&frame)?;
        end += frame.len() as u64;
        rest = later;
    }
    // Only now is it known how long it is; that takes as many bytes whatever it is.
    header.complete = end;
    file.rewind()?;
    file.write_all(&begin(&header))?;
    file.seek(SeekFrom::Start(end))?;
    name(&store.dir, store.hooks, &file, &draft, path)?;
    Ok((file, end))
}

fn weight(record: &Record) -> usize {
    match record {
        Record::Accepted(vote) => vote.entry.size(),
        Record::Chosen { entry, .. } => entry.size(),
        _ => 32,
    }
}

/// Gives a complete draft its name, on the disk as well: a kill or a power failure on the way leaves at most the draft.
fn name(dir: &Path, hooks: Hooks, file: &File, draft: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(draft, path)?;
    // The name is an entry of the directory, and that has to be synced as well.
    if hooks.syncs_names() { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn recover(
    path: &Path,
    bytes: &[u8],
    identity: &Identity,
    hooks: Hooks,
) -> Result<(Recovered, u64, disk::Header), WalError> {
    let foreign = |why: String| WalError::Foreign { file: path.to_owned(), why };
    if !bytes.starts_with(frame::MAGIC) {
        return Err(foreign("its first eight bytes are others".to_owned()));
    }
    let scan = frame::scan(bytes, hooks.tells_damage_from_end()).map_err(|damage| WalError::Corrupt {
        file: path.to_owned(),
        offset: damage.offset,
        next: damage.next,
    })?;
    let mut frames = scan.frames.into_iter();
    let header = frames.next().and_then(frame::decode_header);
    let header = header.ok_or_else(|| foreign("its header is unreadable".to_owned()))?;
    if !(1..=FORMAT).contains(&header.format) {
        return Err(foreign(format!("it has format {}", header.format)));
    }
    identity.check(path, &header)?;
    let mut records = Vec::new();
    for frame in frames {
        let read = frame::decode(frame).map_err(foreign)?;
        records.extend(read);
    }
    let torn = bytes.len() as u64 - scan.end;
    Ok((Recovered { records, torn, snapshot: None }, scan.end, header))
}

#[cfg(test)]
mod tests;
