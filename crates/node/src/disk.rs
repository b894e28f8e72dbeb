//! Files that are there whole or not at all: written aside, synced, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

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
        io::ErrorKind::StorageFull => "; free space on this file system and try again",
        io::ErrorKind::QuotaExceeded => "; raise the quota or free space and try again",
        io::ErrorKind::ReadOnlyFilesystem => "; remount it writable or name another --state-dir",
        _ => "",
    }
}

/// Ties an error of the kernel to the thing that was tried.
pub(crate) fn failed<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StorageError + 'a {
    move |source| StorageError { what, path: path.to_owned(), source }
}

/// Creates the file that is written aside; tests hand in a full device here.
pub type CreateAside = fn(&Path) -> io::Result<File>;

/// Writes files whole.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    create: CreateAside,
}

impl Default for Disk {
    fn default() -> Self {
        Self { create: create_new }
    }
}

impl Disk {
    /// A disk whose files are created by `create`.
    #[must_use]
    pub fn with(create: CreateAside) -> Self {
        Self { create }
    }

    /// Puts `bytes` at `path`, replacing what was there, and returns when they survive a power
    /// cut.
    ///
    /// # Errors
    /// [`StorageError`]: then `path` is as it was and nothing is left beside it.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let aside = aside(path);
        let written = self.write_aside(&aside, bytes).and_then(|()| fs::rename(&aside, path));
        if let Err(error) = written {
            // The space it took is needed by others; that it is gone already is as good.
            let _ = fs::remove_file(&aside);
            return Err(failed("write", path)(error));
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync", directory))
    }

    fn write_aside(&self, aside: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = (self.create)(aside)?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

/// Removes what an interrupted [`Disk::replace`] left in `directory`.
///
/// # Errors
/// [`StorageError`] when the directory cannot be read or an entry cannot be removed.
pub fn sweep(directory: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(directory).map_err(failed("read", directory))? {
        let path = entry.map_err(failed("read", directory))?.path();
        if path.extension().is_some_and(|extension| extension == ASIDE) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Creates `directory` and its parents where they are missing.
///
/// # Errors
/// [`StorageError`] naming the directory.
pub fn create_directory(directory: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(directory).map_err(failed("create", directory))
}

const ASIDE: &str = "aside";

/// The name is fixed: one thread of one daemon writes here, and the next start finds it.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ASIDE);
    path.with_file_name(name)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Creates the file and hands out a device that is always full: a real ENOSPC.
    pub(crate) fn full(path: &Path) -> io::Result<File> {
        create_new(path)?;
        OpenOptions::new().write(true).open("/dev/full")
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        Disk::default().replace(&path, b"old").unwrap();
        let error = Disk::with(full).replace(&path, b"new").unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
        let text = error.to_string();
        assert!(text.contains("state") && text.contains("free space"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_sweep_removes_only_what_was_written_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        Disk::default().replace(&path, b"kept").unwrap();
        fs::write(aside(&path), b"half").unwrap();
        sweep(directory.path()).unwrap();
        let left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, [path]);
    }
}
