//! What can go wrong.

use rustix::io::Errno;
use std::io;

/// A socket, its memory or its map cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// Frames cannot be of this size.
    #[error("frames of {size} bytes: a power of two from 2048 to the page size is needed")]
    FrameSize {
        /// The size that was given.
        size: u32,
    },
    /// More or fewer frames than there can be.
    #[error("{count} frames of {size} bytes: there have to be some, below 4 GiB in all")]
    FrameCount {
        /// How many were wanted.
        count: u32,
        /// The size of each.
        size: u32,
    },
    /// Headroom that leaves no room for a packet.
    #[error("headroom of {headroom} bytes leaves no room in frames of {size}")]
    Headroom {
        /// The headroom.
        headroom: u32,
        /// The size of each frame.
        size: u32,
    },
    /// A ring cannot be of this size.
    #[error("a ring of {size} entries: a power of two is needed{}", none_hint(*size))]
    RingSize {
        /// The size that was given.
        size: u32,
    },
    /// A socket that neither receives nor sends.
    #[error("a socket needs a receive ring or a transmit ring")]
    NoRing,
    /// The kernel says no.
    #[error("cannot {what}: {source}{hint}")]
    Os {
        /// What failed.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
        /// What that means there, after a colon; or nothing.
        hint: &'static str,
    },
}

fn none_hint(size: u32) -> &'static str {
    if size == 0 { ", and fill and completion ring have to be there" } else { "" }
}

/// Says what `errno` means for `what`.
pub(crate) fn failed(what: &'static str, errno: Errno) -> XskError {
    let hint = match (what, errno) {
        (_, Errno::PERM | Errno::ACCESS) if what == OPEN => ": this takes CAP_NET_RAW",
        (_, Errno::PERM | Errno::ACCESS) if what == MAP => {
            ": this takes CAP_BPF, or a daemon that does it"
        }
        (OPEN, Errno::AFNOSUPPORT) => ": this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
        (UMEM, Errno::NOBUFS | Errno::NOMEM) => {
            ": the memory is locked: raise RLIMIT_MEMLOCK (`ulimit -l`), or take fewer frames"
        }
        (BIND, Errno::NODEV) => ": there is no such interface here",
        (BIND, Errno::NETDOWN) => ": the interface is down",
        (BIND, Errno::INVAL) => {
            ": there is no such queue, or the driver cannot do what was asked for"
        }
        (BIND, Errno::BUSY) => ": the queue has a socket already",
        (BIND, Errno::OPNOTSUPP) => ": the driver cannot do it without copying",
        _ => "",
    };
    XskError::Os { what, source: errno.into(), hint }
}

pub(crate) const OPEN: &str = "open an AF_XDP socket";
pub(crate) const UMEM: &str = "register packet memory";
pub(crate) const RINGS: &str = "set up a ring";
pub(crate) const BIND: &str = "bind to the queue";
pub(crate) const MAP: &str = "put the socket into the XSKMAP";
