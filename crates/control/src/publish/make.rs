//! Signing: the work that takes processors.

use super::mark::Mark;
use crate::db::{PublishedRecord, RecordState};
use pointsman_fleet::Composed;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{NodeOutcome, RECORD_SCHEMA, RecordPayload};
use pointsman_model::{FleetName, NodeName};
use pointsman_snapshot::keys::SigningKey;
use std::sync::Arc;
use std::thread;

/// A record to be made.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Whose.
    pub(super) node: NodeName,
    /// Which.
    pub(super) generation: u64,
    /// What it says.
    pub(super) composed: Arc<Composed>,
    /// What is noted beside it.
    pub(super) mark: Mark,
    /// What is told of it.
    pub(super) outcome: NodeOutcome,
    /// From what the node has to this.
    pub(super) diff: Arc<str>,
}

/// What all records of a publish have in common.
#[derive(Debug, Clone)]
pub(super) struct Issue {
    pub(super) fleet: FleetName,
    pub(super) key: Arc<SigningKey>,
    /// The number of the snapshot that they come with.
    pub(super) snapshot: u64,
    /// When, in milliseconds since the Unix epoch.
    pub(super) now: u64,
}

/// Makes records on all processors, in the order of their jobs. A document that fits into no
/// record is that node's trouble alone.
pub(super) fn make(
    jobs: &[Job],
    issue: &Issue,
) -> Vec<Result<PublishedRecord, Vec<DocumentError>>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = jobs.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let share_of = |jobs| scope.spawn(move || one_after_the_other(jobs, issue));
        let shares: Vec<_> = jobs.chunks(share).map(share_of).collect();
        let joined = shares.into_iter().map(thread::ScopedJoinHandle::join);
        joined.flat_map(|made| made.expect("invariant: signing does not panic")).collect()
    })
}

fn one_after_the_other(
    jobs: &[Job],
    issue: &Issue,
) -> Vec<Result<PublishedRecord, Vec<DocumentError>>> {
    let told = |message| vec![DocumentError { pointer: String::new(), message }];
    jobs.iter().map(|job| one(job, issue).map_err(told)).collect()
}

fn one(job: &Job, issue: &Issue) -> Result<PublishedRecord, String> {
    let payload = RecordPayload {
        schema: RECORD_SCHEMA.to_owned(),
        fleet: issue.fleet.clone(),
        node: job.node.clone(),
        generation: job.generation,
        issued_unix_ms: issue.now,
        objects: job.composed.objects.clone(),
        document: job.composed.document(&job.node, job.generation, job.mark.allow_empty),
    };
    let record = pointsman_snapshot::sign(&issue.key, &payload).map_err(|e| e.to_string())?;
    Ok(PublishedRecord {
        state: RecordState {
            node: payload.node,
            generation: payload.generation,
            digest: Some(job.mark.to_string()),
            snapshot: issue.snapshot,
            at_ms: issue.now,
        },
        objects: payload.objects,
        record: Some(record),
    })
}
