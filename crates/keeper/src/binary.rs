//! The binary that a daemon is started from, kept open: what is installed may be replaced, and what
//! worked can be started again.

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A binary. Two are the same if they are one file.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    file: Rc<OwnedFd>,
    /// Device and inode. As long as `file` is open, no other file gets the inode.
    id: (u64, u64),
}

impl Binary {
    /// What lies at `path` now.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let found = fstat(&file)?;
        Ok(Self { file: Rc::new(file), id: (found.st_dev, found.st_ino) })
    }

    /// A name by which this process and its children find it, wherever it lay.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

impl PartialEq for Binary {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
