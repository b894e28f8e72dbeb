//! The control plane, as far as a courier talks to it beside its blobs.

use crate::Secret;
use crate::source::{Client, SourceError, as_directory, expect, shown};
use hyper::header::CONTENT_TYPE;
use pointsman_model::fleet::NodeReport;
use reqwest::StatusCode;
use std::future::Future;
use url::Url;

/// What takes reports.
pub trait Control: Send {
    /// Sends a report.
    fn report(
        &mut self,
        report: &NodeReport,
    ) -> impl Future<Output = Result<Taken, SourceError>> + Send;
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was taken.
    Yes,
    /// What it leaves out is not known there: all of it is needed.
    WantsAll,
}

/// A control plane behind HTTP.
#[derive(Debug, Clone)]
pub struct HttpControl {
    client: Client,
    url: Url,
    credential: Secret,
}

impl HttpControl {
    /// The control plane at `base`, for the node whose credential that is.
    #[must_use]
    pub fn new(client: Client, base: Url, credential: Secret) -> Self {
        let url = api(base, "report");
        Self { client, url, credential }
    }
}

/// The URL of something of the control plane's API.
pub(crate) fn api(base: Url, name: &str) -> Url {
    as_directory(base).join(&format!("v1/{name}")).expect("invariant: it is a relative URL")
}

/// Lets an answer of the API pass; a redirect is not followed, because what is sent there is a
/// secret.
pub(crate) fn answered(
    wanted: &[StatusCode],
    url: &Url,
    response: reqwest::Response,
) -> Result<reqwest::Response, SourceError> {
    if response.status().is_redirection() {
        let to = response.headers().get(hyper::header::LOCATION);
        let to = to.and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
        return Err(SourceError::Redirect {
            what: shown(url),
            to: to.map_or_else(|| "nowhere".to_owned(), |to| shown(&to)),
            why: "what is sent there is secret; enrol with the control plane's own URL",
        });
    }
    expect(wanted, url, response)
}

impl Control for HttpControl {
    async fn report(&mut self, report: &NodeReport) -> Result<Taken, SourceError> {
        let body = serde_json::to_vec(report)
            .expect("invariant: the types of the API have string keys and are JSON");
        let request = self
            .client
            .0
            .put(self.url.clone())
            .bearer_auth(self.credential.expose())
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let response = self.client.send(request, &self.url).await?;
        let wanted = [StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::CONFLICT];
        let response = answered(&wanted, &self.url, response)?;
        let conflict = response.status() == StatusCode::CONFLICT;
        Ok(if conflict { Taken::WantsAll } else { Taken::Yes })
    }
}
