//! Shards: the records of many nodes in one file.

use super::error::PublishError;
use crate::db::Db;
use pointsman_model::{NodeName, Sha256};
use pointsman_snapshot::cdb::Writer;

/// How many records are read at once.
const AT_ONCE: usize = 256;

/// Makes the shard of these nodes, which come ordered by name: the same records make the same
/// bytes.
pub(super) async fn make(db: &Db, nodes: &[NodeName]) -> Result<(Sha256, Vec<u8>), PublishError> {
    let mut writer = Writer::new();
    for nodes in nodes.chunks(AT_ONCE) {
        let records = db.records_of(nodes).await?;
        let mut records = records.into_iter();
        for node in nodes {
            let record = records.next().filter(|record| record.state.node == *node);
            let bytes = record.and_then(|record| record.record);
            let bytes = bytes.ok_or_else(|| PublishError::RecordMissing { node: node.clone() })?;
            writer
                .add(node.as_str().as_bytes(), &bytes)
                .map_err(|source| PublishError::Shard { nodes: writer.len() + 1, source })?;
        }
    }
    let made = tokio::task::spawn_blocking(|| {
        let bytes = writer.finish();
        (Sha256::of(&bytes), bytes)
    });
    made.await.map_err(|_| PublishError::Stopping)
}
