//! What is published, for couriers that fetch it here: whole, in parts, or only if it is new.

use crate::app::App;
use crate::auth::Reader;
use crate::problem::Failure;
use crate::store::{Reading, Store, StoreError, Wanted};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pointsman_model::Sha256;
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_snapshot::latest;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// For how long `latest` is answered without asking the store again: however many couriers poll,
/// the store is asked a few times a second.
const FRESH: Duration = Duration::from_millis(200);

/// What never changes may be kept for ever.
const FOR_EVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// `latest` may be kept, and must be asked for each time.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Its routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(newest)).routes(routes!(shard)).routes(routes!(object))
}

/// Serves what is in a blob store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Store,
    latest: Arc<Mutex<Option<Asked>>>,
}

/// What the store said of `latest`.
#[derive(Debug)]
struct Asked {
    at: Instant,
    text: Option<Bytes>,
}

impl Blobs {
    /// Serves what is in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, latest: Arc::default() }
    }

    /// What `latest` says; `None`: nothing was published yet. Requests that come together are
    /// answered together.
    async fn latest(&self) -> Result<Option<Bytes>, StoreError> {
        let mut known = self.latest.lock().await;
        if let Some(asked) = known.as_ref().filter(|asked| asked.at.elapsed() < FRESH) {
            return Ok(asked.text.clone());
        }
        let text = self.store.get(latest::NAME, latest::MAX_BYTES).await?;
        *known = Some(Asked { at: Instant::now(), text: text.clone() });
        Ok(text)
    }
}

