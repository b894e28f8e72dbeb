//! What can go wrong between a client and its manager.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Something was not to be had from the manager.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// There is no manager, or not for this user.
    #[error("cannot connect to the manager at {}: {source}{}", socket.display(), hint(source))]
    Connect {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A client can register with that many and no more.
    #[error("{count} interfaces: a manager takes at most {most} from one client")]
    Interfaces {
        /// How many were wanted.
        count: usize,
        /// How many there can be.
        most: usize,
    },
    /// The manager says no.
    #[error("the manager refuses {what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Why.
        reason: Reason,
    },
    /// No answer came in time. What comes later would be taken for the answer to something else,
    /// so the connection is of no use any more, unless it was a heartbeat.
    #[error("the manager does not answer within {patience:?}: {what}")]
    Silent {
        /// What was asked for.
        what: String,
        /// How long was waited.
        patience: Duration,
    },
    /// What came is no answer to what was asked. The connection is of no use any more.
    #[error("the manager answers {found} to {what}: is that a manager?")]
    Odd {
        /// What was asked for.
        what: String,
        /// What came.
        found: String,
    },
    /// The connection ended: the manager is gone, and with it everything that was given.
    #[error("the manager ended the connection: {what}")]
    Ended {
        /// What was asked for.
        what: String,
    },
    /// The connection does not work.
    #[error("cannot talk to the manager: {what}: {source}")]
    Io {
        /// What was asked for.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An error before this one left the connection out of step.
    #[error("the connection to the manager was lost before: {what} was not asked for")]
    Lost {
        /// What would have been asked for.
        what: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; does pointsman-node or MtlManager run?",
        io::ErrorKind::ConnectionRefused => "; it ended without removing its socket",
        io::ErrorKind::PermissionDenied => "; this user may not: see --socket-mode of the manager",
        _ => "",
    }
}

/// Why a manager does not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// -1: `EPERM`, or what a manager of dialect 1.0 says to everything.
    NotPermitted,
    /// `EIO`.
    Failed,
    /// `EBUSY`.
    Busy,
    /// `ENODEV`.
    NoInterface,
    /// `EINVAL`.
    Invalid,
    /// `ENOSPC`.
    Exhausted,
    /// `EOPNOTSUPP`.
    Unsupported,
    /// There is no map for this client there.
    NoMap,
    /// Another number.
    Other(i32),
}

impl Reason {
    /// What a negative response means (`asm-generic/errno.h`).
    pub(crate) fn of(code: i32) -> Self {
        match code {
            -1 => Self::NotPermitted,
            -5 => Self::Failed,
            -16 => Self::Busy,
            -19 => Self::NoInterface,
            -22 => Self::Invalid,
            -28 => Self::Exhausted,
            -95 => Self::Unsupported,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPermitted => {
                "this client is not registered or may not; or the manager gives no reasons (-1)"
            }
            Self::Failed => "it could not be done; its log says why",
            Self::Busy => "somebody else has it",
            Self::NoInterface => "there is no such interface in this network namespace",
            Self::Invalid => "there is no such thing, or this client does not have it",
            Self::Exhausted => "none is left, or this client has as many as it may",
            Self::Unsupported => "it cannot do that here",
            Self::NoMap => "it has none for this client",
            Self::Other(code) => {
                return write!(f, "{code}, {}", io::Error::from_raw_os_error(code.wrapping_neg()));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_said_in_words() {
        let said = |code| Reason::of(code).to_string();
        assert!(said(-1).contains("not registered"));
        assert!(said(-16).contains("somebody else"));
        assert!(said(-19).contains("no such interface"));
        assert!(said(-12).starts_with("-12, Cannot allocate memory"), "{}", said(-12));
        // No errno, and nothing that could overflow.
        assert!(said(i32::MIN).starts_with("-2147483648"));
    }
}
