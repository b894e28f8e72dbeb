//! The keeper's loop: one thread, which waits in epoll and nowhere else.

use crate::backoff::Backoff;
use crate::binary::Binary;
use crate::clients::Clients;
use crate::engine::{self, Engine, Program};
use crate::link::Epoch;
use crate::listen::{Listen, ListenError, Listener};
use crate::notice::{Notice, Notices};
use crate::shares::Shares;
use crate::systemd;
use crate::trial::{TRIALS, Trial};
use crate::wire::{self, Batch};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How many clients there may be, unless told otherwise.
pub const DEFAULT_MAX_CLIENTS: usize = 4096;

/// The longest time between an end of the daemon and its next start, unless told otherwise.
pub const DEFAULT_LONGEST_DELAY: Duration = Duration::from_secs(10);

/// How long a daemon that serves may leave all requests unanswered, unless told otherwise: it takes
/// microseconds.
pub const DEFAULT_LONGEST_SILENCE: Duration = Duration::from_secs(30);

/// How long a daemon may take to end that was told to, unless told otherwise. It carries a change to
/// its end; one that is killed over it leaves what the next one goes on with.
pub const DEFAULT_LONGEST_END: Duration = Duration::from_secs(60);

/// Files that are not for clients: the daemon's and our own.
const RESERVED_FILES: u64 = 256;

/// Files per client: the daemon, under the same limit, has the socket and a pidfd of the peer.
const FILES_PER_CLIENT: u64 = 2;

/// When what failed for want of files or memory is tried again.
const RETRY: Duration = Duration::from_millis(250);

const EVENTS_AT_ONCE: usize = 256;

/// What epoll calls the things that are no clients. Connections count up from 1.
const INTERRUPT: u64 = u64::MAX;
const TERMINATE: u64 = u64::MAX - 1;
const SWAP: u64 = u64::MAX - 2;
const ENGINE: u64 = u64::MAX - 3;
const LINK: u64 = u64::MAX - 4;
const LISTENERS: u64 = u64::MAX - 64;

/// What a keeper does.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect. At most 32.
    pub listen: Vec<Listen>,
    /// The daemon.
    pub program: Program,
    /// How many clients there may be.
    pub max_clients: usize,
    /// How many of them one user may have who is not root; without it, a quarter.
    pub max_clients_per_user: Option<usize>,
    /// Whether requests on a [`Kind::Native`](crate::link::Kind::Native) socket may bring
    /// descriptors. The last close of one can hold up the keeper: only for clients that are trusted.
    pub descriptors: bool,
    /// The longest time between an end of the daemon and its next start.
    pub longest_delay: Duration,
    /// How long a daemon that serves may leave all requests unanswered before it is taken for one
    /// that hangs: it is ended by SIGABRT, as if it had crashed over them, and started again.
    pub longest_silence: Duration,
    /// How long a daemon may take to end that was told to, before it is ended by SIGKILL. Less than
    /// the service manager waits for the keeper (`TimeoutStopSec=`), which hands the clients on
    /// behind that.
    pub longest_end: Duration,
    /// Where signals are heard of.
    pub signals: Signals,
    /// Whether the service manager keeps our sockets (`FileDescriptorStoreMax=`). Then SIGTERM hands
    /// the clients to the keeper that it starts next; if it starts none, it closes them.
    pub fd_store: bool,
}

/// Descriptors that become readable by a signal, and are non-blocking.
#[derive(Debug)]
pub struct Signals {
    /// SIGINT: passed on to the daemon, whose end is ours.
    pub interrupt: OwnedFd,
    /// SIGTERM: passed on to the daemon, whose end is ours.
    pub terminate: OwnedFd,
    /// SIGHUP: the daemon ends, and what is installed now is started.
    pub swap: OwnedFd,
}

/// Why a keeper does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// A socket cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The daemon cannot be started for the first time.
    #[error("cannot start the daemon {}: {source}", path.display())]
    Start {
        /// The binary.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Nothing works without this.
    #[error("the keeper cannot {what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn io_error(what: &'static str) -> impl Fn(Errno) -> KeeperError {
    move |source| KeeperError::Io { what, source: source.into() }
}

