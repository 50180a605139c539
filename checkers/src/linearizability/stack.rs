//! Stacks whose elements are all different, in the time that sorting takes.
//!
//! ```text
//! push 1 |--|                     pop 1 |--|       1 is inside all the time, and so is whatever lies below it
//!    push 2 |--|          pop 2 |--|               went in after the first and came out before the last: 1 may be the bottom
//!           ===============
//! ```
//!
//! What is known: an element is inside for certain from the return of its push to the call of its pop.
//!
//! * An element for which that is no time at all can be pushed and popped in one instant, wherever that is. It may be forgotten.
//! * At a moment at which nothing is inside for certain, the stack can be empty. What is before and what is after are
//!   histories by themselves: no operation on an element of the later part returned before one on an element of
//!   the earlier part was called. Whoever found nothing needs such a moment.
//! * Without such a moment some element is at the bottom from beginning to end. Its push can be the first operation, if no
//!   other has returned before it was called, and its pop the last, if no other is called after it returned. Of the elements
//!   that pass this test any will do: with it taken away the rest must be a history of a stack, and if it is, so is the whole.
//!
//! The decomposition is that of Abdulla et al., *Efficient linearizability monitoring*, PLDI 2025, section 5 (there in quadratic
//! time); the bound is that of Lee and Mathur, *Efficient decentralised linearizability monitoring*, OOPSLA 2025. Here a tree
//! of counts finds the moments without anything inside, and two more the elements that pass the test.
//!
//! Deliberately as narrow as the queues' judge; see [`elements`](super::elements).

use super::{
    elements::{Element, Elements, Fault, NONE, from_nowhere, not_empty, twice},
    record::Records,
    register::Answer,
    trees::{Cover, Maxima},
};
use crate::history::events::F;

/// Decides a stack that is empty at first, with these judged operations.
pub(super) fn decide(records: &Records<'_>) -> Answer {
    let Some(mut all) = Elements::read(records, F::Push, F::Pop) else { return Answer::NotForMe };
    let fault = twice(&all.list)
        .or_else(|| from_nowhere(&all.list))
        .or_else(|| not_empty(&mut all.list, &all.empty))
        .or_else(|| {
            let mut inside: Vec<Element> =
                all.list.iter().copied().filter(|element| element.into.1 < element.out.0).collect();
            inside.sort_unstable_by_key(|element| element.into.1);
            Nested::new(&inside).fault()
        });
    all.answer(fault)
}

/// Elements that are inside for some time, by the return of their push.
struct Nested<'a> {
    elements: &'a [Element],
    /// The next that is not taken away, with shortcuts.
    next: Vec<u32>,
    /// Of those at whose call nothing had returned, as far as is known: the return of the pop.
    candidates: Maxima,
    /// Of the others: the call of the push, inverted, so that the earliest is the greatest.
    waiting: Maxima,
    /// The call of the pop.
    ends: Maxima,
    /// How many elements are inside at each moment and between moments.
    cover: Cover,
    /// The moments at which an element begins or ceases to be inside.
    moments: Vec<u64>,
    /// Of each element, the places of both among the moments.
    places: Vec<(u32, u32)>,
}

impl<'a> Nested<'a> {
    fn new(elements: &'a [Element]) -> Self {
        let mut moments: Vec<u64> = elements.iter().flat_map(|e| [e.into.1, e.out.0]).collect();
        moments.sort_unstable();
        moments.dedup();
        let place = |time: u64| moments.partition_point(|moment| *moment < time) as u32;
        let places: Vec<(u32, u32)> = elements.iter().map(|e| (place(e.into.1), place(e.out.0))).collect();
        // Moments have even places, and what is between two moments the odd one.
        let mut change = vec![0i32; 2 * moments.len() + 1];
        for (from, to) in &places {
            change[2 * *from as usize + 1] += 1;
            change[2 * *to as usize] -= 1;
        }
        let mut inside = 0;
        let counts = change.into_iter().map(|change| {
            inside += change;
            inside as u32
        });
        Nested {
            elements,
            next: (0..=elements.len() as u32).collect(),
            candidates: Maxima::new(elements.iter().map(|_| 0)),
            waiting: Maxima::new(elements.iter().map(|e| !e.into.0)),
            ends: Maxima::new(elements.iter().map(|e| e.out.0)),
            cover: Cover::new(counts),
            moments,
            places,
        }
    }

    /// What cannot be, if something cannot.
    fn fault(mut self) -> Option<Fault> {
        let mut parts = Vec::new();
        self.split(0, self.elements.len(), &mut parts);
        while let Some((from, to)) = parts.pop() {
            let first = self.first(from);
            let (begin, end) = (self.elements[first].into.1, self.ends.max(from, to));
            while let Some(at) = self.waiting.find(from, to, !begin) {
                self.waiting.set(at, 0);
                self.candidates.set(at, self.elements[at].out.1);
            }
            let Some(bottom) = self.candidates.find(from, to, end) else {
                return Some(self.evidence(from, to, begin, end));
            };
            self.candidates.set(bottom, 0);
            self.ends.set(bottom, 0);
            self.next[bottom] = bottom as u32 + 1;
            let (entered, left) = self.places[bottom];
            self.cover.take_one(2 * entered as usize + 1, 2 * left as usize);
            self.split(from, to, &mut parts);
        }
        None
    }

    /// The first from here on that is not taken away.
    fn first(&mut self, from: usize) -> usize {
        let mut at = from;
        while self.next[at] != at as u32 {
            let after = self.next[at] as usize;
            self.next[at] = self.next[after];
            at = after;
        }
        at
    }

    /// Cuts the elements of a range wherever nothing is inside for certain.
    fn split(&mut self, mut from: usize, to: usize, parts: &mut Vec<(usize, usize)>) {
        loop {
            from = self.first(from);
            if from >= to {
                return;
            }
            let end = self.ends.max(from, to);
            let end = self.moments.partition_point(|moment| *moment < end);
            let begin = self.places[from].0 as usize;
            let Some(empty) = self.cover.first_zero(2 * begin + 1, 2 * end) else {
                parts.push((from, to));
                return;
            };
            let cut =
                self.places[from..to].partition_point(|(entered, _)| 2 * (*entered as usize) < empty) + from;
            parts.push((from, cut));
            from = cut;
        }
    }

    /// Elements that are enough: as few as cover the time from `begin` to `end`. None of them can be the bottom, since they
    /// include the first to be there and the last.
    fn evidence(&mut self, from: usize, to: usize, begin: u64, end: u64) -> Fault {
        let mut fault = Fault { evidence: Vec::new(), by_absence: false };
        let mut at = self.first(from);
        let mut until = begin;
        let mut longest: Option<Element> = None;
        // The first of all stays: it is its return that the others come after.
        let mut next = Some(self.elements[at]);
        while let Some(element) = next {
            fault.evidence.extend(element.evidence());
            fault.by_absence |= element.taken == NONE;
            until = until.max(element.out.0);
            if until == end {
                break;
            }
            while at < to && self.elements[at].into.1 < until {
                if longest.is_none_or(|longest| longest.out.0 < self.elements[at].out.0) {
                    longest = Some(self.elements[at]);
                }
                at = self.first(at + 1);
            }
            next = longest.filter(|longest| longest.out.0 > until);
        }
        fault
    }
}
