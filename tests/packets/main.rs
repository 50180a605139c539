//! The packet queue at work between two network namespaces (needs root; see `namespaces`).
//!
//! `cargo test --test queue -- --nocapture` also prints what was measured.

mod namespaces;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use namespaces::{LOCAL, OTHER, PEER, Pair, QUEUE, QUIET};
use tribunal::agent::packets::{PacketQueue, Treated, Treatment};

fn open(pair: &Pair) -> PacketQueue {
    pair.in_local(|| PacketQueue::open(QUEUE, 1)).unwrap()
}

/// How long is waited for what must come, however slow the machine is.
const LIMIT: Duration = Duration::from_secs(60);
/// So many packets may be under way to the queue. Of more than a thousand at once the interface drops some.
const WINDOW: u64 = 600;
/// After so many it is looked how many are.
const LOOK: u32 = 100;

/// Waits until something holds.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::yield_now();
    }
}

/// Sends numbered packets at least this far apart, spinning because sleeping is too coarse. Whoever stands still for a moment
/// does not make up for it with a burst, and waits until as many as may be under way have not been `seen` yet.
fn send_numbers(from: &UdpSocket, count: u32, apart: Duration, seen: impl Fn() -> u64) {
    let before = seen();
    let mut last = Instant::now();
    for number in 0..count {
        if number % LOOK == 0 {
            let arrived = || seen() - before + WINDOW >= u64::from(number + LOOK);
            wait_until("the queue sees what was sent", arrived);
        }
        while number > 0 && last.elapsed() < apart {
            std::hint::spin_loop();
        }
        last = Instant::now();
        from.send(&number.to_be_bytes()).unwrap();
    }
}

/// How many packets of the peer's a queue has seen.
fn seen_by(queue: &PacketQueue) -> impl Fn() -> u64 {
    || queue.treated(PEER).packets
}

/// Receives as many numbered packets as must come, and then those that should not, until there is silence.
fn receive_numbers(to: &UdpSocket, count: usize) -> Vec<u32> {
    receive_and_tell(to, count, |_| {})
}

/// The same, telling how many have come so far.
fn receive_and_tell(to: &UdpSocket, count: usize, tell: impl Fn(usize)) -> Vec<u32> {
    let (mut buffer, mut came) = ([0; 2048], Vec::new());
    loop {
        to.set_read_timeout(Some(if came.len() < count { LIMIT } else { QUIET })).unwrap();
        if to.recv(&mut buffer).is_err() {
            to.set_read_timeout(Some(QUIET)).unwrap();
            return came;
        }
        came.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
        tell(came.len());
    }
}

/// Receives a packet that must come.
fn receive_one(to: &UdpSocket) {
    to.set_read_timeout(Some(LIMIT)).unwrap();
    to.recv(&mut [0; 9]).unwrap();
    to.set_read_timeout(Some(QUIET)).unwrap();
}

/// Sends packets one after the other; how long each took, from the shortest to the longest.
fn pings(from: &UdpSocket, to: &UdpSocket, count: usize) -> Vec<Duration> {
    let ping = |_| {
        let start = Instant::now();
        from.send(b"ping").unwrap();
        receive_one(to);
        start.elapsed()
    };
    let mut took: Vec<Duration> = (0..count).map(ping).collect();
    took.sort();
    took
}

fn text(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends bytes from the peer over TCP and returns what came and how long it took.
fn transfer(pair: &Pair, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let listener = pair.in_local(|| TcpListener::bind((LOCAL, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let start = Instant::now();
    let received = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut received = Vec::new();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.read_to_end(&mut received).unwrap();
            received
        });
        let mut stream = pair.in_peer(|| TcpStream::connect(address).unwrap());
        stream.write_all(bytes).unwrap();
        drop(stream);
        receiver.join().unwrap()
    });
    (received, start.elapsed())
}

