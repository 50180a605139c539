//! Elements on their way through a collection whose elements are all different: what queues and stacks have in common.
//!
//! ```text
//! into    |---|                        put in
//! out              |----|              taken out
//! inside       ====                    for certain: strictly between the return of the one and the call of the other
//! ```
//!
//! **Unknown outcomes**: what was perhaps put in and never came out need not have been there; if it did come out, then putting
//! it in never returned. Whatever was taken by an operation of unknown outcome may have been any: then a fault that rests on
//! something staying inside is none.
//!
//! Intervals are closed. Deliberately says "not for me" to elements that go in twice, and to drains.

use rustc_hash::FxHashMap;

use super::{record::Records, register::Answer};
use crate::history::{
    datum::Datum,
    events::{F, Told},
    operations::End,
};

/// When something happened that never did.
pub(super) const NEVER: u64 = u64::MAX;
pub(super) const NONE: u32 = u32::MAX;

/// An element on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub(super) put: u32,
    pub(super) taken: u32,
    /// It came out twice.
    again: u32,
    pub(super) into: (u64, u64),
    pub(super) out: (u64, u64),
}

impl Element {
    const NEW: Element =
        Element { put: NONE, taken: NONE, again: NONE, into: (NEVER, NEVER), out: (NEVER, NEVER) };

    pub(super) fn evidence(&self) -> [u32; 2] {
        [self.put, self.taken]
    }
}

/// All that a key's operations say.
pub(super) struct Elements {
    /// Those that came out or certainly went in.
    pub(super) list: Vec<Element>,
    /// How many others perhaps went in, and nobody saw them.
    pub(super) unseen: usize,
    /// Call, return and id of those who found nothing.
    pub(super) empty: Vec<(u64, u64, u32)>,
    /// Whether somebody perhaps took something.
    pub(super) open_takers: bool,
}

impl Elements {
    /// Reads operations that put in and take out; `None` if there are others, or elements that were put in twice.
    pub(super) fn read(records: &Records<'_>, put: F, take: F) -> Option<Elements> {
        let mut all = Elements {
            list: Vec::with_capacity(records.len() / 2),
            unseen: 0,
            empty: Vec::new(),
            open_takers: false,
        };
        let mut places: FxHashMap<Datum, u32> = FxHashMap::default();
        places.reserve(records.len() / 2);
        let read = records.try_each(|record| {
            let id = record.id;
            let list = &mut all.list;
            let mut at = |value: Datum| {
                let next = list.len() as u32;
                let at = *places.entry(value).or_insert(next);
                if at == next {
                    list.push(Element::NEW);
                }
                at as usize
            };
            if record.f == put {
                if record.a == Datum::NIL {
                    return Err(());
                }
                let at = at(record.a);
                let element = &mut list[at];
                if element.put != NONE {
                    return Err(());
                }
                element.put = id;
                element.into = (record.call, record.ret);
                return Ok(());
            }
            match (record.f == take, record.end, record.told()) {
                (true, End::Info, _) => all.open_takers = true,
                (true, _, Told::Value(Datum::NIL)) => all.empty.push((record.call, record.ret, id)),
                (true, _, Told::Value(value)) => {
                    let at = at(value);
                    let element = &mut list[at];
                    if element.taken != NONE {
                        element.again = id;
                    } else {
                        element.taken = id;
                        element.out = (record.call, record.ret);
                    }
                }
                _ => return Err(()),
            }
            Ok(())
        });
        read.ok()?;
        let seen = all.list.len();
        all.list.retain(|element| element.taken != NONE || element.into.1 != NEVER);
        all.unseen = seen - all.list.len();
        Some(all)
    }

    /// The answer, given what is wrong.
    pub(super) fn answer(&self, fault: Option<Fault>) -> Answer {
        match fault {
            None => Answer::Valid(self.unseen),
            // They may have taken what should have been there.
            Some(Fault { by_absence: true, .. }) if self.open_takers => Answer::NotForMe,
            Some(Fault { mut evidence, .. }) => {
                evidence.retain(|id| *id != NONE);
                evidence.sort_unstable();
                evidence.dedup();
                Answer::Invalid(evidence)
            }
        }
    }
}

/// What cannot be, and whether it could if an element had come out that nobody saw come out.
pub(super) struct Fault {
    pub(super) evidence: Vec<u32>,
    pub(super) by_absence: bool,
}

/// An element that came out twice.
pub(super) fn twice(elements: &[Element]) -> Option<Fault> {
    let element = elements.iter().find(|element| element.again != NONE)?;
    Some(Fault { evidence: vec![element.put, element.taken, element.again], by_absence: false })
}

/// An element that came out before it went in, or never went in.
pub(super) fn from_nowhere(elements: &[Element]) -> Option<Fault> {
    // An end at the last moment that there is comes before what never happened, too.
    let early = |element: &&Element| element.put == NONE || element.out.1 < element.into.0;
    let early = elements.iter().find(early)?;
    Some(Fault { evidence: early.evidence().to_vec(), by_absence: false })
}

/// Somebody who found nothing, although something must have been there all the time.
pub(super) fn not_empty(elements: &mut [Element], empty: &[(u64, u64, u32)]) -> Option<Fault> {
    if empty.is_empty() {
        return None;
    }
    // Inside for certain: strictly between the return of the enqueue and the call of the dequeue.
    elements.sort_unstable_by_key(|element| (element.into.1, element.out.0));
    let mut spans: Vec<(u64, u64, usize, usize)> = Vec::new();
    for (at, element) in elements.iter().enumerate().filter(|(_, e)| e.into.1 < e.out.0) {
        match spans.last_mut() {
            // Only where one begins strictly before the other ends is there no moment without both.
            Some(span) if element.into.1 < span.1 => {
                span.1 = span.1.max(element.out.0);
                span.3 = at;
            }
            _ => spans.push((element.into.1, element.out.0, at, at)),
        }
    }
    for &(call, ret, id) in empty {
        let before = spans.partition_point(|span| span.0 < call);
        let Some(&(_, end, first, last)) = before.checked_sub(1).map(|at| &spans[at]) else { continue };
        if ret >= end {
            continue;
        }
        let mut evidence = vec![id];
        let mut by_absence = false;
        // Step by step: of those that were inside before the last one left, the one that stays longest.
        let (mut until, mut next) = (call, first);
        let mut longest: Option<Element> = None;
        while until <= ret {
            while next <= last && elements[next].into.1 < until {
                if longest.is_none_or(|longest| longest.out.0 < elements[next].out.0) {
                    longest = Some(elements[next]);
                }
                next += 1;
            }
            let Some(element) = longest.filter(|element| element.out.0 > until) else { break };
            evidence.extend(element.evidence());
            by_absence |= element.taken == NONE;
            until = element.out.0;
        }
        return Some(Fault { evidence, by_absence });
    }
    None
}
