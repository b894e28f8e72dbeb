//! The node's HTTP API over its unix socket: one connection per request.
//!
//! Every way in which a request can fail has its own [`ClientError`], because each one asks
//! something else of the operator.

mod connect;
mod glass;
mod leases;
#[cfg(test)]
mod tests;

use crate::render::text::printable_value;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use pointsman_model::api::{ApplyReport, Doctor, DrainReport, Problem, ProblemKind};
use pointsman_model::plan::Plan;
use pointsman_model::status::{Counters, Status};
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long the node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take to answer what needs no kernel work worth mentioning.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer read: far above the longest verifier log, far below what hurts.
const MAX_ANSWER: usize = 64 << 20;

/// The node behind a socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    /// Whether answers keep control characters. They do as JSON, which escapes them; on a
    /// terminal they could move the cursor and write lines of their own.
    verbatim: bool,
    connect_timeout: Duration,
    answer_timeout: Duration,
    max_answer: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "the node closed the connection before it answered {request}{}: its log says why \
         (journalctl -u pointsman-node)", unsure(.request)
    )]
    Closed { request: &'static str },
    #[error("cannot connect to {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error(
        "{} takes no connection within {} s: pointsman-node runs and does not serve; its log says \
         why (journalctl -u pointsman-node)", socket.display(), after.as_secs()
    )]
    ConnectTimeout { socket: PathBuf, after: Duration },
    #[error(
        "permission denied on {}: use sudo, or an account that the socket admits (ls -l {})",
        socket.display(), socket.display()
    )]
    Denied { socket: PathBuf },
    #[error("{request} failed{}: {source}", unsure(.request))]
    Http { request: &'static str, source: hyper::Error },
    #[error(
        "the answer to {request} is not understood{}: {source}; pointsman and pointsman-node \
         should have the same version", unsure(.request)
    )]
    Malformed { request: &'static str, source: serde_path_to_error::Error<serde_json::Error> },
    #[error(
        "there is no socket {}: start pointsman-node, or name its socket with --node or \
         POINTSMAN_NODE", socket.display()
    )]
    Missing { socket: PathBuf },
    #[error("{}", problem.title)]
    Problem { request: &'static str, problem: Problem },
    #[error(
        "nobody listens on {}: the socket is left over from a node that is gone; start \
         pointsman-node, or name its socket with --node or POINTSMAN_NODE", socket.display()
    )]
    Refused { socket: PathBuf },
    #[error(
        "{request} was answered with HTTP status {status} and no reason that pointsman knows: is \
         it pointsman-node that listens on {}?", socket.display()
    )]
    Strange { request: &'static str, status: StatusCode, socket: PathBuf },
    #[error(
        "the node did not answer {request} within {} s{}: it may be busy with an apply; its log \
         says (journalctl -u pointsman-node)", after.as_secs(), unsure(.request)
    )]
    Timeout { request: &'static str, after: Duration },
    #[error(
        "the answer to {request} is larger than {limit} bytes{}: is it pointsman-node that \
         listens there?", unsure(.request)
    )]
    TooLarge { request: &'static str, limit: usize },
}

/// What to add where a request that changes the host has no answer: it may have been done.
fn unsure(request: &str) -> &'static str {
    if matches!(request, APPLY | DRAIN) || glass::changes(request) || leases::changes(request) {
        "; whether it was carried out is unknown (see pointsman status)"
    } else {
        ""
    }
}

const APPLY: &str = "PUT /v1/document";
const COUNTERS: &str = "GET /v1/counters";
const DOCTOR: &str = "GET /v1/doctor";
const DRAIN: &str = "POST /v1/drain";
const PLAN: &str = "POST /v1/plan";
const STATUS: &str = "GET /v1/status";

impl ClientError {
    /// Whether there is no node to talk to, as while it restarts.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. }
                | Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::Http { .. }
                | Self::Missing { .. }
                | Self::Refused { .. }
        )
    }

    /// Whether the same may be answered in a moment: the node ends, or serves too many.
    pub(crate) fn is_passing(&self) -> bool {
        let Self::Problem { problem, .. } = self else { return false };
        matches!(problem.kind, ProblemKind::Busy | ProblemKind::Internal)
    }

    /// Whether this process may not talk to the node.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// A stable name, for scripts.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Closed { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Http { .. }
            | Self::Missing { .. }
            | Self::Refused { .. } => "node_unreachable",
            Self::Denied { .. } => "permission_denied",
            Self::Malformed { .. } | Self::Strange { .. } | Self::TooLarge { .. } => {
                "answer_not_understood"
            }
            Self::Problem { .. } => "problem",
            Self::Timeout { .. } => "timeout",
        }
    }
}

