//! The clocks of one simulated node: one that only ever grows, at a rate of its own, and a time of day that can be set.
//!
//! ```text
//! the world's time   ├────────────┼────────────┤
//! monotonic          ├────────────┼───────────┤     slower by 9,000 ppm; what it shows says nothing, only how it grows
//! time of day        ├────────────┼──────┤ ├──────   set back by two seconds
//! ```
//!
//! A correct node never looks at the second one. Deliberately integers only: the same on every machine.

use crate::core::Mono;

/// Parts in a million.
const MILLION: i64 = 1_000_000;

/// Clocks of a node. Times of the world are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: u64,
    ppm: i64,
    /// Whether the node goes by the time of day.
    by_day: bool,
    wall: i64,
    wall_since: u64,
    wall_ppm: i64,
}

impl Clock {
    /// Shows `origin` when the world begins, and gains `ppm` millionths.
    pub(super) fn new(origin: u64, ppm: i64, by_day: bool) -> Self {
        Clock { origin, ppm, by_day, wall: 0, wall_since: 0, wall_ppm: 0 }
    }

    /// The time of day is off by so many nanoseconds from now on, and gains so many millionths beside.
    pub(super) fn set(&mut self, now: u64, offset: i64, ppm: i64) {
        (self.wall, self.wall_since, self.wall_ppm) = (offset, now, ppm);
    }

    /// By how much the time of day is off.
    pub(super) fn offset(&self, now: u64) -> i64 {
        self.wall + gained(now.saturating_sub(self.wall_since), self.wall_ppm)
    }

    /// What the node's own clock shows.
    pub(super) fn read(&self, now: u64) -> Mono {
        let shows = self.origin + now.saturating_add_signed(gained(now, self.ppm));
        Mono(if self.by_day { shows.saturating_add_signed(self.offset(now)) } else { shows })
    }

    /// When, in the world's time, the node's clock shows `due`, if nobody sets it; at once if that has passed. May be a
    /// moment late, never early.
    pub(super) fn when(&self, now: u64, due: Mono) -> u64 {
        let left = due.0.saturating_sub(self.read(now).0);
        if left == 0 {
            return now;
        }
        let rate = MILLION + self.ppm + if self.by_day { self.wall_ppm } else { 0 };
        let takes = u128::from(left) * MILLION as u128 / rate.max(1) as u128;
        now.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX)).saturating_add(1)
    }
}

/// What a clock that runs for `time` gains.
fn gained(time: u64, ppm: i64) -> i64 {
    match (time as i64).checked_mul(ppm) {
        Some(product) => product / MILLION,
        None => (i128::from(time) * i128::from(ppm) / i128::from(MILLION)) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_reaches_a_moment_when_it_says_it_will() {
        for ppm in [-9_000, -1, 0, 1, 9_000] {
            let clock = Clock::new(123, ppm, false);
            for (now, wait) in
                [(0, 1), (5, 1_000_000), (1_000_000_007, 600_000_000), (u64::MAX / 1_000_000, 3)]
            {
                let due = Mono(clock.read(now).0 + wait);
                let at = clock.when(now, due);
                assert!(clock.read(at) >= due, "{ppm} {now} {wait}");
                assert!(clock.read(at).0 <= due.0 + 3, "{ppm} {now} {wait}");
            }
        }
    }

    #[test]
    fn only_who_goes_by_the_time_of_day_notices_that_it_is_set() {
        for by_day in [false, true] {
            let mut clock = Clock::new(1_000_000, 0, by_day);
            clock.set(10, -400, 500_000);
            assert_eq!(clock.offset(10), -400);
            assert_eq!(clock.offset(1_010), 100);
            assert_eq!(clock.read(1_010).0, 1_001_010 + if by_day { 100 } else { 0 });
        }
    }
}
