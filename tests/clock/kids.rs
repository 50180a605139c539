//! Children for the tests: the test binary itself, started anew with `CLOCK_CHILD` set.
//!
//! A child prints its number, and then whatever its part demands, one line per answer.
#![allow(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A child process; killed when dropped.
pub(crate) struct Kid {
    pub(crate) pid: i32,
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Kid {
    /// Starts a child that plays `part`; its parent is this process.
    pub(crate) fn start(part: &str) -> Kid {
        Kid::spawn(Command::new(std::env::current_exe().unwrap()).args(ARGS).env("CLOCK_CHILD", part))
    }

    /// The same with a shell in between, so that its parent is another process.
    pub(crate) fn adopted(part: &str) -> Kid {
        let exe = std::env::current_exe().unwrap();
        let script = r#"exec 3<&0; "$0" "$@" <&3 & wait"#;
        Kid::spawn(Command::new("sh").args(["-c", script]).arg(exe).args(ARGS).env("CLOCK_CHILD", part))
    }

    /// Any program that prints its number first.
    pub(crate) fn spawn(command: &mut Command) -> Kid {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut kid = Kid { pid: 0, child, input, output };
        kid.pid = kid.line().strip_prefix("pid ").unwrap().parse().unwrap();
        kid
    }

    /// The next line that is meant for us (libtest prints some of its own).
    pub(crate) fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the child has died");
            let line = line.trim();
            if !(line.is_empty() || line.starts_with("running ") || line.starts_with("test ")) {
                return line.to_owned();
            }
        }
    }

    /// Asks, and returns the numbers in the answer.
    pub(crate) fn ask(&mut self, question: &str) -> Vec<i64> {
        writeln!(self.input, "{question}").unwrap();
        self.line()
            .split_whitespace()
            .map(|n| n.parse().unwrap_or_else(|_| panic!("not a number: {n}")))
            .collect()
    }

    pub(crate) fn ask_text(&mut self, question: &str) -> String {
        writeln!(self.input, "{question}").unwrap();
        self.line()
    }

    /// The bytes of its vDSO.
    pub(crate) fn vdso(&self) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap();
        let line = maps.lines().find(|l| l.ends_with("[vdso]")).unwrap();
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        std::fs::File::open(format!("/proc/{}/mem", self.pid))
            .unwrap()
            .read_exact_at(&mut bytes, from)
            .unwrap();
        bytes
    }

    pub(crate) fn signal(&self, signal: i32) {
        unsafe { libc::kill(self.pid, signal) };
    }

    /// The letter in /proc/PID/stat: R, S, T (stopped), t (traced), ...
    pub(crate) fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    /// State and ticks of processor time of each of its threads.
    pub(crate) fn tasks(&self) -> Vec<(char, u64)> {
        let of = |stat: &str| {
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            let ticks = |field: &str| field.parse::<u64>().unwrap();
            (fields[0].chars().next().unwrap(), ticks(fields[11]) + ticks(fields[12]))
        };
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        tasks.map(|task| of(&std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap())).collect()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Kid {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ARGS: [&str; 3] = ["--exact", "child", "--nocapture"];

/// To be called by the test named `child`: plays the part that the environment names, if any.
pub(crate) fn play() {
    let Ok(part) = std::env::var("CLOCK_CHILD") else { return };
    println!("\npid {}", std::process::id());
    match part.as_str() {
        "clock" => clocks(),
        "spin" => spin(false),
        "signals" => spin(true),
        "queue" => count_signals(),
        "threads" => make_threads(),
        "blocked" => blocked(),
        "raw" => poll_clock(true),
        "vdso" => poll_clock(false),
        other => panic!("no such part: {other}"),
    }
    std::process::exit(0);
}

pub(crate) fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: -1 };
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut ts) }, 0);
    assert!((0..1_000_000_000).contains(&ts.tv_nsec), "tv_nsec {}", ts.tv_nsec);
    ts
}

pub(crate) fn ns(clock: libc::clockid_t) -> i64 {
    let ts = read(clock);
    ts.tv_sec * 1_000_000_000 + ts.tv_nsec
}

/// The real time, past the vDSO.
fn true_ns(clock: libc::clockid_t) -> i64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut ts) }, 0);
    ts.tv_sec * 1_000_000_000 + ts.tv_nsec
}

