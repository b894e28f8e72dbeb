//! What couriers report.

use crate::app::App;
use crate::auth::Courier;
use crate::db::{Report, Taken};
use crate::extract::{content_type, parse, read};
use crate::health;
use crate::problem::Failure;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use pointsman_model::NodeName;
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::fleet::NodeReport;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The largest report, in bytes.
const MAX_REPORT: usize = 4 << 20;

/// A node's last report, put together from what it sent.
pub type NodeStatus = NodeReport;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(report))
}

/// Takes a node's report. Status and counters that are left out, while the daemon answers, are as
/// they were in the report before.
#[utoipa::path(put, path = "/v1/report", tag = "couriers", request_body = NodeReport, responses(
    (status = 204, description = "It is kept"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "It leaves out what was never told: send all of it"),
    (status = 503, body = Problem, content_type = "application/problem+json",
        description = "Another report of this node is under way, or too many of others are"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn report(
    Courier { node, credential_hash }: Courier,
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failure> {
    content_type(&headers, "application/json")?;
    let most = declared(&headers).unwrap_or(MAX_REPORT).min(MAX_REPORT);
    let admitted = app.intake.admit(&node, most).await?;
    let text = read(body, MAX_REPORT).await?;
    if text.len() > most {
        return Err(Failure::bad_request("the body is longer than its Content-Length"));
    }
    let NodeReport { courier, status, counters } = parse(&text)?;
    drop(text);
    let report = Report {
        node,
        credential_hash,
        at_ms: app.clock.now(),
        courier_standing: health::courier_standing(&courier),
        courier: written(&courier),
        status: status.map(|status| (health::standing(&status), written(&status))),
        counters: counters.as_ref().map(written),
    };
    match app.intake.take(report, admitted).await? {
        Taken::Kept => {
            app.metrics.reports.inc();
            Ok(StatusCode::NO_CONTENT)
        }
        Taken::NeedsAll => Err(Failure::new(
            ProblemKind::Conflict,
            "nothing is known of this node that the report could be added to: send all of it",
        )),
        Taken::Void => Err(crate::auth::unauthorized("the credential was replaced meanwhile")),
    }
}

/// How many bytes a body says that it has.
fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What a node reported last.
pub(crate) async fn last_report(app: &App, name: &NodeName) -> Result<Option<NodeStatus>, Failure> {
    let Some(row) = app.db.report(name).await? else { return Ok(None) };
    Ok(Some(NodeReport {
        courier: kept(&row.courier)?,
        status: row.status.as_deref().map(kept).transpose()?,
        counters: row.counters.as_deref().map(kept).transpose()?,
    }))
}

/// Reads what was kept.
pub(crate) fn kept<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::internal("a report in the database cannot be read", &error))
}

fn written(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("invariant: reports have string keys")
}
