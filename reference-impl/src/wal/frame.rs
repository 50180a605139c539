//! The bytes of the log: frames of records, and how to tell a torn end from damage.
//!
//! ```text
//! [len][crc][kind len payload, kind len payload, …]      crc = crc32(offset of the frame in the file, records)
//! ```
//!
//! The offset is part of the checksum so that a frame is intact at its own place only: bytes of a client's value can never
//! pass for one. Deliberately no I/O.

use std::time::Duration;

use prost::Message as _;

use crate::codec;
use crate::core::{Forgotten, Record};
use crate::proto::wal::v1 as disk;

/// First bytes of every log.
pub(super) const MAGIC: &[u8; 8] = b"PAXOSKV1";
/// Bytes of a frame before its body.
pub(super) const PREFIX: usize = 8;

const HEADER: u8 = 0;
const START: u8 = 1;
const PROMISED: u8 = 2;
const ACCEPTED: u8 = 3;
const CHOSEN: u8 = 4;
const COMMIT: u8 = 5;
const TRUNCATED: u8 = 6;
const KNOWN: u8 = 7;
const FORGOTTEN: u8 = 8;
const KIND_MAX: u8 = FORGOTTEN;

/// A frame that is bad though a good one follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: u64,
    pub(super) next: u64,
}

/// The intact part of a log.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) frames: Vec<&'a [u8]>,
    /// Where it ends; what is behind is torn.
    pub(super) end: u64,
}

fn checksum(offset: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// A frame around `body`, to be written at `offset`.
pub(super) fn frame(offset: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum(offset, body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Appends one record.
pub(super) fn put(body: &mut Vec<u8>, kind: u8, payload: &impl prost::Message) {
    body.push(kind);
    body.extend_from_slice(&(payload.encoded_len() as u32).to_le_bytes());
    payload.encode(body).expect("a Vec has room for everything");
}

/// The frame of the header, which comes right after [`MAGIC`].
pub(super) fn encode_header(header: &disk::Header) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, HEADER, header);
    frame(MAGIC.len() as u64, &body)
}

/// One frame with these records, to be written at `offset`.
pub(super) fn encode(offset: u64, records: &[Record]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        match record {
            Record::Start { epoch, lease } => {
                let lease_ns = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
                put(&mut body, START, &disk::Start { epoch: *epoch, lease_ns });
            }
            Record::Promised { ballot, scope } => {
                let (ballot, scope) = (Some(codec::ballot_to(*ballot)), Some(codec::scope_to(*scope)));
                put(&mut body, PROMISED, &disk::Promised { ballot, scope });
            }
            Record::Accepted(vote) => {
                put(&mut body, ACCEPTED, &disk::Accepted { vote: Some(codec::vote_to(vote)) });
            }
            Record::Chosen { slot, entry } => {
                let chosen = Some(codec::slot_entry_to(*slot, entry));
                put(&mut body, CHOSEN, &disk::Chosen { chosen });
            }
            Record::Commit { slot } => put(&mut body, COMMIT, &disk::Commit { slot: *slot }),
            Record::Known { node, epoch } => {
                put(&mut body, KNOWN, &disk::Known { node: *node, epoch: *epoch });
            }
            Record::Forgotten(forgotten) => {
                let ballot = forgotten.map(|forgotten| codec::ballot_to(forgotten.ballot));
                let slot = forgotten.map_or(0, |forgotten| forgotten.slot);
                put(&mut body, FORGOTTEN, &disk::Forgotten { ballot, slot });
            }
            Record::Truncated { slot } => put(&mut body, TRUNCATED, &disk::Truncated { slot: *slot }),
        }
    }
    frame(offset, &body)
}

/// The body of the intact frame at `offset`, if there is one.
pub(super) fn intact(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let len = word(offset)? as usize;
    let body = bytes.get(offset + PREFIX..(offset + PREFIX).checked_add(len)?)?;
    // No frame is empty, and each begins with a known kind: that spares most of the checksums when searching.
    (*body.first()? <= KIND_MAX && word(offset + 4)? == checksum(offset as u64, body)).then_some(body)
}

/// Reads all frames up to the first bad one.
///
/// # Errors
/// [`Damage`] if an intact frame lies behind a bad one and `looks_behind`, which all but a planted bug do.
pub(super) fn scan(bytes: &[u8], looks_behind: bool) -> Result<Scan<'_>, Damage> {
    let mut offset = MAGIC.len();
    let mut frames = Vec::new();
    while let Some(body) = intact(bytes, offset) {
        frames.push(body);
        offset += PREFIX + body.len();
    }
    let mut behind = offset + 1..if looks_behind { bytes.len() } else { 0 };
    match behind.find(|next| intact(bytes, *next).is_some()) {
        Some(next) => Err(Damage { offset: offset as u64, next: next as u64 }),
        None => Ok(Scan { frames, end: offset as u64 }),
    }
}

/// The records of a frame: kind and payload of each, `None` for one that is longer than the frame.
pub(super) fn records(mut body: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        let (kind, rest) = body.split_first()?;
        let parsed = rest.split_first_chunk::<4>().and_then(|(len, rest)| {
            let len = u32::from_le_bytes(*len) as usize;
            Some((rest.get(..len)?, &rest[len..]))
        });
        body = parsed.map_or(&[][..], |(_, rest)| rest);
        Some(parsed.map(|(payload, _)| (*kind, payload)))
    })
}

/// The header, if that is what the frame holds.
pub(super) fn decode_header(body: &[u8]) -> Option<disk::Header> {
    match records(body).next()?? {
        (HEADER, payload) => disk::Header::decode(payload).ok(),
        _ => None,
    }
}

/// The records of an intact frame.
///
/// # Errors
/// Says what it does not understand; a newer version may have written it.
pub(super) fn decode(body: &[u8]) -> Result<Vec<Record>, String> {
    records(body)
        .map(|record| {
            let (kind, payload) = record.ok_or("a record is longer than its frame")?;
            decode_record(kind, payload)
                .ok_or_else(|| format!("it holds a record of kind {kind} that is unreadable"))
        })
        .collect()
}

fn decode_record(kind: u8, payload: &[u8]) -> Option<Record> {
    Some(match kind {
        START => {
            let start = disk::Start::decode(payload).ok()?;
            Record::Start { epoch: start.epoch, lease: Duration::from_nanos(start.lease_ns) }
        }
        PROMISED => {
            let promised = disk::Promised::decode(payload).ok()?;
            Record::Promised {
                ballot: codec::ballot_from(promised.ballot),
                scope: codec::scope_from(promised.scope)?,
            }
        }
        ACCEPTED => Record::Accepted(codec::vote_from(disk::Accepted::decode(payload).ok()?.vote?)?),
        CHOSEN => {
            let (slot, entry) = codec::slot_entry_from(disk::Chosen::decode(payload).ok()?.chosen?)?;
            Record::Chosen { slot, entry }
        }
        KNOWN => {
            let known = disk::Known::decode(payload).ok()?;
            Record::Known { node: known.node, epoch: known.epoch }
        }
        FORGOTTEN => {
            let bounds = disk::Forgotten::decode(payload).ok()?;
            let forgotten =
                |ballot| Forgotten { ballot: codec::ballot_from(Some(ballot)), slot: bounds.slot };
            Record::Forgotten(bounds.ballot.map(forgotten))
        }
        TRUNCATED => Record::Truncated { slot: disk::Truncated::decode(payload).ok()?.slot },
        COMMIT => Record::Commit { slot: disk::Commit::decode(payload).ok()?.slot },
        _ => return None,
    })
}
