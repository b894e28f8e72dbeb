//! Asking for `latest`, and finding our record in the shard that it names.

use super::{Config, Courier, Dealt, Known, Outcome, Pending, PollError};
use crate::checked::check;
use crate::sink::Sink;
use crate::source::{LatestAnswer, Source};
use pointsman_model::Sha256;
use pointsman_model::fleet::{Latest, MAX_RECORD};
use pointsman_snapshot::cdb::{Lookup, Next};
use pointsman_snapshot::latest;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// The most reads of a shard that a lookup may take. Three are usual.
pub(super) const MAX_READS: usize = 64;

/// Of how many shards it is remembered what is in them for us: a store that is stale now and then
/// costs no more than its `latest`.
const SHARDS_KNOWN: usize = 32;

/// For how long it is believed that there is no news for us in a shard. A record is signed, and
/// that it is the one in the shard of that name is not: a broken or lying server must not make it
/// last. Doubled each time, up to [`LONGEST_ABSENCE`].
pub(super) const ABSENCE: Duration = Duration::from_secs(60);

/// The longest time for which it is believed.
const LONGEST_ABSENCE: Duration = Duration::from_secs(3600);

impl<S: Source, K: Sink> Courier<S, K> {
    /// Asks for `latest`, and for our record if that may be new.
    pub(super) async fn look(&mut self) -> Result<Outcome, PollError> {
        let again = self.look_again.is_some_and(|at| Instant::now() >= at);
        let tag = self.dealt.as_ref().filter(|_| !again).and_then(|dealt| dealt.tag.as_deref());
        let LatestAnswer::Found { bytes, tag } = self.source.latest(tag).await? else {
            return Ok(Outcome::Unchanged);
        };
        if let Some(dealt) = &mut self.dealt
            && dealt.bytes == bytes
            && !again
        {
            dealt.tag = tag;
            return Ok(Outcome::Unchanged);
        }
        let Latest { fleet, snapshot, shards, .. } = latest::parse(&bytes)?;
        if fleet != self.config.fleet {
            let expected = self.config.fleet.clone();
            return Err(PollError::OtherFleet { found: fleet, expected });
        }
        let shard = shards[Latest::place(&self.config.node, shards.len())];
        if again {
            self.known.retain(|known| known.shard != shard);
        }
        let known = self.known.iter().find(|known| known.shard == shard);
        let known = known.map(|known| (known.generation, known.proven));
        let (outcome, proven) = match known {
            Some((offered, proven)) => match self.newest() {
                kept if offered < kept => (Outcome::Stale { offered, kept }, false),
                _ => (Outcome::NothingNew, proven),
            },
            None => self.read(&shard, snapshot).await?,
        };
        let same = self.dealt.as_ref().is_some_and(|dealt| dealt.bytes == bytes);
        self.patience = if same { (self.patience * 2).min(LONGEST_ABSENCE) } else { ABSENCE };
        self.look_again = (!proven).then(|| Instant::now() + self.patience);
        self.standing = match &outcome {
            Outcome::Stale { offered, kept } => Some(format!(
                "what is published for this node is generation {offered}, and {kept} was handed \
                 over already: the source is stale, or was restored from a backup. The newer one \
                 stays. After a restore, publish until the generation is higher; \
                 `pointsman-courier forget` hands the older one over, which a daemon that has \
                 the newer one in force refuses"
            )),
            _ => None,
        };
        self.dealt = Some(Dealt { bytes, tag, snapshot });
        Ok(outcome)
    }

    /// The newest generation that was handed over or is about to be.
    fn newest(&self) -> u64 {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.checked.generation);
        match &self.memory {
            Some(memory) if !memory.any_generation => pending.max(memory.generation),
            _ => pending,
        }
    }

    /// Reads our record out of a shard that was not seen before; gives also whether it is news.
    async fn read(&mut self, shard: &Sha256, snapshot: u64) -> Result<(Outcome, bool), PollError> {
        let Some(record) = self.find(shard).await? else { return Ok((Outcome::NoRecord, false)) };
        let Config { fleet, node, trust, .. } = &self.config;
        let key = trust.key(fleet, node).map_err(PollError::Trust)?;
        let checked = check(&record, key.as_ref(), fleet, node)?;
        let (offered, kept) = (checked.generation, self.newest());
        if self.known.len() == SHARDS_KNOWN {
            self.known.pop_front();
        }
        let proven = offered > kept;
        self.known.push_back(Known { shard: *shard, generation: offered, proven });
        if offered < kept {
            return Ok((Outcome::Stale { offered, kept }, false));
        }
        if offered > kept {
            self.fetch.keep_only(&checked.objects);
            self.pending = Some(Pending {
                record,
                checked,
                key: key.map(|key| key.to_base64().to_owned()),
                snapshot,
                again: false,
                ready: BTreeSet::new(),
                failures: 0,
                retry: None,
            });
        }
        Ok((Outcome::NothingNew, proven))
    }

    /// Finds our record with reads of a few pieces.
    async fn find(&mut self, shard: &Sha256) -> Result<Option<Vec<u8>>, PollError> {
        let mut lookup = Lookup::new(self.config.node.as_str().as_bytes(), MAX_RECORD);
        for _ in 0..MAX_READS {
            match lookup.next() {
                Next::Need { offset, len } => {
                    let bytes = self.source.shard(shard, offset, len).await?;
                    let damaged = |why| PollError::Shard { shard: *shard, why };
                    lookup.feed(&bytes).map_err(damaged)?;
                }
                Next::Found { .. } | Next::Absent => return Ok(lookup.into_value()),
            }
        }
        Err(PollError::Endless { shard: *shard })
    }
}
