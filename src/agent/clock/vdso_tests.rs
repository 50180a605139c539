//! The layout of this machine's real vDSO, the listing of the stub, and images that are refused.

use super::*;

/// Our own vDSO.
fn image() -> Vec<u8> {
    let memory = crate::agent::clock::proc::Memory::open(std::process::id() as i32).unwrap();
    memory.vdso_image().unwrap()
}

fn apply(image: &mut [u8], writes: &[Write]) {
    for (at, bytes) in writes {
        image[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
}

#[test]
fn installs_changes_and_restores() {
    let original = image();
    let mut image = original.clone();
    let layout = Layout::of(1, &image).unwrap();
    assert!(!layout.patched());
    assert!(layout.restore(&image).is_empty());
    apply(&mut image, &layout.install(&original, 5));
    let patched = Layout::of(1, &image).unwrap();
    assert!(patched.patched());
    for (entry, (_, at)) in patched.entries.iter().zip(FUNCTIONS) {
        let distance = i32::from_le_bytes(image[entry + 1..entry + 5].try_into().unwrap());
        assert_eq!(image[*entry], 0xe9);
        assert_eq!((*entry as i64 + 5 + i64::from(distance)) as usize, patched.stub().start + at);
    }
    let change = patched.install(&image, -7);
    assert_eq!(change, [(patched.home + OFFSET_AT, (-7i64).to_le_bytes().to_vec())]);
    apply(&mut image, &change);
    let writes = patched.restore(&image);
    apply(&mut image, &writes);
    assert_eq!(image[..patched.home], original[..patched.home]);
    apply(&mut image, &[patched.erase()]);
    assert_eq!(image, original);
}

#[test]
fn nothing_but_the_three_entries_and_the_padding_changes() {
    let original = image();
    let mut image = original.clone();
    let layout = Layout::of(1, &image).unwrap();
    apply(&mut image, &layout.install(&original, i64::MIN));
    let changed: Vec<usize> = (0..image.len()).filter(|at| image[*at] != original[*at]).collect();
    let allowed = |at: &usize| {
        (layout.home..layout.home + LEN).contains(at)
            || layout.entries.iter().any(|e| (*e..e + JUMP).contains(at))
    };
    assert!(changed.iter().all(allowed), "{changed:x?}");
    assert!(layout.entries.iter().all(|entry| entry + JUMP <= layout.home));
}

#[test]
fn a_half_done_patch_is_completed() {
    let original = image();
    let layout = Layout::of(1, &original).unwrap();
    let mut half = original.clone();
    apply(&mut half, &layout.install(&original, 5)[..2]);
    let mut full = original.clone();
    apply(&mut full, &layout.install(&original, 6));
    let again = Layout::of(1, &half).unwrap();
    let writes = again.install(&half, 6);
    apply(&mut half, &writes);
    assert_eq!(half, full);
}

#[test]
fn refuses_what_it_does_not_know() {
    let good = image();
    let layout = Layout::of(7, &good).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = good.clone();
        change(&mut image);
        Layout::of(7, &image).unwrap_err()
    };
    assert_eq!(refused(&|i| i[4] = 1), ClockError::Foreign { pid: 7, class: 1, machine: 62 });
    assert_eq!(refused(&|i| i[18] = 183), ClockError::Foreign { pid: 7, class: 2, machine: 183 });
    assert_eq!(refused(&|i| i[layout.home + 3] = 1), ClockError::Altered { pid: 7 });
    assert_eq!(
        refused(&|i| {
            apply(i, &layout.install(&good, 1));
            i[layout.home + CODE_AT + 3] ^= 1;
        }),
        ClockError::Altered { pid: 7 }
    );
    let cut = refused(&|i| i.truncate(layout.home + LEN - 1));
    assert_eq!(cut, ClockError::NoRoom { pid: 7, place: "end of the vDSO" });
    assert_eq!(refused(&|i| i.clear()), ClockError::Foreign { pid: 7, class: 0, machine: 0 });
    let name = good.windows(11).position(|w| w == b"__vdso_time").unwrap();
    assert_eq!(refused(&|i| i[name + 7] = b'x'), ClockError::NoSymbol { pid: 7, symbol: "__vdso_time" });
}

#[test]
fn never_panics_on_garbage() {
    let good = image();
    for at in 0..0x600 {
        for value in [0, 0x7f, 0xff] {
            let mut image = good.clone();
            image[at] = value;
            let _ = Layout::of(1, &image);
        }
        let _ = Layout::of(1, &good[..at * 5]);
    }
}

#[test]
fn finds_signal_frames() {
    let frame = |ip: u64, flags: u64, segments: u64| {
        [1, 2, ip, flags, segments, 9].iter().flat_map(|w: &u64| w.to_le_bytes()).collect::<Vec<u8>>()
    };
    let range = std::slice::from_ref(&(100..200));
    assert!(signal_frame_in(&frame(150, 0x246, 0x002b_0000_0000_0033), range));
    assert!(!signal_frame_in(&frame(99, 0x246, 0x002b_0000_0000_0033), range));
    assert!(!signal_frame_in(&frame(150, 0x246, 0x7fff_0000_1234), range));
    assert!(!signal_frame_in(&frame(150, 0, 0x33), range));
    assert!(!signal_frame_in(&[1, 2, 3], range));
}

/// The comments are the source of the code: the assembler (if there is one) must make the same
/// bytes out of them.
#[test]
fn the_listing_is_what_the_code_does() {
    let source = include_str!("vdso.rs");
    let start = source.find("const CODE: ").unwrap();
    let block = &source[start..start + source[start..].find("];").unwrap()];
    let mut assembly = String::from(".intel_syntax noprefix\n");
    for line in block.lines().filter_map(|line| line.split_once("// ")).map(|(_, comment)| comment) {
        let Some((at, instruction)) = line.split_once(' ') else { continue };
        if at.len() != 2 || usize::from_str_radix(at, 16).is_err() {
            continue;
        }
        let instruction =
            instruction.split("   ").next().unwrap().split_once("  ").map_or(instruction, |_| instruction);
        let mut words = instruction.split_whitespace();
        let (op, rest) = (words.next().unwrap(), words.collect::<Vec<_>>());
        // Operands end where the remark begins: one word, or two if the first ends in a comma.
        let operands = rest.iter().take(if rest.first().is_some_and(|o| o.ends_with(',')) { 2 } else { 1 });
        let operands: String = operands.map(|o| format!("{o} ")).collect();
        let operands = match op {
            "jmp" | "jz" | "jnz" | "jne" | "jns" | "call" => format!("L{}", operands.trim()),
            "ret" | "cqo" | "syscall" => String::new(),
            _ => operands.replace("[rip-3b]", "[rip-0x3b]"),
        };
        assembly += &format!(".org 0x{at}, 0xcc\nL{at}: {op} {operands}\n");
    }
    assembly += &format!(".org {}, 0xcc\n", CODE.len());
    let dir = tempfile::tempdir().unwrap();
    let (from, object, to) = (dir.path().join("s.s"), dir.path().join("s.o"), dir.path().join("s.bin"));
    std::fs::write(&from, &assembly).unwrap();
    let run =
        |program: &str, args: &[&std::ffi::OsStr]| std::process::Command::new(program).args(args).output();
    let Ok(out) = run("as", &[from.as_os_str(), "-o".as_ref(), object.as_os_str()]) else { return };
    assert!(out.status.success(), "{}\n{assembly}", String::from_utf8_lossy(&out.stderr));
    let flags: [&std::ffi::OsStr; 4] = ["-O".as_ref(), "binary".as_ref(), object.as_os_str(), to.as_os_str()];
    run("objcopy", &flags).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), CODE, "{assembly}");
}
