//! The drop directory, which the daemon watches, and the cache beside it.
//!
//! ```text
//! DROP/snapshot.cdb      renamed into place, after the objects that it needs
//! DROP/objects/SHA256    renamed into place
//! DROP/.courier/         ours alone: the lock, and files that are not finished
//! CACHE/record           the record that was handed over last
//! CACHE/state.json       what is remembered of it
//! ```

use crate::courier::MAX_OBJECT;
use crate::files::{Dir, PART, StorageError, failed};
use crate::memory::Memory;
use crate::sink::{Kept, Part, Sink, SinkError};
use pointsman_model::fleet::MAX_RECORD;
use pointsman_model::{NodeName, Sha256};
use pointsman_snapshot::cdb;
use sha2::Digest as _;
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What the daemon watches.
const SNAPSHOT: &str = "snapshot.cdb";

/// What is remembered, as JSON.
const STATE: &str = "state.json";

/// The record that was handed over last.
const RECORD: &str = "record";

/// The largest memory that is read back.
const MAX_STATE: usize = 4 << 20;

/// For the daemon, which is root, and for the courier's group.
const SHOWN: u32 = 0o640;

/// For the courier alone.
const OURS: u32 = 0o600;

/// Why the directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another courier uses one of them.
    #[error(
        "{} is in use by {}; stop it, or start this one with {option} of its own",
        directory.display(), holder(*pid)
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// The courier that has it, where it is known.
        pid: Option<u32>,
        /// The option that names the directory.
        option: &'static str,
    },
    /// One of them cannot be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another pointsman-courier".into(), |pid| format!("pointsman-courier, pid {pid}"))
}

/// Both directories, locked. The kernel lets go of the locks however the process ends.
#[derive(Debug)]
pub struct DropDir {
    node: NodeName,
    path: PathBuf,
    drop: Dir,
    objects: Dir,
    ours: Dir,
    cache: Cache,
    _lock: File,
}

/// The cache directory, locked.
#[derive(Debug)]
pub struct Cache {
    dir: Dir,
    _lock: File,
}

impl Cache {
    /// Opens and locks `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`OpenError`] names the directory.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let dir = Dir::open(directory, 0o700)?;
        let lock = lock(&dir, directory, "--cache")?;
        dir.sweep()?;
        Ok(Self { dir, _lock: lock })
    }

    /// What is remembered. What makes no sense is as good as absent, and told in the log.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn recall(&self) -> Result<Kept, StorageError> {
        let memory = self.dir.read(STATE, MAX_STATE)?.and_then(|bytes| {
            serde_json::from_slice(&bytes)
                .inspect_err(|error| {
                    let path = self.dir.path(STATE);
                    tracing::warn!("{} is not understood and left out: {error}", path.display());
                })
                .ok()
        });
        Ok(Kept { memory, record: self.dir.read(RECORD, MAX_RECORD)? })
    }

    /// Replaces what is remembered; the record stays as it is where none is given.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn remember(&self, memory: &Memory, record: Option<&[u8]>) -> Result<(), StorageError> {
        if let Some(record) = record {
            self.dir.replace(&self.dir, RECORD, record, OURS)?;
        }
        let mut text =
            serde_json::to_vec_pretty(memory).expect("invariant: names and numbers are JSON");
        text.push(b'\n');
        self.dir.replace(&self.dir, STATE, &text, OURS)
    }
}

impl DropDir {
    /// Opens and locks both directories, and removes what a courier that was killed left of its
    /// work.
    ///
    /// # Errors
    /// [`OpenError`] names the directory.
    pub fn open(drop: &Path, cache: &Path, node: &NodeName) -> Result<Self, OpenError> {
        let cache = Cache::open(cache)?;
        let Opened { dir, objects, ours, lock } = Opened::open(drop)?;
        let (node, path) = (node.clone(), drop.to_owned());
        Ok(Self { node, path, drop: dir, objects, ours, cache, _lock: lock })
    }
}

struct Opened {
    dir: Dir,
    objects: Dir,
    ours: Dir,
    lock: File,
}

impl Opened {
    fn open(drop: &Path) -> Result<Self, OpenError> {
        let dir = Dir::open(drop, 0o750)?;
        let ours = dir.directory(".courier", 0o700)?;
        let lock = lock(&ours, drop, "--drop")?;
        ours.sweep()?;
        let objects = dir.directory("objects", 0o750)?;
        Ok(Self { dir, objects, ours, lock })
    }
}

