//! What was handed over in an earlier life, and what nothing needs any more.

use super::{Config, Courier, Pending, PollError};
use crate::checked::{Checked, check};
use crate::memory::Memory;
use crate::sink::Sink;
use crate::source::Source;
use std::collections::BTreeSet;

impl<S: Source, K: Sink> Courier<S, K> {
    /// Learns what was handed over in an earlier life, by us or by somebody else.
    pub(super) fn recall(&mut self) -> Result<(), PollError> {
        let Config { fleet, node, trust, .. } = &self.config;
        let key = trust.key(fleet, node).map_err(PollError::Trust)?;
        let key_text = key.as_ref().map(|key| key.to_base64().to_owned());
        let kept = self.sink.recall()?;
        let in_place = self.sink.in_place()?;
        let checked =
            |bytes: Vec<u8>| Some((check(&bytes, key.as_ref(), fleet, node).ok()?, bytes));
        let placed = in_place.and_then(checked);
        let cached = kept.record.and_then(checked);
        let generation_of =
            |found: &Option<(Checked, Vec<u8>)>| found.as_ref().map_or(0, |(it, _)| it.generation);

        // What is remembered of another fleet, or under another key, says nothing about this one.
        let memory = self.memory.take().or(kept.memory).filter(|memory| {
            (&memory.fleet, &memory.node, &memory.key) == (fleet, node, &key_text)
        });
        let cached = cached.filter(|_| memory.is_some());
        let remembered = memory.as_ref().map_or(0, |memory| memory.generation);
        let in_place = generation_of(&placed);
        let generation = in_place.max(generation_of(&cached)).max(remembered);
        if generation == 0 {
            return Ok(());
        }
        let mut memory = memory.unwrap_or_else(|| Memory {
            fleet: fleet.clone(),
            node: node.clone(),
            key: key_text.clone(),
            generation,
            snapshot: 0,
            objects: Vec::new(),
            previous: Vec::new(),
            any_generation: false,
        });
        memory.generation = generation;
        let (snapshot, any) = (memory.snapshot, memory.any_generation);
        self.memory = Some(memory);
        // The newest record that there is has to be in place, with all its objects.
        let newest = if generation_of(&cached) > in_place { cached } else { placed };
        let Some((checked, record)) = newest.filter(|_| !any) else { return Ok(()) };
        let mut whole = checked.generation == in_place;
        for object in &checked.objects {
            whole = whole && self.sink.has(&object.sha256)?;
        }
        let superseded = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.checked.generation >= checked.generation);
        if !whole && !superseded {
            tracing::info!(
                generation = checked.generation,
                "what was handed over is not all in its place any more: it is put there again"
            );
            self.pending = Some(Pending {
                record,
                checked,
                key: key_text,
                snapshot,
                again: true,
                ready: BTreeSet::new(),
                failures: 0,
                retry: None,
            });
        }
        Ok(())
    }

    /// Removes objects that nothing needs any more: also what a courier fetched that was killed
    /// before it could hand it over. What others put there is left alone.
    pub(super) fn tidy(&mut self) -> Result<(), PollError> {
        let (Some(memory), false) = (&self.memory, self.tidied) else { return Ok(()) };
        let mut needed: BTreeSet<_> =
            memory.objects.iter().chain(&memory.previous).copied().collect();
        let Config { fleet, node, trust, .. } = &self.config;
        let key = trust.key(fleet, node).map_err(PollError::Trust)?;
        let placed = self.sink.in_place()?;
        let placed = placed.and_then(|bytes| check(&bytes, key.as_ref(), fleet, node).ok());
        let pending = self.pending.as_ref().map(|pending| &pending.checked);
        let records = placed.iter().chain(pending);
        needed.extend(records.flat_map(|found| found.objects.iter().map(|object| object.sha256)));
        self.sink.tidy(&needed)?;
        self.tidied = true;
        Ok(())
    }
}
