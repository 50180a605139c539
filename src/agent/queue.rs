//! The packet queue that an agent has opened, if it was told to: it stands in for `sch_netem` where the kernel has none.

use nemesis::LinkShape;
use serde_json::Value;
use std::net::Ipv4Addr;

#[cfg(target_os = "linux")]
mod opened {
    use super::{Ipv4Addr, LinkShape, Value};
    use crate::agent::packets::{PacketQueue, Treatment};
    use std::sync::Mutex;

    /// A queue, or none yet.
    #[derive(Default)]
    pub(in crate::agent) struct Queue(Mutex<Option<PacketQueue>>);

    impl Queue {
        pub(in crate::agent) fn open(&self, number: u16, seed: u64) -> Result<(), String> {
            let queue = PacketQueue::open(number, seed).map_err(|e| {
                format!("cannot open the packet queue {number}: {e} (is the kernel's NFQUEUE there?)")
            })?;
            *self.lock() = Some(queue);
            Ok(())
        }

        pub(in crate::agent) fn treat(&self, source: Ipv4Addr, shape: &LinkShape) -> Result<(), String> {
            let treatment = Treatment {
                delay_us: shape.delay.ns() / 1000,
                jitter_us: shape.jitter.ns() / 1000,
                reorder: shape.reorder,
                duplicate: shape.duplicate,
                corrupt: shape.corrupt,
            };
            let queue = self.lock();
            let queue = queue.as_ref().ok_or("no packet queue was opened")?;
            queue.check().map_err(|e| format!("the packet queue has failed: {e}"))?;
            queue.treat(source, treatment);
            Ok(())
        }

        pub(in crate::agent) fn treated(&self, source: Ipv4Addr) -> Result<Value, String> {
            let queue = self.lock();
            let treated = queue.as_ref().ok_or("no packet queue was opened")?.treated(source);
            serde_json::to_value(treated).map_err(|e| e.to_string())
        }

        pub(in crate::agent) fn close(&self) {
            self.lock().take();
        }

        fn lock(&self) -> std::sync::MutexGuard<'_, Option<PacketQueue>> {
            self.0.lock().unwrap_or_else(|e| e.into_inner())
        }
    }
}

#[cfg(target_os = "linux")]
pub(super) use opened::Queue;

/// Elsewhere there is none.
#[cfg(not(target_os = "linux"))]
#[derive(Default)]
pub(super) struct Queue;

#[cfg(not(target_os = "linux"))]
impl Queue {
    const WHY: &str = "packet queues are Linux's";
    pub(super) fn open(&self, _number: u16, _seed: u64) -> Result<(), String> {
        Err(Self::WHY.to_owned())
    }
    pub(super) fn treat(&self, _source: Ipv4Addr, _shape: &LinkShape) -> Result<(), String> {
        Err(Self::WHY.to_owned())
    }
    pub(super) fn treated(&self, _source: Ipv4Addr) -> Result<Value, String> {
        Err(Self::WHY.to_owned())
    }
    pub(super) fn close(&self) {}
}
