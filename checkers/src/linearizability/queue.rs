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
//! The operations on some elements only are a history of a queue again, and a dequeue that found nothing finds nothing in
//! it, either. So the elements of one fault are evidence against the whole.
//!
//! See [`elements`](super::elements) for unknown outcomes, and for what this judge does not know.

use super::{
    elements::{Element, Elements, Fault, NONE, from_nowhere, not_empty, twice},
    record::Records,
    register::Answer,
};
use crate::history::events::F;

/// Decides a queue that is empty at first, with these judged operations.
pub(super) fn decide(fifo: bool, records: &Records<'_>) -> Answer {
    let Some(mut all) = Elements::read(records, F::Enqueue, F::Dequeue) else { return Answer::NotForMe };
    let fault = twice(&all.list)
        .or_else(|| from_nowhere(&all.list))
        .or_else(|| if fifo { out_of_order(&all.list) } else { None })
        .or_else(|| not_empty(&mut all.list, &all.empty));
    all.answer(fault)
}

/// Two elements of which the first came out later than the second, or not at all.
fn out_of_order(elements: &[Element]) -> Option<Fault> {
    let mut by_return: Vec<u32> = (0..elements.len() as u32).collect();
    by_return.sort_unstable_by_key(|at| elements[*at as usize].into.1);
    let mut by_call: Vec<u32> =
        (0..elements.len() as u32).filter(|at| elements[*at as usize].taken != NONE).collect();
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
            return Some(Fault { evidence, by_absence: first.taken == NONE });
        }
    }
    None
}
