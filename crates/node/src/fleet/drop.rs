//! The drop directory: `snapshot.cdb`, and `objects/SHA256`.
//!
//! It belongs to whoever brings things, so what lies there may be anything, and may change while
//! it is read. Below it no link is followed, not even of a directory; only regular files of a sane
//! size are read; and what is used is a private copy.

use super::Refusal;
use crate::resolve::MAX_OBJECT;
use crate::store::read_open;
use pointsman_model::fleet::MAX_RECORD;
use pointsman_model::{NodeName, Sha256};
use pointsman_snapshot::cdb;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The file with the records.
pub const SNAPSHOT: &str = "snapshot.cdb";

/// The directory with the objects.
pub const OBJECTS: &str = "objects";

/// The largest snapshot: its positions are 32 bits.
const MAX_SNAPSHOT: u64 = 1 << 32;

/// A drop directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropDir {
    path: PathBuf,
}

impl DropDir {
    /// The directory at `path`, which need not be there.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory with the objects.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.path.join(OBJECTS)
    }

    /// The file with the records.
    #[must_use]
    pub fn snapshot(&self) -> PathBuf {
        self.path.join(SNAPSHOT)
    }

    /// Where an object lies, or would lie.
    #[must_use]
    pub fn object(&self, hash: &Sha256) -> PathBuf {
        self.objects().join(hash.to_string())
    }

    /// Whether a snapshot was laid down, of whatever kind.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.snapshot().symlink_metadata().is_ok()
    }

    /// A copy of the record that the snapshot has for `node`; `None`: nothing was laid down.
    ///
    /// Only that is read: a snapshot may have the records of a whole fleet.
    ///
    /// # Errors
    /// [`Refusal`]: `unreadable`, `too_large`, or `no_record`.
    pub fn record(&self, node: &NodeName) -> Result<Option<Vec<u8>>, Refusal> {
        let path = self.snapshot();
        let named = |error: io::Error| {
            Refusal::unreadable(format!("cannot read {}: {error}", path.display()))
        };
        let Some(file) = self.open(&[], SNAPSHOT).map_err(named)? else { return Ok(None) };
        let about = file.metadata().map_err(named)?;
        if !about.is_file() {
            return Err(named(invalid("expected a regular file")));
        }
        if about.len() > MAX_SNAPSHOT {
            let (path, bytes) = (path.display(), about.len());
            let message = format!("{path} is of {bytes} bytes; the limit is {MAX_SNAPSHOT}");
            return Err(Refusal { kind: "too_large", message });
        }
        let key = node.as_str().as_bytes();
        let found = cdb::find_with(key, MAX_RECORD, |offset, len| {
            read_at(&file, offset, len).map_err(|error| Refusal::unreadable(error.to_string()))
        });
        let found = found.map_err(|Refusal { kind, message }| {
            let message = format!("cannot use {}: {message}", path.display());
            Refusal { kind, message }
        })?;
        let message = || format!("{} has no record of the node {node}", path.display());
        found.map(Some).ok_or_else(|| Refusal { kind: "no_record", message: message() })
    }

    /// A copy of an object; `None`: it was not laid down.
    ///
    /// # Errors
    /// One line: it cannot be read, or is not what its name says.
    pub fn read_object(&self, hash: &Sha256) -> Result<Option<Vec<u8>>, String> {
        let path = self.object(hash);
        let named = |error: io::Error| format!("cannot read {}: {error}", path.display());
        let Some(mut file) = self.open(&[OBJECTS], &hash.to_string()).map_err(named)? else {
            return Ok(None);
        };
        let bytes = read_open(&mut file, MAX_OBJECT).map_err(named)?;
        let found = Sha256::of(&bytes);
        if found != *hash {
            let path = path.display();
            return Err(format!("{path} is not what its name says: its sha256 is {found}"));
        }
        Ok(Some(bytes))
    }

    /// Whether an object was laid down, as far as can be said without reading it.
    #[must_use]
    pub fn has_object(&self, hash: &Sha256) -> bool {
        matches!(self.open(&[OBJECTS], &hash.to_string()), Ok(Some(_)) | Err(_))
    }

    /// Opens a file below the directory, component by component, following no link. A FIFO is not
    /// waited for.
    fn open(&self, directories: &[&str], name: &str) -> io::Result<Option<File>> {
        let opened = (|| {
            let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let mut at = rustix::fs::openat(CWD, &self.path, directory, Mode::empty())?;
            for name in directories {
                at = below(&at, name, directory)?;
            }
            let file = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            below(&at, name, file)
        })();
        match opened {
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(invalid("it is a symbolic link, which is not followed here")),
            // Also a link that should be a directory.
            Err(Errno::NOTDIR) => Err(invalid("what should be a directory is none, or is a link")),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn below(at: &impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, name, flags | OFlags::NOFOLLOW, Mode::empty())
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// What lies at `offset`, less than `len` only where the file ends. Whatever `len` is, no more is
/// allocated than the file has.
fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let there = file.metadata()?.len().saturating_sub(offset);
    let len = usize::try_from(there).map_or(len, |there| there.min(len));
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        match file.read_at(&mut bytes[have..], offset + have as u64) {
            // It was cut off meanwhile.
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_snapshot::cdb::Writer;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn drop_dir() -> (tempfile::TempDir, DropDir) {
        let directory = tempfile::tempdir().unwrap();
        let drop = DropDir::new(&directory.path().join("drop"));
        fs::create_dir_all(directory.path().join("drop/objects")).unwrap();
        (directory, drop)
    }

    fn node() -> NodeName {
        NodeName::new("edge-1").unwrap()
    }

    fn snapshot(value: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.add(b"edge-0", b"another's").unwrap();
        writer.add(b"edge-1", value).unwrap();
        writer.finish()
    }

    fn fifo(path: &Path) {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }

    #[test]
    fn the_record_of_a_node_is_copied_out() {
        let (_directory, drop) = drop_dir();
        assert_eq!(drop.record(&node()), Ok(None));
        fs::write(drop.snapshot(), snapshot(b"a record")).unwrap();
        assert_eq!(drop.record(&node()), Ok(Some(b"a record".to_vec())));
        let refusal = drop.record(&NodeName::new("edge-2").unwrap()).unwrap_err();
        assert_eq!(refusal.kind, "no_record");
        assert!(refusal.message.contains("snapshot.cdb has no record of the node edge-2"));
        let nowhere = DropDir::new(Path::new("/nonexistent/drop"));
        assert_eq!(nowhere.record(&node()), Ok(None));
        assert_eq!(nowhere.read_object(&Sha256::of(b"x")), Ok(None));
        assert!(!nowhere.has_object(&Sha256::of(b"x")));
    }

    #[test]
    fn of_a_large_snapshot_only_the_record_is_read() {
        let (_directory, drop) = drop_dir();
        // Sparse: whoever reads all of it takes minutes and all memory.
        let mut bytes = snapshot(b"a record");
        let table = bytes.split_off(bytes.len() - 2 * 2 * 8);
        let far = 3_u64 << 30;
        let records = bytes.len() as u64;
        for entry in bytes[..2048].chunks_exact_mut(8) {
            let old = u32::from_le_bytes(entry[..4].try_into().unwrap());
            let new = far + (u64::from(old) - records);
            entry[..4].copy_from_slice(&u32::try_from(new).unwrap().to_le_bytes());
        }
        let file = File::create(drop.snapshot()).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.write_all_at(&table, far).unwrap();
        assert_eq!(drop.record(&node()), Ok(Some(b"a record".to_vec())));
        file.set_len(MAX_SNAPSHOT + 1).unwrap();
        assert_eq!(drop.record(&node()).unwrap_err().kind, "too_large");
    }

    #[test]
    fn no_link_is_followed_and_no_fifo_waited_for() {
        let (directory, drop) = drop_dir();
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, snapshot(b"a record")).unwrap();
        symlink(&elsewhere, drop.snapshot()).unwrap();
        let refusal = drop.record(&node()).unwrap_err();
        assert_eq!(refusal.kind, "unreadable");
        assert!(refusal.message.contains("symbolic link"), "{refusal}");
        fs::remove_file(drop.snapshot()).unwrap();
        fifo(&drop.snapshot());
        assert!(drop.record(&node()).unwrap_err().message.contains("regular file"));
        fs::remove_file(drop.snapshot()).unwrap();
        fs::create_dir(drop.snapshot()).unwrap();
        assert!(drop.record(&node()).unwrap_err().message.contains("regular file"));

        let hash = Sha256::of(b"object");
        fs::write(&elsewhere, b"object").unwrap();
        symlink(&elsewhere, drop.object(&hash)).unwrap();
        let why = drop.read_object(&hash).unwrap_err();
        assert!(why.contains("symbolic link") && why.contains(&hash.to_string()), "{why}");
        fs::remove_file(drop.object(&hash)).unwrap();
        fifo(&drop.object(&hash));
        assert!(drop.read_object(&hash).unwrap_err().contains("regular file"));
        fs::remove_dir_all(directory.path().join("drop/objects")).unwrap();
        fs::create_dir(directory.path().join("away")).unwrap();
        fs::write(directory.path().join("away").join(hash.to_string()), b"object").unwrap();
        symlink("../away", directory.path().join("drop/objects")).unwrap();
        let why = drop.read_object(&hash).unwrap_err();
        assert!(why.contains("directory"), "{why}");
    }

    #[test]
    fn an_object_is_what_its_name_says_or_an_error() {
        let (_directory, drop) = drop_dir();
        let hash = Sha256::of(b"object");
        assert_eq!(drop.read_object(&hash), Ok(None));
        fs::write(drop.object(&hash), b"object").unwrap();
        assert!(drop.has_object(&hash));
        assert_eq!(drop.read_object(&hash), Ok(Some(b"object".to_vec())));
        fs::write(drop.object(&hash), b"objecT").unwrap();
        let why = drop.read_object(&hash).unwrap_err();
        assert!(why.contains("not what its name says"), "{why}");
        File::create(drop.object(&hash)).unwrap().set_len(MAX_OBJECT as u64 + 1).unwrap();
        assert!(drop.read_object(&hash).unwrap_err().contains("larger than the limit"));
    }

    #[test]
    fn a_file_that_is_cut_off_while_it_is_read_gives_what_there_was() {
        let (_directory, drop) = drop_dir();
        fs::write(drop.snapshot(), [7; 100]).unwrap();
        let file = File::open(drop.snapshot()).unwrap();
        assert_eq!(read_at(&file, 90, usize::MAX).unwrap(), [7; 10]);
        assert!(read_at(&file, 200, 10).unwrap().is_empty());
        fs::write(drop.snapshot(), [7; 95]).unwrap();
        assert_eq!(read_at(&file, 90, 10).unwrap(), [7; 5]);
    }
}
