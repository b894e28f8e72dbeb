//! Where snapshots are fetched: what a courier asks of a blob store, and how that fails.

mod blobs;
mod http;
mod local;
mod traffic;

pub use blobs::{Blobs, Opening, Sources};
pub use http::{Client, ClientError, ClientOptions, HttpBlobs, MAX_REDIRECTS, Web};
pub(crate) use http::{as_directory, expect, innermost, shown};
pub use local::StoreBlobs;
pub use traffic::{Counted, Traffic};

use futures_util::Stream;
use hyper::body::Bytes;
use pointsman_model::Sha256;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use url::Url;

/// The largest `latest` that is read, in bytes.
pub(crate) const MAX_LATEST: usize = pointsman_snapshot::latest::MAX_BYTES;

/// How long an answer may take to begin, each piece of one to come, and a small one to be whole.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The least that something large must come with, in bytes a second.
pub(crate) const MIN_RATE: u64 = 16 << 10;

/// What a courier fetches from. One is used by one courier; what can be shared (connections,
/// counters) is shared inside.
pub trait Source: Send {
    /// Reads `latest`, unless it is still the one that `tag` was given with.
    fn latest(
        &mut self,
        tag: Option<&str>,
    ) -> impl Future<Output = Result<LatestAnswer, SourceError>> + Send;

    /// Reads `length` bytes of a shard from `offset`; fewer only where the shard ends.
    fn shard(
        &mut self,
        shard: &Sha256,
        offset: u64,
        length: usize,
    ) -> impl Future<Output = Result<Bytes, SourceError>> + Send;

    /// Begins to read an object at `from`, or at its beginning if the source cannot do that.
    fn object(
        &mut self,
        place: &Place,
        from: u64,
    ) -> impl Future<Output = Result<Download, SourceError>> + Send;
}

/// What the store has to say about `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LatestAnswer {
    /// It is the same as before.
    Unchanged,
    /// It is this.
    Found {
        /// Its bytes.
        bytes: Bytes,
        /// What to give the next time; `None`: the source cannot tell versions apart.
        tag: Option<String>,
    },
}

/// Where an object lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the blob store, by its hash.
    Store(Sha256),
    /// Where the document says: `http` or `https`. Asked without any credential.
    Url(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(hash) => write!(f, "objects/{hash}"),
            Self::Url(url) => match Url::parse(url) {
                Ok(url) => f.write_str(&shown(&url)),
                Err(_) => f.write_str("a link that is no URL"),
            },
        }
    }
}

/// An object on its way.
pub struct Download {
    /// Where in the object the stream starts: where it was asked to, or 0.
    pub from: u64,
    /// How many bytes the whole object has, where the source says.
    pub total: Option<u64>,
    /// The bytes. An error is the end of it.
    pub stream: ByteStream,
}

/// Bytes as they arrive.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>;

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("from", &self.from)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// Why something could not be fetched. One line; never holds a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The store does not take our credential.
    #[error(
        "{what} answers {status}: the credential is not taken (revoked, or of another fleet); \
         enrol this node again"
    )]
    Denied {
        /// What was asked for: a URL.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// The bytes stopped before their end.
    #[error("{what} broke off: {why}")]
    Interrupted {
        /// What was read.
        what: String,
        /// What the connection said.
        why: String,
    },
    /// It is not there.
    #[error("{what} is not there{}", advice(.what))]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// The answer makes no sense.
    #[error("the answer to {what} is not understood: {why}")]
    Odd {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A redirect that is not followed.
    #[error("{what} redirects to {to}: {why}")]
    Redirect {
        /// What was asked for.
        what: String,
        /// Where it points.
        to: String,
        /// Why it is not followed.
        why: &'static str,
    },
    /// It answered, and not with what was asked for.
    #[error("{what} answers {status}")]
    Status {
        /// What was asked for.
        what: String,
        /// The HTTP status and what it is called.
        status: String,
        /// For how long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    #[error("no answer from {what} within {} s", after.as_secs())]
    Timeout {
        /// What was asked for.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// More bytes than there may be.
    #[error("{what} has more than {limit} bytes, which is the most it may have")]
    TooLarge {
        /// What was read.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// It comes too slowly to ever be whole.
    #[error("{what} comes too slowly: {bytes} bytes in {} s", after.as_secs())]
    TooSlow {
        /// What was read.
        what: String,
        /// How much of it has come.
        bytes: u64,
        /// In which time.
        after: Duration,
    },
    /// There is no connection.
    #[error("cannot reach {what}: {why}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// What the network said.
        why: String,
    },
}

fn advice(what: &str) -> &'static str {
    if what.ends_with("/latest") {
        ": nothing has been published yet, or the source is another place"
    } else {
        ""
    }
}

impl SourceError {
    /// A stable name, for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::Interrupted { .. } => "interrupted",
            Self::Missing { .. } => "missing",
            Self::Odd { .. } => "odd_answer",
            Self::Redirect { .. } => "redirect",
            Self::Status { .. } => "status",
            Self::Timeout { .. } => "timeout",
            Self::TooLarge { .. } => "too_large",
            Self::TooSlow { .. } => "too_slow",
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// For how long the source wants to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }

    /// Whether to go on where the bytes stopped is worth a try.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        matches!(self, Self::Interrupted { .. } | Self::Timeout { .. })
    }
}
