//! The load second by second, by the second in which the operations were due.
//!
//! ```text
//! second   ok  fail  info   p50     max
//!      0  500     0     0   1 ms    4 ms
//!      1    0     0    10   -       -         the outage: nothing that was due then succeeded
//!      2  490     0     0   1 ms  900 ms      what was due then had to wait
//! ```
//!
//! Seconds in which nothing was due are listed too, so that gaps are seen. Deliberately by arrival and not by completion:
//! an operation belongs to the moment at which somebody wanted it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::OpOutcome;

const NS: u64 = 1_000_000_000;

/// Beyond this many, seconds in which nothing was due are left out: an absurd time must not take all memory.
const MAX_DENSE: u64 = 1 << 20;

/// What was due within one second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Since the start of the run.
    pub second: u64,
    /// How many succeeded, at any time.
    pub ok: u64,
    /// How many definitely failed.
    pub fail: u64,
    /// How many have an unknown outcome.
    pub info: u64,
    /// Median response latency of those that succeeded, in ns; `None` if none did.
    pub p50_ns: Option<u64>,
    /// 90 % took at most this long, in ns.
    pub p90_ns: Option<u64>,
    /// 99 % took at most this long, in ns.
    pub p99_ns: Option<u64>,
    /// The largest, in ns.
    pub max_ns: Option<u64>,
}

#[derive(Default)]
struct Open {
    responses: Vec<u64>,
    fail: u64,
    info: u64,
}

#[derive(Default)]
pub(super) struct Seconds(BTreeMap<u64, Open>);

impl Seconds {
    pub(super) fn add(&mut self, arrival: u64, outcome: &OpOutcome, response: Option<u64>) {
        let second = self.0.entry(arrival / NS).or_default();
        match (outcome, response) {
            (_, Some(response)) => second.responses.push(response),
            (OpOutcome::Fail, None) => second.fail += 1,
            _ => second.info += 1,
        }
    }

    pub(super) fn finish(mut self) -> Vec<Second> {
        let last = self.0.keys().next_back().copied();
        if let Some(last) = last
            && last < MAX_DENSE
        {
            (0..last).for_each(|second| {
                self.0.entry(second).or_default();
            });
        }
        self.0.into_iter().map(|(second, open)| open.close(second)).collect()
    }
}

impl Open {
    fn close(mut self, second: u64) -> Second {
        self.responses.sort_unstable();
        let count = self.responses.len();
        // The nearest rank: the smallest value that so many per cent do not exceed.
        let at = |percent: usize| self.responses.get((count * percent).div_ceil(100).max(1) - 1).copied();
        Second {
            second,
            ok: count as u64,
            fail: self.fail,
            info: self.info,
            p50_ns: at(50),
            p90_ns: at(90),
            p99_ns: at(99),
            max_ns: self.responses.last().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ret;

    #[test]
    fn gaps_are_seen() {
        let mut seconds = Seconds::default();
        let ok = OpOutcome::Ok(Ret::Done);
        (1..=100).for_each(|ns| seconds.add(2 * NS + ns, &ok, Some(ns)));
        seconds.add(0, &OpOutcome::Fail, None);
        seconds.add(NS - 1, &OpOutcome::Info, None);
        let found = seconds.finish();
        let nothing = Second {
            second: 0,
            ok: 0,
            fail: 0,
            info: 0,
            p50_ns: None,
            p90_ns: None,
            p99_ns: None,
            max_ns: None,
        };
        assert_eq!(found[0], Second { fail: 1, info: 1, ..nothing.clone() });
        assert_eq!(found[1], Second { second: 1, ..nothing });
        assert_eq!(
            (found[2].p50_ns, found[2].p90_ns, found[2].p99_ns, found[2].max_ns),
            (Some(50), Some(90), Some(99), Some(100))
        );
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn an_absurd_time_does_not_take_all_memory() {
        let mut seconds = Seconds::default();
        seconds.add(u64::MAX, &OpOutcome::Info, None);
        seconds.add(0, &OpOutcome::Info, None);
        assert_eq!(seconds.finish().len(), 2);
    }
}
