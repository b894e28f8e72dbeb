//! All connections, and what the daemon is to be told of them.

use crate::client::{Broken, Client};
use crate::closer::Closer;
use crate::handover::{SavedClient, name_of, save_head};
use crate::link::{Epoch, Kind, MAX_MESSAGE};
use crate::peer;
use crate::quarantine::Quarantine;
use crate::shares::{Full, Owner, Shares};
use crate::systemd;
use crate::wire::{Batch, Tag};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::Shutdown;
use std::collections::{BTreeMap, VecDeque};
use std::io;
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
    pub(crate) table: BTreeMap<u64, Client>,
    notes: VecDeque<Note>,
    /// The last id given; ids are never used twice.
    last: u64,
    shares: Shares,
    /// The service manager keeps the sockets for a keeper to come.
    stores: bool,
    /// Why it did not take the last one that it did not take.
    not_stored: Option<io::Error>,
    turned_away: VecDeque<OwnedFd>,
    /// Requests may bring descriptors.
    descriptors: bool,
    closer: Closer<OwnedFd>,
    pub(crate) quarantine: Quarantine,
    /// How many requests the running daemon has been told and has not answered.
    pub(crate) unanswered: usize,
    /// The running daemon is still told what there was when it started.
    replaying: bool,
    scratch: Vec<u8>,
}

impl Clients {
    pub(crate) fn new(epoll: Rc<OwnedFd>, shares: Shares, descriptors: bool) -> io::Result<Self> {
        Ok(Self {
            epoll,
            table: BTreeMap::new(),
            notes: VecDeque::new(),
            last: 0,
            shares,
            stores: false,
            not_stored: None,
            turned_away: VecDeque::new(),
            descriptors,
            closer: Closer::start()?,
            quarantine: Quarantine::default(),
            unanswered: 0,
            replaying: false,
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
            // Kept or not, it is served; one that is not kept has another chance at the end.
            match systemd::store(&name_of(id), &*client.socket) {
                Ok(()) => client.stored = true,
                Err(error) => self.not_stored = Some(error),
            }
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

    /// Why a connection was not taken by the service manager, once.
    pub(crate) fn not_stored(&mut self) -> Option<io::Error> {
        self.not_stored.take()
    }

    /// Has the service manager take what it was too busy for. How many connections it does not have
    /// even so, and why: they end with this keeper.
    pub(crate) fn store_rest(&mut self) -> Option<(usize, io::Error)> {
        let mut missing = self.table.iter_mut().filter(|(_, client)| !client.stored);
        let failed = missing.find_map(|(id, client)| {
            let stored = systemd::store_surely(&name_of(*id), &*client.socket);
            client.stored = stored.is_ok();
            stored.err()
        })?;
        // It has been waited for: it is not waited for once more for each of the others.
        Some((1 + missing.count(), failed))
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
                // The service manager has it still.
                let mut client = Client::resume(socket, saved);
                client.stored = true;
                self.insert(id, client)?;
                if self.settle(id).is_err() {
                    self.end(id);
                }
            }
        }
        Ok(())
    }

    /// Closes what nobody else holds, where that can take long: a client that ended may have left
    /// descriptors in its socket.
    pub(crate) fn close_elsewhere(&self, descriptors: impl Iterator<Item = Rc<OwnedFd>>) {
        for descriptor in descriptors.filter_map(Rc::into_inner) {
            self.closer.close(descriptor);
        }
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
        self.unanswered = self.unanswered.saturating_sub(1);
        self.quarantine.answered(id, sequence);
        if self.settle(id).is_err() {
            self.end(id);
        }
        true
    }

    /// The daemon wants a connection closed.
    pub(crate) fn close(&mut self, id: u64) {
        let Some(client) = self.table.get_mut(&id) else { return };
        self.unanswered = self.unanswered.saturating_sub(client.ledger.waiting());
        client.close();
        self.quarantine.closed(id);
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
        self.replaying = true;
        self.unanswered = 0;
        let suspects = self.table.iter().filter(|(_, client)| client.ledger.has_suspects());
        self.quarantine.begin(suspects.map(|(id, _)| *id));
    }

    /// Whether the daemon has been told all connections.
    pub(crate) fn all_told(&self) -> bool {
        self.notes.is_empty()
    }

    /// Queues whatever was held back.
    pub(crate) fn queue_untold(&mut self) {
        for (id, client) in &mut self.table {
            if !client.queued && !client.is_closing() && client.ledger.untold().is_some() {
                client.queued = true;
                self.notes.push_back(Note::Connection(*id));
            }
        }
    }

    /// Puts into `batch` what the daemon is to be told, as long as it has room. Each connection has
    /// one request told in its turn, and stands behind all others then: who asks much waits for
    /// itself. Only what a daemon before left unanswered is told at once.
    pub(crate) fn tell(&mut self, batch: &mut Batch<Rc<OwnedFd>>) {
        while let Some(note) = self.notes.front().copied() {
            let most = match (self.quarantine.is_active(), self.replaying) {
                (true, _) => 0,
                (false, true) => usize::MAX,
                (false, false) => 1,
            };
            let told = match note {
                Note::Connection(id) => match self.table.get_mut(&id) {
                    Some(client) => tell_client(id, client, batch, most, &mut self.unanswered),
                    None => Told::All,
                },
                Note::Closed(id) => push_short(batch, Tag::Closed, id),
                Note::Replayed => {
                    let told = push_short(batch, Tag::Replayed, 0);
                    self.replaying &= told == Told::NoRoom;
                    told
                }
            };
            if told == Told::NoRoom {
                return;
            }
            self.notes.pop_front();
            if told == Told::Some {
                self.notes.push_back(note);
            }
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
        self.unanswered = self.unanswered.saturating_sub(client.ledger.waiting());
        self.quarantine.closed(id);
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

/// How much of what there was to tell was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    All,
    /// It is the turn of others now.
    Some,
    NoRoom,
}

/// Tells of a connection, where it is new, and at most so many of its requests.
fn tell_client(
    id: u64,
    client: &mut Client,
    batch: &mut Batch<Rc<OwnedFd>>,
    mut most: usize,
    unanswered: &mut usize,
) -> Told {
    let with_requests = most > 0;
    if !client.told {
        if !batch.has_room(0, 1) {
            return Told::NoRoom;
        }
        let tag = match client.kind {
            Kind::Imtl => Tag::ConnectedImtl,
            Kind::Native => Tag::ConnectedNative,
        };
        batch.push(tag, id, 0, &[], [Rc::clone(&client.socket)]);
        client.told = true;
    }
    while let Some(asked) = client.ledger.untold().filter(|_| with_requests) {
        if most == 0 {
            return Told::Some;
        }
        if !batch.has_room(asked.bytes.len(), asked.descriptors.len()) {
            return Told::NoRoom;
        }
        let sequence = asked.sequence;
        let descriptors = asked.descriptors.iter().cloned();
        batch.push(Tag::Request, id, sequence, asked.bytes, descriptors);
        client.ledger.told(sequence);
        *unanswered += 1;
        most -= 1;
    }
    client.queued = false;
    Told::All
}

fn push_short(batch: &mut Batch<Rc<OwnedFd>>, tag: Tag, connection: u64) -> Told {
    if !batch.has_room(0, 0) {
        return Told::NoRoom;
    }
    batch.push(tag, connection, 0, &[], []);
    Told::All
}

#[cfg(test)]
mod tests;
