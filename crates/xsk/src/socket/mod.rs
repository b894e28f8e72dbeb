//! A socket on a queue, its receiving and its sending half.

mod receiver;
mod sender;
mod settings;

pub use receiver::{Received, Receiver};
pub use sender::{Outgoing, Sender};
pub use settings::{Copying, Settings};

use crate::XskError;
use crate::error::{BIND, OPEN, RINGS, failed};
use crate::ring::{Consumer, Kind, Producer};
use crate::umem::Umem;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_xdp_rx_ring_size, set_xdp_tx_ring_size, set_xdp_umem_completion_ring_size,
    set_xdp_umem_fill_ring_size, xdp_options,
};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XdpOptionsFlags,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An AF_XDP socket. It is closed when both halves are gone.
#[derive(Debug)]
pub struct Socket {
    /// Takes packets.
    pub receiver: Receiver,
    /// Sends packets.
    pub sender: Sender,
}

/// Packets that went wrong, since the socket was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Dropped on receiving: too large, or for a reason that none of the others is.
    pub dropped: u64,
    /// Frames given for receiving that made no sense to the kernel.
    pub invalid_fill: u64,
    /// Packets given for sending that made no sense to the kernel.
    pub invalid_transmit: u64,
    /// Dropped because the receive ring was full: the application is too slow.
    pub receive_ring_full: u64,
    /// How often there was no frame for a packet: the application gives too few back.
    pub fill_ring_empty: u64,
    /// How often the kernel found nothing to send.
    pub transmit_ring_empty: u64,
}

impl Socket {
    /// Makes a socket with memory of its own, bound to a queue.
    ///
    /// No packet reaches it before an XDP program sends it there. A queue that has a socket is waited
    /// for, at most a second: the kernel frees a queue some time after its last socket was closed.
    ///
    /// # Errors
    /// [`XskError`]: settings that make no sense, or what the kernel says.
    pub fn open(umem: &Umem, settings: &Settings) -> Result<Self, XskError> {
        Self::make(umem, settings, None)
    }

    /// Makes a socket with the memory that `other` is bound with, for another queue or interface
    /// (Linux 5.10). Each socket has rings of its own, so each may live on a thread of its own; the
    /// frames are shared out among them by whoever holds them.
    ///
    /// # Errors
    /// [`XskError`]
    pub fn open_sharing(other: &Self, settings: &Settings) -> Result<Self, XskError> {
        Self::make(&other.receiver.umem, settings, Some(other.as_fd()))
    }

    fn make(
        umem: &Umem,
        settings: &Settings,
        sharing: Option<BorrowedFd<'_>>,
    ) -> Result<Self, XskError> {
        settings::check(settings)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)
            .map_err(|errno| failed(OPEN, errno))?;
        if sharing.is_none() {
            umem.register(socket.as_fd())?;
        }
        let rings = || -> rustix::io::Result<_> {
            let fd = socket.as_fd();
            let &Settings { receive_ring, transmit_ring, fill_ring, completion_ring, .. } =
                settings;
            set_xdp_umem_fill_ring_size(fd, fill_ring)?;
            set_xdp_umem_completion_ring_size(fd, completion_ring)?;
            if receive_ring > 0 {
                set_xdp_rx_ring_size(fd, receive_ring)?;
            }
            if transmit_ring > 0 {
                set_xdp_tx_ring_size(fd, transmit_ring)?;
            }
            let some = |size: u32| (size > 0).then_some(size);
            let map_receive = |size| Consumer::map(fd, Kind::Receive, size);
            let map_transmit = |size| Producer::map(fd, Kind::Transmit, size);
            Ok((
                some(receive_ring).map(map_receive).transpose()?,
                some(transmit_ring).map(map_transmit).transpose()?,
                Producer::map(fd, Kind::Fill, fill_ring)?,
                Consumer::map(fd, Kind::Completion, completion_ring)?,
            ))
        };
        let (receive, transmit, fill, completion) =
            rings().map_err(|errno| failed(RINGS, errno))?;
        bind_when_free(socket.as_fd(), settings, sharing).map_err(|errno| failed(BIND, errno))?;
        if let Some(busy_poll) = settings.busy_poll {
            busy_poll.set(socket.as_fd())?;
        }
        let busy_poll = settings.busy_poll.is_some();
        let (socket, umem) = (Arc::new(socket), umem.clone());
        let sender = Sender {
            transmit,
            completion,
            socket: Arc::clone(&socket),
            umem: umem.clone(),
            busy_poll,
        };
        let receiver = Receiver { receive, fill, socket, umem, busy_poll };
        Ok(Self { receiver, sender })
    }

    /// Whether the driver uses the application's memory without a copy.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_zero_copy(&self) -> Result<bool, XskError> {
        let options = xdp_options(self).map_err(|errno| failed("read the socket's mode", errno))?;
        Ok(options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
    }

    /// Packets that went wrong.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn statistics(&self) -> Result<Statistics, XskError> {
        self.receiver.statistics()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

