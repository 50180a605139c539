//! Registers whose values are all different, in the time that sorting takes.
//!
//! ```text
//! w 1  |---|                     the key held 1 from the return of the first to the call of the last: its zone
//! r->1          |--|
//! zone     ======                two such zones that overlap cannot be
//! w 2     |---------|            everything about 2 fits one instant: it must not lie within the zone of another
//! ```
//!
//! From Gibbons and Korach, *Testing shared memories*, SIAM Journal on Computing 26(4), 1997, section 4.2: with values that are
//! written at most once, each read names its write, and a history is linearizable if and only if every read can come
//! after its write, no two forward zones overlap, and no backward zone lies within a forward one.
//!
//! **Compare-and-sets** that report what they found fit in: one that did not swap is a read, and one that swapped `a`
//! for `b` puts the operations about `b` right behind those about `a`. Such a chain is one block, as the operations about a
//! single value are. It can be ordered if no operation of it returns before one that must come earlier is called; then
//! all of it can be placed between its first return and its last call (or at one instant, if that is the other way
//! round), and the test of zones holds for whole chains.
//!
//! **Unknown outcomes**: a write or a swap whose value nobody saw need not have happened, and what need not have happened
//! is left out; one whose value was seen did happen, and never returned.
//!
//! Time is that of the events, intervals are closed: what touches overlaps. Deliberately says "not for me" as soon as a value
//! comes twice: then the problem is NP-complete (ibid., section 3), and the engines have to search.

use rustc_hash::FxHashMap;

use crate::{
    history::{
        datum::Datum,
        events::{F, Told},
        operations::End,
    },
    model::RegisterLike,
};

use super::record::Records;

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Linearizable. So many operations of unknown outcome were left out, since nobody saw their values.
    Valid(usize),
    /// These operations alone are not linearizable, and by the lemma of [`prune`](super::prune) neither is the whole.
    Invalid(Vec<u32>),
    /// These operations cannot be, above all because of this element. They prove it only together with those that their answers
    /// are made of, which are too many to be shown.
    Huge(Vec<u32>, Datum),
    /// Not decided within the budget, and nobody else would.
    Unknown(String),
    /// Values come twice, or there are operations of other kinds.
    NotForMe,
}

const NONE: u32 = u32::MAX;
/// When something returned that never did.
const NEVER: u64 = u64::MAX;

/// Everything about one value.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    /// The operation that left it, and when that was called and returned.
    writer: u32,
    written: (u64, u64),
    /// The value that a compare-and-set needed.
    from: u32,
    /// The value that a compare-and-set made of it.
    next: u32,
    /// The first return and the last call of a read of it, and whose they were.
    first_return: (u64, u32),
    last_call: (u64, u32),
    /// Somebody saw it, or its writer is known to have succeeded.
    happened: bool,
}

impl Cluster {
    const NEW: Cluster = Cluster {
        writer: NONE,
        written: (0, 0),
        from: NONE,
        next: NONE,
        first_return: (NEVER, NONE),
        last_call: (0, NONE),
        happened: false,
    };

    /// The absent value before the first operation has no writer, and is there.
    fn is_made(&self) -> bool {
        self.writer != NONE || self.written.1 == 1
    }
}

/// A block of operations that must not be torn apart.
#[derive(Clone, Copy, Debug)]
struct Zone {
    /// The first return and the last call.
    start: u64,
    end: u64,
    /// The value at its beginning.
    root: u32,
}

#[derive(Default)]
struct Register {
    clusters: Vec<Cluster>,
    places: FxHashMap<Datum, u32>,
}

/// Decides a key with these judged operations.
pub(super) fn decide(like: &RegisterLike<'_>, records: &Records<'_>) -> Answer {
    let mut register = Register::default();
    register.places.reserve(records.len() / 2);
    // Before all else: times are counted from 2.
    let initial = Cluster { written: (1, 1), happened: true, ..Cluster::NEW };
    let initial_datum = records.values().find(like.initial);
    register.clusters.push(initial);
    if let Some(datum) = initial_datum {
        register.places.insert(datum, 0);
    }
    match register.read(like, records) {
        Ok(()) => {}
        Err(answer) => return answer,
    }
    match register.judge() {
        None => Answer::Valid(register.clusters.iter().filter(|c| c.is_made() && !c.happened).count()),
        Some(mut evidence) => {
            evidence.retain(|id| *id != NONE);
            evidence.sort_unstable();
            evidence.dedup();
            Answer::Invalid(evidence)
        }
    }
}

