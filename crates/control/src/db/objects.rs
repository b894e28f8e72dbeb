//! The objects of programs, by their hashes. The blob store has copies of them.

use super::row::Columns as _;
use super::{Change, Db, DbError, integer};
use pointsman_model::Sha256;

impl Db {
    /// The bytes of an object.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn object(&self, sha256: &Sha256) -> Result<Option<Vec<u8>>, DbError> {
        let row = sqlx::query("select data from objects where sha256 = $1")
            .bind(sha256.to_string())
            .fetch_optional(&self.pool)
            .await?;
        let data = row.map(|row| row.optional_bytes("data")).transpose()?;
        Ok(data.flatten())
    }
}

impl Change {
    /// Keeps an object, before anything names it. One that is there already stays.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn put_object(&mut self, sha256: &Sha256, data: &[u8]) -> Result<(), DbError> {
        sqlx::query(
            "insert into objects (sha256, bytes, data, added_ms) values ($1, $2, $3, $4) \
             on conflict (sha256) do update set unneeded_ms = null",
        )
        .bind(sha256.to_string())
        .bind(integer(data.len() as u64))
        .bind(data.to_vec())
        .bind(integer(self.now()))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
