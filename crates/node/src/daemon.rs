//! The daemon from its arguments to its end.
//!
//! Its parent is the keeper, which has the sockets of its clients ([`crate::keep`]).
//!
//! Seven threads: this one runs the socket and waits for signals, one is the engine, one waits for
//! the document to be replaced, one for what comes from the fleet, one for interfaces to change, one
//! for clients to ask, one works on network cards for them. However the daemon ends, the operator's
//! chains stay attached; SIGINT takes off what is there for instances.

use crate::args::Args;
use crate::disk::{self, Disk, StorageError};
use crate::engine::{Engine, Handle, Message};
use crate::fleet::Places;
use crate::fleet::stamps::Stamps;
use crate::fleet::watch::{PlacesWatch, SLOW_LOOK};
use crate::group::GroupError;
use crate::host::{Kernel, KernelError};
use crate::lock::{Lock, LockError};
use crate::resolve::MAX_OBJECT;
use crate::serve::Limits;
use crate::state::{StateError, StateFile};
use crate::store::Store;
use crate::watch::{Watch, WatchError};
use crate::{http, leases, notify};
use pointsman_keeper::link::{Link, LinkError};
use pointsman_logging::LogFormat;
use pointsman_netdev::{Events, Roots};
use std::convert::identity;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// How long replies under way may take to be read after the engine has ended.
const GRACE: Duration = Duration::from_secs(1);

/// How long giving back what instances hold may take when the daemon is stopped.
const RELEASE: Duration = Duration::from_secs(5);

/// The shortest time between two words that interfaces changed, or that something was laid down.
const LULL: Duration = Duration::from_millis(50);

/// Why the daemon does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A directory is missing or cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A directory belongs to another daemon.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The host cannot run chains.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// What is remembered cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The document cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// A group is not known.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The socket cannot be served.
    #[error("cannot serve on {}: {source}", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is no keeper, or it has ended.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A thread or a signal handler could not be had.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The engine ended without being told to.
    #[error(
        "the engine ended unexpectedly; running chains stay as they are: start the daemon again"
    )]
    EngineDied,
    /// Clients were not answered any more.
    #[error("what answers clients ended unexpectedly; they stay connected: start the daemon again")]
    LeasesDied,
}

