//! Which source a URL names.

use super::{
    Client, ClientOptions, Download, HttpBlobs, LatestAnswer, Place, Source, SourceError,
    StoreBlobs, Traffic, Web, as_directory, shown,
};
use crate::Secret;
use hyper::body::Bytes;
use pointsman_model::Sha256;
use url::Url;

/// A blob store.
#[derive(Debug, Clone)]
pub enum Blobs {
    /// Behind HTTP.
    Http(HttpBlobs),
    /// A directory, or S3.
    Store(StoreBlobs),
}

/// What is needed to open a source.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The control plane.
    pub control: &'a Url,
    /// What the control plane gave this node. Goes to its origin and to no other.
    pub credential: &'a Secret,
    /// Where snapshots are, if not at the control plane.
    pub source: Option<&'a Url>,
    /// How servers are reached.
    pub options: &'a ClientOptions,
}

/// All that a courier fetches from: a blob store, and the servers that documents name.
#[derive(Debug, Clone)]
pub struct Sources {
    blobs: Blobs,
    web: Web,
}

impl Sources {
    /// From its two halves.
    #[must_use]
    pub const fn new(blobs: Blobs, web: Web) -> Self {
        Self { blobs, web }
    }

    /// Opens what `opening` names; `client` is used for everything behind HTTP.
    ///
    /// # Errors
    /// One line that names the URL.
    pub fn open(opening: &Opening<'_>, client: &Client, traffic: &Traffic) -> Result<Self, String> {
        let Opening { control, credential, source, options } = opening;
        let base = match source {
            Some(url) => (*url).clone(),
            None => as_directory((*control).clone())
                .join("blobs/")
                .expect("invariant: it is a relative URL"),
        };
        let named = |why: String| format!("the source {}: {why}", shown(&base));
        let blobs = match base.scheme() {
            "http" | "https" => {
                let ours = base.origin() == control.origin();
                let credential = ours.then(|| (*credential).clone());
                let (client, traffic) = (client.clone(), traffic.clone());
                Blobs::Http(HttpBlobs::new(client, base, credential, traffic))
            }
            "file" => Blobs::Store(StoreBlobs::directory(&base, traffic.clone()).map_err(named)?),
            "s3" => Blobs::Store(StoreBlobs::s3(&base, options, traffic.clone()).map_err(named)?),
            other => {
                let why = format!("the scheme {other} is not known; use file, http, https or s3");
                return Err(named(why));
            }
        };
        Ok(Self::new(blobs, Web::new(client.clone(), traffic.clone())))
    }
}

impl Source for Sources {
    async fn latest(&mut self, tag: Option<&str>) -> Result<LatestAnswer, SourceError> {
        match &self.blobs {
            Blobs::Http(blobs) => blobs.latest(tag).await,
            Blobs::Store(blobs) => blobs.latest(tag).await,
        }
    }

    async fn shard(
        &mut self,
        shard: &Sha256,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, SourceError> {
        match &self.blobs {
            Blobs::Http(blobs) => blobs.shard(shard, offset, length).await,
            Blobs::Store(blobs) => blobs.shard(shard, offset, length).await,
        }
    }

    async fn object(&mut self, place: &Place, from: u64) -> Result<Download, SourceError> {
        match (place, &self.blobs) {
            (Place::Url(url), _) => self.web.get(url, from).await,
            (Place::Store(hash), Blobs::Http(blobs)) => blobs.object(hash, from).await,
            (Place::Store(hash), Blobs::Store(blobs)) => blobs.object(hash, from).await,
        }
    }
}
