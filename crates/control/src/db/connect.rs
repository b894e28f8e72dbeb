//! What a database URL names, and how connections to it are set up.

use super::OpenError;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::{
    AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

/// How long a request waits for a connection, or for its turn to write.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A database.
#[derive(Debug)]
pub(super) enum Target {
    /// A file.
    Sqlite { path: PathBuf, options: AnyConnectOptions },
    /// A server.
    Postgres { shown: String, options: AnyConnectOptions },
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        install_default_drivers();
        let wrong = |why: &str| OpenError::Url { url: without_password(url), why: why.to_owned() };
        if let Some(path) = url.strip_prefix("sqlite://") {
            if path.contains(['?', '#', '%']) {
                return Err(wrong("a path without '?', '#' and '%' is expected"));
            }
            if !path.starts_with('/') || path.ends_with('/') {
                return Err(wrong("an absolute path of a file is expected"));
            }
            let options = options(&format!("sqlite://{path}?mode=rwc"))
                .map_err(|error| wrong(&error.to_string()))?;
            return Ok(Self::Sqlite { path: PathBuf::from(path), options });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = options(url).map_err(|error| wrong(&error.to_string()))?;
            return Ok(Self::Postgres { shown: without_password(url), options });
        }
        Err(wrong("expected sqlite:///ABSOLUTE/PATH or postgres://USER@HOST/DATABASE"))
    }

    /// A pool of connections.
    pub(super) async fn pool(&self, connections: u32) -> Result<AnyPool, OpenError> {
        if let Self::Sqlite { path, .. } = self {
            prepare(path)?;
        }
        // A pool tries until its time is up, and then no longer knows what the reason was.
        let first = self.apart(PATIENCE).await.map_err(|source| self.unreachable(source))?;
        first.close().await.map_err(|source| self.unreachable(source))?;
        let settings = self.settings(PATIENCE);
        AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move { set(connection, settings).await })
            })
            .connect_with(self.options().clone())
            .await
            .map_err(|source| self.unreachable(source))
    }

    /// One connection that belongs to no pool, and waits for locks as long as it is told.
    pub(super) async fn apart(&self, patience: Duration) -> Result<AnyConnection, sqlx::Error> {
        let mut connection = self.options().connect().await?;
        set(&mut connection, self.settings(patience)).await?;
        Ok(connection)
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite { .. })
    }

    pub(super) fn unreachable(&self, source: sqlx::Error) -> OpenError {
        OpenError::Unreachable { database: self.to_string(), source }
    }

    fn options(&self) -> &AnyConnectOptions {
        match self {
            Self::Sqlite { options, .. } | Self::Postgres { options, .. } => options,
        }
    }

    /// Statements that every connection starts with.
    fn settings(&self, patience: Duration) -> String {
        // No time at all would be for ever.
        let wait = patience.as_millis().max(1);
        match self {
            // FULL: what was answered is on the disk, and stays there when the power goes.
            Self::Sqlite { .. } => format!(
                "pragma busy_timeout = {wait}; pragma journal_mode = wal; \
                 pragma synchronous = full; pragma foreign_keys = on;"
            ),
            Self::Postgres { .. } => format!(
                "set application_name = 'pointsman-control'; set lock_timeout = {wait}; \
                 set statement_timeout = 60000; set idle_in_transaction_session_timeout = 60000; \
                 set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; \
                 set tcp_keepalives_count = 3;"
            ),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path, .. } => write!(f, "sqlite://{}", path.display()),
            Self::Postgres { shown, .. } => f.write_str(shown),
        }
    }
}

fn options(url: &str) -> Result<AnyConnectOptions, sqlx::Error> {
    // Statements have secrets' hashes in them.
    Ok(AnyConnectOptions::from_str(url)?.disable_statement_logging())
}

async fn set(connection: &mut AnyConnection, settings: String) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(settings))).await.map(drop)
}

/// Makes the file's directory, and the file itself so that nobody else can read it.
fn prepare(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let told = |source| OpenError::File { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(told)?;
    }
    let mut open = std::fs::OpenOptions::new();
    // Not truncated: it may be the database of years.
    open.write(true).create(true).truncate(false).mode(0o600).open(path).map_err(told)?;
    Ok(())
}

/// A URL as it may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // Passwords may also come as a parameter.
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return format!("{scheme}://{authority}{path}");
    };
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    format!("{scheme}://{user}@{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        let shown = without_password("postgres://ann:s3:c@r@et@db/pointsman?password=x&sslmode=no");
        assert_eq!(shown, "postgres://ann@db/pointsman");
        assert_eq!(without_password("postgres://db"), "postgres://db");
        let error = Target::parse("mysql://ann:secret@db/x").unwrap_err().to_string();
        assert!(!error.contains("secret") && error.contains("sqlite:///"), "{error}");
    }

    #[test]
    fn a_sqlite_url_is_an_absolute_path() {
        for wrong in ["sqlite://x.db", "sqlite://", "sqlite:///d/", "sqlite:///a?mode=ro", "x"] {
            Target::parse(wrong).unwrap_err();
        }
        assert!(Target::parse("sqlite:///a/b.db").unwrap().is_sqlite());
    }
}
