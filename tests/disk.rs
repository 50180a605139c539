//! The disk on real mounts: what a program sees of its troubles, and what is left after a power failure.

use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use tribunal::agent::disk::{Disk, Troubles};

/// A mounted disk over folders of its own.
struct Lab {
    disk: Disk,
    name: String,
    _folders: tempfile::TempDir,
    back: PathBuf,
    at: PathBuf,
}

fn lab() -> Lab {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("tribunal:test-{}-{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
    let folders = tempfile::tempdir().unwrap();
    let (back, at) = (folders.path().join("back"), folders.path().join("at"));
    fs::create_dir(&back).unwrap();
    fs::create_dir(&at).unwrap();
    let disk = Disk::mount(&back, &at, &name).unwrap();
    // In this order: the mount must be gone before the folders go.
    Lab { disk, name, _folders: folders, back, at }
}

impl Lab {
    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// A new file with content that is synced.
    fn synced(&self, name: &str, content: &[u8]) -> File {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create_new(true).open(self.path(name)).unwrap();
        file.write_all(content).unwrap();
        file.sync_data().unwrap();
        file
    }

    /// What the file holds: through the mount, and that it is the same in the backing folder.
    fn read(&self, name: &str) -> Vec<u8> {
        let seen = fs::read(self.path(name)).unwrap();
        assert_eq!(seen, fs::read(self.back.join(name)).unwrap(), "the mount and the folder differ");
        assert_eq!(seen.len() as u64, fs::metadata(self.path(name)).unwrap().len());
        seen
    }

    fn trouble(&self, change: impl FnOnce(&mut Troubles)) {
        let mut troubles = Troubles::default();
        change(&mut troubles);
        self.disk.set(troubles);
    }

    fn mounted(&self) -> bool {
        fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&format!("fuse.tribunal {} ", self.name))
    }
}

fn code<T: std::fmt::Debug>(outcome: io::Result<T>) -> i32 {
    outcome.unwrap_err().raw_os_error().unwrap()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn unsynced_writes_are_lost_and_synced_ones_kept() {
    let lab = lab();
    let mut file = lab.synced("log", b"one ");
    file.write_all(b"two").unwrap();
    assert_eq!(lab.read("log"), b"one two");
    assert_eq!(lab.disk.stats().unsynced_bytes, 3);
    let never = File::create(lab.path("never")).unwrap();
    (&never).write_all(b"x").unwrap();
    drop((file, never));
    let loss = lab.disk.power_failure(None).unwrap();
    assert_eq!((loss.files, loss.lost_bytes, loss.kept_bytes), (2, 4, 0));
    assert_eq!(lab.read("log"), b"one ");
    assert_eq!(lab.read("never"), b"", "names stay, content goes");
    assert_eq!(lab.disk.power_failure(None).unwrap(), Default::default());
    assert_eq!(lab.disk.stats().unsynced_bytes, 0);
}

#[test]
fn overlapping_writes_truncation_and_holes_are_undone() {
    let lab = lab();
    let first: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    let file = lab.synced("data", &first);
    file.write_all_at(&[1; 5000], 100).unwrap();
    file.write_all_at(&[2; 5000], 3000).unwrap();
    file.set_len(3500).unwrap();
    file.write_all_at(&[3; 10], 150_000).unwrap();
    file.write_all_at(&[4; 300_000], 20).unwrap();
    file.set_len(70_000).unwrap();
    assert_eq!(lab.read("data").len(), 70_000);
    lab.disk.power_failure(None).unwrap();
    assert!(lab.read("data") == first);
    let truncated = OpenOptions::new().write(true).truncate(true).open(lab.path("data")).unwrap();
    assert_eq!(lab.read("data"), b"");
    drop(truncated);
    lab.disk.power_failure(None).unwrap();
    assert!(lab.read("data") == first);
}

#[test]
fn setting_space_aside_is_undone_unless_synced() {
    let lab = lab();
    let file = lab.synced("wal", b"head");
    let aside = || fallocate(&file, FallocateFlags::empty(), 0, 100_000).unwrap();
    aside();
    assert_eq!(lab.read("wal").len(), 100_000);
    lab.disk.power_failure(None).unwrap();
    assert_eq!(lab.read("wal").len(), 4);
    aside();
    file.sync_data().unwrap();
    file.write_all_at(b"entry", 4).unwrap();
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4096).unwrap();
    assert_eq!(lab.read("wal")[..9], [0; 9]);
    assert_eq!(lab.disk.stats().unsynced_bytes, 4096);
    lab.disk.power_failure(None).unwrap();
    let content = lab.read("wal");
    assert_eq!((content.len(), &content[..9]), (100_000, &b"head\0\0\0\0\0"[..]));
}

