//! `lock`: nobody holds what another one holds.
//!
//! ```text
//! p1  acquire |--|============================|-- release --|      held for certain: from the return of the one
//! p2                 acquire |--|======                            to the call of the other
//! ```
//!
//! Two certain times that overlap are a proof. A lease may have run out: then a hold is certain only so long after the call of
//! its acquire as the lease lasts, and what protects is the **fencing token** (Kleppmann, *How to do distributed locking*, 2016):
//! tokens must grow from one acquire to a later one, and whoever checks them (`use`, an operation with a token) must refuse one
//! that is older than another it has accepted. Deliberately weaker than the models `owned-mutex` and `fenced-mutex`, which
//! search: acquires of unknown outcome are not looked at here.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{Findings, Span, checker};
use crate::{Checker, Key, Op, OpOutcome, Operation, Ret, Value};

pub(super) const NAME: &str = "lock";

/// How the locks work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockOptions {
    /// After this a lock is lost without being released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Span>,
    /// Whether its holder may take it again, and then perhaps under the same token.
    pub reentrant: bool,
    /// Whether others than the holder may release it.
    pub anybody_releases: bool,
}

/// A time for which somebody held the lock for certain.
#[derive(Clone, Copy)]
struct Hold {
    from: u64,
    to: u64,
    owner: u32,
    id: usize,
}

/// A token that somebody was given or used.
#[derive(Clone, Copy)]
struct Fence {
    call: u64,
    ret: u64,
    token: i64,
    owner: u32,
    id: usize,
}

#[derive(Default)]
struct Lock {
    /// By owner: the acquires that succeeded, and the releases that may have, each with call and return.
    acquires: Vec<(u32, u64, u64, usize)>,
    releases: Vec<(u32, u64, u64)>,
    given: Vec<Fence>,
    used: Vec<Fence>,
}

/// Judges `acquire`, `release`, and `use` (a custom operation whose argument is a token, or has a field `token`). Unknown if
/// no lock was taken by two. An acquire or a use that answers `false` was refused.
pub fn lock(options: LockOptions) -> impl Checker {
    checker(NAME, move |operations, findings| {
        let mut locks: FxHashMap<Key, Lock> = FxHashMap::default();
        let mut keys = Vec::new();
        let mut owners: FxHashMap<Result<Value, u64>, u32> = FxHashMap::default();
        for operation in operations.iter() {
            let owner = match &operation.op {
                Op::Acquire { owner, .. } | Op::Release { owner, .. } if *owner != Value::Nil => {
                    Ok(owner.clone())
                }
                Op::Acquire { .. } | Op::Release { .. } => Err(operation.process),
                Op::Custom { f, .. } if &**f == "use" => Err(operation.process),
                _ => continue,
            };
            let next = owners.len() as u32;
            let owner = *owners.entry(owner).or_insert(next);
            let key = operation.op.key().cloned().unwrap_or_default();
            let lock = locks.entry(key.clone()).or_insert_with(|| {
                keys.push(key);
                Lock::default()
            });
            lock.note(&operation, owner);
        }
        let (mut contended, mut tokens, mut used) = (0_u64, 0_u64, 0_u64);
        for key in keys {
            let Some(mut lock) = locks.remove(&key) else { continue };
            let first = lock.acquires.first().map(|acquire| acquire.0);
            contended += u64::from(lock.acquires.iter().any(|acquire| Some(acquire.0) != first));
            tokens += lock.given.len() as u64;
            used += lock.used.len() as u64;
            let holds = lock.holds(&options);
            overlaps(&key, holds, &options, findings);
            let again = |a: &Fence, b: &Fence| options.reentrant && a.owner == b.owner && a.token == b.token;
            for (now, newest) in went_back(&lock.given, |a, b| a >= b, again) {
                let message = format!(
                    "key {key}: operation {} was given token {}, though operation {} had been given {} before it was called",
                    now.id, now.token, newest.id, newest.token
                );
                findings.guilty(
                    "token-went-back",
                    vec![newest.id, now.id],
                    message,
                    fenced(&key, now, newest),
                );
            }
            for (now, other) in given_twice(&mut lock.given, again) {
                let message = format!(
                    "key {key}: operations {} and {} were given the same token {}",
                    other.id, now.id, now.token
                );
                findings.guilty(
                    "token-given-twice",
                    vec![other.id, now.id],
                    message,
                    fenced(&key, now, other),
                );
            }
            for (now, newest) in went_back(&lock.used, |a, b| a > b, |_, _| false) {
                let message = format!(
                    "key {key}: operation {} was served under token {}, though operation {} had been served under {} before it was called",
                    now.id, now.token, newest.id, newest.token
                );
                findings.guilty("stale-token", vec![newest.id, now.id], message, fenced(&key, now, newest));
            }
        }
        for (name, count) in [("contended_locks", contended), ("tokens", tokens), ("uses", used)] {
            findings.stat(name, count);
        }
        if contended == 0 && used < 2 {
            findings.doubt("no lock was taken by two");
        }
    })
}

