//! What is published, byte for byte. `docs/snapshot.md` is the reference.
//!
//! A record is a minisign signature file, its four lines, and right behind them the payload that
//! is signed: [`RecordPayload`] as JSON. Splitting after the fourth line gives what `minisign -V`
//! takes.

use crate::{FleetName, NodeName, Sha256};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The form of a payload.
pub const RECORD_SCHEMA: &str = "pointsman.record/v1";

/// The form of `latest`.
pub const LATEST_SCHEMA: &str = "pointsman.latest/v1";

/// The largest record, in bytes: the largest document, and room for what is around it.
pub const MAX_RECORD: usize = crate::document::MAX_BYTES + (64 << 10);

/// The most shards of a snapshot: `latest` names each, and is fetched whole.
pub const MAX_SHARDS: usize = 64;

/// What is signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordPayload {
    /// [`RECORD_SCHEMA`].
    pub schema: String,
    /// The fleet that it is of.
    #[schema(value_type = String)]
    pub fleet: FleetName,
    /// The node that it is for; the same as the document's.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// The same as the document's.
    pub generation: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub issued_unix_ms: u64,
    /// The objects that the document needs and that are fetched beside it.
    #[serde(default)]
    pub objects: Vec<RecordObject>,
    /// The node document.
    pub document: Value,
}

/// An object that is published beside the records, as `objects/SHA256`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordObject {
    /// Its hash.
    #[schema(value_type = String)]
    pub sha256: Sha256,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The one name that changes: which shards are in force. Not signed: whoever alters it can hold
/// records back, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Latest {
    /// [`LATEST_SCHEMA`].
    pub schema: String,
    /// The fleet.
    #[schema(value_type = String)]
    pub fleet: FleetName,
    /// The snapshot's number.
    pub snapshot: u64,
    /// The shards, a power of two of them. A node's record is in the one that the first bits of
    /// the SHA-256 of its name say.
    #[schema(value_type = Vec<String>)]
    pub shards: Vec<Sha256>,
}

impl Latest {
    /// The place in [`Self::shards`] that a node's record has.
    #[must_use]
    pub fn place(node: &NodeName, shards: usize) -> usize {
        let hash = Sha256::of(node.as_str().as_bytes()).to_string();
        let first = u32::from_str_radix(&hash[..8], 16)
            .expect("invariant: a hash is written in hexadecimal digits");
        first as usize % shards.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_one_shard_and_they_are_used_alike() {
        let mut used = [0; MAX_SHARDS];
        for number in 0..10_000 {
            let node = NodeName::new(format!("node-{number}")).unwrap();
            used[Latest::place(&node, MAX_SHARDS)] += 1;
            assert_eq!(Latest::place(&node, 1), 0);
        }
        assert!(used.iter().all(|&nodes| (100..220).contains(&nodes)), "{used:?}");
    }
}
