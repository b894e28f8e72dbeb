//! One daemon per run directory and state directory. The pins are locked by who opens them.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Held as long as the daemon lives; the kernel lets go of it however the daemon ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The directory is not ours to use.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon holds it.
    #[error(
        "{} is in use by {}; stop it, or start this one with a {option} of its own",
        directory.display(), holder(*pid)
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// The daemon that holds it, where it is known.
        pid: Option<u32>,
        /// The option that names the directory.
        option: &'static str,
    },
    /// The lock could not be taken for another reason.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another pointsman-node".into(), |pid| format!("pointsman-node, pid {pid}"))
}

impl Lock {
    /// Takes `directory`, which must exist, and writes our pid into its lock file.
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that has it.
    pub fn take(directory: &Path, option: &'static str) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let io = |source| LockError::Io { path: path.clone(), source };
        // Not truncated: until we hold it, the pid in it is another's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let holder = read_pid(&mut file);
        let first = file.try_lock();
        // A daemon that was killed a moment ago lets go of its files one after another.
        holder.into_iter().for_each(await_end);
        match first.or_else(|_| file.try_lock()) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let directory = directory.to_owned();
                return Err(LockError::Held { directory, pid: holder, option });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(io)?;
        Ok(Self { _file: file })
    }
}

/// How our processes are called; the second is that of a keeper in the original's place.
const OURS: [&[u8]; 2] = [b"pointsman", b"MtlManager"];

/// Waits until a process that may be ending has ended, but not long: most likely it is not.
fn await_end(pid: u32) {
    const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    let ours = std::fs::read(format!("/proc/{pid}/comm"));
    if pid == std::process::id()
        || !ours.is_ok_and(|name| OURS.iter().any(|ours| name.starts_with(ours)))
    {
        // The pid was given to somebody else since.
        return;
    }
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(Ok(pidfd)) = raw.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
    // Readable when the process has ended, which is after its files were closed.
    let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&PATIENCE));
}

/// A daemon that has just taken the lock may not have written its pid yet.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_has_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::take(directory.path(), "--run-dir").unwrap();
        let text = Lock::take(directory.path(), "--run-dir").unwrap_err().to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        assert!(text.contains("--run-dir"), "{text}");
        drop(first);
        Lock::take(directory.path(), "--run-dir").unwrap();
    }
}
