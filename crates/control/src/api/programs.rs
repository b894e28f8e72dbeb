//! The library of programs.

use super::answer::{Answer, Tagged};
use crate::app::App;
use crate::auth::{Operator, Viewer};
use crate::extract::{Condition, Named, Query, content_type, read};
use crate::inspect::MAX_OBJECT;
use crate::problem::Failure;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pointsman_model::ProgramName;
use pointsman_model::api::Problem;
use pointsman_model::fleet::{LibraryProgram, Page};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How many uploads are held in memory at a time; others wait for their turn.
const UPLOADS: usize = 8;

static ROOM: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(UPLOADS);

/// Waits until one more upload may be held in memory, by whichever door it comes.
pub(crate) async fn upload_room() -> Option<tokio::sync::SemaphorePermit<'static>> {
    ROOM.acquire().await.ok()
}

const OCTETS: &str = "application/octet-stream";

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, upload, remove))
        .routes(routes!(object))
}

/// The programs, by name.
#[utoipa::path(get, path = "/v1/programs", tag = "programs",
    params(
        ("limit" = Option<u32>, Query, description = "How many at most: 1 to 1000, else 100"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, body = Page<LibraryProgram>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    _: Viewer,
    State(app): State<App>,
    mut query: Query,
) -> Result<Answer<Page<LibraryProgram>>, Failure> {
    let page = query.page()?;
    query.end()?;
    Ok(Answer(app.db.programs(&page).await?))
}

/// One program.
#[utoipa::path(get, path = "/v1/programs/{name}", tag = "programs",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = LibraryProgram, headers(("ETag" = String))),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn show(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<ProgramName>,
) -> Result<Tagged<LibraryProgram>, Failure> {
    let program = app.db.program(&name).await?;
    Ok(Tagged::new(program.revision, program))
}

/// Uploads an object: at most 16 MiB. It is looked into by a process without privileges; what it
/// holds is in the answer. What the author suggests there decides nothing.
#[utoipa::path(put, path = "/v1/programs/{name}", tag = "programs",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = Option<String>, Header, description = "The ETag of what is replaced"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: it must be new"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "The ELF object"),
    responses(
        (status = 200, body = LibraryProgram, headers(("ETag" = String)),
            description = "It was replaced"),
        (status = 201, body = LibraryProgram, headers(("ETag" = String)), description = "It is new"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn upload(
    Operator(caller): Operator,
    State(app): State<App>,
    Named(name): Named<ProgramName>,
    Condition(precondition): Condition,
    headers: HeaderMap,
    body: Body,
) -> Result<Tagged<LibraryProgram>, Failure> {
    content_type(&headers, OCTETS)?;
    let _room = upload_room().await;
    let object = read(body, MAX_OBJECT).await?;
    let (program, created) = app.put_program(&caller, &name, object, precondition).await?;
    Ok(Tagged { created, ..Tagged::new(program.revision, program) })
}

/// Takes a program out of the library. What is published keeps it.
#[utoipa::path(delete, path = "/v1/programs/{name}", tag = "programs",
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
    Named(name): Named<ProgramName>,
    Condition(precondition): Condition,
) -> Result<StatusCode, Failure> {
    app.delete_program(&caller, &name, precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The object of a program, as it was uploaded.
#[utoipa::path(get, path = "/v1/programs/{name}/object", tag = "programs",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn object(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<ProgramName>,
) -> Result<Response, Failure> {
    let program = app.db.program(&name).await?;
    let object = app.db.object(&program.sha256).await?;
    let object = object.ok_or_else(|| {
        Failure::internal("the object of the program is not in the database", &program.sha256)
    })?;
    let file = format!("attachment; filename=\"{name}.o\"");
    let file = HeaderValue::try_from(file).expect("invariant: names are plain characters");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(OCTETS)),
        (header::CONTENT_DISPOSITION, file),
    ];
    Ok((headers, object).into_response())
}
