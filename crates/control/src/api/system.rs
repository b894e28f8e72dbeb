//! The service itself.

use super::answer::Answer;
use crate::app::App;
use crate::auth::Viewer;
use crate::health;
use crate::metrics::{CONTENT_TYPE, Health, HealthLabels};
use crate::problem::Failure;
use crate::publish::PublishStanding;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pointsman_model::api::Problem;
use pointsman_model::fleet::{NodeHealth, Role};
use pointsman_model::{FleetName, TokenName};
use serde::Serialize;
use std::sync::LazyLock;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(metrics))
        .routes(routes!(whoami))
        .routes(routes!(openapi))
}

/// Who asks, and whom.
#[derive(Debug, Serialize, ToSchema)]
struct WhoAmI {
    /// The name of the token.
    #[schema(value_type = String)]
    name: TokenName,
    /// What its holder may do.
    role: Role,
    /// The fleet.
    #[schema(value_type = String)]
    fleet: FleetName,
    /// The id of the key that its records are signed with, as minisign shows it.
    key_id: String,
    /// The public half of that key: the second line of a minisign public key file.
    public_key: String,
}

/// Whether the service and its database answer.
#[utoipa::path(get, path = "/healthz", tag = "service", security(()), responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn healthz(State(app): State<App>) -> Result<&'static str, Failure> {
    app.db.ping().await?;
    Ok("ok\n")
}

/// What is counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "service", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn metrics(_: Viewer, State(app): State<App>) -> Result<Response, Failure> {
    let now = app.clock.now();
    let rows = app.db.all_nodes().await?;
    for health in NodeHealth::ALL {
        let nodes = rows.iter().filter(|row| health::judge(row, now).0 == health).count();
        let labels = HealthLabels { health: Health(health) };
        app.metrics.nodes.get_or_create(&labels).set(i64::try_from(nodes).unwrap_or(i64::MAX));
    }
    let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let PublishStanding { success_unix_ms, trouble } = app.publisher.standing();
    app.metrics.publish_failures.set(gauge(trouble.map_or(0, |trouble| trouble.times)));
    app.metrics.publish_success.set(gauge(success_unix_ms.unwrap_or(0) / 1000));
    let text = app.metrics.text();
    let text = text.map_err(|error| Failure::internal("the counters cannot be written", &error))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// Who asks, what he may do, and the key that the fleet's records are signed with.
#[utoipa::path(get, path = "/v1/whoami", tag = "service", responses(
    (status = 200, body = WhoAmI),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn whoami(Viewer(caller): Viewer, State(app): State<App>) -> Answer<WhoAmI> {
    let key = app.publisher.public_key();
    Answer(WhoAmI {
        name: caller.name,
        role: caller.role,
        fleet: app.fleet.clone(),
        key_id: key.key_id(),
        public_key: key.to_base64().to_owned(),
    })
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "service", security(()), responses(
    (status = 200, body = Object, content_type = "application/json"),
))]
async fn openapi() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| super::openapi_json().into());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}
