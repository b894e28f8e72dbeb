//! Which user is at the other end of a connection.

use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// The user who connected, by number, as the kernel noted it (`SO_PEERCRED`, unix(7)).
///
/// Not rustix's: it takes the peer's process for one that is there, and in a PID namespace of our
/// own its number is 0.
#[expect(unsafe_code, reason = "getsockopt writes into a structure of the caller's")]
pub(crate) fn user(socket: impl AsFd) -> Result<u32, Errno> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&peer)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the pointers are to a `ucred` of this frame and to its length, which bounds what the
    // kernel writes; the descriptor is open as long as `socket` is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(peer.uid),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_user_of_a_pair_is_oneself() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert_eq!(user(&one), Ok(rustix::process::geteuid().as_raw()));
    }
}
