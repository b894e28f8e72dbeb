//! Who is at the other end of a local socket, as the kernel tells.

use crate::{Namespace, NamespaceError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Credentials of the process that connected, as they were then (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The process; `None`: it is in a pid namespace that this process does not see.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

/// Tells whether the process that connected has ended.
#[derive(Debug)]
pub struct PeerProcess(OwnedFd);

/// The most supplementary groups of a process (`NGROUPS_MAX`, linux/limits.h).
const MOST_GROUPS: usize = 65_536;

/// Reads the peer's credentials.
///
/// # Errors
/// The kernel's: this is no connected local socket.
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let socket = socket.as_fd();
    // Not rustix's: it takes a process for one that is there, and its number may be 0.
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&peer)).map_err(io::Error::other)?;
    // SAFETY: the pointers are to a `ucred` of this frame and to its length, which bounds what the
    // kernel writes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // A pair that was made without connecting has a peer too; one without any has uid -1.
    let pid = u32::try_from(peer.pid).ok().filter(|pid| *pid > 0);
    let groups = groups(socket)?;
    Ok(Credentials { pid, uid: peer.uid, gid: peer.gid, groups })
}

fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let bytes = size_of_val(groups.as_slice());
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the pointers are to the vector's elements and to their length in bytes, which
        // bounds what the kernel writes.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            let count = usize::try_from(length).unwrap_or(0) / size_of::<libc::gid_t>();
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        match Errno::from_io_error(&error) {
            // There are more: the kernel says how many (net/core/sock.c).
            Some(Errno::RANGE) if groups.len() < MOST_GROUPS => {
                groups.resize((groups.len() * 2).min(MOST_GROUPS), 0);
            }
            // A peer without any, on kernels that have no list for it.
            Some(Errno::NODATA) => return Ok(Vec::new()),
            _ => return Err(error),
        }
    }
}

/// Why the process that connected is not at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// It has ended and is forgotten. Its number may be another's by now.
    Gone,
    /// The kernel does not tell which one it is (before Linux 6.5).
    Untold,
}

impl PeerProcess {
    /// Of the peer of `socket` (`SO_PEERPIDFD`): of that process, whoever has its number by now.
    ///
    /// # Errors
    /// [`Unseen`].
    pub fn of(socket: impl AsFd) -> Result<Self, Unseen> {
        let mut file: libc::c_int = -1;
        let mut length = libc::socklen_t::try_from(size_of_val(&file)).unwrap_or(0);
        // SAFETY: the pointers are to an integer of this frame and to its length.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERPIDFD,
                (&raw mut file).cast(),
                &raw mut length,
            )
        };
        if result < 0 || file < 0 {
            // ESRCH where the kernel knows the question; EINVAL where it did so first.
            let error = io::Error::last_os_error();
            return Err(match Errno::from_io_error(&error) {
                Some(Errno::SRCH | Errno::INVAL) => Unseen::Gone,
                _ => Unseen::Untold,
            });
        }
        // SAFETY: the kernel has just made this descriptor, for nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(file) }))
    }

    /// The process that has this number now (`pidfd_open(2)`).
    ///
    /// # Errors
    /// [`Unseen::Gone`] if there is none; [`Unseen::Untold`] if the kernel does not tell.
    pub fn numbered(pid: u32) -> Result<Self, Unseen> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Unseen::Gone)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(file) => Ok(Self(file)),
            Err(Errno::SRCH) => Err(Unseen::Gone),
            Err(_) => Err(Unseen::Untold),
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut ended, Some(&NOW)).is_ok_and(|count| count > 0)
    }
}

/// The network namespace in which the peer made its end. Hold it for one look only.
///
/// # Errors
/// [`NamespaceError::Open`]: this takes `CAP_NET_ADMIN` there.
pub fn network_namespace(socket: impl AsFd) -> Result<Namespace, NamespaceError> {
    /// `SIOCGSKNS` of linux/sockios.h.
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    let path = || "of a client's socket".into();
    // SAFETY: this request takes no argument and answers with a descriptor.
    let file = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS as _, 0) };
    if file < 0 {
        return Err(NamespaceError::Open { path: path(), source: io::Error::last_os_error() });
    }
    // SAFETY: the kernel has just made this descriptor, for nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    Ok(Namespace::from_file(path(), file))
}

/// Whether the calling thread's network namespace has an interface with this number.
///
/// # Errors
/// The kernel's: a socket could not be had.
pub fn interface_exists(index: u32) -> io::Result<bool> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    match netdevice::index_to_name(&socket, index) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV | Errno::NXIO) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    #[test]
    fn a_peer_is_who_the_kernel_says() {
        let (one, _other) = UnixStream::pair().unwrap();
        let seen = credentials(&one).unwrap();
        assert_eq!(seen.pid, Some(std::process::id()));
        assert_eq!(seen.uid, rustix::process::geteuid().as_raw());
        assert_eq!(seen.gid, rustix::process::getegid().as_raw());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(credentials(&file).is_err());
    }

    #[test]
    fn a_peer_that_ended_is_known_although_its_socket_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "peer::tests::leaves_its_connection_behind", "--ignored"])
            .env("POINTSMAN_TEST_SOCKET", &path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        let (stream, _) = listener.accept().unwrap();
        let peer = PeerProcess::of(&stream);
        child.wait().unwrap();
        // Asked before its end and after it: nobody takes another one for it.
        for peer in [peer, PeerProcess::of(&stream)] {
            match peer {
                Ok(peer) => assert!(peer.has_ended()),
                Err(Unseen::Gone) => {}
                Err(Unseen::Untold) => return,
            }
        }
        assert!(!PeerProcess::of(&UnixStream::pair().unwrap().0).unwrap().has_ended());
    }

    #[test]
    fn a_process_is_found_by_its_number_as_long_as_it_is_there() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = PeerProcess::numbered(child.id()).unwrap();
        assert!(!process.has_ended());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(process.has_ended());
        assert_eq!(PeerProcess::numbered(child.id()).map(drop), Err(Unseen::Gone));
        assert_eq!(PeerProcess::numbered(0).map(drop), Err(Unseen::Gone));
        assert_eq!(PeerProcess::numbered(u32::MAX).map(drop), Err(Unseen::Gone));
    }

    /// Started by the test before: connects, hands its connection to another process, and ends.
    #[test]
    #[ignore = "it is a helper that runs in a process of its own"]
    #[expect(clippy::zombie_processes, reason = "it outlives this process: that is the point")]
    fn leaves_its_connection_behind() {
        let Some(path) = std::env::var_os("POINTSMAN_TEST_SOCKET") else { return };
        let stream = UnixStream::connect(path).unwrap();
        Command::new("cat").stdin(OwnedFd::from(stream)).spawn().unwrap();
    }

    #[test]
    fn interfaces_and_namespaces_of_this_process_are_found() {
        assert!(interface_exists(1).unwrap(), "lo");
        assert!(!interface_exists(i32::MAX as u32).unwrap());
        assert!(!interface_exists(0).unwrap() && !interface_exists(u32::MAX).unwrap());
        let (one, _other) = UnixStream::pair().unwrap();
        let Ok(namespace) = network_namespace(&one) else { return };
        assert_eq!(namespace.id().unwrap(), Namespace::own().unwrap().id().unwrap());
    }
}
