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

#[derive(Debug, clap::Args)]
pub(crate) struct SwapOptions {
    /// How long frames are sent.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct XskOptions {
    /// How often each form takes its turn.
    #[arg(long, default_value_t = 1001, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// How long a turn takes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    milliseconds: u32,
    /// The length of a frame in bytes, from 60 to 1514. Media streams have long ones; what a chain
    /// costs weighs most with the shortest: `--bytes 64`.
    #[arg(long, default_value_t = 1400, value_parser = clap::value_parser!(u16).range(60..=1514))]
    bytes: u16,
}

/// Times the forms of a chain.
pub(super) fn run(workspace: &Workspace, options: &Options, json: bool) -> Result<ExitCode> {
    benchmark(workspace, &options.options, json)
}

/// Swaps under live frames.
pub(super) fn swap(workspace: &Workspace, options: &SwapOptions, json: bool) -> Result<ExitCode> {
    benchmark(workspace, &["--swap".to_owned(), options.seconds.to_string()], json)
}

/// Receives behind the chain, and behind a bare XSKMAP program.
pub(super) fn xsk(workspace: &Workspace, options: &XskOptions, json: bool) -> Result<ExitCode> {
    let XskOptions { rounds, milliseconds, bytes } = options;
    let options = [
        "--xsk".to_owned(),
        format!("--rounds={rounds}"),
        format!("--milliseconds={milliseconds}"),
        format!("--bytes={bytes}"),
    ];
    benchmark(workspace, &options, json)
}

fn benchmark(workspace: &Workspace, options: &[String], json: bool) -> Result<ExitCode> {
    lab::require_root()?;
    setup::ensure(&[setup::BUILD, setup::NETNS])?;
    let mut command = workspace.cargo("run");
    command.args(["--quiet", "--release", "--package", "pointsman-bench", "--"]);
    command.args(json.then_some("--json")).args(options);
    let status = command.status().context("run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
