//! What somebody else did to a hook that was in order, and how soon it is put right.

use pointsman_model::HookId;
use pointsman_model::observed::{Observed, ObservedHook, ObservedLink};
use pointsman_model::status::DriftKind;
use std::time::Duration;

/// How a hook was left when it was in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The interface's number. Another number is another interface.
    pub interface_index: u32,
    /// The program that ran there.
    pub program_id: u32,
    /// Whether that was a dispatcher, which others may change.
    pub dispatcher: bool,
}

impl Settled {
    /// How the hook stands now; `None`: no chain of ours runs on the interface of its name.
    #[must_use]
    pub fn of(hook: &HookId, observed: &Observed) -> Option<Self> {
        let interface = observed.interfaces.get(&hook.interface)?;
        let link = observed.hooks.get(hook)?.link.as_ref()?;
        link.runs_on(interface).then_some(Self {
            interface_index: link.interface_index,
            program_id: link.program_id,
            dispatcher: link.is_dispatcher(),
        })
    }
}

/// What was done to a hook since it was left as `settled`; `None`: nothing, or its interface is
/// gone or another one, which is nobody's doing.
///
/// What others do in a dispatcher is their right, as long as a plan asks for no change after it:
/// so that is for the caller to see.
#[must_use]
pub fn drift(hook: &HookId, settled: Settled, observed: &Observed) -> Option<DriftKind> {
    let interface = observed.interfaces.get(&hook.interface)?;
    if interface.index != settled.interface_index {
        return None;
    }
    let no_pins = ObservedHook::default();
    let pins = observed.hooks.get(hook).unwrap_or(&no_pins);
    let ours = |id: u32| id == settled.program_id;
    // Interfaces may exchange their names, and the pins have yet to follow.
    let of_other_pins = || {
        let mut links = observed.hooks.values().filter_map(|pins| pins.link.as_ref());
        links.any(|link| link.runs_on(interface))
    };
    match (&pins.link, &interface.attached) {
        (Some(link), Some(_)) if link.runs_on(interface) => running(pins, link, settled, observed),
        (_, Some(_)) if of_other_pins() => None,
        (None, Some(_)) if settled.dispatcher => match &interface.dispatcher {
            Some(dispatcher) if dispatcher.fixed.is_none() => Some(DriftKind::Rearranged),
            _ => Some(DriftKind::Displaced),
        },
        (None, None) if settled.dispatcher => Some(DriftKind::Detached),
        (_, Some(attached)) if ours(attached.program_id) => Some(DriftKind::Unpinned),
        (_, Some(_)) => Some(DriftKind::Displaced),
        // It runs on, on what had the name.
        (Some(link), None) if !link.is_detached() => None,
        (Some(_), None) => Some(DriftKind::Detached),
        (None, None) => Some(DriftKind::Unpinned),
    }
}

fn running(
    pins: &ObservedHook,
    link: &ObservedLink,
    settled: Settled,
    observed: &Observed,
) -> Option<DriftKind> {
    let record = match pins.live() {
        None if link.program_id != settled.program_id && !settled.dispatcher => {
            return Some(DriftKind::Replaced);
        }
        Some((_, chain)) if link.pinned => chain.record.as_ref(),
        _ => return Some(DriftKind::Unpinned),
    };
    let Some(record) = record else { return Some(DriftKind::Unpinned) };
    // Also where the document is refused, and no plan asks for a change.
    if link.slots.as_ref().is_some_and(|slots| slots.len() != record.spec.slots.len()) {
        return Some(DriftKind::Rearranged);
    }
    let lost = record.spec.members.iter().any(|member| {
        let load = (member.program.clone(), member.fingerprint.clone());
        observed.programs.get(&load).is_none_or(|program| program.unpinned().next().is_some())
    });
    lost.then_some(DriftKind::MapsUnpinned)
}

/// How fast a hook is put right, over and over. Times count from any fixed moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Repairs in a row, and the last of them.
    series: Option<(u32, Duration)>,
}

impl Pace {
    /// The longest wait between two repairs.
    pub const LONGEST: Duration = Duration::from_secs(300);
    /// How long there must be peace after a wait is over, for the next repair to be a first one.
    pub const PEACE: Duration = Duration::from_secs(60);
    /// How many repairs in a row are a fight rather than an accident.
    pub const FIGHT: u32 = 3;

    /// When the hook may be repaired next, for drift that is found at `now`.
    #[must_use]
    pub fn due(&self, now: Duration) -> Duration {
        match self.series {
            Some((_, last)) => now.max(last + self.wait()),
            None => now,
        }
    }

    /// Notes that the hook was repaired at `now`.
    pub fn repaired(&mut self, now: Duration) {
        let before = self.series.filter(|(_, last)| now < *last + self.wait() + Self::PEACE);
        self.series = Some((before.map_or(1, |(count, _)| count.saturating_add(1)), now));
    }

    /// Whether somebody keeps undoing what is repaired.
    #[must_use]
    pub fn is_fight(&self) -> bool {
        self.series.is_some_and(|(count, _)| count >= Self::FIGHT)
    }

    /// A second after the first repair, and twice as long after each one more.
    fn wait(&self) -> Duration {
        let Some((count, _)) = self.series else { return Duration::ZERO };
        let doublings = count.saturating_sub(1).min(16);
        Duration::from_secs(1 << doublings).min(Self::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_first_repair_is_at_once_and_each_more_waits_twice_as_long() {
        let (mut pace, mut now) = (Pace::default(), Duration::ZERO);
        let mut waits = Vec::new();
        for _ in 0..11 {
            let due = pace.due(now);
            waits.push((due - now).as_secs());
            now = due;
            pace.repaired(now);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(pace.is_fight());
        pace.repaired(now + Pace::LONGEST + Pace::PEACE);
        assert!(!pace.is_fight());
    }

    proptest! {
        /// Whoever fights, and however: in an hour there are few repairs, and never two in one
        /// second but the first.
        #[test]
        fn a_fight_costs_little(gaps in proptest::collection::vec(0u64..600_000, 1..2000)) {
            let (mut pace, mut now) = (Pace::default(), Duration::ZERO);
            let mut repairs: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap % 20_000);
                if pace.due(now) <= now {
                    prop_assert!(repairs.last().is_none_or(|last| now >= *last + SECOND));
                    pace.repaired(now);
                    repairs.push(now);
                }
            }
            // Eight until waits are longer than peace, then one in more than a minute.
            let most = 9 + now.as_secs() / 64;
            prop_assert!((repairs.len() as u64) <= most, "{} in {now:?}", repairs.len());
        }

        /// The wait is never longer than promised, whatever came before.
        #[test]
        fn a_repair_is_never_put_off_for_long(times in proptest::collection::vec(0u64..100_000, 0..50)) {
            let mut pace = Pace::default();
            let mut now = Duration::ZERO;
            for time in times {
                now += Duration::from_secs(time);
                pace.repaired(now);
                prop_assert!(pace.due(now) <= now + Pace::LONGEST);
            }
        }
    }
}
