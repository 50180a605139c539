//! A node's own clock: nanoseconds that only ever grow, and go on while the machine sleeps.
//!
//! ```text
//! now() = 12.345 s since boot, suspended time included (Linux: CLOCK_BOOTTIME; elsewhere std's monotonic clock)
//! ```
//!
//! A lease must not survive a suspended machine, which CLOCK_MONOTONIC would let it do. Deliberately not the time of day:
//! that may jump, and nothing here depends on it. A virtual machine that is frozen with all its clocks is outside what a
//! lease can stand.

use crate::bugs::Hooks;
use crate::core::Mono;

/// Reads the clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    #[cfg(not(target_os = "linux"))]
    origin: std::time::Instant,
    monotonic: bool,
}

/// The time of day, which may jump: nothing but a planted bug wants that.
fn time_of_day() -> Mono {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Mono(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(target_os = "linux")]
impl Clock {
    /// The clock of this process.
    pub fn start(hooks: Hooks) -> Self {
        Clock { monotonic: hooks.measures_monotonic_time() }
    }

    /// This moment.
    pub fn now(&self) -> Mono {
        if !self.monotonic {
            return time_of_day();
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Mono(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }
}

#[cfg(not(target_os = "linux"))]
impl Clock {
    /// The clock of this process.
    pub fn start(hooks: Hooks) -> Self {
        Clock { origin: std::time::Instant::now(), monotonic: hooks.measures_monotonic_time() }
    }

    /// This moment.
    pub fn now(&self) -> Mono {
        if !self.monotonic {
            return time_of_day();
        }
        Mono(self.origin.elapsed().as_nanos() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let clock = Clock::start(Hooks::default());
        let mut last = clock.now();
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
