//! What a node can return to, what it is to return to by itself, and what must not come back. All
//! of it is part of the [`State`] and so on disk before anything is done about it.

use crate::state::{Edition, LastGood, State};
use pointsman_model::HookId;
use pointsman_model::deadline::{Deadline, Moment};
use pointsman_plan::{Mark, left_behind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An edition that was carried out whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Good {
    /// The edition.
    pub edition: Edition,
    /// When it first came into force, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Whether somebody returned from it, or past it.
    pub rolled_back: bool,
}

/// The document in force waits to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unconfirmed {
    /// By when.
    pub deadline: Deadline,
    /// Nobody confirmed it: `before` is in force again, and is being carried out.
    pub returning: bool,
    /// What to return to.
    pub before: Before,
}

/// How a node stood when a document came that wants to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The document in force; `None`: there was none.
    pub edition: Option<Edition>,
    /// When it came into force.
    pub at_unix_ms: u64,
    /// Whether the node was drained.
    pub drained: bool,
    /// What ran on the hooks.
    pub last_good: Vec<LastGood>,
}

/// An operator bypassed a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bypass {
    /// The hook.
    pub hook: HookId,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Until when; `None`: until it is ended.
    pub until: Option<Deadline>,
    /// Who asked for it; `None`: the socket did not tell.
    pub uid: Option<u32>,
}

impl Edition {
    /// Its place among the documents of the node.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { generation: self.generation, digest: self.document }
    }
}

impl State {
    /// Makes `edition` the document in force, as an apply does.
    pub fn accept(&mut self, edition: &Edition, at_unix_ms: u64) {
        self.left = left_behind(&self.left, None, edition.mark());
        self.drained = false;
        if self.current.as_ref() != Some(edition)
            && let Some(at) = self.good.iter().position(|good| good.edition == *edition)
        {
            // It comes into force once more, so what is in force now is the one before it.
            self.good[at..].rotate_left(1);
        }
        self.set_current(edition.clone(), at_unix_ms);
    }

    fn set_current(&mut self, edition: Edition, at_unix_ms: u64) {
        if self.current.as_ref() != Some(&edition) {
            self.current_since_unix_ms = at_unix_ms;
            self.current = Some(edition);
        }
    }

    /// What to return to if a document that is about to be accepted is not confirmed: the last
    /// state that needed no confirmation, or had it.
    #[must_use]
    pub fn before(&self) -> Before {
        match &self.unconfirmed {
            Some(Unconfirmed { before, .. }) => before.clone(),
            None => Before {
                edition: self.current.clone(),
                at_unix_ms: self.current_since_unix_ms,
                drained: self.drained || self.current.is_none(),
                last_good: self.last_good.clone(),
            },
        }
    }

    /// Remembers that the document in force was carried out whole, and keeps `keep` of such: the
    /// one in force, the one that a rollback goes to, and of the others first those from which
    /// nobody returned, then the newest.
    pub fn remember_good(&mut self, keep: usize) {
        let Some(edition) = &self.current else { return };
        match self.good.iter_mut().find(|good| good.edition == *edition) {
            Some(good) => good.rolled_back = false,
            None => self.good.push(Good {
                edition: edition.clone(),
                at_unix_ms: self.current_since_unix_ms,
                rolled_back: false,
            }),
        }
        let needed = [self.current.clone(), self.rollback_target(None).cloned()];
        let needed = |edition: &Edition| needed.iter().flatten().any(|needed| needed == edition);
        let mut surplus = self.good.len().saturating_sub(keep);
        for rolled_back in [true, false] {
            self.good.retain(|good| {
                let drop = surplus > 0 && good.rolled_back == rolled_back && !needed(&good.edition);
                surplus -= usize::from(drop);
                !drop
            });
        }
    }

    /// The edition to roll back to: the newest good one before the one in force from which nobody
    /// has returned yet, or the newest one of `generation`.
    #[must_use]
    pub fn rollback_target(&self, generation: Option<u64>) -> Option<&Edition> {
        let current = self.current.as_ref()?;
        if let (None, Some(unconfirmed)) = (generation, &self.unconfirmed) {
            return unconfirmed.before.edition.as_ref().filter(|_| !unconfirmed.before.drained);
        }
        let others = || self.good.iter().rev().filter(|good| good.edition != *current);
        let found = match generation {
            Some(generation) => others().find(|good| good.edition.generation == generation),
            None => {
                let at = self.good.iter().position(|good| good.edition == *current);
                let before = &self.good[..at.unwrap_or(self.good.len())];
                before
                    .iter()
                    .rev()
                    .find(|good| !good.rolled_back && good.edition.generation <= current.generation)
            }
        };
        found.map(|good| &good.edition)
    }