#[test]
fn a_delay_is_kept_precisely() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    queue.treat(PEER, Treatment { delay_us: 20_000, ..Treatment::default() });
    let took = pings(&from, &to, 50);
    let treated = queue.treated(PEER);
    let kept = Duration::from_nanos(treated.delayed_ns / treated.delayed);
    println!("20 ms: kept {kept:?}; sent to received {:?} / {:?} / {:?}", took[0], took[25], took[49]);
    assert_eq!((treated.packets, treated.delayed), (50, 50));
    assert!(took[0] >= Duration::from_millis(20));
    // Far more would be another delay. Who else wants the processor does not get it each time: the fastest tells.
    assert!(took[0] < Duration::from_millis(30));
    assert!(kept >= Duration::from_millis(20));
    queue.check().unwrap();
}

#[test]
fn untreated_packets_pass_at_once() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    let took = pings(&from, &to, 100);
    println!("untreated: {:?} / {:?} / {:?}", took[0], took[50], took[99]);
    // The fastest: it does not wait for anything; what the machine adds to the others is printed.
    assert!(took[0] < Duration::from_millis(2));
    assert_eq!(queue.treated(PEER), Treated { packets: 100, ..Treated::default() });
}

#[test]
fn jitter_keeps_the_order_and_reorder_does_not() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    let jitter = Treatment { delay_us: 5_000, jitter_us: 5_000, ..Treatment::default() };
    queue.treat(PEER, jitter);
    send_numbers(&from, 1_000, Duration::from_micros(200), seen_by(&queue));
    assert_eq!(receive_numbers(&to, 1_000), (0..1_000).collect::<Vec<_>>());
    let before = queue.treated(PEER);
    assert_eq!(before.delayed, 1_000);

    queue.treat(PEER, Treatment { jitter_us: 0, reorder: 0.25, ..jitter });
    send_numbers(&from, 1_000, Duration::from_micros(200), seen_by(&queue));
    let mut came = receive_numbers(&to, 1_000);
    let overtakers = came.windows(2).filter(|pair| pair[1] < pair[0]).count();
    let escaped = queue.treated(PEER).escaped;
    println!("reorder 0.25: {escaped} of 1000 escaped, {overtakers} falls in the order received");
    assert!((200..300).contains(&escaped));
    // Several may escape in between two that do not: fewer falls than escapes.
    assert!(overtakers > 30);
    came.sort_unstable();
    assert_eq!(came, (0..1_000).collect::<Vec<_>>());
}

#[test]
fn corrupted_udp_packets_are_checksum_errors() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    queue.treat(PEER, Treatment { corrupt: 1.0, ..Treatment::default() });
    let before = pair.counter("Udp", "InCsumErrors");
    for size in [0, 1, 10, 60, 100, 1_400, 1_472, 9_000] {
        (0..25).for_each(|_| assert_eq!(from.send(&text(size)).unwrap(), size));
    }
    // Large packets are only checked when the application reads them.
    let errors = || pair.counter("Udp", "InCsumErrors") - before;
    let start = Instant::now();
    while errors() < 200 && start.elapsed() < LIMIT {
        assert!(receive_numbers(&to, 0).is_empty());
    }
    assert!(receive_numbers(&to, 0).is_empty());
    let errors = errors();
    println!("corrupted UDP: {:?}, InCsumErrors {errors}", queue.treated(PEER));
    assert_eq!(queue.treated(PEER), Treated { packets: 200, corrupted: 200, ..Treated::default() });
    assert_eq!(errors, 200);
    queue.treat(PEER, Treatment::default());
    from.send(&[0, 0, 0, 5]).unwrap();
    assert_eq!(receive_numbers(&to, 1), [5]);
}

#[test]
fn tcp_mends_corruption() {
    let pair = Pair::new();
    let queue = open(&pair);
    queue.treat(PEER, Treatment { delay_us: 100, corrupt: 0.01, ..Treatment::default() });
    let before = pair.counter("Tcp", "InCsumErrors");
    let bytes = text(4 << 20);
    let (received, took) = transfer(&pair, &bytes);
    // The last of what was sent again may still be under way.
    let errors = || pair.counter("Tcp", "InCsumErrors") - before;
    wait_until("what was corrupted is dropped", || errors() == queue.treated(PEER).corrupted);
    let (errors, treated) = (errors(), queue.treated(PEER));
    println!("4 MiB with 1 % corrupted: {took:?}, {treated:?}, InCsumErrors {errors}");
    assert!(received == bytes);
    assert!(treated.corrupted > 10);
}

