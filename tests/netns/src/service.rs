//! Processes that tell when they are ready, as to systemd, and that tests kill.

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::netns::Netns;

/// How long it may take to become ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running one. Killed when dropped.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    notify: UnixDatagram,
    log: PathBuf,
}

impl Service {
    /// Starts a command in a namespace. What it says is appended to `NAME.log` and `NAME.out`.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(
        name: &str,
        mut command: Command,
        netns: &Netns,
        directory: &Path,
    ) -> Result<Self> {
        let path = directory.join(format!("{name}-{}.notify", crate::unique()));
        let notify = UnixDatagram::bind(&path)?;
        // It may run as somebody else.
        std::fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        let log = directory.join(format!("{name}.log"));
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        command
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::null())
            .stdout(append(&directory.join(format!("{name}.out")))?)
            .stderr(append(&log)?);
        let child = netns.run(|| command.spawn()).with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, notify, log })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It ends instead, or says nothing.
    pub fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut message = [0; 1024];
        while Instant::now() < deadline {
            let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if poll(&mut [PollFd::new(&self.notify, PollFlags::IN)], Some(&timeout))? == 0 {
                if let Some(status) = self.child.try_wait()? {
                    bail!("{} ended ({status}):\n{}", self.name, self.log());
                }
                continue;
            }
            let length = self.notify.recv(&mut message)?;
            if message[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
        bail!("{} does not become ready:\n{}", self.name, self.log())
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Tells it to end, and waits for that.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of {}:\n{}", self.name, self.log());
        }
    }
}
