//! The command line.

use crate::engine::CHECK_INTERVAL;
use crate::engine::KEEP_GENERATIONS;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The daemon of a Pointsman host: it owns the XDP chains of the interfaces in its network
/// namespace and does what the node document says.
///
/// It never detaches anything when it ends: `pointsman drain` is the only way to empty a host.
/// Several daemons run side by side when each has a run, a state and a bpffs directory of its own.
#[derive(Debug, Parser)]
#[command(name = "pointsman-node", version)]
pub struct Args {
    /// The directory of the socket `node.sock`, the lock and the pid file.
    #[arg(long, value_name = "DIR", default_value = "/run/pointsman")]
    pub run_dir: PathBuf,
    /// The directory of what must survive a reboot: accepted documents and objects.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/pointsman")]
    pub state_dir: PathBuf,
    /// The directory of our pins. Must lie on a mounted BPF file system.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/pointsman")]
    pub bpffs: PathBuf,
    /// The node document to watch. Replace it by renaming a finished file over it. [default:
    /// node.json in the state directory]
    #[arg(long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    /// How often the host is looked at when nothing tells of a change, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = CHECK_INTERVAL.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub check_interval: u64,
    /// How many generations that were carried out whole are kept, with their objects, for
    /// `pointsman rollback`: 1 to 100.
    #[arg(long, value_name = "N", default_value_t = KEEP_GENERATIONS,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub keep_generations: u8,
    /// How log lines are written to stderr.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The least level that is logged.
    #[arg(long, value_enum, default_value_t)]
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
}
