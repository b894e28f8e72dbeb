//! How the command ends: exit codes, and errors for people and for programs.

use crate::client::ClientError;
use crate::render::text::printable;
use pointsman_model::api::Problem;
use pointsman_model::document::DocumentError;
use serde::Serialize;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// How the command ended. The numbers are documented in `--help` and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Nothing could be done.
    Error = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Something was refused, failed, or is broken.
    Refused = 3,
    /// A plan has steps.
    Pending = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the command did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("drain: not confirmed, nothing was changed")]
    Declined,
    #[error("{name} is larger than the limit of {limit} bytes for {what}")]
    FileTooLarge { name: String, what: &'static str, limit: usize },
    #[error(
        "drain: standard input is not a terminal to ask on; give --yes to drain without asking"
    )]
    NeedsYes,
    #[error("{name}: {source}")]
    Inspect { name: String, source: pointsman_bpf::Error },
    #[error("there is no built-in program {name:?}; there are {available}")]
    NoBuiltin { name: String, available: String },
    #[error("{name}: no program {entry:?} in the object; it has {available}")]
    NoEntry { name: String, entry: String, available: String },
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    #[error("cannot read {name}: {source}")]
    Read { name: String, source: io::Error },
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
}

/// An error as JSON. A problem that the node reports keeps its fields.
#[derive(Debug, Serialize)]
struct Report<'a> {
    kind: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    title: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [DocumentError],
}

impl CliError {
    /// The exit code for this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::NeedsYes => Exit::Usage,
            _ => Exit::Error,
        }
    }

    /// Writes the error to standard error. An error of writing it has nowhere to go.
    pub(crate) fn report(&self, json: bool) {
        let text = if json { self.to_json() } else { self.to_text() };
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    fn to_text(&self) -> String {
        let Self::Client(ClientError::Problem { problem, .. }) = self else {
            return printable(&format!("pointsman: {self}"));
        };
        // One line per error, each starting with its JSON pointer: for grep and editors.
        let lines = problem.errors.iter().map(|error| format!("\n{error}"));
        printable(&format!("pointsman: {self}{}", lines.collect::<String>()))
    }

    fn to_json(&self) -> String {
        let report = match self {
            Self::Client(ClientError::Problem { problem, .. }) => {
                let Problem { kind, status, title, errors } = problem;
                let kind = serde_json::to_value(kind).expect("invariant: a unit variant is a text");
                Report { kind, status: Some(*status), title: title.clone(), errors }
            }
            other => Report {
                kind: other.kind().into(),
                status: None,
                title: other.to_string(),
                errors: &[],
            },
        };
        serde_json::to_string_pretty(&report).expect("invariant: a report is JSON")
    }

    /// A stable name for errors that do not come from the node.
    fn kind(&self) -> &'static str {
        match self {
            Self::Client(error) => error.kind(),
            Self::Declined | Self::NeedsYes => "not_confirmed",
            Self::FileTooLarge { .. } => "too_large",
            Self::Inspect { .. } => "not_an_object",
            Self::NoBuiltin { .. } | Self::NoEntry { .. } => "not_found",
            Self::Output(_) => "output",
            Self::Read { .. } => "unreadable_file",
            Self::Runtime(_) => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::api::ProblemKind;

    fn invalid() -> CliError {
        let error = |pointer: &str, message: &str| DocumentError {
            pointer: pointer.into(),
            message: message.into(),
        };
        CliError::Client(ClientError::Problem {
            request: "PUT /v1/document",
            problem: Problem {
                kind: ProblemKind::InvalidDocument,
                status: 422,
                title: "the document is not valid".into(),
                errors: vec![
                    error("/generation", "expected a number of at least 1"),
                    error("", "trailing \u{1b}[31mcharacters"),
                ],
            },
        })
    }

    #[test]
    fn every_error_of_a_document_has_its_line_and_no_control_characters() {
        insta::assert_snapshot!(invalid().to_text(), @"
        pointsman: the document is not valid
        /generation: expected a number of at least 1
        document: trailing ?[31mcharacters
        ");
    }

    #[test]
    fn json_errors_keep_what_the_node_said() {
        insta::assert_snapshot!(invalid().to_json(), @r#"
        {
          "kind": "invalid_document",
          "status": 422,
          "title": "the document is not valid",
          "errors": [
            {
              "pointer": "/generation",
              "message": "expected a number of at least 1"
            },
            {
              "pointer": "",
              "message": "trailing \u001b[31mcharacters"
            }
          ]
        }
        "#);
        insta::assert_snapshot!(CliError::NeedsYes.to_json(), @r#"
        {
          "kind": "not_confirmed",
          "title": "drain: standard input is not a terminal to ask on; give --yes to drain without asking"
        }
        "#);
    }
}
