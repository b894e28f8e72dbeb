//! What daemons may have crashed over: told to the next one a request at a time, so that the one
//! that is to blame becomes known and all others are answered.
//!
//! After a crash every request that the daemon had been told and not answered is a suspect. As long
//! as there are any, nothing else is asked of the daemon that follows, and nothing at all before it
//! serves: whatever it then crashes over is the one request that it was told.

use crate::clients::Clients;
use crate::ledger::Asked;
use crate::wire::{Batch, Tag};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// After so many crashes the daemon is told to refuse the request.
pub(crate) const REFUSED_AFTER: u32 = 3;

/// After so many it is not even told of it: its connection ends.
pub(crate) const ENDED_AFTER: u32 = 5;

/// How long all others wait for the answer to one suspect.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The suspects.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    active: bool,
    /// Connections that have some, each once.
    connections: VecDeque<u64>,
    /// The request that the daemon has been told, by connection and number.
    told: Option<(u64, u64)>,
}

/// What becomes of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// The daemon is told of it, and is to refuse it after so many crashes.
    Told { connection: u64, crashes: u32, refuse: bool },
    /// Its connection has ended after so many crashes.
    Ended { connection: u64, crashes: u32 },
}

impl Quarantine {
    /// A daemon starts, and these connections have suspects.
    pub(crate) fn begin(&mut self, connections: impl Iterator<Item = u64>) {
        self.connections = connections.collect();
        self.active = !self.connections.is_empty();
        self.told = None;
    }

    /// Whether nothing but suspects is told.
    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the daemon is to answer one.
    pub(crate) fn waits(&self) -> bool {
        self.told.is_some()
    }

    /// A request is answered.
    pub(crate) fn answered(&mut self, connection: u64, sequence: u64) {
        self.told.take_if(|told| *told == (connection, sequence));
    }

    /// A connection is closed.
    pub(crate) fn closed(&mut self, connection: u64) {
        self.told.take_if(|(told, _)| *told == connection);
    }

    /// It takes too long: whoever else waits is told beside it.
    pub(crate) fn let_go(&mut self) {
        self.told = None;
    }
}

impl Clients {
    /// The daemon crashed, maybe over something that it had been told.
    pub(crate) fn crashed(&mut self) {
        self.table.values_mut().for_each(|client| client.ledger.suspect());
    }

    /// Puts the next suspect into `batch`, if it is its turn; `None` if it is not, or there is none
    /// any more: then all others can be told again. Only for a daemon that serves, and knows all
    /// connections.
    pub(crate) fn next_suspect(&mut self, batch: &mut Batch<Rc<OwnedFd>>) -> Option<Suspect> {
        if !self.quarantine.active || self.quarantine.waits() {
            return None;
        }
        while let Some(id) = self.quarantine.connections.front().copied() {
            let client = self.table.get_mut(&id).filter(|client| !client.is_closing());
            let Some(client) = client else {
                self.quarantine.connections.pop_front();
                continue;
            };
            let asked = client.ledger.untold().filter(|asked| asked.crashes > 0);
            let Some(Asked { sequence, crashes, bytes, descriptors }) = asked else {
                self.quarantine.connections.pop_front();
                continue;
            };
            if crashes >= ENDED_AFTER {
                self.close(id);
                return Some(Suspect::Ended { connection: id, crashes });
            }
            if !batch.has_room(bytes.len(), descriptors.len()) {
                return None;
            }
            let refuse = crashes >= REFUSED_AFTER;
            let tag = if refuse { Tag::Refuse } else { Tag::Request };
            batch.push(tag, id, sequence, bytes, descriptors.iter().cloned());
            client.ledger.told(sequence);
            self.unanswered += 1;
            self.quarantine.told = Some((id, sequence));
            return Some(Suspect::Told { connection: id, crashes, refuse });
        }
        self.quarantine.active = false;
        self.queue_untold();
        None
    }
}
