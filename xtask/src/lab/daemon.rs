//! The daemon in the lab, and the command line that talks to it.

use super::{Service, Site};
use crate::process::{capture, shown};
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A running daemon. Dropped: it is drained and ended.
#[derive(Debug)]
pub(crate) struct Daemon {
    service: Service,
    cli: PathBuf,
    socket: PathBuf,
}

/// The release binaries.
#[derive(Debug)]
pub(crate) struct Binaries {
    node: PathBuf,
    cli: PathBuf,
    /// Control plane and courier, where they are wanted.
    fleet: Option<[PathBuf; 2]>,
}

impl Binaries {
    /// Builds the daemon and the command line.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        Self::of(workspace, &["pointsman-node", "pointsman-cli"])
    }

    /// The same, with control plane and courier.
    pub(crate) fn build_fleet(workspace: &Workspace) -> Result<Self> {
        let all = ["pointsman-node", "pointsman-cli", "pointsman-control", "pointsman-courier"];
        Self::of(workspace, &all)
    }

    fn of(workspace: &Workspace, packages: &[&str]) -> Result<Self> {
        let packages = packages.iter().flat_map(|package| ["--package", package]);
        let built = workspace.build(
            &["build", "--release", "--bins"].into_iter().chain(packages).collect::<Vec<_>>(),
        )?;
        let find = |name: &str| {
            built.iter().find(|path| path.file_name().is_some_and(|file| file == name)).cloned()
        };
        let must = |name: &str| find(name).with_context(|| format!("cargo built no {name}"));
        let fleet = find("pointsman-control").zip(find("pointsman-courier"));
        Ok(Self {
            node: must("pointsman-node")?,
            cli: must("pointsman")?,
            fleet: fleet.map(Into::into),
        })
    }

    pub(crate) fn cli(&self) -> &PathBuf {
        &self.cli
    }

    pub(crate) fn control(&self) -> Result<&PathBuf> {
        self.fleet.as_ref().map(|[control, _]| control).context("no control plane was built")
    }

    pub(crate) fn courier(&self) -> Result<&PathBuf> {
        self.fleet.as_ref().map(|[_, courier]| courier).context("no courier was built")
    }
}

impl Daemon {
    /// Starts the daemon and waits until it says that it is ready.
    pub(crate) fn start(site: Site<'_>, binaries: &Binaries) -> Result<Self> {
        Self::start_with(site, binaries, &[])
    }

    /// The same with more options.
    pub(crate) fn start_with(
        site: Site<'_>,
        binaries: &Binaries,
        options: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(&binaries.node);
        command
            .args(["--run-dir".into(), site.path("run")])
            .args(["--state-dir".into(), site.path("state")])
            .args(["--bpffs".into(), site.path("bpffs/pointsman")])
            .args(["--document".into(), site.path("node.json")])
            .args(options);
        let service = Service::start("node", command, site.namespace, site.directory)?;
        let (cli, socket) = (binaries.cli.clone(), site.path("run/node.sock"));
        Ok(Self { service, cli, socket })
    }

    /// The process ids of the keeper and of the daemon itself.
    pub(crate) fn processes(&self) -> Result<[u32; 2]> {
        let path = self.socket.with_file_name("engine.pid");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let engine = text.trim().parse();
        Ok([
            self.service.pid(),
            engine.with_context(|| format!("{} holds no pid", path.display()))?,
        ])
    }

    /// Runs the command line with `--json` and reads what it prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command();
        let text = capture(command.arg("--json").args(arguments))
            .with_context(|| format!("the daemon's log ends with:\n{}", self.service.log_tail()))?;
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
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon leaves its chains running when it ends; this lab's must go. One that ended by
        // itself cannot be asked: its pins go with the lab's BPF file system.
        if !self.service.has_ended(Duration::ZERO)
            && let Err(error) = self.tell(&["drain", "--yes"])
        {
            eprintln!("cannot drain the daemon: {error:#}");
        }
    }
}