/// How far off: realtime, coarse, gettimeofday, time, monotonic; all in ns.
fn offsets() -> String {
    let now = true_ns(libc::CLOCK_REALTIME);
    let real = ns(libc::CLOCK_REALTIME) - now;
    let coarse = ns(libc::CLOCK_REALTIME_COARSE) - true_ns(libc::CLOCK_REALTIME_COARSE);
    let mut tv = libc::timeval { tv_sec: 0, tv_usec: -1 };
    let mut zone = [-1i32; 2];
    assert_eq!(unsafe { libc::gettimeofday(&raw mut tv, std::ptr::null_mut()) }, 0);
    assert!((0..1_000_000).contains(&tv.tv_usec));
    let day = tv.tv_sec * 1_000_000_000 + tv.tv_usec * 1000 - now;
    unsafe {
        assert_eq!(libc::gettimeofday(&raw mut tv, zone.as_mut_ptr().cast()), 0);
        assert_ne!(zone, [-1, -1]);
        assert_eq!(libc::gettimeofday(std::ptr::null_mut(), std::ptr::null_mut()), 0);
    }
    let mut stored = 0;
    let time = unsafe { libc::time(&raw mut stored) };
    assert_eq!(time, stored);
    let same = unsafe { libc::time(std::ptr::null_mut()) };
    assert!(same == time || same == time + 1);
    // Seconds only: compared with the clock itself, the offset added.
    let seconds = time * 1_000_000_000 - now;
    let monotonic = ns(libc::CLOCK_MONOTONIC) - true_ns(libc::CLOCK_MONOTONIC);
    let _ = (ns(libc::CLOCK_BOOTTIME), ns(libc::CLOCK_MONOTONIC_COARSE), ns(libc::CLOCK_PROCESS_CPUTIME_ID));
    assert_eq!(unsafe { libc::clock_gettime(12345, std::ptr::null_mut()) }, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL));
    format!("{real} {coarse} {day} {seconds} {monotonic}")
}

fn clocks() {
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "null" => {
                let answer = unsafe { libc::clock_gettime(0, std::ptr::null_mut()) };
                println!("{answer} {}", std::io::Error::last_os_error().raw_os_error().unwrap());
            }
            "fork" => unsafe {
                let pid = libc::fork();
                if pid == 0 {
                    println!("{}", offsets());
                    libc::_exit(0);
                }
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            },
            "exec" => {
                let script = "use Time::HiRes; printf \"%d\\n\", Time::HiRes::time()*1e9";
                let out = Command::new("perl").args(["-e", script]).output().unwrap();
                let read: i64 = String::from_utf8(out.stdout).unwrap().trim().parse().unwrap();
                println!("{}", read - true_ns(libc::CLOCK_REALTIME));
            }
            _ => println!("{}", offsets()),
        }
    }
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(_: i32) {
    // Long enough to be found in: and it reads the clock itself.
    for _ in 0..20 {
        let _ = std::hint::black_box(ns(libc::CLOCK_REALTIME));
    }
    HANDLED.fetch_add(1, Relaxed);
}

/// Four threads read all clocks and check them; any question is answered by reads and signals.
fn spin(signals: bool) {
    let reads = Arc::new(AtomicU64::new(0));
    for _ in 0..4 {
        let reads = reads.clone();
        std::thread::spawn(move || {
            let mut last = 0;
            loop {
                let (before, at) = (ns(libc::CLOCK_MONOTONIC), read(libc::CLOCK_REALTIME));
                assert!(before >= last, "monotonic went back");
                last = before;
                let mut tv = libc::timeval { tv_sec: 0, tv_usec: -1 };
                unsafe { libc::gettimeofday(&raw mut tv, std::ptr::null_mut()) };
                assert!((0..1_000_000).contains(&tv.tv_usec) && at.tv_sec != 0);
                std::hint::black_box(unsafe { libc::time(std::ptr::null_mut()) });
                reads.fetch_add(1, Relaxed);
            }
        });
    }
    if signals {
        unsafe {
            libc::signal(libc::SIGALRM, handler as *const () as usize);
            let every = libc::timeval { tv_sec: 0, tv_usec: 200 };
            let timer = libc::itimerval { it_interval: every, it_value: every };
            libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, 0);
        }
    }
    std::panic::set_hook(Box::new(|info| {
        println!("{info}");
        std::process::abort();
    }));
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).is_ok_and(|n| n > 0) {
        println!("{} {}", reads.load(Relaxed), HANDLED.load(Relaxed));
    }
}

static SUM: AtomicU64 = AtomicU64::new(0);

