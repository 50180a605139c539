//! The numbers of Paxos: who (node), where (slot), in whose name (ballot), and when (a node's own clock).
//!
//! ```text
//! Ballot { round: 7, node: 2 }  >  Ballot { round: 6, node: 5 }      rounds decide, the node breaks ties
//! ```
//!
//! The upper bits of a round are the number of the configuration in which it was cast (see `reconfigure`).
//!
//! Deliberately no wall clock: [`Mono`] never leaves the node it was read on.

use std::ops::Add;
use std::time::Duration;

/// Number of a node, from 1.
pub type NodeId = u32;
/// Position in the replicated log, from 1. 0 means "before the first".
pub type Slot = u64;

/// In whose name something is proposed. Unique to one proposer; compared by round, then by node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Grows with every new attempt to lead.
    pub round: u64,
    /// The proposer.
    pub node: NodeId,
}

/// A configuration has so many bits of rounds for itself: a million elections a second for twelve days.
const ROUND_BITS: u32 = 40;

impl Ballot {
    /// Below every ballot of a proposer.
    pub const ZERO: Ballot = Ballot { round: 0, node: 0 };

    /// The configuration that it belongs to.
    pub fn config(self) -> u64 {
        self.round >> ROUND_BITS
    }

    /// The round below all those of configuration `config`.
    pub fn first_round(config: u64) -> u64 {
        config << ROUND_BITS
    }
}

impl std::fmt::Display for Ballot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.config() {
            0 => write!(f, "{}.{}", self.round, self.node),
            config => write!(f, "{config}/{}.{}", self.round - Ballot::first_round(config), self.node),
        }
    }
}

/// A moment on one node's own monotonic clock, in nanoseconds since an arbitrary origin. Moments of different nodes, or of
/// two incarnations of one node, must never be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// Later than any moment that a clock shows.
    pub const NEVER: Mono = Mono(u64::MAX);

    /// Time passed since `earlier`; zero if that is in the future.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, duration: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}
