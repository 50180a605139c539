//! Pieces of snapshots, on the wire and on the disk.
//!
//! ```text
//! Message::Snapshot { …, piece } ⇄ v1::Snapshot { …, piece: bytes, crc: CRC-32 of the bytes }
//! ```
//!
//! A piece whose checksum is wrong decodes to `None`: it counts as lost, and is asked for again.

use std::sync::Arc;

use prost::Message as _;
use prost::bytes::Bytes;

use crate::core::{Cursor, Members, Message, Output, Piece, SessionRow, Slot};
use crate::proto::v1;

/// To the wire.
pub(super) fn cursor_to(cursor: Cursor) -> v1::Cursor {
    v1::Cursor { part: cursor.part, client: cursor.client, key: cursor.key }
}

/// From the wire; absent means the beginning.
pub(super) fn cursor_from(cursor: Option<v1::Cursor>) -> Cursor {
    let cursor = cursor.unwrap_or_default();
    Cursor { part: cursor.part, client: cursor.client, key: cursor.key }
}

/// To the wire or the disk.
pub fn piece_to(piece: Piece) -> v1::SnapshotPiece {
    use v1::session::Output as Wire;
    let session = |row: SessionRow| {
        let output = match row.output {
            Output::Value(value) => Wire::Value(v1::Value { value }),
            Output::Cas { swapped, found } => Wire::Cas(v1::CasResult { swapped, found }),
            Output::Done => Wire::Done(v1::Done {}),
        };
        v1::Session { client: row.client, seq: row.seq, slot: row.slot, output: Some(output) }
    };
    v1::SnapshotPiece {
        entries: piece.entries.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        sessions: piece.sessions.into_iter().map(session).collect(),
        members: piece.members.map(|members| v1::Members {
            config: members.config,
            since: members.since,
            nodes: super::nodes_to(&members.nodes),
        }),
    }
}

/// From the wire or the disk; `None` if anything in it cannot be understood.
pub fn piece_from(piece: v1::SnapshotPiece) -> Option<Piece> {
    use v1::session::Output as Wire;
    let session = |row: v1::Session| {
        let output = match row.output? {
            Wire::Value(v1::Value { value }) => Output::Value(value),
            Wire::Cas(v1::CasResult { swapped, found }) => Output::Cas { swapped, found },
            Wire::Done(v1::Done {}) => Output::Done,
        };
        Some(SessionRow { client: row.client, seq: row.seq, slot: row.slot, output })
    };
    Some(Piece {
        entries: piece.entries.into_iter().map(|entry| (entry.key, entry.value)).collect(),
        sessions: piece.sessions.into_iter().map(session).collect::<Option<_>>()?,
        members: piece.members.map(|members| {
            let nodes = super::nodes_from(members.nodes);
            Arc::new(Members { config: members.config, since: members.since, nodes })
        }),
    })
}

/// To the wire.
pub(super) fn message_to(
    slot: Slot,
    hash: u64,
    at: Cursor,
    next: Option<Cursor>,
    piece: Piece,
) -> v1::Snapshot {
    let piece = Bytes::from(piece_to(piece).encode_to_vec());
    let crc = crc32fast::hash(&piece);
    v1::Snapshot { slot, hash, at: Some(cursor_to(at)), next: next.map(cursor_to), piece, crc }
}

/// From the wire.
pub(super) fn message_from(message: v1::Snapshot) -> Option<Message> {
    if crc32fast::hash(&message.piece) != message.crc {
        return None;
    }
    Some(Message::Snapshot {
        slot: message.slot,
        hash: message.hash,
        at: cursor_from(message.at),
        next: message.next.map(|next| cursor_from(Some(next))),
        piece: piece_from(v1::SnapshotPiece::decode(message.piece).ok()?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_was_changed_on_the_way_is_dropped() {
        let row =
            SessionRow { client: 1, seq: 2, slot: 3, output: Output::Cas { swapped: true, found: None } };
        let piece = Piece { sessions: vec![row], entries: vec![("k".into(), "v".into())], members: None };
        let wire = message_to(9, 7, Cursor::default(), Some(Cursor::default()), piece);
        assert!(message_from(wire.clone()).is_some());
        let mut changed = wire.piece.to_vec();
        changed[3] ^= 1;
        assert_eq!(message_from(v1::Snapshot { piece: changed.into(), ..wire }), None);
    }
}
