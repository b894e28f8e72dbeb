//! The keeper's process: `pointsman-node` without a subcommand.
//!
//! It has the run directory's lock, the clients' sockets and the daemon as its child, and does
//! nothing else: what it does lies in `pointsman-keeper`, which hardly ever changes.

use crate::args::Args;
use crate::daemon::{self, DaemonError};
use crate::disk::Disk;
use pointsman_keeper::link::Kind;
use pointsman_keeper::{Config, KeeperError, Level, Listen, ListenError, Notice, Program, Signals};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of what is replaced. Started under it, the keeper bears it too: scripts look for it.
pub const ORIGINAL: &str = "MtlManager";

/// The groups of this host, for names.
const GROUPS: &str = "/etc/group";

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
    #[error(
        "--socket-group {name} is not in {}; name one that is, or give its number",
        path.display()
    )]
    Group {
        /// What was given.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
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

/// Runs the keeper; `arguments` are those of this process. Returns the exit code.
///
/// # Errors
/// [`KeepError`]: one line that names the thing.
pub fn run(args: &Args, arguments: Vec<OsString>) -> Result<u8, KeepError> {
    let _lock = daemon::lock_run_dir(args)?;
    let group = args.keeper.socket_group.as_deref();
    let group = group.map(|name| group_number(name, Path::new(GROUPS))).transpose()?;
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
            arguments: [OsString::from("engine")].into_iter().chain(arguments).collect(),
            without: vec!["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"],
        },
        max_clients: args.keeper.max_clients as usize,
        max_clients_per_user: args.keeper.max_clients_per_user.map(|most| most as usize),
        // No request of today has any use for one.
        descriptors: false,
        longest_delay: Duration::from_secs(args.keeper.restart_delay),
        fd_store: args.keeper.fd_store,
        signals: signals().map_err(start("hear of signals"))?,
    };
    let pid_file = args.run_dir.join("keeper.pid");
    let pid = format!("{}\n", std::process::id());
    if let Err(error) = Disk::default().replace(&pid_file, pid.as_bytes()) {
        // It is for people; a full disk is no reason to leave clients without answers.
        tracing::warn!("{error}");
    }
    let result = pointsman_keeper::run(config, tell);
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

fn group_number(name: &str, groups: &Path) -> Result<u32, KeepError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    // group(5): name:password:number:members.
    let number = std::fs::read_to_string(groups).ok().and_then(|text| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    });
    number.ok_or_else(|| KeepError::Group { name: name.into(), path: groups.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Lock;

    #[test]
    fn groups_have_names_and_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let groups = directory.path().join("group");
        std::fs::write(&groups, "root:x:0:\nvideo:x:44:a,b\nbroken\n").unwrap();
        assert_eq!(group_number("video", &groups).unwrap(), 44);
        assert_eq!(group_number("1007", &groups).unwrap(), 1007);
        let text = group_number("audio", &groups).unwrap_err().to_string();
        assert!(text.contains("audio") && text.contains("number"), "{text}");
        group_number("broken", &groups).unwrap_err();
    }

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
