//! Lines about clients, as many as somebody can read: a client that takes and gives back all day
//! must not fill the log, nor push everything else out of the event log.

use std::collections::BTreeMap;
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

    /// Whether it is as one that was made now.
    fn is_as_new(&mut self, now: Instant) -> bool {
        self.has_room(now) && self.left == self.burst
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

/// One for each user that is heard of, so that nobody takes another's lines: scripts read them.
#[derive(Debug)]
pub(super) struct Throttles {
    burst: u32,
    a_second: u32,
    users: BTreeMap<u32, Throttle>,
    /// That of all users for whom there is no room.
    others: Throttle,
}

/// For how many users there are some of their own.
const USERS: usize = 16;

impl Throttles {
    pub(super) fn new(burst: u32, a_second: u32, now: Instant) -> Self {
        let others = Throttle::new(burst, a_second, now);
        Self { burst, a_second, users: BTreeMap::new(), others }
    }

    pub(super) fn of(&mut self, user: u32, now: Instant) -> &mut Throttle {
        if !self.users.contains_key(&user) && self.users.len() >= USERS {
            // Whoever was quiet for long has as much as a new one. What was held back is told yet.
            let others = &mut self.others;
            self.users.retain(|_, throttle| {
                let goes = throttle.is_as_new(now);
                others.held_back += if goes { throttle.held_back } else { 0 };
                !goes
            });
        }
        if !self.users.contains_key(&user) && self.users.len() >= USERS {
            return &mut self.others;
        }
        let fresh = || Throttle::new(self.burst, self.a_second, now);
        self.users.entry(user).or_insert_with(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_anothers_lines() {
        let now = Instant::now();
        let mut throttles = Throttles::new(3, 10, now);
        let mut passed =
            |user, at| (0..5).filter(|_| throttles.of(user, at).pass(at).is_some()).count();
        assert_eq!([passed(1, now), passed(1, now), passed(2, now)], [3, 0, 3]);
        // As many users as there may be have their own, and all others one together.
        let many: Vec<_> = (3..100).map(|user| passed(user, now)).collect();
        assert_eq!(many.iter().sum::<usize>(), (USERS - 2) * 3 + 3);
        assert!(throttles.users.len() <= USERS);
        // Those who are quiet make room.
        let later = now + Duration::from_secs(60);
        let mut passed =
            |user| (0..5).filter(|_| throttles.of(user, later).pass(later).is_some()).count();
        assert_eq!([passed(500), passed(501), passed(1)], [3, 3, 3]);
    }

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
