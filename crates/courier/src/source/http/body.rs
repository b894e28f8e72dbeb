//! Bodies: bounded, each piece within our patience.

use super::urls::{innermost, shown};
use crate::source::{ByteStream, MIN_RATE, PATIENCE, SourceError, Traffic};
use futures_util::stream;
use hyper::body::Bytes;
use reqwest::Response;
use std::time::Duration;
use url::Url;

/// The body of an answer, each piece within our patience.
pub(super) fn pieces(response: Response, url: Url, traffic: Traffic) -> ByteStream {
    let state = Some((response, url, traffic));
    Box::pin(stream::unfold(state, |state| async move {
        let (mut response, url, traffic) = state?;
        match piece(&mut response, &url, &traffic).await {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(bytes), Some((response, url, traffic)))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

async fn piece(
    response: &mut Response,
    url: &Url,
    traffic: &Traffic,
) -> Result<Option<Bytes>, SourceError> {
    match tokio::time::timeout(PATIENCE, response.chunk()).await {
        Err(_) => Err(SourceError::Timeout { what: shown(url), after: PATIENCE }),
        Ok(Err(error)) => {
            let why = innermost(&error.without_url());
            Err(SourceError::Interrupted { what: shown(url), why })
        }
        Ok(Ok(bytes)) => {
            traffic.bytes(bytes.as_ref().map_or(0, Bytes::len));
            Ok(bytes)
        }
    }
}

/// What becomes of bytes beyond those that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// They are an error.
    Refused,
    /// They are not read.
    Left,
}

/// Reads a small body: leaves out `skip` bytes, then takes at most `limit`.
pub(super) async fn collect(
    mut response: Response,
    url: &Url,
    mut skip: u64,
    limit: usize,
    beyond: Beyond,
    traffic: &Traffic,
) -> Result<Bytes, SourceError> {
    let too_large = || SourceError::TooLarge { what: shown(url), limit: limit as u64 };
    let from = skip;
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(mut piece) = piece(&mut response, url, traffic).await? {
            let left_out = skip.min(piece.len() as u64);
            skip -= left_out;
            piece = piece.slice(usize::try_from(left_out).unwrap_or(usize::MAX)..);
            let room = limit - bytes.len();
            if piece.len() > room && beyond == Beyond::Refused {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            if bytes.len() == limit && beyond == Beyond::Left {
                break;
            }
        }
        Ok(bytes.into())
    };
    let patience = PATIENCE + Duration::from_secs((from + limit as u64) / MIN_RATE);
    tokio::time::timeout(patience, whole)
        .await
        .map_err(|_| SourceError::Timeout { what: shown(url), after: patience })?
}
