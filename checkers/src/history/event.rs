//! `Event`: one line of a history, something that began or ended at a moment.
//!
//! ```text
//! index 7  time 1204 ns  process 2  invoke  read  key 3
//! index 9  time 3980 ns  process 2  ok      read  key 3  -> 41   node n1, path lease-read
//! ```
//!
//! Deliberately not an operation: two events make one [`Operation`](crate::Operation), and joining them is where a
//! malformed history is found.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Op, Ret};

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    /// One client, one operation at a time. After an [`Kind::Info`] its number is never used again. JSON: a number.
    Client(u64),
    /// Whoever breaks things. JSON: `"nemesis"`.
    Nemesis,
    /// Whoever watched the nodes: findings in their logs, samples of their state. JSON: `"observer"`.
    Observer,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Client(number) => write!(f, "{number}"),
            Process::Nemesis => f.write_str("nemesis"),
            Process::Observer => f.write_str("observer"),
        }
    }
}

impl Serialize for Process {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Process::Client(number) => serializer.serialize_u64(*number),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Process {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Process;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a client, \"nemesis\" or \"observer\"")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Process, E> {
                Ok(Process::Client(number))
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Process, E> {
                match name {
                    "nemesis" => Ok(Process::Nemesis),
                    "observer" => Ok(Process::Observer),
                    _ => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What happened. On disk the field `type`, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The request is about to leave.
    Invoke,
    /// It happened, and this is the answer.
    Ok,
    /// It definitely did not happen, and never will.
    Fail,
    /// Nobody knows. It may have happened, or may yet, at any later time.
    Info,
}

impl Kind {
    /// The name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Invoke => "invoke",
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info => "info",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Kind::Invoke, Kind::Ok, Kind::Fail, Kind::Info]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("unknown type \"{name}\": use one of invoke, ok, fail, info"))
    }
}

/// What else is known of an event. Everything is optional. Of the verdicts only that on convergence depends on any of it: on the
/// `node` of a stale read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Meta {
    /// The node that was asked.
    pub node: Option<Arc<str>>,
    /// Which way the request took: `1-rtt`, `2-rtt`, `lease-read`, `forwarded`, … Latency is reported for each.
    pub path: Option<Arc<str>>,
    /// Why it failed or is unknown.
    pub error: Option<Arc<str>>,
    /// On an invoke: when the arrival was due, in ns. Earlier than `time` when the tester or its clients were busy.
    pub intended: Option<u64>,
    /// On an ok: how long the proposer took to commit it, in ns, by the node's own clock.
    pub commit_ns: Option<u64>,
    /// The log slot it was decided in.
    pub slot: Option<u64>,
    /// The ballot it was decided under, as the system prints it.
    pub ballot: Option<Arc<str>>,
    /// Rounds of messages it took.
    pub rounds: Option<u32>,
    /// Whether the node passed it on to another.
    pub forwarded: Option<bool>,
    /// Phase of the test: absent for the load; `sample` for what the tester itself reads
    /// meanwhile, `warm-up`, `settle` or `final` around it.
    pub phase: Option<Arc<str>>,
}

/// One entry of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the history; strictly increasing.
    pub index: u64,
    /// Nanoseconds of one monotonic clock since the start of the run.
    pub time: u64,
    /// Who did it.
    pub process: Process,
    /// What happened.
    pub kind: Kind,
    /// The request. A completion repeats that of its invocation.
    pub op: Op,
    /// The answer; only on [`Kind::Ok`].
    pub ret: Option<Ret>,
    /// What else is known.
    pub meta: Meta,
}
