//! Network namespaces: opened for one look, entered by threads that end.

mod inhabited;

use crate::NetlinkError;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use pointsman_model::document::NamespaceSpec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

/// A network namespace that is held open.
///
/// While it is open the kernel keeps the namespace and its interfaces, even after `ip netns del`
/// or the end of a container, and hardware does not come back to the host. So drop it after one
/// look.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    file: OwnedFd,
}

/// Tells one network namespace from another as long as either lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

/// A network namespace cannot be used. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else. `ip netns add` makes the file first and mounts then.
    #[error("{} is no network namespace", path.display())]
    NoNamespace {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error("cannot enter {}: {source}{}", path.display(), enter_hint(source))]
    Enter {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// `NSFS_MAGIC` of `linux/magic.h`: what files of namespaces lie on.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Reading netlink and attaching a program need a fraction of it.
const STACK: usize = 512 << 10;

impl NamespaceId {
    /// The inode, by which people know it: `net:[INODE]`.
    #[must_use]
    pub fn inode(self) -> u64 {
        self.inode
    }
}

impl Namespace {
    /// Opens the network namespace at `path`, such as `/run/netns/NAME` or `/proc/PID/ns/net`. A path
    /// that means an inode ([`NamespaceSpec::sought`]) is that of any process that is in it.
    ///
    /// # Errors
    /// [`NamespaceError`]: there is none, or this process may not look into it.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        match NamespaceSpec::sought(path) {
            Some(inode) => {
                let found = inhabited::find(inode)
                    .ok_or(NamespaceError::Missing { path: path.to_owned() })?;
                Ok(Self { path: path.to_owned(), file: found.file })
            }
            None => Self::open_file(path),
        }
    }

    fn open_file(path: &Path) -> Result<Self, NamespaceError> {
        let path = path.to_owned();
        // Opening something else, a pipe or a device, could wait or do something.
        let place = match rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(place) => place,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(NamespaceError::Missing { path }),
            Err(errno) => return Err(NamespaceError::Open { path, source: errno.into() }),
        };
        let opened = rustix::fs::fstatfs(&place).and_then(|stat| {
            if u64::try_from(stat.f_type) != Ok(NSFS_MAGIC) {
                return Ok(None);
            }
            let same = format!("/proc/self/fd/{}", place.as_raw_fd());
            rustix::fs::open(same, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(Some)
        });
        match opened {
            Ok(Some(file)) => Ok(Self { path, file }),
            Ok(None) => Err(NamespaceError::NoNamespace { path }),
            Err(errno) => Err(NamespaceError::Open { path, source: errno.into() }),
        }
    }

    /// Opens the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NamespaceError`]: `/proc` is not mounted.
    pub fn own() -> Result<Self, NamespaceError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// One that is open already; `path` says in errors where it came from.
    pub(crate) fn from_file(path: PathBuf, file: OwnedFd) -> Self {
        Self { path, file }
    }

    /// Which namespace it is.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn id(&self) -> Result<NamespaceId, NamespaceError> {
        let failed =
            |errno: Errno| NamespaceError::Open { path: self.path.clone(), source: errno.into() };
        let stat = rustix::fs::fstat(&self.file).map_err(failed)?;
        Ok(NamespaceId { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Runs `work` inside, on a thread that ends with it. The calling thread stays where it is.
    ///
    /// # Errors
    /// [`NamespaceError::Enter`]: this takes `CAP_SYS_ADMIN`, or no thread could be had. Then
    /// `work` was not run.
    ///
    /// # Panics
    /// `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        let failed = |source| NamespaceError::Enter { path: self.path.clone(), source };
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("namespace".into()).stack_size(STACK);
            let inside = builder.spawn_scoped(scope, || {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.file.as_fd(), network).map(|()| work())
            });
            match inside.map_err(failed)?.join() {
                Ok(done) => done.map_err(|errno| match errno {
                    Errno::INVAL => NamespaceError::NoNamespace { path: self.path.clone() },
                    errno => failed(errno.into()),
                }),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Lets [`Events`](crate::Events) of the calling thread's namespace hear of the interfaces in
    /// this one: the kernel passes events on from namespaces that have a number there
    /// (net/netlink/af_netlink.c, `do_one_broadcast`). A number keeps no namespace alive.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn listen(&self) -> Result<(), NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        let mut number = NsidMessage::default();
        let file = u32::try_from(self.file.as_raw_fd()).map_err(io::Error::other)?;
        // -1: any that is free.
        number.attributes = vec![NsidAttribute::Fd(file), NsidAttribute::Id(-1)];
        let payload = NetlinkPayload::from(RouteNetlinkMessage::NewNsId(number));
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        socket.send(&bytes, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)?;
        let NetlinkPayload::Error(answer) = answer.payload else { return Ok(()) };
        match answer.code {
            // Zero is the acknowledgement.
            None => Ok(()),
            Some(_) if answer.to_io().kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Some(_) => Err(answer.to_io().into()),
        }
    }
}

fn enter_hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) => ": this takes CAP_SYS_ADMIN, here and there",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn what_is_no_network_namespace_is_named_and_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blue");
        let missing = Namespace::open(&path).unwrap_err();
        assert!(matches!(&missing, NamespaceError::Missing { path: named } if *named == path));
        File::create(&path).unwrap();
        let message = Namespace::open(&path).unwrap_err().to_string();
        assert_eq!(message, format!("{} is no network namespace", path.display()));
        let fifo = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        // Opened as a file it would wait for a writer.
        for other in [fifo.as_path(), Path::new("/proc/self/status"), directory.path()] {
            let error = Namespace::open(other).unwrap_err();
            assert!(matches!(error, NamespaceError::NoNamespace { .. }), "{error}");
        }
        let below = Namespace::open(&path.join("deeper")).unwrap_err();
        assert!(matches!(below, NamespaceError::Missing { .. }), "{below}");
    }

    #[test]
    fn a_process_is_in_the_namespace_that_its_threads_are_in() {
        let own = Namespace::own().unwrap();
        let by_pid = Namespace::open(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(own.id().unwrap(), by_pid.id().unwrap());
    }

    #[test]
    fn namespaces_of_another_kind_are_refused() {
        let other = Namespace::open(Path::new("/proc/self/ns/uts")).unwrap();
        let error = other.enter(|| ()).unwrap_err();
        // Without privileges the kernel answers before it looks at the kind.
        let known =
            matches!(error, NamespaceError::NoNamespace { .. } | NamespaceError::Enter { .. });
        assert!(known && error.to_string().contains("/proc/self/ns/uts"), "{error}");
    }
}
