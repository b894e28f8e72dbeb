//! The command line.

use crate::engine::CHECK_INTERVAL;
use crate::engine::KEEP_GENERATIONS;
use crate::fleet::Places;
use crate::group::{self, GroupError};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Parser, Subcommand};
use pointsman_keeper::{DEFAULT_LONGEST_DELAY, DEFAULT_MAX_CLIENTS};
use pointsman_logging::{LogFormat, LogLevel};
use std::path::{Path, PathBuf};

/// The run directory, unless another is named.
const RUN_DIR: &str = "/run/pointsman";

/// The state directory, unless another is named.
const STATE_DIR: &str = "/var/lib/pointsman";

/// Where enrolment says which fleet the host is of.
const FLEET_CONFIG: &str = "/etc/pointsman/fleet.json";

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
    /// The directory of the sockets `node.sock` and `status.sock`, the lock and the pid file.
    #[arg(global = true, long, value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// The directory of what must survive a reboot: accepted documents and objects.
    #[arg(global = true, long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
    /// The directory of our pins. Must lie on a mounted BPF file system.
    #[arg(global = true, long, value_name = "DIR", default_value = "/sys/fs/bpf/pointsman")]
    pub bpffs: PathBuf,
    /// Who besides root may see how the node stands, on the socket `status.sock` in the run
    /// directory: a name in /etc/group, or a number. Nothing can be changed there. [default: ours]
    #[arg(global = true, long, value_name = "GROUP")]
    pub status_group: Option<String>,
    /// The node document to watch. Replace it by renaming a finished file over it. [default:
    /// node.json in the state directory]
    #[arg(global = true, long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    /// Which fleet the node belongs to, and the key of its records: written by `pointsman-courier
    /// enroll`. Without the file it takes documents of this host only. [default:
    /// /etc/pointsman/fleet.json, or fleet.json in a state directory that is not the default one]
    #[arg(global = true, long, value_name = "FILE")]
    pub fleet_config: Option<PathBuf>,
    /// The directory where snapshots and objects of the fleet are laid down. It may belong to
    /// anybody, and need not be there. [default: drop in the state directory]
    #[arg(global = true, long, value_name = "DIR")]
    pub drop_dir: Option<PathBuf>,
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
    /// How log lines are written to stderr. [default: text, or mtl under the name MtlManager]
    #[arg(global = true, long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// The least level that is logged.
    #[arg(global = true, long, value_enum, default_value_t)]
    pub log_level: LogLevel,
    /// What instances hold is given back when the daemon is stopped by SIGTERM too.
    #[arg(global = true, long, hide = true)]
    pub release_on_stop: bool,
    /// Instead of running the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Instead of running the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the OpenAPI description of the socket's HTTP interface.
    Openapi,
    /// Asks the running daemon whether it lives, as a container's health check: a heartbeat on the
    /// socket of libmtl's applications, through keeper and daemon. Exit code 0: it answers. 1: not.
    Health,
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

impl Args {
    /// The document that is watched.
    #[must_use]
    pub fn document(&self) -> PathBuf {
        self.document.clone().unwrap_or_else(|| self.state_dir.join("node.json"))
    }

    /// Where the node looks for what comes from its fleet.
    #[must_use]
    pub fn fleet(&self) -> Places {
        let config = match &self.fleet_config {
            Some(path) => path.clone(),
            // Daemons side by side are not all the same node.
            None if self.state_dir == Path::new(STATE_DIR) => PathBuf::from(FLEET_CONFIG),
            None => self.state_dir.join("fleet.json"),
        };
        let drop = self.drop_dir.clone().unwrap_or_else(|| self.state_dir.join("drop"));
        Places { config, drop }
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

    /// The socket that shows and changes nothing.
    #[must_use]
    pub fn status_socket(&self) -> PathBuf {
        self.run_dir.join("status.sock")
    }

    /// Whose group [`Self::status_socket`] is; `None`: ours.
    ///
    /// # Errors
    /// [`GroupError`] for a name that this host does not have.
    pub fn status_group_number(&self) -> Result<Option<u32>, GroupError> {
        group::number("--status-group", self.status_group.as_deref())
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
        assert_eq!(args.status_socket(), PathBuf::from("/run/pointsman/status.sock"));
    }

    #[test]
    fn each_daemon_has_its_own_place_in_a_fleet() {
        let of = |more: &[&str]| {
            let Places { config, drop } =
                Args::parse_from([&["pointsman-node"], more].concat()).fleet();
            (config.display().to_string(), drop.display().to_string())
        };
        let pair = |config: &str, drop: &str| (config.to_owned(), drop.to_owned());
        assert_eq!(of(&[]), pair(FLEET_CONFIG, "/var/lib/pointsman/drop"));
        assert_eq!(of(&["--state-dir", "/s"]), pair("/s/fleet.json", "/s/drop"));
        let named = ["--state-dir", "/s", "--fleet-config", "/f.json", "--drop-dir", "/d"];
        assert_eq!(of(&named), pair("/f.json", "/d"));
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
