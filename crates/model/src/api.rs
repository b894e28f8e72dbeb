//! What travels over the node's socket beside documents, plans and status.

use crate::document::DocumentError;
use crate::glass::UnconfirmedStatus;
use crate::plan::{Plan, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error of the node's API, as RFC 9457 problem details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of error. Stable: scripts may match on it.
    pub kind: ProblemKind,
    /// The HTTP status.
    pub status: u16,
    /// One line.
    pub title: String,
    /// Per place in the document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<DocumentError>,
}

/// What kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The document is not valid.
    InvalidDocument,
    /// The document is valid and must not be applied: older, or suddenly empty.
    GuardedDocument,
    /// The request is larger than allowed.
    TooLarge,
    /// The request makes no sense here.
    BadRequest,
    /// Who asks has not said who he is, or it is not true any more.
    Unauthorized,
    /// Who asks has no right to it.
    Forbidden,
    /// There is no such resource.
    NotFound,
    /// What is asked for does not go together with how the host stands.
    Conflict,
    /// A change must say which revision it changes, with `If-Match`.
    PreconditionRequired,
    /// Somebody else changed it meanwhile.
    PreconditionFailed,
    /// What is needed for this cannot be reached: the database, the blob store.
    Unavailable,
    /// Too many ask for the same at once.
    Busy,
    /// The host could not store what it must.
    Storage,
    /// The daemon failed.
    Internal,
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyReport {
    /// How it ended.
    pub outcome: ApplyOutcome,
    /// The plan that was carried out. Its refusals are those known beforehand.
    pub plan: Plan,
    /// Per step of the plan.
    pub results: Vec<StepResult>,
    /// All refusals: the plan's, and steps that failed.
    pub refusals: Vec<Refusal>,
    /// From the request's arrival to the last visible step, in microseconds.
    pub visible_micros: u64,
    /// From the request's arrival to the end of the last step, in microseconds.
    pub total_micros: u64,
    /// By when it must be confirmed, or the host returns by itself; `None`: it need not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<UnconfirmedStatus>,
}

/// How an apply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApplyOutcome {
    /// Nothing had to be done.
    Unchanged,
    /// All of it was done, but for what waits for its interface.
    Applied,
    /// Nothing had to be done, and some chains wait for their interfaces.
    Pending,
    /// Some of it was refused; the rest was done.
    Partly,
    /// All of it was refused.
    Refused,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepResult {
    /// What it is, in words.
    pub step: String,
    /// How it ended.
    pub outcome: StepOutcome,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Done.
    Done,
    /// It failed; what it was to change is as before.
    Failed(String),
    /// Not tried, because an earlier step it needs failed.
    Skipped,
}

/// What a drain removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainReport {
    /// Per step.
    pub results: Vec<StepResult>,
    /// What could not be removed.
    pub failures: Vec<String>,
}

/// What this host can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// Kernel release.
    pub kernel: String,
    /// The checks, in the order an operator should read them.
    pub checks: Vec<Check>,
}

/// One check of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it stands.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What follows from it, or what to do.
    pub consequence: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works with less.
    Limited,
    /// Does not work until something is done.
    Broken,
}
