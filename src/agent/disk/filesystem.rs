//! The file system itself: every request goes through to the backing folder, past the troubles.
//!
//! ```text
//!   program ─write─▶ kernel ─FUSE─▶ here: may it? save what stood there ─▶ backing folder
//! ```
//!
//! **Caching.** The kernel's page cache is on (so mmap works, shared writable maps too), its writeback cache
//! is off (so a write is here before `write` returns). Pages are not kept from one open to the next. What
//! changes behind the kernel's back, by a power failure, is invalidated by [`super::Disk`]. Names are not
//! cached: every open looks its name up again and so learns the length anew, else a program that appends
//! (`O_APPEND`) after a power failure might write where the file ended before; and whoever owns the backing
//! folder may clean or fill it between two runs of the program.
//!
//! Deliberately missing, so that the kernel answers by itself: locks (it keeps them), `access` (it checks
//! permissions), `flush`, extended attributes, `copy_file_range` (it copies by reading and writing).

use super::{
    convert::{attributes, kind, open_flags, time_to_set},
    gate::{Gate, lock},
    handles::Handles,
    inodes::{Inode, Inodes, adopt},
    syncs::{Sync, Syncs},
};
use fuser::*;
use rustix::fs::{self, AtFlags, CWD, Dir, FallocateFlags, Mode, OFlags, SeekFrom, Stat, Timestamps};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::AsFd, unix::ffi::OsStringExt, unix::fs::FileExt},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

/// Threads that take requests.
pub(super) const THREADS: usize = 6;

/// Names are looked up anew every time (see above).
const NAME_TTL: Duration = Duration::ZERO;

/// Attributes change through the kernel only, or are invalidated.
const ATTRIBUTE_TTL: Duration = Duration::from_secs(1);

/// Answers with what came out, or with its error.
macro_rules! answer {
    ($reply:ident, $outcome:expr, $value:pat => $good:expr) => {
        match $outcome {
            Ok($value) => $good,
            Err(error) => $reply.error(Errno::from(io::Error::from(error))),
        }
    };
}

struct OpenFile {
    file: Arc<File>,
    inode: Arc<Inode>,
}

struct OpenFolder {
    file: Arc<File>,
    inode: Arc<Inode>,
    /// As it was when the reading began.
    listing: Mutex<Vec<(u64, FileType, OsString)>>,
}

/// What FUSE calls.
pub(super) struct Filesystem {
    gate: Arc<Gate>,
    inodes: Arc<Inodes>,
    files: Handles<OpenFile>,
    folders: Handles<OpenFolder>,
    syncs: Syncs,
}

/// What `setattr` is to change, apart from the length.
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    times: Option<Timestamps>,
}

impl Filesystem {
    /// A file system over these inodes.
    pub(super) fn new(gate: Arc<Gate>, inodes: Arc<Inodes>) -> Filesystem {
        Filesystem { gate, inodes, files: Handles::new(), folders: Handles::new(), syncs: Syncs::default() }
    }

    /// Makes something named, gives it to the caller, and finds it.
    fn make(
        &self,
        request: &Request,
        place: (INodeNo, &OsStr),
        mode: Option<u32>,
        make: impl FnOnce(&Inode) -> rustix::io::Result<()>,
    ) -> io::Result<(Arc<Inode>, Stat)> {
        let parent = self.inodes.get(place.0.0)?;
        make(&parent)?;
        adopt(&parent, place.1, (request.uid(), request.gid()), mode)?;
        self.inodes.lookup(&parent, place.1)
    }

    fn create_file(
        &self,
        request: &Request,
        place: (INodeNo, &OsStr),
        mode: u32,
        flags: i32,
    ) -> io::Result<(Arc<Inode>, Stat, FileHandle)> {
        let (parent, wanted) = (self.inodes.get(place.0.0)?, OFlags::from_bits_retain(flags as u32));
        let how = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = how | OFlags::CREATE | OFlags::EXCL;
        let file: File = match fs::openat(&parent.fd, place.1, new, Mode::from_raw_mode(mode)) {
            // Somebody else made it meanwhile.
            Err(rustix::io::Errno::EXIST) if !wanted.contains(OFlags::EXCL) => {
                fs::openat(&parent.fd, place.1, how, Mode::empty())?.into()
            }
            made => {
                let file = made?.into();
                adopt(&parent, place.1, (request.uid(), request.gid()), Some(mode))?;
                file
            }
        };
        let (inode, _) = self.inodes.lookup(&parent, place.1)?;
        let file = Arc::new(file);
        if wanted.contains(OFlags::TRUNC) && file.metadata()?.len() > 0 {
            inode.resize(&file, 0)?;
        }
        let stat = inode.stat()?;
        Ok((inode.clone(), stat, self.files.add(OpenFile { file, inode })))
    }

