//! What a node has counted, as Prometheus reads it: `GET /metrics`.
//!
//! ```text
//! # HELP paxos_kv_fsync_seconds How long a sync of the log took.
//! # TYPE paxos_kv_fsync_seconds histogram
//! paxos_kv_fsync_seconds_bucket{le="0.001"} 412
//! ```
//!
//! The format is [version 0.0.4](https://prometheus.io/docs/instrumenting/exposition_formats/) of the text format. Counting costs
//! an atomic addition; everything else is done when somebody asks. Deliberately no registry: there is one node in a process.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::core::{Failure, Message, Note, Path, Reply};

/// Upper bounds of the buckets of a sync's duration, in microseconds.
const SYNC_US: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000];
/// Upper bounds of the buckets of a sync's records.
const SYNC_RECORDS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096];
/// All ways by which a command is served.
const PATHS: [Path; 7] = [
    Path::OneRtt,
    Path::TwoRtt,
    Path::LeaseRead,
    Path::ReadIndex,
    Path::QuorumRead,
    Path::StaleRead,
    Path::Retry,
];
/// The codes of errors, as clients are told them.
const ERRORS: [&str; 5] = ["not_leader", "invalid", "overloaded", "unknown", "stale_seq"];

/// Counts in buckets, as a Prometheus histogram.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [u64; 12],
    buckets: [AtomicU64; 12],
    count: AtomicU64,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64; 12]) -> Self {
        Histogram { bounds, buckets: Default::default(), count: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    fn add(&self, value: u64) {
        if let Some(bucket) = self.bounds.iter().position(|bound| value <= *bound) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }
}

/// The counters of one node since it started.
#[derive(Debug)]
pub struct Metrics {
    /// By path, direct and forwarded.
    served: [[AtomicU64; 2]; PATHS.len()],
    failed: [AtomicU64; ERRORS.len()],
    received: Mutex<BTreeMap<&'static str, u64>>,
    sync_us: Histogram,
    sync_records: Histogram,
    elections: AtomicU64,
    stepped_down: AtomicU64,
    saved: AtomicU64,
    installed: AtomicU64,
    truncated: AtomicU64,
    /// Calls that clients wait for.
    open_calls: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            served: Default::default(),
            failed: Default::default(),
            received: Mutex::default(),
            sync_us: Histogram::new(&SYNC_US),
            sync_records: Histogram::new(&SYNC_RECORDS),
            elections: AtomicU64::new(0),
            stepped_down: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            installed: AtomicU64::new(0),
            truncated: AtomicU64::new(0),
            open_calls: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    pub(crate) fn replied(&self, reply: &Reply) {
        match &reply.result {
            Ok(_) => {
                if let Some(path) = PATHS.iter().position(|path| *path == reply.served.path) {
                    self.served[path][usize::from(reply.served.forwarded)].fetch_add(1, Relaxed);
                }
            }
            Err(failure) => {
                let code = match failure {
                    Failure::NotLeader => 0,
                    Failure::Invalid(_) => 1,
                    Failure::Overloaded(_) => 2,
                    Failure::Unknown(_) => 3,
                    Failure::StaleSeq => 4,
                };
                self.failed[code].fetch_add(1, Relaxed);
            }
        }
    }

    pub(crate) fn received(&self, messages: &[Message]) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            *received.entry(message.kind()).or_default() += 1;
        }
    }

    pub(crate) fn synced(&self, took: Duration, records: usize) {
        self.sync_us.add(took.as_micros() as u64);
        self.sync_records.add(records as u64);
    }

    pub(crate) fn saved(&self) {
        self.saved.fetch_add(1, Relaxed);
    }

    pub(crate) fn open_calls(&self, open: usize) {
        self.open_calls.store(open as u64, Relaxed);
    }

    pub(crate) fn note(&self, note: &Note) {
        let counter = match note {
            Note::Candidate { .. } => &self.elections,
            Note::SteppedDown { .. } => &self.stepped_down,
            Note::Installed { .. } => &self.installed,
            Note::Truncated { .. } => &self.truncated,
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// What is waiting somewhere, and what was lost there.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    /// Inputs that wait for the core.
    pub inputs: u64,
    /// By peer: messages that wait to be sent, and messages that were dropped since the queue was full.
    pub peers: Vec<(u32, u64, u64)>,
}

/// Writes families of samples, each with its help and type.
struct Page(String);

impl Page {
    /// One family. Labels come as `path="1-rtt"`, or empty.
    fn family<V: Display>(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        self.head(kind, name, help);
        samples.into_iter().for_each(|(labels, value)| self.sample(name, &labels, value));
    }

    fn one<V: Display>(&mut self, kind: &str, name: &str, help: &str, value: V) {
        self.family(kind, name, help, [(String::new(), value)]);
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP paxos_kv_{name} {help}\n# TYPE paxos_kv_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "paxos_kv_{name}{labels} {value}");
    }

    /// So many of the histogram's units make one of those of its name.
    fn histogram(&mut self, name: &str, help: &str, of: &Histogram, per: f64) {
        self.head("histogram", name, help);
        let mut below = 0;
        for (bound, bucket) in of.bounds.iter().zip(&of.buckets) {
            below += bucket.load(Relaxed);
            self.sample(&format!("{name}_bucket"), &format!("le=\"{}\"", *bound as f64 / per), below);
        }
        // Read after the buckets: what is counted meanwhile must not make the last bucket smaller than one before.
        let count = of.count.load(Relaxed).max(below);
        self.sample(&format!("{name}_bucket"), "le=\"+Inf\"", count);
        self.sample(&format!("{name}_sum"), "", of.sum.load(Relaxed) as f64 / per);
        self.sample(&format!("{name}_count"), "", count);
    }
}

/// The page of a node.
pub fn render(metrics: &Metrics, s: &crate::proto::v1::StatusReply, queues: &Queues) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    let n = |counter: &AtomicU64| counter.load(Relaxed);
    let served = PATHS.iter().zip(&metrics.served).flat_map(|(path, [direct, forwarded])| {
        let label = |entry: &str| format!("path=\"{}\",entry=\"{entry}\"", path.name());
        [(label("direct"), n(direct)), (label("forwarded"), n(forwarded))]
    });
    page.family("counter", "commits_total", "Commands that were answered, by the way they took.", served);
    let failed =
        ERRORS.iter().zip(&metrics.failed).map(|(code, count)| (format!("code=\"{code}\""), n(count)));
    page.family(
        "counter",
        "errors_total",
        "Commands that were not answered, by what was said instead.",
        failed,
    );
    let kind = |kind: &str| format!("kind=\"{kind}\"");
    let sent = s.sent.iter().map(|sent| (kind(&sent.kind), sent.count));
    page.family("counter", "messages_sent_total", "Messages put on links to other nodes.", sent);
    let received = metrics.received.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let received = received.into_iter().map(|(name, count)| (kind(name), count));
    page.family("counter", "messages_received_total", "Messages taken from other nodes.", received);
    page.histogram("fsync_seconds", "How long a sync of the log took.", &metrics.sync_us, 1e6);
    page.histogram("fsync_records", "Records that one sync of the log covered.", &metrics.sync_records, 1.0);
    for (name, help, value) in [
        ("elections_total", "Times the node stood for election.", n(&metrics.elections)),
        ("elections_won_total", "Times the node became leader.", s.elections_won),
        ("stepped_down_total", "Times the node ceased to lead, or to stand.", n(&metrics.stepped_down)),
        ("preempted_total", "Rounds of Basic Paxos that were lost to other proposers.", s.preempted),
        ("snapshots_saved_total", "Snapshots written to the disk.", n(&metrics.saved)),
        ("snapshots_installed_total", "Snapshots of other nodes put in place.", n(&metrics.installed)),
        ("log_truncations_total", "Times the log was truncated.", n(&metrics.truncated)),
    ] {
        page.one("counter", name, help, value);
    }
    let told = s.told.unwrap_or_default();
    let promised = s.promised.unwrap_or_default();
    for (name, help, value) in [
        ("incarnation", "Number of this start of the node.", s.incarnation),
        ("leading", "1 while the node leads.", u64::from(s.leading.is_some())),
        ("leader", "The node that is believed to lead, 0 if none.", s.leader.into()),
        ("promised_round", "Round of the highest ballot promised.", promised.round),
        ("promised_node", "Node of the highest ballot promised.", promised.node.into()),
        ("told_round", "Round of the highest promise that others may know of.", told.round),
        ("commit_slot", "All slots up to here are known to be chosen.", s.commit_index),
        ("applied_slot", "All slots up to here are applied.", s.applied_index),
        ("last_slot", "The last slot that anything is known of.", s.last_slot),
        ("first_slot", "The first slot that the log may hold.", s.first_slot),
        ("snapshot_slot", "The last slot of the snapshot on the disk.", s.snapshot_slot),
        ("unsynced_writes", "Writes that are on their way to the disk.", s.unsynced),
        ("open_calls", "Calls that clients wait for.", n(&metrics.open_calls)),
        ("input_queue", "Inputs that wait for the core.", queues.inputs),
    ] {
        page.one("gauge", name, help, value);
    }
    let lease = s.lease_left_ms as f64 / 1e3;
    page.one("gauge", "lease_left_seconds", "How long the leader's lease is still valid, 0 if none.", lease);
    let peer = |peer: u32| format!("peer=\"{peer}\"");
    let waiting = queues.peers.iter().map(|(id, waiting, _)| (peer(*id), *waiting));
    page.family("gauge", "outbox_messages", "Messages that wait to be sent.", waiting);
    let dropped = queues.peers.iter().map(|(id, _, dropped)| (peer(*id), *dropped));
    page.family("counter", "outbox_dropped_total", "Messages lost since the queue was full.", dropped);
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Output, Served};
    use crate::proto::v1;

    /// Reads a page as strictly as the format says, and returns its samples.
    fn parse(page: &str) -> BTreeMap<String, f64> {
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        assert!(page.ends_with('\n'), "the last line has no end");
        let (mut samples, mut family, mut families) = (BTreeMap::new(), ("", ""), Vec::new());
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a help text");
                assert!(is_name(name) && !text.is_empty() && !text.contains('\\'));
                let kind =
                    lines.next().and_then(|l| l.strip_prefix("# TYPE ")).expect("a type behind a help");
                let (typed, kind) = kind.split_once(' ').unwrap();
                assert_eq!(typed, name);
                assert!(["counter", "gauge", "histogram"].contains(&kind));
                assert!(!families.contains(&name), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                families.push(name);
                family = (name, kind);
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let (name, labels) = series
                .split_once('{')
                .map_or((series, ""), |(name, labels)| (name, labels.strip_suffix('}').expect("labels end")));
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = match family.1 {
                "histogram" => suffixes.iter().find_map(|s| name.strip_suffix(s)).expect("a suffix"),
                _ => name,
            };
            assert!(is_name(name) && base == family.0, "{name} stands below {}", family.0);
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, text) = label.split_once('=').expect("a label");
                let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).expect("in quotes");
                assert!(is_name(key) && !text.contains(['"', '\\']));
            }
            let value: f64 = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
        samples
    }

    #[test]
    fn the_page_is_what_the_format_says_and_holds_what_was_counted() {
        let metrics = Metrics::default();
        let served = Served { path: Path::OneRtt, forwarded: true, ..Served::default() };
        for _ in 0..3 {
            metrics.replied(&Reply { result: Ok(Output::Done), served: served.clone(), leader_hint: 0 });
        }
        metrics.replied(&Reply { result: Err(Failure::StaleSeq), served: Served::default(), leader_hint: 0 });
        metrics.received(&[Message::Fetch { from: 1 }, Message::Fetch { from: 2 }]);
        for (us, records) in [(40, 1), (700, 20), (7_000_000, 9_000)] {
            metrics.synced(Duration::from_micros(us), records);
        }
        let status = v1::StatusReply {
            applied_index: 41,
            lease_left_ms: 250,
            sent: vec![v1::Sent { kind: "accept".into(), count: 7 }],
            ..v1::StatusReply::default()
        };
        let queues = Queues { inputs: 5, peers: vec![(2, 9, 1)] };
        let samples = parse(&render(&metrics, &status, &queues));
        for (series, value) in [
            ("commits_total{path=\"1-rtt\",entry=\"forwarded\"}", 3.0),
            ("commits_total{path=\"1-rtt\",entry=\"direct\"}", 0.0),
            ("errors_total{code=\"stale_seq\"}", 1.0),
            ("messages_sent_total{kind=\"accept\"}", 7.0),
            ("messages_received_total{kind=\"fetch\"}", 2.0),
            ("fsync_seconds_bucket{le=\"0.00005\"}", 1.0),
            ("fsync_seconds_bucket{le=\"0.001\"}", 2.0),
            ("fsync_seconds_bucket{le=\"+Inf\"}", 3.0),
            ("fsync_seconds_count", 3.0),
            ("fsync_records_sum", 9_021.0),
            ("fsync_records_bucket{le=\"32\"}", 2.0),
            ("applied_slot", 41.0),
            ("lease_left_seconds", 0.25),
            ("outbox_messages{peer=\"2\"}", 9.0),
            ("outbox_dropped_total{peer=\"2\"}", 1.0),
            ("input_queue", 5.0),
        ] {
            let series = format!("paxos_kv_{series}");
            assert_eq!(samples.get(&series), Some(&value), "{series} of {samples:#?}");
        }
    }
}
