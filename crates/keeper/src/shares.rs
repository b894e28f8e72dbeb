//! Who may have how many of the connections. Pure.
//!
//! Root may have all. Any other user has a share, so that no one locks out all others; and all of
//! them together leave an eighth of the connections to each other socket, so that the clients of one
//! do not lock out those of the other.

use crate::link::Kind;
use std::collections::BTreeMap;

/// What part of all connections a user has, unless told otherwise.
const USER_PART: usize = 4;

/// What part of all connections is kept free of the users of one socket.
const OTHER_PART: usize = 8;

/// Whose a connection is: the user that connected (`SO_PEERCRED`), and by which socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) user: u32,
    pub(crate) kind: Kind,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// That of all.
    All { limit: usize },
    /// That of one user.
    User { user: u32, limit: usize },
    /// That of one socket.
    Socket { limit: usize },
}

/// The connections that are open, by owner.
#[derive(Debug)]
pub(crate) struct Shares {
    all: usize,
    per_user: usize,
    open: BTreeMap<Owner, usize>,
}

impl Shares {
    /// `all` connections, and of them `per_user` for each user but root.
    pub(crate) fn new(all: usize, per_user: Option<usize>) -> Self {
        let per_user = per_user.unwrap_or((all / USER_PART).max(1));
        Self { all, per_user, open: BTreeMap::new() }
    }

    /// Whether one more may be had.
    pub(crate) fn check(&self, owner: Owner) -> Result<(), Full> {
        let count = |of: fn(&Owner, &Owner) -> bool| -> usize {
            self.open.iter().filter(|(other, _)| of(other, &owner)).map(|(_, count)| count).sum()
        };
        if count(|_, _| true) >= self.all {
            return Err(Full::All { limit: self.all });
        }
        if owner.user == 0 {
            return Ok(());
        }
        if count(|other, owner| other.user == owner.user) >= self.per_user {
            return Err(Full::User { user: owner.user, limit: self.per_user });
        }
        let limit = self.all - self.all / OTHER_PART;
        if count(|other, owner| other.kind == owner.kind) >= limit {
            return Err(Full::Socket { limit });
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, owner: Owner) {
        *self.open.entry(owner).or_default() += 1;
    }

    pub(crate) fn give_back(&mut self, owner: Owner) {
        if let Some(count) = self.open.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(shares: &mut Shares, owner: Owner) -> (usize, Full) {
        let mut taken = 0;
        loop {
            if let Err(full) = shares.check(owner) {
                return (taken, full);
            }
            shares.take(owner);
            taken += 1;
        }
    }

    #[test]
    fn one_user_locks_out_nobody_and_root_may_have_the_rest() {
        let of = |user, kind| Owner { user, kind };
        let mut shares = Shares::new(100, None);
        let user = of(1000, Kind::Imtl);
        assert_eq!(fill(&mut shares, user), (25, Full::User { user: 1000, limit: 25 }));
        shares.check(of(1000, Kind::Native)).expect_err("one user, one share");
        for user in 1001..1003 {
            assert_eq!(fill(&mut shares, of(user, Kind::Imtl)).0, 25);
        }
        assert_eq!(fill(&mut shares, of(1004, Kind::Imtl)), (13, Full::Socket { limit: 88 }));
        assert_eq!(fill(&mut shares, of(1005, Kind::Native)), (12, Full::All { limit: 100 }));
        shares.give_back(user);
        assert_eq!(fill(&mut shares, of(0, Kind::Imtl)), (1, Full::All { limit: 100 }));
    }

    #[test]
    fn a_share_can_be_named_and_everybody_has_one_at_least() {
        let owner = Owner { user: 7, kind: Kind::Imtl };
        assert_eq!(fill(&mut Shares::new(100, Some(40)), owner).0, 40);
        assert_eq!(fill(&mut Shares::new(2, None), owner).0, 1);
        assert_eq!(fill(&mut Shares::new(3, None), Owner { user: 0, ..owner }).0, 3);
    }
}
