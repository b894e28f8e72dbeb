//! The courier as a process: directories, clocks, signals.
//!
//! Two threads. One polls and writes files, which may wait for a disk. The other reports, serves
//! `/metrics`, and ends the process. Neither waits for the other.

use crate::args::{Listen, RunArgs};
use crate::control::HttpControl;
use crate::courier::{Config, Courier, Doubt, Outcome, PollError};
use crate::drop_dir::{DropDir, OpenError};
use crate::enrolled::{Enrolled, EnrolledError, client_options};
use crate::metrics::Metrics;
use crate::node::{Node, NodeSocket};
use crate::report::{Reported, Reporter};
use crate::schedule::{Chance, Schedule};
use crate::serve::{Health, Watched, serve};
use crate::source::{Client, ClientError, Opening, Sources, Traffic};
use crate::trouble::Side;
use crate::trust::Trust;
use crate::{Secret, notify};
use pointsman_model::fleet::{CourierStatus, RefusedSnapshot};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

/// The shortest time between two reports: what happens at once is told at once.
const LULL: Duration = Duration::from_millis(500);

/// The longest pause before a daemon that is away is asked again for what happens.
const AWAY: Duration = Duration::from_secs(5);

/// How long the end of the process waits for the thread that polls.
const GRACE: Duration = Duration::from_secs(5);

/// How often the thread that polls says that it is alive.
const BEAT: Duration = Duration::from_secs(1);

/// How long it may say nothing: a disk that takes nothing has it wait.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a poll and the pause after it may take beside the interval: every request of one may
/// wait for as long as its patience goes.
const LONGEST_POLL: Duration = Duration::from_secs(900);

/// Why the courier does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// This node has not enrolled, or what it got cannot be used.
    #[error(transparent)]
    Enrolled(#[from] EnrolledError),
    /// Servers cannot be reached this way.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An option or a file is wrong.
    #[error("{0}")]
    Config(String),
    /// A directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The metrics cannot be served.
    #[error(
        "cannot listen on {address} for /metrics: {source}; choose another --metrics-listen, or off"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A thread or a runtime could not be had.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The thread that polls has ended.
    #[error("the part that polls ended unexpectedly: start the courier again")]
    Died,
    /// The only poll did not go well.
    #[error("{0}")]
    Once(String),
}

/// What both threads know.
#[derive(Debug)]
struct Shared {
    metrics: Metrics,
    status: watch::Receiver<CourierStatus>,
    troubles: Mutex<Troubles>,
    /// When the thread that polls was alive last, in milliseconds since the start.
    beat: AtomicU64,
    /// When the last poll came to an end, likewise.
    polled: AtomicU64,
    interval: Duration,
    started: Instant,
}

#[derive(Debug, Clone, Default)]
struct Troubles {
    daemon: Option<String>,
    control: Option<String>,
}

impl Shared {
    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, what: &AtomicU64) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        what.store(now, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        let since = |what: &AtomicU64| {
            let last = Duration::from_millis(what.load(Ordering::Relaxed));
            self.started.elapsed().saturating_sub(last)
        };
        since(&self.beat) < SILENCE && since(&self.polled) < LONGEST_POLL + 3 * self.interval
    }
}

impl Watched for Shared {
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn health(&self) -> Health {
        let Troubles { daemon, control } = self.troubles().clone();
        let status = self.status.borrow();
        Health {
            healthy: self.is_alive(),
            version: env!("CARGO_PKG_VERSION"),
            last_success_age_seconds: self.metrics.age().as_secs(),
            generation: status.handed_over,
            source_trouble: status.source_trouble.clone(),
            daemon_trouble: daemon,
            control_trouble: control,
        }
    }
}

/// Runs the courier until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`]: one line that names the thing.
pub fn run(args: &RunArgs) -> Result<(), RunError> {
    let enrolled = Enrolled::read(&args.config)?;
    let trust = Trust::File(args.node_config.clone());
    let key = trust.key(&enrolled.fleet, &enrolled.node).map_err(RunError::Config)?;
    let ca = args.way.ca.as_deref().or(enrolled.ca.as_deref());
    let proxy = args.way.proxy.as_deref().map(Secret::new).or_else(|| enrolled.proxy.clone());
    let options = client_options(ca, proxy).map_err(RunError::Config)?;
    let traffic = Traffic::default();
    // The two threads have connections of their own: they have runtimes of their own.
    let (fetching, reporting) = (Client::new(&options)?, Client::new(&options)?);
    let opening = Opening {
        control: &enrolled.control,
        credential: &enrolled.credential,
        source: args.source.as_ref().or(enrolled.source.as_ref()),
        options: &options,
    };
    let source = Sources::open(&opening, &fetching, &traffic).map_err(RunError::Config)?;
    let sink = DropDir::open(&args.drop, &args.cache, &enrolled.node)?;
    let Enrolled { fleet, node, control, credential, .. } = enrolled;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %fleet, %node, control = crate::source::shown(&control),
        key = key.as_ref().map(pointsman_snapshot::keys::PublicKey::key_id),
        "courier of this node"
    );
    if key.is_none() {
        tracing::warn!(
            "{} cannot be read: records are handed over unverified, and the daemon decides",
            args.node_config.display()
        );
    }
    let config = Config { fleet, node, trust, interval: args.poll_interval };
    let courier = Courier::new(config, source, sink);
    let control = HttpControl::new(reporting, control, credential);
    let reporter = Reporter::new(NodeSocket::new(&args.node), control);
    let runtime = runtime()?;
    if args.once {
        return runtime.block_on(once(courier, reporter));
    }
    let (tell, status) = watch::channel(courier.status());
    let shared = Arc::new(Shared {
        metrics: Metrics::new(traffic),
        status,
        troubles: Mutex::default(),
        beat: AtomicU64::new(0),
        polled: AtomicU64::new(0),
        interval: args.poll_interval,
        started: Instant::now(),
    });
    let polling = Polling { source: Side::new("source"), tell, shared: shared.clone() };
    runtime.block_on(serve_all(args, (courier, polling), reporter, shared))
}

