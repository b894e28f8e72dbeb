//! New connections.

use super::{Keeper, LISTENERS, RETRY};
use crate::notice::Notice;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::time::Instant;

/// How many connections are accepted before others have their turn.
const ACCEPT_AT_ONCE: usize = 64;

impl<F: FnMut(&Notice)> Keeper<F> {
    /// Takes on who waits at a socket.
    pub(super) fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPT_AT_ONCE {
            let Some(listener) = self.listeners.get(index) else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let admitted = accept_with(&listener.socket, flags)
                .and_then(|socket| self.clients.admit(socket, listener.kind));
            match admitted {
                Ok(Ok(())) => {
                    if let Some(error) = self.clients.not_stored() {
                        self.notice(&Notice::KeptLater(error));
                    }
                }
                Ok(Err(full)) => self.notice(&full.into()),
                Err(Errno::AGAIN) => return,
                // A client that went away meanwhile is none.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => {
                    self.notice(&Notice::AcceptPaused(error.into()));
                    self.retry = Some(Instant::now() + RETRY);
                    self.listen_for(EventFlags::empty());
                    return;
                }
            }
        }
    }

    /// Waits for connections, or does not.
    pub(super) fn listen_for(&mut self, flags: EventFlags) {
        for (listener, name) in self.listeners.iter().zip(LISTENERS..) {
            // Fails only for what is not in the set, and they all are.
            let data = EventData::new_u64(name);
            let _ = epoll::modify(&*self.epoll, &listener.socket, data, flags);
        }
    }
}
