//! How many queues an interface is to have.

use pointsman_model::document::CountsSpec;
use pointsman_model::nic::Channels;
use serde::{Deserialize, Serialize};

/// How many queues of each kind are in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Those that only receive.
    pub rx: u32,
    /// Those that only send.
    pub tx: u32,
    /// Those that do both.
    pub combined: u32,
}

/// Why an interface cannot have as many as the document says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CountsProblem {
    /// The driver says nothing of queues.
    #[error("its driver has a fixed number of queues")]
    Fixed,
    /// The card has no queues of this kind.
    #[error("it has no `{kind}` queues: expected {instead}")]
    NoSuchKind {
        /// The kind.
        kind: &'static str,
        /// What it has.
        instead: &'static str,
    },
    /// The card has fewer.
    #[error("it can have at most {most} `{kind}` queues, not {wanted}")]
    TooMany {
        /// The kind.
        kind: &'static str,
        /// How many are wanted.
        wanted: u32,
        /// The most that there can be.
        most: u32,
    },
    /// One that somebody holds would go.
    #[error(
        "an application holds queue {queue}: there are {receive} receive queues as soon as it gives \
         that back"
    )]
    Held {
        /// The highest that is held.
        queue: u32,
        /// How many there are to be.
        receive: u32,
    },
}

impl Counts {
    /// Those in use.
    #[must_use]
    pub fn of(channels: &Channels) -> Self {
        let Channels { rx, tx, combined, .. } = *channels;
        Self { rx, tx, combined }
    }

    /// The same as the driver's interface has it.
    #[must_use]
    pub fn channels(self) -> Channels {
        let Self { rx, tx, combined } = self;
        Channels { rx, tx, combined, ..Channels::default() }
    }

    /// How many receive.
    #[must_use]
    pub fn receive(self) -> u32 {
        self.combined.saturating_add(self.rx)
    }
}

/// How many queues there are to be: those that the document names a number for have that, the others
/// stay. `now`: what the driver says; `None`: nothing.
///
/// # Errors
/// [`CountsProblem`]: the card cannot have them.
pub fn counts_wanted(spec: &CountsSpec, now: Option<&Channels>) -> Result<Counts, CountsProblem> {
    let now = now.ok_or(CountsProblem::Fixed)?;
    let instead = if now.max_combined > 0 { "`combined`" } else { "`rx` and `tx`" };
    let count = |kind, wanted: Option<u32>, now: u32, most: u32| match wanted {
        None => Ok(now),
        // A driver that names no end takes what is in use.
        Some(wanted) if wanted == now => Ok(wanted),
        Some(_) if most == 0 => Err(CountsProblem::NoSuchKind { kind, instead }),
        Some(wanted) if wanted > most => Err(CountsProblem::TooMany { kind, wanted, most }),
        Some(wanted) => Ok(wanted),
    };
    Ok(Counts {
        rx: count("rx", spec.rx, now.rx, now.max_rx)?,
        tx: count("tx", spec.tx, now.tx, now.max_tx)?,
        combined: count("combined", spec.combined, now.combined, now.max_combined)?,
    })
}

/// Whether the number of queues can be changed under those who hold some: `highest` is the highest
/// that is held.
///
/// # Errors
/// [`CountsProblem::Held`]
pub fn leaves_held(wanted: Counts, highest: Option<u32>) -> Result<(), CountsProblem> {
    let receive = wanted.receive();
    match highest {
        Some(queue) if queue >= receive => Err(CountsProblem::Held { queue, receive }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn card() -> Channels {
        Channels { combined: 8, max_combined: 16, ..Channels::default() }
    }

    fn combined(count: u32) -> CountsSpec {
        CountsSpec { combined: Some(count), ..CountsSpec::default() }
    }

    #[test]
    fn what_a_card_cannot_have_is_said_with_what_it_can() {
        let now = card();
        let wanted = |spec: &CountsSpec| counts_wanted(spec, Some(&now));
        assert_eq!(wanted(&combined(4)), Ok(Counts { combined: 4, ..Counts::default() }));
        assert_eq!(wanted(&CountsSpec::default()), Ok(Counts::of(&now)));
        let message = |spec: &CountsSpec| wanted(spec).unwrap_err().to_string();
        assert_eq!(message(&combined(17)), "it can have at most 16 `combined` queues, not 17");
        let rx = CountsSpec { rx: Some(2), ..CountsSpec::default() };
        assert_eq!(message(&rx), "it has no `rx` queues: expected `combined`");
        assert_eq!(counts_wanted(&combined(1), None), Err(CountsProblem::Fixed));
        let apart = Channels { rx: 1, tx: 1, max_rx: 4, max_tx: 4, ..Channels::default() };
        let error = counts_wanted(&combined(2), Some(&apart)).unwrap_err().to_string();
        assert_eq!(error, "it has no `combined` queues: expected `rx` and `tx`");
        let more = counts_wanted(&rx, Some(&apart));
        assert_eq!(more, Ok(Counts { rx: 2, tx: 1, combined: 0 }), "the others stay");
    }

    #[test]
    fn nobody_loses_a_queue_that_he_holds() {
        let four = Counts { combined: 4, ..Counts::default() };
        assert_eq!(leaves_held(four, None), Ok(()));
        assert_eq!(leaves_held(four, Some(3)), Ok(()));
        let held = leaves_held(four, Some(4)).unwrap_err().to_string();
        assert!(held.starts_with("an application holds queue 4: there are 4 receive"), "{held}");
    }

    proptest! {
        #[test]
        fn a_card_is_never_asked_for_more_than_it_can(
            wanted in proptest::array::uniform3(proptest::option::of(1u32..20)),
            now in proptest::array::uniform3(0u32..20), more in proptest::array::uniform3(0u32..5),
        ) {
            let [rx, tx, combined] = now;
            let channels = Channels {
                rx, tx, combined, max_rx: rx + more[0], max_tx: tx + more[1],
                max_combined: combined + more[2],
            };
            let spec = CountsSpec { rx: wanted[0], tx: wanted[1], combined: wanted[2] };
            if let Ok(counts) = counts_wanted(&spec, Some(&channels)) {
                prop_assert!(counts.rx <= channels.max_rx && counts.tx <= channels.max_tx);
                prop_assert!(counts.combined <= channels.max_combined);
                prop_assert_eq!(counts.rx, wanted[0].unwrap_or(rx));
                // What is so already is asked for again without a change.
                let now = Channels { rx: counts.rx, tx: counts.tx, combined: counts.combined, ..channels };
                prop_assert_eq!(counts_wanted(&spec, Some(&now)), Ok(counts));
            }
        }
    }
}
