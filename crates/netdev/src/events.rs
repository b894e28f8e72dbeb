//! Word that interfaces or network namespaces changed.

use crate::NetlinkError;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// Tells that interfaces changed: those of the namespace of the thread that opened it, and those
/// of every namespace that was [listened](crate::Namespace::listen) to. Also that something was
/// mounted or unmounted, which is how `ip netns` makes and removes namespaces.
///
/// What changed is not told: who is told must look. A program that is attached or detached by a
/// link changes no interface for the kernel, and is not told of.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    /// `None`: `/proc` is not mounted, so no namespace is found by its path anyway.
    mounts: Option<File>,
}

/// `RTMGRP_LINK` of `linux/rtnetlink.h`.
const LINKS: u32 = 1;

impl Events {
    /// Starts listening. What changes from now on is told by [`Self::wait`].
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // Takes CAP_NET_BROADCAST. Without it other namespaces are silent, and who looks at them
        // must do so from time to time, as after any event that is lost.
        let _ = socket.set_listen_all_namespaces(true);
        socket.bind(&SocketAddr::new(0, LINKS))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, mounts: File::open("/proc/self/mountinfo").ok() })
    }

    /// Waits for the next change; all that happened before are one.
    ///
    /// # Errors
    /// The kernel's answer; then no change will be told any more.
    pub fn wait(&self) -> Result<(), NetlinkError> {
        let failed = |errno: Errno| io::Error::from(errno);
        loop {
            let mut sources = vec![PollFd::new(&self.socket, PollFlags::IN)];
            let mounts = self.mounts.iter();
            // fs/proc_namespace.c, `mounts_poll`: an exceptional condition after every change.
            sources.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
            match poll(&mut sources, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(failed(errno).into()),
            }
            let mounted = sources[1..].iter().any(|mounts| !mounts.revents().is_empty());
            drop(sources);
            if self.drain()? || mounted {
                return Ok(());
            }
        }
    }

    /// Takes what is queued; `true`: there was something.
    fn drain(&self) -> Result<bool, NetlinkError> {
        let mut any = false;
        loop {
            // The rest of a message is thrown away: the group has nothing but changes of links.
            let mut start = [0; 16];
            match self.socket.recv(&mut &mut start[..], 0) {
                Ok(_) => any = true,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::WOULDBLOCK) => return Ok(any),
                    Some(Errno::INTR) => {}
                    // More happened than the queue holds.
                    Some(Errno::NOBUFS) => any = true,
                    _ => return Err(error.into()),
                },
            }
        }
    }
}
