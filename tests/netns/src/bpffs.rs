//! A BPF filesystem of one's own.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// A BPF filesystem mounted in a temporary directory; unmounted when dropped.
#[derive(Debug)]
pub struct Bpffs {
    directory: tempfile::TempDir,
}

impl Bpffs {
    /// Mounts one.
    ///
    /// # Errors
    /// The kernel's answer; it takes root.
    pub fn mount() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pointsman-bpffs-").tempdir()?;
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("bpf", directory.path(), "bpf", flags, None)
            .with_context(|| format!("mount a BPF filesystem at {}", directory.path().display()))?;
        Ok(Self { directory })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Every pin and directory below `path`, relative to it, sorted.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut open = vec![self.path().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                // The kernel's own iterators (maps.debug, progs.debug) carry the dots it reserves.
                if entry.file_name().to_string_lossy().contains('.') {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                }
                found.push(entry.path().strip_prefix(self.path())?.to_owned());
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let lazily = rustix::mount::UnmountFlags::DETACH;
        if let Err(e) = rustix::mount::unmount(self.path(), lazily) {
            eprintln!("unmount {}: {e}", self.path().display());
        }
    }
}