/// Which shards are in force. Polled with `If-None-Match`.
#[utoipa::path(get, path = "/blobs/latest", tag = "blobs", responses(
    (status = 200, body = pointsman_model::fleet::Latest, headers(("ETag" = String))),
    (status = 304, description = "It is what the request has already"),
    (status = 404, body = Problem, content_type = "application/problem+json",
     description = "Nothing was published yet"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn newest(
    _: Reader,
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let text = app.blobs.latest().await.map_err(|error| unavailable(&error))?;
    let text = text.ok_or_else(|| Failure::not_found("snapshot yet: nothing was published"))?;
    let tag = format!("\"{}\"", Sha256::of(&text));
    let mut answer = HeaderMap::new();
    answer.insert(header::ETAG, tagged(&tag));
    answer.insert(header::CACHE_CONTROL, ASK_AGAIN);
    if names(&headers, header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((answer, text).into_response())
}

/// A shard, or a part of it.
#[utoipa::path(get, path = "/blobs/shards/{name}", tag = "blobs",
    params(
        ("name" = String, Path, description = "SHA256.cdb"),
        ("Range" = Option<String>, Header, description = "bytes=FIRST-LAST"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "It is what the request has already"),
        (status = 416, body = Problem, content_type = "application/problem+json",
         description = "It ends before"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn shard(
    _: Reader,
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let hash = name.strip_suffix(".cdb").and_then(|hash| hash.parse::<Sha256>().ok());
    let hash = hash.ok_or_else(|| Failure::not_found("shard of this name"))?;
    immutable(&app.blobs.store, &latest::shard_name(&hash), &hash, &headers).await
}

/// An object, or a part of it.
#[utoipa::path(get, path = "/blobs/objects/{sha256}", tag = "blobs",
    params(
        ("sha256" = String, Path, description = "Its hash"),
        ("Range" = Option<String>, Header, description = "bytes=FIRST-LAST"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "It is what the request has already"),
        (status = 416, body = Problem, content_type = "application/problem+json",
         description = "It ends before"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn object(
    _: Reader,
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let hash: Sha256 = name.parse().map_err(|_| Failure::not_found("object of this name"))?;
    immutable(&app.blobs.store, &latest::object_name(&hash), &hash, &headers).await
}

/// Serves a blob that is named by its hash: so is its entity tag.
async fn immutable(
    store: &Store,
    name: &str,
    hash: &Sha256,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let tag = format!("\"{hash}\"");
    let mut answer = HeaderMap::new();
    answer.insert(header::ETAG, tagged(&tag));
    answer.insert(header::CACHE_CONTROL, FOR_EVER);
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if names(headers, header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    // Parts of something else are no use.
    let is_same = !headers.contains_key(header::IF_RANGE) || names(headers, header::IF_RANGE, &tag);
    let wanted = range(headers).filter(|_| is_same).unwrap_or(Wanted::Whole);
    let reading = match store.read(name, wanted.clone()).await {
        Err(error) if wanted != Wanted::Whole => {
            let about = store.about(name).await.map_err(|error| unavailable(&error))?;
            return Err(match about {
                Some(about) if ends_before(&wanted, about.bytes) => out_of_range(about.bytes),
                _ => unavailable(&error),
            });
        }
        other => other.map_err(|error| unavailable(&error))?,
    };
    let Some(Reading { size, range, bytes }) = reading else {
        return Err(Failure::not_found(name));
    };
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let status = if wanted == Wanted::Whole {
        StatusCode::OK
    } else {
        let text = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
        let text = HeaderValue::try_from(text).expect("invariant: digits");
        answer.insert(header::CONTENT_RANGE, text);
        StatusCode::PARTIAL_CONTENT
    };
    Ok((status, answer, Body::from_stream(bytes)).into_response())
}

/// The one range that is asked for. Several at once, other units and nonsense are as if nothing
/// had been asked for (RFC 9110, 14.2).
fn range(headers: &HeaderMap) -> Option<Wanted> {
    let text = headers.get(header::RANGE)?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok())?
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => {
            Some(Wanted::Bytes(first..last.saturating_add(1)))
        }
        (Some(first), None) if last.is_empty() => Some(Wanted::From(first)),
        (None, Some(bytes)) if first.is_empty() => Some(Wanted::Last(bytes)),
        _ => None,
    }
}

fn ends_before(wanted: &Wanted, size: u64) -> bool {
    match wanted {
        Wanted::Whole => false,
        Wanted::Bytes(range) => range.start >= size,
        Wanted::From(start) => *start >= size,
        Wanted::Last(bytes) => *bytes == 0 || size == 0,
    }
}

fn out_of_range(size: u64) -> Failure {
    Failure::bad_request(format!("it has {size} bytes, and the range starts behind them"))
        .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
}

/// Whether a header lists an entity tag. Weak ones are as good: they are all made of hashes.
fn names(headers: &HeaderMap, name: HeaderName, tag: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn tagged(tag: &str) -> HeaderValue {
    HeaderValue::try_from(tag).expect("invariant: hexadecimal digits in quotes")
}

fn unavailable(error: &StoreError) -> Failure {
    tracing::error!("{error}");
    let title = "the blob store does not answer; what is published stays what it is";
    Failure { retry_after: Some(2), ..Failure::new(ProblemKind::Unavailable, title) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood_and_nothing_else_is() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            range(&headers)
        };
        assert_eq!(of("bytes=0-0"), Some(Wanted::Bytes(0..1)));
        assert_eq!(of("bytes=5-18446744073709551615"), Some(Wanted::Bytes(5..u64::MAX)));
        assert_eq!(of("bytes=7-"), Some(Wanted::From(7)));
        assert_eq!(of("bytes=-8"), Some(Wanted::Last(8)));
        for nonsense in [
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1-99999999999999999999",
            "0-1",
        ] {
            assert_eq!(of(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn tags_are_found_in_lists() {
        let mut headers = HeaderMap::new();
        headers.append(header::IF_NONE_MATCH, "\"a\", W/\"b\"".parse().unwrap());
        headers.append(header::IF_NONE_MATCH, "\"c\"".parse().unwrap());
        let found = |tag: &str| names(&headers, header::IF_NONE_MATCH, tag);
        assert!(found("\"a\"") && found("\"b\"") && found("\"c\"") && !found("\"d\""));
    }
}
