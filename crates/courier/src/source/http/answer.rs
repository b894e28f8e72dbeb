//! Heads of answers.

use super::urls::shown;
use crate::source::SourceError;
use hyper::header::{self, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use std::time::Duration;
use url::Url;

/// The longest that a server may ask to be left alone for.
const MAX_RETRY_AFTER: u64 = 300;

/// Lets an answer pass that has one of the `wanted` statuses.
pub(crate) fn expect(
    wanted: &[StatusCode],
    url: &Url,
    response: Response,
) -> Result<Response, SourceError> {
    let status = response.status();
    if wanted.contains(&status) {
        return Ok(response);
    }
    let what = shown(url);
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            SourceError::Denied { what, status: status.as_u16() }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => SourceError::Missing { what },
        _ => SourceError::Status {
            what,
            status: status.to_string(),
            retry_after: text(&response, &header::RETRY_AFTER)
                .and_then(|text| text.parse().ok())
                .map(|seconds: u64| Duration::from_secs(seconds.min(MAX_RETRY_AFTER))),
        },
    })
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110, section 14.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: Option<u64>,
}

impl ContentRange {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        let total = if total == "*" { None } else { Some(total.parse().ok()?) };
        let sane = first <= last && total.is_none_or(|total| last < total);
        sane.then_some(Self { first, last, total })
    }
}

pub(super) fn range(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("invariant: digits are a header's value")
}

pub(super) fn text<'a>(response: &'a Response, name: &HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_understood_or_refused() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(ContentRange::parse("bytes 0-7/100"), range(0, 7, Some(100)));
        assert_eq!(ContentRange::parse("bytes 8-8/*"), range(8, 8, None));
        for wrong in
            ["", "bytes */100", "bytes 7-0/100", "bytes 0-100/100", "lines 0-1/2", "bytes 0-1"]
        {
            assert_eq!(ContentRange::parse(wrong), None, "{wrong}");
        }
    }
}
