//! The daemon's end of the link to its keeper.
//!
//! What comes ([`FromKeeper`]) and what goes ([`ToKeeper`]) are batches: one system call moves what
//! there is. Connection ids count up and are never used twice while a keeper lives; requests of a
//! connection are numbered from 1. A keeper tells its name, an [`Epoch`], first: what was written
//! down about the connections of another keeper is void.
//!
//! A daemon that has just started is told, in this order: every open connection, with every request
//! of it that is unanswered; then [`FromKeeper::Replayed`]. A connection that was not named until
//! then is gone, and what it held is free. A request may be one that the daemon before had carried
//! out without coming to answer it: connection and sequence tell.
//!
//! After a crash, requests that a daemon may have crashed over come later: one at a time, when the
//! next daemon serves ([`Sender::ready`]), and nothing else before they are answered.

use crate::wire::{self, Batch, Message, Tag};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

pub use crate::wire::{MAX_DESCRIPTORS, MAX_MESSAGE};

/// Which socket a connection came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The MTL Manager's: a stream of records of 118 bytes; a request is one record.
    Imtl,
    /// `leases.sock`: a request is one datagram of 1 to [`MAX_MESSAGE`] bytes.
    Native,
}

/// What the keeper tells.
#[derive(Debug)]
pub enum FromKeeper {
    /// A client has connected, or had before this daemon started.
    Connected {
        /// The connection.
        connection: u64,
        /// The socket it came by.
        kind: Kind,
        /// The accepted socket, to ask the kernel about its peer. Nothing is read from it or
        /// written to it. Close it at the latest with [`FromKeeper::Closed`].
        socket: OwnedFd,
    },
    /// A client asks. Each request gets one [`ToKeeper::Reply`].
    Request {
        /// The connection.
        connection: u64,
        /// The request's number on its connection, from 1, without gaps.
        sequence: u64,
        /// The request.
        bytes: Vec<u8>,
        /// The descriptors beside it: at most [`MAX_DESCRIPTORS`], and none with an imtl record.
        descriptors: Vec<OwnedFd>,
    },
    /// A client asks what daemon after daemon crashed over. It is to be refused and not to be
    /// carried out; what a daemon before did for it is told as done. It gets one
    /// [`ToKeeper::Reply`] too; a daemon that crashes over this as well loses the connection.
    Refuse {
        /// The connection.
        connection: u64,
        /// The request's number.
        sequence: u64,
        /// The request.
        bytes: Vec<u8>,
        /// The descriptors beside it.
        descriptors: Vec<OwnedFd>,
    },
    /// A connection has ended: its client's end, or one that was asked for. Told once for each
    /// connection that was told; nothing of it follows.
    Closed {
        /// The connection.
        connection: u64,
    },
    /// All that was open or unanswered when this daemon started has been told.
    Replayed,
}

/// What the daemon tells.
#[derive(Debug)]
pub enum ToKeeper {
    /// The answer to a request. Answers reach a client in the order of its requests, in whatever
    /// order they are told. One to a connection that has ended is dropped.
    Reply {
        /// The connection.
        connection: u64,
        /// The request's number.
        sequence: u64,
        /// The answer: at most [`MAX_MESSAGE`] bytes, at least one. It leaves in one `sendmsg`.
        bytes: Vec<u8>,
        /// What goes beside it: at most [`MAX_DESCRIPTORS`].
        descriptors: Vec<OwnedFd>,
    },
    /// End a connection. Answers told before reach the client first; its unanswered requests are
    /// dropped.
    Close {
        /// The connection.
        connection: u64,
    },
}

/// The name of a keeper: random, one for its life and for what it hands on to a next one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub [u8; 16]);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// Why the link does not work.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The keeper has ended; so must the daemon.
    #[error("the keeper has ended")]
    KeeperGone,
    /// The other end speaks a different version: keeper and daemon are of different releases.
    #[error(
        "the keeper that runs speaks version {theirs} of the link, this daemon version {ours}: \
         restart pointsman-node as a whole",
        ours = wire::VERSION
    )]
    Version {
        /// What the keeper speaks.
        theirs: u64,
    },
    /// What came is no message: a defect, or not a link.
    #[error("what came over the link from the keeper cannot be read: {what}")]
    Garbled {
        /// What was wrong.
        what: &'static str,
    },
    /// An answer is larger than the link takes.
    #[error(
        "an answer of {bytes} bytes and {descriptors} descriptors is too large: at most \
         {MAX_MESSAGE} and {MAX_DESCRIPTORS}"
    )]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// Its descriptors.
        descriptors: usize,
    },
    /// The kernel refused.
    #[error("cannot {what} the link to the keeper: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Both directions of the link. [`Link::split`] gives them to two threads.
