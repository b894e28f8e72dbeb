//! A directory of our own, and places for daemons in it.

use super::Namespace;
use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where a daemon lives: its network namespace, and the directory of its files, in which a BPF file
/// system is mounted at `bpffs`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) directory: &'a Path,
}

impl Site<'_> {
    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// A directory of our own, with BPF file systems in it. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Scratch {
    /// Makes it. `mode`: who may pass through.
    pub(crate) fn new(directory: &Path, mode: u32) -> Result<Self> {
        let told = || format!("cannot create {}", directory.display());
        DirBuilder::new().mode(mode).create(directory).with_context(told)?;
        Ok(Self { directory: directory.to_owned(), mounted: Vec::new() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Mounts a BPF file system at `bpffs` in a directory that is in this one, or is it.
    pub(crate) fn mount_bpffs(&mut self, directory: &Path) -> Result<()> {
        let bpffs = directory.join("bpffs");
        fs::create_dir(&bpffs).with_context(|| format!("cannot create {}", bpffs.display()))?;
        mount("bpf", &bpffs, "bpf", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount a BPF file system at {}", bpffs.display()))?;
        self.mounted.push(bpffs);
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for bpffs in &self.mounted {
            if let Err(error) = unmount(bpffs, UnmountFlags::DETACH) {
                // Removing the directory now would remove pins through a mount we no longer own.
                let bpffs = bpffs.display();
                eprintln!("cannot unmount {bpffs}: {error}; unmount and remove it by hand");
                return;
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("cannot remove {}: {error}", self.directory.display());
        }
    }
}
