//! The figures as text: tables, and the histograms of both protocols side by side.
//!
//! ```text
//!   round trips  multi-paxos  basic-paxos
//!      1.0..1.1  ############
//!      2.0..2.1                ############
//! ```

use super::measure::{Measured, Sample};
use crate::{
    report::text::table,
    scenario::{Fsync, Protocol},
};

/// A quantile of sorted values.
pub(super) fn at(sorted: &[u64], quantile: f64) -> Option<u64> {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

fn sorted(samples: &[Sample], pick: impl Fn(&Sample) -> u64) -> Vec<u64> {
    let mut all: Vec<u64> = samples.iter().map(pick).collect();
    all.sort_unstable();
    all
}

fn ms(ns: Option<u64>) -> String {
    ns.map_or("-".to_owned(), crate::report::ms)
}

fn times(ns: Option<u64>, rtt: f64) -> String {
    match ns {
        Some(ns) if rtt > 0.0 => format!("{:.2}", ns as f64 / rtt),
        _ => "-".to_owned(),
    }
}

pub(super) fn headline(all: &[(Protocol, Measured)], rtt: f64) -> String {
    let mut rows = Vec::new();
    let mut notes = String::new();
    for (protocol, m) in all {
        for (view, values) in m.views() {
            let q = |q| at(&values, q);
            rows.push(vec![
                protocol.to_string(),
                view.to_owned(),
                values.len().to_string(),
                ms(q(0.5)),
                times(q(0.5), rtt),
                ms(q(0.9)),
                ms(q(0.99)),
                ms(q(1.0)),
            ]);
        }
        let measured = 2 * m.delay_ns;
        notes += &format!(
            "  {protocol}: the proxies' measured round trip is {} ms; {} commands unanswered\n",
            crate::report::ms(measured),
            m.errors
        );
    }
    let header = ["protocol", "measured", "count", "p50 ms", "round trips", "p90 ms", "p99 ms", "max ms"];
    table(&header, &rows, 6)
        + &notes
        + "  A Multi-Paxos command that is forwarded to the leader costs its client two round trips, as Basic Paxos does.\n"
}

/// Both histograms in the same buckets of a tenth of a round trip.
pub(super) fn side_by_side(all: &[(Protocol, Measured)], rtt: f64) -> String {
    const WIDTH: usize = 40;
    let bucket = |s: &Sample| ((s.commit_ns as f64 / rtt.max(1e6)) * 10.0) as usize;
    let highest = all.iter().flat_map(|(_, m)| m.samples.iter().map(bucket)).max().unwrap_or(0).min(60);
    let counts: Vec<Vec<usize>> = all
        .iter()
        .map(|(_, m)| {
            let mut n = vec![0; highest + 1];
            m.samples.iter().for_each(|s| n[bucket(s).min(highest)] += 1);
            n
        })
        .collect();
    let most = counts.iter().flatten().copied().max().unwrap_or(1).max(1);
    let bar = |n: usize| "#".repeat((n * WIDTH).div_ceil(most));
    let mut out = format!("  {:>11}  {:WIDTH$}  {}\n", "round trips", all[0].0, all[1].0);
    for b in (0..=highest).filter(|&b| counts.iter().any(|c| c[b] > 0)) {
        let range = format!("{:.1}..{:.1}", b as f64 / 10.0, (b + 1) as f64 / 10.0);
        let line = format!("  {range:>11}  {:WIDTH$}  {}", bar(counts[0][b]), bar(counts[1][b]));
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// Messages for each commit, by the way that commands took and by kind.
pub(super) fn messages(all: &[(Protocol, Measured)]) -> String {
    let mut rows = Vec::new();
    for (protocol, m) in all {
        for forwarded in [false, true] {
            let visits = m.sent.iter().filter(|s| s.forwarded == forwarded && s.commits > 0);
            let mut kinds = std::collections::BTreeMap::<&str, u64>::new();
            let mut commits = 0;
            for visit in visits {
                commits += visit.commits;
                visit.kinds.iter().for_each(|(kind, n)| *kinds.entry(kind).or_default() += n);
            }
            if commits == 0 {
                continue;
            }
            let each = |n: u64| format!("{:.2}", n as f64 / commits as f64);
            let parts: Vec<String> = kinds.iter().map(|(kind, n)| format!("{kind} {}", each(*n))).collect();
            rows.push(vec![
                protocol.to_string(),
                if forwarded { "forwarded" } else { "direct" }.to_owned(),
                parts.join(", "),
                commits.to_string(),
                each(kinds.values().sum()),
            ]);
        }
    }
    table(&["protocol", "command", "by kind", "commits", "for each"], &rows, 2)
}

pub(super) fn contention_row(protocol: Protocol, clients: usize, m: &Measured, rtt: f64) -> Vec<String> {
    let commits = sorted(&m.samples, |s| s.commit_ns);
    let client = sorted(&m.samples, |s| s.client_ns);
    let rounds: u64 = m.samples.iter().map(|s| u64::from(s.rounds.max(1))).sum();
    vec![
        protocol.to_string(),
        clients.to_string(),
        ms(at(&commits, 0.5)),
        times(at(&commits, 0.5), rtt),
        ms(at(&commits, 0.99)),
        format!("{:.2}", rounds as f64 / m.samples.len() as f64),
        ms(at(&client, 0.5)),
        format!("{:.0}", m.samples.len() as f64 / m.seconds),
        format!("{}..{}", m.each.iter().min().unwrap_or(&0), m.each.iter().max().unwrap_or(&0)),
        m.errors.to_string(),
    ]
}

pub(super) fn contention(rows: &[Vec<String>]) -> String {
    let header = [
        "protocol",
        "clients",
        "commit p50 ms",
        "round trips",
        "p99 ms",
        "rounds/commit",
        "client p50 ms",
        "commits/s",
        "per client",
        "unanswered",
    ];
    table(&header, rows, 9)
}

pub(super) fn fsync_row(protocol: Protocol, fsync: Fsync, m: &Measured, rtt: f64) -> Vec<String> {
    let commits = sorted(&m.samples, |s| s.commit_ns);
    let (p50, p99) = (at(&commits, 0.5), at(&commits, 0.99));
    vec![protocol.to_string(), fsync.to_string(), ms(p50), times(p50, rtt), ms(p99)]
}

pub(super) fn fsyncs(rows: &[Vec<String>]) -> String {
    table(&["protocol", "fsync", "commit p50 ms", "round trips", "p99 ms"], rows, 3)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::measure::Sent;
    use super::*;

    /// Commits at these times at five nodes; the messages are those of theory.
    pub(crate) fn measured(commit_ms: &[u64], forwarded: bool, kinds: &[&str]) -> Measured {
        let sample = |&ms: &u64| Sample {
            client_ns: (ms + if forwarded { 20 } else { 1 }) * 1_000_000,
            commit_ns: ms * 1_000_000,
            forwarded,
            rounds: 1,
        };
        let commits = commit_ms.len();
        let kinds = kinds.iter().map(|kind| ((*kind).to_owned(), 4 * commits as u64)).collect();
        Measured {
            samples: commit_ms.iter().map(sample).collect(),
            delay_ns: 10_100_000,
            seconds: 1.0,
            errors: 0,
            each: vec![commits],
            sent: vec![Sent { forwarded, commits, kinds }],
            lease_reads: vec![],
        }
    }

    #[test]
    fn histograms_stand_side_by_side() {
        let phases = ["prepare", "promise", "accept", "accepted"];
        let all = [
            (Protocol::MultiPaxos, measured(&[20, 21, 21, 22, 30], true, &phases[2..])),
            (Protocol::BasicPaxos, measured(&[40, 41, 42, 42, 55], false, &phases)),
        ];
        insta::assert_snapshot!(format!(
            "{}\n{}\n{}",
            headline(&all, 20e6),
            side_by_side(&all, 20e6),
            messages(&all)
        ));
    }
}
