//! The bytes of nfnetlink_queue messages: writing requests and reading what the kernel sends.
//!
//! ```text
//!  | nlmsghdr 16: length, type, flags, sequence, port | nfgenmsg 4: family, version, queue | attributes … |
//!  attribute: | length 2 | type 2 | value, padded to 4 |
//! ```
//!
//! Deliberately pure and only as much of the protocol as the packet queue speaks; the `nfq` crate would do
//! this too, but shows neither its file descriptor (to wait with a timeout, to size its buffer) nor the
//! interface that a packet came in by, and loses packets that arrive while it still configures the queue.

/// Attributes of packets and verdicts (`enum nfqnl_attr_type`).
const PACKET_HDR: u16 = 1;
const VERDICT_HDR: u16 = 2;
const IFINDEX_INDEV: u16 = 5;
const PAYLOAD: u16 = 10;
const CAP_LEN: u16 = 13;
const SKB_INFO: u16 = 14;
/// Attributes of configurations (`enum nfqnl_attr_config`).
const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CFG_QUEUE_MAXLEN: u16 = 3;
const CFG_MASK: u16 = 4;
const CFG_FLAGS: u16 = 5;

const CFG_F_FAIL_OPEN: u32 = 1;
const CFG_F_GSO: u32 = 4;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const NF_ACCEPT: u32 = 1;
const SKB_CSUMNOTREADY: u32 = 1;

const SUBSYSTEM: u16 = 3 << 8;
const MSG_PACKET: u16 = SUBSYSTEM;
const MSG_VERDICT: u16 = SUBSYSTEM | 1;
const MSG_CONFIG: u16 = SUBSYSTEM | 2;
const NLMSG_ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

/// The most of a packet that fits into an attribute, and that the kernel copies.
pub(super) const COPY_RANGE: u32 = 0xffff - 4;

/// A message of the kernel's that the packet queue understands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A packet awaits its verdict.
    Packet(Packet<'a>),
    /// A request that asked for an answer was carried out (0) or refused (an errno). Verdicts ask for none,
    /// and get one only when they are refused.
    Answer {
        /// The sequence number of the request.
        sequence: u32,
        /// 0, or the errno.
        errno: i32,
    },
}

/// A packet in the kernel's queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// Its number, counted up from 1 by the kernel, also for packets that it then fails to hand to us.
    pub id: u32,
    /// The index of the interface that it came in by, 0 when there is none.
    pub interface: u32,
    /// The packet from its IP header on.
    pub bytes: &'a [u8],
    /// Whether `bytes` is the whole packet with its checksum filled in.
    pub whole: bool,
}

/// Writes the request that binds a queue and configures it, all at once: a packet that comes between two
/// requests would be dropped, or queued without anyone noticing it.
pub(super) fn bind(into: &mut Vec<u8>, queue: u16, sequence: u32, longest: u32) {
    message(into, MSG_CONFIG, REQUEST | ACK, queue, sequence, |into| {
        attribute(into, CFG_CMD, &[CMD_BIND, 0, 0, 0]);
        let [a, b, c, d] = COPY_RANGE.to_be_bytes();
        attribute(into, CFG_PARAMS, &[a, b, c, d, COPY_PACKET]);
        attribute(into, CFG_QUEUE_MAXLEN, &longest.to_be_bytes());
        // Without F_GSO the kernel cuts offloaded segments into real packets and fills in their checksums.
        attribute(into, CFG_MASK, &(CFG_F_FAIL_OPEN | CFG_F_GSO).to_be_bytes());
        attribute(into, CFG_FLAGS, &CFG_F_FAIL_OPEN.to_be_bytes());
    });
}

/// Writes the request that sets the length of the queue; 0 has all new packets pass it by (fail open).
pub(super) fn limit(into: &mut Vec<u8>, queue: u16, sequence: u32, longest: u32) {
    message(into, MSG_CONFIG, REQUEST | ACK, queue, sequence, |into| {
        attribute(into, CFG_QUEUE_MAXLEN, &longest.to_be_bytes());
    });
}

/// Writes the verdict that lets a packet go on, with other bytes in its place if there are any.
pub(super) fn accept(into: &mut Vec<u8>, queue: u16, id: u32, altered: Option<&[u8]>) {
    message(into, MSG_VERDICT, REQUEST, queue, 0, |into| {
        let mut verdict = [0; 8];
        verdict[..4].copy_from_slice(&NF_ACCEPT.to_be_bytes());
        verdict[4..].copy_from_slice(&id.to_be_bytes());
        attribute(into, VERDICT_HDR, &verdict);
        if let Some(bytes) = altered {
            attribute(into, PAYLOAD, bytes);
        }
    });
}

/// The messages of a datagram, up to the first that is malformed.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(array(rest, 0)?) as usize;
        let (message, after) = split(rest, length, HEADER)?;
        rest = after;
        Some(read(message))
    })
    .flatten()
}

fn read(message: &[u8]) -> Option<Message<'_>> {
    match u16::from_ne_bytes(array(message, 4)?) {
        NLMSG_ERROR => {
            let errno = i32::from_ne_bytes(array(message, HEADER)?).saturating_neg();
            // The header of the refused request follows; its sequence number is 8 bytes in.
            let sequence = u32::from_ne_bytes(array(message, HEADER + 4 + 8)?);
            Some(Message::Answer { sequence, errno })
        }
        MSG_PACKET => packet(message.get(HEADER + FAMILY_HEADER..)?).map(Message::Packet),
        _ => None,
    }
}

