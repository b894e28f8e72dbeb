//! Into how many files a snapshot is split.

use pointsman_model::fleet::MAX_SHARDS;

/// How many nodes a shard should have. A change of one node rewrites its shard: fewer nodes make
/// that cheaper, and `latest`, which every node fetches, longer.
pub const NODES_PER_SHARD: u64 = 512;

/// How many bytes of records a shard should have at most: far below what a constant database can
/// address (4 GiB), and what is in memory at once while it is made.
const BYTES_PER_SHARD: u64 = 256 << 20;

/// How far a shard may be off before all are made anew: by two in each direction beyond the one
/// step that rounding costs, so that a fleet whose size swings keeps its shards.
const SLACK: u64 = 2;

/// How many shards a snapshot of `nodes` records with `bytes` in all should have, if the one
/// before had `current`: a power of two from 1 to [`MAX_SHARDS`].
#[must_use]
pub fn shards(current: Option<usize>, nodes: u64, bytes: u64) -> usize {
    let wanted = needed(nodes, bytes);
    let Some(current) = current.filter(|&n| n.is_power_of_two() && n <= MAX_SHARDS) else {
        return wanted;
    };
    // Half of what is wanted is a fleet that has grown to twice the size, and so on.
    let too_few = needed(nodes / SLACK, bytes / SLACK) > current;
    let too_many = needed(nodes.saturating_mul(SLACK), bytes.saturating_mul(SLACK)) < current;
    if too_few || too_many { wanted } else { current }
}

fn needed(nodes: u64, bytes: u64) -> usize {
    let parts = nodes.div_ceil(NODES_PER_SHARD).max(bytes.div_ceil(BYTES_PER_SHARD));
    let most = MAX_SHARDS as u64;
    usize::try_from(parts.min(most)).map_or(MAX_SHARDS, |parts| parts.max(1).next_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn about_one_for_512_nodes() {
        for (nodes, expected) in
            [(0, 1), (1, 1), (512, 1), (513, 2), (10_000, 32), (32_768, 64), (u64::MAX, 64)]
        {
            assert_eq!(shards(None, nodes, 0), expected, "{nodes}");
        }
        // Few nodes with large documents.
        assert_eq!(shards(None, 100, 800 << 20), 4);
        // What is no number of shards does not count.
        assert_eq!(shards(Some(3), 10_000, 0), 32);
        assert_eq!(shards(Some(1 << 20), 10_000, 0), 32);
    }

    #[test]
    fn a_fleet_that_grows_and_shrinks_keeps_its_shards_for_long() {
        assert_eq!(shards(Some(1), 1024, 0), 1);
        assert_eq!(shards(Some(1), 1026, 0), 4);
        assert_eq!(shards(Some(4), 600, 0), 4);
        assert_eq!(shards(Some(4), 400, 0), 1);
        assert_eq!(shards(Some(32), 0, 0), 1);
    }

    proptest! {
        #[test]
        fn the_number_is_a_power_of_two_and_settles_at_once(
            current in proptest::option::of(0..200usize),
            nodes in 0..200_000u64,
            bytes in 0..(40u64 << 30),
        ) {
            let first = shards(current, nodes, bytes);
            prop_assert!(first.is_power_of_two() && first <= MAX_SHARDS);
            prop_assert_eq!(shards(Some(first), nodes, bytes), first);
        }

        /// Whatever the size: a tenth more or less changes the number at most once.
        #[test]
        fn it_does_not_flap(nodes in 0..200_000u64, swings in proptest::collection::vec(0..=200u64, 1..20)) {
            let mut current = shards(None, nodes, 0);
            let mut changes = 0;
            for swing in swings {
                let next = shards(Some(current), nodes * (900 + swing) / 1000, 0);
                changes += usize::from(next != current);
                current = next;
            }
            prop_assert!(changes <= 1, "{changes} changes");
        }

        /// A shard never has much more than its share while more shards are possible.
        #[test]
        fn shards_stay_small(current in 0..7u32, nodes in 0..30_000u64) {
            let number = shards(Some(1 << current), nodes, 0) as u64;
            prop_assert!(number == MAX_SHARDS as u64 || nodes / number <= 2 * NODES_PER_SHARD);
        }
    }
}
