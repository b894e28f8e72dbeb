//! Errors as the API tells them: RFC 9457 problem details.

use crate::db::DbError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::document::DocumentError;

/// The content type of a problem.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What a request gets instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is told.
    pub problem: Problem,
    /// After how many seconds trying again makes sense.
    pub retry_after: Option<u32>,
}

impl Failure {
    /// A problem without places in a document.
    pub fn new(kind: ProblemKind, title: impl Into<String>) -> Self {
        let problem =
            Problem { kind, status: status(kind), title: title.into(), errors: Vec::new() };
        Self { problem, retry_after: None }
    }

    /// The request makes no sense.
    pub fn bad_request(title: impl Into<String>) -> Self {
        Self::new(ProblemKind::BadRequest, title)
    }

    /// There is no such thing.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(ProblemKind::NotFound, format!("there is no {what}"))
    }

    /// What is given is not valid, at these places.
    pub fn invalid(what: &str, errors: Vec<DocumentError>) -> Self {
        let title = match &errors[..] {
            [DocumentError { pointer, message }] if pointer.is_empty() => {
                format!("{what} is not valid: {message}")
            }
            [DocumentError { pointer, message }] => {
                format!("{what} is not valid at {pointer}: {message}")
            }
            many => format!("{what} is not valid ({} errors)", many.len()),
        };
        let mut failure = Self::new(ProblemKind::InvalidDocument, title);
        failure.problem.errors = errors;
        failure
    }

    /// Something of ours went wrong. The cause goes into the log.
    pub fn internal(what: &str, cause: &dyn std::fmt::Display) -> Self {
        tracing::error!("{what}: {cause}");
        Self::new(ProblemKind::Internal, format!("{what}; the log says more"))
    }

    /// The same with another HTTP status, where one kind has several.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.problem.status = status.as_u16();
        self
    }
}

/// The HTTP status of a kind of problem.
const fn status(kind: ProblemKind) -> u16 {
    match kind {
        ProblemKind::InvalidDocument | ProblemKind::GuardedDocument => 422,
        ProblemKind::TooLarge => 413,
        ProblemKind::BadRequest => 400,
        ProblemKind::Unauthorized => 401,
        ProblemKind::Forbidden => 403,
        ProblemKind::NotFound => 404,
        ProblemKind::Conflict => 409,
        ProblemKind::PreconditionRequired => 428,
        ProblemKind::PreconditionFailed => 412,
        ProblemKind::Unavailable => 503,
        ProblemKind::Busy => 503,
        ProblemKind::Storage => 507,
        ProblemKind::Internal => 500,
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let kind = match &error {
            DbError::Busy { .. } => ProblemKind::Busy,
            DbError::Conflict(_) => ProblemKind::Conflict,
            DbError::Garbled { .. } => return Self::internal("the database is damaged", &error),
            DbError::Full => {
                tracing::error!("{error}");
                ProblemKind::Storage
            }
            DbError::NotFound(_) => ProblemKind::NotFound,
            DbError::Unavailable(_) => {
                tracing::error!("{error}");
                let title = "the database does not answer; nothing is known to be changed";
                let failure = Self::new(ProblemKind::Unavailable, title);
                return Self { retry_after: Some(2), ..failure };
            }
            DbError::PreconditionFailed { .. } => ProblemKind::PreconditionFailed,
            DbError::PreconditionRequired { .. } => ProblemKind::PreconditionRequired,
        };
        let retry_after = (kind == ProblemKind::Busy).then_some(1);
        Self { retry_after, ..Self::new(kind, error.to_string()) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem)
            .expect("invariant: a problem has string keys and writes without errors");
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
