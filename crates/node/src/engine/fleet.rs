//! Takes what the node's fleet laid down for it.
//!
//! A record is copied out of the snapshot, verified there, and its objects are put into the store;
//! then its document goes the way of every document. What is not complete, signed, meant for this
//! node and newer changes nothing: it is shown, and what is in force stays.

use super::{Engine, Request};
use crate::disk::StorageError;
use crate::fleet::drop::DropDir;
use crate::fleet::membership::{self, Membership};
use crate::fleet::{Places, Refusal};
use crate::host::Scope;
use crate::problem;
use crate::resolve::named_objects;
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::event::EventKind;
use pointsman_model::fleet::{NodeFleetStatus, RefusedSnapshot};
use pointsman_model::{Document, Sha256};
use pointsman_snapshot::record::Record;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How many missing objects are named: one line is for people.
const NAMED: usize = 3;

/// What the engine knows of its fleet.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// Where `fleet.json` is; `None`: nobody asked.
    config: PathBuf,
    drop_dir: Option<DropDir>,
    membership: Option<Membership>,
    /// Why `fleet.json` cannot be used.
    trouble: Option<String>,
    /// The generation of the last record that was verified and is, or was, in force.
    generation: Option<u64>,
    refused: Option<RefusedSnapshot>,
    /// Why the snapshot was not looked at any further.
    ignored: Option<String>,
    /// Whether the host, and not the snapshot, is why it was not taken.
    again: bool,
    quota: Quota,
}

/// What became of a snapshot that is not refused.
enum Looked {
    /// There is none.
    Nothing,
    /// It has to wait, for this.
    Waits(String),
    /// Its document is in force: a generation.
    InForce(u64),
}

impl Fleet {
    pub(super) fn drop_dir(&self) -> Option<&DropDir> {
        self.drop_dir.as_ref()
    }

    /// Nothing that was laid down has to wait any more.
    pub(super) fn waits_no_more(&mut self) {
        self.ignored = None;
    }

    /// Whether the host kept a snapshot from being taken, which may be over.
    pub(super) fn looks_again(&self) -> bool {
        self.again
    }

    pub(super) fn status(&self) -> Option<NodeFleetStatus> {
        let Membership { fleet, node, key } = self.membership.as_ref()?;
        Some(NodeFleetStatus {
            fleet: fleet.clone(),
            node: node.clone(),
            key_id: key.key_id(),
            generation: self.generation,
            refused: self.refused.clone(),
        })
    }

    /// What the operator should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self.trouble.iter().chain(&self.ignored).cloned().collect();
        let Some(drop_dir) = &self.drop_dir else { return notes };
        let path = drop_dir.path().display();
        if let Some(Membership { fleet, .. }) = &self.membership {
            if !drop_dir.path().is_dir() {
                notes.push(format!(
                    "nothing can come from fleet {fleet}: there is no directory {path}; install \
                     pointsman-courier, or create it"
                ));
            }
        } else if self.trouble.is_none() && drop_dir.has_snapshot() {
            notes.push(format!(
                "a snapshot lies in {path}, and the node belongs to no fleet: there is no {}; run \
                 `pointsman-courier enroll`",
                self.config.display()
            ));
        }
        notes
    }
}

impl Engine {
    /// The engine looking for what comes from a fleet.
    #[must_use]
    pub fn in_fleet(mut self, places: &Places) -> Self {
        self.fleet.config.clone_from(&places.config);
        self.fleet.drop_dir = Some(DropDir::new(&places.drop));
        self
    }

    /// Looks at what was laid down, and takes it where it is to be taken.
    pub(super) fn look_at_drop(&mut self) {
        let Some(drop_dir) = self.fleet.drop_dir.clone() else { return };
        self.fleet.again = false;
        self.read_membership();
        let Some(membership) = self.fleet.membership.clone() else { return };
        match self.take_snapshot(&membership, &drop_dir) {
            Ok(Looked::Nothing) => {}
            Ok(Looked::Waits(why)) => {
                if self.fleet.ignored.as_ref() != Some(&why) {
                    tracing::warn!("the snapshot is not looked at: {why}");
                }
                self.fleet.refused = None;
                self.fleet.ignored = Some(why);
            }
            Ok(Looked::InForce(generation)) => {
                self.fleet.generation = Some(generation);
                self.fleet.refused = None;
                self.fleet.ignored = None;
            }
            Err(refusal) => self.refuse_snapshot(refusal),
        }
    }

    /// After another document came into force, by whatever way: the snapshot may be older now.
    pub(super) fn compare_with_fleet(&mut self, before: Option<Sha256>) {
        if before != self.in_force() {
            self.look_at_drop();
        }
    }

    pub(super) fn in_force(&self) -> Option<Sha256> {
        self.state.state().current.as_ref().map(|edition| edition.document)
    }

