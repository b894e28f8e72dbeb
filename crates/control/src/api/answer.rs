//! Answers: JSON, with the resource's revision where there is one.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What was asked for.
#[derive(Debug)]
pub struct Answer<T>(pub T);

/// What was made.
#[derive(Debug)]
pub struct Created<T>(pub T);

/// A resource, with its revision as its entity tag.
#[derive(Debug)]
pub struct Tagged<T> {
    /// Its revision.
    pub revision: u64,
    /// Whether it was made by this request.
    pub created: bool,
    /// The resource.
    pub body: T,
}

impl<T> Tagged<T> {
    /// A resource that is looked at.
    pub fn new(revision: u64, body: T) -> Self {
        Self { revision, created: false, body }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        json(StatusCode::CREATED, &self.0)
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let status = if self.created { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = json(status, &self.body);
        let tag = HeaderValue::try_from(format!("\"{}\"", self.revision));
        response.headers_mut().insert(header::ETAG, tag.expect("invariant: digits in quotes"));
        response
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let body = serde_json::to_vec(value)
        .expect("invariant: the API's types have string keys and write without errors");
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}
