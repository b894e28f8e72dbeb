//! What the keeper has to say to an operator. It writes no log itself.

use crate::listen::ListenError;
use crate::shares::Full;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something works less well than it should.
    Warn,
    /// Something changed.
    Info,
}

/// Something an operator wants to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice {
    /// A socket takes connections.
    Listening(PathBuf),
    /// The socket that the service manager kept is not taken over.
    NotAdopted(ListenError),
    /// The daemon has started.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// The daemon has ended and is started again.
    Ended {
        /// How it ended.
        how: String,
        /// When it is started again.
        again_in: Duration,
        /// How many clients wait for it.
        clients: usize,
    },
    /// The daemon could not be started, and is tried again.
    NotStarted {
        /// What the kernel said.
        error: io::Error,
        /// When it is tried again.
        again_in: Duration,
    },
    /// What is installed fails again and again: what worked before is started from now on.
    FellBack {
        /// What is installed.
        path: PathBuf,
        /// How often it failed in a row.
        failures: u32,
    },
    /// Daemons crash over a request, which is refused.
    Poison {
        /// The connection.
        connection: u64,
        /// How many crashed.
        crashes: u32,
    },
    /// The daemon answers nothing, and is ended to be started again.
    Hung {
        /// How many requests wait for it.
        requests: usize,
        /// For how long.
        silence: Duration,
    },
    /// The daemon did not end when it was told to, and is killed.
    Killed,
    /// The daemon is swapped for the one that is installed now.
    Swapping,
    /// As many clients as there may be: more are turned away.
    Full {
        /// The limit.
        limit: usize,
    },
    /// As many clients of one user as there may be: more of them are turned away.
    UserFull {
        /// The user.
        user: u32,
        /// The limit.
        limit: usize,
    },
    /// One socket has as many clients as it may have: more are turned away, but for root's.
    SocketFull {
        /// The limit.
        limit: usize,
    },
    /// The process may not open as many files as there may be clients.
    FewerClients {
        /// The limit asked for.
        wanted: usize,
        /// What the limit is now.
        limit: usize,
    },
    /// New connections wait, because none can be accepted.
    AcceptPaused(io::Error),
    /// A client was disconnected.
    Disconnected {
        /// The connection.
        connection: u64,
        /// Why.
        why: &'static str,
    },
    /// The daemon told something that cannot be right.
    Nonsense(&'static str),
    /// The daemon cannot be told anything, and is killed to be started again.
    LinkBroken(io::Error),
    /// The service manager cannot be told something.
    Notify(io::Error),
    /// The service manager did not take a client's socket, and is told again at the end.
    KeptLater(io::Error),
    /// The service manager does not have all sockets, and this keeper ends.
    NotKept {
        /// How many clients see the end of their connection.
        clients: usize,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Notice {
    /// How much it matters.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Listening(_) | Self::Started { .. } | Self::Swapping => Level::Info,
            Self::NotAdopted(_)
            | Self::Ended { .. }
            | Self::NotStarted { .. }
            | Self::FellBack { .. }
            | Self::Poison { .. }
            | Self::Hung { .. }
            | Self::Killed
            | Self::Full { .. }
            | Self::UserFull { .. }
            | Self::SocketFull { .. }
            | Self::FewerClients { .. }
            | Self::AcceptPaused(_)
            | Self::Disconnected { .. }
            | Self::Nonsense(_)
            | Self::LinkBroken(_)
            | Self::KeptLater(_)
            | Self::NotKept { .. }
            | Self::Notify(_) => Level::Warn,
        }
    }

    /// Which notices are kept from flooding a log together: clients can cause them at will.
    fn flood(&self) -> Option<usize> {
        match self {
            Self::Full { .. } | Self::UserFull { .. } | Self::SocketFull { .. } => Some(0),
            Self::AcceptPaused(_) => Some(1),
            Self::Disconnected { .. } => Some(2),
            Self::Nonsense(_) => Some(3),
            Self::KeptLater(_) => Some(4),
            Self::Listening(_)
            | Self::NotAdopted(_)
            | Self::Started { .. }
            | Self::Ended { .. }
            | Self::NotStarted { .. }
            | Self::FellBack { .. }
            | Self::Poison { .. }
            | Self::Hung { .. }
            | Self::Killed
            | Self::Swapping
            | Self::FewerClients { .. }
            | Self::LinkBroken(_)
            | Self::NotKept { .. }
            | Self::Notify(_) => None,
        }
    }
}

