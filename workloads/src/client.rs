//! What a client of the system under test is, and what it may say of an operation.
//!
//! ```text
//! Ok(ret)    it happened, and this is what it returned
//! Fail(why)  it definitely did not happen and never will: refused before it was sent, or the system said so
//! Info(why)  nobody knows: a timeout, a lost connection, an error that was not classified
//! ```
//! In doubt `Info`. A `Fail` that did happen makes the tester cry wolf; an `Info` that did not costs the judge a
//! little time. A compare-and-set that found another value is *not* `Fail`: it is an observation,
//! `Ok(Ret::Swapped { swapped: false, .. })`.

use async_trait::async_trait;
use checkers::{Op, Ret};
use std::sync::Arc;

/// What became of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It happened; what it returned and how it was served.
    Ok(Ret, Served),
    /// It definitely did not happen.
    Fail(String),
    /// Nobody knows whether it happened, or will.
    Info(String),
}

impl Outcome {
    /// It happened, and nothing is known about how.
    pub fn ok(ret: Ret) -> Self {
        Outcome::Ok(ret, Served::default())
    }
}

/// How the system says that it served an operation. All optional: latency is reported per path where one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// `1-rtt`, `2-rtt`, `lease-read`, …
    pub path: Option<Arc<str>>,
    /// It reached the server that did the work through another one.
    pub forwarded: Option<bool>,
    /// From proposal to commit, measured at the server, in nanoseconds.
    pub commit_ns: Option<u64>,
    /// Its place in the system's log.
    pub slot: Option<u64>,
    /// The ballot or term it was proposed under.
    pub ballot: Option<Arc<str>>,
    /// How many rounds of agreement it took.
    pub rounds: Option<u32>,
}

/// A connection to the system under test, used by one process, one operation at a time.
///
/// The run loop puts a deadline around [`Client::invoke`] and drops the client when it passes; the operation is then
/// recorded as `Info` and its process gets a fresh client. A client may retry within one operation only if the system
/// can tell a retry from a new request.
#[async_trait]
pub trait Client: Send {
    /// Runs one operation.
    async fn invoke(&mut self, op: &Op) -> Outcome;
}
