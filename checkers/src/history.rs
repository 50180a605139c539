//! Histories: what happened in a run, as far as anybody outside the system could see.
//!
//! ```text
//!   Event  Event  Event  Event …        one line of the file each (`jsonl`)
//!      \____/ \______/
//!     Operation  Operation …            an invocation and what became of it (`pairing`)
//!          |
//!   p0  |---- w 5 ----|                 as text, for people (`timeline`)
//!   p1        |---- r -> 5 ----|
//! ```
//!
//! A history alone is enough to judge. Deliberately without any knowledge of what is right.

pub(crate) mod datum;
pub mod edn;
mod event;
pub(crate) mod events;
pub mod formats;
pub mod json;
pub mod jsonl;
mod op;
pub(crate) mod operations;
pub(crate) mod pairing;
pub mod timeline;
mod value;

use serde::{Deserialize, Serialize};

pub use self::{
    event::{Event, Kind, Meta, Process},
    events::Events,
    op::{Mop, Op, ReadMode, Ret},
    operations::Operations,
    pairing::{HistoryError, OpOutcome, Operation, Problem},
    value::{Key, Value},
};

/// The first line of a history: which run it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always [`Header::FORMAT`].
    pub format: String,
    /// Of the format; at most [`Header::VERSION`].
    pub version: u32,
    /// The name of the test.
    #[serde(default)]
    pub test: String,
    /// The seed that the plan was made from.
    #[serde(default)]
    pub seed: u64,
    /// When the run started, RFC 3339, by the tester's wall clock.
    #[serde(default)]
    pub started: String,
    /// The names of the nodes.
    #[serde(default)]
    pub nodes: Vec<String>,
}

impl Header {
    /// What the field `format` says.
    pub const FORMAT: &'static str = "tribunal-history";
    /// The version that this build writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// A header of the current format and version. `started` is RFC 3339.
    pub fn new(test: impl Into<String>, seed: u64, started: impl Into<String>, nodes: Vec<String>) -> Self {
        Header {
            format: Self::FORMAT.into(),
            version: Self::VERSION,
            test: test.into(),
            seed,
            started: started.into(),
            nodes,
        }
    }
}

/// All that was recorded of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Which run it is.
    pub header: Header,
    /// What happened, in the order in which it was recorded.
    pub events: Events,
    /// Where and why reading stopped, when the file has a torn end.
    pub cut: Option<Cut>,
}

impl History {
    /// A history that was not read from a file.
    pub fn new(header: Header, events: impl IntoIterator<Item = Event>) -> Self {
        History { header, events: events.into_iter().collect(), cut: None }
    }

    /// The operations, as a view: for histories of any size.
    ///
    /// Events of the nemesis and the observer are passed over. An invocation without a completion is
    /// [`OpOutcome::Info`]. The operations come in the order of their invocations.
    ///
    /// # Errors
    /// The first event that breaks a rule; see [`Problem`].
    pub fn paired(&self) -> Result<Operations<'_>, HistoryError> {
        match &self.events.pairing().broken {
            Some(error) => Err((**error).clone()),
            None => Ok(Operations::new(&self.events)),
        }
    }

    /// The same, each of them whole.
    ///
    /// # Errors
    /// As [`History::paired`].
    pub fn operations(&self) -> Result<Vec<Operation>, HistoryError> {
        Ok(self.paired()?.iter().collect())
    }
}

/// The torn end of a file whose writer died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// The line that is torn, from 1.
    pub line: u64,
    /// Where it starts, in bytes from the start of the file: what is before is whole.
    pub offset: u64,
    /// How many bytes were dropped.
    pub dropped: u64,
    /// In words.
    pub reason: String,
}
