//! One guarantee by itself: what must be visible to a read, and what follows for the order.
//!
//! ```text
//! p1: write 1, write 2, read -> 5     read-your-writes: 1 before 5, 2 before 5; of 1 and 2 nothing is known
//! ```
//!
//! Each judge goes over the steps of a session once. For registers a visible write that is not the one shown comes before it;
//! for sets it must be there.

use rustc_hash::FxHashMap;

use super::{
    Judge,
    accesses::{NONE, Seen, Write},
    order::Why,
};

/// Writes of a session to one register, of which the newest is not known.
#[derive(Default)]
struct Own {
    /// Those since the helper.
    fresh: Vec<u32>,
    /// A node behind all of these.
    helper: Option<(u32, Vec<u32>)>,
}

/// Where a write of the session stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is another session's, or a later one came in its place.
    Gone,
    Fresh,
    Helper,
}

/// The adds of one session to a set, in its order.
pub(super) type Adds = FxHashMap<(u32, u32), Vec<u32>>;

/// By session and key: how many writes the session had made, what it saw then for the first time, and by which read.
type FirstSeen = FxHashMap<(u32, u32), Vec<(u32, u32, u32)>>;

impl Judge<'_> {
    pub(super) fn read_your_writes(&mut self) {
        let accesses = self.accesses;
        let mut places = vec![Place::Gone; accesses.writes.len()];
        for (session, steps) in accesses.sessions.iter().enumerate() {
            let mut registers: FxHashMap<u32, Own> = FxHashMap::default();
            let mut adds: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
            for step in steps {
                match &step.saw {
                    Some(Seen::Nothing) => {
                        if let Some(write) = registers.get(&step.key).and_then(Own::any) {
                            self.chances += 1;
                            self.missing(step.key, write, &[], step.operation);
                        }
                    }
                    Some(Seen::Write(shown)) => {
                        if let Some(own) = registers.get_mut(&step.key) {
                            self.chances += 1;
                            self.own_before(own, &mut places, *shown, step.operation);
                        }
                    }
                    Some(Seen::Set(all)) => {
                        let Some(own) = adds.get(&step.key) else { continue };
                        self.chances += 1;
                        let from = all
                            .partition_point(|w| (accesses.writes[*w as usize].session as usize) < session);
                        let there = &all[from..];
                        if let Some(lost) = own.iter().zip(0..).find(|(w, at)| there.get(*at) != Some(*w)) {
                            self.missing(step.key, *lost.0, &[], step.operation);
                        }
                    }
                    None => {}
                }
                if step.wrote == NONE {
                    continue;
                }
                if accesses.is_set(step.key) {
                    adds.entry(step.key).or_default().push(step.wrote);
                } else {
                    places[step.wrote as usize] = Place::Fresh;
                    registers.entry(step.key).or_default().fresh.push(step.wrote);
                }
            }
            // To the other sessions they are others' writes.
            steps.iter().filter(|step| step.wrote != NONE).for_each(|step| {
                places[step.wrote as usize] = Place::Gone;
            });
        }
    }

    /// All own writes but the one that is shown come before it.
    fn own_before(&mut self, own: &mut Own, places: &mut [Place], shown: u32, read: u32) {
        let why = Why::Saw(read, NONE);
        let place = places[shown as usize];
        if place != Place::Gone {
            // From now on all that comes behind the shown one comes behind all others.
            for write in own.fresh.drain(..) {
                places[write as usize] = Place::Gone;
                self.order.before(write, shown, why);
            }
            if let Some((helper, all)) = own.helper.take() {
                all.iter().for_each(|write| places[*write as usize] = Place::Gone);
                match place {
                    Place::Helper => all.iter().for_each(|write| self.order.before(*write, shown, why)),
                    _ => self.order.before(helper, shown, why),
                }
            }
            places[shown as usize] = Place::Fresh;
            own.fresh.push(shown);
            return;
        }
        if own.fresh.len() == 1 && own.helper.is_none() {
            return self.order.before(own.fresh[0], shown, why);
        }
        if !own.fresh.is_empty() {
            let next = self.order.helper();
            let mut all = match own.helper.take() {
                Some((helper, all)) => {
                    self.order.before(helper, next, Why::Helper);
                    all
                }
                None => Vec::new(),
            };
            for write in own.fresh.drain(..) {
                places[write as usize] = Place::Helper;
                self.order.before(write, next, Why::Helper);
                all.push(write);
            }
            own.helper = Some((next, all));
        }
        if let Some((helper, _)) = own.helper {
            self.order.before(helper, shown, why);
        }
    }

    pub(super) fn monotonic_reads(&mut self) {
        let accesses = self.accesses;
        for steps in &accesses.sessions {
            // What was seen last, and by whom.
            let mut last: FxHashMap<u32, (&Seen, u32)> = FxHashMap::default();
            for step in steps {
                let Some(saw) = &step.saw else { continue };
                match (last.get(&step.key).copied(), saw) {
                    (Some((Seen::Write(before), through)), Seen::Nothing) => {
                        self.chances += 1;
                        self.missing(step.key, *before, &[through], step.operation);
                        continue;
                    }
                    (Some((Seen::Write(before), through)), Seen::Write(now)) => {
                        self.chances += 1;
                        self.order.before(*before, *now, Why::Saw(step.operation, through));
                    }
                    (Some((Seen::Set(before), through)), Seen::Set(now)) if !before.is_empty() => {
                        self.chances += 1;
                        if let Some(lost) = first_lack(&accesses.writes, before, now) {
                            self.missing(step.key, lost, &[through], step.operation);
                        }
                    }
                    _ => {}
                }
                last.insert(step.key, (saw, step.operation));
            }
        }
    }

    /// All adds by session and key.
    pub(super) fn adds(&self) -> Adds {
        let mut adds = Adds::default();
        for (number, write) in self.accesses.writes.iter().enumerate() {
            adds.entry((write.session, write.key)).or_default().push(number as u32);
        }
        adds
    }

    pub(super) fn monotonic_writes(&mut self) {
        let (accesses, adds) = (self.accesses, self.adds());
        for step in accesses.sessions.iter().flatten() {
            let Some(Seen::Set(all)) = &step.saw else { continue };
            let session = |write: &u32| accesses.writes[*write as usize].session;
            for seen in all.chunk_by(|a, b| session(a) == session(b)) {
                let telling = |write: &&u32| !accesses.writes[**write as usize].shared;
                let Some(latest) = seen.iter().rfind(telling) else { continue };
                let Some(all) = adds.get(&(session(latest), step.key)) else { continue };
                let mut before = all.iter().take_while(|write| *write != latest).zip(0..).peekable();
                self.chances += u64::from(before.peek().is_some());
                if let Some((lost, _)) = before.find(|(write, at)| seen.get(*at) != Some(*write)) {
                    let through = accesses.writes[*latest as usize].operation;
                    self.missing(step.key, *lost, &[through], step.operation);
                }
            }
        }
    }

    /// For sets: what a session had seen before it added what is seen. Looks at the elements of the same set only.
    pub(super) fn writes_follow_reads(&mut self) {
        let accesses = self.accesses;
        let mut seen: FirstSeen = FxHashMap::default();
        let mut known: rustc_hash::FxHashSet<(u32, u32)> = Default::default();
        for (session, steps) in accesses.sessions.iter().enumerate() {
            let (session, mut place) = (session as u32, 0);
            for step in steps {
                if let Some(Seen::Set(all)) = &step.saw {
                    let telling = all.iter().filter(|write| known.insert((session, **write)));
                    let list = seen.entry((session, step.key)).or_default();
                    list.extend(telling.map(|write| (place, *write, step.operation)));
                }
                if step.wrote != NONE {
                    place = accesses.writes[step.wrote as usize].place + 1;
                }
            }
        }
        let mut there = vec![0u32; accesses.writes.len()];
        let mut turn = 0;
        for step in accesses.sessions.iter().flatten() {
            let Some(Seen::Set(all)) = &step.saw else { continue };
            turn += 1;
            all.iter().for_each(|write| there[*write as usize] = turn);
            let session = |write: &u32| accesses.writes[*write as usize].session;
            for of_session in all.chunk_by(|a, b| session(a) == session(b)) {
                let telling = |w: &&u32| !accesses.writes[**w as usize].shared;
                let Some(latest) = of_session.iter().rfind(telling) else { continue };
                let latest = &accesses.writes[*latest as usize];
                let Some(before) = seen.get(&(latest.session, step.key)) else { continue };
                let until = before.partition_point(|(place, ..)| *place <= latest.place);
                if !self.spend(until) {
                    return;
                }
                self.chances += u64::from(until > 0);
                let lost = before[..until].iter().find(|(_, write, _)| there[*write as usize] != turn);
                if let Some((_, write, saw)) = lost {
                    self.missing(step.key, *write, &[latest.operation, *saw], step.operation);
                }
            }
        }
    }
}

impl Own {
    fn any(&self) -> Option<u32> {
        self.fresh.last().copied().or_else(|| self.helper.as_ref().and_then(|(_, all)| all.last().copied()))
    }
}

/// The first of `before` that is not in `now`. Both are in the order of session and place.
fn first_lack(writes: &[Write], before: &[u32], now: &[u32]) -> Option<u32> {
    let place = |write: u32| (writes[write as usize].session, writes[write as usize].place);
    let mut now = now.iter().copied().peekable();
    for &write in before {
        while now.next_if(|other| place(*other) < place(write)).is_some() {}
        if now.peek() != Some(&write) {
            return Some(write);
        }
    }
    None
}
