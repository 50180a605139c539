//! When a pass would mean nothing.
//!
//! ```text
//! nothing succeeded · nothing overlapped · no read could have seen a write · a fault never bit · a phase hit its bound
//! ```
//! Each of these turns a pass into `Unknown`, with the reason. None can turn an `Invalid` into anything else. Pure:
//! judged from the operations, the receipts of the faults and the plan.

use crate::{run::Record, worker::SAMPLE};
use checkers::{Op, OpOutcome, Operation, Validity, Verdict};
use nemesis::Schedule;
use serde_json::json;
use std::collections::BTreeMap;

/// Faults must have lasted this long in all, in nanoseconds, before something must have succeeded meanwhile: a healthy
/// system needs time to answer, and a kill with a restart at once leaves it none.
pub const LONG_ENOUGH: u64 = 2_000_000_000;

/// What the guards look at.
pub struct Evidence<'a> {
    /// All operations of the history.
    pub operations: &'a [Operation],
    /// What the run left behind.
    pub record: &'a Record,
    /// The operations that the workload asks for.
    pub kinds: &'a [&'static str],
    /// Whether stale reads are judged, too: replicas are watched.
    pub replicas: bool,
    /// The kinds of faults that the plan names.
    pub planned: &'a [String],
    /// The faults that were scheduled.
    pub schedule: &'a Schedule,
}

/// All guards as one verdict, `Valid` or `Unknown`. In its stats: the kinds of faults that never bit, for whoever makes
/// another run because of them, and all other reasons.
pub fn guards(evidence: &Evidence<'_>) -> Verdict {
    if evidence.record.stopped_early {
        // What was not reached cannot be demanded.
        return verdict(vec!["the run was ended early, at the first violation".to_owned()], vec![]);
    }
    let mut reasons = Vec::new();
    reasons.extend(evidence.record.troubles.iter().cloned());
    if evidence.record.journal_failed {
        reasons.push("the history could not be written to its end: is the disk full?".to_owned());
    }
    if evidence.record.interrupted {
        reasons.push("the run was interrupted".to_owned());
    }
    for f in evidence.record.faults.iter().filter(|f| f.unhealed) {
        reasons.push(format!("`{}` ({}) could not be healed: {}", f.fault, f.on, f.healed.what));
    }
    reasons.extend(nothing_succeeded(evidence));
    reasons.extend(nothing_overlapped(evidence));
    reasons.extend(nothing_seen(evidence));
    if evidence.record.links.is_some_and(|l| l.measured_ns < l.asked_ns) {
        reasons.push("the links did not delay as they were asked to".to_owned());
    }
    verdict(reasons, faults_that_never_bit(evidence))
}

/// The verdict, from kinds of faults that never bit, each with the reason, and from what else there is.
fn verdict(other: Vec<String>, unseen: Vec<(&str, String)>) -> Verdict {
    let mut verdict = Verdict::valid("guards");
    let kinds: Vec<&str> = unseen.iter().map(|(kind, _)| *kind).collect();
    verdict.stats.insert("unseen".into(), json!(kinds));
    verdict.stats.insert("other".into(), json!(other));
    let reasons: Vec<String> = other.into_iter().chain(unseen.into_iter().map(|(_, why)| why)).collect();
    if !reasons.is_empty() {
        verdict.validity = Validity::Unknown;
        verdict.reason = Some(reasons.join("; "));
    }
    verdict
}

/// The operations of the load, without those that the tester made around it.
fn load<'a>(e: &Evidence<'a>) -> impl Iterator<Item = &'a Operation> {
    e.operations.iter().filter(|o| o.meta.phase.is_none())
}

fn ok(op: &Operation) -> bool {
    matches!(op.outcome, OpOutcome::Ok(_))
}

