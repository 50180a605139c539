//! `availability`: how long nobody was served, and how fast it was over once the faults were healed.
//!
//! ```text
//! ok  ok   |------- asked, and nothing succeeds -------|  ok        the longest such time: overall, by kind, by node
//! fault ====================|                                       the heal
//!                           |------- recovery --------|  ok of every kind
//! ```
//!
//! A time counts as without service from the last success on, if somebody waited then, otherwise from the next call: nobody
//! is kept waiting by silence. A heal counts if it leaves no fault in force; recovery is the time from the begin of healing until
//! of every kind that was asked for one operation succeeded that was called after it, unless another fault begins first.
//! Deliberately never invalid without an objective: how long is too long, the test must say.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{Findings, Span, checker_of_history};
use crate::{Checker, History, Kind, Op, OpOutcome, Operation, Operations, Process};

pub(super) const NAME: &str = "availability";

/// What is demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AvailabilityOptions {
    /// The longest time without a success, overall and of each kind of operation. Of nodes it is only told: a node may be down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_gap: Option<Span>,
    /// How soon after each heal every kind of operation must succeed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover_within: Option<Span>,
}

/// Measures, and judges if something is demanded. Unknown if nothing succeeded, or if a recovery is demanded and there was
/// none to see.
pub fn availability(options: AvailabilityOptions) -> impl Checker {
    checker_of_history(NAME, move |history, operations, findings| {
        gaps(operations, options.max_gap, findings);
        recoveries(history, operations, options.recover_within, findings);
    })
}

/// A time without a success.
#[derive(Clone, Copy)]
struct Gap {
    from: u64,
    to: u64,
    /// The success before it, the first that was asked, and the success after it.
    evidence: [Option<usize>; 3],
}

#[derive(Default)]
struct Watch {
    open: u64,
    /// When an operation was last called of which nobody knows how it ended.
    unanswered: Option<u64>,
    waits_since: Option<u64>,
    asked: Option<usize>,
    last: Option<usize>,
    longest: Option<Gap>,
    ok: u64,
}

impl Watch {
    fn call(&mut self, time: u64, id: usize, ends: bool) {
        self.waits_since.get_or_insert(time);
        self.asked.get_or_insert(id);
        self.open += u64::from(ends);
        if !ends {
            self.unanswered = Some(time);
        }
    }

    fn end(&mut self, time: u64, id: usize, ok: bool) {
        self.open -= 1;
        if ok {
            self.close(time, Some(id));
            self.ok += 1;
            self.last = Some(id);
            self.asked = None;
            self.waits_since = (self.open > 0 || self.unanswered == Some(time)).then_some(time);
        }
    }

    fn close(&mut self, to: u64, id: Option<usize>) {
        let Some(from) = self.waits_since else { return };
        if self.longest.is_none_or(|longest| to - from > longest.to - longest.from) {
            self.longest = Some(Gap { from, to, evidence: [self.last, self.asked, id] });
        }
    }

    fn told(&self) -> Json {
        let gap = |gap: &Gap| json!({"ns": gap.to - gap.from, "from_ns": gap.from, "to_ns": gap.to});
        json!({"ok": self.ok, "longest_gap": self.longest.as_ref().map(gap)})
    }
}

