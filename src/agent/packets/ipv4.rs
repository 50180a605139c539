//! The little that the packet queue has to know about IPv4 packets.
//!
//! Corrupting flips one bit and mends no checksum:
//!
//! ```text
//!  | IP header | TCP/UDP/ICMP header | data |
//!                                      ^ here, when there is data
//!                         ^ else in the checksum field
//! ```
//!
//! The transport header is spared when there is data, because the kernel looks at some of its fields before
//! the checksum (a broken data offset or UDP length is thrown away without being counted as a checksum
//! error). So a corrupted packet always is a checksum error, except a UDP packet that was sent without a
//! checksum: it reaches the application corrupted, as it would on a real wire.
//!
//! Deliberately not a packet parser: anything it does not understand it calls `None` or leaves alone.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::fate::below_or_at;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The reserved bit of the fragment field (RFC 3514): senders leave it zero and receivers ignore it.
const RESERVED: u8 = 0x80;
const FRAGMENT_FIELD: usize = 6;

/// The source address, when this is an IPv4 packet.
pub(super) fn source(packet: &[u8]) -> Option<Ipv4Addr> {
    address(packet, 12)
}

/// The destination address, when this is an IPv4 packet.
pub(super) fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    address(packet, 16)
}

/// Marks a packet as a copy that we made. The header checksum is left to the raw socket, which fills it in.
pub(super) fn mark_as_copy(packet: &mut [u8]) {
    if let Some(byte) = packet.get_mut(FRAGMENT_FIELD) {
        *byte |= RESERVED;
    }
}

/// Whether the packet carries the mark of [`mark_as_copy`].
pub(super) fn is_copy(packet: &[u8]) -> bool {
    source(packet).is_some() && packet[FRAGMENT_FIELD] & RESERVED != 0
}

/// Flips the bit that `choice` (uniform over all of `u64`) points at; false when there is nothing to flip.
pub(super) fn corrupt(packet: &mut [u8], choice: u64) -> bool {
    let Some(where_to) = corruptible(packet) else { return false };
    let bits = (where_to.len() as u64) * 8;
    let bit = below_or_at(bits - 1, choice);
    let byte = where_to.start + (bit / 8) as usize;
    packet[byte] ^= 1 << (bit % 8);
    let checksum = where_to.start..where_to.end;
    if is_udp_checksum(packet, &checksum) && packet[checksum.clone()] == [0, 0] {
        // Zero means "no checksum" to UDP and would hide the error: flip another bit as well.
        packet[checksum.start] ^= 1;
        packet[checksum.start + 1] ^= 1;
    }
    true
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    header_length(packet)?;
    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(bytes))
}

/// The length of the IPv4 header, when there is a whole one.
fn header_length(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && length >= 20 && packet.len() >= length).then_some(length)
}

/// The bytes in which a bit may be flipped; never empty.
fn corruptible(packet: &[u8]) -> Option<Range<usize>> {
    let body = header_length(packet)?;
    let end = usize::from(u16::from_be_bytes([packet[2], packet[3]])).min(packet.len());
    let fragment = u16::from_be_bytes([packet[FRAGMENT_FIELD] & 0x1f, packet[FRAGMENT_FIELD + 1]]);
    // A later fragment has no transport header; the kernel joins fragments before the INPUT hook anyhow.
    let protocol = if fragment == 0 { packet[9] } else { 0 };
    let (header, checksum) = match protocol {
        TCP => (usize::from(*packet.get(body + 12)? >> 4) * 4, 16),
        UDP => (8, 6),
        ICMP => (8, 2),
        _ => return (body < end).then_some(body..end),
    };
    let data = body + header..end;
    let checksum = body + checksum..body + checksum + 2;
    if !data.is_empty() { Some(data) } else { (checksum.end <= end).then_some(checksum) }
}

fn is_udp_checksum(packet: &[u8], range: &Range<usize>) -> bool {
    packet[9] == UDP && header_length(packet).is_some_and(|body| *range == (body + 6..body + 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with a 20-byte IP header and this body.
    fn packet(protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20 + body.len() as u8, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(body);
        packet
    }

    /// Where a packet changes over many choices: the set of changed byte positions.
    fn changed(original: &[u8]) -> Vec<usize> {
        let mut places: Vec<usize> = (0..2_000_u64)
            .flat_map(|turn| {
                let mut packet = original.to_vec();
                assert!(corrupt(&mut packet, turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                let bits: u32 = packet.iter().zip(original).map(|(a, b)| (a ^ b).count_ones()).sum();
                assert_eq!(bits, 1);
                (0..packet.len()).filter(|&at| packet[at] != original[at]).collect::<Vec<_>>()
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    #[test]
    fn addresses_are_read_from_ipv4_only() {
        let bytes = packet(UDP, &[]);
        assert_eq!(source(&bytes), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(destination(&bytes), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(source(&[0x60; 40]), None);
        assert_eq!(source(&bytes[..19]), None);
        assert_eq!(source(&[]), None);
    }

    #[test]
    fn only_data_is_corrupted_when_there_is_data() {
        assert_eq!(changed(&packet(UDP, &[0; 12])), (28..32).collect::<Vec<_>>());
        let mut tcp = [0; 28];
        tcp[12] = 6 << 4;
        assert_eq!(changed(&packet(TCP, &tcp)), (44..48).collect::<Vec<_>>());
        assert_eq!(changed(&packet(132, &[0; 4])), (20..24).collect::<Vec<_>>());
    }

    #[test]
    fn without_data_the_checksum_is_corrupted() {
        let mut tcp = [0xff; 20];
        tcp[12] = 5 << 4;
        assert_eq!(changed(&packet(TCP, &tcp)), [36, 37]);
        assert_eq!(changed(&packet(ICMP, &[0xff; 8])), [22, 23]);
        assert_eq!(changed(&packet(UDP, &[0xff; 8])), [26, 27]);
    }

    #[test]
    fn a_udp_checksum_never_becomes_none() {
        for choice in 0..64_u64 {
            let mut bytes = packet(UDP, &[0, 0, 0, 0, 0, 8, 0, 4]);
            assert!(corrupt(&mut bytes, choice << 58));
            assert_ne!(&bytes[26..28], &[0, 0]);
            assert_ne!(&bytes[26..28], &[0, 4]);
        }
    }

    #[test]
    fn malformed_packets_are_left_alone() {
        for bytes in [&[][..], &[0x45; 10], &packet(TCP, &[1; 5]), &packet(UDP, &[]), &packet(99, &[])] {
            let mut copy = bytes.to_vec();
            assert!(!corrupt(&mut copy, u64::MAX));
            assert_eq!(copy, bytes);
        }
    }

    #[test]
    fn copies_are_known_by_their_mark() {
        let mut bytes = packet(UDP, &[0; 8]);
        assert!(!is_copy(&bytes));
        mark_as_copy(&mut bytes);
        assert!(is_copy(&bytes));
    }
}
