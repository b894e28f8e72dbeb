//! What was published, moment by moment.

use super::row::{Columns as _, to_json};
use super::{Change, Db, DbError, PageRequest, integer};
use pointsman_model::fleet::{Page, Snapshot};
use serde_json::Value;
use sqlx::any::AnyRow;

impl Db {
    /// A page of snapshots, newest first. `after` is the number of the last one of the page
    /// before.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn snapshots(&self, page: &PageRequest) -> Result<Page<Snapshot>, DbError> {
        let before = page.after.as_deref().and_then(|after| after.parse::<i64>().ok());
        let rows =
            sqlx::query("select * from snapshots where number < $1 order by number desc limit $2")
                .bind(before.unwrap_or(i64::MAX))
                .bind(page.fetch())
                .fetch_all(&self.pool)
                .await?;
        let snapshots = rows.iter().map(snapshot).collect::<Result<Vec<_>, _>>()?;
        Ok(page.page(snapshots, |snapshot| snapshot.number.to_string()))
    }

    /// One snapshot.
    ///
    /// # Errors
    /// There is none of this number, or the database does not answer.
    pub async fn snapshot(&self, number: u64) -> Result<Snapshot, DbError> {
        let row = sqlx::query("select * from snapshots where number = $1")
            .bind(integer(number))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref()
            .map(snapshot)
            .transpose()?
            .ok_or_else(|| DbError::NotFound(format!("snapshot {number}")))
    }

    /// The newest snapshot, and whether `latest` names it already.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn newest_snapshot(&self) -> Result<Option<(Snapshot, bool)>, DbError> {
        let row = sqlx::query("select * from snapshots order by number desc limit 1")
            .fetch_optional(&self.pool)
            .await?;
        let told =
            |row: AnyRow| Ok((snapshot(&row)?, row.optional_integer("latest_ms")?.is_some()));
        row.map(told).transpose()
    }

    /// Notes that `latest` in the blob store names a snapshot now.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn snapshot_is_latest(&self, number: u64, now: u64) -> Result<(), DbError> {
        let (mut transaction, _turn) = self.begin().await?;
        sqlx::query("update snapshots set latest_ms = $2 where number = $1")
            .bind(integer(number))
            .bind(integer(now))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

impl Change {
    /// Adds a snapshot. Two publishers that count from the same one cannot both do it. Numbers are
    /// left out where the blob store has had them, and the database does not know of it.
    ///
    /// # Errors
    /// [`DbError::Conflict`]: there is one of this number, or a later one. Otherwise the database
    /// does not answer.
    pub async fn add_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), DbError> {
        let newest = sqlx::query("select coalesce(max(number), 0) as newest from snapshots")
            .fetch_one(self.connection())
            .await?
            .integer("newest")?;
        if newest >= snapshot.number {
            return Err(DbError::Conflict(format!(
                "snapshot {newest} was published meanwhile; publish again"
            )));
        }
        let told = serde_json::to_value(snapshot).unwrap_or(Value::Null);
        self.note("publish", &format!("snapshot {}", snapshot.number), None::<&()>, Some(&told))
            .await?;
        sqlx::query(
            "insert into snapshots (number, at_ms, published_by, cause, nodes, changed, shards, \
             bytes_written) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(integer(snapshot.number))
        .bind(integer(snapshot.at_unix_ms))
        .bind(snapshot.by.clone())
        .bind(to_json(&snapshot.cause))
        .bind(integer(snapshot.nodes))
        .bind(integer(snapshot.changed))
        .bind(to_json(&snapshot.shards))
        .bind(integer(snapshot.bytes_written))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

fn snapshot(row: &AnyRow) -> Result<Snapshot, DbError> {
    Ok(Snapshot {
        number: row.integer("number")?,
        at_unix_ms: row.integer("at_ms")?,
        by: row.text("published_by")?,
        cause: row.json("cause")?,
        nodes: row.integer("nodes")?,
        changed: row.integer("changed")?,
        shards: row.json("shards")?,
        bytes_written: row.integer("bytes_written")?,
    })
}
