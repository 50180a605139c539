//! The search for an order: what each process has done, what each key holds, and what may come next.
//!
//! ```text
//! [p1: 3 done   p2: 1 done   x = 5   y = nil]   reads that fit are taken at once; then a write, one after the other is tried
//! ```
//!
//! Depth first, with its own stack. A read that fits can be taken at once: in any order that works it may be moved to the front.
//! A value that only one act leaves must not be overwritten before all who find it have: it does not come back. Where there was
//! a choice, what was tried in vain is remembered.

use rustc_hash::FxHashSet;

use super::{
    Answer,
    acts::{Act, Acts, INITIAL, NONE},
    saturate::Order,
};
use crate::Budget;

struct Search<'a> {
    acts: &'a Acts,
    order: &'a Order,
    /// Of each process how many are done.
    done: Vec<u32>,
    /// What each key holds, and which act left it.
    holds: Vec<(u32, u32)>,
    /// How many have yet to find what an act left; of initial values by key.
    readers: Vec<u32>,
    readers_of_initial: Vec<u32>,
    missing: usize,
    /// What was done, to be undone: the process, and what the key held.
    trail: Vec<(u32, (u32, u32))>,
}

/// A choice: how long the trail was, and the processes that are still to be tried.
struct Choice {
    trail: usize,
    rest: Vec<u32>,
}

pub(super) fn search(acts: &Acts, order: &Order, max_steps: u64, budget: &Budget, steps: &mut u64) -> Answer {
    let mut search = Search {
        acts,
        order,
        done: vec![0; acts.processes()],
        holds: vec![(INITIAL, NONE); acts.keys as usize],
        readers: vec![0; acts.all.len()],
        readers_of_initial: vec![0; acts.keys as usize],
        missing: acts.all.iter().filter(|act| act.required).count(),
        trail: Vec::new(),
    };
    for act in acts.all.iter().filter(|act| act.required) {
        match acts.source(act) {
            Some(NONE) => search.readers_of_initial[act.key as usize] += 1,
            Some(source) => search.readers[source as usize] += 1,
            None => {}
        }
    }
    let mut choices: Vec<Choice> = Vec::new();
    let mut tried: FxHashSet<Box<[u32]>> = FxHashSet::default();
    let mut bytes = 0;
    loop {
        *steps += 1 + search.take_reads();
        if search.missing == 0 {
            return Answer::Valid;
        }
        if *steps > max_steps || budget.is_cancelled() {
            return Answer::Unknown(format!("no order was found in {steps} steps, and not all were tried"));
        }
        let mut next = search.writes();
        if next.len() > 1 {
            let key = search.key();
            bytes += 4 * key.len() as u64 + 32;
            if bytes > budget.bytes() {
                return Answer::Unknown("the search needs more memory than it may take".into());
            }
            if !tried.insert(key) {
                next.clear();
            }
        }
        loop {
            if let Some(process) = next.pop() {
                if !next.is_empty() {
                    choices.push(Choice { trail: search.trail.len(), rest: next });
                }
                search.take(process);
                break;
            }
            let Some(choice) = choices.pop() else {
                return Answer::Invalid((0..acts.all.len() as u32).collect(), None);
            };
            search.undo(choice.trail);
            next = choice.rest;
        }
    }
}

impl Search<'_> {
    fn next(&self, process: usize) -> Option<(u32, &Act)> {
        let at = self.acts.first[process] + self.done[process];
        (at < self.acts.first[process + 1]).then(|| (at, &self.acts.all[at as usize]))
    }

    fn is_free(&self, at: u32, act: &Act) -> bool {
        let held = self.holds[act.key as usize].0;
        let fits = (act.finds == NONE || act.finds == held) && act.avoids != held;
        fits && self.order.before[at as usize].iter().all(|edge| {
            let other = &self.acts.all[edge.from as usize];
            self.done[other.process as usize] > other.place
        })
    }

    /// Takes all that change nothing; how many.
    fn take_reads(&mut self) -> u64 {
        let (mut taken, mut again) = (0, true);
        while again {
            again = false;
            for process in 0..self.done.len() {
                while let Some((at, act)) = self.next(process) {
                    if act.leaves != NONE || !self.is_free(at, act) {
                        break;
                    }
                    self.take(process as u32);
                    taken += 1;
                    again = true;
                }
            }
        }
        taken
    }

    /// The processes that may write next, the best guess last.
    fn writes(&self) -> Vec<u32> {
        let mut all: Vec<(u32, u32)> = Vec::new();
        for process in 0..self.done.len() {
            let Some((at, act)) = self.next(process) else { continue };
            if act.leaves == NONE || !self.is_free(at, act) || self.is_awaited(act) {
                continue;
            }
            all.push((act.operation, process as u32));
        }
        // What was called first is the likely one: most histories are nearly linearizable.
        all.sort_unstable_by_key(|(operation, _)| std::cmp::Reverse(*operation));
        all.into_iter().map(|(_, process)| process).collect()
    }

    /// Whether somebody else has yet to find what the key holds, and it does not come back.
    fn is_awaited(&self, act: &Act) -> bool {
        let (held, by) = self.holds[act.key as usize];
        let writer = self.acts.writers.get(&(act.key, held));
        let readers = match (by, writer) {
            (NONE, None) => self.readers_of_initial[act.key as usize],
            (by, Some(writer)) if by == *writer && held != INITIAL => self.readers[by as usize],
            _ => return false,
        };
        readers > u32::from(act.required && act.finds == held)
    }

    fn count(&mut self, act: &Act, found: bool) {
        if !act.required {
            return;
        }
        let readers = match self.acts.source(act) {
            Some(NONE) => &mut self.readers_of_initial[act.key as usize],
            Some(source) => &mut self.readers[source as usize],
            None => return,
        };
        *readers = if found { *readers - 1 } else { *readers + 1 };
    }

    fn take(&mut self, process: u32) {
        let Some((at, act)) = self.next(process as usize) else { return };
        let act = *act;
        self.trail.push((process, self.holds[act.key as usize]));
        self.done[process as usize] += 1;
        self.missing -= usize::from(act.required);
        self.count(&act, true);
        if act.leaves != NONE {
            self.holds[act.key as usize] = (act.leaves, at);
        }
    }

    fn undo(&mut self, to: usize) {
        while self.trail.len() > to {
            let Some((process, held)) = self.trail.pop() else { return };
            self.done[process as usize] -= 1;
            let Some((_, act)) = self.next(process as usize) else { return };
            let act = *act;
            self.holds[act.key as usize] = held;
            self.missing += usize::from(act.required);
            self.count(&act, false);
        }
    }

    /// Everything that the future depends on.
    fn key(&self) -> Box<[u32]> {
        self.done.iter().copied().chain(self.holds.iter().map(|(held, _)| *held)).collect()
    }
}
