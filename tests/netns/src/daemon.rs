//! The daemon and the command line as an operator runs them, in a namespace of the test.

use crate::bpffs::Bpffs;
use crate::netns::Netns;
use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A host: directories of its own, a BPF filesystem of its own. The daemon comes and goes.
#[derive(Debug)]
pub struct Host {
    /// Where the pins go.
    pub bpffs: Arc<Bpffs>,
    check_interval: u32,
    options: Vec<String>,
    directory: tempfile::TempDir,
}

/// A running daemon with its keeper; killed when dropped, which leaves its chains attached.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    /// Where the daemon tells how it is.
    notify: UnixDatagram,
    /// A word for each time it said that it is ready.
    ready: Mutex<Receiver<()>>,
}

/// How long may pass until something that must come has come: on an emulated machine that shares its
/// CPUs, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// What it printed, as JSON where it is.
    pub value: Value,
    /// What it said on standard error.
    pub stderr: String,
}

impl Host {
    /// Makes one.
    ///
    /// # Errors
    /// The kernel's answer; it takes root.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pointsman-host-").tempdir()?;
        let bpffs = Arc::new(Bpffs::mount()?);
        Ok(Self { bpffs, check_interval: 1, options: Vec::new(), directory })
    }

    /// Makes one whose daemon looks at it only when something tells it to.
    ///
    /// # Errors
    /// The kernel's answer; it takes root.
    pub fn told() -> Result<Self> {
        let mut host = Self::new()?;
        host.check_interval = 3600;
        Ok(host)
    }

    /// The same with more options for its daemon.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(ToString::to_string));
        self
    }

    /// A path below the host's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command that starts the daemon.
    #[must_use]
    pub fn command(&self) -> Command {
        self.command_with(&self.bpffs.path().join("pointsman"))
    }

    /// The command that starts the daemon with its pins elsewhere.
    #[must_use]
    pub fn command_with(&self, pins: &Path) -> Command {
        let mut command = Command::new(binary("pointsman-node"));
        command
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--bpffs")
            .arg(pins)
            .arg("--document")
            .arg(self.path("node.json"))
            .args(["--check-interval", &self.check_interval.to_string()])
            .args(&self.options)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon in `netns` and waits until it says that it is ready.
    ///
    /// # Errors
    /// It ends instead, or says nothing.
    pub fn start(&self, netns: &Netns) -> Result<Daemon> {
        self.start_as(netns, self.command())
    }

    /// Starts the daemon by a command made of [`Host::command`], and waits until it is ready.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_as(&self, netns: &Netns, command: Command) -> Result<Daemon> {
        self.start_notifying(netns, command, |_| Ok(()))
    }

    fn start_notifying(
        &self,
        netns: &Netns,
        mut command: Command,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Daemon> {
        let path = self.path(&format!("notify-{}", crate::unique()));
        let notify = UnixDatagram::bind(&path)?;
        prepare(&path)?;
        let log = std::fs::File::options().create(true).append(true).open(self.path("log"))?;
        command.env("NOTIFY_SOCKET", &path).stderr(log);
        let child = netns.run(move || command.spawn()).context("start pointsman-node")?;
        let socket = self.path("run").join("node.sock");
        let daemon =
            Daemon { child, socket, ready: Mutex::new(listen(notify.try_clone()?)), notify };
        daemon.ready_again()?;
        Ok(daemon)
    }

    /// The same for a daemon that runs as another user, who has to be able to say how it is.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_open_to(&self, netns: &Netns, command: Command, user: u32) -> Result<Daemon> {
        self.start_notifying(netns, command, |path| {
            Ok(std::os::unix::fs::chown(path, Some(user), None)?)
        })
    }

    /// Starts the daemon where it must fail, and returns how it ended and what it said.
    ///
    /// # Errors
    /// It cannot be run at all.
    pub fn start_failing(&self, netns: &Netns) -> Result<Output> {
        let mut command = self.command();
        netns.run(move || command.output()).context("run pointsman-node")
    }

    /// Writes a document beside the watched one and renames it.
    ///
    /// # Errors
    /// The disk's answer.
    pub fn drop_document(&self, document: &Value) -> Result<()> {
        let aside = self.path("node.json.new");
        std::fs::write(&aside, document.to_string())?;
        std::fs::rename(aside, self.path("node.json"))?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What the daemon said belongs to a failure's story, and only there.
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.path("log"))
        {
            eprintln!("the daemon's log:\n{log}");
        }
    }
}

impl Daemon {
    /// The process id of the keeper: what an operator starts and ends.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the daemon itself, which owns the kernel's side.
    ///
    /// # Panics
    /// None runs.
    #[must_use]
    pub fn engine(&self) -> u32 {
        self.engine_file().expect("a daemon that runs has engine.pid")
    }

