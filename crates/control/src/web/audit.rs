//! Who changed what, and when.

use super::frame::{Frame, Oops, page};
use super::session::Visitor;
use super::text::{When, query};
use crate::app::App;
use crate::db::PageRequest;
use crate::extract::{Query, Text};
use crate::problem::Failure;
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use pointsman_model::fleet::AuditEntry;
use serde_json::Value;

/// How many entries are on a page.
const LIMIT: u32 = 50;

pub(super) fn router() -> Router<App> {
    Router::new().route("/audit", get(list))
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    rows: Vec<Row>,
    object: String,
    who: String,
    next: Option<String>,
}

struct Row {
    entry: AuditEntry,
    at: When,
    before: Option<String>,
    after: Option<String>,
}

async fn list(
    visitor: Visitor,
    State(app): State<App>,
    mut asked: Query,
) -> Result<Response, Oops> {
    let mut one = |name| {
        let text = asked.one::<Text>(name)?.map(|Text(text)| text.trim().to_owned());
        Ok::<_, Failure>(text.filter(|text| !text.is_empty()))
    };
    let (object, who, after) = (one("object")?, one("who")?, one("after")?);
    asked.end()?;
    if after.as_ref().is_some_and(|after| after.parse::<u64>().is_err()) {
        return Err(Oops(Failure::bad_request("?after=: expected the number of an entry")));
    }
    let request = PageRequest { limit: LIMIT, after };
    let found = app.db.audit(object.as_deref(), who.as_deref(), &request).await?;
    let (object, who) = (object.unwrap_or_default(), who.unwrap_or_default());
    let now = app.clock.now();
    let json = |value: &Option<Value>| value.as_ref().map(|value| format!("{value:#}"));
    let row = |entry: AuditEntry| Row {
        at: When::new(entry.at_unix_ms, now),
        before: json(&entry.before),
        after: json(&entry.after),
        entry,
    };
    let next = |next: String| {
        format!("/audit{}", query(&[("object", &object), ("who", &who), ("after", &next)]))
    };
    Ok(page(&AuditPage {
        frame: Frame::new(&visitor, "audit", "Audit"),
        rows: found.items.into_iter().map(row).collect(),
        next: found.next.map(next),
        object,
        who,
    }))
}