    fn change(&self, inode: &Inode, change: &Change) -> io::Result<()> {
        if let Some(mode) = change.mode {
            fs::chmodat(CWD, inode.path(), Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(fs::Uid::from_raw), change.gid.map(fs::Gid::from_raw));
            fs::chownat(&inode.fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(times) = &change.times {
            fs::utimensat(&inode.fd, "", times, AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }

    fn resize(&self, inode: &Inode, size: u64, handle: Option<FileHandle>) -> io::Result<()> {
        let open = handle.and_then(|handle| self.files.get(handle).ok());
        let file = match open {
            Some(open) => open.file.clone(),
            None => Arc::new(inode.open(OFlags::RDWR)?),
        };
        self.gate.may_grow(size.saturating_sub(inode.stat()?.st_size as u64))?;
        inode.resize(&file, size)
    }

    fn write_some(&self, handle: FileHandle, at: u64, bytes: &[u8]) -> io::Result<u32> {
        let open = self.files.get(handle)?;
        let count = self.gate.may_write(bytes.len() as u64)?;
        open.inode.write(&open.file, at, &bytes[..count as usize])?;
        self.gate.wrote(count);
        Ok(count as u32)
    }

    fn read_some(&self, handle: FileHandle, at: u64, count: u32) -> io::Result<Vec<u8>> {
        self.gate.may_read()?;
        let open = self.files.get(handle)?;
        let mut bytes = vec![0; count as usize];
        let mut have = 0;
        // Less than asked for means the end of the file, so a short read must not be passed on as it is.
        while have < bytes.len() {
            match open.file.read_at(&mut bytes[have..], at + have as u64)? {
                0 => break,
                more => have += more,
            }
        }
        bytes.truncate(have);
        Ok(bytes)
    }

    fn list(&self, folder: &OpenFolder) -> io::Result<Vec<(u64, FileType, OsString)>> {
        let mut listing = Vec::new();
        for entry in Dir::new(folder.inode.open(OFlags::RDONLY | OFlags::DIRECTORY)?)? {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            listing.push((entry.ino(), kind(entry.file_type()), name));
        }
        Ok(listing)
    }

    fn set_aside(&self, handle: FileHandle, at: u64, count: u64, mode: i32) -> io::Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(rustix::io::Errno::OPNOTSUPP.into());
        }
        let open = self.files.get(handle)?;
        let takes_room = !mode.contains(FallocateFlags::PUNCH_HOLE);
        let len = open.file.metadata()?.len();
        self.gate.may_grow(if takes_room { (at + count).saturating_sub(len) } else { 0 })?;
        open.inode.allocate(&open.file, mode, at..at + count)
    }
}

fn entry(reply: ReplyEntry, outcome: io::Result<(Arc<Inode>, Stat)>) {
    answer!(reply, outcome, (inode, stat) => {
        let attributes = attributes(inode.id, &stat);
        reply.entry_with_ttls(&ATTRIBUTE_TTL, &NAME_TTL, &attributes, Generation(0));
    });
}

impl fuser::Filesystem for Filesystem {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Only speed: kernels that have it not do without.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.inodes.get(parent.0).and_then(|parent| self.inodes.lookup(&parent, name)));
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.inodes.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let stat = self.inodes.get(ino.0).and_then(|inode| inode.stat());
        answer!(reply, stat, stat => reply.attr(&ATTRIBUTE_TTL, &attributes(ino.0, &stat)));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = (atime.is_some() || mtime.is_some())
            .then(|| Timestamps { last_access: time_to_set(atime), last_modification: time_to_set(mtime) });
        let stat = self.inodes.get(ino.0).and_then(|inode| {
            self.change(&inode, &Change { mode, uid, gid, times: None })?;
            size.map_or(Ok(()), |size| self.resize(&inode, size, handle))?;
            // After the length, which moves them.
            self.change(&inode, &Change { mode: None, uid: None, gid: None, times })?;
            inode.stat()
        });
        answer!(reply, stat, stat => reply.attr(&ATTRIBUTE_TTL, &attributes(ino.0, &stat)));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.inodes.get(ino.0).and_then(|inode| Ok(fs::readlinkat(&inode.fd, "", Vec::new())?));
        answer!(reply, target, target => reply.data(target.as_bytes()));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (kind, bits) = (fs::FileType::from_raw_mode(mode), Mode::from_raw_mode(mode));
        let make = |parent: &Inode| fs::mknodat(&parent.fd, name, kind, bits, rdev.into());
        entry(reply, self.make(request, (parent, name), Some(mode), make));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let make = |parent: &Inode| fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(mode));
        entry(reply, self.make(request, (parent, name), Some(mode), make));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, to: &Path, reply: ReplyEntry) {
        let make = |parent: &Inode| fs::symlinkat(to, &parent.fd, name);
        entry(reply, self.make(request, (parent, name), None, make));
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let outcome = self.inodes.get(ino.0).and_then(|inode| {
            let parent = self.inodes.get(parent.0)?;
            fs::linkat(CWD, inode.path(), &parent.fd, name, AtFlags::SYMLINK_FOLLOW)?;
            self.inodes.lookup(&parent, name)
        });
        entry(reply, outcome);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let parent = self.inodes.get(parent.0);
        let done = parent.and_then(|parent| Ok(fs::unlinkat(&parent.fd, name, AtFlags::empty())?));
        answer!(reply, done, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let parent = self.inodes.get(parent.0);
        let done = parent.and_then(|parent| Ok(fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR)?));
        answer!(reply, done, () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = fs::RenameFlags::from_bits_retain(flags.bits());
        let done = self.inodes.get(parent.0).and_then(|parent| {
            let new_parent = self.inodes.get(new_parent.0)?;
            Ok(fs::renameat_with(&parent.fd, name, &new_parent.fd, new_name, flags)?)
        });
        answer!(reply, done, () => reply.ok());
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        answer!(reply, self.create_file(request, (parent, name), mode, flags), (inode, stat, handle) => {
            let attributes = attributes(inode.id, &stat);
            reply.created(&NAME_TTL, &attributes, Generation(0), handle, FopenFlags::empty());
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.inodes.get(ino.0).and_then(|inode| {
            let file = Arc::new(inode.open(open_flags(flags.0))?);
            Ok(self.files.add(OpenFile { file, inode }))
        });
        answer!(reply, opened, handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        at: u64,
        count: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.read_some(handle, at, count), bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        at: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.write_some(handle, at, bytes), count => reply.written(count));
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.close(handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        answer!(reply, self.files.get(handle), open => {
            let sync = Sync::new(&self.gate, open.file.clone(), Some(&open.inode), data_only);
            self.syncs.carry_out(sync, THREADS / 2, reply);
        });
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.inodes.get(ino.0).and_then(|inode| {
            let file = Arc::new(inode.open(OFlags::RDONLY | OFlags::DIRECTORY)?);
            Ok(self.folders.add(OpenFolder { file, inode, listing: Mutex::default() }))
        });
        answer!(reply, opened, handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, from: u64, mut reply: ReplyDirectory) {
        let folder = match self.folders.get(handle) {
            Ok(folder) => folder,
            Err(error) => return reply.error(Errno::from(error)),
        };
        let mut listing = lock(&folder.listing);
        if from == 0 {
            match self.list(&folder) {
                Ok(fresh) => *listing = fresh,
                Err(error) => return reply.error(Errno::from(error)),
            }
        }
        for (index, (ino, kind, name)) in listing.iter().enumerate().skip(from as usize) {
            if reply.add(INodeNo(*ino), index as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.folders.close(handle);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        answer!(reply, self.folders.get(handle), open => {
            let sync = Sync::new(&self.gate, open.file.clone(), None, data_only);
            self.syncs.carry_out(sync, THREADS / 2, reply);
        });
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let stat = self.inodes.get(ino.0).and_then(|inode| Ok(fs::fstatvfs(inode.fd.as_fd())?));
        answer!(reply, stat, stat => {
            // Programs that look before they write see the disk as full as it will turn out to be.
            let room = self.gate.room().map_or(u64::MAX, |room| room / stat.f_frsize.max(1));
            let (free, available) = (stat.f_bfree.min(room), stat.f_bavail.min(room));
            let (block, fragment) = (stat.f_bsize as u32, stat.f_frsize as u32);
            reply.statfs(stat.f_blocks, free, available, stat.f_files, stat.f_ffree, block, stat.f_namemax as u32, fragment);
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        at: u64,
        count: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.set_aside(handle, at, count, mode), () => reply.ok());
    }

    fn lseek(&self, _: &Request, _: INodeNo, handle: FileHandle, at: i64, how: i32, reply: ReplyLseek) {
        // The kernel moves within the file by itself, it asks only for data (3) and holes (4).
        let place = match how {
            3 => SeekFrom::Data(at as u64),
            4 => SeekFrom::Hole(at as u64),
            _ => return reply.error(Errno::EINVAL),
        };
        let found = self.files.get(handle).and_then(|open| Ok(fs::seek(&open.file, place)?));
        answer!(reply, found, at => reply.offset(at as i64));
    }
}
