//! Policies.

use super::answer::{Answer, Tagged};
use crate::app::App;
use crate::auth::{Operator, Viewer};
use crate::extract::{Condition, Json, Named, Query};
use crate::problem::Failure;
use axum::extract::State;
use axum::http::StatusCode;
use pointsman_model::PolicyName;
use pointsman_model::api::Problem;
use pointsman_model::fleet::{Page, Policy, PolicySpec};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, put, remove))
}

/// The policies, by name.
#[utoipa::path(get, path = "/v1/policies", tag = "policies",
    params(
        ("limit" = Option<u32>, Query, description = "How many at most: 1 to 1000, else 100"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, body = Page<Policy>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    _: Viewer,
    State(app): State<App>,
    mut query: Query,
) -> Result<Answer<Page<Policy>>, Failure> {
    let page = query.page()?;
    query.end()?;
    Ok(Answer(app.db.policies(&page).await?))
}

/// One policy.
#[utoipa::path(get, path = "/v1/policies/{name}", tag = "policies",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Policy, headers(("ETag" = String))),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn show(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<PolicyName>,
) -> Result<Tagged<Policy>, Failure> {
    let policy = app.db.policy(&name).await?;
    Ok(Tagged::new(policy.revision, policy))
}

/// Makes a policy, or replaces what it says. Nodes see nothing of it before it is published.
#[utoipa::path(put, path = "/v1/policies/{name}", tag = "policies",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = Option<String>, Header, description = "The ETag of what is replaced"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: it must be new"),
    ),
    request_body = PolicySpec,
    responses(
        (status = 200, body = Policy, headers(("ETag" = String)), description = "It was changed"),
        (status = 201, body = Policy, headers(("ETag" = String)), description = "It is new"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn put(
    Operator(caller): Operator,
    State(app): State<App>,
    Named(name): Named<PolicyName>,
    Condition(precondition): Condition,
    Json(spec): Json<PolicySpec>,
) -> Result<Tagged<Policy>, Failure> {
    let (policy, created) = app.put_policy(&caller, &name, spec, precondition).await?;
    Ok(Tagged { created, ..Tagged::new(policy.revision, policy) })
}

/// Removes a policy. Nodes keep what they have until the next publish.
#[utoipa::path(delete, path = "/v1/policies/{name}", tag = "policies",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = String, Header, description = "Its ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn remove(
    Operator(caller): Operator,
    State(app): State<App>,
    Named(name): Named<PolicyName>,
    Condition(precondition): Condition,
) -> Result<StatusCode, Failure> {
    app.delete_policy(&caller, &name, precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}
