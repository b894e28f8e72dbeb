//! The policies.

use super::frame::{Frame, Oops, page, redirect};
use super::node::revision;
use super::session::{Posted, Visitor};
use super::text::{When, query};
use crate::app::App;
use crate::db::PageRequest;
use crate::extract::{Named, Query, Text};
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use pointsman_model::PolicyName;
use pointsman_model::fleet::{Policy, Selector};

/// How many are on a page.
const LIMIT: u32 = 100;

pub(super) fn router() -> Router<App> {
    Router::new().route("/policies", get(list)).route("/policies/{name}/delete", post(delete))
}

#[derive(Template)]
#[template(path = "policies.html")]
struct PoliciesPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
}

struct Row {
    policy: Policy,
    selector: String,
    chain: String,
    updated: When,
}

async fn list(
    visitor: Visitor,
    State(app): State<App>,
    mut asked: Query,
) -> Result<Response, Oops> {
    let after = asked.one::<Text>("after")?.map(|Text(text)| text);
    asked.end()?;
    let found = app.db.policies(&PageRequest { limit: LIMIT, after }).await?;
    let now = app.clock.now();
    let row = |policy: Policy| {
        let mut entries: Vec<_> = policy.spec.chain.iter().collect();
        entries.sort_by_key(|entry| entry.priority);
        let names: Vec<_> = entries.iter().map(|entry| entry.name_on_nodes().to_string()).collect();
        Row {
            selector: told(&policy.spec.selector),
            chain: names.join(" → "),
            updated: When::new(policy.updated_unix_ms, now),
            policy,
        }
    };
    Ok(page(&PoliciesPage {
        frame: Frame::new(&visitor, "policies", "Policies"),
        rows: found.items.into_iter().map(row).collect(),
        next: found.next.map(|next| format!("/policies{}", query(&[("after", &next)]))),
    }))
}

/// A selector in one line.
fn told(selector: &Selector) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(selector.labels.iter().map(|(key, value)| format!("{key}={value}")));
    if !selector.nodes.is_empty() {
        let names: Vec<_> = selector.nodes.iter().map(ToString::to_string).collect();
        parts.push(names.join(" or "));
    }
    if parts.is_empty() && selector.all {
        parts.push("every node".into());
    }
    parts.join(", ")
}

async fn delete(
    State(app): State<App>,
    Named(name): Named<PolicyName>,
    Posted { visitor, fields }: Posted,
) -> Result<Response, Oops> {
    let precondition = revision(fields.text("revision"))?;
    app.delete_policy(&visitor.caller, &name, precondition).await?;
    Ok(redirect(visitor.htmx, "/policies"))
}
