//! The database: SQLite in a file, or PostgreSQL. The same tables and the same statements on both.
//!
//! Reads go through [`Db`]. Everything an operator changes goes through a [`Change`]: one
//! transaction, alone on the whole database, with its audit entry in it. A [`Moment`] is many reads of
//! one state. Reports of nodes are not
//! changes: see [`Db::take_reports`].

mod audit;
mod change;
mod connect;
mod error;
mod lock;
mod migrate;
mod moment;
mod nodes;
mod objects;
mod policies;
mod programs;
mod publishing;
mod records;
mod reports;
mod row;
mod sessions;
mod settings;
mod snapshots;
mod tokens;

pub use change::{Actor, Change, Precondition};
pub use error::{DbError, OpenError};
pub use lock::PublisherLock;
pub use moment::Moment;
pub use nodes::{CourierStanding, NodeRow, Standing};
pub use programs::NewProgram;
pub use records::{PublishedRecord, RecordState};
pub use reports::{Report, ReportRow, Taken};
pub use sessions::Session;
pub use tokens::NewSecret;

use connect::Target;
use futures_util::TryStreamExt as _;
use pointsman_model::fleet::{MAX_PAGE, Page};
use row::Columns as _;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{Any, AnyPool};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A database that is open and has all its tables. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pool: AnyPool,
    target: Arc<Target>,
    /// SQLite's own queue of writers is not fair: they wait here.
    turn: Arc<Mutex<()>>,
}

impl Db {
    /// Opens the database that a URL names, makes it if it is a SQLite file that is not there, and
    /// brings its tables up to date. At most `connections` are held to it.
    ///
    /// # Errors
    /// The URL is not understood, the database cannot be reached, or it was written by a later
    /// version.
    pub async fn open(url: &str, connections: u32) -> Result<Self, OpenError> {
        let target = Target::parse(url)?;
        let pool = target.pool(connections).await?;
        let db = Self { pool, target: Arc::new(target), turn: Arc::default() };
        migrate::run(&db).await?;
        Ok(db)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), DbError> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }

    /// What the database is, for people: never with a password.
    #[must_use]
    pub fn describe(&self) -> String {
        self.target.to_string()
    }

    /// Ends all connections: what is under way is finished first.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Reads a page: up to its limit, and not much beyond [`PAGE_BYTES`] in the columns that can be
    /// long. One item is there in any case.
    async fn page_of<T>(
        &self,
        request: &PageRequest,
        query: Query<'_, Any, AnyArguments>,
        long: &[&str],
        read: fn(&AnyRow) -> Result<T, DbError>,
        cursor: fn(&T) -> String,
    ) -> Result<Page<T>, DbError> {
        let mut rows = query.fetch(&self.pool);
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            if items.len() == request.limit as usize || bytes > PAGE_BYTES {
                let next = items.last().map(cursor);
                return Ok(Page { items, next });
            }
            for column in long {
                bytes += row.optional_text(column)?.map_or(0, |text| text.len());
            }
            items.push(read(&row)?);
        }
        Ok(Page { items, next: None })
    }

    async fn connection(&self) -> Result<PoolConnection<Any>, DbError> {
        Ok(self.pool.acquire().await?)
    }
}

/// How many bytes a page may have before it ends early.
const PAGE_BYTES: usize = 8 << 20;

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// How many items at most: 1 to [`MAX_PAGE`].
    pub limit: u32,
    /// The last item of the page before.
    pub after: Option<String>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: MAX_PAGE, after: None }
    }
}

impl PageRequest {
    /// One more than is wanted: whether there is another page shows by it.
    fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// What names come after: the empty text comes before all of them.
    fn after(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }

    /// Makes a page of what [`Self::fetch`] gave.
    fn page<T>(&self, mut items: Vec<T>, cursor: impl Fn(&T) -> String) -> Page<T> {
        let limit = self.limit as usize;
        let next = (items.len() > limit).then(|| {
            items.truncate(limit);
            items.last().map(cursor)
        });
        Page { items, next: next.flatten() }
    }
}

/// What SQL calls an integer: times, counts and revisions stay far below its bounds.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
