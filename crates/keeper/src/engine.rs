//! The daemon as a child process.

use crate::binary::Binary;
use crate::link::Epoch;
use crate::wire::{self, Batch, Tag};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

/// How the daemon is started. Its standard input is the link.
#[derive(Debug, Clone)]
pub struct Program {
    /// The binary: whatever lies there when it is started. If that fails again and again, the one
    /// that worked before is started instead.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What is taken out of its environment.
    pub without: Vec<&'static str>,
}

/// A daemon that runs.
#[derive(Debug)]
pub(crate) struct Engine {
    child: Child,
    /// What it was started from.
    pub(crate) binary: Binary,
    pub(crate) pidfd: OwnedFd,
    pub(crate) link: OwnedFd,
    /// Since when it serves.
    pub(crate) ready: Option<Instant>,
    /// It says that it answers nothing.
    pub(crate) withholds: bool,
}

impl Engine {
    /// Starts one and greets it: what is installed, or another binary instead.
    pub(crate) fn start(
        program: &Program,
        instead: Option<&Binary>,
        epoch: Epoch,
        fresh: bool,
    ) -> io::Result<Self> {
        let binary = instead.cloned().map_or_else(|| Binary::open(&program.path), Ok)?;
        let flags = SocketFlags::CLOEXEC;
        let (link, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for end in [&link, &theirs] {
            // Less than asked for is an error when the largest message is sent, and told then.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, wire::SOCKET_BUFFER);
        }
        let mut hello = Batch::<OwnedFd>::default();
        let fresh = if fresh { wire::FRESH } else { 0 };
        hello.push(Tag::Hello, wire::VERSION, fresh, &epoch.0, []);
        hello.send(&link, SendFlags::empty())?;
        // By the file that is open: what is replaced at this moment is not taken for what runs.
        let mut command = Command::new(binary.path());
        command.arg0(&program.path).args(&program.arguments).stdin(Stdio::from(theirs));
        // The terminal's signals reach the keeper, which passes them on: once.
        command.process_group(0);
        for name in &program.without {
            command.env_remove(name);
        }
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let opened = pid.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let pidfd = match opened {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        Ok(Self { child, binary, pidfd, link, ready: None, withholds: false })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal. One that has ended needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// How it ended; call when the pidfd is readable.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Also where the keeper ends by an error: no daemon without a keeper.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a daemon ended by a fault of its own. SIGKILL comes from outside, and so do the signals
/// that ask for its end.
pub(crate) fn crashed(status: ExitStatus) -> bool {
    const FROM_OUTSIDE: [Signal; 4] = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];
    match status.signal() {
        Some(signal) => FROM_OUTSIDE.iter().all(|outside| outside.as_raw() != signal),
        None => !status.success(),
    }
}

/// The exit code that says the same as a status: as shells have it for signals.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