#[derive(Debug)]
pub struct Link {
    epoch: Epoch,
    fresh: bool,
    receiver: Receiver,
    sender: Sender,
}

impl Link {
    /// Takes over the link that the keeper gave as standard input, and puts `/dev/null` there.
    /// From now on the kernel kills this process when the keeper ends.
    ///
    /// # Errors
    /// As [`Link::open`]; [`LinkError::Garbled`] or [`LinkError::Io`] where standard input is
    /// something else, because nobody but a keeper starts a daemon this way.
    pub fn from_stdin() -> Result<Self, LinkError> {
        let io = |source| LinkError::Io { what: "take over", source };
        // A keeper that ended before this is noticed by the end of the link.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| io(error.into()))?;
        let socket = io::stdin().as_fd().try_clone_to_owned().map_err(io)?;
        let null = std::fs::File::open("/dev/null").map_err(io)?;
        rustix::stdio::dup2_stdin(&null).map_err(|error| io(error.into()))?;
        Self::open(socket)
    }

    /// Waits for the keeper's first word on a socket that is connected to one.
    ///
    /// # Errors
    /// [`LinkError`]; [`LinkError::Version`] where it is of another release.
    pub fn open(socket: OwnedFd) -> Result<Self, LinkError> {
        let socket = Arc::new(socket);
        let mut buffer = wire::datagram_buffer();
        let received = receive(&socket, &mut buffer)?;
        let first = wire::messages(&buffer[..received.length], received.descriptors).next();
        let Some(Some(Message { tag: Tag::Hello, connection: version, sequence, bytes, .. })) =
            first
        else {
            return Err(LinkError::Garbled { what: "the first word is no greeting" });
        };
        if version != wire::VERSION {
            return Err(LinkError::Version { theirs: version });
        }
        let name = bytes.try_into();
        let epoch = name.map_err(|_| LinkError::Garbled { what: "the keeper has no name" })?;
        let sender = Sender { socket: Arc::clone(&socket), batch: Batch::default() };
        Ok(Self {
            epoch: Epoch(epoch),
            fresh: sequence == wire::FRESH,
            receiver: Receiver { socket, buffer },
            sender,
        })
    }

    /// The keeper's name.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether this is the first daemon of that name: nothing was ever written down about its
    /// connections. False where the keeper does not tell, because it is older than this.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Both directions, for two threads.
    #[must_use]
    pub fn split(self) -> (Receiver, Sender) {
        (self.receiver, self.sender)
    }

    /// As [`Receiver::receive`].
    ///
    /// # Errors
    /// As there.
    pub fn receive(&mut self) -> Result<Vec<FromKeeper>, LinkError> {
        self.receiver.receive()
    }

    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, batch: impl IntoIterator<Item = ToKeeper>) -> Result<(), LinkError> {
        self.sender.send(batch)
    }

    /// As [`Sender::ready`].
    ///
    /// # Errors
    /// As there.
    pub fn ready(&mut self) -> Result<(), LinkError> {
        self.sender.ready()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

/// What comes. Readable ([`AsFd`]) when [`Receiver::receive`] would not wait.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<OwnedFd>,
    buffer: Vec<u8>,
}

