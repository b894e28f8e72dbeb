//! When a daemon that ended is started again. Pure.

use std::time::Duration;

/// A daemon that served at least this long had started well: the next end counts as the first.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

/// How often in a row it is started again at once.
const AT_ONCE: u32 = 3;

/// The delay after that, which doubles each time.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// Counts the ends in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    ends: u32,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { ends: 0, longest }
    }

    /// Another binary is started: what the one before did counts no more.
    pub(crate) fn forget(&mut self) {
        self.ends = 0;
    }

    /// A daemon has ended that had served for so long, or not at all: how long to wait.
    pub(crate) fn after(&mut self, served: Option<Duration>) -> Duration {
        if served.is_some_and(|served| served >= STEADY) {
            self.ends = 0;
        }
        let doublings = self.ends.checked_sub(AT_ONCE);
        self.ends = self.ends.saturating_add(1);
        doublings.map_or(Duration::ZERO, |doublings| {
            FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(self.longest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_longest_and_a_steady_daemon_ends_them() {
        let longest = Duration::from_secs(10);
        let mut backoff = Backoff::new(longest);
        let millis: Vec<_> = (0..11).map(|_| backoff.after(None).as_millis()).collect();
        assert_eq!(millis, [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 10000]);
        assert_eq!(backoff.after(Some(STEADY - Duration::from_nanos(1))), longest);
        assert_eq!(backoff.after(Some(STEADY)), Duration::ZERO);
        backoff.ends = u32::MAX;
        assert_eq!(backoff.after(None), longest);
    }
}