impl Register {
    fn place(&mut self, datum: Datum) -> u32 {
        let next = self.clusters.len() as u32;
        let at = *self.places.entry(datum).or_insert(next);
        if at == next {
            self.clusters.push(Cluster::NEW);
        }
        at
    }

    fn read(&mut self, like: &RegisterLike<'_>, records: &Records<'_>) -> Result<(), Answer> {
        records.try_each(|record| {
            let (id, a, b) = (record.id, record.a, record.b);
            let call = record.call.saturating_add(2);
            let ret = record.ret.saturating_add(2);
            match (record.f, record.end, record.told()) {
                (F::Read, End::Ok, Told::Value(value)) => self.seen(value, id, call, ret),
                (F::Write, end, _) => self.made(a, id, (call, ret), None, end == End::Ok)?,
                (F::Cas, ..) if !like.cas => return Err(Answer::NotForMe),
                (F::Cas, End::Info, _) if a == b => {}
                (F::Cas, End::Info, _) => self.made(b, id, (call, ret), Some(a), false)?,
                (F::Cas, _, Told::Swapped(true, found)) if found.is_none_or(|found| found == a) => {
                    if a == b {
                        self.seen(a, id, call, ret);
                    } else {
                        self.made(b, id, (call, ret), Some(a), true)?;
                    }
                }
                (F::Cas, _, Told::Swapped(false, Some(found))) if found != a => {
                    self.seen(found, id, call, ret)
                }
                _ => return Err(Answer::NotForMe),
            }
            Ok(())
        })
    }

    fn seen(&mut self, value: Datum, id: u32, call: u64, ret: u64) {
        let place = self.place(value);
        let cluster = &mut self.clusters[place as usize];
        cluster.happened = true;
        cluster.first_return = cluster.first_return.min((ret, id));
        cluster.last_call = cluster.last_call.max((call, id));
    }

    fn made(
        &mut self,
        value: Datum,
        id: u32,
        written: (u64, u64),
        from: Option<Datum>,
        certain: bool,
    ) -> Result<(), Answer> {
        let from = from.map_or(NONE, |from| self.place(from));
        let place = self.place(value);
        let cluster = &mut self.clusters[place as usize];
        if cluster.is_made() {
            return Err(Answer::NotForMe);
        }
        cluster.writer = id;
        cluster.written = written;
        cluster.from = from;
        cluster.happened |= certain;
        Ok(())
    }

    /// Gives what cannot be, if something cannot.
    fn judge(&mut self) -> Option<Vec<u32>> {
        self.link().or_else(|| {
            let mut forward = Vec::new();
            let mut backward = Vec::new();
            let mut walked = 0;
            for root in 0..self.clusters.len() as u32 {
                let cluster = &self.clusters[root as usize];
                if !cluster.happened || cluster.from != NONE {
                    continue;
                }
                match self.walk(root, &mut walked) {
                    Err(evidence) => return Some(evidence),
                    Ok(zone) if zone.start < zone.end => forward.push(zone),
                    // Nothing is about the absent value.
                    Ok(zone) if zone.end <= 1 => {}
                    Ok(zone) => backward.push(zone),
                }
            }
            if let Some(evidence) = self.unrooted(walked) {
                return Some(evidence);
            }
            let (one, two) = clash(&mut forward, &backward)?;
            let mut evidence = self.block(one);
            evidence.extend(self.block(two));
            Some(evidence)
        })
    }

    /// Finds out what happened, and which value follows which.
    fn link(&mut self) -> Option<Vec<u32>> {
        // What swapped a value for one that was there saw the first.
        let mut happened: Vec<u32> =
            (0..self.clusters.len() as u32).filter(|at| self.clusters[*at as usize].happened).collect();
        while let Some(at) = happened.pop() {
            let cluster = self.clusters[at as usize];
            if !cluster.is_made() {
                // A value from nowhere: whoever saw it is enough.
                return Some(match cluster.first_return.1 {
                    NONE => self.witness(cluster.next),
                    reader => vec![reader],
                });
            }
            if cluster.from == NONE {
                continue;
            }
            let from = &mut self.clusters[cluster.from as usize];
            let (rival, fresh) = (from.next, !from.happened);
            from.next = at;
            from.happened = true;
            if rival != NONE {
                // It cannot be swapped for two others: it never comes again.
                let mut evidence = self.origins(cluster.from);
                evidence.extend(self.witness(at));
                evidence.extend(self.witness(rival));
                return Some(evidence);
            }
            if fresh || !self.clusters[cluster.from as usize].is_made() {
                happened.push(cluster.from);
            }
        }
        None
    }

