//! The node's API: HTTP and JSON over a Unix socket.

mod glass;
mod leases;

use crate::engine::{Handle, Message, Reply, Request};
use crate::leases as desk;
use crate::problem;
use crate::serve::{self, Limits};
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRef, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use http_body_util::LengthLimitError;
use pointsman_model::api::{ApplyReport, Doctor, DrainReport, Problem, ProblemKind};
use pointsman_model::document::MAX_BYTES;
use pointsman_model::plan::{Note, Plan};
use pointsman_model::status::{Counters, Status};
use pointsman_plan::Options;
use serde::{Deserialize, Serialize};
use std::fs::Permissions;
use std::future::Future;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, OpenApi};

/// Listens on `socket`, for root and for `group`, which without a number is ours. What lies there is
/// removed first: the caller holds the lock of its directory, so it belongs to a daemon that is gone.
///
/// # Errors
/// What the kernel said.
pub fn listen(socket: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    if group.is_some() {
        chown(socket, None, group)?;
    }
    // Root and the group of the file: an operator gives the socket to a group with chgrp or by
    // the group of the run directory (setgid).
    std::fs::set_permissions(socket, Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the API until `stop` is ready and the requests under way are answered. Runs on a tokio
/// runtime.
///
/// # Errors
/// What the kernel said about the listener.
pub async fn serve(
    listener: UnixListener,
    engine: Handle,
    leases: desk::Handle,
    limits: Limits,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    serve::serve(listener, router(engine, leases, limits), limits, stop).await;
    Ok(())
}

/// Serves what shows how the node stands, and nothing that changes it, as [`serve()`] does: for those
/// who report and are not trusted with more, such as a courier.
///
/// # Errors
/// What the kernel said about the listener.
pub async fn serve_status(
    listener: UnixListener,
    engine: Handle,
    leases: desk::Handle,
    limits: Limits,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    // Who may only look takes only a few of the places that all of them share: for waiting events.
    let limits = Limits { connections: limits.connections.min(STATUS_CONNECTIONS), ..limits };
    serve::serve(listener, status_router(engine, leases, limits), limits, stop).await;
    Ok(())
}

/// How many connections the socket has that only shows.
const STATUS_CONNECTIONS: usize = 16;

/// What the routes share.
#[derive(Debug, Clone)]
struct Node {
    engine: Handle,
    leases: desk::Handle,
    documents: Documents,
}

/// Lets in as many documents as memory may be spent on.
#[derive(Debug, Clone)]
struct Documents {
    room: Arc<Semaphore>,
    patience: Duration,
}

impl FromRef<Node> for Handle {
    fn from_ref(node: &Node) -> Self {
        node.engine.clone()
    }
}

impl FromRef<Node> for desk::Handle {
    fn from_ref(node: &Node) -> Self {
        node.leases.clone()
    }
}

/// The routes.
fn router(engine: Handle, leases: desk::Handle, limits: Limits) -> Router {
    let room = Arc::new(Semaphore::new(limits.documents));
    let node = Node { engine, leases, documents: Documents { room, patience: limits.body } };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/counters", get(counters))
        .route("/v1/plan", post(plan))
        .route("/v1/document", put(document))
        .route("/v1/drain", post(drain))
        .route("/v1/bypass", post(glass::bypass))
        .route("/v1/rollback", post(glass::rollback))
        .route("/v1/confirm", post(glass::confirm))
        .route("/v1/generations", get(glass::generations))
        .route("/v1/events", get(glass::events))
        .route("/v1/instances", get(leases::instances))
        .route("/v1/instances/{id}", get(leases::instance))
        .route("/v1/instances/{id}/clear", post(leases::clear))
        .route("/v1/lcores", get(leases::lcores))
        .route("/metrics", get(leases::metrics))
        .route("/v1/doctor", get(doctor))
        .route("/v1/openapi.json", get(openapi))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(node)
}

/// The routes of the socket that only shows. They are listed one by one: a new route of the other
/// socket is not one of this by itself.
fn status_router(engine: Handle, leases: desk::Handle, limits: Limits) -> Router {
    let documents = Documents { room: Arc::new(Semaphore::new(0)), patience: limits.body };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/counters", get(counters))
        .route("/v1/events", get(glass::events))
        .fallback(only_shows)
        .method_not_allowed_fallback(only_shows)
        .with_state(Node { engine, leases, documents })
}

/// The OpenAPI description of the API, as JSON that ends with a newline.
#[must_use]
pub fn openapi_json() -> String {
    let api = Api::openapi();
    let mut text =
        serde_json::to_string_pretty(&api).expect("invariant: the description is plain JSON");
    text.push('\n');
    text
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pointsman node",
        description = "What one host runs, and how to change it. Served on a Unix socket."
    ),
    paths(
        status,
        counters,
        plan,
        document,
        drain,
        glass::bypass,
        glass::rollback,
        glass::confirm,
        glass::generations,
        glass::events,
        leases::instances,
        leases::instance,
        leases::clear,
        leases::lcores,
        leases::metrics,
        doctor
    )
)]
struct Api;

