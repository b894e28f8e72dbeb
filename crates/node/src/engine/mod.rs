//! One plain thread owns the kernel and everything remembered, and takes messages.
//!
//! In: requests from the socket and word that the watched document was replaced. Out: a reply to
//! each request. Nothing else touches the kernel, so there are no locks and no order of events
//! but the order of messages.

mod adopt;
mod apply;
mod check;
mod deadline;
mod dispatcher;
mod drift;
mod fleet;
mod follow;
mod glass;
mod instances;
mod last;
mod message;
mod outcome;
mod outlook;
mod reach;
mod rollback;
mod schedule;
mod status;
mod watched;

use self::check::Seen;
use self::drift::Drifts;
use self::last::LastPlan;
use self::schedule::Schedule;
use crate::clock::{Clock, HostClock, unix_ms};
use crate::events::EventLog;
use crate::host::Kernel;
use crate::notify;
use crate::problem;
use crate::resolve::{FactsCache, MAX_OBJECT};
use crate::state::{Edition, StateError, StateFile};
use crate::store::Store;
use fleet::Fleet;
use follow::Follower;
use pointsman_model::HookId;
use pointsman_model::api::{ApplyOutcome, ApplyReport, Check, Doctor, Health, Problem};
use pointsman_model::event::EventKind;
use pointsman_model::status::RefusedDocument;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

pub use follow::EventQuery;
pub use glass::BypassRequest;
pub use instances::{Maps, Served, TellServed};
pub use message::{Handle, Message, Reply, Request};
pub use rollback::GenerationRequest;

/// How often the host is looked at when nothing tells of a change. Somebody who detaches a link
/// makes the kernel tell nobody (net/core/dev.c, `bpf_xdp_link_detach`).
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How many good editions are kept unless said otherwise.
pub const KEEP_GENERATIONS: u8 = 5;

/// The engine.
pub struct Engine {
    kernel: Box<dyn Kernel>,
    objects: Store,
    state: StateFile,
    cache: FactsCache,
    document: PathBuf,
    state_dir: PathBuf,
    started: Instant,
    last: LastPlan,
    /// When the host is looked at.
    schedule: Schedule,
    /// What the last look ended with; `None`: the next must plan anew.
    seen: Option<Seen>,
    /// How often the host was looked at.
    checks: u64,
    /// Why the last look at the host failed.
    blind: Option<String>,
    drifts: Drifts,
    /// Hooks that got their last good chain back, or not, and the line that says so.
    returned: BTreeMap<HookId, String>,
    refused: Option<RefusedDocument>,
    watch_lost: Vec<String>,
    /// Why the watched document was not looked at any further.
    ignored: Option<String>,
    fleet: Fleet,
    clock: Box<dyn Clock>,
    events: EventLog,
    followers: Vec<Follower>,
    /// How many good editions are kept.
    keep: usize,
    /// When something that was due and could not be done is tried again.
    retry_at: Option<Instant>,
    /// Why the return to what was in force before could not be carried out so far.
    stuck: Option<String>,
    instances: instances::Instances,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("document", &self.document).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens what is remembered in `state_dir`. Touches nothing in the kernel yet.
    ///
    /// # Errors
    /// [`StateError`] naming the file.
    pub fn open(
        kernel: Box<dyn Kernel>,
        state_dir: &Path,
        document: &Path,
    ) -> Result<Self, StateError> {
        let state = StateFile::open(state_dir)?;
        let objects = Store::open(&state_dir.join("objects"), MAX_OBJECT)?;
        Ok(Self::with(kernel, state, objects, state_dir, document))
    }

    /// An engine over a state and a store that are open already.
    #[must_use]
    pub fn with(
        kernel: Box<dyn Kernel>,
        state: StateFile,
        objects: Store,
        state_dir: &Path,
        document: &Path,
    ) -> Self {
        Self {
            kernel,
            objects,
            state,
            cache: FactsCache::default(),
            document: document.to_owned(),
            state_dir: state_dir.to_owned(),
            started: Instant::now(),
            last: LastPlan::default(),
            schedule: Schedule::new(Instant::now(), CHECK_INTERVAL),
            seen: None,
            checks: 0,
            blind: None,
            drifts: Drifts::default(),
            returned: BTreeMap::new(),
            refused: None,
            watch_lost: Vec::new(),
            ignored: None,
            fleet: Fleet::default(),
            clock: Box::new(HostClock::new(Path::new("/proc"))),
            events: EventLog::open(state_dir),
            followers: Vec::new(),
            keep: usize::from(KEEP_GENERATIONS),
            retry_at: None,
            stuck: None,
            instances: instances::Instances::default(),
        }
    }