/// Keeps the daemon and its clients until a signal ends the daemon, or it ends before it ever
/// served. Returns the exit code: the daemon's.
///
/// # Errors
/// [`KeeperError`]. No daemon is left.
pub fn run(config: Config, tell: impl FnMut(&Notice)) -> Result<u8, KeeperError> {
    Keeper::new(config, tell)?.run()
}

mod accept;
mod hang;
mod kept;
mod relay;

use hang::Limits;
use kept::{Kept, STORED, new_epoch};

struct Keeper<F> {
    epoch: Epoch,
    /// No daemon was ever started under this name.
    fresh: bool,
    epoll: Rc<OwnedFd>,
    clients: Clients,
    listeners: Vec<Listener>,
    /// When accepting, or the link, goes on, where it failed for want of files or memory.
    retry: Option<Instant>,
    program: Program,
    engine: Option<Engine>,
    /// Which binary the daemon is started from.
    trial: Trial<Binary>,
    /// How long others wait for the answer to a request that a daemon may have crashed over.
    suspect_until: Option<Instant>,
    limits: Limits,
    /// When the daemon is started again, where none runs.
    start_again: Option<Instant>,
    backoff: Backoff,
    /// A datagram that the link did not take yet.
    batch: Batch<Rc<OwnedFd>>,
    /// Whether epoll waits until the link takes more.
    link_blocked: bool,
    buffer: Vec<u8>,
    signals: Signals,
    fd_store: bool,
    /// The signal that ends the daemon and us.
    stopping: Option<Signal>,
    swapping: bool,
    /// A daemon has served: ours, or that of the keeper whose clients we have.
    served: bool,
    notices: Notices<F>,
}

impl<F: FnMut(&Notice)> Keeper<F> {
    fn new(config: Config, tell: F) -> Result<Self, KeeperError> {
        let Config { listen, program, longest_delay, signals, fd_store, .. } = config;
        let limits = Limits::new(config.longest_silence, config.longest_end);
        let Config { max_clients, max_clients_per_user, descriptors, .. } = config;
        let fd_store = fd_store && systemd::is_there();
        let mut kept = Kept::take(fd_store);
        let mut notices = Notices::new(tell);
        let limit = files_for(max_clients);
        if limit < max_clients {
            let notice = Notice::FewerClients { wanted: max_clients, limit };
            notices.tell(&notice, Instant::now());
        }
        let epoll =
            Rc::new(epoll::create(CreateFlags::CLOEXEC).map_err(io_error("create an epoll"))?);
        let watch = |what: &OwnedFd, name| {
            epoll::add(&*epoll, what, EventData::new_u64(name), EventFlags::IN)
                .map_err(io_error("wait for something"))
        };
        watch(&signals.interrupt, INTERRUPT)?;
        watch(&signals.terminate, TERMINATE)?;
        watch(&signals.swap, SWAP)?;
        let mut listeners = Vec::new();
        for listen in &listen {
            let adopted = kept.listener(listen).and_then(|adopted| {
                adopted
                    .map_err(|error| notices.tell(&Notice::NotAdopted(error), Instant::now()))
                    .ok()
            });
            listeners.push(match adopted {
                Some(listener) => listener,
                None => Listener::bind(listen)?,
            });
        }
        for (listener, name) in listeners.iter().zip(LISTENERS..) {
            watch(&listener.socket, name)?;
            notices.tell(&Notice::Listening(listener.path().to_owned()), Instant::now());
        }
        let shares = Shares::new(limit, max_clients_per_user);
        let mut clients =
            Clients::new(Rc::clone(&epoll), shares, descriptors).map_err(|source| {
                KeeperError::Io { what: "start the thread that closes descriptors", source }
            })?;
        let epoch = kept.resume(&mut clients).map_err(io_error("take over a connection"))?;
        if fd_store {
            clients.store();
            for (listener, name) in listeners.iter().zip(STORED) {
                systemd::store(name, &listener.socket)
                    .unwrap_or_else(|error| notices.tell(&Notice::Notify(error), Instant::now()));
            }
        }
        // Clients that were taken over wait for a daemon, as if one of ours had served them.
        let served = epoch.is_some();
        let epoch = match epoch {
            Some(epoch) => epoch,
            None => new_epoch()?,
        };
        Ok(Self {
            epoch,
            fresh: !served,
            clients,
            fd_store,
            epoll,
            listeners,
            retry: None,
            program,
            engine: None,
            trial: Trial::default(),
            suspect_until: None,
            limits,
            start_again: None,
            backoff: Backoff::new(longest_delay),
            batch: Batch::default(),
            link_blocked: false,
            buffer: wire::datagram_buffer(),
            signals,
            stopping: None,
            swapping: false,
            served,
            notices,
        })
    }