/// What an operator allows.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Allow {
    /// Whether a hook may be without a chain for a moment where there is no other way.
    allow_gap: bool,
}

/// What an operator allows, and wants to confirm afterwards.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ApplyQuery {
    /// Whether a hook may be without a chain for a moment where there is no other way.
    allow_gap: bool,
    /// Return by itself to what was in force before, unless `POST /v1/confirm` comes within this
    /// time: from 1 second to a day.
    confirm_within_seconds: Option<u64>,
}

/// Who is at the other end of a connection: the user id (SO_PEERCRED, unix(7)), where the kernel
/// tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) Option<u32>);

/// How the node stands.
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, body = Status),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn status(
    State(engine): State<Handle>,
    State(leases): State<desk::Handle>,
) -> Result<Answer<Status>, Failure> {
    let mut status = engine.ask(Message::Status).await?;
    // A status without it is better than none.
    if let Ok(Some(why)) = leases.ask(desk::Message::Refusing).await {
        let message = format!("no lcore is given away: {why}");
        status.notes.push(Note { hook: None, program: None, message });
    }
    status.cards = leases.ask(desk::Message::Cards).await.unwrap_or_default();
    Ok(Answer(status))
}

/// The counters of all hooks.
#[utoipa::path(get, path = "/v1/counters", responses(
    (status = 200, body = Counters),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn counters(State(engine): State<Handle>) -> Result<Answer<Counters>, Failure> {
    Ok(Answer(engine.ask(Message::Counters).await?))
}

/// What applying a document would do. Changes nothing.
#[utoipa::path(post, path = "/v1/plan", params(Allow),
    request_body(content = String, content_type = "application/json",
        description = "A node document; `pointsman schema` prints its JSON Schema."),
    responses(
        (status = 200, body = Plan),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn plan(
    State(node): State<Node>,
    allow: Result<Query<Allow>, QueryRejection>,
    body: Body,
) -> Result<Answer<Plan>, Failure> {
    let Allow { allow_gap } = understood(allow, "allow_gap=true or allow_gap=false")?;
    ask(
        node,
        |text| Request { options: Options { allow_gap }, ..Request::new(text) },
        body,
        Message::Plan,
    )
    .await
}

/// Applies a document.
#[utoipa::path(put, path = "/v1/document", params(ApplyQuery),
    request_body(content = String, content_type = "application/json",
        description = "A node document; `pointsman schema` prints its JSON Schema."),
    responses(
        (status = 200, body = ApplyReport),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 500, body = Problem, content_type = "application/problem+json"),
        (status = 507, body = Problem, content_type = "application/problem+json"),
))]
async fn document(
    State(node): State<Node>,
    Extension(Peer(uid)): Extension<Peer>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    body: Body,
) -> Result<Answer<ApplyReport>, Failure> {
    let expected = "allow_gap=true or allow_gap=false, and confirm_within_seconds=SECONDS";
    let ApplyQuery { allow_gap, confirm_within_seconds } = understood(query, expected)?;
    let within =
        confirm_within_seconds.map(|seconds| glass::bounded("confirm_within_seconds", seconds));
    let confirm_within = within.transpose()?;
    let options = Options { allow_gap };
    let request = |text| Request { options, uid, confirm_within, ..Request::new(text) };
    ask(node, request, body, Message::Apply).await
}

