//! One connection: its socket, and what is asked on it.

use crate::closer::Closer;
use crate::handover::{SavedClient, save_client};
use crate::ledger::Ledger;
use crate::link::{Kind, MAX_DESCRIPTORS};
use crate::wire;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: Rc<OwnedFd>,
    pub(crate) kind: Kind,
    /// The user that connected.
    pub(crate) user: u32,
    pub(crate) ledger: Ledger<Rc<OwnedFd>>,
    /// The daemon that runs knows it.
    pub(crate) told: bool,
    /// The service manager was told to keep its socket.
    pub(crate) stored: bool,
    /// It stands in the queue of what the daemon is to be told.
    pub(crate) queued: bool,
    /// What epoll waits for.
    pub(crate) interest: EventFlags,
    /// The client says no more; it may still listen.
    ended: bool,
    /// The daemon wants it closed when what is answered has left.
    closing: bool,
    /// An answer waits for the client to read.
    blocked: bool,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The client has gone.
    Gone,
    /// It sent what cannot be taken.
    Refused(&'static str),
}

impl Client {
    /// One that a keeper before had.
    pub(crate) fn resume(socket: OwnedFd, saved: SavedClient<Rc<OwnedFd>>) -> Self {
        let SavedClient { kind, ended, ledger } = saved;
        Self { ledger, ended, ..Self::new(socket, kind) }
    }

    /// What a keeper to come has to know of it, if it can be handed on.
    pub(crate) fn save(&self, id: u64, state: &mut Vec<u8>) -> bool {
        !self.closing && save_client(state, id, (self.kind, self.ended), &self.ledger)
    }

    pub(crate) fn new(socket: OwnedFd, kind: Kind) -> Self {
        Self {
            socket: Rc::new(socket),
            kind,
            user: 0,
            ledger: Ledger::default(),
            told: false,
            stored: false,
            queued: false,
            interest: EventFlags::empty(),
            ended: false,
            closing: false,
            blocked: false,
        }
    }

    /// Reads once, as much as there is room for.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        descriptors: bool,
        closer: &Closer<OwnedFd>,
    ) -> Result<(), Broken> {
        let room = self.ledger.has_room(self.kind);
        if room == 0 || self.ended || self.closing {
            return Ok(());
        }
        // One byte more than a request may have tells one that is too large.
        let room = if self.kind == Kind::Native { room + 1 } else { room };
        let length = scratch.len().min(room);
        let buffer = &mut scratch[..length];
        let mut received =
            match wire::receive_with(self.socket.as_fd(), buffer, RecvFlags::DONTWAIT) {
                Ok(received) => received,
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Broken::Gone),
            };
        let beside = received.descriptors.len();
        if beside > if descriptors && self.kind == Kind::Native { MAX_DESCRIPTORS } else { 0 } {
            received.descriptors.drain(..).for_each(|descriptor| closer.close(descriptor));
            return Err(Broken::Refused("a request has more descriptors than it may have"));
        }
        if received.length == 0 {
            self.ended = true;
            return Ok(());
        }
        let bytes = &buffer[..received.length];
        match self.kind {
            Kind::Imtl => self.ledger.feed(bytes),
            Kind::Native => {
                if received.cut || bytes.len() > crate::link::MAX_MESSAGE {
                    return Err(Broken::Refused("a request is larger than 65536 bytes"));
                }
                let descriptors = received.descriptors.into_iter().map(Rc::new).collect();
                self.ledger.ask(bytes.to_vec(), descriptors);
            }
        }
        Ok(())
    }

    /// Sends the answers whose turn it is, each in one call, until the client does not take more.
    pub(crate) fn send(&mut self) -> Result<(), Broken> {
        self.blocked = false;
        while let Some((bytes, descriptors)) = self.ledger.due() {
            match wire::send_with(self.socket.as_fd(), bytes, descriptors, SendFlags::DONTWAIT) {
                Ok(sent) => self.ledger.sent(sent),
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    break;
                }
                Err(_) => return Err(Broken::Gone),
            }
        }
        Ok(())
    }

    /// The daemon wants it closed.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.ledger.give_up();
    }

    /// Whether the daemon has done with it.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether nothing is left to do for it.
    pub(crate) fn is_done(&self) -> bool {
        (self.ended || self.closing) && self.ledger.is_empty()
    }

    /// What epoll has to wait for. The end of both directions is always told.
    pub(crate) fn wants(&self) -> EventFlags {
        let mut wants = EventFlags::empty();
        if !self.ended && !self.closing && self.ledger.has_room(self.kind) > 0 {
            wants |= EventFlags::IN;
        }
        if self.blocked {
            wants |= EventFlags::OUT;
        }
        wants
    }

    /// Ends the connection for the client too, although the daemon may still have the socket.
    pub(crate) fn shut(&self) {
        let _ = rustix::net::shutdown(&*self.socket, Shutdown::Both);
    }
}