/// Runs the daemon until SIGTERM or SIGINT. Without a link there is nobody to tell of clients.
///
/// # Errors
/// [`DaemonError`]: one line that names the thing.
pub fn run(
    args: &Args,
    link: Option<Link>,
    kernel: impl FnOnce(&Path) -> Result<Box<dyn Kernel>, KernelError>,
) -> Result<(), DaemonError> {
    disk::create_directory(&args.state_dir)?;
    let _run = match link {
        // It holds the lock.
        Some(_) => None,
        None => Some(lock_run_dir(args)?),
    };
    let _state = Lock::take(&args.state_dir, "--state-dir")?;
    let kernel = kernel(&args.bpffs)?;
    let document = args.document();
    let (leases, asked) = leases::Handle::new().map_err(start("the leases"))?;
    let observer = leases.clone();
    let state = StateFile::open(&args.state_dir)?
        .observed_by(move |what| observer.tell(leases::Message::Document(what)));
    let objects = Store::open(&args.state_dir.join("objects"), MAX_OBJECT)?;
    let fleet = args.fleet();
    // Without a keeper there are no connections that a journal could be about.
    let epoch = link.as_ref().map_or_else(String::new, |link| link.epoch().to_string());
    let fresh = link.as_ref().is_some_and(Link::is_fresh);
    let (handle, messages) = Handle::new();
    let config = leases::Config {
        run_dir: args.run_dir.clone(),
        fresh,
        roots: Roots::default(),
        original_lines: args.log_format == Some(LogFormat::Mtl),
    };
    let clients = leases::Leases::open(config, &epoch, handle.clone(), leases.clone());
    let served = leases.clone();
    let engine = Engine::with(kernel, state, objects, &args.state_dir, &document)
        .in_fleet(&fleet)
        .checking_every(Duration::from_secs(args.check_interval))
        .keeping(usize::from(args.keep_generations))
        .demanding(clients.demands())
        .telling_served(move |what| served.tell(leases::Message::Served(what)));
    // Before the document is read for the first time, so that no change is missed in between.
    let watch = Watch::start(&document)?;
    // Without it the node can do all that it could do alone.
    let places = PlacesWatch::start(&fleet);
    let interfaces = Events::open()
        .map_err(|source| start("watching the interfaces")(io::Error::other(source)))?;
    let (socket, status_socket) = (args.socket(), args.status_socket());
    let status_group = args.status_group_number()?;
    let listen = |socket: &Path, group| {
        let no_socket = |source| DaemonError::Socket { socket: socket.to_owned(), source };
        http::listen(socket, group).map_err(no_socket)
    };
    // Clients that connect from now on wait until the engine has adopted what runs.
    let listeners = (listen(&socket, None)?, listen(&status_socket, status_group)?);
    let pid_file = args.run_dir.join("engine.pid");
    if let Err(error) = Disk::default().replace(&pid_file, pid().as_bytes()) {
        // It is for people; a full disk is no reason to leave clients without answers.
        tracing::warn!("{error}");
    }

    let kept = link.is_some();
    let (asks, answers) = link.map(Link::split).unzip();
    let replies = answers.clone();
    let (alive, ended) = oneshot::channel();
    let ready = move || {
        match answers {
            // It tells the service manager. Where it has ended, so will we.
            Some(mut keeper) => drop(keeper.ready()),
            None => notify::ready(),
        }
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    };
    let run_engine = move || {
        // Dropped when the thread ends, however it ends.
        let _alive: oneshot::Sender<()> = alive;
        engine.run(&messages, ready);
    };
    thread::Builder::new().name("engine".into()).spawn(run_engine).map_err(start("the engine"))?;
    spawn_watch(watch, handle.clone()).map_err(start("watching the document"))?;
    spawn_places(places, &fleet, handle.clone()).map_err(start("watching the drop directory"))?;
    spawn_interfaces(interfaces, handle.clone(), leases.clone())
        .map_err(start("watching the interfaces"))?;

    let (keeper_gone, keeper_lost) = oneshot::channel();
    let link = asks.zip(replies);
    let serve_clients = move || drop(keeper_gone.send(leases::run(clients, link, &asked)));
    let spawned = thread::Builder::new().name("leases".into()).spawn(serve_clients);
    spawned.map_err(start("answering clients"))?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(start("the socket's runtime"))?;
    let stop = Stop { kept, releases: args.release_on_stop };
    let result =
        runtime.block_on(serve(listeners, (handle, leases), ended, (stop, keeper_lost), &socket));
    // So that clients say "not running" rather than "refused". The next start removes them too.
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::remove_file(&status_socket);
    let _ = std::fs::remove_file(&pid_file);
    result
}

/// Makes the run directory if it is not there, and takes its lock.
///
/// # Errors
/// [`DaemonError::Lock`] names the process that has it.
pub fn lock_run_dir(args: &Args) -> Result<Lock, DaemonError> {
    disk::create_directory(&args.run_dir)?;
    Ok(Lock::take(&args.run_dir, "--run-dir")?)
}

fn pid() -> String {
    format!("{}\n", std::process::id())
}

fn start(what: &'static str) -> impl Fn(io::Error) -> DaemonError {
    move |source| DaemonError::Start { what, source }
}

/// The thread ends with the process: it owns nothing that outlives it.
fn spawn_watch(watch: Watch, engine: Handle) -> io::Result<()> {
    let run = move || {
        let lost = watch.run(|| engine.tell(Message::DocumentChanged));
        engine.tell(Message::WatchLost(lost.to_string()));
    };
    thread::Builder::new().name("watch".into()).stack_size(64 << 10).spawn(run).map(drop)
}

