//! A process of the lab: started in a namespace, waited for, and ended.

use super::Namespace;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a service may take to become ready, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service. Dropped: it is told to end, and waited for.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    pidfd: OwnedFd,
    log: PathBuf,
}

impl Service {
    /// Starts a command in a namespace and waits until it says that it is ready, as to systemd.
    /// What it says goes to `NAME.log` and `NAME.out` in `directory`, beside its socket for that.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        namespace: &Namespace,
        directory: &Path,
    ) -> Result<Self> {
        let notify = directory.join(format!("{name}.notify"));
        // That of a service which ended is in the way.
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify)
            .with_context(|| format!("cannot listen at {}", notify.display()))?;
        open_to_all(&notify)?;
        let log = directory.join(format!("{name}.log"));
        let stdout = File::create(directory.join(format!("{name}.out")))?;
        command
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(File::options().create(true).append(true).open(&log)?)
            // Ctrl-C is for us: services are ended in their order.
            .process_group(0);
        // A child belongs to the namespace of the thread that starts it.
        let child = namespace.run(move || command.spawn())?;
        let child = child.with_context(|| format!("cannot run {name}"))?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .with_context(|| format!("cannot watch {name}"))?;
        let service = Self { name, child, pidfd, log };
        service.wait_ready(&ready)?;
        Ok(service)
    }

    fn wait_ready(&self, ready: &UnixDatagram) -> Result<()> {
        let name = self.name;
        let mut message = [0; 1024];
        loop {
            let mut events =
                [PollFd::new(ready, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
            let events_seen = poll(&mut events, Some(&timespec(PATIENCE)))?;
            if events_seen == 0 {
                bail!("{name} is not ready after {PATIENCE:?}; it says:\n{}", self.log_tail());
            }
            if events[0].revents().is_empty() {
                bail!("{name} ended; it says:\n{}", self.log_tail());
            }
            let length = ready.recv(&mut message)?;
            if message[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ends within this time.
    pub(crate) fn has_ended(&self, limit: Duration) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut ended, Some(&timespec(limit))), Ok(1..))
    }

    /// What it said last.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
        if !self.has_ended(PATIENCE) {
            eprintln!("{} does not end: killing it", self.name);
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Lets other users write to a socket: services may run as one.
fn open_to_all(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .with_context(|| format!("cannot open {} to others", path.display()))
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}
