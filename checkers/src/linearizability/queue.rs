//! Queues whose elements are all different, in the time that sorting takes.
//!
//! ```text
//! enq 1 |--|   enq 2 |--|        1 went in first:
//! deq -> 2        |--|   deq -> 1 |--|     so it cannot come out last
//! ```
//!
//! From Henzinger, Sezgin and Vafeiadis, *Aspect-oriented linearizability proofs*, CONCUR 2013, theorem 1: a history of a FIFO queue
//! in which every element goes in once is linearizable if and only if it has none of four faults. An element comes out that
//! did not go in before; one comes out twice; two come out in another order than they went in (the second comes out and the
//! first does not, or later); a dequeue finds the queue empty although at every moment of it some element must have been
//! inside. Without the third it is the theorem for bags, the unordered queues.
//!
//! **Unknown outcomes**: an enqueue whose element never came out need not have happened; one whose element did come out
//! never returned. Dequeues of unknown outcome may have taken anything: with them, this judge only acquits.
//!
//! The operations on some elements only are a history of a queue again, and a dequeue that found nothing finds nothing in
//! it, either. So the elements of one fault are evidence against the whole.
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
const NEVER: u64 = u64::MAX;
const NONE: u32 = u32::MAX;

/// An element on its way.
#[derive(Clone, Copy, Debug)]
struct Element {
    enqueue: u32,
    dequeue: u32,
    /// It came out twice.
    again: u32,
    into: (u64, u64),
    out: (u64, u64),
}

impl Element {
    const NEW: Element =
        Element { enqueue: NONE, dequeue: NONE, again: NONE, into: (NEVER, NEVER), out: (NEVER, NEVER) };

    fn evidence(&self) -> [u32; 2] {
        [self.enqueue, self.dequeue]
    }
}

/// Decides a queue that is empty at first, with these judged operations.
pub(super) fn decide(fifo: bool, records: &Records<'_>) -> Answer {
    let mut elements: Vec<Element> = Vec::with_capacity(records.len() / 2);
    let mut places: FxHashMap<Datum, u32> = FxHashMap::default();
    places.reserve(records.len() / 2);
    let mut empty: Vec<(u64, u64, u32)> = Vec::new();
    let mut open_dequeues = false;
    let read = records.try_each(|record| {
        let id = record.id;
        let mut at = |value: Datum| {
            let next = elements.len() as u32;
            let at = *places.entry(value).or_insert(next);
            if at == next {
                elements.push(Element::NEW);
            }
            at as usize
        };
        match (record.f, record.end, record.told()) {
            (F::Enqueue, ..) if record.a == Datum::NIL => return Err(()),
            (F::Enqueue, ..) => {
                let at = at(record.a);
                let element = &mut elements[at];
                if element.enqueue != NONE {
                    return Err(());
                }
                element.enqueue = id;
                element.into = (record.call, record.ret);
            }
            (F::Dequeue, End::Info, _) => open_dequeues = true,
            (F::Dequeue, _, Told::Value(Datum::NIL)) => empty.push((record.call, record.ret, id)),
            (F::Dequeue, _, Told::Value(value)) => {
                let at = at(value);
                let element = &mut elements[at];
                if element.dequeue != NONE {
                    element.again = id;
                } else {
                    element.dequeue = id;
                    element.out = (record.call, record.ret);
                }
            }
            _ => return Err(()),
        }
        Ok(())
    });
    if read.is_err() {
        return Answer::NotForMe;
    }
    let all = elements.len();
    // What never came out and perhaps never went in says nothing.
    elements.retain(|element| element.dequeue != NONE || element.into.1 != NEVER);
    let fault = twice(&elements)
        .or_else(|| from_nowhere(&elements))
        .or_else(|| if fifo { out_of_order(&mut elements) } else { None })
        .or_else(|| not_empty(&mut elements, &empty));
    match fault {
        None => Answer::Valid(all - elements.len()),
        // They may have taken what should have been there.
        Some(Fault { by_absence: true, .. }) if open_dequeues => Answer::NotForMe,
        Some(fault) => guilty(fault.evidence),
    }
}

/// What cannot be, and whether it could if an element had come out that nobody saw come out.
struct Fault {
    evidence: Vec<u32>,
    by_absence: bool,
}

fn guilty(mut evidence: Vec<u32>) -> Answer {
    evidence.retain(|id| *id != NONE);
    evidence.sort_unstable();
    evidence.dedup();
    Answer::Invalid(evidence)
}

fn twice(elements: &[Element]) -> Option<Fault> {
    let element = elements.iter().find(|element| element.again != NONE)?;
    Some(Fault { evidence: vec![element.enqueue, element.dequeue, element.again], by_absence: false })
}

fn from_nowhere(elements: &[Element]) -> Option<Fault> {
    let early = elements.iter().find(|element| element.out.1 < element.into.0)?;
    Some(Fault { evidence: early.evidence().to_vec(), by_absence: false })
}

/// Two elements of which the first came out later than the second, or not at all.
fn out_of_order(elements: &mut [Element]) -> Option<Fault> {
    let mut by_return: Vec<u32> = (0..elements.len() as u32).collect();
    by_return.sort_unstable_by_key(|at| elements[*at as usize].into.1);
    let mut by_call: Vec<u32> =
        (0..elements.len() as u32).filter(|at| elements[*at as usize].dequeue != NONE).collect();
    by_call.sort_unstable_by_key(|at| elements[*at as usize].into.0);
    let mut before = by_return.iter().peekable();
    // Of what was inside before, what came out last.
    let mut last: Option<Element> = None;
    for at in by_call {
        let second = elements[at as usize];
        while let Some(&&first) = before.peek()
            && elements[first as usize].into.1 < second.into.0
        {
            let first = elements[first as usize];
            if last.is_none_or(|last| last.out.0 < first.out.0) {
                last = Some(first);
            }
            before.next();
        }
        if let Some(first) = last
            && second.out.1 < first.out.0
        {
            let evidence = [first.evidence(), second.evidence()].concat();
            return Some(Fault { evidence, by_absence: first.dequeue == NONE });
        }
    }
    None
}

/// A dequeue that found nothing, although something must have been there all the time.
fn not_empty(elements: &mut [Element], empty: &[(u64, u64, u32)]) -> Option<Fault> {
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
            by_absence |= element.dequeue == NONE;
            until = element.out.0;
        }
        return Some(Fault { evidence, by_absence });
    }
    None
}
