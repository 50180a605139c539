//! The replicated state machine: a map of keys, and the session table beside it. State, sessions and the place in the log
//! change together or not at all.
//!
//! ```text
//! apply(41, Put a=1) → Done          apply(42, Cas a: 1→2) → swapped          apply(43, Get a) → 2
//! ```
//!
//! A copy shares all its keys with the original until one of them is written (the map is in shards, each copied by its first
//! writer), so that a snapshot of a large state does not stop the node. Deliberately deterministic: the output depends on the
//! entries before and on nothing else.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

use prost::bytes::Bytes;

use super::ballot::Slot;
use super::command::{Command, Failure, Op, Output};
use super::digest::{self, Digest};
use super::learner::fnv;
use super::members::{self, Members, Nodes};
use super::session::{Seen, SessionRow, Sessions};
use crate::bugs::Hooks;

/// What came of applying one command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Applied {
    /// Its output, now or (for a duplicate) then.
    pub result: Result<Output, Failure>,
    /// It had been applied before: nothing changed.
    pub duplicate: bool,
}

/// Parts of the map that are copied one by one.
const SHARDS: usize = 256;
/// Memory that a key or a session costs beside its bytes, roughly.
const OVERHEAD: usize = 64;

/// The keys, in shards that a copy shares until it writes to them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Map {
    shards: Arc<Vec<Arc<BTreeMap<String, Bytes>>>>,
    bytes: usize,
    digest: Digest,
}

impl Hash for Map {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Most shards of the maps that a model checker hashes are empty.
        self.shards
            .iter()
            .enumerate()
            .filter(|(_, shard)| !shard.is_empty())
            .for_each(|part| part.hash(state));
        self.bytes.hash(state);
    }
}

impl Default for Map {
    fn default() -> Self {
        Map { shards: Arc::new(vec![Arc::default(); SHARDS]), bytes: 0, digest: Digest::default() }
    }
}

impl Map {
    fn shard(key: &str) -> usize {
        fnv(&key) as usize % SHARDS
    }

    /// Where `key` is to be written: nobody else sees it.
    fn own(&mut self, key: &str) -> &mut BTreeMap<String, Bytes> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[Map::shard(key)])
    }

    fn get(&self, key: &str) -> Option<&Bytes> {
        self.shards[Map::shard(key)].get(key)
    }

    fn insert(&mut self, key: String, value: Bytes) {
        let size = OVERHEAD + key.len();
        self.bytes += size + value.len();
        let name = digest::bytes(key.as_bytes());
        self.digest.add(digest::pair(name, digest::bytes(&value)));
        if let Some(old) = self.own(&key).insert(key, value) {
            self.bytes -= size + old.len();
            self.digest.remove(digest::pair(name, digest::bytes(&old)));
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(old) = self.own(key).remove(key) {
            self.bytes -= OVERHEAD + key.len() + old.len();
            self.digest.remove(digest::pair(digest::bytes(key.as_bytes()), digest::bytes(&old)));
        }
    }
}

/// Where a piece of the state begins: at a session, or at a key of a shard. The beginning of everything is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// 0 for the sessions, then the shards from 1.
    pub part: u32,
    /// First client, among the sessions.
    pub client: u64,
    /// First key, within a shard.
    pub key: String,
}

/// A part of the state, small enough to be sent or written at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Piece {
    /// Sessions, with their age: the slot of the client's last command.
    pub sessions: Vec<SessionRow>,
    /// Keys and values.
    pub entries: Vec<(String, Bytes)>,
    /// In the first one: the configuration, unless it is number 0.
    pub members: Option<Arc<Members>>,
}

impl Piece {
    /// Bytes it takes, roughly.
    pub fn size(&self) -> usize {
        self.sessions.iter().map(SessionRow::size).sum::<usize>()
            + self.entries.iter().map(|(key, value)| OVERHEAD + key.len() + value.len()).sum::<usize>()
    }
}

/// Keys, values, sessions, and who decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    map: Map,
    sessions: Sessions,
    members: Option<Arc<Members>>,
}

