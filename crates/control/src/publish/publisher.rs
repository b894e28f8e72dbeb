//! The publisher of a process: what others call.

use super::error::PublishError;
use super::looking::Looking;
use super::standing::PublishStanding;
use super::{preview, run};
use crate::clock::Clock;
use crate::db::{Actor, Db};
use crate::events::{Event, Events};
use crate::store::Store;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{Cause, PolicyDiff, PolicySpec, PublishReport, PublishRequest};
use pointsman_model::{FleetName, NodeName, PolicyName};
use pointsman_snapshot::keys::{PublicKey, SigningKey};
use serde_json::Value;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep, timeout};

/// How long nothing more may change before changes are published.
const QUIET: Duration = Duration::from_millis(100);

/// After how long changes are published although more come.
const AT_LAST: Duration = Duration::from_secs(1);

/// How long after a failed publish it is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Publishes. Cheap to clone; all clones are one publisher.
#[derive(Debug, Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

/// What a publisher is made of.
#[derive(Debug)]
pub struct Publishing {
    /// What is wanted, and what was published.
    pub db: Db,
    /// Where it goes.
    pub store: Store,
    /// What records are signed with.
    pub key: SigningKey,
    /// Whose they are.
    pub fleet: FleetName,
    /// What time it is.
    pub clock: Clock,
    /// Where each snapshot is told of.
    pub events: Events,
}

/// When something is published without being asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Automatic {
    /// As soon as something changed.
    pub on_change: bool,
    /// Every so often.
    pub interval: Option<Duration>,
}

pub(super) struct Inner {
    pub(super) db: Db,
    pub(super) store: Store,
    pub(super) key: Arc<SigningKey>,
    pub(super) fleet: FleetName,
    clock: Clock,
    events: Events,
    /// One publish at a time: others of this process wait here and not at the database.
    turn: Mutex<()>,
    /// Whether this process has seen that the store holds what the records say.
    proven: AtomicBool,
    changed: Notify,
    looking: Looking,
    standing: std::sync::Mutex<PublishStanding>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publisher of {} to {}", self.fleet, self.store.describe())
    }
}

impl Inner {
    /// Milliseconds since the Unix epoch.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    pub(super) fn proven(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn unproven(&self) {
        self.proven.store(false, Ordering::Relaxed);
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, PublishStanding> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a publish ended.
    fn stands(&self, failure: Option<&PublishError>) {
        self.standing().note(self.now(), failure.map(ToString::to_string));
    }
}

impl Publisher {
    /// A publisher.
    #[must_use]
    pub fn new(parts: Publishing) -> Self {
        let Publishing { db, store, key, fleet, clock, events } = parts;
        let inner = Inner {
            db,
            store,
            key: Arc::new(key),
            fleet,
            clock,
            events,
            turn: Mutex::default(),
            proven: AtomicBool::new(false),
            changed: Notify::new(),
            looking: Looking::default(),
            standing: std::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The key that nodes verify with.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.inner.key.public_key()
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self) -> &FleetName {
        &self.inner.fleet
    }

    /// How publishing stands.
    #[must_use]
    pub fn standing(&self) -> PublishStanding {
        self.inner.standing().clone()
    }

    /// Publishes what is wanted now, or tells what that would be. Goes on to its end also if
    /// nobody waits for it any more.
    ///
    /// # Errors
    /// [`PublishError`]. What was done until then is right, and the next publish does the rest.
    pub async fn publish(
        &self,
        request: PublishRequest,
        actor: Actor,
        cause: Cause,
    ) -> Result<PublishReport, PublishError> {
        let inner = self.inner.clone();
        if request.dry_run {
            let look = move || async move { preview::dry_run(&inner, &request).await };
            return self.inner.looking.look(look).await;
        }
        let publish = tokio::spawn(async move {
            let _turn = inner.turn.lock().await;
            let started = Instant::now();
            let result = run::publish(&inner, &request, &actor, cause).await;
            inner.stands(result.as_ref().err());
            let report = result?;
            if let Some(snapshot) = &report.snapshot {
                tracing::info!(
                    snapshot = snapshot.number,
                    by = %snapshot.by,
                    nodes = snapshot.nodes,
                    changed = snapshot.changed,
                    bytes_written = snapshot.bytes_written,
                    milliseconds = started.elapsed().as_millis() as u64,
                    "published"
                );
                inner.events.tell(Event::Published { snapshot: snapshot.number });
            }
            Ok(report)
        });
        publish.await.map_err(|_| PublishError::Stopping)?
    }

    /// The document that would be published for a node now, with the generation that it would
    /// have; or why there is none.
    ///
    /// # Errors
    /// There is no such node, or the database does not answer.
    pub async fn wanted(
        &self,
        node: &NodeName,
    ) -> Result<Result<Value, Vec<DocumentError>>, PublishError> {
        let (inner, node) = (self.inner.clone(), node.clone());
        self.inner.looking.look(move || async move { preview::wanted(&inner, &node).await }).await
    }

    /// What would change if a policy said this, and were published; `None`: if there were no such
    /// policy.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn policy_diff(
        &self,
        name: &PolicyName,
        spec: Option<PolicySpec>,
    ) -> Result<PolicyDiff, PublishError> {
        let (inner, name) = (self.inner.clone(), name.clone());
        let look = move || async move { preview::policy_diff(&inner, &name, spec).await };
        self.inner.looking.look(look).await
    }

    /// Says that something changed of what is published.
    pub fn changed(&self) {
        self.inner.changed.notify_one();
    }

    /// Publishes by itself, for as long as it is polled. Never empties a node.
    pub async fn run(&self, automatic: Automatic) {
        if automatic == Automatic::default() {
            return std::future::pending().await;
        }
        let mut retry: Option<(Cause, Duration)> = None;
        // What changed while nobody published, before this process started.
        if automatic.on_change {
            self.changed();
        }
        let mut last = Instant::now();
        loop {
            let due = automatic.interval.map(|interval| last + interval);
            let cause = tokio::select! {
                () = self.quiet(), if automatic.on_change => Cause::Change,
                () = until(due) => Cause::Interval,
                () = until(retry.map(|(_, after)| Instant::now() + after)) => {
                    retry.map_or(Cause::Interval, |(cause, _)| cause)
                }
            };
            last = Instant::now();
            let result = self.publish(PublishRequest::default(), Actor::control(), cause).await;
            retry = match result {
                Ok(_) => None,
                Err(error) => {
                    let after = retry.map_or(RETRY.0, |(_, after)| (2 * after).min(RETRY.1));
                    tracing::error!(%error, retry_seconds = after.as_secs(), "cannot publish");
                    Some((cause, after))
                }
            };
        }
    }

    /// Returns when something changed, and then nothing for a moment.
    async fn quiet(&self) {
        self.inner.changed.notified().await;
        let at_last = Instant::now() + AT_LAST;
        while Instant::now() < at_last {
            if timeout(QUIET, self.inner.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep(due.saturating_duration_since(Instant::now())).await,
        None => std::future::pending().await,
    }
}