    /// The document that lies there for this node, if it could be taken.
    pub(super) fn laid_down_document(&mut self) -> Option<Sha256> {
        let drop_dir = self.fleet.drop_dir.clone()?;
        self.read_membership();
        let Membership { fleet, node, key } = self.fleet.membership.as_ref()?;
        let record = drop_dir.record(node).ok()??;
        let verified = Record::parse(&record).ok()?.verify(key, fleet, node).ok()?;
        Some(Sha256::of(verified.document_bytes))
    }

    fn read_membership(&mut self) {
        let read = membership::read(&self.fleet.config).map_err(|error| error.to_string());
        let (membership, trouble) = match read {
            Ok(membership) => (membership, None),
            Err(why) => (None, Some(why)),
        };
        if let Some(why) = trouble.as_ref().filter(|_| trouble != self.fleet.trouble) {
            tracing::error!("{why}");
        }
        self.fleet.trouble = trouble;
        if membership == self.fleet.membership {
            return;
        }
        // What is known was of another fleet, node or key.
        self.fleet.generation = None;
        self.fleet.refused = None;
        self.fleet.ignored = None;
        match &membership {
            Some(Membership { fleet, node, key }) => {
                tracing::info!(%fleet, %node, key = key.key_id(), "the node belongs to a fleet");
            }
            None => tracing::info!("the node belongs to no fleet"),
        }
        self.fleet.membership = membership;
    }

    fn take_snapshot(
        &mut self,
        membership: &Membership,
        drop_dir: &DropDir,
    ) -> Result<Looked, Refusal> {
        let Membership { fleet, node, key } = membership;
        let Some(record) = drop_dir.record(node)? else { return Ok(Looked::Nothing) };
        let verified = Record::parse(&record)?.verify(key, fleet, node)?;
        let generation = verified.generation;
        let digest = Sha256::of(verified.document_bytes);
        if self.in_force() == Some(digest) {
            // A snapshot that was brought again is no news, and what was drained stays drained.
            return Ok(Looked::InForce(generation));
        }
        let passed_over = self.state.state().passed_over_snapshot;
        let what = drop_dir.snapshot().display().to_string();
        let how = "publish a new generation, or use `pointsman apply` with its document";
        if let Some(why) = self.must_wait(&digest, passed_over, &what, how) {
            return Ok(Looked::Waits(why));
        }
        self.not_older(generation)?;
        // Nothing is copied for a document that would be refused then.
        let document = self
            .would_be_taken(verified.document_bytes, &digest)
            .map_err(|problem| self.not_taken(problem))?;
        // Also those that the record does not list: a document that came into force without them
        // would never get them.
        let mut objects = named_objects(&document);
        objects.extend(verified.objects.iter().map(|object| object.sha256));
        self.bring_objects(generation, &objects, drop_dir)?;
        let request = Request { asked: false, ..Request::new(verified.document_bytes.to_vec()) };
        let before = self.state.state().current.clone();
        match self.apply(&request) {
            Ok(report) => {
                let source = format!("snapshot generation {generation}");
                self.applied(&request, &report, before.as_ref(), &source);
                Ok(Looked::InForce(generation))
            }
            Err(problem) => {
                // The objects that were brought for it.
                self.collect();
                Err(self.not_taken(problem))
            }
        }
    }

    /// Before anything is copied for it.
    fn not_older(&self, generation: u64) -> Result<(), Refusal> {
        let state = self.state.state();
        let Some(current) = &state.current else { return Ok(()) };
        let in_force = current.generation;
        let message = if generation < in_force {
            format!("it is generation {generation}, and generation {in_force} is in force")
        } else if generation == in_force && !state.drained {
            format!("generation {in_force} is in force with other contents")
        } else {
            return Ok(());
        };
        Err(Refusal { kind: "older", message })
    }

    /// The document, if it is one that can be taken here.
    fn would_be_taken(&mut self, text: &[u8], digest: &Sha256) -> Result<Document, Problem> {
        let document = Document::parse(text).map_err(problem::invalid)?;
        let observed = self.observe(&Scope::of(&document))?;
        self.guard(&document, digest, &observed, false)?;
        Ok(document)
    }

