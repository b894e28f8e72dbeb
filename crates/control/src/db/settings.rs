//! What the control plane remembers of itself.

use super::row::Columns as _;
use super::{Change, Db, DbError};

impl Db {
    /// The value of a setting.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn setting(&self, key: &str) -> Result<Option<String>, DbError> {
        let row = sqlx::query("select value from settings where key = $1")
            .bind(key.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| row.text("value")).transpose()
    }
}

impl Change {
    /// Sets a setting.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn put_setting(&mut self, key: &str, value: &str) -> Result<(), DbError> {
        let before = sqlx::query("select value from settings where key = $1")
            .bind(key.to_owned())
            .fetch_optional(self.connection())
            .await?;
        let before = before.map(|row| row.text("value")).transpose()?;
        self.note("update", &format!("setting {key}"), before.as_ref(), Some(&value)).await?;
        sqlx::query(
            "insert into settings (key, value) values ($1, $2) \
             on conflict (key) do update set value = excluded.value",
        )
        .bind(key.to_owned())
        .bind(value.to_owned())
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
