//! The HTTP API, and its description.

mod answer;
mod audit;
mod enrol;
mod events;
mod layers;
mod nodes;
mod policies;
mod programs;
mod report;
mod system;
mod tokens;

pub use answer::{Answer, Created, Tagged};
pub(crate) use programs::upload_room;
pub use report::NodeStatus;

use crate::app::App;
use crate::problem::Failure;
use crate::{blobs, publish, web};
use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware;
use pointsman_model::api::ProblemKind;
use std::time::Duration;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

/// How long a request may take, its body included, unless its route takes longer by nature.
const TIME: Duration = Duration::from_secs(60);

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Pointsman control",
        description = "What a fleet should run, and how it stands. Every request but a few brings \
                       `Authorization: Bearer TOKEN`. Errors are problem details (RFC 9457). A \
                       resource's ETag is its revision: PUT, PATCH and DELETE of what exists need \
                       it in If-Match."
    ),
    security(("token" = [])),
    modifiers(&Bearer)
)]
struct Api;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = api.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// All routes of the API, described.
fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Api::openapi())
        .merge(system::router())
        .merge(programs::router())
        .merge(policies::router())
        .merge(nodes::router())
        .merge(enrol::router())
        .merge(report::router())
        .merge(tokens::router())
        .merge(audit::router())
        .merge(publish::router())
        .layer(middleware::from_fn_with_state(TIME, layers::in_time))
        // What is long by nature has limits of its own.
        .merge(publish::publishing())
        .merge(blobs::router())
        .merge(events::router())
}

/// The OpenAPI description of the API, as JSON that ends with a newline.
///
/// # Panics
/// Never: the description is plain JSON.
#[must_use]
pub fn openapi_json() -> String {
    let api = described().into_openapi();
    let mut text =
        serde_json::to_string_pretty(&api).expect("invariant: the description is plain JSON");
    text.push('\n');
    text
}

/// Everything that is served: the API and the web pages.
pub fn router(app: App) -> Router {
    let (api, _) = described().split_for_parts();
    let pages = web::router().layer(middleware::from_fn_with_state(TIME, layers::in_time));
    api.fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .merge(pages)
        .layer(middleware::from_fn_with_state(app.clone(), layers::watched))
        .layer(middleware::from_fn_with_state(app.clone(), layers::on_behalf))
        .with_state(app)
}

async fn not_found(uri: Uri) -> Failure {
    let title = format!("there is no {}; GET /openapi.json lists what there is", uri.path());
    Failure::new(ProblemKind::NotFound, title)
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    let title = format!("{method} is not for {}; GET /openapi.json lists what is", uri.path());
    Failure::new(ProblemKind::BadRequest, title)
        .with_status(axum::http::StatusCode::METHOD_NOT_ALLOWED)
}
