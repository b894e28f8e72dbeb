//! Coming and going.

use super::frame::{Frame, Oops, page, page_of, redirect};
use super::session::{Fields, Posted, Visitor, expect_own_site, is_htmx};
use crate::app::App;
use crate::auth;
use crate::db::DbError;
use crate::problem::Failure;
use askama::Template;
use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Form, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use std::net::SocketAddr;

/// The largest form of somebody of whom nothing is known, in bytes.
const MAX_FORM: usize = 4096;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(home))
        .route("/login", get(show).post(login))
        .route("/logout", post(logout))
        // Nearer than the limit of all pages, so it is the one that counts.
        .layer(DefaultBodyLimit::max(MAX_FORM))
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    frame: Frame,
    fleet: &'a str,
    next: &'a str,
    trouble: &'a str,
}

#[derive(Debug, Default, Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

async fn home(visitor: Visitor) -> Response {
    redirect(visitor.htmx, "/nodes")
}

async fn show(State(app): State<App>, Query(Next { next }): Query<Next>) -> Response {
    let frame = Frame::bare("Log in");
    page(&LoginPage { frame, fleet: app.fleet.as_str(), next: local(&next), trouble: "" })
}

async fn login(
    State(app): State<App>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Result<Response, Oops> {
    expect_own_site(&headers)?;
    let Form(fields) = form.map_err(|error| {
        Oops(Failure::bad_request(error.body_text()).with_status(error.status()))
    })?;
    let fields = Fields(fields);
    let next = local(fields.text("next"));
    let from = peer.map(|peer| peer.0.0.ip().to_canonical());
    match app.begin_session(fields.text("token"), from).await {
        Ok((_, session)) => {
            let cookie = set_cookie(&app, session.cookie.expose(), session.seconds);
            let mut response = redirect(is_htmx(&headers), next);
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            Ok(response)
        }
        Err(failure) => {
            let frame = Frame::bare("Log in");
            let trouble = &failure.problem.title;
            let login = LoginPage { frame, fleet: app.fleet.as_str(), next, trouble };
            Ok(page_of(&failure.problem, &login))
        }
    }
}

async fn logout(
    State(app): State<App>,
    headers: HeaderMap,
    posted: Posted,
) -> Result<Response, Oops> {
    if let Some(cookie) = auth::cookie(&headers, app.secure) {
        app.db.end_session(&cookie.hash()).await.map_err(|error: DbError| Oops::from(error))?;
    }
    let mut response = redirect(posted.visitor.htmx, "/login").into_response();
    response.headers_mut().insert(header::SET_COOKIE, set_cookie(&app, "", 0));
    Ok(response)
}

/// No script and no other site sees it.
fn set_cookie(app: &App, value: &str, seconds: u64) -> HeaderValue {
    let secure = if app.secure { "; Secure" } else { "" };
    let name = auth::cookie_name(app.secure);
    let cookie =
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(cookie).expect("invariant: secrets are plain characters")
}

/// A page of ours to go to: never another site, however it is written.
fn local(next: &str) -> &str {
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if next.starts_with('/') && !next.starts_with("//") && plain { next } else { "/nodes" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_one_stays_here() {
        assert_eq!(local("/policies/a?x=1"), "/policies/a?x=1");
        for other in ["", "//evil", "https://evil", "/\\evil", "/\t/evil", "x", "/a\r\nb"] {
            assert_eq!(local(other), "/nodes", "{other:?}");
        }
    }
}
