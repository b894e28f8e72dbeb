//! Who asks, and what he may do.
//!
//! Handlers take [`Viewer`], [`Operator`], [`Admin`], [`Courier`] or [`Reader`] as their first
//! argument: a body is read only of somebody who may send it.

mod throttle;

pub use throttle::Throttle;

use crate::app::App;
use crate::db::Actor;
use crate::problem::Failure;
use crate::secret::{Secret, SecretKind};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use pointsman_model::api::ProblemKind;
use pointsman_model::fleet::{Role, Token};
use pointsman_model::{NodeName, TokenName};
use std::net::{IpAddr, SocketAddr};

/// The cookie of the web pages.
const COOKIE: &str = "pointsman_session";

/// The cookie where browsers send it by TLS alone. The prefix is a promise that browsers keep: no
/// other host of the domain, and no page without TLS, can have set it.
const SECURE_COOKIE: &str = "__Host-pointsman_session";

/// What the cookie of the web pages is called.
#[must_use]
pub fn cookie_name(secure: bool) -> &'static str {
    if secure { SECURE_COOKIE } else { COOKIE }
}

/// Somebody with an API token, or a session that was begun with one.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name.
    pub name: TokenName,
    /// What he may do.
    pub role: Role,
    /// From where.
    pub from: Option<IpAddr>,
}

impl Caller {
    /// Who changes something, as the audit trail tells it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor { name: self.name.to_string(), from: self.from.map(|from| from.to_string()) }
    }

    /// Refuses who has a lesser role.
    ///
    /// # Errors
    /// 403.
    pub fn expect(&self, role: Role) -> Result<(), Failure> {
        if self.role >= role {
            return Ok(());
        }
        let title = format!("this needs the role {role}; {} is {}", self.name, self.role);
        Err(Failure::new(ProblemKind::Forbidden, title))
    }
}

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(pub Caller);

        impl FromRequestParts<App> for $name {
            type Rejection = Failure;

            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
                let caller = caller(parts, app).await?;
                caller.expect(Role::$name)?;
                Ok(Self(caller))
            }
        }
    )+};
}

roles!(
    /// Somebody who may look.
    Viewer,
    /// Somebody who may change programs, policies and labels, and publish.
    Operator,
    /// Somebody who may enrol and remove nodes, and make and revoke tokens.
    Admin,
);

/// A node's courier.
#[derive(Debug, Clone)]
pub struct Courier {
    /// The node.
    pub node: NodeName,
    /// The hash of the credential.
    pub credential_hash: String,
}

/// Somebody who looks on for as long as he may look.
#[derive(Debug, Clone)]
pub struct Onlooker {
    parts: Parts,
    app: App,
}

impl Onlooker {
    /// Whether he still may: tokens are revoked and sessions end while somebody looks on.
    ///
    /// # Errors
    /// 401 or 403: not any more. Else it cannot be known.
    pub async fn check(&self) -> Result<(), Failure> {
        caller(&self.parts, &self.app).await?.expect(Role::Viewer)
    }
}

impl FromRequestParts<App> for Onlooker {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let onlooker = Self { parts: parts.clone(), app: app.clone() };
        onlooker.check().await?;
        Ok(onlooker)
    }
}

impl FromRequestParts<App> for Courier {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let from = address(parts);
        match bearer(&parts.headers)? {
            Some(secret) if secret.kind() == SecretKind::Credential => {
                courier(app, &secret, from).await
            }
            Some(_) => Err(Failure::new(
                ProblemKind::Forbidden,
                "this is for couriers: a node's own credential is expected, not an API token",
            )),
            None => Err(unauthorized("the node's credential is expected in Authorization: Bearer")),
        }
    }
}

/// Somebody who may fetch what is published: a courier, or who may look.
#[derive(Debug, Clone)]
pub struct Reader;

impl FromRequestParts<App> for Reader {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        match bearer(&parts.headers)? {
            Some(secret) if secret.kind() == SecretKind::Credential => {
                courier(app, &secret, address(parts)).await?;
            }
            _ => caller(parts, app).await?.expect(Role::Viewer)?,
        }
        Ok(Self)
    }
}

