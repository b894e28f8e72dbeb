//! The publisher's lock: one publisher at a time, on all hosts. It ends with the connection that
//! holds it, so a publisher that was killed blocks nobody.

use super::connect::Target;
use super::{Db, DbError, OpenError};
use sqlx::AnyConnection;
use sqlx::{Connection as _, Row as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The key of the publishers' advisory lock on PostgreSQL.
const PUBLISHERS: i64 = 0x706f_696e_7473_0002;

/// The lock, held. Dropping it ends its connection and so gives it back.
#[derive(Debug)]
pub struct PublisherLock {
    connection: AnyConnection,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// The process of the server that holds it for us.
    Session { backend: i64 },
    /// A small database beside the other, which is locked as a whole.
    File { path: PathBuf, inode: u64 },
}

impl Db {
    /// Becomes the only publisher, waiting `patience` for another one to end.
    ///
    /// # Errors
    /// [`DbError::Busy`]: another one publishes. Otherwise: the database does not answer.
    pub async fn publisher_lock(&self, patience: Duration) -> Result<PublisherLock, DbError> {
        let result = match &*self.target {
            Target::Sqlite { path, .. } => lock_file(path, "publisher", patience).await,
            Target::Postgres { .. } => lock_session(&self.target, patience).await,
        };
        result.map_err(|error| match error.into() {
            DbError::Busy { .. } => DbError::Busy { what: "publishing".into() },
            other => other,
        })
    }

    /// Keeps other processes from changing the tables of a SQLite database.
    pub(super) async fn sqlite_lock(&self, patience: Duration) -> Result<PublisherLock, OpenError> {
        let Target::Sqlite { path, .. } = &*self.target else {
            unreachable!("invariant: asked for SQLite only");
        };
        let locked = lock_file(path, "migration", patience).await;
        locked.map_err(|source| self.target.unreachable(source))
    }
}

impl PublisherLock {
    /// Whether the lock is still held. Asked before each step that a second publisher must not
    /// take.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] or [`DbError::Conflict`]: it is lost, and another one may publish
    /// by now.
    pub async fn still_held(&mut self) -> Result<(), DbError> {
        let lost = |why: &str| {
            Err(DbError::Conflict(format!("the publisher's lock is lost: {why}; publish again")))
        };
        match &self.held {
            Held::Session { backend } => {
                // A lock on a bigint has its halves in classid and objid, and objsubid 1.
                let row = sqlx::query(
                    "select count(*) as locks from pg_locks where locktype = 'advisory' \
                     and granted and objsubid = 1 and pid = pg_backend_pid() and pid::bigint = $1 \
                     and classid::bigint = $2 and objid::bigint = $3",
                )
                .bind(*backend)
                .bind(PUBLISHERS >> 32)
                .bind(PUBLISHERS & 0xffff_ffff)
                .fetch_one(&mut self.connection)
                .await?;
                if row.try_get::<i64, _>("locks")? == 0 {
                    return lost("the server says so");
                }
            }
            Held::File { path, inode } => {
                if inode_of(path).ok() != Some(*inode) {
                    return lost(&format!("{} was removed or replaced", path.display()));
                }
            }
        }
        Ok(())
    }

    /// Gives the lock back, and waits until it is.
    ///
    /// # Errors
    /// The connection failed, and so the lock is given back as well.
    pub async fn release(self) -> Result<(), DbError> {
        Ok(self.connection.close().await?)
    }
}

async fn lock_session(target: &Target, patience: Duration) -> Result<PublisherLock, sqlx::Error> {
    let mut connection = target.apart(patience).await?;
    sqlx::query("select count(*) from pg_advisory_lock($1)")
        .bind(PUBLISHERS)
        .execute(&mut connection)
        .await?;
    let row = sqlx::query("select pg_backend_pid()::bigint as backend")
        .fetch_one(&mut connection)
        .await?;
    let backend = row.try_get("backend")?;
    Ok(PublisherLock { connection, held: Held::Session { backend } })
}

/// Locks a database of its own beside `database`: holding a lock there keeps nobody from reading
/// and writing.
async fn lock_file(
    database: &Path,
    purpose: &str,
    patience: Duration,
) -> Result<PublisherLock, sqlx::Error> {
    let mut name = database.as_os_str().to_owned();
    name.push(format!(".{purpose}-lock"));
    let path = PathBuf::from(name);
    owned_like(database, &path)?;
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut connection = AnyConnection::connect(&url).await?;
    // Not a write-ahead log: an exclusive transaction is a lock of the file itself.
    let wait =
        format!("pragma journal_mode = delete; pragma busy_timeout = {}", patience.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(wait)).execute(&mut connection).await?;
    sqlx::raw_sql("begin exclusive").execute(&mut connection).await?;
    let inode = inode_of(&path)?;
    Ok(PublisherLock { connection, held: Held::File { path, inode } })
}

/// Makes the lock's file, of whoever the database is of: root may have been here first, to make a
/// token.
fn owned_like(database: &Path, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut open = std::fs::OpenOptions::new();
    let made = open.write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    };
    let owner = std::fs::metadata(database)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

fn inode_of(path: &Path) -> std::io::Result<u64> {
    std::fs::metadata(path).map(|file| file.ino())
}