#[test]
fn tcp_transfers_20_megabytes_through_a_delay() {
    let pair = Pair::new();
    let queue = open(&pair);
    queue.treat(PEER, Treatment { delay_us: 5_000, ..Treatment::default() });
    let bytes = text(20_000_000);
    let (received, took) = transfer(&pair, &bytes);
    let treated = queue.treated(PEER);
    println!("20 MB through 5 ms: {took:?}, {treated:?}");
    assert!(received == bytes);
    assert_eq!(treated.overflowed, 0);
    assert!(treated.delayed_ns / treated.delayed >= 5_000_000);
}

#[test]
fn copies_come_once_each() {
    let pair = Pair::new();
    pair.sysctl("net.ipv4.conf.all.rp_filter=1");
    pair.sysctl("net.ipv4.conf.lo.rp_filter=1");
    let queue = open(&pair);
    let (from, to) = pair.udp();
    let twice = Treatment { delay_us: 2_000, duplicate: 1.0, ..Treatment::default() };
    queue.treat(PEER, twice);
    send_numbers(&from, 500, Duration::from_micros(500), seen_by(&queue));
    let came = receive_numbers(&to, 1_000);
    let treated = queue.treated(PEER);
    println!("duplicate 1.0: 500 sent, {} came, {treated:?}", came.len());
    // The copies go another way than the packets, and may be a little later; what comes for the first time is in order.
    let mut fresh = std::collections::BTreeSet::new();
    let first: Vec<u32> = came.iter().copied().filter(|number| fresh.insert(*number)).collect();
    assert_eq!(first, (0..500).collect::<Vec<_>>());
    let mut sorted = came;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..500).flat_map(|number| [number; 2]).collect::<Vec<_>>());
    assert_eq!((treated.packets, treated.delayed, treated.duplicated), (500, 500, 500));
    // The copies take the way that others take: they have the peer's address and obey the same rules.
    pair.iptables(&format!("-I INPUT -s {PEER} -i lo -j DROP"));
    send_numbers(&from, 5, Duration::from_micros(500), seen_by(&queue));
    assert_eq!(receive_numbers(&to, 5), [0, 1, 2, 3, 4]);
}

#[test]
fn tcp_bears_copies_and_reordering_also_with_connection_tracking() {
    let pair = Pair::new();
    pair.iptables("-I INPUT -m conntrack --ctstate INVALID -j DROP");
    let queue = open(&pair);
    let all = Treatment { delay_us: 1_000, jitter_us: 500, reorder: 0.02, duplicate: 0.2, corrupt: 0.002 };
    queue.treat(PEER, all);
    let bytes = text(4 << 20);
    let (received, took) = transfer(&pair, &bytes);
    let treated = queue.treated(PEER);
    println!("4 MiB through everything: {took:?}, {treated:?}");
    assert!(received == bytes);
    assert!(treated.duplicated > 100 && treated.escaped > 10);
    queue.check().unwrap();
}

#[test]
fn lifting_a_treatment_frees_what_is_held() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    queue.treat(PEER, Treatment { delay_us: 60_000_000, ..Treatment::default() });
    send_numbers(&from, 100, Duration::from_micros(100), seen_by(&queue));
    wait_until("all are held", || queue.treated(PEER).packets == 100);
    assert!(receive_numbers(&to, 0).is_empty());
    let start = Instant::now();
    queue.treat(PEER, Treatment { delay_us: 30_000, ..Treatment::default() });
    receive_one(&to);
    println!("60 s changed to 30 ms: the first came after {:?}", start.elapsed());
    assert!((30..30_000).contains(&start.elapsed().as_millis()));
    queue.treat(PEER, Treatment { delay_us: 60_000_000, ..Treatment::default() });
    send_numbers(&from, 10, Duration::from_micros(100), seen_by(&queue));
    wait_until("the ten are held", || queue.treated(PEER).packets == 110);
    queue.treat(PEER, Treatment::default());
    send_numbers(&from, 1, Duration::ZERO, seen_by(&queue));
    let expected: Vec<u32> = (1..100).chain(0..10).chain([0]).collect();
    assert_eq!(receive_numbers(&to, 110), expected);
}

