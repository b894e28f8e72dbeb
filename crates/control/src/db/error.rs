//! What can go wrong with the database.

use sqlx::error::ErrorKind;
use std::path::PathBuf;

/// The database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be made or opened.
    #[error("cannot open {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It was written by a later version of this program.
    #[error(
        "{database} was written by a later version of pointsman-control (its table version {version} \
         is not known here): start that version, or restore a backup from before it"
    )]
    Later {
        /// The database.
        database: String,
        /// The migration that is not known.
        version: i64,
    },
    /// A table cannot be brought up to date.
    #[error("cannot bring the tables of {database} up to date: {source}")]
    Migrate {
        /// The database.
        database: String,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// It does not answer.
    #[error("cannot open {database}: {source}")]
    Unreachable {
        /// The database.
        database: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The URL names no database.
    #[error("{url:?} names no database: {why}")]
    Url {
        /// The URL, without a password.
        url: String,
        /// What was expected.
        why: String,
    },
}

/// The database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Somebody else holds what is needed, and did not give it back in time.
    #[error("{what} is busy: try again")]
    Busy {
        /// What.
        what: String,
    },
    /// It does not go together with what is there.
    #[error("{0}")]
    Conflict(String),
    /// There is no room for it.
    #[error("the database has no room left: make some; nothing was changed")]
    Full,
    /// What is stored cannot be read.
    #[error("the database's column {column} holds what cannot be read: {why}")]
    Garbled {
        /// The column.
        column: String,
        /// Why.
        why: String,
    },
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// The database cannot be reached, or failed.
    #[error("the database does not answer: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// It is another revision by now, or is there already, or is not.
    #[error("{object} {why}")]
    PreconditionFailed {
        /// What was to be changed.
        object: String,
        /// How it stands.
        why: String,
    },
    /// It exists, and the request does not say which revision it means to change.
    #[error(
        "{object} exists (revision {revision}): say with If-Match: \"{revision}\" that this is what \
         you change"
    )]
    PreconditionRequired {
        /// What was to be changed.
        object: String,
        /// Its revision.
        revision: u64,
    },
}

/// SQLSTATE 55P03: a lock was not given in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        let busy = || Self::Busy { what: "the database".into() };
        let Some(database) = error.as_database_error() else {
            // Among them that no connection was to be had in time: a pool keeps trying, and does
            // not tell a server that is gone from one that has too much to do.
            return Self::Unavailable(error);
        };
        if matches!(database.kind(), ErrorKind::UniqueViolation) {
            return Self::Conflict(format!("it exists already: {}", database.message()));
        }
        let code = database.code().unwrap_or_default();
        if is_busy(&code) {
            return busy();
        }
        if is_full(&code) {
            return Self::Full;
        }
        Self::Unavailable(error)
    }
}

/// Whether a code says that somebody else was at work for too long.
pub(super) fn is_busy(code: &str) -> bool {
    // SQLite: the low byte of the extended code is 5 (BUSY) or 6 (LOCKED).
    code == LOCK_NOT_AVAILABLE
        || code.len() < 5 && code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6))
}

/// Whether a code says that the disk is full: SQLITE_FULL, or SQLSTATE 53100.
fn is_full(code: &str) -> bool {
    matches!(code, "13" | "53100")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_told_apart_from_broken() {
        for busy in ["5", "6", "261", "517", "55P03"] {
            assert!(is_busy(busy), "{busy}");
        }
        // Full, corrupt, a unique violation of both, and what PostgreSQL calls a deadlock.
        for other in ["13", "11", "2067", "23505", "40P01", ""] {
            assert!(!is_busy(other), "{other}");
        }
    }
}
