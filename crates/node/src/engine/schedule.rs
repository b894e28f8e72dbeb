//! When the host is looked at: at once when something is said to have changed, never so often that
//! it keeps the engine busy, and from time to time in any case. Pure.

use std::time::{Duration, Instant};

/// How soon it is looked at again after a change. A namespace that ends leaves its numbers before
/// its interfaces go, so these tell nobody (net/core/net_namespace.c, `cleanup_net`).
const SETTLED: Duration = Duration::from_secs(1);

/// The shortest time from the end of a look to the next: what changes meanwhile is one change.
const PAUSE: Duration = Duration::from_millis(100);

/// Looking takes at most one part in this many of the engine's time.
const SHARE: u32 = 10;

/// When the host is looked at next.
#[derive(Debug)]
pub(super) struct Schedule {
    /// How often it is looked at when nothing tells of a change.
    interval: Duration,
    due: Instant,
    /// Not before.
    ready: Instant,
    /// Whether the next look is for a change.
    changed: bool,
    /// Whether it is never looked at.
    still: bool,
}

impl Schedule {
    /// A schedule that begins with a look, to learn how things are.
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self { interval, due: now + PAUSE, ready: now, changed: false, still: false }
    }

    /// The schedule without any look.
    pub(super) fn never(self) -> Self {
        Self { still: true, ..self }
    }

    /// How often it is looked at when nothing tells of a change.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Instant {
        /// Longer than anybody waits.
        const DAY: Duration = Duration::from_secs(24 * 3600);
        if self.still { Instant::now() + DAY } else { self.due }
    }

    /// A look is due at `when` if none is before.
    pub(super) fn by(&mut self, when: Instant) {
        self.due = self.due.min(when.max(self.ready));
    }

    /// The daemon changed something itself: how was it left?
    pub(super) fn acted(&mut self, now: Instant) {
        self.by(now + PAUSE);
    }

    /// Something changed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.changed = true;
        self.by(now);
    }

    /// The host was looked at.
    pub(super) fn checked(&mut self, start: Instant, end: Instant) {
        let took = end.saturating_duration_since(start);
        self.ready = end + PAUSE.max(took * (SHARE - 1));
        let wait = if self.changed { SETTLED.min(self.interval) } else { self.interval };
        self.changed = false;
        self.due = self.ready.max(end + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(2);
    const INTERVAL: Duration = Duration::from_secs(5);

    /// One whose first look was at `start` and took no time.
    fn schedule(start: Instant) -> Schedule {
        let mut schedule = Schedule::new(start, INTERVAL);
        schedule.checked(start, start);
        schedule
    }

    #[test]
    fn a_change_is_looked_at_at_once_and_once_more_when_it_has_settled() {
        let start = Instant::now();
        assert_eq!(Schedule::new(start, INTERVAL).due(), start + PAUSE);
        let mut schedule = schedule(start);
        assert_eq!(schedule.due(), start + INTERVAL);
        let later = start + Duration::from_secs(1);
        schedule.changed(later);
        assert_eq!(schedule.due(), later);
        schedule.checked(later, later + TOOK);
        assert_eq!(schedule.due(), later + TOOK + SETTLED);
        let settled = schedule.due();
        schedule.checked(settled, settled + TOOK);
        assert_eq!(schedule.due(), settled + TOOK + INTERVAL);
    }

    #[test]
    fn a_storm_of_changes_costs_a_tenth_of_the_time() {
        let start = Instant::now();
        for took in [Duration::from_micros(500), Duration::from_millis(300)] {
            let mut schedule = schedule(start);
            let (mut now, mut busy) = (start, Duration::ZERO);
            // A change every 50 microseconds, for ten seconds.
            while now < start + Duration::from_secs(10) {
                schedule.changed(now);
                if now >= schedule.due() {
                    schedule.checked(now, now + took);
                    (now, busy) = (now + took, busy + took);
                }
                now += Duration::from_micros(50);
            }
            assert!(busy > Duration::ZERO && busy * SHARE <= (now - start) + took * SHARE);
        }
    }

    #[test]
    fn a_change_never_puts_a_look_off() {
        let start = Instant::now();
        let mut schedule = schedule(start);
        schedule.checked(start, start + TOOK);
        schedule.changed(start + TOOK);
        let due = schedule.due();
        assert_eq!(due, start + TOOK + PAUSE);
        schedule.changed(start + TOOK * 2);
        assert_eq!(schedule.due(), due);
    }
}
