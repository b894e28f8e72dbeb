//! A server of a store directory: conditional requests, ranges, and every kind of misbehaviour.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::serve::Listener;
use axum_server::tls_rustls::RustlsConfig;
use futures_util::{StreamExt as _, stream};
use pointsman_model::Sha256;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use url::Url;

pub(crate) struct Server {
    pub(crate) url: Url,
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
}

/// What is done instead of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Status(u16),
    StatusWith(u16, &'static str, String),
    /// Promises all, sends so much, and breaks the connection.
    Cut(usize),
    /// Sends other bytes with the same length.
    Scrambled,
    /// Answers with a range that was not asked for.
    WrongRange,
    /// Answers to a range with fewer bytes than it says.
    ShortRange,
    /// Knows no ranges.
    NoRanges,
    /// Never ends.
    Endless,
    /// Sends so many bytes at a time, with a pause.
    Slow(usize, Duration),
    /// Sends so much, and then nothing.
    Hold(usize),
    /// These bytes, as if they were it.
    Instead(Vec<u8>),
    Redirect(String),
    /// As well as it can, but without entity tags.
    NoTags,
}

type Rule = (Box<dyn Fn(&Seen) -> bool + Send>, Fault);

#[derive(Default)]
struct Shared {
    root: PathBuf,
    seen: Mutex<Vec<Seen>>,
    rules: Mutex<Vec<Rule>>,
    /// Rises whenever a body is held.
    held: tokio::sync::watch::Sender<u64>,
    replies: Mutex<Vec<(String, StatusCode, String)>>,
    connections: AtomicU64,
    bytes: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Server {
    pub(crate) fn start(root: &Path) -> Self {
        Self::start_on(root, "127.0.0.1:0".parse().unwrap())
    }

    /// On an address that was used before.
    pub(crate) fn start_on(root: &Path, address: SocketAddr) -> Self {
        let shared = Arc::new(Shared { root: root.to_owned(), ..Shared::default() });
        let runtime = runtime();
        let listener = runtime.block_on(listen(address));
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = Counting { listener, shared: Arc::clone(&shared) };
        runtime.spawn(async move { axum::serve(listener, app).await });
        let url = Url::parse(&format!("http://{address}/")).unwrap();
        Self { url, address, shared, runtime: Some(runtime) }
    }

    /// Behind TLS, with a certificate for `localhost` in PEM.
    pub(crate) fn start_tls(root: &Path, certificate: &str, key: &str) -> Self {
        let shared = Arc::new(Shared { root: root.to_owned(), ..Shared::default() });
        let runtime = runtime();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let (certificate, key) = (certificate.as_bytes().to_vec(), key.as_bytes().to_vec());
        runtime.spawn(async move {
            let config = RustlsConfig::from_pem(certificate, key).await.unwrap();
            let server = axum_server::from_tcp_rustls(listener, config).unwrap();
            server.serve(app.into_make_service()).await
        });
        let url = Url::parse(&format!("https://localhost:{}/", address.port())).unwrap();
        Self { url, address, shared, runtime: Some(runtime) }
    }

    /// Makes requests fail that `rule` picks, until [`Self::heal`].
    pub(crate) fn fault(&self, rule: impl Fn(&Seen) -> bool + Send + 'static, fault: Fault) {
        lock(&self.shared.rules).push((Box::new(rule), fault));
    }

    /// Makes requests fail whose path contains `part`.
    pub(crate) fn fault_at(&self, part: &'static str, fault: Fault) {
        self.fault(move |seen| seen.path.contains(part), fault);
    }

    pub(crate) fn heal(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Answers `path` with a status and a text.
    pub(crate) fn reply(&self, path: &str, status: u16, text: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        let mut replies = lock(&self.shared.replies);
        replies.retain(|(known, ..)| known != path);
        replies.push((path.into(), status, text.into()));
    }

    /// The requests since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.shared.seen))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Connections, and bytes in both directions, since the last call.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        (take(&self.shared.connections), take(&self.shared.bytes))
    }

    /// Waits until `count` bodies in all were held.
    pub(crate) fn await_held(&self, count: u64) {
        let mut held = self.shared.held.subscribe();
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(async {
            let wait = held.wait_for(|held| *held >= count);
            tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap().unwrap();
        });
    }

    pub(crate) fn held(&self) -> u64 {
        *self.shared.held.borrow()
    }

    /// Waits until `wanted` finds enough among the requests.
    pub(crate) fn await_seen(&self, wanted: impl Fn(&[Seen]) -> bool) {
        super::process::eventually("a request", || wanted(&lock(&self.shared.seen)).then_some(()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Connections that are held would keep it.
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A server that was there before lets go of its address a moment after its end.
async fn listen(address: SocketAddr) -> TcpListener {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if std::time::Instant::now() > end => panic!("{address}: {error}"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

struct Counting {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Listener for Counting {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        (Counted { stream, shared: Arc::clone(&self.shared) }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Counted {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        self.shared.bytes.fetch_add(read as u64, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &result {
            self.shared.bytes.fetch_add(*written as u64, Ordering::Relaxed);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let text = |name| {
        let value = head.headers.get(name)?;
        Some(HeaderValue::to_str(value).unwrap().to_owned())
    };
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let mut seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        range: text(header::RANGE),
        tag: text(header::IF_NONE_MATCH),
        authorization: text(header::AUTHORIZATION),
        body: body.to_vec(),
        status: 0,
    };
    let fault = {
        let rules = lock(&shared.rules);
        rules.iter().find(|(rule, _)| rule(&seen)).map(|(_, fault)| fault.clone())
    };
    let reply = lock(&shared.replies).iter().find(|(path, ..)| *path == seen.path).cloned();
    let response = match (fault, reply) {
        (Some(fault), _) => misbehave(&shared, &seen, fault),
        (None, Some((_, status, text))) => plain(status, text.into()),
        (None, None) => behave(&shared.root, &seen, true),
    };
    seen.status = response.status().as_u16();
    lock(&shared.seen).push(seen);
    response
}

fn file(root: &Path, path: &str) -> Option<Vec<u8>> {
    // `/bucket/` is how an S3 client asks for the same.
    let name = path.strip_prefix("/blobs/").or_else(|| path.strip_prefix("/bucket/prefix/"))?;
    assert!(!name.contains(".."), "{name}");
    std::fs::read(root.join(name)).ok()
}

fn plain(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn behave(root: &Path, seen: &Seen, tags: bool) -> Response<Body> {
    if seen.path == "/v1/report" {
        return plain(StatusCode::NO_CONTENT, Body::empty());
    }
    let Some(bytes) = file(root, &seen.path) else {
        return plain(StatusCode::NOT_FOUND, "there is no such thing\n".into());
    };
    let tag = format!("\"{}\"", Sha256::of(&bytes).short());
    let mut headers = HeaderMap::new();
    if tags {
        headers.insert(header::ETAG, HeaderValue::from_str(&tag).unwrap());
        // An S3 client insists on it.
        let modified = HeaderValue::from_static("Tue, 01 Sep 2026 00:00:00 GMT");
        headers.insert(header::LAST_MODIFIED, modified);
    }
    let mut response = if tags && seen.tag.as_ref() == Some(&tag) {
        plain(StatusCode::NOT_MODIFIED, Body::empty())
    } else if let Some((first, last)) = seen.range.as_deref().map(|range| parse(range, &bytes)) {
        if first >= bytes.len() {
            plain(StatusCode::RANGE_NOT_SATISFIABLE, Body::empty())
        } else {
            let range = format!("bytes {first}-{last}/{}", bytes.len());
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).unwrap());
            plain(StatusCode::PARTIAL_CONTENT, bytes[first..=last].to_vec().into())
        }
    } else {
        plain(StatusCode::OK, bytes.into())
    };
    response.headers_mut().extend(headers);
    response
}

/// The first and the last byte of `bytes=A-B` or `bytes=A-`.
fn parse(range: &str, bytes: &[u8]) -> (usize, usize) {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let end = bytes.len().saturating_sub(1);
    (first.parse().unwrap(), last.parse().map_or(end, |last: usize| last.min(end)))
}

fn misbehave(shared: &Arc<Shared>, seen: &Seen, fault: Fault) -> Response<Body> {
    let good = |ranged: bool| {
        let mut seen = seen.clone();
        if !ranged {
            seen.range = None;
        }
        behave(&shared.root, &seen, true)
    };
    let whole = file(&shared.root, &seen.path).unwrap_or_default();
    let asked = match seen.range.as_deref().map(|range| parse(range, &whole)) {
        Some((first, last)) if first < whole.len() => whole[first..=last].to_vec(),
        Some(_) => Vec::new(),
        None => whole.clone(),
    };
    // The head of a good answer over a body of our own.
    let over = |length: usize, body: Body| {
        let (mut head, _) = good(true).into_parts();
        head.headers.insert(header::CONTENT_LENGTH, length.into());
        Response::from_parts(head, body)
    };
    match fault {
        Fault::Status(status) => plain(StatusCode::from_u16(status).unwrap(), "no\n".into()),
        Fault::StatusWith(status, name, value) => {
            let mut response = plain(StatusCode::from_u16(status).unwrap(), Body::empty());
            response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
            response
        }
        Fault::Cut(at) => {
            let part = Bytes::copy_from_slice(&asked[..at.min(asked.len())]);
            // The first part has to be on its way before the connection breaks.
            let pause = stream::once(tokio::time::sleep(Duration::from_millis(20)));
            let broken = pause.flat_map(move |()| stream::iter([Err(io::Error::other("cut"))]));
            let body = stream::iter([Ok::<_, io::Error>(part)]).chain(broken);
            over(asked.len(), Body::from_stream(body))
        }
        Fault::Scrambled => {
            over(asked.len(), asked.iter().map(|byte| byte ^ 1).collect::<Vec<_>>().into())
        }
        Fault::Instead(bytes) => {
            let mut response = plain(StatusCode::OK, bytes.into());
            let tag = HeaderValue::from_static("\"instead\"");
            response.headers_mut().insert(header::ETAG, tag);
            response
        }
        Fault::WrongRange => {
            let first = seen.range.as_deref().map_or(0, |range| parse(range, &whole).0);
            let mut other = seen.clone();
            other.range = Some(format!("bytes={}-{}", first + 1, first + asked.len()));
            behave(&shared.root, &other, true)
        }
        Fault::ShortRange => {
            let (mut head, _) = good(true).into_parts();
            head.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(head, asked[..asked.len() / 2].to_vec().into())
        }
        Fault::NoRanges => good(false),
        Fault::NoTags => {
            let mut seen = seen.clone();
            seen.tag = None;
            behave(&shared.root, &seen, false)
        }
        Fault::Endless => {
            let body = stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![7; 64 << 10])));
            plain(StatusCode::OK, Body::from_stream(body))
        }
        Fault::Slow(bytes, pause) => {
            let pieces: Vec<_> = asked.chunks(bytes).map(Bytes::copy_from_slice).collect();
            let body = stream::iter(pieces).then(move |piece| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, io::Error>(piece)
            });
            over(asked.len(), Body::from_stream(body))
        }
        Fault::Hold(at) => {
            let part = Bytes::copy_from_slice(&asked[..at.min(asked.len())]);
            let shared = Arc::clone(shared);
            let held = stream::once(async move {
                shared.held.send_modify(|held| *held += 1);
                std::future::pending::<Result<Bytes, io::Error>>().await
            });
            let body = Body::from_stream(stream::iter([Ok::<_, io::Error>(part)]).chain(held));
            if seen.path == "/v1/report" {
                return plain(StatusCode::OK, body);
            }
            over(asked.len(), body)
        }
        Fault::Redirect(to) => {
            let mut response = plain(StatusCode::TEMPORARY_REDIRECT, Body::empty());
            let to = HeaderValue::from_str(&to).unwrap();
            response.headers_mut().insert(header::LOCATION, to);
            response
        }
    }
}
