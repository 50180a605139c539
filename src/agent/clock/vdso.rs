//! The vDSO image: where its clock functions are, and what the patch looks like.
//!
//! Pure functions over the bytes of the image; nothing here touches a process.
//!
//! ```text
//!   image   +--------------------------+ 0
//!           | ELF headers, .dynsym ... |
//!           | __vdso_gettimeofday:     | first 5 bytes -> jmp --+
//!           | __vdso_time:             | first 5 bytes -> jmp --+
//!           | __vdso_clock_gettime:    | first 5 bytes -> jmp --+
//!           | section headers          |                        |
//!           +--------------------------+ end of the ELF file    |
//!           | zeros up to the page end |                        |
//!           |   home: magic            | 16 bytes               |
//!           |         offset           |  8 bytes, i64, ns      |
//!           |         original entries | 24 bytes (3 x 5)       |
//!           |         stub code        | <----------------------+
//!           +--------------------------+
//! ```
//!
//! Why the padding and not the old bodies: a thread (or a signal frame on its stack) that is in
//! the middle of an old function can go on there, as only its first five bytes change; helper
//! functions that are shared with `__vdso_clock_getres`, `__vdso_getrandom`, `__vdso_getcpu` are
//! never touched; and five bytes suffice, so kernels whose exported functions are mere jumps to
//! local ones work as well. A vDSO without that room is refused.

use super::ClockError;
use std::ops::Range;

/// Marks a patched image; the last byte is the version of the stub.
const MAGIC: &[u8; 16] = b"TRIBUNAL-CLOCK-1";
/// Where the parts of the patch are, counted from its start ("home").
const OFFSET_AT: usize = 16;
const SAVED_AT: usize = 24;
const CODE_AT: usize = 48;
/// What is overwritten of each function: `e9 rel32`, a near jump.
const JUMP: usize = 5;
/// The whole patch, in bytes.
const LEN: usize = CODE_AT + CODE.len();

/// The functions that get replaced, and where their stubs begin within [`CODE`].
const FUNCTIONS: [(&str, usize); 3] =
    [("__vdso_clock_gettime", 0x00), ("__vdso_gettimeofday", 0x40), ("__vdso_time", 0x80)];

