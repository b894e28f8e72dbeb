//! The half that sends packets.

use super::wait;
use crate::ring::{Consumer, Descriptor, Producer};
use crate::umem::{Frame, Umem};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Sends packets.
#[derive(Debug)]
pub struct Sender {
    pub(super) transmit: Option<Producer<Descriptor>>,
    pub(super) completion: Consumer<u64>,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) umem: Umem,
    pub(super) busy_poll: bool,
}

/// A packet to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The frame that it lies in.
    pub frame: Frame,
    /// Where in the frame it begins.
    pub offset: u32,
    /// How long it is, in bytes.
    pub length: u32,
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Sender {
    /// Hands packets to the kernel, from the beginning of `packets`, as many as there is room for;
    /// how many. [`wake`](Self::wake) makes it send them.
    ///
    /// # Panics
    /// A packet is of another memory, or reaches beyond its frame.
    pub fn send(&mut self, packets: &mut Vec<Outgoing>) -> usize {
        let Self { transmit, umem, .. } = self;
        let Some(ring) = transmit else { return 0 };
        let wanted = (packets.len() as u64).min(ring.room().into()) as u32;
        let size = umem.settings().frame_size;
        let descriptor = |packet: &Outgoing| {
            let &Outgoing { ref frame, offset, length } = packet;
            let end = offset.checked_add(length);
            assert!(end.is_some_and(|end| end <= size), "a packet reaches beyond its frame");
            Descriptor { address: umem.address(frame) + u64::from(offset), length, options: 0 }
        };
        let all: Vec<_> = packets[..wanted as usize].iter().map(descriptor).collect();
        packets.drain(..wanted as usize);
        let mut next = all.into_iter();
        let count = ring.produce(wanted, || next.next().expect("invariant: as many as wanted"));
        debug_assert_eq!(count, wanted, "the room was there a moment ago");
        count as usize
    }

    /// Takes back frames of packets that are sent, up to `most`, and puts them behind `frames`; how
    /// many.
    pub fn complete(&mut self, frames: &mut Vec<Frame>, most: u32) -> usize {
        let Self { completion, umem, .. } = self;
        let before = frames.len();
        completion.consume(most, |address| {
            frames.extend(umem.frame_back(address).map(|(frame, _)| frame));
        });
        frames.len() - before
    }

    /// Makes the kernel send what it was given, if it sleeps.
    ///
    /// In copy mode one call sends no more than a few dozen packets, so it is called as long as
    /// frames are missing.
    ///
    /// # Errors
    /// The interface or the socket is no good any more.
    pub fn wake(&self) -> io::Result<()> {
        let sleeps = self.transmit.as_ref().is_some_and(Producer::needs_wakeup);
        if !self.busy_poll && !sleeps {
            return Ok(());
        }
        match send(&self.socket, &[], SendFlags::DONTWAIT) {
            Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The packet memory.
    #[must_use]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Waits until there is room for packets; `false`: there was none within `time`.
    ///
    /// # Errors
    /// The interface is down or gone, or waiting was interrupted.
    pub fn wait(&self, time: Option<Duration>) -> io::Result<bool> {
        wait(self.as_fd(), PollFlags::OUT, time)
    }
}
