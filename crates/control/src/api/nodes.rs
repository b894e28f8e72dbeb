//! Nodes.

use super::answer::{Answer, Tagged};
use super::report::{NodeStatus, last_report};
use crate::app::App;
use crate::auth::{Admin, Operator, Viewer};
use crate::extract::{Condition, Json, Named, Query};
use crate::problem::Failure;
use crate::service::NodeFilter;
use axum::extract::State;
use axum::http::StatusCode;
use pointsman_model::api::Problem;
use pointsman_model::fleet::{Labels, Node, Page};
use pointsman_model::{LabelKey, LabelValue, NodeName};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, patch, remove))
        .routes(routes!(status))
}

/// What is changed of a node.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NodePatch {
    /// All its labels from now on.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    labels: Labels,
}

/// The nodes, by name.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes",
    params(
        ("label" = Option<Vec<String>>, Query, description = "KEY=VALUE that they must have; may \
            be given several times"),
        ("health" = Option<String>, Query, description = "How they must stand: failing, silent, \
            behind, well or new"),
        ("limit" = Option<u32>, Query, description = "How many at most: 1 to 1000, else 100"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, body = Page<Node>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    _: Viewer,
    State(app): State<App>,
    mut query: Query,
) -> Result<Answer<Page<Node>>, Failure> {
    let page = query.page()?;
    let filter = filter(&mut query)?;
    query.end()?;
    Ok(Answer(app.nodes(&filter, &page).await?))
}

/// The filter that a query asks for.
pub(crate) fn filter(query: &mut Query) -> Result<NodeFilter, Failure> {
    let labels = query.many("label").into_iter().map(|text| {
        let told = |why: String| Failure::bad_request(format!("?label=: {why}"));
        let (key, value) =
            text.split_once('=').ok_or_else(|| told("expected KEY=VALUE".to_owned()))?;
        let key = LabelKey::new(key).map_err(|error| told(error.to_string()))?;
        let value = LabelValue::new(value).map_err(|error| told(error.to_string()))?;
        Ok((key, value))
    });
    let labels = labels.collect::<Result<_, Failure>>()?;
    Ok(NodeFilter { labels, health: query.one("health")?, ..NodeFilter::default() })
}

/// One node.
#[utoipa::path(get, path = "/v1/nodes/{name}", tag = "nodes",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Node, headers(("ETag" = String))),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn show(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<NodeName>,
) -> Result<Tagged<Node>, Failure> {
    let node = app.node(&name).await?;
    Ok(Tagged::new(node.revision, node))
}

/// Replaces a node's labels.
#[utoipa::path(patch, path = "/v1/nodes/{name}", tag = "nodes",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = String, Header, description = "Its ETag"),
    ),
    request_body = NodePatch,
    responses(
        (status = 200, body = Node, headers(("ETag" = String))),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn patch(
    Operator(caller): Operator,
    State(app): State<App>,
    Named(name): Named<NodeName>,
    Condition(precondition): Condition,
    Json(NodePatch { labels }): Json<NodePatch>,
) -> Result<Tagged<Node>, Failure> {
    let node = app.label(&caller, &name, &labels, precondition).await?;
    Ok(Tagged::new(node.revision, node))
}

/// Takes a node out of the fleet: its credential is void at once, its record goes with the next
/// publish. What runs on it stays.
#[utoipa::path(delete, path = "/v1/nodes/{name}", tag = "nodes",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = String, Header, description = "Its ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn remove(
    Admin(caller): Admin,
    State(app): State<App>,
    Named(name): Named<NodeName>,
    Condition(precondition): Condition,
) -> Result<StatusCode, Failure> {
    app.delete_node(&caller, &name, precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a node reported last.
#[utoipa::path(get, path = "/v1/nodes/{name}/status", tag = "nodes",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = NodeStatus),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn status(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<NodeName>,
) -> Result<Answer<NodeStatus>, Failure> {
    app.db.node(&name).await?;
    let report = last_report(&app, &name).await?;
    report.map(Answer).ok_or_else(|| Failure::not_found(format!("report of node {name} yet")))
}
