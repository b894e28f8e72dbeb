//! API tokens.

use super::answer::{Answer, Created};
use crate::app::App;
use crate::auth::Admin;
use crate::extract::{Json, Named, Query};
use crate::problem::Failure;
use axum::extract::State;
use axum::http::StatusCode;
use pointsman_model::TokenName;
use pointsman_model::api::Problem;
use pointsman_model::fleet::{NewToken, Page, Token, TokenRequest};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, make)).routes(routes!(revoke))
}

/// The tokens, by name; also those that are void.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens",
    params(
        ("limit" = Option<u32>, Query, description = "How many at most: 1 to 1000, else 100"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, body = Page<Token>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    _: Admin,
    State(app): State<App>,
    mut query: Query,
) -> Result<Answer<Page<Token>>, Failure> {
    let page = query.page()?;
    query.end()?;
    Ok(Answer(app.db.tokens(&page).await?))
}

/// Makes a token. Its secret is in the answer, and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses(
        (status = 201, body = NewToken),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn make(
    Admin(caller): Admin,
    State(app): State<App>,
    Json(request): Json<TokenRequest>,
) -> Result<Created<NewToken>, Failure> {
    Ok(Created(app.make_token(&caller, request).await?))
}

/// Makes a token void, at once. Its name stays, because the audit trail names it.
#[utoipa::path(delete, path = "/v1/tokens/{name}", tag = "tokens",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is void"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn revoke(
    Admin(caller): Admin,
    State(app): State<App>,
    Named(name): Named<TokenName>,
) -> Result<StatusCode, Failure> {
    app.revoke_token(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