    /// The generations that [`Self::rollback_target`] knows.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<u64> {
        let others = self.good.iter().filter(|good| Some(&good.edition) != self.current.as_ref());
        others.map(|good| good.edition.generation).collect()
    }

    /// Goes to `edition`, and leaves what is in force and what came after `edition` behind. From
    /// what came before it nobody returns by going forward again.
    pub fn roll_back(&mut self, edition: &Edition, at_unix_ms: u64) {
        let from = self.current.as_ref().map(Edition::mark);
        self.left = left_behind(&self.left, from, edition.mark());
        self.forsake(edition);
        self.drained = false;
        self.unconfirmed = None;
        self.set_current(edition.clone(), at_unix_ms);
    }

    /// Marks good editions that are left behind by going to `edition`.
    fn forsake(&mut self, edition: &Edition) {
        let at = self.good.iter().position(|good| good.edition == *edition);
        let current = self.current.as_ref();
        for (index, good) in self.good.iter_mut().enumerate() {
            good.rolled_back |= match at {
                Some(at) => index > at,
                None => Some(&good.edition) == current,
            };
            good.rolled_back &= good.edition != *edition;
        }
    }

    /// Goes to what was before the document that nobody confirmed. What is to be carried out
    /// follows from the state then; [`Unconfirmed::returning`] says that it has to be.
    pub fn give_back(&mut self) {
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        unconfirmed.returning = true;
        let Before { edition, at_unix_ms, drained, last_good } = unconfirmed.before.clone();
        self.drained = drained;
        self.last_good = last_good;
        if drained {
            // Nothing runs that could be bypassed, as after a drain.
            self.bypassed = Vec::new();
        }
        if let Some(edition) = edition {
            let from = self.current.as_ref().map(Edition::mark);
            self.left = left_behind(&self.left, from, edition.mark());
            self.forsake(&edition);
            self.current_since_unix_ms = at_unix_ms;
            self.current = Some(edition);
        }
        // Without an edition before, the document stays the one in force and is not carried out:
        // the node knows its name and generation, as after a drain.
    }

    /// Forgets everything that is to happen by itself: the node is drained.
    pub fn drain(&mut self) {
        self.drained = true;
        self.last_good = Vec::new();
        self.unconfirmed = None;
        self.bypassed = Vec::new();
    }

    /// Whether `hook` is bypassed.
    #[must_use]
    pub fn bypass(&self, hook: &HookId) -> Option<&Bypass> {
        self.bypassed.iter().find(|bypass| bypass.hook == *hook)
    }

    /// Begins a bypass, or changes how long it lasts.
    pub fn set_bypass(&mut self, bypass: Bypass) {
        self.end_bypass(&bypass.hook);
        self.bypassed.push(bypass);
        self.bypassed.sort_by(|a, b| a.hook.cmp(&b.hook));
    }

    /// Ends a bypass.
    pub fn end_bypass(&mut self, hook: &HookId) {
        self.bypassed.retain(|bypass| bypass.hook != *hook);
    }

    /// The hooks that are bypassed, and until when, in words.
    #[must_use]
    pub fn bypassed_words(&self, now: &Moment) -> BTreeMap<HookId, String> {
        let words = |bypass: &Bypass| match &bypass.until {
            Some(until) => format!("for another {} s", until.remaining_ms(now).div_ceil(1_000)),
            None => "until it is ended".to_owned(),
        };
        self.bypassed.iter().map(|bypass| (bypass.hook.clone(), words(bypass))).collect()
    }

    /// How long until something has to be done, in milliseconds; `None`: nothing has.
    #[must_use]
    pub fn next_deadline_ms(&self, now: &Moment) -> Option<u64> {
        let bypasses = self.bypassed.iter().filter_map(|bypass| bypass.until.as_ref());
        let unconfirmed = self.unconfirmed.as_ref().map(|unconfirmed| &unconfirmed.deadline);
        bypasses.chain(unconfirmed).map(|deadline| deadline.remaining_ms(now)).min()
    }

    /// All editions that somebody may still ask for.
    pub(crate) fn editions(&self) -> impl Iterator<Item = &Edition> {
        let before = self.unconfirmed.as_ref().map(|unconfirmed| &unconfirmed.before);
        let of_hooks = self.last_good.iter().chain(before.into_iter().flat_map(|b| &b.last_good));
        (self.current.iter())
            .chain(before.and_then(|before| before.edition.as_ref()))
            .chain(of_hooks.map(|good| &good.edition))
            .chain(self.good.iter().map(|good| &good.edition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::{NodeName, Sha256};
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Action {
        /// A new document: carried out whole, or refused in part.
        Apply {
            whole: bool,
        },
        /// One that ran before, where the guard lets it come again.
        Again(prop::sample::Index),
        /// One that wants to be confirmed, and whether it is.
        Try {
            confirmed: bool,
        },
        Rollback,
        RollbackTo(prop::sample::Index),
        /// A start: what is in force is carried out anew.
        Start,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            3 => any::<bool>().prop_map(|whole| Action::Apply { whole }),
            1 => any::<prop::sample::Index>().prop_map(Action::Again),
            2 => any::<bool>().prop_map(|confirmed| Action::Try { confirmed }),
            4 => Just(Action::Rollback),
            2 => any::<prop::sample::Index>().prop_map(Action::RollbackTo),
            1 => Just(Action::Start),
        ]
    }

    fn edition(generation: u64) -> Edition {
        let document = Sha256::of(&generation.to_be_bytes());
        let objects = BTreeMap::new();
        Edition { node: NodeName::new("edge-1").unwrap(), generation, document, objects }
    }

    /// Applies `edition`, and holds that a rollback would undo just that.
    fn apply(state: &mut State, edition: &Edition, whole: bool, keep: usize) {
        let before = state.current.clone();
        let is_good = |good: &Good| Some(&good.edition) == before.as_ref();
        let was_good = state.good.iter().any(is_good);
        state.unconfirmed = None;
        state.accept(edition, edition.generation);
        if whole {
            state.remember_good(keep);
        }
        if was_good && before.as_ref() != Some(edition) {
            assert_eq!(state.rollback_target(None), before.as_ref(), "{state:#?}");
        }
    }

    /// Applies `edition` to be confirmed.
    fn attempt(state: &mut State, edition: &Edition, confirmed: bool, keep: usize) {
        let before = state.before();
        let deadline = Deadline::after(Moment { unix_ms: 0, boot_ms: 0, boot: None }, 1_000);
        state.unconfirmed =
            Some(Unconfirmed { deadline, returning: false, before: before.clone() });
        state.accept(edition, edition.generation);
        if confirmed {
            state.unconfirmed = None;
            state.remember_good(keep);
        } else {
            state.give_back();
            state.unconfirmed = None;
            assert_eq!(state.current, before.edition.or(Some(edition.clone())));
        }
    }

    fn act(state: &mut State, action: &Action, newest: &mut u64, keep: usize) {
        let chosen = |index: &prop::sample::Index, state: &State| {
            let known: Vec<_> = state.good.iter().map(|good| good.edition.clone()).collect();
            (!known.is_empty()).then(|| index.get(&known).clone())
        };
        match action {
            Action::Apply { whole } => {
                *newest += 1;
                apply(state, &edition(*newest), *whole, keep);
            }
            Action::Again(index) => {
                let at_least = state.current.as_ref().map_or(0, |edition| edition.generation);
                if let Some(again) = chosen(index, state).filter(|e| e.generation >= at_least) {
                    apply(state, &again, true, keep);
                }
            }
            Action::Try { confirmed } => {
                *newest += 1;
                attempt(state, &edition(*newest), *confirmed, keep);
            }
            Action::Rollback => {
                if let Some(target) = state.rollback_target(None).cloned() {
                    state.roll_back(&target, 0);
                    state.remember_good(keep);
                    assert_eq!(state.current, Some(target));
                }
            }
            Action::RollbackTo(index) => {
                if let Some(to) = chosen(index, state).filter(|e| Some(e) != state.current.as_ref())
                {
                    let from = state.current.clone();
                    let place = |edition: &Edition| {
                        let mut good = state.good.iter();
                        Some((good.position(|good| good.edition == *edition)?, edition.generation))
                    };
                    let forward = from.as_ref().and_then(place).is_some_and(|(at, generation)| {
                        place(&to).is_some_and(|to| to.0 > at && to.1 > generation)
                    });
                    state.roll_back(&to, 0);
                    state.remember_good(keep);
                    if forward {
                        assert_eq!(state.rollback_target(None), from.as_ref(), "the way back");
                    }
                }
            }
            Action::Start => {
                if state.good.iter().any(|good| Some(&good.edition) == state.current.as_ref()) {
                    state.remember_good(keep);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Over any history, a rollback goes back to what was good before the last apply; and no
        /// more is kept than was asked for, but for what that needs.
        #[test]
        fn after_an_apply_from_a_good_edition_a_rollback_goes_back_to_it(
            keep in 1_usize..6,
            actions in prop::collection::vec(action(), 1..40),
        ) {
            let (mut state, mut newest) = (State::default(), 40);
            for action in &actions {
                act(&mut state, action, &mut newest, keep);
                prop_assert!(state.good.len() <= keep.max(2), "{:#?}", state);
            }
        }
    }
}