fn gaps(operations: Operations<'_>, max_gap: Option<Span>, findings: &mut Findings) {
    let mut names: [FxHashMap<String, u32>; 2] = Default::default();
    let mut watches = vec![Watch::default()];
    // Time; call, failure or success; the operation; its kind and its node. Calls first, so that what touches overlaps.
    let mut moments: Vec<(u64, u8, u32, u32, u32)> = Vec::new();
    let mut end = 0;
    for operation in operations.iter() {
        if operation.meta.phase.is_some() {
            continue;
        }
        let mut watch = |names: &mut FxHashMap<String, u32>, name: &str| match names.get(name) {
            Some(at) => *at,
            None => {
                watches.push(Watch::default());
                names.insert(name.to_owned(), watches.len() as u32 - 1);
                watches.len() as u32 - 1
            }
        };
        let of_kind = watch(&mut names[0], operation.op.f());
        let of_node = operation.meta.node.as_ref().map_or(0, |node| watch(&mut names[1], node));
        let id = operation.id as u32;
        let ends = u8::from(operation.ret.is_some());
        moments.push((operation.call, ends, id, of_kind, of_node));
        end = end.max(operation.ret.unwrap_or(operation.call));
        if let Some(ret) = operation.ret {
            let ok = matches!(operation.outcome, OpOutcome::Ok(_));
            moments.push((ret, 2 + u8::from(ok), id, of_kind, of_node));
        }
    }
    moments.sort_unstable();
    for (time, what, id, of_kind, of_node) in moments {
        let all = [Some(0), Some(of_kind), (of_node > 0).then_some(of_node)];
        for at in all.into_iter().flatten() {
            let watch = &mut watches[at as usize];
            match what {
                0 | 1 => watch.call(time, id as usize, what == 1),
                _ => watch.end(time, id as usize, what == 3),
            }
        }
    }
    watches.iter_mut().for_each(|watch| watch.close(end, None));
    if watches[0].ok == 0 {
        findings.doubt("nothing succeeded");
    }
    findings.stat("all", watches[0].told());
    let [kinds, nodes] = names.map(|names| names.into_iter().collect::<BTreeMap<_, _>>());
    for (field, names) in [("by_operation", &kinds), ("by_node", &nodes)] {
        let told = names.iter().map(|(name, at)| (name.clone(), watches[*at as usize].told()));
        findings.stat(field, Json::Object(told.collect()));
    }
    let Some(limit) = max_gap else { return };
    // The whole first; of kinds only what the whole does not tell.
    let whole = watches[0].longest.is_some_and(|gap| gap.to - gap.from > limit.0);
    let judged = [("operation".to_owned(), 0)].into_iter().chain(kinds.into_iter().filter(|_| !whole));
    for (name, at) in judged {
        let Some(gap) = watches[at as usize].longest.filter(|gap| gap.to - gap.from > limit.0) else {
            continue;
        };
        let (span, from, to) = (Span(gap.to - gap.from), Span(gap.from), Span(gap.to));
        findings.guilty(
            "unavailable",
            gap.evidence.into_iter().flatten().collect(),
            format!("no {name} succeeded for {span}, from {from} to {to}, though somebody asked; at most {limit} was demanded"),
            json!({"kind": name, "ns": gap.to - gap.from, "from_ns": gap.from, "to_ns": gap.to, "limit_ns": limit.0}),
        );
    }
}

/// A moment from which on no fault is in force, until the next one begins.
struct Heal {
    fault: String,
    at: u64,
    until: u64,
}

/// From the notices of the nemesis: `start` and `stop` with the number of the step.
fn heals(history: &History) -> (Vec<Heal>, u64) {
    let (mut heals, mut in_force): (Vec<Heal>, BTreeSet<u64>) = (Vec::new(), BTreeSet::new());
    let mut covered = 0;
    for at in 0..history.events.len() {
        if history.events.process(at as u32) != Process::Nemesis {
            continue;
        }
        let event = history.events.get(at);
        let Op::Custom { f, value, .. } = &event.op else { continue };
        if event.kind != Kind::Info {
            continue;
        }
        let step = value["step"].as_u64().unwrap_or(u64::MAX);
        match value["phase"].as_str() {
            Some("start") => {
                in_force.insert(step);
                if let Some(heal) = heals.last_mut() {
                    heal.until = heal.until.min(event.time);
                }
            }
            Some("stop") if in_force.remove(&step) => {
                if in_force.is_empty() {
                    let fault = value["fault"].as_str().unwrap_or(f).to_owned();
                    heals.push(Heal { fault, at: event.time, until: u64::MAX });
                } else {
                    covered += 1;
                }
            }
            _ => {}
        }
    }
    (heals, covered)
}

/// What came of one kind of operation after a heal.
#[derive(Default)]
struct After {
    /// The first call.
    asked: Option<(u64, usize)>,
    served: Option<(u64, usize)>,
}

