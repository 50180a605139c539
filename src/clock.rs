//! The run's one clock: nanoseconds since the run began, monotonic.
//!
//! Everything that has a time in a history has it from here. Nothing else in the program reads a clock to stamp an
//! event.

use crate::cluster::timer;
use async_trait::async_trait;
use nemesis::Timeline;
use std::time::{Duration, Instant};

/// A handle to the clock. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that shows zero now.
    pub fn start() -> Self {
        Clock { origin: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// When the clock will show this.
    pub fn at(&self, ns: u64) -> Instant {
        self.origin + Duration::from_nanos(ns)
    }
}

#[async_trait]
impl Timeline for Clock {
    fn now(&self) -> u64 {
        Clock::now(self)
    }
    async fn sleep_until(&self, ns: u64) {
        timer::sleep_until(self.at(ns)).await;
    }
}