impl Machine {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.map.get(key).cloned()
    }

    /// All but the sessions: see the bug `snapshot-without-sessions`.
    pub fn without_sessions(&self) -> Machine {
        Machine { sessions: Sessions::default(), ..self.clone() }
    }

    /// Bytes of the keys and values, roughly.
    pub fn size(&self) -> usize {
        self.map.bytes
    }

    /// The part of the state that begins at `from` and has about `bytes` bytes (at least one item), and where the next
    /// one begins, if there is one.
    pub fn piece(&self, from: &Cursor, bytes: usize) -> (Piece, Option<Cursor>) {
        let mut piece = Piece::default();
        let mut left = bytes;
        if *from == Cursor::default() {
            piece.members.clone_from(&self.members);
        }
        if from.part == 0 {
            for row in self.sessions.rows(from.client) {
                if left == 0 {
                    return (piece, Some(Cursor { client: row.client, ..Cursor::default() }));
                }
                left = left.saturating_sub(row.size());
                piece.sessions.push(row);
            }
        }
        for (part, shard) in (1u32..).zip(self.map.shards.iter()).skip(from.part.saturating_sub(1) as usize) {
            let start = if part == from.part { from.key.as_str() } else { "" };
            for (key, value) in shard.range::<str, _>((Included(start), Unbounded)) {
                if left == 0 {
                    return (piece, Some(Cursor { part, client: 0, key: key.clone() }));
                }
                left = left.saturating_sub(OVERHEAD + key.len() + value.len());
                piece.entries.push((key.clone(), value.clone()));
            }
        }
        (piece, None)
    }

    /// Digest of keys and values: equal if these are, whatever happened before.
    pub fn state_digest(&self) -> u64 {
        self.map.digest.value()
    }

    /// Digest of the sessions, their answers and their ages.
    pub fn session_digest(&self) -> u64 {
        self.sessions.digest()
    }

    /// Takes in a piece of another machine's state.
    pub fn absorb(&mut self, piece: Piece) {
        piece.sessions.into_iter().for_each(|row| self.sessions.restore(row));
        piece.entries.into_iter().for_each(|(key, value)| self.map.insert(key, value));
        self.members = piece.members.or(self.members.take());
    }

    /// The configuration that decides what comes next; `None` while that is number 0.
    pub fn members(&self) -> Option<&Arc<Members>> {
        self.members.as_ref()
    }

    /// A change counts only if it replaces what there is: so it is made once, without a session.
    fn reconfigure(&mut self, slot: Slot, from: u64, nodes: &Nodes) -> Applied {
        let number = self.members.as_ref().map_or(0, |members| members.config);
        if from == number {
            let members = Members { config: number + 1, since: slot, nodes: nodes.clone() };
            self.members = Some(Arc::new(members));
            return Applied { result: Ok(Output::Done), duplicate: false };
        }
        let made =
            |members: &Arc<Members>| members.config == from + 1 && members::are_same(&members.nodes, nodes);
        let result = if self.members.as_ref().is_some_and(made) {
            Ok(Output::Done)
        } else {
            Err(Failure::Invalid(format!(
                "configuration {from} was replaced by another change; now it is {number}"
            )))
        };
        Applied { result, duplicate: true }
    }

    /// Whether `command` was applied before; reads, and changes of membership, always count as new.
    pub fn seen(&self, command: &Command) -> Seen {
        let kept = !command.op.is_read() && !matches!(command.op, Op::Reconfigure { .. });
        if !kept { Seen::New } else { self.sessions.look_up(command.client, command.seq) }
    }

    /// What `op` would come to now, without doing it.
    pub fn preview(&self, op: &Op) -> Output {
        match op {
            Op::Get { key, .. } => Output::Value(self.get(key)),
            Op::Cas { key, expected, .. } => {
                let found = self.get(key);
                Output::Cas { swapped: found == *expected, found }
            }
            Op::Put { .. } | Op::Append { .. } | Op::Delete { .. } | Op::Reconfigure { .. } => Output::Done,
        }
    }

    /// Applies the command of `slot`.
    pub fn apply(&mut self, slot: Slot, command: &Command, hooks: Hooks) -> Applied {
        if let Op::Reconfigure { from, nodes } = &command.op {
            return self.reconfigure(slot, *from, nodes);
        }
        if hooks.consults_sessions() && hooks.consults_sessions_when_applying() {
            match self.seen(command) {
                Seen::New => {}
                Seen::Before(..) if !hooks.repeats_the_answer() => {
                    return Applied { result: Ok(self.preview(&command.op)), duplicate: true };
                }
                Seen::Before(_, output) => return Applied { result: Ok(output), duplicate: true },
                Seen::Stale => return Applied { result: Err(Failure::StaleSeq), duplicate: true },
            }
        }
        let output = self.preview(&command.op);
        match &command.op {
            Op::Get { .. } | Op::Reconfigure { .. } => {
                return Applied { result: Ok(output), duplicate: false };
            }
            _ if slot.is_multiple_of(7) && !hooks.applies_the_same() => {}
            Op::Put { key, value } => self.map.insert(key.clone(), value.clone()),
            Op::Delete { key } => self.map.remove(key),
            Op::Append { key, value } => {
                let old = self.map.get(key).map_or(&[][..], |old| old);
                let grown = [old, value].concat();
                self.map.insert(key.clone(), grown.into());
            }
            Op::Cas { key, new, .. } => {
                if matches!(output, Output::Cas { swapped: true, .. }) {
                    self.map.insert(key.clone(), new.clone());
                }
            }
        }
        self.sessions.remember(command.client, command.seq, slot, output.clone());
        Applied { result: Ok(output), duplicate: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ReadMode;

    fn run(machine: &mut Machine, slot: Slot, seq: u64, op: Op) -> Applied {
        machine.apply(slot, &Command { client: 1, seq, op }, Hooks::default())
    }

    fn key() -> String {
        "a".into()
    }

    #[test]
    fn every_operation_does_what_it_says() {
        let mut m = Machine::default();
        let get =
            |m: &mut Machine| run(m, 99, 0, Op::Get { key: key(), mode: ReadMode::Log }).result.unwrap();
        let cas = |expected: Option<&'static str>, new: &'static str| Op::Cas {
            key: key(),
            expected: expected.map(|e| Bytes::from_static(e.as_bytes())),
            new: new.into(),
        };
        assert_eq!(get(&mut m), Output::Value(None));
        assert_eq!(run(&mut m, 1, 0, cas(None, "1")).result, Ok(Output::Cas { swapped: true, found: None }));
        assert_eq!(
            run(&mut m, 2, 0, cas(None, "2")).result,
            Ok(Output::Cas { swapped: false, found: Some("1".into()) })
        );
        run(&mut m, 3, 0, Op::Append { key: key(), value: "23".into() }).result.unwrap();
        assert_eq!(get(&mut m), Output::Value(Some("123".into())));
        run(&mut m, 4, 0, Op::Put { key: key(), value: "9".into() }).result.unwrap();
        assert_eq!(get(&mut m), Output::Value(Some("9".into())));
        run(&mut m, 5, 0, Op::Delete { key: key() }).result.unwrap();
        assert_eq!(get(&mut m), Output::Value(None));
    }

    #[test]
    fn pieces_of_any_size_add_up_to_the_whole_and_a_copy_does_not_change_with_the_original() {
        let mut m = Machine::default();
        for n in 1..=300 {
            let op = Op::Put { key: format!("key {n}"), value: vec![7; n as usize].into() };
            m.apply(n, &Command { client: n % 40, seq: n, op }, Hooks::default());
        }
        let whole = m.clone();
        m.apply(
            301,
            &Command { client: 1, seq: 999, op: Op::Delete { key: "key 7".into() } },
            Hooks::default(),
        );
        assert_ne!(m, whole);
        for bytes in [1, 100, 5_000, usize::MAX] {
            let (mut copy, mut at, mut pieces) = (Machine::default(), Some(Cursor::default()), 0);
            while let Some(cursor) = at {
                let (piece, next) = whole.piece(&cursor, bytes);
                assert!(bytes == usize::MAX || piece.size() < bytes + 500);
                copy.absorb(piece);
                (at, pieces) = (next, pieces + 1);
            }
            assert_eq!(copy, whole, "pieces of {bytes} bytes");
            assert!(pieces > 100 || bytes > 1);
        }
        let mut empty = whole.clone();
        for n in 1..=300 {
            empty.apply(
                n,
                &Command { client: 0, seq: 0, op: Op::Delete { key: format!("key {n}") } },
                Hooks::default(),
            );
        }
        assert_eq!((empty.size(), whole.get("key 7").map(|v| v.len())), (0, Some(7)));
    }

    #[test]
    fn a_duplicate_changes_nothing_and_gets_the_old_output() {
        let mut m = Machine::default();
        run(&mut m, 1, 1, Op::Append { key: key(), value: "x".into() });
        let swap = Op::Cas { key: key(), expected: Some("x".into()), new: "y".into() };
        let first = run(&mut m, 2, 2, swap.clone());
        let again = run(&mut m, 3, 2, swap);
        assert_eq!(first.result, again.result);
        assert!(again.duplicate);
        assert_eq!(run(&mut m, 4, 1, Op::Delete { key: key() }).result, Err(Failure::StaleSeq));
        assert_eq!(m.get("a"), Some("y".into()));
    }
}
