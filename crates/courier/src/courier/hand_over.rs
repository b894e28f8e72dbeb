//! Getting what a record needs, and handing it over.

use super::{Config, Courier, Outcome, Pending, PollError};
use crate::checked::check;
use crate::fetch::{Fetch, Step};
use crate::memory::Memory;
use crate::schedule::{Chance, backed_off};
use crate::sink::Sink;
use crate::source::Source;
use std::time::Duration;
use tokio::time::Instant;

/// The longest pause before an object that could not be had is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

impl<S: Source, K: Sink> Courier<S, K> {
    /// Gets what the pending record needs, then hands it over. `None`: it has become needless.
    pub(super) async fn complete(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Outcome>, PollError> {
        let Some(pending) = &mut self.pending else { return Ok(None) };
        let generation = pending.checked.generation;
        if let Some(retry) = pending.retry
            && Instant::now() < retry
            && let Some(error) = &self.fetch.failed
        {
            return Err(error.clone());
        }
        let mut failed = None;
        for wanted in &pending.checked.objects {
            if pending.ready.contains(&wanted.sha256) {
                continue;
            }
            let step = self.fetch.object(wanted, &mut self.source, &mut self.sink, deadline).await;
            match step {
                Ok(Step::Whole) => {
                    pending.ready.insert(wanted.sha256);
                }
                Ok(Step::Later) => return Ok(Some(Outcome::Fetching { generation })),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let result = match failed {
            Some(error) => Err(error),
            None => self.hand_over(),
        };
        let Some(pending) = &mut self.pending else { return result };
        if let Err(error) = &result {
            pending.failures = pending.failures.saturating_add(1);
            let (first, times) = (self.config.interval, pending.failures);
            let pause = backed_off(first, LONGEST_RETRY.max(first), times, Chance::draw());
            let pause = pause.max(error.retry_after().unwrap_or_default());
            pending.retry = Some(Instant::now() + pause);
            self.fetch.failed = Some(error.clone());
        }
        result
    }

    /// All is there.
    fn hand_over(&mut self) -> Result<Option<Outcome>, PollError> {
        let Some(pending) = &self.pending else { return Ok(None) };
        let (generation, again) = (pending.checked.generation, pending.again);
        let any = self.memory.as_ref().is_some_and(|memory| memory.any_generation);
        if self.sink.settle()? {
            // It goes into the directory that is there now, with the next poll.
            self.recalled = false;
            self.fetch = Fetch::default();
            if let Some(pending) = &mut self.pending {
                pending.ready.clear();
            }
            return Ok(None);
        }
        if !any
            && !again
            && let Some(placed) = self.placed()?
        {
            // Somebody with another way into the directory was faster.
            if placed >= generation {
                if let Some(memory) = &mut self.memory {
                    memory.generation = memory.generation.max(placed);
                }
                self.pending = None;
                return Ok(None);
            }
        }
        let Some(pending) = &self.pending else { return Ok(None) };
        self.sink.hand_over(&pending.record)?;
        let Some(pending) = self.pending.take() else { return Ok(None) };
        self.fetch.failed = None;
        tracing::info!(generation, snapshot = pending.snapshot, "handed over to the daemon");
        self.remember(pending)?;
        Ok(Some(Outcome::HandedOver { generation }))
    }

    /// The generation that the daemon would find now, if it would take that record.
    fn placed(&mut self) -> Result<Option<u64>, PollError> {
        let Some(bytes) = self.sink.in_place()? else { return Ok(None) };
        let Config { fleet, node, trust, .. } = &self.config;
        let key = trust.key(fleet, node).map_err(PollError::Trust)?;
        let checked = check(&bytes, key.as_ref(), fleet, node).ok();
        Ok(checked.map(|checked| checked.generation))
    }

    /// Remembers what was handed over, and removes what nothing needs any more.
    fn remember(&mut self, pending: Pending) -> Result<(), PollError> {
        let Pending { record, checked, key, snapshot, again, .. } = pending;
        let before = self.memory.take();
        let (before, older) =
            before.map(|memory| (memory.objects, memory.previous)).unwrap_or_default();
        let objects: Vec<_> = checked.objects.iter().map(|wanted| wanted.sha256).collect();
        let previous = if again { older } else { before };
        let memory = Memory {
            fleet: self.config.fleet.clone(),
            node: self.config.node.clone(),
            key,
            generation: checked.generation,
            snapshot,
            objects,
            previous,
            any_generation: false,
        };
        let remembered = self.sink.remember(&memory, &record);
        self.memory = Some(memory);
        self.tidied = false;
        remembered?;
        self.tidy()
    }
}