fn fenced(key: &Key, now: Fence, before: Fence) -> Json {
    json!({"key": key, "token": now.token, "before": before.token})
}

impl Lock {
    fn note(&mut self, operation: &Operation, owner: u32) {
        let (call, ret) = (operation.call, operation.ret.unwrap_or(u64::MAX));
        let fence = |token| Fence { call, ret, token, owner, id: operation.id };
        match (&operation.op, &operation.outcome) {
            (_, OpOutcome::Fail) => {}
            (Op::Release { .. }, _) => self.releases.push((owner, call, ret)),
            (_, OpOutcome::Info) => {}
            // Some systems say so when they refuse.
            (Op::Acquire { .. }, OpOutcome::Ok(Ret::Value(Value::Bool(false)))) => {}
            (Op::Acquire { .. }, OpOutcome::Ok(told)) => {
                self.acquires.push((owner, call, ret, operation.id));
                if let Ret::Value(Value::Int(token)) = told {
                    self.given.push(fence(*token));
                }
            }
            (Op::Custom { .. }, OpOutcome::Ok(Ret::Custom(Json::Bool(false)))) => {}
            (Op::Custom { value, .. }, OpOutcome::Ok(_)) => {
                if let Some(token) = value.as_i64().or_else(|| value["token"].as_i64()) {
                    self.used.push(fence(token));
                }
            }
            _ => {}
        }
    }

    /// The certain times. A release that may come after an acquire ends it; what is called first may come after what is called
    /// later, if it has not returned by then.
    fn holds(&mut self, options: &LockOptions) -> Vec<Hold> {
        let lane = |owner: u32| if options.anybody_releases { 0 } else { owner };
        let mut releases: FxHashMap<u32, VecDeque<(u64, u64)>> = FxHashMap::default();
        // Operations are in the order in which they were written down, and that need not be the one of time.
        self.acquires.sort_by_key(|(_, call, _, id)| (*call, *id));
        self.releases.sort_by_key(|(_, call, _)| *call);
        for &(owner, call, ret) in &self.releases {
            releases.entry(lane(owner)).or_default().push_back((call, ret));
        }
        let mut holds = Vec::new();
        for &(owner, call, ret, id) in &self.acquires {
            let mut to = options.lease.map_or(u64::MAX, |lease| call.saturating_add(lease.0));
            if let Some(queue) = releases.get_mut(&lane(owner)) {
                while queue.front().is_some_and(|(_, returned)| *returned < call) {
                    queue.pop_front();
                }
                to = to.min(queue.front().map_or(u64::MAX, |(called, _)| *called));
            }
            if ret < to {
                holds.push(Hold { from: ret, to, owner, id });
            }
        }
        holds
    }
}

/// Each hold against the one of another owner, and if need be of the same, that lasts longest of those that began before.
fn overlaps(key: &Key, mut holds: Vec<Hold>, options: &LockOptions, findings: &mut Findings) {
    holds.sort_by_key(|hold| (hold.from, hold.id));
    // Of two owners the longest.
    let mut longest: [Option<Hold>; 2] = [None, None];
    for hold in holds {
        let held = |other: &Hold| hold.from < other.to;
        let others = longest.iter().flatten().find(|other| other.owner != hold.owner && held(other));
        let own = longest.iter().flatten().find(|other| other.owner == hold.owner && held(other));
        let (name, other) = match (others, own) {
            (Some(other), _) => ("held-by-two", Some(other)),
            (None, Some(own)) if !options.reentrant && options.lease.is_none() => {
                ("acquired-twice", Some(own))
            }
            _ => ("", None),
        };
        if let Some(other) = other {
            let until = hold.to.min(other.to);
            let until = if until == u64::MAX { "the end".to_owned() } else { Span(until).to_string() };
            let message = format!(
                "key {key}: operations {} and {} both held it for certain, from {} to {until}",
                other.id,
                hold.id,
                Span(hold.from)
            );
            findings.guilty(
                name,
                vec![other.id, hold.id],
                message,
                json!({"key": key, "from_ns": hold.from}),
            );
        }
        let [first, second] = &mut longest;
        match (first.as_mut(), second.as_mut()) {
            (None, _) => *first = Some(hold),
            (Some(first), _) if first.owner == hold.owner => {
                if hold.to > first.to {
                    *first = hold;
                }
            }
            (Some(_), None) => *second = Some(hold),
            (Some(first), Some(second)) => {
                if second.owner == hold.owner {
                    if hold.to > second.to {
                        *second = hold;
                    }
                } else {
                    let shorter = if first.to <= second.to { first } else { second };
                    if hold.to > shorter.to {
                        *shorter = hold;
                    }
                }
            }
        }
    }
}