fn lock(dir: &Dir, directory: &Path, option: &'static str) -> Result<File, OpenError> {
    let mut file = dir.open_file("lock", OURS)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = (&file).take(20).read_to_string(&mut text).ok();
            let pid = pid.and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Held { directory: directory.to_owned(), pid, option });
        }
        Err(TryLockError::Error(source)) => {
            return Err(failed("lock", &dir.path("lock"))(source).into());
        }
    }
    // For people and for the message above only: a full disk is no reason not to start.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// An object that is being written, removed again unless it is put into place.
#[derive(Debug)]
pub struct FilePart {
    file: File,
    name: String,
    ours: Dir,
}

impl FilePart {
    fn failed(&self, what: &'static str, source: io::Error) -> SinkError {
        failed(what, &self.ours.path(&self.name))(source).into()
    }
}

impl Part for FilePart {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.file.write_all(bytes).map_err(|source| self.failed("write", source))
    }

    fn restart(&mut self) -> Result<(), SinkError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|source| self.failed("truncate", source))
    }
}

impl Drop for FilePart {
    fn drop(&mut self) {
        // Gone already if it was renamed. The next start sweeps what could not be removed.
        let _ = self.ours.remove(&self.name);
    }
}

impl Sink for DropDir {
    type Part = FilePart;

    fn recall(&mut self) -> Result<Kept, SinkError> {
        Ok(self.cache.recall()?)
    }

    fn in_place(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        let Some((file, _)) = self.drop.regular(SNAPSHOT)? else { return Ok(None) };
        let read = |offset, length| -> Result<Vec<u8>, ReadError> {
            let mut bytes = vec![0; length];
            let mut done = 0;
            while done < length {
                match file.read_at(&mut bytes[done..], offset + done as u64)? {
                    0 => break,
                    read => done += read,
                }
            }
            bytes.truncate(done);
            Ok(bytes)
        };
        match cdb::find_with(self.node.as_str().as_bytes(), MAX_RECORD, read) {
            Ok(record) => Ok(record),
            // Whoever put that there: it is not what a daemon would take.
            Err(ReadError::Cdb(_)) => Ok(None),
            Err(ReadError::Io(source)) => {
                Err(failed("read", &self.drop.path(SNAPSHOT))(source).into())
            }
        }
    }

