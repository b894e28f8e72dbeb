//! The listening sockets: bound so that one that answers is never taken over, removed at the end.

use crate::bound;
use crate::link::Kind;
use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, flock, fstat, open, stat};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// How many connections wait to be accepted. The kernel cuts it down to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// A socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub path: PathBuf,
    /// What is spoken there.
    pub kind: Kind,
    /// Who may connect, as the bits of a file's mode.
    pub mode: u32,
    /// Whom it belongs to; without it, the group of this process.
    pub group: Option<u32>,
}

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody serves there.
    #[error(
        "{} is in use: another manager answers there; stop it, or name another path",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error("{} is no socket; remove it, or name another path", path.display())]
    NoSocket {
        /// What lies there.
        path: PathBuf,
    },
    /// The service manager kept something, and it is not the socket that lies there.
    #[error("the socket that was kept for {} {what}: a new one is made", path.display())]
    Strange {
        /// Where it should be bound.
        path: PathBuf,
        /// What is the matter.
        what: &'static str,
    },
    /// The kernel takes 107 bytes for a socket's path (unix(7)).
    #[error("{} is too long for a socket: at most 107 bytes", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A socket that is listened on.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    pub(crate) kind: Kind,
    path: PathBuf,
    /// What we bound: device and inode.
    bound: (u64, u64),
    /// Held for life: who starts at the same moment must not take our socket for a stale one.
    _lock: OwnedFd,
}

impl Listener {
    /// Listens on `listen`. A socket that nobody answers on is replaced; its directory is made if
    /// only that is missing.
    pub(crate) fn bind(listen_on: &Listen) -> Result<Self, ListenError> {
        let Listen { path, kind, .. } = listen_on;
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source: Errno| ListenError::Io { what, path, source: source.into() }
        };
        let address =
            SocketAddrUnix::new(path).map_err(|_| ListenError::TooLong { path: path.clone() })?;
        if let Some(directory) = path.parent() {
            make_directory(directory).map_err(|source| {
                let path = directory.to_owned();
                ListenError::Io { what: "create", path, source }
            })?;
        }
        let lock = take_lock(path)?;
        remove_stale(path, &address)?;
        let socket = unix_socket(*kind).map_err(io("open a socket for", path))?;
        bind(&socket, &address).map_err(io("bind", path))?;
        let (file, bound) = find_socket(path)?;
        let listener = Self { socket, kind: *kind, path: path.clone(), bound, _lock: lock };
        set_rights(listen_on, &file)?;
        // Only now can anybody connect, so rights hold from the first moment.
        listen(&listener.socket, BACKLOG).map_err(io("listen on", path))?;
        Ok(listener)
    }

    /// Listens on a socket that the service manager kept, if it is the one that lies there still.
    pub(crate) fn adopt(listen_on: &Listen, socket: OwnedFd) -> Result<Self, ListenError> {
        let Listen { path, kind, .. } = listen_on;
        let lock = take_lock(path)?;
        let (file, bound) = Self::fits(listen_on, &socket)?;
        // Whoever kept it may have got it from somebody who waits in accept(2).
        ioctl_fionbio(&socket, true).map_err(|source| ListenError::Io {
            what: "take over",
            path: path.clone(),
            source: source.into(),
        })?;
        // They may have been changed since.
        set_rights(listen_on, &file)?;
        Ok(Self { socket, kind: *kind, path: path.clone(), bound, _lock: lock })
    }

    /// Whether `socket` is the one to listen on: it is bound to the file that lies there now, which
    /// is given with its device and inode.
    pub(crate) fn fits(
        Listen { path, kind, .. }: &Listen,
        socket: &OwnedFd,
    ) -> Result<(OwnedFd, (u64, u64)), ListenError> {
        let (file, bound) = find_socket(path)?;
        bound::check(socket, path, *kind, bound.1)?;
        Ok((file, bound))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the socket where it is, for the keeper to come.
    pub(crate) fn leave(mut self) {
        self.bound = (0, 0);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // What somebody else has put in its place is not ours to remove.
        if stat(&self.path).is_ok_and(|found| (found.st_dev, found.st_ino) == self.bound) {
            let _ = std::fs::remove_file(&self.path);
        }
        let _ = std::fs::remove_file(lock_path(&self.path));
    }
}

/// Makes the directory of a socket if only that is missing. Clients of any user have to find the
/// socket in it, whatever our umask is, and nobody else may put another one in its place: one of
/// ours that is there, and that everybody may write to as they like, loses that right.
fn make_directory(path: &Path) -> io::Result<()> {
    let mode = match std::fs::create_dir(path) {
        Ok(()) => Mode::from_raw_mode(0o755),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let Ok(found) = stat(path) else { return Ok(()) };
            let mode = Mode::from_raw_mode(found.st_mode);
            let everybody = mode.contains(Mode::WOTH) && !mode.contains(Mode::SVTX);
            if !everybody || found.st_uid != rustix::process::geteuid().as_raw() {
                return Ok(());
            }
            mode - Mode::WOTH
        }
        Err(error) => return Err(error),
    };
    Ok(rustix::fs::chmod(path, mode)?)
}

