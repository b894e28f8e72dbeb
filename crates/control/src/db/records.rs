//! What was published for each node last, byte for byte.

use super::row::{Columns as _, to_json};
use super::{Change, Db, DbError, PageRequest, integer};
use pointsman_model::NodeName;
use pointsman_model::fleet::{Page, RecordObject};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

/// How far a node's records have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordState {
    /// The node.
    pub node: NodeName,
    /// The last generation that was published for it. It never falls, also when the node leaves
    /// and comes back.
    pub generation: u64,
    /// What tells its document from others, whatever the generation; `None`: the node left, and
    /// there is no record of it.
    pub digest: Option<String>,
    /// The number of the snapshot that it came with.
    pub snapshot: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A record as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedRecord {
    /// Whose, and which.
    pub state: RecordState,
    /// The objects that it names.
    pub objects: Vec<RecordObject>,
    /// Signature and payload; `None`: the node left.
    pub record: Option<Vec<u8>>,
}

/// Rows of one insert: few round trips, and far from the databases' limits of parameters.
const AT_ONCE: usize = 100;

/// What is kept of a record.
const COLUMNS: usize = 7;

const STATE: &str = "select node, generation, digest, snapshot, at_ms from records order by node";

impl Db {
    /// How far the records of all nodes have come, also of those that left, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn record_states(&self) -> Result<Vec<RecordState>, DbError> {
        let rows = sqlx::query(STATE).fetch_all(&self.pool).await?;
        rows.iter().map(state).collect()
    }

    /// A page of records, by node, also of those that left.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn records(&self, page: &PageRequest) -> Result<Page<PublishedRecord>, DbError> {
        let rows = sqlx::query("select * from records where node > $1 order by node limit $2")
            .bind(page.after().to_owned())
            .bind(page.fetch())
            .fetch_all(&self.pool)
            .await?;
        let records = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        Ok(page.page(records, |record| record.state.node.to_string()))
    }

    /// A node's record, also if it left.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn record(&self, node: &NodeName) -> Result<Option<PublishedRecord>, DbError> {
        let row = sqlx::query("select * from records where node = $1")
            .bind(node.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(record).transpose()
    }
}

impl Change {
    /// How far the records of all nodes have come, as [`Db::record_states`].
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn record_states(&mut self) -> Result<Vec<RecordState>, DbError> {
        states(self.connection()).await
    }

    /// Keeps what is published from now on. Part of a publish: its audit entry speaks of the
    /// snapshot.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn put_records(&mut self, records: &[PublishedRecord]) -> Result<(), DbError> {
        for some in records.chunks(AT_ONCE) {
            let mut query = sqlx::query(sqlx::AssertSqlSafe(insert(some.len())));
            for PublishedRecord { state, objects, record } in some {
                query = query
                    .bind(state.node.to_string())
                    .bind(integer(state.generation))
                    .bind(state.digest.clone())
                    .bind(record.clone())
                    .bind(integer(state.snapshot))
                    .bind(integer(state.at_ms))
                    .bind(to_json(objects));
            }
            query.execute(self.connection()).await?;
        }
        Ok(())
    }
}

pub(super) async fn states(connection: &mut AnyConnection) -> Result<Vec<RecordState>, DbError> {
    let rows = sqlx::query(STATE).fetch_all(connection).await?;
    rows.iter().map(state).collect()
}

/// An insert of several rows: nothing of what is stored is in its text.
fn insert(rows: usize) -> String {
    let row = |at: usize| {
        let places: Vec<_> =
            (1..=COLUMNS).map(|column| format!("${}", COLUMNS * at + column)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<_> = (0..rows).map(row).collect();
    format!(
        "insert into records (node, generation, digest, record, snapshot, at_ms, objects) \
         values {} \
         on conflict (node) do update set generation = excluded.generation, \
         digest = excluded.digest, record = excluded.record, snapshot = excluded.snapshot, \
         at_ms = excluded.at_ms, objects = excluded.objects",
        rows.join(", ")
    )
}

fn state(row: &AnyRow) -> Result<RecordState, DbError> {
    Ok(RecordState {
        node: row.parsed("node")?,
        generation: row.integer("generation")?,
        digest: row.optional_text("digest")?,
        snapshot: row.integer("snapshot")?,
        at_ms: row.integer("at_ms")?,
    })
}

pub(super) fn record(row: &AnyRow) -> Result<PublishedRecord, DbError> {
    Ok(PublishedRecord {
        state: state(row)?,
        objects: row.json("objects")?,
        record: row.optional_bytes("record")?,
    })
}
