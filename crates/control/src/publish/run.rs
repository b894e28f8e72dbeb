//! One publish, step by step. Whatever happens between two of them, what was done stays right,
//! and the next publish does the rest:
//!
//! 1. Be the only publisher.
//! 2. See what is wanted, at one moment, and say in the database whose turn it is: whoever lost the
//!    lock without noticing writes no more.
//! 3. Make the records of nodes that change, and commit them: from then on their generations are
//!    used, and nothing of them is visible.
//! 4. Write shards and objects. Nobody reads them yet.
//! 5. Number the snapshot.
//! 6. Write `latest`.

use super::adopt::{Adopting, adopt};
use super::before::befores;
use super::collect::collect;
use super::error::PublishError;
use super::key;
use super::make::{Issue, Job, make};
use super::mark::Mark;
use super::plan::{self, GROUPS, Group, Judged, Layout, Terms, decide, lay_out, next, outcome};
use super::publisher::Inner;
use super::report::Report;
use super::shard;
use super::step::Step;
use super::view::View;
use crate::db::{Actor, Change, DbError, PublishedRecord, PublisherLock, RecordState};
use crate::store::About;
use pointsman_fleet::{Composer, shards};
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{
    Cause, LATEST_SCHEMA, Latest, NodeOutcome, PublishReport, PublishRequest, Snapshot,
};
use pointsman_model::{NodeName, Sha256};
use pointsman_snapshot::latest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a publisher waits for another one.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far `latest` in the store may be ahead of the database that it is believed: more snapshots
/// than a control plane makes in a hundred years. `latest` is not signed, and whoever can write it
/// must not use up all numbers.
const AHEAD: u64 = 1 << 32;

/// How many records are made before the next: what is in memory at once.
const RECORDS: usize = 512;

/// A publish under way.
pub(super) struct Run<'a> {
    inner: &'a Inner,
    actor: &'a Actor,
    now: u64,
    /// Ours as long as no other publisher took its turn.
    turn: u64,
    /// The snapshot that this one may become.
    number: u64,
    newest: Option<Snapshot>,
    states: BTreeMap<NodeName, RecordState>,
    report: Report,
    written: u64,
}

/// Publishes what is wanted now.
pub(super) async fn publish(
    inner: &Inner,
    request: &PublishRequest,
    actor: &Actor,
    cause: Cause,
) -> Result<PublishReport, PublishError> {
    let mut lock = inner.db.publisher_lock(PATIENCE).await?;
    Step::Locked.reached();
    let result = locked(inner, &mut lock, request, actor, cause).await;
    if let Err(error) = lock.release().await {
        // It went with its connection.
        tracing::warn!(%error, "the publisher's lock could not be given back in order");
    }
    result
}

async fn locked(
    inner: &Inner,
    lock: &mut PublisherLock,
    request: &PublishRequest,
    actor: &Actor,
    cause: Cause,
) -> Result<PublishReport, PublishError> {
    let now = inner.now();
    // If the store is away, nothing is begun.
    let in_store = store_latest(inner).await?;
    let newest = inner.db.newest_snapshot().await?.map(|(snapshot, _)| snapshot);
    let last = newest.as_ref().map_or(0, |snapshot| snapshot.number);
    let in_store = in_store.filter(|latest| plausible(latest, last));
    let ahead = in_store.as_ref().filter(|latest| latest.snapshot > last);
    if ahead.is_some() && cause != Cause::Request {
        return Err(PublishError::OldDatabase { store: inner.store.describe().to_owned() });
    }
    let number = last.max(ahead.map_or(0, |latest| latest.snapshot)).checked_add(1);
    let number = number.filter(|&number| number <= latest::MAX_SNAPSHOT);
    let number = number.ok_or(PublishError::NoNumber { last })?;

    let mut change = inner.db.change(actor, now).await?;
    key::check_in_force(&mut change, inner.key.public_key()).await?;
    let turn = change.take_publishing_turn().await?;
    if let Some(latest) = ahead {
        change.commit().await?;
        // What takes long, and may fail, is done while others may change things.
        adopt(inner, latest, Adopting { actor, now, turn, snapshot: number }).await?;
        change = inner.db.change(actor, now).await?;
        change.check_publishing_turn(turn).await?;
    }
    let view = View::read(&mut change).await?;
    change.commit().await?;
    Step::Viewed.reached();
    let mut run = Run {
        inner,
        actor,
        now,
        turn,
        number,
        newest,
        states: BTreeMap::new(),
        report: Report::new(),
        written: 0,
    };
    run.records(view, request.allow_empty).await?;
    let snapshot = run.snapshot(lock, in_store.as_ref(), cause).await?;
    Ok(run.report.finish(snapshot))
}

