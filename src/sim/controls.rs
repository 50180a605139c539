//! Controls: what looks wrong and is right. Each is a run in which the phenomenon really occurs, and in which nobody may be accused.
//!
//! ```text
//! write 7 … nobody knows │ a read that lacks 7 │ a read that finds 7          a ghost, and linearizable: it took effect in between
//! ```
//!
//! A tester that cries wolf is found out here, and so is a control in which nothing happens: each says what must be seen. The list is in
//! `docs/bugs.md`.

use super::{Judged, Run, judge, simulate};
use crate::{
    plan::TestPlan,
    scenario::{NemesisSpec, Scenario},
};
use checkers::{Kind, Op, OpOutcome, Operation, Process, ReadMode, Ret, Validity, Value};
use nemesis::{FaultKind, Plan};

struct Control {
    name: &'static str,
    /// The test as it differs from the default.
    test: &'static str,
    plan: &'static str,
    seeds: std::ops::RangeInclusive<u64>,
    /// Without a majority nobody can say that the cluster recovers; but nobody may be accused.
    may_be_unknown: bool,
    /// How often the phenomenon occurred in a run.
    seen: fn(&Run, &[Operation]) -> u64,
    /// How often it must have occurred in all seeds together.
    least: u64,
}

/// Links that double most of what passes, and leaders that are killed meanwhile.
const DOUBLED: &str = "lanes: [{every: 100ms..200ms, for: 500ms..900ms, faults: [{fault: duplicate, target: all, link: {duplicate: 0.6}}]}, {every: 700ms..1s, for: 300ms..500ms, faults: [{fault: kill, target: leader}]}]";

/// Leaders that are stopped, or that nobody hears, with commands under way.
const LEADERS_STOP: &str = "start-after: 1s\nlanes: [{every: 500ms..1s, for: 900ms..1600ms, faults: [{fault: pause, target: leader, weight: 2}, {fault: partition, shape: leader-mute}]}]";

const CONTROLS: [Control; 10] = [
    Control {
        name: "ghost-write: of unknown outcome, absent from one read and there in a later one",
        test: "{workload: {keys: 2, ops-per-key: 100}, load: {rate: 150, time-limit: 10s, op-timeout: 150ms}}",
        plan: "lanes: [{every: 300ms..600ms, for: 400ms..900ms, faults: [{fault: partition, shape: isolate-leader}, {fault: partition, shape: clients-deaf, target: leader}]}]",
        seeds: 1..=30,
        may_be_unknown: false,
        seen: ghosts,
        least: 1,
    },
    Control {
        name: "duplicated messages: promises for a ballot that was promised, accepts, acceptances and decisions, twice",
        test: "{load: {rate: 60, time-limit: 10s}}",
        plan: DOUBLED,
        seeds: 1..=6,
        may_be_unknown: false,
        seen: |run, _| bitten(run, FaultKind::Duplicate).min(bitten(run, FaultKind::Kill)),
        least: 12,
    },
    Control {
        name: "a repeated acceptance counts twice, with three nodes: the own vote and any other are a majority",
        test: "{cluster: {nodes: 3, bug: counts-replies}, load: {rate: 60, time-limit: 10s}}",
        plan: DOUBLED,
        seeds: 1..=6,
        may_be_unknown: false,
        seen: |run, _| bitten(run, FaultKind::Duplicate).min(bitten(run, FaultKind::Kill)),
        least: 12,
    },
    Control {
        name: "no majority for a while: elections without an end, and no progress",
        test: "{load: {rate: 60, time-limit: 8s}}",
        plan: "steps: [{at: 1s, for: 4s, do: {fault: partition, groups: [[n1, n2], [n3, n4], [n5]]}}]",
        seeds: 1..=6,
        may_be_unknown: true,
        seen: longest_silence_s,
        least: 12,
    },
    Control {
        name: "a majority is down, almost until the end of the load",
        test: "{load: {rate: 60, time-limit: 6s}}",
        plan: "steps: [{at: 1s, for: 4500ms, do: {fault: kill, target: majority}}]",
        seeds: 1..=6,
        may_be_unknown: true,
        seen: longest_silence_s,
        least: 12,
    },
    Control {
        name: "stopped between the check of the lease and the reply: the value is old when it arrives, and was current after it was asked for",
        test: "{workload: {keys: 1, ops-per-key: 2000}, cluster: {lease: 300ms}, load: {rate: 300, time-limit: 8s, op-timeout: 3s}}",
        plan: "lanes: [{every: 300ms..500ms, for: 1s..1500ms, faults: [{fault: partition, shape: clients-deaf, target: leader}]}, {every: 300ms..500ms, for: 700ms..900ms, faults: [{fault: partition, shape: isolate-leader}]}]",
        seeds: 1..=30,
        may_be_unknown: false,
        seen: overtaken_reads,
        least: 1,
    },
    Control {
        name: "stale reads that return old data, and say that they may",
        test: "{workload: {keys: 2, read-mode: stale}, load: {rate: 100, time-limit: 8s}}",
        plan: "lanes: [{every: 300ms..600ms, for: 400ms..900ms, faults: [{fault: partition, shape: isolate-one}]}]",
        seeds: 1..=6,
        may_be_unknown: false,
        seen: stale_reads,
        least: 6,
    },
    Control {
        name: "read-index without waiting for its index, where that is applied at once: the same leader, and a state machine that does not lag",
        test: "{workload: {read-mode: read-index}, cluster: {bug: read-index-unapplied}, load: {rate: 100, time-limit: 8s}}",
        plan: "lanes: [{every: 300ms..600ms, for: 300ms..600ms, faults: [{fault: slow-disk, target: minority, disk: {sync-delay: 30ms}}]}]",
        seeds: 1..=6,
        may_be_unknown: false,
        seen: |_, operations| {
            reads(operations).filter(|(read, _)| on_path(read, "read-index")).count() as u64
        },
        least: 600,
    },
    Control {
        name: "a disk that is lost, and bits that flip on another kind of run: a node that refuses to start, or to vote, accuses nobody",
        test: "{cluster: {nodes: 3, snapshot-every: 50, keep: 5}, load: {rate: 60, time-limit: 10s}}",
        plan: "steps: [{at: 2s, for: 2s, do: {fault: wipe, target: one}}]\nlanes: [{every: 300ms..700ms, for: 200ms..500ms, faults: [{fault: kill, target: leader}]}]",
        seeds: 1..=6,
        may_be_unknown: false,
        seen: |run, _| bitten(run, FaultKind::Wipe),
        least: 4,
    },
    Control {
        name: "clients without sessions, whose commands nobody repeats: a cluster that forgets to look for repeated ones does them no harm",
        test: "{workload: {keys: 4, mix: {read: 3, write: 2, cas: 5}}, cluster: {bug: retry-applied-twice}, load: {rate: 200, time-limit: 10s, op-timeout: 3s, sessions: false}}",
        plan: LEADERS_STOP,
        seeds: 1..=8,
        may_be_unknown: false,
        seen: |_, operations| {
            operations.iter().filter(|o| matches!(o.outcome, OpOutcome::Info)).count() as u64
        },
        least: 200,
    },
];

