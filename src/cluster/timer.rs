//! A timer that is exact to a fraction of a millisecond.
//!
//! tokio's timers round up to the next millisecond; over the four hops of a Basic Paxos commit that would be a fifth of
//! a 20 ms round trip. One thread sleeps on a condition variable instead, and wakes the tasks that are due.
//!
//! Not for timeouts, of which there are many and which need no precision: those use tokio's.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Condvar, LazyLock, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

struct Entry {
    at: Instant,
    wake: oneshot::Sender<()>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

#[derive(Default)]
struct Timer {
    heap: Mutex<BinaryHeap<Reverse<Entry>>>,
    sooner: Condvar,
}

static TIMER: LazyLock<&'static Timer> = LazyLock::new(|| {
    let timer: &'static Timer = Box::leak(Box::default());
    let spawned = std::thread::Builder::new().name("timer".to_owned()).spawn(|| timer.work());
    // Without this thread no delay would ever end: better to stop here than to hang.
    spawned.expect("the timer thread starts");
    timer
});

/// Returns at `at`, or at once if that has passed.
pub async fn sleep_until(at: Instant) {
    if at <= Instant::now() {
        return;
    }
    let (wake, woken) = oneshot::channel();
    {
        let mut heap = TIMER.heap.lock().unwrap_or_else(|e| e.into_inner());
        let first = heap.peek().is_none_or(|e| at < e.0.at);
        heap.push(Reverse(Entry { at, wake }));
        if first {
            TIMER.sooner.notify_one();
        }
    }
    // The sender is never dropped unsent: the thread lives as long as the process.
    let _ = woken.await;
}

impl Timer {
    fn work(&self) {
        let mut heap = self.heap.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            let now = Instant::now();
            while heap.peek().is_some_and(|e| e.0.at <= now || e.0.wake.is_closed()) {
                if let Some(Reverse(entry)) = heap.pop() {
                    let _ = entry.wake.send(());
                }
            }
            let wait =
                heap.peek().map_or(Duration::from_secs(3600), |e| e.0.at.saturating_duration_since(now));
            heap = match self.sooner.wait_timeout(heap, wait) {
                Ok((heap, _)) => heap,
                Err(e) => e.into_inner().0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_in_order_and_never_early() {
        // In the future, so that all of them have gone to sleep before the first is woken.
        let start = Instant::now() + Duration::from_millis(500);
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        for ms in [12u64, 3, 7] {
            let tx = tx.clone();
            tokio::spawn(async move {
                sleep_until(start + Duration::from_millis(ms)).await;
                assert!(Instant::now() >= start + Duration::from_millis(ms));
                let _ = tx.send(ms);
            });
        }
        drop(tx);
        let mut woken = vec![];
        while let Some(ms) = rx.recv().await {
            woken.push(ms);
        }
        assert_eq!(woken, [3, 7, 12]);
    }
}
