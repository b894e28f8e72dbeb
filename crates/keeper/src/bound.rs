//! Whether a socket that somebody kept is the one that it should be, as the kernel tells.

use crate::link::Kind;
use crate::listen::{ListenError, socket_type};
use rustix::fs::fstat;
use rustix::net::sockopt::{
    Timeout, set_socket_timeout, socket_acceptconn, socket_type as type_of,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, getsockname,
    netlink, recv, send, socket_with,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// The kernel answers at once; a test or a seccomp filter that answers never must not hold us up.
const PATIENCE: Duration = Duration::from_secs(1);

// linux/sock_diag.h, linux/unix_diag.h, linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_VFS: u32 = 2;
const UNIX_DIAG_VFS: u16 = 1;
const HEADER: usize = 16;
const MESSAGE: usize = 16;

/// Makes sure that `socket` listens at `path` for connections of this kind, and that the file there,
/// with this inode, is its own. The last only where the kernel tells (`CONFIG_UNIX_DIAG`).
///
/// # Errors
/// [`ListenError::Strange`] with what it is instead.
pub(crate) fn check(
    socket: &OwnedFd,
    path: &Path,
    kind: Kind,
    inode: u64,
) -> Result<(), ListenError> {
    let strange = |what: &'static str| ListenError::Strange { path: path.to_owned(), what };
    let address =
        getsockname(socket).ok().and_then(|address| SocketAddrUnix::try_from(address).ok());
    let Some(address) = address else { return Err(strange("is no local socket")) };
    if address.path_bytes() != Some(path.as_os_str().as_bytes()) {
        return Err(strange("is bound elsewhere"));
    }
    if type_of(socket) != Ok(socket_type(kind)) {
        return Err(strange("is of another type"));
    }
    if socket_acceptconn(socket) != Ok(true) {
        return Err(strange("does not listen"));
    }
    // The kernel tells the lower half (net/unix/diag.c, `sk_diag_dump_vfs`).
    match bound_inode(socket) {
        Ok(bound) if bound != inode as u32 => Err(strange("is not the one that lies there by now")),
        _ => Ok(()),
    }
}

/// The inode of the file that a local socket is bound to, as far as 32 bits hold it.
fn bound_inode(socket: impl AsFd) -> io::Result<u32> {
    let number = fstat(socket)?.st_ino as u32;
    let diag = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    set_socket_timeout(&diag, Timeout::Recv, Some(PATIENCE))?;
    send(&diag, &question(number), SendFlags::NOSIGNAL)?;
    let mut answer = [0; 1024];
    let (length, _) = recv(&diag, &mut answer, RecvFlags::empty())?;
    inode_in(&answer[..length]).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Asks about the local socket with this inode of sockfs.
fn question(number: u32) -> [u8; HEADER + 24] {
    let mut bytes = [0; HEADER + 24];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    // struct nlmsghdr: length, type, flags, sequence, port.
    put(&((HEADER + 24) as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&[0; 8]);
    // struct unix_diag_req: family, protocol, padding, states, inode, what to show, no cookie.
    put(&[AddressFamily::UNIX.as_raw() as u8, 0, 0, 0]);
    put(&u32::MAX.to_ne_bytes());
    put(&number.to_ne_bytes());
    put(&UDIAG_SHOW_VFS.to_ne_bytes());
    put(&[0xff; 8]);
    bytes
}

/// Reads the answer: behind both headers attributes, each with its length and type.
fn inode_in(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let mut rest = answer.get(HEADER + MESSAGE..).filter(|_| kind == SOCK_DIAG_BY_FAMILY)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        // struct unix_diag_vfs: inode, device.
        if kind == UNIX_DIAG_VFS && length >= 12 {
            return Some(u32::from_ne_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    #[test]
    fn a_socket_is_what_the_kernel_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let inode = || std::fs::symlink_metadata(&path).unwrap().ino();
        let check = |socket: OwnedFd, kind| {
            let error = check(&socket, &path, kind, inode()).err();
            error.map(|error| error.to_string()).unwrap_or_default()
        };
        let listener = UnixListener::bind(&path).unwrap();
        let copy = || OwnedFd::from(listener.try_clone().unwrap());
        assert_eq!(check(copy(), Kind::Imtl), "");
        assert!(check(copy(), Kind::Native).contains("of another type"));
        let (pair, _other) = UnixStream::pair().unwrap();
        assert!(check(pair.into(), Kind::Imtl).contains("bound elsewhere"));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(check(file.into(), Kind::Imtl).contains("no local socket"));
        let elsewhere = UnixListener::bind(directory.path().join("t")).unwrap();
        assert!(check(elsewhere.into(), Kind::Imtl).contains("bound elsewhere"));
        // Bound to the path, and nobody can connect.
        std::fs::remove_file(&path).unwrap();
        let silent =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let silent = silent.unwrap();
        rustix::net::bind(&silent, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert!(check(silent, Kind::Imtl).contains("does not listen"));
        std::fs::remove_file(&path).unwrap();
        let datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(check(datagrams.into(), Kind::Imtl).contains("another type"));
    }

    #[test]
    fn another_socket_at_the_same_path_is_told_from_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let ours = UnixListener::bind(&path).unwrap();
        if bound_inode(&ours).is_err() {
            println!("SKIP another_socket_at_the_same_path_is_told_from_it: no CONFIG_UNIX_DIAG");
            return;
        }
        std::fs::remove_file(&path).unwrap();
        let theirs = UnixListener::bind(&path).unwrap();
        let inode = std::fs::symlink_metadata(&path).unwrap().ino();
        let text = check(&ours.into(), &path, Kind::Imtl, inode).unwrap_err().to_string();
        assert!(text.contains("not the one that lies there"), "{text}");
        check(&theirs.into(), &path, Kind::Imtl, inode).unwrap();
    }

    #[test]
    fn answers_that_are_cut_or_odd_say_nothing() {
        let mut answer = vec![0; HEADER + MESSAGE];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        // A name of 5 bytes comes first.
        answer.extend_from_slice(&[9_u16.to_ne_bytes(), 0_u16.to_ne_bytes()].concat());
        answer.extend_from_slice(b"/run\0\0\0\0");
        answer.extend_from_slice(&[12_u16.to_ne_bytes(), UNIX_DIAG_VFS.to_ne_bytes()].concat());
        answer.extend_from_slice(&[4711_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
        assert_eq!(inode_in(&answer), Some(4711));
        for cut in 0..answer.len() - 4 {
            assert_eq!(inode_in(&answer[..cut]), None, "{cut}");
        }
        for at in 32..answer.len() {
            let mut odd = answer.clone();
            odd[at] = 0;
            let _ = inode_in(&odd);
            odd[at] = 0xff;
            let _ = inode_in(&odd);
        }
        // An error of the kernel's.
        answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(inode_in(&answer), None);
    }
}
