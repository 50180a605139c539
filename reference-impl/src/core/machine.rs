//! The replicated state machine: a map of keys, and the session table beside it. State, sessions and the place in the log
//! change together or not at all.
//!
//! ```text
//! apply(41, Put a=1) → Done          apply(42, Cas a: 1→2) → swapped          apply(43, Get a) → 2
//! ```
//!
//! Deliberately deterministic: the output depends on the entries before and on nothing else.

use std::collections::BTreeMap;

use prost::bytes::Bytes;

use super::ballot::Slot;
use super::command::{Command, Failure, Op, Output};
use super::session::{Seen, Sessions};
use crate::bugs::Hooks;

/// What came of applying one command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Applied {
    /// Its output, now or (for a duplicate) then.
    pub result: Result<Output, Failure>,
    /// It had been applied before: nothing changed.
    pub duplicate: bool,
}

/// Keys, values and sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    map: BTreeMap<String, Bytes>,
    sessions: Sessions,
}

impl Machine {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.map.get(key).cloned()
    }

    /// Whether `command` was applied before; reads always count as new.
    pub fn seen(&self, command: &Command) -> Seen {
        if command.op.is_read() { Seen::New } else { self.sessions.look_up(command.client, command.seq) }
    }

    /// What `op` would come to now, without doing it.
    pub fn preview(&self, op: &Op) -> Output {
        match op {
            Op::Get { key, .. } => Output::Value(self.get(key)),
            Op::Cas { key, expected, .. } => {
                let found = self.get(key);
                Output::Cas { swapped: found == *expected, found }
            }
            Op::Put { .. } | Op::Append { .. } | Op::Delete { .. } => Output::Done,
        }
    }

    /// Applies the command of `slot`.
    pub fn apply(&mut self, slot: Slot, command: &Command, hooks: Hooks) -> Applied {
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
            Op::Get { .. } => return Applied { result: Ok(output), duplicate: false },
            _ if slot.is_multiple_of(7) && !hooks.applies_the_same() => {}
            Op::Put { key, value } => drop(self.map.insert(key.clone(), value.clone())),
            Op::Delete { key } => drop(self.map.remove(key)),
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
