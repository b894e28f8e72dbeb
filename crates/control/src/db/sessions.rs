//! Sessions of the web pages. Each stands for the token that it was begun with, and never lives
//! longer.

use super::row::Columns as _;
use super::tokens::token;
use super::{Db, DbError, integer};
use pointsman_model::TokenName;
use pointsman_model::fleet::Token;

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The token that it was begun with, as it stands now.
    pub token: Token,
    /// What forms must send back.
    pub csrf: String,
}

impl Db {
    /// Begins a session. Those that ended are removed.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn add_session(
        &self,
        hash: &str,
        token: &TokenName,
        csrf: &str,
        now: u64,
        expires_ms: u64,
    ) -> Result<(), DbError> {
        let (mut transaction, _turn) = self.begin().await?;
        sqlx::query("delete from sessions where expires_ms <= $1")
            .bind(integer(now))
            .execute(&mut *transaction)
            .await?;
        sqlx::query("insert into sessions (hash, token, csrf, expires_ms) values ($1, $2, $3, $4)")
            .bind(hash.to_owned())
            .bind(token.to_string())
            .bind(csrf.to_owned())
            .bind(integer(expires_ms))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// The session whose cookie has this hash, if it has not ended.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn session(&self, hash: &str, now: u64) -> Result<Option<Session>, DbError> {
        let row = sqlx::query(
            "select tokens.name, tokens.role, tokens.created_ms, tokens.expires_ms, \
             tokens.used_ms, tokens.revoked_ms, sessions.csrf \
             from sessions join tokens on tokens.name = sessions.token \
             where sessions.hash = $1 and sessions.expires_ms > $2",
        )
        .bind(hash.to_owned())
        .bind(integer(now))
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok(Session { token: token(&row)?, csrf: row.text("csrf")? })).transpose()
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn end_session(&self, hash: &str) -> Result<(), DbError> {
        let (mut transaction, _turn) = self.begin().await?;
        sqlx::query("delete from sessions where hash = $1")
            .bind(hash.to_owned())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}