#[test]
fn dropping_the_queue_loses_nothing() {
    let pair = Pair::new();
    let (from, to) = pair.udp();
    for _ in 0..3 {
        let queue = open(&pair);
        queue.treat(PEER, Treatment { delay_us: 600_000_000, ..Treatment::default() });
        // What the queue has seen, as long as there is one; then what has come.
        let passed = AtomicU64::new(0);
        let came = std::thread::scope(|scope| {
            // The queue goes away in the middle of this; with --queue-bypass the traffic goes on.
            scope.spawn(|| send_numbers(&from, 20_000, Duration::from_micros(20), || passed.load(Relaxed)));
            wait_until("many are held", || {
                let held = queue.treated(PEER).packets;
                passed.store(held, Relaxed);
                held > 5_000
            });
            let start = Instant::now();
            let held = queue.treated(PEER).packets;
            drop(queue);
            println!("dropped with {held} packets held: took {:?}", start.elapsed());
            receive_and_tell(&to, 20_000, |came| _ = passed.fetch_max(came as u64, Relaxed))
        });
        let mut came = came;
        came.sort_unstable();
        assert_eq!(came.len(), 20_000);
        assert_eq!(came, (0..20_000).collect::<Vec<_>>());
    }
}

#[test]
fn sixty_thousand_packets_are_kept_and_none_overflows() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    queue.treat(PEER, Treatment { delay_us: 10_000, ..Treatment::default() });
    let count = 60_000;
    let came = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive_numbers(&to, count as usize).len());
        let start = Instant::now();
        send_numbers(&from, count, Duration::from_micros(40), seen_by(&queue));
        println!("sent {:.0} packets/s", f64::from(count) / start.elapsed().as_secs_f64());
        receiver.join().unwrap()
    });
    let treated = queue.treated(PEER);
    println!("25 000/s through 10 ms: {came} came, kept {} ns, {treated:?}", {
        treated.delayed_ns / treated.delayed
    });
    assert_eq!((treated.packets, treated.delayed), (u64::from(count), u64::from(count)));
    assert_eq!(treated.overflowed, 0);
    // The queue's own measure, far above what a busy machine adds: a second would be a queue that does not keep up.
    assert!((10_000_000..1_000_000_000).contains(&(treated.delayed_ns / treated.delayed)), "{treated:?}");
}

/// What holding many packets of one peer costs another: the kernel looks for each packet from the oldest on.
#[test]
fn many_held_packets_of_one_source_do_not_stop_another() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    pair.iptables(&format!("-A INPUT -s {OTHER} -j NFQUEUE --queue-num {QUEUE} --queue-bypass"));
    let other = pair.in_peer(|| UdpSocket::bind((OTHER, 0)).unwrap());
    other.connect(to.local_addr().unwrap()).unwrap();
    queue.treat(PEER, Treatment { delay_us: 600_000_000, ..Treatment::default() });
    for held in [1_000, 5_000, 20_000] {
        let already = queue.treated(PEER).packets as u32;
        send_numbers(&from, held - already, Duration::from_micros(30), seen_by(&queue));
        wait_until("all are held", || queue.treated(PEER).packets >= u64::from(held));
        assert_eq!(queue.treated(PEER), Treated { packets: u64::from(held), ..Treated::default() });
        let took = pings(&other, &to, 200);
        println!("{held} held of another source: {:?} for a packet, {:?} at best", took[100], took[0]);
        // What the held ones cost each packet pays, also the fastest.
        assert!(took[0] < Duration::from_millis(5));
    }
}

#[test]
fn a_queue_has_one_reader() {
    let pair = Pair::new();
    let first = open(&pair);
    let error = pair.in_local(|| PacketQueue::open(QUEUE, 1)).unwrap_err();
    println!("a second reader: {error}");
    drop(first);
    drop(open(&pair));
}