fn recoveries(history: &History, operations: Operations<'_>, within: Option<Span>, findings: &mut Findings) {
    let (heals, covered) = heals(history);
    let mut after: Vec<BTreeMap<String, After>> = heals.iter().map(|_| BTreeMap::new()).collect();
    let mut end = 0;
    for operation in operations.iter() {
        end = end.max(operation.ret.unwrap_or(operation.call));
        // The last heal before the call.
        let Some(at) = heals.partition_point(|heal| heal.at <= operation.call).checked_sub(1) else {
            continue;
        };
        if operation.call >= heals[at].until {
            continue;
        }
        note(after[at].entry(operation.op.f().to_owned()).or_default(), &operation);
    }
    let (mut told, mut seen) = (Vec::new(), 0);
    for (heal, after) in heals.iter().zip(&after) {
        let since = |time: u64| time.saturating_sub(heal.at);
        let first = after.values().filter_map(|kind| kind.served).min().map(|(time, _)| since(time));
        let all: Option<Vec<u64>> =
            after.values().map(|kind| kind.served.map(|(time, _)| since(time))).collect();
        let every = all.and_then(|all| all.into_iter().max());
        told.push(json!({
            "fault": heal.fault, "at_ns": heal.at, "first_success_ns": first, "every_kind_ns": every,
            "next_fault_ns": (heal.until < u64::MAX).then_some(heal.until),
        }));
        let Some(limit) = within else { continue };
        let room = heal.until.min(end).saturating_sub(heal.at);
        for (f, kind) in after {
            let Some((called, asked)) = kind.asked else { continue };
            let took = kind.served.map(|(time, _)| since(time));
            // Whether it was served in time is known if it was, or if there was time enough.
            match took {
                Some(took) if took <= limit.0 => seen += 1,
                _ if room <= limit.0 => {}
                // Nobody asked in time, so that nobody can have been kept waiting.
                _ if since(called) > limit.0 => {}
                _ => {
                    let what = match took {
                        Some(took) => format!("it took {} until a {f} succeeded", Span(took)),
                        None => format!("no {f} succeeded for {}", Span(room)),
                    };
                    findings.guilty(
                        "slow-recovery",
                        [Some(asked), kind.served.map(|(_, id)| id)].into_iter().flatten().collect(),
                        format!("after `{}` was healed at {}, {what}; {limit} was demanded", heal.fault, Span(heal.at)),
                        json!({"fault": heal.fault, "at_ns": heal.at, "kind": f, "ns": took, "limit_ns": limit.0}),
                    );
                }
            }
        }
    }
    findings.stat("recoveries", told);
    findings.stat("heals_with_other_faults_in_force", covered);
    if within.is_some() && seen == 0 {
        findings.doubt("after no heal there was time enough, and an operation, to see a recovery");
    }
}

