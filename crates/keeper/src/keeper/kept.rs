//! What the service manager keeps between two keepers.

use super::{KeeperError, io_error};
use crate::clients::Clients;
use crate::handover::{STATE, Saved, connection_of, load};
use crate::link::{Epoch, Kind};
use crate::listen::{Listen, ListenError, Listener};
use crate::systemd;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// How the listening sockets are called in the store, in the order of the configuration.
pub(super) const STORED: [&str; 2] = ["imtl", "leases"];

/// The largest state that is read: what the most clients may hold is far less.
const MAX_STATE: u64 = 1 << 30;

/// What came from the store.
#[derive(Debug, Default)]
pub(super) struct Kept {
    listeners: Vec<(String, OwnedFd)>,
    sockets: BTreeMap<u64, OwnedFd>,
    saved: Option<Saved<Rc<OwnedFd>>>,
}

impl Kept {
    pub(super) fn take(fd_store: bool) -> Self {
        let mut kept = Self::default();
        if !fd_store {
            return kept;
        }
        for (name, descriptor) in systemd::kept() {
            if name == STATE {
                let mut state = Vec::new();
                let mut file = File::from(descriptor);
                let read =
                    file.rewind().and_then(|()| file.take(MAX_STATE).read_to_end(&mut state));
                kept.saved = read.ok().and_then(|_| load(&state));
                // It is right once. Kept on, it would be taken for that of a keeper that crashed.
                if systemd::forget(STATE).is_err() {
                    kept.saved = None;
                }
            } else if let Some(connection) = connection_of(&name) {
                kept.sockets.insert(connection, descriptor);
            } else {
                kept.listeners.push((name, descriptor));
            }
        }
        kept
    }

    /// The listening socket that was kept for this, whatever its name is; an error if there only is
    /// one that has the name.
    pub(super) fn listener(&mut self, listen: &Listen) -> Option<Result<Listener, ListenError>> {
        let name = match listen.kind {
            Kind::Imtl => STORED[0],
            Kind::Native => STORED[1],
        };
        let fits = |(_, socket): &(_, OwnedFd)| Listener::fits(listen, socket).is_ok();
        let named = |(other, _): &(String, OwnedFd)| other == name;
        let at = self.listeners.iter().position(fits);
        let at = at.or_else(|| self.listeners.iter().position(named))?;
        let (name, socket) = self.listeners.swap_remove(at);
        Some(Listener::adopt(listen, socket).inspect_err(|_| {
            // Another one is going to have the name. Where that fails, both have it, and this one
            // is looked at again and turned down again.
            let _ = systemd::forget(&name);
        }))
    }

    /// Takes over the connections, and ends those about which nothing is known: a keeper that was
    /// killed left no word of what they wait for. Returns the name under which all that goes on.
    pub(super) fn resume(mut self, clients: &mut Clients) -> Result<Option<Epoch>, Errno> {
        let epoch = match self.saved {
            Some(Saved { epoch, last, clients: saved }) => {
                clients.resume(last, saved, &mut self.sockets)?;
                Some(epoch)
            }
            None => None,
        };
        for socket in self.sockets.values() {
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
        Ok(epoch)
    }
}

/// Gives the state to the service manager.
pub(super) fn save(state: &[u8]) -> io::Result<()> {
    let mut file = File::from(memfd_create("pointsman-keeper", MemfdFlags::CLOEXEC)?);
    file.write_all(state)?;
    systemd::store_surely(STATE, &file)
}

/// A name that no keeper had.
pub(super) fn new_epoch() -> Result<Epoch, KeeperError> {
    let mut epoch = [0; 16];
    getrandom(&mut epoch, GetRandomFlags::empty()).map_err(io_error("get a random name"))?;
    Ok(Epoch(epoch))
}
