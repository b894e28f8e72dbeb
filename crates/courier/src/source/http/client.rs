//! Connections, and the redirects that are followed on them.

use super::urls::{innermost, shown, unreachable};
use crate::Secret;
use crate::source::{PATIENCE, SourceError, Traffic};
use hyper::header::{self, HeaderMap};
use reqwest::{Response, StatusCode};
use std::time::Duration;
use url::Url;

/// How many redirects in a row are followed.
pub const MAX_REDIRECTS: usize = 5;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

const AGENT: &str = concat!("pointsman-courier/", env!("CARGO_PKG_VERSION"));

/// What is special about the way to the servers.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Certificates in PEM that are trusted beside the system's.
    pub ca: Option<Vec<u8>>,
    /// The proxy for everything; `None`: as the environment says (`HTTPS_PROXY` and the like).
    pub proxy: Option<Secret>,
}

/// The options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no certificate in what was given as one.
    #[error("the CA file holds no certificate in PEM: {0}")]
    Certificate(String),
    /// The proxy is no URL.
    #[error("the proxy is not usable: {0}")]
    Proxy(String),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Connections that are kept alive, and shared by clones. Follows no redirect by itself.
#[derive(Debug, Clone)]
pub struct Client(pub(crate) reqwest::Client);

impl Client {
    /// Sets it up.
    ///
    /// # Errors
    /// [`ClientError`] names the option.
    pub fn new(options: &ClientOptions) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .tcp_keepalive(PATIENCE)
            .tcp_user_timeout(PATIENCE);
        if let Some(pem) = &options.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|error| ClientError::Certificate(innermost(&error)))?;
            if certificates.is_empty() {
                return Err(ClientError::Certificate("it holds none".into()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(proxy) = &options.proxy {
            let proxy = reqwest::Proxy::all(proxy.expose())
                .map_err(|error| ClientError::Proxy(innermost(&error.without_url())))?;
            builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_env()));
        }
        let client = builder.build().map_err(|error| ClientError::Tls(innermost(&error)))?;
        Ok(Self(client))
    }

    /// Sends one request, and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
    ) -> Result<Response, SourceError> {
        match tokio::time::timeout(PATIENCE, request.send()).await {
            Err(_) => Err(SourceError::Timeout { what: shown(url), after: PATIENCE }),
            Ok(Err(error)) => Err(unreachable(url, error)),
            Ok(Ok(response)) => Ok(response),
        }
    }

    /// Gets `url`, and what it redirects to. The credential goes to the origin of `url` alone.
    pub(super) async fn get(
        &self,
        url: &Url,
        credential: Option<&Secret>,
        headers: &HeaderMap,
        traffic: &Traffic,
    ) -> Result<Response, SourceError> {
        let home = url.origin();
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.0.get(at.clone()).headers(headers.clone());
            if let Some(credential) = credential
                && at.origin() == home
            {
                request = request.bearer_auth(credential.expose());
            }
            traffic.request();
            let response = self.send(request, &at).await?;
            let status = response.status();
            if status == StatusCode::NOT_MODIFIED || !status.is_redirection() {
                return Ok(response);
            }
            at = redirected(&at, &response)?;
        }
        let why = "more redirects in a row than are followed";
        Err(SourceError::Redirect { what: shown(url), to: shown(&at), why })
    }
}

/// Where a redirect leads, if it may lead there.
fn redirected(at: &Url, response: &Response) -> Result<Url, SourceError> {
    let what = || shown(at);
    let odd = |why: &str| SourceError::Odd { what: what(), why: why.into() };
    let location = response
        .headers()
        .get(header::LOCATION)
        .ok_or_else(|| odd("it redirects, and does not say where"))?;
    let location = location.to_str().map_err(|_| odd("it redirects to what is no URL"))?;
    let to = at.join(location).map_err(|_| odd("it redirects to what is no URL"))?;
    match (at.scheme(), to.scheme()) {
        ("http" | "https", "https") | ("http", "http") => Ok(to),
        _ => {
            let why = "only redirects within a scheme, or from http to https, are followed";
            Err(SourceError::Redirect { what: what(), to: shown(&to), why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let options = ClientOptions { ca: Some(b"no pem".into()), proxy: None };
        assert!(matches!(Client::new(&options), Err(ClientError::Certificate(_))));
        let proxy = Some(Secret::new("http://me:pw@[bad"));
        let error = Client::new(&ClientOptions { ca: None, proxy }).unwrap_err().to_string();
        assert!(error.contains("proxy") && !error.contains("pw"), "{error}");
    }
}
