//! All connections, and what the daemon is to be told of them.

use crate::client::{Broken, Client};
use crate::closer::Closer;
use crate::handover::{SavedClient, name_of, save_head};
use crate::link::{Epoch, Kind, MAX_MESSAGE};
use crate::peer;
use crate::shares::{Full, Owner, Shares};
use crate::systemd;
use crate::wire::{Batch, Tag};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::Shutdown;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// How many clients that were turned away are remembered. They see the end of the stream when they
/// read; a request sent before that must not kill them by SIGPIPE, so their sockets stay open until
/// others follow.
const TURNED_AWAY: usize = 64;

/// What the daemon is to be told next. The queue is bounded: a connection stands in it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    /// A connection, where it is new, and its requests.
    Connection(u64),
    Closed(u64),
    Replayed,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Clients {
    epoll: Rc<OwnedFd>,
    table: BTreeMap<u64, Client>,
    notes: VecDeque<Note>,
    /// The last id given; ids are never used twice.
    last: u64,
    shares: Shares,
    /// The service manager keeps the sockets for a keeper to come.
    stores: bool,
    turned_away: VecDeque<OwnedFd>,
    /// Requests may bring descriptors.
    descriptors: bool,
    closer: Closer<OwnedFd>,
    scratch: Vec<u8>,
}

