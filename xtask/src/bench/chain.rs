//! What a chain costs: the benchmark is a program of its own, because it needs libbpf.

use crate::workspace::Workspace;
use crate::{lab, setup};
use anyhow::{Context, Result};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Options of the benchmark, such as `--lengths 10,30 --rounds 31`; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Builds and runs it.
pub(super) fn run(workspace: &Workspace, options: &Options, json: bool) -> Result<ExitCode> {
    lab::require_root()?;
    setup::ensure(&[setup::BUILD])?;
    let mut command = workspace.cargo("run");
    command.args(["--quiet", "--release", "--package", "pointsman-bench", "--"]);
    command.args(json.then_some("--json")).args(&options.options);
    let status = command.status().context("run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
