//! Breaking the glass: what a bypass, a rollback and an apply that wants to be confirmed answer.

use crate::api::{ApplyReport, StepResult};
use crate::event::Event;
use crate::plan::Refusal;
use crate::{HookId, Sha256};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The shortest time after which something is undone by itself, in seconds.
pub const SHORTEST_SECONDS: u64 = 1;

/// The longest one, in seconds: a day. What is to stay for longer is no emergency.
pub const LONGEST_SECONDS: u64 = 24 * 60 * 60;

/// A hook whose chain is replaced by an empty one, so that every packet passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BypassStatus {
    /// Since when, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Until when, in milliseconds since the Unix epoch; `None`: until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_ms: Option<u64>,
    /// Milliseconds that are left; `None`: no end is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
    /// The user who asked for it; `None`: the socket did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// What beginning or ending a bypass did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BypassReport {
    /// The hook.
    pub hook: HookId,
    /// How it is bypassed now; `None`: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bypass: Option<BypassStatus>,
    /// Whether the hook was bypassed before.
    pub was_bypassed: bool,
    /// Per step.
    pub results: Vec<StepResult>,
    /// What could not be done.
    pub refusals: Vec<Refusal>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// From the request's arrival to the swap, in microseconds; 0: there was none.
    pub visible_micros: u64,
    /// From the request's arrival to the end of the last step, in microseconds.
    pub total_micros: u64,
}

/// A document that is in force and waits to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnconfirmedStatus {
    /// Its generation.
    pub generation: u64,
    /// When the host returns by itself, in milliseconds since the Unix epoch.
    pub until_unix_ms: u64,
    /// Milliseconds that are left; 0: the host returns now.
    pub remaining_ms: u64,
    /// The generation that it returns to; `None`: nothing of ours will run, as after a drain.
    pub back_to: Option<u64>,
}

/// What a confirmation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfirmReport {
    /// The generation that is in force for good.
    pub generation: u64,
    /// Milliseconds that were left; `None`: it was confirmed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RollbackReport {
    /// The generation that was in force.
    pub from: u64,
    /// The generation that is in force now.
    pub to: u64,
    /// How it was carried out.
    pub report: ApplyReport,
}

/// The generations that a host can return to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Generations {
    /// In the order in which they came into force.
    pub generations: Vec<GenerationInfo>,
    /// How many good ones are kept.
    pub keep: usize,
    /// What their documents and objects take on disk together, in bytes. What several of them
    /// share is counted once.
    pub bytes: u64,
}

/// One document with its objects, as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerationInfo {
    /// Its generation.
    pub generation: u64,
    /// When it came into force, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Whether it is in force.
    pub current: bool,
    /// Whether all of it was carried out, and confirmed where that was asked for.
    pub good: bool,
    /// Whether somebody returned from it: it comes back only when an operator asks for it.
    pub rolled_back: bool,
    /// The hash of its document.
    pub document: Sha256,
    /// How many objects belong to it.
    pub objects: usize,
    /// What its document and its objects take on disk, in bytes.
    pub bytes: u64,
}

/// A part of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The sequence number of the last event there is; 0: there is none. Ask for what comes after
    /// the last event of this page, or after this where the page is empty.
    pub last: u64,
    /// Why events are not written to disk; `None`: they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_on_disk: Option<String>,
}
