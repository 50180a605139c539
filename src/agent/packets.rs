//! A user-space stand-in for `tc netem`, for kernels without it: delays, jitters, reorders, duplicates and
//! corrupts the packets that firewall rules bring into an NFQUEUE, each by its IPv4 source address.
//!
//! ```text
//!   peer ─► INPUT ─► iptables -A INPUT -s PEER -j NFQUEUE --queue-num 7 --queue-bypass
//!                                        │
//!              PacketQueue::open(7, seed)└─► decide (fate) ─► hold (held) ─► verdict ─► the local process
//! ```
//!
//! ```ignore
//! let queue = PacketQueue::open(7, 42)?;
//! let peer = "10.0.0.2".parse().expect("an address");
//! queue.treat(peer, Treatment { delay_us: 20_000, jitter_us: 5_000, ..Treatment::default() });
//! // … later:
//! println!("{:?}", queue.treated(peer));
//! ```
//!
//! What is promised:
//!
//! * **Order.** A packet never leaves before an earlier one of the same source, also with jitter, unless it
//!   is chosen to be reordered: then it leaves at once and overtakes what is held. (Jitter therefore shows
//!   in full only for packets that are further apart than the jitter.) Copies follow their original.
//! * **No loss.** A full queue, a reader that is too slow and the end of the queue let packets pass.
//! * **Change.** A new treatment holds from the next packet on; what is held leaves no later than a packet
//!   that came in at the moment of the change could. Lifting a treatment so frees what is held, in order.
//! * **Choice.** Every source has its own random stream of the seed; the n-th packet of a source has the
//!   same choices made for it in every run.
//!
//! Deliberately not: a maker of firewall rules, a rate limiter, a dropper of packets (a rule does that
//! better), or of use for IPv6 (its packets pass at once). Offloaded segments come in cut to packets of the
//! MTU and leave so; a bit is flipped in each of these by its own chance.

mod fate;
mod held;
mod ipv4;
mod netlink;
mod sockets;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use held::Holding;
use sockets::{Copier, Queue};

/// What we hold at most: 6 s of 20 000 packets/s. More packets pass at once, counted as overflowed.
const HOLD_AT_MOST: usize = 120_000;
/// What the kernel queues at most. There is room for those that still await us in the socket, so that it is
/// our limit that is met, which is counted, and not the kernel's, which is not.
const QUEUE_AT_MOST: u32 = 200_000;
/// The nice value of the reader.
const MOST_FAVOURED: i32 = -20;
/// Packets that are read before those that are due are looked after again.
const BURST: usize = 64;

/// What to do to the packets of a source. The default lets them pass at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Treatment {
    /// How long every packet is kept, in microseconds.
    pub delay_us: u64,
    /// A random time, uniform in 0 to this many microseconds, that is added for each packet.
    pub jitter_us: u64,
    /// The probability that a packet escapes delay and jitter, and so overtakes those that are held.
    pub reorder: f64,
    /// The probability that a packet is followed by a copy of itself. The copy is not corrupted.
    pub duplicate: f64,
    /// The probability that one random bit of what the packet carries is flipped, without mending any
    /// checksum: the kernel drops the packet and counts it (`InCsumErrors`).
    pub corrupt: f64,
}

/// What has been done to the packets of a source since the queue was opened. No number ever goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Treated {
    /// Packets that came in; copies that we made ourselves are not counted.
    pub packets: u64,
    /// Packets that were kept back and have been let go.
    pub delayed: u64,
    /// How long these were really kept, in nanoseconds, all together.
    pub delayed_ns: u64,
    /// Packets that escaped their delay (reorder).
    pub escaped: u64,
    /// Copies sent.
    pub duplicated: u64,
    /// Packets corrupted.
    pub corrupted: u64,
    /// Packets that passed untreated because too many were held (of this source), or that the kernel let
    /// pass because we were too slow (of any source; the kernel does not say which).
    pub overflowed: u64,
}

/// A reader of an NFQUEUE. Dropping it ends its thread and lets what is held go on at once.
#[derive(Debug)]
pub struct PacketQueue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the reader thread shares with the owner.
#[derive(Debug)]
struct Shared {
    holding: Mutex<Holding>,
    /// Why the reader ended before its time.
    failure: Mutex<Option<(io::ErrorKind, String)>>,
    stop: AtomicBool,
    /// Wakes the reader, because what is due next may have changed.
    wake: OwnedFd,
    epoch: Instant,
}

