//! A database that was restored from a backup does not know the generations that were used since.
//! The blob store does: its records are signed by us.
//!
//! The store is what survived, not what can be trusted to be whole: what cannot be read of it is
//! left out with a warning, as what is missing is. Nodes that have such a record keep it until the
//! generations here have passed it.

use super::error::PublishError;
use super::publisher::Inner;
use crate::db::{Actor, PublishedRecord, RecordState};
use crate::store::StoreError;
use axum::body::Bytes;
use pointsman_model::fleet::Latest;
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_snapshot::keys::PublicKey;
use pointsman_snapshot::record::Record;
use pointsman_snapshot::{cdb, latest};
use std::collections::BTreeMap;

/// The largest shard that is read, in bytes: four times what a publisher means one to have.
const MOST: usize = 1 << 30;

/// How many records are written at once.
const AT_ONCE: usize = 512;

/// What is noted beside such a record: what it was made of is not known.
const MARK: &str = "adopted";

/// Whose publish it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adopting<'a> {
    pub(super) actor: &'a Actor,
    pub(super) now: u64,
    /// The publisher's turn: it is checked with everything that is written.
    pub(super) turn: u64,
    /// The snapshot that the publish may become.
    pub(super) snapshot: u64,
}

/// Takes over the records of `latest` that are newer than those in the database, so that no
/// generation is used a second time. What was not signed by us does not count. Whatever stops it,
/// the next publish does the rest: the store is ahead of the database as long as no snapshot has
/// its number.
pub(super) async fn adopt(
    inner: &Inner,
    latest: &Latest,
    adopting: Adopting<'_>,
) -> Result<(), PublishError> {
    let Adopting { actor, now, turn, snapshot } = adopting;
    let states = inner.db.record_states().await?;
    let known: BTreeMap<_, _> =
        states.into_iter().map(|state| (state.node, state.generation)).collect();
    let mut adopted = 0;
    for hash in &latest.shards {
        let Some(shard) = read(inner, hash).await? else { continue };
        let (key, fleet) = (inner.key.public_key().clone(), inner.fleet.clone());
        let of_shard = {
            let hash = *hash;
            tokio::task::spawn_blocking(move || records(&shard, &hash, &key, &fleet, snapshot))
        };
        let mut records = of_shard.await.map_err(|_| PublishError::Stopping)?;
        records.retain(|PublishedRecord { state, .. }| {
            state.generation > known.get(&state.node).copied().unwrap_or(0)
        });
        adopted += records.len();
        for records in records.chunks(AT_ONCE) {
            // Nobody else writes records: whoever could has taken the turn.
            let mut change = inner.db.change(actor, now).await?;
            change.check_publishing_turn(turn).await?;
            change.put_records(records).await?;
            change.commit().await?;
        }
    }
    inner.unproven();
    tracing::warn!(
        adopted,
        snapshot = latest.snapshot,
        "the database is older than what is published: went on from the generations in the store"
    );
    Ok(())
}

/// A shard as it lies in the store; `None`: nobody can fetch it, so what is lost there was not lost
/// by us.
async fn read(inner: &Inner, hash: &Sha256) -> Result<Option<Bytes>, StoreError> {
    let name = latest::shard_name(hash);
    match inner.store.about(&name).await? {
        None => {
            tracing::warn!(shard = %name, "a published shard is missing from the blob store");
            Ok(None)
        }
        Some(about) if about.bytes > MOST as u64 => {
            let bytes = about.bytes;
            tracing::warn!(shard = %name, bytes, "no shard is so large: it is left out");
            Ok(None)
        }
        Some(_) => inner.store.get(&name, MOST).await,
    }
}

/// The records of a shard that we signed, up to where it is damaged.
fn records(
    shard: &[u8],
    hash: &Sha256,
    key: &PublicKey,
    fleet: &FleetName,
    snapshot: u64,
) -> Vec<PublishedRecord> {
    let mut records = Vec::new();
    for entry in cdb::entries(shard) {
        match entry {
            Ok((name, value)) => records.extend(record(key, fleet, name, value, snapshot)),
            Err(error) => {
                tracing::warn!(
                    shard = %hash, %error, taken = records.len(),
                    "a published shard is damaged: what could be read of it was taken over"
                );
                break;
            }
        }
    }
    records
}

fn record(
    key: &PublicKey,
    fleet: &FleetName,
    name: &[u8],
    value: &[u8],
    snapshot: u64,
) -> Option<PublishedRecord> {
    let node: NodeName = std::str::from_utf8(name).ok()?.parse().ok()?;
    let record = Record::parse(value).ok()?;
    let verified = record.verify(key, fleet, &node).ok()?;
    Some(PublishedRecord {
        state: RecordState {
            node,
            generation: verified.generation,
            digest: Some(MARK.to_owned()),
            snapshot,
            at_ms: verified.issued_unix_ms,
        },
        objects: verified.objects,
        record: Some(value.to_vec()),
    })
}