    fn run(mut self) -> Result<u8, KeeperError> {
        if let Err(source) = self.start() {
            if !self.served {
                return Err(KeeperError::Start { path: self.program.path.clone(), source });
            }
            self.not_started(source, Instant::now());
        }
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        loop {
            self.flush_link();
            self.watch_engine();
            let patience = self.patience();
            events.clear();
            match epoll::wait(&*self.epoll, spare_capacity(&mut events), patience.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(io_error("wait")(error)),
            }
            let mut engine_ended = false;
            for event in &events {
                let (name, flags) = (event.data.u64(), event.flags);
                match name {
                    INTERRUPT => self.stop(Signal::INT),
                    TERMINATE => self.stop(Signal::TERM),
                    SWAP => self.swap(),
                    ENGINE => engine_ended = true,
                    LINK => self.on_link(flags),
                    LISTENERS.. => self.accept((name - LISTENERS) as usize),
                    client => {
                        if let Some(why) = self.clients.event(client, flags) {
                            self.notice(&Notice::Disconnected { connection: client, why });
                        }
                    }
                }
            }
            if engine_ended && let Some(code) = self.on_end()? {
                return Ok(code);
            }
            if self.stopping.is_some() && self.engine.is_none() {
                self.hand_over();
                return Ok(0);
            }
            self.on_time();
        }
    }

    /// How long to wait when nothing happens.
    fn patience(&self) -> Option<Timespec> {
        let due = [self.retry, self.start_again, self.suspect_until, self.limits.next()];
        let next = due.into_iter().flatten().min()?;
        next.saturating_duration_since(Instant::now()).try_into().ok()
    }

    fn on_time(&mut self) {
        let due = [self.retry, self.start_again, self.suspect_until, self.limits.next()];
        if due.iter().all(Option::is_none) {
            return;
        }
        let now = Instant::now();
        self.enforce(now);
        if self.retry.is_some_and(|due| due <= now) {
            self.retry = None;
            self.link_blocked = false;
            self.listen_for(EventFlags::IN);
        }
        if self.suspect_until.take_if(|until| *until <= now).is_some() {
            self.suspect_is_late(now);
        }
        if self.start_again.is_some_and(|due| due <= now) {
            self.start_again = None;
            if let Err(error) = self.start() {
                self.not_started(error, now);
            }
        }
    }

    fn not_started(&mut self, error: io::Error, now: Instant) {
        let again_in = self.backoff.after(None).max(RETRY);
        self.notice(&Notice::NotStarted { error, again_in });
        self.start_again = Some(now + again_in);
        if self.trial.failed() {
            self.fell_back();
        }
    }

    /// From now on the daemon is the one that worked before.
    fn fell_back(&mut self) {
        self.backoff.forget();
        self.start_again = Some(Instant::now());
        let path = self.program.path.clone();
        self.notice(&Notice::FellBack { path, failures: TRIALS });
    }

    fn start(&mut self) -> io::Result<()> {
        let engine = Engine::start(&self.program, self.trial.instead(), self.epoch, self.fresh)?;
        self.fresh = false;
        let add = |what: &OwnedFd, name| {
            epoll::add(&*self.epoll, what, EventData::new_u64(name), EventFlags::IN)
        };
        add(&engine.pidfd, ENGINE)?;
        add(&engine.link, LINK)?;
        self.clients.close_elsewhere(self.batch.take());
        self.link_blocked = false;
        self.suspect_until = None;
        self.limits.started();
        self.clients.replay();
        self.notice(&Notice::Started { pid: engine.pid() });
        self.engine = Some(engine);
        Ok(())
    }

