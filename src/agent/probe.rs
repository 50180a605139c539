//! Trains of numbered packets, sent from one agent to another: what a link really does to packets.
//!
//! ```text
//! packet = magic ║ train ║ number ║ departure on the sender's monotonic clock      UDP, a few milliseconds apart
//! ```
//! Lost, doubled and overtaken packets are counted by their numbers, delays as arrival minus departure. What a link
//! corrupts never arrives: the receiver's kernel drops it and counts it.

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

const MAGIC: u64 = 0x7472_6962_756e_616c;
const BYTES: usize = 256;

/// What arrived of a train.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Train {
    arrived: u32,
    duplicates: u32,
    overtaken: u32,
    corrupted: u32,
    mean_ns: i64,
    least_ns: i64,
    #[serde(skip)]
    seen: BTreeSet<u64>,
    #[serde(skip)]
    sum_ns: i128,
    #[serde(skip)]
    checksum_errors_before: u64,
}

/// Receives trains.
pub(super) struct Receiver {
    port: u16,
    trains: Arc<Mutex<BTreeMap<u64, Train>>>,
}

fn now() -> i64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

impl Receiver {
    /// Listens on a free port, in a thread of its own.
    pub(super) fn open() -> std::io::Result<Receiver> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = socket.local_addr()?.port();
        let trains = Arc::new(Mutex::new(BTreeMap::new()));
        let heard = trains.clone();
        std::thread::spawn(move || {
            let mut packet = [0; BYTES];
            loop {
                // An error is that of an earlier packet (ICMP) and says nothing of the next.
                let Ok(n) = socket.recv(&mut packet) else { continue };
                record(&heard, &packet[..n], now());
            }
        });
        Ok(Receiver { port, trains })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn expect(&self, train: u64) {
        let fresh = Train { checksum_errors_before: checksum_errors(), ..Train::default() };
        self.trains.lock().unwrap_or_else(|e| e.into_inner()).insert(train, fresh);
    }

    pub(super) fn arrived(&self, train: u64) -> Result<Train, String> {
        let seen = self.trains.lock().unwrap_or_else(|e| e.into_inner()).remove(&train);
        let mut seen = seen.ok_or_else(|| format!("nobody expected train {train}"))?;
        seen.corrupted = checksum_errors().saturating_sub(seen.checksum_errors_before) as u32;
        seen.mean_ns = (seen.sum_ns / i128::from(seen.arrived.max(1))) as i64;
        Ok(seen)
    }
}

fn record(trains: &Mutex<BTreeMap<u64, Train>>, packet: &[u8], at: i64) {
    let field =
        |i: usize| packet.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    let (Some(MAGIC), Some(train), Some(number), Some(sent)) = (field(0), field(1), field(2), field(3))
    else {
        return;
    };
    let mut trains = trains.lock().unwrap_or_else(|e| e.into_inner());
    let Some(train) = trains.get_mut(&train) else { return };
    if train.seen.last().is_some_and(|last| number < *last) && !train.seen.contains(&number) {
        train.overtaken += 1;
    }
    if train.seen.insert(number) {
        // Wrapping: a stranger's packet may claim to have been sent at any time.
        let took = at.wrapping_sub(sent as i64);
        train.least_ns = if train.arrived == 0 { took } else { train.least_ns.min(took) };
        train.arrived += 1;
        train.sum_ns += i128::from(at) - i128::from(sent);
    } else {
        train.duplicates += 1;
    }
}

/// Packets that this host's (or namespace's) kernel has dropped because of their checksums. 0 where it keeps no account.
fn checksum_errors() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let column = |pair: &[&str]| {
        let position = pair[0].split_whitespace().position(|name| name == "InCsumErrors")?;
        pair[1].split_whitespace().nth(position)?.parse::<u64>().ok()
    };
    // Corrupted headers are dropped before anybody looks at TCP or UDP.
    let headers = lines.chunks(2).filter(|p| p.len() == 2 && p[0].starts_with("Ip:")).filter_map(|pair| {
        let position = pair[0].split_whitespace().position(|name| name == "InHdrErrors")?;
        pair[1].split_whitespace().nth(position)?.parse::<u64>().ok()
    });
    let sums = lines.chunks(2).filter(|p| p.len() == 2 && !p[0].starts_with("Icmp")).filter_map(column);
    sums.sum::<u64>() + headers.sum::<u64>()
}

/// Sends a train and returns how many packets the kernel took.
pub(super) fn send(to: SocketAddr, train: u64, packets: u32, gap_us: u64) -> Result<u32, String> {
    let socket =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|e| format!("cannot send probes: {e}"))?;
    let mut sent = 0;
    for number in 0..u64::from(packets) {
        let mut packet = [0u8; BYTES];
        for (i, field) in [MAGIC, train, number, now() as u64].into_iter().enumerate() {
            packet[i * 8..i * 8 + 8].copy_from_slice(&field.to_be_bytes());
        }
        // A packet that a rule on our own side drops counts as sent: it left the program.
        let _ = socket.send_to(&packet, to);
        sent += 1;
        std::thread::sleep(Duration::from_micros(gap_us));
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_train_arrives_whole_and_in_order() {
        let receiver = Receiver::open().unwrap();
        receiver.expect(7);
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, receiver.port()));
        assert_eq!(send(to, 7, 50, 100).unwrap(), 50);
        let whole = || receiver.trains.lock().unwrap()[&7].arrived == 50;
        while !whole() {
            std::thread::yield_now();
        }
        let train = receiver.arrived(7).unwrap();
        assert_eq!((train.arrived, train.duplicates, train.overtaken), (50, 0, 0));
        assert!(train.mean_ns >= 0 && train.mean_ns < 1_000_000_000);
        assert!(receiver.arrived(7).is_err(), "a train is asked about once");
    }

    #[test]
    fn doubled_and_overtaken_packets_are_counted() {
        let trains = Mutex::new(BTreeMap::from([(1, Train::default())]));
        for (number, sent) in [(0u64, 100), (2, 110), (1, 100), (1, 149), (3, 90)] {
            let fields = [MAGIC, 1, number, sent];
            let packet: Vec<u8> = fields.iter().flat_map(|f| f.to_be_bytes()).collect();
            record(&trains, &packet, 150);
        }
        let train = &trains.lock().unwrap()[&1];
        assert_eq!((train.arrived, train.duplicates, train.overtaken, train.sum_ns), (4, 1, 1, 200));
        assert_eq!(train.least_ns, 40, "of those that came for the first time");
    }
}
