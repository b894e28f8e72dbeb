//! The library of programs: what was uploaded, and what it holds.

use super::frame::{Frame, Oops, page, page_of, redirect};
use super::node::revision;
use super::session::{Posted, Visitor, expect_own_site};
use super::text::{When, query, size};
use super::tokens::wrong_at;
use crate::app::App;
use crate::db::{PageRequest, Precondition};
use crate::extract::{Named, Query, Text};
use crate::inspect::MAX_OBJECT;
use crate::problem::Failure;
use askama::Template;
use axum::Router;
use axum::body::Bytes;
use axum::extract::multipart::{Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use pointsman_model::ProgramName;
use pointsman_model::api::ProblemKind;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{LibraryProgram, Role};

/// How many are on a page.
const LIMIT: u32 = 100;

/// What a form has besides the object.
const AROUND: usize = 64 << 10;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/programs", get(list).post(upload))
        .route("/programs/{name}", get(show))
        .route("/programs/{name}/delete", post(delete))
        .layer(DefaultBodyLimit::max(MAX_OBJECT + AROUND))
}

#[derive(Template)]
#[template(path = "programs.html")]
struct ProgramsPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
    name: String,
    wrong: Vec<DocumentError>,
}

struct Row {
    program: LibraryProgram,
    uploaded: When,
    size: String,
}

#[derive(Template)]
#[template(path = "program.html")]
struct ProgramPage {
    frame: Frame,
    row: Row,
}

impl ProgramsPage {
    fn wrong(&self, pointer: &str) -> String {
        wrong_at(&self.wrong, pointer)
    }
}

impl Row {
    fn new(program: LibraryProgram, now: u64) -> Self {
        let uploaded = When::new(program.uploaded_unix_ms, now);
        Self { uploaded, size: size(program.bytes), program }
    }
}

async fn list(
    visitor: Visitor,
    State(app): State<App>,
    mut asked: Query,
) -> Result<Response, Oops> {
    let after = asked.one::<Text>("after")?.map(|Text(text)| text);
    asked.end()?;
    Ok(page(&build(&app, &visitor, after).await?))
}

async fn build(
    app: &App,
    visitor: &Visitor,
    after: Option<String>,
) -> Result<ProgramsPage, Failure> {
    let found = app.db.programs(&PageRequest { limit: LIMIT, after }).await?;
    let now = app.clock.now();
    Ok(ProgramsPage {
        frame: Frame::new(visitor, "programs", "Programs"),
        rows: found.items.into_iter().map(|program| Row::new(program, now)).collect(),
        next: found.next.map(|next| format!("/programs{}", query(&[("after", &next)]))),
        name: String::new(),
        wrong: Vec::new(),
    })
}

async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Named(name): Named<ProgramName>,
) -> Result<Response, Oops> {
    let program = app.db.program(&name).await?;
    let frame = Frame::new(&visitor, "programs", name.as_str());
    Ok(page(&ProgramPage { frame, row: Row::new(program, app.clock.now()) }))
}

/// What an upload brings. The secret comes first: nothing is read of somebody else's form.
#[derive(Default)]
struct Upload {
    name: String,
    replaces: String,
    object: Bytes,
}

async fn upload(
    visitor: Visitor,
    State(app): State<App>,
    headers: HeaderMap,
    form: Multipart,
) -> Result<Response, Oops> {
    expect_own_site(&headers)?;
    // Before 16 MiB are read of somebody who may not send them.
    visitor.caller.expect(Role::Operator)?;
    // As many as the API holds: they are the same uploads.
    let _room = crate::api::upload_room().await;
    let upload = read(&visitor, form).await?;
    match put(&app, &visitor, &upload).await {
        Ok(program) => Ok(redirect(visitor.htmx, &format!("/programs/{}", program.name))),
        Err(failure) if failure.problem.errors.is_empty() => Err(Oops(failure)),
        Err(failure) => {
            let mut programs = build(&app, &visitor, None).await?;
            programs.name = upload.name;
            programs.wrong = failure.problem.errors.clone();
            Ok(page_of(&failure.problem, &programs))
        }
    }
}

async fn read(visitor: &Visitor, mut form: Multipart) -> Result<Upload, Failure> {
    let mut upload = Upload::default();
    let mut ours = false;
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "csrf" {
            let given = field.text().await.map_err(|error| broken(&error))?;
            visitor.expect_csrf(Some(&given))?;
            ours = true;
            continue;
        }
        if !ours {
            visitor.expect_csrf(None)?;
        }
        match name.as_str() {
            "name" => upload.name = field.text().await.map_err(|error| broken(&error))?,
            "revision" => upload.replaces = field.text().await.map_err(|error| broken(&error))?,
            "object" => upload.object = field.bytes().await.map_err(|error| broken(&error))?,
            other => {
                let title = format!("there is no field {other:?} in this form");
                return Err(Failure::bad_request(title));
            }
        }
    }
    if !ours {
        visitor.expect_csrf(None)?;
    }
    Ok(upload)
}

fn broken(error: &MultipartError) -> Failure {
    if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        let title = format!("the object is larger than the limit of {MAX_OBJECT} bytes");
        return Failure::new(ProblemKind::TooLarge, title);
    }
    Failure::bad_request(error.body_text()).with_status(error.status())
}

async fn put(app: &App, visitor: &Visitor, upload: &Upload) -> Result<LibraryProgram, Failure> {
    let wrong = |pointer: &str, message: String| {
        Failure::invalid("the form", vec![DocumentError { pointer: pointer.into(), message }])
    };
    let name = upload.name.trim().parse::<ProgramName>();
    let name = name.map_err(|error| wrong("/name", error.to_string()))?;
    if upload.object.is_empty() {
        return Err(wrong("/object", "choose a file".into()));
    }
    let precondition = match upload.replaces.trim() {
        "" => Precondition::Absent,
        text => revision(text)?,
    };
    let put = app.put_program(&visitor.caller, &name, upload.object.clone(), precondition).await;
    match put {
        Ok((program, _)) => Ok(program),
        Err(failure) if failure.problem.status == 412 && precondition == Precondition::Absent => {
            let message = format!("{}: replace it from its own page", failure.problem.title);
            Err(wrong("/name", message))
        }
        Err(mut failure) => {
            for error in &mut failure.problem.errors {
                error.pointer = "/object".into();
            }
            Err(failure)
        }
    }
}

async fn delete(
    State(app): State<App>,
    Named(name): Named<ProgramName>,
    Posted { visitor, fields }: Posted,
) -> Result<Response, Oops> {
    let precondition = revision(fields.text("revision"))?;
    app.delete_program(&visitor.caller, &name, precondition).await?;
    Ok(redirect(visitor.htmx, "/programs"))
}