/// How long a queue that is taken may yet come free.
const RELEASE: Duration = Duration::from_secs(1);

/// Binds, also to a queue whose last socket was closed just now: the kernel frees the queue in a
/// work item of its own later (`xp_put_pool` in net/xdp/xsk_buff_pool.c), and tells nobody.
fn bind_when_free(
    socket: BorrowedFd<'_>,
    settings: &Settings,
    sharing: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let until = Instant::now() + RELEASE;
    let mut pause = Duration::from_millis(1);
    loop {
        match bind_to(socket, settings, sharing) {
            Err(Errno::BUSY) if Instant::now() < until => std::thread::sleep(pause),
            result => return result,
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn bind_to(
    socket: BorrowedFd<'_>,
    settings: &Settings,
    sharing: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut flags = match settings.copying {
        Copying::Auto => SocketAddrXdpFlags::empty(),
        Copying::Copy => SocketAddrXdpFlags::XDP_COPY,
        Copying::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
    };
    flags.set(SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP, settings.need_wakeup);
    flags.set(SocketAddrXdpFlags::XDP_USE_SG, settings.several_buffers);
    let Settings { interface_index, queue, .. } = *settings;
    match sharing {
        None => bind(socket, &SocketAddrXdp::new(flags, interface_index, queue)),
        Some(shared_umem_fd) => {
            // How the memory is used was said by the socket that brought it (net/xdp/xsk.c).
            let flags = SocketAddrXdpFlags::XDP_SHARED_UMEM;
            let addr = SocketAddrXdp::new(flags, interface_index, queue);
            bind(socket, &SocketAddrXdpWithSharedUmem { addr, shared_umem_fd })
        }
    }
}

fn wait(socket: BorrowedFd<'_>, events: PollFlags, time: Option<Duration>) -> io::Result<bool> {
    // A time that the kernel cannot count to is for ever.
    let time = time.and_then(|time| Timespec::try_from(time).ok());
    let mut waits = [PollFd::new(&socket, events)];
    poll(&mut waits, time.as_ref())?;
    let found = waits[0].revents();
    if found.intersects(PollFlags::ERR | PollFlags::NVAL) {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "the interface is down or gone"));
    }
    Ok(found.intersects(events))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UmemSettings;

    #[test]
    fn what_the_kernel_refuses_has_a_hint() {
        let umem = UmemSettings { frames: 16, ..UmemSettings::default() };
        let (umem, _frames) = Umem::new(umem).unwrap();
        let rings = Settings {
            receive_ring: 8,
            transmit_ring: 0,
            fill_ring: 8,
            completion_ring: 8,
            ..Settings::new(u32::MAX >> 1, 0)
        };
        let message = Socket::open(&umem, &rings).unwrap_err().to_string();
        // As root there is no such interface; otherwise there is no socket to begin with.
        let known = ["there is no such interface here", "this takes CAP_NET_RAW", "has no AF_XDP"];
        assert!(known.iter().any(|hint| message.contains(hint)), "{message}");
    }
}
