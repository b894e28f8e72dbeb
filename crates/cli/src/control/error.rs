//! Why the control plane gave no answer that helps. Each asks something else of the operator.

use crate::args::fleet::TOKEN;
use pointsman_model::api::{Problem, ProblemKind};
use reqwest::StatusCode;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error(
        "{url:?} is no URL of a control plane: {why}; expected one such as \
             https://control.example:8600"
    )]
    BadUrl { url: String, why: String },
    #[error("{}: {why}", file.display())]
    Ca { file: PathBuf, why: String },
    #[error("cannot set up HTTP: {}", chain(.0))]
    Http(#[source] reqwest::Error),
    #[error(
        "{request} was cut off{}: {}", unsure(*.changes),
        chain(.source)
    )]
    CutOff { request: String, changes: bool, source: reqwest::Error },
    #[error(
        "the answer to {request} is not understood: {source}; pointsman and pointsman-control \
         should have the same version"
    )]
    Malformed { request: String, source: serde_path_to_error::Error<serde_json::Error> },
    #[error(
        "no control plane is known: log in with `pointsman fleet login --url URL`, or set \
         POINTSMAN_CONTROL and {TOKEN}"
    )]
    NoControl,
    #[error("neither HOME nor XDG_CONFIG_HOME says where the login is kept; set one, or {TOKEN}")]
    NoHome,
    #[error("no token for {url}: log in with `pointsman fleet login --url {url}`, or set {TOKEN}")]
    NoToken { url: String },
    #[error(
        "the login is for {saved}, and its token is not sent to {url}: log in there with \
         `pointsman fleet login --url {url}`, or set {TOKEN}"
    )]
    OtherControl { saved: String, url: String },
    #[error("the pages of {request} do not end: the same cursor came twice")]
    Pages { request: String },
    #[error("{}{}", problem.title, hint(problem))]
    Problem { problem: Problem },
    #[error("{}: {why}", file.display())]
    Session { file: PathBuf, why: String },
    #[error("{}: {source}", file.display())]
    SessionFile { file: PathBuf, source: io::Error },
    #[error(
        "{} can be read by other users of this host (mode {mode:04o}) and holds a token: \
         chmod 600 {}; if somebody may have read it, revoke the token and log in again",
        file.display(), file.display()
    )]
    SessionOpen { file: PathBuf, mode: u32 },
    #[error(
        "{request} was answered with HTTP status {status} and no reason that pointsman knows: is \
         it pointsman-control that listens at {url}?{}", redirected(*.status)
    )]
    Strange { request: String, status: StatusCode, url: String },
    #[error(
        "{request} was not answered within {} s{}", after.as_secs(), unsure(*.changes)
    )]
    Timeout { request: String, changes: bool, after: Duration },
    #[error("{0}")]
    Token(&'static str),
    #[error(
        "the answer to {request} is larger than {limit} bytes: is it pointsman-control that \
         listens there?"
    )]
    TooLarge { request: String, limit: usize },
    #[error("cannot reach the control plane at {url}: {}", chain(.source))]
    Unreachable { url: String, source: reqwest::Error },
}

impl ControlError {
    /// What the control plane says is wrong, if it is that.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem { problem } => Some(problem),
            _ => None,
        }
    }

    /// Whether the control plane says this.
    pub(crate) fn is(&self, kind: ProblemKind) -> bool {
        self.problem().is_some_and(|problem| problem.kind == kind)
    }

    /// Whether the same may be answered in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::CutOff { .. } | Self::Timeout { .. } | Self::Unreachable { .. } => true,
            Self::Problem { problem } => matches!(
                problem.kind,
                ProblemKind::Busy | ProblemKind::Internal | ProblemKind::Unavailable
            ),
            // What stands in front of a control plane that starts again.
            Self::Strange { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    /// A stable name, for scripts.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => "bad_url",
            Self::Ca { .. } => "bad_certificate",
            Self::Http(_) => "internal",
            Self::CutOff { .. } | Self::Unreachable { .. } => "control_unreachable",
            Self::Malformed { .. }
            | Self::Pages { .. }
            | Self::Strange { .. }
            | Self::TooLarge { .. } => "answer_not_understood",
            Self::NoControl
            | Self::NoHome
            | Self::NoToken { .. }
            | Self::OtherControl { .. }
            | Self::Token(_) => "not_logged_in",
            Self::Problem { .. } => "problem",
            Self::Session { .. } | Self::SessionFile { .. } | Self::SessionOpen { .. } => {
                "unusable_login"
            }
            Self::Timeout { .. } => "timeout",
        }
    }
}

fn unsure(changes: bool) -> &'static str {
    if changes { "; whether it was carried out is unknown" } else { "" }
}

/// What to do about a problem, where that is known here and not there.
fn hint(problem: &Problem) -> &'static str {
    match problem.kind {
        ProblemKind::Unauthorized => {
            " (log in again with `pointsman fleet login`, or set POINTSMAN_TOKEN)"
        }
        ProblemKind::Forbidden => " (`pointsman fleet whoami` shows the role)",
        _ => "",
    }
}

fn redirected(status: StatusCode) -> &'static str {
    // Following would hand the token to whoever is named there.
    if status.is_redirection() { " Redirects are not followed: give the final URL" } else { "" }
}

/// An error and what caused it. Errors often repeat what they wrap.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            if !text.is_empty() {
                text += ": ";
            }
            text += &part;
        }
        next = error.source();
    }
    text
}
