//! Stores that are no web server: a directory, or S3.

use super::{ClientOptions, Download, LatestAnswer, MAX_LATEST, PATIENCE, SourceError, Traffic};
use futures_util::{Stream, StreamExt as _, stream};
use hyper::body::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, RetryConfig};
use pointsman_model::Sha256;
use pointsman_snapshot::latest;
use std::sync::Arc;
use tokio::time::timeout;
use url::Url;

/// A store that `object_store` knows how to read.
#[derive(Debug, Clone)]
pub struct StoreBlobs {
    store: Arc<dyn ObjectStore>,
    /// What it is called in errors.
    name: String,
    traffic: Traffic,
}

impl StoreBlobs {
    /// The directory that `url` (`file:///DIR`) names.
    ///
    /// # Errors
    /// One line, where it names none.
    pub fn directory(url: &Url, traffic: Traffic) -> Result<Self, String> {
        let path = url.to_file_path().map_err(|()| "expected file:///DIRECTORY".to_owned())?;
        // It need not be there yet: a stick that is not plugged in.
        let prefix = Key::from_absolute_path(&path).map_err(|error| error.to_string())?;
        let store = PrefixStore::new(LocalFileSystem::new(), prefix);
        let name = format!("file://{}", path.display().to_string().trim_end_matches('/'));
        Ok(Self { store: Arc::new(store), name, traffic })
    }

