//! The disks that an agent has mounted, by their mount points.

use serde_json::Value;
#[cfg(not(target_os = "linux"))]
use std::path::Path;

#[cfg(target_os = "linux")]
mod mounted {
    use crate::agent::disk::{Disk, Troubles};
    use std::{
        collections::BTreeMap,
        path::{Path, PathBuf},
        sync::{Arc, Mutex},
    };

    /// Mounted disks.
    #[derive(Default)]
    pub(in crate::agent) struct Disks(Mutex<BTreeMap<PathBuf, Arc<Disk>>>);

    impl Disks {
        pub(in crate::agent) fn mount(&self, run: &str, folder: &Path, at: &Path) -> Result<(), String> {
            let failed = |e: std::io::Error| {
                format!("cannot mount {} at {}: {e}; see `tribunal doctor`", folder.display(), at.display())
            };
            let disk = Disk::mount(folder, at, &format!("tribunal:{run}")).map_err(failed)?;
            self.lock().insert(at.to_owned(), Arc::new(disk));
            Ok(())
        }

        pub(in crate::agent) fn unmount(&self, at: &Path) -> Result<(), String> {
            // Whoever still asks about it holds it a moment longer.
            drop(self.lock().remove(at));
            Ok(())
        }

        pub(in crate::agent) fn unmount_all(&self) {
            self.lock().clear();
        }

        fn at(&self, at: &Path) -> Result<Arc<Disk>, String> {
            self.lock().get(at).cloned().ok_or_else(|| format!("nothing is mounted at {}", at.display()))
        }

        pub(in crate::agent) fn trouble(
            &self,
            at: &Path,
            sync_delay_ms: u64,
            fail: bool,
            full_after_bytes: Option<u64>,
        ) -> Result<(), String> {
            let troubles = Troubles {
                sync_delay_ms,
                fail_reads: false,
                fail_writes: fail,
                fail_syncs: fail,
                full_after_bytes,
            };
            self.at(at)?.set(troubles);
            Ok(())
        }

        pub(in crate::agent) fn cut_power(&self, at: &Path) -> Result<(), String> {
            self.at(at)?.cut_power();
            Ok(())
        }

        pub(in crate::agent) fn stats(&self, at: &Path) -> Result<super::Value, String> {
            serde_json::to_value(self.at(at)?.stats()).map_err(|e| e.to_string())
        }

        pub(in crate::agent) fn power_failure(
            &self,
            at: &Path,
            torn: Option<u64>,
        ) -> Result<super::Value, String> {
            let loss = self
                .at(at)?
                .power_failure(torn)
                .map_err(|e| format!("power failure at {}: {e}", at.display()))?;
            serde_json::to_value(loss).map_err(|e| e.to_string())
        }

        fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Arc<Disk>>> {
            self.0.lock().unwrap_or_else(|e| e.into_inner())
        }
    }
}

#[cfg(target_os = "linux")]
pub(super) use mounted::Disks;

/// Elsewhere there are none.
#[cfg(not(target_os = "linux"))]
#[derive(Default)]
pub(super) struct Disks;

#[cfg(not(target_os = "linux"))]
impl Disks {
    const WHY: &str = "disks that can fail need FUSE, on Linux";
    pub(super) fn mount(&self, _run: &str, _folder: &Path, _at: &Path) -> Result<(), String> {
        Err(Self::WHY.to_owned())
    }
    pub(super) fn unmount(&self, _at: &Path) -> Result<(), String> {
        Ok(())
    }
    pub(super) fn unmount_all(&self) {}
    pub(super) fn trouble(&self, _: &Path, _: u64, _: bool, _: Option<u64>) -> Result<(), String> {
        Err(Self::WHY.to_owned())
    }
    pub(super) fn cut_power(&self, _at: &Path) -> Result<(), String> {
        Err(Self::WHY.to_owned())
    }
    pub(super) fn stats(&self, _at: &Path) -> Result<Value, String> {
        Err(Self::WHY.to_owned())
    }
    pub(super) fn power_failure(&self, _at: &Path, _torn: Option<u64>) -> Result<Value, String> {
        Err(Self::WHY.to_owned())
    }
}
