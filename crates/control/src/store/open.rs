//! From a URL to a store.

use super::Store;
use object_store::ClientOptions;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, RetryConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to answer one request.
const ANSWER: Duration = Duration::from_secs(30);

/// A file that a killed writer left behind is this old before it is removed: another writer may
/// be at work on a younger one.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// Where what is published goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct StoreArgs {
    /// The blob store: file:///ABSOLUTE/DIRECTORY or s3://BUCKET[/PREFIX]. [default: blobs in the
    /// state directory]
    #[arg(global = true, long = "store", value_name = "URL", env = "POINTSMAN_STORE")]
    pub url: Option<String>,
    /// For s3://: the server, if it is not Amazon's. With http:// nothing is encrypted on the way.
    #[arg(global = true, long, value_name = "URL", env = "POINTSMAN_S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,
    /// For s3://: the region. Credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
    /// the other AWS_ variables, or from the machine's role.
    #[arg(global = true, long, value_name = "NAME", env = "POINTSMAN_S3_REGION")]
    pub s3_region: Option<String>,
    /// For s3://: put the bucket into the host name instead of the path.
    #[arg(global = true, long, env = "POINTSMAN_S3_VIRTUAL_HOSTED")]
    pub s3_virtual_hosted: bool,
}

/// The URL names no store, or one that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreUrlError {
    /// It is no URL of a store.
    #[error(
        "{url:?} names no blob store: {why}; expected file:///ABSOLUTE/DIRECTORY or \
         s3://BUCKET[/PREFIX]"
    )]
    Url {
        /// The URL.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The directory cannot be made or opened.
    #[error("cannot use {} as a blob store: {source}", path.display())]
    Directory {
        /// It.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is said of an S3 server does not go together.
    #[error("cannot use {url} as a blob store: {source}")]
    S3 {
        /// The URL.
        url: String,
        /// Why.
        source: object_store::Error,
    },
}

impl StoreArgs {
    /// Opens the store; without a URL it is the directory `default`. Nothing is asked of a server
    /// yet.
    ///
    /// # Errors
    /// [`StoreUrlError`].
    pub fn open(&self, default: &Path) -> Result<Store, StoreUrlError> {
        let Some(url) = &self.url else { return directory(default) };
        let wrong = |why| StoreUrlError::Url { url: url.clone(), why };
        match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => directory(Path::new(path)),
            Some(("file", _)) => Err(wrong("the path is not absolute")),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(wrong("it names no bucket"));
                }
                self.s3(url, bucket, prefix.trim_end_matches('/'))
            }
            Some(_) => Err(wrong("its scheme is not known")),
            None => Err(wrong("it has no scheme")),
        }
    }

    fn s3(&self, url: &str, bucket: &str, prefix: &str) -> Result<Store, StoreUrlError> {
        let failed = |source| StoreUrlError::S3 { url: url.to_owned(), source };
        let prefix = object_store::path::Path::parse(prefix)
            .map_err(|source| failed(object_store::Error::from(source)))?;
        let plain = self.s3_endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
        let client = ClientOptions::new()
            .with_connect_timeout(CONNECT)
            .with_timeout(ANSWER)
            .with_allow_http(plain);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 3,
            retry_timeout: ANSWER,
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_client_options(client)
            .with_virtual_hosted_style_request(self.s3_virtual_hosted);
        if let Some(endpoint) = &self.s3_endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &self.s3_region {
            builder = builder.with_region(region);
        }
        let store = builder.build().map_err(failed)?;
        Ok(Store::over(Arc::new(PrefixStore::new(store, prefix)), url))
    }
}

fn directory(path: &Path) -> Result<Store, StoreUrlError> {
    let told = |source| StoreUrlError::Directory { path: path.to_owned(), source };
    for part in ["shards", "objects"] {
        std::fs::create_dir_all(path.join(part)).map_err(told)?;
    }
    for part in ["", "shards", "objects"] {
        sweep(&path.join(part)).map_err(told)?;
    }
    // What was answered is on the disk, and stays there when the power goes.
    let store = LocalFileSystem::new_with_prefix(path)
        .map_err(|error| told(std::io::Error::other(error)))?
        .with_fsync(true);
    let shown = format!("file://{}", path.display());
    Ok(Store::within(Arc::new(store), &shown, path.to_owned()))
}