    fn engine_file(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.socket.with_file_name("engine.pid")).ok()?;
        text.trim().parse().ok()
    }

    /// Waits until it says that it is ready: at its start, and each time its keeper has started it
    /// again.
    ///
    /// # Errors
    /// It says nothing for a long time.
    pub fn ready_again(&self) -> Result<()> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.recv_timeout(PATIENCE).context("the daemon does not become ready")
    }

    /// Kills the daemon, not its keeper, and waits until it has ended.
    ///
    /// # Errors
    /// None runs, or the kernel's answer.
    pub fn kill_engine(&self) -> Result<()> {
        let engine = self.engine_file().context("no daemon runs")?;
        let pid = i32::try_from(engine).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.context("a process id")?, PidfdFlags::empty())?;
        pidfd_send_signal(&pidfd, Signal::KILL)?;
        ended(&pidfd)
    }

    /// Runs `pointsman --json ARGUMENTS` with `input` on standard input.
    ///
    /// # Panics
    /// The command cannot be run.
    #[must_use]
    pub fn ask(&self, arguments: &[&str], input: &[u8]) -> Answer {
        cli(
            &[&["--json", "--node", self.socket.to_str().expect("UTF-8")], arguments].concat(),
            input,
        )
    }

    /// Applies a document.
    #[must_use]
    pub fn apply(&self, document: &Value) -> Answer {
        self.ask(&["apply", "-"], document.to_string().as_bytes())
    }

    /// Applies a document, all of which must be done.
    ///
    /// # Panics
    /// It was not.
    #[track_caller]
    pub fn apply_whole(&self, document: &Value) -> Value {
        let answer = self.apply(document);
        assert_eq!(answer.code, 0, "{answer:#?}");
        answer.value
    }

    /// The status.
    ///
    /// # Panics
    /// The daemon does not answer.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> Value {
        let answer = self.ask(&["status"], b"");
        assert_eq!(answer.code, 0, "{answer:#?}");
        answer.value
    }

    /// Waits until the only hook of the status is as a test wants it.
    ///
    /// # Panics
    /// It does not become so.
    #[track_caller]
    pub fn hook_until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let hook = only_hook(&self.peek());
            if is(&hook) {
                return hook;
            }
            assert!(start.elapsed() < PATIENCE, "no {what}: {hook:#}");
        }
    }

    /// The only hook of the status.
    ///
    /// # Panics
    /// There is not exactly one.
    #[track_caller]
    #[must_use]
    pub fn hook(&self) -> Value {
        only_hook(&self.status())
    }

    /// The status as the socket gives it, without a process of its own: for asking over and over.
    ///
    /// # Panics
    /// The daemon does not answer.
    #[track_caller]
    #[must_use]
    pub fn peek(&self) -> Value {
        let mut stream = UnixStream::connect(&self.socket).expect("the daemon listens");
        let request = "GET /v1/status HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).expect("JSON")
    }

    /// Asks for the status until it is as expected, and returns it.
    ///
    /// # Panics
    /// It does not become so.
    #[track_caller]
    pub fn until(&self, expected: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.peek();
            if expected(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:#}");
        }
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn stop(mut self, signal: Signal) -> Result<ExitStatus> {
        let engine = self.engine_pidfd();
        self.signal(signal)?;
        let status = self.child.wait()?;
        // The kernel ends it with its keeper, a moment later.
        engine.as_ref().map_or(Ok(()), ended)?;
        Ok(status)
    }

    fn engine_pidfd(&self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.engine_file()?).ok().and_then(Pid::from_raw)?;
        // In a pid namespace of its own it has another number here.
        let name = std::fs::read(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()?;
        let ours = name.starts_with(b"pointsman");
        ours.then(|| pidfd_open(pid, PidfdFlags::empty()).ok()).flatten()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let engine = self.engine_pidfd();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = engine.as_ref().map_or(Ok(()), ended);
        // Ends the thread that listens.
        let _ = rustix::net::shutdown(&self.notify, rustix::net::Shutdown::Read);
    }
}

/// Takes everything the daemon says, so that a full queue never holds it up.
fn listen(notify: UnixDatagram) -> Receiver<()> {
    let (ready, again) = channel();
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length @ 1..) = notify.recv(&mut message) {
            if String::from_utf8_lossy(&message[..length]).contains("READY=1") {
                let _ = ready.send(());
            }
        }
    });
    again
}

/// Waits until a process has ended.
fn ended(pidfd: &OwnedFd) -> Result<()> {
    let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
    match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&patience))? {
        0 => bail!("a daemon runs on after its keeper's end"),
        _ => Ok(()),
    }
}

#[track_caller]
fn only_hook(status: &Value) -> Value {
    match status["hooks"].as_array().map(Vec::as_slice) {
        Some([hook]) => hook.clone(),
        _ => panic!("not one hook: {status:#}"),
    }
}

/// Runs `pointsman` with `input` on standard input.
///
/// # Panics
/// The command cannot be run.
#[must_use]
pub fn cli(arguments: &[&str], input: &[u8]) -> Answer {
    run(Command::new(binary("pointsman")).args(arguments), input)
}

/// Runs a command to its end with `input` on standard input.
///
/// # Panics
/// It cannot be run.
#[must_use]
pub fn run(command: &mut Command, input: &[u8]) -> Answer {
    let mut output = || -> Result<Output> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // A command that refuses its input early closes the pipe.
        let _ = child.stdin.take().context("a pipe")?.write_all(input);
        Ok(child.wait_with_output()?)
    };
    let output = output().expect("the command runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Answer {
        code: output.status.code().unwrap_or(-1),
        value: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The path of one of our binaries, built once.
///
/// # Panics
/// It does not build.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build().expect("build the binaries")).join(name)
}

/// Where the binaries are: as the caller says, or built now.
fn build() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("POINTSMAN_BIN_DIR") {
        return Ok(folder.into());
    }
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "pointsman-node", "--package", "pointsman-cli"])
        .args(["--package", "pointsman-control", "--package", "pointsman-courier"])
        .status()
        .context("run cargo")?;
    if !status.success() {
        bail!("the binaries do not build");
    }
    // This test's executable lies in TARGET/debug/deps.
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("a target folder")?;
    Ok(folder.to_owned())
}