    /// What proves that a value was there: a reader or a writer that succeeded, of it or of what was made of it.
    fn witness(&self, mut at: u32) -> Vec<u32> {
        let mut all = Vec::new();
        while at != NONE {
            let cluster = &self.clusters[at as usize];
            all.extend([cluster.writer, cluster.first_return.1]);
            if cluster.first_return.1 != NONE || cluster.written.1 != NEVER {
                break;
            }
            at = cluster.next;
        }
        all
    }

    /// The writers by which a value came to be, back to a write.
    fn origins(&self, mut at: u32) -> Vec<u32> {
        let mut all = Vec::new();
        while at != NONE && all.len() <= self.clusters.len() {
            all.push(self.clusters[at as usize].writer);
            at = self.clusters[at as usize].from;
        }
        all
    }

    /// Follows a chain from its write, and checks that its operations can come in its order.
    fn walk(&self, root: u32, walked: &mut u32) -> Result<Zone, Vec<u32>> {
        let mut zone = Zone { start: NEVER, end: 0, root };
        // The latest call among what must come first, and whose it is.
        let mut latest = (0, NONE);
        let mut at = root;
        while at != NONE {
            *walked += 1;
            let cluster = &self.clusters[at as usize];
            let (call, ret) = cluster.written;
            for (ret, id) in [(ret, cluster.writer), cluster.first_return] {
                if ret < latest.0 {
                    let mut evidence = self.origins(at);
                    evidence.extend([id, latest.1]);
                    return Err(evidence);
                }
                latest = latest.max((call, cluster.writer));
            }
            latest = latest.max(cluster.last_call);
            zone.start = zone.start.min(ret).min(cluster.first_return.0);
            zone.end = zone.end.max(call).max(cluster.last_call.0);
            at = cluster.next;
        }
        Ok(zone)
    }

    /// What happened but hangs on no write: swaps in a circle.
    fn unrooted(&self, walked: u32) -> Option<Vec<u32>> {
        let happened = self.clusters.iter().filter(|cluster| cluster.happened).count();
        if happened == walked as usize {
            return None;
        }
        let mut reached = vec![false; self.clusters.len()];
        for root in 0..self.clusters.len() {
            let mut at = root as u32;
            if !self.clusters[root].happened || self.clusters[root].from != NONE {
                continue;
            }
            while at != NONE {
                reached[at as usize] = true;
                at = self.clusters[at as usize].next;
            }
        }
        let start = (0..self.clusters.len()).find(|at| self.clusters[*at].happened && !reached[*at])?;
        let mut evidence = Vec::new();
        let mut at = start as u32;
        loop {
            let cluster = &self.clusters[at as usize];
            evidence.extend([cluster.writer, cluster.first_return.1]);
            at = cluster.next;
            if at == NONE || at == start as u32 {
                return Some(evidence);
            }
        }
    }

    /// The operations of a block that make its zone, and those that they need.
    fn block(&self, zone: Zone) -> Vec<u32> {
        let mut evidence = Vec::new();
        let (mut first, mut last) = (None, None);
        let (mut at, mut reached) = (zone.root, zone.root);
        while at != NONE && (first.is_none() || last.is_none()) {
            let cluster = &self.clusters[at as usize];
            evidence.push(cluster.writer);
            if cluster.written.1.min(cluster.first_return.0) == zone.start {
                first = Some(cluster.first_return.1);
            }
            if cluster.written.0.max(cluster.last_call.0) == zone.end {
                last = Some(cluster.last_call.1);
            }
            reached = at;
            at = cluster.next;
        }
        evidence.extend(first);
        evidence.extend(last);
        evidence.extend(self.witness(reached));
        evidence
    }
}

/// Two blocks that cannot both be whole.
fn clash(forward: &mut [Zone], backward: &[Zone]) -> Option<(Zone, Zone)> {
    forward.sort_unstable_by_key(|zone| (zone.start, zone.end));
    for pair in forward.windows(2) {
        // Those before the first clash do not overlap, so the last of them ends last.
        if pair[1].start < pair[0].end {
            return Some((pair[0], pair[1]));
        }
    }
    for inner in backward {
        // It begins with its last call and ends with its first return.
        let before = forward.partition_point(|zone| zone.start < inner.end);
        let Some(outer) = before.checked_sub(1) else { continue };
        if inner.start < forward[outer].end {
            return Some((forward[outer], *inner));
        }
    }
    None
}