    fn has(&mut self, object: &Sha256) -> Result<bool, SinkError> {
        let name = object.to_string();
        let Some((mut file, size)) = self.objects.regular(&name)? else { return Ok(false) };
        if size > MAX_OBJECT {
            // Nothing that was ever handed over: not worth a look at all of it.
            return Ok(false);
        }
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(failed("read", &self.objects.path(&name))(source).into());
                }
            }
        }
        let whole = crate::hash::finished(hasher) == *object;
        if !whole {
            let path = self.objects.path(&name);
            tracing::warn!("{} is damaged: it is fetched again", path.display());
        }
        Ok(whole)
    }

    fn begin(&mut self, object: &Sha256) -> Result<FilePart, SinkError> {
        let name = format!("{object}{PART}");
        let file = self.ours.create(&name, SHOWN)?;
        Ok(FilePart { file, name, ours: self.ours.clone() })
    }

    fn keep(&mut self, object: &Sha256, part: FilePart) -> Result<(), SinkError> {
        part.file.sync_all().map_err(|source| part.failed("write", source))?;
        self.objects.take(&self.ours, &part.name, &object.to_string())?;
        Ok(())
    }

    fn hand_over(&mut self, record: &[u8]) -> Result<(), SinkError> {
        let mut writer = cdb::Writer::new();
        writer
            .add(self.node.as_str().as_bytes(), record)
            .map_err(|error| SinkError::Record { name: SNAPSHOT, why: error.to_string() })?;
        self.drop.replace(&self.ours, SNAPSHOT, &writer.finish(), SHOWN)?;
        Ok(())
    }

    fn remember(&mut self, memory: &Memory, record: &[u8]) -> Result<(), SinkError> {
        Ok(self.cache.remember(memory, Some(record))?)
    }

    fn tidy(&mut self, needed: &BTreeSet<Sha256>) -> Result<(), SinkError> {
        for name in self.objects.names_of_ours()? {
            if name.parse().is_ok_and(|object: Sha256| !needed.contains(&object)) {
                self.objects.remove(&name)?;
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<bool, SinkError> {
        if self.drop.is_at(&self.path) && self.objects.is_at(&self.path.join("objects")) {
            return Ok(false);
        }
        tracing::warn!(
            "{} is another directory than before: it is opened anew",
            self.path.display()
        );
        let Opened { dir, objects, ours, lock } = match Opened::open(&self.path) {
            Ok(opened) => opened,
            Err(OpenError::Storage(error)) => return Err(error.into()),
            Err(held @ OpenError::Held { .. }) => {
                let source = io::Error::other(held.to_string());
                return Err(failed("lock", &self.path)(source).into());
            }
        };
        (self.drop, self.objects, self.ours, self._lock) = (dir, objects, ours, lock);
        Ok(true)
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Cdb(#[from] cdb::CdbError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Stage(tempfile::TempDir);

    impl Stage {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn open(&self) -> Result<DropDir, OpenError> {
            let path = |name| self.0.path().join(name);
            DropDir::open(&path("drop"), &path("cache"), &NodeName::new("n").unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
    }

    #[test]
    fn a_second_courier_is_told_who_has_the_directories() {
        let stage = Stage::new();
        let first = stage.open().unwrap();
        let pid = format!("pid {}", std::process::id());
        let text = stage.open().unwrap_err().to_string();
        assert!(text.contains("--cache") && text.contains(&pid), "{text}");
        let node = NodeName::new("n").unwrap();
        let error = DropDir::open(&stage.path("drop"), &stage.path("cache2"), &node).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("--drop") && text.contains(&pid), "{text}");
        drop(first);
        stage.open().unwrap();
    }

    #[test]
    fn an_object_is_there_whole_or_not_at_all() {
        let stage = Stage::new();
        let mut sink = stage.open().unwrap();
        let hash = Sha256::of(b"object");
        let path = stage.path(&format!("drop/objects/{hash}"));
        assert!(!sink.has(&hash).unwrap());
        let mut part = sink.begin(&hash).unwrap();
        part.write(b"obj").unwrap();
        drop(part);
        assert_eq!(fs::read_dir(stage.path("drop/.courier")).unwrap().count(), 1, "the lock");
        let mut part = sink.begin(&hash).unwrap();
        part.write(b"obj").unwrap();
        part.restart().unwrap();
        part.write(b"object").unwrap();
        assert!(!path.exists());
        sink.keep(&hash, part).unwrap();
        assert!(sink.has(&hash).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"object");

        fs::write(&path, "damaged").unwrap();
        assert!(!sink.has(&hash).unwrap());
        fs::remove_file(&path).unwrap();
        let elsewhere = stage.path("elsewhere");
        fs::write(&elsewhere, "object").unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(!sink.has(&hash).unwrap(), "a link is not followed");
    }

    #[test]
    fn a_record_comes_back_and_a_broken_file_gives_none() {
        let stage = Stage::new();
        let mut sink = stage.open().unwrap();
        assert_eq!(sink.in_place().unwrap(), None);
        sink.hand_over(b"the record").unwrap();
        assert_eq!(sink.in_place().unwrap().as_deref(), Some(&b"the record"[..]));
        let path = stage.path("drop/snapshot.cdb");
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, 2047, 2055, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            // A cut in the tables of other keys does not matter.
            let found = sink.in_place().unwrap();
            assert!(found.is_none() || found.as_deref() == Some(b"the record"), "{length}");
        }
        fs::remove_file(&path).unwrap();
        symlink(stage.path("elsewhere"), &path).unwrap();
        assert_eq!(sink.in_place().unwrap(), None);
    }

    #[test]
    fn what_was_left_of_a_killed_courier_is_swept() {
        let stage = Stage::new();
        drop(stage.open().unwrap());
        for name in ["drop/.courier/x.part", "cache/state.json.part"] {
            fs::write(stage.path(name), "half").unwrap();
        }
        fs::write(stage.path("cache/state.json"), "torn {").unwrap();
        let mut sink = stage.open().unwrap();
        assert!(!stage.path("drop/.courier/x.part").exists());
        assert!(!stage.path("cache/state.json.part").exists());
        assert_eq!(sink.recall().unwrap(), Kept::default());
    }
}
