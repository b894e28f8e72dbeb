//! API tokens, and sessions that are begun with them.

use crate::app::App;
use crate::auth::Caller;
use crate::db::{Actor, Db, DbError, NewSecret};
use crate::problem::Failure;
use crate::secret::{Secret, SecretKind};
use pointsman_model::TokenName;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{NewToken, Role, Token, TokenRequest};
use std::net::IpAddr;

/// The longest that a token may be good for, if an end is given: 10 years, in seconds.
const LONGEST_TTL: u64 = 3650 * 86_400;

/// How long a session lasts, in milliseconds: a working day.
const SESSION: u64 = 12 * 3_600_000;

/// A session that was just begun.
#[derive(Debug)]
pub struct NewSession {
    /// What goes into the cookie.
    pub cookie: Secret,
    /// Until when it is good, in seconds from now.
    pub seconds: u64,
}

impl App {
    /// Makes a token.
    ///
    /// # Errors
    /// 403; 409: the name is taken; 422: its time is out of bounds.
    pub async fn make_token(
        &self,
        caller: &Caller,
        request: TokenRequest,
    ) -> Result<NewToken, Failure> {
        caller.expect(Role::Admin)?;
        make_token(&self.db, &caller.actor(), request, self.clock.now()).await
    }

    /// Makes a token void, at once.
    ///
    /// # Errors
    /// 403, 404; 409: it is the caller's own.
    pub async fn revoke_token(&self, caller: &Caller, name: &TokenName) -> Result<(), Failure> {
        caller.expect(Role::Admin)?;
        if caller.name == *name {
            let title = "this is the token that you use: revoke it with another one";
            return Err(Failure::new(pointsman_model::api::ProblemKind::Conflict, title));
        }
        let mut change = self.db.change(&caller.actor(), self.clock.now()).await?;
        change.revoke_token(name).await?;
        Ok(change.commit().await?)
    }

    /// Begins a session of the web pages with an API token.
    ///
    /// # Errors
    /// 401: the token is unknown or void. 429.
    pub async fn begin_session(
        &self,
        secret: &str,
        from: Option<IpAddr>,
    ) -> Result<(Token, NewSession), Failure> {
        let parsed = Secret::parse(secret.trim()).filter(|it| it.kind() == SecretKind::Token);
        let Some(secret) = parsed else {
            self.throttle.admit(from, "")?;
            self.throttle.failed(from, "");
            return Err(crate::auth::unauthorized("an API token starts with pmt_"));
        };
        let token = crate::auth::token(self, &secret, from).await?;
        let now = self.clock.now();
        let ends = now.saturating_add(SESSION).min(token.expires_unix_ms.unwrap_or(u64::MAX));
        let (cookie, form) = (Secret::new(SecretKind::Session), Secret::new(SecretKind::Form));
        self.db.add_session(&cookie.hash(), &token.name, form.expose(), now, ends).await?;
        let actor = Actor { name: token.name.to_string(), from: from.map(|from| from.to_string()) };
        let mut change = self.db.change(&actor, now).await?;
        change.note("login", &format!("token {}", token.name), None::<&()>, None::<&()>).await?;
        change.commit().await?;
        Ok((token, NewSession { cookie, seconds: ends.saturating_sub(now) / 1000 }))
    }
}

/// Makes a token directly in the database: for who may read its file anyway.
///
/// # Errors
/// 409: the name is taken; 422: its time is out of bounds.
pub async fn make_token(
    db: &Db,
    actor: &Actor,
    request: TokenRequest,
    now: u64,
) -> Result<NewToken, Failure> {
    let TokenRequest { name, role, ttl_seconds } = request;
    let ttl = ttl_seconds.map(|seconds| ttl(seconds, LONGEST_TTL)).transpose()?;
    let secret = Secret::new(SecretKind::Token);
    let expires_ms = ttl.map(|seconds| now.saturating_add(seconds * 1000));
    let mut change = db.change(actor, now).await?;
    let token = change.add_token(NewSecret { name, role, expires_ms, hash: secret.hash() }).await?;
    change.commit().await?;
    Ok(NewToken { token, secret: secret.expose().to_owned() })
}

/// Makes the first token, where there has never been one: `admin`.
///
/// # Errors
/// The database does not answer.
pub async fn first_token(db: &Db, now: u64) -> Result<Option<NewToken>, DbError> {
    let mut change = db.change(&Actor::control(), now).await?;
    if !change.has_no_token().await? {
        return Ok(None);
    }
    let secret = Secret::new(SecretKind::Token);
    let name = TokenName::new("admin").expect("invariant: a good name");
    let new = NewSecret { name, role: Role::Admin, expires_ms: None, hash: secret.hash() };
    let token = change.add_token(new).await?;
    change.commit().await?;
    Ok(Some(NewToken { token, secret: secret.expose().to_owned() }))
}

/// A time that something is good for, in seconds.
pub(super) fn ttl(seconds: u64, longest: u64) -> Result<u64, Failure> {
    if (1..=longest).contains(&seconds) {
        return Ok(seconds);
    }
    let message = format!("{seconds} is out of bounds: expected 1 to {longest} seconds");
    let pointer = "/ttl_seconds".to_owned();
    Err(Failure::invalid("the body", vec![DocumentError { pointer, message }]))
}
