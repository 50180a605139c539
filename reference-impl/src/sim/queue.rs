//! What is going to happen, in order: one flat heap that holds events by value.
//!
//! ```text
//! push(at 7, a)  push(at 3, b)  push(at 7, c)      pop → (3, b)  (7, a)  (7, c)
//! ```
//!
//! Events of one moment come out in the order in which they went in, so that a run is a pure function of its seed. Deliberately
//! no way to take an event back: whoever pushed it knows, when it comes out, whether it still means anything.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The queue.
pub(super) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    pushed: u64,
}

struct Entry<E> {
    at: u64,
    order: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Queue { heap: BinaryHeap::with_capacity(256), pushed: 0 }
    }

    pub(super) fn push(&mut self, at: u64, event: E) {
        self.pushed += 1;
        self.heap.push(Entry { at, order: self.pushed, event });
    }

    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_arrival() {
        let mut queue = Queue::new();
        for (at, name) in [(7, 'a'), (3, 'b'), (7, 'c'), (0, 'd'), (7, 'e')] {
            queue.push(at, name);
        }
        let all: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(all, [(0, 'd'), (3, 'b'), (7, 'a'), (7, 'c'), (7, 'e')]);
    }
}
