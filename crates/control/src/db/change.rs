//! One change of what operators decide, with its audit entry: all of it, or nothing.

use super::connect::PATIENCE;
use super::row::to_json;
use super::{Db, DbError, integer};
use serde::Serialize;
use sqlx::AnyConnection;
use sqlx::{Any, Row as _, Transaction};
use tokio::sync::OwnedMutexGuard;

/// The key of the advisory lock by which changes take turns on PostgreSQL.
const CHANGES: i64 = 0x706f_696e_7473_0001;

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The name of a token, `node NAME`, or `control`.
    pub name: String,
    /// From where: an address, where there is one.
    pub from: Option<String>,
}

impl Actor {
    /// The control plane itself.
    #[must_use]
    pub fn control() -> Self {
        Self { name: "control".into(), from: None }
    }
}

/// What a request expects of what it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing was said: good for what is not there yet.
    Unsaid,
    /// It must not be there: `If-None-Match: *`.
    Absent,
    /// It must be there: `If-Match: *`.
    Present,
    /// It must have this revision: `If-Match: "7"`.
    Revision(u64),
}

impl Precondition {
    /// Compares with how it stands: its revision, or that it is not there.
    ///
    /// # Errors
    /// [`DbError::PreconditionFailed`] or [`DbError::PreconditionRequired`].
    pub fn check(self, object: &str, current: Option<u64>) -> Result<(), DbError> {
        let failed =
            |why: String| Err(DbError::PreconditionFailed { object: object.to_owned(), why });
        match (self, current) {
            (Self::Unsaid | Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Revision(wanted), Some(revision)) if wanted == revision => Ok(()),
            (Self::Unsaid, Some(revision)) => {
                Err(DbError::PreconditionRequired { object: object.to_owned(), revision })
            }
            (Self::Absent, Some(revision)) => failed(format!("exists, with revision {revision}")),
            (Self::Present | Self::Revision(_), None) => failed("does not exist".into()),
            (Self::Revision(wanted), Some(revision)) => failed(format!(
                "was changed meanwhile: its revision is {revision}, not {wanted}. Look at it again"
            )),
        }
    }
}

/// A transaction that is the only one that changes what operators decide. Dropped without
/// [`Self::commit`], it leaves no trace.
#[derive(Debug)]
pub struct Change {
    transaction: Transaction<'static, Any>,
    actor: Actor,
    now: u64,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Db {
    /// Begins a change by `actor`. `now` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The database does not answer, or is busy.
    pub async fn change(&self, actor: &Actor, now: u64) -> Result<Change, DbError> {
        let (mut transaction, turn) = self.begin().await?;
        if turn.is_none() {
            // A function that answers nothing, counted so that it is called.
            sqlx::query("select count(*) from pg_advisory_xact_lock($1)")
                .bind(CHANGES)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(Change { transaction, actor: actor.clone(), now, _turn: turn })
    }

    /// Begins a transaction that writes. On SQLite it is the only one.
    pub(super) async fn begin(
        &self,
    ) -> Result<(Transaction<'static, Any>, Option<OwnedMutexGuard<()>>), DbError> {
        if !self.target.is_sqlite() {
            return Ok((self.pool.begin().await?, None));
        }
        let turn = tokio::time::timeout(PATIENCE, self.turn.clone().lock_owned());
        let turn = turn.await.map_err(|_| DbError::Busy { what: "the database".into() })?;
        // A transaction that reads first and writes later fails if another one wrote between.
        Ok((self.pool.begin_with("begin immediate").await?, Some(turn)))
    }
}

impl Change {
    /// When it is made, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Who makes it.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Writes an audit entry and gives its number, which becomes the revision of what is changed:
    /// no revision is ever used twice, also not by what is deleted and made again.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn note<B: Serialize, A: Serialize>(
        &mut self,
        verb: &str,
        object: &str,
        before: Option<&B>,
        after: Option<&A>,
    ) -> Result<u64, DbError> {
        let last = sqlx::query("select coalesce(max(number), 0) as last from audit")
            .fetch_one(&mut *self.transaction)
            .await?;
        let number = last.try_get::<i64, _>("last")? + 1;
        sqlx::query(
            "insert into audit (number, at_ms, who, origin, verb, object, before, after) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(number)
        .bind(integer(self.now))
        .bind(self.actor.name.clone())
        .bind(self.actor.from.clone())
        .bind(verb.to_owned())
        .bind(object.to_owned())
        .bind(before.map(to_json))
        .bind(after.map(to_json))
        .execute(&mut *self.transaction)
        .await?;
        Ok(number.unsigned_abs())
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// The database does not answer: it is not known whether the change was made.
    pub async fn commit(self) -> Result<(), DbError> {
        Ok(self.transaction.commit().await?)
    }

    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_what_exists_says_which_revision_it_means() {
        let check = |precondition: Precondition, current| {
            precondition.check("policy p", current).map_err(|error| error.to_string())
        };
        for good in [Precondition::Unsaid, Precondition::Absent] {
            assert_eq!(check(good, None), Ok(()));
        }
        for good in [Precondition::Present, Precondition::Revision(7)] {
            assert_eq!(check(good, Some(7)), Ok(()));
        }
        let error = check(Precondition::Unsaid, Some(7)).unwrap_err();
        assert!(error.contains("policy p exists (revision 7)"), "{error}");
        let error = check(Precondition::Revision(6), Some(7)).unwrap_err();
        assert!(error.contains("its revision is 7, not 6"), "{error}");
        for (wrong, current) in [
            (Precondition::Absent, Some(7)),
            (Precondition::Present, None),
            (Precondition::Revision(7), None),
        ] {
            check(wrong, current).unwrap_err();
        }
    }
}
