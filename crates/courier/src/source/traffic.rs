//! What a courier costs its source.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts requests and bytes. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Traffic(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// How much it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests that were sent, redirected ones included.
    pub requests: u64,
    /// Bytes of answers, without their heads.
    pub bytes: u64,
}

impl Traffic {
    /// A request is sent.
    pub fn request(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes have come.
    pub fn bytes(&self, count: usize) {
        self.0.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// All so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            requests: self.0.requests.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
        }
    }
}
