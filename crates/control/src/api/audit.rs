//! The audit trail.

use super::answer::Answer;
use crate::app::App;
use crate::auth::Viewer;
use crate::extract::{Query, Text};
use crate::problem::Failure;
use axum::extract::State;
use pointsman_model::api::Problem;
use pointsman_model::fleet::{AuditEntry, Page};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Who changed what, and when: the newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "audit",
    params(
        ("object" = Option<String>, Query, description = "Only of this, such as `policy edge`"),
        ("who" = Option<String>, Query, description = "Only by this token"),
        ("limit" = Option<u32>, Query, description = "How many at most: 1 to 1000, else 100"),
        ("after" = Option<u64>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, body = Page<AuditEntry>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    _: Viewer,
    State(app): State<App>,
    mut query: Query,
) -> Result<Answer<Page<AuditEntry>>, Failure> {
    let page = query.page()?;
    let text =
        |query: &mut Query, name| Ok::<_, Failure>(query.one::<Text>(name)?.map(|Text(text)| text));
    let (object, who) = (text(&mut query, "object")?, text(&mut query, "who")?);
    query.end()?;
    if page.after.as_ref().is_some_and(|after| after.parse::<u64>().is_err()) {
        return Err(Failure::bad_request("?after=: expected the number of an entry"));
    }
    Ok(Answer(app.db.audit(object.as_deref(), who.as_deref(), &page).await?))
}
