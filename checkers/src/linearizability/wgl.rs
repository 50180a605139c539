//! Depth-first search for one linearization: Wing and Gong's algorithm with Lowe's memo.
//!
//! ```text
//! list   w 5 (  w 6 (  ) w 5  r (  ) r  ) w 6      take an operation that begins before the first return in the list,
//!               w 6 (         r (  ) r  ) w 6      strike it out, go on; at a dead end put it back and take the next
//! ```
//!
//! From Wing and Gong, *Testing and verifying concurrent objects*, 1993, and Lowe, *Testing for linearizability*, 2017,
//! section 3: the list is linked, so that striking out and putting back are O(1), and what has been tried (which operations
//! took effect, and the state) is never tried again. Operations of unknown outcome are not in the list but in crash
//! classes ([`Calls`]): the first to be called of a class goes first. Observers take effect as soon as they can, and what a
//! crashed operation leaves must be looked at next; see [`Frontier`](super::frontier::Frontier) for why that loses nothing.
//!
//! The memo holds 128-bit fingerprints (Zobrist hashing: the xor of one fixed pseudo-random number for each operation
//! that took effect, and one for the state), not the sets themselves, which would make memory quadratic. Two different
//! entries of a memo of a thousand million share a fingerprint with a probability below 2^-68.
//!
//! Deliberately the second engine: it finds a witness quickly where there are many, and may take for ever to
//! show that there is none.

use rustc_hash::FxHashSet;

use super::{
    calls::{Calls, Step},
    outcome::{Config, Failure, Outcome, Purse},
    space::{IMPOSSIBLE, Space, StateId},
};

/// The end of the list, and its head.
const HEAD: u32 = 0;

/// What may be tried next, in this order: observers (no alternative to them), the list, crash classes.
#[derive(Clone, Copy, Debug)]
enum Cursor {
    Observers,
    /// From this entry of the list on.
    List(u32),
    /// From this crash class on.
    Crashes(u32),
}

/// A decision.
#[derive(Clone, Copy, Debug)]
struct Taken {
    call: u32,
    before: StateId,
    idle_before: bool,
    /// Where to go on if it proves wrong; `None` if there is no alternative.
    otherwise: Option<Cursor>,
}

/// The search, between two decisions.
pub(super) struct Wgl<'a> {
    calls: &'a Calls,
    /// Entry `i + 1` is step `i`; crashed calls are not linked.
    next: Vec<u32>,
    previous: Vec<u32>,
    /// The entries of each call: its invocation and its return.
    entries: Vec<(u32, u32)>,
    taken: Vec<Taken>,
    state: StateId,
    /// A crashed operation was the last to take effect: what it left must be looked at next.
    idle: bool,
    cursor: Cursor,
    fingerprint: u128,
    seen: FxHashSet<u128>,
    /// How many calls of each crash class have taken effect.
    used: Vec<u32>,
    /// Calls that must still take effect.
    missing: usize,
    furthest: Option<Failure>,
}

impl<'a> Wgl<'a> {
    pub(super) fn new(calls: &'a Calls, start: StateId) -> Self {
        let mut wgl = Wgl {
            calls,
            next: vec![HEAD; calls.steps.len() + 1],
            previous: vec![HEAD; calls.steps.len() + 1],
            entries: vec![(HEAD, HEAD); calls.infos.len()],
            taken: Vec::new(),
            state: start,
            idle: false,
            cursor: Cursor::Observers,
            fingerprint: 0,
            seen: FxHashSet::default(),
            used: vec![0; calls.crashes.len()],
            missing: 0,
            furthest: None,
        };
        let mut last = HEAD;
        for (i, step) in calls.steps.iter().enumerate() {
            let entry = i as u32 + 1;
            match *step {
                Step::Invoke(call) => {
                    wgl.entries[call as usize].0 = entry;
                    if calls.infos[call as usize].crash.is_some() {
                        continue;
                    }
                    wgl.missing += 1;
                }
                Step::Return(call) => wgl.entries[call as usize].1 = entry,
            }
            wgl.next[last as usize] = entry;
            wgl.previous[entry as usize] = last;
            last = entry;
        }
        wgl.next[last as usize] = HEAD;
        wgl.previous[HEAD as usize] = last;
        wgl
    }

    /// Goes on until the end or until the purse is empty. May be called again with a fuller purse.
    pub(super) fn run<S: Space>(&mut self, space: &mut S, purse: &mut Purse<'_>) -> Outcome {
        while self.missing > 0 {
            let in_use = || self.seen.capacity() as u64 * 17 + self.fixed_bytes() + space.bytes();
            if let Some(end) = purse.check_bytes(in_use) {
                return end;
            }
            let (found, cost) = self.choose(space);
            match found {
                Some((call, state, otherwise)) => self.take(call, state, otherwise),
                None => {
                    if !self.undo() {
                        // The first return of the list stands in the way at least once.
                        let failure = self.furthest.take();
                        return Outcome::Invalid(
                            failure.unwrap_or_else(|| Failure::new(0, std::iter::empty())),
                        );
                    }
                }
            }
            if let Some(end) = purse.spend(cost) {
                return end;
            }
        }
        Outcome::Valid
    }

    fn fixed_bytes(&self) -> u64 {
        self.next.len() as u64 * (8 + 8 + size_of::<Taken>() as u64)
    }

