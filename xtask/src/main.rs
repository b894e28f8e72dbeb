//! Tasks of the workspace: `cargo xtask --help` lists them.
//!
//! In: the verb and its options. Out: what a person or a CI log reads, and the exit code. Every
//! verb first makes sure that the Debian packages it needs are there ([`setup`]), so that a fresh
//! clone needs nothing but rustup's toolchain and a C linker.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod demo;
mod dist;
mod elf;
mod http;
mod interrupt;
mod lab;
mod later;
mod libtest;
mod manual;
mod openapi;
mod process;
mod rings;
mod s3;
mod setup;
mod vm;
mod workspace;

use crate::workspace::Workspace;
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Tasks of the Pointsman workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show a chain of four programs on real packets, changed while they flow.
    ///
    /// Needs root. Builds, makes network namespaces and a veth pair of its own, starts the daemon
    /// there, applies a node document, sends UDP traffic, re-orders and upgrades the chain under
    /// it, and accounts for every packet. Then the fleet: a control plane and three hosts, one change
    /// through the API, packets on all three. Cleans up. Exit code 1 if anything is unaccounted for.
    Demo(demo::Options),
    /// Measure. Never a test: figures depend on the machine.
    Bench(bench::Options),
    /// Install the Debian packages that building and testing need.
    ///
    /// As root: installs what is missing. Otherwise: names the command to run.
    Setup,
    /// Run the tests, ring by ring, and say what was skipped and why.
    ///
    /// Rings: `pure` needs no privileges; `netns` needs root and sends packets through the host's
    /// kernel inside namespaces of its own; `vm` needs root and repeats kernel-dependent tests on
    /// Debian's stock kernel under emulation, 6.1 and with --full 6.12; `systemd`, with --full or
    /// when named, tries the packaged unit under systemd in the emulated machine. At most 20 minutes
    /// on two cores, unless --full.
    Test(rings::Options),
    /// Run tests on Debian's stock kernel in an emulated machine.
    Vm(vm::Options),
    /// Run all that a change must pass: lockfile, fmt, clippy, deny, doc, OpenAPI, tests.
    Ci,
    /// Rewrite docs/openapi-*.json from the services' code.
    Openapi,
    /// Write the man pages of all binaries and their verbs.
    Man(manual::Options),
    /// Write the completions of all binaries for bash, fish and zsh.
    Completions(manual::Options),
    /// Make what is handed out: Debian packages and an archive in dist/, the image's files in
    /// manager/.
    ///
    /// Builds with the release profile. The same source and SOURCE_DATE_EPOCH (default: the time of
    /// the last commit) give the same files. DEBFULLNAME and DEBEMAIL name the maintainer.
    Dist(dist::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    interrupt::install()?;
    let workspace = Workspace::locate()?;
    match verb {
        Verb::Demo(options) => demo::run(&workspace, &options),
        Verb::Bench(options) => bench::run(&workspace, &options),
        Verb::Setup => setup::run(),
        Verb::Test(options) => Ok(rings::run(&workspace, &options)),
        Verb::Vm(options) => vm::run(&workspace, &options),
        Verb::Ci => ci::run(&workspace),
        Verb::Openapi => openapi::rewrite(&workspace),
        Verb::Man(options) => manual::pages(&workspace, &options),
        Verb::Completions(options) => manual::completions(&workspace, &options),
        Verb::Dist(options) => dist::run(&workspace, &options),
    }
}
