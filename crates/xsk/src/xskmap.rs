//! An XSKMAP: which socket gets the packets of which queue.

use crate::XskError;
use crate::error::{MAP, failed};
use crate::tune::last_error;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A map of type `BPF_MAP_TYPE_XSKMAP`, by its descriptor: one that was pinned, or that somebody
/// handed over.
#[derive(Debug)]
pub struct XskMap(OwnedFd);

/// The members of `union bpf_attr` (`linux/bpf.h`) for `BPF_MAP_UPDATE_ELEM` and
/// `BPF_MAP_DELETE_ELEM`.
#[derive(Default)]
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Likewise for `BPF_OBJ_GET`.
#[derive(Default)]
#[repr(C)]
struct Object {
    path: u64,
    file: u32,
    flags: u32,
}

const UPDATE: libc::c_int = 2;
const DELETE: libc::c_int = 3;
const GET: libc::c_int = 7;

impl From<OwnedFd> for XskMap {
    fn from(map: OwnedFd) -> Self {
        Self(map)
    }
}

impl XskMap {
    /// Opens one that is pinned.
    ///
    /// # Errors
    /// [`XskError`]: there is none, or this process may not.
    pub fn open(path: &Path) -> Result<Self, XskError> {
        const OPEN: &str = "open the XSKMAP";
        let path = CString::new(path.as_os_str().as_bytes());
        let path = path.map_err(|_| failed(OPEN, rustix::io::Errno::INVAL))?;
        let mut object = Object { path: path.as_ptr().addr() as u64, ..Object::default() };
        let file = call(GET, &mut object).map_err(|errno| failed(OPEN, errno))?;
        // SAFETY: the kernel has just made this descriptor, for nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(file) }))
    }

    /// Sends the packets of a queue to `socket`, which is bound to that queue. It leaves the map by
    /// itself when it is closed.
    ///
    /// # Errors
    /// [`XskError`]: the map is none, or has no such queue, or this process may not (`CAP_BPF`).
    pub fn insert(&self, queue: u32, socket: impl AsFd) -> Result<(), XskError> {
        let value = socket.as_fd().as_raw_fd().cast_unsigned();
        let mut element = self.element(&queue);
        element.value = (&raw const value).addr() as u64;
        call(UPDATE, &mut element).map(drop).map_err(|errno| failed(MAP, errno))
    }

    /// Takes the socket of a queue out.
    ///
    /// # Errors
    /// [`XskError`]: there is none.
    pub fn remove(&self, queue: u32) -> Result<(), XskError> {
        let what = "take the socket out of the XSKMAP";
        call(DELETE, &mut self.element(&queue)).map(drop).map_err(|errno| failed(what, errno))
    }

    fn element(&self, queue: &u32) -> Element {
        Element {
            map: self.0.as_raw_fd().cast_unsigned(),
            key: std::ptr::from_ref(queue).addr() as u64,
            ..Element::default()
        }
    }
}

/// `bpf(2)`. `T` is a beginning of `union bpf_attr` whose addresses are of live values.
fn call<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_int, rustix::io::Errno> {
    // SAFETY: the structure is as large as it says; its addresses are of the callers' values, which
    // outlive the call and are as large as a key or a value of an XSKMAP (four bytes), or a string.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    match libc::c_int::try_from(done) {
        Ok(done) if done >= 0 => Ok(done),
        _ => Err(last_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_map_is_not_taken_for_one() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let map = XskMap::from(OwnedFd::from(file));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let message = map.insert(0, &socket).unwrap_err().to_string();
        assert!(message.starts_with("cannot put the socket into the XSKMAP"), "{message}");
        assert!(map.remove(0).is_err());
        assert!(XskMap::open(Path::new("/no/such/pin")).is_err());
        assert!(XskMap::open(Path::new("a\0b")).is_err());
    }
}