fn packet(mut attributes: &[u8]) -> Option<Packet<'_>> {
    let (mut id, mut interface, mut bytes, mut whole) = (None, 0, &[][..], true);
    while let Some(length) = array(attributes, 0).map(u16::from_ne_bytes) {
        let kind = u16::from_ne_bytes(array(attributes, 2)?) & 0x3fff;
        let (attribute, after) = split(attributes, usize::from(length), 4)?;
        let value = &attribute[4..];
        match kind {
            PACKET_HDR => id = Some(u32::from_be_bytes(array(value, 0)?)),
            IFINDEX_INDEV => interface = u32::from_be_bytes(array(value, 0)?),
            PAYLOAD => bytes = value,
            // Only there when the packet was longer than what was copied of it.
            CAP_LEN => whole = false,
            SKB_INFO => whole &= u32::from_be_bytes(array(value, 0)?) & SKB_CSUMNOTREADY == 0,
            _ => {}
        }
        attributes = after;
    }
    Some(Packet { id: id?, interface, bytes, whole })
}

/// The first `length` bytes and what comes after their padding; `None` when that cannot be.
fn split(bytes: &[u8], length: usize, least: usize) -> Option<(&[u8], &[u8])> {
    let first = bytes.get(..length).filter(|_| length >= least)?;
    Some((first, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn message(
    into: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    queue: u16,
    sequence: u32,
    attributes: impl FnOnce(&mut Vec<u8>),
) {
    let start = into.len();
    into.extend([0; 4]);
    into.extend(kind.to_ne_bytes());
    into.extend(flags.to_ne_bytes());
    into.extend(sequence.to_ne_bytes());
    into.extend([0; 4]);
    let [high, low] = queue.to_be_bytes();
    into.extend([0, 0, high, low]);
    attributes(into);
    let length = (into.len() - start) as u32;
    into[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// Writes an attribute; its value must not be longer than [`COPY_RANGE`].
fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    debug_assert!(value.len() <= COPY_RANGE as usize);
    into.extend(((value.len() + 4) as u16).to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet_message(bytes: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        message(&mut datagram, MSG_PACKET, 0, 3, 0, |into| {
            attribute(into, PACKET_HDR, &[0, 0, 1, 2, 8, 0, 1]);
            attribute(into, IFINDEX_INDEV, &[0, 0, 0, 9]);
            attribute(into, 9, &[0; 12]);
            attribute(into, PAYLOAD, bytes);
        });
        datagram
    }

    #[test]
    fn packets_are_read_with_their_padding() {
        for length in 20..28 {
            let bytes = vec![0x45; length];
            let datagram = [packet_message(&bytes), packet_message(&bytes)].concat();
            let expected = Message::Packet(Packet { id: 258, interface: 9, bytes: &bytes, whole: true });
            let read: Vec<Message> = messages(&datagram).collect();
            assert_eq!(read.len(), 2);
            assert!(read.iter().all(|message| *message == expected));
        }
    }

    #[test]
    fn packets_without_their_end_or_checksum_are_not_whole() {
        for (kind, value) in [(CAP_LEN, [0, 1, 0, 0]), (SKB_INFO, [0, 0, 0, 1])] {
            let mut datagram = Vec::new();
            message(&mut datagram, MSG_PACKET, 0, 3, 0, |into| {
                attribute(into, PACKET_HDR, &[0, 0, 0, 1, 8, 0, 1]);
                attribute(into, kind, &value);
            });
            let read: Vec<Message> = messages(&datagram).collect();
            assert_eq!(read, [Message::Packet(Packet { id: 1, interface: 0, bytes: &[], whole: false })]);
        }
    }

    #[test]
    fn answers_are_read() {
        let mut datagram = Vec::new();
        datagram.extend(36_u32.to_ne_bytes());
        datagram.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        datagram.extend((-16_i32).to_ne_bytes());
        let mut request = Vec::new();
        limit(&mut request, 1, 77, 0);
        datagram.extend(&request[..16]);
        assert_eq!(messages(&datagram).collect::<Vec<_>>(), [Message::Answer { sequence: 77, errno: 16 }]);
    }

    #[test]
    fn rubbish_is_no_message_and_no_panic() {
        let good = packet_message(&[0x45; 21]);
        for cut in 0..good.len() {
            let _ = messages(&good[..cut]).count();
            for byte in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[cut] = byte;
                let _ = messages(&bad).count();
            }
        }
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn a_verdict_is_32_bytes_and_more_with_other_bytes() {
        let mut verdict = Vec::new();
        accept(&mut verdict, 5, 9, None);
        assert_eq!(verdict.len(), 32);
        assert_eq!(&verdict[16..], &[0, 0, 0, 5, 12, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 9]);
        accept(&mut verdict, 5, 10, Some(&[1, 2, 3]));
        assert_eq!(&verdict[64..], &[7, 0, 10, 0, 1, 2, 3, 0]);
    }
}