impl Clients {
    pub(crate) fn new(
        epoll: Rc<OwnedFd>,
        shares: Shares,
        descriptors: bool,
    ) -> std::io::Result<Self> {
        Ok(Self {
            epoll,
            table: BTreeMap::new(),
            notes: VecDeque::new(),
            last: 0,
            shares,
            stores: false,
            turned_away: VecDeque::new(),
            descriptors,
            closer: Closer::start()?,
            scratch: vec![0; MAX_MESSAGE + 1],
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Takes on an accepted connection, or tells why it is turned away.
    pub(crate) fn admit(&mut self, socket: OwnedFd, kind: Kind) -> Result<Result<(), Full>, Errno> {
        let owner = Owner { user: peer::user(&socket)?, kind };
        if let Err(full) = self.shares.check(owner) {
            let _ = rustix::net::shutdown(&socket, Shutdown::Write);
            if self.turned_away.len() >= TURNED_AWAY
                && let Some(socket) = self.turned_away.pop_front()
            {
                self.closer.close(socket);
            }
            self.turned_away.push_back(socket);
            return Ok(Err(full));
        }
        let id = self.last + 1;
        self.insert(id, Client::new(socket, kind))?;
        self.last = id;
        Ok(Ok(()))
    }

    fn insert(&mut self, id: u64, mut client: Client) -> Result<(), Errno> {
        client.interest = client.wants();
        let user = peer::user(&*client.socket)?;
        epoll::add(&*self.epoll, &*client.socket, EventData::new_u64(id), client.interest)?;
        if self.stores {
            // Kept or not, it is served; one that is not kept ends with this keeper.
            let _ = systemd::store(&name_of(id), &*client.socket);
        }
        client.queued = true;
        client.user = user;
        self.shares.take(Owner { user, kind: client.kind });
        self.notes.push_back(Note::Connection(id));
        self.table.insert(id, client);
        Ok(())
    }

    /// From now on the service manager has every connection, too.
    pub(crate) fn store(&mut self) {
        self.stores = true;
    }

    /// Takes over what a keeper before had, with the sockets that are still there.
    pub(crate) fn resume(
        &mut self,
        last: u64,
        clients: BTreeMap<u64, SavedClient<Rc<OwnedFd>>>,
        sockets: &mut BTreeMap<u64, OwnedFd>,
    ) -> Result<(), Errno> {
        self.last = last;
        for (id, saved) in clients {
            if let Some(socket) = sockets.remove(&id) {
                self.insert(id, Client::resume(socket, saved))?;
                if self.settle(id).is_err() {
                    self.end(id);
                }
            }
        }
        Ok(())
    }

    /// What a keeper to come has to know; connections that cannot be handed on end here.
    pub(crate) fn save(&self, epoch: Epoch) -> Vec<u8> {
        let mut state = save_head(epoch, self.last);
        for (id, client) in &self.table {
            if !client.save(*id, &mut state) {
                client.shut();
            }
        }
        state
    }

    /// Something happened on a connection. Tells why it was closed, if it misbehaved.
    pub(crate) fn event(&mut self, id: u64, flags: EventFlags) -> Option<&'static str> {
        let client = self.table.get_mut(&id)?;
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.end(id);
            return None;
        }
        let done = if flags.contains(EventFlags::IN) {
            client.read(&mut self.scratch, self.descriptors, &self.closer)
        } else {
            Ok(())
        };
        match done.and_then(|()| self.settle(id)) {
            Ok(()) => None,
            Err(broken) => {
                self.end(id);
                match broken {
                    Broken::Gone => None,
                    Broken::Refused(why) => Some(why),
                }
            }
        }
    }

    /// The daemon answers. False if nobody waits for that, though the connection is open.
    pub(crate) fn answer(
        &mut self,
        id: u64,
        sequence: u64,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> bool {
        let Some(client) = self.table.get_mut(&id) else { return true };
        let descriptors = descriptors.into_iter().map(Rc::new).collect();
        if !client.ledger.answer(sequence, bytes.to_vec(), descriptors) {
            return client.is_closing();
        }
        if self.settle(id).is_err() {
            self.end(id);
        }
        true
    }

    /// The daemon wants a connection closed.
    pub(crate) fn close(&mut self, id: u64) {
        let Some(client) = self.table.get_mut(&id) else { return };
        client.close();
        if self.settle(id).is_err() {
            self.end(id);
        }
    }

    /// Another daemon is to be told everything.
    pub(crate) fn replay(&mut self) {
        self.notes.clear();
        for (id, client) in &mut self.table {
            client.told = false;
            client.ledger.told_nothing();
            // One that the daemon before was done with only waits for its last answers to leave.
            client.queued = !client.is_closing();
            if client.queued {
                self.notes.push_back(Note::Connection(*id));
            }
        }
        self.notes.push_back(Note::Replayed);
    }

    /// Puts into `batch` what the daemon is to be told, as long as it has room.
    pub(crate) fn tell(&mut self, batch: &mut Batch<Rc<OwnedFd>>) {
        while let Some(note) = self.notes.front().copied() {
            let whole = match note {
                Note::Connection(id) => match self.table.get_mut(&id) {
                    Some(client) => tell_client(id, client, batch),
                    None => true,
                },
                Note::Closed(id) => push_short(batch, Tag::Closed, id),
                Note::Replayed => push_short(batch, Tag::Replayed, 0),
            };
            if !whole {
                return;
            }
            self.notes.pop_front();
        }
    }

    /// After any change: sends what can be sent, queues what is to be told, waits for what is
    /// missing, and ends what is done.
    fn settle(&mut self, id: u64) -> Result<(), Broken> {
        let Some(client) = self.table.get_mut(&id) else { return Ok(()) };
        client.send()?;
        if client.is_done() {
            self.end(id);
            return Ok(());
        }
        if !client.queued && !client.is_closing() && client.ledger.untold().is_some() {
            client.queued = true;
            self.notes.push_back(Note::Connection(id));
        }
        let wants = client.wants();
        if wants != client.interest {
            let data = EventData::new_u64(id);
            epoll::modify(&*self.epoll, &*client.socket, data, wants).map_err(|_| Broken::Gone)?;
            client.interest = wants;
        }
        Ok(())
    }

    fn end(&mut self, id: u64) {
        let Some(client) = self.table.remove(&id) else { return };
        self.shares.give_back(Owner { user: client.user, kind: client.kind });
        // The daemon has the same open file: closing ours alone would change nothing.
        let _ = epoll::delete(&*self.epoll, &*client.socket);
        client.shut();
        if client.queued {
            self.notes.retain(|note| *note != Note::Connection(id));
        }
        if client.told {
            self.notes.push_back(Note::Closed(id));
        }
        // Descriptors may lie in it that were not read.
        if let Some(socket) = Rc::into_inner(client.socket) {
            self.closer.close(socket);
        }
    }
}

/// False if not all of it had room.
fn tell_client(id: u64, client: &mut Client, batch: &mut Batch<Rc<OwnedFd>>) -> bool {
    if !client.told {
        if !batch.has_room(0, 1) {
            return false;
        }
        let tag = match client.kind {
            Kind::Imtl => Tag::ConnectedImtl,
            Kind::Native => Tag::ConnectedNative,
        };
        batch.push(tag, id, 0, &[], [Rc::clone(&client.socket)]);
        client.told = true;
    }
    while let Some(asked) = client.ledger.untold() {
        if !batch.has_room(asked.bytes.len(), asked.descriptors.len()) {
            return false;
        }
        let sequence = asked.sequence;
        let descriptors = asked.descriptors.iter().cloned();
        batch.push(Tag::Request, id, sequence, asked.bytes, descriptors);
        client.ledger.told(sequence);
    }
    client.queued = false;
    true
}

fn push_short(batch: &mut Batch<Rc<OwnedFd>>, tag: Tag, connection: u64) -> bool {
    let room = batch.has_room(0, 0);
    if room {
        batch.push(tag, connection, 0, &[], []);
    }
    room
}