impl From<Full> for Notice {
    fn from(full: Full) -> Self {
        match full {
            Full::All { limit } => Self::Full { limit },
            Full::User { user, limit } => Self::UserFull { user, limit },
            Full::Socket { limit } => Self::SocketFull { limit },
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(path) => write!(f, "clients may connect to {}", path.display()),
            Self::NotAdopted(error) => write!(f, "{error}"),
            Self::Started { pid } => write!(f, "the daemon runs as pid {pid}"),
            Self::Ended { how, again_in, clients } if again_in.is_zero() => write!(
                f,
                "the daemon ended: {how}; {clients} clients stay connected and it is started \
                 again at once"
            ),
            Self::Ended { how, again_in, clients } => write!(
                f,
                "the daemon ended: {how}; {clients} clients stay connected and it is started \
                 again in {again_in:?}"
            ),
            Self::NotStarted { error, again_in } => {
                write!(f, "the daemon cannot be started: {error}; tried again in {again_in:?}")
            }
            Self::FellBack { path, failures } => write!(
                f,
                "{} failed {failures} times in a row: the daemon that worked before is started \
                 instead, and clients stay; install one that works and send SIGHUP (systemctl \
                 reload)",
                path.display()
            ),
            Self::Poison { connection, crashes } => write!(
                f,
                "the daemon crashed {crashes} times over a request of connection {connection}: it \
                 is refused; please report the log"
            ),
            Self::Hung { requests, silence } => write!(
                f,
                "the daemon has answered none of {requests} requests for {silence:?}: it hangs, and \
                 is ended (SIGABRT) to be started again; clients stay; please report the log"
            ),
            Self::Killed => f.write_str("the daemon did not end in time and is killed"),
            Self::Swapping => f.write_str("the daemon ends to be started anew; clients stay"),
            Self::Full { limit } => write!(
                f,
                "{limit} clients are connected, and more are turned away: raise --max-clients, or \
                 end clients that should not be there"
            ),
            Self::UserFull { user, limit } => write!(
                f,
                "user {user} has {limit} clients, and more of them are turned away: raise \
                 --max-clients-per-user, or end clients that should not be there"
            ),
            Self::SocketFull { limit } => write!(
                f,
                "one socket has {limit} clients, and more that are not root's are turned away: raise \
                 --max-clients, or end clients that should not be there"
            ),
            Self::FewerClients { wanted, limit } => write!(
                f,
                "--max-clients {wanted} becomes {limit}: this process may not open more files; \
                 raise the limit of open files (LimitNOFILE=, ulimit -n)"
            ),
            Self::AcceptPaused(error) => write!(
                f,
                "new clients wait, because none can be accepted: {error}; raise the limit of open \
                 files or end what holds them"
            ),
            Self::Disconnected { connection, why } => {
                write!(f, "connection {connection} was closed: {why}")
            }
            Self::Nonsense(what) => write!(f, "the daemon told nonsense, which is ignored: {what}"),
            Self::LinkBroken(error) => write!(
                f,
                "the daemon cannot be told what clients ask ({error}); it is killed and started \
                 again"
            ),
            Self::Notify(error) => write!(f, "cannot notify the service manager: {error}"),
            Self::KeptLater(error) => write!(
                f,
                "the service manager is too busy to keep a client's connection: {error}; it is \
                 told again before a restart"
            ),
            Self::NotKept { clients, error } => write!(
                f,
                "the service manager did not take the connections of {clients} clients, which end \
                 now: {error}"
            ),
        }
    }
}

/// Passes notices on, and of those that clients can cause at will few.
#[derive(Debug)]
pub(crate) struct Notices<F> {
    tell: F,
    last: [Option<Instant>; 5],
}

/// The shortest time between two of a kind that clients can cause at will.
const SELDOM: Duration = Duration::from_secs(10);

impl<F: FnMut(&Notice)> Notices<F> {
    pub(crate) fn new(tell: F) -> Self {
        Self { tell, last: [None; 5] }
    }

    pub(crate) fn tell(&mut self, notice: &Notice, now: Instant) {
        if let Some(last) = notice.flood().and_then(|kind| self.last.get_mut(kind)) {
            if last.is_some_and(|last| now.duration_since(last) < SELDOM) {
                return;
            }
            *last = Some(now);
        }
        (self.tell)(notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_cause_is_told_seldom_and_the_rest_always() {
        let mut told = Vec::new();
        let mut notices = Notices::new(|notice: &Notice| told.push(notice.to_string()));
        let start = Instant::now();
        for second in 0..20 {
            let now = start + Duration::from_secs(second);
            notices.tell(&Notice::Full { limit: 5 }, now);
            notices.tell(&Notice::Nonsense("odd"), now);
        }
        notices.tell(&Notice::Swapping, start);
        notices.tell(&Notice::Swapping, start);
        let full = told.iter().filter(|text| text.contains("--max-clients")).count();
        assert_eq!((told.len(), full), (6, 2));
    }
}