/// How many faults of a kind had an effect.
fn bitten(run: &Run, kind: FaultKind) -> u64 {
    run.record.faults.iter().filter(|receipt| receipt.kind == kind && receipt.effect.seen).count() as u64
}

/// The reads that were answered, each with its value.
fn reads(operations: &[Operation]) -> impl Iterator<Item = (&Operation, &Value)> {
    operations.iter().filter_map(|operation| match (&operation.op, &operation.outcome) {
        (Op::Read { .. }, OpOutcome::Ok(Ret::Value(value))) => Some((operation, value)),
        _ => None,
    })
}

fn on_path(operation: &Operation, path: &str) -> bool {
    operation.meta.path.as_deref() == Some(path)
}

fn key(op: &Op) -> Option<String> {
    match op {
        Op::Read { key, .. } | Op::Write { key, .. } => Some(key.to_string()),
        _ => None,
    }
}

/// Writes of which nobody knew anything, that a read lacked which began after they were given up, and that a later read found.
fn ghosts(run: &Run, operations: &[Operation]) -> u64 {
    let gave_up = |process: u64| {
        let mut ends = run.history.events.iter().filter(|e| e.kind == Kind::Info);
        ends.find(|e| e.process == Process::Client(process)).map(|e| e.time)
    };
    let lost = operations.iter().filter(|o| matches!(o.outcome, OpOutcome::Info));
    let is_ghost = |write: &Operation| {
        let Op::Write { value, .. } = &write.op else { return false };
        let Some(given_up) = gave_up(write.process) else { return false };
        let mine = || reads(operations).filter(|(read, _)| key(&read.op) == key(&write.op));
        let Some(found) = mine().filter(|(_, v)| *v == value).map(|(read, _)| read.call).min() else {
            return false;
        };
        mine().any(|(read, v)| v != value && read.call > given_up && read.ret.is_some_and(|ret| ret < found))
    };
    lost.filter(|write| is_ghost(write)).count() as u64
}

/// Whole seconds in which nothing was answered, at most.
fn longest_silence_s(_: &Run, operations: &[Operation]) -> u64 {
    let mut answered: Vec<u64> =
        operations.iter().filter(|o| matches!(o.outcome, OpOutcome::Ok(_))).filter_map(|o| o.ret).collect();
    answered.sort_unstable();
    answered.windows(2).map(|two| (two[1] - two[0]) / 1_000_000_000).max().unwrap_or(0)
}

