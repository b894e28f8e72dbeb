//! The control plane's HTTP API.
//!
//! [`requests`] has a function per request, [`session`] says where to and with which token,
//! [`error`] what can go wrong. Redirects are not followed and a token goes only where it was
//! saved for.

mod error;
mod requests;
mod session;

use crate::render::text::printable_value;
use futures_util::StreamExt as _;
use pointsman_model::api::Problem;
use pointsman_model::fleet::{MAX_PAGE, Page};
use reqwest::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Body, Certificate, Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;

pub(crate) use error::ControlError;
pub(crate) use requests::{Found, Publishing, Signer, Trouble};
pub(crate) use session::{Session, control_url, file, is_open, resolve, token};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the control plane may take for what needs no more than its database.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer read: above the longest list of differences, far below what hurts.
const MAX_ANSWER: usize = 256 << 20;

/// The largest file of certificates.
const MAX_CA: usize = 4 << 20;

/// A control plane, and who talks to it.
#[derive(Debug)]
pub(crate) struct Control {
    http: Client,
    base: Url,
    token: String,
    /// Whether answers keep control characters, as for JSON output.
    verbatim: bool,
}

/// Which resource as it was is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revision {
    /// This one.
    At(u64),
    /// None: it is to be made.
    Absent,
}

/// A request that is not sent yet.
#[derive(Debug)]
struct Call<'a> {
    control: &'a Control,
    method: Method,
    /// What errors call it.
    name: String,
    request: RequestBuilder,
    /// `None`: it takes as long as it takes, and giving up would not stop it.
    timeout: Option<Duration>,
}

impl Control {
    pub(crate) fn new(session: &Session, verbatim: bool) -> Result<Self, ControlError> {
        let base = control_url(&session.url)?;
        let certificates = session.ca.as_deref().map(certificates).transpose()?;
        let http = Client::builder()
            .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_certs_merge(certificates.unwrap_or_default())
            .build()
            .map_err(ControlError::Http)?;
        Ok(Self { http, base, token: session.token.clone(), verbatim })
    }

    /// A request for a path, given in its parts.
    fn call(&self, method: Method, path: &[&str]) -> Call<'_> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("invariant: http URLs have a path")
            .pop_if_empty()
            .extend(path);
        let request = self
            .http
            .request(method.clone(), url)
            .bearer_auth(&self.token)
            .header(ACCEPT, "application/json, application/problem+json");
        let name = format!("{method} /{}", path.join("/"));
        Call { control: self, method, name, request, timeout: Some(ANSWER_TIMEOUT) }
    }

    fn get(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::GET, path)
    }

    fn parse<T: DeserializeOwned>(
        &self,
        answer: &[u8],
    ) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
        let mut json = serde_json::Deserializer::from_slice(answer);
        if self.verbatim {
            return serde_path_to_error::deserialize(&mut json);
        }
        let value = serde_path_to_error::deserialize(&mut json)?;
        serde_path_to_error::deserialize(printable_value(value))
    }
}

