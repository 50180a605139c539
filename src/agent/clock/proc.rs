//! What `/proc` tells about a process: its threads, its memory map, its memory.
//!
//! A process whose first thread has ended (and shows no memory any more) while others live on is
//! read through one that lives.

use super::ClockError;
use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The lines of `/proc/PID/status` that matter here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Status {
    /// The process (thread group); differs from the number asked for if that is one of a thread.
    pub process: i32,
    pub parent: i32,
    /// Who traces it; 0 for nobody.
    pub tracer: i32,
    /// Its main thread has ended; the rest of the process need not have.
    pub zombie: bool,
}

pub(super) fn status(pid: i32) -> Result<Status, ClockError> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| io(pid, "reading its status", &e))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let number = |name| field(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    Ok(Status {
        process: number("Tgid:"),
        parent: number("PPid:"),
        tracer: number("TracerPid:"),
        zombie: field("State:").is_some_and(|state| state.starts_with(['Z', 'X'])),
    })
}

/// The threads of a process.
pub(super) fn threads(pid: i32) -> Result<Vec<i32>, ClockError> {
    let entries =
        fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| io(pid, "listing its threads", &e))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The memory of a process.
#[derive(Debug)]
pub(super) struct Memory {
    pid: i32,
    file: File,
    /// Where it may write itself.
    writable: Vec<Range<u64>>,
    vdso: Range<u64>,
}

impl Memory {
    /// Opens it, which the kernel permits to those who may trace the process.
    pub(super) fn open(pid: i32) -> Result<Memory, ClockError> {
        let mut failure = ClockError::Gone { pid };
        for thread in threads(pid)? {
            let maps = match fs::read_to_string(format!("/proc/{pid}/task/{thread}/maps")) {
                Ok(maps) if !maps.is_empty() => maps,
                // A kernel thread, or one that has ended.
                Ok(_) => {
                    let ended = status(thread).is_ok_and(|status| status.zombie);
                    failure = if ended { ClockError::Gone { pid } } else { ClockError::NoVdso { pid } };
                    continue;
                }
                Err(error) => {
                    failure = io(pid, "reading its memory map", &error);
                    continue;
                }
            };
            let file =
                OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/task/{thread}/mem"));
            let file = file.map_err(|e| io(pid, "opening its memory", &e))?;
            let parsed: Vec<_> = maps.lines().filter_map(map).collect();
            let vdso = parsed
                .iter()
                .find(|(.., name)| *name == "[vdso]")
                .ok_or(ClockError::NoVdso { pid })?
                .0
                .clone();
            let writable = parsed.into_iter().filter(|(_, w, _)| *w).map(|(range, ..)| range).collect();
            return Ok(Memory { pid, file, writable, vdso });
        }
        Err(failure)
    }

    /// Where the vDSO is.
    pub(super) fn vdso(&self) -> &Range<u64> {
        &self.vdso
    }

    /// The whole vDSO, as this process sees it.
    pub(super) fn vdso_image(&self) -> Result<Vec<u8>, ClockError> {
        let mut image = vec![0; (self.vdso.end - self.vdso.start) as usize];
        self.read(self.vdso.start, &mut image)?;
        Ok(image)
    }

    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), ClockError> {
        self.file.read_exact_at(bytes, at).map_err(|e| io(self.pid, "reading its memory", &e))
    }

    /// Writes, also where the process itself may only read: it then gets a copy of the page.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), ClockError> {
        self.file.write_all_at(bytes, at).map_err(|e| io(self.pid, "writing its memory", &e))
    }

    /// The part of the process's writable memory that `at` is in.
    pub(super) fn writable_around(&self, at: u64) -> Option<Range<u64>> {
        self.writable.iter().find(|range| range.contains(&at)).cloned()
    }
}

/// One line of a memory map: where, whether writable, what.
fn map(line: &str) -> Option<(Range<u64>, bool, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let range = u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?;
    let writable = words.next()?.starts_with("rw");
    Some((range, writable, words.nth(3).unwrap_or("")))
}

fn io(pid: i32, doing: &'static str, error: &Error) -> ClockError {
    let errno = error.raw_os_error().unwrap_or(0);
    match error.kind() {
        ErrorKind::NotFound => ClockError::Gone { pid },
        ErrorKind::PermissionDenied => ClockError::Permission { pid, errno },
        _ if errno == libc::ESRCH => ClockError::Gone { pid },
        _ => ClockError::Failed { pid, doing, errno },
    }
}
