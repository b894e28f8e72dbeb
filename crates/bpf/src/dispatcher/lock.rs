//! Where the pins lie, and who may change them.

use super::config::Version;
use super::error::DispatcherError;
use crate::error::Error;
use crate::pins as bpffs;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long others may hold the lock. libxdp holds it for a few system calls, and several in turn
/// on a slow machine for as long as they take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a look waits: it comes again, and nobody who looks may be held up by who holds the lock.
const LOOK: Duration = Duration::from_millis(100);
/// The longest pause between two tries: a lock with a limit of time has no event to wait for. A
/// shorter one would take the lock from libxdp's processes, which give up where ours try again.
const PAUSE: Duration = Duration::from_millis(10);
/// How long readers are let go first, at most.
const COURTESY: Duration = Duration::from_millis(200);
/// Where others are busy: how long nobody of them must have been seen.
const QUIET: Duration = Duration::from_millis(25);
/// How long one who was woken, or is about to lock, may take to do so.
const STEP: Duration = Duration::from_millis(3);

/// The dispatchers whose pins lie in one BPF filesystem.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    root: PathBuf,
    version: Option<Version>,
    patience: Duration,
}

/// The lock on all pins of a BPF filesystem, libxdp's as well. Free again when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    directory: OwnedFd,
    /// Whether it was waited for: others are at work.
    pub(super) was_waited_for: bool,
}

impl Dispatcher {
    /// Uses the BPF filesystem mounted at `bpffs`: for everybody who follows libxdp's default
    /// `/sys/fs/bpf`, or what `LIBXDP_BPFFS` says.
    #[must_use]
    pub fn at(bpffs: &Path) -> Self {
        Self { root: bpffs.join("xdp"), version: None, patience: PATIENCE }
    }

    /// Speaks `version` on interfaces that nobody speaks another on. Without: the version of the
    /// host's libxdp.
    #[must_use]
    pub fn with_version(self, version: Version) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Waits so long for others to give the lock back. Without: half a minute.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same for looks that come again: waits for a moment only.
    #[must_use]
    pub fn for_looks(&self) -> Self {
        self.clone().with_patience(LOOK)
    }

    /// The version for an interface without dispatcher.
    pub(super) fn version(&self) -> Version {
        self.version.unwrap_or_else(|| super::version::host_version(Path::new("/")))
    }

    /// The directory of all pins.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one dispatcher's pins.
    pub(super) fn directory(&self, interface_index: u32, program: u32) -> PathBuf {
        self.root.join(format!("dispatch-{interface_index}-{program}"))
    }

    /// Locks for reading: `None` where there is nothing to lock, and so nothing pinned.
    pub(super) fn lock_if_there(&self) -> Result<Option<Lock>, DispatcherError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open(&self.root, flags, Mode::empty()) {
            Ok(directory) => self.wait_for(directory).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(Error::os(format!("open {}", self.root.display()), e).into()),
        }
    }

    /// Locks for changing. Makes the directory.
    pub(super) fn lock(&self) -> Result<Lock, DispatcherError> {
        let unusable = |why: String| DispatcherError::Bpffs {
            path: self.root.parent().unwrap_or(&self.root).display().to_string(),
            why,
        };
        let parent = self.root.parent().unwrap_or(&self.root);
        match bpffs::is_bpffs(parent) {
            Ok(true) => {}
            Ok(false) => {
                let why = "is no BPF filesystem: mount -t bpf bpf there, or name another";
                return Err(unusable(why.into()));
            }
            Err(e) => return Err(unusable(format!("cannot be looked at: {e}"))),
        }
        bpffs::make_directory(&self.root)?;
        let lock = self.lock_if_there()?;
        lock.ok_or_else(|| unusable("its directory xdp vanished".into()))
    }

    /// Gives the lock to those who wait for it, and takes it again.
    ///
    /// libxdp asks which dispatcher is attached first and locks to read its pins then. Whoever
    /// waits may have seen the one before: without its pins it would take it for a program that
    /// nothing can join, and give up. Nobody can be seen who was woken and has no CPU yet; where
    /// others are known to be busy they get more time.
    pub(super) fn let_readers_go_first(
        &self,
        lock: Lock,
        busy: bool,
    ) -> Result<Lock, DispatcherError> {
        let start = Instant::now();
        let Lock { directory, was_waited_for } = lock;
        flock(&directory, FlockOperation::NonBlockingUnlock)
            .map_err(|e| Error::os(format!("unlock {}", self.root.display()), e))?;
        std::thread::sleep(STEP);
        if !busy && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(Lock { directory, was_waited_for });
        }
        let mut seen = Instant::now();
        while seen.elapsed() < QUIET && start.elapsed() < COURTESY {
            // Shows who waits, too. Reading it waits for a grace period of the kernel's RCU, which
            // is time for others, and nothing to spend where nobody else is.
            if is_locked(&directory) {
                seen = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.wait_for(directory)
    }

    fn wait_for(&self, directory: OwnedFd) -> Result<Lock, DispatcherError> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(50);
        let mut was_waited_for = false;
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { directory, was_waited_for }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if start.elapsed() < self.patience => {
                    was_waited_for = true;
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    let path = self.root.display().to_string();
                    return Err(DispatcherError::Locked { path, patience: self.patience });
                }
                Err(e) => {
                    return Err(Error::os(format!("lock {}", self.root.display()), e).into());
                }
            }
        }
    }
}

/// Whether anybody holds a lock on this directory, or waits for one: then its inode is in
/// `/proc/locks`.
fn is_locked(directory: &OwnedFd) -> bool {
    let Ok(inode) = rustix::fs::fstat(directory).map(|found| found.st_ino) else { return false };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| is_lock_on(line, inode))
}

/// Whether a line of `/proc/locks` is about this inode: its number is the last of three, behind
/// the device's.
fn is_lock_on(line: &str, inode: u64) -> bool {
    let places = line.split_whitespace().filter(|field| field.split(':').count() == 3);
    let mut inodes = places.filter_map(|place| place.rsplit(':').next()?.parse().ok());
    inodes.any(|found: u64| found == inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_known_by_their_inode() {
        let held = "1: FLOCK  ADVISORY  WRITE 4242 00:2f:77 0 EOF";
        let waiting = "1: -> FLOCK  ADVISORY  WRITE 4243 00:2f:77 0 EOF";
        assert!(is_lock_on(held, 77) && is_lock_on(waiting, 77));
        assert!(!is_lock_on(held, 7) && !is_lock_on("", 77));
    }
}