fn runtime() -> Result<Runtime, RunError> {
    Builder::new_current_thread()
        .enable_all()
        // A file system that hangs keeps a thread for each try.
        .max_blocking_threads(8)
        .build()
        .map_err(start("a runtime"))
}

fn start(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Start { what, source }
}

type OurCourier = Courier<Sources, DropDir>;
type OurReporter = Reporter<NodeSocket, HttpControl>;

/// One poll and one report.
async fn once(mut courier: OurCourier, mut reporter: OurReporter) -> Result<(), RunError> {
    let outcome = loop {
        match courier.poll_once().await {
            Ok(Outcome::Fetching { .. }) => {}
            other => break other,
        }
    };
    let Reported { daemon, control, .. } = reporter.report_once(courier.status()).await;
    let mut wrong = Vec::new();
    let happened = match outcome {
        Ok(Outcome::Unchanged | Outcome::NothingNew) => "nothing new for this node".to_owned(),
        Ok(Outcome::NoRecord) => "nothing is published for this node".to_owned(),
        Ok(Outcome::HandedOver { generation }) => format!("generation {generation} handed over"),
        Ok(Outcome::Fetching { .. }) => "fetching".to_owned(),
        Ok(Outcome::Stale { offered, kept }) => {
            wrong.extend(courier.status().source_trouble);
            format!("generation {offered} is published, and {kept} stays")
        }
        Ok(Outcome::Incomplete { generation, error }) => {
            wrong.push(error.to_string());
            format!("generation {generation} is published, and cannot be completed")
        }
        Err(error) => {
            wrong.push(error.to_string());
            "nothing could be fetched".to_owned()
        }
    };
    println!("{happened}");
    wrong.extend(daemon.err().map(|error| error.to_string()));
    wrong.extend(control.err().map(|error| format!("the report was not taken: {error}")));
    if wrong.is_empty() { Ok(()) } else { Err(RunError::Once(wrong.join("; "))) }
}

async fn serve_all(
    args: &RunArgs,
    (courier, polling): (OurCourier, Polling),
    reporter: OurReporter,
    shared: Arc<Shared>,
) -> Result<(), RunError> {
    let catch = |kind| signal(kind).map_err(start("the signal handlers"));
    let (mut terminate, mut interrupt) =
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    if let Listen::On(address) = args.metrics_listen {
        let listen = |source| RunError::Listen { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        tracing::info!("metrics on http://{address}/metrics");
        tokio::spawn(serve(listener, Arc::clone(&shared)));
    }
    let (stop, stopped) = watch::channel(());
    let (alive, mut ended) = oneshot::channel::<()>();
    let doubt = courier.doubt();
    let run = move || {
        // Dropped when the thread ends, however it ends.
        let _alive = alive;
        poll(courier, polling, stopped);
    };
    thread::Builder::new().name("poll".into()).spawn(run).map_err(start("polling"))?;
    let happened = Arc::new(Notify::new());
    tokio::spawn(follow(NodeSocket::new(&args.node), happened.clone()));
    let reporting = Reporting {
        reporter,
        status: shared.status.clone(),
        happened,
        schedule: Schedule::new(args.poll_interval),
        doubt,
        refused: None,
        shared: shared.clone(),
    };
    tokio::spawn(reporting.run());
    tokio::spawn(watchdog(shared));
    notify::ready();
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = &mut ended => return Err(RunError::Died),
    };
    tracing::info!(signal = name, "stopping");
    notify::stopping();
    drop(stop);
    // A disk that takes nothing must not keep the process: what is not finished never counts.
    let _ = timeout(GRACE, ended).await;
    Ok(())
}

/// What is made of polls.
struct Polling {
    source: Side,
    tell: watch::Sender<CourierStatus>,
    shared: Arc<Shared>,
}

