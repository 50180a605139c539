//! Numbers for what is open, as the kernel names it by number. Nothing is known here of what it is.

use fuser::FileHandle;
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Open files or open folders, by the handle the kernel holds.
pub(super) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Handles<T> {
    /// None yet.
    pub(super) fn new() -> Handles<T> {
        Handles { next: AtomicU64::new(1), open: RwLock::default() }
    }

    /// The kernel will name it by this.
    pub(super) fn add(&self, opened: T) -> FileHandle {
        let handle = self.next.fetch_add(1, Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(opened));
        FileHandle(handle)
    }

    /// What the kernel names.
    pub(super) fn get(&self, handle: FileHandle) -> io::Result<Arc<T>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        Ok(open.get(&handle.0).ok_or(rustix::io::Errno::BADF)?.clone())
    }

    /// The kernel is done with it.
    pub(super) fn close(&self, handle: FileHandle) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
    }
}
