//! What publishing asks of the database, and nobody else does.

use super::row::{Columns as _, garbled};
use super::{Change, Db, DbError, PublishedRecord, integer, records};
use pointsman_model::fleet::{Labels, RecordObject};
use pointsman_model::{NodeName, Sha256};
use sqlx::AnyConnection;
use std::collections::{BTreeMap, BTreeSet};

/// The setting that says whose turn it is. It is no decision of anybody, so no audit tells of it.
const TURN: &str = "publishing_turn";

/// How many names are in one statement: few round trips, and far from the databases' limits.
const AT_ONCE: usize = 500;

impl Db {
    /// The records of these nodes, ordered by node, also of those that left. Nodes without any are
    /// left out.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn records_of(&self, nodes: &[NodeName]) -> Result<Vec<PublishedRecord>, DbError> {
        let mut found = Vec::with_capacity(nodes.len());
        for nodes in nodes.chunks(AT_ONCE) {
            let text =
                format!("select * from records where node in ({}) order by node", places(1, nodes));
            let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
            for node in nodes {
                query = query.bind(node.to_string());
            }
            for row in query.fetch_all(&self.pool).await? {
                found.push(records::record(&row)?);
            }
        }
        Ok(found)
    }

    /// How many bytes all records have together.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn record_bytes(&self) -> Result<u64, DbError> {
        // A sum is a numeric on PostgreSQL.
        let text = "select cast(coalesce(sum(length(record)), 0) as bigint) as bytes from records";
        sqlx::query(text).fetch_one(&self.pool).await?.integer("bytes")
    }

    /// The objects that records name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn needed_objects(&self) -> Result<BTreeSet<RecordObject>, DbError> {
        let rows =
            sqlx::query("select distinct objects from records").fetch_all(&self.pool).await?;
        let mut objects = BTreeSet::new();
        for row in rows {
            objects.extend(row.json::<Vec<RecordObject>>("objects")?);
        }
        Ok(objects)
    }

    /// The hashes of all objects that the database has.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn object_hashes(&self) -> Result<BTreeSet<Sha256>, DbError> {
        let rows = sqlx::query("select sha256 from objects").fetch_all(&self.pool).await?;
        rows.iter().map(|row| row.parsed("sha256")).collect()
    }
}

impl Change {
    /// The value of a setting.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn setting(&mut self, key: &str) -> Result<Option<String>, DbError> {
        let row = sqlx::query("select value from settings where key = $1")
            .bind(key.to_owned())
            .fetch_optional(self.connection())
            .await?;
        row.map(|row| row.text("value")).transpose()
    }

    /// All nodes by name, with what selectors go by.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_nodes_labels(&mut self) -> Result<Vec<(NodeName, Labels)>, DbError> {
        nodes_labels(self.connection()).await
    }

    /// Takes the next turn of publishing: those who had one before can write no more.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn take_publishing_turn(&mut self) -> Result<u64, DbError> {
        let turn = self.publishing_turn().await? + 1;
        sqlx::query(
            "insert into settings (key, value) values ($1, $2) \
             on conflict (key) do update set value = excluded.value",
        )
        .bind(TURN.to_owned())
        .bind(turn.to_string())
        .execute(self.connection())
        .await?;
        Ok(turn)
    }

    /// Makes sure that a turn of publishing is still the last one.
    ///
    /// # Errors
    /// [`DbError::Conflict`]: another publisher took the next one.
    pub async fn check_publishing_turn(&mut self, turn: u64) -> Result<(), DbError> {
        if self.publishing_turn().await? == turn {
            return Ok(());
        }
        Err(DbError::Conflict("another publisher took over meanwhile; publish again".into()))
    }

    async fn publishing_turn(&mut self) -> Result<u64, DbError> {
        let Some(text) = self.setting(TURN).await? else { return Ok(0) };
        text.parse().map_err(|_| garbled("value", format!("{TURN} is {text:?}")))
    }

    /// Notes another mark beside the records of these nodes. The records stay what they are.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn mark_records(&mut self, nodes: &[NodeName], mark: &str) -> Result<(), DbError> {
        for nodes in nodes.chunks(AT_ONCE) {
            let text = format!(
                "update records set digest = $1 where record is not null and node in ({})",
                places(2, nodes)
            );
            let mut query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(mark.to_owned());
            for node in nodes {
                query = query.bind(node.to_string());
            }
            query.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Removes the objects that no program and no record has needed since `before_ms`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn sweep_objects(&mut self, before_ms: u64) -> Result<(), DbError> {
        let rows = sqlx::query("select distinct objects from records")
            .fetch_all(self.connection())
            .await?;
        let mut needed = BTreeSet::new();
        for row in rows {
            let objects: Vec<RecordObject> = row.json("objects")?;
            needed.extend(objects.into_iter().map(|object| object.sha256));
        }
        let rows = sqlx::query("select distinct sha256 from programs")
            .fetch_all(self.connection())
            .await?;
        for row in rows {
            needed.insert(row.parsed("sha256")?);
        }
        let rows = sqlx::query("select sha256, unneeded_ms from objects")
            .fetch_all(self.connection())
            .await?;
        let mut objects: BTreeMap<Sha256, Option<u64>> = BTreeMap::new();
        for row in rows {
            objects.insert(row.parsed("sha256")?, row.optional_integer("unneeded_ms")?);
        }
        for (hash, unneeded_ms) in objects {
            let unneeded_now = (!needed.contains(&hash)).then(|| self.now());
            match (unneeded_ms, unneeded_now) {
                (Some(since), Some(_)) if since < before_ms => {
                    sqlx::query("delete from objects where sha256 = $1")
                        .bind(hash.to_string())
                        .execute(self.connection())
                        .await?;
                }
                (None, Some(_)) | (Some(_), None) => {
                    sqlx::query("update objects set unneeded_ms = $2 where sha256 = $1")
                        .bind(hash.to_string())
                        .bind(unneeded_now.map(integer))
                        .execute(self.connection())
                        .await?;
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        Ok(())
    }

    /// Forgets all snapshots but the newest. The audit trail goes on telling of them.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn forget_snapshots(&mut self, keep: u32) -> Result<(), DbError> {
        sqlx::query(
            "delete from snapshots where number <= (select max(number) from snapshots) - $1",
        )
        .bind(i64::from(keep))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

pub(super) async fn nodes_labels(
    connection: &mut AnyConnection,
) -> Result<Vec<(NodeName, Labels)>, DbError> {
    let rows = sqlx::query("select name, labels from nodes order by name");
    let rows = rows.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.parsed("name")?, row.json("labels")?))).collect()
}

/// As many parameters as there are nodes: nothing of what is stored is in a statement's text.
fn places(first: usize, nodes: &[NodeName]) -> String {
    let places: Vec<_> = (first..first + nodes.len()).map(|place| format!("${place}")).collect();
    places.join(", ")
}
