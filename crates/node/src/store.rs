//! Files by the SHA-256 of their bytes: objects, and the texts of documents.
//!
//! What goes in is on disk when [`Store::put`] returns. What comes out has the hash it was asked
//! for, or is an error: a damaged file is never handed to the kernel.

use crate::disk::{self, CreateAside, Disk, StorageError, failed};
use pointsman_model::Sha256;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A directory of files named by their hashes.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    limit: usize,
    disk: Disk,
}

/// Why a file does not come out of the store.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was never put there.
    #[error("sha256:{hash} is not in the store {}", directory.display())]
    Missing {
        /// What was asked for.
        hash: Sha256,
        /// Where.
        directory: PathBuf,
    },
    /// Its bytes are not what its name says.
    #[error(
        "{} is damaged: its sha256 is {found}; put the object there again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The hash of its bytes.
        found: Sha256,
    },
    /// It could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Store {
    /// Opens the store in `directory` for files of at most `limit` bytes; creates the directory
    /// and removes what an interrupted write left.
    ///
    /// # Errors
    /// [`StorageError`] naming the directory.
    pub fn open(directory: &Path, limit: usize) -> Result<Self, StorageError> {
        disk::create_directory(directory)?;
        disk::sweep(directory)?;
        Ok(Self { directory: directory.to_owned(), limit, disk: Disk::default() })
    }

    /// The store with its files created by `create`, so that a test can fill the disk.
    #[must_use]
    pub fn created_by(mut self, create: CreateAside) -> Self {
        self.disk = Disk::with(create);
        self
    }

    /// Where `hash` lies, or would lie.
    #[must_use]
    pub fn path(&self, hash: &Sha256) -> PathBuf {
        self.directory.join(hash.to_string())
    }

    /// Whether `hash` is there. Its bytes are checked when they are read.
    #[must_use]
    pub fn contains(&self, hash: &Sha256) -> bool {
        fs::symlink_metadata(self.path(hash)).is_ok_and(|metadata| metadata.is_file())
    }

    /// How many bytes `hash` has on disk; 0: it is not there.
    #[must_use]
    pub fn size(&self, hash: &Sha256) -> u64 {
        fs::symlink_metadata(self.path(hash)).map_or(0, |metadata| metadata.len())
    }

    /// Keeps `bytes` under `hash`, which the caller computed from them.
    ///
    /// # Errors
    /// [`StorageError`]: then the store is as it was.
    pub fn put(&self, hash: &Sha256, bytes: &[u8]) -> Result<(), StorageError> {
        self.disk.replace(&self.path(hash), bytes)
    }

    /// The bytes of `hash`.
    ///
    /// # Errors
    /// [`ReadError`]: missing, damaged, too large or unreadable.
    pub fn read(&self, hash: &Sha256) -> Result<Vec<u8>, ReadError> {
        let path = self.path(hash);
        let bytes = match read_regular(&path, self.limit) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReadError::Missing { hash: *hash, directory: self.directory.clone() });
            }
            Err(error) => return Err(failed("read", &path)(error).into()),
        };
        let found = Sha256::of(&bytes);
        if found == *hash { Ok(bytes) } else { Err(ReadError::Damaged { path, found }) }
    }

    /// Removes `hash`; that it is not there is as good.
    ///
    /// # Errors
    /// [`StorageError`] naming the file.
    pub fn remove(&self, hash: &Sha256) -> Result<(), StorageError> {
        let path = self.path(hash);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The hashes that are there.
    ///
    /// # Errors
    /// [`StorageError`] when the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Sha256>, StorageError> {
        let mut hashes = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed("read", &self.directory))? {
            let name = entry.map_err(failed("read", &self.directory))?.file_name();
            hashes.extend(name.to_str().and_then(|name| name.parse::<Sha256>().ok()));
        }
        Ok(hashes)
    }
}

/// Reads a regular file of at most `limit` bytes. A FIFO or device is refused without waiting
/// for it.
///
/// # Errors
/// What the kernel said, or [`io::ErrorKind::InvalidData`] with the rule that was broken.
pub fn read_regular(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    read_open(&mut file, limit)
}

/// Reads a file of at most `limit` bytes whose length the file system does not tell, such as one
/// in /proc.
pub(crate) fn read_virtual(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(&mut File::open(path)?, limit)
}

/// Reads an open file as [`read_regular`] does.
pub(crate) fn read_open(file: &mut File, limit: usize) -> io::Result<Vec<u8>> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    let too_large =
        |size: u64| invalid(format!("{size} bytes is larger than the limit of {limit}"));
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(invalid("expected a regular file".into()));
    }
    if metadata.len() > limit as u64 {
        return Err(too_large(metadata.len()));
    }
    // One byte more than allowed: the file may grow while it is read.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::full;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("objects"), 1000).unwrap();
        (directory, store)
    }

    #[test]
    fn a_damaged_object_is_named_and_never_handed_out() {
        let (_directory, store) = store();
        let hash = Sha256::of(b"object");
        assert!(matches!(store.read(&hash), Err(ReadError::Missing { .. })));
        store.put(&hash, b"object").unwrap();
        assert_eq!(store.read(&hash).unwrap(), b"object");
        fs::write(store.path(&hash), b"objecT").unwrap();
        let error = store.read(&hash).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn a_full_disk_leaves_the_store_as_it_was() {
        let (_directory, store) = store();
        let kept = Sha256::of(b"kept");
        store.put(&kept, b"kept").unwrap();
        let store = store.created_by(full);
        let hash = Sha256::of(b"new");
        assert!(store.put(&hash, b"new").is_err());
        assert_eq!(store.list().unwrap(), [kept]);
        assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let (directory, store) = store();
        let path = directory.path().join("file");
        fs::write(&path, vec![0; 1001]).unwrap();
        let error = read_regular(&path, store.limit).unwrap_err();
        assert!(error.to_string().contains("1001 bytes"), "{error}");
        let fifo = directory.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = read_regular(&fifo, store.limit).unwrap_err();
        assert!(error.to_string().contains("regular file"), "{error}");
        assert!(read_regular(directory.path(), store.limit).is_err());
    }
}
