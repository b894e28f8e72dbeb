//! What is read over HTTP: a blob store, and servers that documents name.

use super::answer::{ContentRange, expect, range, text};
use super::body::{Beyond, collect, pieces};
use super::client::Client;
use super::urls::{as_directory, shown};
use crate::Secret;
use crate::source::{Download, LatestAnswer, MAX_LATEST, SourceError, Traffic};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use pointsman_model::Sha256;
use pointsman_snapshot::latest;
use reqwest::{Response, StatusCode};
use url::Url;

/// How much of a shard is read and thrown away where a server knows no ranges.
const MAX_SKIPPED: u64 = 32 << 20;

/// A blob store behind HTTP: the control plane's `/blobs/`, or any server of files.
#[derive(Debug, Clone)]
pub struct HttpBlobs {
    client: Client,
    base: Url,
    credential: Option<Secret>,
    traffic: Traffic,
}

impl HttpBlobs {
    /// The store below `base`.
    #[must_use]
    pub fn new(client: Client, base: Url, credential: Option<Secret>, traffic: Traffic) -> Self {
        Self { client, base: as_directory(base), credential, traffic }
    }

    async fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Response, SourceError> {
        self.client.get(url, self.credential.as_ref(), headers, &self.traffic).await
    }

    fn url(&self, path: &str) -> Url {
        self.base.join(path).expect("invariant: names and hashes are relative URLs")
    }

    /// Reads `latest`; see [`crate::source::Source::latest`].
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn latest(&self, tag: Option<&str>) -> Result<LatestAnswer, SourceError> {
        let url = self.url(latest::NAME);
        let mut headers = HeaderMap::new();
        // A cache between us and the store must ask whether what it has is still so.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let tag = tag.and_then(|tag| HeaderValue::from_str(tag).ok());
        let asked = tag.is_some();
        if let Some(tag) = tag {
            headers.insert(header::IF_NONE_MATCH, tag);
        }
        let response = self.get(&url, &headers).await?;
        if asked && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(LatestAnswer::Unchanged);
        }
        let response = expect(&[StatusCode::OK], &url, response)?;
        let tag = text(&response, &header::ETAG).map(str::to_owned);
        let bytes = collect(response, &url, 0, MAX_LATEST, Beyond::Refused, &self.traffic).await?;
        Ok(LatestAnswer::Found { bytes, tag })
    }

    /// Reads a piece of a shard; see [`crate::source::Source::shard`].
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn shard(
        &self,
        shard: &Sha256,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, SourceError> {
        let url = self.url(&latest::shard_name(shard));
        if length == 0 {
            return Ok(Bytes::new());
        }
        let last = offset.saturating_add(length as u64 - 1);
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range(&format!("bytes={offset}-{last}")));
        let response = self.get(&url, &headers).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(Bytes::new());
        }
        let response = expect(&[StatusCode::PARTIAL_CONTENT, StatusCode::OK], &url, response)?;
        if response.status() == StatusCode::OK {
            // A server without ranges sends all: as far as needed is read.
            if offset > MAX_SKIPPED {
                let why = format!(
                    "the server knows no ranges, and what is needed lies behind {MAX_SKIPPED} bytes"
                );
                return Err(SourceError::Odd { what: shown(&url), why });
            }
            return collect(response, &url, offset, length, Beyond::Left, &self.traffic).await;
        }
        let odd = |why: String| SourceError::Odd { what: shown(&url), why };
        let got = text(&response, &header::CONTENT_RANGE).unwrap_or_default().to_owned();
        let part = ContentRange::parse(&got)
            .filter(|part| part.first == offset && part.last <= last)
            .ok_or_else(|| odd(format!("bytes {offset}-{last} were asked for, not {got:?}")))?;
        let ends = part.total.is_some_and(|total| part.last + 1 == total);
        if part.last < last && !ends {
            return Err(odd(format!("bytes {offset}-{last} were asked for, not {got:?}")));
        }
        let expected = part.last - part.first + 1;
        let bytes = collect(response, &url, 0, length, Beyond::Refused, &self.traffic).await?;
        if bytes.len() as u64 != expected {
            return Err(odd(format!("{} bytes came, and {got:?} was promised", bytes.len())));
        }
        Ok(bytes)
    }

    /// Begins to read an object; see [`crate::source::Source::object`].
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn object(&self, object: &Sha256, from: u64) -> Result<Download, SourceError> {
        let url = self.url(&latest::object_name(object));
        let credential = self.credential.as_ref();
        download(&self.client, url, credential, from, &self.traffic).await
    }
}

/// Servers that documents name. They are told nothing of this node.
#[derive(Debug, Clone)]
pub struct Web {
    client: Client,
    traffic: Traffic,
}

impl Web {
    /// Uses the connections of `client`.
    #[must_use]
    pub const fn new(client: Client, traffic: Traffic) -> Self {
        Self { client, traffic }
    }

    /// Begins to read what is at `url`.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn get(&self, url: &str, from: u64) -> Result<Download, SourceError> {
        let odd = |what: String, why: String| SourceError::Odd { what, why };
        let url = Url::parse(url)
            .map_err(|error| odd("a link".into(), format!("it is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(odd(shown(&url), "only http and https are fetched".into()));
        }
        download(&self.client, url, None, from, &self.traffic).await
    }
}

async fn download(
    client: &Client,
    url: Url,
    credential: Option<&Secret>,
    from: u64,
    traffic: &Traffic,
) -> Result<Download, SourceError> {
    let mut headers = HeaderMap::new();
    if from > 0 {
        headers.insert(header::RANGE, range(&format!("bytes={from}-")));
    }
    let response = client.get(&url, credential, &headers, traffic).await?;
    if from > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        // It has become shorter than what we have of it: from the beginning.
        return Box::pin(download(client, url, credential, 0, traffic)).await;
    }
    let response = expect(&[StatusCode::OK, StatusCode::PARTIAL_CONTENT], &url, response)?;
    let (from, total) = if response.status() == StatusCode::OK {
        (0, response.content_length())
    } else {
        let got = text(&response, &header::CONTENT_RANGE).unwrap_or_default();
        let part = ContentRange::parse(got).filter(|part| part.first == from).ok_or_else(|| {
            let why = format!("bytes from {from} were asked for, not {got:?}");
            SourceError::Odd { what: shown(&url), why }
        })?;
        (from, part.total)
    };
    Ok(Download { from, total, stream: pieces(response, url, traffic.clone()) })
}
