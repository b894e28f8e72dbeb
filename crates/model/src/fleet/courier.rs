//! What a courier and the control plane tell each other.

use crate::status::{Counters, Status};
use crate::{FleetName, NodeName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Trades a one-time token for a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The one-time token.
    pub token: String,
}

/// What a node that enrolled works with from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolReply {
    /// The fleet.
    #[schema(value_type = String)]
    pub fleet: FleetName,
    /// The node's name.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// What goes into `Authorization: Bearer` from now on. Shown this once.
    pub credential: String,
    /// The key that records are signed with: the base64 line of a minisign public key.
    pub public_key: String,
    /// Where snapshots are fetched, if not from the control plane itself under `/blobs/`: a URL
    /// with the scheme `file`, `http`, `https` or `s3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What a courier reports of its node. The node is the one that its credential is of.
///
/// A part that is left out and not in trouble is as it was in the report before: most reports of a
/// fleet at rest are small. A courier sends all of it when it starts, after a report that was not
/// taken, every few minutes, and when it is answered with the status 409: the control plane does
/// not know what was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeReport {
    /// The courier itself.
    pub courier: CourierStatus,
    /// The daemon's status; `None`: unchanged, or it does not answer, and `courier.daemon_trouble`
    /// says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The daemon's counters; `None`: as for the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
}

/// How a courier stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CourierStatus {
    /// Its version.
    pub version: String,
    /// How often it asks, in milliseconds.
    pub poll_interval_ms: u64,
    /// The number of the snapshot that it saw last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<u64>,
    /// The generation that it handed to the daemon last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<u64>,
    /// Why it cannot fetch what is published; `None`: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trouble: Option<String>,
    /// Why the daemon does not answer; `None`: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_trouble: Option<String>,
}

/// A snapshot that a node did not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedSnapshot {
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// What kind of fault: `unreadable`, `no_record`, `unsigned`, `bad_signature`, `other_fleet`,
    /// `other_node`, `older`, `invalid`, `too_large`; `incomplete`: its objects are not there yet;
    /// `failed`: the node could not take it, and tries again. Stable: scripts may match on it.
    pub kind: String,
    /// One line.
    pub message: String,
}
