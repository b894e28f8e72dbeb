//! Which of the operator's flow rules are to be made, and which taken away.

use pointsman_model::flow::FlowRule;
use std::collections::BTreeMap;

/// A rule of the operator's that was made, or was about to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeRule {
    /// Where; `None`: the driver was about to choose.
    pub location: Option<u32>,
    /// What it says.
    pub rule: FlowRule,
}

/// What is to be done. Numbers are places in the list of those that were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleChanges {
    /// They are taken off the card: nobody wants them any more, or it is not known where they are.
    pub remove: Vec<usize>,
    /// They are not there any more, and what is in their place is somebody else's: only forgotten.
    pub forget: Vec<usize>,
    /// They are made.
    pub add: Vec<FlowRule>,
}

/// What is to be done so that a card has the rules in `wanted`, of which no two are equal, where
/// `made` are those of before and `there` is the card's table: what is at each location, as far as
/// rules of ours can say it.
#[must_use]
pub fn rule_changes(
    wanted: &[FlowRule],
    made: &[MadeRule],
    there: &BTreeMap<u32, Option<FlowRule>>,
) -> RuleChanges {
    let mut changes = RuleChanges::default();
    let mut kept = Vec::new();
    for (number, MadeRule { location, rule }) in made.iter().enumerate() {
        let stands = location.map(|location| there.get(&location) == Some(&Some(*rule)));
        match stands {
            Some(true) if wanted.contains(rule) && !kept.contains(rule) => kept.push(*rule),
            Some(true) | None => changes.remove.push(number),
            Some(false) => changes.forget.push(number),
        }
    }
    changes.add = wanted.iter().filter(|rule| !kept.contains(rule)).copied().collect();
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::flow::{Flow, FlowAction, FlowMatch, Masked, Ports, Transport};
    use proptest::prelude::*;

    fn rule(port: u16) -> FlowRule {
        let ports = Ports { destination: Masked::exactly(port), ..Ports::any() };
        let matching = FlowMatch::V4(Flow::all(Transport::Udp(ports)));
        FlowRule { matching, action: FlowAction::Queue(1) }
    }

    fn made(location: Option<u32>, port: u16) -> MadeRule {
        MadeRule { location, rule: rule(port) }
    }

    #[test]
    fn a_rule_that_was_replaced_by_somebody_is_made_elsewhere() {
        let there = BTreeMap::from([(5, Some(rule(9))), (6, Some(rule(2))), (7, None)]);
        let before = [made(Some(5), 1), made(Some(6), 2), made(Some(7), 3), made(None, 4)];
        let wanted = [rule(1), rule(2), rule(4)];
        let changes = rule_changes(&wanted, &before, &there);
        let remove = vec![3];
        assert_eq!(
            changes,
            RuleChanges { remove, forget: vec![0, 2], add: vec![rule(1), rule(4)] }
        );
        let none = rule_changes(&[], &before, &there);
        assert_eq!((none.remove, none.add), (vec![1, 3], vec![]));
    }

    proptest! {
        /// Afterwards each is there once, what others have is untouched, and there is no more to do.
        #[test]
        fn a_card_has_what_is_wanted_and_what_others_have(
            wanted in proptest::collection::btree_set(1u16..8, 0..6),
            table in proptest::collection::btree_map(0u32..10, proptest::option::of(1u16..8), 0..8),
            before in proptest::collection::btree_map(0u32..12, 1u16..8, 0..8),
        ) {
            let wanted: Vec<_> = wanted.into_iter().map(rule).collect();
            let mut there: BTreeMap<u32, Option<FlowRule>> =
                table.into_iter().map(|(at, port)| (at, port.map(rule))).collect();
            let mut known: Vec<_> =
                before.into_iter().map(|(at, port)| made(Some(at), port)).collect();
            let ours = |known: &[MadeRule], at: u32, said: Option<FlowRule>| {
                known.iter().any(|it| it.location == Some(at) && Some(it.rule) == said)
            };
            let others: BTreeMap<_, _> = there
                .iter()
                .filter(|(at, said)| !ours(&known, **at, **said))
                .map(|(at, said)| (*at, *said))
                .collect();
            let changes = rule_changes(&wanted, &known, &there);
            for number in &changes.remove {
                if let Some(at) = known[*number].location {
                    prop_assert_eq!(there.remove(&at), Some(Some(known[*number].rule)));
                }
            }
            let gone: Vec<_> = changes.remove.iter().chain(&changes.forget).copied().collect();
            let left = known.iter().enumerate().filter(|(number, _)| !gone.contains(number));
            known = left.map(|(_, it)| *it).collect();
            for (rule, at) in changes.add.iter().zip(100..) {
                there.insert(at, Some(*rule));
                known.push(MadeRule { location: Some(at), rule: *rule });
            }
            prop_assert_eq!(known.len(), wanted.len());
            for rule in &wanted {
                let of = known.iter().filter(|it| it.rule == *rule);
                let of: Vec<_> = of.filter(|it| ours(&known, it.location.unwrap(), Some(*rule))).collect();
                prop_assert_eq!(of.len(), 1);
            }
            for (at, said) in &others {
                prop_assert_eq!(there.get(at), Some(said));
            }
            prop_assert_eq!(rule_changes(&wanted, &known, &there), RuleChanges::default());
        }
    }
}