/// The thread ends with the process: it owns nothing that outlives it.
fn spawn_places(watch: io::Result<PlacesWatch>, places: &Places, engine: Handle) -> io::Result<()> {
    let drop_dir = places.drop.display().to_string();
    let places = places.clone();
    let run = move || {
        let look = || {
            let start = Instant::now();
            let (done, looked) = mpsc::channel();
            engine.tell(Message::LaidDown(done));
            // Nothing is ever sent: that its other end is dropped says that it was looked at.
            let _ = looked.recv();
            // Whoever lays things down without end has half of the engine's time at most.
            thread::sleep(start.elapsed().max(LULL));
        };
        let mut stamps = Stamps::of(&places);
        let lost = watch.map_or_else(identity, |mut watch| watch.run(look));
        engine.tell(Message::WatchLost(format!(
            "the drop directory {drop_dir} is not watched ({lost}): it is looked at once a minute"
        )));
        loop {
            let now = Stamps::of(&places);
            if now != stamps {
                stamps = now;
                look();
            }
            thread::sleep(SLOW_LOOK);
        }
    };
    thread::Builder::new().name("drop".into()).stack_size(64 << 10).spawn(run).map(drop)
}

/// The thread ends with the process: it owns nothing that outlives it.
fn spawn_interfaces(events: Events, engine: Handle, leases: leases::Handle) -> io::Result<()> {
    let run = move || {
        let lost = loop {
            match events.wait() {
                Ok(()) => {
                    engine.tell(Message::InterfacesChanged);
                    leases.tell(leases::Message::InterfacesChanged);
                }
                Err(error) => break error,
            }
            // What happens meanwhile waits in the kernel's queue and is told as one.
            thread::sleep(LULL);
        };
        engine.tell(Message::WatchLost(format!(
            "interfaces are not watched any more ({lost}): the host is looked at every few \
             seconds; restart the daemon"
        )));
    };
    thread::Builder::new().name("interfaces".into()).stack_size(64 << 10).spawn(run).map(drop)
}

/// What becomes of clients at the end.
#[derive(Debug, Clone, Copy)]
struct Stop {
    /// Their connections belong to a keeper.
    kept: bool,
    /// What they hold is given back at every stop, not at SIGINT alone.
    releases: bool,
}

/// Takes back what instances hold: the operator stops for good.
async fn release(leases: &leases::Handle) {
    let released = leases.ask(leases::Message::Release);
    if tokio::time::timeout(RELEASE, released).await.is_err() {
        tracing::warn!("not all that instances hold was given back; the next start does it");
    }
}

async fn serve(
    (listener, status): (UnixListener, UnixListener),
    (engine, leases): (Handle, leases::Handle),
    mut ended: oneshot::Receiver<()>,
    (stopping, keeper): (Stop, oneshot::Receiver<Option<LinkError>>),
    socket: &Path,
) -> Result<(), DaemonError> {
    let catch = |kind| {
        signal(kind).map_err(|source| DaemonError::Start { what: "the signal handlers", source })
    };
    let (mut terminate, mut interrupt) =
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    // Dropping the sender ends both.
    let (stop, stopped) = watch::channel(());
    let until = |mut stopped: watch::Receiver<()>| async move { drop(stopped.changed().await) };
    let (all, shows) = (until(stopped.clone()), until(stopped));
    let limits = Limits::default();
    let all = http::serve(listener, engine.clone(), leases.clone(), limits, all);
    let shows = http::serve_status(status, engine.clone(), leases.clone(), limits, shows);
    let mut server = tokio::spawn(async { tokio::try_join!(all, shows).map(|_| ()) });
    let result = tokio::select! {
        name = either(&mut terminate, &mut interrupt) => {
            if stopping.releases || name == "SIGINT" {
                tracing::info!(signal = name, "stopping; what instances hold is given back");
                release(&leases).await;
            } else {
                tracing::info!(signal = name, "stopping; everything stays attached");
            }
            if !stopping.kept {
                notify::stopping();
            }
            engine.tell(Message::Stop);
            // A plan under way is carried out to its end; so are requests that came before.
            let _ = (&mut ended).await;
            Ok(())
        }
        _ = &mut ended => Err(DaemonError::EngineDied),
        lost = keeper => match lost {
            Ok(Some(error)) => Err(error.into()),
            Ok(None) | Err(_) => Err(DaemonError::LeasesDied),
        },
        served = &mut server => {
            let source = match served {
                Ok(Err(source)) => source,
                Ok(Ok(())) => io::Error::other("it ended by itself"),
                Err(error) => io::Error::other(error),
            };
            return Err(DaemonError::Socket { socket: socket.to_owned(), source });
        }
    };
    drop(stop);
    // A client that keeps its connection open must not keep the daemon from ending.
    let _ = tokio::time::timeout(GRACE, server).await;
    result
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
