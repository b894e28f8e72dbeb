//! The daemon of this host, as its courier sees it.

use crate::source::innermost;
use pointsman_model::status::{Counters, Status};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon may take to answer what needs no kernel work worth mentioning.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the daemon waits for an event before it says that there is none: below what it allows.
const WAIT: Duration = Duration::from_secs(25);

/// The largest answer that is read.
const MAX_ANSWER: usize = 16 << 20;

/// A daemon.
pub trait Node: Send {
    /// How it stands.
    fn look(&mut self) -> impl Future<Output = Result<Look, NodeError>> + Send;

    /// Waits until something has happened after the event numbered `after`, or for a while; gives
    /// the number of the last event. Without a number it gives that at once.
    fn event(&mut self, after: Option<u64>) -> impl Future<Output = Result<u64, NodeError>> + Send;
}

/// How a daemon stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Its status.
    pub status: Status,
    /// Its counters.
    pub counters: Counters,
}

/// Why the daemon does not answer. One line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// We may not ask.
    #[error(
        "permission denied on {}: the courier's user has to be in the socket's group (ls -l {})",
        socket.display(), socket.display()
    )]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// Nobody is there.
    #[error("nobody listens on {}: is pointsman-node running?", socket.display())]
    Down {
        /// The socket.
        socket: PathBuf,
    },
    /// It could not be asked, or its answer did not come whole.
    #[error("{}: {request}: {why}", socket.display())]
    Failed {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        request: String,
        /// What went wrong.
        why: String,
    },
}

impl NodeError {
    /// A stable name, for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::Down { .. } => "down",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A daemon behind its socket.
#[derive(Debug, Clone)]
pub struct NodeSocket {
    client: reqwest::Client,
    socket: PathBuf,
}

/// The part of a page of events that matters here: their kinds may be of a later version.
#[derive(Deserialize)]
struct Page {
    last: u64,
}

impl NodeSocket {
    /// The daemon that listens on `socket`, now or later.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let client = reqwest::Client::builder()
            .unix_socket(socket)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("invariant: a client without options can be made");
        Self { client, socket: socket.to_owned() }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, NodeError> {
        let request = format!("GET {path}");
        let failed =
            |why| NodeError::Failed { socket: self.socket.clone(), request: request.clone(), why };
        let answer = async {
            // HTTP/1.1 wants a host; on a unix socket it means nothing.
            let sent = self.client.get(format!("http://localhost{path}")).send().await;
            let response = sent.map_err(|error| self.unreachable(&request, error))?;
            let status = response.status();
            let body = read(response).await.map_err(failed)?;
            if status != StatusCode::OK {
                return Err(failed(problem(status, &body)));
            }
            serde_json::from_slice(&body).map_err(|error| {
                failed(format!(
                    "the answer is not understood: {error}; courier and daemon should have the \
                     same version"
                ))
            })
        };
        tokio::time::timeout(patience, answer)
            .await
            .map_err(|_| failed(format!("no answer within {} s", patience.as_secs())))?
    }

    fn unreachable(&self, request: &str, error: reqwest::Error) -> NodeError {
        let socket = self.socket.clone();
        let mut source = error.source();
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        return NodeError::Down { socket };
                    }
                    io::ErrorKind::PermissionDenied => return NodeError::Denied { socket },
                    _ => {}
                }
            }
            source = error.source();
        }
        let why = innermost(&error.without_url());
        NodeError::Failed { socket, request: request.to_owned(), why }
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(piece) =
        response.chunk().await.map_err(|error| innermost(&error.without_url()))?
    {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What a problem says, in one line.
fn problem(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Title {
        title: String,
    }
    match serde_json::from_slice::<Title>(body) {
        Ok(Title { title }) => format!("{status}: {title}"),
        Err(_) => status.to_string(),
    }
}

impl Node for NodeSocket {
    async fn look(&mut self) -> Result<Look, NodeError> {
        let status = self.get("/v1/status", PATIENCE).await?;
        let counters = self.get("/v1/counters", PATIENCE).await?;
        Ok(Look { status, counters })
    }

    async fn event(&mut self, after: Option<u64>) -> Result<u64, NodeError> {
        let page: Page = match after {
            None => self.get("/v1/events?limit=1", PATIENCE).await?,
            Some(after) => {
                let wait = WAIT.as_secs();
                let path = format!("/v1/events?limit=1&after={after}&wait_seconds={wait}");
                self.get(&path, WAIT + PATIENCE).await?
            }
        };
        Ok(page.last)
    }
}
