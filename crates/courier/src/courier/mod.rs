//! One courier: from a source into a sink, a poll at a time.

mod hand_over;
mod look;
mod outcome;
mod recall;

pub use outcome::{Outcome, PollError};

use crate::checked::Checked;
use crate::fetch::Fetch;
use crate::memory::Memory;
use crate::schedule::{Chance, LONGEST_PAUSE, Schedule, backed_off};
use crate::sink::Sink;
use crate::source::Source;
use crate::trust::Trust;
use look::ABSENCE;
use pointsman_model::fleet::CourierStatus;
use pointsman_model::{FleetName, NodeName, Sha256};
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The largest object, in bytes: as large as the daemon takes.
pub const MAX_OBJECT: u64 = 16 << 20;

/// What a courier is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The fleet of the node.
    pub fleet: FleetName,
    /// Its name in it.
    pub node: NodeName,
    /// The key that records are verified with.
    pub trust: Trust,
    /// How often `latest` is asked for. A poll fetches objects for no longer than this before it
    /// is time to ask again; the next one goes on where it was.
    pub interval: Duration,
}

/// A courier for one node. It has no file, socket or thread of its own: many of them run in one
/// process.
#[derive(Debug)]
pub struct Courier<S, K: Sink> {
    config: Config,
    source: S,
    sink: K,
    /// Whether what is remembered was read.
    recalled: bool,
    /// The `latest` that was dealt with.
    dealt: Option<Dealt>,
    /// What was found of ours in shards that were read.
    known: VecDeque<Known>,
    /// When to read again although `latest` is as it was: what was found there is no news, and
    /// only news prove that a source tells the truth.
    look_again: Option<Instant>,
    /// How long that takes the next time.
    patience: Duration,
    /// What was handed over last.
    memory: Option<Memory>,
    /// What is to be handed over as soon as all of it is there.
    pending: Option<Pending>,
    fetch: Fetch<K::Part>,
    /// Raised by whoever knows that the daemon does not find what was handed over.
    doubt: Doubt,
    /// Whether what nothing needs was removed since the last handover.
    tidied: bool,
    /// Whether the last poll ended with an object on its way.
    fetching: bool,
    /// While one is: when to ask for `latest` again, and how often that failed in a row.
    next_look: Option<Instant>,
    failed_looks: u32,
    /// Why `latest`, or what it names, could not be had the last time.
    away: Option<String>,
    /// What is wrong with what is published, until something else is.
    standing: Option<String>,
    trouble: Option<String>,
}

/// Has a courier look whether what it handed over is still there. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// The next poll looks.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Debug)]
struct Dealt {
    bytes: hyper::body::Bytes,
    tag: Option<String>,
    snapshot: u64,
}

#[derive(Debug)]
struct Known {
    shard: Sha256,
    generation: u64,
    /// Whether it was news when it was read.
    proven: bool,
}

#[derive(Debug)]
struct Pending {
    record: Vec<u8>,
    checked: Checked,
    key: Option<String>,
    snapshot: u64,
    /// It was handed over before, and is not where it should be.
    again: bool,
    /// Objects that are in the sink.
    ready: BTreeSet<Sha256>,
    failures: u32,
    /// Not before.
    retry: Option<Instant>,
}

impl<S: Source, K: Sink> Courier<S, K> {
    /// A courier that has done nothing yet.
    pub fn new(config: Config, source: S, sink: K) -> Self {
        Self {
            config,
            source,
            sink,
            recalled: false,
            dealt: None,
            known: VecDeque::new(),
            look_again: None,
            patience: ABSENCE,
            memory: None,
            pending: None,
            fetch: Fetch::default(),
            doubt: Doubt::default(),
            tidied: false,
            fetching: false,
            next_look: None,
            failed_looks: 0,
            away: None,
            standing: None,
            trouble: None,
        }
    }

    /// Asks once, fetches what is new, and hands it over.
    ///
    /// Dropping the future is as a kill: nothing half is ever handed over, and the next poll does
    /// it again.
    ///
    /// # Errors
    /// [`PollError`]: the source, or what it says, is not as it should be. Wait longer each time.
    pub async fn poll_once(&mut self) -> Result<Outcome, PollError> {
        let result = self.poll().await;
        self.trouble = match &result {
            Err(error) | Ok(Outcome::Incomplete { error, .. }) => Some(error.to_string()),
            Ok(_) => self.away.clone().or_else(|| self.standing.clone()),
        };
        self.fetching = matches!(result, Ok(Outcome::Fetching { .. }));
        result
    }

