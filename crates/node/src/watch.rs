//! Notices that the watched document was replaced.
//!
//! The directory is watched, not the file: a document is replaced by renaming a finished file over
//! it, which gives it a new inode every time.

use crate::store::read_open;
use pointsman_model::document::{DocumentError, MAX_BYTES};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A watched document.
#[derive(Debug)]
pub struct Watch {
    document: PathBuf,
    name: OsString,
    inotify: OwnedFd,
}

/// The document cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The path names no file.
    #[error("--document {} names no file", document.display())]
    NoName {
        /// The path.
        document: PathBuf,
    },
    /// The directory cannot be watched.
    #[error(
        "cannot watch directory {} of the document: {source}; create it, or name another document \
         with --document", directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The directory was removed or moved away while it was watched.
    #[error(
        "directory {} of the document is gone: changes are not noticed any more; create it again \
         and restart the daemon", directory.display()
    )]
    Gone {
        /// The directory.
        directory: PathBuf,
    },
}

impl Watch {
    /// Starts watching. What is changed from now on is noticed by [`Self::run`].
    ///
    /// # Errors
    /// [`WatchError`] naming the directory.
    pub fn start(document: &Path) -> Result<Self, WatchError> {
        let no_name = || WatchError::NoName { document: document.to_owned() };
        let name = document.file_name().ok_or_else(no_name)?.to_owned();
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        // MOVED_TO: renamed over. CLOSE_WRITE: edited in place. CREATE: linked into place.
        let events = WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let directory = directory(document);
        let inotify = inotify::init(flags)
            .and_then(|fd| inotify::add_watch(&fd, directory, events).map(|_| fd))
            .map_err(|errno| WatchError::Directory {
                directory: directory.to_owned(),
                source: errno.into(),
            })?;
        Ok(Self { document: document.to_owned(), name, inotify })
    }

    /// Calls `changed` whenever the document was replaced, for as long as its directory is there.
    /// Blocks; for a thread of its own.
    pub fn run(&self, changed: impl Fn()) -> WatchError {
        loop {
            match self.wait().and_then(|()| self.drain()) {
                Ok(Events { gone: true, .. }) => {
                    return WatchError::Gone { directory: directory(&self.document).to_owned() };
                }
                Ok(Events { changed: true, .. }) => changed(),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    return WatchError::Directory {
                        directory: directory(&self.document).to_owned(),
                        source: errno.into(),
                    };
                }
            }
        }
    }

    fn wait(&self) -> Result<(), Errno> {
        poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], None).map(drop)
    }

    /// Whether the document has no byte yet: it was created to be written.
    fn is_empty(&self) -> bool {
        self.document.symlink_metadata().is_ok_and(|about| about.is_file() && about.len() == 0)
    }

    /// Reads what has happened; any number of changes are one.
    fn drain(&self) -> Result<Events, Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut events = Events::default();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(events),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let flags = event.events();
            let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED;
            events.gone |= flags.intersects(gone);
            // After an overflow anything may have happened.
            events.changed |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
            if event.file_name().is_some_and(|name| name.to_bytes() == self.name.as_bytes()) {
                // Also one that was only created so far, but not an empty one: whether its writer is
                // at work, or linked it into place whole, cannot be told. A torn document is refused,
                // and closing it gives another event.
                let created = flags.contains(ReadFlags::CREATE);
                events.changed |= !created || !self.is_empty();
            }
        }
    }
}

#[derive(Debug, Default)]
struct Events {
    changed: bool,
    gone: bool,
}

fn directory(document: &Path) -> &Path {
    match document.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Reads the watched document; `None`: there is none.
///
/// # Errors
/// What is wrong with the file. It must be a regular file of at most [`MAX_BYTES`]: a symbolic
/// link could be pointed elsewhere without any event here.
pub fn read(document: &Path) -> Result<Option<Vec<u8>>, DocumentError> {
    let error = |message: String| DocumentError { pointer: String::new(), message };
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let mut file = match rustix::fs::open(document, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => {
            return Err(error(format!(
                "{} is a symbolic link, behind which changes are not noticed; name its target \
                 with --document, or put the file itself there",
                document.display()
            )));
        }
        Err(errno) => {
            return Err(error(format!("cannot read {}: {errno}", document.display())));
        }
    };
    read_open(&mut file, MAX_BYTES)
        .map(Some)
        .map_err(|why| error(format!("cannot read {}: {why}", document.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType};
    use std::fs;

    fn events(watch: &Watch) -> (bool, bool) {
        let Events { changed, gone } = watch.drain().unwrap();
        (changed, gone)
    }

    #[test]
    fn renamed_edited_and_linked_documents_are_noticed_and_neighbours_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let document = directory.path().join("node.json");
        let aside = directory.path().join("node.json.new");
        let watch = Watch::start(&document).unwrap();
        fs::write(&aside, "{}").unwrap();
        assert_eq!(events(&watch), (false, false));
        fs::rename(&aside, &document).unwrap();
        assert_eq!(events(&watch), (true, false));
        fs::write(&document, "{ }").unwrap();
        assert_eq!(events(&watch), (true, false));
        fs::remove_file(&document).unwrap();
        assert_eq!(events(&watch), (false, false));
        let file = File::create(&document).unwrap();
        assert_eq!(events(&watch), (false, false), "still being written");
        drop(file);
        assert_eq!(events(&watch), (true, false));
        fs::rename(&document, &aside).unwrap();
        fs::write(&aside, "{}").unwrap();
        fs::hard_link(&aside, &document).unwrap();
        // As link(2) and unlink(2) do it, before anybody looks.
        fs::remove_file(&aside).unwrap();
        assert_eq!(events(&watch), (true, false));
        fs::remove_dir_all(directory.path()).unwrap();
        assert!(watch.drain().unwrap().gone);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = Watch::start(&directory.path().join("none/node.json")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("none") && text.contains("--document"), "{text}");
    }

    #[test]
    fn only_a_regular_file_of_a_sane_size_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.json");
        assert_eq!(read(&path).unwrap(), None);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(read(&path).unwrap_err().message.contains("regular file"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(read(&path).unwrap_err().message.contains("symbolic link"));
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(MAX_BYTES as u64 + 1).unwrap();
        assert!(read(&path).unwrap_err().message.contains("larger than the limit"));
        fs::write(&path, "{}").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"{}"[..]));
    }
}
