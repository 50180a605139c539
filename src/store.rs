//! The folder of one run.
//!
//! ```text
//! store/<test>/<time>/   test.yaml  history.jsonl  results.json  report.html  junit.xml  tribunal.log
//!                        latency-<path>.hgrm   nodes/<name>.log   data/<name>/
//! store/latest           the newest run, whatever its test
//! ```
//! What is written at once is written to a temporary file and renamed, so that no reader sees half of it.

use anyhow::{Context, Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder of one run, which exists.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Makes the folder for a run of `test` that starts at `time` (as it shall stand in the path), and points `latest`
    /// at it. Two runs that start in the same moment get folders of their own.
    pub fn create(base: &Path, test: &str, time: &str) -> Result<Store> {
        let parent = base.join(test);
        let hint = "give a folder that can be written with --store";
        fs::create_dir_all(&parent)
            .with_context(|| format!("cannot make the folder {}: {hint}", parent.display()))?;
        let mut n = 1;
        let folder = loop {
            let name = if n == 1 { time.to_owned() } else { format!("{time}-{n}") };
            let folder = parent.join(name);
            match fs::create_dir(&folder) {
                Ok(()) => break folder,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => n += 1,
                Err(e) => {
                    return Err(e)
                        .with_context(|| format!("cannot make the folder {}: {hint}", folder.display()));
                }
            }
        };
        fs::create_dir(folder.join("nodes"))
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        let store = Store { folder: folder.canonicalize()? };
        store.point_latest(base);
        Ok(store)
    }

    /// `latest` is a convenience: that it cannot be made (another run is making it too) ends no run.
    fn point_latest(&self, base: &Path) {
        let temporary = base.join(format!(".latest-{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let target =
            self.folder.strip_prefix(base.canonicalize().unwrap_or_default()).unwrap_or(&self.folder);
        if std::os::unix::fs::symlink(target, &temporary).is_ok() {
            let _ = fs::rename(&temporary, base.join("latest"));
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A node's log.
    pub fn node_log(&self, node: &str) -> PathBuf {
        self.folder.join("nodes").join(format!("{node}.log"))
    }

    /// A node's data folder.
    pub fn data(&self, node: &str) -> PathBuf {
        self.folder.join("data").join(node)
    }

    /// Writes a file whole or not at all.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.file(name);
        let temporary = self.file(&format!(".{name}.part"));
        let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_the_same_moment_do_not_share_a_folder_and_latest_is_the_newer() {
        let base = tempfile::tempdir().unwrap();
        let one = Store::create(base.path(), "register", "20260101T000000").unwrap();
        let two = Store::create(base.path(), "register", "20260101T000000").unwrap();
        assert_ne!(one.folder(), two.folder());
        two.write("results.json", "{}").unwrap();
        assert_eq!(fs::read_to_string(base.path().join("latest/results.json")).unwrap(), "{}");
    }

    #[test]
    fn a_store_that_cannot_be_made_is_named() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        let error = format!("{:#}", Store::create(&file, "register", "t").unwrap_err());
        assert!(error.contains("file/register") && error.contains("--store"), "{error}");
    }
}