/// Who may connect: the group and the mode of the file.
fn set_rights(
    Listen { path, mode, group, .. }: &Listen,
    file: &OwnedFd,
) -> Result<(), ListenError> {
    let io = |what| {
        let path = path.clone();
        move |source: Errno| ListenError::Io { what, path, source: source.into() }
    };
    if let Some(group) = group {
        let group = Some(Gid::from_raw(*group));
        rustix::fs::chownat(file, "", None, group, AtFlags::EMPTY_PATH)
            .map_err(io("give a group to"))?;
    }
    // A descriptor of a path takes no fchmod(2), but has a name of its own.
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::chmod(name, Mode::from_raw_mode(*mode)).map_err(io("set the mode of"))
}

/// What is spoken on decides how bytes are kept apart.
pub(crate) fn socket_type(kind: Kind) -> SocketType {
    match kind {
        Kind::Imtl => SocketType::STREAM,
        Kind::Native => SocketType::SEQPACKET,
    }
}

fn unix_socket(kind: Kind) -> Result<OwnedFd, Errno> {
    let kind = socket_type(kind);
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// The socket that lies at a path, with its device and inode. Whoever may write to the directory
/// can put a symbolic link in its place: that is followed to nothing.
fn find_socket(path: &Path) -> Result<(OwnedFd, (u64, u64)), ListenError> {
    let io = |source: Errno| ListenError::Io {
        what: "look at",
        path: path.to_owned(),
        source: source.into(),
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(io)?;
    let found = fstat(&file).map_err(io)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(ListenError::NoSocket { path: path.to_owned() });
    }
    Ok((file, (found.st_dev, found.st_ino)))
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn take_lock(socket: &Path) -> Result<OwnedFd, ListenError> {
    let path = lock_path(socket);
    let io =
        |source: Errno| ListenError::Io { what: "lock", path: path.clone(), source: source.into() };
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        let file = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(ListenError::InUse { path: socket.to_owned() });
            }
            Err(error) => return Err(io(error)),
        }
        // Its last holder removes it at its end: what we hold may not be there any more.
        let held = rustix::fs::fstat(&file).map_err(io)?;
        if stat(&path).is_ok_and(|there| (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino))
        {
            return Ok(file);
        }
    }
}

/// Removes a socket that nobody listens on, and nothing else.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let io = |what| {
        move |source: Errno| ListenError::Io { what, path: path.to_owned(), source: source.into() }
    };
    match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(io("look at")(error)),
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Socket => {
            return Err(ListenError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let probe = unix_socket(Kind::Imtl).map_err(io("open a socket for"))?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // Its queue is full, or it speaks otherwise: somebody listens.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            return Err(ListenError::InUse { path: path.to_owned() });
        }
        Err(error) => return Err(io("ask who serves")(error)),
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(io("remove the stale socket")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn at(path: &Path) -> Listen {
        Listen { path: path.to_owned(), kind: Kind::Imtl, mode: 0o640, group: None }
    }

    #[test]
    fn b_23_a_socket_that_answers_is_never_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mtl_manager.sock");
        // The original, which knows no lock.
        let other = UnixListener::bind(&path).unwrap();
        let text = Listener::bind(&at(&path)).unwrap_err().to_string();
        assert!(text.contains("in use") && text.contains("mtl_manager.sock"), "{text}");
        UnixStream::connect(&path).expect("the other one serves on");
        drop(other);
        // Stale now.
        let ours = Listener::bind(&at(&path)).unwrap();
        assert!(matches!(Listener::bind(&at(&path)), Err(ListenError::InUse { .. })));
        UnixStream::connect(&path).expect("ours serves");
        drop(ours);
        std::fs::remove_file(&path).unwrap_err();
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 0, "B-30: nothing is left behind");

        let other = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&at(&path)), Err(ListenError::InUse { .. })));
        drop(other);
    }

    #[test]
    fn a_link_in_the_place_of_the_socket_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [target, link] = ["target", "link"].map(|name| directory.path().join(name));
        let _target = UnixListener::bind(&target).unwrap();
        find_socket(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(find_socket(&link), Err(ListenError::NoSocket { .. })));
    }

    #[test]
    fn only_sockets_are_replaced_and_only_ours_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made").join("socket");
        let ours = Listener::bind(&at(&path)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody else's").unwrap();
        drop(ours);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody else's");
        let text = Listener::bind(&at(&path)).unwrap_err().to_string();
        assert!(text.contains("is no socket"), "{text}");

        let parent = path.parent().unwrap();
        let mode_of = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode_of(parent), 0o755, "whatever the umask");
        for (before, after) in [(0o777, 0o775), (0o1777, 0o1777), (0o700, 0o700)] {
            let mode = std::fs::Permissions::from_mode(before);
            std::fs::set_permissions(parent, mode).unwrap();
            drop(Listener::bind(&at(&parent.join("other"))).unwrap());
            assert_eq!(mode_of(parent), after, "{before:o}");
        }

        let long = directory.path().join("n".repeat(120));
        let text = Listener::bind(&at(&long)).unwrap_err().to_string();
        assert!(text.contains("107"), "{text}");
    }
}