/// Each kind must have succeeded before the first fault, after the last one, and while faults were in force that left a
/// majority connected.
fn nothing_succeeded(e: &Evidence<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if !e.operations.iter().any(ok) {
        return vec!["no operation succeeded".to_owned()];
    }
    let in_force: Vec<(u64, u64)> =
        e.record.faults.iter().filter(|f| f.end_ns > f.start_ns).map(|f| (f.start_ns, f.end_ns)).collect();
    let with_majority =
        union(e.record.faults.iter().filter(|f| f.majority).map(|f| (f.start_ns, f.end_ns)).collect());
    let first = in_force.iter().map(|f| f.0).min();
    let last = in_force.iter().map(|f| f.1).max();
    for kind in e.kinds {
        // What the tester samples by itself says nothing about clients.
        let sample = |o: &Operation| o.meta.phase.as_deref() == Some(SAMPLE);
        let done: Vec<&Operation> =
            e.operations.iter().filter(|o| o.op.f() == *kind && ok(o) && !sample(o)).collect();
        let any =
            |test: &dyn Fn(u64, u64) -> bool| done.iter().any(|o| o.ret.is_some_and(|ret| test(o.call, ret)));
        if done.is_empty() {
            out.push(format!("no {kind} succeeded"));
            continue;
        }
        if let Some(first) = first.filter(|&first| !any(&|_, ret| ret <= first)) {
            out.push(format!("no {kind} succeeded before the first fault, at {}", seconds(first)));
        }
        if let Some(last) = last.filter(|&last| !any(&|call, _| call >= last)) {
            out.push(format!("no {kind} succeeded after the last fault was healed, at {}", seconds(last)));
        }
        let total: u64 = with_majority.iter().map(|(a, b)| b - a).sum();
        if total >= LONG_ENOUGH && !any(&|_, ret| with_majority.iter().any(|(a, b)| (*a..=*b).contains(&ret)))
        {
            let total = seconds(total);
            out.push(format!(
                "no {kind} succeeded during the {total} of faults that left a majority connected"
            ));
        }
    }
    out
}

fn union(mut intervals: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    intervals.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (a, b) in intervals {
        match out.last_mut() {
            Some(last) if a <= last.1 => last.1 = last.1.max(b),
            _ => out.push((a, b)),
        }
    }
    out
}

/// Two operations of the load by different processes, under way at the same time, must exist. The final reads do not
/// count: the tester makes those overlap itself, however little the load did.
fn nothing_overlapped(e: &Evidence<'_>) -> Option<String> {
    let mut intervals: Vec<(u64, u64, u64)> =
        load(e).map(|o| (o.call, o.ret.unwrap_or(u64::MAX), o.process)).collect();
    intervals.sort_unstable();
    let mut latest: Option<(u64, u64)> = None;
    for (call, ret, process) in intervals {
        if latest.is_some_and(|(end, p)| call <= end && p != process) {
            return None;
        }
        if latest.is_none_or(|(end, _)| ret > end) {
            latest = Some((ret, process));
        }
    }
    Some("no two operations of different clients ever overlapped: nothing was tested concurrently".to_owned())
}

/// Some read must have returned after a write to its key was asked for.
fn nothing_seen(e: &Evidence<'_>) -> Option<String> {
    if !e.kinds.contains(&"read") || e.kinds.len() < 2 {
        return None;
    }
    let mut written: BTreeMap<_, u64> = BTreeMap::new();
    for o in e
        .operations
        .iter()
        .filter(|o| !matches!(o.op, Op::Read { .. }) && !matches!(o.outcome, OpOutcome::Fail))
    {
        if let Some(key) = o.op.key() {
            let first = written.entry(key.clone()).or_insert(o.call);
            *first = (*first).min(o.call);
        }
    }
    let could_see = |o: &Operation| {
        let Op::Read { key, mode } = &o.op else { return false };
        (mode.claims_linearizability() || e.replicas)
            && ok(o)
            && written.get(key).is_some_and(|w| o.ret.is_some_and(|r| r >= *w))
    };
    let none = !e.operations.iter().any(could_see);
    none.then(|| "no read that is judged could have seen a write".to_owned())
}

/// The planned kinds of faults of which none was seen to bite, and why.
fn faults_that_never_bit<'a>(e: &Evidence<'a>) -> Vec<(&'a str, String)> {
    let mut out = Vec::new();
    for kind in e.planned {
        let of_kind: Vec<_> = e.record.faults.iter().filter(|f| f.kind.name() == kind).collect();
        let scheduled = e.schedule.steps.iter().filter(|s| s.fault.fault.name() == kind).count();
        if of_kind.iter().any(|f| f.effect.seen) {
            continue;
        }
        let why = match (scheduled, of_kind.first()) {
            (0, _) => format!("the plan names the fault `{kind}`, but the run was too short for one"),
            (_, None) => format!("no `{kind}` was injected before the run ended"),
            (_, Some(f)) => {
                format!("no `{kind}` had an effect that could be seen (the first: {})", f.effect.what)
            }
        };
        out.push((kind.as_str(), why));
    }
    out
}

fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkers::{Event, Header, History, Kind, Meta, Process, ReadMode, Ret, Value};
    use nemesis::{Effect, FaultKind, Receipt};

    const KINDS: &[&str] = &["read", "write"];
    /// Times in these tests are in units of 100 ms.
    const UNIT: u64 = 100_000_000;

    /// `(process, op, call, ret)`; all succeed.
    fn history(ops: &[(u64, char, u64, u64)]) -> Vec<Operation> {
        let mut events = Vec::new();
        for (i, &(process, f, call, ret)) in ops.iter().enumerate() {
            let key = Value::Int(1);
            let (op, value) = match f {
                'r' => (Op::Read { key, mode: ReadMode::Default }, Ret::Value(Value::Nil)),
                _ => (Op::Write { key, value: Value::Int(i as i64) }, Ret::Done),
            };
            let process = Process::Client(process);
            let event = |time, kind, ret| {
                (
                    time,
                    Event {
                        index: 0,
                        time: time * UNIT,
                        process,
                        kind,
                        op: op.clone(),
                        ret,
                        meta: Meta::default(),
                    },
                )
            };
            events.push(event(call, Kind::Invoke, None));
            events.push(event(ret, Kind::Ok, Some(value)));
        }
        events.sort_by_key(|e| e.0);
        let number = |(index, (_, event)): (usize, (u64, Event))| Event { index: index as u64, ..event };
        let events: Vec<_> = events.into_iter().enumerate().map(number).collect();
        History::new(Header::new("t", 0, "", vec![]), events).operations().unwrap()
    }

    /// Reads and writes of two clients that overlap, from time 0 to 100.
    fn busy() -> Vec<(u64, char, u64, u64)> {
        (0..10).flat_map(|i| [(0, 'w', i * 10, i * 10 + 6), (1, 'r', i * 10 + 1, i * 10 + 5)]).collect()
    }

    fn fault(kind: FaultKind, start_ns: u64, end_ns: u64, seen: bool) -> Receipt {
        Receipt {
            step: 0,
            kind,
            fault: kind.to_string(),
            targets: vec![],
            links: vec![],
            on: String::new(),
            start_ns: start_ns * UNIT,
            end_ns: end_ns * UNIT,
            effect: Effect { seen, what: "what was seen".to_owned() },
            healed: Effect::default(),
            majority: true,
            error: None,
            unhealed: false,
        }
    }

    fn judge(ops: &[(u64, char, u64, u64)], record: &Record, planned: &[&str]) -> String {
        verdict_on(ops, record, planned).reason.unwrap_or_default()
    }

    fn verdict_on(ops: &[(u64, char, u64, u64)], record: &Record, planned: &[&str]) -> Verdict {
        let steps = record.faults.iter().map(|f| nemesis::Step {
            id: 0,
            at: nemesis::Span::ms(0),
            until: nemesis::Span::ms(0),
            fault: serde_yaml::from_str(&format!("{{fault: {}}}", f.kind)).unwrap(),
            choice: 0,
        });
        let verdict = guards(&Evidence {
            operations: &history(ops),
            record,
            kinds: KINDS,
            replicas: false,
            planned: &planned.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(),
            schedule: &Schedule { steps: steps.collect(), ..Schedule::default() },
        });
        assert_eq!(verdict.validity == Validity::Valid, verdict.reason.is_none());
        verdict
    }

    fn with(fault: Receipt) -> Record {
        Record { faults: vec![fault], ..Record::default() }
    }

    #[test]
    fn a_busy_run_with_a_fault_that_bit_passes() {
        assert_eq!(judge(&busy(), &with(fault(FaultKind::Kill, 30, 60, true)), &["kill"]), "");
        assert_eq!(
            judge(&busy(), &Record::default(), &[]),
            "",
            "a plan without faults is exempt from what concerns them"
        );
    }

    #[test]
    fn nothing_done_is_no_pass() {
        assert!(judge(&[], &Record::default(), &[]).contains("no operation succeeded"));
        let reads: Vec<_> = busy().into_iter().filter(|o| o.1 == 'r').collect();
        assert!(judge(&reads, &Record::default(), &[]).contains("no write succeeded"));
    }

    #[test]
    fn success_is_needed_before_during_and_after_faults() {
        let gap = |from: u64, to: u64| -> Vec<_> {
            busy().into_iter().filter(|o| o.3 < from || o.2 > to || o.1 == 'w').collect()
        };
        let record = with(fault(FaultKind::Kill, 30, 60, true));
        assert!(judge(&gap(0, 30), &record, &["kill"]).contains("no read succeeded before the first fault"));
        assert!(judge(&gap(30, 60), &record, &["kill"]).contains("no read succeeded during the"));
        assert!(judge(&gap(60, 100), &record, &["kill"]).contains("no read succeeded after the last fault"));
        let mut no_majority = record;
        no_majority.faults[0].majority = false;
        assert_eq!(
            judge(&gap(30, 60), &no_majority, &["kill"]),
            "",
            "without a majority nothing need succeed"
        );
    }

    #[test]
    fn clients_that_never_meet_test_nothing() {
        let turns: Vec<_> =
            (0..10).map(|i| (i % 2, if i % 3 == 0 { 'w' } else { 'r' }, i * 10, i * 10 + 5)).collect();
        assert!(judge(&turns, &Record::default(), &[]).contains("overlapped"));
        let mut final_reads = history(&busy());
        for op in &mut final_reads {
            op.meta.phase = Some("final".into());
        }
        let alone: Vec<Operation> = history(&turns).into_iter().chain(final_reads).collect();
        let (record, schedule) = (Record::default(), Schedule::default());
        let evidence = Evidence {
            operations: &alone,
            record: &record,
            kinds: KINDS,
            replicas: false,
            planned: &[],
            schedule: &schedule,
        };
        let reason = guards(&evidence).reason.unwrap_or_default();
        assert!(reason.contains("overlapped"), "overlapping final reads do not count: {reason}");
    }

    #[test]
    fn reads_that_came_before_every_write_saw_nothing() {
        let ops = [(0, 'r', 0, 5), (1, 'r', 1, 6), (0, 'w', 10, 20), (1, 'w', 11, 21)];
        assert!(judge(&ops, &Record::default(), &[]).contains("could have seen a write"));
    }

    #[test]
    fn stale_reads_count_where_replicas_are_watched_and_samples_are_no_load() {
        let (record, schedule) = (Record::default(), Schedule::default());
        let why = |operations: &[Operation], replicas: bool| {
            let evidence = Evidence {
                operations,
                record: &record,
                kinds: KINDS,
                replicas,
                planned: &[],
                schedule: &schedule,
            };
            guards(&evidence).reason.unwrap_or_default()
        };
        let mut stale = history(&busy());
        for op in &mut stale {
            if let Op::Read { mode, .. } = &mut op.op {
                *mode = ReadMode::Stale;
            }
        }
        assert!(why(&stale, false).contains("no read that is judged could have seen a write"));
        assert_eq!(why(&stale, true), "");
        for op in stale.iter_mut().filter(|o| o.op.f() == "read") {
            op.meta.phase = Some(SAMPLE.into());
        }
        assert!(why(&stale, true).contains("no read succeeded"));
    }

    #[test]
    fn a_fault_that_never_bit_is_reported() {
        let why = judge(&busy(), &with(fault(FaultKind::Pause, 30, 60, false)), &["pause"]);
        assert!(why.contains("no `pause` had an effect") && why.contains("what was seen"), "{why}");
        assert!(judge(&busy(), &Record::default(), &["kill"]).contains("too short"));
    }

    #[test]
    fn what_never_bit_is_told_from_other_reasons_also_as_data() {
        let record = Record { troubles: vec!["n3 ended; by itself".to_owned()], ..Record::default() };
        let stats = |record: &Record, planned: &[&str]| verdict_on(&busy(), record, planned).stats;
        let both = json!({"unseen": ["kill", "pause"], "other": ["n3 ended; by itself"]});
        assert_eq!(serde_json::Value::Object(stats(&record, &["kill", "pause"])), both);
        let neither = json!({"unseen": [], "other": []});
        assert_eq!(serde_json::Value::Object(stats(&Record::default(), &[])), neither);
    }

    #[test]
    fn troubles_and_interruptions_are_no_pass() {
        let record = Record { troubles: vec!["n3 ended by itself".to_owned()], ..Record::default() };
        assert!(judge(&busy(), &record, &[]).contains("n3 ended by itself"));
        let mut stuck = with(fault(FaultKind::Kill, 30, 60, true));
        stuck.faults[0].unhealed = true;
        assert!(judge(&busy(), &stuck, &["kill"]).contains("could not be healed"));
        let record = Record { interrupted: true, ..Record::default() };
        assert!(judge(&busy(), &record, &[]).contains("interrupted"));
        let record = Record { journal_failed: true, ..Record::default() };
        assert!(judge(&busy(), &record, &[]).contains("disk full"));
        let links = Some(crate::run::LinkDelay { asked_ns: 10, measured_ns: 3 });
        assert!(judge(&busy(), &Record { links, ..Record::default() }, &[]).contains("did not delay"));
    }
}
