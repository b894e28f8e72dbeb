//! The keeper's end of the link.

use super::{Keeper, LINK, RETRY};
use crate::notice::Notice;
use crate::quarantine::Suspect;
use crate::systemd;
use crate::wire::{self, Tag};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::Signal;
use std::os::fd::AsFd as _;
use std::time::Instant;

/// How many datagrams of the daemon are read before others have their turn.
const ANSWERS_AT_ONCE: usize = 16;

/// A datagram of a daemon that is not behind with its answers, in bytes.
const SMALL: usize = 1024;

impl<F: FnMut(&Notice)> Keeper<F> {
    pub(super) fn on_link(&mut self, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.link_blocked = false;
            self.wait_for_link(EventFlags::IN);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read_link(ANSWERS_AT_ONCE);
        }
    }

    /// Reads what the daemon tells.
    pub(super) fn read_link(&mut self, datagrams: usize) {
        for _ in 0..datagrams {
            let Some(engine) = &self.engine else { return };
            let buffer = &mut self.buffer;
            match wire::receive_with(engine.link.as_fd(), buffer, RecvFlags::DONTWAIT) {
                Ok(received) if received.length > 0 && !received.cut => {
                    // One that is small is what there was: to look for more takes a call that finds
                    // nothing, and if there is more, epoll says so.
                    let small = received.length < SMALL && datagrams < usize::MAX;
                    self.understand(received);
                    if small {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                // Its end is near, and its pidfd tells of it.
                Ok(wire::Received { length: 0, .. }) | Err(_) => {
                    let _ = epoll::delete(&*self.epoll, &engine.link);
                    return;
                }
                Ok(_) => {
                    engine.signal(Signal::KILL);
                    self.notice(&Notice::Nonsense("a datagram that is cut off"));
                    return;
                }
            }
        }
    }

    fn understand(&mut self, received: wire::Received) {
        let wire::Received { length, descriptors, .. } = received;
        let mut nonsense = None;
        let (mut ready, mut withheld) = (false, false);
        for message in wire::messages(&self.buffer[..length], descriptors) {
            let Some(message) = message else {
                nonsense = Some("a message that cannot be read");
                break;
            };
            let wire::Message { tag, connection, sequence, bytes, descriptors } = message;
            match tag {
                Tag::Reply if bytes.is_empty() => nonsense = Some("an empty answer"),
                Tag::Reply => {
                    self.limits.answered();
                    if !self.clients.answer(connection, sequence, bytes, descriptors) {
                        nonsense = Some("an answer to what was not asked, or is answered");
                    }
                }
                Tag::Close => {
                    self.limits.answered();
                    self.clients.close(connection);
                }
                Tag::Ready => ready = true,
                Tag::Withheld => withheld = true,
                Tag::Hello
                | Tag::ConnectedImtl
                | Tag::ConnectedNative
                | Tag::Request
                | Tag::Closed
                | Tag::Replayed
                | Tag::Refuse => nonsense = Some("what only a keeper tells"),
            }
        }
        if withheld && let Some(engine) = &mut self.engine {
            engine.withholds = true;
        }
        if ready {
            self.on_ready();
        }
        if let Some(what) = nonsense {
            self.notice(&Notice::Nonsense(what));
        }
    }

    fn on_ready(&mut self) {
        let first = !std::mem::replace(&mut self.served, true);
        if let Some(engine) = &mut self.engine {
            engine.ready.get_or_insert_with(Instant::now);
            self.trial.serves(&engine.binary);
            if first && self.swapping {
                engine.signal(Signal::TERM);
                self.limits.told_to_end();
            }
        }
        if self.stopping.is_none() {
            systemd::notify("READY=1").unwrap_or_else(|error| self.notice(&Notice::Notify(error)));
        }
    }

    /// Tells the daemon what there is to tell, as far as the link takes it.
    pub(super) fn flush_link(&mut self) {
        if self.engine.is_none() || self.link_blocked {
            return;
        }
        loop {
            if self.batch.is_empty() {
                self.clients.tell(&mut self.batch);
                if self.clients.quarantine.is_active() {
                    self.tell_suspect();
                }
                if self.batch.is_empty() {
                    return;
                }
            }
            let Some(engine) = &self.engine else { return };
            match self.batch.send(&engine.link, SendFlags::DONTWAIT) {
                Ok(()) => self.clients.close_elsewhere(self.batch.take()),
                Err(Errno::AGAIN) => {
                    self.link_blocked = true;
                    self.wait_for_link(EventFlags::IN | EventFlags::OUT);
                    return;
                }
                // The link could be written to, so waiting for it would not wait.
                Err(Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS) => {
                    self.link_blocked = true;
                    self.retry = Some(Instant::now() + RETRY);
                    return;
                }
                // What was to be told is told to the next one.
                Err(error) => {
                    if !is_end(error) {
                        engine.signal(Signal::KILL);
                        self.notice(&Notice::LinkBroken(error.into()));
                    }
                    self.clients.close_elsewhere(self.batch.take());
                    self.link_blocked = true;
                    return;
                }
            }
        }
    }

    /// Tells a daemon that serves the next request that one before may have crashed over.
    fn tell_suspect(&mut self) {
        let serves = self.engine.as_ref().is_some_and(|engine| engine.ready.is_some());
        if !serves || !self.clients.all_told() {
            return;
        }
        loop {
            match self.clients.next_suspect(&mut self.batch) {
                Some(Suspect::Ended { connection, .. }) => {
                    let why = "daemon after daemon crashed over a request of it, refused or not";
                    self.notice(&Notice::Disconnected { connection, why });
                }
                Some(Suspect::Told { connection, crashes, refuse }) => {
                    let patience = self.limits.patience_with_suspect();
                    self.suspect_until = Some(Instant::now() + patience);
                    if refuse {
                        self.notice(&Notice::Poison { connection, crashes });
                    }
                    return;
                }
                None if self.clients.quarantine.is_active() => return,
                // That was the last one: whatever waited behind them is told.
                None => {
                    self.limits.no_suspects();
                    self.suspect_until = None;
                    return self.clients.tell(&mut self.batch);
                }
            }
        }
    }

    fn wait_for_link(&self, flags: EventFlags) {
        if let Some(engine) = &self.engine {
            let data = EventData::new_u64(LINK);
            let _ = epoll::modify(&*self.epoll, &engine.link, data, flags);
        }
    }
}

/// Whether an error of the link says that the daemon has ended. Its pidfd tells, too; after any
/// other error it would live on, and never be told anything again.
fn is_end(error: Errno) -> bool {
    matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ended_daemon_is_left_alone() {
        for (error, end) in [
            (Errno::PIPE, true),
            (Errno::CONNRESET, true),
            (Errno::MSGSIZE, false),
            (Errno::PERM, false),
            (Errno::BADF, false),
        ] {
            assert_eq!(is_end(error), end, "{error}");
        }
    }
}