/// The stubs. System V calling convention; clobbers only rax, rcx, rdx, rsi, rdi, r11 and flags.
/// The offset is read by one load, so that a change is seen whole or not at all. It is a constant:
/// the only address in it is that of the offset, relative to the instruction pointer.
#[rustfmt::skip]
const CODE: [u8; 0xb0] = [
    // clock_gettime(edi = clock, rsi = timespec): the real call first; its errors (a NULL pointer
    // is EFAULT, as for the system call) are passed on as they are.
    0xb8, 0xe4, 0x00, 0x00, 0x00,             // 00 mov  eax, 228       SYS_clock_gettime
    0x0f, 0x05,                               // 05 syscall
    0x85, 0xc0,                               // 07 test eax, eax
    0x75, 0x32,                               // 09 jnz  3d
    0x85, 0xff,                               // 0b test edi, edi       CLOCK_REALTIME
    0x74, 0x05,                               // 0d jz   14
    0x83, 0xff, 0x05,                         // 0f cmp  edi, 5         CLOCK_REALTIME_COARSE
    0x75, 0x29,                               // 12 jne  3d             all others: untouched
    0x48, 0x8b, 0x05, 0xc5, 0xff, 0xff, 0xff, // 14 mov  rax, [rip-3b]  the offset
    0x48, 0x03, 0x46, 0x08,                   // 1b add  rax, [rsi+8]   + tv_nsec
    0x48, 0x99,                               // 1f cqo
    0xb9, 0x00, 0xca, 0x9a, 0x3b,             // 21 mov  ecx, 1000000000
    0x48, 0xf7, 0xf9,                         // 26 idiv rcx            rounds towards zero ...
    0x48, 0x85, 0xd2,                         // 29 test rdx, rdx
    0x79, 0x06,                               // 2c jns  34
    0x48, 0x01, 0xca,                         // 2e add  rdx, rcx       ... so borrow a second
    0x48, 0xff, 0xc8,                         // 31 dec  rax
    0x48, 0x01, 0x06,                         // 34 add  [rsi], rax
    0x48, 0x89, 0x56, 0x08,                   // 37 mov  [rsi+8], rdx
    0x31, 0xc0,                               // 3b xor  eax, eax
    0xc3,                                     // 3d ret
    0xcc, 0xcc,
    // gettimeofday(rdi = timeval or NULL, rsi = timezone or NULL). The time zone comes from the
    // real call (which also checks both pointers); the time from clock_gettime, written where the
    // timeval is (same shape), so that both functions carry and round alike.
    0x48, 0x85, 0xf6,                         // 40 test rsi, rsi
    0x74, 0x0b,                               // 43 jz   50
    0xb8, 0x60, 0x00, 0x00, 0x00,             // 45 mov  eax, 96        SYS_gettimeofday
    0x0f, 0x05,                               // 4a syscall
    0x85, 0xc0,                               // 4c test eax, eax
    0x75, 0x27,                               // 4e jnz  77
    0x31, 0xc0,                               // 50 xor  eax, eax
    0x48, 0x85, 0xff,                         // 52 test rdi, rdi
    0x74, 0x20,                               // 55 jz   77
    0x48, 0x89, 0xfe,                         // 57 mov  rsi, rdi
    0x31, 0xff,                               // 5a xor  edi, edi
    0xe8, 0x9f, 0xff, 0xff, 0xff,             // 5c call 00
    0x85, 0xc0,                               // 61 test eax, eax
    0x75, 0x12,                               // 63 jnz  77
    0x8b, 0x46, 0x08,                         // 65 mov  eax, [rsi+8]
    0x31, 0xd2,                               // 68 xor  edx, edx
    0xb9, 0xe8, 0x03, 0x00, 0x00,             // 6a mov  ecx, 1000
    0xf7, 0xf1,                               // 6f div  ecx
    0x48, 0x89, 0x46, 0x08,                   // 71 mov  [rsi+8], rax
    0x31, 0xc0,                               // 75 xor  eax, eax
    0xc3,                                     // 77 ret
    0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
    // time(rdi = time_t* or NULL). A bad pointer faults, as it does in the kernel's own vDSO.
    0x57,                                     // 80 push rdi
    0x48, 0x83, 0xec, 0x10,                   // 81 sub  rsp, 16        a timespec
    0x31, 0xff,                               // 85 xor  edi, edi
    0x48, 0x89, 0xe6,                         // 87 mov  rsi, rsp
    0xe8, 0x71, 0xff, 0xff, 0xff,             // 8a call 00
    0x59,                                     // 8f pop  rcx            tv_sec
    0x5a,                                     // 90 pop  rdx
    0x5f,                                     // 91 pop  rdi
    0x85, 0xc0,                               // 92 test eax, eax
    0x75, 0x0b,                               // 94 jnz  a1
    0x48, 0x89, 0xc8,                         // 96 mov  rax, rcx
    0x48, 0x85, 0xff,                         // 99 test rdi, rdi
    0x74, 0x03,                               // 9c jz   a1
    0x48, 0x89, 0x07,                         // 9e mov  [rdi], rax
    0xc3,                                     // a1 ret
    0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
];

/// Bytes to be written at a place in the image.
pub(super) type Write = (usize, Vec<u8>);

/// Where things are in one vDSO image. Addresses are counted from the start of the image.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    entries: [usize; 3],
    home: usize,
    patched: bool,
}

impl Layout {
    /// Finds the functions and the room for the patch, and whether the patch is there already.
    pub(super) fn of(pid: i32, image: &[u8]) -> Result<Layout, ClockError> {
        let (class, machine) = (image.get(4).copied().unwrap_or(0), word(image, 18, 2).unwrap_or(0));
        if image.get(..4) != Some(b"\x7fELF") || class != 2 || machine != 62 {
            return Err(ClockError::Foreign { pid, class, machine: machine as u16 });
        }
        let symbols = Symbols::of(image).ok_or(ClockError::Garbled { pid })?;
        let mut entries = [0; 3];
        for (entry, (symbol, _)) in entries.iter_mut().zip(FUNCTIONS) {
            *entry = symbols.entry(symbol).ok_or(ClockError::NoSymbol { pid, symbol })?;
            if symbols.room(*entry) < JUMP || *entry + JUMP > image.len() {
                return Err(ClockError::NoRoom { pid, place: symbol });
            }
        }
        let end = file_end(image).ok_or(ClockError::Garbled { pid })?;
        let home = end.next_multiple_of(64);
        let room = image.get(home..home + LEN).ok_or(ClockError::NoRoom { pid, place: "end of the vDSO" })?;
        let patched = room.starts_with(MAGIC);
        let intact = if patched { room[CODE_AT..] == CODE } else { room.iter().all(|byte| *byte == 0) };
        if !intact {
            return Err(ClockError::Altered { pid });
        }
        Ok(Layout { entries, home, patched })
    }

