//! What can go wrong with the blob store.

use std::sync::Arc;

/// The blob store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {name:?} in the blob store {store}: {source}")]
pub struct StoreError {
    pub(super) store: Arc<str>,
    pub(super) doing: Doing,
    pub(super) name: String,
    #[source]
    pub(super) source: object_store::Error,
}

/// What was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    List,
    Read,
    Remove,
    Write,
}

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Remove => "remove",
            Self::Write => "write",
        })
    }
}

impl StoreError {
    /// Whether there is no such blob.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.source, object_store::Error::NotFound { .. })
    }
}
