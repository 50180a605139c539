//! Between the words of FUSE and those of the system: attributes, kinds, times, flags. Nothing else.

use fuser::{FileAttr, INodeNo, TimeOrNow};
use rustix::fs::{FileType, OFlags, Stat, Timespec, UTIME_NOW, UTIME_OMIT};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Attributes under the number the kernel knows the inode by.
pub(super) fn attributes(id: u64, stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(id),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

/// The kind of a file; what is unknown counts as regular (it is a hint in listings, and asked for again).
pub(super) fn kind(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharacterDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        FileType::RegularFile | FileType::Unknown => fuser::FileType::RegularFile,
    }
}

/// How we open what the program opens. Writing needs reading too, for the pre-images. `O_APPEND` must not
/// be passed on (the kernel gives us places, and appending ignores them), nor `O_DIRECT` (our buffers are
/// not aligned), nor `O_SYNC`/`O_DSYNC` (the kernel follows such a write with an fsync, which we see).
pub(super) fn open_flags(flags: i32) -> OFlags {
    let wanted = OFlags::from_bits_retain(flags as u32);
    if wanted.intersects(OFlags::WRONLY | OFlags::RDWR) { OFlags::RDWR } else { OFlags::RDONLY }
}

/// A time to set, or none.
pub(super) fn time_to_set(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos().into() },
            Err(before) => Timespec { tv_sec: -(before.duration().as_secs() as i64), tv_nsec: 0 },
        },
    }
}

fn time(seconds: i64, nanos: u64) -> SystemTime {
    let part = Duration::from_nanos(nanos);
    if seconds >= 0 {
        UNIX_EPOCH + Duration::from_secs(seconds as u64) + part
    } else {
        UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + part
    }
}
