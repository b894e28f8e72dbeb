//! Which receive queue an application gets.

use pointsman_model::nic::Channels;
use std::collections::BTreeSet;

/// The queues of an interface in use, as AF_XDP sockets and flow rules count them: from 0, the
/// combined ones first on cards that have both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// How many receive.
    pub receive: u32,
    /// How many send.
    pub send: u32,
}

/// No queue can be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQueue {
    /// There is only the one that stays with the kernel's stack.
    #[error(
        "it has one receive queue, which stays with the kernel's stack: more may be had with \
         `\"queues\"` in the document or `ethtool -L`, if the card has more"
    )]
    OnlyOne,
    /// The document keeps none for applications.
    #[error("the document reserves no receive queue of it that there is")]
    NoneReserved,
    /// All are held.
    #[error("all {count} receive queues for applications are taken")]
    AllTaken {
        /// How many there are.
        count: usize,
    },
}

/// A queue that the document reserves and cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveProblem {
    /// The first queue is the stack's.
    #[error("queue 0 cannot be reserved: it stays with the kernel's stack")]
    First,
    /// There is no such queue.
    #[error("queue {queue} cannot be reserved: there are {receive} receive queues, from 0")]
    Missing {
        /// The queue.
        queue: u32,
        /// How many there are.
        receive: u32,
    },
    /// Named before.
    #[error("queue {queue} is reserved twice")]
    Twice {
        /// The queue.
        queue: u32,
    },
}

impl Queues {
    /// From what the driver says; without a word of it there is one of each.
    #[must_use]
    pub fn of(channels: Option<&Channels>) -> Self {
        let Some(channels) = channels else { return Self { receive: 1, send: 1 } };
        let Channels { rx, tx, combined, .. } = channels;
        Self {
            receive: combined.saturating_add(*rx).max(1),
            send: combined.saturating_add(*tx).max(1),
        }
    }

    /// The queues that applications may have: all that receive, but for the first.
    fn for_applications(self) -> impl Iterator<Item = u32> {
        1..self.receive
    }
}

/// The queue that the next application gets: the lowest that is free. So where fewer queues send
/// than receive, those that do both go first.
///
/// With `reserved`, the queues that the document keeps for applications, only these are handed out;
/// without, all but queue 0, which nobody ever gets.
///
/// # Errors
/// [`NoQueue`] with the reason.
pub fn next_queue(
    queues: Queues,
    reserved: Option<&BTreeSet<u32>>,
    taken: &BTreeSet<u32>,
) -> Result<u32, NoQueue> {
    // Sets are walked, not the range: a driver may say anything of how many queues it has.
    let none_free = |count: usize| match (queues.receive, reserved) {
        (0 | 1, _) => NoQueue::OnlyOne,
        (_, Some(_)) if count == 0 => NoQueue::NoneReserved,
        _ => NoQueue::AllTaken { count },
    };
    let exists = |queue: u32| queue > 0 && queue < queues.receive;
    match reserved {
        Some(reserved) => {
            let there = || reserved.iter().copied().filter(|queue| exists(*queue));
            let free = there().find(|queue| !taken.contains(queue));
            free.ok_or_else(|| none_free(there().count()))
        }
        None => {
            let free = queues.for_applications().find(|queue| !taken.contains(queue));
            free.ok_or_else(|| none_free(queues.receive.saturating_sub(1) as usize))
        }
    }
}

/// What of a document's list of reserved queues cannot be, and the queues that can.
#[must_use]
pub fn check_reserve(queues: Queues, list: &[u32]) -> (BTreeSet<u32>, Vec<ReserveProblem>) {
    let (mut reserved, mut problems) = (BTreeSet::new(), Vec::new());
    for &queue in list {
        if queue == 0 {
            problems.push(ReserveProblem::First);
        } else if queue >= queues.receive {
            problems.push(ReserveProblem::Missing { queue, receive: queues.receive });
        } else if !reserved.insert(queue) {
            problems.push(ReserveProblem::Twice { queue });
        }
    }
    (reserved, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(queues: &[u32]) -> BTreeSet<u32> {
        queues.iter().copied().collect()
    }

    #[test]
    fn cards_of_every_kind_have_queues() {
        let channels = |rx, tx, combined| Channels { rx, tx, combined, ..Channels::default() };
        let of = |channels: &Channels| {
            let Queues { receive, send } = Queues::of(Some(channels));
            (receive, send)
        };
        assert_eq!(of(&channels(0, 0, 4)), (4, 4));
        assert_eq!(of(&channels(4, 2, 0)), (4, 2), "separate ones");
        assert_eq!(of(&channels(2, 0, 4)), (6, 4), "both");
        assert_eq!(of(&channels(0, 0, 0)), (1, 1));
        assert_eq!(of(&channels(u32::MAX, 1, 1)), (u32::MAX, 2));
        assert_eq!(Queues::of(None), Queues { receive: 1, send: 1 });
    }

    #[test]
    fn who_gets_none_is_told_why() {
        let four = Queues { receive: 4, send: 4 };
        assert_eq!(next_queue(four, None, &set(&[])), Ok(1));
        assert_eq!(next_queue(four, None, &set(&[1, 3])), Ok(2));
        assert_eq!(next_queue(four, None, &set(&[1, 2, 3])), Err(NoQueue::AllTaken { count: 3 }));
        assert_eq!(next_queue(four, Some(&set(&[2, 3])), &set(&[2])), Ok(3));
        let none = next_queue(four, Some(&set(&[0, 4])), &set(&[]));
        assert_eq!(none, Err(NoQueue::NoneReserved));
        let full = next_queue(four, Some(&set(&[3, 9])), &set(&[3]));
        assert_eq!(full, Err(NoQueue::AllTaken { count: 1 }));
        let one = Queues::of(None);
        assert_eq!(next_queue(one, None, &set(&[])), Err(NoQueue::OnlyOne));
        assert_eq!(next_queue(one, Some(&set(&[1])), &set(&[])), Err(NoQueue::OnlyOne));
        let many = Queues { receive: u32::MAX, send: 1 };
        assert_eq!(next_queue(many, None, &set(&[1])), Ok(2));
    }

    proptest! {
        #[test]
        fn a_queue_that_is_handed_out_exists_and_is_free(
            receive in 0u32..12, send in 0u32..12, reserved: Option<BTreeSet<u8>>,
            taken in proptest::collection::btree_set(0u32..14, 0..14),
        ) {
            let reserved: Option<BTreeSet<u32>> =
                reserved.map(|set| set.into_iter().map(|queue| u32::from(queue) % 14).collect());
            let allowed = |queue: u32| {
                queue != 0 && queue < receive
                    && reserved.as_ref().is_none_or(|reserved| reserved.contains(&queue))
            };
            match next_queue(Queues { receive, send }, reserved.as_ref(), &taken) {
                Ok(queue) => prop_assert!(allowed(queue) && !taken.contains(&queue)),
                Err(_) => {
                    prop_assert!((0..receive).all(|queue| !allowed(queue) || taken.contains(&queue)));
                }
            }
        }

        /// Every entry of the list is either kept or complained of.
        #[test]
        fn a_list_is_checked_whole(list in proptest::collection::vec(0u32..10, 0..10), receive in 1u32..8) {
            let (reserved, problems) = check_reserve(Queues { receive, send: receive }, &list);
            prop_assert_eq!(reserved.len() + problems.len(), list.len());
            prop_assert!(reserved.iter().all(|queue| *queue > 0 && *queue < receive));
        }
    }
}
