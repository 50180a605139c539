//! The snapshot beside the log: one file, replaced as a whole.
//!
//! ```text
//! DIR/snapshot   "PAXOSSN1" frame(whose it is, slot, hash, promised) frame(piece) frame(piece) … frame(end, number of pieces)
//! ```
//!
//! Frames are those of the log. The file is written under another name, synced, renamed, and the directory is synced: a kill
//! or a power failure leaves the old one or the new one. So whatever is wrong with it is damage, never a torn write, and the
//! node refuses to start. It is written by a thread of its own: the log goes on meanwhile.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;

use super::{FORMAT, Identity, WalError, frame, name};
use crate::bugs::Hooks;
use crate::codec;
use crate::core::{Cursor, Machine, Snapshot};
use crate::proto::v1;
use crate::proto::wal::v1 as disk;

const MAGIC: &[u8; 8] = b"PAXOSSN1";
const PIECE_BYTES: usize = 1 << 20;

const FIRST: u8 = 0;
const PIECE: u8 = 1;
const END: u8 = 2;

/// Where snapshots are kept, and whose they are.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) hooks: Hooks,
}

impl Store {
    fn path(&self) -> PathBuf {
        self.dir.join("snapshot")
    }

    /// Writes it in the place of the one before.
    ///
    /// # Errors
    /// Those of the files; the one before is still there then.
    pub(super) fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        let draft = self.dir.join("snapshot.new");
        let mut out = Frames { file: BufWriter::new(File::create(&draft)?), offset: MAGIC.len() as u64 };
        out.file.write_all(MAGIC)?;
        let first = disk::Snapshot {
            whose: Some(self.identity.header(0)),
            slot: snapshot.slot,
            hash: snapshot.hash,
            promised: Some(codec::ballot_to(snapshot.promised)),
        };
        out.put(FIRST, &first)?;
        let (mut at, mut pieces) = (Some(Cursor::default()), 0);
        while let Some(cursor) = at {
            let (piece, next) = snapshot.machine.piece(&cursor, PIECE_BYTES);
            out.put(PIECE, &codec::piece_to(piece))?;
            (at, pieces) = (next, pieces + 1);
        }
        out.put(END, &disk::SnapshotEnd { pieces })?;
        let file = out.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        name(&self.dir, self.hooks, &file, &draft, &self.path())
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// [`WalError::Snapshot`] if it is damaged, [`WalError::Mismatch`] if it is another node's.
    pub(super) fn load(&self) -> Result<Option<Arc<Snapshot>>, WalError> {
        let path = self.path();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(WalError::Io { doing: "read", path, source }),
        };
        let (snapshot, whose) =
            parse(&bytes).map_err(|offset| WalError::Snapshot { file: path.clone(), offset })?;
        self.identity.check(&path, &whose)?;
        Ok(Some(Arc::new(snapshot)))
    }
}

/// The same snapshot as a version with another format would have marked it.
#[cfg(test)]
pub(super) fn relabelled(bytes: &[u8], format: u32) -> Vec<u8> {
    let body = frame::intact(bytes, MAGIC.len()).unwrap();
    let (_, payload) = frame::records(body).next().unwrap().unwrap();
    let mut first = disk::Snapshot::decode(payload).unwrap();
    first.whose.as_mut().unwrap().format = format;
    let mut relabelled = Vec::new();
    frame::put(&mut relabelled, FIRST, &first);
    let rest = &bytes[MAGIC.len() + frame::PREFIX + body.len()..];
    [&MAGIC[..], &frame::frame(MAGIC.len() as u64, &relabelled), rest].concat()
}

struct Frames<W> {
    file: W,
    offset: u64,
}

impl<W: Write> Frames<W> {
    fn put(&mut self, kind: u8, payload: &impl prost::Message) -> io::Result<()> {
        let mut body = Vec::with_capacity(8 + payload.encoded_len());
        frame::put(&mut body, kind, payload);
        let frame = frame::frame(self.offset, &body);
        self.offset += frame.len() as u64;
        self.file.write_all(&frame)
    }
}

/// The snapshot and its owner, or the offset of the first frame that is not what it should be.
fn parse(bytes: &[u8]) -> Result<(Snapshot, disk::Header), u64> {
    if !bytes.starts_with(MAGIC) {
        return Err(0);
    }
    let mut offset = MAGIC.len();
    let mut next = |expected: Option<u8>| {
        let (at, body) = (offset as u64, frame::intact(bytes, offset).ok_or(offset as u64)?);
        offset += frame::PREFIX + body.len();
        let (kind, payload) = frame::records(body).next().flatten().ok_or(at)?;
        if expected.is_some_and(|expected| expected != kind) {
            Err(at)
        } else {
            Ok((at, kind, payload, offset))
        }
    };
    let (at, _, payload, _) = next(Some(FIRST))?;
    let first = disk::Snapshot::decode(payload).map_err(|_| at)?;
    let whose = first.whose.filter(|whose| whose.format <= FORMAT).ok_or(at)?;
    let mut machine = Machine::default();
    let mut pieces = 0;
    loop {
        let (at, kind, payload, end) = next(None)?;
        match kind {
            PIECE => {
                let piece = v1::SnapshotPiece::decode(payload).ok().and_then(codec::piece_from);
                machine.absorb(piece.ok_or(at)?);
                pieces += 1;
            }
            END if end == bytes.len()
                && disk::SnapshotEnd::decode(payload).is_ok_and(|end| end.pieces == pieces) =>
            {
                break;
            }
            _ => return Err(at),
        }
    }
    let promised = codec::ballot_from(first.promised);
    Ok((Snapshot { slot: first.slot, hash: first.hash, promised, machine }, whose))
}

/// Where it would be in `dir`.
pub(super) fn is_there(dir: &Path) -> bool {
    dir.join("snapshot").exists()
}
