//! Reading the audit trail.

use super::row::Columns as _;
use super::{Db, DbError, PageRequest};
use pointsman_model::fleet::{AuditEntry, Page};
use sqlx::any::AnyRow;

impl Db {
    /// The audit trail, newest first: of one object or one actor where they are given. `after` is
    /// the number of the last entry of the page before.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn audit(
        &self,
        object: Option<&str>,
        who: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<AuditEntry>, DbError> {
        let before = page.after.as_deref().and_then(|after| after.parse::<i64>().ok());
        let query = sqlx::query(
            "select * from audit where number < $1 and ($2 = '' or object = $2) \
             and ($3 = '' or who = $3) order by number desc limit $4",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(object.unwrap_or_default().to_owned())
        .bind(who.unwrap_or_default().to_owned())
        .bind(page.fetch());
        let cursor = |entry: &AuditEntry| entry.number.to_string();
        self.page_of(page, query, &["before", "after"], entry, cursor).await
    }
}

fn entry(row: &AnyRow) -> Result<AuditEntry, DbError> {
    Ok(AuditEntry {
        number: row.integer("number")?,
        at_unix_ms: row.integer("at_ms")?,
        who: row.text("who")?,
        from: row.optional_text("origin")?,
        verb: row.text("verb")?,
        object: row.text("object")?,
        before: row.optional_json("before")?,
        after: row.optional_json("after")?,
    })
}
