//! Tribunal puts a replicated system on trial.
//!
//! ```text
//! scenario (YAML) ─▶ plan ─▶ run ─────────────▶ history.jsonl ─▶ judge ─▶ results ─▶ report
//!                            workers · nemesis                    checkers · guards
//! ```
//!
//! Modules in reading order: [`scenario`] (the test file), [`plan`] (what is decided before the run), [`trial`] (one
//! trial from end to end), [`run`] (the run loop) with [`worker`], [`journal`] and [`clock`], [`adapter`] (how a system
//! is plugged in), [`cluster`] (where its nodes live), [`judge`], [`guards`] and [`objectives`], [`report`], [`store`], [`cli`];
//! then [`sim`] (a trial in virtual time) and [`matrix`] (every planted bug before every judge).
//!
//! To put your own service on trial, implement [`Adapter`] and [`Client`] and call [`put_on_trial`]; see
//! `examples/own-service.rs`.

pub mod adapter;
pub mod agent;
pub mod bugs;
pub mod clean;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod doctor;
pub mod exit;
pub mod guards;
pub mod journal;
pub mod judge;
pub mod logs;
pub mod machine;
pub mod matrix;
pub mod node_watch;
pub mod objectives;
pub mod owner;
pub mod plan;
pub mod progress;
pub mod report;
pub mod run;
pub mod scenario;
pub mod sim;
pub mod store;
pub mod trial;
pub mod worker;

pub use adapter::{Adapter, Claim, Looker, Node, Session, Wanted};
pub use async_trait::async_trait;
pub use checkers::{Op, Ret, Validity, Value, node_state::NodeState};
pub use judge::Results;
pub use scenario::Scenario;
pub use trial::{Options, put_on_trial};
pub use workloads::{Client, Outcome, Served};
