//! All four guarantees: an operation sees everything that it may have been caused by.
//!
//! ```text
//! p1: write x 1   write y 1                 the past of the last read: both of p1's writes
//! p2:                 read y -> 1   read x -> nil      so x must not be nil
//! ```
//!
//! The past of an operation is how many writes of each session it has behind it: a vector clock (Fidge, 1988; Mattern, 1989).
//! For a read of a register each session's last write of the key in that past comes before the one that is shown, or is it:
//! the write-read-write rule of Bouajjani et al., POPL 2017, section 5. O(operations × sessions). Clocks of writes are kept as
//! long as somebody may still look at them.

use rustc_hash::FxHashMap;

use super::{
    Judge,
    accesses::{NONE, Seen, Step},
    order::Why,
};

struct Clocks {
    /// Of each session at work, how many writes of each it has behind it.
    of_session: Vec<Vec<u32>>,
    /// The same of each write that somebody has yet to see.
    of_write: Vec<Option<Box<[u32]>>>,
    /// How many operations have yet to look at a write.
    readers: Vec<u32>,
    done: Vec<bool>,
}

/// Of each key, the sessions that write it, and their writes.
type Writers = Vec<Vec<(u32, Vec<u32>)>>;

impl Judge<'_> {
    pub(super) fn causal(&mut self) {
        let accesses = self.accesses;
        let width = accesses.sessions.len();
        let mut clocks = Clocks {
            of_session: vec![Vec::new(); width],
            of_write: vec![None; accesses.writes.len()],
            readers: vec![0; accesses.writes.len()],
            done: vec![false; accesses.writes.len()],
        };
        // In the order of the calls, but a step waits for what it saw.
        let mut turns: Vec<(u32, u32)> = Vec::new();
        for (session, steps) in accesses.sessions.iter().enumerate() {
            for step in steps {
                turns.push((step.operation, session as u32));
                accesses.sources(step).for_each(|write| clocks.readers[write as usize] += 1);
            }
        }
        turns.sort_unstable();
        let mut writers: Writers = vec![Vec::new(); accesses.keys.len()];
        let mut adds: Vec<_> = self.adds().into_iter().collect();
        adds.sort_unstable_by_key(|((session, key), _)| (*key, *session));
        for ((session, key), all) in adds {
            writers[key as usize].push((session, all));
        }
        let (mut next, mut due) = (vec![0usize; width], vec![0usize; width]);
        let mut waits_for = vec![NONE; width];
        let mut waiting: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for (_, session) in turns {
            due[session as usize] += 1;
            let mut ready = vec![session];
            while let Some(session) = ready.pop() {
                let at = session as usize;
                while next[at] < due[at] && waits_for[at] == NONE {
                    let step = &accesses.sessions[at][next[at]];
                    let late = |write: &u32| !clocks.done[*write as usize] && *write != step.wrote;
                    if let Some(write) = accesses.sources(step).find(late) {
                        waiting.entry(write).or_default().push(session);
                        waits_for[at] = write;
                        break;
                    }
                    next[at] += 1;
                    if !self.step(session, step, &mut clocks, &writers) {
                        return;
                    }
                    if next[at] == accesses.sessions[at].len() {
                        clocks.of_session[at] = Vec::new();
                    }
                    for woken in waiting.remove(&step.wrote).into_iter().flatten() {
                        waits_for[woken as usize] = NONE;
                        ready.push(woken);
                    }
                }
            }
        }
        self.stuck(&next, &clocks.done);
    }

    /// One step; false when there was too much to do.
    fn step(&mut self, session: u32, step: &Step, clocks: &mut Clocks, writers: &Writers) -> bool {
        let accesses = self.accesses;
        let width = accesses.sessions.len();
        let mut clock = std::mem::take(&mut clocks.of_session[session as usize]);
        if clock.is_empty() {
            if !self.spend(width) {
                return false;
            }
            clock = vec![0; width];
        }
        let mut shown_past = None;
        for write in accesses.sources(step) {
            let source = &accesses.writes[write as usize];
            let Some(past) = clocks.of_write[write as usize].take() else { continue };
            if clock[source.session as usize] <= source.place {
                if !self.spend(width) {
                    return false;
                }
                clock.iter_mut().zip(past.iter()).for_each(|(mine, other)| *mine = (*mine).max(*other));
            }
            clocks.readers[write as usize] -= 1;
            match &step.saw {
                Some(Seen::Write(_)) => shown_past = Some(past),
                _ if clocks.readers[write as usize] > 0 => clocks.of_write[write as usize] = Some(past),
                _ => {}
            }
        }
        let behind = |(of, all): &(u32, Vec<u32>)| -> usize {
            all.partition_point(|write| accesses.writes[*write as usize].place < clock[*of as usize])
        };
        let of_key = &writers[step.key as usize];
        if step.saw.is_some() && !self.spend(of_key.len()) {
            return false;
        }
        match &step.saw {
            None => {}
            Some(Seen::Nothing) => {
                let write =
                    of_key.iter().find_map(|group| behind(group).checked_sub(1).map(|at| group.1[at]));
                if let Some(write) = write {
                    self.chances += 1;
                    self.caused(step, write);
                }
            }
            Some(Seen::Write(shown)) => {
                let mut others = false;
                for group in of_key {
                    let Some(at) = behind(group).checked_sub(1) else { continue };
                    let (write, of) = (group.1[at], group.0 as usize);
                    others |= write != *shown;
                    // What the shown write itself has behind it comes before it already.
                    let place = accesses.writes[write as usize].place;
                    if shown_past.as_ref().is_none_or(|past| past[of] <= place) {
                        self.order.before(write, *shown, Why::Saw(step.operation, NONE));
                    }
                }
                self.chances += u64::from(others);
            }
            Some(Seen::Set(all)) => {
                let mut rest = &all[..];
                for group in of_key {
                    let from = rest.partition_point(|w| accesses.writes[*w as usize].session < group.0);
                    rest = &rest[from..];
                    let forced = &group.1[..behind(group)];
                    self.chances += u64::from(!forced.is_empty());
                    if !self.spend(forced.len()) {
                        return false;
                    }
                    let lost = forced.iter().zip(0..).find(|(write, at)| rest.get(*at) != Some(*write));
                    if let Some((write, _)) = lost {
                        self.caused(step, *write);
                    }
                }
            }
        }
        if let (Some(Seen::Write(shown)), Some(past)) = (&step.saw, shown_past)
            && clocks.readers[*shown as usize] > 0
        {
            clocks.of_write[*shown as usize] = Some(past);
        }
        if step.wrote != NONE {
            clock[session as usize] = accesses.writes[step.wrote as usize].place + 1;
            clocks.done[step.wrote as usize] = true;
            if clocks.readers[step.wrote as usize] > 0 {
                clocks.of_write[step.wrote as usize] = Some(clock.clone().into());
            }
        }
        clocks.of_session[session as usize] = clock;
        true
    }

    /// A read that lacks what it has behind it.
    fn caused(&mut self, step: &Step, write: u32) {
        let through = if self.is_full() { Vec::new() } else { self.chain(step.operation, write) };
        self.missing(step.key, write, &through, step.operation);
    }

    /// How an operation came to have a write behind it: who saw what of whom, back from the operation to the session of the write.
    pub(super) fn chain(&self, operation: u32, write: u32) -> Vec<u32> {
        struct Segment {
            session: usize,
            /// The steps that were not looked at before.
            steps: std::ops::Range<usize>,
            /// The segment whose step saw a write of this one, and both of them.
            from: Option<(usize, u32, u32)>,
        }
        let accesses = self.accesses;
        let session = |operation: u32| {
            let process = self.operations.get(operation as usize).process;
            accesses.processes.iter().position(|other| *other == process)
        };
        let place = |session: usize, operation: u32| {
            accesses.sessions[session].partition_point(|step| step.operation < operation)
        };
        let wanted = &accesses.writes[write as usize];
        let Some(start) = session(operation) else { return Vec::new() };
        let mut reached = vec![0; accesses.sessions.len()];
        reached[start] = place(start, operation) + 1;
        let mut segments = vec![Segment { session: start, steps: 0..reached[start], from: None }];
        let mut at = 0;
        while at < segments.len() {
            let (session, steps) = (segments[at].session, segments[at].steps.clone());
            let goal = place(session, wanted.operation);
            // The operation itself writes after it has read.
            if session == wanted.session as usize && steps.contains(&goal) && wanted.operation != operation {
                let (mut through, mut from) = (Vec::new(), segments[at].from);
                while let Some((before, saw, seen)) = from {
                    through.extend([seen, saw]);
                    from = segments[before].from;
                }
                through.retain(|other| *other != operation && *other != wanted.operation);
                through.dedup();
                return through;
            }
            for step in accesses.sessions[session][steps].iter().rev() {
                for source in accesses.sources(step) {
                    let source = &accesses.writes[source as usize];
                    let (of, until) =
                        (source.session as usize, place(source.session as usize, source.operation) + 1);
                    if until > reached[of] {
                        let steps = reached[of]..until;
                        reached[of] = until;
                        let from = Some((at, step.operation, source.operation));
                        segments.push(Segment { session: of, steps, from });
                    }
                }
            }
            at += 1;
        }
        Vec::new()
    }

    /// Sessions that wait for each other saw what came of what they did later.
    fn stuck(&mut self, next: &[usize], done: &[bool]) {
        let accesses = self.accesses;
        let mut round = vec![NONE; next.len()];
        for start in 0..next.len() {
            let (mut at, mut trail) = (start, Vec::new());
            while let Some(step) = accesses.sessions[at].get(next[at]).filter(|_| round[at] == NONE) {
                round[at] = start as u32;
                let late = |write: &u32| !done[*write as usize] && *write != step.wrote;
                let Some(write) = accesses.sources(step).find(late) else { break };
                trail.push((at, step, write));
                at = accesses.writes[write as usize].session as usize;
            }
            let Some(from) = trail.iter().position(|(session, ..)| *session == at) else { continue };
            let circle = &trail[from..];
            let operations: Vec<usize> = circle
                .iter()
                .flat_map(|(_, step, write)| [step.operation as usize, self.written(*write)])
                .collect();
            let told: Vec<String> =
                circle.iter().map(|(_, step, _)| self.says(step.operation as usize)).collect();
            let message = format!("what was seen would have been its own cause: {}", told.join("; "));
            self.fault(operations, message, circle[0].1.key);
        }
    }
}
