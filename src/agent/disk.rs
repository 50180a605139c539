//! A disk that fails on demand: a FUSE file system between a program and its data folder.
//!
//! ```text
//!   program ──▶ /mnt/data (FUSE) ──▶ Disk: troubles, undo logs ──▶ /var/lib/backing (real folder)
//!
//!   write "a"; fsync; write "b"        both files hold "ab"
//!   kill the program; power_failure    both hold "a": "b" was never synced
//! ```
//!
//! ```no_run
//! use tribunal::agent::disk::{Disk, Troubles};
//! # fn main() -> std::io::Result<()> {
//! let disk = Disk::mount("/var/lib/backing".as_ref(), "/mnt/data".as_ref(), "tribunal:run-7")?;
//! disk.set(Troubles { sync_delay_ms: 200, ..Troubles::default() });
//! // … the program runs, is killed and reaped …
//! let loss = disk.power_failure(Some(42))?;
//! println!("{} bytes lost in {} files", loss.lost_bytes, loss.files);
//! # Ok(()) }
//! ```
//!
//! Every write goes to the backing folder at once; memory holds what stood there at the last sync of that
//! file ([`undo`]). fsync, fdatasync and writes with `O_SYNC`/`O_DSYNC`/`RWF_DSYNC` count as syncs; close,
//! sync_file_range, sync and syncfs do not.
//!
//! Deliberately not modelled:
//!
//! * **Lost metadata.** Creating, renaming, linking and unlinking goes through and stays, whether the folder
//!   was synced or not; so do modes, owners and times. A file created and never synced is there after the
//!   power failure, empty. A file whose last name is gone is forgotten with its log.
//! * **Writing while the same file is being synced.** The Linux kernel keeps a file's inode locked during a
//!   FUSE fsync, so a write (or truncate) of *that* file waits for it; reads and other files do not.
//! * **Dying during a slow sync.** A killed program cannot exit before its sync is answered. So: kill, `set`
//!   without the delay, reap, and then fail the power. (Failing it first frees the sync too.)
//!
//! Needs root (it mounts by itself, with `allow_other`) and one descriptor per file the kernel has cached.

mod convert;
mod filesystem;
mod gate;
mod handles;
mod inodes;
mod syncs;
pub mod undo;

use filesystem::{Filesystem, THREADS};
use fuser::{BackgroundSession, Config, INodeNo, Notifier, Session, SessionACL};
use gate::{Gate, lock};
use inodes::{Inode, Inodes};
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MountFlags, UnmountFlags},
    process::{getgid, getuid},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How long dropping a [`Disk`] waits for the mount to end; one that is busy ends when it is not any more.
const PARTING: Duration = Duration::from_secs(1);

/// What is wrong with the disk. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Troubles {
    /// Every sync (fsync, fdatasync, also of folders) is kept for so long before it is begun.
    pub sync_delay_ms: u64,
    /// Reads that reach the disk fail with EIO. What is cached is dropped when this begins.
    pub fail_reads: bool,
    /// Writes, truncations and fallocate fail with EIO.
    pub fail_writes: bool,
    /// Syncs fail with EIO, after their delay; what they covered stays un-synced.
    pub fail_syncs: bool,
    /// After so many more bytes (written, or added to files' lengths) the disk is full: ENOSPC. Writing
    /// over old bytes counts too. The write that crosses the line is short, as on a real disk.
    pub full_after_bytes: Option<u64>,
}

/// Counters since the mount; all but the last only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// Writes that went through.
    pub writes: u64,
    /// Bytes they wrote.
    pub written_bytes: u64,
    /// Syncs that arrived, whatever became of them.
    pub syncs: u64,
    /// Syncs that were kept waiting.
    pub delayed_syncs: u64,
    /// For how long, together.
    pub delayed_ns: u64,
    /// EIOs given on purpose.
    pub errors: u64,
    /// ENOSPCs given on purpose.
    pub refused_full: u64,
    /// A gauge: changed bytes that a power failure would undo now.
    pub unsynced_bytes: u64,
}

/// What a power failure took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Files that lost something: bytes, or a change of length.
    pub files: u64,
    /// Files that had un-synced changes, those above included.
    pub unsynced_files: u64,
    /// Changed bytes that were undone (written, or brought back where they had been cut off).
    pub lost_bytes: u64,
    /// Un-synced bytes that survived; zero unless torn.
    pub kept_bytes: u64,
}

/// A mounted disk. Dropping it unmounts, lazily if it is busy.
pub struct Disk {
    gate: Arc<Gate>,
    inodes: Arc<Inodes>,
    notifier: Notifier,
    session: Option<BackgroundSession>,
    at: PathBuf,
    /// The device number of the mount: we unmount nothing else.
    device: String,
    /// One power failure at a time.
    failing: Mutex<()>,
}

