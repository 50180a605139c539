//! The clock of real processes: ahead, behind, back; under load, stopped, blocked, unreachable.
//!
//! Needs the right to trace (root, or CAP_SYS_PTRACE).
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)]

mod kids;

use kids::Kid;
use std::time::{Duration, Instant};
use tribunal::agent::clock::{
    ClockError, keep_tree, measure, measure_tree, raw_calls, raw_calls_of_tree, reachable, set_offset,
    set_tree,
};

const SECOND: i64 = 1_000_000_000;
/// How well a measurement must agree: this machine may be busy.
const CLOSE: i64 = 200_000_000;
/// How long is waited for what must happen, however slow the machine is.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until something holds.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Not a test by itself: the children of the others.
#[test]
fn child() {
    kids::play();
}

fn assert_close(is: i64, wanted: i64, what: &str) {
    assert!((is - wanted).abs() < CLOSE, "{what} is off by {is} ns instead of {wanted} ns");
}

/// Sets, and checks what the process itself sees.
fn set_and_check(kid: &mut Kid, offset: i64) {
    let measured = set_offset(kid.pid, offset).unwrap();
    assert_close(measured, offset, "the measured clock");
    let seen = kid.ask("");
    for (n, what) in ["realtime", "coarse", "gettimeofday"].iter().enumerate() {
        assert_close(seen[n], offset, what);
    }
    // time() has no fractions, and the original is coarse: up to a second and a tick behind.
    assert!(
        (-SECOND - 10_000_000..CLOSE).contains(&(seen[3] - offset)),
        "time is off by {} ns, not {offset}",
        seen[3]
    );
    assert!(seen[4].abs() < CLOSE, "monotonic is off by {} ns", seen[4]);
}

#[test]
fn bumps_ahead_and_behind_and_back() {
    for mut kid in [Kid::start("clock"), Kid::adopted("clock")] {
        let original = kid.vdso();
        reachable(kid.pid).unwrap();
        assert_eq!(measure(kid.pid), Ok(0));
        assert_eq!(kid.vdso(), original, "measuring must not change anything");
        let day = 86_400 * SECOND;
        for offset in
            [SECOND, -SECOND, 100 * day, -100 * day, 999_999_999, -999_999_999, -1_500_000_001, 5 * SECOND]
        {
            set_and_check(&mut kid, offset);
            assert_close(measure(kid.pid).unwrap(), offset, "the clock measured again");
        }
        assert_eq!(set_offset(kid.pid, 0), Ok(0));
        assert_eq!(kid.vdso(), original, "the original bytes must be back");
        assert_eq!(set_offset(kid.pid, 0), Ok(0), "again");
        let seen = kid.ask("");
        assert_close(seen[0], 0, "realtime");
        set_and_check(&mut kid, 3 * SECOND);
    }
}

#[test]
fn carries_nanoseconds() {
    let mut kid = Kid::start("clock");
    for offset in (-10..10).map(|n| n * 123_456_789) {
        for _ in 0..10 {
            // The child checks that tv_nsec is in range.
            set_and_check(&mut kid, offset);
        }
    }
}

#[test]
fn survives_200_changes_with_spinning_threads() {
    for part in ["spin", "signals"] {
        let mut kid = Kid::start(part);
        let original = kid.vdso();
        let before = kid.ask("");
        let mut times = Vec::new();
        for n in 0..200 {
            let offset = [0, 1, -1, 7][n % 4] * (n as i64) * 1_234_567_891;
            let start = Instant::now();
            let measured = set_offset(kid.pid, offset).unwrap();
            times.push(start.elapsed());
            assert_close(measured, offset, "the measured clock");
        }
        let after = kid.ask("");
        assert!(after[0] > before[0] + 1000, "{part}: {before:?} {after:?}");
        assert_eq!(set_offset(kid.pid, 0), Ok(0));
        if part == "spin" {
            assert_eq!(kid.vdso(), original);
        } else {
            assert!(after[1] > 0, "signals were handled");
        }
        times.sort();
        println!("{part}: change min {:?} median {:?} max {:?}; {after:?}", times[0], times[100], times[199]);
    }
}

#[test]
fn reaches_threads_that_come_and_go() {
    let mut kid = Kid::adopted("threads");
    for n in 1..60i64 {
        let offset = if n % 3 == 0 { 0 } else { n * SECOND };
        assert_close(set_offset(kid.pid, offset).unwrap(), offset, "the measured clock");
        assert_close(kid.ask("")[1], offset, "the clock");
    }
    let made = kid.ask("")[0];
    wait_until("it goes on making threads", || kid.ask("")[0] > made);
}

