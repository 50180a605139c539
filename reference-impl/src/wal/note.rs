//! The note beside the log: how far it was certainly on the disk.
//!
//! ```text
//! DIR/synced   end u64 │ crc32 u32      end u64 │ crc32 u32         two notes, written in turns: a write cut short spoils one
//! ```
//!
//! Never synced itself: a note that is old is true as well. Ends are counted from the beginning of the node's first log, so
//! that they only ever grow, also when a log is replaced by a shorter one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::bugs::Hooks;

/// Bytes of one note.
const NOTE: usize = 12;

/// One note of `synced`.
pub(super) fn one(end: u64) -> [u8; NOTE] {
    let mut bytes = [0; NOTE];
    bytes[..8].copy_from_slice(&end.to_le_bytes());
    bytes[8..].copy_from_slice(&crc32fast::hash(&end.to_le_bytes()).to_le_bytes());
    bytes
}

/// Opens `synced`, and makes it if the log is new, or of before there were such notes. It gets its name only when it is
/// complete and synced: half a note would be taken for damage for ever.
pub(super) fn open(dir: &Path, path: &Path, end: u64) -> io::Result<File> {
    if !path.exists() {
        let draft = dir.join("synced.new");
        let mut file = File::create(&draft)?;
        file.write_all(&[one(end), one(end)].concat())?;
        super::name(dir, Hooks::default(), &file, &draft, path)?;
    }
    OpenOptions::new().read(true).write(true).open(path)
}

/// How far the log was synced, by the further of the two notes: the other may have been cut short. `None` if neither is
/// readable.
pub(super) fn read(file: &File) -> io::Result<Option<u64>> {
    let mut bytes = [0; 2 * NOTE];
    let n = file.read_at(&mut bytes, 0)?;
    let read = |slot: &[u8]| {
        let end = u64::from_le_bytes(*slot.first_chunk()?);
        (slot == one(end)).then_some(end)
    };
    Ok(bytes[..n].chunks(NOTE).filter_map(read).max())
}

/// Writes the `count`th note.
pub(super) fn write(file: &File, count: u64, end: u64) -> io::Result<()> {
    file.write_all_at(&one(end), (count % 2) * NOTE as u64)
}