extern "C" fn adder(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let value = unsafe { (*info).si_value().sival_ptr as u64 };
    SUM.fetch_add(value, Relaxed);
    HANDLED.fetch_add(1, Relaxed);
    let _ = std::hint::black_box(ns(libc::CLOCK_REALTIME));
}

/// The signal with which `queue` sends numbers.
pub(crate) fn queue_signal() -> i32 {
    libc::SIGRTMIN() + 2
}

/// Sends a number along with a signal, as often as it takes.
pub(crate) fn queue(pid: i32, number: u64) {
    let value = libc::sigval { sival_ptr: number as usize as *mut libc::c_void };
    while unsafe { libc::sigqueue(pid, queue_signal(), value) } == -1 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads the clock while it gets numbers by signals; answers with how many, and their sum.
fn count_signals() {
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = adder as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        assert_eq!(libc::sigaction(queue_signal(), &raw const action, std::ptr::null_mut()), 0);
    }
    std::thread::spawn(|| {
        loop {
            std::hint::black_box(ns(libc::CLOCK_REALTIME));
        }
    });
    println!("ready");
    for _ in std::io::stdin().lines() {
        println!("{} {}", HANDLED.load(Relaxed), SUM.load(Relaxed));
    }
}

/// Makes short-lived threads all the time; any question is answered by how many so far.
fn make_threads() {
    let made = Arc::new(AtomicU64::new(0));
    for _ in 0..2 {
        let made = made.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::spawn(|| std::hint::black_box(ns(libc::CLOCK_REALTIME))).join().unwrap();
                made.fetch_add(1, Relaxed);
            }
        });
    }
    for _ in std::io::stdin().lines() {
        println!("{} {}", made.load(Relaxed), ns(libc::CLOCK_REALTIME) - true_ns(libc::CLOCK_REALTIME));
    }
}

/// Reads the clock every millisecond, by a raw system call or through the vDSO.
fn poll_clock(raw: bool) {
    loop {
        std::hint::black_box(if raw { true_ns(libc::CLOCK_REALTIME) } else { ns(libc::CLOCK_REALTIME) });
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One blocking call: its name, what it returns (-errno for an error).
type Call = (&'static str, fn() -> i64);

fn result(value: i64) -> i64 {
    if value < 0 { -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { value }
}

fn epoll(timeout: i32) -> i64 {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    unsafe { result(i64::from(libc::epoll_wait(libc::epoll_create1(0), &raw mut event, 1, timeout))) }
}

/// Calls that block for a second (or for ever), each in a thread; "end" reports how they fared.
fn blocked() {
    static OVER: AtomicBool = AtomicBool::new(false);
    let calls: [Call; 7] = [
        ("nanosleep", || {
            let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            unsafe { result(libc::syscall(libc::SYS_nanosleep, &raw const second, 0)) }
        }),
        ("poll", || unsafe { result(i64::from(libc::poll(std::ptr::null_mut(), 0, 1000))) }),
        ("futex", || {
            let (word, second) = (0u32, libc::timespec { tv_sec: 1, tv_nsec: 0 });
            unsafe { result(libc::syscall(libc::SYS_futex, &raw const word, 0, 0, &raw const second)) }
        }),
        ("select", || {
            let mut second = libc::timeval { tv_sec: 1, tv_usec: 0 };
            let no = std::ptr::null_mut;
            unsafe { result(i64::from(libc::select(0, no(), no(), no(), &raw mut second))) }
        }),
        ("read", || {
            let (mut pipe, mut byte) = ([0; 2], 0u8);
            unsafe {
                libc::pipe(pipe.as_mut_ptr());
                let end = pipe[1];
                std::thread::spawn(move || {
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_secs(1) {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    libc::write(end, b"x".as_ptr().cast(), 1)
                });
                result(libc::read(pipe[0], (&raw mut byte).cast(), 1) as i64)
            }
        }),
        ("epoll_5s", || epoll(5000)),
        ("epoll", || epoll(-1)),
    ];
    let report = Arc::new(Mutex::new(String::new()));
    for (name, call) in calls {
        let report = report.clone();
        std::thread::spawn(move || {
            let start = Instant::now();
            let value = call();
            if !OVER.load(Relaxed) {
                let line = format!("{name}={value}@{} ", start.elapsed().as_millis());
                report.lock().unwrap().push_str(&line);
            }
        });
    }
    for _ in std::io::stdin().lines() {
        println!("{}.", report.lock().unwrap());
    }
    OVER.store(true, Relaxed);
}
