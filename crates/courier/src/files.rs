//! Directories whose entries are never followed as links, and files that are there whole or not at
//! all: written aside, synced, renamed.

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Something could not be kept on disk, or read back.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}{}", path.display(), advice(source))]
pub struct StorageError {
    /// What was tried: a verb.
    pub what: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// What to do about it, where that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free space on this file system: it is tried again",
        io::ErrorKind::QuotaExceeded => "; raise the quota or free space: it is tried again",
        io::ErrorKind::ReadOnlyFilesystem => "; remount it writable, or name another directory",
        io::ErrorKind::PermissionDenied => {
            "; give it to the courier's user (systemd-tmpfiles --create, or chown)"
        }
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            ": it is a link, and links are not followed here"
        }
        _ => "",
    }
}

impl StorageError {
    /// A stable name, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "disk_full",
            _ => "disk",
        }
    }
}

/// How a file that is being written ends.
pub(crate) const PART: &str = ".part";

/// A directory that is held open: what its path leads to later does not matter.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl Dir {
    /// Opens `path`, making it (and no parent of it) with `mode` if it is not there.
    pub(crate) fn open(path: &Path, mode: u32) -> Result<Self, StorageError> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            // One that may only be read is no error if it is there.
            Err(errno) if path.symlink_metadata().is_err() => {
                return Err(failed("create", path)(errno.into()));
            }
            Err(_) => {}
        }
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", path)(errno.into()))?;
        Ok(Self { fd: Arc::new(fd), path: path.to_owned() })
    }

    /// The directory `name` in this one; made with `mode` if it is not there.
    pub(crate) fn directory(&self, name: &str, mode: u32) -> Result<Self, StorageError> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&*self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("create", &path)(errno.into())),
        }
        let fd = rustix::fs::openat(&*self.fd, name, DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", &path)(errno.into()))?;
        Ok(Self { fd: Arc::new(fd), path })
    }

    /// Where `name` is, for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Creates `name` anew, to be written.
    pub(crate) fn create(&self, name: &str, mode: u32) -> Result<File, StorageError> {
        self.remove(name)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fail = |errno: Errno| failed("create", &self.path(name))(errno.into());
        let fd =
            rustix::fs::openat(&*self.fd, name, flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
        // Whatever the umask says: the daemon and people must be able to read what is for them.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(fail)?;
        Ok(fd.into())
    }

    /// Opens the file `name` to be read and written, making it if it is not there.
    pub(crate) fn open_file(&self, name: &str, mode: u32) -> Result<File, StorageError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*self.fd, name, flags, Mode::from_raw_mode(mode))
            .map_err(|errno| failed("open", &self.path(name))(errno.into()))?;
        Ok(fd.into())
    }

    /// Opens the regular file `name` to be read; `None`: it is not there, or is something else.
    pub(crate) fn regular(&self, name: &str) -> Result<Option<(File, u64)>, StorageError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fail = |source: io::Error| failed("read", &self.path(name))(source);
        let file = match rustix::fs::openat(&*self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(fail(errno.into())),
        };
        let metadata = file.metadata().map_err(fail)?;
        Ok(metadata.is_file().then_some((file, metadata.len())))
    }

    /// Reads the regular file `name`, if it is there and has at most `limit` bytes.
    pub(crate) fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, StorageError> {
        let Some((file, size)) = self.regular(name)? else { return Ok(None) };
        if size > limit as u64 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        // One byte more than allowed: it may grow while it is read.
        file.take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| failed("read", &self.path(name))(source))?;
        Ok((bytes.len() <= limit).then_some(bytes))
    }

    /// Puts `bytes` at `name`, replacing what was there, by way of a file in `aside`. Returns when
    /// they survive a power cut. On error `name` is as it was.
    pub(crate) fn replace(
        &self,
        aside: &Self,
        name: &str,
        bytes: &[u8],
        mode: u32,
    ) -> Result<(), StorageError> {
        let part = format!("{name}{PART}");
        let written = aside.create(&part, mode).and_then(|mut file| {
            file.write_all(bytes)
                .and_then(|()| file.sync_all())
                .map_err(|source| failed("write", &self.path(name))(source))?;
            self.take(aside, &part, name)
        });
        if written.is_err() {
            // The space it took is needed by others. The error that matters is the first one.
            let _ = aside.remove(&part);
        }
        written
    }

    /// Renames the finished, synced file `part` of `aside` to `name` here, and syncs that.
    pub(crate) fn take(&self, aside: &Self, part: &str, name: &str) -> Result<(), StorageError> {
        rustix::fs::renameat(&*aside.fd, part, &*self.fd, name)
            .map_err(|errno| failed("replace", &self.path(name))(errno.into()))?;
        rustix::fs::fsync(&*self.fd).map_err(|errno| failed("sync", &self.path)(errno.into()))
    }

    /// Removes the file `name`; that it is not there is as good.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StorageError> {
        match rustix::fs::unlinkat(&*self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove", &self.path(name))(errno.into())),
        }
    }

    /// Whether `path` leads to this directory now.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let here = rustix::fs::fstat(&*self.fd);
        let there = rustix::fs::lstat(path);
        matches!((here, there), (Ok(here), Ok(there))
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino))
    }

    /// The names of regular files that belong to who we are.
    pub(crate) fn names_of_ours(&self) -> Result<Vec<String>, StorageError> {
        let fail = |errno: Errno| failed("read", &self.path)(errno.into());
        let ours = rustix::process::geteuid().as_raw();
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&*self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let about = rustix::fs::statat(&*self.fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            let is_ours = about.is_ok_and(|about| {
                about.st_uid == ours && FileType::from_raw_mode(about.st_mode).is_file()
            });
            if let (true, Ok(name)) = (is_ours, entry.file_name().to_str()) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes what was being written when a process was killed.
    pub(crate) fn sweep(&self) -> Result<(), StorageError> {
        let fail = |errno: Errno| failed("read", &self.path)(errno.into());
        let mut left = Vec::new();
        for entry in rustix::fs::Dir::read_from(&*self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if name.ends_with(PART.as_bytes()) && entry.file_type() != FileType::Directory {
                left.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        left.iter().try_for_each(|name| self.remove(name))
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Ties an error of the kernel to the thing that was tried.
pub(crate) fn failed<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StorageError + 'a {
    move |source| StorageError { what, path: path.to_owned(), source }
}

/// Reads the regular file at `path`, which may be reached over links: a configuration.
///
/// # Errors
/// What the kernel said, or the rule that was broken.
pub(crate) fn read_small(path: &Path, limit: usize) -> io::Result<(Vec<u8>, std::fs::Metadata)> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(invalid("its name has a zero byte".into()));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(invalid("it is no regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(invalid(format!("it has more than {limit} bytes")));
    }
    Ok((bytes, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn stage() -> (tempfile::TempDir, Dir, Dir) {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(&root.path().join("d"), 0o755).unwrap();
        let aside = dir.directory(".aside", 0o700).unwrap();
        (root, dir, aside)
    }

    #[test]
    fn links_are_never_followed() {
        let (root, dir, aside) = stage();
        let victim = root.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let elsewhere = root.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();

        symlink(&victim, dir.path("file")).unwrap();
        assert_eq!(dir.read("file", 100).unwrap(), None);
        dir.replace(&aside, "file", b"ours", 0o644).unwrap();
        assert!(dir.path("file").symlink_metadata().unwrap().is_file());
        symlink(&victim, aside.path("next.part")).unwrap();
        dir.replace(&aside, "next", b"ours", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");

        symlink(&elsewhere, dir.path("objects")).unwrap();
        let error = dir.directory("objects", 0o755).unwrap_err().to_string();
        assert!(error.contains("objects"), "{error}");
        symlink(&elsewhere, root.path().join("drop")).unwrap();
        let error = Dir::open(&root.path().join("drop"), 0o755).unwrap_err().to_string();
        assert!(error.contains("drop"), "{error}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn what_is_put_there_has_its_mode_and_what_is_no_file_is_not_read() {
        let (_root, dir, aside) = stage();
        dir.replace(&aside, "file", b"ours", 0o644).unwrap();
        let mode = fs::metadata(dir.path("file")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(dir.read("file", 4).unwrap().as_deref(), Some(&b"ours"[..]));
        assert_eq!(dir.read("file", 3).unwrap(), None);
        fs::create_dir(dir.path("sub")).unwrap();
        assert!(dir.regular("sub").unwrap().is_none());
        let error = dir.replace(&aside, "sub", b"ours", 0o644).unwrap_err().to_string();
        assert!(error.contains("cannot replace") && error.contains("sub"), "{error}");
        assert!(aside.regular("sub.part").unwrap().is_none(), "nothing is left beside it");
    }

    #[test]
    fn a_sweep_removes_only_what_was_not_finished() {
        let (_root, dir, _aside) = stage();
        fs::write(dir.path("a.part"), "half").unwrap();
        fs::write(dir.path("whole"), "whole").unwrap();
        dir.sweep().unwrap();
        assert!(dir.regular("a.part").unwrap().is_none());
        assert!(dir.regular("whole").unwrap().is_some());
    }
}