/// Removes all that is ours from the host. A restart does not attach it again; applying a
/// document does.
#[utoipa::path(post, path = "/v1/drain", responses(
    (status = 200, body = DrainReport),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn drain(State(engine): State<Handle>) -> Result<Answer<DrainReport>, Failure> {
    Ok(Answer(engine.ask(Message::Drain).await?))
}

/// What this host can do and why not.
#[utoipa::path(get, path = "/v1/doctor", responses(
    (status = 200, body = Doctor),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn doctor(State(engine): State<Handle>) -> Result<Answer<Doctor>, Failure> {
    Ok(Answer(engine.ask(Message::Doctor).await?))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, JSON)], openapi_json()).into_response()
}

async fn not_found(uri: axum::http::Uri) -> Failure {
    let title = format!("there is no {}; GET /v1/openapi.json lists what there is", uri.path());
    Failure(problem::plain(ProblemKind::NotFound, 404, title))
}

async fn only_shows(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    let title = format!(
        "{method} {} is not for status.sock, where there are GET /v1/status, /v1/counters and \
         /v1/events and nothing can be changed; use node.sock beside it",
        uri.path()
    );
    Failure(problem::plain(ProblemKind::NotFound, 404, title))
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    let title = format!("{method} is not for {}; GET /v1/openapi.json lists what is", uri.path());
    Failure(problem::plain(ProblemKind::BadRequest, 405, title))
}

/// A request's query, or what was `expected` of it.
fn understood<T>(query: Result<Query<T>, QueryRejection>, expected: &str) -> Result<T, Failure> {
    let Query(query) = query.map_err(|rejection| {
        let title =
            format!("the query is not understood: {}; expected {expected}", rejection.body_text());
        Failure(problem::plain(ProblemKind::BadRequest, 400, title))
    })?;
    Ok(query)
}

/// Reads a request's document and asks the engine about it. Time counts from here: the head of the
/// request has just arrived.
async fn ask<T: Send + 'static>(
    node: Node,
    request: impl FnOnce(Vec<u8>) -> Request,
    body: Body,
    message: fn(Request, Reply<T>) -> Message,
) -> Result<Answer<T>, Failure> {
    let arrived = Instant::now();
    let Node { engine, leases: _, documents: Documents { room, patience } } = node;
    let place = room.acquire_owned().await.map_err(|_| problem::engine_gone())?;
    let text = tokio::time::timeout(patience, read_body(body)).await.map_err(|_| {
        let title =
            format!("the document did not arrive within {} s; send it again", patience.as_secs());
        Failure(problem::plain(ProblemKind::BadRequest, 408, title))
    })??;
    let request = Request { arrived, ..request(text.into()) };
    // On a task of its own: the engine has the document until it answers, and so its place is
    // taken, also if the client went away and this future with it.
    let answer = tokio::spawn(async move {
        let _place = place;
        engine.ask(|reply| message(request, reply)).await
    });
    Ok(Answer(answer.await.unwrap_or_else(|_| Err(problem::engine_gone()))?))
}

async fn read_body(body: Body) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, MAX_BYTES).await.map_err(|error| {
        let mut cause = Some(&error as &(dyn std::error::Error + 'static));
        let mut too_large = false;
        while let Some(error) = cause {
            too_large |= error.is::<LengthLimitError>();
            cause = error.source();
        }
        if too_large {
            let title = format!(
                "the document is larger than the limit of {MAX_BYTES} bytes; put objects into \
                 the store and name them by sha256"
            );
            return Failure(problem::plain(ProblemKind::TooLarge, 413, title));
        }
        let title = format!("the document did not arrive whole: {error}");
        Failure(problem::plain(ProblemKind::BadRequest, 400, title))
    })
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

struct Answer<T>(T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, JSON, &self.0)
    }
}

struct Failure(Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, PROBLEM_JSON, &self.0)
    }
}

fn json(status: StatusCode, content_type: HeaderValue, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value)
        .expect("invariant: the API's types have string keys and write without errors");
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}
