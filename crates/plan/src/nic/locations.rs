//! Where in a card's table a new flow rule goes.

use pointsman_model::flow::FlowRule;
use std::collections::BTreeSet;

/// A card's table of flow rules, as its driver tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleTable {
    /// How many rules it has room for; `None`: the driver does not say.
    pub size: Option<u32>,
    /// Whether the driver finds a location itself.
    pub chooses_location: bool,
    /// Where there are rules, whosever they are.
    pub taken: BTreeSet<u32>,
}

/// `RX_CLS_LOC_SPECIAL` of `linux/ethtool.h`: locations are below.
const NO_LOCATION: u32 = 0x8000_0000;

/// The locations to try for a new rule, the best first; `None` in the list is "wherever the driver
/// likes". Empty: the table is full.
///
/// A location where there is a rule is never among them: many drivers would replace it. Nor is
/// location 0, which libmtl takes for none. From the highest downward, because lower rules come
/// before higher ones, and the host's own rules are to keep their rank.
pub fn locations(table: &RuleTable) -> impl Iterator<Item = Option<u32>> + '_ {
    let free = |location: &u32| !table.taken.contains(location);
    // Drivers that choose often take no location that they are told.
    let any = (table.chooses_location || table.size.is_none()).then_some(None);
    let downward = (1..table.size.unwrap_or(0).min(NO_LOCATION)).rev();
    // Without an end to start from, the beginning is where a table is most likely to have room.
    let upward = if table.size.is_none() { 1..NO_LOCATION } else { 0..0 };
    any.into_iter().chain(downward.chain(upward).filter(free).map(Some))
}

/// Where a driver that chose itself has put `rule`, found again in what is `listed` now; `None`: it
/// is not there. What was at a location of `before` was there first: also one that says the same is
/// somebody else's.
pub fn placed(
    listed: impl IntoIterator<Item = (u32, Option<FlowRule>)>,
    rule: &FlowRule,
    before: &BTreeSet<u32>,
) -> Option<u32> {
    let mut listed = listed.into_iter();
    let is_it = |(location, said): &(u32, Option<FlowRule>)| {
        said.as_ref() == Some(rule) && !before.contains(location)
    };
    listed.find(is_it).map(|(location, _)| location)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::flow::{Flow, FlowAction, FlowMatch, Ports, Transport};
    use proptest::prelude::*;

    fn table(size: Option<u32>, chooses_location: bool, taken: &[u32]) -> RuleTable {
        RuleTable { size, chooses_location, taken: taken.iter().copied().collect() }
    }

    fn first(table: &RuleTable) -> Vec<Option<u32>> {
        locations(table).take(3).collect()
    }

    #[test]
    fn rules_are_placed_from_the_top_downward() {
        assert_eq!(first(&table(Some(4), false, &[])), [Some(3), Some(2), Some(1)]);
        assert_eq!(first(&table(Some(4), false, &[3, 1])), [Some(2)]);
        assert_eq!(first(&table(Some(4), false, &[1, 2, 3])), [], "0 is never taken");
        assert_eq!(first(&table(Some(1), false, &[])), []);
        assert_eq!(first(&table(Some(0), false, &[])), []);
        assert_eq!(first(&table(Some(4), true, &[3])), [None, Some(2), Some(1)]);
        assert_eq!(first(&table(None, true, &[])), [None, Some(1), Some(2)]);
        assert_eq!(first(&table(None, false, &[1, 2])), [None, Some(3), Some(4)]);
        assert_eq!(first(&table(Some(u32::MAX), false, &[]))[0], Some(NO_LOCATION - 1));
    }

    #[test]
    fn a_rule_that_was_there_before_is_not_ours_though_it_says_the_same() {
        let flow = Flow::all(Transport::Udp(Ports::any()));
        let rule =
            |queue| FlowRule { matching: FlowMatch::V4(flow), action: FlowAction::Queue(queue) };
        let listed = [(2, Some(rule(1))), (3, None), (5, Some(rule(2))), (9, Some(rule(1)))];
        let find =
            |queue, before: &[u32]| placed(listed, &rule(queue), &before.iter().copied().collect());
        assert_eq!(find(1, &[]), Some(2));
        assert_eq!(find(1, &[2, 3]), Some(9));
        assert_eq!(find(1, &[2, 9]), None, "the driver never came to it");
        assert_eq!(find(2, &[2]), Some(5));
        assert_eq!(find(3, &[]), None);
    }

    proptest! {
        #[test]
        fn a_rule_of_others_is_never_replaced(
            size: Option<u8>, chooses_location: bool,
            taken in proptest::collection::btree_set(0u32..300, 0..300),
        ) {
            let size = size.map(u32::from);
            let table = RuleTable { size, chooses_location, taken };
            let tried: Vec<_> = locations(&table).take(600).collect();
            for location in tried.iter().flatten() {
                prop_assert!(!table.taken.contains(location));
                prop_assert!(*location > 0 && size.is_none_or(|size| *location < size));
            }
            // None twice, and of a table of known size every free place is there.
            let distinct: BTreeSet<_> = tried.iter().collect();
            prop_assert_eq!(distinct.len(), tried.len());
            if let Some(size) = size {
                let free = (1..size).filter(|location| !table.taken.contains(location)).count();
                prop_assert_eq!(tried.iter().flatten().count(), free);
            }
        }
    }
}