#[test]
fn a_stopped_process_stays_stopped() {
    for mut kid in [Kid::start("spin"), Kid::adopted("spin")] {
        let reads = kid.ask("")[0];
        kid.signal(libc::SIGSTOP);
        let all_stopped = || kid.tasks().iter().all(|(state, _)| *state == 'T');
        wait_until("it is stopped", all_stopped);
        for offset in [60 * SECOND, -60 * SECOND, 0, 5 * SECOND] {
            assert_close(set_offset(kid.pid, offset).unwrap(), offset, "the measured clock");
            // The kernel puts a thread back into the stop when it gets to it. From then on it must not run.
            wait_until("it is stopped again", all_stopped);
            let before = kid.tasks();
            std::thread::sleep(Duration::from_millis(30));
            assert_eq!(kid.tasks(), before, "states, and ticks of processor time");
        }
        kid.signal(libc::SIGCONT);
        assert!(kid.ask("")[0] >= reads);
        assert_close(measure(kid.pid).unwrap(), 5 * SECOND, "the clock");
    }
}

#[test]
fn blocked_calls_go_on() {
    let mut kid = Kid::start("blocked");
    let start = Instant::now();
    let mut changes = 0;
    // Until the one that a change ends has met one: it may begin late.
    while start.elapsed() < Duration::from_millis(800) || !kid.ask_text("how far?").contains("epoll_5s") {
        assert!(start.elapsed() < LIMIT, "no change meets a blocked call");
        set_offset(kid.pid, changes * SECOND).unwrap();
        changes += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let timeout = -i64::from(libc::ETIMEDOUT);
    let wanted = [("nanosleep", 0), ("poll", 0), ("futex", timeout), ("select", 0), ("read", 1)];
    let mut report = String::new();
    let mut ended: Vec<(String, i64, u64)> = Vec::new();
    while !wanted.iter().all(|(name, _)| ended.iter().any(|(ended, ..)| ended == name)) {
        assert!(start.elapsed() < 2 * LIMIT, "a call does not end: {report}");
        std::thread::sleep(Duration::from_millis(20));
        report = kid.ask_text("how far?");
        ended = report
            .split_whitespace()
            .filter_map(|call| {
                let (name, rest) = call.split_once('=')?;
                let (value, after) = rest.split_once('@')?;
                Some((name.to_owned(), value.parse().ok()?, after.parse().ok()?))
            })
            .collect();
    }
    println!("{changes} changes: {report}");
    for (name, wanted) in wanted {
        let (_, value, after) = ended.iter().find(|call| call.0 == name).expect("it has ended");
        assert_eq!(*value, wanted, "{report}");
        // None ends early; how late depends on what else the machine does.
        assert!(*after >= 990, "{report}");
    }
    // Without a limit it goes on; with one the kernel makes it return EINTR.
    assert!(!ended.iter().any(|call| call.0 == "epoll"), "{report}");
    assert!(ended.iter().any(|call| call.0 == "epoll_5s" && call.1 == -i64::from(libc::EINTR)), "{report}");
}

#[test]
fn no_signal_is_lost() {
    let mut kid = Kid::adopted("queue");
    assert_eq!(kid.line(), "ready");
    let pid = kid.pid;
    const SIGNALS: u64 = 5000;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for number in 1..=SIGNALS {
                kids::queue(pid, number);
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        let mut offset = 0;
        while !sender.is_finished() {
            offset = (offset + SECOND) % (3 * SECOND);
            assert_close(set_offset(pid, offset).unwrap(), offset, "the measured clock");
        }
    });
    let all = [SIGNALS as i64, (SIGNALS * (SIGNALS + 1) / 2) as i64];
    wait_until("every signal has been handled", || kid.ask("")[0] >= all[0]);
    assert_eq!(kid.ask(""), all);
}

#[test]
fn errors_are_those_of_the_kernel() {
    let mut kid = Kid::start("clock");
    set_and_check(&mut kid, SECOND);
    assert_eq!(kid.ask("null"), [-1, i64::from(libc::EFAULT)]);
}

#[test]
fn a_fork_inherits_and_an_exec_does_not() {
    let mut kid = Kid::start("clock");
    set_and_check(&mut kid, 1000 * SECOND);
    assert_close(kid.ask("fork")[0], 1000 * SECOND, "the fork's clock");
    let fresh = kid.ask("exec")[0];
    assert!(fresh.abs() < 500 * SECOND, "the executed program's clock is off by {fresh}");
}

