//! A blob store that fails.

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done.
    Refused,
    /// Half of what is written stays.
    Torn,
    /// It is done, and nobody is told.
    Unheard,
}

type Then = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

#[derive(Default)]
struct Script {
    /// How many operations went well before the one that fails.
    well: usize,
    fault: Option<Fault>,
    /// From then on all fail.
    for_good: bool,
    /// Done before the operation.
    then: Option<Then>,
    /// Done after this name was written, before anybody is told.
    written: Option<(&'static str, Then)>,
    hit: bool,
}

/// A store whose operations fail by a script.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

impl Faulty {
    pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// After `well` operations one fails, or all of them.
    pub(crate) fn fail_after(&self, well: usize, fault: Fault, for_good: bool) {
        *self.script.lock().unwrap() =
            Script { well, fault: Some(fault), for_good, ..Script::default() };
    }

    /// Before the operation after `well` others something is done.
    pub(crate) fn before<F>(&self, well: usize, then: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let then: Then = Box::new(move || Box::pin(then()));
        *self.script.lock().unwrap() = Script { well, then: Some(then), ..Script::default() };
    }

    /// After something was written under `name`, and before whoever wrote it is told, something is
    /// done.
    pub(crate) fn after<F>(&self, name: &'static str, then: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let then: Then = Box::new(move || Box::pin(then()));
        *self.script.lock().unwrap() =
            Script { well: usize::MAX, written: Some((name, then)), ..Script::default() };
    }

    /// Whether the script came to its point.
    pub(crate) fn was_hit(&self) -> bool {
        self.script.lock().unwrap().hit
    }

    async fn next(&self) -> Option<Fault> {
        let then = {
            let mut script = self.script.lock().unwrap();
            if script.well > 0 {
                script.well -= 1;
                return None;
            }
            if script.hit && !script.for_good {
                return None;
            }
            script.hit = true;
            match script.then.take() {
                Some(then) => then,
                None => return script.fault,
            }
        };
        then().await;
        None
    }
}

fn failed() -> Error {
    Error::Generic { store: "faulty", source: "as the script says".into() }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        match self.next().await {
            None => {
                let result = self.inner.put_opts(location, payload, options).await;
                let then = {
                    let mut script = self.script.lock().unwrap();
                    let is_it =
                        |(name, _): &mut (&'static str, Then)| *name == location.to_string();
                    script.written.take_if(is_it)
                };
                if let Some((_, then)) = then {
                    self.script.lock().unwrap().hit = true;
                    then().await;
                }
                result
            }
            Some(Fault::Refused) => Err(failed()),
            Some(Fault::Unheard) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(failed())
            }
            Some(Fault::Torn) => {
                let whole: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
                let half = whole[..whole.len() / 2].to_vec();
                self.inner.put_opts(location, half.into(), options).await?;
                Err(failed())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.next().await {
            None => self.inner.get_opts(location, options).await,
            Some(_) => Err(failed()),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let one = move |location: Result<Path>| {
            let this = this.clone();
            async move {
                let location = location?;
                let fault = this.next().await;
                if fault == Some(Fault::Refused) {
                    return Err(failed());
                }
                let asked = futures_util::stream::iter([Ok(location.clone())]).boxed();
                let done = this.inner.delete_stream(asked).collect::<Vec<_>>().await;
                done.into_iter().collect::<Result<Vec<_>>>()?;
                if fault.is_some() { Err(failed()) } else { Ok(location) }
            }
        };
        locations.then(one).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            match this.next().await {
                None => this.inner.list(prefix.as_ref()),
                Some(_) => futures_util::stream::iter([Err(failed())]).boxed(),
            }
        };
        futures_util::stream::once(list).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
