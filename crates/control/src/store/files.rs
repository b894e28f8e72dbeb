//! A store in a directory: what lies under a blob's name has to be a file of that directory.
//!
//! The library follows links. Whoever may write to the directory, and to nothing else, could have
//! this process read any file of its own, the signing key among them, and serve it.

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A file, whatever it is called by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// The file that lies under a name, without following a link; `None`: there is none. It may be
/// another one a moment later.
///
/// # Errors
/// It is a link, or lies in a directory that is one, or is no file; or the kernel says no.
pub(super) fn plain(directory: &Path, name: &str) -> io::Result<Option<Identity>> {
    // Nothing is opened for reading: a pipe would have us wait.
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let step = |from: &OwnedFd, part: &str, more: OFlags| {
        openat(from, part, place | OFlags::NOFOLLOW | more, Mode::empty())
    };
    let found = (|| -> io::Result<Metadata> {
        let mut from = open(directory, place | OFlags::DIRECTORY, Mode::empty())?;
        let (above, last) = name.rsplit_once('/').unwrap_or(("", name));
        for part in above.split('/').filter(|part| !part.is_empty()) {
            from = step(&from, part, OFlags::DIRECTORY)?;
        }
        File::from(step(&from, last, OFlags::empty())?).metadata()
    })();
    let is_no_file = || io::Error::other("it is a link, or no file: links are not followed here");
    match found {
        Ok(metadata) if metadata.is_file() => Ok(Some(identity(&metadata))),
        Ok(_) => Err(is_no_file()),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::LOOP | Errno::NOTDIR) => Err(is_no_file()),
            Some(Errno::NOENT) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Which file one has open.
///
/// # Errors
/// The kernel does not say.
pub(super) fn opened(file: &File) -> io::Result<Identity> {
    Ok(identity(&file.metadata()?))
}

fn identity(metadata: &Metadata) -> Identity {
    Identity { device: metadata.dev(), inode: metadata.ino() }
}
