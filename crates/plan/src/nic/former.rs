//! What a setting of a card was before the document changed it, so that it can be so again.

use serde::{Deserialize, Serialize};

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Former<T> {
    /// How it was.
    pub former: T,
    /// How it may be by our doing: as it was set last, or was about to be, and as it was set before
    /// that.
    pub ours: Vec<T>,
}

/// What becomes of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// What is to be set; `None`: it stays as it is.
    pub set: Option<T>,
    /// What is to be known of it: before it is set where something is wanted of it, and afterwards
    /// where it is given back.
    pub known: Option<Former<T>>,
}

/// What becomes of a setting that is `now` so and of which `known` is known, where the document
/// wants it to be `wanted`, or has no word on it.
///
/// A setting that is as wanted already was never ours to give back. What somebody else set
/// meanwhile is put right while the document wants it otherwise, and stays when that has no word on
/// it any more.
pub fn setting<T: Clone + PartialEq>(
    known: Option<&Former<T>>,
    now: &T,
    wanted: Option<&T>,
) -> Setting<T> {
    let Some(wanted) = wanted else {
        let give_back = known.filter(|it| it.ours.contains(now) && it.former != *now);
        return Setting { set: give_back.map(|it| it.former.clone()), known: None };
    };
    if now == wanted {
        return Setting { set: None, known: known.cloned() };
    }
    let former = known.map_or_else(|| now.clone(), |known| known.former.clone());
    // Until it is set the one before may be there.
    let before = known.filter(|known| known.ours.contains(now)).map(|_| now.clone());
    let ours = before.into_iter().chain([wanted.clone()]).collect();
    Setting { set: Some(wanted.clone()), known: Some(Former { former, ours }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Event {
        /// The document says this, and the daemon is killed before the card hears of it, or not.
        Document { wanted: Option<u8>, killed: bool },
        /// Somebody else sets it.
        Other(u8),
    }

    fn event() -> impl Strategy<Value = Event> {
        let document = (proptest::option::of(0u8..4), proptest::bool::weighted(0.2));
        prop_oneof![
            4 => document.prop_map(|(wanted, killed)| Event::Document { wanted, killed }),
            1 => (0u8..4).prop_map(Event::Other),
        ]
    }

    /// One change; what is known afterwards.
    fn change(
        now: &mut u8,
        known: Option<Former<u8>>,
        wanted: Option<u8>,
        killed: bool,
    ) -> Option<Former<u8>> {
        let next = setting(known.as_ref(), now, wanted.as_ref());
        if killed {
            // First it is written down, or, where it is given back, first given back.
            return if wanted.is_some() { next.known } else { known };
        }
        *now = next.set.unwrap_or(*now);
        next.known
    }

    #[test]
    fn what_somebody_else_set_meanwhile_is_not_given_back() {
        let mut now = 8;
        let known = change(&mut now, None, Some(4), false);
        assert_eq!((now, known.is_some()), (4, true));
        now = 6;
        let known = change(&mut now, known, None, false);
        assert_eq!((now, known), (6, None));
        // As it is wanted already: nothing was changed.
        assert_eq!(change(&mut now, None, Some(6), false), None);
    }

    proptest! {
        #[test]
        fn a_setting_is_as_wanted_and_afterwards_as_it_was(
            first in 0u8..4, events in proptest::collection::vec(event(), 0..12),
        ) {
            let (mut now, mut known) = (first, None);
            // What it is to be again; `None`: somebody else has a say in it.
            let mut undisturbed = Some(first);
            for event in events {
                match event {
                    Event::Other(value) => (now, undisturbed) = (value, None),
                    Event::Document { wanted, killed } => {
                        let before = now;
                        known = change(&mut now, known, wanted, killed);
                        match wanted {
                            _ if killed => prop_assert_eq!(now, before),
                            Some(wanted) => prop_assert_eq!(now, wanted),
                            None => {
                                prop_assert_eq!(known.clone(), None);
                                if let Some(first) = undisturbed {
                                    prop_assert_eq!(now, first);
                                }
                                undisturbed = Some(now);
                            }
                        }
                    }
                }
                prop_assert!(known.as_ref().is_none_or(|known| known.ours.len() <= 2));
            }
        }
    }
}