/// Where a request comes from.
#[must_use]
pub fn address(parts: &Parts) -> Option<IpAddr> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(peer)| peer.ip().to_canonical())
}

/// The value of the session's cookie.
#[must_use]
pub fn cookie(headers: &HeaderMap, secure: bool) -> Option<Secret> {
    let name = cookie_name(secure);
    let lines = headers.get_all(header::COOKIE).into_iter();
    let mut cookies = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    let value = cookies.find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))?;
    Secret::parse(value).filter(|secret| secret.kind() == SecretKind::Session)
}

/// Checks an API token that somebody presents.
///
/// # Errors
/// 401: it is unknown, or void by now. 429: too many wrong ones came from there.
pub async fn token(app: &App, secret: &Secret, from: Option<IpAddr>) -> Result<Token, Failure> {
    let hash = secret.hash();
    app.throttle.admit(from, &hash)?;
    let token = app.db.token_by_hash(&hash).await?;
    match token.map(|token| valid(token, app.clock.now())) {
        Some(Ok(token)) => {
            app.throttle.succeeded(hash);
            // What a token was used for is done whether or not that can be noted.
            if let Err(error) = app.db.token_used(&token, app.clock.now()).await {
                tracing::debug!("cannot note that {} was used: {error}", token.name);
            }
            Ok(token)
        }
        Some(Err(failure)) => {
            app.throttle.failed(from, &hash);
            Err(failure)
        }
        None => {
            app.throttle.failed(from, &hash);
            Err(unauthorized("the token is not known"))
        }
    }
}

/// Refuses a token that has expired or was revoked.
pub(crate) fn valid(token: Token, now: u64) -> Result<Token, Failure> {
    if token.revoked_unix_ms.is_some() {
        return Err(unauthorized("the token was revoked"));
    }
    if token.expires_unix_ms.is_some_and(|expires| expires <= now) {
        return Err(unauthorized("the token has expired"));
    }
    Ok(token)
}

async fn caller(parts: &Parts, app: &App) -> Result<Caller, Failure> {
    let from = address(parts);
    if let Some(secret) = bearer(&parts.headers)? {
        if secret.kind() != SecretKind::Token {
            let title = "an API token is expected, not a node's credential or one-time token";
            return Err(Failure::new(ProblemKind::Forbidden, title));
        }
        let Token { name, role, .. } = token(app, &secret, from).await?;
        return Ok(Caller { name, role, from });
    }
    // A page of somebody else can make a browser send its cookie: good for looking alone. The web
    // pages' own forms bring a second secret, and do not come here.
    let Some(cookie) = cookie(&parts.headers, app.secure) else {
        return Err(unauthorized("an API token is expected in Authorization: Bearer"));
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(unauthorized("a session is good for looking; send an API token"));
    }
    let now = app.clock.now();
    let session = app.db.session(&cookie.hash(), now).await?;
    let session = session.ok_or_else(|| unauthorized("the session has ended; log in again"))?;
    let Token { name, role, .. } = valid(session.token, now)?;
    Ok(Caller { name, role, from })
}

async fn courier(app: &App, secret: &Secret, from: Option<IpAddr>) -> Result<Courier, Failure> {
    let credential_hash = secret.hash();
    app.throttle.admit(from, &credential_hash)?;
    match app.db.node_by_credential(&credential_hash).await? {
        Some(node) => {
            app.throttle.succeeded(credential_hash.clone());
            Ok(Courier { node, credential_hash })
        }
        None => {
            app.throttle.failed(from, &credential_hash);
            Err(unauthorized(
                "the credential is not known: the node was enrolled again or removed; enrol it",
            ))
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, Failure> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let secret = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => Secret::parse(rest.trim()),
        _ => None,
    };
    secret.map(Some).ok_or_else(|| {
        unauthorized("Authorization: expected Bearer and a token that starts with pmt_ or pmc_")
    })
}

pub(crate) fn unauthorized(title: &str) -> Failure {
    Failure::new(ProblemKind::Unauthorized, title)
}
