//! Lines about clients, as many as somebody can read: a client that takes and gives back all day
//! must not fill the log, nor push everything else out of the event log.

use std::time::{Duration, Instant};

/// Lets through a burst, and from then on so many a second.
#[derive(Debug)]
pub(super) struct Throttle {
    burst: u32,
    pause: Duration,
    left: u32,
    since: Instant,
    /// How many were held back since one was let through.
    held_back: u64,
}

impl Throttle {
    pub(super) fn new(burst: u32, a_second: u32, now: Instant) -> Self {
        let pause = Duration::from_secs(1) / a_second.max(1);
        Self { burst, pause, left: burst, since: now, held_back: 0 }
    }

    /// Whether one may pass; if so, with how many were held back before it.
    pub(super) fn pass(&mut self, now: Instant) -> Option<u64> {
        if !self.has_room(now) {
            self.held_back += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.held_back))
    }

    /// Whether the next may pass: where it may not, its line need not be made.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let earned = elapsed.as_nanos() / self.pause.as_nanos().max(1);
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(self.burst);
            self.since = now;
        }
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut throttle = Throttle::new(3, 10, start);
        let mut pass = |millis| throttle.pass(start + Duration::from_millis(millis));
        assert_eq!([pass(0), pass(0), pass(0)], [Some(0); 3]);
        assert_eq!([pass(10), pass(20)], [None; 2]);
        assert_eq!([pass(120), pass(120)], [Some(2), None]);
        assert_eq!([pass(60_000), pass(60_000), pass(60_000)], [Some(1), Some(0), Some(0)]);
        assert_eq!(pass(60_000), None, "no more than a burst is saved up");
        // A clock that stands still gives nothing.
        assert_eq!(pass(0), None);
    }
}
