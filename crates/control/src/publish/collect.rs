//! Removing what nobody needs any more.

use super::error::PublishError;
use super::publisher::Inner;
use super::step::Step;
use crate::db::{Actor, PageRequest};
use crate::store::About;
use pointsman_model::Sha256;
use pointsman_snapshot::latest;
use std::collections::{BTreeMap, BTreeSet};

/// How many snapshots stay whole in the blob store, however old they are.
const SNAPSHOTS: u32 = 8;

/// For how long a snapshot stays whole after another took its place: a courier that read `latest`
/// just before still fetches from it, and so may a mirror.
const SUPERSEDED_MS: u64 = 15 * 60 * 1000;

/// For how long an object stays that no record and no program needs: a node that was away fetches
/// what its record of yesterday names.
const UNNEEDED_MS: u64 = 24 * 60 * 60 * 1000;

/// How many snapshots the database remembers, so that lists of them end.
const REMEMBERED: u32 = 1000;

/// Removes shards and objects that nobody needs. Failing is no failure of the publish: what is
/// left now is removed after the next one.
pub(super) async fn collect(
    inner: &Inner,
    shards: &BTreeMap<String, About>,
    objects: &BTreeMap<String, About>,
) {
    if let Err(error) = try_collect(inner, shards, objects).await {
        tracing::warn!(%error, "some of what nobody needs any more could not be removed");
    }
}

async fn try_collect(
    inner: &Inner,
    shards: &BTreeMap<String, About>,
    objects: &BTreeMap<String, About>,
) -> Result<(), PublishError> {
    let now = inner.now();
    let kept: BTreeSet<String> = kept_shards(inner, now).await?;
    for name in unneeded(shards, &kept, now) {
        inner.store.delete(name).await?;
        Step::Collected.reached();
    }

    let mut change = inner.db.change(&Actor::control(), now).await?;
    change.sweep_objects(now.saturating_sub(UNNEEDED_MS)).await?;
    change.forget_snapshots(REMEMBERED).await?;
    change.commit().await?;
    let known = inner.db.object_hashes().await?.into_iter();
    let needed = inner.db.needed_objects().await?.into_iter().map(|object| object.sha256);
    let kept: BTreeSet<String> =
        known.chain(needed).map(|hash| latest::object_name(&hash)).collect();
    for name in unneeded(objects, &kept, now) {
        inner.store.delete(name).await?;
        Step::Collected.reached();
    }
    Ok(())
}

/// The shards of all snapshots that stay whole.
async fn kept_shards(inner: &Inner, now: u64) -> Result<BTreeSet<String>, PublishError> {
    let mut shards = BTreeSet::new();
    let mut page = PageRequest { limit: SNAPSHOTS, after: None };
    let mut seen = 0;
    let mut superseded_ms = None;
    loop {
        let snapshots = inner.db.snapshots(&page).await?;
        for snapshot in snapshots.items {
            if !is_kept(seen, superseded_ms, now) {
                return Ok(shards);
            }
            shards.extend(snapshot.shards.iter().map(latest::shard_name));
            superseded_ms = Some(snapshot.at_unix_ms);
            seen += 1;
        }
        if snapshots.next.is_none() {
            return Ok(shards);
        }
        page.after = snapshots.next;
    }
}

/// Whether a snapshot stays whole, after which came `newer` others, the first of them at
/// `superseded_ms`.
fn is_kept(newer: u32, superseded_ms: Option<u64>, now: u64) -> bool {
    newer < SNAPSHOTS || superseded_ms.is_none_or(|at| at.saturating_add(SUPERSEDED_MS) > now)
}

/// Blobs that are not kept, and that were not written just now: another publisher may be at work
/// that lost its lock and does not know it yet. What does not have one of our names is not ours.
fn unneeded<'a>(
    blobs: &'a BTreeMap<String, About>,
    kept: &'a BTreeSet<String>,
    now: u64,
) -> impl Iterator<Item = &'a String> {
    let is_old = move |about: &About| about.written_ms.saturating_add(SUPERSEDED_MS) < now;
    blobs
        .iter()
        .filter(move |(name, about)| !kept.contains(*name) && is_old(about) && is_ours(name))
        .map(|(name, _)| name)
}

fn is_ours(name: &str) -> bool {
    let hash = match name.split_once('/') {
        Some(("shards", file)) => file.strip_suffix(".cdb"),
        Some(("objects", file)) => Some(file),
        _ => None,
    };
    hash.is_some_and(|hash| hash.parse::<Sha256>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_snapshots_stay_and_those_superseded_just_now() {
        let now = 100 * SUPERSEDED_MS;
        assert!(is_kept(0, None, now));
        assert!(is_kept(SNAPSHOTS - 1, Some(1), now));
        assert!(!is_kept(SNAPSHOTS, Some(now - SUPERSEDED_MS), now));
        assert!(is_kept(SNAPSHOTS, Some(now - SUPERSEDED_MS + 1), now));
        assert!(is_kept(SNAPSHOTS, Some(u64::MAX), now));
    }

    #[test]
    fn only_old_blobs_with_our_names_are_removed() {
        let now = 10 * SUPERSEDED_MS;
        let name = |n: u8| latest::shard_name(&Sha256::of(&[n]));
        let object = latest::object_name(&Sha256::of(b"object"));
        let about = |written_ms| About { bytes: 1, written_ms };
        let blobs = BTreeMap::from([
            (name(1), about(1)),
            (name(2), about(now)),
            (name(3), about(1)),
            (object.clone(), about(1)),
            ("shards/README".into(), about(1)),
            ("shards/x.cdb".into(), about(1)),
            (format!("other/{}", Sha256::of(b"")), about(1)),
        ]);
        let kept = BTreeSet::from([name(3)]);
        let mut found: Vec<_> = unneeded(&blobs, &kept, now).cloned().collect();
        found.sort();
        assert_eq!(found, [object, name(1)]);
    }
}
