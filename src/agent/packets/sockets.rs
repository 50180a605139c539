//! The two sockets of the packet queue: the netlink socket that packets come in by and verdicts go out by,
//! and the raw socket that sends copies.
//!
//! ```text
//!  wire ─► INPUT ─► rule ─► NFQUEUE ══ netlink ══► us ══ verdict ══► transport
//!            ▲                                      ║
//!            └────────────── lo ◄─────── raw ◄══════╝ copy, marked: passes the queue untouched
//! ```
//!
//! NFQUEUE knows no verdict that doubles a packet. A copy therefore starts again as an outgoing packet with
//! the sender's address, whose destination is local and which so comes in again by way of `lo`. It passes
//! the same INPUT rules as the original (a partition stops it too), and the mark in its IP header lets the
//! reader know it again, so copies do not multiply.
//!
//! Deliberately not here: when anything happens.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, ipproto, recv, sendto, socket_with,
    sockopt,
};

use super::held::Arrived;
use super::ipv4;
use super::netlink::{Message, accept, limit, messages};

/// The index of `lo`, the same in every network namespace.
const LOOPBACK: u32 = 1;
/// What may await us in the socket; about 25 000 full packets as the kernel counts.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Room for the longest message: a packet of 64 KiB and what is said about it.
const DATAGRAM: usize = 128 << 10;
/// Verdicts are sent together up to here; well below the least send buffer that a socket gets.
const TOGETHER: usize = 32 << 10;

/// A bound NFQUEUE.
#[derive(Debug)]
pub(super) struct Queue {
    socket: OwnedFd,
    number: u16,
    datagram: Vec<u8>,
    verdicts: Vec<u8>,
    arrived: VecDeque<Arrived>,
    last_id: u32,
    lost: u64,
    sequence: u32,
}

impl Queue {
    /// Binds the queue in the network namespace of the calling thread; it holds at most `longest` packets.
    pub(super) fn bind(number: u16, longest: u32) -> io::Result<Queue> {
        let protocol = Some(netlink::NETFILTER);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
        let mut queue = Queue {
            socket,
            number,
            datagram: vec![0; DATAGRAM],
            verdicts: Vec::new(),
            arrived: VecDeque::new(),
            last_id: 0,
            lost: 0,
            sequence: 0,
        };
        queue.request(|into, sequence| super::netlink::bind(into, number, sequence, longest))?;
        Ok(queue)
    }

    /// The next packet to decide about, if one waits. Packets that are not ours to treat go on at once:
    /// copies that we made ourselves and what is not IPv4.
    pub(super) fn next(&mut self) -> io::Result<Option<Arrived>> {
        while self.arrived.is_empty() {
            match self.receive(RecvFlags::DONTWAIT, None) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.arrived.pop_front())
    }

    /// Lets a packet go on, perhaps with other bytes; at the latest when [`Queue::flush`] is called.
    pub(super) fn accept(&mut self, id: u32, altered: Option<&[u8]>) -> io::Result<()> {
        let together = self.verdicts.len() + altered.map_or(0, <[u8]>::len);
        if together > TOGETHER {
            self.flush()?;
        }
        accept(&mut self.verdicts, self.number, id, altered);
        Ok(())
    }

    /// Sends the verdicts that have gathered; the packets have gone on when it returns.
    pub(super) fn flush(&mut self) -> Result<(), Errno> {
        if self.verdicts.is_empty() {
            return Ok(());
        }
        let sent = send(&self.socket, &self.verdicts, &SocketAddrNetlink::new(0, 0));
        self.verdicts.clear();
        sent
    }

    /// From now on new packets pass the queue by; those in it still need their verdicts.
    pub(super) fn close_entrance(&mut self) -> io::Result<()> {
        let number = self.number;
        Ok(self.request(|into, sequence| limit(into, number, sequence, 0))?)
    }

    /// How many packets the kernel let pass because the socket's buffer was full, as far as we know yet:
    /// a gap shows when the next packet comes.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Makes a request and waits for its answer; packets that come in the meantime are kept.
    fn request(&mut self, write: impl FnOnce(&mut Vec<u8>, u32)) -> Result<(), Errno> {
        self.sequence += 1;
        let mut bytes = Vec::new();
        write(&mut bytes, self.sequence);
        send(&self.socket, &bytes, &SocketAddrNetlink::new(0, 0))?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(RecvFlags::empty(), Some(&mut answer))?;
        }
        match answer {
            Some(0) | None => Ok(()),
            Some(errno) => Err(Errno::from_raw_os_error(errno)),
        }
    }

    /// Takes in one datagram: its packets, and the answer to the last request.
    fn receive(&mut self, flags: RecvFlags, answer: Option<&mut Option<i32>>) -> Result<(), Errno> {
        let length = match recv(&self.socket, &mut self.datagram[..], flags) {
            Ok((length, _)) => length,
            // Packets passed us by; the gap in the numbers will tell how many.
            Err(Errno::NOBUFS | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut answered = None;
        for message in messages(&self.datagram[..length]) {
            match message {
                Message::Answer { sequence, errno } if sequence == self.sequence => answered = Some(errno),
                // A refused verdict: the packet is gone, for example because its interface went down.
                Message::Answer { .. } => {}
                Message::Packet(packet) => {
                    self.lost += u64::from(packet.id.wrapping_sub(self.last_id).wrapping_sub(1));
                    self.last_id = packet.id;
                    let ours = packet.interface == LOOPBACK && ipv4::is_copy(packet.bytes);
                    match ipv4::source(packet.bytes).filter(|_| !ours) {
                        None => accept(&mut self.verdicts, self.number, packet.id, None),
                        Some(source) => {
                            let (id, whole, bytes) = (packet.id, packet.whole, packet.bytes.to_vec());
                            self.arrived.push_back(Arrived { id, source, bytes, whole });
                        }
                    }
                }
            }
        }
        if let (Some(answer), Some(errno)) = (answer, answered) {
            *answer = Some(errno);
        }
        // Many of our own copies in a row must not outgrow what the socket sends at once.
        if self.verdicts.len() > TOGETHER { self.flush() } else { Ok(()) }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends copies of packets back into the local stack.
#[derive(Debug)]
pub(super) struct Copier {
    socket: OwnedFd,
}

impl Copier {
    /// Opens the raw socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Copier> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // IPPROTO_RAW: the IP header is ours, nothing is ever received.
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::RAW))?;
        Ok(Copier { socket })
    }

    /// Sends the packet, marked as a copy, to its destination (an address of this host).
    pub(super) fn send(&self, mut packet: Vec<u8>) -> io::Result<()> {
        let destination: Ipv4Addr = ipv4::destination(&packet).ok_or(io::ErrorKind::InvalidData)?;
        ipv4::mark_as_copy(&mut packet);
        sendto(&self.socket, &packet, SendFlags::empty(), &SocketAddrV4::new(destination, 0))?;
        Ok(())
    }
}

/// Sends a netlink datagram to the kernel, which handles it before this returns.
fn send(socket: &OwnedFd, bytes: &[u8], kernel: &SocketAddrNetlink) -> Result<(), Errno> {
    loop {
        match sendto(socket, bytes, SendFlags::empty(), kernel) {
            Err(Errno::INTR) => {}
            sent => return sent.map(|_| ()),
        }
    }
}
