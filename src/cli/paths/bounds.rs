//! What theory demands of the figures, and whether it holds.
//!
//! ```text
//! Multi-Paxos commits at the leader within [2d, 2d + 1 ms]      2(N − 1) messages for each commit
//! Basic Paxos commits at the proposer within [4d, 4d + 2 ms]    4(N − 1), and N − 1 to tell what was chosen
//! a read under the lease takes less than 0.3 ms, whatever d
//! ```
//! d is what the proxies measured, not what they were told. Deliberately no tolerance below: a message cannot be faster
//! than its link.

use super::measure::Measured;
use super::show::at;
use crate::{exit, report::text::table, scenario::Protocol};

/// One demand.
#[derive(Debug)]
pub(super) struct Bound {
    what: &'static str,
    low: f64,
    high: f64,
    /// Nothing if there is no sample of it.
    measured: Option<f64>,
}

impl Bound {
    fn holds(&self) -> Option<bool> {
        self.measured.map(|m| (self.low..=self.high).contains(&m))
    }
}

/// How far a count of messages may be off: an election or a lost race would cost a few.
const MESSAGES: f64 = 0.02;

/// All demands on the two headline measurements.
pub(super) fn of(all: &[(Protocol, Measured)], nodes: u32) -> Vec<Bound> {
    let others = f64::from(nodes - 1);
    let mut bounds = Vec::new();
    for (protocol, m) in all {
        let d = m.delay_ns as f64 / 1e6;
        // Without links nothing is delayed; with links that delayed nothing there is nothing to compare with.
        let delayed = m.delay_ns > 0 || nodes == 1;
        let p50 = |view: &str| {
            let views = m.views();
            let (_, values) = views.iter().find(|(name, _)| *name == view)?;
            Some(at(values, 0.5)? as f64 / 1e6)
        };
        let commit = p50("at the proposer").filter(|_| delayed);
        let messages = |kinds: &[&str]| {
            let direct: Vec<_> = m.sent.iter().filter(|s| !s.forwarded && s.commits > 0).collect();
            let commits: usize = direct.iter().map(|s| s.commits).sum();
            let counted =
                |s: &super::measure::Sent| kinds.iter().filter_map(|kind| s.kinds.get(*kind)).sum::<u64>();
            (commits > 0).then(|| direct.iter().map(|s| counted(s)).sum::<u64>() as f64 / commits as f64)
        };
        let count = |what, each: f64, kinds: &[&str]| Bound {
            what,
            low: each * (1.0 - MESSAGES),
            high: each * (1.0 + MESSAGES),
            measured: messages(kinds),
        };
        match protocol {
            Protocol::MultiPaxos => bounds.extend([
                Bound {
                    what: "multi-paxos commit, 2d to 2d + 1",
                    low: 2.0 * d,
                    high: 2.0 * d + 1.0,
                    measured: commit,
                },
                Bound {
                    what: "lease read at its client, 0.3",
                    low: 0.0,
                    high: 0.3,
                    measured: p50("lease read, direct"),
                },
                count("multi-paxos messages, 2(N-1)", 2.0 * others, &["accept", "accepted"]),
            ]),
            Protocol::BasicPaxos => bounds.extend([
                Bound {
                    what: "basic-paxos commit, 4d to 4d + 2",
                    low: 4.0 * d,
                    high: 4.0 * d + 2.0,
                    measured: commit,
                },
                count(
                    "basic-paxos messages, 4(N-1)",
                    4.0 * others,
                    &["prepare", "promise", "accept", "accepted"],
                ),
            ]),
        }
    }
    bounds
}

pub(super) fn table_of(bounds: &[Bound]) -> String {
    let row = |b: &Bound| {
        let holds = match b.holds() {
            Some(true) => "yes",
            Some(false) => "MISSED",
            None => "NOT MEASURED",
        };
        let number = |x: f64| format!("{x:.2}");
        let measured = b.measured.map_or("-".to_owned(), number);
        vec![b.what.to_owned(), number(b.low), number(b.high), measured, holds.to_owned()]
    };
    let rows: Vec<_> = bounds.iter().map(row).collect();
    table(&["demand", "from", "to", "measured", "holds"], &rows, 4)
}

/// As for a verdict: a missed bound is a finding, and one that was not measured is not known to hold.
pub(super) fn exit_code(bounds: &[Bound]) -> u8 {
    if bounds.iter().any(|b| b.holds() == Some(false)) {
        exit::INVALID
    } else if bounds.iter().any(|b| b.holds().is_none()) {
        exit::UNKNOWN
    } else {
        exit::VALID
    }
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::measured;
    use super::*;

    const PHASES: [&str; 4] = ["prepare", "promise", "accept", "accepted"];

    fn judged(multi_ms: u64, basic_ms: u64, reads: &[u64], basic_kinds: &[&str]) -> (u8, String) {
        let mut multi = measured(&[multi_ms], false, &PHASES[2..]);
        multi.lease_reads = reads.to_vec();
        multi.delay_ns = 10_000_000;
        let mut basic = measured(&[basic_ms], false, basic_kinds);
        basic.delay_ns = 10_000_000;
        let bounds = of(&[(Protocol::MultiPaxos, multi), (Protocol::BasicPaxos, basic)], 5);
        (exit_code(&bounds), table_of(&bounds))
    }

    #[test]
    fn what_holds_is_valid_and_each_miss_is_a_finding() {
        let good = judged(21, 42, &[200_000], &PHASES);
        assert_eq!(good.0, exit::VALID, "{}", good.1);
        for bad in [
            judged(19, 42, &[200_000], &PHASES),
            judged(22, 42, &[200_000], &PHASES),
            judged(21, 39, &[200_000], &PHASES),
            judged(21, 43, &[200_000], &PHASES),
            judged(21, 42, &[310_000], &PHASES),
            judged(21, 42, &[200_000], &PHASES[2..]),
        ] {
            assert_eq!((bad.0, bad.1.matches("MISSED").count()), (exit::INVALID, 1), "{}", bad.1);
        }
        insta::assert_snapshot!(good.1);
    }

    #[test]
    fn what_was_not_measured_is_unknown() {
        let (code, text) = judged(21, 42, &[], &PHASES);
        assert_eq!(code, exit::UNKNOWN, "{text}");
        assert!(text.contains("NOT MEASURED"), "{text}");
    }
}
