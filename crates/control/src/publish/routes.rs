//! The routes of publishing.

use super::error::PublishError;
use super::key::KeyError;
use super::standing::PublishStanding;
use crate::api::Answer;
use crate::app::App;
use crate::auth::{Operator, Viewer};
use crate::extract::{MAX_JSON, Named, Query, content_type, parse, read};
use crate::problem::Failure;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::fleet::{
    Cause, Page, PolicyDiff, PolicySpec, PublishReport, PublishRequest, Snapshot,
};
use pointsman_model::{NodeName, PolicyName};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How many policies that somebody wants to see the effect of are held in memory at a time.
const DIFFS: usize = 8;

static ROOM: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(DIFFS);

/// What takes as long as it takes.
pub(crate) fn publishing() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(publish))
}

/// The other routes.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(standing))
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(document))
        .routes(routes!(record))
        .routes(routes!(policy_diff))
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let kind = match error {
            PublishError::Database(error) => return error.into(),
            PublishError::OtherFleet { .. } | PublishError::OldDatabase { .. } => {
                ProblemKind::Conflict
            }
            PublishError::Key(KeyError::Replaced { .. }) => {
                tracing::error!("{error}");
                ProblemKind::Unavailable
            }
            PublishError::Store(_) | PublishError::Stopping => {
                tracing::error!("{error}");
                let failure = Self::new(ProblemKind::Unavailable, error.to_string());
                return Self { retry_after: Some(5), ..failure };
            }
            PublishError::Key(_)
            | PublishError::Latest(_)
            | PublishError::NoNumber { .. }
            | PublishError::ObjectLost { .. }
            | PublishError::RecordMissing { .. }
            | PublishError::Shard { .. } => {
                tracing::error!("{error}");
                ProblemKind::Storage
            }
        };
        Self::new(kind, error.to_string())
    }
}

/// Publishes what is wanted now, or only tells what that would be. Without a body: neither is a
/// dry run, nor may a node be emptied.
#[utoipa::path(post, path = "/v1/publish", tag = "publishing",
    request_body = PublishRequest,
    responses(
        (status = 200, body = PublishReport),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn publish(
    Operator(caller): Operator,
    State(app): State<App>,
    body: Body,
) -> Result<Answer<PublishReport>, Failure> {
    const MOST: usize = 4 << 10;
    let text = read(body, MOST).await?;
    let request = match text.trim_ascii_start().first() {
        None => PublishRequest::default(),
        Some(b'{') => parse(&text)?,
        // What serde derives would take an array of the fields as well.
        Some(_) => return Err(Failure::bad_request("the body: expected an object")),
    };
    let report = app.publisher.publish(request, caller.actor(), Cause::Request).await?;
    Ok(Answer(report))
}

/// How publishing stands: when it went well last, and what is wrong since.
#[utoipa::path(get, path = "/v1/publishing", tag = "publishing", responses(
    (status = 200, body = PublishStanding),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn standing(_: Viewer, State(app): State<App>) -> Answer<PublishStanding> {
    Answer(app.publisher.standing())
}

/// The snapshots, the newest first.
#[utoipa::path(get, path = "/v1/snapshots", tag = "publishing",
    params(
        ("limit" = Option<u32>, Query, description = "How many at most: 1 to 1000, else 100"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, body = Page<Snapshot>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    _: Viewer,
    State(app): State<App>,
    mut query: Query,
) -> Result<Answer<Page<Snapshot>>, Failure> {
    let page = query.page()?;
    query.end()?;
    Ok(Answer(app.db.snapshots(&page).await?))
}

/// One snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{number}", tag = "publishing",
    params(("number" = u64, Path, description = "Its number")),
    responses(
        (status = 200, body = Snapshot),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn show(
    _: Viewer,
    State(app): State<App>,
    Named(number): Named<u64>,
) -> Result<Answer<Snapshot>, Failure> {
    Ok(Answer(app.db.snapshot(number).await?))
}

/// The document that would be published for a node now, with the generation that it would have.
#[utoipa::path(get, path = "/v1/nodes/{name}/document", tag = "publishing",
    params(("name" = String, Path, description = "The node")),
    responses(
        (status = 200, body = Value),
        (status = 422, body = Problem, content_type = "application/problem+json",
         description = "The policies that select it do not go together"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn document(
    _: Viewer,
    State(app): State<App>,
    Named(node): Named<NodeName>,
) -> Result<Answer<Value>, Failure> {
    match app.publisher.wanted(&node).await? {
        Ok(document) => Ok(Answer(document)),
        Err(errors) => Err(Failure::invalid(&format!("what policies make of {node}"), errors)),
    }
}

/// The record that was made of a node last: the four lines of a minisign signature, and right
/// behind them what is signed.
#[utoipa::path(get, path = "/v1/nodes/{name}/record", tag = "publishing",
    params(("name" = String, Path, description = "The node")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
         headers(("ETag" = String, description = "Its generation"))),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn record(
    _: Viewer,
    State(app): State<App>,
    Named(node): Named<NodeName>,
) -> Result<Response, Failure> {
    let found = app.db.record(&node).await?;
    let state = found.as_ref().map(|record| record.state.generation);
    let (Some(generation), Some(bytes)) = (state, found.and_then(|record| record.record)) else {
        return Err(Failure::not_found(format!("record of node {node}")));
    };
    let mut headers = HeaderMap::new();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, octets);
    let tag = HeaderValue::try_from(format!("\"{generation}\""));
    headers.insert(header::ETAG, tag.expect("invariant: digits in quotes"));
    Ok((headers, bytes).into_response())
}

/// What would change if a policy said this, and were published; `null`: if it were removed.
#[utoipa::path(post, path = "/v1/policies/{name}/diff", tag = "publishing",
    params(("name" = String, Path, description = "The policy")),
    request_body = Option<PolicySpec>,
    responses(
        (status = 200, body = PolicyDiff),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn policy_diff(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<PolicyName>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<PolicyDiff>, Failure> {
    content_type(&headers, "application/json")?;
    let _room = ROOM.acquire().await;
    let spec: Option<PolicySpec> = parse(&read(body, MAX_JSON).await?)?;
    if let Some(spec) = &spec {
        app.check_policy(spec).await?;
    }
    Ok(Answer(app.publisher.policy_diff(&name, spec).await?))
}