/// Polls on a runtime of this thread's own, until the sender is dropped.
fn poll(mut courier: OurCourier, mut polling: Polling, mut stopped: watch::Receiver<()>) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!("{error}"),
    };
    runtime.block_on(async {
        let shared = polling.shared.clone();
        tokio::spawn(async move {
            let mut ticks = interval(BEAT);
            loop {
                ticks.tick().await;
                shared.mark(&shared.beat);
            }
        });
        tokio::select! {
            never = courier.poll_for_ever(|result, status| polling.seen(result, status)) => {
                match never {}
            }
            // What is under way is dropped, as by a kill.
            _ = stopped.changed() => {}
        }
    });
}

impl Polling {
    fn seen(&mut self, result: &Result<Outcome, PollError>, status: CourierStatus) {
        self.shared.mark(&self.shared.polled);
        self.shared.metrics.polled(result);
        self.shared.metrics.stands(status.handed_over, status.snapshot);
        let trouble = status.source_trouble.as_deref();
        self.source.note(trouble.map(|text| (kind(result), text)));
        self.tell.send_if_modified(|told| {
            let news = *told != status;
            *told = status;
            news
        });
    }
}

/// What kind of trouble a poll found.
fn kind(result: &Result<Outcome, PollError>) -> &str {
    match result {
        Err(error) | Ok(Outcome::Incomplete { error, .. }) => error.kind(),
        Ok(_) => "stale",
    }
}

/// The part that reports.
struct Reporting {
    reporter: OurReporter,
    status: watch::Receiver<CourierStatus>,
    happened: Arc<Notify>,
    schedule: Schedule,
    doubt: Doubt,
    /// When the daemon refused what it was told last.
    refused: Option<u64>,
    shared: Arc<Shared>,
}

/// What the daemon says when files that were handed over are not there, or not whole.
const LOST: [&str; 3] = ["incomplete", "unreadable", "no_record"];

impl Reporting {
    /// Has the other part look after what the daemon does not find, once for each time.
    fn heed(&mut self, refused: Option<&RefusedSnapshot>) {
        let lost = refused.filter(|refused| LOST.contains(&&*refused.kind));
        let at = lost.map(|refused| refused.at_unix_ms);
        if at.is_some() && at != self.refused {
            self.doubt.raise();
        }
        self.refused = at;
    }

    async fn run(mut self) {
        let (mut daemon, mut control) = (Side::new("daemon"), Side::new("control plane"));
        loop {
            let began = Instant::now();
            let courier = self.status.borrow_and_update().clone();
            let line = line(&courier);
            let reported = self.reporter.report_once(courier).await;
            self.shared.metrics.reported(&reported);
            self.heed(reported.refused.as_ref());
            let troubles = Troubles {
                daemon: reported.daemon.as_ref().err().map(ToString::to_string),
                control: reported.control.as_ref().err().map(ToString::to_string),
            };
            let kinds = (
                reported.daemon.as_ref().err().map(crate::NodeError::kind),
                reported.control.as_ref().err().map(crate::source::SourceError::kind),
            );
            daemon.note(kinds.0.zip(troubles.daemon.as_deref()));
            control.note(kinds.1.zip(troubles.control.as_deref()));
            *self.shared.troubles() = troubles;
            notify::status(&line);
            match &reported.control {
                Ok(()) => {
                    let pause = self.schedule.after_success(Chance::draw());
                    tokio::select! {
                        () = sleep(pause) => {}
                        // The sender lives as long as the thread that polls.
                        Ok(()) = self.status.changed() => {}
                        () = self.happened.notified() => {}
                    }
                }
                // Nothing that happens makes it worth to ask before.
                Err(error) => {
                    let at_least = error.retry_after();
                    sleep(self.schedule.after_failure(Chance::draw(), at_least)).await;
                }
            }
            sleep_until(began + LULL).await;
        }
    }
}

/// One line about the courier for the service manager.
fn line(courier: &CourierStatus) -> String {
    let handed_over = match courier.handed_over {
        Some(generation) => format!("generation {generation} handed over"),
        None => "nothing handed over yet".into(),
    };
    match &courier.source_trouble {
        None => handed_over,
        Some(trouble) => format!("{handed_over}; {trouble}"),
    }
}

/// Tells when something happens at the daemon.
async fn follow(mut node: NodeSocket, happened: Arc<Notify>) {
    let mut seen = None;
    let mut schedule = Schedule::new(Duration::from_millis(500));
    loop {
        match node.event(seen).await {
            Ok(last) => {
                // The first number after the daemon was away is news as well.
                if seen != Some(last) {
                    happened.notify_one();
                }
                seen = Some(last);
                schedule.after_success(Chance::draw());
            }
            Err(error) => {
                tracing::debug!("cannot follow the daemon: {error}");
                if seen.take().is_some() {
                    happened.notify_one();
                }
                let pause = schedule.after_failure(Chance::draw(), None);
                sleep(pause.min(AWAY)).await;
            }
        }
    }
}

/// Tells the service manager that both threads are alive, as often as it wants to hear it.
async fn watchdog(shared: Arc<Shared>) {
    let Some(limit) = notify::watchdog() else { return };
    let mut ticks = interval((limit / 3).max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if shared.is_alive() {
            notify::alive();
        }
    }
}
