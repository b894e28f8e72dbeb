//! Interfaces in sysfs: how their queues are polled, and which interrupts they have.
//!
//! sysfs shows the interfaces of the network namespace it was mounted in. So every look checks that
//! the name means the interface that is meant, and [`Sysfs::here`] has one for any namespace.

use pointsman_model::nic::Polling;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// A sysfs that shows the interfaces of one network namespace.
#[derive(Debug)]
pub struct Sysfs {
    root: PathBuf,
    /// Keeps a mount that is nowhere in the file tree.
    _mount: Option<OwnedFd>,
}

/// A file of sysfs or procfs that could not be read or written. The message names it.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The kernel does not take what was written.
    #[error("cannot write {value} to {}: {source}{}", path.display(), hint(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// This sysfs shows another interface by that name, or none.
    #[error(
        "{} is not of interface number {index}: this sysfs shows another network namespace, or the \
         interface was renamed",
        path.display()
    )]
    NotThat {
        /// The interface's directory.
        path: PathBuf,
        /// The kernel's number for the one that was meant.
        index: u32,
    },
    /// A sysfs of its own cannot be had.
    #[error("cannot make a sysfs for this network namespace: {source}")]
    Mount {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match rustix::io::Errno::from_io_error(error) {
        // kernel/irq/manage.c: the kernel spreads these itself, as most NVMe and some NICs' are.
        Some(rustix::io::Errno::IO) => ": the kernel manages this interrupt itself",
        Some(rustix::io::Errno::ROFS) => ": the file system is mounted read-only here",
        _ => "",
    }
}

impl Sysfs {
    /// One that is mounted at `root`, such as `/sys`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), _mount: None }
    }

    /// One for the network namespace of the calling thread, mounted nowhere. It keeps the namespace
    /// alive: drop it after one look.
    ///
    /// # Errors
    /// [`TuneError::Mount`]: this takes Linux 5.2 and `CAP_SYS_ADMIN`.
    pub fn here() -> Result<Self, TuneError> {
        let mount = || -> rustix::io::Result<OwnedFd> {
            let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        let mount = mount().map_err(|errno| TuneError::Mount { source: errno.into() })?;
        let root = format!("/proc/self/fd/{}", mount.as_raw_fd()).into();
        Ok(Self { root, _mount: Some(mount) })
    }

    /// The directory of an interface.
    pub(crate) fn interface(&self, name: &str, index: u32) -> Result<PathBuf, TuneError> {
        let path = self.root.join("class/net").join(name);
        let is_name = !name.contains('/') && !matches!(name, "" | "." | "..");
        let found = fs::read_to_string(path.join("ifindex")).ok();
        let same = found.and_then(|text| text.trim().parse::<u32>().ok()) == Some(index);
        if is_name && same { Ok(path) } else { Err(TuneError::NotThat { path, index }) }
    }

    /// How the queues of an interface are polled.
    ///
    /// # Errors
    /// [`TuneError`]: the kernel is older than 5.8, or there is no such interface.
    pub fn polling(&self, name: &str, index: u32) -> Result<Polling, TuneError> {
        let at = self.interface(name, index)?;
        // Before Linux 6.13 the kernel shows large ones as negative.
        let defer: i64 = read(&at.join(DEFER))?;
        Ok(Polling {
            defer_hard_irqs: (defer & i64::from(u32::MAX)).try_into().unwrap_or(u32::MAX),
            gro_flush_timeout: read(&at.join(FLUSH))?,
        })
    }

    /// Changes how the queues of an interface are polled, all of them; how they were before.
    ///
    /// # Errors
    /// [`TuneError`]: the kernel does not take a value. Then nothing is changed.
    pub fn set_polling(
        &self,
        name: &str,
        index: u32,
        wanted: Polling,
    ) -> Result<Polling, TuneError> {
        let at = self.interface(name, index)?;
        let before = self.polling(name, index)?;
        write(&at.join(FLUSH), &wanted.gro_flush_timeout.to_string())?;
        if let Err(error) = write(&at.join(DEFER), &wanted.defer_hard_irqs.to_string()) {
            // It was there a moment ago; if it cannot be written back, the first error tells why.
            let _ = write(&at.join(FLUSH), &before.gro_flush_timeout.to_string());
            return Err(error);
        }
        Ok(before)
    }
}

const DEFER: &str = "napi_defer_hard_irqs";
const FLUSH: &str = "gro_flush_timeout";

pub(crate) fn read<T: std::str::FromStr>(path: &Path) -> Result<T, TuneError>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let failed = |source| TuneError::Read { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    text.trim().parse().map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Writes in one call, as the kernel wants it, and never makes a file that is not there.
pub(crate) fn write(path: &Path, value: &str) -> Result<(), TuneError> {
    use std::io::Write as _;
    let file = fs::OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|source| TuneError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let at = sys.path().join("class/net/eth0");
        fs::create_dir_all(&at).unwrap();
        for (file, text) in [("ifindex", "7\n"), (DEFER, "0\n"), (FLUSH, "0\n")] {
            fs::write(at.join(file), text).unwrap();
        }
        sys
    }

    #[test]
    fn polling_is_set_and_restored() {
        let fixture = fixture();
        let sys = Sysfs::at(fixture.path());
        let wanted = Polling { defer_hard_irqs: 2, gro_flush_timeout: 200_000 };
        let before = sys.set_polling("eth0", 7, wanted).unwrap();
        assert_eq!(before, Polling::default());
        assert_eq!(sys.polling("eth0", 7).unwrap(), wanted);
        assert_eq!(sys.set_polling("eth0", 7, before).unwrap(), wanted);
        assert_eq!(sys.polling("eth0", 7).unwrap(), before);
    }

    #[test]
    fn nothing_is_changed_where_one_value_is_not_taken() {
        let fixture = fixture();
        let at = fixture.path().join("class/net/eth0");
        let sys = Sysfs::at(fixture.path());
        fs::remove_file(at.join(DEFER)).unwrap();
        let wanted = Polling { defer_hard_irqs: 2, gro_flush_timeout: 1 };
        let message = sys.set_polling("eth0", 7, wanted).unwrap_err().to_string();
        assert!(message.contains("napi_defer_hard_irqs"), "{message}");
        assert_eq!(fs::read_to_string(at.join(FLUSH)).unwrap(), "0\n");
        assert!(!at.join(DEFER).exists());
    }

    #[test]
    fn large_numbers_are_read_as_older_kernels_show_them() {
        let fixture = fixture();
        fs::write(fixture.path().join("class/net/eth0").join(DEFER), "-1\n").unwrap();
        let found = Sysfs::at(fixture.path()).polling("eth0", 7).unwrap();
        assert_eq!(found.defer_hard_irqs, u32::MAX);
    }

    #[test]
    fn another_interface_by_that_name_is_not_touched() {
        let fixture = fixture();
        let sys = Sysfs::at(fixture.path());
        for (name, index) in [("eth0", 8), ("eth1", 7), ("..", 7), ("", 7), ("../net/eth0", 7)] {
            let error = sys.set_polling(name, index, Polling::default()).unwrap_err();
            assert!(matches!(error, TuneError::NotThat { .. }), "{name} {index}: {error}");
        }
    }

    #[test]
    fn loopback_can_be_looked_at() {
        assert!(Sysfs::at(Path::new("/sys")).polling("lo", 1).is_ok());
    }
}