    /// The bucket and prefix that `url` (`s3://BUCKET/PREFIX`) names. Region, endpoint and
    /// credentials come from the environment (`AWS_REGION`, `AWS_ENDPOINT_URL` and the like).
    ///
    /// # Errors
    /// One line that names what is missing.
    pub fn s3(url: &Url, options: &ClientOptions, traffic: Traffic) -> Result<Self, String> {
        let bucket = url.host_str().ok_or("expected s3://BUCKET/PREFIX")?;
        let mut client = object_store::ClientOptions::new();
        // Plain HTTP only to an endpoint that was named so.
        let plain = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"]
            .iter()
            .any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("http://")));
        client = client.with_allow_http(plain);
        if let Some(pem) = &options.ca {
            for certificate in object_store::Certificate::from_pem_bundle(pem)
                .map_err(|error| format!("the CA file holds no certificate in PEM: {error}"))?
            {
                client = client.with_root_certificate(certificate);
            }
        }
        if let Some(proxy) = &options.proxy {
            client = client.with_proxy_url(proxy.expose());
            // As for everything else that the courier asks.
            if let Ok(excludes) = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")) {
                client = client.with_proxy_excludes(excludes);
            }
        }
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(client)
            // When to try again is decided in one place, and not here.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .map_err(|error| error.to_string())?;
        let prefix = Key::from_url_path(url.path()).map_err(|error| error.to_string())?;
        let name = format!("s3://{bucket}/{prefix}");
        Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), name, traffic })
    }

    /// Reads `latest`; see [`super::Source::latest`].
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn latest(&self, tag: Option<&str>) -> Result<LatestAnswer, SourceError> {
        let options = GetOptions { if_none_match: tag.map(str::to_owned), ..GetOptions::default() };
        let found = match self.get(latest::NAME, options).await? {
            Err(object_store::Error::NotModified { .. }) => return Ok(LatestAnswer::Unchanged),
            other => other.map_err(|error| self.failed(latest::NAME, &error))?,
        };
        let tag = found.meta.e_tag.clone();
        let bytes = self.whole(latest::NAME, found, MAX_LATEST).await?;
        Ok(LatestAnswer::Found { bytes, tag })
    }

    /// Reads a piece of a shard; see [`super::Source::shard`].
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn shard(
        &self,
        shard: &Sha256,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, SourceError> {
        let name = latest::shard_name(shard);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let range = GetRange::Bounded(offset..offset.saturating_add(length as u64));
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        match self.get(&name, options).await? {
            Ok(found) if found.range.start == offset => self.whole(&name, found, length).await,
            Ok(found) => Err(SourceError::Odd {
                what: self.what(&name),
                why: format!("bytes from {offset} were asked for, not from {}", found.range.start),
            }),
            // There is no telling errors of ranges apart by their kind.
            Err(error) if out_of_range(&error) => Ok(Bytes::new()),
            Err(error) => Err(self.failed(&name, &error)),
        }
    }

    /// Begins to read an object; see [`super::Source::object`].
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn object(&self, object: &Sha256, from: u64) -> Result<Download, SourceError> {
        let name = latest::object_name(object);
        let range = (from > 0).then_some(GetRange::Offset(from));
        let options = GetOptions { range, ..GetOptions::default() };
        let found = match self.get(&name, options).await? {
            Err(error) if from > 0 && out_of_range(&error) => {
                self.get(&name, GetOptions::default()).await?
            }
            other => other,
        };
        let found = found.map_err(|error| self.failed(&name, &error))?;
        let (from, total) = (found.range.start, Some(found.meta.size));
        let (what, traffic) = (self.what(&name), self.traffic.clone());
        let stream = stream::unfold(Some(found.into_stream()), move |pieces| {
            let (what, traffic) = (what.clone(), traffic.clone());
            async move {
                let mut pieces = pieces?;
                match piece(&mut pieces, what, &traffic).await {
                    Ok(None) => None,
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(pieces))),
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(Download { from, total, stream: stream.boxed() })
    }

    /// Asks the store; the outer error is its silence, as of a file system that hangs.
    async fn get(
        &self,
        name: &str,
        options: GetOptions,
    ) -> Result<object_store::Result<GetResult>, SourceError> {
        self.traffic.request();
        let key = Key::from(name);
        let asked = self.store.get_opts(&key, options);
        timeout(PATIENCE, asked).await.map_err(|_| silent(self.what(name)))
    }

    async fn whole(
        &self,
        name: &str,
        found: GetResult,
        limit: usize,
    ) -> Result<Bytes, SourceError> {
        let mut bytes = Vec::new();
        let mut stream = found.into_stream();
        while let Some(piece) = piece(&mut stream, self.what(name), &self.traffic).await? {
            if bytes.len() + piece.len() > limit {
                let what = self.what(name);
                return Err(SourceError::TooLarge { what, limit: limit as u64 });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }

    fn what(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    fn failed(&self, name: &str, error: &object_store::Error) -> SourceError {
        use object_store::Error;
        let what = self.what(name);
        match error {
            Error::NotFound { .. } => SourceError::Missing { what },
            Error::PermissionDenied { .. } => SourceError::Denied { what, status: 403 },
            Error::Unauthenticated { .. } => SourceError::Denied { what, status: 401 },
            other => SourceError::Unreachable { what, why: one_line(other) },
        }
    }
}

/// The next piece of something, within our patience.
async fn piece(
    stream: &mut (impl Stream<Item = object_store::Result<Bytes>> + Unpin),
    what: String,
    traffic: &Traffic,
) -> Result<Option<Bytes>, SourceError> {
    match timeout(PATIENCE, stream.next()).await {
        Err(_) => Err(silent(what)),
        Ok(None) => Ok(None),
        Ok(Some(Ok(bytes))) => {
            traffic.bytes(bytes.len());
            Ok(Some(bytes))
        }
        Ok(Some(Err(error))) => Err(SourceError::Interrupted { what, why: one_line(&error) }),
    }
}

fn silent(what: String) -> SourceError {
    SourceError::Timeout { what, after: PATIENCE }
}

/// Whether a range lies behind the end. The kinds of errors do not tell: their texts do, which
/// begin with them, so that no name that is in them as well can be taken for it.
fn out_of_range(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { source, .. } = error else { return false };
    let text = source.to_string();
    text.starts_with("Requested range was invalid")
        || text.starts_with("Wanted range starting at")
        || text.contains("<Code>InvalidRange</Code>")
        || text.contains("status code: 416")
        || text.contains("416 Range Not Satisfiable")
}

/// The error and its causes, whose texts repeat each other; without line ends.
fn one_line(error: &object_store::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
