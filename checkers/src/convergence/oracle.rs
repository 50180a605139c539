//! Tests only: the checker against its definitions, tried moment by moment and write by write on small random histories.
//!
//! ```text
//! for every moment, every pair of replicas: have both been standing still there, on different values?
//! for every read, every write: was it acknowledged before, and certainly newer?
//! ```

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    Event, Header, Kind, Meta, Op, OpOutcome, Operation, Process, ReadMode, Ret, Value,
    convergence::{divergence::over_time, evidence::gather},
};

/// Times in these histories are small numbers of this, in ns: four fit the smallest bucket of divergence over time.
const UNIT: u64 = 25_000_000;
/// How long replicas must stand still, in units.
const ENOUGH: u64 = 6;
const LAST: u64 = 60;

/// One operation as it was drawn.
#[derive(Clone, Debug)]
struct Row {
    op: Op,
    node: Option<usize>,
    call: u64,
    /// `None` if it was still open when the history ended.
    end: Option<(u64, Kind, Option<Ret>)>,
}

fn draw(rng: &mut ChaCha8Rng, nodes: usize, collection: bool) -> Vec<Row> {
    let keys = rng.random_range(1..3);
    let mut rows = Vec::new();
    let (mut value, calm) = (0, rng.random_bool(0.8));
    let mut values: Vec<Vec<i64>> = vec![vec![]; 2];
    for _ in 0..rng.random_range(0..5) {
        let k = rng.random_range(0..keys);
        let key = Value::from(k as i64);
        // Now and then a value is written twice.
        value += i64::from(rng.random_bool(0.9));
        values[k].push(value);
        let op = match rng.random_range(0..10) {
            _ if collection => Op::Add { key, value: value.into() },
            0 => Op::Delete { key },
            1 | 2 => Op::Cas { key, expected: Value::Nil, new: value.into() },
            _ => Op::Write { key, value: value.into() },
        };
        let call = rng.random_range(0..20);
        let ok = match &op {
            Op::Cas { .. } => Ret::Swapped { swapped: rng.random_bool(0.7), found: None },
            _ => Ret::Done,
        };
        let ret = call + rng.random_range(0..6);
        let end = match rng.random_range(0..20) {
            0 if !calm => None,
            0..3 => Some((ret, Kind::Info, None)),
            3 => Some((ret, Kind::Fail, None)),
            _ => Some((ret, Kind::Ok, Some(ok))),
        };
        rows.push(Row { op, node: None, call, end });
    }
    // In a calm history replicas mostly hold what was written last.
    let settled: Vec<i64> = (0..2).map(|k| values[k].last().copied().unwrap_or(0)).collect();
    for _ in 0..rng.random_range(0..24) {
        let k = rng.random_range(0..keys);
        let call = rng.random_range(0..LAST);
        let one = |rng: &mut ChaCha8Rng| match rng.random_range(0..12) {
            0 => 99,
            1 | 2 if !values[k].is_empty() => values[k][rng.random_range(0..values[k].len())],
            _ => settled[k],
        };
        let found = if collection {
            let all =
                values[k].iter().filter(|_| rng.random_bool(if call > 25 && calm { 0.97 } else { 0.7 }));
            let mut all: Vec<Value> = all.map(|v| Value::from(*v)).collect();
            all.dedup();
            Value::from(all)
        } else {
            match if calm && call > 25 && rng.random_bool(0.9) { settled[k] } else { one(rng) } {
                0 => Value::Nil,
                v => v.into(),
            }
        };
        let op = Op::Read { key: Value::from(k as i64), mode: ReadMode::Stale };
        let ret = call + rng.random_range(0..4);
        let end = match rng.random_range(0..15) {
            0 => Some((ret, Kind::Info, None)),
            _ => Some((ret, Kind::Ok, Some(Ret::Value(found)))),
        };
        rows.push(Row { op, node: Some(rng.random_range(0..nodes)), call, end });
    }
    rows
}

