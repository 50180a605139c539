//! The files and folders the kernel knows of, each pinned by a descriptor in the backing folder.
//!
//! ```text
//!   kernel: inode 1234 ──▶ Inode { O_PATH descriptor, Data { undo log, a descriptor to write with } }
//! ```
//!
//! A descriptor and not a path, so that renaming changes nothing and an unlinked file that is still open
//! goes on working; it also keeps the backing inode number from being reused, so we can use that number.
//! An inode the kernel forgets stays here (is *parked*) while it has something to undo, unless its last name
//! is gone: then nobody can ever see it again, and it goes with its log.
//!
//! Not for troubles: those are settled before anything here is called.

use super::{
    gate::lock,
    undo::{Log, Pre, SECTOR, Ticket, Undo, dice},
};
use rustix::fs::{self, AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, Stat};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    ops::Range,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The kernel's number for the root of every FUSE mount.
const ROOT: u64 = 1;

/// A file or folder.
pub(super) struct Inode {
    /// The kernel's number for it.
    pub id: u64,
    /// The how-manieth we met: unlike `id` the same from run to run, so seeds go by it.
    pub birth: u64,
    /// Pins it; opened with `O_PATH`, so it is good for naming only.
    pub fd: OwnedFd,
    key: (u64, u64),
    regular: bool,
    data: Mutex<Data>,
}

/// What is to be undone in a file.
struct Data {
    log: Log,
    /// A descriptor that can write, kept while there is something to undo.
    file: Option<Arc<File>>,
    gauge: Arc<AtomicU64>,
    counted: u64,
}