    /// Looks at the host every `interval` instead of [`CHECK_INTERVAL`].
    #[must_use]
    pub fn checking_every(mut self, interval: Duration) -> Self {
        self.schedule = Schedule::new(Instant::now(), interval);
        self
    }

    /// Never looks at the host by itself: whatever fails stays as it is until somebody asks again.
    /// For tests of single steps, which a look would repeat.
    #[must_use]
    pub fn without_looks(mut self) -> Self {
        self.schedule = self.schedule.never();
        self
    }

    /// The engine with another clock.
    #[must_use]
    pub fn clocked_by(self, clock: Box<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The engine keeping this many good editions; at least one.
    #[must_use]
    pub fn keeping(self, keep: usize) -> Self {
        Self { keep: keep.max(1), ..self }
    }

    /// Adopts what runs, does what was accepted before and what the watched document says now,
    /// calls `ready`, and then handles messages until it is told to stop.
    pub fn run(mut self, messages: &mpsc::Receiver<Message>, ready: impl FnOnce()) {
        self.start();
        self.chains_changed();
        self.tell_served();
        ready();
        self.notify();
        // What interfaces left that went while nobody looked: nobody waits for it.
        self.kernel.clean_dispatchers(None);
        loop {
            // Also when there is always another message.
            self.on_time();
            match self.next(messages) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => {
                    // First what is due: nobody confirms what should be gone by now.
                    self.expire();
                    self.handle(message);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits for a message, until something is due.
    fn next(&self, messages: &mpsc::Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        match self.due() {
            Some(due) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// When the engine must act by itself next; `None`: not unless it is told something.
    fn due(&self) -> Option<Instant> {
        let look = self.schedule.due();
        Some(self.deadline().map_or(look, |deadline| deadline.min(look)))
    }

    /// Does what is due.
    fn on_time(&mut self) {
        self.expire();
        let now = Instant::now();
        if now >= self.schedule.due() {
            self.check(now);
            self.tell_served();
            if self.fleet.looks_again() {
                self.look_at_drop();
            }
        }
    }

    /// Adopts what runs, does what was accepted before, then what the watched document says now,
    /// then what the fleet laid down.
    ///
    /// What nobody confirmed in time is not adopted: the host returns first.
    pub fn start(&mut self) {
        self.expire_before_adoption();
        let now = self.clock.now();
        let window = self.state.state().unconfirmed.as_ref();
        if window.is_some_and(|w| w.returning || w.deadline.remaining_ms(&now) == 0) {
            self.started();
            self.give_back();
        } else {
            self.adopt();
            self.started();
        }
        // What an apply that was cut off left on disk.
        self.collect();
        self.document_changed(true);
        self.look_at_drop();
    }

    fn handle(&mut self, message: Message) {
        let waited = self.waits();
        // That nobody waits for a reply any more is not our concern.
        match message {
            Message::Plan(request, reply) => drop(reply.send(self.plan(&request))),
            Message::Apply(request, reply) => {
                let before = self.in_force();
                let applied = self.apply_from(&request, "request");
                // Instances first: who is answered may rely on them.
                self.tell_served();
                drop(reply.send(applied));
                self.compare_with_fleet(before);
                self.notify();
            }
            Message::DocumentChanged => {
                self.document_changed(false);
                self.notify();
            }
            Message::LaidDown(done) => {
                self.look_at_drop();
                self.notify();
                drop(done);
            }
            Message::InterfacesChanged => self.schedule.changed(Instant::now()),
            Message::WatchLost(why) => {
                tracing::error!("{why}");
                self.watch_lost.push(why);
            }
            Message::Status(reply) => drop(reply.send(self.status())),
            Message::Counters(reply) => drop(reply.send(self.counters())),
            Message::Drain(reply) => {
                let drained = self.drain();
                self.tell_served();
                drop(reply.send(drained));
                self.notify();
            }
            Message::Bypass(request, reply) => {
                let bypassed = self.bypass(&request);
                self.tell_served();
                drop(reply.send(bypassed));
                self.notify();
            }
            Message::Rollback(request, reply) => {
                let before = self.in_force();
                let returned = self.rollback(&request);
                self.tell_served();
                drop(reply.send(returned));
                self.compare_with_fleet(before);
                self.notify();
            }
            Message::Confirm(request, reply) => {
                drop(reply.send(self.confirm(&request)));
                self.notify();
            }
            Message::Generations(reply) => drop(reply.send(Ok(self.generations()))),
            Message::Events(query, reply) => self.tell_events(query, reply),
            Message::Happened(kind, message) => self.event(kind, None, &message),
            Message::Doctor(reply) => drop(reply.send(Ok(self.doctor()))),
            Message::Demands { demands, revision } => self.demand(demands, revision),
            Message::Stop => {}
        }
        self.look_at_what_waited(waited);
        self.tell_served();
    }

    /// Whether a document that is laid down has to wait.
    fn waits(&self) -> bool {
        self.state.state().unconfirmed.is_some()
    }

    /// Looks at what was laid down while a document waited to be confirmed, once it does not any
    /// more: confirmed, returned from, left, replaced or drained.
    fn look_at_what_waited(&mut self, waited: bool) {
        if waited && !self.waits() {
            self.ignored = None;
            self.document_changed(true);
            self.look_at_drop();
            self.notify();
        }
    }

    /// Applies a document and remembers why, if it is refused as a whole.
    fn apply_from(&mut self, request: &Request, source: &str) -> Result<ApplyReport, Problem> {
        let before = self.state.state().current.clone();
        let result = self.apply(request);
        match &result {
            Ok(report) => self.applied(request, report, before.as_ref(), source),
            Err(problem) => self.refuse(source, problem::document_errors(problem.clone())),
        }
        result
    }

    /// Tells what came of a document.
    fn applied(
        &mut self,
        request: &Request,
        report: &ApplyReport,
        before: Option<&Edition>,
        source: &str,
    ) {
        outcome::log(report, source);
        let news = report.outcome != ApplyOutcome::Unchanged
            || before != self.state.state().current.as_ref();
        if news {
            let message = format!("{} ({source})", outcome::words(report));
            self.event(EventKind::Applied, None, &message);
        }
        if let (Some(waiting), Some(_)) = (&report.unconfirmed, request.confirm_within) {
            let message = format!(
                "to be confirmed within {} s, as {} asked",
                waiting.remaining_ms.div_ceil(1_000),
                glass::who(request.uid)
            );
            self.event(EventKind::Unconfirmed, None, &message);
        }
    }

    fn refuse(&mut self, source: &str, errors: Vec<pointsman_model::document::DocumentError>) {
        for error in &errors {
            tracing::error!(source, "document refused: {error}");
        }
        let first = errors.first().map_or(String::new(), |error| format!(": {error}"));
        let message = format!("{source}, {} errors{first}", errors.len());
        self.event(EventKind::DocumentRefused, None, &message);
        let source = source.to_owned();
        self.refused = Some(RefusedDocument { source, at_unix_ms: unix_ms(), errors });
    }

    fn doctor(&mut self) -> Doctor {
        let mut doctor = self.kernel.doctor();
        doctor.checks.push(check_space(&self.state_dir));
        doctor
    }

    fn started(&mut self) {
        let message = match &self.state.state().current {
            None => "no document was accepted yet".to_owned(),
            Some(edition) if self.state.state().drained => {
                format!("drained at generation {}", edition.generation)
            }
            Some(edition) => format!("with generation {}", edition.generation),
        };
        let message = format!("pointsman-node {} {message}", env!("CARGO_PKG_VERSION"));
        self.event(EventKind::Started, None, &message);
    }

    /// Writes down which hooks wait that did not before.
    fn tell_pending(&mut self, waited: &BTreeSet<HookId>) {
        let waiting = self.last.waiting();
        for hook in waiting.difference(waited) {
            let why = self.last.pending(hook).cloned().unwrap_or_default();
            self.event(EventKind::Pending, Some(hook), &why);
        }
    }

    /// Tells the service manager in one line how the node stands.
    fn notify(&self) {
        let state = self.state.state();
        let line = match &state.current {
            None => "no document yet".to_owned(),
            Some(edition) if state.drained => {
                format!("drained at generation {}", edition.generation)
            }
            Some(edition) => format!(
                "generation {}{}{}: {} hooks, {} refusals",
                edition.generation,
                if state.unconfirmed.is_some() { " (to be confirmed)" } else { "" },
                match state.bypassed.len() {
                    0 => String::new(),
                    n => format!(", {n} BYPASSED"),
                },
                self.last.wanted.len(),
                self.last.refusals.len()
            ),
        };
        notify::status(&line);
    }
}

/// Whether there is room for documents and objects.
fn check_space(state_dir: &Path) -> Check {
    const LITTLE: u64 = 64 << 20;
    let path = state_dir.display();
    let (health, found, consequence) = match rustix::fs::statvfs(state_dir) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} MiB free at {path}", free >> 20);
            match free {
                ..=0 => (Health::Broken, found, "new documents are refused: free space there"),
                1..LITTLE => {
                    (Health::Limited, found, "large objects may not fit: free space there")
                }
                _ => (Health::Ok, found, "documents and objects are kept over a reboot"),
            }
        }
        Err(errno) => {
            let found = format!("cannot examine {path}: {errno}");
            (Health::Broken, found, "new documents are refused: see that the directory is there")
        }
    };
    Check { name: "state directory".into(), health, found, consequence: consequence.into() }
}
