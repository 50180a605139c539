//! A seeded simulator: the core of every node, virtual clocks, disks, and the network between them.
//!
//! ```text
//!               ┌──────────────── World ─────────────────┐
//! call ───────→ │ clients ⇄ links ⇄ [ node + disk ] × n  │ ─→ next(): an answer, a crash, a timer of one's own, a broken invariant
//! crash, pause  │    delay, loss, copies, cuts, one way  │
//! set_link, …   │    clocks of one's own; torn writes    │
//!               └────────────────────────────────────────┘
//! ```
//!
//! Whoever uses a [`World`] is outside of it: asks nodes as clients do, breaks what it likes, and is told what comes of it, in
//! the order of virtual time. A run is a pure function of the [`Cluster`]'s seed and of what the user does. It drives the same
//! core that the server drives, and obeys the same rule ("send after the token is on disk"), but it is deliberately no model
//! of the server around it: transport, log files and threads are tested elsewhere.
//!
//! [`attack`] is such a user: random clients and faults, and a judge for lists.

pub mod attack;
mod clock;
mod disks;
mod happening;
mod link;
mod node;
mod oracle;
mod queue;
mod world;

pub use attack::{Faults, Report, Setup, Violation, run};
pub use link::{CLIENTS, Cut, Link, Passed};
pub use node::{Loss, Lost};
pub use oracle::{Broken, Invariant};
pub use world::{Answer, Cluster, Happened, Stored, World};
