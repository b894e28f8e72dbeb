//! What a courier remembers from one life to the next.

use pointsman_model::{FleetName, NodeName, Sha256};
use serde::{Deserialize, Serialize};

/// What was handed over last. Kept beside the record itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The fleet it is of.
    pub fleet: FleetName,
    /// The node it is for.
    pub node: NodeName,
    /// The key that it was verified with; `None`: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The generation that was handed over last.
    pub generation: u64,
    /// The snapshot that it came from; 0: it was not fetched by a courier.
    #[serde(default)]
    pub snapshot: u64,
    /// The objects that it needs and that were fetched for it.
    #[serde(default)]
    pub objects: Vec<Sha256>,
    /// Those of the one before: the daemon may still be reading them.
    #[serde(default)]
    pub previous: Vec<Sha256>,
    /// Whether the operator lets the next record be of an older generation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_generation: bool,
}