    async fn poll(&mut self) -> Result<Outcome, PollError> {
        self.settle()?;
        let looked = self.look_if_due().await;
        // Also while the source is away: what was fetched before may have to be handed over.
        let Some(pending) = &self.pending else {
            if looked.is_ok() {
                self.tidy()?;
            }
            return looked;
        };
        let generation = pending.checked.generation;
        // From here: asking took its own time.
        let deadline = Instant::now() + self.config.interval;
        match self.complete(deadline).await {
            // It goes on at once, whatever became of the question.
            Ok(Some(outcome @ Outcome::Fetching { .. })) => Ok(outcome),
            Ok(Some(outcome)) => looked.map(|_| outcome),
            Ok(None) => looked,
            Err(error) => looked.map(|_| Outcome::Incomplete { generation, error }),
        }
    }

    /// Makes sure that the sink is the one that the daemon watches, and knows what is in it.
    fn settle(&mut self) -> Result<(), PollError> {
        let moved = self.sink.settle()?;
        let doubted = self.doubt.0.swap(false, Ordering::AcqRel);
        if moved || doubted || !self.recalled {
            self.recalled = false;
            if moved {
                self.fetch = Fetch::default();
                self.pending = None;
                self.dealt = None;
                self.known.clear();
            }
            self.recall()?;
            self.recalled = true;
        }
        Ok(())
    }

    /// Asks for `latest`; while an object is on its way not more often than once per interval, and
    /// less often while the source is away.
    async fn look_if_due(&mut self) -> Result<Outcome, PollError> {
        let now = Instant::now();
        if self.fetching && self.pending.is_some() && self.next_look.is_some_and(|at| now < at) {
            return Ok(Outcome::Unchanged);
        }
        let looked = self.look().await;
        self.away = looked.as_ref().err().map(ToString::to_string);
        let interval = self.config.interval;
        let pause = match &looked {
            Ok(_) => {
                self.failed_looks = 0;
                interval
            }
            Err(error) => {
                self.failed_looks = self.failed_looks.saturating_add(1);
                let (longest, times) = (LONGEST_PAUSE.max(interval), self.failed_looks);
                let pause = backed_off(interval, longest, times, Chance::draw());
                pause.max(error.retry_after().unwrap_or_default())
            }
        };
        self.next_look = Some(Instant::now() + pause);
        looked
    }

    /// Polls again and again, and tells `seen` how each poll went. Pauses for the interval, longer
    /// after errors, and not at all while objects are on their way. Never ends by itself.
    pub async fn poll_for_ever(
        &mut self,
        mut seen: impl FnMut(&Result<Outcome, PollError>, CourierStatus),
    ) -> Infallible {
        let mut schedule = Schedule::new(self.config.interval);
        loop {
            let result = self.poll_once().await;
            seen(&result, self.status());
            let pause = match &result {
                Ok(Outcome::Fetching { .. }) => Duration::ZERO,
                Ok(_) => schedule.after_success(Chance::draw()),
                Err(error) => schedule.after_failure(Chance::draw(), error.retry_after()),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// How this courier stands, for the control plane.
    #[must_use]
    pub fn status(&self) -> CourierStatus {
        let interval = self.config.interval.as_millis();
        CourierStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            poll_interval_ms: u64::try_from(interval).unwrap_or(u64::MAX),
            snapshot: self.dealt.as_ref().map(|dealt| dealt.snapshot),
            handed_over: self.memory.as_ref().map(|memory| memory.generation),
            source_trouble: self.trouble.clone(),
            daemon_trouble: None,
        }
    }

    /// What to raise when the daemon says that it does not find what was handed over.
    pub fn doubt(&self) -> Doubt {
        self.doubt.clone()
    }

    /// What takes what is fetched.
    pub const fn sink(&self) -> &K {
        &self.sink
    }

    /// What is fetched from.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// What to change about either, between two polls: for simulations.
    pub const fn parts_mut(&mut self) -> (&mut S, &mut K) {
        (&mut self.source, &mut self.sink)
    }
}