impl Disk {
    /// Mounts `folder` at `at` (which may be the same). `fsname` is what /proc/self/mountinfo shows as the
    /// source, so that leftovers can be found; the type is `fuse.tribunal`.
    pub fn mount(folder: &Path, at: &Path, fsname: &str) -> io::Result<Disk> {
        let at = at.canonicalize()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
        let gate = Arc::<Gate>::default();
        let inodes = Arc::new(Inodes::new(root, gate.unsynced.clone())?);
        let device = mount(&at, fsname)?;
        let started = serve(Filesystem::new(gate.clone(), inodes.clone()), device).and_then(|session| {
            let device = device_at(&at).ok_or_else(|| io::Error::other("what was mounted is not there"))?;
            Ok((session, device))
        });
        match started {
            Ok((session, device)) => {
                let notifier = session.notifier();
                let failing = Mutex::default();
                Ok(Disk { gate, inodes, notifier, session: Some(session), at, device, failing })
            }
            Err(error) => {
                let _ = rustix::mount::unmount(&at, UnmountFlags::DETACH);
                Err(error)
            }
        }
    }

    /// Replaces the troubles in force. Syncs that wait go by the new delay.
    pub fn set(&self, troubles: Troubles) {
        let fail_reads = troubles.fail_reads;
        let before = self.gate.set(troubles);
        if fail_reads && !before.fail_reads {
            // Else the page cache would answer for the broken disk. If the mount is gone there is none.
            let _ = self.inodes.files().iter().try_for_each(|inode| self.invalidate(inode));
        }
    }

    /// The power goes while the program may still live: syncs that wait fail, and from now on every write and sync does,
    /// until [`Disk::set`] says otherwise. Nothing is undone yet.
    pub fn cut_power(&self) {
        self.gate.set(Troubles { fail_writes: true, fail_syncs: true, ..Troubles::default() });
        self.gate.power_fails();
    }

    /// The counters.
    pub fn stats(&self) -> DiskStats {
        self.gate.stats()
    }

    /// The power fails: all that was not synced is undone, or with a seed a random part of it, by 512-byte
    /// sectors. Call it when the program is dead; it can be started again on the same mount right after.
    ///
    /// On an error the other files are undone nevertheless.
    pub fn power_failure(&self, torn: Option<u64>) -> io::Result<Loss> {
        let _one = lock(&self.failing);
        self.gate.power_fails();
        let files = self.inodes.files();
        // Pages dirtied through a map come in now, as the un-synced writes they are, and not after the undo.
        let mut outcome: io::Result<()> = files.iter().try_for_each(|inode| self.invalidate(inode));
        let mut loss = Loss::default();
        for inode in &files {
            match inode.power_failure(torn) {
                Ok(Some(undo)) => {
                    loss.unsynced_files += 1;
                    loss.files += u64::from(undo.lost > 0 || undo.len != undo.written_len);
                    loss.lost_bytes += undo.lost;
                    loss.kept_bytes += undo.kept;
                    outcome = outcome.and(self.invalidate(inode));
                }
                Ok(None) => {}
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.inodes.sweep();
        outcome.map(|()| loss)
    }

    /// Makes the kernel write back, and then forget, what it has cached of a file.
    fn invalidate(&self, inode: &Inode) -> io::Result<()> {
        match self.notifier.inval_inode(INodeNo(inode.id), 0, 0) {
            // Somebody unmounted it under us: there is no cache any more.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotConnected) => Ok(()),
            done => done,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Syncs that wait would keep the mount busy.
        self.gate.power_fails();
        if device_at(&self.at).as_ref() == Some(&self.device) {
            let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
        }
        let Some(session) = self.session.take() else { return };
        let until = Instant::now() + PARTING;
        while !session.guard.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The device number of what is mounted last at a path. Read from the kernel's list: a question to the mount itself would be
/// answered by ourselves, and a process that is killed while it waits for its own answer stays for ever.
fn device_at(at: &Path) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    device_in(&text, at)
}

fn device_in(mountinfo: &str, at: &Path) -> Option<String> {
    let entry = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        // The kernel writes blanks and the like as three octal digits.
        let place = fields.nth(1)?.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        (Path::new(&place) == at).then_some(device)
    };
    mountinfo.lines().filter_map(entry).next_back()
}

/// Mounts by ourselves and not by fuser: that one unmounts by path when its threads end, which may be long
/// after, when somebody else has mounted there.
fn mount(at: &Path, fsname: &str) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let (fd, uid, gid) = (device.as_raw_fd(), getuid().as_raw(), getgid().as_raw());
    let options = format!(
        "fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions,allow_other,subtype=tribunal"
    );
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(fsname, at, "fuse", flags, &*CString::new(options)?)?;
    Ok(device.into())
}

fn serve(filesystem: Filesystem, device: OwnedFd) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    Session::from_fd(filesystem, device, SessionACL::All, config)?.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_counts() {
        let text = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            101 22 0:50 / /tmp/my\\040store/n1 rw,nosuid - fuse.tribunal tribunal:t0123abcd rw\n\
            102 101 0:51 / /tmp/my\\040store/n1 rw,nosuid - fuse.tribunal tribunal:t0123abce rw\n";
        assert_eq!(device_in(text, Path::new("/tmp/my store/n1")).as_deref(), Some("0:51"));
        assert_eq!(device_in(text, Path::new("/tmp/my store")), None);
    }
}