    /// Whether the patch is in the image.
    pub(super) fn patched(&self) -> bool {
        self.patched
    }

    /// The offset that is in the image; 0 if the patch is not.
    pub(super) fn offset(&self, image: &[u8]) -> i64 {
        let at = self.home + OFFSET_AT;
        let bytes = image.get(at..at + 8).filter(|_| self.patched).and_then(|b| b.try_into().ok());
        bytes.map_or(0, i64::from_le_bytes)
    }

    /// Where `__vdso_clock_gettime` begins.
    pub(super) fn clock_gettime(&self) -> usize {
        self.entries[0]
    }

    /// The code of the patch.
    pub(super) fn stub(&self) -> Range<usize> {
        self.home + CODE_AT..self.home + LEN
    }

    /// Where no thread may be while the entries are overwritten: behind their first byte.
    pub(super) fn heads(&self) -> [Range<usize>; 3] {
        self.entries.map(|entry| entry + 1..entry + JUMP)
    }

    /// The writes that set an offset, in order: first the stub, then the jumps into it, so that
    /// whoever stops in between leaves a vDSO that works. Only the offset if all else is there.
    pub(super) fn install(&self, image: &[u8], offset_ns: i64) -> Vec<Write> {
        let mut writes = Vec::new();
        if self.patched {
            writes.push((self.home + OFFSET_AT, offset_ns.to_le_bytes().to_vec()));
        } else {
            let mut patch = vec![0; LEN];
            patch[..MAGIC.len()].copy_from_slice(MAGIC);
            patch[OFFSET_AT..OFFSET_AT + 8].copy_from_slice(&offset_ns.to_le_bytes());
            for (n, entry) in self.entries.iter().enumerate() {
                patch[SAVED_AT + n * JUMP..][..JUMP].copy_from_slice(&image[*entry..entry + JUMP]);
            }
            patch[CODE_AT..].copy_from_slice(&CODE);
            writes.push((self.home, patch));
        }
        for (entry, (_, at)) in self.entries.iter().zip(FUNCTIONS) {
            let distance = (self.home + CODE_AT + at) as i64 - (*entry + JUMP) as i64;
            let mut jump = vec![0xe9];
            jump.extend_from_slice(&(distance as i32).to_le_bytes());
            if image[*entry..entry + JUMP] != jump[..] {
                writes.push((*entry, jump));
            }
        }
        writes
    }

    /// The writes that bring the original entries back; empty if nothing is patched. The offset
    /// goes to 0 first, for whoever is still in the stub.
    pub(super) fn restore(&self, image: &[u8]) -> Vec<Write> {
        if !self.patched {
            return Vec::new();
        }
        let saved = |n: usize| image[self.home + SAVED_AT + n * JUMP..][..JUMP].to_vec();
        let entries = self.entries.iter().enumerate().map(|(n, entry)| (*entry, saved(n)));
        std::iter::once((self.home + OFFSET_AT, vec![0; 8])).chain(entries).collect()
    }

    /// The write that takes the stub away, once nobody can be in it any more.
    pub(super) fn erase(&self) -> Write {
        (self.home, vec![0; LEN])
    }
}