fn note(after: &mut After, operation: &Operation) {
    let asked = (operation.call, operation.id);
    after.asked = Some(after.asked.map_or(asked, |before| before.min(asked)));
    if let (OpOutcome::Ok(_), Some(ret)) = (&operation.outcome, operation.ret) {
        let served = (ret, operation.id);
        after.served = Some(after.served.map_or(served, |before| before.min(served)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::{Budget, Event, Meta, ReadMode, Ret, Validity::*, Value};

    type Row = (u64, u64, u64, Op, Option<Ret>);

    fn read(process: u64, call: u64, ret: u64, ok: bool) -> Row {
        let op = Op::Read { key: Value::Nil, mode: ReadMode::Default };
        (process, call, ret, op, ok.then_some(Ret::Value(Value::Nil)))
    }

    fn write(process: u64, call: u64, ret: u64) -> Row {
        (process, call, ret, Op::Write { key: Value::Nil, value: 1.into() }, Some(Ret::Done))
    }

    fn notice(time: u64, step: u64, phase: &str) -> Event {
        let value = json!({"step": step, "phase": phase, "fault": "kill one"});
        Event {
            index: 0,
            time,
            process: Process::Nemesis,
            kind: Kind::Info,
            op: Op::Custom { f: "kill".into(), key: None, value },
            ret: None,
            meta: Meta::default(),
        }
    }

    fn with(rows: &[Row], notices: &[Event]) -> History {
        let history = history(rows);
        let mut events: Vec<Event> = history.events.iter().chain(notices.iter().cloned()).collect();
        events.sort_by_key(|event| (event.time, event.kind != Kind::Invoke));
        for (at, event) in events.iter_mut().enumerate() {
            event.index = at as u64;
        }
        History::new(history.header, events)
    }

    fn gap_of(rows: &[Row]) -> Option<u64> {
        let verdict =
            availability(AvailabilityOptions::default()).check(&history(rows), &Budget::unlimited());
        verdict.stats["all"]["longest_gap"]["ns"].as_u64()
    }

    #[test]
    fn silence_is_no_outage_and_waiting_is() {
        assert_eq!(gap_of(&[read(0, 0, 5, true), read(0, 100, 103, true)]), Some(5));
        // Somebody waits from 2 on, and is served at 60.
        assert_eq!(gap_of(&[read(0, 0, 5, true), read(1, 2, 60, true)]), Some(55));
        // Somebody asks at 10, gives up, asks again, and is served at 60.
        assert_eq!(gap_of(&[read(0, 0, 5, true), read(1, 10, 20, false), read(2, 30, 60, true)]), Some(50));
        // Nobody is served to the end.
        assert_eq!(gap_of(&[read(0, 0, 5, true), read(1, 10, 20, false), read(2, 70, 90, false)]), Some(60));
    }

    #[test]
    fn a_gap_that_is_too_long_is_told_with_its_ends() {
        let limit = |ns| AvailabilityOptions { max_gap: Some(Span(ns)), ..Default::default() };
        let rows = [read(0, 0, 5, true), read(1, 10, 20, false), read(2, 30, 60, true), write(3, 12, 13)];
        assert_eq!(check(&availability(limit(50)), &history(&rows)).0, Valid);
        // A write was served at 13, and nobody asked again before 30; who reads waits from 10 on.
        for (ns, kind, from, evidence) in
            [(49, "read", 10, vec![0, 1, 3]), (29, "operation", 30, vec![2, 3, 3])]
        {
            let verdict = availability(limit(ns)).check(&history(&rows), &Budget::unlimited());
            assert_eq!(verdict.validity, Invalid);
            let anomaly = &verdict.anomalies[0];
            assert_eq!((&anomaly.details["kind"], &anomaly.details["from_ns"]), (&json!(kind), &json!(from)));
            assert_eq!(anomaly.operations, evidence);
        }
        assert_eq!(check(&availability(limit(1)), &history(&[read(1, 10, 20, false)])).0, Unknown);
    }

    #[test]
    fn recovery_is_from_the_heal_to_a_success_of_every_kind() {
        let options = |ns| AvailabilityOptions { recover_within: Some(Span(ns)), ..Default::default() };
        let rows = [
            read(0, 0, 5, true),
            read(1, 25, 45, true),
            read(2, 32, 40, true),
            write(3, 33, 70),
            read(4, 90, 200, true),
        ];
        let notices = [
            notice(10, 0, "start"),
            notice(11, 0, "started"),
            notice(30, 0, "stop"),
            notice(80, 0, "stopped"),
        ];
        let history = with(&rows, &notices);
        let verdict = availability(options(40)).check(&history, &Budget::unlimited());
        assert_eq!(verdict.validity, Valid, "{verdict:?}");
        assert_eq!(verdict.stats["recoveries"][0]["first_success_ns"], 10);
        assert_eq!(verdict.stats["recoveries"][0]["every_kind_ns"], 40);
        let slow = check(&availability(options(39)), &history);
        assert_eq!(slow, (Invalid, vec!["slow-recovery".to_owned()]));
        // Who asks late is answered late.
        let late = with(&[read(0, 0, 5, true), read(1, 32, 40, true), write(3, 75, 80)], &notices);
        assert_eq!(check(&availability(options(44)), &late).0, Valid);
        assert_eq!(check(&availability(options(45)), &late).0, Invalid);
        // The next fault begins before anybody could tell.
        let cut = [notices.to_vec(), vec![notice(60, 1, "start"), notice(199, 1, "stop")]].concat();
        assert_eq!(check(&availability(options(39)), &with(&rows, &cut)).0, Valid);
        // Another fault was still in force.
        let covered = [notices.to_vec(), vec![notice(9, 1, "start")]].concat();
        assert_eq!(check(&availability(options(39)), &with(&rows, &covered)).0, Unknown);
        assert_eq!(check(&availability(options(39)), &with(&rows, &[])).0, Unknown);
    }

    /// The same by trying every moment at which a time without service can begin and end.
    #[test]
    fn agrees_with_trying_every_moment() {
        use rand::{RngExt, SeedableRng};
        for seed in 0..3000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let rows: Vec<Row> = (0..rng.random_range(1..7))
                .map(|process| {
                    let call = rng.random_range(0..40);
                    read(process, call, call + rng.random_range(0..15), rng.random_bool(0.6))
                })
                .collect();
            let successes: Vec<u64> = rows.iter().filter(|row| row.4.is_some()).map(|row| row.2).collect();
            let end = rows.iter().map(|row| if row.4.is_some() { row.2 } else { row.1 }).max().unwrap();
            let waits = |from: u64| {
                let asks = rows.iter().any(|row| row.1 == from && (row.4.is_none() || row.2 > from));
                let waiting = rows.iter().any(|row| row.4.is_some() && row.1 <= from && row.2 > from);
                asks || (successes.contains(&from) && waiting)
            };
            let free = |from: u64, to: u64| !successes.iter().any(|ok| from < *ok && *ok < to);
            let expected = (0..=end)
                .flat_map(|from| (from..=end).map(move |to| (from, to)))
                .filter(|(from, to)| {
                    waits(*from) && free(*from, *to) && (successes.contains(to) || *to == end)
                })
                .map(|(from, to)| to - from)
                .max();
            assert_eq!(gap_of(&rows).unwrap_or(0), expected.unwrap_or(0), "seed {seed}: {rows:?}");
        }
    }
}
