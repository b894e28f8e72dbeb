//! The keeper's process: `pointsman-node` without a subcommand.
//!
//! It has the run directory's lock, the clients' sockets and the daemon as its child, and does
//! nothing else: what it does lies in `pointsman-keeper`, which hardly ever changes.

use crate::args::Args;
use crate::daemon::{self, DaemonError};
use crate::disk::Disk;
use crate::group::{self, GroupError};
use pointsman_keeper::link::Kind;
use pointsman_keeper::{
    Config, DEFAULT_LONGEST_END, DEFAULT_LONGEST_SILENCE, KeeperError, Level, Listen, ListenError,
    Notice, Program, Signals,
};
use pointsman_logging::LogFormat;
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The name of what is replaced. Started under it, the keeper bears it too: scripts look for it.
pub const ORIGINAL: &str = "MtlManager";

/// Who may connect to `leases.sock`: as to `node.sock`.
const LEASE_SOCKET_MODE: u32 = 0o660;

/// Why there is no keeper, or it ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Another one has the run directory.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The keeper failed.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The group of a socket is not known.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Signals cannot be heard of, or our own binary cannot be found.
    #[error("cannot {what}: {source}")]
    Start {
        /// What was done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Whether the program was started under the name of what it replaces.
#[must_use]
pub fn is_original(program: Option<&OsStr>) -> bool {
    program.is_some_and(|path| Path::new(path).file_name() == Some(OsStr::new(ORIGINAL)))
}

/// How log lines are written: `original` tells whether it is started under that name.
#[must_use]
pub fn log_format(args: &Args, original: bool) -> LogFormat {
    let default = if original { LogFormat::Mtl } else { LogFormat::default() };
    args.log_format.unwrap_or(default)
}

/// The daemon's arguments: ours, and what follows from the name, which is not its own.
fn engine_arguments(args: &Args, arguments: Vec<OsString>, original: bool) -> Vec<OsString> {
    let named = original && args.log_format.is_none();
    let format = ["--log-format", "mtl"].map(OsString::from).into_iter().filter(|_| named);
    // Who stops the original expects nothing to stay of it. With a service manager that keeps the
    // sockets, SIGTERM may be an upgrade.
    let releases = original && !args.keeper.fd_store;
    let release = [OsString::from("--release-on-stop")].into_iter().filter(|_| releases);
    [OsString::from("engine")].into_iter().chain(arguments).chain(format).chain(release).collect()
}

/// Runs the keeper; `arguments` are those of this process, and `original` whether it takes the place
/// of what is replaced. Returns the exit code.
///
/// # Errors
/// [`KeepError`]: one line that names the thing.
pub fn run(args: &Args, arguments: Vec<OsString>, original: bool) -> Result<u8, KeepError> {
    let _lock = daemon::lock_run_dir(args)?;
    let group = group::number("--socket-group", args.keeper.socket_group.as_deref())?;
    // The daemon's to use; a wrong one is no reason to start daemon after daemon.
    args.status_group_number()?;
    let listen = |path, kind, mode| Listen { path, kind, mode, group };
    let start = |what| move |source| KeepError::Start { what, source };
    // Whatever is installed there when the daemon is started again: that is an upgrade.
    let path = std::env::current_exe().map_err(start("find our own binary"))?;
    let config = Config {
        listen: vec![
            listen(args.imtl_socket(), Kind::Imtl, args.keeper.socket_mode),
            listen(args.lease_socket(), Kind::Native, LEASE_SOCKET_MODE),
        ],
        program: Program {
            path,
            arguments: engine_arguments(args, arguments, original),
            without: vec!["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"],
        },
        max_clients: args.keeper.max_clients as usize,
        max_clients_per_user: args.keeper.max_clients_per_user.map(|most| most as usize),
        // The native protocol hands sockets over.
        descriptors: true,
        longest_delay: Duration::from_secs(args.keeper.restart_delay),
        longest_silence: DEFAULT_LONGEST_SILENCE,
        longest_end: DEFAULT_LONGEST_END,
        fd_store: args.keeper.fd_store,
        signals: signals().map_err(start("hear of signals"))?,
    };
    let pid_file = args.run_dir.join("keeper.pid");
    let pid = format!("{}\n", std::process::id());
    if let Err(error) = Disk::default().replace(&pid_file, pid.as_bytes()) {
        // It is for people; a full disk is no reason to leave clients without answers.
        tracing::warn!("{error}");
    }
    let socket = args.imtl_socket();
    let result = pointsman_keeper::run(config, |notice| {
        tell(notice);
        if original && matches!(notice, Notice::Listening(path) if *path == socket) {
            // What scripts wait for.
            let socket = socket.display();
            tracing::info!(
                "MTL Manager is running on {socket}. Press Ctrl+C or use SIGINT to stop it."
            );
        }
    });
    let _ = std::fs::remove_file(&pid_file);
    Ok(result?)
}

/// The exit code of an error: the original's, where scripts may know it.
#[must_use]
pub fn exit_code(error: &KeepError, original: bool) -> u8 {
    match error {
        KeepError::Keeper(KeeperError::Listen(ListenError::Io { what: "create", .. }))
            if original =>
        {
            // -EIO, as an exit code.
            256_u16.wrapping_sub(Errno::IO.raw_os_error() as u16) as u8
        }
        // Another one has the run directory, or answers on the socket.
        KeepError::Daemon(DaemonError::Lock(_)) | KeepError::Keeper(KeeperError::Listen(_))
            if original =>
        {
            u8::MAX
        }
        _ => 1,
    }
}

fn tell(notice: &Notice) {
    match notice.level() {
        Level::Warn => tracing::warn!("{notice}"),
        Level::Info => tracing::info!("{notice}"),
    }
}

fn signals() -> io::Result<Signals> {
    let hear = |signal| -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        pipe::register(signal, theirs)?;
        Ok(ours.into())
    };
    Ok(Signals { interrupt: hear(SIGINT)?, terminate: hear(SIGTERM)?, swap: hear(SIGHUP)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Lock;
    use std::path::PathBuf;

    #[test]
    fn exit_codes_are_the_originals_under_its_name_only() {
        assert!(is_original(Some(OsStr::new("/usr/bin/MtlManager"))));
        assert!(!is_original(Some(OsStr::new("/opt/MtlManager/pointsman-node"))));
        let path = PathBuf::from("/s");
        let io = |what| ListenError::Io { what, path: "/s".into(), source: Errno::ACCESS.into() };
        for (error, code) in
            [(io("create"), 251), (io("bind"), 255), (ListenError::InUse { path }, 255)]
        {
            let error = KeepError::Keeper(error.into());
            assert_eq!((exit_code(&error, true), exit_code(&error, false)), (code, 1));
        }
        let directory = tempfile::tempdir().unwrap();
        let _first = Lock::take(directory.path(), "--run-dir").unwrap();
        let second = Lock::take(directory.path(), "--run-dir").unwrap_err();
        let error = KeepError::Daemon(second.into());
        assert_eq!((exit_code(&error, true), exit_code(&error, false)), (255, 1));
    }
}
