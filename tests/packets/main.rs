//! The packet queue at work between two network namespaces (needs root; see `namespaces`).
//!
//! `cargo test --test queue -- --nocapture` also prints what was measured.

mod namespaces;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use namespaces::{LOCAL, OTHER, PEER, Pair, QUEUE};
use tribunal::agent::packets::{PacketQueue, Treated, Treatment};

fn open(pair: &Pair) -> PacketQueue {
    pair.in_local(|| PacketQueue::open(QUEUE, 1)).unwrap()
}

/// Sends numbered packets this far apart, spinning because sleeping is too coarse.
fn send_numbers(from: &UdpSocket, count: u32, apart: Duration) {
    let start = Instant::now();
    for number in 0..count {
        while start.elapsed() < apart * number {
            std::hint::spin_loop();
        }
        from.send(&number.to_be_bytes()).unwrap();
    }
}

/// Receives numbered packets until none comes for the socket's timeout.
fn receive_numbers(to: &UdpSocket) -> Vec<u32> {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| to.recv(&mut buffer).ok().map(|_| buffer[..4].try_into().unwrap()))
        .map(u32::from_be_bytes)
        .collect()
}

/// Receives a packet that must come.
fn receive_one(to: &UdpSocket) {
    let quiet = to.read_timeout().unwrap();
    to.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    to.recv(&mut [0; 9]).unwrap();
    to.set_read_timeout(quiet).unwrap();
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
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
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
    // Far more would be another delay; how much more there is depends on who else wants the processor, and is printed.
    assert!(took[25] < Duration::from_millis(30));
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
    assert!(took[50] < Duration::from_millis(2));
    assert_eq!(queue.treated(PEER), Treated { packets: 100, ..Treated::default() });
}

#[test]
fn jitter_keeps_the_order_and_reorder_does_not() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    let jitter = Treatment { delay_us: 5_000, jitter_us: 5_000, ..Treatment::default() };
    queue.treat(PEER, jitter);
    send_numbers(&from, 1_000, Duration::from_micros(200));
    assert_eq!(receive_numbers(&to), (0..1_000).collect::<Vec<_>>());
    let before = queue.treated(PEER);
    assert_eq!(before.delayed, 1_000);

    queue.treat(PEER, Treatment { jitter_us: 0, reorder: 0.25, ..jitter });
    send_numbers(&from, 1_000, Duration::from_micros(200));
    let mut came = receive_numbers(&to);
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
    assert!(receive_numbers(&to).is_empty());
    let errors = pair.counter("Udp", "InCsumErrors") - before;
    println!("corrupted UDP: {:?}, InCsumErrors {errors}", queue.treated(PEER));
    assert_eq!(queue.treated(PEER), Treated { packets: 200, corrupted: 200, ..Treated::default() });
    assert_eq!(errors, 200);
    queue.treat(PEER, Treatment::default());
    from.send(&[0, 0, 0, 5]).unwrap();
    assert_eq!(receive_numbers(&to), [5]);
}