fn history(rng: &mut ChaCha8Rng, rows: &[Row], nodes: usize) -> History {
    let mut events: Vec<(u64, u8, Event)> = Vec::new();
    let mut push = |time: u64, late: u8, process, kind, op: Op, ret, node: Option<usize>| {
        let meta = Meta { node: node.map(|n| format!("n{n}").into()), ..Meta::default() };
        events.push((time, late, Event { index: 0, time: time * UNIT, process, kind, op, ret, meta }));
    };
    for (process, row) in rows.iter().enumerate() {
        let process = Process::Client(process as u64);
        push(row.call, 0, process, Kind::Invoke, row.op.clone(), None, row.node);
        if let Some((time, kind, ret)) = &row.end {
            push(*time, 1, process, *kind, row.op.clone(), ret.clone(), row.node);
        }
    }
    let custom = |f: &str| Op::Custom { f: f.into(), key: None, value: serde_json::Value::Null };
    if rng.random_bool(0.5) {
        let fault = rng.random_range(0..25);
        push(fault, 1, Process::Nemesis, Kind::Info, custom("kill"), None, None);
        if rng.random_bool(0.8) {
            push(
                fault + rng.random_range(0..5),
                1,
                Process::Observer,
                Kind::Info,
                custom(HEALED),
                None,
                None,
            );
        }
    }
    events.sort_by_key(|(time, late, _)| (*time, *late));
    let number = |(index, (_, _, event)): (usize, (u64, u8, Event))| Event { index: index as u64, ..event };
    let header = Header::new("t", 0, "", (0..nodes).map(|n| format!("n{n}")).collect());
    History::new(header, events.into_iter().enumerate().map(number).collect::<Vec<_>>())
}

/// The definitions, to the letter.
struct Naive {
    operations: Vec<Operation>,
    nodes: usize,
    /// `None` if a write was open at the end.
    since: Option<u64>,
    healed: bool,
}

impl Naive {
    fn new(history: &History) -> Naive {
        let of = |f: &dyn Fn(&Event) -> bool| history.events.iter().filter(|e| f(e)).map(|e| e.time).max();
        let fault = of(&|e| e.process == Process::Nemesis);
        let healed =
            of(&|e| e.process == Process::Observer).filter(|healed| fault.is_none_or(|f| *healed >= f));
        let operations = history.operations().unwrap();
        let mut since = healed.or(fault);
        let mut open = false;
        for write in operations.iter().filter(|o| !is_read(o) && o.outcome != OpOutcome::Fail) {
            match write.ret_index {
                None => open = true,
                Some(index) => {
                    let end = history.events.iter().find(|e| e.index == index).unwrap().time;
                    since = Some(since.unwrap_or(0).max(end));
                }
            }
        }
        Naive {
            operations,
            nodes: history.header.nodes.len(),
            since: (!open).then_some(since.unwrap_or(0)),
            healed: fault.is_none() || healed.is_some(),
        }
    }

