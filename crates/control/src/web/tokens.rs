//! API tokens: made, shown once, and revoked by administrators.

use super::frame::{Frame, Oops, page, page_of, redirect};
use super::session::{Posted, Visitor};
use super::text::{When, query};
use crate::app::App;
use crate::db::PageRequest;
use crate::extract::{Named, Query, Text};
use crate::problem::Failure;
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use pointsman_model::TokenName;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{NewToken, Role, Token, TokenRequest};

/// How many are on a page.
const LIMIT: u32 = 100;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/tokens", get(list).post(make))
        .route("/tokens/{name}/revoke", post(revoke))
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
    new: Option<NewToken>,
    name: String,
    wrong: Vec<DocumentError>,
}

struct Row {
    token: Token,
    own: bool,
    created: When,
    used: Option<When>,
    state: String,
    good: bool,
}

async fn list(
    visitor: Visitor,
    State(app): State<App>,
    mut asked: Query,
) -> Result<Response, Oops> {
    let after = asked.one::<Text>("after")?.map(|Text(text)| text);
    asked.end()?;
    Ok(page(&build(&app, &visitor, after).await?))
}

async fn build(app: &App, visitor: &Visitor, after: Option<String>) -> Result<TokensPage, Failure> {
    visitor.caller.expect(Role::Admin)?;
    let found = app.db.tokens(&PageRequest { limit: LIMIT, after }).await?;
    let now = app.clock.now();
    let row = |token: Token| {
        let ended = token.expires_unix_ms.is_some_and(|expires| expires <= now);
        let state = match (token.revoked_unix_ms, token.expires_unix_ms) {
            (Some(at), _) => format!("revoked {}", When::new(at, now).ago),
            (None, Some(at)) if ended => format!("expired {}", When::new(at, now).ago),
            (None, Some(at)) => format!("expires {}", When::new(at, now).ago),
            (None, None) => "good until revoked".into(),
        };
        Row {
            own: token.name == visitor.caller.name,
            created: When::new(token.created_unix_ms, now),
            used: When::maybe(token.used_unix_ms, now),
            good: token.revoked_unix_ms.is_none() && !ended,
            state,
            token,
        }
    };
    Ok(TokensPage {
        frame: Frame::new(visitor, "tokens", "Tokens"),
        rows: found.items.into_iter().map(row).collect(),
        next: found.next.map(|next| format!("/tokens{}", query(&[("after", &next)]))),
        new: None,
        name: String::new(),
        wrong: Vec::new(),
    })
}

async fn make(
    State(app): State<App>,
    Posted { visitor, fields }: Posted,
) -> Result<Response, Oops> {
    let wrong = |pointer: &str, message: String| {
        Failure::invalid("the form", vec![DocumentError { pointer: pointer.into(), message }])
    };
    let request = || {
        let name = fields.text("name").parse::<TokenName>();
        let name = name.map_err(|error| wrong("/name", error.to_string()))?;
        let role = fields.text("role").parse().map_err(|error| wrong("/role", error))?;
        let ttl_seconds = match fields.text("days") {
            "" => None,
            days => {
                let days = days.parse::<u64>();
                let days =
                    days.map_err(|_| wrong("/ttl_seconds", "expected a number of days".into()))?;
                Some(days.saturating_mul(86_400))
            }
        };
        Ok(TokenRequest { name, role, ttl_seconds })
    };
    let made = match request() {
        Ok(request) => app.make_token(&visitor.caller, request).await,
        Err(failure) => Err(failure),
    };
    let mut tokens = build(&app, &visitor, None).await?;
    match made {
        Ok(new) => {
            tokens.new = Some(new);
            Ok(page(&tokens))
        }
        Err(mut failure) => {
            if failure.problem.status == 409 {
                let message = failure.problem.title.clone();
                failure.problem.errors.push(DocumentError { pointer: "/name".into(), message });
            }
            if failure.problem.errors.is_empty() {
                return Err(Oops(failure));
            }
            tokens.wrong = failure.problem.errors.clone();
            tokens.name = fields.text("name").into();
            Ok(page_of(&failure.problem, &tokens))
        }
    }
}

async fn revoke(
    State(app): State<App>,
    Named(name): Named<TokenName>,
    Posted { visitor, .. }: Posted,
) -> Result<Response, Oops> {
    app.revoke_token(&visitor.caller, &name).await?;
    Ok(redirect(visitor.htmx, "/tokens"))
}

/// What is wrong with a field of a form.
pub(super) fn wrong_at(errors: &[DocumentError], pointer: &str) -> String {
    let here = errors.iter().filter(|error| error.pointer == pointer);
    here.map(|error| error.message.as_str()).collect::<Vec<_>>().join("; ")
}

impl TokensPage {
    fn wrong(&self, pointer: &str) -> String {
        wrong_at(&self.wrong, pointer)
    }
}