impl Client {
    /// A client for the node that listens on `socket`. `verbatim` keeps control characters in
    /// answers: for JSON output.
    pub(crate) fn new(socket: &Path, verbatim: bool) -> Self {
        Self {
            socket: socket.to_owned(),
            verbatim,
            connect_timeout: CONNECT_TIMEOUT,
            answer_timeout: ANSWER_TIMEOUT,
            max_answer: MAX_ANSWER,
        }
    }

    pub(crate) async fn status(&self) -> Result<Status, ClientError> {
        self.call(STATUS, "", vec![], Some(self.answer_timeout)).await
    }

    pub(crate) async fn counters(&self) -> Result<Counters, ClientError> {
        self.call(COUNTERS, "", vec![], Some(self.answer_timeout)).await
    }

    /// No timeout: the probes load programs, which a busy host does when it can.
    pub(crate) async fn doctor(&self) -> Result<Doctor, ClientError> {
        self.call(DOCTOR, "", vec![], None).await
    }

    /// No timeout: the verifier may think for long about a large program.
    pub(crate) async fn plan(&self, document: Vec<u8>, gap: bool) -> Result<Plan, ClientError> {
        self.call(PLAN, allow_gap(gap), document, None).await
    }

    /// No timeout: giving up on an answer would not stop the node.
    pub(crate) async fn apply(
        &self,
        document: Vec<u8>,
        gap: bool,
        confirm_within: Option<u64>,
    ) -> Result<ApplyReport, ClientError> {
        let query = match confirm_within {
            None => allow_gap(gap).to_owned(),
            Some(seconds) => format!("?allow_gap={gap}&confirm_within_seconds={seconds}"),
        };
        self.call(APPLY, &query, document, None).await
    }

    /// No timeout, as for [`Self::apply`].
    pub(crate) async fn drain(&self) -> Result<DrainReport, ClientError> {
        self.call(DRAIN, "", vec![], None).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: &'static str,
        query: &str,
        body: Vec<u8>,
        timeout: Option<Duration>,
    ) -> Result<T, ClientError> {
        let stream = connect::connect(&self.socket, self.connect_timeout)?;
        let exchange = self.exchange(stream, request, query, body);
        let (status, answer) = match timeout {
            None => exchange.await?,
            Some(after) => tokio::time::timeout(after, exchange)
                .await
                .map_err(|_| ClientError::Timeout { request, after })??,
        };
        if status.is_success() {
            return self.read(&answer).map_err(|source| ClientError::Malformed { request, source });
        }
        match self.read(&answer) {
            Ok(problem) => Err(ClientError::Problem { request, problem }),
            Err(_) => Err(ClientError::Strange { request, status, socket: self.socket.clone() }),
        }
    }

    /// Sends a request and reads the whole answer.
    async fn exchange(
        &self,
        stream: UnixStream,
        request: &'static str,
        query: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let failed = |source: hyper::Error| explain(request, source);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Its errors come out of the sender and the body as well.
        let driver = tokio::spawn(connection);
        let result = async {
            let answer = sender.send_request(compose(request, query, body)).await;
            let answer: Response<Incoming> = answer.map_err(failed)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), self.max_answer).collect().await;
            match body {
                Ok(body) => Ok((status, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(ClientError::TooLarge { request, limit: self.max_answer })
                }
                Err(error) => match error.downcast::<hyper::Error>() {
                    Ok(error) => Err(failed(*error)),
                    Err(_) => Err(ClientError::Closed { request }),
                },
            }
        };
        let result = result.await;
        driver.abort();
        result
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: &[u8],
    ) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
        if self.verbatim {
            return serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(
                answer,
            ));
        }
        let value =
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(answer))?;
        serde_path_to_error::deserialize(printable_value(value))
    }
}

fn allow_gap(gap: bool) -> &'static str {
    if gap { "?allow_gap=true" } else { "" }
}

fn compose(request: &'static str, query: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    let (method, path) = request.split_once(' ').expect("invariant: requests are METHOD PATH");
    let method: Method = method.parse().expect("invariant: requests have a valid method");
    Request::builder()
        .method(method)
        .uri(format!("{path}{query}"))
        // HTTP/1.1 wants a host; on a unix socket it means nothing.
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, "application/json, application/problem+json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.into()))
        .expect("invariant: the parts of a request are valid")
}

fn explain(request: &'static str, source: hyper::Error) -> ClientError {
    // Which of these hyper reports depends on how far the exchange was when the node went away.
    let gone = |kind| {
        matches!(
            kind,
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
        )
    };
    let inner = std::error::Error::source(&source).and_then(|e| e.downcast_ref::<io::Error>());
    if source.is_incomplete_message()
        || source.is_canceled()
        || source.is_closed()
        || source.is_body_write_aborted()
        || inner.is_some_and(|error| gone(error.kind()))
    {
        return ClientError::Closed { request };
    }
    ClientError::Http { request, source }
}