#[test]
fn a_program_that_always_executes_another_is_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("again.sh");
    std::fs::write(&script, "exec sh \"$0\"\n").unwrap();
    let mut child = std::process::Command::new("sh").arg(script).spawn().unwrap();
    let (pid, mut done) = (child.id() as i32, 0);
    let start = Instant::now();
    for n in 1.. {
        if (n >= 50 && done > 25) || start.elapsed() > LIMIT {
            break;
        }
        // It may well execute the next one each time that we look.
        match set_offset(pid, n * SECOND) {
            Ok(_) => done += 1,
            Err(ClockError::Gone { .. } | ClockError::NoVdso { .. } | ClockError::Failed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "it must not have ended");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(done > 25, "it was reached {done} times only");
}

#[test]
fn says_what_can_not_be_reached() {
    let myself = std::process::id() as i32;
    assert_eq!(set_offset(myself, 1), Err(ClockError::Itself { pid: myself }));
    for call in [measure as fn(i32) -> Result<i64, ClockError>, |pid| set_offset(pid, 5)] {
        assert_eq!(call(4_000_000), Err(ClockError::Gone { pid: 4_000_000 }));
        // kthreadd
        assert!(
            matches!(call(2), Err(ClockError::NoVdso { pid: 2 } | ClockError::Gone { pid: 2 })),
            "{:?}",
            call(2)
        );
    }
    assert_eq!(set_offset(1, i64::MAX), Err(ClockError::Offset { offset_ns: i64::MAX }));
    let mut kid = Kid::start("clock");
    kid.child().kill().unwrap();
    wait_until("it has ended", || kid.state() == 'Z');
    // A zombie, as nobody has waited for it yet.
    let error = set_offset(kid.pid, 5).unwrap_err();
    assert_eq!(error, ClockError::Gone { pid: kid.pid });
    println!("{error}");
}

#[test]
fn who_waits_for_a_child_does_not_notice() {
    let mut kid = Kid::start("clock");
    let pid = kid.pid;
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| kid.child().wait());
        for n in 0..20 {
            assert_close(set_offset(pid, n * SECOND).unwrap(), n * SECOND, "the clock");
        }
        assert!(!waiter.is_finished(), "the waiter was woken by the tracing");
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(waiter.join().unwrap().unwrap().signal(), Some(libc::SIGKILL));
    });
}

/// Whoever makes them all the time is seen to make some, as soon as it gets the processor.
fn makes_raw_calls(count: impl Fn() -> u64) {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while count() < 2 {
        assert!(std::time::Instant::now() < until, "no raw call was seen");
    }
}

#[test]
fn tells_raw_calls_from_others() {
    let (raw, vdso) = (Kid::start("raw"), Kid::adopted("vdso"));
    let span = Duration::from_millis(300);
    makes_raw_calls(|| raw_calls(raw.pid, span).unwrap());
    assert_eq!(raw_calls(vdso.pid, span), Ok(0));
    // The stub's own system calls are within the vDSO.
    set_offset(vdso.pid, SECOND).unwrap();
    assert_eq!(raw_calls(vdso.pid, span), Ok(0));
    for kid in [raw, vdso] {
        assert_close(measure(kid.pid).unwrap(), measure(kid.pid).unwrap(), "it goes on");
        assert!(matches!(kid.state(), 'S' | 'R'));
    }
}

#[test]
fn a_server_behind_a_shell_is_set_wrong_with_it() {
    let mut server = Kid::adopted("clock");
    let shell = server.child().id() as i32;
    assert_ne!(shell, server.pid);
    assert_close(set_tree(shell, 50 * SECOND).unwrap(), 50 * SECOND, "the worst of both");
    assert_close(server.ask("")[0], 50 * SECOND, "the server's clock");
    assert_close(measure(shell).unwrap(), 50 * SECOND, "the shell's clock");
    assert_eq!(keep_tree(shell, 50 * SECOND), Ok(0), "nothing to do");
    // One that goes its own way is the one that counts, until it is put back.
    set_offset(server.pid, 0).unwrap();
    assert_close(measure_tree(shell, 50 * SECOND).unwrap(), 0, "the worst of both");
    assert_eq!(keep_tree(shell, 50 * SECOND), Ok(1));
    assert_close(server.ask("")[0], 50 * SECOND, "the server's clock");
    assert_eq!(set_tree(shell, 0), Ok(0));
    assert_eq!((measure_tree(shell, 0), keep_tree(shell, 0)), (Ok(0), Ok(0)));
}

#[test]
fn raw_calls_of_a_server_behind_a_shell_are_seen() {
    let mut server = Kid::adopted("raw");
    let shell = server.child().id() as i32;
    let span = Duration::from_millis(200);
    assert_eq!(raw_calls(shell, span), Ok(0));
    makes_raw_calls(|| raw_calls_of_tree(shell, span).unwrap());
}
