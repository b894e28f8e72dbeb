//! How a poll ends.

use super::look::MAX_READS;
use crate::sink::SinkError;
use crate::source::SourceError;
use pointsman_model::{FleetName, Sha256};
use pointsman_snapshot::cdb::CdbError;
use pointsman_snapshot::latest::LatestError;
use pointsman_snapshot::record::RecordError;
use std::time::Duration;

/// How a poll ended.
#[derive(Debug)]
pub enum Outcome {
    /// `latest` is as it was.
    Unchanged,
    /// Something was published, and nothing for this node.
    NothingNew,
    /// What is published holds no record of this node.
    NoRecord,
    /// What is published for this node is older than what it has.
    Stale {
        /// The generation that is published.
        offered: u64,
        /// The generation that was handed over.
        kept: u64,
    },
    /// There is a new record, and its objects are on their way: poll again at once.
    Fetching {
        /// The record's generation.
        generation: u64,
    },
    /// There is a new record, and what it needs cannot be had or kept. It is tried again.
    Incomplete {
        /// The record's generation.
        generation: u64,
        /// Why.
        error: PollError,
    },
    /// A record was handed over.
    HandedOver {
        /// Its generation.
        generation: u64,
    },
}

/// Why a poll came to nothing. What was handed over before stays.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PollError {
    /// Something could not be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// `latest` makes no sense.
    #[error(transparent)]
    Latest(#[from] LatestError),
    /// The source is of another fleet.
    #[error("the source is of fleet {found}, and this node is of {expected}")]
    OtherFleet {
        /// What `latest` says.
        found: FleetName,
        /// What was expected.
        expected: FleetName,
    },
    /// A shard makes no sense.
    #[error("shard {shard}: {why}")]
    Shard {
        /// Its hash.
        shard: Sha256,
        /// What is wrong with it.
        why: CdbError,
    },
    /// A shard that leads from one place to the next.
    #[error("shard {shard}: no end after {MAX_READS} reads; it is damaged, or made so on purpose")]
    Endless {
        /// Its hash.
        shard: Sha256,
    },
    /// There is no telling whether records are good.
    #[error("{0}")]
    Trust(String),
    /// The record is not one for this node.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An object is not what its hash says.
    #[error("{place} is not the object sha256:{expected}: its sha256 is {found}")]
    WrongHash {
        /// Where it was fetched.
        place: String,
        /// Its hash as it should be.
        expected: Sha256,
        /// Its hash as it is.
        found: Sha256,
    },
    /// Something could not be kept. The text and the kind of a [`SinkError`].
    #[error("{text}")]
    Sink {
        /// One line.
        text: String,
        /// A stable name.
        kind: String,
    },
}

impl From<SinkError> for PollError {
    fn from(error: SinkError) -> Self {
        Self::Sink { text: error.to_string(), kind: error.kind().to_owned() }
    }
}

impl PollError {
    /// A stable name, for metrics.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Source(error) => error.kind(),
            Self::Latest(_) => "latest",
            Self::OtherFleet { .. } => "other_fleet",
            Self::Shard { .. } | Self::Endless { .. } => "shard",
            Self::Trust(_) => "trust",
            Self::Record(error) => error.kind(),
            Self::WrongHash { .. } => "wrong_hash",
            Self::Sink { kind, .. } => kind,
        }
    }

    /// For how long the source wants to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Source(error) = self { error.retry_after() } else { None }
    }
}