    /// Puts the objects of a record into the store: all of them, or none.
    fn bring_objects(
        &mut self,
        generation: u64,
        objects: &BTreeSet<Sha256>,
        drop_dir: &DropDir,
    ) -> Result<(), Refusal> {
        // A damaged one is as good as none: what was brought takes its place.
        let lacking = objects.iter().filter(|hash| self.objects.read(hash).is_err());
        let lacking: Vec<_> = lacking.copied().collect();
        let missing: Vec<_> = lacking.iter().filter(|hash| !drop_dir.has_object(hash)).collect();
        if !missing.is_empty() {
            return Err(incomplete(generation, &missing, drop_dir));
        }
        // All of them are read before the first is written: bad ones that are brought again and again
        // must not wear the disk out.
        for hash in &lacking {
            read_brought(generation, hash, drop_dir)?;
        }
        for hash in &lacking {
            let brought = read_brought(generation, hash, drop_dir).and_then(|bytes| {
                self.keep_object(hash, &bytes).map_err(|error| {
                    self.fleet.again = true;
                    Refusal { kind: "failed", message: error.to_string() }
                })
            });
            if let Err(refusal) = brought {
                self.collect();
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// First that it is ours to remove, then the object.
    fn keep_object(&mut self, hash: &Sha256, bytes: &[u8]) -> Result<(), StorageError> {
        self.state.copies(*hash)?;
        self.objects.put(hash, bytes)
    }

    /// Why a document that was signed for this node is not in force.
    fn not_taken(&mut self, problem: Problem) -> Refusal {
        let guarded = problem.kind == ProblemKind::GuardedDocument;
        let kind = match (problem.kind, problem.errors.first()) {
            (_, Some(error)) if guarded && error.pointer == "/node" => "other_node",
            (_, Some(error)) if guarded && error.pointer == "/generation" => "older",
            (ProblemKind::InvalidDocument | ProblemKind::GuardedDocument, _) => "invalid",
            _ => {
                // A full disk, or a kernel that does not answer.
                self.fleet.again = true;
                "failed"
            }
        };
        let errors = problem::document_errors(problem);
        let mut message = errors.first().map_or(String::new(), ToString::to_string);
        if let Some(more @ 1..) = errors.len().checked_sub(1) {
            write!(message, " (and {more} more errors)")
                .expect("invariant: writing to a string cannot fail");
        }
        Refusal { kind, message }
    }

    /// Shows why a snapshot is not taken, and tells it once.
    fn refuse_snapshot(&mut self, Refusal { kind, message }: Refusal) {
        let same = |refused: &RefusedSnapshot| refused.kind == kind && refused.message == message;
        self.fleet.ignored = None;
        if self.fleet.refused.as_ref().is_some_and(same) {
            return;
        }
        if let Some(held) = self.fleet.quota.take(Instant::now()) {
            tracing::error!(kind, "snapshot refused: {message}");
            let before = match held {
                0 => String::new(),
                _ => format!(" ({held} others before were not written down)"),
            };
            let line = format!("snapshot ({kind}): {message}{before}");
            self.event(EventKind::DocumentRefused, None, &line);
        }
        let at_unix_ms = self.clock.now().unix_ms;
        let kind = kind.to_owned();
        self.fleet.refused = Some(RefusedSnapshot { at_unix_ms, kind, message });
    }
}

/// An object that was brought for a record, if it is what its name says.
fn read_brought(generation: u64, hash: &Sha256, drop_dir: &DropDir) -> Result<Vec<u8>, Refusal> {
    match drop_dir.read_object(hash) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(incomplete(generation, &[hash], drop_dir)),
        Err(why) => {
            let message = format!("an object of generation {generation}: {why}");
            Err(Refusal { kind: "incomplete", message })
        }
    }
}

fn incomplete(generation: u64, missing: &[&Sha256], drop_dir: &DropDir) -> Refusal {
    let named: Vec<_> = missing.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "generation {generation} waits for its objects: {}{more} are not in {}",
        named.join(", "),
        drop_dir.objects().display()
    );
    Refusal { kind: "incomplete", message }
}

/// How much is told of refusals that follow each other: whoever lays things down must not push
/// everything else out of the log. The first few, then one in a while.
#[derive(Debug, Default)]
struct Quota {
    used: u32,
    /// Since when one more is let through after each [`REFILL`].
    since: Option<Instant>,
    held: u64,
}

/// How many are told at once.
const BURST: u32 = 8;

/// How long it takes until one more is.
const REFILL: Duration = Duration::from_secs(60);

impl Quota {
    /// Whether one may be told: how many were not since the last one that was.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let refills = now.saturating_duration_since(since).as_secs() / REFILL.as_secs();
        if refills > 0 {
            self.used = self.used.saturating_sub(u32::try_from(refills).unwrap_or(u32::MAX));
            self.since = Some(now);
        }
        if self.used == BURST {
            self.held += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_at_first_and_then_from_time_to_time() {
        let start = Instant::now();
        let mut quota = Quota::default();
        let mut told = 0;
        for at in 0..36_000_u64 {
            told += u64::from(quota.take(start + Duration::from_millis(at * 100)).is_some());
        }
        // An hour of ten a second.
        assert!((60..=70).contains(&told), "{told}");
        let later = start + Duration::from_secs(2 * 3600);
        assert!(quota.take(later).is_some_and(|held| held > 500));
        assert_eq!(quota.take(later), Some(0));
    }
}
