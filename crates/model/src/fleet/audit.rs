//! Who changed what, and when.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One change. Never altered, never removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Rises by one with every change.
    pub number: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Who: the name of a token, `node NAME`, or `control` itself.
    pub who: String,
    /// From where: an address, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What was done: `create`, `update`, `delete`, `publish`, `enrol`, `revoke`, `login` and the
    /// like.
    pub verb: String,
    /// To what: `policy edge-guard`, `node edge-17`.
    pub object: String,
    /// How it was before; `None`: it was not there, or it is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// How it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}
