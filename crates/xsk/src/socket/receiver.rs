//! The half that takes packets.

use super::{Statistics, wait};
use crate::XskError;
use crate::error::failed;
use crate::ring::{Consumer, Descriptor, Producer};
use crate::umem::{Frame, Umem};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::xdp_statistics;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Takes packets.
#[derive(Debug)]
pub struct Receiver {
    // Rings before the socket: they are unmapped first.
    pub(super) receive: Option<Consumer<Descriptor>>,
    pub(super) fill: Producer<u64>,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) umem: Umem,
    pub(super) busy_poll: bool,
}

/// A packet that came.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its frame has to go back to the kernel, or there will be none for further packets"]
pub struct Received {
    /// The frame that it lies in.
    pub frame: Frame,
    /// Where in the frame it begins.
    pub offset: u32,
    /// How long it is, in bytes.
    pub length: u32,
    /// Whether the next one is a further buffer of the same packet.
    pub more: bool,
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Receiver {
    /// Gives frames to the kernel for packets to come, from the end of `frames`, as many as there is
    /// room for; how many.
    ///
    /// # Panics
    /// A frame is of another memory.
    pub fn fill(&mut self, frames: &mut Vec<Frame>) -> usize {
        let Self { fill, umem, .. } = self;
        let wanted = (frames.len() as u64).min(fill.room().into()) as u32;
        let given = frames.split_off(frames.len() - wanted as usize);
        // All before the first is handed over: a frame of another memory is a panic.
        let addresses: Vec<u64> = given.iter().map(|frame| umem.address(frame)).collect();
        let mut next = addresses.into_iter();
        let count = fill.produce(wanted, || next.next().expect("invariant: as many as wanted"));
        debug_assert_eq!(count, wanted, "the room was there a moment ago");
        count as usize
    }

    /// Takes up to `most` packets that have come and puts them behind `packets`; how many.
    pub fn receive(&mut self, packets: &mut Vec<Received>, most: u32) -> usize {
        let Self { receive, umem, .. } = self;
        let Some(ring) = receive else { return 0 };
        let before = packets.len();
        ring.consume(most, |descriptor| {
            /// `XDP_PKT_CONTD`
            const CONTINUED: u32 = 1;
            let Descriptor { address, length, options } = descriptor;
            let Some((frame, offset)) = umem.frame_back(address) else { return };
            let more = options & CONTINUED != 0;
            packets.push(Received { frame, offset, length, more });
        });
        packets.len() - before
    }

    /// The bytes of a packet.
    ///
    /// # Panics
    /// The packet is of another memory.
    #[must_use]
    pub fn packet<'a>(&'a self, received: &'a Received) -> &'a [u8] {
        let bytes = self.umem.bytes(&received.frame);
        let from = (received.offset as usize).min(bytes.len());
        let to = (from + received.length as usize).min(bytes.len());
        &bytes[from..to]
    }

    /// The packet memory.
    #[must_use]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Wakes the kernel if it sleeps because it had no frames. With busy polling, this is what polls.
    ///
    /// # Errors
    /// The interface or the socket is no good any more.
    pub fn wake(&self) -> io::Result<()> {
        if !self.busy_poll && !self.fill.needs_wakeup() {
            return Ok(());
        }
        match recv(&self.socket, &mut [0u8; 0], RecvFlags::DONTWAIT) {
            Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until packets have come; `false`: none did within `time`. `None` waits for ever.
    ///
    /// # Errors
    /// The interface is down or gone, or waiting was interrupted.
    pub fn wait(&self, time: Option<Duration>) -> io::Result<bool> {
        wait(self.as_fd(), PollFlags::IN, time)
    }

    /// Packets that went wrong.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn statistics(&self) -> Result<Statistics, XskError> {
        let found = xdp_statistics(self).map_err(|errno| failed("read statistics", errno))?;
        Ok(Statistics {
            dropped: found.rx_dropped,
            invalid_fill: found.rx_invalid_descs,
            invalid_transmit: found.tx_invalid_descs,
            receive_ring_full: found.rx_ring_full.unwrap_or(0),
            fill_ring_empty: found.rx_fill_ring_empty_descs.unwrap_or(0),
            transmit_ring_empty: found.tx_ring_empty_descs.unwrap_or(0),
        })
    }
}
