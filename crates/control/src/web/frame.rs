//! What all pages have in common.

use super::assets;
use super::session::Visitor;
use crate::problem::Failure;
use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use pointsman_model::api::Problem;

/// How htmx works here: without `eval`, without styles of its own, and with the answers that say
/// what is wrong put into the page too.
const HTMX: &str = r#"{"allowEval":false,"includeIndicatorStyles":false,"historyCacheSize":0,"selfRequestsOnly":true,"responseHandling":[{"code":"204","swap":false},{"code":"...","swap":true}]}"#;

/// What is around a page.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) title: String,
    /// Which part of the navigation it belongs to.
    pub(super) part: &'static str,
    /// Who looks; `None`: nobody has logged in.
    pub(super) visitor: Option<Visitor>,
}

impl Frame {
    pub(super) fn new(visitor: &Visitor, part: &'static str, title: impl Into<String>) -> Self {
        Self { title: title.into(), part, visitor: Some(visitor.clone()) }
    }

    pub(super) fn bare(title: &str) -> Self {
        Self { title: title.into(), part: "", visitor: None }
    }

    pub(super) fn asset(&self, name: &str) -> &'static str {
        assets::url(name)
    }

    pub(super) fn htmx(&self) -> &'static str {
        HTMX
    }

    /// The parts that a visitor may go to: the address, and what it is called.
    pub(super) fn parts(&self) -> Vec<(&'static str, &'static str)> {
        let mut parts = vec![
            ("nodes", "Nodes"),
            ("policies", "Policies"),
            ("programs", "Programs"),
            ("publish", "Publish"),
            ("audit", "Audit"),
        ];
        if self.admin() {
            parts.push(("tokens", "Tokens"));
        }
        parts
    }

    pub(super) fn operator(&self) -> bool {
        self.visitor.as_ref().is_some_and(Visitor::operator)
    }

    pub(super) fn admin(&self) -> bool {
        self.visitor.as_ref().is_some_and(Visitor::admin)
    }

    /// What forms bring back.
    pub(super) fn csrf(&self) -> &str {
        self.visitor.as_ref().map_or("", |visitor| &visitor.csrf)
    }
}

/// Writes a page.
pub(super) fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, template)
}

/// Writes a page that is no success.
pub(super) fn page_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => Failure::internal("the page cannot be written", &error).into_response(),
    }
}

/// Writes a form again with what was wrong with it.
pub(super) fn page_of(failure: &Problem, template: &impl Template) -> Response {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_REQUEST);
    page_with(status, template)
}

/// Sends a browser to another page.
pub(super) fn redirect(htmx: bool, to: &str) -> Response {
    let Ok(place) = HeaderValue::try_from(to) else {
        return Failure::bad_request("there is no such page").into_response();
    };
    if htmx {
        // htmx would follow a redirect itself and put the page into the page.
        return ([("hx-redirect", place)], ()).into_response();
    }
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

#[derive(Template)]
#[template(path = "oops.html")]
struct OopsPage<'a> {
    frame: Frame,
    problem: &'a Problem,
}

/// What somebody gets instead of a page.
#[derive(Debug)]
pub(super) struct Oops(pub(super) Failure);

impl<E: Into<Failure>> From<E> for Oops {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Oops {
    fn into_response(self) -> Response {
        let Self(failure) = self;
        let frame = Frame::bare("This did not work");
        let mut response =
            page_of(&failure.problem, &OopsPage { frame, problem: &failure.problem });
        let headers = response.headers_mut();
        // With htmx it goes above the page that is there, which stays as it is.
        headers.insert("hx-retarget", HeaderValue::from_static("#notice"));
        headers.insert("hx-reselect", HeaderValue::from_static("#oops"));
        headers.insert("hx-reswap", HeaderValue::from_static("innerHTML show:window:top"));
        if let Some(seconds) = failure.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
