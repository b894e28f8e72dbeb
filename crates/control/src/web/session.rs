//! Who looks at a page, and whether a form that comes back is ours.

use super::frame::{Oops, redirect};
use crate::app::App;
use crate::auth::{self, Caller};
use crate::problem::Failure;
use crate::secret::same;
use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use pointsman_model::api::ProblemKind;
use pointsman_model::fleet::{Role, Token};

/// Somebody with a session.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    /// What the forms of his pages bring back.
    pub(super) csrf: String,
    /// Whether htmx asks, which puts the answer into the page.
    pub(super) htmx: bool,
}

impl Visitor {
    pub(super) fn operator(&self) -> bool {
        self.caller.role >= Role::Operator
    }

    pub(super) fn admin(&self) -> bool {
        self.caller.role >= Role::Admin
    }

    /// Refuses a form that does not bring the session's secret: somebody else's page sent it.
    pub(super) fn expect_csrf(&self, given: Option<&str>) -> Result<(), Failure> {
        if given.is_some_and(|given| same(given, &self.csrf)) {
            return Ok(());
        }
        let title = "the form is not of this session: go back, load the page again, and send it \
                     again";
        Err(Failure::new(ProblemKind::Forbidden, title))
    }
}

/// Whoever has no session is sent to the login, and comes back from there.
#[derive(Debug)]
pub(super) enum NoVisitor {
    Login { next: String, htmx: bool },
    Failed(Failure),
}

impl IntoResponse for NoVisitor {
    fn into_response(self) -> Response {
        match self {
            Self::Login { next, htmx } => {
                let next = super::text::query(&[("next", &next)]);
                redirect(htmx, &format!("/login{next}"))
            }
            Self::Failed(failure) => Oops(failure).into_response(),
        }
    }
}

impl FromRequestParts<App> for Visitor {
    type Rejection = NoVisitor;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, NoVisitor> {
        let htmx = is_htmx(&parts.headers);
        let login = || {
            // Polling parts of a page and forms are no places to come back to.
            let place = parts.uri.path_and_query().map_or("/", |place| place.as_str());
            let back = parts.method == axum::http::Method::GET && !htmx;
            NoVisitor::Login { next: if back { place } else { "/" }.into(), htmx }
        };
        let Some(cookie) = auth::cookie(&parts.headers, app.secure) else { return Err(login()) };
        let now = app.clock.now();
        let session = app.db.session(&cookie.hash(), now).await;
        let session = session.map_err(|error| NoVisitor::Failed(error.into()))?;
        let Some(session) = session else { return Err(login()) };
        let Ok(Token { name, role, .. }) = auth::valid(session.token, now) else {
            return Err(login());
        };
        let caller = Caller { name, role, from: auth::address(parts) };
        Ok(Self { caller, csrf: session.csrf, htmx })
    }
}

pub(super) fn is_htmx(headers: &HeaderMap) -> bool {
    headers.contains_key("hx-request")
}

/// Refuses what a browser says another site had it send.
pub(super) fn expect_own_site(headers: &HeaderMap) -> Result<(), Failure> {
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    if site.is_none_or(|site| matches!(site, "same-origin" | "none")) {
        return Ok(());
    }
    let title = "another site sent this form; send it from the page itself";
    Err(Failure::new(ProblemKind::Forbidden, title))
}

/// The fields of a form, in the order of the page.
#[derive(Debug, Default, Clone)]
pub(super) struct Fields(pub(super) Vec<(String, String)>);

impl Fields {
    /// A field's value, without what surrounds it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim())
    }

    /// A field's value; empty: it was not sent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a field.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.trim())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// A form that somebody with a session sent from one of our pages.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) visitor: Visitor,
    pub(super) fields: Fields,
}

impl FromRequest<App> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, app)
            .await
            .map_err(IntoResponse::into_response)?;
        expect_own_site(&parts.headers).map_err(|failure| Oops(failure).into_response())?;
        let request = Request::from_parts(parts, body);
        let form = Form::<Vec<(String, String)>>::from_request(request, app).await;
        let Form(fields) = form.map_err(|error| {
            let failure = Failure::bad_request(error.body_text()).with_status(error.status());
            Oops(failure).into_response()
        })?;
        let fields = Fields(fields);
        let csrf = visitor.expect_csrf(fields.get("csrf"));
        csrf.map_err(|failure| Oops(failure).into_response())?;
        Ok(Self { visitor, fields })
    }
}
