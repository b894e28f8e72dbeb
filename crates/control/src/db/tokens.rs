//! API tokens, by the hashes of their secrets.

use super::row::Columns as _;
use super::{Change, Db, DbError, PageRequest, integer};
use pointsman_model::TokenName;
use pointsman_model::fleet::{Page, Role, Token};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

/// A token that is about to be.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// Its name.
    pub name: TokenName,
    /// What its holder may do.
    pub role: Role,
    /// When it ends by itself, in milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    /// The SHA-256 of its secret.
    pub hash: String,
}

/// How exact the time of a token's last use is, in milliseconds.
const USED: u64 = 60_000;

impl Db {
    /// A page of tokens, by name; also those that are void.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn tokens(&self, page: &PageRequest) -> Result<Page<Token>, DbError> {
        let rows = sqlx::query("select * from tokens where name > $1 order by name limit $2")
            .bind(page.after().to_owned())
            .bind(page.fetch())
            .fetch_all(&self.pool)
            .await?;
        let tokens = rows.iter().map(token).collect::<Result<Vec<_>, _>>()?;
        Ok(page.page(tokens, |token| token.name.to_string()))
    }

    /// The token whose secret has this hash, void or not.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<Token>, DbError> {
        let row = sqlx::query("select * from tokens where hash = $1")
            .bind(hash.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(token).transpose()
    }

    /// Notes that a token was used, at most once a minute.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn token_used(&self, token: &Token, now: u64) -> Result<(), DbError> {
        if token.used_unix_ms.is_some_and(|used| now < used.saturating_add(USED)) {
            return Ok(());
        }
        let (mut transaction, _turn) = self.begin().await?;
        sqlx::query("update tokens set used_ms = $2 where name = $1")
            .bind(token.name.to_string())
            .bind(integer(now - now % USED))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

impl Change {
    /// Whether there is no token at all: nobody has ever been let in.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn has_no_token(&mut self) -> Result<bool, DbError> {
        let row = sqlx::query("select count(*) as tokens from tokens")
            .fetch_one(self.connection())
            .await?;
        Ok(row.integer("tokens")? == 0)
    }

    /// Adds a token.
    ///
    /// # Errors
    /// There is one of this name, or was; or the database does not answer.
    pub async fn add_token(&mut self, new: NewSecret) -> Result<Token, DbError> {
        let NewSecret { name, role, expires_ms, hash } = new;
        if one(self.connection(), &name).await?.is_some() {
            return Err(DbError::Conflict(format!(
                "{} exists, or existed and is named in the audit trail: choose another name",
                object(&name)
            )));
        }
        let token = Token {
            name,
            role,
            created_unix_ms: self.now(),
            expires_unix_ms: expires_ms,
            used_unix_ms: None,
            revoked_unix_ms: None,
        };
        self.note("create", &object(&token.name), None::<&()>, Some(&token)).await?;
        sqlx::query(
            "insert into tokens (name, role, hash, created_ms, expires_ms) \
             values ($1, $2, $3, $4, $5)",
        )
        .bind(token.name.to_string())
        .bind(token.role.name().to_owned())
        .bind(hash)
        .bind(integer(token.created_unix_ms))
        .bind(expires_ms.map(integer))
        .execute(self.connection())
        .await?;
        Ok(token)
    }

    /// Makes a token void at once, and the sessions that were begun with it. Doing it twice is no
    /// error.
    ///
    /// # Errors
    /// There is none of this name, or the database does not answer.
    pub async fn revoke_token(&mut self, name: &TokenName) -> Result<(), DbError> {
        let Some(before) = one(self.connection(), name).await? else {
            return Err(DbError::NotFound(object(name)));
        };
        if before.revoked_unix_ms.is_some() {
            return Ok(());
        }
        let after = Token { revoked_unix_ms: Some(self.now()), ..before.clone() };
        self.note("revoke", &object(name), Some(&before), Some(&after)).await?;
        sqlx::query("update tokens set revoked_ms = $2 where name = $1")
            .bind(name.to_string())
            .bind(integer(self.now()))
            .execute(self.connection())
            .await?;
        sqlx::query("delete from sessions where token = $1")
            .bind(name.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn object(name: &TokenName) -> String {
    format!("token {name}")
}

async fn one(connection: &mut AnyConnection, name: &TokenName) -> Result<Option<Token>, DbError> {
    let row = sqlx::query("select * from tokens where name = $1")
        .bind(name.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(token).transpose()
}

/// Also of a row that was joined with others.
pub(super) fn token(row: &AnyRow) -> Result<Token, DbError> {
    Ok(Token {
        name: row.parsed("name")?,
        role: row.parsed("role")?,
        created_unix_ms: row.integer("created_ms")?,
        expires_unix_ms: row.optional_integer("expires_ms")?,
        used_unix_ms: row.optional_integer("used_ms")?,
        revoked_unix_ms: row.optional_integer("revoked_ms")?,
    })
}
