//! Fetching one object after another, in as many polls as it takes.

use crate::checked::Wanted;
use crate::courier::{MAX_OBJECT, PollError};
use crate::hash::finished;
use crate::sink::{Part, Sink};
use crate::source::{ByteStream, MIN_RATE, Source, SourceError};
use futures_util::StreamExt as _;
use pointsman_model::Sha256;
use sha2::Digest as _;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How often a download that breaks off is taken up again within a poll.
const MAX_CUTS: u32 = 3;

/// How long a download may take before it is measured.
const START: Duration = Duration::from_secs(60);

/// How far an object has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is in the sink.
    Whole,
    /// Its time is up for now.
    Later,
}

/// The object that is being fetched.
pub(crate) struct Fetch<P> {
    running: Option<Running<P>>,
    /// What went wrong last.
    pub(crate) failed: Option<PollError>,
}

impl<P> Default for Fetch<P> {
    fn default() -> Self {
        Self { running: None, failed: None }
    }
}

impl<P> fmt::Debug for Fetch<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = self.running.as_ref().map(|running| running.object);
        f.debug_struct("Fetch").field("object", &object).field("failed", &self.failed).finish()
    }
}

struct Running<P> {
    object: Sha256,
    part: P,
    hasher: sha2::Sha256,
    length: u64,
    stream: Option<ByteStream>,
    /// With how many bytes the stream began, and for how long we have waited for more.
    began: u64,
    waited: Duration,
    /// Whether bytes of several downloads are in it.
    pieced: bool,
}

impl<P: Part> Running<P> {
    fn new(object: Sha256, part: P) -> Self {
        Self {
            object,
            part,
            hasher: sha2::Sha256::new(),
            length: 0,
            stream: None,
            began: 0,
            waited: Duration::ZERO,
            pieced: false,
        }
    }

    fn restart(&mut self) -> Result<(), PollError> {
        self.part.restart()?;
        self.hasher = sha2::Sha256::new();
        (self.length, self.stream, self.pieced) = (0, None, false);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), PollError> {
        self.part.write(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Whether so little comes that it is better to give up.
    fn too_slow(&self, what: &Wanted) -> Option<SourceError> {
        let (after, bytes) = (self.waited, self.length - self.began);
        let patience = START + Duration::from_secs(bytes / MIN_RATE);
        let what = what.place.to_string();
        (after > patience).then_some(SourceError::TooSlow { what, bytes, after })
    }
}

impl<P: Part> Fetch<P> {
    /// Gives up what none of `wanted` needs.
    pub(crate) fn keep_only(&mut self, wanted: &[Wanted]) {
        if let Some(running) = &self.running
            && !wanted.iter().any(|wanted| wanted.sha256 == running.object)
        {
            self.running = None;
        }
        self.failed = None;
    }

    /// Gets `wanted` into the sink, or as far as time allows.
    pub(crate) async fn object<K: Sink<Part = P>>(
        &mut self,
        wanted: &Wanted,
        source: &mut impl Source,
        sink: &mut K,
        deadline: Instant,
    ) -> Result<Step, PollError> {
        let limit = wanted.bytes.unwrap_or(MAX_OBJECT);
        if limit > MAX_OBJECT {
            let what = wanted.place.to_string();
            return Err(SourceError::TooLarge { what, limit: MAX_OBJECT }.into());
        }
        let running = match self.running.take() {
            Some(running) if running.object == wanted.sha256 => running,
            _ if sink.has(&wanted.sha256)? => return Ok(Step::Whole),
            _ => Running::new(wanted.sha256, sink.begin(&wanted.sha256)?),
        };
        self.running = Some(running);
        let mut cuts = 0;
        loop {
            let Some(running) = &mut self.running else { return Ok(Step::Later) };
            let before = running.length;
            let result = advance(running, wanted, limit, source, deadline).await;
            let error = match result {
                Ok(Step::Later) => return Ok(Step::Later),
                Ok(Step::Whole) => {
                    let found = finished(running.hasher.clone());
                    if found == wanted.sha256 {
                        let Some(Running { part, .. }) = self.running.take() else {
                            return Ok(Step::Later);
                        };
                        sink.keep(&wanted.sha256, part)?;
                        return Ok(Step::Whole);
                    }
                    if running.pieced {
                        // The source may have changed it between two pieces.
                        running.restart()?;
                        continue;
                    }
                    let (place, expected) = (wanted.place.to_string(), wanted.sha256);
                    PollError::WrongHash { place, expected, found }
                }
                Err(error) => error,
            };
            running.stream = None;
            let PollError::Source(reason) = &error else {
                self.running = None;
                return Err(error);
            };
            let cut = reason.is_cut();
            if cut && running.length > before && cuts < MAX_CUTS {
                cuts += 1;
                continue;
            }
            // What there is of it is good for the next try, unless it is too much.
            if !cut && !matches!(reason, SourceError::TooSlow { .. }) {
                self.running = None;
            }
            return Err(error);
        }
    }
}

/// Reads on until the end, an error, or the deadline.
async fn advance<P: Part>(
    running: &mut Running<P>,
    wanted: &Wanted,
    limit: u64,
    source: &mut impl Source,
    deadline: Instant,
) -> Result<Step, PollError> {
    let what = || wanted.place.to_string();
    let too_large = || SourceError::TooLarge { what: what(), limit };
    if running.stream.is_none() {
        let download = source.object(&wanted.place, running.length).await?;
        if download.from != running.length {
            running.restart()?;
        }
        if download.from != running.length {
            let why = format!("it begins at byte {}", download.from);
            return Err(SourceError::Odd { what: what(), why }.into());
        }
        if download.total.is_some_and(|total| total > limit) {
            return Err(too_large().into());
        }
        running.pieced = running.length > 0;
        (running.began, running.waited) = (running.length, Duration::ZERO);
        running.stream = Some(download.stream);
    }
    loop {
        let Some(stream) = &mut running.stream else { return Ok(Step::Later) };
        let asked = Instant::now();
        let next = timeout_at(deadline, stream.next()).await;
        // Not the time between two polls, in which nobody reads.
        running.waited += asked.elapsed();
        match next {
            Err(_) => {}
            Ok(Some(bytes)) => {
                let bytes = bytes?;
                if running.length + bytes.len() as u64 > limit {
                    return Err(too_large().into());
                }
                running.add(&bytes)?;
            }
            Ok(None) => match wanted.bytes {
                Some(all) if running.length < all => {
                    let why = format!("it ended after {} of {all} bytes", running.length);
                    return Err(SourceError::Interrupted { what: what(), why }.into());
                }
                _ => return Ok(Step::Whole),
            },
        }
        if let Some(error) = running.too_slow(wanted) {
            return Err(error.into());
        }
        if Instant::now() >= deadline {
            return Ok(Step::Later);
        }
    }
}
