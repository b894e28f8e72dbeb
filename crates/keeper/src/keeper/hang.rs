//! Daemons that hang: they do not end by themselves, so nothing would start another one.

use super::Keeper;
use crate::notice::Notice;
use crate::quarantine::PATIENCE;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long one that is to end by SIGABRT may take, at most.
const ABORT: Duration = Duration::from_secs(10);

/// Who is so late did not run itself: a container that was paused is no daemon that hangs.
const LATE: Duration = Duration::from_secs(2);

/// What a daemon may take its time for. Pure but for the clock.
#[derive(Debug)]
pub(super) struct Limits {
    longest_silence: Duration,
    longest_end: Duration,
    /// Since when it has answered nothing, though there is something to answer.
    silent_since: Option<Instant>,
    /// When it is killed that was told to end.
    end_by: Option<Instant>,
    /// It was found to hang.
    aborted: bool,
    /// The one before was: a suspect that is not answered makes this one hang, too.
    suspects_hang: bool,
    /// Whether the time for answers runs.
    counts: bool,
}

impl Limits {
    pub(super) fn new(longest_silence: Duration, longest_end: Duration) -> Self {
        Self {
            longest_silence,
            longest_end,
            silent_since: None,
            end_by: None,
            aborted: false,
            suspects_hang: false,
            counts: false,
        }
    }

    /// A daemon starts.
    pub(super) fn started(&mut self) {
        (self.silent_since, self.end_by, self.aborted) = (None, None, false);
    }

    /// It answers something.
    pub(super) fn answered(&mut self) {
        self.silent_since = None;
    }

    /// It was told to end; told again, it does not get more time.
    pub(super) fn told_to_end(&mut self) {
        self.end_by.get_or_insert_with(|| Instant::now() + self.longest_end);
    }

    /// Whether the daemon that has ended hung.
    pub(super) fn hung(&self) -> bool {
        self.aborted
    }

    /// How long all others wait for the answer to one request that a daemon may have died of.
    pub(super) fn patience_with_suspect(&self) -> Duration {
        if self.suspects_hang { PATIENCE.min(self.longest_silence) } else { PATIENCE }
    }

    /// All of them are answered.
    pub(super) fn no_suspects(&mut self) {
        self.suspects_hang = false;
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.silence_ends().into_iter().chain(self.end_by).min()
    }

    /// When it is taken for one that hangs. One that was told to end may be done with answering.
    fn silence_ends(&self) -> Option<Instant> {
        let counts = self.counts && !self.aborted && self.end_by.is_none();
        self.silent_since.filter(|_| counts)?.checked_add(self.longest_silence)
    }
}

impl<F: FnMut(&Notice)> Keeper<F> {
    /// Notes whether the daemon has something to answer.
    pub(super) fn watch_engine(&mut self) {
        let serves = |engine: &super::Engine| engine.ready.is_some() && !engine.withholds;
        self.limits.counts = self.engine.as_ref().is_some_and(serves);
        if self.clients.unanswered == 0 {
            self.limits.silent_since = None;
        } else if self.limits.silent_since.is_none() {
            self.limits.silent_since = Some(Instant::now());
        }
    }

    /// Ends a daemon whose time is over.
    pub(super) fn enforce(&mut self, now: Instant) {
        match self.limits.silence_ends().map(|due| now.checked_duration_since(due)) {
            Some(Some(late)) if late > LATE => self.limits.silent_since = Some(now),
            Some(Some(_)) => self.abort(self.limits.longest_silence, now),
            Some(None) | None => {}
        }
        if self.limits.end_by.take_if(|due| *due <= now).is_some()
            && let Some(engine) = &self.engine
        {
            engine.signal(Signal::KILL);
            self.notice(&Notice::Killed);
        }
    }

    /// A request that a daemon may have died of is not answered for a while. Others are told beside
    /// it: it may only be slow. But where daemons hang, they would be suspects next.
    pub(super) fn suspect_is_late(&mut self, now: Instant) {
        // Its end is near, and nobody else is to be a suspect then.
        if self.limits.aborted {
            return;
        }
        let hangs = self.limits.suspects_hang && self.limits.counts && self.limits.end_by.is_none();
        if hangs && self.clients.quarantine.waits() {
            self.abort(self.limits.patience_with_suspect(), now);
        } else {
            self.clients.quarantine.let_go();
        }
    }

    /// As if it had crashed over what it was told: what makes daemons hang is found out and refused.
    fn abort(&mut self, silence: Duration, now: Instant) {
        let Some(engine) = self.engine.as_ref().filter(|_| !self.limits.aborted) else { return };
        engine.signal(Signal::ABORT);
        // One that is stopped hears of it when it goes on.
        engine.signal(Signal::CONT);
        (self.limits.aborted, self.limits.suspects_hang) = (true, true);
        let by = now + ABORT.min(self.limits.longest_end);
        self.limits.end_by = Some(self.limits.end_by.map_or(by, |before| before.min(by)));
        let requests = self.clients.unanswered;
        self.notice(&Notice::Hung { requests, silence });
    }
}
