//! Which binary the next daemon is started from: what is installed, or what worked before. Pure.

use crate::backoff::STEADY;
use std::time::Duration;

/// How often in a row a binary may fail before it has served for [`STEADY`]. More often than the
/// daemon may crash over one request: that is no fault of a new binary.
pub(crate) const TRIALS: u32 = 5;

/// Binaries of type `B`, and how they did.
#[derive(Debug)]
pub(crate) struct Trial<B> {
    /// The last one that served for [`STEADY`]; before there is one, the first that served.
    proven: Option<B>,
    /// How often in a row another one failed.
    failures: u32,
    /// What is installed is not started until somebody says that it is another one.
    rejected: bool,
}

impl<B> Default for Trial<B> {
    fn default() -> Self {
        Self { proven: None, failures: 0, rejected: false }
    }
}

impl<B: PartialEq + Clone> Trial<B> {
    /// What is to be started in place of what is installed.
    pub(crate) fn instead(&self) -> Option<&B> {
        self.proven.as_ref().filter(|_| self.rejected)
    }

    /// A daemon serves.
    pub(crate) fn serves(&mut self, binary: &B) {
        if self.proven.is_none() {
            self.proven = Some(binary.clone());
        }
    }

    /// A daemon has ended that had served for so long, or not at all. `failed`: nobody ended it.
    /// True if from now on what worked before is started.
    pub(crate) fn ended(&mut self, binary: &B, served: Option<Duration>, failed: bool) -> bool {
        if served.is_some_and(|served| served >= STEADY) {
            self.proven = Some(binary.clone());
        }
        if self.proven.as_ref() == Some(binary) {
            self.failures = 0;
            return false;
        }
        failed && self.failed()
    }

    /// What is installed could not be started, or did not serve. True as in [`Trial::ended`].
    pub(crate) fn failed(&mut self) -> bool {
        if self.proven.is_none() || self.rejected {
            return false;
        }
        self.failures += 1;
        self.rejected = self.failures >= TRIALS;
        self.rejected
    }

    /// Somebody has installed one, and says so.
    pub(crate) fn installed(&mut self) {
        self.failures = 0;
        self.rejected = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn a_binary_that_fails_again_and_again_makes_room_for_the_one_before() {
        let mut trial = Trial::default();
        trial.serves(&"old");
        trial.serves(&"new");
        // The only one there is may crash as it likes.
        assert!((0..100).all(|_| !trial.ended(&"old", SOON, true)));
        let failed: Vec<_> = (0..TRIALS).map(|_| trial.ended(&"new", SOON, true)).collect();
        assert_eq!(failed, [false, false, false, false, true]);
        assert_eq!(trial.instead(), Some(&"old"));
        assert!(!trial.ended(&"old", None, true) && !trial.failed());
        assert_eq!(trial.instead(), Some(&"old"), "until somebody installs another one");
        trial.installed();
        assert_eq!(trial.instead(), None);
        let failed: Vec<_> = (0..TRIALS).map(|_| trial.failed()).collect();
        assert_eq!(failed, [false, false, false, false, true], "it cannot even be started");
    }

    #[test]
    fn what_serves_for_long_is_proven_and_ends_that_somebody_asked_for_are_no_failures() {
        let mut trial = Trial::default();
        trial.serves(&"old");
        assert!((0..100).all(|_| !trial.ended(&"new", SOON, false)));
        assert!(!trial.ended(&"new", Some(STEADY), true));
        assert!((0..TRIALS).any(|_| trial.ended(&"newer", None, true)));
        assert_eq!(trial.instead(), Some(&"new"));
    }

    #[test]
    fn without_one_that_ever_served_nothing_can_be_started_instead() {
        let mut trial = Trial::default();
        assert!((0..100).all(|_| !trial.ended(&"one", None, true) && !trial.failed()));
        assert_eq!(trial.instead(), None);
    }
}
