//! A fused chain as one slot of a dispatcher: what it answers, and what the dispatcher is told.

use pointsman_model::{Action, ActionSet};

/// What an unfilled slot of a dispatcher answers. A dispatcher goes on after it, whatever its
/// slot's actions are.
const GO_ON: u32 = 31;

/// How a fused chain answers in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotAnswer {
    /// What it answers for a packet after which every member said "continue".
    pub end: u32,
    /// The slot's chain-call actions.
    pub actions: ActionSet,
    /// Whether another program must stand behind it. A chain of one runs in place of the
    /// dispatcher, where `end` would be the packet's verdict.
    pub needs_company: bool,
}

/// Decides for a chain whose enforced members go on after `actions`. Members that are observed
/// always go on and do not matter.
///
/// PASS does for "continue" as long as no member says PASS and means it to be final.
#[must_use]
pub fn shared_slot(actions: impl IntoIterator<Item = ActionSet>) -> SlotAnswer {
    if actions.into_iter().all(|set| set.contains(Action::Pass)) {
        let end = Action::Pass.code();
        return SlotAnswer { end, actions: ActionSet::PASS, needs_company: false };
    }
    SlotAnswer { end: GO_ON, actions: ActionSet::EMPTY, needs_company: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a chain answers for the verdicts of its members; `None`: it goes on.
    fn chain(members: &[(ActionSet, Action)]) -> Option<u32> {
        let ends = members.iter().find(|(actions, verdict)| !actions.contains(*verdict));
        ends.map(|(_, verdict)| verdict.code())
    }

    /// What a dispatcher makes of a slot's answer.
    fn dispatched(answer: u32, actions: ActionSet) -> Option<u32> {
        let goes_on = answer == 31 || actions.iter().any(|action| action.code() == answer);
        (!goes_on).then_some(answer)
    }

    fn member() -> impl Strategy<Value = (ActionSet, Action)> {
        let action = prop::sample::select(Action::ALL.to_vec());
        let set = prop::collection::vec(action.clone(), 0..5);
        (set.prop_map(|set| set.into_iter().collect()), action)
    }

    proptest! {
        #[test]
        fn a_slot_is_its_members_one_after_another(
            first in prop::collection::vec(member(), 0..4),
            second in prop::collection::vec(member(), 0..4),
        ) {
            let whole = chain(&[first.clone(), second.clone()].concat());
            let slot = |members: &[(ActionSet, Action)]| {
                let answer = shared_slot(members.iter().map(|member| member.0));
                (chain(members).unwrap_or(answer.end), answer)
            };
            let (verdict, answer) = slot(&first);
            let parted = dispatched(verdict, answer.actions).or_else(|| {
                let (verdict, answer) = slot(&second);
                dispatched(verdict, answer.actions)
            });
            // After the last slot comes PASS, as after the last member.
            let pass = Action::Pass.code();
            prop_assert_eq!(parted.unwrap_or(pass), whole.unwrap_or(pass));
            // Alone, in place of the dispatcher, its answer is the packet's verdict.
            if !answer.needs_company {
                prop_assert_eq!(verdict, chain(&first).unwrap_or(pass));
            }
        }
    }
}
