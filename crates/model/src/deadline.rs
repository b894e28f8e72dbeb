//! Deadlines that hold over a kill of the daemon, a reboot, and a clock that somebody sets.

use serde::{Deserialize, Serialize};

/// A moment as a host's clocks tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Milliseconds since the Unix epoch. Anybody may set this clock.
    pub unix_ms: u64,
    /// Milliseconds since the host was started, suspend included (`CLOCK_BOOTTIME`,
    /// clock_gettime(2)). Nobody can set this clock, and it begins anew with every boot.
    pub boot_ms: u64,
    /// Which boot, as /proc/sys/kernel/random/boot_id tells it (random(4)); `None`: it cannot be
    /// read, and then no two moments count as of the same boot.
    pub boot: Option<String>,
}

/// A time by which something is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// When it was set.
    pub set: Moment,
    /// How long after that, in milliseconds.
    pub length_ms: u64,
}

impl Deadline {
    /// The deadline `length_ms` after `now`.
    #[must_use]
    pub fn after(now: Moment, length_ms: u64) -> Self {
        Self { set: now, length_ms }
    }

    /// Milliseconds that are left at `now`; 0: it has passed.
    ///
    /// Within one boot the wall clock is not asked, so a step of it neither loses nor extends a
    /// deadline. After a reboot it is all there is. A wall clock that went back, such as that of a
    /// host whose battery is empty, gives the whole length again and never more.
    #[must_use]
    pub fn remaining_ms(&self, now: &Moment) -> u64 {
        let elapsed = match (&self.set.boot, &now.boot) {
            (Some(then), Some(boot)) if then == boot => {
                now.boot_ms.saturating_sub(self.set.boot_ms)
            }
            _ => now.unix_ms.saturating_sub(self.set.unix_ms),
        };
        self.length_ms.saturating_sub(elapsed)
    }

    /// When it passes, on the wall clock as that stands at `now`.
    #[must_use]
    pub fn unix_ms(&self, now: &Moment) -> u64 {
        now.unix_ms.saturating_add(self.remaining_ms(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment(unix_ms: u64, boot_ms: u64, boot: &str) -> Moment {
        Moment { unix_ms, boot_ms, boot: Some(boot.to_owned()) }
    }

    proptest! {
        /// Whatever the wall clock does, a deadline of this boot is as far away as it should be.
        #[test]
        fn a_step_of_the_wall_clock_changes_nothing_within_a_boot(
            set in any::<u32>(), length in any::<u32>(), passed in any::<u32>(),
            wall in any::<u64>(), later in any::<u64>(),
        ) {
            let (set, length, passed) = (u64::from(set), u64::from(length), u64::from(passed));
            let deadline = Deadline::after(moment(wall, set, "a"), length);
            let now = moment(later, set + passed, "a");
            prop_assert_eq!(deadline.remaining_ms(&now), length.saturating_sub(passed));
        }

        /// Over a reboot the wall clock decides, and can never make the time longer.
        #[test]
        fn a_reboot_never_extends_a_deadline(
            set in any::<u64>(), length in any::<u64>(), later in any::<u64>(), up in any::<u64>(),
        ) {
            let deadline = Deadline::after(moment(set, 5, "a"), length);
            let remaining = deadline.remaining_ms(&moment(later, up, "b"));
            prop_assert!(remaining <= length);
            if later >= set {
                prop_assert_eq!(remaining, length.saturating_sub(later - set));
            }
        }
    }

    #[test]
    fn boots_that_nobody_can_tell_apart_are_judged_by_the_wall_clock() {
        let unknown = |unix_ms, boot_ms| Moment { unix_ms, boot_ms, boot: None };
        let deadline = Deadline::after(unknown(1_000, 500_000), 60_000);
        assert_eq!(deadline.remaining_ms(&unknown(31_000, 7)), 30_000);
        assert_eq!(deadline.unix_ms(&unknown(31_000, 7)), 61_000);
    }
}