/// Reads under a lease that came back when another value had been written, from beginning to end, since they were asked.
fn overtaken_reads(_: &Run, operations: &[Operation]) -> u64 {
    let writes = || operations.iter().filter(|o| matches!(o.outcome, OpOutcome::Ok(_)));
    let is_overtaken = |(read, value): &(&Operation, &Value)| {
        on_path(read, "lease-read")
            && writes().any(|write| {
                matches!(&write.op, Op::Write { value: other, .. } if other != *value)
                    && key(&write.op) == key(&read.op)
                    && write.call > read.call
                    && write.ret.is_some_and(|done| read.ret.is_some_and(|ret| done < ret))
            })
    };
    reads(operations).filter(is_overtaken).count() as u64
}

/// Reads that miss a write which was over before they began, and was the last one begun before that.
fn stale_reads(_: &Run, operations: &[Operation]) -> u64 {
    let is_stale = |(read, value): &(&Operation, &Value)| {
        matches!(&read.op, Op::Read { mode: ReadMode::Stale, .. }) && {
            // Written, over, and another value was written after it: whoever reads it now reads the past.
            let mine = |o: &&Operation| key(&o.op) == key(&read.op) && matches!(o.outcome, OpOutcome::Ok(_));
            let writes = || operations.iter().filter(mine).filter(|o| matches!(o.op, Op::Write { .. }));
            let first = writes().find(|w| matches!(&w.op, Op::Write { value: v, .. } if v == *value));
            first.and_then(|first| first.ret).is_some_and(|over| {
                writes().any(|next| next.call > over && next.ret.is_some_and(|ret| ret < read.call))
            })
        }
    };
    reads(operations).filter(is_stale).count() as u64
}

fn carry_out(control: &Control, seed: u64) -> (Run, Judged) {
    carry_out_as(control, seed, |_| {})
}

/// With a test that is changed first.
fn carry_out_as(control: &Control, seed: u64, change: impl Fn(&mut Scenario)) -> (Run, Judged) {
    let mut scenario: Scenario =
        serde_yaml::from_str(control.test).unwrap_or_else(|e| panic!("{}: {e}", control.name));
    let plan: Plan = serde_yaml::from_str(control.plan).unwrap_or_else(|e| panic!("{}: {e}", control.name));
    scenario.nemesis = NemesisSpec::Inline(Box::new(plan));
    change(&mut scenario);
    let plan = TestPlan::new(&scenario, seed).unwrap_or_else(|e| panic!("{}: {e}", control.name));
    let run = simulate(&plan, None);
    let judged = judge(&run, &plan).unwrap();
    (run, judged)
}

#[test]
fn what_looks_wrong_and_is_right_is_not_reported() {
    for control in &CONTROLS {
        let mut seen = 0;
        for seed in control.seeds.clone() {
            let (run, judged) = carry_out(control, seed);
            let validity = judged.validity();
            let fine = validity == Validity::Valid || control.may_be_unknown && validity == Validity::Unknown;
            assert!(fine, "{}, seed {seed}: {judged:?}", control.name);
            seen += (control.seen)(&run, &run.history.operations().unwrap());
            if seen >= control.least {
                break;
            }
        }
        println!("{seen} times {}", control.name);
        assert!(seen >= control.least, "only {seen} times: {}", control.name);
    }
}

/// A pass of the control would mean nothing if the same history were fine for reads that claim to see the latest write.
#[test]
fn the_stale_reads_of_the_control_would_be_reported_if_they_claimed_more() {
    let control = CONTROLS.iter().find(|control| control.name.starts_with("stale")).unwrap();
    let (run, _) = carry_out(control, 1);
    let mut events: Vec<_> = run.history.events.iter().collect();
    for event in &mut events {
        if let Op::Read { mode, .. } = &mut event.op {
            *mode = ReadMode::Default;
        }
    }
    let history = checkers::History::new(run.history.header.clone(), events);
    let scenario: Scenario = serde_yaml::from_str(control.test).unwrap();
    let plan = TestPlan::new(&scenario, 1).unwrap();
    let verdict = crate::judge::checker("linearizable", &plan).unwrap().check(&history, &super::budget());
    assert_eq!(verdict.validity, Validity::Invalid, "{verdict:?}");
}

/// And a pass of clients without sessions, if those with one did not suffer.
#[test]
fn clients_with_sessions_suffer_where_those_without_do_not() {
    let control = CONTROLS.iter().find(|control| control.name.starts_with("clients without")).unwrap();
    let suffers = |seed| {
        let (_, judged) = carry_out_as(control, seed, |scenario| scenario.load.sessions = true);
        judged.validity() == Validity::Invalid
    };
    assert!(control.seeds.clone().any(suffers));
}
