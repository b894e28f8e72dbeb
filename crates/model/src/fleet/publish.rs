//! Publishing: what was made for which node.

use crate::document::DocumentError;
use crate::{NodeName, Sha256};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A difference of two texts in the unified format, without file names; empty: they are the same.
pub type UnifiedDiff = String;

/// Asks for what is wanted now to be published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// Only tell what would be published.
    #[serde(default)]
    pub dry_run: bool,
    /// Also publish documents that take the last program off a node. Without it such a node keeps
    /// what it has: an emptied document is more often an accident than a decision.
    #[serde(default)]
    pub allow_empty: bool,
}

/// What a publish did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishReport {
    /// The snapshot that is published now; `None`: a dry run, or nothing changed.
    pub snapshot: Option<Snapshot>,
    /// The nodes whose records changed, or cannot be made. Not: those that stay as they are.
    pub nodes: Vec<NodeChange>,
    /// How many nodes stay as they are.
    pub unchanged: u64,
}

/// What a publish means for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeChange {
    /// The node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// What becomes of it.
    pub outcome: NodeOutcome,
    /// Its generation after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// From the document published before to this one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(value_type = String)]
    pub diff: UnifiedDiff,
    /// Why it keeps what it has: policies that do not go together, for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<DocumentError>,
}

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeOutcome {
    /// It gets a new generation.
    Changed,
    /// It gets its first.
    Added,
    /// Its document would be empty now, and nobody allowed that: it keeps what it has.
    WouldEmpty,
    /// No document can be made for it: it keeps what it has.
    Refused,
    /// It left the fleet: there is no record of it any more.
    Removed,
}

/// Everything that was published at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Rises by one with every publish.
    pub number: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Who asked for it: the name of a token, or `control`.
    pub by: String,
    /// Why.
    pub cause: Cause,
    /// How many nodes have a record in it.
    pub nodes: u64,
    /// How many of them differ from the snapshot before.
    pub changed: u64,
    /// Its shards, in order.
    #[schema(value_type = Vec<String>)]
    pub shards: Vec<Sha256>,
    /// How many bytes were written for it.
    pub bytes_written: u64,
}

/// Why something was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody asked.
    Request,
    /// Something changed, and changes are published at once.
    Change,
    /// It was time.
    Interval,
}