/// Removes what writers that were killed left behind: `NAME#NUMBER`, as the library calls a file
/// that it has not renamed into place yet.
fn sweep(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
        if !number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        let about = entry.metadata()?;
        let age = SystemTime::now().duration_since(about.modified()?).unwrap_or_default();
        if about.is_file() && age > LEFT_BEHIND {
            tracing::info!(file = %entry.path().display(), "removing what a writer left behind");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Wanted;
    use super::*;
    use futures_util::StreamExt as _;

    fn args(url: &str) -> StoreArgs {
        StoreArgs { url: Some(url.into()), ..StoreArgs::default() }
    }

    #[test]
    fn what_is_no_store_is_named() {
        for (url, why) in [
            ("/var/blobs", "no scheme"),
            ("file://blobs", "not absolute"),
            ("gs://bucket", "not known"),
            ("s3:///prefix", "no bucket"),
        ] {
            let error = args(url).open(Path::new("/nowhere")).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(url), "{error}");
        }
        let error = args("s3://bucket/a/../b").open(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("s3://bucket/a/../b"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = args(&format!("file://{}", file.path().display()))
            .open(Path::new("/nowhere"))
            .unwrap_err();
        assert!(error.to_string().contains("as a blob store"), "{error}");
    }

    #[tokio::test]
    async fn a_directory_keeps_blobs_and_loses_what_was_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}/sub", directory.path().display());
        let store = args(&url).open(Path::new("/nowhere")).unwrap();
        assert_eq!(store.describe(), url);
        assert_eq!(store.get("latest", 100).await.unwrap(), None);
        assert_eq!(store.list("shards/").await.unwrap().len(), 0);
        store.put("latest", b"one".to_vec()).await.unwrap();
        store.put("latest", b"second".to_vec()).await.unwrap();
        store.put("shards/a.cdb", b"shard".to_vec()).await.unwrap();
        assert_eq!(store.get("latest", 100).await.unwrap().unwrap(), &b"second"[..]);
        let error = store.get("latest", 3).await.unwrap_err().to_string();
        assert!(error.contains("\"latest\"") && error.contains(&url), "{error}");
        let list = store.list("shards/").await.unwrap();
        assert_eq!(list.keys().collect::<Vec<_>>(), ["shards/a.cdb"]);
        assert_eq!(list["shards/a.cdb"].bytes, 5);
        assert_eq!(store.about("shards/a.cdb").await.unwrap(), Some(list["shards/a.cdb"]));
        assert_eq!(store.about("shards/b.cdb").await.unwrap(), None);

        let mut part = store.read("shards/a.cdb", Wanted::Bytes(1..100)).await.unwrap().unwrap();
        assert_eq!((part.size, part.range.clone()), (5, 1..5));
        assert_eq!(part.bytes.next().await.unwrap().unwrap(), &b"hard"[..]);

        let old = directory.path().join("sub/shards/a.cdb#1");
        let young = directory.path().join("sub/latest#2");
        for path in [&old, &young] {
            std::fs::write(path, "half").unwrap();
        }
        let file = std::fs::File::options().write(true).open(&old).unwrap();
        file.set_modified(SystemTime::now() - 2 * LEFT_BEHIND).unwrap();
        args(&url).open(Path::new("/nowhere")).unwrap();
        assert!(!old.exists() && young.exists());

        // Whoever may write here may not have us read what is elsewhere.
        use std::os::unix::fs::symlink;
        let sub = directory.path().join("sub");
        let key = directory.path().join("fleet.key");
        std::fs::write(&key, "secret").unwrap();
        symlink(&key, sub.join("objects/a")).unwrap();
        symlink(directory.path(), sub.join("linked")).unwrap();
        symlink("b.cdb", sub.join("shards/c.cdb")).unwrap();
        std::fs::create_dir(sub.join("objects/d")).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(sub.join("objects/e")).status();
        assert!(pipe.unwrap().success());
        for name in ["objects/a", "linked/fleet.key", "shards/c.cdb", "objects/d", "objects/e"] {
            let error = store.get(name, 100).await.unwrap_err().to_string();
            assert!(error.contains("it is a link") && error.contains(name), "{error}");
        }
        // What is written there takes the link's place.
        store.put("objects/a", b"object".to_vec()).await.unwrap();
        assert_eq!(store.get("objects/a", 100).await.unwrap().unwrap(), &b"object"[..]);
        assert_eq!(std::fs::read(&key).unwrap(), b"secret");

        store.delete("shards/a.cdb").await.unwrap();
        store.delete("shards/a.cdb").await.unwrap();
        assert_eq!(store.list("shards/").await.unwrap().len(), 0);
    }
}
