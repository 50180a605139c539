//! What was seen of a node from outside: the value of the observer's event `node-state`.
//!
//! ```text
//! {"node":"n1","incarnation":2,"storage":"5f0c…","promised":[7,2],"snapshot":0,"applied":41,"commit":41,"last":42,
//!  "hash":"9a…","checkpoints":["32 61… 07… e4…"],"log":["42 7.2 c1… d put k7 (3 B)"],…}
//! ```
//!
//! Written by whoever looks at nodes, read by the checker `node-invariants`. Hashes are text, whatever their length: only
//! whether two are equal counts. Deliberately without any word of one system: adapters translate.

use crate::{History, Process};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The name of the event that says which nodes are looked at: an object with `nodes` (names) and `every_ms`.
pub const NODE_WATCH: &str = "node-watch";
/// The name of the event for what was seen of one node: a [`NodeState`].
pub const NODE_STATE: &str = "node-state";

/// Whether somebody set out to look at the nodes of this history: then one without a look is no pass.
pub fn were_looked_at(history: &History) -> bool {
    let observer = |at: &usize| history.events.process(*at as u32) == Process::Observer;
    (0..history.events.len()).filter(observer).any(|at| history.events.get(at).op.f() == NODE_WATCH)
}

/// What one node said of itself, all of it of one moment between the request and the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeState {
    /// Its name.
    pub node: String,
    /// When it was asked, in ns of the run's clock; the event's time is when it had answered.
    pub asked_ns: u64,
    /// It was asked after everything else, when all faults were healed; its `log` goes on to its end.
    #[serde(rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub last_look: bool,
    /// Which start of the node this is; 0 if it does not know that yet.
    pub incarnation: u64,
    /// Differs if the node's disk was replaced by another one.
    pub storage: String,
    /// What it is: `leader`, `follower`, …
    pub role: String,
    /// It has a vote.
    pub votes: bool,
    /// Which set of nodes votes, if that can change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<u64>,
    /// What it promised survives a failure of the power.
    pub survives_power_failure: bool,
    /// The highest ballot that it has promised to anybody, for all slots; absent where each slot has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promised: Option<(u64, u64)>,
    /// The same when this incarnation began, as its disk remembered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<(u64, u64)>,
    /// The first slot that its log may hold.
    pub first: u64,
    /// The last slot of its snapshot, 0 without one.
    pub snapshot: u64,
    /// Everything that was chosen up to this slot is on its disk.
    pub durable: u64,
    /// It has applied everything up to this slot.
    pub applied: u64,
    /// It knows everything up to this slot to be chosen.
    pub commit: u64,
    /// The last slot that it knows anything of.
    pub last: u64,
    /// Hash of the entries up to `applied`.
    pub hash: String,
    /// Digest of the state that they came to.
    pub state: String,
    /// Digest of the sessions.
    pub sessions: String,
    /// The same at slots before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<Prefix>,
    /// What it knows slot by slot: as far as it was asked for, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<SlotState>,
    /// In the last look: not all of the log that was wanted could be got.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// What the prefix of the log up to a slot came to; `32 61… 07… e4…` in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix {
    /// Its last slot.
    pub slot: u64,
    /// Hash of its entries.
    pub hash: String,
    /// Digest of the state.
    pub state: String,
    /// Digest of the sessions.
    pub sessions: String,
}

/// What a node knows of a slot; `42 7.2 c1… cd put k7 (3 B)` in JSON, with `-` for no ballot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SlotState {
    /// Which.
    pub slot: u64,
    /// The ballot of its own vote for this value, if it has given one.
    pub ballot: Option<(u64, u64)>,
    /// Hash of the value.
    pub hash: String,
    /// The value is known to be chosen (`c`).
    pub chosen: bool,
    /// What it knows is on its disk (`d`).
    pub durable: bool,
    /// The value in words.
    pub what: String,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.slot, self.hash, self.state, self.sessions)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [slot, hash, state, sessions] = parts[..] else {
            return Err(format!("\"{text}\" is no checkpoint: expected a slot and three hashes"));
        };
        let slot = slot.parse().map_err(|_| format!("\"{slot}\" is no slot"))?;
        Ok(Prefix { slot, hash: hash.into(), state: state.into(), sessions: sessions.into() })
    }
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.slot)?;
        match self.ballot {
            Some((round, node)) => write!(f, "{round}.{node}")?,
            None => f.write_str("-")?,
        }
        let (chosen, durable) = (if self.chosen { "c" } else { "" }, if self.durable { "d" } else { "" });
        write!(f, " {} {chosen}{durable} {}", self.hash, self.what)
    }
}

impl FromStr for SlotState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no slot of a log: expected a slot, a ballot, a hash and flags");
        let mut parts = text.splitn(5, ' ');
        let mut next = || parts.next().ok_or_else(wrong);
        let slot = next()?.parse().map_err(|_| wrong())?;
        let ballot = match next()? {
            "-" => None,
            ballot => {
                let (round, node) = ballot.split_once('.').ok_or_else(wrong)?;
                Some((round.parse().map_err(|_| wrong())?, node.parse().map_err(|_| wrong())?))
            }
        };
        let (hash, flags) = (next()?.to_owned(), next()?);
        let what = parts.next().unwrap_or_default().to_owned();
        Ok(SlotState { slot, ballot, hash, chosen: flags.contains('c'), durable: flags.contains('d'), what })
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SlotState> for String {
    fn from(slot: SlotState) -> String {
        slot.to_string()
    }
}

impl TryFrom<String> for SlotState {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_being_written_and_read_again() {
        let slot = |ballot, chosen, durable, what: &str| SlotState {
            slot: 42,
            ballot,
            hash: "c1".into(),
            chosen,
            durable,
            what: what.into(),
        };
        let state = NodeState {
            node: "n1".into(),
            promised: Some((7, 2)),
            checkpoints: vec![Prefix {
                slot: 32,
                hash: "61".into(),
                state: "07".into(),
                sessions: "e4".into(),
            }],
            log: vec![
                slot(Some((7, 2)), true, true, "put k7 (3 B)"),
                slot(None, true, false, ""),
                slot(Some((1, 1)), false, false, "no-op"),
            ],
            ..NodeState::default()
        };
        let json = serde_json::to_value(&state).unwrap();
        assert_eq!(json["log"][0], "42 7.2 c1 cd put k7 (3 B)");
        assert_eq!(serde_json::from_value::<NodeState>(json).unwrap(), state);
        assert!("42 7 c1 d".parse::<SlotState>().is_err());
        assert!("42 a b".parse::<Prefix>().is_err());
    }
}