impl PacketQueue {
    /// Binds the queue in the network namespace of the calling thread and starts its reader, a thread that
    /// may well be the only part of the process that works in this namespace.
    ///
    /// # Errors
    ///
    /// When the queue is bound already (`EPERM` or `EBUSY`), or the process lacks `CAP_NET_ADMIN` or
    /// `CAP_NET_RAW`.
    pub fn open(number: u16, seed: u64) -> io::Result<PacketQueue> {
        let shared = Arc::new(Shared {
            holding: Mutex::new(Holding::new(seed, HOLD_AT_MOST)),
            failure: Mutex::new(None),
            stop: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            epoch: Instant::now(),
        });
        let copier = Copier::open()?;
        let queue = Queue::bind(number, QUEUE_AT_MOST)?;
        let mut reader = Reader { queue, copier, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new().name(format!("packets-{number}")).spawn(move || {
            if let Err(error) = reader.run() {
                *lock(&reader.shared.failure) = Some((error.kind(), error.to_string()));
            }
        })?;
        Ok(PacketQueue { shared, thread: Some(thread) })
    }

    /// Treats the packets of a source so from now on.
    pub fn treat(&self, source: Ipv4Addr, treatment: Treatment) {
        self.shared.holding().treat(source, treatment, self.shared.now());
        self.shared.wake();
    }

    /// What has been done to the packets of a source so far.
    pub fn treated(&self, source: Ipv4Addr) -> Treated {
        self.shared.holding().treated(source)
    }

    /// Whether the reader still works. A reader that failed treats nothing any more (the kernel drops what it
    /// held, and with `--queue-bypass` later packets pass): a test that relied on it tested something else.
    ///
    /// # Errors
    ///
    /// The error that ended the reader.
    pub fn check(&self) -> io::Result<()> {
        match &*lock(&self.shared.failure) {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None if self.thread.as_ref().is_some_and(JoinHandle::is_finished) => {
                Err(io::Error::other("the reader of the packet queue ended"))
            }
            None => Ok(()),
        }
    }
}

impl Drop for PacketQueue {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // It can only have panicked; there is nothing left to do about that.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn holding(&self) -> MutexGuard<'_, Holding> {
        lock(&self.holding)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn wake(&self) {
        // It only fails when the counter is full, and then the reader is woken anyhow.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The thread that reads the queue.
struct Reader {
    queue: Queue,
    copier: Copier,
    shared: Arc<Shared>,
}

impl Reader {
    fn run(&mut self) -> io::Result<()> {
        // What is tested keeps the processors busy, and a late reader is a longer delay than was asked for.
        // (`None` is the calling thread, not the process; without the right to do this it goes without.)
        let _ = rustix::process::setpriority_process(None, MOST_FAVOURED);
        while !self.shared.stop.load(Ordering::Acquire) {
            self.wait()?;
            self.take_in(BURST)?;
            self.let_go()?;
        }
        self.finish()
    }

    /// Waits for a packet, for the next that is due, or for the owner.
    fn wait(&self) -> io::Result<()> {
        let due = self.shared.holding().next_due();
        let timeout = due.map(|due| {
            let left = Duration::from_nanos(due.saturating_sub(self.shared.now()));
            // A time too far away for the kernel is as good as waiting for ever and waking now and then.
            Timespec::try_from(left.min(Duration::from_secs(3_600))).unwrap_or_default()
        });
        let mut waited_for = [
            PollFd::from_borrowed_fd(self.queue.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.shared.wake.as_fd(), PollFlags::IN),
        ];
        match poll(&mut waited_for, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !waited_for[1].revents().is_empty() {
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        }
        Ok(())
    }

    /// Takes in what waits in the socket, at most so many; false when nothing waits any more.
    fn take_in(&mut self, most: usize) -> io::Result<bool> {
        for _ in 0..most {
            let Some(packet) = self.queue.next()? else { return Ok(false) };
            let mut holding = self.shared.holding();
            holding.arrive(packet, self.shared.now());
            holding.lost(self.queue.lost());
        }
        Ok(true)
    }

    /// Lets go what is due by now; what comes in meanwhile is for the next time.
    fn let_go(&mut self) -> io::Result<()> {
        let by = self.shared.now();
        loop {
            let now = self.shared.now();
            let Some(packet) = self.shared.holding().leave(by, now) else { break };
            self.queue.accept(packet.id, packet.altered.as_deref())?;
            if let Some(copy) = packet.copy {
                self.send_copy(packet.source, copy)?;
            }
        }
        Ok(self.queue.flush()?)
    }

    /// Sends a copy of the packet that was let go last.
    fn send_copy(&mut self, source: Ipv4Addr, copy: Vec<u8>) -> io::Result<()> {
        // The original must have gone on before.
        self.queue.flush()?;
        // A copy that cannot be sent (`lo` is down, a multicast destination) is not counted.
        if self.copier.send(copy).is_ok() {
            self.shared.holding().copied(source);
            // It awaits us in the queue by now, as a rule: have it go on before the next packet does.
            self.take_in(BURST)?;
            self.queue.flush()?;
        }
        Ok(())
    }

    /// Lets everything go. The entrance is closed first: closing the socket drops what is in the queue.
    fn finish(&mut self) -> io::Result<()> {
        self.queue.close_entrance()?;
        while self.take_in(BURST)? {}
        self.shared.holding().give_up(self.shared.now());
        self.let_go()
    }
}

/// Locks, also when another thread panicked while it held the lock: counters and a heap are never half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