#[test]
fn a_torn_failure_keeps_some_sectors_and_never_touches_synced_ones() {
    let lab = lab();
    let mut outcomes = std::collections::HashSet::new();
    let file = lab.synced("data", &[b's'; 64 * 512]);
    for seed in 0..6 {
        file.write_all_at(&[b's'; 64 * 512], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[b'w'; 32 * 512], 16 * 512).unwrap();
        let loss = lab.disk.power_failure(Some(seed)).unwrap();
        let content = lab.read("data");
        let sectors: Vec<u8> = content.chunks(512).map(|sector| sector[0]).collect();
        assert!(
            content.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])),
            "half a sector"
        );
        assert!(sectors[..16].iter().chain(&sectors[48..]).all(|byte| *byte == b's'));
        let kept = sectors.iter().filter(|byte| **byte == b'w').count() as u64;
        assert!(kept > 0 && kept < 32);
        assert_eq!((loss.kept_bytes, loss.lost_bytes), (kept * 512, (32 - kept) * 512));
        outcomes.insert(sectors);
    }
    assert!(outcomes.len() > 1);
}

#[test]
fn a_slow_sync_delays_nothing_else() {
    let lab = lab();
    let (slow, other) = (lab.synced("slow", b"1"), lab.synced("other", b"1"));
    slow.write_all_at(b"2", 0).unwrap();
    lab.trouble(|troubles| troubles.sync_delay_ms = 600_000);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // More than there are request threads.
        let syncs: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let file = File::open(lab.path("other")).unwrap();
                    file.sync_all().unwrap();
                    over.store(true, SeqCst);
                })
            })
            .collect();
        let first = scope.spawn(|| slow.sync_data());
        wait_for("two syncs", || lab.disk.stats().syncs >= 2 + 2);
        let third = lab.path("third");
        fs::write(&third, b"not blocked").unwrap();
        assert_eq!(fs::read(&third).unwrap(), b"not blocked");
        assert_eq!(fs::read(lab.path("slow")).unwrap(), b"2");
        assert!(!first.is_finished() && !over.load(SeqCst));
        // One byte of `slow`, whose sync is not done, and the eleven just written.
        assert_eq!(lab.disk.stats().unsynced_bytes, 1 + 11);
        lab.disk.set(Troubles::default());
        first.join().unwrap().unwrap();
        syncs.into_iter().for_each(|sync| sync.join().unwrap());
    });
    let stats = lab.disk.stats();
    assert!(stats.delayed_syncs >= 2 && stats.delayed_ns > 0, "{stats:?}");
    lab.disk.power_failure(None).unwrap();
    assert_eq!(lab.read("slow"), b"2");
    drop(other);
}

#[test]
fn a_sync_under_way_when_the_power_fails_is_not_done() {
    let lab = lab();
    let file = lab.synced("data", b"old");
    file.write_all_at(b"new", 0).unwrap();
    lab.trouble(|troubles| troubles.sync_delay_ms = 600_000);
    thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        wait_for("the sync", || lab.disk.stats().syncs == 2);
        lab.disk.power_failure(None).unwrap();
        assert_eq!(code(sync.join().unwrap()), EIO);
    });
    assert_eq!(lab.read("data"), b"old");
}

#[test]
fn a_failed_sync_leaves_the_write_unsynced() {
    let lab = lab();
    let file = lab.synced("data", b"old");
    file.write_all_at(b"new", 0).unwrap();
    lab.trouble(|troubles| troubles.fail_syncs = true);
    assert_eq!(code(file.sync_all()), EIO);
    assert_eq!(lab.disk.stats().errors, 1);
    lab.disk.set(Troubles::default());
    lab.disk.power_failure(None).unwrap();
    assert_eq!(lab.read("data"), b"old");
}

