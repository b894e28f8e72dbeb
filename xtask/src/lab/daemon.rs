//! The daemon in the lab, and the command line that talks to it.

use super::Lab;
use crate::process::{capture, shown};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the daemon may take to become ready, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon. Dropped: it is drained and ended.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pidfd: OwnedFd,
    cli: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

/// The release binaries.
#[derive(Debug)]
pub(crate) struct Binaries {
    node: PathBuf,
    cli: PathBuf,
}

impl Binaries {
    /// Builds them.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        let packages = ["--package", "pointsman-node", "--package", "pointsman-cli"];
        let built =
            workspace.build(&[&["build", "--release", "--bins"], packages.as_slice()].concat())?;
        let find = |name: &str| {
            let found = built.iter().find(|path| path.file_name().is_some_and(|file| file == name));
            found.cloned().with_context(|| format!("cargo built no {name}"))
        };
        Ok(Self { node: find("pointsman-node")?, cli: find("pointsman")? })
    }
}

impl Daemon {
    /// Starts the daemon inside the lab and waits until it says that it is ready.
    pub(crate) fn start(lab: &Lab, binaries: &Binaries) -> Result<Self> {
        let notify = lab.path("notify");
        let ready = UnixDatagram::bind(&notify)
            .with_context(|| format!("cannot listen at {}", notify.display()))?;
        let log = lab.path("node.log");
        let stderr = File::create(&log)?;
        let mut command = Command::new(&binaries.node);
        command
            .args(["--run-dir".into(), lab.path("run")])
            .args(["--state-dir".into(), lab.path("state")])
            .args(["--bpffs".into(), lab.path("bpffs/pointsman")])
            .args(["--document".into(), lab.path("node.json")])
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Ctrl-C is for us: the daemon is drained first and ended then.
            .process_group(0);
        // A child belongs to the namespace of the thread that starts it.
        let child = lab.inside.run(move || command.spawn())?.context("cannot run the daemon")?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .context("cannot watch the daemon")?;
        let (cli, socket) = (binaries.cli.clone(), lab.path("run/node.sock"));
        let daemon = Self { child, pidfd, cli, socket, log };
        daemon.wait_ready(&ready)?;
        Ok(daemon)
    }

    fn wait_ready(&self, ready: &UnixDatagram) -> Result<()> {
        let mut message = [0; 1024];
        loop {
            let mut events =
                [PollFd::new(ready, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
            let events_seen = poll(&mut events, Some(&timespec(PATIENCE)))?;
            if events_seen == 0 {
                bail!("the daemon is not ready after {PATIENCE:?}; it says:\n{}", self.log_tail());
            }
            if events[0].revents().is_empty() {
                bail!("the daemon ended; it says:\n{}", self.log_tail());
            }
            let length = ready.recv(&mut message)?;
            if message[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
    }

    /// The process ids of the keeper and of the daemon itself.
    pub(crate) fn processes(&self) -> Result<[u32; 2]> {
        let path = self.socket.with_file_name("engine.pid");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let engine = text.trim().parse();
        Ok([self.child.id(), engine.with_context(|| format!("{} holds no pid", path.display()))?])
    }

    /// Runs the command line with `--json` and reads what it prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command();
        let text = capture(command.arg("--json").args(arguments))
            .with_context(|| format!("the daemon's log ends with:\n{}", self.log_tail()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} did not print JSON", shown(&command)))
    }

    /// Runs the command line for people and gives what it prints.
    pub(crate) fn tell(&self, arguments: &[&str]) -> Result<String> {
        capture(self.command().args(arguments))
    }

    /// The command line, pointed at this daemon.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.cli);
        command.arg("--node").arg(&self.socket);
        command
    }

    /// Whether it ends within this time.
    fn has_ended(&self, limit: Duration) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut ended, Some(&timespec(limit))), Ok(1..))
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon leaves its chains running when it ends; this lab's must go. One that ended by
        // itself cannot be asked: its pins go with the lab's BPF file system.
        if !self.has_ended(Duration::ZERO)
            && let Err(error) = self.tell(&["drain", "--yes"])
        {
            eprintln!("cannot drain the daemon: {error:#}");
        }
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
        if !self.has_ended(PATIENCE) {
            eprintln!("the daemon does not end: killing it");
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}
