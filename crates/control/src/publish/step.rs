//! The steps of a publish, by name: tests kill the process at each.

/// Where a publish is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is the only publisher.
    Locked,
    /// It knows what is wanted.
    Viewed,
    /// Some records are made and in the database.
    Recorded,
    /// A shard is in the store.
    Sharded,
    /// An object is in the store.
    Stored,
    /// The snapshot is in the database.
    Numbered,
    /// `latest` names it.
    Named,
    /// The database knows that.
    Noted,
    /// Something that nobody needs is removed.
    Collected,
}

/// Names the step at which the process kills itself, and which time: `sharded:2`.
#[cfg(debug_assertions)]
const VARIABLE: &str = "POINTSMAN_CONTROL_DIE_AT";

impl Step {
    /// Comes here. In a release build nothing happens.
    #[cfg(not(debug_assertions))]
    pub(super) fn reached(self) {}

    /// Comes here. With `POINTSMAN_CONTROL_DIE_AT` set this may be the end, as by `kill -9`.
    #[cfg(debug_assertions)]
    pub(super) fn reached(self) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static SEEN: AtomicU32 = AtomicU32::new(0);
        let Ok(wanted) = std::env::var(VARIABLE) else { return };
        let (name, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        if format!("{self:?}").to_lowercase() != name {
            return;
        }
        if time.parse() == Ok(SEEN.fetch_add(1, Ordering::Relaxed) + 1) {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            // The signal may arrive at another thread first.
            std::process::abort();
        }
    }
}