impl Data {
    /// After every change of the log: the gauge and the descriptor follow it.
    fn settle(&mut self) {
        let bytes = self.log.bytes();
        self.gauge.fetch_add(bytes.wrapping_sub(self.counted), Relaxed);
        self.counted = bytes;
        if self.log.is_empty() {
            self.file = None;
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.gauge.fetch_sub(self.counted, Relaxed);
    }
}

impl Inode {
    /// A path that leads to it whatever its name is, or if it has none.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// Opens it anew.
    pub(super) fn open(&self, flags: OFlags) -> io::Result<File> {
        Ok(fs::openat(CWD, self.path(), flags | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// Its attributes.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(fs::fstat(&self.fd)?)
    }

    /// Writes through, saving what stood there. `file` must be open for reading and writing.
    pub(super) fn write(&self, file: &Arc<File>, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut data = lock(&self.data);
        let len = length(file)?;
        let saved = data.log.before_write(len, at, bytes.len() as u64, |range| read_range(file, range));
        data.file.get_or_insert_with(|| file.clone());
        let done = saved.and_then(|()| file.write_all_at(bytes, at));
        data.settle();
        done
    }

    /// Cuts or extends it.
    pub(super) fn resize(&self, file: &Arc<File>, new: u64) -> io::Result<()> {
        let mut data = lock(&self.data);
        let saved = data.log.before_resize(length(file)?, new, |range| read_range(file, range));
        data.file.get_or_insert_with(|| file.clone());
        let done = saved.and_then(|()| file.set_len(new));
        data.settle();
        done
    }

    /// Sets space aside, or punches a hole.
    pub(super) fn allocate(
        &self,
        file: &Arc<File>,
        mode: FallocateFlags,
        range: Range<u64>,
    ) -> io::Result<()> {
        let mut data = lock(&self.data);
        let len = length(file)?;
        let zeroes = mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE);
        // Setting aside changes no byte, only the length; beyond the end there is nothing to save.
        let changed = if zeroes { range.start.min(len)..range.end.min(len) } else { len..len };
        let saved = data
            .log
            .before_write(len, changed.start, changed.end - changed.start, |range| read_range(file, range));
        data.file.get_or_insert_with(|| file.clone());
        let done = saved.and_then(|()| Ok(fs::fallocate(file, mode, range.start, range.end - range.start)?));
        data.settle();
        done
    }

    /// A sync arrived.
    pub(super) fn sync_begin(&self) -> Ticket {
        lock(&self.data).log.sync_begin()
    }

    /// A sync is over.
    pub(super) fn sync_end(&self, ticket: Ticket, success: bool) {
        let mut data = lock(&self.data);
        data.log.sync_end(ticket, success);
        data.settle();
    }

    /// Undoes what was not synced; none if there was nothing, or the file is gone anyway.
    pub(super) fn power_failure(&self, torn: Option<u64>) -> io::Result<Option<Undo>> {
        let mut data = lock(&self.data);
        let Some(file) = data.file.clone() else { return Ok(None) };
        let stat = fs::fstat(&file)?;
        let len = stat.st_size as u64;
        let undo = data.log.power_failure(len, torn.map(|seed| dice(seed, self.birth)));
        data.settle();
        match undo {
            Some(undo) if stat.st_nlink > 0 => apply(&file, len, &undo).map(|()| Some(undo)),
            _ => Ok(None),
        }
    }

    /// Nobody has it open and it has no name, or nothing is to be undone: it may be forgotten.
    fn expendable(&self) -> bool {
        lock(&self.data).log.is_empty() || self.stat().is_ok_and(|stat| stat.st_nlink == 0)
    }
}

fn length(file: &File) -> io::Result<u64> {
    Ok(fs::fstat(file)?.st_size as u64)
}

fn read_range(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

fn apply(file: &File, len: u64, undo: &Undo) -> io::Result<()> {
    static ZEROS: [u8; 128 * SECTOR as usize] = [0; 128 * SECTOR as usize];
    if undo.len != len {
        file.set_len(undo.len)?;
    }
    for (at, pre) in &undo.back {
        match pre {
            Pre::Bytes(bytes) => file.write_all_at(bytes, *at)?,
            Pre::Zeros(count) => {
                let mut done = 0;
                while done < *count {
                    let part = (count - done).min(ZEROS.len() as u64);
                    file.write_all_at(&ZEROS[..part as usize], at + done)?;
                    done += part;
                }
            }
        }
    }
    Ok(())
}

struct Entry {
    inode: Arc<Inode>,
    /// How many references the kernel holds; zero: parked.
    refs: u64,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<u64, Entry>,
    by_key: HashMap<(u64, u64), u64>,
    births: u64,
}

/// All of them.
pub(super) struct Inodes {
    table: RwLock<Table>,
    gauge: Arc<AtomicU64>,
}

impl Inodes {
    /// Begins with the backing folder itself.
    pub(super) fn new(root: OwnedFd, gauge: Arc<AtomicU64>) -> io::Result<Inodes> {
        let inodes = Inodes { table: RwLock::default(), gauge };
        let stat = fs::fstat(&root)?;
        inodes.meet(root, &stat, Some(ROOT));
        Ok(inodes)
    }

    /// The inode the kernel speaks of.
    pub(super) fn get(&self, id: u64) -> io::Result<Arc<Inode>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let entry = table.by_id.get(&id).ok_or(rustix::io::Errno::STALE)?;
        Ok(entry.inode.clone())
    }

    /// Finds a name in a folder; the kernel then holds a reference.
    pub(super) fn lookup(&self, parent: &Inode, name: &OsStr) -> io::Result<(Arc<Inode>, Stat)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&parent.fd, name, flags, Mode::empty())?;
        let stat = fs::fstat(&fd)?;
        Ok((self.meet(fd, &stat, None), stat))
    }

