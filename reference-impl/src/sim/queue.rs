//! What is going to happen, in order: a flat heap of moments, and the events in one slab beside it.
//!
//! ```text
//! push(at 7, a)  push(at 3, b)  push(at 7, c)      pop → (3, b)  (7, a)  (7, c)
//! ```
//!
//! Events of one moment come out in the order in which they went in, so that a run is a pure function of its seed. An event is
//! moved twice, in and out, however often the heap is put in order. Deliberately no way to take one event back: whoever pushed
//! it knows, when it comes out, whether it still means anything. Only connections that end take what is on them along.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The queue.
pub(super) struct Queue<E> {
    /// Time, order, place of the event.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    pushed: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Queue { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), pushed: 0 }
    }

    pub(super) fn push(&mut self, at: u64, event: E) {
        self.pushed += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        self.heap.push(Reverse((at, self.pushed, place)));
    }

    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        loop {
            let Reverse((at, _, place)) = self.heap.pop()?;
            self.free.push(place);
            if let Some(event) = self.events[place as usize].take() {
                return Some((at, event));
            }
        }
    }

    /// Takes out whatever is `gone`. Looks at everything.
    pub(super) fn lose(&mut self, gone: impl Fn(&E) -> bool) {
        for event in &mut self.events {
            event.take_if(|event| gone(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_arrival() {
        let mut queue = Queue::new();
        for (at, name) in [(7, 'a'), (3, 'b'), (7, 'c'), (0, 'd')] {
            queue.push(at, name);
        }
        assert_eq!(queue.pop(), Some((0, 'd')));
        queue.push(7, 'e');
        let all: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(all, [(3, 'b'), (7, 'a'), (7, 'c'), (7, 'e')]);
        assert_eq!(queue.events.len(), 4, "places are used again");
        (1..=3).for_each(|at| queue.push(at, 'f'));
        queue.push(2, 'g');
        queue.lose(|event| *event == 'f');
        assert_eq!((queue.pop(), queue.pop()), (Some((2, 'g')), None));
        assert_eq!(queue.free.len(), 4);
    }
}
