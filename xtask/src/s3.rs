//! A small S3 server, which blob stores are tried with in a `--full` run.

use crate::process::capture_long;
use crate::workspace::Workspace;
use anyhow::Result;
use std::path::PathBuf;

/// Newer ones need a newer compiler.
const VERSION: &str = "0.14.1";

/// The server, where it is built already.
pub(crate) fn built(workspace: &Workspace) -> Option<PathBuf> {
    let program = workspace.target.join("tools/bin/s3s-fs");
    program.is_file().then_some(program)
}

/// Builds the server into the build directory, once.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    if built(workspace).is_some() {
        return Ok(());
    }
    println!("test: building s3s-fs {VERSION}, once");
    let mut cargo = workspace.cargo("install");
    cargo.args(["--locked", "s3s-fs", "--version", VERSION, "--features", "binary", "--root"]);
    cargo.arg(workspace.target.join("tools"));
    capture_long(&mut cargo).map(drop)
}
