//! When to try again. Pure: randomness comes in as a number.

use std::time::Duration;

/// The longest pause after errors, unless the interval itself is longer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How far a pause may be from the interval, as a part of it: a fleet that was started at one
/// moment is spread over an interval within a few of them.
const SPREAD: f64 = 0.25;

/// The pauses of something that is tried again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    interval: Duration,
    failures: u32,
}

impl Schedule {
    /// One try per `interval` as long as all is well.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, failures: 0 }
    }

    /// The pause after a try that went well: the interval, a quarter of it more or less.
    pub fn after_success(&mut self, random: Chance) -> Duration {
        self.failures = 0;
        self.interval.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * random.0)
    }

    /// The pause after a try that failed. They grow up to [`LONGEST_PAUSE`], and each is drawn
    /// from the whole span, so that those who failed together do not come back together.
    pub fn after_failure(&mut self, random: Chance, at_least: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let longest = LONGEST_PAUSE.max(self.interval);
        let pause = backed_off(self.interval, longest, self.failures, random);
        pause.max(at_least.unwrap_or_default())
    }

    /// How many tries in a row have failed.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

/// A pause from half of `first` up to `first`, doubled with every failure after the first one, and
/// never longer than `longest`.
#[must_use]
pub fn backed_off(first: Duration, longest: Duration, failures: u32, random: Chance) -> Duration {
    // 2^16 seconds are more than any pause.
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let least = (first / 2).min(longest);
    least + (doubled.min(longest).saturating_sub(least)).mul_f64(random.0)
}

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance(f64);

impl Chance {
    /// From the kernel's randomness.
    #[must_use]
    pub fn draw() -> Self {
        let mut bytes = [0; 4];
        // It fails only before the kernel has gathered any; then all draw the middle.
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(4) => Self::of(u32::from_ne_bytes(bytes)),
            _ => Self(0.5),
        }
    }

    /// From a number out of all there are.
    #[must_use]
    pub fn of(number: u32) -> Self {
        Self(f64::from(number) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_stay_within_their_bounds(
            millis in 1_u64..4_000_000,
            outcomes in prop::collection::vec((any::<bool>(), any::<u32>()), 1..60),
        ) {
            let interval = Duration::from_millis(millis);
            let longest = LONGEST_PAUSE.max(interval);
            let mut schedule = Schedule::new(interval);
            let mut failures = 0;
            for (well, random) in outcomes {
                let random = Chance::of(random);
                let pause = if well {
                    failures = 0;
                    schedule.after_success(random)
                } else {
                    failures += 1;
                    schedule.after_failure(random, None)
                };
                prop_assert_eq!(schedule.failures(), failures);
                prop_assert!(pause <= longest.mul_f64(1.0 + SPREAD), "{:?}", pause);
                if well {
                    prop_assert!(pause >= interval.mul_f64(0.74) && pause <= interval.mul_f64(1.26));
                } else {
                    prop_assert!(pause >= interval.min(longest) / 2, "{:?}", pause);
                    prop_assert!(pause <= longest);
                }
            }
        }

        #[test]
        fn who_asks_to_be_left_alone_is(seconds in 0_u64..300, random: u32) {
            let asked = Duration::from_secs(seconds);
            let mut schedule = Schedule::new(Duration::from_secs(1));
            prop_assert!(schedule.after_failure(Chance::of(random), Some(asked)) >= asked);
        }
    }

    #[test]
    fn pauses_grow_and_are_drawn_from_the_whole_span() {
        let second = Duration::from_secs(1);
        let longest = |failures| backed_off(second, LONGEST_PAUSE, failures, Chance::of(u32::MAX));
        let shortest = |failures| backed_off(second, LONGEST_PAUSE, failures, Chance::of(0));
        assert_eq!([1, 2, 3, 4].map(|n| longest(n).as_secs()), [1, 2, 4, 8]);
        assert_eq!([1, 7, 40, u32::MAX].map(shortest), [second / 2; 4]);
        assert_eq!([7, 40, u32::MAX].map(longest), [LONGEST_PAUSE; 3]);
    }
}
