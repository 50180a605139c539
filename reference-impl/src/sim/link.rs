//! One direction of one link: what it does to what passes.
//!
//! ```text
//! send ─→ cut? ── hold ─→ kept, and delivered when it opens        (TCP over a network that drops packets)
//!           │ └── drop ─→ gone                                     (connections reset)
//!           └ open ─→ lost? doubled? ─→ each copy draws its own delay, so that messages overtake each other
//! ```
//!
//! The clients together are one end as well, the node 0. Deliberately no bandwidth, and no order.

use std::time::Duration;

use super::happening::Event;
use crate::core::NodeId;

/// The clients, as an end of a link.
pub const CLIENTS: NodeId = 0;

/// Whether anything passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// It does.
    #[default]
    Open,
    /// It is kept until the link opens.
    Hold,
    /// It is lost.
    Drop,
}

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Whether anything passes.
    pub cut: Cut,
    /// Shortest and longest delay, both possible.
    pub delay: (Duration, Duration),
    /// Probability that a message is lost, 0 to 1.
    pub loss: f64,
    /// Probability that a message arrives once more, up to twenty delays later. (Never a forwarded command: the transport sends those once.)
    pub duplicate: f64,
    /// Probability that a message is not delayed at all.
    pub hurry: f64,
}

impl Link {
    /// An open link with delays in this range.
    pub fn delayed(shortest: Duration, longest: Duration) -> Link {
        Link { cut: Cut::Open, delay: (shortest, longest), loss: 0.0, duplicate: 0.0, hurry: 0.0 }
    }
}

/// What was seen to pass a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Messages that were sent over it.
    pub sent: u64,
    /// Kept or lost because it was cut.
    pub stopped: u64,
    /// Lost at random.
    pub lost: u64,
    /// Copies made.
    pub doubled: u64,
    /// Messages that were not delayed.
    pub hurried: u64,
    /// Sum of all delays, in nanoseconds.
    pub delay_ns: u64,
}

/// A link in a world.
pub(super) struct Way {
    pub(super) link: Link,
    /// Shortest delay, and how much longer it can be, in nanoseconds.
    pub(super) delay: (u64, u64),
    pub(super) passed: Passed,
    /// What it keeps.
    pub(super) held: Vec<Event>,
}

impl Way {
    pub(super) fn new(link: Link) -> Self {
        let (shortest, longest) = (nanos(link.delay.0), nanos(link.delay.1));
        let delay = (shortest, longest.saturating_sub(shortest));
        Way { link, delay, passed: Passed::default(), held: Vec::new() }
    }
}

/// In the world's unit.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
