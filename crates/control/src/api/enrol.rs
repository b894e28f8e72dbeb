//! How nodes are let in.

use super::answer::{Answer, Created};
use crate::app::App;
use crate::auth::{self, Admin};
use crate::extract::{Json, content_type, parse, read};
use crate::problem::Failure;
use axum::extract::{Request, State};
use pointsman_model::api::Problem;
use pointsman_model::fleet::{EnrolReply, EnrolRequest, Enrolment, EnrolmentRequest};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The largest request of somebody of whom nothing is known, in bytes.
const MAX_REQUEST: usize = 4096;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(invite)).routes(routes!(enrol))
}

/// Gives a one-time token with which a node enrols. A node that is there keeps its credential until
/// it does.
#[utoipa::path(post, path = "/v1/enrolments", tag = "nodes", request_body = EnrolmentRequest,
    responses(
        (status = 201, body = Enrolment),
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "The node is there already, with other labels"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn invite(
    Admin(caller): Admin,
    State(app): State<App>,
    Json(request): Json<EnrolmentRequest>,
) -> Result<Created<Enrolment>, Failure> {
    Ok(Created(app.invite(&caller, request).await?))
}

/// Trades a one-time token for a credential of the node that it names. The credential that the
/// node had before is void from then on.
#[utoipa::path(post, path = "/v1/enrol", tag = "couriers", security(()),
    request_body = EnrolRequest,
    responses(
        (status = 200, body = EnrolReply),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn enrol(State(app): State<App>, request: Request) -> Result<Answer<EnrolReply>, Failure> {
    content_type(request.headers(), "application/json")?;
    let (parts, body) = request.into_parts();
    let EnrolRequest { token } = parse(&read(body, MAX_REQUEST).await?)?;
    Ok(Answer(app.enrol(&token, auth::address(&parts)).await?))
}
