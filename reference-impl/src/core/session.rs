//! The session table: which command of each client was applied last, and what was answered.
//!
//! ```text
//! client 7 ─ seq 3 applied, "done"      (7,3) again → the stored answer      (7,2) → stale      (7,4) → new
//! ```
//!
//! It is part of the replicated state: every replica has the same table after the same prefix of the log, so that a retry
//! is recognised by whoever leads by then. When it is full the client whose last command is oldest in the log is
//! forgotten; the order of the log is the same everywhere, so all replicas forget the same one. Reads are not kept.

use std::collections::BTreeMap;

use prost::bytes::Bytes;

use super::ballot::Slot;
use super::command::Output;
use super::digest::{self, Digest};

/// How many clients are remembered.
pub const SESSIONS_MAX: usize = 16_384;

/// What the table knows about a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Not applied yet, as far as this replica knows.
    New,
    /// Applied at this slot; this was its output.
    Before(Slot, Output),
    /// Something newer of the client was applied.
    Stale,
}

/// One client's line of the table, as snapshots carry it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRow {
    /// Whose.
    pub client: u64,
    /// The newest command applied.
    pub seq: u64,
    /// Where: the age of the session.
    pub slot: Slot,
    /// What was answered.
    pub output: Output,
}

impl SessionRow {
    /// Bytes it takes, roughly.
    pub fn size(&self) -> usize {
        let value = match &self.output {
            Output::Value(value) | Output::Cas { found: value, .. } => value.as_ref().map_or(0, |v| v.len()),
            Output::Done => 0,
        };
        64 + value
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Session {
    seq: u64,
    slot: Slot,
    output: Output,
}

impl Session {
    fn digest(&self, client: u64) -> u64 {
        let bytes =
            |value: &Option<Bytes>| value.as_ref().map_or(0, |value| 1 + u64::from(digest::bytes(value)));
        let output = match &self.output {
            Output::Value(value) => digest::mix(bytes(value) << 2),
            Output::Cas { swapped, found } => {
                digest::mix((bytes(found) << 2) | (u64::from(*swapped) << 1) | 1)
            }
            Output::Done => 2,
        };
        [client, self.seq, self.slot, output].into_iter().fold(0, |sum, part| digest::mix(sum ^ part))
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sessions {
    clients: BTreeMap<u64, Session>,
    by_age: BTreeMap<Slot, u64>,
    digest: Digest,
}

impl Sessions {
    /// Whether `(client, seq)` was applied. `seq` 0 is always new.
    pub fn look_up(&self, client: u64, seq: u64) -> Seen {
        match self.clients.get(&client) {
            Some(session) if seq != 0 && session.seq == seq => {
                Seen::Before(session.slot, session.output.clone())
            }
            Some(session) if seq != 0 && session.seq > seq => Seen::Stale,
            _ => Seen::New,
        }
    }

    /// Remembers that `(client, seq)` was applied at `slot`.
    pub fn remember(&mut self, client: u64, seq: u64, slot: Slot, output: Output) {
        if seq == 0 {
            return;
        }
        self.restore(SessionRow { client, seq, slot, output });
        if self.clients.len() > SESSIONS_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            let gone = self.clients.remove(&oldest);
            gone.into_iter().for_each(|session| self.digest.remove(session.digest(oldest)));
        }
    }

    /// The lines of all clients from `client` on, in the order of their numbers.
    pub fn rows(&self, client: u64) -> impl Iterator<Item = SessionRow> + '_ {
        self.clients.range(client..).map(|(client, session)| SessionRow {
            client: *client,
            seq: session.seq,
            slot: session.slot,
            output: session.output.clone(),
        })
    }

    /// Digest of all lines.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Puts a line back that a table of the same size held.
    pub fn restore(&mut self, row: SessionRow) {
        let SessionRow { client, seq, slot, output } = row;
        let session = Session { seq, slot, output };
        self.digest.add(session.digest(client));
        if let Some(old) = self.clients.insert(client, session) {
            self.by_age.remove(&old.slot);
            self.digest.remove(old.digest(client));
        }
        self.by_age.insert(slot, client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_finds_the_stored_output_and_an_older_one_is_stale() {
        let mut sessions = Sessions::default();
        sessions.remember(7, 3, 10, Output::Done);
        assert_eq!(sessions.look_up(7, 3), Seen::Before(10, Output::Done));
        assert_eq!(sessions.look_up(7, 2), Seen::Stale);
        assert_eq!(sessions.look_up(7, 4), Seen::New);
        assert_eq!(sessions.look_up(8, 1), Seen::New);
        assert_eq!(sessions.look_up(7, 0), Seen::New, "0 means: no session");
    }

    #[test]
    fn the_client_that_was_quiet_for_longest_is_forgotten_first() {
        let mut sessions = Sessions::default();
        for client in 0..SESSIONS_MAX as u64 {
            sessions.remember(client, 1, client + 1, Output::Done);
        }
        sessions.remember(0, 2, 20_000, Output::Done);
        sessions.remember(99_999, 1, 20_001, Output::Done);
        assert_eq!(sessions.look_up(1, 1), Seen::New, "client 1 was the quietest");
        assert_eq!(sessions.look_up(0, 2), Seen::Before(20_000, Output::Done));
        assert_eq!(sessions.clients.len(), SESSIONS_MAX);
        assert_eq!(sessions.by_age.len(), SESSIONS_MAX);
    }
}