#[test]
fn reads_and_writes_fail_while_told_to() {
    let lab = lab();
    let file = lab.synced("data", b"content");
    assert_eq!(fs::read(lab.path("data")).unwrap(), b"content", "cached now");
    let mut buffer = [0; 7];
    lab.trouble(|troubles| troubles.fail_reads = true);
    assert_eq!(code(file.read_at(&mut buffer, 0)), EIO);
    assert_eq!(code(fs::read(lab.path("data"))), EIO);
    file.write_all_at(b"CONTENT", 0).unwrap();
    lab.trouble(|troubles| troubles.fail_writes = true);
    assert_eq!(code(file.write_at(b"x", 0)), EIO);
    assert_eq!(code(file.set_len(1)), EIO);
    lab.disk.set(Troubles::default());
    assert_eq!(lab.read("data"), b"CONTENT");
    file.write_all_at(b"c", 0).unwrap();
    assert!(lab.disk.stats().errors >= 4);
}

#[test]
fn a_full_disk_refuses_until_it_is_lifted() {
    let lab = lab();
    let mut file = lab.synced("data", b"");
    lab.trouble(|troubles| troubles.full_after_bytes = Some(6000));
    file.write_all(&[1; 4096]).unwrap();
    assert_eq!(file.write(&[2; 4096]).unwrap(), 1904, "what fits is written");
    assert_eq!(code(file.write(&[3; 10])), ENOSPC);
    assert_eq!(code(file.set_len(9000)), ENOSPC);
    file.set_len(5000).unwrap();
    lab.trouble(|troubles| troubles.full_after_bytes = Some(0));
    assert_eq!(code(file.write(&[3; 10])), ENOSPC);
    file.sync_data().unwrap();
    assert_eq!(lab.disk.stats().refused_full, 3);
    lab.disk.set(Troubles::default());
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(&[4; 10]).unwrap();
    assert_eq!(lab.read("data").len(), 5010);
}

#[test]
fn an_unlinked_open_file_works_and_is_forgotten() {
    let lab = lab();
    let file = lab.synced("gone", b"abc");
    fs::remove_file(lab.path("gone")).unwrap();
    file.write_all_at(b"ABCDEF", 0).unwrap();
    let mut buffer = [0; 6];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!((&buffer, file.metadata().unwrap().nlink()), (b"ABCDEF", 0));
    assert_eq!(lab.disk.power_failure(None).unwrap().files, 0);
    file.write_all_at(b"x", 0).unwrap();
    drop(file);
    wait_for("the log to go with the file", || lab.disk.stats().unsynced_bytes == 0);
    assert_eq!(lab.disk.power_failure(None).unwrap().files, 0);
}

#[test]
fn compaction_by_renaming_over_survives() {
    let lab = lab();
    let old = lab.synced("wal", b"long old log");
    old.write_all_at(b"unsynced tail", 12).unwrap();
    let mut new = File::create(lab.path("wal.tmp")).unwrap();
    new.write_all(b"short").unwrap();
    new.sync_all().unwrap();
    fs::rename(lab.path("wal.tmp"), lab.path("wal")).unwrap();
    File::open(&lab.at).unwrap().sync_all().unwrap();
    new.write_all(b" more").unwrap();
    assert_eq!(lab.read("wal"), b"short more");
    lab.disk.power_failure(None).unwrap();
    assert_eq!(lab.read("wal"), b"short");
    assert!(!lab.path("wal.tmp").exists());
}

#[test]
fn synchronous_writers_need_no_fsync() {
    const O_DSYNC: i32 = 0o10000;
    const O_SYNC: i32 = 0o4010000;
    for (name, flag) in [("dsync", O_DSYNC), ("sync", O_SYNC)] {
        let lab = lab();
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).custom_flags(flag).open(lab.path(name)).unwrap();
        file.write_all(b"safe").unwrap();
        assert_eq!((lab.disk.stats().syncs, lab.disk.stats().unsynced_bytes), (1, 0));
        let mut plain = OpenOptions::new().append(true).open(lab.path(name)).unwrap();
        plain.write_all(b" not").unwrap();
        lab.disk.power_failure(None).unwrap();
        assert_eq!(lab.read(name), b"safe");
        lab.trouble(|troubles| troubles.fail_syncs = true);
        assert_eq!(code(file.write(b"x")), EIO);
    }
}

