//! Tables, brought up to date. The same numbers on both databases.

use super::{Db, OpenError};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use std::time::Duration;

/// Number, what it does, and the statements for SQLite and for PostgreSQL. Never changed once
/// released: what is wrong is corrected by the next.
const ALL: &[(i64, &str, &str, &str)] = &[
    (
        1,
        "start",
        include_str!("../../migrations/sqlite/0001_start.sql"),
        include_str!("../../migrations/postgres/0001_start.sql"),
    ),
    (
        2,
        "objects",
        include_str!("../../migrations/sqlite/0002_objects.sql"),
        include_str!("../../migrations/postgres/0002_objects.sql"),
    ),
];

/// How long another process may take that does the same.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(db: &Db) -> Result<(), OpenError> {
    let database = db.describe();
    // On PostgreSQL the migrator takes a lock of its own; on SQLite this one serves.
    let _alone = if db.target.is_sqlite() { Some(db.sqlite_lock(PATIENCE).await?) } else { None };
    migrator(db.target.is_sqlite()).run(&db.pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => OpenError::Later { database, version },
        source => OpenError::Migrate { database, source },
    })
}

fn migrator(sqlite: bool) -> Migrator {
    let migrations = ALL.iter().map(|&(number, name, for_sqlite, for_postgres)| {
        let text = if sqlite { for_sqlite } else { for_postgres };
        Migration::new(number, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of tables and columns, in order, and nothing of their types.
    fn shape(text: &str) -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("--"));
        lines
            .filter_map(|line| {
                let mut words = line.split([' ', '(']);
                match words.next()? {
                    "" | ")" | ");" => None,
                    "create" => Some(words.take(2).collect::<Vec<_>>().join(" ")),
                    column => Some(column.to_owned()),
                }
            })
            .filter(|name| !name.starts_with(')'))
            .collect()
    }

    #[test]
    fn both_databases_have_the_same_tables() {
        for (number, name, sqlite, postgres) in ALL {
            assert_eq!(shape(sqlite), shape(postgres), "{number} {name}");
        }
    }
}