#[test]
fn tcp_mends_corruption() {
    let pair = Pair::new();
    let queue = open(&pair);
    queue.treat(PEER, Treatment { delay_us: 100, corrupt: 0.01, ..Treatment::default() });
    let before = pair.counter("Tcp", "InCsumErrors");
    let bytes = text(4 << 20);
    let (received, took) = transfer(&pair, &bytes);
    let errors = pair.counter("Tcp", "InCsumErrors") - before;
    let treated = queue.treated(PEER);
    println!("4 MiB with 1 % corrupted: {took:?}, {treated:?}, InCsumErrors {errors}");
    assert!(received == bytes);
    assert!(treated.corrupted > 10);
    assert_eq!(errors, treated.corrupted);
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
    send_numbers(&from, 500, Duration::from_micros(500));
    let came = receive_numbers(&to);
    let treated = queue.treated(PEER);
    println!("duplicate 1.0: 500 sent, {} came, {treated:?}", came.len());
    assert_eq!(came, (0..500).flat_map(|number| [number; 2]).collect::<Vec<_>>());
    assert_eq!((treated.packets, treated.delayed, treated.duplicated), (500, 500, 500));
    // The copies take the way that others take: they have the peer's address and obey the same rules.
    pair.iptables(&format!("-I INPUT -s {PEER} -i lo -j DROP"));
    send_numbers(&from, 5, Duration::from_micros(500));
    assert_eq!(receive_numbers(&to), [0, 1, 2, 3, 4]);
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
    send_numbers(&from, 100, Duration::from_micros(100));
    assert!(receive_numbers(&to).is_empty());
    let start = Instant::now();
    queue.treat(PEER, Treatment { delay_us: 30_000, ..Treatment::default() });
    receive_one(&to);
    println!("60 s changed to 30 ms: the first came after {:?}", start.elapsed());
    assert!((30..10_000).contains(&start.elapsed().as_millis()));
    queue.treat(PEER, Treatment { delay_us: 60_000_000, ..Treatment::default() });
    send_numbers(&from, 10, Duration::from_micros(100));
    queue.treat(PEER, Treatment::default());
    send_numbers(&from, 1, Duration::ZERO);
    let expected: Vec<u32> = (1..100).chain(0..10).chain([0]).collect();
    assert_eq!(receive_numbers(&to), expected);
}

#[test]
fn dropping_the_queue_loses_nothing() {
    let pair = Pair::new();
    let (from, to) = pair.udp();
    for _ in 0..3 {
        let queue = open(&pair);
        queue.treat(PEER, Treatment { delay_us: 60_000_000, ..Treatment::default() });
        let came = std::thread::scope(|scope| {
            // The queue goes away in the middle of this; with --queue-bypass the traffic goes on.
            scope.spawn(|| send_numbers(&from, 20_000, Duration::from_micros(20)));
            std::thread::sleep(Duration::from_millis(200));
            let start = Instant::now();
            let held = queue.treated(PEER).packets;
            drop(queue);
            println!("dropped with {held} packets held: took {:?}", start.elapsed());
            assert!(held > 1_000);
            receive_numbers(&to)
        });
        let mut came = came;
        came.sort_unstable();
        assert_eq!(came.len(), 20_000);
        assert_eq!(came, (0..20_000).collect::<Vec<_>>());
    }
}

#[test]
fn twenty_thousand_packets_a_second_are_kept_up_with() {
    let pair = Pair::new();
    let queue = open(&pair);
    let (from, to) = pair.udp();
    queue.treat(PEER, Treatment { delay_us: 10_000, ..Treatment::default() });
    let (count, came) = (60_000, std::sync::atomic::AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            came.store(receive_numbers(&to).len(), std::sync::atomic::Ordering::Relaxed);
        });
        let start = Instant::now();
        send_numbers(&from, count, Duration::from_micros(40));
        println!("sent {:.0} packets/s", f64::from(count) / start.elapsed().as_secs_f64());
    });
    let treated = queue.treated(PEER);
    println!("25 000/s through 10 ms: {} came, kept {} ns, {treated:?}", came.into_inner(), {
        treated.delayed_ns / treated.delayed
    });
    assert_eq!((treated.packets, treated.delayed), (u64::from(count), u64::from(count)));
    assert_eq!(treated.overflowed, 0);
    assert!(treated.delayed_ns / treated.delayed >= 10_000_000);
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
        send_numbers(&from, held - already, Duration::from_micros(30));
        let until = Instant::now() + Duration::from_secs(30);
        while queue.treated(PEER).packets < u64::from(held) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(queue.treated(PEER), Treated { packets: u64::from(held), ..Treated::default() });
        let took = pings(&other, &to, 200);
        println!("{held} held of another source: {:?} for a packet", took[100]);
        assert!(took[100] < Duration::from_millis(5));
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
