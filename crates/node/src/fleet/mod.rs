//! What comes from a fleet: files that somebody without any rights laid down.
//!
//! * [`membership`]: which fleet this node is of, under which name, and the key that its records
//!   are verified with. Root put that there.
//! * [`drop`](mod@drop): the directory where a courier, `rsync` or a person with a USB stick lays
//!   down snapshots and objects. Nothing in it is trusted: no link is followed, and whatever is
//!   used was copied first.
//! * [`watch`]: word that something was laid down, and [`stamps`]: looks where there is no word.
//!
//! The engine puts these together ([`crate::engine`]).

pub mod drop;
pub mod membership;
pub mod stamps;
pub mod watch;

use pointsman_snapshot::cdb::CdbError;
use pointsman_snapshot::record::RecordError;
use std::path::PathBuf;

/// Where a node looks for what comes from its fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The file that says which fleet it is of.
    pub config: PathBuf,
    /// The directory where snapshots and objects are laid down.
    pub drop: PathBuf,
}

/// Why a snapshot is not taken. The kinds are those of
/// [`RefusedSnapshot`](pointsman_model::fleet::RefusedSnapshot).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// In one word.
    pub kind: &'static str,
    /// In one line.
    pub message: String,
}

impl Refusal {
    /// The file cannot be read, or is not what it should be.
    pub(crate) fn unreadable(message: String) -> Self {
        Self { kind: "unreadable", message }
    }
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        Self { kind: error.kind(), message: error.to_string() }
    }
}

impl From<CdbError> for Refusal {
    fn from(error: CdbError) -> Self {
        let kind = match error {
            CdbError::TooLarge { .. } => "too_large",
            _ => "unreadable",
        };
        Self { kind, message: error.to_string() }
    }
}
