//! Damages bytes that a node had synced: one bit, the last part of a file, or all of them.
//!
//! Damage keeps away from the end of the file: the node was killed, and what it wrote last may never have been synced. Whoever
//! cuts that off or forgets it has broken no promise.
//!
//! Works on the backing folder of a node that is not running. What was taken comes back as a request, so that the damage
//! can be undone.

use super::Request;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Damages one file below the folder and returns what was done, in words, and the request that undoes it.
pub(super) fn damage(folder: &Path, truncate: bool, seed: u64) -> Result<(String, Request), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut files = Vec::new();
    collect(folder, &mut files).map_err(|e| format!("cannot look into {}: {e}", folder.display()))?;
    files.sort();
    // The largest: what a node cannot do without, and not a hint beside it.
    let file = files.iter().max_by_key(|file| file.metadata().map(|m| m.len()).unwrap_or(0));
    let file = file.ok_or_else(|| format!("there are no bytes in {}", folder.display()))?;
    let failed = |e: std::io::Error| format!("cannot damage {}: {e}", file.display());
    let bytes = fs::read(file).map_err(failed)?;
    // A preallocated file ends in zeros that mean nothing yet: only what was written is worth damaging.
    let written = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1) as u64;
    if written == 0 {
        return Err(format!("{} holds nothing but zeros", file.display()));
    }
    let safe = (written * 3 / 4).max(1);
    let open = OpenOptions::new().write(true).open(file).map_err(failed)?;
    let name = file.strip_prefix(folder).unwrap_or(file).display();
    let (at, words) = if truncate {
        let at = rng.random_range((written / 2).min(safe - 1)..safe);
        open.set_len(at).map_err(failed)?;
        (at, format!("{name} was cut off at byte {at} of {}", bytes.len()))
    } else {
        let (at, bit) = (rng.random_range(0..safe), rng.random_range(0..8u8));
        open.write_all_at(&[bytes[at as usize] ^ (1 << bit)], at).map_err(failed)?;
        (at, format!("bit {bit} of byte {at} of {name} was flipped"))
    };
    open.sync_all().map_err(failed)?;
    let taken = if truncate { &bytes[at as usize..] } else { &bytes[at as usize..=at as usize] };
    let hex = taken.iter().map(|b| format!("{b:02x}")).collect();
    Ok((words, Request::WriteBack { file: file.clone(), offset: at, hex }))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() && entry.metadata()?.len() > 0 {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Removes everything below the folder, and says how much that was.
pub(super) fn wipe(folder: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("cannot empty {}: {e}", folder.display());
    let mut files = Vec::new();
    collect(folder, &mut files).map_err(failed)?;
    if files.is_empty() {
        return Err(format!("there are no bytes in {}", folder.display()));
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_dir = entry.file_type().map_err(failed)?.is_dir();
        let path = entry.path();
        if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.map_err(failed)?;
    }
    Ok(format!("all {} files were lost", files.len()))
}

/// Writes bytes into a file.
pub(super) fn write_back(file: &Path, offset: u64, hex: &str) -> Result<(), String> {
    let digits = |i: usize| hex.get(i..i + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digits).collect();
    let bytes = bytes.ok_or("bytes to write back are two hexadecimal digits each")?;
    let failed = |e: std::io::Error| format!("cannot repair {}: {e}", file.display());
    let mut open = OpenOptions::new().write(true).open(file).map_err(failed)?;
    open.write_all_at(&bytes, offset).map_err(failed)?;
    open.flush().and_then(|()| open.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_changes_one_file_and_can_be_undone() {
        for truncate in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("wal/log");
            fs::create_dir(folder.path().join("wal")).unwrap();
            let original: Vec<u8> = (1..=200).chain([0; 100]).collect();
            fs::write(&file, &original).unwrap();
            let (words, undo) = damage(folder.path(), truncate, 3).unwrap();
            let damaged = fs::read(&file).unwrap();
            assert_ne!(damaged, original, "{words}");
            assert_eq!(damaged.len() < original.len(), truncate);
            let Request::WriteBack { file, offset, hex } = undo else { panic!("{undo:?}") };
            write_back(&file, offset, &hex).unwrap();
            assert_eq!(fs::read(&file).unwrap(), original);
        }
    }

    /// What a killed node wrote last need not have been synced.
    #[test]
    fn damage_keeps_away_from_the_end() {
        for (seed, truncate) in (0..200).map(|seed| (seed, seed % 2 == 0)) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("log"), [1; 1000]).unwrap();
            let (words, undo) = damage(folder.path(), truncate, seed).unwrap();
            let Request::WriteBack { offset, .. } = undo else { panic!("{undo:?}") };
            assert!(offset < 750 && (!truncate || offset >= 500), "{words}");
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("log"), [1, 1]).unwrap();
        assert!(damage(folder.path(), true, 1).is_ok() && damage(folder.path(), false, 1).is_err());
    }

    #[test]
    fn a_wiped_folder_is_empty_and_still_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("wal")).unwrap();
        fs::write(folder.path().join("wal/log"), [1; 10]).unwrap();
        fs::write(folder.path().join("lock"), []).unwrap();
        assert_eq!(wipe(folder.path()).unwrap(), "all 1 files were lost");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(wipe(folder.path()).unwrap_err().contains("no bytes"), "there was nothing to lose");
    }

    #[test]
    fn nothing_to_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(damage(folder.path(), false, 1).unwrap_err().contains("no bytes"));
    }
}
