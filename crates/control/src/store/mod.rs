//! The blob store: where what is published lies, under the names of `docs/snapshot.md`.
//!
//! It is a copy: everything in it is made anew from the database. So whatever happens to it, the
//! next publish puts it right.

mod error;
mod files;
mod open;

pub use error::StoreError;
pub use open::{StoreArgs, StoreUrlError};

use axum::body::Bytes;
use error::Doing;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt as _, PutPayload,
};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long one operation may take: a store that hangs must not hold a publisher for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A blob store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    shown: Arc<str>,
    /// The directory that it is, if it is one.
    directory: Option<Arc<PathBuf>>,
}

/// How often a blob is opened that is replaced at the same time.
const REPLACED: usize = 8;

/// What is known of a blob without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, in milliseconds since the Unix epoch, by the store's clock.
    pub written_ms: u64,
}

/// A blob, or part of one, while it is read.
pub struct Reading {
    /// The size of the whole blob.
    pub size: u64,
    /// Which part of it comes.
    pub range: Range<u64>,
    /// It.
    pub bytes: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading({:?} of {})", self.range, self.size)
    }
}

/// What a reader wants of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes; fewer where it ends before.
    Bytes(Range<u64>),
    /// From here to the end.
    From(u64),
    /// So many at the end.
    Last(u64),
}

impl Store {
    /// A store over any implementation. `shown` is what error messages call it.
    pub fn over(inner: Arc<dyn ObjectStore>, shown: &str) -> Self {
        Self { inner, shown: shown.into(), directory: None }
    }

    /// A store that is a directory: links in it are not followed.
    fn within(inner: Arc<dyn ObjectStore>, shown: &str, directory: PathBuf) -> Self {
        Self { directory: Some(Arc::new(directory)), ..Self::over(inner, shown) }
    }

    /// What it is, for people: never with a secret.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.shown
    }

    /// Writes a blob: all of it, or it is as if nothing happened.
    ///
    /// # Errors
    /// It may be there all the same, whole, or torn where the store is a bad one.
    pub async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let payload = PutPayload::from(bytes);
        self.patiently(Doing::Write, name, self.inner.put(&path(name), payload)).await?;
        Ok(())
    }

    /// Reads a small blob; `None`: it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is larger than `most` bytes.
    pub async fn get(&self, name: &str, most: usize) -> Result<Option<Bytes>, StoreError> {
        let Some(reading) = self.read(name, Wanted::Whole).await? else { return Ok(None) };
        if reading.size > most as u64 {
            return Err(self.error(Doing::Read, name, &format!("it has {} bytes", reading.size)));
        }
        let whole = tokio::time::timeout(PATIENCE, reading.bytes.try_collect::<Vec<Bytes>>());
        let parts = whole.await.map_err(|_| self.timed_out(Doing::Read, name))??;
        Ok(Some(parts.concat().into()))
    }

    /// Begins to read a blob; `None`: it is not there.
    ///
    /// # Errors
    /// The store does not answer, or the blob has none of the bytes wanted.
    pub async fn read(&self, name: &str, wanted: Wanted) -> Result<Option<Reading>, StoreError> {
        let range = match wanted {
            Wanted::Whole => None,
            Wanted::Bytes(range) => Some(GetRange::Bounded(range)),
            Wanted::From(start) => Some(GetRange::Offset(start)),
            Wanted::Last(bytes) => Some(GetRange::Suffix(bytes)),
        };
        let options = GetOptions { range, ..GetOptions::default() };
        let place = path(name);
        let mut tries = 0..REPLACED;
        let result: GetResult = loop {
            let expected = self.plain(name).await?;
            if self.directory.is_some() && expected.is_none() {
                return Ok(None);
            }
            let asked = self.inner.get_opts(&place, options.clone());
            let result = match self.patiently(Doing::Read, name, asked).await {
                Ok(result) => result,
                Err(error) if error.is_missing() => return Ok(None),
                Err(error) => return Err(error),
            };
            // What was opened is what was looked at, or is not read.
            let same = match (&result.payload, expected) {
                (GetResultPayload::File(file, _), Some(expected)) => {
                    files::opened(file).is_ok_and(|opened| opened == expected)
                }
                (_, expected) => expected.is_none(),
            };
            if same {
                break result;
            }
            if tries.next().is_none() {
                return Err(self.error(Doing::Read, name, "it is replaced all the time"));
            }
        };
        let (size, range) = (result.meta.size, result.range.clone());
        let (store, name) = (self.clone(), name.to_owned());
        let told = move |error| store.fail(Doing::Read, &name, error);
        Ok(Some(Reading { size, range, bytes: result.into_stream().map_err(told).boxed() }))
    }

    /// Which file lies under a name, in a store that is a directory.
    async fn plain(&self, name: &str) -> Result<Option<files::Identity>, StoreError> {
        let Some(directory) = self.directory.clone() else { return Ok(None) };
        let wanted = name.to_owned();
        let look = tokio::task::spawn_blocking(move || files::plain(&directory, &wanted));
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(error))) => Err(self.error(Doing::Read, name, &error.to_string())),
            Ok(Err(error)) => Err(self.error(Doing::Read, name, &error.to_string())),
            Err(_) => Err(self.timed_out(Doing::Read, name)),
        }
    }

    /// What is known of a blob; `None`: it is not there.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn about(&self, name: &str) -> Result<Option<About>, StoreError> {
        match self.patiently(Doing::Read, name, self.inner.head(&path(name))).await {
            Ok(meta) => Ok(Some(about(&meta))),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All blobs under a name that ends with `/`, by their whole names.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn list(&self, under: &str) -> Result<BTreeMap<String, About>, StoreError> {
        let mut found = BTreeMap::new();
        let mut list = self.inner.list(Some(&path(under)));
        loop {
            let next = tokio::time::timeout(PATIENCE, list.try_next()).await;
            let next = next.map_err(|_| self.timed_out(Doing::List, under))?;
            match next.map_err(|error| self.fail(Doing::List, under, error)) {
                Ok(Some(meta)) => drop(found.insert(meta.location.to_string(), about(&meta))),
                Ok(None) => return Ok(found),
                Err(error) if error.is_missing() => return Ok(found),
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a blob. It is no error if it is not there.
    ///
    /// # Errors
    /// The store does not answer, or does not let us.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.patiently(Doing::Remove, name, self.inner.delete(&path(name))).await {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    async fn patiently<T>(
        &self,
        doing: Doing,
        name: &str,
        operation: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(PATIENCE, operation).await {
            Ok(result) => result.map_err(|error| self.fail(doing, name, error)),
            Err(_) => Err(self.timed_out(doing, name)),
        }
    }

    fn fail(&self, doing: Doing, name: &str, source: object_store::Error) -> StoreError {
        StoreError { store: self.shown.clone(), doing, name: name.to_owned(), source }
    }

    fn timed_out(&self, doing: Doing, name: &str) -> StoreError {
        self.error(doing, name, &format!("no answer within {} s", PATIENCE.as_secs()))
    }

    fn error(&self, doing: Doing, name: &str, why: &str) -> StoreError {
        let source = object_store::Error::Generic { store: "blob store", source: why.into() };
        self.fail(doing, name, source)
    }
}

/// Names are made here, of hashes and constants: each is a path as it stands.
fn path(name: &str) -> Path {
    Path::from(name)
}

fn about(meta: &object_store::ObjectMeta) -> About {
    let written_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
    About { bytes: meta.size, written_ms }
}