    fn stop(&mut self, signal: Signal) {
        let heard =
            if signal == Signal::INT { &self.signals.interrupt } else { &self.signals.terminate };
        drain(heard);
        // SIGTERM stays what it is when SIGINT follows: the clients are handed over.
        if self.stopping != Some(Signal::TERM) {
            self.stopping = Some(signal);
        }
        self.start_again = None;
        systemd::notify("STOPPING=1").unwrap_or_else(|error| self.notice(&Notice::Notify(error)));
        if let Some(engine) = &self.engine {
            engine.signal(signal);
            self.limits.told_to_end();
        }
    }

    fn swap(&mut self) {
        drain(&self.signals.swap);
        if self.stopping.is_some() {
            return;
        }
        self.notice(&Notice::Swapping);
        self.trial.installed();
        match &self.engine {
            Some(engine) => {
                self.swapping = true;
                // The first one is told when it serves: its end before that would be ours.
                if self.served {
                    engine.signal(Signal::TERM);
                    self.limits.told_to_end();
                }
            }
            // Whoever installed a better one does not want to wait.
            None => self.start_again = Some(Instant::now()),
        }
    }

    /// The daemon has ended. Returns the exit code if that is our end, too.
    fn on_end(&mut self) -> Result<Option<u8>, KeeperError> {
        // What it said before it ended counts: an answer that was told is not asked for again.
        self.read_link(usize::MAX);
        let Some(mut engine) = self.engine.take() else { return Ok(None) };
        let status = engine.wait().map_err(|source| {
            let what = "learn how the daemon ended";
            KeeperError::Io { what, source }
        })?;
        // Its end is known, but others may still have its link.
        let _ = epoll::delete(&*self.epoll, &engine.pidfd);
        let _ = epoll::delete(&*self.epoll, &engine.link);
        if self.stopping.is_some() || !(self.served || self.swapping) {
            // One that was still starting, and knew no signals yet, ended as it was told to.
            let told = self.stopping.map(Signal::as_raw);
            self.hand_over();
            let as_told = engine.ready.is_none() && told.is_some() && told == status.signal();
            return Ok(Some(if as_told { 0 } else { engine::code(status) }));
        }
        self.restart(status, &engine);
        Ok(None)
    }

    /// Leaves everything with the service manager, if it has our sockets and means to go on.
    fn hand_over(&mut self) {
        if !self.fd_store || self.stopping != Some(Signal::TERM) {
            return;
        }
        if let Some((clients, error)) = self.clients.store_rest() {
            self.notice(&Notice::NotKept { clients, error });
        }
        match kept::save(&self.clients.save(self.epoch)) {
            Ok(()) => self.listeners.drain(..).for_each(Listener::leave),
            Err(error) => self.notice(&Notice::Notify(error)),
        }
    }

    fn restart(&mut self, status: ExitStatus, engine: &Engine) {
        let now = Instant::now();
        let served = engine.ready.map(|since| now - since);
        let swapped = std::mem::take(&mut self.swapping);
        let hung = self.limits.hung();
        if engine::crashed(status) || hung {
            self.clients.crashed();
        }
        let again_in = if swapped && status.success() {
            Duration::ZERO
        } else {
            let again_in = self.backoff.after(served);
            let how = status.to_string();
            self.notice(&Notice::Ended { how, again_in, clients: self.clients.len() });
            again_in
        };
        self.start_again = Some(now + again_in);
        // One that ends well before it ever served has failed as well.
        let failed = engine::crashed(status) || served.is_none() && status.success();
        if self.trial.ended(&engine.binary, served, failed && !swapped) {
            self.fell_back();
        }
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.tell(notice, Instant::now());
    }
}

/// Raises the limit of open files as far as it goes; how many of `wanted` clients it is enough for.
fn files_for(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // None is no limit.
    let Some(files) = getrlimit(Resource::Nofile).current else { return wanted };
    let room = files.saturating_sub(RESERVED_FILES) / FILES_PER_CLIENT;
    usize::try_from(room.max(1)).map_or(wanted, |room| room.min(wanted))
}

/// Makes a descriptor unreadable again.
fn drain(signal: &OwnedFd) {
    let mut bytes = [0_u8; 64];
    while rustix::io::read(signal, &mut bytes).is_ok_and(|read| read == bytes.len()) {}
}
