//! What was published before.

use super::error::PublishError;
use super::plan::{Before, Group};
use super::publisher::Inner;
use crate::db::PublishedRecord;
use pointsman_model::FleetName;
use pointsman_snapshot::keys::PublicKey;
use pointsman_snapshot::record::Record;
use serde_json::Value;
use std::collections::HashMap;

/// The documents of groups that have records: of one node each, which stands for all.
pub(super) async fn befores(
    inner: &Inner,
    groups: &[Group],
) -> Result<Vec<Option<Before>>, PublishError> {
    let first = |group: &Group| {
        group.before.as_ref()?;
        group.members.first().map(|(node, _)| node.clone())
    };
    let nodes: Vec<_> = groups.iter().filter_map(first).collect();
    let key = inner.key.public_key();
    let mut found = HashMap::with_capacity(nodes.len());
    for record in inner.db.records_of(&nodes).await? {
        let before = before(&record, key, &inner.fleet);
        found.insert(record.state.node, before);
    }
    let of_group = |group: &Group| {
        let Some(node) = first(group) else { return Ok(None) };
        let before = found.remove(&node).ok_or(PublishError::RecordMissing { node })?;
        Ok(Some(before))
    };
    groups.iter().map(of_group).collect()
}

/// Reads a record. A damaged one has some document, but none that is known: it is made anew, and
/// counts as one that may have programs.
pub(super) fn before(record: &PublishedRecord, key: &PublicKey, fleet: &FleetName) -> Before {
    let node = &record.state.node;
    let parts = Record::parse(record.record.as_deref().unwrap_or_default());
    let is_ours = parts.as_ref().is_ok_and(|parts| parts.verify(key, fleet, node).is_ok());
    if let Err(error) = &parts {
        tracing::warn!(%node, %error, "the node's record in the database is damaged");
    }
    let payload = parts.ok().and_then(|parts| serde_json::from_slice(parts.payload_bytes).ok());
    let document = match payload {
        Some(Value::Object(mut fields)) => fields.remove("document").unwrap_or_default(),
        _ => Value::Null,
    };
    Before { document, is_ours }
}
