//! The command line.

use crate::engine::CHECK_INTERVAL;
use crate::engine::KEEP_GENERATIONS;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Parser, Subcommand, ValueEnum};
use pointsman_keeper::{DEFAULT_LONGEST_DELAY, DEFAULT_MAX_CLIENTS};
use std::path::{Path, PathBuf};

/// The run directory, unless another is named.
const RUN_DIR: &str = "/run/pointsman";

/// Where libmtl looks for its manager: the path is built into it.
const IMTL_SOCKET: &str = "/var/run/imtl/mtl_manager.sock";

/// The daemon of a Pointsman host: it owns the XDP chains of the interfaces in its network
/// namespace and does what the node document says.
///
/// It never detaches anything when it ends: `pointsman drain` is the only way to empty a host.
/// Several daemons run side by side when each has a run, a state and a bpffs directory of its own.
#[derive(Debug, Parser)]
#[command(name = "pointsman-node", version)]
pub struct Args {
    /// The directory of the socket `node.sock`, the lock and the pid file.
    #[arg(global = true, long, value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// The directory of what must survive a reboot: accepted documents and objects.
    #[arg(global = true, long, value_name = "DIR", default_value = "/var/lib/pointsman")]
    pub state_dir: PathBuf,
    /// The directory of our pins. Must lie on a mounted BPF file system.
    #[arg(global = true, long, value_name = "DIR", default_value = "/sys/fs/bpf/pointsman")]
    pub bpffs: PathBuf,
    /// The node document to watch. Replace it by renaming a finished file over it. [default:
    /// node.json in the state directory]
    #[arg(global = true, long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    /// How often the host is looked at when nothing tells of a change, in seconds.
    #[arg(global = true, long, value_name = "SECONDS", default_value_t = CHECK_INTERVAL.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub check_interval: u64,
    /// How many generations that were carried out whole are kept, with their objects, for
    /// `pointsman rollback`: 1 to 100.
    #[arg(global = true, long, value_name = "N", default_value_t = KEEP_GENERATIONS,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub keep_generations: u8,
    /// The keeper's part.
    #[command(flatten)]
    pub keeper: KeeperArgs,
    /// How log lines are written to stderr.
    #[arg(global = true, long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The least level that is logged.
    #[arg(global = true, long, value_enum, default_value_t)]
    pub log_level: LogLevel,
    /// Instead of running the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Instead of running the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the OpenAPI description of the socket's HTTP interface.
    Openapi,
    /// The daemon itself, as its keeper starts it.
    #[command(hide = true)]
    Engine,
}

/// What clients connect to, and the keeper of their connections.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Clients")]
pub struct KeeperArgs {
    /// The socket of libmtl's applications. [default: /var/run/imtl/mtl_manager.sock, or
    /// mtl_manager.sock in a run directory that is not the default one]
    #[arg(
        global = true,
        long,
        value_name = "PATH",
        alias = "sock-path",
        env = "MTL_MANAGER_SOCK_PATH",
        // The parser of paths takes no empty ones.
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub imtl_socket: Option<PathBuf>,
    /// Who may connect to the socket of libmtl's applications: the bits of a file's mode, octal.
    #[arg(global = true, long, value_name = "MODE", default_value = "0666", value_parser = octal)]
    pub socket_mode: u32,
    /// The group of both client sockets: a name in /etc/group, or a number. [default: ours]
    #[arg(global = true, long, value_name = "GROUP")]
    pub socket_group: Option<String>,
    /// How many clients may be connected at the same time: 1 to 65536.
    #[arg(global = true, long, value_name = "N", default_value_t = DEFAULT_MAX_CLIENTS as u32,
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_clients: u32,
    /// How many of them one user may have who is not root: 1 to 65536. [default: a quarter]
    #[arg(global = true, long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_clients_per_user: Option<u32>,
    /// The longest time between a crash of the daemon and its next start, in seconds. The first
    /// ones follow at once.
    #[arg(global = true, long, value_name = "SECONDS", default_value_t = DEFAULT_LONGEST_DELAY.as_secs(),
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub restart_delay: u64,
    /// Let the service manager keep the clients' sockets (FileDescriptorStoreMax=), so that clients
    /// stay connected while it restarts pointsman-node as a whole.
    #[arg(global = true, long)]
    pub fd_store: bool,
    /// Prints the path of the socket of libmtl's applications, and ends.
    #[arg(global = true, long)]
    pub print_sock_path: bool,
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected an octal mode from 0 to 777, such as 0660".into()),
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least level that is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What was refused or works with less.
    #[value(alias = "warning")]
    Warn,
    /// What changed.
    #[default]
    Info,
    /// Every step and request.
    Debug,
    /// Everything.
    Trace,
}

impl Args {
    /// The document that is watched.
    #[must_use]
    pub fn document(&self) -> PathBuf {
        self.document.clone().unwrap_or_else(|| self.state_dir.join("node.json"))
    }

    /// The socket of libmtl's applications.
    #[must_use]
    pub fn imtl_socket(&self) -> PathBuf {
        match &self.keeper.imtl_socket {
            // An empty variable is none.
            Some(path) if !path.as_os_str().is_empty() => path.clone(),
            _ if self.run_dir == Path::new(RUN_DIR) => PathBuf::from(IMTL_SOCKET),
            _ => self.run_dir.join("mtl_manager.sock"),
        }
    }

    /// The socket of applications that lease something from Pointsman itself.
    #[must_use]
    pub fn lease_socket(&self) -> PathBuf {
        self.run_dir.join("leases.sock")
    }

    /// The socket that is listened on.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("node.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_document_lies_in_the_state_directory_unless_named() {
        Args::command().debug_assert();
        let args = Args::parse_from(["pointsman-node", "--state-dir", "/s"]);
        assert_eq!(args.document(), PathBuf::from("/s/node.json"));
        let args = Args::parse_from(["pointsman-node", "--document", "/d.json"]);
        assert_eq!(args.document(), PathBuf::from("/d.json"));
        assert_eq!(args.socket(), PathBuf::from("/run/pointsman/node.sock"));
    }

    #[test]
    fn libmtl_finds_its_socket_and_a_second_daemon_has_its_own() {
        let path =
            |more: &[&str]| Args::parse_from([&["pointsman-node"], more].concat()).imtl_socket();
        assert_eq!(path(&[]), PathBuf::from("/var/run/imtl/mtl_manager.sock"));
        assert_eq!(path(&["--run-dir", "/r"]), PathBuf::from("/r/mtl_manager.sock"));
        assert_eq!(path(&["--run-dir", "/r", "--imtl-socket", "/s"]), PathBuf::from("/s"));
        assert_eq!(
            path(&["--run-dir", "/r", "--sock-path", ""]),
            PathBuf::from("/r/mtl_manager.sock")
        );
        assert_eq!(path(&["--sock-path", "/s"]), PathBuf::from("/s"));
    }

    #[test]
    fn a_mode_is_octal_and_of_a_file() {
        assert_eq!(octal("0660"), Ok(0o660));
        for wrong in ["888", "1777", "-1", "rw", ""] {
            octal(wrong).unwrap_err();
        }
    }
}
