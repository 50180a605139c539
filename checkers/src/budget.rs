//! `Budget`: how much a checker may spend before it has to say that it does not know.
//!
//! ```text
//! src: a timer or Ctrl-C ---- sets ----> [cancel] <---- looks at, often ---- checker
//! ```
//!
//! Deliberately without a clock: who sets the flag, and when, is the caller's affair. Bytes are counted by the
//! checkers themselves, for their large structures; they are no limit on the process.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag that ends the search, and a bound on the memory that it may take.
#[derive(Clone, Debug)]
pub struct Budget {
    cancel: Arc<AtomicBool>,
    max_bytes: u64,
}

impl Budget {
    /// Stops soon after `cancel` becomes true, or when about `max_bytes` bytes are in use.
    pub fn new(cancel: Arc<AtomicBool>, max_bytes: u64) -> Self {
        Budget { cancel, max_bytes }
    }

    /// Never stops. For small histories and tests: a hard history takes all memory there is.
    pub fn unlimited() -> Self {
        Budget::new(Arc::default(), u64::MAX)
    }

    /// Whether to give up now.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// How many bytes may be in use at once.
    pub fn bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The same flag, and an equal share of the memory for each of `parts` searches that run side by side.
    pub fn split(&self, parts: usize) -> Budget {
        Budget { cancel: self.cancel.clone(), max_bytes: self.max_bytes / parts.max(1) as u64 }
    }
}
