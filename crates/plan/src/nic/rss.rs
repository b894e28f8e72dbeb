//! The table of receive side scaling, moved off queues that belong to applications and back.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The table as it was before anybody of ours touched it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerRss {
    /// A queue for each entry.
    pub table: Vec<u32>,
    /// How many receive queues there were.
    pub queues: u32,
}

/// What the table is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RssTable {
    /// The driver's own: over all queues, also when their number changes.
    Default,
    /// A queue for each entry.
    Table(Vec<u32>),
}

/// Every queue is kept for applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {queues} receive queues are reserved: at least one has to stay with the kernel's stack"
)]
pub struct NoQueueLeft {
    /// How many there are.
    pub queues: u32,
}

impl FormerRss {
    /// Whether it is what a driver starts with (`ethtool_rxfh_indir_default`,
    /// `linux/ethtool.h` of the kernel): the queues in turn.
    #[must_use]
    pub fn is_default(&self) -> bool {
        let queues = self.queues.max(1) as usize;
        self.table.iter().enumerate().all(|(at, queue)| *queue as usize == at % queues)
    }
}

/// The table that spreads packets over all `queues` that are not `reserved`.
///
/// It is made of the former one. Without reserved queues that is given back. A former table that
/// names no reserved queue was somebody's choice, and stays. Otherwise every queue that is left gets
/// as many entries as the others, one more or less; and entries that can stay do, because each that
/// moves takes flows to another CPU.
///
/// # Errors
/// [`NoQueueLeft`]: all are reserved.
pub fn rss_table(
    former: &FormerRss,
    queues: u32,
    reserved: &BTreeSet<u32>,
) -> Result<RssTable, NoQueueLeft> {
    // The table names the only queues that matter, and those up to its length can get an entry.
    let length = u32::try_from(former.table.len()).unwrap_or(u32::MAX);
    let reserved_there = reserved.iter().take_while(|queue| **queue < queues).count();
    if queues as usize == reserved_there {
        return Err(NoQueueLeft { queues });
    }
    let stands = |queue: &u32| *queue < queues && !reserved.contains(queue);
    let former_stands = former.table.iter().all(stands);
    if reserved_there == 0 {
        // A table that names queues that are gone is no use; the driver's own is.
        let give_back = former_stands && !former.is_default();
        return Ok(if give_back {
            RssTable::Table(former.table.clone())
        } else {
            RssTable::Default
        });
    }
    if former_stands {
        return Ok(RssTable::Table(former.table.clone()));
    }
    let left: Vec<u32> =
        (0..queues).filter(|queue| !reserved.contains(queue)).take(length as usize).collect();
    Ok(RssTable::Table(even(&former.table, &left)))
}

/// Gives each of `left` equally many entries, moving as few as can be.
fn even(table: &[u32], left: &[u32]) -> Vec<u32> {
    let (share, rest) = (table.len() / left.len().max(1), table.len() % left.len().max(1));
    let has = |queue: u32| table.iter().filter(|entry| **entry == queue).count();
    let mut by_entries: Vec<_> = left.iter().map(|queue| (has(*queue), *queue)).collect();
    // What is over goes to those that have the most already.
    by_entries.sort_by_key(|(entries, queue)| (std::cmp::Reverse(*entries), *queue));
    let quota = by_entries
        .iter()
        .enumerate()
        .map(|(at, (_, queue))| (*queue, share + usize::from(at < rest)));
    let mut quota: BTreeMap<u32, usize> = quota.collect();
    let mut take = |queue: u32| match quota.get_mut(&queue) {
        Some(more) if *more > 0 => {
            *more -= 1;
            true
        }
        _ => false,
    };
    let stay: Vec<_> = table.iter().map(|queue| take(*queue).then_some(*queue)).collect();
    // In turn, so that neighbouring entries go to different queues.
    let mut turn = left.iter().copied().cycle();
    let mut next = || turn.by_ref().take(left.len()).find(|queue| take(*queue));
    stay.into_iter()
        .map(|entry| entry.or_else(&mut next).expect("invariant: the quotas add up to the entries"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn former(table: &[u32], queues: u32) -> FormerRss {
        FormerRss { table: table.to_vec(), queues }
    }

    fn set(queues: &[u32]) -> BTreeSet<u32> {
        queues.iter().copied().collect()
    }

    #[test]
    fn packets_are_moved_off_reserved_queues_and_back() {
        let at_first = former(&[0, 1, 2, 3, 0, 1, 2, 3], 4);
        let table = |reserved: &[u32]| rss_table(&at_first, 4, &set(reserved));
        // Those of 0 and 1 stay where they were.
        assert_eq!(table(&[2, 3]), Ok(RssTable::Table(vec![0, 1, 0, 1, 0, 1, 0, 1])));
        assert_eq!(table(&[1, 2, 3]), Ok(RssTable::Table(vec![0; 8])));
        assert_eq!(table(&[]), Ok(RssTable::Default));
        assert_eq!(table(&[0, 1, 2, 3]), Err(NoQueueLeft { queues: 4 }));
        // A queue that is not there is reserved by nobody.
        assert_eq!(table(&[7]), Ok(RssTable::Default));
    }

    #[test]
    fn a_table_of_somebodys_own_stays_where_it_can() {
        let own = former(&[0, 0, 0, 1], 4);
        assert_eq!(rss_table(&own, 4, &set(&[3])), Ok(RssTable::Table(own.table.clone())));
        assert_eq!(rss_table(&own, 4, &set(&[])), Ok(RssTable::Table(own.table.clone())));
        // With fewer queues it cannot be given back.
        assert_eq!(rss_table(&own, 1, &set(&[])), Ok(RssTable::Default));
        assert_eq!(rss_table(&former(&[], 4), 4, &set(&[1])), Ok(RssTable::Table(vec![])));
    }

    proptest! {
        #[test]
        fn reserved_queues_get_nothing_and_the_others_the_same(
            table in proptest::collection::vec(0u32..10, 1..200), queues in 1u32..10,
            reserved in proptest::collection::btree_set(0u32..12, 0..10),
        ) {
            let former = FormerRss { table, queues };
            let there: Vec<u32> = (0..queues).filter(|queue| !reserved.contains(queue)).collect();
            match rss_table(&former, queues, &reserved) {
                Err(NoQueueLeft { .. }) => prop_assert!(there.is_empty()),
                Ok(RssTable::Default) => {
                    prop_assert!(reserved.iter().all(|queue| *queue >= queues));
                }
                Ok(RssTable::Table(new)) => {
                    prop_assert_eq!(new.len(), former.table.len());
                    prop_assert!(new.iter().all(|queue| there.contains(queue)));
                    if new != former.table {
                        let counts: Vec<_> = there.iter().map(|queue| {
                            new.iter().filter(|entry| *entry == queue).count()
                        }).collect();
                        let most = counts.iter().max().copied().unwrap_or(0);
                        let least = counts.iter().min().copied().unwrap_or(0);
                        prop_assert!(most - least <= 1, "{counts:?}");
                        // What moved had to: its queue is reserved or gone, or has its share.
                        for (old, new) in former.table.iter().zip(&new) {
                            let full = count_of(&former.table, *old) > least;
                            prop_assert!(old == new || !there.contains(old) || full);
                        }
                        // Made of its own result it is the same.
                        let again = FormerRss { table: new.clone(), queues };
                        prop_assert_eq!(
                            rss_table(&again, queues, &reserved), Ok(RssTable::Table(new))
                        );
                    }
                }
            }
        }
    }

    fn count_of(table: &[u32], queue: u32) -> usize {
        table.iter().filter(|entry| **entry == queue).count()
    }
}