/// Tokens with the newest of those that had returned before they were called, if that is wrong.
fn went_back(
    fences: &[Fence],
    wrong: impl Fn(i64, i64) -> bool,
    fine: impl Fn(&Fence, &Fence) -> bool,
) -> Vec<(Fence, Fence)> {
    let mut by_return: Vec<Fence> = fences.to_vec();
    by_return.sort_by_key(|fence| fence.ret);
    let mut by_call: Vec<Fence> = fences.to_vec();
    by_call.sort_by_key(|fence| fence.call);
    let (mut at, mut newest): (usize, Option<Fence>) = (0, None);
    let mut found = Vec::new();
    for now in by_call {
        while at < by_return.len() && by_return[at].ret < now.call {
            if newest.is_none_or(|newest| by_return[at].token > newest.token) {
                newest = Some(by_return[at]);
            }
            at += 1;
        }
        if let Some(newest) = newest.filter(|newest| wrong(newest.token, now.token) && !fine(newest, &now)) {
            found.push((now, newest));
        }
    }
    found
}

/// Equal tokens of operations that overlap in time; of others the order tells.
fn given_twice(fences: &mut [Fence], fine: impl Fn(&Fence, &Fence) -> bool) -> Vec<(Fence, Fence)> {
    fences.sort_by_key(|fence| (fence.token, fence.call));
    let pairs = fences.windows(2).filter(|pair| pair[0].token == pair[1].token);
    let touching = pairs.filter(|pair| pair[0].ret >= pair[1].call && !fine(&pair[0], &pair[1]));
    touching.map(|pair| (pair[1], pair[0])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, history};
    use super::*;
    use crate::{Validity, Validity::*};

    type Row = (u64, u64, u64, Op, Option<Ret>);

    fn acquire(process: u64, call: u64, ret: u64, told: Option<Ret>) -> Row {
        (process, call, ret, Op::Acquire { key: 1.into(), owner: Value::Nil }, told)
    }

    fn release(process: u64, call: u64, ret: u64, told: Option<Ret>) -> Row {
        (process, call, ret, Op::Release { key: 1.into(), owner: Value::Nil }, told)
    }

    fn token(number: i64) -> Option<Ret> {
        Some(Ret::Value(number.into()))
    }

    fn used(process: u64, call: u64, ret: u64, token: i64) -> Row {
        let op = Op::Custom { f: "use".into(), key: Some(1.into()), value: json!({"token": token}) };
        (process, call, ret, op, Some(Ret::Done))
    }

    fn judge(options: LockOptions, rows: &[Row]) -> (Validity, Vec<String>) {
        check(&lock(options), &history(rows))
    }

    #[test]
    fn two_at_once() {
        let plain = LockOptions::default();
        let done = || Some(Ret::Done);
        assert_eq!(judge(plain, &[]).0, Unknown);
        assert_eq!(judge(plain, &[acquire(0, 0, 5, done())]).0, Unknown);
        let both = vec!["held-by-two".to_owned()];
        let together = [acquire(0, 0, 5, done()), acquire(1, 6, 9, done())];
        assert_eq!(judge(plain, &together), (Invalid, both.clone()));
        let in_turn = [acquire(0, 0, 5, done()), acquire(1, 6, 9, done()), release(0, 7, 8, done())];
        assert_eq!(judge(plain, &in_turn).0, Valid);
        // It may have been released at any time after the call.
        let open = [acquire(0, 0, 5, done()), release(0, 7, 8, None), acquire(1, 6, 9, done())];
        assert_eq!(judge(plain, &open).0, Valid);
        let failed = [acquire(0, 0, 5, done()), release(1, 6, 8, done()), acquire(1, 9, 10, done())];
        assert_eq!(judge(plain, &failed), (Invalid, both.clone()));
        let anybody = LockOptions { anybody_releases: true, ..plain };
        assert_eq!(judge(anybody, &failed).0, Valid);
        // Nobody knows whether the second got it.
        assert_eq!(judge(plain, &[acquire(0, 0, 5, done()), acquire(1, 6, 9, None)]).0, Unknown);
        let refused = [acquire(0, 0, 5, done()), acquire(1, 6, 9, Some(Ret::Value(false.into())))];
        assert_eq!(judge(plain, &refused).0, Unknown);
        let again = [
            acquire(0, 0, 5, done()),
            acquire(0, 6, 9, done()),
            release(0, 10, 11, done()),
            acquire(1, 12, 13, done()),
        ];
        assert_eq!(judge(plain, &again), (Invalid, vec!["acquired-twice".to_owned()]));
        assert_eq!(judge(LockOptions { reentrant: true, ..plain }, &again).0, Valid);
        // The lease of the first ends at 8 at the earliest.
        let lease = LockOptions { lease: Some(Span(8)), ..plain };
        assert_eq!(judge(lease, &[acquire(0, 0, 5, done()), acquire(1, 6, 7, done())]), (Invalid, both));
        assert_eq!(judge(lease, &[acquire(0, 0, 5, done()), acquire(1, 6, 9, done())]).0, Valid);
    }

    #[test]
    fn tokens_grow() {
        let lease = LockOptions { lease: Some(Span(1)), ..Default::default() };
        let given = |a, b| [acquire(0, 0, 5, token(a)), acquire(1, 6, 9, token(b))];
        assert_eq!(judge(lease, &given(3, 4)).0, Valid);
        for (a, b) in [(3, 3), (3, 2)] {
            assert_eq!(judge(lease, &given(a, b)), (Invalid, vec!["token-went-back".to_owned()]));
        }
        let twice = [acquire(0, 0, 5, token(3)), acquire(1, 4, 9, token(3))];
        assert_eq!(judge(lease, &twice), (Invalid, vec!["token-given-twice".to_owned()]));
        let stale = [used(0, 0, 5, 3), used(1, 6, 9, 4), used(0, 10, 12, 3)];
        assert_eq!(judge(lease, &stale), (Invalid, vec!["stale-token".to_owned()]));
        assert_eq!(judge(lease, &[used(0, 0, 5, 3), used(1, 6, 9, 4), used(0, 9, 12, 3)]).0, Valid);
    }

    /// By trying all instants at which the lock may have passed on: every order of the operations that real time allows.
    fn is_possible(rows: &[Row]) -> bool {
        fn place(rows: &[Row], done: &mut Vec<usize>, holder: Option<u64>) -> bool {
            let open: Vec<usize> = (0..rows.len()).filter(|at| !done.contains(at)).collect();
            if open.iter().all(|at| rows[*at].4.is_none()) {
                return true;
            }
            open.iter().any(|&at| {
                let row = &rows[at];
                let waits = open.iter().any(|other| rows[*other].4.is_some() && rows[*other].2 < row.1);
                let next = match (&row.3, holder) {
                    (Op::Acquire { .. }, None) => Some(row.0),
                    (Op::Release { .. }, Some(holder)) if holder == row.0 => None,
                    // Releasing what one does not hold does nothing.
                    (Op::Release { .. }, holder) => holder,
                    _ => return false,
                };
                if waits {
                    return false;
                }
                done.push(at);
                let fits = place(rows, done, next);
                done.pop();
                fits
            })
        }
        place(rows, &mut Vec::new(), None)
    }

    #[test]
    fn guilt_is_confirmed_by_trying_every_order() {
        use rand::{RngExt, SeedableRng};
        let (mut guilty, mut missed) = (0, 0);
        for seed in 0..6000 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut rows: Vec<Row> = Vec::new();
            for process in 0..rng.random_range(2..4) {
                let mut now = rng.random_range(0..10);
                for turn in 0..rng.random_range(1..4) {
                    let ret = now + rng.random_range(0..6);
                    let told = rng.random_bool(0.85).then_some(Ret::Done);
                    let row = if turn % 2 == 0 { acquire } else { release };
                    rows.push(row(process, now, ret, told.clone()));
                    now = ret + 1 + rng.random_range(0..8);
                    if told.is_none() {
                        break;
                    }
                }
            }
            let (validity, _) = judge(LockOptions::default(), &rows);
            let possible = is_possible(&rows);
            assert!(validity != Invalid || !possible, "seed {seed}: {rows:?}");
            guilty += u32::from(validity == Invalid);
            missed += u32::from(validity != Invalid && !possible);
        }
        // It is weaker than a search, and yet finds most.
        assert!(guilty > 1000 && missed * 4 < guilty, "{guilty} found, {missed} missed");
    }
}