    /// The kernel gives back references.
    pub(super) fn forget(&self, id: u64, count: u64) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = table.by_id.get_mut(&id) else { return };
        entry.refs = entry.refs.saturating_sub(count);
        if entry.refs == 0 && id != ROOT && entry.inode.expendable() {
            table.remove(id);
        }
    }

    /// Lets go of parked inodes that have nothing to undo any more.
    pub(super) fn sweep(&self) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let idle = |entry: &&Entry| entry.refs == 0 && entry.inode.id != ROOT && entry.inode.expendable();
        let idle: Vec<u64> = table.by_id.values().filter(idle).map(|entry| entry.inode.id).collect();
        idle.into_iter().for_each(|id| table.remove(id));
    }

    /// All regular files, in the order we met them.
    pub(super) fn files(&self) -> Vec<Arc<Inode>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let all = table.by_id.values().map(|entry| &entry.inode);
        let mut files: Vec<_> = all.filter(|inode| inode.regular).cloned().collect();
        files.sort_by_key(|inode| inode.birth);
        files
    }

    fn meet(&self, fd: OwnedFd, stat: &Stat, id: Option<u64>) -> Arc<Inode> {
        let key = (stat.st_dev, stat.st_ino);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = table.by_key.get(&key).copied().and_then(|id| table.by_id.get_mut(&id)) {
            entry.refs += 1;
            return entry.inode.clone();
        }
        table.births += 1;
        let birth = table.births;
        // The backing number, so that programs see stable ones, unless another file system in the folder
        // (or our root) has it too.
        let taken = |id| id == ROOT || table.by_id.contains_key(&id);
        let id = id.unwrap_or(if taken(stat.st_ino) { birth | 1 << 63 } else { stat.st_ino });
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let data =
            Mutex::new(Data { log: Log::default(), file: None, gauge: self.gauge.clone(), counted: 0 });
        let inode = Arc::new(Inode { id, birth, fd, key, regular, data });
        table.by_key.insert(key, id);
        table.by_id.insert(id, Entry { inode: inode.clone(), refs: 1 });
        inode
    }
}

impl Table {
    fn remove(&mut self, id: u64) {
        if let Some(entry) = self.by_id.remove(&id) {
            self.by_key.remove(&entry.inode.key);
        }
    }
}

/// Changes owner and mode of what was just made, so that it is as if the program had made it itself.
pub(super) fn adopt(parent: &Inode, name: &OsStr, owner: (u32, u32), mode: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (fs::Uid::from_raw(owner.0), fs::Gid::from_raw(owner.1));
    let group_sticks = parent.stat()?.st_mode & Mode::SGID.bits() != 0;
    if rustix::process::geteuid().is_root() {
        let group = (!group_sticks).then_some(gid);
        fs::chownat(&parent.fd, name, Some(uid), group, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // After the owner, as a change of owner clears the set-id bits; needed at all as our umask is not theirs.
    if let Some(mode) = mode {
        let made = fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let folder = FileType::from_raw_mode(made.st_mode) == FileType::Directory;
        let sticks = if group_sticks && folder { Mode::SGID } else { Mode::empty() };
        fs::chmodat(&parent.fd, name, Mode::from_raw_mode(mode) | sticks, AtFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_forgets_we_keep_while_it_can_be_undone() -> io::Result<()> {
        let (folder, gauge) = (tempfile::tempdir()?, Arc::<AtomicU64>::default());
        let inodes = Inodes::new(File::open(folder.path())?.into(), gauge.clone())?;
        let known = || inodes.files().len();
        let root = inodes.get(ROOT)?;
        for name in ["clean", "dirty", "gone"] {
            std::fs::write(folder.path().join(name), "old")?;
            let (inode, _) = inodes.lookup(&root, name.as_ref())?;
            if name != "clean" {
                inode.write(&Arc::new(inode.open(OFlags::RDWR)?), 3, b"new")?;
            }
            if name == "gone" {
                std::fs::remove_file(folder.path().join(name))?;
            }
            inodes.forget(inode.id, 1);
        }
        assert_eq!((known(), gauge.load(Relaxed)), (1, 3));
        // Met again it is the same, log and all; a reference more is not taken for one less.
        let (again, _) = inodes.lookup(&root, "dirty".as_ref())?;
        inodes.lookup(&root, "dirty".as_ref())?;
        inodes.forget(again.id, 1);
        assert_eq!(again.power_failure(None)?.map(|undo| undo.lost), Some(3));
        inodes.sweep();
        assert_eq!((known(), gauge.load(Relaxed)), (1, 0));
        inodes.forget(again.id, 1);
        assert_eq!((known(), std::fs::read(folder.path().join("dirty"))?), (0, b"old".to_vec()));
        Ok(())
    }
}