    /// The next operation to try at this place, with the state after it and what to try if it proves wrong; and the
    /// cost of the search for it.
    fn choose<S: Space>(&mut self, space: &mut S) -> (Option<(u32, StateId, Option<Cursor>)>, u64) {
        let mut cost = 1;
        if let Cursor::Observers = self.cursor {
            let mut entry = self.next[HEAD as usize];
            while let Step::Invoke(call) = self.calls.steps[entry as usize - 1] {
                cost += 1;
                let info = self.calls.infos[call as usize];
                if info.observer && space.step(self.state, info.class) != IMPOSSIBLE {
                    if !self.is_new(call, self.state, false) {
                        return (None, cost);
                    }
                    return (Some((call, self.state, None)), cost);
                }
                entry = self.next[entry as usize];
            }
            self.cursor = Cursor::List(self.next[HEAD as usize]);
        }
        if let Cursor::List(mut entry) = self.cursor {
            while let Step::Invoke(call) = self.calls.steps[entry as usize - 1] {
                cost += 1;
                let info = self.calls.infos[call as usize];
                let after = entry;
                entry = self.next[entry as usize];
                if info.observer || self.idle && self.calls.sets[info.class as usize] {
                    continue;
                }
                let state = space.step(self.state, info.class);
                if state != IMPOSSIBLE && self.is_new(call, state, false) {
                    debug_assert_eq!(self.entries[call as usize].0, after);
                    return (Some((call, state, Some(Cursor::List(entry)))), cost);
                }
            }
            self.dead_end(entry);
            self.cursor = Cursor::Crashes(0);
        }
        if let Cursor::Crashes(from) = self.cursor {
            let bound = self.first_return();
            for crash in from..self.used.len() as u32 {
                cost += 1;
                let (class, calls) = &self.calls.crashes[crash as usize];
                let Some(&call) = calls.get(self.used[crash as usize] as usize) else { continue };
                if self.entries[call as usize].0 > bound || self.idle && self.calls.sets[*class as usize] {
                    continue;
                }
                let state = space.step(self.state, *class);
                if state != IMPOSSIBLE && state != self.state && self.is_new(call, state, true) {
                    return (Some((call, state, Some(Cursor::Crashes(crash + 1)))), cost);
                }
            }
        }
        (None, cost)
    }

    /// The first return in the list: whatever is called later must wait for it.
    fn first_return(&self) -> u32 {
        let mut entry = self.next[HEAD as usize];
        while let Step::Invoke(_) = self.calls.steps[entry as usize - 1] {
            entry = self.next[entry as usize];
        }
        entry
    }

    /// Remembers what was possible at the furthest return that stood in the way.
    fn dead_end(&mut self, entry: u32) {
        let at = entry as usize - 1;
        if self.furthest.as_ref().is_none_or(|furthest| furthest.at < at) {
            self.furthest = Some(Failure::new(at, std::iter::empty()));
        }
        let Some(furthest) = self.furthest.as_mut().filter(|furthest| furthest.at == at) else { return };
        if furthest.more || furthest.configs.iter().any(|config| config.state == self.state) {
            return;
        }
        let mut pending = Vec::new();
        let mut entry = self.next[HEAD as usize];
        while let Step::Invoke(call) = self.calls.steps[entry as usize - 1] {
            pending.push(call);
            entry = self.next[entry as usize];
        }
        furthest.add(Config { state: self.state, pending });
    }

    /// Whether taking `call` leads to something that was never tried; remembers it.
    fn is_new(&mut self, call: u32, state: StateId, idle: bool) -> bool {
        let salt = if idle { IDLE } else { STATE };
        self.seen.insert(self.fingerprint ^ number_of(call) ^ number_of(state).rotate_left(1) ^ salt)
    }

    fn take(&mut self, call: u32, state: StateId, otherwise: Option<Cursor>) {
        self.taken.push(Taken { call, before: self.state, idle_before: self.idle, otherwise });
        self.state = state;
        self.idle = self.calls.infos[call as usize].crash.is_some();
        self.fingerprint ^= number_of(call);
        self.cursor = Cursor::Observers;
        match self.calls.infos[call as usize].crash {
            Some(crash) => self.used[crash as usize] += 1,
            None => {
                self.missing -= 1;
                let (invoke, ret) = self.entries[call as usize];
                self.unlink(invoke);
                self.unlink(ret);
            }
        }
    }

    /// Takes back the last decision that has an alternative. `false` if there is none.
    fn undo(&mut self) -> bool {
        while let Some(Taken { call, before, idle_before, otherwise }) = self.taken.pop() {
            self.state = before;
            self.idle = idle_before;
            self.fingerprint ^= number_of(call);
            match self.calls.infos[call as usize].crash {
                Some(crash) => self.used[crash as usize] -= 1,
                None => {
                    self.missing += 1;
                    let (invoke, ret) = self.entries[call as usize];
                    self.relink(ret);
                    self.relink(invoke);
                }
            }
            if let Some(cursor) = otherwise {
                self.cursor = cursor;
                return true;
            }
        }
        false
    }

    fn unlink(&mut self, entry: u32) {
        let (before, after) = (self.previous[entry as usize], self.next[entry as usize]);
        self.next[before as usize] = after;
        self.previous[after as usize] = before;
    }

    fn relink(&mut self, entry: u32) {
        let (before, after) = (self.previous[entry as usize], self.next[entry as usize]);
        self.next[before as usize] = entry;
        self.previous[after as usize] = entry;
    }
}

/// Sets the numbers of states apart from those of calls.
const STATE: u128 = 0x6a09_e667_f3bc_c908_bb67_ae85_84ca_a73b;

/// The same, for states that a crashed operation has just left: less may follow them.
const IDLE: u128 = 0x3c6e_f372_fe94_f82b_a54f_f53a_5f1d_36f1;

/// A fixed pseudo-random number for each small one (two rounds of splitmix64).
fn number_of(small: u32) -> u128 {
    let half = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let seed = u64::from(small) * 2 + 1;
    u128::from(half(seed)) << 64 | u128::from(half(seed + 1))
}
