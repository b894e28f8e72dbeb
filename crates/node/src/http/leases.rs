//! Instances and their lcores over the socket.

use super::{Answer, Failure};
use crate::leases::{Asker, Handle, Message};
use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::lease::{ClearReport, Instance, Instances, Lcores};

type Id = Result<Path<u64>, PathRejection>;

fn number(id: Id) -> Result<u64, Failure> {
    id.map(|Path(id)| id).map_err(|rejection| {
        let title = format!(
            "{}: expected the number of an instance, as `pointsman instances` shows it",
            rejection.body_text()
        );
        Failure(crate::problem::plain(ProblemKind::BadRequest, 400, title))
    })
}

/// The applications that are connected, and what they hold.
#[utoipa::path(get, path = "/v1/instances", responses(
    (status = 200, body = Instances),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn instances(State(leases): State<Handle>) -> Result<Answer<Instances>, Failure> {
    Ok(Answer(leases.ask(Message::Instances).await?))
}

/// One application.
#[utoipa::path(get, path = "/v1/instances/{id}",
    params(("id" = u64, Path, description = "The instance's number.")),
    responses(
        (status = 200, body = Instance),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn instance(
    State(leases): State<Handle>,
    id: Id,
) -> Result<Answer<Instance>, Failure> {
    let id = number(id)?;
    Ok(Answer(leases.ask(|reply| Message::Instance(id, reply)).await?))
}

/// Takes from an application all that it holds. It stays connected, and may ask again. For
/// administrators.
#[utoipa::path(post, path = "/v1/instances/{id}/clear",
    params(("id" = u64, Path, description = "The instance's number.")),
    responses(
        (status = 200, body = ClearReport),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn clear(
    State(leases): State<Handle>,
    Extension(asker): Extension<Asker>,
    id: Id,
) -> Result<Answer<ClearReport>, Failure> {
    let id = number(id)?;
    Ok(Answer(leases.ask(|reply| Message::Clear(id, asker, reply)).await?))
}

/// The processors of the host, and who holds which.
#[utoipa::path(get, path = "/v1/lcores", responses(
    (status = 200, body = Lcores),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn lcores(State(leases): State<Handle>) -> Result<Answer<Lcores>, Failure> {
    Ok(Answer(leases.ask(Message::Lcores).await?))
}

/// Counters of instances and leases, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn metrics(State(leases): State<Handle>) -> Result<Response, Failure> {
    let text = leases.ask(Message::Metrics).await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
