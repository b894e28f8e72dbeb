//! `cargo xtask ci`: every check, each to its end, so that one failure does not hide another.

use crate::libtest::Tally;
use crate::process::{capture, capture_long, stream};
use crate::workspace::Workspace;
use crate::{interrupt, openapi, rings, setup};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The version whose checks deny.toml is written for.
const CARGO_DENY: &str = "0.20.2";

/// A check that is not a test.
type Check = fn(&Workspace) -> Result<()>;

/// The checks, cheapest first.
const CHECKS: [(&str, Check); 6] = [
    ("lockfile", lockfile),
    ("fmt", fmt),
    ("clippy", clippy),
    ("doc", doc),
    ("openapi", openapi::check),
    ("deny", deny),
];

/// `cargo xtask ci`.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::ensure(&[setup::BUILD])?;
    let mut failed = Vec::new();
    let mut summary = Vec::new();
    for (name, check) in CHECKS {
        if interrupt::pending() {
            bail!("interrupted");
        }
        println!("\n== {name} ==");
        let started = Instant::now();
        let result = check(workspace);
        summary.push(summary_line(name, result.is_ok(), started.elapsed()));
        if let Err(error) = result {
            println!("{name}: {error:#}");
            failed.push(name);
        }
    }
    let started = Instant::now();
    let mut tally = rings::run_rings(workspace, &rings::Options::default());
    summary.push(summary_line("test", tally.failed == 0, started.elapsed()));
    let tests_failed = tally.failed > 0;
    // Who reads the last line alone must not take a failed check for success.
    failed.iter().for_each(|&check| tally.fail(check));
    if tests_failed {
        failed.push("test");
    }
    println!("\n== checks ==");
    summary.iter().for_each(|line| println!("{line}"));
    Ok(finish(&failed, &tally))
}

fn finish(failed: &[&str], tally: &Tally) -> ExitCode {
    if failed.is_empty() {
        println!("ci: all checks passed");
    } else {
        println!("ci: failed: {}", failed.join(", "));
    }
    rings::print_counts(tally);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary_line(name: &str, passed: bool, took: Duration) -> String {
    let result = if passed { "ok" } else { "FAILED" };
    format!("{name:<10} {result:<6} {:>8.1} s", took.as_secs_f64())
}

fn lockfile(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo("metadata");
    capture_long(cargo.args(["--locked", "--format-version=1"])).map(drop)
}

fn fmt(workspace: &Workspace) -> Result<()> {
    pass(workspace.cargo("fmt").args(["--all", "--", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo("clippy");
    pass(cargo.args(["--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn doc(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo("doc");
    pass(cargo.args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny(workspace: &Workspace) -> Result<()> {
    let cargo_deny = cargo_deny(workspace)?;
    // The licences of all targets' crates are read from their sources, which have to be here:
    // the check itself is offline.
    pass(workspace.cargo("fetch").arg("--locked"))?;
    let mut command = Command::new(cargo_deny);
    command.current_dir(&workspace.root);
    pass(command.args(["--offline", "check", "bans", "licenses", "sources"]))
}

/// Finds cargo-deny in the version wanted, or builds it into the build directory.
fn cargo_deny(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.target.join("tools");
    let ours = tools.join("bin/cargo-deny");
    let candidates = [Some(ours.clone()), setup::find_program("cargo-deny")];
    for candidate in candidates.into_iter().flatten().filter(|path| path.is_file()) {
        let version = capture(Command::new(&candidate).arg("--version"))?;
        if version.split_whitespace().any(|word| word == CARGO_DENY) {
            return Ok(candidate);
        }
    }
    println!("deny: building cargo-deny {CARGO_DENY}, once");
    let mut cargo = workspace.cargo("install");
    cargo.args(["--locked", "cargo-deny", "--version", CARGO_DENY, "--root"]).arg(&tools);
    pass(&mut cargo)?;
    Ok(ours)
}

/// Runs a command whose output is for the reader and whose exit code is the result.
fn pass(command: &mut Command) -> Result<()> {
    let ended = stream(command, None, |line| println!("{line}"))?;
    if !ended.is_success() {
        bail!("{} failed", crate::process::shown(command));
    }
    Ok(())
}