/// Whether a stack (read upwards from the stack pointer) holds a signal frame whose interrupted
/// instruction is in one of `ranges` (addresses in the process): the thread will come back there.
/// Recognised by its neighbours in the kernel's `struct sigcontext`: flags, then cs and ss.
pub(super) fn signal_frame_in(stack: &[u8], ranges: &[Range<u64>]) -> bool {
    let words: Vec<u64> = stack
        .chunks_exact(8)
        .map(|c| c.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        .collect();
    words.windows(3).any(|w| {
        ranges.iter().any(|range| range.contains(&w[0]))
            && w[1] & 2 != 0
            && w[1] < 1 << 22
            && w[2] & 0xffff == 0x33
    })
}

/// The dynamic symbols of the image: names and values counted from its start.
struct Symbols<'a> {
    found: Vec<(&'a [u8], usize, usize)>,
}

impl<'a> Symbols<'a> {
    /// `None` when the tables are not where the headers say.
    fn of(image: &'a [u8]) -> Option<Symbols<'a>> {
        let headers = program_headers(image)?;
        let base = headers.iter().find(|h| h.kind == 1)?.vaddr;
        let dynamic = headers.iter().find(|h| h.kind == 2)?;
        let table = image.get(dynamic.offset..dynamic.offset.checked_add(dynamic.filesz)?)?;
        let place = |wanted: u64| {
            let entry = table.chunks_exact(16).find(|entry| word(entry, 0, 8) == Some(wanted))?;
            inside(image, word(entry, 8, 8)?.checked_sub(base)?)
        };
        let (symbols, strings) = (place(6)?, place(5)?);
        // The number of symbols is in the old hash table; without it the strings follow the symbols.
        let count = match place(4) {
            Some(hash) => word(image, hash + 4, 4)? as usize,
            None => strings.checked_sub(symbols)? / 24,
        };
        let mut found = Vec::new();
        for n in 0..count.min(4096) {
            let at = symbols + n * 24;
            let name = image.get(strings + word(image, at, 4)? as usize..)?;
            let name = name.split(|byte| *byte == 0).next()?;
            let (section, value, size) =
                (word(image, at + 6, 2)?, word(image, at + 8, 8)?, word(image, at + 16, 8)?);
            // Section 0 is undefined, those from 0xff00 are no addresses (the version's own name).
            if section != 0 && section < 0xff00 {
                found.push((name, inside(image, value.checked_sub(base)?)?, size as usize));
            }
        }
        Some(Symbols { found })
    }

    fn entry(&self, name: &str) -> Option<usize> {
        self.found.iter().find(|(n, ..)| *n == name.as_bytes()).map(|(_, at, _)| *at)
    }

    /// How many bytes may be overwritten at `entry`: its size, and not into another function.
    fn room(&self, entry: usize) -> usize {
        let size = self.found.iter().filter(|(_, at, _)| *at == entry).map(|(.., size)| *size).min();
        let next = self.found.iter().filter(|(_, at, _)| *at > entry).map(|(_, at, _)| *at - entry).min();
        size.unwrap_or(0).min(next.unwrap_or(usize::MAX))
    }
}

struct ProgramHeader {
    kind: u64,
    offset: usize,
    vaddr: u64,
    filesz: usize,
}

fn program_headers(image: &[u8]) -> Option<Vec<ProgramHeader>> {
    let at = inside(image, word(image, 32, 8)?)?;
    let (size, count) = (word(image, 54, 2)? as usize, word(image, 56, 2)?);
    let header = |n: usize| {
        let at = at + n * size;
        Some(ProgramHeader {
            kind: word(image, at, 4)?,
            offset: inside(image, word(image, at + 8, 8)?)?,
            vaddr: word(image, at + 16, 8)?,
            filesz: word(image, at + 32, 8)? as usize,
        })
    };
    (0..count as usize).map(header).collect()
}

/// Where the ELF file ends within the image: behind its segments and its section headers.
fn file_end(image: &[u8]) -> Option<usize> {
    let sections = word(image, 40, 8)?.checked_add(word(image, 58, 2)? * word(image, 60, 2)?)? as usize;
    let headers = program_headers(image)?;
    let segments = headers.iter().map(|h| h.offset.saturating_add(h.filesz)).max()?;
    Some(sections.max(segments)).filter(|end| *end <= image.len())
}

/// A place that is within the image (so that adding small numbers to it can't overflow).
fn inside(image: &[u8], place: u64) -> Option<usize> {
    usize::try_from(place).ok().filter(|place| *place <= image.len())
}

/// A little-endian number of `size` bytes.
fn word(image: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = image.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
#[path = "vdso_tests.rs"]
mod tests;