impl Call<'_> {
    fn query(mut self, pairs: &[(&str, String)]) -> Self {
        self.request = self.request.query(pairs);
        self
    }

    fn json(self, body: &impl Serialize) -> Self {
        self.json_text(serde_json::to_vec(body).expect("invariant: API values are JSON"))
    }

    /// A body that somebody wrote: the control plane judges it.
    fn json_text(mut self, body: Vec<u8>) -> Self {
        self.request = self.request.header(CONTENT_TYPE, "application/json").body(body);
        self
    }

    fn octets(mut self, bytes: u64, body: Body) -> Self {
        self.request = self
            .request
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(reqwest::header::CONTENT_LENGTH, bytes)
            .body(body);
        self
    }

    fn revision(mut self, revision: Revision) -> Self {
        self.request = match revision {
            Revision::At(revision) => self.request.header(IF_MATCH, format!("\"{revision}\"")),
            Revision::Absent => self.request.header(IF_NONE_MATCH, "*"),
        };
        self
    }

    fn unhurried(mut self) -> Self {
        self.timeout = None;
        self
    }

    async fn read<T: DeserializeOwned>(self) -> Result<T, ControlError> {
        let (control, request) = (self.control, self.name.clone());
        let answer = self.bytes().await?;
        control.parse(&answer).map_err(|source| ControlError::Malformed { request, source })
    }

    async fn done(self) -> Result<(), ControlError> {
        self.bytes().await.map(drop)
    }

    /// Sends it, and reads the whole answer.
    async fn bytes(self) -> Result<Vec<u8>, ControlError> {
        let Self { control, method, name, request, timeout } = self;
        let changes = method != Method::GET;
        let cut_off = |source| ControlError::CutOff { request: name.clone(), changes, source };
        let exchange = async {
            let response = request.send().await.map_err(|source| {
                if source.is_connect() {
                    let url = control.base.to_string();
                    return ControlError::Unreachable { url, source: source.without_url() };
                }
                cut_off(source.without_url())
            })?;
            let status = response.status();
            let body = whole(response).await.map_err(|error| match error {
                Cut::Source(source) => cut_off(source.without_url()),
                Cut::TooLarge => {
                    ControlError::TooLarge { request: name.clone(), limit: MAX_ANSWER }
                }
            })?;
            Ok((status, body))
        };
        let (status, body) = match timeout {
            None => exchange.await?,
            Some(after) => tokio::time::timeout(after, exchange)
                .await
                .map_err(|_| ControlError::Timeout { request: name.clone(), changes, after })??,
        };
        if status.is_success() {
            return Ok(body);
        }
        Err(control.refusal(name.clone(), status, &body))
    }
}

impl Control {
    fn refusal(&self, request: String, status: StatusCode, body: &[u8]) -> ControlError {
        match self.parse::<Problem>(body) {
            Ok(problem) => ControlError::Problem { problem },
            Err(_) => ControlError::Strange { request, status, url: self.base.to_string() },
        }
    }

    /// All items of a list, page after page, up to `most`.
    async fn pages<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        most: usize,
    ) -> Result<Page<T>, ControlError> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let left = most - items.len();
            let limit = left.min(MAX_PAGE as usize);
            let mut query = query.to_vec();
            query.push(("limit", limit.to_string()));
            query.extend(after.iter().map(|after| ("after", after.clone())));
            let call = self.get(path).query(&query);
            let request = call.name.clone();
            let page: Page<T> = call.read().await?;
            items.extend(page.items.into_iter().take(left));
            match page.next {
                Some(next) if items.len() < most => {
                    if after.as_ref() == Some(&next) {
                        return Err(ControlError::Pages { request });
                    }
                    after = Some(next);
                }
                next => return Ok(Page { items, next }),
            }
        }
    }
}

enum Cut {
    Source(reqwest::Error),
    TooLarge,
}

/// The whole body, within the limit.
async fn whole(response: Response) -> Result<Vec<u8>, Cut> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(Cut::Source)?;
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(Cut::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The certificates in a file.
fn certificates(file: &Path) -> Result<Vec<Certificate>, ControlError> {
    let bad = |why: String| ControlError::Ca { file: file.to_owned(), why };
    let read = || {
        use std::io::Read as _;
        let mut text = Vec::new();
        std::fs::File::open(file)?.take(MAX_CA as u64 + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error: std::io::Error| bad(error.to_string()))?;
    if text.len() > MAX_CA {
        return Err(bad(format!("is larger than the limit of {MAX_CA} bytes for certificates")));
    }
    let certificates = Certificate::from_pem_bundle(&text)
        .map_err(|error| bad(format!("holds no certificates: {}", error::chain(&error))))?;
    if certificates.is_empty() {
        return Err(bad("holds no certificate: expected PEM, -----BEGIN CERTIFICATE-----".into()));
    }
    Ok(certificates)
}
