//! How the command ends: exit codes, and errors for people and for programs.

use crate::client::ClientError;
use crate::control::ControlError;
use crate::render::text::printable;
use pointsman_model::api::Problem;
use pointsman_model::document::DocumentError;
use serde::Serialize;
use std::io::{self, Write as _};
use std::path::PathBuf;
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
    #[error("{name} is binary, and standard output is a terminal: give --output FILE")]
    Binary { name: String },
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{what}: not confirmed, nothing was changed")]
    Declined { what: &'static str },
    #[error("the editor {editor:?} {why}; VISUAL or EDITOR names another")]
    Editor { editor: String, why: String },
    #[error("{name} is larger than the limit of {limit} bytes for {what}")]
    FileTooLarge { name: String, what: &'static str, limit: usize },
    #[error(
        "{what}: standard input is not a terminal to ask on; give --yes to {what} without asking"
    )]
    NeedsYes { what: &'static str },
    #[error("{error}\nwhat was written is kept in {}", file.display())]
    Kept { error: Box<CliError>, file: PathBuf },
    #[error("{what} {name} changed again and again meanwhile; try again")]
    Contended { what: &'static str, name: String },
    #[error("{by} changed the same meanwhile (revision {revision}): {places}; nothing was saved")]
    Conflict { by: String, revision: u64, places: String },
    #[error("there is no {what} {name}")]
    Absent { what: &'static str, name: String },
    #[error("{what} {name} is there already: {instead}")]
    Present { what: &'static str, name: String, instead: &'static str },
    #[error("{what} {name} was removed meanwhile; nothing was saved")]
    Removed { what: &'static str, name: String },
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
    #[error("{0}")]
    Usage(&'static str),
    #[error("{name}: {why}")]
    Unverified { name: String, why: String },
    #[error("cannot write {name}: {source}")]
    Write { name: String, source: io::Error },
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
            Self::NeedsYes { .. } | Self::Usage(_) => Exit::Usage,
            Self::Unverified { .. } => Exit::Refused,
            Self::Kept { error, .. } => error.exit(),
            _ => Exit::Error,
        }
    }

    /// What the node or the control plane says is wrong, if it is that.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Client(ClientError::Problem { problem, .. }) => Some(problem),
            Self::Control(error) => error.problem(),
            Self::Kept { error, .. } => error.problem(),
            _ => None,
        }
    }

    /// Writes the error to standard error. An error of writing it has nowhere to go.
    pub(crate) fn report(&self, json: bool) {
        let text = if json { self.to_json() } else { self.to_text() };
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    fn to_text(&self) -> String {
        // One line per error, each starting with its JSON pointer: for grep and editors.
        let errors = self.problem().map_or(&[][..], |problem| &problem.errors);
        let lines: String = errors.iter().map(|error| format!("\n{error}")).collect();
        printable(&format!("pointsman: {self}{lines}"))
    }

    fn to_json(&self) -> String {
        let report = match self.problem() {
            Some(Problem { kind, status, title, errors }) => {
                let kind = serde_json::to_value(kind).expect("invariant: a unit variant is a text");
                let kept = self.kept().map_or(String::new(), |kept| format!("\n{kept}"));
                Report { kind, status: Some(*status), title: format!("{title}{kept}"), errors }
            }
            None => Report {
                kind: self.kind().into(),
                status: None,
                title: self.to_string(),
                errors: &[],
            },
        };
        serde_json::to_string_pretty(&report).expect("invariant: a report is JSON")
    }

    /// Where what was written is kept, in words.
    fn kept(&self) -> Option<String> {
        match self {
            Self::Kept { file, .. } => {
                Some(format!("what was written is kept in {}", file.display()))
            }
            _ => None,
        }
    }

    /// A stable name for errors that do not come from the node.
    fn kind(&self) -> &'static str {
        match self {
            Self::Client(error) => error.kind(),
            Self::Absent { .. } => "not_found",
            Self::Binary { .. } | Self::Usage(_) => "usage",
            Self::Conflict { .. } | Self::Contended { .. } | Self::Removed { .. } => "conflict",
            Self::Control(error) => error.kind(),
            Self::Declined { .. } | Self::NeedsYes { .. } => "not_confirmed",
            Self::Editor { .. } => "editor",
            Self::FileTooLarge { .. } => "too_large",
            Self::Kept { error, .. } => error.kind(),
            Self::Present { .. } => "exists",
            Self::Unverified { .. } => "bad_signature",
            Self::Write { .. } => "output",
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
        insta::assert_snapshot!(CliError::NeedsYes { what: "drain" }.to_json(), @r#"
        {
          "kind": "not_confirmed",
          "title": "drain: standard input is not a terminal to ask on; give --yes to drain without asking"
        }
        "#);
    }
}