/// What `latest` says in the store. What cannot be read is as good as none: it is written anew.
async fn store_latest(inner: &Inner) -> Result<Option<Latest>, PublishError> {
    let Some(text) = inner.store.get(latest::NAME, latest::MAX_BYTES).await? else {
        return Ok(None);
    };
    let latest = match latest::parse(&text) {
        Ok(latest) => latest,
        Err(error) => {
            tracing::warn!(%error, "`latest` in the blob store is damaged and will be replaced");
            return Ok(None);
        }
    };
    if latest.fleet != inner.fleet {
        return Err(PublishError::OtherFleet {
            store: inner.store.describe().to_owned(),
            found: latest.fleet,
            expected: inner.fleet.clone(),
        });
    }
    Ok(Some(latest))
}

/// Whether somebody who publishes can have come to this number. If not, it is as damaged as any
/// other `latest`.
fn plausible(latest: &Latest, last: u64) -> bool {
    let plausible = latest.snapshot.saturating_sub(last) <= AHEAD;
    if !plausible {
        tracing::warn!(
            snapshot = latest.snapshot,
            last,
            "`latest` in the blob store names a snapshot that cannot be, and will be replaced"
        );
    }
    plausible
}

impl Run<'_> {
    /// Makes and keeps the records of all nodes that change.
    async fn records(&mut self, view: View, allow_empty: bool) -> Result<(), PublishError> {
        let key_id = self.inner.key.public_key().key_id();
        let mut composer = Composer::new(view.policies(), view.library.clone());
        let plan = plan::plan(&view.nodes, &view.states, &mut composer, &key_id);
        self.states = view.states;
        self.report.unchanged = plan.settled;
        for groups in plan.groups.chunks(GROUPS) {
            let before = befores(self.inner, groups).await?;
            let (mut jobs, mut settled) = (Vec::new(), Vec::new());
            for (group, before) in groups.iter().zip(&before) {
                let with_diff = self.report.has_room();
                let terms = Terms { allow_empty, key_id: &key_id, with_diff };
                match decide(group, before.as_ref(), &mut composer, terms) {
                    Judged::Settled(mark) => settled.push((group, mark)),
                    Judged::Change(change) => jobs.extend(self.jobs(group, &change)),
                    judged => self.report.tell_group(group, &judged),
                }
            }
            self.settle(settled).await?;
            for jobs in jobs.chunks(RECORDS) {
                self.make(jobs.to_vec()).await?;
            }
        }
        self.leave(plan.left).await
    }

    /// The records that a group needs.
    fn jobs(&mut self, group: &Group, change: &plan::Change) -> Vec<Job> {
        let outcome = outcome(group);
        let diff: Arc<str> = change.diff.as_str().into();
        let mut jobs = Vec::with_capacity(group.members.len());
        for (node, last) in &group.members {
            match next(*last) {
                Ok(generation) => jobs.push(Job {
                    node: node.clone(),
                    generation,
                    composed: change.composed.clone(),
                    mark: change.mark.clone(),
                    outcome,
                    diff: diff.clone(),
                }),
                Err(errors) => self.refuse(node.clone(), &errors),
            }
        }
        jobs
    }

    fn refuse(&mut self, node: NodeName, errors: &[DocumentError]) {
        let state = self.states.get(&node).filter(|state| state.digest.is_some());
        let generation = state.map(|state| state.generation);
        self.report.tell(node, NodeOutcome::Refused, generation, "", errors);
    }

    async fn make(&mut self, jobs: Vec<Job>) -> Result<(), PublishError> {
        let issue = Issue {
            fleet: self.inner.fleet.clone(),
            key: self.inner.key.clone(),
            snapshot: self.number,
            now: self.now,
        };
        let made = tokio::task::spawn_blocking(move || {
            let made = make(&jobs, &issue);
            (jobs, made)
        });
        let (jobs, made) = made.await.map_err(|_| PublishError::Stopping)?;
        let mut records = Vec::with_capacity(made.len());
        for (Job { node, generation, outcome, diff, .. }, made) in jobs.into_iter().zip(made) {
            match made {
                Ok(record) => {
                    self.report.tell(node, outcome, Some(generation), &diff, &[]);
                    records.push(record);
                }
                Err(errors) => self.refuse(node, &errors),
            }
        }
        self.keep(records).await
    }

    /// Commits records: from now on their generations are used.
    async fn keep(&mut self, records: Vec<PublishedRecord>) -> Result<(), PublishError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut change = self.change().await?;
        change.put_records(&records).await?;
        change.commit().await?;
        for record in records {
            self.states.insert(record.state.node.clone(), record.state);
        }
        Step::Recorded.reached();
        Ok(())
    }

    /// Notes that what is wanted now makes the same documents: the next publish sees it at once.
    async fn settle(&mut self, settled: Vec<(&Group, Mark)>) -> Result<(), PublishError> {
        if settled.is_empty() {
            return Ok(());
        }
        let mut change = self.change().await?;
        for (group, mark) in settled {
            self.report.unchanged += group.members.len() as u64;
            let nodes: Vec<_> = group.members.iter().map(|(node, _)| node.clone()).collect();
            change.mark_records(&nodes, &mark.to_string()).await?;
        }
        Ok(change.commit().await?)
    }

    /// Takes the records of nodes that left out; their generations stay.
    async fn leave(&mut self, left: Vec<RecordState>) -> Result<(), PublishError> {
        for left in left.chunks(RECORDS) {
            let gone = |state: &RecordState| PublishedRecord {
                state: RecordState {
                    digest: None,
                    snapshot: self.number,
                    at_ms: self.now,
                    ..state.clone()
                },
                objects: Vec::new(),
                record: None,
            };
            let records = left.iter().map(gone).collect();
            for RecordState { node, generation, .. } in left {
                let outcome = NodeOutcome::Removed;
                self.report.tell(node.clone(), outcome, Some(*generation), "", &[]);
            }
            self.keep(records).await?;
        }
        Ok(())
    }

    /// A change that only the publisher whose turn it is may make.
    async fn change(&self) -> Result<Change, PublishError> {
        let mut change = self.inner.db.change(self.actor, self.now).await?;
        change.check_publishing_turn(self.turn).await?;
        Ok(change)
    }

    /// Brings the blob store to what the records say. `None`: it is there already.
    async fn snapshot(
        &mut self,
        lock: &mut PublisherLock,
        in_store: Option<&Latest>,
        cause: Cause,
    ) -> Result<Option<Snapshot>, PublishError> {
        let layout = self.lay_out().await?;
        let there = self.inner.store.list("shards/").await?;
        let names = self.shards(&layout, &there).await?;
        let objects = self.inner.store.list("objects/").await?;
        self.objects(&objects).await?;
        self.inner.proven();

        let newest = self.newest.as_ref();
        let same = newest.filter(|newest| newest.shards == names && in_order(newest, in_store));
        let is_named = |newest: &Snapshot| {
            in_store.is_some_and(|latest| {
                latest.snapshot == newest.number && latest.shards == newest.shards
            })
        };
        let snapshot = match same {
            Some(newest) if is_named(newest) => None,
            Some(newest) => Some(newest.clone()),
            None => Some(self.number(&layout, names, cause).await?),
        };
        if let Some(snapshot) = &snapshot {
            lock.still_held().await?;
            self.name(snapshot).await?;
        }
        collect(self.inner, &there, &objects).await;
        Ok(snapshot)
    }

    async fn lay_out(&self) -> Result<Layout, PublishError> {
        let records = self.states.values().filter(|state| state.digest.is_some()).count() as u64;
        let bytes = self.inner.db.record_bytes().await?;
        let newest = self.newest.as_ref();
        let before = newest.map(|snapshot| snapshot.shards.len());
        let number = shards(before, records, bytes);
        let newest = newest.map_or(0, |snapshot| snapshot.number);
        Ok(lay_out(self.states.values(), number, newest, before.unwrap_or(0)))
    }

    /// Makes the shards that changed, and those that the store lost. Once in a process's life all
    /// of them: what is not looked at cannot be trusted for ever.
    async fn shards(
        &mut self,
        layout: &Layout,
        there: &BTreeMap<String, About>,
    ) -> Result<Vec<Sha256>, PublishError> {
        let mut names = Vec::with_capacity(layout.shards.len());
        for (place, (nodes, dirty)) in layout.shards.iter().zip(&layout.dirty).enumerate() {
            let known = self.newest.as_ref().and_then(|newest| newest.shards.get(place));
            let known = known.filter(|hash| {
                !dirty && self.inner.is_proven() && there.contains_key(&latest::shard_name(hash))
            });
            if let Some(hash) = known {
                names.push(*hash);
                continue;
            }
            let (hash, bytes) = shard::make(&self.inner.db, nodes).await?;
            let name = latest::shard_name(&hash);
            let size = bytes.len() as u64;
            if !self.is_whole(&name, there, size, &hash).await? {
                self.inner.store.put(&name, bytes).await?;
                self.written += size;
                Step::Sharded.reached();
            }
            names.push(hash);
        }
        Ok(names)
    }

    /// Whether the store has a blob as it should be: by its size, and once in a process's life by
    /// its bytes.
    async fn is_whole(
        &self,
        name: &str,
        there: &BTreeMap<String, About>,
        size: u64,
        hash: &Sha256,
    ) -> Result<bool, PublishError> {
        if there.get(name).is_none_or(|about| about.bytes != size) {
            return Ok(false);
        }
        if self.inner.is_proven() {
            return Ok(true);
        }
        let most = usize::try_from(size).unwrap_or(usize::MAX);
        let is = match self.inner.store.get(name, most).await {
            Ok(bytes) => bytes.is_some_and(|bytes| Sha256::of(&bytes) == *hash),
            // What cannot be read cannot be fetched either.
            Err(error) => {
                tracing::warn!(%error, "a blob cannot be read");
                false
            }
        };
        if !is {
            tracing::warn!(name, "damaged in the blob store, and will be replaced");
        }
        Ok(is)
    }

    /// Writes the objects that records name and the store does not have.
    async fn objects(&mut self, there: &BTreeMap<String, About>) -> Result<(), PublishError> {
        for object in self.inner.db.needed_objects().await? {
            let name = latest::object_name(&object.sha256);
            if self.is_whole(&name, there, object.bytes, &object.sha256).await? {
                continue;
            }
            let bytes = self.inner.db.object(&object.sha256).await?;
            let bytes = bytes.ok_or(PublishError::ObjectLost { hash: object.sha256 })?;
            self.written += bytes.len() as u64;
            self.inner.store.put(&name, bytes).await?;
            Step::Stored.reached();
        }
        Ok(())
    }

    async fn number(
        &mut self,
        layout: &Layout,
        shards: Vec<Sha256>,
        cause: Cause,
    ) -> Result<Snapshot, PublishError> {
        let snapshot = Snapshot {
            number: self.number,
            at_unix_ms: self.now,
            by: self.actor.name.clone(),
            cause,
            nodes: layout.shards.iter().map(|shard| shard.len() as u64).sum(),
            changed: layout.changed,
            shards,
            bytes_written: self.written,
        };
        let mut change = self.change().await?;
        change.add_snapshot(&snapshot).await?;
        change.commit().await?;
        Step::Numbered.reached();
        Ok(snapshot)
    }

    /// Writes `latest`. If another publisher overtook this one just now, its snapshot is named
    /// again: the last word must not be ours then.
    async fn name(&self, snapshot: &Snapshot) -> Result<(), PublishError> {
        let mut named = snapshot.clone();
        loop {
            let latest = Latest {
                schema: LATEST_SCHEMA.to_owned(),
                fleet: self.inner.fleet.clone(),
                snapshot: named.number,
                shards: named.shards.clone(),
            };
            self.inner.store.put(latest::NAME, latest::write(&latest)?).await?;
            Step::Named.reached();
            self.inner.db.snapshot_is_latest(named.number, self.inner.now()).await?;
            Step::Noted.reached();
            match self.inner.db.newest_snapshot().await? {
                // Whether it has been named does not count: its publisher may have done that just
                // before us, and not noted it yet. What has a number has all its files.
                Some((newest, _)) if newest.number > named.number => named = newest,
                _ => break,
            }
        }
        if named.number == snapshot.number {
            return Ok(());
        }
        let why = "another publisher was faster: publish again";
        Err(PublishError::Database(DbError::Conflict(why.into())))
    }
}

/// Whether the store is not ahead of the database.
fn in_order(newest: &Snapshot, in_store: Option<&Latest>) -> bool {
    in_store.is_none_or(|latest| latest.snapshot <= newest.number)
}
