//! How messages lie in the link's datagrams: several in one, each a head and its bytes, their
//! descriptors beside the datagram in the same order. Both ends are one machine: native byte order.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The largest request and the largest reply, in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;

/// The most descriptors beside one request or reply.
pub const MAX_DESCRIPTORS: usize = 8;

/// The largest datagram: one of the largest messages always has room.
const MAX_DATAGRAM: usize = MAX_MESSAGE + (32 << 10);

/// The most descriptors beside a datagram. The kernel takes 253 (`SCM_MAX_FD`, net/scm.h).
const MAX_BESIDE: usize = 128;

/// The most descriptors that one call can bring (`SCM_MAX_FD`). Those that have no room the kernel
/// closes in the call, and that can block.
const MAX_RECEIVED: usize = 253;

/// What a link's socket is to hold: a datagram that is read and one that waits.
pub(crate) const SOCKET_BUFFER: usize = 2 * MAX_DATAGRAM;

const HEAD: usize = 24;

/// What a message is. The numbers are the protocol of the link; see [`VERSION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    Hello = 1,
    ConnectedImtl = 2,
    ConnectedNative = 3,
    Request = 4,
    Closed = 5,
    Replayed = 6,
    Refuse = 7,
    Ready = 16,
    Reply = 17,
    Close = 18,
    Withheld = 19,
}

/// What stands beside a greeting for the first daemon of its keeper's name; 0 for all others.
pub(crate) const FRESH: u64 = 1;

/// The version of the link's protocol: keeper and daemon may be of different ages after an
/// upgrade, and must agree on it.
pub(crate) const VERSION: u64 = 2;

impl Tag {
    fn parse(number: u16) -> Option<Self> {
        const ALL: [Tag; 11] = [
            Tag::Hello,
            Tag::ConnectedImtl,
            Tag::ConnectedNative,
            Tag::Request,
            Tag::Closed,
            Tag::Replayed,
            Tag::Refuse,
            Tag::Ready,
            Tag::Reply,
            Tag::Close,
            Tag::Withheld,
        ];
        ALL.into_iter().find(|tag| *tag as u16 == number)
    }
}

/// A datagram to be: messages are added as long as they fit.
#[derive(Debug)]
pub(crate) struct Batch<D> {
    bytes: Vec<u8>,
    descriptors: Vec<D>,
}

impl<D> Default for Batch<D> {
    fn default() -> Self {
        Self { bytes: Vec::new(), descriptors: Vec::new() }
    }
}

impl<D: AsFd> Batch<D> {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        drop(self.take());
    }

    /// Empties it; gives the descriptors that were in it.
    pub(crate) fn take(&mut self) -> std::vec::Drain<'_, D> {
        self.bytes.clear();
        self.descriptors.drain(..)
    }

    /// Whether a message has room. An empty batch has room for any that [`fits_alone`].
    pub(crate) fn has_room(&self, bytes: usize, descriptors: usize) -> bool {
        self.bytes.len() + HEAD + bytes <= MAX_DATAGRAM
            && self.descriptors.len() + descriptors <= MAX_BESIDE
    }

    /// Adds a message that has room.
    pub(crate) fn push(
        &mut self,
        tag: Tag,
        connection: u64,
        sequence: u64,
        bytes: &[u8],
        descriptors: impl IntoIterator<Item = D>,
    ) {
        let before = self.descriptors.len();
        self.descriptors.extend(descriptors);
        let beside = (self.descriptors.len() - before) as u16;
        self.bytes.extend_from_slice(&(tag as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&beside.to_ne_bytes());
        self.bytes.extend_from_slice(&(bytes.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&connection.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    /// Sends what is in it as one datagram; the batch stays as it is.
    pub(crate) fn send(&self, socket: impl AsFd, flags: SendFlags) -> Result<(), Errno> {
        send_with(socket.as_fd(), &self.bytes, &self.descriptors, flags).map(drop)
    }
}

/// Whether a message can be sent at all.
pub(crate) fn fits_alone(bytes: usize, descriptors: usize) -> bool {
    bytes <= MAX_MESSAGE && descriptors <= MAX_DESCRIPTORS
}

/// Sends bytes with descriptors beside them, in one call; returns how many bytes left.
pub(crate) fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[impl AsFd],
    flags: SendFlags,
) -> Result<usize, Errno> {
    let flags = flags | SendFlags::NOSIGNAL;
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_BESIDE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        // There is room: nobody puts more than MAX_BESIDE descriptors beside anything.
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What one call received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) descriptors: VecDeque<OwnedFd>,
    /// Something did not fit and is lost.
    pub(crate) cut: bool,
}

/// Receives once into `buffer`.
pub(crate) fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_RECEIVED))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = VecDeque::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let cut = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Received { length: message.bytes, descriptors, cut })
}

/// A buffer that any datagram of a link fits in.
pub(crate) fn datagram_buffer() -> Vec<u8> {
    vec![0; MAX_DATAGRAM]
}

/// One message as it lay in a datagram.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) tag: Tag,
    pub(crate) connection: u64,
    pub(crate) sequence: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The messages of a datagram; `None` in place of one that cannot be read, and of all behind it.
pub(crate) fn messages<'a>(
    mut datagram: &'a [u8],
    mut descriptors: VecDeque<OwnedFd>,
) -> impl Iterator<Item = Option<Message<'a>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let message = take(&mut datagram, &mut descriptors);
        if message.is_none() {
            datagram = &[];
        }
        Some(message)
    })
}

fn take<'a>(datagram: &mut &'a [u8], descriptors: &mut VecDeque<OwnedFd>) -> Option<Message<'a>> {
    let (head, rest) = datagram.split_at_checked(HEAD)?;
    let tag = Tag::parse(u16::from_ne_bytes(head.get(0..2)?.try_into().ok()?))?;
    let beside = usize::from(u16::from_ne_bytes(head.get(2..4)?.try_into().ok()?));
    let length = u32::from_ne_bytes(head.get(4..8)?.try_into().ok()?) as usize;
    let connection = u64::from_ne_bytes(head.get(8..16)?.try_into().ok()?);
    let sequence = u64::from_ne_bytes(head.get(16..24)?.try_into().ok()?);
    let (bytes, rest) = rest.split_at_checked(length)?;
    if beside > descriptors.len() {
        return None;
    }
    *datagram = rest;
    let descriptors = descriptors.drain(..beside).collect();
    Some(Message { tag, connection, sequence, bytes, descriptors })
}

#[cfg(test)]
mod tests;
