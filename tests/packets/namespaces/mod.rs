//! Two network namespaces with a veth between them, made for one test and removed after it.
//!
//! ```text
//!  lab-pk-PID-N-p  10.77.0.1 ──veth── 10.77.0.2  lab-pk-PID-N-l   (the queue's rule is in the latter)
//! ```
//!
//! Needs root, `ip` and `iptables`. A thread enters a namespace with setns(2) and is thrown away afterwards;
//! sockets that it made stay in the namespace, so tests use them from where they like.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The address whose packets are queued.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Another address of the peer's.
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// The address of the side with the queue.
pub(crate) const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The number of the queue (each namespace has its own queues).
pub(crate) const QUEUE: u16 = 7;

/// Of what nobody expects nothing comes if nothing comes for so long.
pub(crate) const QUIET: Duration = Duration::from_millis(500);

/// Tests measure time: one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The pair of namespaces.
pub(crate) struct Pair {
    peer: String,
    local: String,
    _turn: MutexGuard<'static, ()>,
}

impl Pair {
    /// Makes the pair, with the rule that queues what comes from [`PEER`].
    pub(crate) fn new() -> Pair {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("lab-pk-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let pair = Pair { peer: format!("{name}-p"), local: format!("{name}-l"), _turn: turn };
        let (peer, local) = (&pair.peer, &pair.local);
        run(&format!("ip netns add {peer}"));
        run(&format!("ip netns add {local}"));
        run(&format!("ip -n {peer} link add veth0 type veth peer name veth0 netns {local}"));
        for (space, address) in [(peer, PEER), (local, LOCAL)] {
            run(&format!("ip -n {space} link set lo up"));
            run(&format!("ip -n {space} addr add {address}/24 dev veth0"));
            run(&format!("ip -n {space} link set veth0 up"));
        }
        run(&format!("ip -n {peer} addr add {OTHER}/24 dev veth0"));
        pair.iptables(&format!("-A INPUT -s {PEER} -j NFQUEUE --queue-num {QUEUE} --queue-bypass"));
        pair
    }

    /// Runs iptables on the side with the queue.
    pub(crate) fn iptables(&self, arguments: &str) {
        run(&format!("ip netns exec {} iptables -w {arguments}", self.local));
    }

    /// Sets a sysctl (`name=value`) on the side with the queue.
    pub(crate) fn sysctl(&self, setting: &str) {
        run(&format!("ip netns exec {} sysctl -q -w {setting}", self.local));
    }

    /// Does something in the peer's namespace.
    pub(crate) fn in_peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.peer, work)
    }

    /// Does something in the namespace with the queue.
    pub(crate) fn in_local<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.local, work)
    }

    /// A socket of the peer's, connected to one on the side with the queue, with a large buffer there.
    pub(crate) fn udp(&self) -> (UdpSocket, UdpSocket) {
        let to = self.in_local(|| UdpSocket::bind((LOCAL, 0)).unwrap());
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&to, 64 << 20).unwrap();
        to.set_read_timeout(Some(QUIET)).unwrap();
        let from = self.in_peer(|| UdpSocket::bind((PEER, 0)).unwrap());
        from.connect(to.local_addr().unwrap()).unwrap();
        (from, to)
    }

    /// A counter of /proc/net/snmp on the side with the queue, for example `("Udp", "InCsumErrors")`.
    pub(crate) fn counter(&self, protocol: &str, name: &str) -> u64 {
        let text = self.in_local(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
        let prefix = format!("{protocol}: ");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let place = names.split(' ').position(|field| field == name).unwrap();
        values.split(' ').nth(place).unwrap().parse().unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for space in [&self.peer, &self.local] {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

fn inside<T: Send>(space: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let link = File::open(format!("/run/netns/{space}")).unwrap();
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&link), Some(LinkNameSpaceType::Network))
                .unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