#[test]
fn reading_and_appending_after_a_failure_goes_by_what_is_left() {
    let lab = lab();
    let mut file = lab.synced("data", b"kept");
    file.write_all(b", lost and cached").unwrap();
    let mut early = File::open(lab.path("data")).unwrap();
    io::copy(&mut early, &mut io::sink()).unwrap();
    lab.disk.power_failure(None).unwrap();
    // No stat, no read before it: the kernel must know the new end by itself.
    let mut append = OpenOptions::new().append(true).open(lab.path("data")).unwrap();
    append.write_all(b"+").unwrap();
    assert_eq!(lab.read("data"), b"kept+");
    let mut seen = Vec::new();
    early.seek(SeekFrom::Start(0)).unwrap();
    early.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, b"kept+", "through a descriptor opened before");
}

#[test]
fn files_long_closed_are_undone_too() {
    let lab = lab();
    fs::create_dir_all(lab.path("a/b")).unwrap();
    for number in 0..50 {
        fs::write(lab.path(&format!("a/b/{number}")), b"x").unwrap();
    }
    assert_eq!(lab.disk.stats().unsynced_bytes, 50);
    assert_eq!(lab.disk.power_failure(None).unwrap().files, 50);
    assert!((0..50).all(|number| lab.read(&format!("a/b/{number}")).is_empty()));
    assert_eq!(fs::read_dir(lab.path("a/b")).unwrap().count(), 50);
}

#[test]
fn it_is_a_file_system_like_others() {
    let lab = lab();
    fs::write(lab.path("a"), b"a").unwrap();
    fs::hard_link(lab.path("a"), lab.path("b")).unwrap();
    std::os::unix::fs::symlink("a", lab.path("link")).unwrap();
    assert_eq!(fs::read_link(lab.path("link")).unwrap(), PathBuf::from("a"));
    assert_eq!(
        (fs::read(lab.path("link")).unwrap(), fs::metadata(lab.path("b")).unwrap().nlink()),
        (b"a".into(), 2)
    );
    fs::set_permissions(lab.path("a"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(lab.path("a"), Some(1234), Some(99)).unwrap();
    let meta = fs::metadata(lab.path("b")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 1234, 99));
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
    File::open(lab.path("a")).unwrap().set_modified(then).unwrap();
    assert_eq!(fs::metadata(lab.back.join("a")).unwrap().modified().unwrap(), then);
    assert_eq!(code(fs::remove_dir(lab.path("none"))), 2);
    fs::create_dir(lab.path("d")).unwrap();
    fs::rename(lab.path("b"), lab.path("d/b")).unwrap();
    assert_eq!(code(fs::remove_dir(lab.path("d"))), 39);
    let script = "set -e; cd \"$0\"; mkfifo p; mkdir x; cp -a a x/; mv -n x/a x/c; test \"$(ls x)\" = c; rm -r x d; \
                  flock a true; umask 077; touch t; test $(stat -c %a t) = 600; df . >/dev/null";
    assert!(Command::new("sh").args(["-c", script]).arg(&lab.at).status().unwrap().success());
}

#[test]
fn other_users_own_what_they_make() {
    let lab = lab();
    fs::set_permissions(lab._folders.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&lab.at, fs::Permissions::from_mode(0o777)).unwrap();
    let script = "umask 0; cd \"$0\" && echo hello > mine && mkdir dir && ! cat secret 2>/dev/null";
    fs::write(lab.path("secret"), b"s").unwrap();
    fs::set_permissions(lab.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    use std::os::unix::process::CommandExt;
    assert!(
        Command::new("sh").args(["-c", script]).arg(&lab.at).uid(1234).gid(99).status().unwrap().success()
    );
    for (name, mode) in [("mine", 0o666), ("dir", 0o777)] {
        let meta = fs::metadata(lab.back.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 99, mode));
    }
}

#[test]
fn dropping_unmounts_even_if_busy() {
    let lab = lab();
    assert!(lab.mounted());
    let Lab { disk, name, _folders, back, at } = lab;
    let mut open = File::create(at.join("open")).unwrap();
    drop(disk);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&name));
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    open.write_all(b"still served").unwrap();
    assert_eq!(fs::read(back.join("open")).unwrap(), b"still served");
    // The same place can be used again at once, and the end of the first one does not end the second.
    let again = Disk::mount(&back, &at, &name).unwrap();
    drop(open);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(fs::read(at.join("open")).unwrap(), b"still served");
    drop(again);
    // Over the folder itself.
    let over = Disk::mount(&back, &back, &name).unwrap();
    fs::write(back.join("open"), b"over").unwrap();
    over.power_failure(None).unwrap();
    drop(over);
    assert_eq!(fs::read(back.join("open")).unwrap(), b"still served");
}
