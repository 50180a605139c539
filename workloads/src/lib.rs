//! What the clients ask of a cluster: workloads, the generators behind them, and what a client is.
//!
//! ```text
//!   WorkloadSpec (from the test file) ── build ──▶ dyn Generator ── next ──▶ Op ──▶ dyn Client ──▶ Outcome
//!                                                       ▲                                          │
//!                                                       └───────────── completed ──────────────────┘
//! ```
//!
//! Reading order: [`client`], [`generator`], [`pace`], [`register`], [`convergence`].
//!
//! Generators are pure: randomness is an argument and they never see a clock. This crate does not run anything; the
//! controller does.

pub mod client;
pub mod convergence;
pub mod generator;
pub mod pace;
pub mod register;

pub use client::{Client, Outcome, Served};
pub use convergence::Convergence;
pub use generator::Generator;
pub use pace::Pace;
pub use register::Register;

use checkers::ReadMode;
use serde::{Deserialize, Serialize};

/// The workloads: name, what it does, and how it is judged.
pub const WORKLOADS: &[Info] = &[
    Info {
        name: "register",
        doc: "read, write and compare-and-set over a handful of hot keys with unique values",
        checkers: &["linearizable"],
        model: "cas-register",
        ops: &["read", "write", "cas"],
    },
    Info {
        name: "convergence",
        doc: "write, compare-and-set and stale reads of every replica over a few keys that stay",
        checkers: &["convergence", "linearizable"],
        model: "cas-register",
        ops: &["read", "write", "cas"],
    },
];

/// A workload as `tribunal list` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The name that test files use.
    pub name: &'static str,
    /// One line.
    pub doc: &'static str,
    /// The checkers that judge it, by their names in `checkers::checkers()`.
    pub checkers: &'static [&'static str],
    /// The model by which the linearizability checker judges it.
    pub model: &'static str,
    /// The operations it can ask for.
    pub ops: &'static [&'static str],
}

/// The `workload` section of a test file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WorkloadSpec {
    /// Which workload; see [`WORKLOADS`].
    pub name: String,
    /// Keys in use at any moment. Few, so that operations meet.
    pub keys: u32,
    /// A key is retired after this many operations and a fresh one takes its place, so that judging stays cheap. The keys of
    /// the workload `convergence` stay.
    pub ops_per_key: u32,
    /// How often each operation is asked for, relative to the others.
    pub mix: Mix,
    /// What reads ask for.
    #[serde(with = "mode")]
    pub read_mode: ReadMode,
}

/// Read modes by their names.
mod mode {
    use checkers::ReadMode;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(mode: &ReadMode, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(mode.name())
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<ReadMode, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl Default for WorkloadSpec {
    fn default() -> Self {
        WorkloadSpec {
            name: "register".to_owned(),
            keys: 5,
            ops_per_key: 150,
            mix: Mix::default(),
            read_mode: ReadMode::Default,
        }
    }
}

/// Relative frequencies of the operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mix {
    /// Reads.
    pub read: u32,
    /// Writes.
    pub write: u32,
    /// Compare-and-sets.
    pub cas: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Mix { read: 4, write: 3, cas: 3 }
    }
}

impl WorkloadSpec {
    /// What is wrong with it, if anything.
    pub fn mistake(&self) -> Option<String> {
        if !WORKLOADS.iter().any(|w| w.name == self.name) {
            let names: Vec<&str> = WORKLOADS.iter().map(|w| w.name).collect();
            let near = names.iter().find(|n| strsim::jaro_winkler(n, &self.name) > 0.7);
            let hint = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            return Some(format!(
                "there is no workload `{}`: there is {}{hint}",
                self.name,
                names.join(", ")
            ));
        }
        if self.keys == 0 || self.ops_per_key == 0 {
            return Some("`keys` and `ops-per-key` must be at least 1".to_owned());
        }
        if self.mix.read + self.mix.write + self.mix.cas == 0 {
            return Some(
                "a `mix` of nothing asks for nothing; give one of read, write, cas a share".to_owned(),
            );
        }
        if self.name == "convergence" && !matches!(self.read_mode, ReadMode::Default | ReadMode::Stale) {
            return Some(format!(
                "the `read-mode` of the workload convergence is stale, for it looks at replicas; {} is none of that",
                self.read_mode
            ));
        }
        None
    }

    /// The registry's entry. Only for a spec without [`WorkloadSpec::mistake`].
    pub fn info(&self) -> &'static Info {
        WORKLOADS.iter().find(|w| w.name == self.name).unwrap_or(&WORKLOADS[0])
    }

    /// The operations this spec really asks for (those with a share in the mix).
    pub fn ops(&self) -> Vec<&'static str> {
        let shares = [("read", self.mix.read), ("write", self.mix.write), ("cas", self.mix.cas)];
        shares.into_iter().filter(|(_, n)| *n > 0).map(|(f, _)| f).collect()
    }

    /// The generator of its operations.
    pub fn build(&self) -> Box<dyn Generator> {
        match self.name.as_str() {
            "convergence" => Box::new(Convergence::new(self)),
            _ => Box::new(Register::new(self)),
        }
    }
}