    fn keys(&self) -> Vec<Value> {
        let mut keys: Vec<Value> = self.operations.iter().filter_map(|o| o.op.key().cloned()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn writes(&self, key: &Value) -> Vec<&Operation> {
        self.operations.iter().filter(|o| !is_read(o) && o.op.key() == Some(key) && may_be(o)).collect()
    }

    /// Answered reads of a key: all, or those of one node.
    fn reads(&self, key: &Value, node: Option<usize>) -> Vec<&Operation> {
        let of = |o: &&Operation| {
            is_read(o)
                && o.op.key() == Some(key)
                && matches!(o.outcome, OpOutcome::Ok(_))
                && node.is_none_or(|node| o.meta.node.as_deref() == Some(&format!("n{node}")))
        };
        self.operations.iter().filter(of).collect()
    }

    /// Whether one write was over before another began; `found`: when its value was seen, if that counts.
    fn before(&self, x: &Operation, w: &Operation, found: Option<u64>) -> bool {
        x.ret.into_iter().chain(found).any(|end| end < w.call)
    }

    /// Whether a value reflects an acknowledged write, all of which it must reflect at once.
    fn reflects_all(&self, key: &Value, value: &Value) -> bool {
        let writes = self.writes(key);
        let acknowledged: Vec<&&Operation> = writes.iter().filter(|w| is_ok(w)).collect();
        if let Value::List(all) = value {
            return acknowledged.iter().all(|w| all.contains(&left(w)));
        }
        let initial = *value == Value::Nil && acknowledged.is_empty();
        let by = |x: &&&Operation| acknowledged.iter().all(|w| w.id == x.id || !self.before(x, w, None));
        initial || writes.iter().filter(|x| left(x) == *value).any(|x| by(&x))
    }

    fn foreign(&self, key: &Value) -> bool {
        let writes = self.writes(key);
        let wrong = |value: &Value, ret: u64| !writes.iter().any(|w| left(w) == *value && w.call <= ret);
        self.reads(key, None).iter().any(|r| match found(r) {
            Value::Nil => false,
            Value::List(all) => all.iter().any(|v| wrong(v, r.ret.unwrap())),
            v => wrong(&v, r.ret.unwrap()),
        })
    }

    /// The last of a node's reads in the quiet, and the moments at which it certainly stood there.
    fn stood(&self, key: &Value, node: usize) -> Option<(Value, Vec<bool>)> {
        let since = self.since?;
        let reads: Vec<&Operation> =
            self.reads(key, Some(node)).into_iter().filter(|r| r.call > since).collect();
        let last = found(reads.iter().max_by_key(|r| (r.call, r.id))?);
        let (same, other): (Vec<&Operation>, Vec<&Operation>) =
            reads.into_iter().partition(|r| found(r) == last);
        let at = |t: u64| {
            let t = t * UNIT;
            let begun = same
                .iter()
                .any(|r| r.ret.unwrap() <= t && other.iter().all(|o| (o.call, o.id) < (r.call, r.id)));
            begun && same.iter().any(|r| r.call >= t) && other.iter().all(|o| o.ret.unwrap() <= t)
        };
        Some((last, (0..LAST + 10).map(at).collect()))
    }

    fn for_good(&self, moments: &[bool]) -> bool {
        moments.windows(ENOUGH as usize + 1).any(|window| window.iter().all(|stood| *stood))
    }

    fn diverged(&self, key: &Value) -> bool {
        let all: Vec<(Value, Vec<bool>)> = (0..self.nodes).filter_map(|node| self.stood(key, node)).collect();
        let pair = |a: &(Value, Vec<bool>), b: &(Value, Vec<bool>)| {
            let both: Vec<bool> = a.1.iter().zip(&b.1).map(|(x, y)| *x && *y).collect();
            a.0 != b.0 && self.for_good(&both)
        };
        let lost = |a: &(Value, Vec<bool>)| !self.reflects_all(key, &a.0) && self.for_good(&a.1);
        self.healed && (all.iter().any(|a| all.iter().any(|b| pair(a, b))) || all.iter().any(lost))
    }

    fn converged(&self, key: &Value) -> bool {
        if self.writes(key).is_empty() && self.reads(key, None).is_empty() {
            return true;
        }
        let all: Vec<Option<(Value, Vec<bool>)>> =
            (0..self.nodes).map(|node| self.stood(key, node)).collect();
        let first = all[0].as_ref().map(|a| &a.0);
        all.iter().all(|a| a.is_some() && a.as_ref().map(|a| &a.0) == first)
            && self.reflects_all(key, first.unwrap())
    }

    fn validity(&self) -> Validity {
        let keys = self.keys();
        if keys.iter().any(|key| self.foreign(key) || self.diverged(key)) {
            return Validity::Invalid;
        }
        let written = keys.iter().any(|key| self.writes(key).iter().any(|w| is_ok(w)));
        let right =
            self.since.is_some() && written && self.nodes > 1 && keys.iter().all(|key| self.converged(key));
        if right { Validity::Valid } else { Validity::Unknown }
    }

    fn age(&self, read: &Operation) -> (u64, u64) {
        let key = read.op.key().unwrap();
        let (value, writes) = (found(read), self.writes(key));
        let from: Vec<&&Operation> = writes.iter().filter(|x| left(x) == value).collect();
        let seen = self.reads(key, None).iter().filter(|r| found(r) == value).map(|r| r.ret.unwrap()).min();
        let seen = seen.filter(|_| from.len() == 1 && value != Value::Nil);
        let newer = |w: &&&Operation| match &value {
            Value::List(all) => !all.contains(&left(w)),
            _ => from.iter().all(|x| self.before(x, w, seen)),
        };
        let late = writes.iter().filter(|w| is_ok(w) && w.ret.unwrap() < read.call).filter(newer);
        let gaps: Vec<u64> = late.map(|w| read.call - w.ret.unwrap()).collect();
        (gaps.iter().max().copied().unwrap_or(0), gaps.len() as u64)
    }

    /// By every pair of reads of a node between which it held one value.
    fn divergent(&self, bucket_ns: u64, buckets: usize) -> Vec<u64> {
        let mut counts = vec![0; buckets];
        for key in self.keys() {
            let mut marked = vec![false; buckets];
            let mut holds: Vec<(usize, Value, u64, u64)> = Vec::new();
            for node in 0..self.nodes {
                let mut reads = self.reads(&key, Some(node));
                reads.sort_by_key(|r| (r.call, r.id));
                for i in 0..reads.len() {
                    for j in i..reads.len() {
                        // Whichever of two returned first began it.
                        let run = &reads[i..=j];
                        let same = run.iter().all(|r| found(r) == found(run[0]));
                        for a in run.iter().filter(|_| same) {
                            for b in run.iter().filter(|b| b.call >= a.ret.unwrap()) {
                                holds.push((node, found(a), a.ret.unwrap(), b.call));
                            }
                        }
                    }
                }
            }
            let bucket = |t: u64| (t / bucket_ns) as usize;
            for (node, value, from, to) in &holds {
                for r in self.reads(&key, None) {
                    let other = r.meta.node.as_deref() != Some(&format!("n{node}")) && found(r) != *value;
                    if other && *from <= r.call && r.ret.unwrap() <= *to {
                        marked[bucket(r.ret.unwrap())] = true;
                    }
                }
                for (node2, value2, from2, to2) in &holds {
                    let (a, b) = (*from.max(from2), *to.min(to2));
                    if node != node2 && value != value2 && a <= b {
                        marked[bucket(a)..=bucket(b)].fill(true);
                    }
                }
            }
            counts.iter_mut().zip(marked).for_each(|(count, marked)| *count += u64::from(marked));
        }
        counts
    }
}

fn is_read(o: &Operation) -> bool {
    matches!(o.op, Op::Read { .. })
}

fn is_ok(o: &Operation) -> bool {
    may_be(o) && matches!(o.outcome, OpOutcome::Ok(_))
}

fn may_be(o: &Operation) -> bool {
    !matches!(&o.outcome, OpOutcome::Fail | OpOutcome::Ok(Ret::Swapped { swapped: false, .. }))
}

fn left(o: &Operation) -> Value {
    match &o.op {
        Op::Write { value, .. } | Op::Cas { new: value, .. } | Op::Add { value, .. } => value.clone(),
        _ => Value::Nil,
    }
}

fn found(o: &Operation) -> Value {
    match &o.outcome {
        OpOutcome::Ok(Ret::Value(value)) => value.clone(),
        other => panic!("no answered read: {other:?}"),
    }
}

/// The same was run once over ten times as many.
#[test]
fn agrees_with_the_definitions_on_random_histories() {
    let mut met = [0_usize; 3];
    let (mut stale, budget) = (0, Budget::unlimited());
    let options = Options { stand_still_ns: ENOUGH * UNIT };
    for seed in 0..6_000 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = rng.random_range(1..4);
        let rows = draw(&mut rng, nodes, seed % 4 == 0);
        let history = history(&mut rng, &rows, nodes);
        let naive = Naive::new(&history);
        let verdict = convergence(options).check(&history, &budget);
        assert_eq!(
            verdict.validity,
            naive.validity(),
            "seed {seed}: {rows:#?}\n{:?}\n{:#?}",
            verdict.reason,
            verdict.anomalies
        );
        assert_eq!(verdict.validity == Validity::Valid, verdict.reason.is_none(), "seed {seed}");
        assert_eq!(verdict.validity == Validity::Invalid, !verdict.anomalies.is_empty(), "seed {seed}");
        met[verdict.validity as usize] += 1;
        let evidence = gather(&history, history.paired().unwrap());
        for key in &evidence.keys {
            for (read, age) in key.reads.iter().zip(key.versions.ages(&key.reads, &budget).unwrap()) {
                let naive = naive.age(&naive.operations[read.id]);
                assert_eq!((age.t_ns, age.k), naive, "seed {seed}, operation {}: {rows:#?}", read.id);
                stale += usize::from(age.k > 0);
            }
        }
        let over_time = over_time(&evidence.keys, nodes, &budget).unwrap();
        let naive = naive.divergent(over_time.bucket_ns, over_time.keys.len());
        assert_eq!(over_time.keys, naive, "seed {seed}: {rows:#?}");
    }
    assert!(met.iter().all(|n| *n > 200) && stale > 500, "{met:?}, {stale} stale reads");
}