impl Receiver {
    /// Waits until the keeper tells something, and returns all of one datagram: at least one
    /// message.
    ///
    /// # Errors
    /// [`LinkError::KeeperGone`] at the end; else [`LinkError::Garbled`] or [`LinkError::Io`].
    pub fn receive(&mut self) -> Result<Vec<FromKeeper>, LinkError> {
        let received = receive(&self.socket, &mut self.buffer)?;
        wire::messages(&self.buffer[..received.length], received.descriptors)
            .map(|message| {
                message.and_then(understand).ok_or(LinkError::Garbled { what: "no message" })
            })
            .collect()
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What goes. Clones share the link: each sends whole datagrams.
#[derive(Debug)]
pub struct Sender {
    socket: Arc<OwnedFd>,
    batch: Batch<OwnedFd>,
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self { socket: Arc::clone(&self.socket), batch: Batch::default() }
    }
}

impl Sender {
    /// Tells the keeper all of it, in as few system calls as it takes. Waits for the keeper, which
    /// never waits for a client or for the daemon.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`], with nothing of that answer sent; [`LinkError::KeeperGone`];
    /// [`LinkError::Io`].
    pub fn send(&mut self, batch: impl IntoIterator<Item = ToKeeper>) -> Result<(), LinkError> {
        for message in batch {
            match message {
                ToKeeper::Reply { connection, sequence, bytes, descriptors } => {
                    if !wire::fits_alone(bytes.len(), descriptors.len()) || bytes.is_empty() {
                        let (bytes, descriptors) = (bytes.len(), descriptors.len());
                        self.flush()?;
                        return Err(LinkError::TooLarge { bytes, descriptors });
                    }
                    if !self.batch.has_room(bytes.len(), descriptors.len()) {
                        self.flush()?;
                    }
                    self.batch.push(Tag::Reply, connection, sequence, &bytes, descriptors);
                }
                ToKeeper::Close { connection } => self.push_short(Tag::Close, connection)?,
            }
        }
        self.flush()
    }

    /// The daemon has started: from now on the keeper starts it again if it ends. One that ends
    /// before its keeper ever heard this takes the keeper with it, and its exit code.
    ///
    /// # Errors
    /// [`LinkError::KeeperGone`]; [`LinkError::Io`].
    pub fn ready(&mut self) -> Result<(), LinkError> {
        self.push_short(Tag::Ready, 0)?;
        self.flush()
    }

    /// This daemon answers no request, because it does not know who holds what: that is no reason to
    /// take it for one that hangs.
    ///
    /// # Errors
    /// [`LinkError::KeeperGone`]; [`LinkError::Io`].
    pub fn withhold(&mut self) -> Result<(), LinkError> {
        // By itself: a keeper that is older than this leaves out what it does not know.
        self.flush()?;
        self.push_short(Tag::Withheld, 0)?;
        self.flush()
    }

    fn push_short(&mut self, tag: Tag, connection: u64) -> Result<(), LinkError> {
        if !self.batch.has_room(0, 0) {
            self.flush()?;
        }
        self.batch.push(tag, connection, 0, &[], []);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let sent = self.batch.send(&*self.socket, SendFlags::empty());
        self.batch.clear();
        match sent {
            Ok(()) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Err(LinkError::KeeperGone),
            Err(error) => Err(LinkError::Io { what: "send over", source: error.into() }),
        }
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<wire::Received, LinkError> {
    match wire::receive_with(socket.as_fd(), buffer, RecvFlags::empty()) {
        Ok(received) if received.length == 0 => Err(LinkError::KeeperGone),
        Ok(received) if received.cut => Err(LinkError::Garbled { what: "a datagram is cut off" }),
        Ok(received) => Ok(received),
        Err(Errno::CONNRESET) => Err(LinkError::KeeperGone),
        Err(error) => Err(LinkError::Io { what: "receive from", source: error.into() }),
    }
}

fn understand(message: Message<'_>) -> Option<FromKeeper> {
    let Message { tag, connection, sequence, bytes, mut descriptors } = message;
    let kind = match tag {
        Tag::ConnectedImtl => Kind::Imtl,
        Tag::ConnectedNative => Kind::Native,
        Tag::Request => {
            let bytes = bytes.to_vec();
            return Some(FromKeeper::Request { connection, sequence, bytes, descriptors });
        }
        Tag::Refuse => {
            let bytes = bytes.to_vec();
            return Some(FromKeeper::Refuse { connection, sequence, bytes, descriptors });
        }
        Tag::Closed => return Some(FromKeeper::Closed { connection }),
        Tag::Replayed => return Some(FromKeeper::Replayed),
        Tag::Hello | Tag::Ready | Tag::Reply | Tag::Close | Tag::Withheld => return None,
    };
    Some(FromKeeper::Connected { connection, kind, socket: descriptors.pop()? })
}
