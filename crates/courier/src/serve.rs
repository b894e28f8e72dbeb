//! `/metrics` and `/healthz`. Who asks cannot keep the courier from its work: there are few
//! connections at a time, and none for long.

use crate::metrics::{CONTENT_TYPE, Metrics};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections at a time; further ones wait in the listener's queue.
const CONNECTIONS: usize = 64;

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(2);

/// How long a connection may last: it is for one request.
const LONGEST: Duration = Duration::from_secs(10);

/// How long to wait after the kernel could not give a connection.
const PAUSE: Duration = Duration::from_secs(1);

/// What `/healthz` says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Health {
    /// Whether the courier does its work. Troubles of others leave it healthy: a restart would not
    /// help.
    pub(crate) healthy: bool,
    /// Its version.
    pub(crate) version: &'static str,
    /// Seconds since the source was found as it should be.
    pub(crate) last_success_age_seconds: u64,
    /// The generation handed over last.
    pub(crate) generation: Option<u64>,
    /// Why nothing can be fetched.
    pub(crate) source_trouble: Option<String>,
    /// Why the daemon does not answer.
    pub(crate) daemon_trouble: Option<String>,
    /// Why the control plane takes no reports.
    pub(crate) control_trouble: Option<String>,
}

/// What is asked about.
pub(crate) trait Watched: Send + Sync + 'static {
    /// What is counted.
    fn metrics(&self) -> &Metrics;
    /// How it stands.
    fn health(&self) -> Health;
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, watched: Arc<impl Watched>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let watched = Arc::clone(&watched);
                tokio::spawn(async move {
                    // A client that is too slow or gone is its own affair.
                    let _ = timeout(LONGEST, connection(stream, &*watched)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot take a connection for metrics");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, watched: &impl Watched) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), watched);
        async { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics failed");
    }
}

fn answer(method: &Method, path: &str, watched: &impl Watched) -> Response<Full<Bytes>> {
    let reading = matches!(*method, Method::GET | Method::HEAD);
    let (status, kind, text) = match path {
        "/metrics" if reading => (StatusCode::OK, CONTENT_TYPE, watched.metrics().text()),
        "/healthz" if reading => {
            let health = watched.health();
            let status =
                if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let text = serde_json::to_string(&health).expect("invariant: texts and numbers");
            (status, "application/json", text + "\n")
        }
        "/metrics" | "/healthz" => {
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is for this\n".into())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "there are /metrics and /healthz\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
